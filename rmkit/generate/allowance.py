"""What all paying calls of a stretch of work may cost together: every engine that is opened inside of it is bound.

    with allowance("loop hh", max_usd=20.0, spent_usd=3.5):
        ...       # steps, judges, evaluations: whatever opens an Engine

A loop cannot hand a budget through every step, model and judge that might ask somebody; so engines look for one where
they are opened. Unlike an engine's own budget, which answers further calls by failed samples, it ends the work: rows
would be dropped, or scores stored as missing, for want of money, and nothing would make them again.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rmkit.errors import BudgetError, UsageError

_POLL_S = 0.01


class Allowance:
    """Shared by engines, each with an event loop in a thread of its own. Calls are billed under `purpose`."""

    def __init__(self, purpose: str, *, max_usd: float | None, spent_usd: float = 0.0) -> None:
        if max_usd is not None and not 0 <= max_usd < math.inf:
            raise UsageError(f"max_usd must be a number >= 0, got {max_usd}")
        self.purpose, self.max_usd, self.spent_usd = purpose, max_usd, spent_usd
        self._aside_usd = 0.0
        self._n_under_way = 0
        self._lock = threading.Lock()

    async def set_aside(self, worst_usd: float) -> None:
        """Waits for calls under way, which mostly cost less than was set aside for them. Raises BudgetError where none
        is and `worst_usd` still does not fit: everything that was answered is stored then."""
        while not self._took(worst_usd):
            await asyncio.sleep(_POLL_S)

    def _took(self, worst_usd: float) -> bool:
        with self._lock:
            total = self.spent_usd + self._aside_usd + worst_usd
            fits = self.max_usd is None or worst_usd == 0 or total <= self.max_usd
            if not fits and not self._n_under_way:
                raise BudgetError(
                    f"{self.purpose}: ${self.max_usd:g} do not pay for the next call (${self.spent_usd:.4g} are spent, "
                    f"it may cost ${worst_usd:.4g}); what was answered is kept: repeat with a larger --max-usd"
                )
            if fits:
                self._aside_usd += worst_usd
                self._n_under_way += 1
            return fits

    def lose(self, usd: float) -> None:
        """An attempt that broke off and may have been billed."""
        with self._lock:
            self.spent_usd += usd

    def settle(self, worst_usd: float, spent_usd: float) -> None:
        """Replace what was set aside by what was spent; the answer is stored by now."""
        with self._lock:
            self._aside_usd -= worst_usd
            self._n_under_way -= 1
            self.spent_usd += spent_usd


_CURRENT: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def allowance(purpose: str, *, max_usd: float | None, spent_usd: float = 0.0) -> Iterator[Allowance]:
    """Engines that are opened inside are billed under `purpose` and bound by `max_usd` (None: no bound) together, of
    which `spent_usd` is gone."""
    own = Allowance(purpose, max_usd=max_usd, spent_usd=spent_usd)
    token = _CURRENT.set(own)
    try:
        yield own
    finally:
        _CURRENT.reset(token)


def current_allowance() -> Allowance | None:
    """The one that work in this thread is bound by."""
    return _CURRENT.get()
