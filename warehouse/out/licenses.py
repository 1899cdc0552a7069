"""Which licenses a release may carry.

A small, explicit table: permissive and share-alike licenses may be released, non-commercial ones, gated terms and
'unknown' may not unless allowed by name. A license that is not in the table counts as unknown: a release never guesses.
Where a row comes from several sources the most restrictive license is the row's; a release needs all of them to pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

PERMISSIVE = (
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "CDLA-Permissive-1.0",
    "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "ODC-By-1.0", "PDDL-1.0", "Unlicense",
)  # fmt: skip
SHARE_ALIKE = ("CC-BY-SA-3.0", "CC-BY-SA-4.0", "CDLA-Sharing-1.0", "GFDL-1.3", "ODbL-1.0")
BLOCKED = (
    "CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0",
    "CC-BY-ND-4.0", "proprietary",
)  # fmt: skip
UNKNOWN = "unknown"

_RANKS: Mapping[str, int] = (
    {name.lower(): 0 for name in PERMISSIVE}
    | {name.lower(): 1 for name in SHARE_ALIKE}
    | {name.lower(): 3 for name in BLOCKED}
)


def restriction(license: str | None) -> int:
    """0 permissive, 1 share-alike, 2 unknown (also any license not in the tables), 3 blocked. Case does not matter."""
    return _RANKS.get((license or UNKNOWN).lower(), 2)


def restriction_sql(column: str) -> str:
    """`restriction` of an SQL expression, as an SQL expression."""
    names = {rank: ", ".join(repr(name) for name in _RANKS if _RANKS[name] == rank) for rank in (0, 1, 3)}
    arms = " ".join(f"WHEN lower({column}) IN ({listed}) THEN {rank}" for rank, listed in names.items())
    return f"CASE {arms} ELSE 2 END"


def refused(counts: Mapping[str, int], allowed: Collection[str] = ()) -> dict[str, int]:
    """The licenses of `counts` (license -> rows) that a release may not carry, with their rows."""
    waved = {name.lower() for name in allowed}
    return {name: n for name, n in counts.items() if restriction(name) >= 2 and name.lower() not in waved}
