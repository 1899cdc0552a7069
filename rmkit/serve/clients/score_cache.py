"""Scores that the service gave a moment ago: least recently used first out, and none older than `max_age_s`.

All entries belong to one fingerprint; an answer with another one empties the cache, so a swapped model is seen as soon
as anything is asked, and after `max_age_s` at the latest.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from rmkit.types import Score


class Hit(NamedTuple):
    since: float
    score: Score
    fingerprint: str


class ScoreCache:
    """Thread-safe; `size` 0 keeps nothing."""

    def __init__(self, size: int, *, max_age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self.max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._scores: OrderedDict[str, Hit] = OrderedDict()
        self._fingerprint: str | None = None

    def get(self, key: str) -> Hit | None:
        with self._lock:
            hit = self._scores.get(key)
            if hit is None or self._clock() - hit.since > self.max_age_s:
                self._scores.pop(key, None)
                return None
            self._scores.move_to_end(key)
            return hit

    def clear(self) -> None:
        with self._lock:
            self._scores.clear()

    def put(self, key: str, score: Score, *, fingerprint: str) -> None:
        """Keep a score; failures are never kept."""
        with self._lock:
            if fingerprint != self._fingerprint:
                self._scores.clear()
                self._fingerprint = fingerprint
            if score.unscored is None and self.size:
                self._scores[key] = Hit(self._clock(), score, fingerprint)
                while len(self._scores) > self.size:
                    self._scores.popitem(last=False)
