"""The clients of `rmkit bench service`, in a process of their own: a closed loop over keep-alive connections.

HTTP is spoken by hand over asyncio streams, so that the clients cost little beside what they measure. Prints one JSON
object: every answer's second, latency and status, wrong and lost answers, and the processor time the clients took.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.benchmarks.service.setup import rendered
from evaluation.benchmarks.shaping.chain import CHAIN
from rmkit.shaping import Group, chain

TOLERANCE = 1e-4
GIVE_UP_S = 60.0  # a request without an answer for so long is lost
IMPATIENCE_S = 0.2  # between a 429 and the next try, whatever Retry-After says


class Prepared(NamedTuple):
    """A request as bytes, and what is right."""

    head_and_body: bytes
    expected: list[float]


def prepare(line: str, style: str) -> Prepared:
    document = json.loads(line)
    expected = document["expected"]
    if style == "plain":
        path = "/get_reward"
        body: dict[str, Any] = {"query": [rendered(document["prompt"], text) for text in document["completions"]]}
    else:
        path = "/rmkit/v1/score"
        item = {"prompt": document["prompt"], "completions": document["completions"]}
        body = {"items": [item]}
        if style == "chain":
            lengths = [float(len(text)) for text in document["completions"]]
            columns = {"length": lengths, "n_calls": [float(at % 4) for at in range(len(lengths))]}
            item["columns"], body["chain"] = columns, CHAIN
            expected = chain(CHAIN).apply(Group.of(columns | {"reward": expected}))["reward"]
    data = json.dumps(body).encode()
    # A service answers only to the hosts that it serves.
    lines = (
        f"POST {path} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(data)}",
    )
    head = "\r\n".join(lines) + "\r\n\r\n"
    return Prepared(head.encode() + data, expected)


async def answer_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: bytes) -> tuple[int, bytes]:
    """(status, body) of one request on an open connection."""
    writer.write(requests)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    return int(head.split(" ", 2)[1]), await reader.readexactly(length)


def is_right(style: str, body: bytes, expected: list[float]) -> bool:
    answer = json.loads(body)
    if style == "plain":
        result = answer["rewards"]
    else:
        result = [score["reward" if style == "chain" else "value"] for score in answer["scores"][0]]
    return len(result) == len(expected) and all(
        value is not None and abs(value - right) <= TOLERANCE * max(1.0, abs(right))
        for value, right in zip(result, expected, strict=True)
    )


class Load:
    """What the clients saw. `answers` are (second after the start, latency in s, status, completions)."""

    def __init__(self, requests: list[Prepared], *, url: str, style: str, seconds: float) -> None:
        self.requests = itertools.cycle(requests)
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)
        self.style = style
        self.start = time.monotonic()
        self.end = self.start + seconds
        self.answers: list[tuple[float, float, int, int]] = []
        self.counts: Counter[str] = Counter()

    async def client(self) -> None:
        connection = None
        while time.monotonic() < self.end:
            requests = next(self.requests)
            sent = time.monotonic()
            try:
                connection = connection or await asyncio.open_connection(self.host, self.port)
                status, body = await asyncio.wait_for(answer_of(*connection, requests.head_and_body), GIVE_UP_S)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                self.counts["lost"] += 1
                connection = None
                await asyncio.sleep(IMPATIENCE_S)
                continue
            now = time.monotonic()
            self.answers.append((now - self.start, now - sent, status, len(requests.expected)))
            if status == 200:
                self.counts["right" if is_right(self.style, body, requests.expected) else "wrong"] += 1
            elif status == 429:
                await asyncio.sleep(IMPATIENCE_S)
        if connection:
            connection[1].close()

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self.client() for _ in range(clients)))


async def recovery(load: Load, requests: Prepared) -> float:
    """Seconds from now until a request is answered again."""
    since = time.monotonic()
    while time.monotonic() - since < GIVE_UP_S:
        try:
            reader, writer = await asyncio.open_connection(load.host, load.port)
            status, _ = await asyncio.wait_for(answer_of(reader, writer, requests.head_and_body), GIVE_UP_S)
            writer.close()
            if status == 200:
                return time.monotonic() - since
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.05)
    return GIVE_UP_S


def main(options: dict[str, Any]) -> dict[str, object]:
    lines = Path(options["requests"]).read_text().splitlines()
    requests = [prepare(line, options["style"]) for line in lines]
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    load = Load(requests, url=options["url"], style=options["style"], seconds=options["seconds"])
    asyncio.run(load.run(options["clients"]))
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - started
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = {"answers": load.answers, "counts": dict(load.counts), "client_cpu": used / wall}
    if options.get("recovery"):
        result["recovery_s"] = asyncio.run(recovery(load, requests[0]))
    return result


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
