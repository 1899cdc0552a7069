"""The policy benchmark: its world, its page, and (slow) a policy that learns from a real service."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.policy import page as policy_page
from evaluation.benchmarks.policy import synthetic_task as world


def test_the_planted_pairs_follow_the_planted_preference_with_noise(tmp_path: Path) -> None:
    world.write_pairs(tmp_path / "a.jsonl", 3000, seed=1)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").open()]
    gaps = [world.liking(row["chosen"]) - world.liking(row["rejected"]) for row in rows]
    assert world.liking("please please never mind") == 1
    assert statistics.fmean(gap == 0 for gap in gaps) < 0.3
    decided = [gap > 0 for gap in gaps if gap]
    assert 0.75 < statistics.fmean(decided) < 0.95  # noisy, not arbitrary
    one = [gap > 0 for gap in gaps if abs(gap) == 1]
    assert statistics.fmean(one) == pytest.approx(0.731, abs=0.06)  # sigmoid(1)
    assert len({row["prompt"] for row in rows}) == 3000


def test_the_tokenizer_writes_and_reads_every_word() -> None:
    pytest.importorskip("transformers")
    words = world.tokenizer()
    text = " ".join((*world.PLAIN, *world.COURTEOUS, *world.RUDE))
    ids = words(text, add_special_tokens=False)["input_ids"]
    assert words.unk_token_id not in ids
    assert words.decode(ids, skip_special_tokens=True) == text


def run(trainer: str, sign: int, rewards: list[float]) -> dict[str, Any]:
    ends = {"first": rewards[0], "last": rewards[-1], "liking_first": 0.1, "liking_last": 2.5}
    return {"trainer": trainer, "sign": sign, "seed": 4, "unscored": 3, "rewards": rewards, **ends}


def test_page_and_plot(tmp_path: Path) -> None:
    accuracy = {"percent": 80.0, "numerator": 80.0, "denominator": 100.0, "low": 70.0, "high": 90.0}
    runs = [run("grpo", 1, [0.0, 1.0, 2.25]), run("grpo", -1, [0.0, 0.5, 0.75])]
    model = {"fingerprint": "f" * 32, "digest": "d" * 64, "accuracy": accuracy, "path": "x"}
    result = {"runs": runs, "steps": 3, "model": model, "versions": {"trl": "1.16.0"}, "python": "3.11.7"}
    policy_page.plot(runs, tmp_path / "policy.png")
    policy_page.write(
        tmp_path / "policy.md", result, argv=["--plot", str(tmp_path / "policy.png")], plot=tmp_path / "policy.png"
    )
    page = (tmp_path / "policy.md").read_text()
    assert "rmkit bench policy --plot policy.png" in page
    assert "| GRPO | reward | 4 | +0.000 | +2.250 | +2.250 | +0.10 | +2.50 |" in page
    assert "GRPO, reward: 1 of 1 seeds went the way" in page
    assert "GRPO, sign reversed: 0 of 1 seeds went the way" in page
    assert "192 replies scored over HTTP, 6 of them unscored" in page
    assert "80.0% (80 of 100; 95% interval 70.0 to 90.0)" in page
    assert (tmp_path / "policy.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["grpo", "rloo"])
def test_a_policy_learns_what_the_service_rewards(trainer: str, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    pytest.importorskip("fastapi")
    from evaluation.benchmarks.policy.run import measure

    result = measure(tmp_path, [trainer], steps=50, seeds=1, pairs=2000)
    assert result["as_rewarded"]
    liked, disliked = result["runs"]
    assert liked["last"] - liked["first"] > 1
    assert disliked["last"] - disliked["first"] < -1
    assert liked["liking_last"] > liked["liking_first"] + 1
