"""What each extra of rmkit brings, and the command that installs it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
# Where names differ.
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "adbc_driver_manager": "adbc-driver-postgresql",
    "markdown_it": "markdown-it-py",
}


@cache
def distributions() -> Mapping[str, tuple[str, ...]]:
    """Normalized names of the distributions by extra, in the order of pyproject.toml; "" is the base install.

    Read from the checkout's pyproject.toml, else from the metadata of the installed wheel: those of an editable install
    stay as old as its last installation. An extra that asks for other extras of rmkit's has theirs too.
    """
    lines = _checkout() or _wheel()
    direct = {extra: [_parse(line) for line in requirements] for extra, requirements in lines.items()}

    def names(extra: str) -> Iterator[str]:
        for name, extras in direct[extra]:
            if name == "rmkit":
                for other in extras:
                    yield from names(other)
            else:
                yield name

    return {extra: tuple(dict.fromkeys(names(extra))) for extra in direct}


def extra_of(module: str, *, prefer: str = "") -> str | None:
    """The extra that brings this importable module: `prefer` where that does, else the first that does, else None."""
    top = module.partition(".")[0]
    name = _normalized(DISTRIBUTIONS.get(top, top))
    extras = [extra for extra, names in distributions().items() if name in names and extra]
    return prefer if prefer in extras else next(iter(extras), None)


def install_line(extra: str) -> str:
    """The command that installs an extra beside this very rmkit, which is on no package index."""
    if (ROOT / "pyproject.toml").is_file():
        return f"pip install -e '{ROOT}[{extra}]'"
    return f"pip install '{_wheel_file()}[{extra}]'"


def _checkout() -> dict[str, list[str]]:
    path = ROOT / "pyproject.toml"
    if not path.is_file():
        return {}
    import tomllib

    project = tomllib.loads(path.read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def _wheel() -> dict[str, list[str]]:
    by_extra: dict[str, list[str]] = {"": []}
    by_extra |= {extra: [] for extra in metadata.metadata("rmkit").get_all("Provides-Extra") or []}
    for line in metadata.requires("rmkit") or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        by_extra[extra[1] if extra else ""].append(requirement)
    return by_extra


def _wheel_file() -> str:
    """The wheel that this install came from, as pip recorded it; its plain name where that file is gone."""
    recorded = json.loads(metadata.distribution("rmkit").read_text("direct_url.json") or "{}").get("url", "")
    path = Path(unquote(urlsplit(recorded).path))
    if path.suffix == ".whl" and path.is_file():
        return str(path)
    return f"rmkit-{metadata.version('rmkit')}-py3-none-any.whl"


def _parse(requirement: str) -> tuple[str, list[str]]:
    """ "name[one,two]>=1" as the name and its extras."""
    match = re.match(r"\s*([\w.-]+)\s*(?:\[([^]]*)\])?", requirement)
    assert match, requirement
    return _normalized(match[1]), [extra.strip() for extra in (match[2] or "").split(",") if extra.strip()]


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
