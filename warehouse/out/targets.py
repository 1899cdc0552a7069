"""For whom an export is, and what may not go there. Of several sources of a row the most restrictive decides.

    local      anything but what was taken back
    research   no unknown or proprietary license, no benchmark, no source whose consent was refused; non-commercial
               licenses pass
    release    as research, and no license that restricts use

A row of which any source was taken back (`rmkit provenance state NAME --removed`) is left out for every target.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from warehouse.out.licenses import UNKNOWN_RANK, refused, restriction, spdx

Target = Literal["local", "research", "release"]
TARGETS: tuple[Target, ...] = ("local", "research", "release")


def refused_licenses(counts: Mapping[str, int], target: Target, allowed: Collection[str] = ()) -> dict[str, int]:
    """The licenses of `counts` (license -> rows) that may not go to a target, with their rows."""
    if target == "local":
        return {}
    bad = refused(counts, allowed)
    return bad if target == "release" else {name: n for name, n in bad.items() if not _for_research(name)}


def _for_research(license: str) -> bool:
    """A Creative Commons license that forbids nothing but commercial use."""
    name = spdx(license).upper()
    return restriction(license) > UNKNOWN_RANK and name.startswith("CC-BY-NC-") and "-ND" not in name
