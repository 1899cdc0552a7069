"""What the record of a prompt says to a trainer.

    all_fail    the last `window` bare attempts all failed (Scaf-GRPO, GHPO, NuRL, Cog-Rethinker)
    all_pass    they all succeeded
    plateau     the pass rate of the newer half of the attempts is no better than that of the older half

Hinted attempts count in none of them. A record without `window` scored attempts has no flag.
"""

from __future__ import annotations

from collections.abc import Sequence

WINDOW = 8
FLAGS = ("all_fail", "all_pass", "plateau")


def flags(recent: Sequence[float], *, window: int = WINDOW, gain: float = 0.0) -> tuple[str, ...]:
    """Flags of successes in [0, 1], oldest first; a plateau is a gain of at most `gain`."""
    if len(recent) < window:
        return ()
    last = list(recent[-window:])
    result = []
    if max(last) <= 0:
        result.append("all_fail")
    if min(last) >= 1:
        result.append("all_pass")
    half = len(recent) // 2
    older, newer = recent[:half], recent[half:]
    if len(recent) >= 2 * window and sum(newer) / len(newer) - sum(older) / len(older) <= gain:
        result.append("plateau")
    return tuple(result)
