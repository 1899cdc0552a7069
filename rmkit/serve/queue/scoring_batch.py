"""Asking a model about items of many requests at once: prompts shared, a bad item alone in its failure."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

from rmkit.types import Candidates, Comparison, Conversation, RewardModel, Score

log = logging.getLogger(__name__)

Ask = Callable[[RewardModel, Sequence[Candidates]], list[Any]]

CHARS_PER_TOKEN = 4


def about_tokens(item: Candidates) -> int:
    """Estimated tokens of a prompt and its completions: a quarter of the characters, and eight for each turn."""
    return about_prompt_tokens(item) + sum(_turns(completion.messages) for completion in item.completions)


def about_prompt_tokens(item: Candidates) -> int:
    """The prompt's share of `about_tokens`."""
    return _turns(item.prompt)


def _turns(conversation: Conversation) -> int:
    return sum(8 + len(turn.content) // CHARS_PER_TOKEN for turn in conversation)


def score(model: RewardModel, items: Sequence[Candidates]) -> list[list[Score]]:
    """[P][N] scores; a pointwise model sees the completions of one prompt together, whoever sent them."""
    if not model.info.pointwise:
        return _checked(model.score(items), items)
    rows: dict[Hashable, list[int]] = {}
    for number, item in enumerate(items):
        rows.setdefault(prompt_key(item), []).append(number)
    merged = [
        items[numbers[0]].of(*(c for number in numbers for c in items[number].completions)) for numbers in rows.values()
    ]
    results: list[list[Score]] = [[] for _ in items]
    for numbers, scores in zip(rows.values(), _checked(model.score(merged), merged), strict=True):
        remaining = iter(scores)
        for number in numbers:
            results[number] = [next(remaining) for _ in items[number].completions]
    return results


def compare(model: RewardModel, items: Sequence[Candidates]) -> list[Comparison]:
    """[P] comparisons."""
    return [_finite_comparison(one) for one in model.compare(items)]


def in_halves(model: RewardModel, ask: Ask, items: Sequence[Candidates]) -> list[Any]:
    """Results of the items; where the model raises, each half is asked again, down to the item that provokes it."""
    try:
        results = ask(model, items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
        return results
    except Exception as error:
        if len(items) == 1:
            log.warning("model %s failed on an item: %s", model.info.name, type(error).__name__)
            log.debug("the model's error", exc_info=True)
            return [_failed(ask, items[0], f"the model raised {type(error).__name__}")]
    half = len(items) // 2
    return in_halves(model, ask, items[:half]) + in_halves(model, ask, items[half:])


def prompt_key(item: Candidates) -> Hashable:
    """Equal for equal prompts with equal tools, reference and rubric; mappings have no hash."""
    if item.tools or item.rubric or item.reference is not None:
        return repr((item.prompt, item.tools, item.reference, item.rubric))
    return repr(item.prompt) if any(turn.tool_calls for turn in item.prompt) else item.prompt


def _failed(ask: Ask, item: Candidates, reason: str) -> list[Score] | Comparison:
    return Comparison.failed(reason) if ask is compare else [Score.failed(reason)] * len(item.completions)


def _checked(scores: list[list[Score]], items: Sequence[Candidates]) -> list[list[Score]]:
    if [len(row) for row in scores] != [len(item.completions) for item in items]:
        raise RuntimeError("the model gave another number of scores than it was given completions")
    return [[_finite_score(score) for score in row] for row in scores]


def _finite_score(score: Score) -> Score:
    """Unscored where the value is infinite: here, so that no route, counter or log sees it as a number."""
    if score.unscored is None and not math.isfinite(score.value):
        return replace(score, value=math.nan, unscored=f"the model gave {score.value}, not a finite number")
    return score


def _finite_comparison(comparison: Comparison) -> Comparison:
    if comparison.unscored is None and not math.isfinite(comparison.p_first):
        return Comparison.failed(f"the model gave {comparison.p_first}, not a finite number")
    return comparison
