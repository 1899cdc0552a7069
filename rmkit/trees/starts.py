"""Where to search on from: prompts whose answers vary, and beginnings of their best answer.

    kept where std(rewards) >= spread;  where the best reward >= good: ceil(share L) of its L lines as prefixes, line i
    (from 0) drawn with weight decay^i, without replacement

ReST-RL. An answer of one line has no beginning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Starts:
    spread: Annotated[float, "the least standard deviation of a prompt's rewards"] = 0.05
    good: Annotated[float, "the least reward of an answer that is cut"] = 0.9
    share: Annotated[float, "prefixes a line of the answer"] = 0.5
    decay: Annotated[float, "weight of a line against the one before"] = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 0 < self.decay <= 1:
            raise ConfigError(f"starts: share and decay lie in (0, 1], got {self.share}, {self.decay}")

    def varied(self, rewards: Sequence[float]) -> bool:
        """Whether a prompt is kept: a group of equal rewards teaches nothing. Unknown rewards (NaN) do not count."""
        known = [reward for reward in rewards if not math.isnan(reward)]
        return len(known) > 1 and float(np.std(known)) >= self.spread

    def prefixes(self, texts: Sequence[str], rewards: Sequence[float], *, seed: int = 0) -> list[str]:
        """Beginnings of the best answer (the first of equals in the order of the texts), shortest first."""
        known = [(reward, text) for reward, text in zip(rewards, texts, strict=True) if not math.isnan(reward)]
        if not known or max(known)[0] < self.good:
            return []
        best = min(text for reward, text in known if reward == max(known)[0])
        lines = best.splitlines(keepends=True)
        cuts = [at for at in range(len(lines) - 1) if lines[at].strip()]  # behind line `at`; the last cut leaves a line
        if not cuts:
            return []
        weight = self.decay ** np.array(cuts, dtype=np.float64)
        n = min(math.ceil(self.share * len(lines)), len(cuts))
        drawn = np.random.default_rng(seed).choice(cuts, size=n, replace=False, p=weight / weight.sum())
        return ["".join(lines[: at + 1]) for at in sorted(drawn.tolist())]
