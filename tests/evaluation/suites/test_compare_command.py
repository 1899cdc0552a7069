"""`rmkit compare`: models on the same items, and stored score files against each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.scoring.paired import differences
from evaluation.suites.compare_command import main
from evaluation.suites.journal import CREDITS, read_credits
from evaluation.suites.suite import load_suite
from rmkit.errors import StoreError, UsageError


def judge_file(folder: Path, name: str, right: set[int], n: int = 40) -> str:
    path = folder / name
    sources = ("mmlu-pro-law", "livebench-reasoning", "livebench-math", "livecodebench")
    rows = [
        {
            "pair_id": f"u{i}",
            "source": sources[i % 4],
            "question": f"q{i}",
            "label": "A>B",
            "judgments": [{"judgment": {"scores": [1.0, 0.0] if i in right else [0.0, 1.0]}, "decision": "A>B"}],
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_stored_files_against_the_first_with_one_correction_over_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        judge_file(tmp_path, "good.jsonl", set(range(32))),
        judge_file(tmp_path, "middle.jsonl", set(range(20))),
        judge_file(tmp_path, "same.jsonl", set(range(30)) | {32, 33}),
    ]
    arguments = [*files, "--suite", "judgebench", "--allow-changed"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [one["second"]["name"] for one in result["comparisons"]] == ["middle", "same"]
    by_measure = [{d["measure"]: d for d in one["differences"]} for one in result["comparisons"]]
    against_middle, against_same = (one["micro"] for one in by_measure)
    assert against_middle["difference"] == pytest.approx(100 * 12 / 40)
    assert against_middle["p"] == pytest.approx(2 / 2**12)  # twelve prompts, all one way
    assert against_middle["p_holm"] == pytest.approx(4 * 2 / 2**12)  # four tests in all, this one among the smallest
    assert (against_same["difference"], against_same["p"]) == (0, 1)
    assert (against_same["only_first"], against_same["only_second"]) == (2, 2)
    assert main(arguments) == 0
    assert "good minus middle (percent points)" in capsys.readouterr().out


def test_models_are_compared_and_their_credits_kept(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    import evaluation.front as front
    from rmkit.models.small.length import LengthModel

    class Shorter(LengthModel):
        info = replace(LengthModel.info, name="shorter", fingerprint="0" * 32)

        def score(self, batch):  # type: ignore[no-untyped-def]
            return [[replace(s, value=-s.value) for s in scores] for scores in super().score(batch)]

    monkeypatch.setattr(front, "load_model", lambda name: Shorter() if name == "shorter" else LengthModel())
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"id": str(i), "subset": "s", "prompt": f"p{i}", "chosen": "y" * (i % 5 + 1), "rejected": "y" * 3}
        for i in range(50)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["length", "shorter", "--suite", "pairs", "--data", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    overall = result["comparisons"][0]["differences"][-1]
    assert (overall["measure"], overall["first"], overall["second"]) == ("overall", 40, 40)  # ten are ties for both
    folders = sorted((home / "runs" / "eval").iterdir())
    kept = [read_credits(folder) for folder in folders]
    assert [len(credits) for credits in kept] == [50, 50]
    again = differences(load_suite("pairs"), *kept)[-1]
    assert again.p == overall["p"]
    (folders[0] / CREDITS).write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="evaluate again with --fresh"):
        read_credits(folders[0])
    with pytest.raises(UsageError, match="the same model twice"):
        main(["length", "length", "--suite", "pairs", "--data", str(path)])


def test_one_model_is_no_comparison(home: Path) -> None:
    with pytest.raises(UsageError, match="two models or more"):
        main(["length", "--suite", "pairs"])
