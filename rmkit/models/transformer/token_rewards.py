"""Which words earned an implicit reward: its terms, one per response token, placed in the response's text.

    r_t = beta * (log pi(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t)),  sum over t = `Score.aspects["sum"]`

Against a reverse model this is the token-level reward of AlignDistil (arXiv:2503.02832). A token of the template (the
end of the turn) lies nowhere in the text; its place is empty, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rmkit.chat.encode import Encoded
from rmkit.errors import DataError
from rmkit.models.transformer.implicit import ImplicitRewardModel
from rmkit.types import Candidates, Completion


class TokenReward(NamedTuple):
    """One token's reward; `start` and `end` are characters of the completion's text."""

    start: int
    end: int
    text: str
    reward: float


def token_rewards(model: ImplicitRewardModel, batch: Sequence[Candidates]) -> list[list[list[TokenReward] | str]]:
    """[P][N] the rewards of every token of the response in order, or why there are none."""
    encoded = [[_placed(model, item, completion) for completion in item.completions] for item in batch]
    rows = [[one for one in row if isinstance(one, Encoded)] for row in encoded]
    result = iter([one for row in model.fitting([row for row in rows if row]) for one in row])
    results: list[list[list[TokenReward] | str]] = []
    for item, row in zip(batch, encoded, strict=True):
        results.append([])
        for completion, one in zip(item.completions, row, strict=True):
            if isinstance(one, Encoded):
                policy, reference = next(result)
                rewards = [model.beta * (p - r) for p, r in zip(policy, reference, strict=True)]
                results[-1].append(_token_rewards(completion.text, one, rewards))
            else:
                results[-1].append(str(one))
    return results


def _visible(text: str) -> list[int]:
    return [at for at, character in enumerate(text) if not character.isspace()]


def _placed(model: ImplicitRewardModel, item: Candidates, completion: Completion) -> Encoded | Exception:
    """Every visible character is marked as a step, so that the chat says in which token it lies."""
    ends = tuple(at + 1 for at in _visible(completion.text))
    if not ends:
        return DataError("the completion has no assistant text")
    return model.encode(item, Completion(completion.messages, completion.source, ends))


def _token_rewards(text: str, encoded: Encoded, rewards: Sequence[float]) -> list[TokenReward]:
    places: dict[int, list[int]] = {}
    for at, token in zip(_visible(text), encoded.step_index, strict=True):
        places.setdefault(token, []).append(at)
    first = len(encoded.ids) - len(rewards)
    summary, reached = [], 0
    for number, reward in enumerate(rewards):
        inside = places.get(first + number)
        start, end = (inside[0], inside[-1] + 1) if inside else (reached, reached)
        reached = end
        summary.append(TokenReward(start, end, text[start:end], reward))
    return summary
