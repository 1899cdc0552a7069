"""Any table, through a mapping of its columns to these fields (`--map prompt=question,chosen=better,...`).

    pair     prompt, chosen, rejected
    vote     prompt, response_a, response_b, preference (a, b, tie, or a column's name)
    list     prompt, responses (texts), scores (higher is better) or ranks (0 or 1 best)
    single   prompt, response, score
    any      id, subset, split, license, rater, rater_kind, rationale, margin, chosen_model, rejected_model, models,
             time, duration (seconds), confidence

The prompt of a pair or a vote may be missing where both sides begin with it. In CSV, lists are JSON text. Other columns
go to meta.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.fields import chosen_ranks
from data_pipelines.sources.source import Source
from data_pipelines.sources.trl import about, shared_prompt, without_prompt
from data_pipelines.sources.unit_builder import (
    UNSTATED,
    Row,
    Unit,
    UnusableRowError,
    field,
    finite,
    judgment,
    ranks_of,
    response,
    unit,
)
from rmkit.errors import UsageError
from warehouse.write.units import RATER_KINDS

FIELDS = (
    *("prompt", "chosen", "rejected", "response_a", "response_b", "preference", "responses", "scores", "ranks"),
    *("response", "score", "id", "subset", "split", "license", "rater", "rationale", "margin"),
    *("chosen_model", "rejected_model", "models", "rater_kind", "time", "duration", "confidence"),
)
_LISTS = (
    "prompt",
    "chosen",
    "rejected",
    "response_a",
    "response_b",
    "responses",
    "scores",
    "ranks",
    "response",
    "models",
)


def parse_map(text: str) -> dict[str, str]:
    """{column: field} from "field=column,field=column". Raises UsageError for an unknown or repeated field."""
    mapping: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, sign, column = part.strip().partition("=")
        if not sign or not column or name not in FIELDS:
            raise UsageError(f"--map takes FIELD=COLUMN, got {part!r}; the fields are: {', '.join(FIELDS)}")
        if name in mapping.values() or column in mapping:
            raise UsageError(f"--map names {part!r} twice")
        mapping[column] = name
    return mapping


def renamed(row: Row, mapping: Mapping[str, str]) -> dict[str, Any]:
    """The row under the fields' names; an unmapped column that has a field's name keeps it unless the map takes it."""
    taken = set(mapping.values())
    kept_ids = {
        f"column {name}" if name in taken and name not in mapping else name: value for name, value in row.items()
    }
    return {mapping.get(name, name): value for name, value in kept_ids.items()}


def matches(row: Row) -> bool:
    if "chosen" in row and "rejected" in row:
        return True
    if "response_a" in row and "response_b" in row:
        return "preference" in row
    return "prompt" in row and (isinstance(row.get("responses"), list) or "response" in row)


def rows(row: Row) -> Iterator[Unit]:
    row = {name: _parsed(value) if name in _LISTS else value for name, value in row.items()}
    own = about(row, *FIELDS)
    about_vote = _about_vote(row)
    if "chosen" in row and "rejected" in row:
        yield _two(row, ("chosen", "rejected"), [0, 1], about_vote, own)
    elif "response_a" in row and "response_b" in row:
        yield _two(row, ("response_a", "response_b"), _preference(row), about_vote, own)
    elif "responses" in row:
        yield _list(row, about_vote, own)
    else:
        score = row.get("score")
        scores = [] if score in (None, "") else [(0, "score", score)]
        answers = [judgment(**about_vote, scores=scores)] if scores or row.get("rationale") else []
        yield unit(
            field(row, "prompt"), [response(field(row, "response"), generator=row.get("models"))], answers, **own
        )


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] == "[":
        try:
            document = json.loads(value)
        except ValueError:
            return value
        return document if isinstance(document, list) else value
    return value


def _preference(row: Row) -> list[int | None]:
    value = field(row, "preference")
    settings = {"model_a": "response_a", "model_b": "response_b", "tie (bothbad)": "tie"}.get(str(value).strip(), value)
    ranks = (
        None if str(settings).strip().isdigit() else chosen_ranks(settings, ("response_a", "response_b"), loose=True)
    )
    if ranks is None:  # 0 and 1 are refused too: they mean the first response here and the second there
        raise UnusableRowError("preference is not a, b or tie")
    return ranks


def _about_vote(row: Row) -> dict[str, Any]:
    """Who judged, when, how long and why: arguments of `judgment`."""
    kind = row.get("rater_kind") or "unknown"
    if kind not in RATER_KINDS:
        raise UnusableRowError(f"rater_kind is none of {', '.join(RATER_KINDS)}")
    facts = {name: row.get(name) for name in ("rationale", "time", "confidence")}
    return facts | {"rater": row.get("rater") or UNSTATED, "kind": kind, "duration_s": row.get("duration")}


def _two(row: Row, sides: tuple[str, str], ranks: list[int | None], vote: dict[str, Any], own: dict[str, Any]) -> Unit:
    prompt, first, second = row.get("prompt"), field(row, sides[0]), field(row, sides[1])
    if prompt is None:
        prompt, first, second = shared_prompt(first, second)
    models = row.get("models")
    names = (
        models
        if isinstance(models, list) and len(models) == 2
        else (row.get("chosen_model"), row.get("rejected_model"))
    )
    texts = [without_prompt(prompt, first), without_prompt(prompt, second)]
    margin = None if row.get("margin") == "" else row.get("margin")
    verdict = judgment(**vote, ranks=ranks, strength=margin)
    answers = [response(text, generator=name) for text, name in zip(texts, names, strict=True)]
    return unit(prompt, answers, [verdict], in_columns=sides[0] == "response_a", **own)


def _list(row: Row, vote: dict[str, Any], own: dict[str, Any]) -> Unit:
    texts = row["responses"]
    if not isinstance(texts, list) or not texts:
        raise UnusableRowError("responses is not a list of texts")
    numbers = {name: _numbers(row[name], len(texts), name) for name in ("scores", "ranks") if row.get(name) is not None}
    models = row.get("models")
    names = models if isinstance(models, list) and len(models) == len(texts) else [None] * len(texts)
    answers = [response(text, generator=name) for text, name in zip(texts, names, strict=True)]
    statement = []
    if numbers:
        ranks = ranks_of(numbers["ranks"], best="low") if "ranks" in numbers else ranks_of(numbers["scores"])
        scores = [(at, "score", value) for at, value in enumerate(numbers.get("scores", ())) if value is not None]
        statement.append(judgment(**vote, ranks=ranks, scores=scores))
    return unit(field(row, "prompt"), answers, statement, **own)


def _numbers(values: Any, size: int, name: str) -> list[float | None]:
    if not isinstance(values, list) or len(values) != size:
        raise UnusableRowError(f"{name} and responses have different lengths")
    return [None if value is None else finite(value, name) for value in values]


GENERIC = Source("generic", "the fields of --map", matches, rows)
