"""Budgets in dollars and tokens that hold: what a call may cost at most is set aside before it is made.

A call whose worst case no longer fits waits for those under way, which mostly cost less than was set aside for them;
when none is under way and it still does not fit, the budget is spent. An attempt that broke off after the request was
sent may have been billed: it counts with its worst case.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from rmkit.errors import UsageError

BUDGET_OF = "the budget of"  # how the reason of a call begins that the budget forbade


class BudgetSpentError(Exception):
    """The next call could cost more than is left."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens, prompt and completion together, and dollars."""

    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.tokens + other.tokens, self.usd + other.usd)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.tokens - other.tokens, self.usd - other.usd)


class Budget:
    """Used from one event loop. `spent` counts calls made now, not answers that were paid before."""

    def __init__(self, *, max_usd: float | None = None, max_tokens: int | None = None) -> None:
        for name, value in (("max_usd", max_usd), ("max_tokens", max_tokens)):
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"{name} must be a number >= 0, got {value}")
        self.max_usd = max_usd
        self.max_tokens = max_tokens
        self.spent = Cost()
        self._aside = Cost()
        self._n_under_way = 0
        self._settled = asyncio.Condition()

    @property
    def limit(self) -> str:
        """The budget in words."""
        parts = [f"${self.max_usd:g}"] if self.max_usd is not None else []
        parts += [f"{self.max_tokens:,} tokens"] if self.max_tokens is not None else []
        return " and ".join(parts) or "no limit"

    async def set_aside(self, worst: Cost) -> None:
        """Raises BudgetSpentError where `worst` does not fit even after all calls under way have come back."""
        if not self._fits(worst):
            async with self._settled:
                await self._settled.wait_for(lambda: self._fits(worst) or not self._n_under_way)
                if not self._fits(worst):
                    raise BudgetSpentError(f"{BUDGET_OF} {self.limit} is spent")
        self._aside += worst
        self._n_under_way += 1

    async def settle(self, worst: Cost, spent: Cost) -> None:
        """Replace what was set aside by what was spent."""
        self._aside -= worst
        self._n_under_way -= 1
        self.spent += spent
        if self.max_usd is not None or self.max_tokens is not None:
            async with self._settled:
                self._settled.notify_all()

    def _fits(self, worst: Cost) -> bool:
        total = self.spent + self._aside + worst
        return (self.max_usd is None or total.usd <= self.max_usd) and (
            self.max_tokens is None or total.tokens <= self.max_tokens
        )
