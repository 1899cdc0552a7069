"""Rows whose columns have the roles' own names: TRL's preference type, and any table spelled as `--map` spells roles.

TRL's rows may be standard (texts) or conversational (lists of turns). An implicit prompt is what chosen and rejected
share: whole turns, or for texts the longest common beginning, cut back to a word's end (TRL's `extract_prompt` cuts at
the character, which can split a word); only where no column is a prompt. TRL's unpaired and stepwise types are rows of
forms.toml.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from data_pipelines.sources.form import ROLES, Form, shape_of
from data_pipelines.sources.inference.names import PROMPTS
from data_pipelines.sources.source import Source
from data_pipelines.sources.table_reader import TableReader
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError

_SAME = {
    "label": None,  # means too many things
    "text": None,
    "item": None,
    "time": "timestamp",
}


def is_preference(row: Row) -> bool:
    return "chosen" in row and "rejected" in row


def is_named(row: Row) -> bool:
    """Whether columns with the roles' own names make a unit."""
    if "response_a" in row and "response_b" in row:
        return "preference" in row
    return is_preference(row) or (
        "prompt" in row and (isinstance(row.get("responses"), list) or isinstance(row.get("response"), str))
    )


@lru_cache(maxsize=64)
def _reader(name: str, columns: frozenset[str]) -> TableReader:
    roles = {role: role for role in ROLES if role in columns and role not in _SAME}
    implicit = not any(target in columns for target in PROMPTS)
    return TableReader(Form(name=name, roles=roles, implicit=implicit))


def _units(name: str, row: Row) -> Iterator[Unit]:
    reader = _reader(name, frozenset(row))
    if shape_of(reader.form.roles) is None:
        raise UnusableRowError("no columns are named like a prompt and replies")
    yield from reader(row)


def preference(row: Row) -> Iterator[Unit]:
    """A pair; see above."""
    yield from _units("trl", row)


def named(row: Row) -> Iterator[Unit]:
    """The unit that columns with the roles' own names make."""
    yield from _units("generic", row)


TRL = Source(
    "trl",
    "chosen, rejected, prompt explicit or shared",
    is_preference,
    preference,
    labels="chosen is better",
    example={"prompt": "Name a red fruit.", "chosen": "A cherry.", "rejected": "A banana."},
)
GENERIC = Source(
    "generic",
    "columns with the names of roles, or named by --map",
    is_named,
    named,
    labels="words (a, b, tie, left, model_a ...), or --values",
    example={"prompt": "Name a red fruit.", "response_a": "A cherry.", "response_b": "A banana.", "preference": "a"},
)
