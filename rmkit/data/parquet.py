"""Parquet files of unknown origin as Arrow tables of bounded size.

Parquet names a repeated value once, however long it is: 4 kB can hold 28 rows of 100 MB. What decides is therefore the
size of the rows when written out, measured before a row is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rmkit.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_BYTES = 32 << 20
MAX_ROW_BYTES = 32 << 20
OVER_LIMIT = "row over the limit of {:g} MB"
_SAFE_BYTES = 256 << 20
_PACKED_BYTES = 1 << 30


def bounded_tables(source: Any, *, name: object, max_row_bytes: int = MAX_ROW_BYTES) -> Iterator[pa.Table | None]:
    """Tables of at most TABLE_BYTES (a single row may have `max_row_bytes`), in order; None stands for a larger row.

    `source` is a path or an open file. Raises DataError where it is damaged, or packs a gigabyte into next to nothing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source)
        names = [file.schema.column(at).path for at in range(len(file.schema.names))]
        for at in range(file.num_row_groups):
            group = file.metadata.row_group(at)
            _check_packing(group, name)
            row_bytes = group.total_byte_size // max(group.num_rows, 1)
            repeating = {names[n]: group.column(n) for n in range(group.num_columns) if _repeats(group.column(n))}
            reader, longest = file, 0
            if repeating:
                named = pq.ParquetFile(source, read_dictionary=list(repeating))
                lengths = {path: _longest(named, at, path) for path in repeating}
                nested = [path for path in lengths if "." in path]
                if 16 * max(lengths.values()) > TABLE_BYTES or any(
                    lengths[path] * repeating[path].num_values > _SAFE_BYTES for path in nested
                ):
                    reader = named
                longest = sum(lengths.values())
            rows = max(16, min(16_384, TABLE_BYTES // max(row_bytes, longest, 1)))
            if reader is not file and group.total_byte_size < _SAFE_BYTES:
                rows = max(rows, group.num_rows)  # each batch would come with all values named so far
            for batch in reader.iter_batches(batch_size=rows, row_groups=[at]):
                yield from bounded(pa.Table.from_batches([batch]), max_row_bytes=max_row_bytes)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} is damaged or no Parquet file: {str(error).splitlines()[0]}") from error


def bounded(table: Any, *, max_row_bytes: int = MAX_ROW_BYTES) -> Iterator[pa.Table | None]:
    """The table in pieces as `bounded_tables` gives them."""
    if written_bytes(table) <= min(TABLE_BYTES, max_row_bytes):
        yield table
    elif len(table) == 1:
        yield table if written_bytes(table) <= max_row_bytes else None
    else:
        half = len(table) // 2
        yield from bounded(table.slice(0, half), max_row_bytes=max_row_bytes)
        yield from bounded(table.slice(half), max_row_bytes=max_row_bytes)


def written_bytes(table: Any) -> int:
    """The size of a table with each value written out."""
    return sum(_bytes(chunk) for column in table.columns for chunk in column.chunks)


def _bytes(array: Any) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        each = _lengths(array.dictionary)
        return int(array.indices.nbytes + (pc.sum(each.take(array.indices)).as_py() or 0))
    if pa.types.is_struct(kind):
        return sum(_bytes(child) for child in array.flatten())
    if pa.types.is_map(kind):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return 8 * len(array) + sum(_bytes(part.slice(first, last - first)) for part in (array.keys, array.items))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return 8 * len(array) + _bytes(array.flatten())
    if pa.types.is_fixed_size_list(kind):
        return _bytes(array.flatten())
    return int(array.nbytes)


def _lengths(values: Any) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return pc.binary_length(values).cast(pa.int64())
    return pa.array([values.nbytes // max(len(values), 1)] * len(values), pa.int64())


def _check_packing(group: Any, name: object) -> None:
    for at in range(group.num_columns):
        column = group.column(at)
        size, packed = column.total_uncompressed_size, column.total_compressed_size
        if size > _PACKED_BYTES and size > 100 * packed:
            raise DataError(
                f"{name}: column {column.path_in_schema} packs {size / 1e9:.1f} GB into {packed / 1e3:.0f} kB; "
                "write it anew in smaller row groups if that is meant"
            )


def _repeats(column: Any) -> bool:
    """Whether a column names values once, and repeating them could come to much."""
    named = {"RLE_DICTIONARY", "PLAIN_DICTIONARY"}.intersection(column.encodings)
    texts = column.physical_type == "BYTE_ARRAY"
    return texts and bool(named) and column.num_values * column.total_uncompressed_size > _SAFE_BYTES


def _longest(file: Any, group: int, path: str) -> int:
    """Bytes of the longest value that a column of a row group names."""
    import pyarrow.compute as pc

    for batch in file.iter_batches(batch_size=1024, row_groups=[group], columns=[path]):
        leaves = [batch.column(0)]
        while not hasattr(leaves[0], "dictionary"):
            leaf = leaves.pop()
            parts = [leaf.keys, leaf.items] if hasattr(leaf, "keys") else leaf.flatten()
            leaves += parts if isinstance(parts, list) else [parts]
        if result := [pc.max(_lengths(leaf.dictionary)).as_py() for leaf in leaves if len(leaf.dictionary)]:
            return int(max(result))  # all that is named stands before the first value
    return 0
