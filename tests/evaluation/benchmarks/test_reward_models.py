"""The training and scoring benchmarks do what their tables say: same work in every arm, same scores both ways."""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from evaluation import benchmarks
from evaluation.benchmarks import scoring
from evaluation.benchmarks.training import gpu
from evaluation.benchmarks.training import run as reward_training
from rmkit.errors import DataError, UsageError

WORDS = ["blue", "sky", "fox", "the", "is", "jumps", "over", "lazy", "dog", "so", "what"]


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 25)))

    rows = [{"prompt": [{"role": "user", "content": text()}], "chosen": text(), "rejected": text()} for _ in range(40)]
    rows[3]["rejected"] = rows[3]["chosen"]  # unusable: left out before sampling
    path = tmp_path / "pairs.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_pairs_are_spread_over_the_files(pairs_file: Path) -> None:
    whole = reward_training._read_pairs([pairs_file], 39)
    assert len(whole) == 39
    assert all(pair["chosen"] != pair["rejected"] for pair in whole)
    assert reward_training._read_pairs([pairs_file], 13) == whole[::3]
    with pytest.raises(DataError, match="39 usable pairs"):
        reward_training._read_pairs([pairs_file], 40)


def test_ratios_are_taken_within_a_repeat() -> None:
    def arm(speed: float, losses: list[float]) -> dict[str, Any]:
        return {
            "pairs_per_s": speed,
            "train_s": 1,
            "cpu_s": 1,
            "tokens": 9,
            "peak_mb": 1,
            "rise_mb": 1,
            "losses": losses,
        }

    results = [
        {"trl": arm(1, [0.7, 0.6]), "rmkit": arm(3, [0.7, 0.6])},
        {"trl": arm(10, [0.7, 0.6]), "rmkit": arm(20, [0.7, 0.59])},  # a quiet moment for both
        {"trl": arm(2, [0.7, 0.6]), "rmkit": arm(5, [0.7, 0.6])},
    ]
    summary = reward_training._summary(results, {"threads": 1, "folder": "x"})
    assert summary["ratios"]["rmkit/trl"] == {"median": 2.5, "low": 2, "high": 3}
    assert summary["cpu_ratios"]["rmkit/trl"] == {"median": 1, "low": 1, "high": 1}
    assert summary["arms"]["rmkit"]["pairs_per_s"] == 5
    assert summary["loss_gap"]["rmkit"] == pytest.approx(0.01)
    assert reward_training._loss_gap([1.0], [1.0, 2.0]) == math.inf


def test_rows_have_the_ratio_that_was_asked_for() -> None:
    equal = scoring.make_rows(2, n=16, completion=10, ratio=4, lengths="equal", seed=0)
    assert {len(ids) for row in equal for ids in row} == {50}
    assert scoring.limit(equal) == pytest.approx(16 * 50 / (40 + 16 * 10), rel=0.02)
    natural = scoring.make_rows(40, n=16, completion=50, ratio=4, lengths="natural", seed=0)
    lengths = [len(ids) - 200 for row in natural for ids in row]
    assert sum(lengths) / len(lengths) == pytest.approx(50, rel=0.1)
    assert scoring.limit(natural) > 5


def test_scoring_both_ways_gives_the_same_scores() -> None:
    options = argparse.Namespace(
        n=4, completion=6, ratios="4", prompts=2, repeats=1, precision="fp32", size="toy", threads=1
    )
    summary = scoring.run(options)
    assert set(summary["cases"]) == {"4:1 equal", "4:1 natural"}
    for case in summary["cases"].values():
        assert case["largest_difference"] < 1e-5
        assert case["ratio_low"] <= case["ratio"] <= case["ratio_high"]
    assert "4:1 natural" in scoring._text(summary)


def test_unknown_arms_and_missing_files_are_refused(pairs_file: Path) -> None:
    with pytest.raises(UsageError, match="unknown arm 'nonsense'"):
        benchmarks.main(["training", "--pairs", str(pairs_file), "--arms", "trl,nonsense"])
    with pytest.raises(UsageError, match="no multiple"):
        benchmarks.main(["training", "--pairs", str(pairs_file), "--micro-batch", "5"])
    with pytest.raises(UsageError, match="--pairs"):
        benchmarks.main(["training"])


@pytest.mark.slow
def test_every_arm_does_the_same_training(pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl")
    plot, page = tmp_path / "arms.svg", tmp_path / "training.md"
    options = [
        "--n",
        "24",
        "--global-batch-size",
        "12",
        "--micro-batch",
        "4",
        "--max-batch-tokens",
        "300",
        "--size",
        "toy",
        "--repeats",
        "1",
    ]
    status = benchmarks.main(
        [
            "training",
            "--pairs",
            str(pairs_file),
            *options,
            "--threads",
            "1",
            "--plot",
            str(plot),
            "--page",
            str(page),
            "--json",
        ]
    )
    summary = json.loads(capsys.readouterr().out)
    assert status == 0
    assert set(summary["arms"]) == {"trl", "trl_grouped", "rmkit", "head", "bucketed", "budget", "prefix", "packed"}
    assert len({values["tokens"] for values in summary["arms"].values()}) == 1  # every arm read the same ids
    assert max(summary["loss_gap"].values()) < 1e-5
    assert plot.read_text().lstrip().startswith("<?xml")
    assert "rmkit bench training --pairs pairs.jsonl.gz" in page.read_text()
    assert "| trl | TRL's RewardTrainer, default sampling |" in page.read_text()


def test_a_step_packed_is_the_step_padded(capsys: pytest.CaptureFixture[str]) -> None:
    """The GPU comparison at toy size: the same loss and gradients, fewer tokens."""
    from rmkit.models.transformer import shared_attention

    options = ["--size", "toy", "--pairs", "6", "--micro-batch", "3", "--max-batch-tokens", "300", "--prompt", "30"]
    status = benchmarks.main(
        ["gpu-training", *options, "--reply=9", "--precision=fp32", "--completions=4", "--repeats=1", "--json"]
    )
    summary = json.loads(capsys.readouterr().out)
    assert status == 0
    padded, rows = summary["arms"]["padded"], summary["arms"]["rows"]  # flex needs CUDA
    assert rows["loss"] == pytest.approx(padded["loss"], abs=1e-5)
    drawn = gpu.make_rows(6, prompt=30, reply=9, seed=0)
    assert padded["tokens"] == sum(
        6 * max(len(ids) for row in drawn[start : start + 3] for ids in row) for start in (0, 3)
    )
    packed = summary["arms"]["packed"]
    assert packed["loss"] == pytest.approx(padded["loss"], abs=1e-5)
    assert rows["tokens"] < packed["tokens"] == sum(len(ids) for row in drawn for ids in row)
    gaps = {(one["way"], one["precision"]): one["gap"] for one in summary["scoring"]}
    assert gaps["padded", "fp32"] == 0
    assert gaps["rows", "fp32"] < 1e-5 < gaps["rows", "bf16"] < summary["deviation"]
    assert rows["tokens"] < 0.8 * padded["tokens"]
    assert 0 < rows["use"] < 1.5
    assert summary["peak_tflops"] > 0
    assert {"cuda"} == shared_attention.FLEX_DEVICES
    with pytest.raises(UsageError, match="no multiple"):
        benchmarks.main(["gpu-training", "--pairs", "5"])


def test_the_gradients_of_both_arms_are_equal() -> None:
    import torch

    options = argparse.Namespace(size="toy", micro_batch=2, max_batch_tokens=200, checkpointing=False)
    arms = gpu._arms(options, torch.device("cpu"), torch.float32)
    drawn = gpu.make_rows(4, prompt=20, reply=8, seed=1)
    found = {}
    for name, arm in arms.items():
        arm.step(drawn)
        found[name] = [p.grad.clone() for p in arm.model.base_model.parameters() if p.grad is not None]
    assert len(found["rows"]) > 10
    for one, other in zip(found["rows"], found["padded"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_encoding_costs(home: Path, tmp_path: Path) -> None:
    from evaluation.benchmarks.training import tokens

    tokens.prepare(tmp_path, n=60, prompt=12, reply=5)
    arms = {arm: tokens.measure(str(tmp_path), arm) for arm in ("memory", "1", "again")}
    assert len({one["tokens"] for one in arms.values()}) == 1
    assert 4 < arms["1"]["bytes_a_token"] == arms["again"]["bytes_a_token"]
    spec = {"n": 60, "prompt": 12, "reply": 5, "repeats": 1}
    text = tokens.table({"arms": arms, "ratios": {}, "spec": spec})
    assert "| in memory, one process |" in text
    assert "60 pairs" in text
