"""The forms in which a version leaves the warehouse.

native         EXAMPLE_SCHEMA as it is; what rmkit trains on
trl            TRL's conversational preference rows with an explicit prompt: prompt, chosen, rejected (message lists),
               with id, split and weight beside them. Each strictly ordered pair of responses gives one row; the better
               is chosen by rank, or by probability where there are no ranks. Ties and single responses give none.
               Where messages hold more (tool calls, reasoning_content), they all have the place for it; tools are JSON
sft            demonstrations for supervised fine-tuning, one JSON object per line: prompt, completion (messages, with
               all that a message holds), tools where there are any. The completion is the only response, or the
               one that the label puts first; rows without one give none.
jsonl          the native columns as one JSON object per line, messages unpacked
argilla        one record per line: fields prompt, response_1 ...; the label as a ranking submitted by the user rmkit
label_studio   one task per line: data prompt, response_1 ...; a decided pair as a pairwise annotation. Label Studio has
               no tie and no partial ranking: such labels stay in meta.

rmkit ingest reads the last three back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from rmkit.chat.tool_calls import read_tool_calls
from rmkit.ids import canonical_json
from warehouse.lineage.preview import transcript

Form = Literal["native", "trl", "sft", "jsonl", "argilla", "label_studio"]
FORMS: tuple[Form, ...] = ("native", "trl", "sft", "jsonl", "argilla", "label_studio")
LINES: tuple[Form, ...] = ("sft", "jsonl", "argilla", "label_studio")
WEIGHTLESS: tuple[Form, ...] = ("argilla", "label_studio")  # the rows' digest cannot be computed from their files

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])
_CALLS = pa.list_(pa.struct([("id", pa.string()), ("type", pa.string()), ("function", _FUNCTION)]))
MORE_OF_MESSAGES = pa.schema(
    [
        ("name", pa.string()),
        ("tool_calls", _CALLS),
        ("tool_call_id", pa.string()),
        ("reasoning_content", pa.string()),
    ]
)
_STORED_NAMES = {"reasoning_content": "reasoning"}
MARKS = {  # what stands in the JSON of messages that hold such a field
    name: f'"{_STORED_NAMES.get(name, name)}":' for name in MORE_OF_MESSAGES.names
}
TRL_SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("id", pa.string()),
        ("split", pa.string()),
        ("weight", pa.float64()),
    ]
)

_BATCH_ROWS = 4096


def of_form(table: pa.Table, form: Form, schema: pa.Schema) -> tuple[pa.Table, dict[str, int]]:
    """The rows that a form holds of a native table, and how many examples it has no row for, by reason."""
    match form:
        case "trl":
            return trl_table(table, schema)
        case "sft":
            return sft_rows(table)
        case _:
            return table, {}


def trl_table(table: pa.Table, schema: pa.Schema | None = None) -> tuple[pa.Table, dict[str, int]]:
    """A native table as TRL rows (by default with a place for what its messages hold), and how many examples gave none,
    by reason."""
    left_out: Counter[str] = Counter()
    schema = schema or _trl_schema(table)
    batches = [
        pa.RecordBatch.from_pylist(list(_trl_rows(batch.to_pylist(), left_out)), schema=schema)
        for batch in table.to_batches(max_chunksize=_BATCH_ROWS)
    ]
    return pa.Table.from_batches(batches, schema=schema), dict(sorted(left_out.items()))


def _trl_schema(table: pa.Table) -> pa.Schema:
    texts = pa.chunked_array([*table["prompt"].chunks, *(part.flatten() for part in table["responses"].chunks)])
    texts = texts.cast(pa.string())
    held = [name for name, mark in MARKS.items() if pc.any(pc.match_substring(texts, mark)).as_py()]
    return trl_fields(held, tools=table["tools"].null_count < len(table))


def trl_fields(held: Sequence[str], *, tools: bool) -> pa.Schema:
    """TRL_SCHEMA, with a place for the fields of MORE_OF_MESSAGES that messages hold, and for tools."""
    extra = [field for field in MORE_OF_MESSAGES if field.name in held]
    messages = pa.list_(pa.struct([*MESSAGES.value_type, *extra]))
    columns = [field.with_type(messages) if field.type == MESSAGES else field for field in TRL_SCHEMA]
    return pa.schema([*columns, pa.field("tools", pa.string())] if tools else columns)


def _trl_rows(rows: Sequence[Mapping[str, Any]], left_out: Counter[str]) -> Iterator[dict[str, object]]:
    for row in rows:
        pairs = ordered_pairs(row["ranks"], row["p"])
        if not pairs:
            left_out["fewer than two responses" if len(row["responses"] or ()) < 2 else "no strict preference"] += 1
        for better, worse in pairs:
            yield {
                "prompt": _plain(row["prompt"]),
                "chosen": _plain(row["responses"][better]),
                "rejected": _plain(row["responses"][worse]),
                "id": row["id"],
                "split": row["split"],
                "weight": row["weight"],
                "tools": row["tools"],
            }


def ordered_pairs(ranks: Sequence[int | None] | None, p: Sequence[float] | None) -> list[tuple[int, int]]:
    """(better, worse) positions of all strictly ordered pairs: by rank (0 best), else by probability of being best."""
    if ranks is not None and any(rank is not None for rank in ranks):
        value = [None if rank is None else -float(rank) for rank in ranks]
    else:
        value = list(p or ())
    known = [(position, worth) for position, worth in enumerate(value) if worth is not None]
    return [(i, j) for i, better in known for j, worse in known if better > worse]


def sft_rows(table: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The rows of a native table that are demonstrations, and how many are not, by reason."""
    places = [best_response(row) for row in table.select(["responses", "ranks", "p"]).to_pylist()]
    left_out = Counter(place for place in places if isinstance(place, str))
    return table.filter(pa.array([isinstance(place, int) for place in places], pa.bool_())), dict(
        sorted(left_out.items())
    )


def best_response(row: Mapping[str, Any]) -> int | str:
    """The position of the only response or of the one that the label puts first, else the reason why there is none."""
    n = len(row["responses"] or ())
    if n < 2:
        return 0 if n else "no response"
    ranks, p = row["ranks"], row["p"]
    if ranks and any(rank is not None for rank in ranks):
        worth = [None if rank is None else -float(rank) for rank in ranks]
    else:
        worth = list(p or ())
    known = [value for value in worth if value is not None]
    if not known:
        return "no preference"
    return worth.index(max(known)) if known.count(max(known)) == 1 else "several responses share the first place"


def _plain(messages: str) -> list[dict[str, object]]:
    """The turns under TRL's names, a call's arguments as JSON text: Arrow has no objects without a schema."""
    turns: list[dict[str, Any]] = json.loads(messages)
    for turn in turns:
        if "tool_calls" in turn:
            turn["tool_calls"] = list(read_tool_calls(turn["tool_calls"]))
        if "reasoning" in turn:
            turn["reasoning_content"] = turn.pop("reasoning")
    return turns


def json_lines(table: pa.Table, form: Form = "jsonl") -> Iterator[str]:
    """One canonical JSON line per row in one of the LINES forms."""
    shape = {"argilla": _argilla, "label_studio": _label_studio, "sft": _sft}.get(form, _unpacked)
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            yield canonical_json(shape(row)) + "\n"


def _unpacked(row: Mapping[str, Any]) -> dict[str, object]:
    """Prompt, responses, rubric and meta as objects."""
    unpacked = {name: json.loads(row[name]) for name in ("prompt", "rubric", "meta") if row.get(name)}
    unpacked["responses"] = [json.loads(text) for text in row["responses"] or ()]
    return {**row, **unpacked}


def _sft(row: Mapping[str, Any]) -> dict[str, object]:
    place = best_response(row)
    texts = {"prompt": row["prompt"], "completion": row["responses"][place], "tools": row["tools"]}
    unpacked = {name: json.loads(text) for name, text in texts.items() if text}
    return unpacked | {name: row[name] for name in ("id", "split", "weight")}


def _argilla(row: Mapping[str, Any]) -> dict[str, object]:
    ranks = _all_ranks(row)
    summary = [{"value": f"response_{at + 1}", "rank": rank + 1} for at, rank in enumerate(ranks)]
    answer = {"preference": [{"value": summary, "user_id": "rmkit", "status": "submitted"}]} if summary else {}
    meta = {name: row[name] for name in ("unit", "split", "n_votes")}
    return {"id": row["id"], "fields": _fields(row), "metadata": meta, "responses": answer}


def _label_studio(row: Mapping[str, Any]) -> dict[str, object]:
    ranks = _all_ranks(row)
    meta = {name: row[name] for name in ("id", "unit", "split", "n_votes")} | ({"ranks": ranks} if ranks else {})
    annotations = []
    if len(ranks) == 2 and ranks[0] != ranks[1]:
        value = {"selected": "left" if ranks[0] < ranks[1] else "right"}
        result = {"from_name": "preference", "to_name": "response_1,response_2", "type": "pairwise", "value": value}
        annotations.append({"completed_by": "rmkit", "result": [result]})
    return {"data": _fields(row), "meta": meta, "annotations": annotations}


def _fields(row: Mapping[str, Any]) -> dict[str, str]:
    responses = {f"response_{at + 1}": transcript(text) for at, text in enumerate(row["responses"] or ())}
    return {"prompt": transcript(row["prompt"]), **responses}


def _all_ranks(row: Mapping[str, Any]) -> list[int]:
    """A rank for every response (0 best, equal ranks tie), empty where the label does not rank them all."""
    if row["ranks"] and None not in row["ranks"]:
        return list(row["ranks"])
    p = row["p"] or []
    return [sum(other > mine for other in p) for mine in p]
