"""Identity of units and examples: the same id from Python and from SQL.

A unit is what was judged; an example is a unit with one derived label. Both ids are the first 128 bits of SHA-256 over
a plain text of lines, absent parts written as `null`:

    unit                                    example
    KIND                                    UNIT'S ID
    PROMPT'S ID                             METHOD
    RESPONSE IDS, sorted, comma between     N_VOTES
    STEP ENDS, comma between                P, RANKS, STEP LABELS: one line each, comma between
    RUBRIC'S ID                             MARGIN
    tools TOOLS' ID                         SCORES as JSON: [response, aspect, "value"] sorted
    reference REFERENCE'S ID

Step ends of several responses are given in the order of the sorted ids, with a semicolon between. The lines of tools
and reference are there only where the unit has them.
Numbers of a label are written with 12 significant digits (`%.12g`), so summation noise makes no new example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.ids import canonical_json, content_hash


def unit_hash(
    kind: str,
    prompt: str,
    *,
    responses: Sequence[str] = (),
    step_ends: Sequence[Sequence[int]] | None = None,
    rubric: str | None = None,
    tools: str | None = None,
    reference: str | None = None,
) -> str:
    """Id of a unit from its canonical texts (not their ids); the order of `responses` does not matter.

    `step_ends` has one list for each response, in the same order, empty where that one has no steps.
    """
    hashes = [content_hash(text) for text in responses]
    order = sorted(range(len(hashes)), key=lambda at: hashes[at])
    lines = [
        "unit",
        kind,
        content_hash(prompt),
        ",".join(hashes[at] for at in order),
        ";".join(_joined(step_ends[at]) for at in order) if step_ends and any(step_ends) else "null",
        "null" if rubric is None else content_hash(rubric),
        *(f"{name} {content_hash(text)}" for name, text in (("tools", tools), ("reference", reference)) if text),
    ]
    return content_hash("\n".join(lines))


def example_hash(unit: str, label: Mapping[str, Any]) -> str:
    """Id of an example from its unit's id and the label columns of EXAMPLE_SCHEMA."""
    lines = [
        "example",
        unit,
        label["method"],
        str(label["n_votes"]),
        _joined(label.get("p")),
        _joined(label.get("ranks")),
        _joined(label.get("step_labels")),
        _number(label.get("margin")),
        _scores(label.get("scores")),
    ]
    return content_hash("\n".join(lines))


def _joined(numbers: Sequence[float | None] | None) -> str:
    return "null" if numbers is None else ",".join(map(_number, numbers))


def _number(value: float | None) -> str:
    if value is None:
        return "null"
    return format(float(value) + 0.0, ".12g")


def _scores(scores: Sequence[Mapping[str, Any]] | None) -> str:
    if scores is None:
        return "null"
    triples = ([_number(score["response"]), score["aspect"], _number(score["value"])] for score in scores)
    return "[" + ",".join(sorted((canonical_json(triple) for triple in triples), key=str.encode)) + "]"


def hash_sql(text: str) -> str:
    """SQL for the 32 hex digits that identify the text expression."""
    return f"left(sha256({text}), 32)"


def unit_hash_sql(
    *, kind: str, prompt: str, responses: str, step_ends: str, rubric: str, tools: str, reference: str
) -> str:
    """SQL twin of `unit_hash` over column expressions; responses and their step ends are sorted, and all but the kind
    and the step ends are hex ids already."""
    ends = _or_null(f"array_to_string(list_transform({step_ends}, lambda ends: {_joined_sql('ends')}), ';')")
    lines = ["'unit'", kind, prompt, f"array_to_string({responses}, ',')", ends, _or_null(rubric)]
    optional = [
        f"coalesce(chr(10) || '{name} ' || {text}, '')" for name, text in (("tools", tools), ("reference", reference))
    ]
    return hash_sql(" || ".join([" || chr(10) || ".join(lines), *optional]))


def example_hash_sql(unit: str) -> str:
    """SQL twin of `example_hash`; `unit` is the hex id, the label columns are named as in EXAMPLE_SCHEMA."""
    score = (
        "'[' || to_json(coalesce(score.response::VARCHAR, 'null')) || ',' || coalesce(to_json(score.aspect), 'null') "
        f"|| ',' || to_json({_number_sql('score.value')}) || ']'"
    )
    scores = f"'[' || array_to_string(list_sort(list_transform(scores, lambda score: {score})), ',') || ']'"
    lines = [
        "'example'",
        unit,
        "method",
        "n_votes::VARCHAR",
        *(_joined_sql(column) for column in ("p", "ranks", "step_labels")),
        _number_sql("margin"),
        _or_null(scores),
    ]
    return hash_sql(" || chr(10) || ".join(lines))


def _joined_sql(numbers: str) -> str:
    return _or_null(f"array_to_string(list_transform({numbers}, lambda number: {_number_sql('number')}), ',')")


def _number_sql(number: str) -> str:
    return _or_null(f"printf('%.12g', {number}::DOUBLE + 0)")  # adding 0 turns -0 into 0


def _or_null(text: str) -> str:
    return f"coalesce({text}, 'null')"
