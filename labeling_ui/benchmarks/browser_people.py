"""Annotators in real browsers, by keyboard. What they saw acknowledged is an item that gave way to the next one.

While the server is down they do what people do: wait, and reload the page if it does not come back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from labeling_ui.benchmarks.browser import chromium, ready, signed_in

PATIENCE_S = 20.0

# Which item stands on the page, complete: its form says so. Null while there is none to answer.
_ITEM = """() => {
    if (document.querySelector('[data-testid=stApp]')?.dataset.testScriptState !== 'notRunning') return null;
    const sheet = document.querySelector('.rmkit-answer')?.sheet;
    return sheet && !sheet.sent ? sheet.id : null;
}"""
_ANOTHER_ITEM = f"before => {{ const now = ({_ITEM})(); return now && now !== before ? now : null; }}"


@dataclass
class Seen:
    """`acknowledged` holds (person, id of the item as it was given out)."""

    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    next_item_s: list[float] = field(default_factory=list)
    presses: int = 0
    reloads: int = 0
    failures: list[str] = field(default_factory=list)


def annotate_in_browsers(
    url: str, tokens: Sequence[tuple[str, str]], seen: Seen, stop: threading.Event, *, pause_s: float, seed: int
) -> None:
    """Work until stopped, one browser context for each (name, token); what goes wrong ends up in `seen.failures`."""
    try:
        asyncio.run(_all(url, tokens, seen, stop, pause_s=pause_s, seed=seed))
    except Exception as error:  # of a thread: told with the figures, where it makes the run fail
        seen.failures.append(f"{type(error).__name__}: {error}"[:300])


async def _all(
    url: str, tokens: Sequence[tuple[str, str]], seen: Seen, stop: threading.Event, *, pause_s: float, seed: int
) -> None:
    async with chromium() as browser:
        people = (
            _annotate(await signed_in(browser, url, token), name, seen, stop, random.Random(f"{seed}/{name}"), pause_s)
            for name, token in tokens
        )
        await asyncio.gather(*[person async for person in people])


async def _annotate(
    page: Any, name: str, seen: Seen, stop: threading.Event, rng: random.Random, pause_s: float
) -> None:
    here = await _shown(page, seen, "")
    while not stop.is_set():
        await asyncio.sleep(rng.expovariate(1 / pause_s) if pause_s else 0)
        start = time.monotonic()
        await page.keyboard.press(str(rng.choice([1, 2, 3, 5, 6, 7])))
        seen.presses += 1
        following = await _shown(page, seen, here)
        if following != here:  # after a reload it may still be the same: then nothing was acknowledged
            seen.acknowledged.append((name, here.partition("-")[0]))
            seen.next_item_s.append(time.monotonic() - start)
        here = following


async def _shown(page: Any, seen: Seen, before: str) -> str:
    """The item on the page once it is another one than `before`, or whatever stands there after a reload."""
    from playwright.async_api import Error

    target, argument = _ANOTHER_ITEM, before
    while True:
        with contextlib.suppress(Error):
            result = await page.wait_for_function(target, arg=argument, timeout=1000 * PATIENCE_S)
            return str(await result.json_value())
        seen.reloads += 1
        target = _ITEM
        with contextlib.suppress(Error):
            await page.reload()
            await ready(page, timeout_s=PATIENCE_S)
