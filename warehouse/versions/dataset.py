"""A dataset version in Python: its rows as Arrow, polars, pandas, a Hugging Face dataset, or one by one as examples.

Prompts and responses come as messages, a list of {role, content} a conversation. Where a conversation of the dataset
has tool turns or reasoning, all messages also have `name`, `reasoning`, `tool_call_id` and `tool_calls`; the last is
JSON text, since the arguments of different tools have no column type in common. `rubric`, `tools` and `meta` are JSON
text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rmkit.data.example import MANIFEST, Example, read_manifest, read_table
from rmkit.data.export_folder import export_folder
from rmkit.errors import DataError, MissingExtraError
from rmkit.storage.address import is_address
from warehouse.out.forms import MESSAGES, trl_table
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import get, resolve

if TYPE_CHECKING:
    import datasets
    import pandas as pd

_OPTIONAL = ("name", "reasoning", "tool_call_id", "tool_calls")
_TOOL_MESSAGES = pa.list_(pa.struct([*MESSAGES.value_type, *((name, pa.string()) for name in _OPTIONAL)]))
_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Dataset:
    """The rows of a version or of one split of it. `ref` is NAME@vN, `digest` that of the whole version.

    Iteration gives Examples, of `rows`: in EXAMPLE_SCHEMA (rmkit.data.example), conversations as canonical JSON.
    """

    ref: str
    digest: str
    rows: pa.Table = field(repr=False)

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def __iter__(self) -> Iterator[Example]:
        for batch in self.rows.to_batches(max_chunksize=_BATCH_ROWS):
            yield from (Example(row) for row in batch.to_pylist())

    @property
    def splits(self) -> Mapping[str | None, int]:
        """Rows by split, None for rows of no split."""
        return dict(Counter(self.rows["split"].to_pylist()))

    def split(self, name: str) -> Dataset:
        """The rows of one split. Raises DataError where there are none."""
        rows = self.rows.filter(pc.equal(self.rows["split"], name))
        if not rows.num_rows:
            raise DataError(f"{self.ref} has no rows in split {name!r}; it has: {', '.join(map(str, self.splits))}")
        return Dataset(self.ref, self.digest, rows)

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table, conversations as messages."""
        table = self.rows.replace_schema_metadata(None)
        prompts = [_messages(text) for text in table["prompt"].to_pylist()]
        responses = [texts and [_messages(text) for text in texts] for texts in table["responses"].to_pylist()]
        every = [*prompts, *(messages for row in responses for messages in row or ())]
        tools = any(name in message for messages in every for message in messages or () for name in _OPTIONAL)
        kind = _TOOL_MESSAGES if tools else MESSAGES
        for name, values, type_ in (("prompt", prompts, kind), ("responses", responses, pa.list_(kind))):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, pa.field(name, type_), pa.array(values, type_))
        return table

    def to_polars(self) -> pl.DataFrame:
        """The rows as a polars frame, conversations as messages."""
        return pl.DataFrame(pl.from_arrow(self.to_arrow()))

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas frame, conversations as messages. Raises MissingExtraError without pandas."""
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("pandas", None) from error
        return self.to_arrow().to_pandas()

    def to_hf(self, form: Literal["native", "trl"] = "native") -> datasets.Dataset:
        """The rows as a Hugging Face dataset: as they are, or as TRL's preference rows (see `warehouse.out.forms`).

        Raises MissingExtraError without `datasets`.
        """
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError("datasets", "train") from error
        return datasets.Dataset(trl_table(self.rows)[0] if form == "trl" else self.to_arrow())


def load_dataset(data: str | Path, *, split: str | None = None) -> Dataset:
    """The dataset of a version (NAME, NAME@vN, a tag, a branch, a digest prefix) or of an export folder; read only.

    Rows whose text was erased are left out. Raises StoreError without a warehouse, VersionError for an unknown version,
    DataError for a split without rows.
    """
    folder = export_folder(data) if is_address(str(data)) else Path(data)
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        whole = Dataset(manifest.get("ref") or folder.name, manifest.get("digest") or "", read_table(folder))
    else:
        with open_warehouse(read_only=True) as connection:
            version_id = resolve(connection, str(data))
            version = get(connection, version_id)
            whole = Dataset(version.ref, version.digest, checkout(connection, version_id))
    return whole if split is None else whole.split(split)


def _messages(text: str | None) -> Sequence[Mapping[str, object]] | None:
    if text is None:
        return None
    messages: list[dict[str, Any]] = json.loads(text)
    for message in messages:
        if "tool_calls" in message:
            message["tool_calls"] = json.dumps(message["tool_calls"], ensure_ascii=False)
    return messages
