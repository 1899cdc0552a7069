"""Two replicas under Ray Serve on two cores: needs the extra ray-serve."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("ray.serve", exc_type=ImportError)
pytest.importorskip("fastapi")

import httpx

from rmkit.ledger import open_ledger


@pytest.mark.slow
def test_two_replicas_answer_as_one_service(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["serve", "length", "--engine", "ray", "--workers", "2", "--port", str(port), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rmkit", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["replicas"] == 2

        def ask(n: int) -> float:
            body = {"items": [{"prompt": "p", "completions": ["x" * n]}]}
            answer = httpx.post(f"{told['url']}/rmkit/v1/score", json=body, timeout=60)
            assert answer.status_code == 200
            return float(answer.json()["scores"][0][0]["value"])

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(1, 61))) == pytest.approx([math.log1p(n) for n in range(1, 61)])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    with open_ledger() as ledger:
        assert len(list(ledger.events(kinds=["reward"]))) == 60
