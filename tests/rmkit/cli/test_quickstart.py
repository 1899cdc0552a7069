"""The main job, end to end, as a new user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipelines import sample
from rmkit.cli import main as cli
from rmkit.errors import DataError, MissingExtraError, UsageError


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where only the base install is there: the frozen encoder cannot be trained."""
    known = cli.call

    def call(name: str, arguments: list[str]) -> int:
        if list(arguments[:1]) == ["frozen"]:
            raise MissingExtraError("torch", "train")
        return known(name, arguments)

    monkeypatch.setattr(cli, "call", call)


def test_a_file_of_your_own_ends_in_a_report(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_torch(monkeypatch)
    data, _ = sample.write(tmp_path / "mine", sample.SampleConfig(pairs=160))
    assert cli.main(["quickstart", "--from", str(data), "--max-rows", "150"]) == 0
    said = capsys.readouterr()
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert "288 rows: 280 accepted, 8 rejected" in lines["read"]
    assert lines["cleaned"].startswith("cleaned   sample@v2: 1")
    assert " of 220 rows kept" in lines["cleaned"]
    assert "[" in lines["test"]
    assert "$ rmkit train lexical --data sample@v2" in said.err
    assert "[train]'" in said.out
    page = Path(lines["report"].split()[1]).read_text()
    assert "This is a sample: " in page
    assert "drawn by prompt family" in page


@pytest.mark.slow
def test_twice_is_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_torch(monkeypatch)
    data, _ = sample.write(tmp_path / "mine", sample.SampleConfig(pairs=160))
    digests = []
    for _ in range(2):
        capsys.readouterr()
        assert cli.main(["quickstart", "--from", str(data), "--json"]) == 0
        digests.append(json.loads(capsys.readouterr().out)["clean"]["digest"])
    assert digests[0] == digests[1]


def test_wrong_requests_are_one_clear_error(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--max-rows"):
        cli.call("quickstart", ["--max-rows", "-1"])
    with pytest.raises(DataError, match="absent"):
        cli.call("quickstart", ["--from", str(tmp_path / "absent.jsonl")])


@pytest.mark.slow
def test_the_built_in_sample_with_both_models(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The planted truth is found: leaks and near-duplicates are dropped, skills recovered, both models beat length."""
    assert cli.main(["quickstart", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    dropped = {why: n for step in said["clean"]["steps"] for why, n in step["reasons"].items()}
    assert dropped == {"in benchmark rmkit-sample-bench": 20, "near-duplicate": 40}
    aggregate = next(step["facts"] for step in said["clean"]["steps"] if step["step"] == "aggregate")
    for rater in aggregate["raters"]:
        assert abs(rater["accuracy"] - sample.SKILLS[rater["rater"].split("/")[-1]]) < 0.05
    lexical, frozen, length = (model["measures"]["overall"] for model in said["bench"]["models"])
    assert lexical["low"] > length["percent"]
    assert frozen["low"] > length["percent"]
    assert Path(said["report"]["report"]).stat().st_size > 50_000
