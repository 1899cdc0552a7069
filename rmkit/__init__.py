"""rmkit: from human, model and verifier feedback to trustworthy reward models.

What `import rmkit` offers is the group `front_door` of `rmkit.plugins`, each name imported when it is first used; see
docs/python.md. Types for checkers stand in `__init__.pyi`, since what is offered lies in rooms above this one.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    from rmkit.plugins import BUILT_IN, resolve

    if name not in BUILT_IN["front_door"]:
        raise AttributeError(f"module 'rmkit' has no attribute {name!r}")
    return resolve("front_door", name)


def __dir__() -> list[str]:
    from rmkit.plugins import BUILT_IN

    return sorted([*globals(), *BUILT_IN["front_door"]])
