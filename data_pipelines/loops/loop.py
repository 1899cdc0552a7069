"""A loop: a TOML of steps that makes a policy, a judge or a reward model better, round by round.

    [loop]
    name = "rest"
    description = "..."
    rounds = 3

    [settings]                                   # what --set and --config change; without a default it must be given
    policy = {help = "folder of a causal language model"}
    samples = {default = 4, help = "replies a prompt"}

    [[step]]
    use = "generate"
    data = "{data}"
    generator = {backend = "local", model = "{policy}"}
    samples = "{samples}"

A step is one of the loop's own (`join`, `train_policy`, `train_reward`, `evaluate`), a converter, or a step of
recipes, with their options. `{NAME}` stands for a setting (of a list: the round's entry, the last one for all later
rounds), for `data` (the version given), `version` (the dataset version that came last), `round`, `rounds`, or for what
an earlier step left under the name of its `as`. `previous_NAME` is what NAME stood for before a step last changed it
(or what it stands for, where that was the first), `first_NAME` the setting of that name.

    once = true      before the first round only; with "{round}" = 0
    data = "..."     the version to start from instead of the one that came last
    as = "NAME"      the name under which later steps, and rounds, find the artifact or version of this step
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from rmkit import plugins
from rmkit.config import build, read_toml
from rmkit.errors import ConfigError, unknown

Kind = Literal["loop", "converter", "recipe"]
GROUPS: dict[Kind, str] = {"loop": "loop_steps", "converter": "converters", "recipe": "steps"}
GIVEN = ("data", "version", "round", "rounds")
_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A number or text that the steps read as {NAME}; None as default: it must be given. A default may be another
    setting in braces."""

    default: Any = None
    help: str = ""


@dataclass(frozen=True, kw_only=True)
class LoopStep:
    """`options` are those of `use`, names in braces and all."""

    use: str
    kind: Kind
    options: Mapping[str, Any]
    once: bool = False
    data: str = ""
    name: str = ""

    def config(self, names: Mapping[str, Any], *, where: str) -> Any:
        """The config of the step with these names filled in. Raises ConfigError."""
        config: Any = build(
            plugins.resolve(GROUPS[self.kind], self.use, trusted=True).Config,
            filled(dict(self.options), names, where=where),
            where=f"{where} ({self.use})",
        )
        return config


@dataclass(frozen=True, kw_only=True)
class Climb:
    """Hill-climbing on one setting: a round is taken where `measure` (STEP.FACT) rose, else undone, and the setting
    turns around; it moves by `by` each round."""

    setting: str
    measure: str
    by: float


@dataclass(frozen=True, kw_only=True)
class Loop:
    """`names` are the settings' values."""

    name: str
    description: str
    rounds: int
    settings: Mapping[str, Setting]
    steps: tuple[LoopStep, ...]
    climb: Climb | None = None
    names: Mapping[str, Any] = field(default_factory=dict)

    def with_settings(self, values: Mapping[str, Any]) -> Loop:
        """The loop with these values over the defaults, checked as far as they can be before it runs.

        Raises ConfigError for an unknown setting, one of another type, one that is missing, and for whatever a step
        says of its options.
        """
        where = f"loop {self.name}"
        rounds, values = values.get("rounds", self.rounds), {k: v for k, v in values.items() if k != "rounds"}
        if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
            raise ConfigError(f"{where}: rounds: expected a positive whole number, got {rounds!r}")
        for name, value in values.items():
            if name not in self.settings:
                raise ConfigError(f"{where}: {unknown('setting', name, [*self.settings, 'rounds'])}")
            _check_type(value, self.settings[name].default, where=f"{where}: {name}")
        names = {name: values.get(name, setting.default) for name, setting in self.settings.items()}
        names = {name: filled(value, names, where=f"{where}: {name}") for name, value in names.items()}
        if missing := [name for name, value in names.items() if value is None]:
            raise ConfigError(f"{where}: missing {', '.join(missing)}; give each as --set NAME=VALUE")
        result = Loop(**{**vars(self), "rounds": rounds, "names": names})
        result._check(where)
        return result

    def names_of(self, number: int, *, data: str) -> dict[str, Any]:
        """What the names in braces stand for in a round (from 1; 0: before the first), but for what steps leave."""
        at = max(number, 1) - 1
        own = {name: value[min(at, len(value) - 1)] if isinstance(value, list) else value
               for name, value in self.names.items()}  # fmt: skip
        return own | {"data": data, "version": data, "round": number, "rounds": self.rounds}

    def _check(self, where: str) -> None:
        names = self.names_of(1, data="data")
        left = {step.name: "artifact" for step in self.steps if step.name}
        names |= {f"first_{name}": value for name, value in names.items()}
        names |= left | {f"previous_{name}": value for name, value in left.items()}
        for number, step in enumerate(self.steps, 1):
            place = f"{where}: step {number}"
            filled(step.data, names, where=place)
            step.config(names, where=place)


def shipped() -> dict[str, Path]:
    """The loops that come with rmkit, by name."""
    folder = Path(str(resources.files("data_pipelines.loops")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_loop(name_or_path: str) -> Loop:
    """A shipped loop by name, or a TOML file. Raises ConfigError naming what is wrong and what is known."""
    known = shipped()
    path = known.get(name_or_path, Path(name_or_path))
    if not path.suffix and not path.exists():
        raise ConfigError(f"{unknown('loop', name_or_path, known)}; or give the path of a TOML file")
    return parse_loop(read_toml(path), where=str(path))


@dataclass(frozen=True, kw_only=True)
class _Head:
    name: str
    description: str = ""
    rounds: int = 3


def parse_loop(table: Mapping[str, Any], *, where: str) -> Loop:
    """The loop in a TOML table; its settings have no values yet. Raises ConfigError."""
    steps = table.get("step")
    if extra := sorted(set(table) - {"loop", "settings", "step", "climb"}):
        raise ConfigError(f"{where}: {unknown('table', extra[0], ('loop', 'settings', 'step', 'climb'))}")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise ConfigError(f"{where}: no [[step]]; a loop has a [loop] with a name and a list of [[step]] with `use`")
    head = build(_Head, table.get("loop", {}), where=f"{where}: loop")
    settings = {
        name: build(Setting, value if isinstance(value, dict) else {"default": value}, where=f"{where}: {name}")
        for name, value in table.get("settings", {}).items()
    }
    if taken := [name for name in settings if name in GIVEN]:
        raise ConfigError(f"{where}: settings: {taken[0]} is given by the loop; take another name")
    climb = build(Climb, table["climb"], where=f"{where}: climb") if "climb" in table else None
    return Loop(
        name=head.name,
        description=head.description,
        rounds=head.rounds,
        settings=settings,
        steps=tuple(_step(dict(step), where=f"{where}: step {number}") for number, step in enumerate(steps, 1)),
        climb=climb,
    )


def _step(options: dict[str, Any], *, where: str) -> LoopStep:
    use = options.pop("use", None)
    if not isinstance(use, str):
        raise ConfigError(f'{where} does not say which; add: use = "NAME"')
    own: dict[str, Any] = {key: options.pop(key) for key in ("once", "data", "as") if key in options}
    wrong = [
        key for key, kind in (("once", bool), ("data", str), ("as", str)) if not isinstance(own.get(key, kind()), kind)
    ]
    if wrong:
        raise ConfigError(f"{where} ({use}): {wrong[0]}: got {own[wrong[0]]!r}")
    kinds: list[Kind] = [kind for kind, group in GROUPS.items() if use in plugins.names(group)]
    if not kinds and ":" not in use:
        known = [name for group in GROUPS.values() for name in plugins.names(group)]
        raise ConfigError(f"{where}: {unknown('step', use, known)}")
    kind = kinds[0] if kinds else "recipe"
    return LoopStep(
        use=use,
        kind=kind,
        options=options,
        once=own.get("once", False),
        data=own.get("data", ""),
        name=own.get("as", ""),
    )


def filled(value: Any, names: Mapping[str, Any], *, where: str) -> Any:
    """The value with {NAME} replaced; a text that is one name alone becomes what that stands for, a number say.

    Raises ConfigError for a name that nothing stands for.
    """
    if isinstance(value, Mapping):
        return {key: filled(one, names, where=where) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [filled(one, names, where=where) for one in value]
    if not isinstance(value, str):
        return value
    for name in _NAME.findall(value):
        if name not in names:
            raise ConfigError(f"{where}: {unknown('name in braces', name, names)}")
    if alone := _NAME.fullmatch(value):
        return names[alone[1]]
    return _NAME.sub(lambda match: str(names[match[1]]), value)


def _check_type(value: Any, default: Any, *, where: str) -> None:
    if default is None:
        return
    kinds: Sequence[type] = (int, float) if isinstance(default, float) else (type(default),)
    if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, (*kinds, list)):
        raise ConfigError(f"{where}: expected {type(default).__name__} (as {default!r}), got {value!r}")
