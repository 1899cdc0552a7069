"""50,000 requests against one service: odd numbers, groups across hot swaps, repeats, bad headers, bodies that are
none, clients that hang up; PostgreSQL is away for a minute meanwhile. No wrong number, no lost reward, no growth.

Prints latency and memory by tenths of the run. RMKIT_SOAK_REQUESTS and RMKIT_SOAK_AWAY_S make it shorter.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import httpx

from rmkit.ledger import open_ledger
from tests import postgres
from tests.rmkit.serve.compat_service import free_port
from tests.rmkit.serve.soak_service import MODELS

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("RMKIT_SOAK_REQUESTS", "50000"))
AWAY_S = float(os.environ.get("RMKIT_SOAK_AWAY_S", "60"))
CLIENTS = 12
GROUP = 4
ROUTE = "/rmkit/v1/score"
JSON = {"content-type": "application/json"}
BY_FINGERPRINT = {model.info.fingerprint: model for model in MODELS}
ODD = ("NaN", "Infinity", "-Infinity", "1e400", "1" + 400 * "0", "null")


class OwnPostgres:
    """A server that this test may stop and start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs, self._demoted = postgres._programs(), postgres._demoted(folder)
        postgres._initialize(self._programs, folder, self._demoted)
        self.start()
        self.url = postgres.url(folder, "postgres")

    def start(self) -> None:
        self._server = postgres._start(self._programs, self.folder, self._demoted)

    def stop(self) -> None:
        self._server.send_signal(signal.SIGINT)  # "fast": connections are broken off, what was committed stays
        self._server.wait(timeout=60)


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgres]:
    with tempfile.TemporaryDirectory(prefix="rmkit-soak-") as folder:
        server = OwnPostgres(Path(folder))
        try:
            yield server
        finally:
            server.stop()


class Soak:
    """The clients: what they saw, and which rewards the ledger must hold in the end."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        self.draw = random.Random(16)
        self.sent = 0
        self.seconds: list[tuple[int, float]] = []  # the request's number and its latency, waits for a group left out
        self.logged: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.rss_mb: list[float] = []
        self.cpu_s: list[float] = []
        self.away = False

    async def post(self, path: str, content: bytes | str, *, timed: bool = True, **headers: Any) -> httpx.Response:
        number, since = self.sent, time.perf_counter()
        self.sent += 1
        answer = await self.http.post(path, content=content, headers={**JSON, **headers})
        if timed:
            self.seconds.append((number, time.perf_counter() - since))
        scored = answer.status_code == 200 and "idempotent-replayed" not in answer.headers
        if scored:
            self.logged.append(answer.headers["x-request-id"])
        assert answer.status_code != 500, answer.text
        return answer

    def texts(self, n: int) -> list[str]:
        return ["x" * self.draw.randint(1, 40) for _ in range(n)]

    async def plain(self) -> None:
        texts = self.texts(3)
        answer = (await self.post(ROUTE, body(texts))).json()
        assert values(answer) == right(answer, texts)

    async def odd_numbers(self) -> None:
        """Three tests of which one is odd; the other two are centered as if it were not there."""
        texts, odd, at = self.texts(3), self.draw.choice(ODD), self.draw.randrange(3)
        tests: list[Any] = [self.draw.randint(-9, 9) for _ in texts]
        tests[at] = "?"
        more = {"components": {"t": tests}}
        content = body(texts, item=more, mix={"t": 2, "reward": 1}, chain="center").replace('"?"', odd)
        answer = (await self.post(ROUTE, content)).json()
        scores = right(answer, texts)
        sums = [math.nan if t == "?" else 2 * t + v for t, v in zip(tests, scores, strict=True)]
        mean = sum(sums[one] for one in range(3) if one != at) / 2
        for one, score in enumerate(answer["scores"][0]):
            if one == at:
                assert score["reward"] is None
                assert "component 't'" in score["unscored"]
            else:
                assert score["reward"] == pytest.approx(sums[one] - mean, abs=1e-9)
                assert score["unscored"] is None

    async def huge_numbers(self) -> None:
        huge = self.draw.choice((1e308, 1e-200))
        more = {"components": {"t": [huge, huge, -huge]}}
        answer = (await self.post(ROUTE, body(self.texts(3), item=more, mix={"t": 1}, chain="z_score"))).json()
        assert rewards(answer) == pytest.approx([2**-0.5, 2**-0.5, -(2**0.5)])

    async def infinite_score(self) -> None:
        answer = (await self.post(ROUTE, body(["inf", "xx"], chain="rank"))).json()
        assert [score["value"] for score in answer["scores"][0]] == [None, right(answer, ["xx"])[0]]
        assert "not a finite number" in answer["scores"][0][0]["unscored"]

    async def group(self) -> None:
        """GROUP requests that wait for each other, now and then across a swap: one model's numbers or none."""
        texts, name = self.texts(GROUP), f"g{self.draw.getrandbits(64)}"
        pauses = [self.draw.random() * 0.05 for _ in texts]

        async def part(text: str, pause: float) -> Any:
            await asyncio.sleep(pause)
            item = {"group_id": name, "group_size": GROUP}
            content = body([text], item=item, chain="center", timeout_s=30)
            return (await self.post(ROUTE, content, timed=False)).json()

        answers = await asyncio.gather(*(part(*one) for one in zip(texts, pauses, strict=True)))
        scores = [answer["scores"][0][0] for answer in answers]
        models = {answer["model"]["fingerprint"] for answer in answers}
        if len(models) == 1:
            raw = right(answers[0], texts)
            assert [one["reward"] for one in scores] == pytest.approx([r - sum(raw) / GROUP for r in raw], abs=1e-9)
            self.outcomes["groups of one model"] += 1
        else:
            assert all(one["reward"] is None and "swapped in between" in one["unscored"] for one in scores)
            self.outcomes["groups across a swap"] += 1

    async def repeat(self) -> None:
        """The same key at once and again: one answer, whatever was swapped; another body is refused."""
        texts, key = self.texts(2), f"{self.draw.getrandbits(64)}"
        headers: dict[str, Any] = {"idempotency-key": key}
        answers = [*await asyncio.gather(*(self.post(ROUTE, body(texts), **headers) for _ in range(2)))]
        answers.append(await self.post(ROUTE, body(texts), **headers))
        assert len({answer.content for answer in answers}) == 1
        assert values(answers[0].json()) == right(answers[0].json(), texts)
        assert (await self.post(ROUTE, body(["other"]), **headers)).status_code == 409

    async def bad_headers(self) -> None:
        odd: dict[str, Any] = self.draw.choice(
            [
                {"x-request-id": b"\x9b31mred \x9b2J", "authorization": b"Bearer \xff\xfe"},
                {"x-request-id": "a" * 5000},
                {"authorization": "Basic =====", "content-type": "application/json; charset=latin-1"},
                {"idempotency-key": "k" * 201},
            ]
        )
        texts = self.texts(1)
        answer = await self.post(ROUTE, body(texts), **odd)
        await self.raw_headers()
        if "idempotency-key" in odd:
            assert answer.status_code == 422
        else:
            assert values(answer.json()) == right(answer.json(), texts)

    async def raw_headers(self) -> None:
        """What no HTTP library sends: refused, or answered with an id of the service's own."""
        odd = self.draw.choice(
            [
                b"x-request-id: \x1b[31mred\x1b[0m\r\n",
                b"content-length: -5\r\n",
                b"content-length: 5\r\ncontent-length: 6\r\n",
                b"no colon here\r\n",
                b"\x00: \x01\r\n",
            ]
        )
        self.sent += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rsplit(":", 1)[1]))
        writer.write(b"GET /rmkit/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + odd + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert answer.split(b" ")[1] in (b"200", b"400")
        assert b"\x1b" not in answer

    async def nonsense(self) -> None:
        content: Any = self.draw.choice(
            [
                "{",
                '{"items": ' + "[" * 2000,
                body(["x"], mix={"reward": "?"}).replace('"?"', "NaN"),
                body(["x"], mix={"nothing": 1}),
                body([], item={}),
                b"\xff\xfe\x00",
            ]
        )
        assert (await self.post(ROUTE, content)).status_code in (400, 422)
        assert (await self.post("/no%0asuch%1b[31mpath", "{}")).status_code == 404

    async def dialect(self) -> None:
        content = json.dumps({"text_1": "p", "text_2": "x" * 7})
        answer = (await self.post("/vllm/score", content)).json()
        assert answer["data"][0]["score"] in [7 * model.factor + model.offset for model in MODELS]

    async def hang_up(self) -> None:
        """Gone before the answer; whether it was scored and logged is open, so it is neither demanded nor refused."""
        self.sent += 1
        content = body(["gone"], item={"group_id": "gone", "group_size": 50_000, "source": "gone"}, chain="rank")
        with pytest.raises(httpx.TimeoutException):
            await self.http.post(ROUTE, content=content, headers=JSON, timeout=0.03)

    async def client(self) -> None:
        kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.plain, 20),
            (self.odd_numbers, 20),
            (self.huge_numbers, 5),
            (self.infinite_score, 3),
            (self.group, 8),
            (self.repeat, 6),
            (self.bad_headers, 10),
            (self.nonsense, 5),
            (self.dialect, 10),
            (self.hang_up, 1),
        ]
        actions, weights = [kind for kind, _ in kinds], [weight for _, weight in kinds]
        while self.sent < REQUESTS or self.away:
            action = self.draw.choices(actions, weights)[0]
            await action()
            self.outcomes[action.__name__.replace("_", " ")] += 1

    async def watch(self, ledger: OwnPostgres) -> None:
        """Memory at each tenth; the ledger goes at 30% and comes back after AWAY_S, or as soon as the load ends."""
        gone = False
        for tenth in range(1, 11):
            while self.sent < REQUESTS * tenth // 10:
                await asyncio.sleep(0.02)
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            self.rss_mb.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            self.cpu_s.append(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))
            if tenth == 3 and not gone:
                gone = self.away = True
                await asyncio.to_thread(ledger.stop)
                self.outage = asyncio.create_task(self._come_back(ledger))

    async def _come_back(self, ledger: OwnPostgres) -> None:
        await asyncio.sleep(AWAY_S)
        metrics = (await self.http.get("/metrics")).text.splitlines()
        [line] = [line for line in metrics if line.startswith("rmkit_reward_log_waiting ")]
        self.outcomes["rewards that waited"] = int(float(line.split()[1]))
        await asyncio.to_thread(ledger.start)
        self.away = False

    async def run(self, ledger: OwnPostgres) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(base_url=self.url, timeout=60, limits=limits, trust_env=False) as self.http:
            watching = asyncio.create_task(self.watch(ledger))
            await asyncio.gather(*(self.client() for _ in range(CLIENTS)))
            await watching
            await self.outage

    def table(self) -> list[tuple[float, float, float, float]]:
        """p50, p99 and the service's CPU time of a request in ms, and its memory in MB, of each tenth; what came after
        the planned requests is left out of the latencies."""
        rows = []
        for tenth in range(10):
            part = sorted(s for number, s in self.seconds if number * 10 // REQUESTS == tenth)
            cpu_s = self.cpu_s[tenth] - (self.cpu_s[tenth - 1] if tenth else 0)
            p50, p99 = part[len(part) // 2], part[len(part) * 99 // 100]
            rows.append((1000 * p50, 1000 * p99, 10_000 * cpu_s / REQUESTS, self.rss_mb[tenth]))
        return rows


def body(texts: list[str], *, item: Any = None, **more: Any) -> str:
    return json.dumps({"items": [{"prompt": "p", "completions": texts, **(item or {})}], **more})


def values(answer: Any) -> list[float]:
    return [score["value"] for score in answer["scores"][0]]


def rewards(answer: Any) -> list[float]:
    return [score["reward"] for score in answer["scores"][0]]


def right(answer: Any, texts: list[str]) -> list[float]:
    """What the model that the answer names gives the texts."""
    model = BY_FINGERPRINT[answer["model"]["fingerprint"]]
    return [len(text) * model.factor + model.offset for text in texts]


def test_fifty_thousand_requests_and_a_minute_without_postgresql(
    home: Path, own_postgres: OwnPostgres, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    service = subprocess.Popen([sys.executable, "-m", "tests.rmkit.serve.soak_service", str(port), own_postgres.url])
    soak = Soak(f"http://127.0.0.1:{port}", service.pid)
    try:
        wait_for(f"{soak.url}/readyz")
        since = time.monotonic()
        asyncio.run(soak.run(own_postgres))
        took = time.monotonic() - since
        service.send_signal(signal.SIGTERM)
        assert service.wait(120) in (0, -signal.SIGTERM)  # uvicorn raises the signal again after a clean end
    finally:
        service.kill()
        service.wait()
    with open_ledger(own_postgres.url) as ledger:
        events = [recorded.event.payload for recorded in ledger.events(kinds=["reward"])]
    logged = Counter(event["request_id"] for event in events if event["items"][0]["source"] != "gone")
    rows = soak.table()
    with capsys.disabled():
        print(f"\n{soak.sent} requests in {took:.0f} s, {len(soak.logged)} rewards, {dict(soak.outcomes)}")
        print("tenth   p50 ms   p99 ms   CPU ms   RSS MB")
        for tenth, row in enumerate(rows, 1):
            print(f"{tenth:5} {row[0]:8.1f} {row[1]:8.1f} {row[2]:8.2f} {row[3]:8.1f}")
    assert soak.outcomes["groups across a swap"]
    assert soak.outcomes["rewards that waited"]
    assert logged == Counter(soak.logged), "rewards lost or doubled"
    assert not list((home / "reward-log").glob("*")), "rewards still wait on disk"
    early, late = rows[1:4], rows[7:10]
    assert statistics.median(r[0] for r in late) < 2 * statistics.median(r[0] for r in early)
    assert statistics.median(r[1] for r in late) < 3 * statistics.median(r[1] for r in early)
    assert statistics.median(r[2] for r in late) < 1.5 * statistics.median(r[2] for r in early)
    assert rows[9][3] < rows[1][3] + 60  # the answers kept under idempotency keys: at most 64 MiB


def wait_for(url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("the service did not start")
