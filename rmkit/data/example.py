"""The example: one training row, as every checkout, export, pipeline frame and trainer sees it.

One Arrow schema serves them all, so an export folder written by the warehouse can be read here with pyarrow alone.
`prompt` and each of `responses` are canonical JSON message lists (see `ids`). The responses of a unit are stored in the
order of their content hashes, so their position says nothing about which is better; the label does:

    p            [N] probability that each response is the best (a pair: [p_first, 1 - p_first]; a tie: [.5, .5])
    ranks        [N] 0 is best, equal ranks are ties, null is unranked
    margin       strength of the preference on the source's own scale, null where none was given
    scores       ratings: (response, aspect, value), on the source's own scale
    step_labels  [S] 1 right, 0 wrong, fractions allowed, null after the first error where labels end

Columns that do not apply are null. `n_votes` counts the judgments behind the label, `method` says how it was derived.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rmkit.config import file_in, read_object
from rmkit.errors import DataError
from rmkit.ids import parse_messages
from rmkit.types import Candidates, Completion

KINDS = ("pair", "list", "single", "steps", "rubric")

SCORE_STRUCT = pa.struct([("response", pa.int32()), ("aspect", pa.string()), ("value", pa.float64())])

EXAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # content hash of unit and label
        ("unit", pa.string()),  # content hash of kind, prompt, responses
        ("kind", pa.string()),
        ("source", pa.string()),
        ("subset", pa.string()),
        ("license", pa.string()),
        ("prompt", pa.string()),
        ("responses", pa.list_(pa.string())),
        ("generators", pa.list_(pa.string())),
        ("step_ends", pa.list_(pa.int32())),
        ("rubric", pa.string()),
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
        ends = tuple(self.row["step_ends"] or ())
        return Candidates(
            parse_messages(self.row["prompt"]),
            tuple(
                Completion(parse_messages(text), source, ends)
                for text, source in zip(self.row["responses"], sources, strict=True)
            ),
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an export folder. Raises DataError where there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder} is not an export folder: no {MANIFEST}; make one with: rmkit export NAME@VERSION")
    manifest = read_object(path, raises=DataError, hint="export the version again", keys={"files": dict})
    for name, facts in manifest["files"].items():
        file_in(folder, name, raises=DataError)
        if not isinstance(facts, dict):
            raise DataError(f"{path}: files: {name} should be an object; export the version again")
    return manifest


def read_table(folder: Path, *, split: str | None = None) -> pa.Table:
    """All rows of an export folder (or of one split), in the manifest's file order."""
    names = sorted(read_manifest(folder)["files"])
    try:
        tables = [pq.read_table(folder / name) for name in names if name.endswith(".parquet")]
        table = pa.concat_tables(tables).select(EXAMPLE_SCHEMA.names).cast(EXAMPLE_SCHEMA)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{folder} cannot be read as rows: {error}; export the version again") from error
    return table if split is None else table.filter(pa.compute.equal(table["split"], split))


def read_examples(folder: Path, *, split: str | None = None) -> Iterator[Example]:
    """The examples of an export folder (or of one split), in file order."""
    for batch in read_table(folder, split=split).to_batches(max_chunksize=4096):
        yield from (Example(row) for row in batch.to_pylist())
