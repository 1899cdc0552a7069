"""MoPPS's belief about a prompt's pass rate: a Beta distribution whose memory fades (arXiv:2507.04632).

    a <- lambda a + (1 - lambda) a_0 + s,   b <- lambda b + (1 - lambda) b_0 + n - s

of s successes among n answers; lambda 1 forgets nothing. The paper's form; its released code lacks a pair of brackets.
Rewards between 0 and 1 count as that part of a success. Unscored answers are neither successes nor failures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rmkit.shaping.group import Floats

PRIOR = 1.0


class Beta(NamedTuple):
    a: float = PRIOR
    b: float = PRIOR

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> float:
        total = self.a + self.b
        return self.a * self.b / (total * total * (total + 1))

    def observed(self, successes: float, n: int, *, decay: float = 1.0) -> Beta:
        """The belief after n more answers; none change nothing."""
        if not n:
            return self
        fresh = (1 - decay) * PRIOR
        return Beta(decay * self.a + fresh + successes, decay * self.b + fresh + n - successes)


def draws(a: Floats, b: Floats, rng: np.random.Generator) -> Floats:
    """[P] Thompson samples of pass rates."""
    return rng.beta(a, b)
