"""UPO's loop with a tiny policy: the ablations are settings; killed at ten random points it ends as an unbroken one."""

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

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from evaluation.denoise.fine_tuned import causal_model  # noqa: E402
from rmkit.cli import main as cli  # noqa: E402
from rmkit.ledger import open_ledger  # noqa: E402
from tests.data_pipelines.kind_pairs import write_kind_pairs  # noqa: E402
from tests.rmkit.tiny_encoder import write_tiny_encoder  # noqa: E402
from warehouse.versions.dataset import load_dataset  # noqa: E402

ROOT = Path(__file__).parents[3]
KILLS = 10


def prepared(folder: Path) -> list[str]:
    """Data, policy and encoder; the words of a small loop behind `rmkit loop`."""
    torch.set_num_threads(1)
    cli.call("ingest", [str(write_kind_pairs(folder / "pairs.jsonl", 100)), "--name", "kind", "--json"])
    if not (folder / "policy").exists():
        causal_model(folder / "policy", hidden=32, seed=0)
        write_tiny_encoder(folder / "encoder")
    settings = {
        "policy": folder / "policy", "encoder": folder / "encoder", "reward": "length", "rounds": 2, "prompts": 8,
        "samples": 4, "max_tokens": 24, "lr": 1e-3, "max_length": 256, "test_prompts": 5,
    }  # fmt: skip
    return [
        "upo",
        "--data",
        "kind",
        "--json",
        *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
    ]


def end(result: dict[str, Any], folder: Path) -> list[Any]:
    """Everything that a loop left, but for paths and clocks."""
    facts = [(one["round"], one["use"], one["facts"], one["version"]) for one in result["steps"]]
    weights = [(folder / f"round-{at}" / "05-train_policy" / "model.safetensors").read_bytes() for at in (1, 2)]
    return [facts, weights, [load_dataset(f"upo@round-{at}").digest for at in (1, 2)]]


@pytest.mark.slow
def test_a_loop_killed_at_ten_random_points_ends_as_an_unbroken_one_and_pays_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends, calls = [], []
    for arm in ("whole", "broken"):
        home = tmp_path / arm
        monkeypatch.setenv("RMKIT_HOME", str(home))
        words = [*prepared(tmp_path), "-o", str(home / "upo")]
        capsys.readouterr()
        if arm == "whole":
            start = time.monotonic()
            assert cli.call("loop", words) == 0
            took_s, output = time.monotonic() - start, capsys.readouterr().out
        else:
            output = _killed(words, took_s)
        ends.append(end(json.loads(output), home / "upo"))
        with open_ledger() as ledger:
            calls.append({record.key for record in ledger.records("call")})
    assert ends[0] == ends[1]
    assert calls[0] == calls[1]  # each request once, and no other than the unbroken loop's


def _killed(words: list[str], took_s: float) -> str:
    """The output of the loop after ten SIGKILLs at random moments of its work."""
    draw, kills = random.Random(5), 0
    while True:
        command = [sys.executable, "-m", "rmkit", "loop", *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)
        if kills < KILLS:
            time.sleep(draw.uniform(1, 5 + took_s / 2))
            process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=600)
        assert process.returncode in (0, -signal.SIGKILL), err
        if process.returncode == 0:
            assert kills, "the loop was never killed"
            return str(out)
        kills += 1
