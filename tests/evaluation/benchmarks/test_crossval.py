"""Cross-validation on people's preferences: no family on both sides, and a ceiling asked the same question."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmkit.revision import versions_text

pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given
from hypothesis import strategies as st

from evaluation import benchmarks
from evaluation.benchmarks.crossval import run as crossval
from rmkit.errors import DataError, UsageError
from rmkit.models.small import frozen
from rmkit.models.small.frozen import FrozenConfig
from tests.rmkit.tiny_encoder import write_tiny_encoder

SUBJECTS = ["eggs", "bread", "rivers", "music", "chess", "stars", "trains", "paint"]


def rows(n: int) -> list[dict[str, Any]]:
    """The friendly reply, which is the shorter one, is chosen."""
    made = []
    for number in range(n):
        prompt = f"tell me about {SUBJECTS[number % 8]} number {number % 8} {number % 8} a b c"
        friendly = f"gladly thank you {SUBJECTS[number % 5]}"
        made.append(
            {
                "id": str(number),
                "prompt": [{"role": "user", "content": prompt}],
                "response_a": friendly if number % 2 else "no never stupid boring nonsense annoying wrong",
                "response_b": "no never stupid boring nonsense annoying wrong" if number % 2 else friendly,
                "labels": [{"preference": "a" if number % 2 else "b"}] * 2 + [{"preference": "tie"}],
                "source": "test",
            }
        )
    return made


@pytest.fixture(autouse=True)
def _quick_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "FrozenConfig", partial(FrozenConfig, hidden=(0,), linear_lr=0.02, epochs=6))


@pytest.fixture
def votes_file(tmp_path: Path) -> Path:
    path = tmp_path / "votes.jsonl"
    listed = rows(120)
    listed[0]["response_a"] = listed[0]["response_b"]
    listed[1]["labels"] = []
    path.write_text("".join(json.dumps(row) + "\n" for row in listed))
    return path


def test_held_out_votes_and_model_answer_the_same_question() -> None:
    assert crossval.held_out(["a", "b"], 1.0) is None  # two votes: nothing to hold against
    assert crossval.held_out(["a", "a", "a"], 1.0) == (1.0, 1.0)
    assert crossval.held_out(["a", "a", "a"], -0.1) == (1.0, 0.0)
    # holding out the b leaves a, a; holding out an a leaves a draw, which asks nothing
    assert crossval.held_out(["a", "a", "b"], 2.0) == (0.0, 1.0)
    assert crossval.held_out(["a", "a", "tie"], 0.0) == (0.5, 0.5)
    assert crossval.held_out(["tie", "tie", "tie", "a"], 1.0) is None
    # a a a b: three times a of (a, a, b) is named by a; once b against a, a, a
    assert crossval.held_out(["a", "a", "a", "b"], -1.0) == (0.75, 0.0)


@given(st.lists(st.integers(0, 30), min_size=5, max_size=200), st.integers(0, 5))
def test_folds_keep_families_whole_and_are_even(family: list[int], seed: int) -> None:
    size = Counter(family)
    if len(size) < 5:
        with pytest.raises(DataError, match="cannot be cut into 5 folds"):
            crossval.folds_of(family, folds=5, seed=seed)
        return
    fold = crossval.folds_of(family, folds=5, seed=seed)
    assert len({(number, int(at)) for number, at in zip(family, fold, strict=True)}) == len(size)
    filled = np.bincount(fold, minlength=5)
    assert filled.min() > 0
    assert filled.max() - filled.min() <= max(size.values())


def test_no_head_sees_a_family_that_it_is_tested_on(
    votes_file: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[int], set[int]]] = []
    fit, margins = frozen.fit, crossval._margins

    def watched(train: Any, validation: Any, *rest: Any, **more: Any) -> Any:
        parts = {pair.family for pair in train}, {pair.family for pair in validation}
        assert not parts[0] & parts[1]
        seen.append((parts[0] | parts[1], set()))
        return fit(train, validation, *rest, **more)

    def tested(pairs: Any, fitted: Any) -> Any:
        seen[-1][1].update(pair.family for pair in pairs)
        return margins(pairs, fitted)

    monkeypatch.setattr(frozen, "fit", watched)
    monkeypatch.setattr(crossval, "_margins", tested)
    encoder = write_tiny_encoder(tmp_path / "encoder")
    found = crossval.measure([votes_file], encoder=str(encoder), folds=3)
    assert len(seen) == 3 * len(crossval.ARMS)
    assert all(test and not trained & test for trained, test in seen)
    for arm in range(len(crossval.ARMS)):
        tested_on = [family for _, test in seen[arm :: len(crossval.ARMS)] for family in test]
        assert sorted(tested_on) == sorted(set.union(*(trained for trained, _ in seen)))
    assert found["rows"] == found["accuracy"]["frozen"]["n"] == 118
    assert found["skipped"] == {"equal replies": 1, "no vote": 1}
    assert found["families"] == 8


def test_the_command_measures_and_writes_its_page(
    votes_file: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = write_tiny_encoder(tmp_path / "encoder")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(
            json.dumps({"id": row["id"], "prompt": row["prompt"], "chosen": a, "rejected": b, "source": "p"}) + "\n"
            for row in rows(40)
            for a, b in [sorted((row["response_a"], row["response_b"]), key=len)]
        )
    )
    page, plot = tmp_path / "crossval.md", tmp_path / "crossval.svg"
    command = [
        "crossval",
        f"both={pairs},{votes_file}",
        f"votes={votes_file}",
        "--encoder",
        str(encoder),
        "--folds",
        "2",
    ]
    assert benchmarks.main([*command, "--page", str(page), "--plot", str(plot), "--json"]) == 0
    sets = json.loads(capsys.readouterr().out)["sets"]
    assert set(sets["both"]["parts"]) == {"pairs.jsonl", "votes.jsonl"}
    found = sets["votes"]
    assert found["accuracy"]["length"]["numerator"] == 0  # the better reply is always the shorter one
    for head in ("frozen", "without_length"):
        assert found["accuracy"][head]["value"] > 0.9
        assert found["gain"][head]["interval"]["low"] > 0.8
    people = found["people"]
    assert people["rows"] == 118
    assert people["accuracy"]["people"]["value"] == 0.5  # the only question left is the held-out tie
    assert people["people_minus"]["frozen"]["value"] == pytest.approx(0.5 - people["accuracy"]["frozen"]["value"])
    text = page.read_text()
    assert versions_text() in text
    assert "rmkit bench crossval both=pairs.jsonl,votes.jsonl" in text
    assert str(tmp_path) not in text.replace(str(encoder), "")
    assert "| **votes** | 118 | 8 | 0.0 [0.0, 0.0], 0 |" in text
    assert plot.read_text().count("a held-out vote") == 1


def test_a_set_needs_a_name_and_usable_rows(tmp_path: Path, home: Path) -> None:
    with pytest.raises(UsageError, match="NAME=FILE"):
        crossval.main(["pairs.jsonl"])
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="no usable pair"):
        crossval.main([f"x={empty}"])
