"""`kill -9` at random moments of UPO's loop: run again, it ends with the same policies, pairs and facts."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import pyarrow.parquet as pq

from evaluation.denoise.fine_tuned import causal_model

ROOT = Path(__file__).parents[3]
KILLS = 5
CHILD = """
import json, sys
from pathlib import Path
import torch
from tests.data_pipelines.loops.test_upo_loop import loop
torch.set_num_threads(1)
print("ready", flush=True)
print(json.dumps(loop(Path(sys.argv[1]), Path(sys.argv[2]))))
"""


def child(home: Path, folder: Path, policy: Path) -> subprocess.Popen[str]:
    """The loop in a process of its own, its imports done."""
    environment = os.environ | {"RMKIT_HOME": str(home)}
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(policy)], cwd=ROOT, env=environment,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_a_killed_loop_goes_on_bit_for_bit(tmp_path: Path) -> None:
    causal_model(tmp_path / "policy", hidden=32, seed=0)
    start = time.monotonic()
    out, _ = child(tmp_path / "home", tmp_path / "whole" / "upo", tmp_path / "policy").communicate(timeout=600)
    took_s, facts = time.monotonic() - start, json.loads(out)
    draw, kills, ended = random.Random(int(time.time())), 0, ""
    while not ended:
        process = child(tmp_path / "home-2", tmp_path / "broken" / "upo", tmp_path / "policy")
        if kills < KILLS:
            time.sleep(draw.uniform(0.1, took_s / 2))
            process.send_signal(signal.SIGKILL)
        ended = process.communicate(timeout=600)[0]
        assert process.returncode in (0, -signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    assert kills
    assert json.loads(ended) == facts
    for number in (1, 2, 3):
        mine, whole = (tmp_path / arm / "upo" / f"iteration-{number}" for arm in ("broken", "whole"))
        weights = "policy/model.safetensors"
        assert (mine / weights).read_bytes() == (whole / weights).read_bytes()
        assert pq.read_table(mine / "pairs.parquet").equals(pq.read_table(whole / "pairs.parquet"))
    assert sorted(path.name for path in (tmp_path / "broken" / "upo").glob("iteration-*")) == [
        "iteration-1", "iteration-2", "iteration-3"]  # fmt: skip
