"""One random vote a pair against the others' majority: draws, ties, planted noisy voters, the command."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from data_pipelines.algorithms.votes import pair_votes
from evaluation.denoise.votes import _disagreement, draw_votes
from rmkit.cli import main as cli
from rmkit.errors import DataError, UsageError
from rmkit.features.encoder import single_threaded
from tests.data_pipelines.frames import frame, pair
from tests.data_pipelines.kind_pairs import write_kind_pairs
from tests.rmkit.tiny_encoder import write_tiny_encoder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


def test_the_truth_is_the_majority_of_the_others() -> None:
    said = {"all": "aaaaa", "four": "aaaab", "three": "aaabb", "unclear": ["a", "tie", "tie"], "ties": ["tie"] * 3}
    rows = [pair(name, "x", "y", [(f"w{at}", vote) for at, vote in enumerate(votes)]) for name, votes in said.items()]
    votes = pair_votes(frame(rows))
    first = 0 if rows[0]["p"][0] == 1 else 1  # all five rows hold the same two responses in the same order
    seen: dict[str, set[tuple[int, int]]] = {name: set() for name in said}
    for seed in range(200):
        drawn, truth = draw_votes(votes, seed=seed)
        for name, d, t in zip(said, drawn.tolist(), truth.tolist(), strict=True):
            seen[name].add((d, t))
    assert seen["all"] == {(first, first)}
    assert seen["four"] == {(first, first), (1 - first, first)}
    assert seen["three"] == {(first, -1), (1 - first, first)}  # two against two, or three against one
    assert seen["unclear"] == {(first, -1)}
    assert seen["ties"] == {(-1, -1)}
    shares = np.mean([draw_votes(votes, seed=seed)[0][1] == first for seed in range(400)])
    assert shares == pytest.approx(0.8, abs=0.06)


def test_disagreement_counts_votes_whose_others_are_clear() -> None:
    votes = pair_votes(frame([pair("p", "x", "y", [("u", "a"), ("v", "a"), ("w", "a"), ("z", "b")])]))
    assert _disagreement(votes) == pytest.approx(1 / 4)


@pytest.mark.slow
def test_the_command_recovers_votes_of_careless_people(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    lines = []
    for line in write_kind_pairs(tmp_path / "pairs.jsonl", 240).read_text().splitlines():
        row = json.loads(line)
        labels = [{"annotator": f"w{at}", "preference": "a" if draw.random() < 0.75 else "b"} for at in range(5)]
        lines.append({"id": row["id"], "source": "votes", "prompt": row["prompt"], "response_a": row["chosen"],
                      "response_b": row["rejected"], "labels": labels, "majority": "a", "meta": {}})  # fmt: skip
    path = tmp_path / "annotators_kind.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    cli.call("ingest", [str(path), "--name", "votes", "--json"])
    capsys.readouterr()
    encoder = str(write_tiny_encoder(tmp_path / "encoder"))
    options = ["--methods", "clean,cross_fit", "--draws", "2", "--encoder", encoder, "--workers", "1", "--epochs", "6"]
    assert cli.call("denoise", ["votes", "votes", *options, "-o", str(tmp_path / "votes.md"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0.15 < result["wrong_votes"] < 0.35
    assert [line["method"] for line in result["lines"]] == ["standard", "clean", "cross_fit"]
    filtered = result["lines"][2]
    assert filtered["kept_right"] > filtered["votes_right"]
    assert filtered["labels_low"] <= filtered["labels_difference"] <= filtered["labels_high"]
    assert filtered["labels_seen"] > 0
    text = (tmp_path / "votes.md").read_text()
    assert "single votes as they are" in text
    assert "Smallest difference that this data would show" in text
    with pytest.raises(UsageError, match=r"written as .md"):
        cli.call("denoise", ["votes", "votes", "-o", "votes.html"])


def test_single_votes_are_refused(home: Path, tmp_path: Path) -> None:
    cli.call("ingest", [str(write_kind_pairs(tmp_path / "pairs.jsonl", 60)), "--name", "single", "--json"])
    with pytest.raises(DataError, match="0 usable pairs with 3 clear votes"):
        cli.call("denoise", ["votes", "single"])
