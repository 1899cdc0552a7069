"""SPO's baseline of a prompt: an average that forgets as fast as the policy moves (arXiv:2509.13232).

    rho = clip(2^(-D / 0.06), .875, .96),   a <- rho a + r,   b <- rho b + 1 - r,   baseline a / (a + b)

D is the token mean of |log p_now - log p_then| on the prompt's previous response. The baseline of a reward is the one
before it is observed; advantages are then normalized over the batch.
"""

from __future__ import annotations

from typing import NamedTuple

HALF_LIFE, LEAST, MOST = 0.06, 0.875, 0.96
PRIOR = 1.0


class DriftAverage(NamedTuple):
    a: float = PRIOR
    b: float = PRIOR

    @property
    def baseline(self) -> float:
        return self.a / (self.a + self.b)

    def observed(self, reward: float, *, drift: float = 0.0) -> DriftAverage:
        """The average after a reward in [0, 1]."""
        memory = min(max(2 ** (-drift / HALF_LIFE), LEAST), MOST)
        return DriftAverage(memory * self.a + reward, memory * self.b + 1 - reward)
