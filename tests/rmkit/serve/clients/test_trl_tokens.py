"""TRL's own GRPO with one advantage per token: the spans of a served process model reach the tokens that wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("trl")

from rmkit.chat.steps import in_steps
from rmkit.serve.http.app import create_app
from rmkit.types import Score
from tests.rmkit.curriculum.tiny_service import serving, tiny_policy, tiny_tokenizer
from tests.rmkit.serve.serving import Steered

VALUES = {"a": 1.0, "b": -1.0}


class Wordwise(Steered):
    """A process model whose steps are words: an `a` is worth 1, a `b` -1, anything else 0."""

    step_separator = " "

    def _score(self, completion: Any) -> Score:
        if not completion.text.strip():
            return Score.failed("nothing was written")
        split, start, steps = in_steps(completion, separator=" "), 0, []
        for end in split.step_ends:
            steps.append(VALUES.get(split.text[start:end].strip(), 0.0))
            start = end
        return Score(sum(steps), steps=tuple(steps))


@pytest.mark.slow
def test_each_token_gets_its_own_words_advantage(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import GRPOConfig

    from rmkit.serve.clients import trl as adapter

    tokenizer = tiny_tokenizer(tmp_path)
    policy = tiny_policy(tokenizer)
    seen: list[dict[str, Any]] = []

    class Watched(adapter.TokenAdvantages):  # type: ignore[misc, name-defined]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            seen.append(super()._generate_and_score_completions(inputs))
            return seen[-1]

    def preference() -> float:
        """Log-odds of `a` over `b` as the first word."""
        ids = tokenizer("question 1", return_tensors="pt").input_ids
        logits = policy(ids).logits[0, -1]
        a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
        return float(logits[a] - logits[b])

    with serving(create_app({"words": Wordwise()})) as url:
        trainer = Watched(
            policy,
            reward_funcs=adapter.RewardFunction(url, spans=True),
            args=GRPOConfig(
                output_dir=str(tmp_path / "run"), max_steps=30, per_device_train_batch_size=32, num_generations=8,
                max_completion_length=6, learning_rate=2e-2, use_cpu=True, report_to=[], save_strategy="no", beta=0.0,
                scale_rewards="none", logging_steps=50, seed=1,
            ),
            train_dataset=Dataset.from_dict({"prompt": [f"question {at % 12}" for at in range(48)]}),
            processing_class=tokenizer,
        )  # fmt: skip
        before = preference()
        trainer.train()
    by_id = {tokenizer.convert_tokens_to_ids(word): value for word, value in VALUES.items()}
    placed = 0
    for output in seen:
        for ids, mask, advantages in zip(
            output["completion_ids"].tolist(),
            output["completion_mask"].tolist(),
            output["advantages"].tolist(),
            strict=True,
        ):
            if not tokenizer.decode(ids, skip_special_tokens=True).strip():
                continue  # nothing was written, so there is no span
            words = [at for at, token in enumerate(ids) if mask[at] and token not in tokenizer.all_special_ids]
            expected = [by_id.get(ids[at], 0.0) for at in words]
            assert [advantages[at] for at in words] == expected
            assert not any(value for value, on in zip(advantages, mask, strict=True) if not on)
            placed += sum(one != 0 for one in expected)
    assert placed > 200
    assert preference() > before + 1
