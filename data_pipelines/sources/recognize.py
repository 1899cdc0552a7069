"""From a sample of rows to how the whole file is read: which form, which column plays which role, and why.

Published forms come first, by what their rows must have; a table that none knows is read by names, types and relations
(`infer`). Detection is a function of content: the order of columns and rows changes nothing.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from data_pipelines.sources import all_sources, find, paths
from data_pipelines.sources.cells import Kind, parsed_columns, with_content
from data_pipelines.sources.form import Form, shape_of
from data_pipelines.sources.inference.columns import Guess, columns_of
from data_pipelines.sources.inference.questions import counted, meaning_needed, undecided
from data_pipelines.sources.inference.roles import guess
from data_pipelines.sources.role_values import UnknownVerdictError
from data_pipelines.sources.source import Source
from data_pipelines.sources.table_reader import TableReader
from data_pipelines.sources.talks import holds_talk
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError
from data_pipelines.sources.verdicts import Values
from rmkit.errors import DataError, UsageError

CHECKED_ROWS = 200
TEXTS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What the user says about the rows; empty where they leave it to detection."""

    format: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    values: Values | None = None
    wide: tuple[str, ...] = ()
    rater_kind: str | None = None
    split_text: str | None = None
    item_columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every row is read. `fast` maps columns to prompt, chosen and rejected where rows may take the bulk route."""

    name: str
    units: Callable[[Row], Iterator[Unit]]
    form: Form | None = None
    why: Mapping[str, str] = field(default_factory=dict)
    parsed: Mapping[str, Kind] = field(default_factory=dict)
    fast: Mapping[str, str] | None = None
    forced: bool = False
    is_benchmark: bool = False
    notes: tuple[str, ...] = ()

    def as_source(self) -> Source:
        return Source(self.name, "", lambda row: True, self.read)

    def read(self, row: Row) -> Iterator[Unit]:
        """The units of a raw row. Raises UnusableRowError."""
        return self.units(with_content(row, self.parsed) if self.parsed else row)


def recognize(sample: Sequence[Row], *, path: object, hints: Hints | None = None) -> Plan:
    """Raises DataError where the rows are in no known form and their columns are not clear, saying what was seen."""
    hints = hints or Hints()
    parsed = parsed_columns(sample)
    rows = [row for raw in sample if (row := _content(raw, parsed)) is not None]
    if hints.rater_kind and hints.rater_kind not in _RATER_KINDS:
        _check_kind_column(hints.rater_kind, rows, path)
    plan = _plan(rows, path, hints)
    plan = replace(plan, parsed=parsed, forced=bool(hints.format or hints.roles))
    if plan.form is not None:
        _check_verdicts(rows, plan, path)
    return plan


def _check_kind_column(name: str, rows: Sequence[Row], path: object) -> None:
    """Raises UsageError where --rater-kind names neither a kind nor a column."""
    if all(paths.value_at(row, paths.parse(name)) is paths.MISSING for row in rows):
        raise UsageError(
            f"{path}: --rater-kind takes {', '.join(_RATER_KINDS)} or a column that says it, got {name!r}; it has: "
            f"{', '.join(columns_of(rows))}"
        )


def with_form(plan: Plan, form: Form) -> Plan:
    """The same plan under another form of the same roles."""
    return replace(plan, form=form, units=TableReader(form))


def _content(row: Row, parsed: Mapping[str, Kind]) -> Row | None:
    try:
        return with_content(row, parsed) if parsed else row
    except UnusableRowError:
        return None


def _plan(rows: Sequence[Row], path: object, hints: Hints) -> Plan:
    if hints.roles:
        return _mapped(rows, path, hints)
    if hints.format:
        return _of_source(find(hints.format), rows, path, hints)
    sources = all_sources()
    few = rows[:: max(1, len(rows) // CHECKED_ROWS)]  # each is looked at under more than a hundred forms
    counts = [sum(source.matches(row) for row in few) for source in sources]
    best = sources[counts.index(max(counts))] if any(counts) else None
    if best is not None and not hints.wide and best.name not in ("trl", "generic") and not _is_compared(best, rows):
        return _of_source(best, rows, path, hints)
    return _inferred(rows, path, hints)


def _is_compared(source: Source, rows: Sequence[Row]) -> bool:
    """Whether rows that a form takes for single replies hold two replies and a verdict beside the talk."""
    if source.form is None or not source.form.is_open or shape_of(source.form.roles) not in (("talk",), ("response",)):
        return False
    roles = guess(rows).roles
    return {"response_a", "response_b", "preference"} <= set(roles) or {"chosen", "rejected"} <= set(roles)


def _of_source(source: Source, rows: Sequence[Row], path: object, hints: Hints) -> Plan:
    if source.name in ("trl", "generic"):
        return _inferred(rows, path, hints, name=source.name)
    if source.form is None:
        return Plan(name=source.name, units=source.units, is_benchmark=source.is_benchmark)
    form = _adjusted(source.form, hints)
    present = columns_of(rows)
    dropped = {
        role
        for role, text in form.roles.items()
        if text.endswith("?") and not any(name in present for name in paths.parse(text).columns)
    }
    form = replace(form, roles={role: text for role, text in form.roles.items() if role not in dropped})
    own = Guess(dict(form.roles), kind=form.kind)
    if form.needs_items:
        own = _item_texts(rows, form, hints)
    if form.is_open:
        seen = guess(rows, given=own.roles, values=form.values, wide=form.wide)
        own = Guess(seen.roles, {**seen.why, **own.why}, kind=seen.kind)
    named_people = not form.kind and own.kind == "human"
    form = replace(form, roles=own.roles, kind=form.kind or own.kind, named_people=named_people)
    _check_wide(form)
    why = own.why
    reasons = {role: why[role] if why.get(role, "--map") != "--map" else "the form" for role in form.roles}
    return Plan(
        name=form.name,
        units=TableReader(form),
        form=form,
        why=reasons,
        fast=_fast(form, rows),
        is_benchmark=form.is_benchmark,
    )


def _item_texts(rows: Sequence[Row], form: Form, hints: Hints) -> Guess:
    """The roles of a form without texts, and those of the texts that --items brought."""
    names = {name: name.removeprefix("items.") for name in hints.item_columns}
    texts = guess([{bare: row.get(name) for name, bare in names.items()} for row in rows])
    own = {bare: name for name, bare in names.items()}
    roles = {role: own[path] for role, path in texts.roles.items() if path in own and role in _ITEM_ROLES}
    return Guess({**roles, **form.roles}, dict.fromkeys(roles, "--items"), kind=form.kind)


_ITEM_ROLES = (
    "prompt",
    "response",
    "response_a",
    "response_b",
    "responses",
    "system",
    "reference",
    "talk",
    "model",
    "model_a",
    "model_b",
)


def _adjusted(form: Form, hints: Hints) -> Form:
    """A form under what the user says of values, raters and texts."""
    changes: dict[str, Any] = {}
    if hints.values is not None:
        changes["values"] = hints.values
    if hints.rater_kind in _RATER_KINDS:
        changes |= {"kind": hints.rater_kind, "named_people": False}
    elif hints.rater_kind:
        changes["roles"] = {**form.roles, "rater_kind": hints.rater_kind}
    if hints.split_text is not None:
        changes["split_text"] = hints.split_text.encode().decode("unicode_escape")
    return replace(form, **changes) if changes else form


_RATER_KINDS = ("human", "llm", "verifier", "rm", "constructed", "unknown")


def wide_columns(patterns: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that --wide names, its patterns spelled out. Raises UsageError for one that matches none."""
    result: list[str] = []
    for pattern in patterns:
        matching = [name for name in columns if name == pattern] or sorted(
            name for name in columns if fnmatch.fnmatchcase(name, pattern)
        )
        if not matching:
            raise UsageError(f"no column matches {pattern!r} of --wide; there are: {', '.join(columns)}")
        result += [name for name in matching if name not in result]
    return tuple(result)


def _check_wide(form: Form) -> None:
    """Raises UsageError for --wide where nothing reads it."""
    if form.wide and shape_of(form.roles) in (("responses",), ("steps",), ("prompt", "rubric"), ("chosen", "rejected")):
        raise UsageError(
            f"--wide goes with two replies that are compared, or with one that is rated; the replies here are "
            f"{', '.join(shape_of(form.roles) or ())}"
        )


def _mapped(rows: Sequence[Row], path: object, hints: Hints) -> Plan:
    columns = columns_of(rows)
    for role, path_text in hints.roles.items():
        named = paths.parse(path_text).columns
        if not path_text.endswith("?") and not any(name in columns for name in named):
            raise UsageError(f"{path}: no column {named[-1]} for the role {role}; it has: {', '.join(columns)}")
    wide = wide_columns(hints.wide, list(columns))
    own = guess(rows, given=hints.roles, values=hints.values, wide=wide)
    form = Form(
        name="generic",
        roles=own.roles,
        values=hints.values or Values(),
        wide=wide,
        kind=own.kind,
        named_people=own.kind == "human",
        implicit="prompt" not in own.roles,
    )
    form = _adjusted(form, hints)
    if own.open and "preference" not in hints.roles and not wide:
        raise DataError(undecided(path, rows, own))
    if shape_of(form.roles) is None:
        raise UsageError(
            f"{path}: --map names no replies: give chosen and rejected, response_a and response_b, responses, "
            f"response, "
            f"talk, or prompt and rubric; it has: {', '.join(columns)}"
        )
    _check_wide(form)
    return _inferred_plan(form, own, rows)


def _inferred(rows: Sequence[Row], path: object, hints: Hints, *, name: str | None = None) -> Plan:
    columns = columns_of(rows)
    wide = wide_columns(hints.wide, list(columns))
    own = guess(rows, values=hints.values, wide=wide)
    shape = shape_of(own.roles)
    implicit = "prompt" not in own.roles and "chosen" in own.roles and not own.texts_left
    sides = [columns[own.roles[role]] for role in ("chosen", "response_a") if own.roles.get(role) in columns]
    talks = any(side.values and all(map(holds_talk, side.values)) for side in sides)
    named = shape is not None and ("prompt" in own.roles or implicit or talks or "talk" in own.roles) and not own.open
    judged = shape != ("response_a", "response_b") or wide or {"preference", "votes", "score_a"} & set(own.roles)
    if not named or not judged:
        raise DataError(undecided(path, rows, own))
    label = name or ("trl" if {"chosen", "rejected"} <= set(own.roles.values()) else "generic")
    form = Form(
        name=label,
        roles=own.roles,
        values=hints.values or Values(),
        wide=wide,
        kind=own.kind,
        named_people=own.kind == "human",
        implicit=implicit,
    )
    form = _adjusted(form, hints)
    _check_wide(form)
    return _inferred_plan(form, own, rows)


def _inferred_plan(form: Form, own: Guess, rows: Sequence[Row]) -> Plan:
    fast = _fast(form, rows)
    return Plan(name=form.name, units=TableReader(form), form=form, why=own.why, fast=fast, notes=tuple(own.notes))


_PLAIN = {*TEXTS, "id", "subset", "split", "license"}


def _fast(form: Form, rows: Sequence[Row]) -> Mapping[str, str] | None:
    """The renaming under which rows are plain pairs that need no Python loop; None where anything more is to be
    read.
    """
    columns = {path.removesuffix("?"): role for role, path in form.roles.items()}
    if not set(TEXTS) <= set(form.roles) or not set(form.roles) <= _PLAIN or _more_than_plain(form):
        return None
    present = {name for row in rows for name in row}
    if any(column not in present for column in columns):
        return None
    return columns


def _more_than_plain(form: Form) -> bool:
    return bool(form.strip or form.repeats or form.values.text or form.rater or form.kind)


def _check_verdicts(rows: Sequence[Row], plan: Plan, path: object) -> None:
    """Raises DataError where most labels of a sample have no stated meaning: numbers, or words nobody knows."""
    unknown: Counter[str] = Counter()
    known = 0
    for row in rows[:CHECKED_ROWS]:
        try:
            list(plan.units(row))
            known += 1
        except UnknownVerdictError as error:
            unknown[error.value] += 1
        except Exception:
            continue
    if sum(unknown.values()) <= known:
        return
    assert plan.form is not None
    column = plan.form.roles.get("preference") or ", ".join(plan.form.wide)
    raise DataError(f"{path}: {column} holds {counted(unknown)}: {meaning_needed(list(unknown))}")
