"""One command that survives being killed and started again: --resume auto, save_steps, a capped validation."""

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

from rmkit.data.example import read_examples  # noqa: E402
from rmkit.errors import ConfigError, UsageError  # noqa: E402
from rmkit.training import explicit  # noqa: E402
from rmkit.training.run import finished, last_checkpoint, run_folder  # noqa: E402
from rmkit.training.tokens.encode import drawn  # noqa: E402
from tests.rmkit.training.test_training import (  # noqa: E402, F401
    Make,
    base_model,
    data,
    export,
    make_trainer,
    sample,
    settings,
)


def test_auto_begins_goes_on_and_gives_back_what_is_finished(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = settings(base_model("llama"), num_train_epochs=1.0, save_steps=2, evaluations_per_epoch=1)
    target = tmp_path / "model"
    with monkeypatch.context() as patched:  # broken off behind the checkpoint of step 4
        from rmkit.training.trainer import RewardTrainer

        step = RewardTrainer.training_step

        def killed(self: Any, *arguments: Any, **named: Any) -> Any:
            if self.state.global_step == 5:
                raise KeyboardInterrupt
            return step(self, *arguments, **named)

        patched.setattr(RewardTrainer, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            explicit.train(str(data), config, output=target, resume="auto")
    assert Path(last_checkpoint(run_folder(target)) or "").name == "checkpoint-4"  # no evaluation was there yet
    with pytest.raises(UsageError, match="interrupted run"):
        explicit.train(str(data), config, output=target)
    result = explicit.train(str(data), config, output=target, resume="auto")
    assert result["training"]["steps"] == 6
    again = explicit.train(str(data), config, output=target, resume="auto")
    assert again["fingerprint"] == result["fingerprint"]
    assert again["training"]["seconds"] == result["training"]["seconds"]  # nothing was trained
    assert finished(target, settings(base_model("llama"), num_train_epochs=1.0), result["dataset"]) is None


def test_a_capped_validation_is_the_same_draw_each_time(data: Path) -> None:  # noqa: F811
    everything = [one.id for one in read_examples(data, split="validation")]
    few, more = drawn(everything, 6), drawn(reversed(everything), 12)
    assert len(few) == 6
    assert few < more < drawn(everything, 1000) == frozenset(everything)
    with pytest.raises(ConfigError, match="max_eval_samples must be positive"):
        settings("x", max_eval_samples=0)
    with pytest.raises(ConfigError, match="save_steps must be positive"):
        settings("x", save_steps=-1)


@pytest.mark.slow
def test_a_command_killed_ten_times_ends_with_the_weights_of_the_unbroken_run(
    base_model: Make,  # noqa: F811
    tmp_path: Path,
) -> None:
    """SIGKILL at random moments, in the middle of steps, checkpoints and imports; the command is the same each time."""
    rows = export(tmp_path / "yes", sample(240))
    options = {"num_train_epochs": 8, "max_eval_samples": 20, "save_steps": 3, "evaluations_per_epoch": 1}
    options |= {"global_batch_size": 16, "learning_rate": 3e-3, "dropout": True, "max_batch_tokens": 600}
    options |= {"max_length": 200, "response_reserve_tokens": 100}

    def start(home: str) -> subprocess.Popen[str]:
        assignments = [f"--set={key}={str(value).lower()}" for key, value in options.items()]
        arguments = ["--data", str(rows), "--model", base_model("llama"), "-o", str(tmp_path / home / "model")]
        environment = {**os.environ, "RMKIT_HOME": str(tmp_path / home), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "rmkit",
            "train",
            "explicit",
            *arguments,
            *assignments,
            "--resume",
            "auto",
            "--json",
        ]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    out, error = start("whole").communicate(timeout=300)
    assert json.loads(out)["training"]["steps"] == 96, error
    draw, run, kills, seen = random.Random(int(time.time())), tmp_path / "broken" / "runs" / "explicit-model", 0, set()
    while kills < 10:
        process, before = start("broken"), last_checkpoint(run)
        seen.add(before)
        if kills % 5 != 4:  # every fifth is killed before it comes anywhere
            while last_checkpoint(run) == before and process.poll() is None:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.25))
        else:
            time.sleep(draw.uniform(1, 4))
        process.send_signal(signal.SIGKILL)
        error = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, error
        kills += 1
    process = start("broken")
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert len(seen) >= 7  # different checkpoints were gone on from
    one, other = (json.loads((tmp_path / home / "model/reward_model.json").read_text()) for home in ("broken", "whole"))
    assert one["files"] == other["files"]
    assert one["temperature"] == other["temperature"]
    assert one["fingerprint"] == other["fingerprint"]
    assert one["training"]["loss"] == other["training"]["loss"]
    assert not run.exists()
