"""A chain of transforms: read from a spec, checked before it runs, applied to a Group."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from rmkit import plugins
from rmkit.config import build
from rmkit.errors import ConfigError, DataError, UsageError, unknown
from rmkit.shaping.group import Group, Kind
from rmkit.shaping.preset import Preset, presets
from rmkit.shaping.transform import STAGES, Stage, Transform, merged

Spec = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]


class Link(NamedTuple):
    """One transform of a chain and its name there: that of the preset it belongs to, then its own.

    `needs` are the transform's, read once: a service applies a chain to thousands of small groups.
    """

    name: str
    transform: Transform
    needs: Mapping[str, Kind]


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Transforms one after the other. `spec` is what it was read from, as canonical JSON; `needs` are the columns that
    must come with the rewards, with their kind, a link's own results not among them."""

    links: tuple[Link, ...]
    spec: str
    needs: Mapping[str, Kind]

    @property
    def gives(self) -> list[str]:
        """The columns that it writes, in order of their first writing."""
        return [name for name in dict.fromkeys(link.transform.gives for link in self.links) if not name.startswith("_")]

    def apply(self, group: Group) -> Group:
        """The group with all that the chain writes.

        Raises DataError, which names the transform, for a column that is not there, is no number or list as needed, or
        has other lengths than those that it meets.
        """
        for link in self.links:
            try:
                for name, kind in link.needs.items():
                    if kind != "key":
                        actual = group.number(name).kind
                        if kind != "number" and actual != kind:
                            raise DataError(f"column {name!r} is a {actual}, expected a {kind}")
                    else:
                        group.column(name)
                group = link.transform.apply(group)
            except DataError as error:
                raise DataError(f"transform {link.name}: {error}") from error
        return Group(group.n, {name: column for name, column in group.columns.items() if not name.startswith("_")})


def chain(spec: Spec, *, trusted: bool = False) -> Chain:
    """The chain of a name, a table with `use` and options, or a list of both; presets are unfolded.

    `trusted` lets "module:object" name a transform (see `rmkit.plugins`). Raises ConfigError for an unknown transform
    or option, with the nearest one, and for an order that goes back over the stages.
    """
    items = [spec] if isinstance(spec, str | Mapping) else list(spec)
    try:
        text = json.dumps(items, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"chain: expected names and tables, got {spec!r}: {error}") from error
    return _chain(text, trusted)


@lru_cache(maxsize=256)
def _chain(text: str, trusted: bool) -> Chain:
    links = tuple(_links(json.loads(text), "", trusted))
    written: set[str] = set()
    needs: dict[str, Kind] = {}
    for link in links:
        needs = merged(needs, {name: kind for name, kind in link.needs.items() if name not in written})
        written.add(link.transform.gives)
    return Chain(links, text, needs)


def _links(items: Sequence[Any], inside: str, trusted: bool) -> list[Link]:
    links: list[Link] = []
    latest: tuple[Stage, str] = ("sample", "")
    for item in items:
        name, options = _item(item)
        target = _target(name, trusted)
        label = f"{inside}.{name}" if inside else name
        if isinstance(target, Preset):
            new = _links(target.steps(options, where=f"chain: {label}"), label, trusted)
            stage, anywhere = target.stage, False
        else:
            new = [_built(target, options, label)]
            stage, anywhere = target.stage, target.anywhere
        if not anywhere:
            if STAGES.index(stage) < STAGES.index(latest[0]):
                raise ConfigError(
                    f"chain: {label} belongs to the stage {stage}, but stands behind {latest[1]} of the stage "
                    f"{latest[0]}; the order is {', '.join(STAGES)}: put it before"
                )
            latest = stage, label
        links += new
    return links


def _built(target: type[Transform], options: Mapping[str, Any], name: str) -> Link:
    where = f"chain: {name}"
    try:
        transform = build(target, options, where=where)
        return Link(name, transform, transform.needs)
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(where) else f"{where}: {message}") from error


def _item(item: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        return item, {}
    if isinstance(item, Mapping) and isinstance(item.get("use"), str):
        return item["use"], {key: value for key, value in item.items() if key != "use"}
    raise ConfigError(f"chain: expected a name or a table with `use`, got {item!r}")


def _target(name: str, trusted: bool) -> type[Transform] | Preset:
    if name in presets():
        return presets()[name]
    try:
        target = plugins.resolve("transforms", name, trusted=trusted)
    except UsageError as error:
        if "cannot be loaded" in str(error):
            raise
        known = [*plugins.names("transforms"), *presets()]
        raise ConfigError(f"chain: {unknown('transform', name, known)}") from None
    if isinstance(target, Mapping):
        return build(Preset, target, where=f"preset {name}")
    if isinstance(target, type) and issubclass(target, Transform):
        return target
    raise ConfigError(f"chain: {name!r} is no transform: {target!r}; it must be a subclass of Transform or a preset")
