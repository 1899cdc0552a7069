"""`rmkit bench studio-keys`: from a key to the next item, beside what Streamlit itself takes.

Both are timed inside the page: from the key's event to the moment at which another item stands in the document
(`shown`), and at which the run has ended too, so that nothing of it can still change (`ready`). The floor is the
smallest page there is, one text and one button with a shortcut, under the same server and settings. Blocks of keys on
the two pages take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labeling_ui.benchmarks.browser import chromium, ready, signed_in
from labeling_ui.benchmarks.measure import measure
from labeling_ui.benchmarks.process import Server
from labeling_ui.benchmarks.scale import ScaleConfig, filled_project
from rmkit.cli import arguments

BLOCK, WARM, PAUSE_S = 10, 5, 0.3
QUANTILES = (25, 50, 75, 95)
ABOUT = (
    "Milliseconds from a key to the next item in headless Chromium on the machine of the server: `shown`, the next "
    "item is in the document; `ready`, the run has ended as well. The floor is a page of one text and one button "
    "under the same server. Wanted: a median under 150 ms."
)

_PROBE = """() => {
    const main = () => document.querySelector('[data-testid=stMain]').textContent;
    const hasEnded = () => document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'
        && !document.querySelector('.rmkit-answer')?.sheet?.sent;
    window.keyTimes = [];
    let run = null;
    new MutationObserver(() => {
        if (run === null || (run.shown === undefined && main() === run.before)) return;
        run.shown ??= performance.now() - run.start;
        if (hasEnded()) {
            window.keyTimes.push([run.shown, performance.now() - run.start]);
            run = null;
        }
    }).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true,
                               attributeFilter: ['data-test-script-state']});
    document.addEventListener('keydown', () => { run = {start: performance.now(), before: main()}; }, true);
}"""


@dataclass(frozen=True, kw_only=True)
class KeysConfig:
    """`items` of the project, `answers` given before, `keys` pressed and timed on each of the two pages."""

    items: int = 1000
    answers: int = 500
    keys: int = 60
    seed: int = 0


def run(home: Path, config: KeysConfig) -> dict[str, object]:
    """The figures of one run in an empty `home`."""
    tokens = filled_project(home, ScaleConfig(items=config.items, answers=config.answers, seed=config.seed))
    server = Server(home)
    server.start()
    try:
        with _floor() as floor:
            times = asyncio.run(_pressed(server.url, tokens["person-0"], floor, config.keys))
    finally:
        server.kill()
    figures: dict[str, Any] = {"items": config.items, "answers_before": config.answers, "keys": config.keys}
    for page, pairs in times.items():
        for name, column in zip(("shown", "ready"), np.array(pairs).T, strict=True):
            figures[f"{page}_{name}_ms"] = {f"p{q}": round(float(np.percentile(column, q)), 1) for q in QUANTILES}
    return figures


@contextlib.contextmanager
def _floor() -> Iterator[str]:
    """The address of the smallest page, served by a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", "labeling_ui.benchmarks.floor", str(port)])
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def _pressed(url: str, token: str, floor: str, keys: int) -> dict[str, list[list[float]]]:
    """[shown, ready] in milliseconds for each key on the annotate page and on the floor's."""
    async with chromium() as browser:
        ours = await signed_in(browser, url, token)
        await ours.get_by_role("button", name=re.compile("B much better")).wait_for()
        smallest = await browser.new_page()
        await smallest.goto(floor)
        await ready(smallest)
        pages = {"floor": smallest, "annotate": ours}
        for page in pages.values():
            await page.evaluate(_PROBE)
            await _listening(page)
            await _press(page, WARM)
            await page.evaluate("window.keyTimes = []")
        for _ in range(-(-keys // BLOCK)):
            for page in pages.values():
                await _press(page, BLOCK)
        return {name: (await page.evaluate("window.keyTimes"))[:keys] for name, page in pages.items()}


async def _listening(page: Any) -> None:
    """Wait until the page answers a key: it is drawn a moment before its shortcuts are listened to."""
    while not await page.evaluate("window.keyTimes.length"):
        await page.keyboard.press("1")
        await asyncio.sleep(1.0)


async def _press(page: Any, times: int) -> None:
    """One key after the other, each once the item before has gone and a moment has passed."""
    before = await page.evaluate("window.keyTimes.length")
    for number in range(times):
        await page.keyboard.press("1")
        await page.wait_for_function("n => window.keyTimes.length > n", arg=before + number)
        await asyncio.sleep(PAUSE_S)


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    measure(argv, options, KeysConfig, run, name="studio-keys", about=ABOUT, text=_text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        "bench studio-keys",
        "From a key to the next item on the annotate page, beside the smallest Streamlit page.",
        examples=["bench studio-keys", "bench studio-keys --items 100000 --answers 20000 --json"],
    )
    plain = KeysConfig()
    parser.add_argument("--items", type=int, default=plain.items, help="items of the project (default: 1000)")
    parser.add_argument("--answers", type=int, default=plain.answers, help="answers given before (default: 500)")
    parser.add_argument("--keys", type=int, default=plain.keys, help="keys timed on each page (default: 60)")
    parser.add_seed(plain.seed)
    parser.add_page(help="write its section of the results page there")
    return parser


def _text(figures: Mapping[str, Any]) -> str:
    """One line a figure, percentiles side by side."""
    return "\n".join(
        f"{name:<20}{'  '.join(f'{q} {ms:.0f}' for q, ms in value.items()) if isinstance(value, dict) else value}"
        for name, value in figures.items()
    )
