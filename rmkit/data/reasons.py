"""Why rows and scores are missing: counted by reason, where reasons that differ in their numbers alone are one."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping

from rmkit.errors import DataError

MOST_LINES = 8


def without_numbers(reason: str) -> str:
    """The reason with N for every number; of several joined by "; " each once."""
    return "; ".join(dict.fromkeys(re.sub(r"\d+", "N", reason).split("; ")))


def counted(reasons: Iterable[str]) -> Counter[str]:
    return Counter(map(without_numbers, reasons))


def reason_lines(counts: Mapping[str, int], *, of: str = "") -> list[str]:
    """A line for each of the most frequent reasons, and one for the rest; `of` names what is counted."""
    common = Counter(counts).most_common()
    summary = [(count, reason) for reason, count in common[:MOST_LINES]]
    if rest := common[MOST_LINES:]:
        summary.append((sum(count for _, count in rest), f"{len(rest)} other reasons"))
    return [f"{count:,}{of and ' ' + of}: {reason}" for count, reason in summary]


def check_enough(
    split: str, n: int, skipped: Mapping[str, int], *, rows: int, least: int, what: str = "usable rows"
) -> None:
    """Raises DataError where the `rows` of a split gave fewer than `least` of `what`, saying why others were skipped;
    says it on stderr where that were more than a quarter."""
    if n < least:
        why = "; ".join(reason_lines(skipped, of="rows")) or "nothing was skipped"
        raise DataError(f"the {split} split has {n} {what}, at least {least} are needed ({why})")
    total = sum(skipped.values())
    if 4 * total > rows and os.environ.get("RANK", "0") == "0":  # of several processes (torchrun) the first
        lines = [f"warning: {total:,} of the {rows:,} rows of the {split} split are skipped"]
        print("\n    ".join([*lines, *reason_lines(skipped, of="rows")]), file=sys.stderr)
