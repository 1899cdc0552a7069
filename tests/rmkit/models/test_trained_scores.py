"""What was trained is what is scored: the model in memory, our engine after reloading, and plain transformers agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.models import load_model  # noqa: E402
from rmkit.models.transformer import explicit  # noqa: E402
from rmkit.models.transformer.explicit import ExplicitRewardModel  # noqa: E402
from rmkit.models.transformer.reward_module import RewardModule  # noqa: E402
from rmkit.training import explicit as command  # noqa: E402
from rmkit.types import Candidates, Completion, Message, ModelInfo  # noqa: E402
from tests.rmkit.training.test_training import base_model, data, settings  # noqa: E402, F401

Make = Callable[..., Any]

PROMPT = "Is the sky blue 7?"
ANSWERS = ("the Yes sky is", "No", "quick brown fox the step 2 + 2 = not Yes the lazy dog jumps over")


@pytest.mark.parametrize("family", ["llama", pytest.param("bert", marks=pytest.mark.slow)])
def test_trained_scores_are_the_same_everywhere(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    batch = [Candidates((Message("user", PROMPT),), tuple(Completion((Message("assistant", a),)) for a in ANSWERS))]
    in_memory: list[float] = []
    save = explicit.save

    def save_and_score(folder: Path, *, model: Any, chat: Any, **more: Any) -> None:
        engine = ExplicitRewardModel(RewardModule(model), chat, ModelInfo("m", "explicit", "logit", True, "0"))
        in_memory.extend(score.value for score in engine.score(batch)[0])
        save(folder, model=model, chat=chat, **more)

    monkeypatch.setattr(explicit, "save", save_and_score)
    path = command.train(str(data), settings(base_model(family)), output=tmp_path / "model")["path"]
    assert max(in_memory) - min(in_memory) > 0.01

    [reloaded] = load_model(path).score(batch)
    assert [score.value for score in reloaded] == pytest.approx(in_memory, abs=1e-5)

    plain = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    turns = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": answer}] for answer in ANSWERS]
    texts = [tokenizer.apply_chat_template(one, tokenize=False) for one in turns]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")  # as any server does: rendered, then tokenized
    with torch.no_grad():
        logits = plain(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits[:, 0]
    assert logits.tolist() == pytest.approx(in_memory, abs=1e-5)
