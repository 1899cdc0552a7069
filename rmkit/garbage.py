"""Python's search for reference cycles, put off where millions of objects are made that all live on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_active = 0
_usual = gc.get_threshold()


@contextmanager
def few_full_collections() -> Iterator[None]:
    """Within it, or in a function that it decorates, full collections hardly ever run; young ones go on.

    A full collection walks through all objects there are, and comes the more often the more there are, so that work
    of twice the size takes more than twice the time. Safe in several threads: the last one out sets things back.
    """
    global _active, _usual
    with _lock:
        if not _active:
            _usual = gc.get_threshold()
            gc.set_threshold(*_usual[:2], 10_000)
        _active += 1
    try:
        yield
    finally:
        with _lock:
            _active -= 1
            if not _active:
                gc.set_threshold(*_usual)
