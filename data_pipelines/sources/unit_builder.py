"""Building unit rows (warehouse.write.units.UNIT_SCHEMA) out of what a source says, refusing what cannot be judged.

Every importer is a generator from one parsed row to units made with these functions. A row that cannot be used raises
UnusableRowError; its message is the reason kept in the reject table, so it names the fault and never the row's own
values (reasons are counted). The reader has already refused text that is not valid Unicode.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rmkit.chat.reader import read_conversation
from rmkit.errors import DataError
from rmkit.ids import assistant_message, canonical_json, messages_json, user_message
from rmkit.types import Message
from warehouse.write.units import UNSTATED

Row = Mapping[str, Any]
Unit = dict[str, Any]
Judgment = dict[str, Any]
Response = dict[str, Any]


class UnusableRowError(DataError):
    """A row that cannot be used; the message is the reason that goes to the reject table."""


def conversation(value: Any) -> str:
    """Canonical JSON of a prompt: a text becomes one user turn; a list of turns must end with a user or tool turn."""
    if isinstance(value, str):
        if not value.strip():
            raise UnusableRowError("empty prompt")
        return user_message(value)
    messages = turns(value, "prompt")
    if not any(message.content.strip() for message in messages):
        raise UnusableRowError("empty prompt")
    if not any(message.role == "user" for message in messages):
        raise UnusableRowError("no user turn in the prompt")
    if messages[-1].role not in ("user", "tool"):
        raise UnusableRowError("the prompt does not end with a user turn")
    if not messages[-1].content.strip():
        raise UnusableRowError("empty prompt")
    return messages_json(messages)


def turns(value: Any, what: str) -> tuple[Message, ...]:
    """The messages of a list of turns in any spelling that `rmkit.chat.reader` reads."""
    if value is None or (isinstance(value, list) and not value):
        raise UnusableRowError(f"empty {what}")
    if not isinstance(value, list):
        raise UnusableRowError(f"{what} is neither text nor a list of turns")
    try:
        return read_conversation(value, role="user")
    except DataError as error:
        raise UnusableRowError(f"{what}: {error}") from None


def response(value: Any, *, generator: Any = None, step_ends: Sequence[int] | None = None) -> Response:
    """One response from a text or from a list of assistant (and tool) turns."""
    if isinstance(value, str):
        if not value.strip():
            raise UnusableRowError("empty response")
        messages = assistant_message(value)
    else:
        result = turns(value, "response")
        if any(message.role not in ("assistant", "tool") for message in result) or result[0].role != "assistant":
            raise UnusableRowError("a response must consist of assistant turns")
        if not any(m.role == "assistant" and (m.content.strip() or m.tool_calls or m.reasoning) for m in result):
            raise UnusableRowError("empty response")
        messages = messages_json(result)
    return {
        "messages": messages,
        "generator": None if generator is None or generator == "" else str(generator),
        "step_ends": None if step_ends is None else list(step_ends),
    }


def in_steps(steps: Any, *, generator: Any = None) -> Response:
    """One response made of steps joined by blank lines; step_ends are the end of each step's own text."""
    if not isinstance(steps, list) or not steps:
        raise UnusableRowError("no steps")
    if not all(isinstance(step, str) for step in steps):
        raise UnusableRowError("a step is not text")
    if not all(step.strip() for step in steps):
        raise UnusableRowError("empty step")
    ends: list[int] = []
    for step in steps:
        ends.append((ends[-1] + 2 if ends else 0) + len(step))
    return response("\n\n".join(steps), generator=generator, step_ends=ends)


def judgment(
    rater: Any,
    kind: str,
    *,
    ranks: Sequence[int | None] | None = None,
    strength: Any = None,
    scores: Iterable[tuple[int, str, Any]] = (),
    step_labels: Sequence[float | None] | None = None,
    edit: Any = None,
    rationale: Any = None,
    confidence: Any = None,
    duration_s: Any = None,
    time: Any = None,
    extra: Mapping[str, Any] | None = None,
) -> Judgment:
    """One judgment; `edit` is the corrected response (text or turns), scores are (response, aspect, value).

    A `time`, `confidence` or duration that is none (see `moment`) is kept in extra under its name.
    """
    facts: dict[str, tuple[Any, Any]] = {"time": (time, moment(time)), "confidence": (confidence, _number(confidence))}
    seconds = _number(duration_s)
    facts["duration_s"] = (duration_s, seconds)
    unread = {name: raw for name, (raw, value) in facts.items() if value is None and raw not in (None, "")}
    extra = {**(extra or {}), **unread}
    return {
        "rater": str(rater),
        "rater_kind": kind,
        "ranks": None if ranks is None else list(ranks),
        "shown_order": None,
        "column_order": None,
        "strength": None if strength is None else finite(strength, "strength"),
        "scores": [{"response": at, "aspect": aspect, "value": finite(value, "score")} for at, aspect, value in scores]
        or None,
        "step_labels": None if step_labels is None else list(step_labels),
        "edit": None if edit is None else response(edit)["messages"],
        "rationale": rationale if isinstance(rationale, str) and rationale.strip() else None,
        "confidence": facts["confidence"][1],
        "active_ms": None if seconds is None else round(1000 * seconds),
        "time": facts["time"][1],
        "extra": json_object(extra) if extra else None,
    }


def moment(value: Any) -> datetime | None:
    """A point in time as UTC: ISO 8601 (a time without zone counts as UTC), or seconds, milliseconds or microseconds
    since 1970; None for anything else, a date like 03/04/2026 among it, which reads in two ways."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    number = _number(value)
    if number is not None:
        scale = next((scale for scale in (1, 1e3, 1e6) if 1e8 <= number / scale < 1e10), None)  # 1973 to 2286
        return None if scale is None else datetime.fromtimestamp(number / scale, UTC)
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d", value.strip()):
        return None
    try:
        return moment(datetime.fromisoformat(value.strip().removesuffix(" UTC")))
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) or value is None else finite(value, "number")
    except UnusableRowError:
        return None


def unit(
    prompt: Any,
    responses: Sequence[Response],
    judgments: Iterable[Judgment] = (),
    *,
    kind: str | None = None,
    in_columns: bool = False,
    row_id: Any = None,
    rubric: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    reference: str | None = None,
    subset: Any = None,
    split: Any = None,
    license: Any = None,
    meta: Mapping[str, Any] | None = None,
) -> Unit:
    """One unit; `kind` follows from the number of responses (single, pair, list) where it is not given.

    `in_columns` says that the responses stand in the order of the file's columns, and that this order does not say
    which is better (response_a and response_b, not chosen and rejected).

    Raises UnusableRowError where all of several responses are the same: nobody can prefer one of them.
    """
    if len(responses) > 1 and len({item["messages"] for item in responses}) == 1:
        raise UnusableRowError("identical responses")
    judgments = list(judgments)
    for verdict in judgments if in_columns else ():
        if verdict["ranks"] is not None:
            verdict["column_order"] = list(range(len(responses)))
    return {
        "line": 0,
        "source_row": None if row_id is None or row_id == "" else str(row_id),
        "kind": kind or ("single", "pair", "list")[min(len(responses), 3) - 1],
        "prompt": conversation(prompt),
        "responses": list(responses),
        "judgments": judgments,
        "rubric": rubric,
        "tools": canonical_json(list(tools)) if tools else None,
        "reference": None if reference in (None, "") else str(reference),
        "subset": None if subset is None else str(subset),
        "split": split_name(split),
        "license": license if isinstance(license, str) and license else None,
        "meta": json_object(meta) if meta else None,
    }


def pair(
    prompt: Any,
    chosen: Response,
    rejected: Response,
    *,
    rater: str = UNSTATED,
    rater_kind: str = "unknown",
    strength: Any = None,
    scores: Iterable[tuple[int, str, Any]] = (),
    **about: Any,
) -> Unit:
    """A pair whose first response won the only judgment; `about` is the unit's row_id, subset, split, license, meta."""
    verdict = judgment(rater, rater_kind, ranks=[0, 1], strength=strength, scores=scores)
    return unit(prompt, [chosen, rejected], [verdict], **about)


def ranks_of(values: Sequence[float | None], *, best: str = "high") -> list[int | None]:
    """Dense ranks, 0 best, equal values tie, None stays None. `best` says which end of the scale wins: high or low."""
    known = sorted({value for value in values if value is not None}, reverse=best == "high")
    place = {value: rank for rank, value in enumerate(known)}
    return [None if value is None else place[value] for value in values]


def signed_ranks(strength: float) -> list[int | None]:
    """Ranks of a pair from a signed preference: negative for the first response, positive for the second, 0 a tie."""
    return ranks_of([-strength, strength])


def require(holds: bool, what: str) -> None:
    """Raises UnusableRowError where a row is not of its file's form."""
    if not holds:
        raise UnusableRowError(f"the row lacks {what}")


def field(row: Row, name: str) -> Any:
    """The value of a field that must be there and not null."""
    if row.get(name) is None:
        raise UnusableRowError(f"missing field {name}")
    return row[name]


def records(row: Row, name: str) -> list[Mapping[str, Any]]:
    """A field that must be a list of objects (possibly empty)."""
    value = field(row, name)
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise UnusableRowError(f"{name} is not a list of objects")
    return value


def record(row: Row, name: str) -> Mapping[str, Any]:
    """A field that must be an object; absent counts as empty."""
    value = row.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise UnusableRowError(f"{name} is not an object")
    return value or {}


def finite(value: Any, what: str) -> float:
    """A finite number, also from its text as CSV gives it."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise UnusableRowError(f"{what} is not a number") from None
    if not isinstance(value, int | float):
        raise UnusableRowError(f"{what} is not a number")
    try:
        number = float(value)
    except OverflowError:
        raise UnusableRowError(f"{what} is out of range") from None
    if not math.isfinite(number):
        raise UnusableRowError(f"{what} is NaN or infinite")
    return number


def rest(row: Row, *used: str) -> dict[str, Any]:
    """What a row says beyond the fields named: it goes to meta or extra, nothing is thrown away."""
    return {key: value for key, value in row.items() if key not in used and value is not None}


def json_object(value: Mapping[str, Any]) -> str:
    """JSON of an object; NaN (what pandas writes for "missing") becomes null, dates and decimals become text."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_without_nan(value), ensure_ascii=False, default=str)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def split_name(value: Any) -> str | None:
    """train, dev or test from a source's own name of a split (train_prefs, validation, val ...); others as they are."""
    if not isinstance(value, str) or not value:
        return None
    for start, name in (("train", "train"), ("val", "dev"), ("dev", "dev"), ("test", "test")):
        if value.lower().startswith(start):
            return name
    return value
