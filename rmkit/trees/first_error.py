"""Which prefixes of a wrong solution must be tried to find where it goes wrong.

A prefix is alive where some continuation of it comes out right. Aliveness falls once along a solution, so that the last
living prefix can be bisected: log2(S) prefixes of S (OmegaPRM, arXiv:2406.06592).
"""

from __future__ import annotations

from collections.abc import Generator


def first_error(n_steps: int, living: int = 0) -> Generator[int, bool, int]:
    """Yields numbers of steps to try, takes whether that prefix is alive, returns how many steps are right.

    The whole solution is wrong. `living` steps are known to be right, because another solution that begins with them
    is; the empty prefix counts as alive: where it is not, the first step is the one that goes wrong.
    """
    alive, dead = living, n_steps
    while dead - alive > 1:
        middle = (alive + dead) // 2
        if (yield middle):
            alive = middle
        else:
            dead = middle
    return alive
