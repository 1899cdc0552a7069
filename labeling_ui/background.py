"""Work that a studio does again and again beside its pages."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeated(turn: Callable[[], None], *, every_s: float, name: str) -> Iterator[None]:
    """While the block runs, `turn` is called every so many seconds in a thread of that name; its faults are its own."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(every_s):
            turn()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=30)
