"""A transformer trained from and to a bucket, by one command that is repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.cli import main as cli  # noqa: E402
from rmkit.storage.marks import UNFINISHED  # noqa: E402
from rmkit.storage.publish import publish_folder  # noqa: E402
from tests.object_storage import Bucket  # noqa: E402
from tests.rmkit.training.test_training import (  # noqa: E402, F401
    Make,
    as_toml,
    base_model,
    data,
    export,
    make_trainer,
    sample,
    settings,
)


@pytest.mark.slow
def test_one_command_trains_publishes_and_gives_back(
    bucket: Bucket,
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish_folder(data, f"{bucket.address}/export")
    config = settings(base_model("llama"), num_train_epochs=1.0)
    (tmp_path / "run.toml").write_text(as_toml(config))
    (tmp_path / "other.toml").write_text(as_toml(replace(config, seed=5)))
    address = f"{bucket.address}/models/tiny"

    def train(toml: str, *more: str) -> int:
        words = ["--data", f"{bucket.address}/export", "--config", str(tmp_path / toml), "-o", address, "--json"]
        return cli.main(["train", "explicit", *words, *more])

    bucket.faults.plan += [("500", "PUT", "safetensors"), ("reset", "GET", "parquet"), ("reset", "PUT", "tokenizer")]
    assert train("run.toml", "--resume", "auto") == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(bucket.faults.struck) == 3
    assert first["path"] == address
    assert train("run.toml", "--resume", "auto") == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["training"]["seconds"] == first["training"]["seconds"]  # nothing was trained
    assert train("run.toml") == 2
    assert "never replaced" in capsys.readouterr().err
    puts = [one for one in bucket.faults.requests if one[0] == "PUT"]
    assert train("other.toml", "--resume", "auto") == 2  # another model, which is not even trained
    assert "never replaced" in capsys.readouterr().err
    assert not list((home / "runs").glob("*/checkpoint-*"))
    assert puts == [one for one in bucket.faults.requests if one[0] == "PUT"]
    assert cli.main(["verify", address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == first["fingerprint"]


@pytest.mark.slow
def test_two_processes_publish_one_model(
    bucket: Bucket,
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
) -> None:
    publish_folder(data, f"{bucket.address}/export")
    (tmp_path / "run.toml").write_text(as_toml(settings(base_model("llama"), num_train_epochs=1.0)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "rmkit"]
    words = ["--data", f"{bucket.address}/export", "--config", str(tmp_path / "run.toml"), "--resume", "auto", "--json"]
    results = []
    for _ in range(2):
        command = [*launch, "train", "explicit", *words, "-o", f"{bucket.address}/models/two"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        assert ended.returncode == 0, ended.stderr[-3000:]
        [line] = [line for line in ended.stdout.splitlines() if line.startswith("{")]
        results.append(json.loads(line))
    assert results[0]["training"]["processes"] == 2
    assert results[0]["training"]["seconds"] == results[1]["training"]["seconds"]
    assert results[0]["path"] == f"{bucket.address}/models/two"
    assert UNFINISHED not in bucket.names("models/two")
    assert not list((home / "staged").glob("*"))
