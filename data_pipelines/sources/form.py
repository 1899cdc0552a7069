"""A form of rows as data: what tells it, where each role lies, what its label values mean.

Published forms (`forms.toml`), a user's `--map` and `--values`, and a map saved with `--save-map` are all this one
thing; `table_reader` turns a row of it into units.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from data_pipelines.sources.paths import MISSING, value_at
from data_pipelines.sources.paths import parse as parse_path
from data_pipelines.sources.verdicts import Values, parse_values
from rmkit.errors import ConfigError, UsageError, unknown

ROLES: dict[str, str] = {
    "prompt": "what is asked: text, a list of turns, or text with Human: and Assistant: marks",
    "system": "a system text that stands before the prompt",
    "history": "earlier turns, or [question, answer] pairs, that stand before the prompt",
    "talk": "a whole conversation that ends with the reply",
    "text": "one text that holds prompt and reply, cut by --split-text",
    "chosen": "the better reply, or replies",
    "rejected": "the worse reply, or replies",
    "response_a": "the first reply of a vote",
    "response_b": "the second",
    "preference": "which of the two: a, b, tie, a column's or a model's name, or what --values says",
    "votes": "a list of objects, each one rater's verdict on the two",
    "responses": "several replies as a list",
    "scores": "a number for each of them, higher is better",
    "ranks": "a rank for each of them, lowest is best",
    "answer": "which of them is right: a letter, or its text",
    "response": "a single reply",
    "score": "its number; score.ASPECT names one of several",
    "aspect": "the column that names what the score is about",
    "label": "true or false of a single reply: desirable or not",
    "steps": "the steps of a single reply",
    "step_labels": "true, false or null, or a number, for each",
    "first_error": "the first wrong step from 0, -1 for none",
    "reference": "the right answer",
    "rubric": "criteria: a list, or numbered lines",
    "tools": "tool schemas: a list, or JSON text",
    "rater": "who judged",
    "rater_kind": "what that rater is: human, llm, code ...",
    "rationale": "why",
    "margin": "how strongly",
    "edit": "the corrected reply",
    "score_a": "the number of the first reply",
    "score_b": "the number of the second",
    "chosen_model": "who wrote the better reply",
    "rejected_model": "who wrote the worse",
    "model_a": "who wrote the first reply",
    "model_b": "who wrote the second",
    "model": "who wrote the single reply",
    "models": "who wrote each of the replies",
    "time": "when it was judged",
    "duration": "how long that took",
    "confidence": "how sure the rater was",
    "language": "the language of the row",
    "shown_order": "positions of the replies in the order shown",
    "item": "the id under which --items holds the texts",
    "id": "the row's own id",
    "subset": "a part of the data",
    "split": "train, dev or test",
    "license": "the row's own license",
}
TEXT_ROLES = ("prompt", "talk", "chosen", "rejected", "response_a", "response_b", "responses", "response", "steps")
SHAPES = (  # sets of roles that make a unit, the most telling first
    ("chosen", "rejected"),
    ("talk", "rejected"),
    ("response_a", "response_b"),
    ("responses",),
    ("steps",),
    ("response",),
    ("talk",),
    ("text",),
    ("prompt", "rubric"),
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form.

    `signature` are columns (or paths) that every row of it has, `any_of` those of which it has one, `absent` those
    that none has, `label_values` the only values of `label_column`. An `exact` form has no columns besides those that
    it names: its signature is one that anybody's file may have. `rater` and `kind` stand for every label of a form
    without a column for them; with `rater_of_file` the rater is who the file is named for, where there are several.
    With `named_people` the kind holds for names of people alone (see `raters`), others are unknown. `is_benchmark`
    keeps the rows out of training. `needs_items` says that the texts are in another file. `strip` takes blanks off the
    ends of replies. `wide` are columns (or patterns like annotator*) with one rater's label each, `repeats` columns
    that only say again what a role says. `label_scale = "signed"` reads steps as -1 wrong, 0 neutral, 1 right.
    `rationale_after` is what ends the part of a rationale that only repeats the label. In an open form other columns
    are read by their names (rater, time, models ...). `implicit` allows a prompt that is only the beginning which both
    replies share. `note` is for the documentation.
    """

    name: str
    about: str = ""
    signature: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    exact: bool = False
    label_column: str = ""
    label_values: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    values: Values = field(default_factory=Values)
    rater: str = ""
    kind: str = ""
    rater_of_file: bool = False
    named_people: bool = False
    aspect: str = "score"
    note: str = ""
    needs_items: bool = False
    strip: bool = False
    is_benchmark: bool = False
    split_text: str = ""
    wide: tuple[str, ...] = ()
    repeats: tuple[str, ...] = ()
    label_scale: str = ""
    rationale_after: str = ""
    is_open: bool = False
    implicit: bool = False

    def matches(self, row: Mapping[str, Any]) -> bool:
        if not all(value_at(row, parse_path(name)) is not MISSING for name in self.signature):
            return False
        if any(name in row for name in self.absent) or not (
            not self.any_of or any(name in row for name in self.any_of)
        ):
            return False
        if self.exact and not self._own_columns.issuperset(row):
            return False
        if not self.label_column:
            return True
        value = value_at(row, parse_path(self.label_column))
        known = {text.lower() for text in self.label_values}
        return value is None or str(value).strip().lower().removesuffix(".0") in known

    @cached_property
    def _own_columns(self) -> frozenset[str]:
        named = [*self.signature, *self.any_of, *self.wide, *self.repeats, *self.roles.values()]
        return frozenset(column for path in named for column in parse_path(path).columns)


def shape_of(roles: Mapping[str, str]) -> tuple[str, ...] | None:
    """The roles that decide what a row of these becomes, None where they make no unit."""
    return next((shape for shape in SHAPES if all(name in roles for name in shape)), None)


def parse_map(text: str) -> dict[str, str]:
    """{role: path} from "role=path,role=path". Raises UsageError for an unknown or repeated role."""
    roles: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, path = (piece.strip() for piece in part.partition("="))
        if not sign or not path:
            raise UsageError(f"--map takes ROLE=COLUMN, got {part!r}; the roles are: {', '.join(ROLES)}")
        check_role(name)
        if name in roles:
            raise UsageError(f"--map names {part!r} twice")
        parse_path(path)
        roles[name] = path
    return roles


def check_role(name: str) -> None:
    """Raises UsageError for an unknown role."""
    if name not in ROLES and not (name.startswith("score.") and len(name) > 6):
        raise UsageError(f"--map: {unknown('role', name, list(ROLES))}")


def build(name: str, table: Mapping[str, Any], *, where: str) -> Form:
    """A form from its TOML table. Raises ConfigError for an unknown key."""
    known = {key for key in Form.__dataclass_fields__ if key != "name"} | {"example"}
    if odd := sorted(set(table) - known):
        raise ConfigError(f"{where}: form {name!r}: {unknown('key', odd[0], sorted(known))}")
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    settings.pop("example", None)
    if "values" in settings:
        settings["values"] = parse_values(settings["values"])
    for role, path in settings.get("roles", {}).items():
        check_role(role)
        parse_path(path)
    return Form(name=name, **settings)


@cache
def tables() -> Mapping[str, Mapping[str, Any]]:
    """The published forms as they stand in forms.toml."""
    return tomllib.loads(Path(__file__).with_name("forms.toml").read_text(encoding="utf-8"))


@cache
def published() -> Sequence[Form]:
    """The published forms that are data, the order of the file."""
    return [build(name, table, where="forms.toml") for name, table in tables().items()]
