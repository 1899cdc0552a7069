"""From what a trainer hands over to rewards, one per completion, whatever happens in between."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from rmkit.errors import DataError
from rmkit.serve.clients.chat_values import candidates, grouped
from rmkit.serve.clients.reward_client import RewardClient
from rmkit.types import Candidates, Score

log = logging.getLogger(__name__)


def scores_of(client: RewardClient, prompts: Sequence[Any], completions: Sequence[Any]) -> list[Score]:
    """[n] scores of n prompts (text or messages) and completions; what cannot be read or scored says why.

    Neighbors with the same prompt are sent as one group. Raises RewardServiceError where the service cannot be asked,
    DataError where the two lists do not go together.
    """
    if len(prompts) != len(completions):
        raise DataError(f"{len(prompts)} prompts and {len(completions)} completions do not go together")
    items = [_item(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    scored = iter([score for row in client.score(grouped(items)) for score in row])
    scores = [Score.failed(str(item)) if isinstance(item, DataError) else next(scored) for item in items]
    failures = [score.unscored for score in scores if score.unscored is not None]
    if failures:
        log.warning("%d of %d completions are unscored; the first: %s", len(failures), len(scores), failures[0])
    return scores


def _item(prompt: Any, completion: Any) -> Candidates | DataError:
    try:
        return candidates(prompt, [completion])
    except DataError as error:
        return error


def value_or(score: Score, unscored_reward: float | None) -> float:
    """The score's value; for an unscored one the stand-in, or DataError where there is none."""
    if score.unscored is None:
        return score.value
    if unscored_reward is None:
        raise DataError(
            f"a completion cannot be scored ({score.unscored}); pass unscored_reward to go on with a number"
        )
    return unscored_reward
