"""Where in a completion a model's values lie: the steps of process models, the tokens of implicit ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rmkit.serve.compat.served_model import unwrapped
from rmkit.shaping.spans import step_spans
from rmkit.types import Candidates, Completion, RewardModel, Score, Span


def spans_of(
    model: RewardModel, items: Sequence[Candidates], scores: Sequence[Sequence[Score]]
) -> list[list[list[Span]]]:
    """[P][N] spans; none where the model values whole completions only, or the completion could not be scored."""
    inner: Any = unwrapped(model)
    if inner.info.kind == "implicit":
        from rmkit.models.transformer.token_rewards import token_rewards

        return [
            [[] if isinstance(tokens, str) else [Span(*token) for token in _placed(tokens)] for tokens in row]
            for row in token_rewards(inner, items)
        ]
    separator = getattr(inner, "step_separator", getattr(getattr(inner, "config", None), "step_separator", ""))
    return [
        [
            step_spans(score.steps, _ends(completion, separator)) if score.steps else []
            for completion, score in zip(item.completions, row, strict=True)
        ]
        for item, row in zip(items, scores, strict=True)
    ]


def _ends(completion: Completion, separator: str) -> Sequence[int]:
    if completion.step_ends or not separator:
        return completion.step_ends
    from rmkit.chat.steps import in_steps

    return in_steps(completion, separator=separator).step_ends


def _placed(tokens: Sequence[Any]) -> list[tuple[float, int, int]]:
    return [(token.reward, token.start, token.end) for token in tokens]
