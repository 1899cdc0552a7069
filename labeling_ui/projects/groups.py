"""Groups of people, and for whom the items of a project are.

A project has rules; each reserves items for people, by name or by group. A reserved item goes to nobody else, and comes
first to those it is for. Items that no rule names are for everyone in the project. All groups are one record, the
rules of a project another: whoever writes names the version that they have read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labeling_ui.desk.items import Items
from labeling_ui.projects.people import Person, by_name
from rmkit.errors import UsageError
from rmkit.ids import canonical_json
from rmkit.ledger import Ledger

GROUPS, RULES = "people_groups", "assignment_rules"
_ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Items for people. `items` are numbers chosen by hand; `contains` is text in the prompt, whatever its case;
    `first` and `last` bound the numbers. What is left empty does not narrow; one of them must be given."""

    people: tuple[str, ...]
    groups: tuple[str, ...] = ()
    items: tuple[int, ...] = ()
    contains: str = ""
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        if not self.people and not self.groups:
            raise UsageError("an assignment rule names at least one person or group")
        if not self.items and not self.contains and self.first is None and self.last is None:
            raise UsageError("an assignment rule names items: by hand, by a text in the prompt, or by their numbers")


def groups(ledger: Ledger) -> dict[str, tuple[str, ...]]:
    """All groups with their people, by name."""
    record = ledger.record(GROUPS, _ALL)
    return {name: tuple(inside) for name, inside in record.value.items()} if record else {}


def put_group(ledger: Ledger, lead: Person, name: str, people: Iterable[str]) -> None:
    """Make a group of these people, or end it where there are none. Raises ForbiddenError for an unknown person."""
    lead.require("lead", "change groups")
    if not name.strip() or not name.isprintable():
        raise UsageError(f"a group's name must not be empty and has no control characters, got {name!r}")
    inside = sorted({by_name(ledger, one).name for one in people})
    record = ledger.record(GROUPS, _ALL)
    value = dict(record.value) if record else {}
    value.pop(name, None)
    ledger.put(GROUPS, _ALL, value | ({name: inside} if inside else {}), expect=record.version if record else 0)


def rules(ledger: Ledger, project: str) -> list[Rule]:
    """The project's rules in order."""
    record = ledger.record(RULES, project)
    return [read_rule(one) for one in record.value["rules"]] if record else []


def put_rules(ledger: Ledger, lead: Person, project: str, new: Sequence[Rule]) -> None:
    """Replace the project's rules. Raises ForbiddenError for an annotator or an unknown person, UsageError for an
    unknown group."""
    lead.require("lead", "assign items")
    known = groups(ledger)
    for rule in new:
        for name in rule.people:
            by_name(ledger, name)
        if missing := [name for name in rule.groups if name not in known]:
            raise UsageError(f"no group {missing[0]!r}; there are: {', '.join(known) or 'none'}")
    record = ledger.record(RULES, project)
    value = {"rules": [asdict(rule) for rule in new]}
    ledger.put(RULES, project, value, expect=record.version if record else 0)


def read_rule(value: Mapping[str, Any]) -> Rule:
    """A rule as it is stored or sent."""
    lists = {name: tuple(value.get(name) or ()) for name in ("people", "groups", "items")}
    return Rule(**{**value, **lists})


def chosen(rule: Rule, items: Items) -> list[int]:
    """Numbers of the items that the rule names, ascending."""
    inside = np.ones(len(items), bool)
    if rule.items:
        inside = np.isin(np.arange(len(items)), rule.items)
    inside[: rule.first or 0] = False
    if rule.last is not None:
        inside[rule.last + 1 :] = False
    if rule.contains:
        matches = pc.match_substring(items.column("prompt"), _as_json(rule.contains), ignore_case=True)
        inside &= pa.chunked_array(matches).to_numpy()
    return [int(number) for number in np.flatnonzero(inside)]


def _as_json(text: str) -> str:
    """The text as it stands within a stored conversation."""
    return canonical_json(text)[1:-1]


def reserved(ledger: Ledger, project: str, items: Items) -> dict[int, frozenset[str]]:
    """For whom each reserved item is; an item of several rules is for the people of all of them."""
    known = groups(ledger)
    result: dict[int, frozenset[str]] = {}
    for rule in rules(ledger, project):
        names = frozenset(rule.people).union(*(known.get(group, ()) for group in rule.groups))
        for number in chosen(rule, items):
            result[number] = result.get(number, frozenset()) | names
    return result
