"""The example: one training row, as every checkout, export, pipeline frame and trainer sees it.

One Arrow schema serves them all, so an export folder written by the warehouse can be read here with pyarrow alone.
`prompt` and each of `responses` are canonical JSON message lists (see `ids`). The responses of a unit are stored in the
order of their content hashes, so their position says nothing about which is better; the label does:

    p            [N] probability that each response is the best (a pair: [p_first, 1 - p_first]; a tie: [.5, .5])
    ranks        [N] 0 is best, equal ranks are ties, null is unranked
    margin       strength of the preference on the source's own scale, null where none was given
    scores       ratings: (response, aspect, value), on the source's own scale
    step_labels  [S] steps of the one response that has step ends: 1 right, 0 wrong, fractions allowed, null after the
                 first error where labels end

`step_ends` has one list for each response (character offsets into its text, exclusive, ascending; empty where it is not
split), null where no response is split. `rubric`, `tools` and `reference` belong to the prompt. Columns that do not
apply are null. `n_votes` counts the judgments behind the label, `method` says how it was derived.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from rmkit.chat.tool_calls import read_tools
from rmkit.config import file_in, read_object
from rmkit.errors import DataError
from rmkit.ids import parse_messages
from rmkit.types import Candidates, Completion

KINDS = ("pair", "list", "single", "steps", "rubric")

SCORE_STRUCT = pa.struct([("response", pa.int32()), ("aspect", pa.string()), ("value", pa.float64())])

EXAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # content hash of unit and label
        ("unit", pa.string()),  # content hash of kind, prompt, responses and what else was judged
        ("kind", pa.string()),
        ("source", pa.string()),
        ("subset", pa.string()),
        ("license", pa.string()),
        ("prompt", pa.string()),
        ("responses", pa.list_(pa.string())),
        ("generators", pa.list_(pa.string())),
        ("step_ends", pa.list_(pa.list_(pa.int32()))),
        ("rubric", pa.string()),  # canonical JSON list of criteria
        ("tools", pa.string()),  # canonical JSON list of tool schemas
        ("reference", pa.string()),  # the right answer
        ("p", pa.list_(pa.float64())),
        ("ranks", pa.list_(pa.int32())),
        ("margin", pa.float64()),
        ("scores", pa.list_(SCORE_STRUCT)),
        ("step_labels", pa.list_(pa.float64())),
        ("n_votes", pa.int32()),
        ("method", pa.string()),
        ("family", pa.int64()),  # near-duplicate cluster of prompts; the unit of every split
        ("split", pa.string()),
        ("weight", pa.float64()),
        ("meta", pa.string()),  # JSON object, as the source gave it
    ]
)

MANIFEST = "manifest.json"
_NEWER = {"tools", "reference"}  # columns that earlier exports lack


@dataclass(frozen=True)
class Example:
    """One row of EXAMPLE_SCHEMA; field names and meanings are the columns'."""

    row: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @cached_property
    def candidates(self) -> Candidates:
        """The model's input. Raises DataError on a rubric row without responses."""
        if not self.row["responses"]:
            raise DataError(f"example {self.id} has no response to score")
        sources = self.row["generators"] or [None] * len(self.row["responses"])
        ends = self.row["step_ends"] or [()] * len(self.row["responses"])
        return Candidates(
            parse_messages(self.row["prompt"]),
            tuple(
                Completion(parse_messages(text), source, tuple(own))
                for text, source, own in zip(self.row["responses"], sources, ends, strict=True)
            ),
            **prompt_facts(self.row),
        )

    @property
    def steps(self) -> tuple[int, ...]:
        """Step ends of the one response that is split into steps, to which `step_labels` belong; empty without one."""
        split = [ends for ends in self.row["step_ends"] or () if ends]
        return tuple(split[0]) if len(split) == 1 else ()


class PromptFacts(TypedDict, total=False):
    """What a row may say of its prompt beside the text: fields of Candidates, absent where the row has none."""

    tools: tuple[Mapping[str, Any], ...]
    reference: str
    rubric: tuple[Mapping[str, Any], ...]


def prompt_facts(row: Mapping[str, Any]) -> PromptFacts:
    """The fields of Candidates beside prompt and completions, from a row's `tools`, `reference` and `rubric`.

    Lists may be JSON text; a plain text as rubric is its only criterion. Raises DataError for anything else.
    """
    result: PromptFacts = {"rubric": _criteria(row["rubric"])} if row.get("rubric") else {}
    if row.get("tools"):
        result["tools"] = read_tools(row["tools"])
    if (reference := row.get("reference")) is not None:
        if isinstance(reference, bool) or not isinstance(reference, str | int | float):
            raise DataError(f"reference must be a text or a number, got {type(reference).__name__}")
        result["reference"] = str(reference)
    return result


def _criteria(value: Any) -> tuple[Mapping[str, object], ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [{"criterion": value}]
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise DataError("rubric must be a list of objects")
    return tuple(value)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an export folder. Raises DataError where there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder} is not an export folder: no {MANIFEST}; make one with: rmkit export NAME@VERSION")
    manifest = read_object(path, raises=DataError, hint="export the version again", keys={"files": dict})
    for name, facts in manifest["files"].items():
        file_in(folder, name, raises=DataError)
        if (folder / name).exists() and not (folder / name).is_file():  # opening a pipe would wait for ever
            raise DataError(f"{folder / name} is not a file; export the version again")
        if not isinstance(facts, dict):
            raise DataError(f"{path}: files: {name} should be an object; export the version again")
    return manifest


def read_table(folder: Path, *, split: str | None = None) -> pa.Table:
    """All rows of an export folder (or of one split), in the manifest's file order."""
    names = sorted(read_manifest(folder)["files"])
    try:
        tables = [pq.read_table(folder / name) for name in names if name.endswith(".parquet")]
        table = pa.concat_tables(as_examples(one).select(EXAMPLE_SCHEMA.names).cast(EXAMPLE_SCHEMA) for one in tables)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{folder} cannot be read as rows: {error}; export the version again") from error
    return table if split is None else table.filter(pa.compute.equal(table["split"], split))


def holds_examples(names: Collection[str]) -> bool:
    """Whether a table of these columns is an export's, of this schema or of an earlier one."""
    return set(EXAMPLE_SCHEMA.names) - _NEWER <= set(names)


def as_examples(table: pa.Table) -> pa.Table:
    """An export's table with what exports of earlier schemas lack: there a row has one list of step ends, that of its
    only response, and nothing beside the rubric."""
    for name in sorted(_NEWER - set(table.column_names)):
        table = table.append_column(name, pa.nulls(len(table), EXAMPLE_SCHEMA.field(name).type))
    at = table.schema.get_field_index("step_ends")
    kind = table.schema.field(at).type
    if pa.types.is_list(kind) and pa.types.is_integer(kind.value_type):
        ends = [[one] if one else None for one in table["step_ends"].to_pylist()]
        table = table.set_column(at, "step_ends", pa.array(ends, pa.list_(kind)))
    return table


def read_examples(folder: Path, *, split: str | None = None) -> Iterator[Example]:
    """The examples of an export folder (or of one split), in file order."""
    for batch in read_table(folder, split=split).to_batches(max_chunksize=4096):
        yield from (Example(row) for row in batch.to_pylist())
