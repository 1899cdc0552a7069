"""The implicit-reward study: the algebra on one-token responses, the toy language, the command and its page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from evaluation.benchmarks import main  # noqa: E402
from evaluation.benchmarks.implicit.run import TIE, accuracy, analytic, interval  # noqa: E402
from evaluation.benchmarks.implicit.synthetic_task import CONCEPTS, START, WORDINGS, WORDINGS_OF, preferences  # noqa: E402


@pytest.mark.slow
def test_dpo_says_nothing_of_tokens_it_never_saw_and_a_linear_head_does() -> None:
    torch.set_num_threads(1)
    found = analytic(0, n_pairs=300, steps=100)
    assert found["sgd"]["largest_margin"] < 1e-5 < TIE
    assert found["sgd"]["unseen"] == 50.0
    assert found["sgd"]["train"] > 85
    assert found["explicit"]["unseen"] > 75
    assert found["adam"]["largest_margin"] < 1e-2  # Adam blows rounding errors up, though not to a preference


def test_cells_differ_in_wording_only() -> None:
    draw = np.random.default_rng(0)
    follows = np.full((CONCEPTS, CONCEPTS), 1 / CONCEPTS).cumsum(axis=1)
    for name, (prompt_wordings, response_wordings) in WORDINGS_OF.items():
        for better, worse in preferences(draw, follows, 20, prompt_wordings, response_wordings):
            assert better[:START] == worse[:START]
            assert {(token - 2) % WORDINGS for token in better[1:START]} <= set(prompt_wordings), name
            surplus = []
            for response in (better[START:-1], worse[START:-1]):
                assert {(token - 2) % WORDINGS for token in response} <= set(response_wordings), name
                good = sum((token - 2) // WORDINGS < CONCEPTS // 2 for token in response)
                surplus.append(2 * good - len(response))
            assert surplus[0] > surplus[1]


def test_accuracy_and_interval_by_hand() -> None:
    assert accuracy(np.array([1.0, 5e-5, -2.0, 3.0])) == 62.5
    # mean 2, standard deviation 1, t(0.975, 2) = 4.302653
    assert interval([1.0, 2.0, 3.0])["high"] == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-5)


@pytest.mark.slow
def test_the_command_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["implicit", "--seeds", "2", "--pairs", "40", "--steps", "3", "--language-steps", "3", "--json"]
    assert main([*given, "--page", str(tmp_path / "page.md")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["cells"]) == {"train", "id", "prompt", "response", "both"}
    assert "| both |" in (tmp_path / "page.md").read_text()
