"""`kill -9` at random moments of `rmkit train peers`: resumed, it ends with the same audit and the same weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import pyarrow.parquet as pq

from evaluation.denoise.fine_tuned import causal_model, planted
from rmkit.training.run import last_checkpoint

KILLS = 4


def command(home: Path, data: Path, model: Path, target: Path, *more: str) -> subprocess.Popen[str]:
    options = ["learning_rate=1e-3", "num_train_epochs=5", "global_batch_size=8", "max_batch_tokens=800",
               "max_length=200", "response_reserve_tokens=100"]  # fmt: skip
    said = [part for option in options for part in ("--set", option)]
    arguments = [
        "--data",
        str(data),
        "--model",
        str(model),
        "--noise",
        "0.4",
        "-o",
        str(target),
        "--json",
        *said,
        *more,
    ]
    environment = os.environ | {"RMKIT_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "rmkit", "train", "peers", *arguments], env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    made: dict[str, Any] = json.loads(out)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_a_killed_review_resumes_bit_for_bit(kind: str, tmp_path: Path) -> None:
    data, model = tmp_path / "data", tmp_path / "base"
    planted(data, pairs=160, rate=0.4, seed=3)
    causal_model(model, hidden=32, seed=3)
    whole = finished(command(tmp_path / "home", data, model, tmp_path / "whole" / "m", "--kind", kind))
    draw, kills, resumed = random.Random(int(time.time())), 0, 0
    run = tmp_path / "home-2" / "runs" / "peers-m"
    while True:
        before = last_checkpoint(run)
        more = ["--resume"] if before else ["--restart"]
        process = command(tmp_path / "home-2", data, model, tmp_path / "broken" / "m", "--kind", kind, *more)
        resumed += bool(before)
        if kills == KILLS:
            break
        while last_checkpoint(run) == before and process.poll() is None:  # at least one epoch further
            time.sleep(0.01)
        time.sleep(draw.uniform(0, whole["seconds"] / 5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    again = finished(process) if process.returncode is None else None
    assert kills >= 1
    assert resumed >= 1
    if again is not None:
        assert again["epochs"] == whole["epochs"]
    for name in ("A", "B"):
        ours, theirs = (sorted((tmp_path / arm / "m" / name).rglob("*.safetensors")) for arm in ("broken", "whole"))
        assert ours
        assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
    audits = [pq.read_table(tmp_path / arm / "m" / "audit.parquet") for arm in ("broken", "whole")]
    assert audits[0].equals(audits[1])
