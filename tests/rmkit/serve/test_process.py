"""The service as a process of its own: signals under load, reload, several workers, refusals at the start."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx

from rmkit.cli.main import main as rmkit
from rmkit.ledger import open_ledger


class Service:
    """`rmkit serve ...` on a free port; `url` is what it announced."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "rmkit", "serve", *arguments, "--port", "0", "--json"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )
        assert self.process.stdout is not None
        self.told = json.loads(self.process.stdout.readline() or "{}")
        self.url = self.told.get("url", "")

    def score(self, *completions: str, **more: Any) -> httpx.Response:
        body = {"items": [{"prompt": "p", "completions": list(completions)}]}
        return httpx.post(f"{self.url}/rmkit/v1/score", json=body, timeout=30, **more)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


Start = Callable[..., Service]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    begun: list[Service] = []

    def make(*arguments: str, **options: Any) -> Service:
        begun.append(Service(*arguments, **options))
        return begun[-1]

    yield make
    for service in begun:
        if service.process.poll() is None:
            service.process.kill()
        service.process.communicate()


class Load:
    """Threads that ask until they are told to end; every request is answered, refused or broken off."""

    def __init__(self, service: Service, *, threads: int = 8) -> None:
        self.answered: list[str] = []
        self.broken = 0
        self.refused: list[int] = []
        self._service = service
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self._service.url, timeout=30) as client:
            asked = 0
            while not self._over.is_set():
                asked += 1
                text = "x" * (1 + (number * 7 + asked) % 50)
                try:
                    answer = client.post(
                        "/rmkit/v1/score", json={"items": [{"prompt": "p", "completions": [text] * 20}]}
                    )
                except httpx.TransportError:
                    self.broken += 1
                    time.sleep(0.01)
                    continue
                if answer.status_code != 200:
                    self.refused.append(answer.status_code)
                    continue
                values = {score["value"] for score in answer.json()["scores"][0]}
                assert [*values] == pytest.approx([math.log1p(len(text))], rel=1e-12), "a wrong score"
                self.answered.append(answer.json()["request_id"])

    def until(self, answers: int) -> None:
        """Wait until so many more requests were answered."""
        aim, give_up = len(self.answered) + answers, time.monotonic() + 60
        while len(self.answered) < aim and time.monotonic() < give_up:
            time.sleep(0.02)
        assert len(self.answered) >= aim

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def logged() -> list[str]:
    with open_ledger() as ledger:
        return [recorded.event.payload["request_id"] for recorded in ledger.events(kinds=["reward"])]


def test_sigterm_under_load_answers_and_logs_all_that_was_taken(start: Start) -> None:
    service = start("length", "--quiet")
    load = Load(service)
    load.until(30)
    status = service.end()
    load.end()
    assert status == 0
    assert set(load.refused) <= {503}
    assert sorted(logged()) == sorted(load.answered)


@pytest.mark.slow
def test_kill_under_load_breaks_off_and_the_next_start_goes_on(start: Start) -> None:
    service = start("length", "--quiet")
    load = Load(service)
    load.until(100)
    time.sleep(1.0)  # beyond the log's own delay
    service.end(signal.SIGKILL)
    load.end()
    kept = logged()  # the ledger is whole; what the last moment answered may be missing from it
    assert len(set(kept) & set(load.answered)) > 0
    assert load.broken > 0
    again = start("length", "--quiet")
    assert again.score("abc").status_code == 200
    assert again.end() == 0
    assert len(logged()) == len(kept) + 1


def wait_until_ready(service: Service) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{service.url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError("the service is not ready")


@pytest.mark.slow
def test_workers_share_the_port_and_end_together(start: Start) -> None:
    service = start("length", "--workers", "2", "--quiet")
    assert service.told["workers"] == 2
    wait_until_ready(service)
    load = Load(service, threads=4)
    load.until(30)
    service.process.send_signal(signal.SIGHUP)  # workers are replaced one after the other, nothing is lost
    time.sleep(12.0)
    load.end()
    assert (load.broken, load.refused) == (0, [])
    counted = httpx.get(f"{service.url}/metrics", timeout=30).text
    total = [line for line in counted.splitlines() if line.startswith('rmkit_scores_total{model="length",outcome="s')]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in total) == 20 * len(load.answered)
    assert service.end() == 0
    assert sorted(logged()) == sorted(load.answered)


def places(folder: Path) -> dict[int, int]:
    """The device, by its number, that each living worker took."""
    taken = {int(path.name.split("-")[3]): int(path.name.split("-")[1]) for path in folder.glob("*/place-*")}
    return {pid: device for pid, device in taken.items() if Path(f"/proc/{pid}").exists()}


@pytest.mark.slow
def test_each_device_has_a_worker_whatever_dies_or_is_replaced(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import rmkit.devices\nrmkit.devices.gpus = lambda: ['4', '7']\n")
    env = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}", "TMPDIR": str(tmp_path)}
    service = start("length", "--devices", "auto", "--quiet", env=env)
    assert (service.told["workers"], service.told["devices"]) == (2, ["4", "7"])
    wait_until_ready(service)

    def settled(before: set[int]) -> dict[int, int]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            now = places(tmp_path)
            if len(now) == 2 and not before & now.keys():
                return now
            time.sleep(0.2)
        raise AssertionError(f"workers are at {places(tmp_path)}")

    first = settled(set())
    assert sorted(first.values()) == [0, 1]
    dead = next(pid for pid, device in first.items() if device == 1)
    os.kill(dead, signal.SIGKILL)
    second = settled({dead})
    assert sorted(second.values()) == [0, 1]
    service.process.send_signal(signal.SIGHUP)
    assert sorted(settled(set(second)).values()) == [0, 1]
    assert service.end() == 0


@pytest.mark.slow
def test_workers_end_when_their_supervisor_was_killed(start: Start) -> None:
    service = start("length", "--workers", "2", "--quiet")
    wait_until_ready(service)
    service.process.kill()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{service.url}/readyz", timeout=5)
        except httpx.ConnectError:
            return  # the port is free again
        time.sleep(0.2)
    raise AssertionError("somebody still serves")


@pytest.fixture
def lexical(home: Path, tmp_path: Path) -> Path:
    pytest.importorskip("sklearn")
    pytest.importorskip("duckdb")
    assert rmkit(["sample", str(tmp_path / "data"), "--pairs", "200", "--json"]) == 0
    assert rmkit(["ingest", str(tmp_path / "data" / "sample.jsonl"), "--name", "s"]) == 0
    assert rmkit(["run", "clean", "--data", "s"]) == 0
    assert rmkit(["train", "lexical", "--data", "s", "-o", str(tmp_path / "model")]) == 0
    return tmp_path / "model"


@pytest.mark.slow
def test_a_model_that_does_not_match_its_golden_scores_is_not_served(start: Start, lexical: Path) -> None:
    golden = lexical / "golden.jsonl"
    rows = [json.loads(line) for line in golden.read_text().splitlines()]
    rows[0]["score"] += 0.01
    golden.write_text("\n".join(map(json.dumps, rows)) + "\n")
    service = start(str(lexical))
    assert service.process.wait(60) == 2
    assert service.process.stderr is not None
    assert "golden score differs" in service.process.stderr.read()


@pytest.mark.slow
def test_models_are_reloaded_and_swapped_under_load(start: Start, lexical: Path, home: Path) -> None:
    """SIGHUP takes up what lies at the path now; a broken model there leaves the old one at work."""
    from rmkit.ledger import open_ledger as opened
    from rmkit.serve.auth.tokens import create

    with opened() as ledger:
        token = create(ledger, "ops", scopes=["score", "admin"])
    place = lexical.with_name("served")
    shutil.copytree(lexical, place)
    (home / "other.toml").write_text("hash_bits = 10\n")
    settings = ["--config", f"{home}/other.toml", "-o", f"{home}/models/other"]
    assert rmkit(["train", "lexical", "--data", "s", *settings]) == 0
    service = start(f"m={place}")
    headers = {"Authorization": f"Bearer {token}"}

    def fingerprint() -> str:
        answer = service.score("a reply", headers=headers)
        assert answer.status_code == 200
        return str(answer.json()["model"]["fingerprint"])

    def swap(model: str) -> httpx.Response:
        body = {"name": "m", "model": model}
        return httpx.post(f"{service.url}/rmkit/v1/admin/swap", json=body, headers=headers, timeout=30)

    first = fingerprint()
    assert swap("other").json()["fingerprint"] == fingerprint() != first
    assert [swap(model).status_code for model in ("no/such/model", str(lexical), "length")] == [400, 400, 400]
    (place / "weights.npz").write_bytes(b"broken")
    service.process.send_signal(signal.SIGHUP)
    time.sleep(2)
    assert fingerprint() != first  # the other is still there
    shutil.copy(lexical / "weights.npz", place / "weights.npz")
    service.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while fingerprint() != first and time.monotonic() < deadline:
        time.sleep(0.1)
    assert fingerprint() == first
    assert service.end() == 0


def refusal(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert rmkit(["serve", *arguments]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_served_is_told_in_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.toml").write_text("max_wait = 3\n")
    for arguments, reason in (
        (["no/such/model"], "no/such/model"),
        (["length", "length"], "NAME=MODEL"),
        (["length", "--workers", "0"], "1 or more"),
        (["length", "--compat", "nothing"], "unknown dialect 'nothing'"),
        (["length", "--config", str(tmp_path / "s.toml")], "did you mean 'max_wait_s'"),
        (["length", "--log-sample", "2"], "[0, 1]"),
        (["length", "--backend", "other", "http://x"], "vllm-http"),
    ):
        told = refusal(arguments, capsys)
        assert reason in told
        assert told.count("\n") == 1


def test_a_taken_port_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert "try --port 0" in refusal(["length", "--port", str(other.getsockname()[1])], capsys)
