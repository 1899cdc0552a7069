"""Which licenses a release may carry, and what they are called.

A small, explicit table: permissive and share-alike licenses may be released; non-commercial ones, terms of their own
(llama3, gemma, openrail) and 'unknown' may not, unless allowed by name. A license that is not in the table counts as
unknown: a release never guesses. Where a row comes from several sources the most restrictive license is the row's; a
release needs all of them to pass.

A license is named by its SPDX id, by the Hub's name for it (`odc-by`, `bsd`), or by an SPDX expression: of `MIT OR
Apache-2.0` the less restrictive part counts, of `MIT AND CC-BY-NC-4.0` the more restrictive one. Case does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

PERMISSIVE = (
    "0BSD", "AFL-3.0", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSL-1.0",
    "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0",
    "ECL-2.0", "etalab-2.0", "ISC", "MIT", "MIT-0", "MS-PL", "NCSA", "ODC-By-1.0", "OFL-1.1", "PDDL-1.0", "PostgreSQL",
    "Unlicense", "WTFPL", "Zlib",
)  # fmt: skip
SHARE_ALIKE = (
    "AGPL-3.0", "CC-BY-SA-2.0", "CC-BY-SA-2.5", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CDLA-Sharing-1.0", "EPL-1.0",
    "EPL-2.0", "EUPL-1.1", "EUPL-1.2", "GFDL-1.1", "GFDL-1.2", "GFDL-1.3", "GPL-2.0", "GPL-3.0", "LGPL-2.1",
    "LGPL-3.0", "LPPL-1.3c", "MPL-2.0", "ODbL-1.0", "OSL-3.0",
)  # fmt: skip
BLOCKED = (
    *(f"CC-BY-NC{more}-{v}" for more in ("", "-SA", "-ND") for v in ("1.0", "2.0", "2.5", "3.0", "4.0")),
    *(f"CC-BY-ND-{v}" for v in ("1.0", "2.0", "2.5", "3.0", "4.0")),
    "proprietary",
)  # fmt: skip
HUB_NAMES = {  # names of the Hub that are no SPDX ids, with what they stand for
    "odc-by": "ODC-By-1.0",
    "odbl": "ODbL-1.0",
    "pddl": "PDDL-1.0",
    "bsd": "BSD-3-Clause",
    "gfdl": "GFDL-1.3-or-later",
    "gpl": "GPL-3.0-or-later",
    "lgpl": "LGPL-3.0-or-later",
}
_NOT_ON_THE_HUB = ("0BSD", "CC-BY-SA-2", "GFDL", "MIT-0", "ODC-By", "ODbL", "PDDL")
HUB_IDS = frozenset(  # ids that a card may name as they stand; anything else is `other` with a name
    {name.lower() for name in (*PERMISSIVE, *SHARE_ALIKE) if not name.startswith(_NOT_ON_THE_HUB)}
    | {f"cc-by-nc{more}-{v}" for more in ("", "-sa") for v in ("2.0", "3.0", "4.0")}
    | {"cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "unknown", *HUB_NAMES}
    | {"openrail", "openrail++", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0"}
    | {"bigcode-openrail-m", "c-uda", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma"}
    | {"apple-ascl", "apple-amlr", "h-research", "intel-research", "deepfloyd-if-license", "cc"}
)
UNKNOWN = "unknown"
UNKNOWN_RANK = 2

_RANKS: Mapping[str, int] = (
    {name.lower(): 0 for name in PERMISSIVE}
    | {name.lower(): 1 for name in SHARE_ALIKE}
    | {name.lower(): 3 for name in BLOCKED}
)
_WORD = re.compile(r"\(|\)|[^\s()]+")
_LATER = re.compile(r"(-only|-or-later|\+)$", re.IGNORECASE)


def spdx(license: str | None) -> str:
    """The SPDX id or expression of a license, names of the Hub included; anything else as it stands, none: unknown."""
    text = (license or "").strip() or UNKNOWN
    known = _WORD.sub(lambda word: HUB_NAMES.get(word[0].lower(), word[0]), text)
    try:
        return str(canonicalize_license_expression(known))
    except InvalidLicenseExpression:
        return text


def hub_license(license: str | None) -> tuple[str, str]:
    """What a card on the Hub says: its id for a license, or `other` with the license's name."""
    text = spdx(license)
    named = [hub for hub, one in HUB_NAMES.items() if one == text]
    for name in ((license or UNKNOWN).lower(), text.lower(), *named, _LATER.sub("", text.lower())):
        if name in HUB_IDS:
            return name, ""
    return "other", text


def restriction(license: str | None) -> int:
    """0 permissive, 1 share-alike, 2 unknown (also any license not in the tables), 3 blocked."""
    text = spdx(license)
    words = _WORD.findall(text)
    rank, rest = _of_alternatives(words)
    return UNKNOWN_RANK if rest or rank is None else rank


def _of_alternatives(words: list[str]) -> tuple[int | None, list[str]]:
    """The rank of `A OR B ...` at the front of the words, None where it is malformed, and the words behind it."""
    rank, words = _of_parts(words)
    while rank is not None and words and words[0].upper() == "OR":
        other, words = _of_parts(words[1:])
        rank = None if other is None else min(rank, other)
    return rank, words


def _of_parts(words: list[str]) -> tuple[int | None, list[str]]:
    rank, words = _of_one(words)
    while rank is not None and words and words[0].upper() == "AND":
        other, words = _of_one(words[1:])
        rank = None if other is None else max(rank, other)
    return rank, words


def _of_one(words: list[str]) -> tuple[int | None, list[str]]:
    if not words:
        return None, words
    first, *words = words
    if first == "(":
        rank, words = _of_alternatives(words)
        return (rank, words[1:]) if words and words[0] == ")" else (None, words)
    rank = _RANKS.get(first.lower(), _RANKS.get(_LATER.sub("", first).lower(), UNKNOWN_RANK))
    if words and words[0].upper() == "WITH":  # an exception only permits more
        words = words[2:]
    return rank, words


def most_restrictive(licenses: Iterable[str | None]) -> str:
    """The one of the highest rank, the first of equals; unknown where there is none."""
    return max(map(spdx, licenses), key=restriction, default=UNKNOWN)


def restriction_sql(column: str) -> str:
    """`restriction` of an SQL expression, as an SQL expression; one with parentheses counts as unknown there."""
    names: dict[int, list[str]] = {0: [], 1: [], 3: []}
    for name, rank in _RANKS.items():
        names[rank] += [name, f"{name}-only", f"{name}-or-later", f"{name}+"] if rank == 1 else [name]
    for name in HUB_NAMES:
        names[restriction(name)].append(name)
    arms = " ".join(f"WHEN {{}} IN ({', '.join(map(repr, listed))}) THEN {rank}" for rank, listed in names.items())

    def case(of: str) -> str:
        return f"CASE {arms.replace('{}', of)} ELSE {UNKNOWN_RANK} END"

    one = case("string_split(trim(one), ' with ')[1]")
    parts = f"list_max(list_transform(string_split(trim(part), ' and '), lambda one: {one}))"
    expression = f"list_min(list_transform(string_split(lower({column}), ' or '), lambda part: {parts}))"
    return f"CASE WHEN {column} LIKE '% %' THEN {expression} ELSE {case(f'lower({column})')} END"


def refused(counts: Mapping[str, int], allowed: Collection[str] = ()) -> dict[str, int]:
    """The licenses of `counts` (license -> rows) that a release may not carry, with their rows."""
    waved = {name.lower() for one in allowed for name in (one, spdx(one))}
    return {
        name: n
        for name, n in counts.items()
        if restriction(name) >= UNKNOWN_RANK and not {name.lower(), spdx(name).lower()} & waved
    }
