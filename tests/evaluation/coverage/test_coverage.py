"""Topics of prompts: planted clusters, their words, and what is thin beside another dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.coverage import command
from evaluation.coverage.topics import topic_map
from rmkit.cli import main as cli
from rmkit.errors import DataError
from tests.exports import row, write_export

TOPICS = {"bread": "bake the bread dough", "chess": "move a chess knight", "rivers": "how long are rivers"}


def feature(text: str) -> np.ndarray:
    """A corner for each topic, a little noise by the text's number."""
    at = next(number for number, name in enumerate(TOPICS) if name in text)
    vector = np.eye(3)[at] + 0.05 * np.sin(np.arange(3) + sum(map(ord, text)))
    return vector / np.linalg.norm(vector)


def planted(**n: int) -> list[str]:
    return [f"{TOPICS[name]} number {at}" for name, many in n.items() for at in range(many)]


def test_topics_have_their_rows_words_and_an_example() -> None:
    texts = planted(bread=6, chess=3) + planted(bread=1, chess=1, rivers=8)
    other = [False] * 9 + [True] * 10
    result = topic_map(np.stack([feature(text) for text in texts]), texts, other, k=3)
    summary = [(one.rows, one.share, one.other, one.other_share) for one in result.topics]
    assert summary == [(6, 6 / 9, 1, 0.1), (3, 3 / 9, 1, 0.1), (0, 0, 8, 0.8)]
    assert [set(one.words) & set(TOPICS) for one in result.topics] == [{"bread"}, {"chess"}, {"rivers"}]
    assert "dough" in result.topics[0].words
    assert "number" not in result.topics[0].words[:3]
    assert result.topics[1].example.startswith("move a chess knight number")
    assert result.topic.tolist() == [0] * 6 + [1] * 3 + [0, 1] + [2] * 8
    centers = [result.place[result.topic == topic].mean(axis=0) for topic in range(3)]
    spread = max(float(np.linalg.norm(result.place[result.topic == t] - centers[t], axis=1).max()) for t in range(3))
    assert min(np.linalg.norm(centers[a] - centers[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 5 * spread
    with pytest.raises(DataError, match="at least as many"):
        topic_map(np.zeros((2, 3)), ["a", "b"], [False, False], k=3)


def test_the_map_as_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")

    class Planted:
        def __init__(self, config: Any) -> None: ...

        def features(self, texts: list[Any], *, advance: Any) -> np.ndarray:
            return np.stack([feature(text.text) for text in texts])

    monkeypatch.setattr(command, "Encoder", Planted)
    sides = {"mine": planted(bread=6, chess=3), "theirs": planted(bread=2, rivers=6)}
    folders = {
        name: str(write_export(tmp_path / name, [row(text, ["x", "y"]) for text in texts], ref=f"{name}@v1"))
        for name, texts in sides.items()
    }
    page = tmp_path / "page.html"
    arguments = ["coverage", folders["mine"], "--against", folders["theirs"], "--topics", "3", "--page", str(page)]
    assert cli.main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["prompts"], [one["rows"] for one in result["topics"]]) == (9, [6, 3, 0])
    assert len(result["thin"]) == 1
    assert "rivers" in result["thin"][0]
    text = page.read_text()
    assert "<svg" in text
    assert "thin here: " in text
