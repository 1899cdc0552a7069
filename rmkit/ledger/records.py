"""Small mutable records beside the events: assignments, drafts, principals, the cache of paid calls.

A record is a JSON object under (kind, key). Its version counts its puts from 1, so a writer that names the version it
has read (compare-and-swap) cannot overwrite what another wrote meanwhile. Each put carries its own id: where the
connection breaks between commit and answer, repeating the very same put is recognized and stores nothing twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from rmkit.errors import ConflictError, DataError
from rmkit.ids import canonical_json
from rmkit.ledger.rows import Outcome, paged

PAGE = 1000  # records per read: a cached answer may hold many kilobytes
LAST_CHARACTER = 0x10FFFF


class Record(NamedTuple):
    """`version` counts the puts under this key from 1."""

    key: str
    value: dict[str, Any]
    version: int


class StoredRecord(NamedTuple):
    """A record as both back ends store it; `value` is canonical JSON."""

    kind: str
    key: str
    version: int
    value: str
    put_id: str


class Put(NamedTuple):
    """One put on its way to the writer. `version` is set only where a record is carried over from another ledger."""

    kind: str
    key: str
    value: str
    expect: int | None
    put_id: str
    version: int | None = None


def encode_put(
    kind: str, key: str, value: Mapping[str, Any], *, expect: int | None = None, version: int | None = None
) -> Put:
    """A new put. Raises DataError where it cannot be stored: an empty kind or key, a value that is no JSON object."""
    for name, text in (("kind", kind), ("key", key)):
        if not isinstance(text, str) or not text or "\0" in text:
            raise DataError(f"a record's {name} must be a non-empty text without NUL, got {text!r}")
    canonical_json([kind, key])  # refuses lone surrogates
    if not isinstance(value, Mapping):
        raise DataError(f"record {kind} {key!r}: the value must be a mapping, got {type(value).__name__}")
    return Put(kind, key, canonical_json(dict(value)), expect, uuid.uuid4().hex, version)


def plan_puts(puts: Sequence[Put], stored: Sequence[StoredRecord]) -> tuple[list[StoredRecord], list[Outcome]]:
    """The records to write and the answer to each put, as if they came one after the other.

    `stored` holds what is in the ledger under any (kind, key) of the puts.
    """
    now = {(record.kind, record.key): record for record in stored}
    changed: dict[tuple[str, str], StoredRecord] = {}
    outcomes: list[Outcome] = []
    for put in puts:
        place = (put.kind, put.key)
        before = now.get(place)
        version = before.version if before else 0
        if before and before.put_id == put.put_id:  # the answer to this very put was lost
            outcomes.append([version])
        elif put.expect is not None and put.expect != version:
            outcomes.append(_conflict(put, version))
        else:
            after = StoredRecord(put.kind, put.key, put.version or version + 1, put.value, put.put_id)
            now[place] = changed[place] = after
            outcomes.append([after.version])
    return list(changed.values()), outcomes


def _conflict(put: Put, version: int) -> ConflictError:
    result = f"has version {version}" if version else "does not exist"
    expected = f"version {put.expect}" if put.expect else "no such record yet"
    return ConflictError(f"{put.kind} {put.key!r} {result}, expected {expected}: read it again, then decide again")


def records_in_pages(read: Callable[[str, int], list[Record]], after: str, limit: int | None) -> Iterator[Record]:
    """At most `limit` records behind the key `after`, asked of `read(after, size)` a page at a time."""
    return paged(read, after, limit, place=attrgetter("key"), most=PAGE)


def end_of_prefix(prefix: str) -> str | None:
    """The least text behind all texts that begin with `prefix`, in order of code points; None where there is none."""
    stem = prefix.rstrip(chr(LAST_CHARACTER))
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)  # surrogates are no characters
