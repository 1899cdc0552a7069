"""Similarity to references: joined by hand from planted vectors, and cosines of a real encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmkit.verifiers import similarity
from tests.rmkit.verifiers.verified import scores, value

# cosines to "north" of .6 and -.6, to "east" of .8; north and east are at right angles
VECTORS = {"north": (0, 1), "east": (1, 0), "up": (0.8, 0.6), "down": (0.8, -0.6)}
BOTH = json.dumps([{"text": "north", "weight": 3}, {"text": "east", "weight": 1}])


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(texts: Any) -> Any:
        return np.array([VECTORS[one.text] for one in texts], dtype=np.float64)

    monkeypatch.setattr(similarity, "_encoder", lambda _: encode)


@pytest.mark.parametrize(
    ("reference", "text", "rule", "expected"),
    [
        ("north", "up", "weighted", 0.6),
        ("north", "down", "weighted", -0.6),
        ('["north", "east"]', "up", "weighted", 0.7),
        (BOTH, "up", "weighted", (3 * 0.6 + 0.8) / 4),
        (BOTH, "up", "harmonic", 4 / (3 / 0.6 + 1 / 0.8)),
        (BOTH, "down", "harmonic", 0.0),  # one of them is not near at all
        (BOTH, "down", "weighted", (3 * -0.6 + 0.8) / 4),
    ],
)
def test_references_are_joined(planted: None, reference: str, text: str, rule: str, expected: float) -> None:
    assert value("similarity", reference, text, rule=rule) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reference", "text", "reason"),
    [
        (None, "up", "no reference answer"),
        ("north", " ", "the completion is empty"),
        ('[{"text": "north", "weight": 0}]', "up", "a weight above 0"),
        ("[]", "up", "references are texts"),
    ],
)
def test_what_cannot_be_compared_is_unscored(planted: None, reference: str | None, text: str, reason: str) -> None:
    assert reason in str(value("similarity", reference, text))


def test_cosines_of_a_real_encoder(tmp_path: Path) -> None:
    """Against mean pooling written once more; a word in another place changes nothing but its position."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModel, AutoTokenizer

    from tests.rmkit.tiny_encoder import write_tiny_encoder

    folder = str(write_tiny_encoder(tmp_path / "encoder"))
    texts = ["trains and bread", "music", "tell me about trains and chess"]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        vectors = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
    cosine = [float(torch.cosine_similarity(one, vectors[0], dim=0)) for one in vectors]
    got = [one.value for one in scores("similarity", texts[0], *texts, encoder=folder)]
    assert got == pytest.approx(cosine, abs=2e-3)
    assert got[0] == pytest.approx(1, abs=1e-3)
    assert max(got[1:]) < 0.999


@pytest.mark.slow
def test_minilm_prefers_a_paraphrase() -> None:
    from rmkit.errors import RmkitError

    try:
        near, far = scores(
            "similarity", "The cat sat on the mat.", "A cat was sitting on a rug.", "Interest rates rose again in May."
        )
    except RmkitError as error:
        pytest.skip(str(error))
    assert near.value > 0.5 > far.value + 0.2
