"""Simulated annotators over the REST API, who repeat whatever was not acknowledged."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Tally:
    """What the annotators saw; `acknowledged` holds event ids, `save_s` the saves acknowledged at the first try."""

    acknowledged: list[str] = field(default_factory=list)
    save_s: list[float] = field(default_factory=list)
    retries: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


def annotate(
    url: str, token: str, tally: Tally, stop: threading.Event, *, project: str, rng: random.Random, pause_s: float
) -> None:
    """Fetch and answer one item after the other, thinking `pause_s` on average, until stopped or nothing is left."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{url}/api/projects/{project}", headers=headers, timeout=20) as client:
        while not stop.is_set():
            held, _, _ = _insist(client, tally, stop, "GET", "/next")
            if held is None or held.status_code != 200 or not held.json():
                return
            id = held.json()[0]["id"]
            time.sleep(rng.expovariate(1 / pause_s) if pause_s else 0)
            body = {"answer": {"better": rng.randrange(2), "strength": rng.randrange(1, 4)}, "wall_ms": 1000}
            answer, save_s, tries = _insist(client, tally, stop, "POST", f"/answers/{id}", json=body)
            if answer is None:
                return
            with tally.lock:
                if answer.status_code == 200:
                    tally.acknowledged.append(answer.json()["event"])
                    tally.save_s += [save_s] if tries == 1 else []
                else:
                    tally.refused[answer.json().get("error", "")[:60]] += 1


def _insist(
    client: httpx.Client, tally: Tally, stop: threading.Event, method: str, path: str, **more: Any
) -> tuple[httpx.Response | None, float, int]:
    """The answer, its time and the number of tries; None once it is time to stop. A lost answer is asked for again."""
    tries, give_up = 0, None
    while True:
        tries += 1
        start = time.monotonic()
        try:
            response = client.request(method, path, **more)
            if response.status_code < 500:
                return response, time.monotonic() - start, tries
        except httpx.HTTPError:
            pass
        if stop.is_set():
            give_up = give_up or time.monotonic() + 30  # what was sent is settled, not left in doubt
            if time.monotonic() > give_up:
                return None, 0.0, tries
        with tally.lock:
            tally.retries += 1
        time.sleep(0.1)
