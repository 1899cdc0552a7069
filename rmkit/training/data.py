"""Export rows as training rows: ids of every response, and what the label says about them.

A row that cannot be used is counted under its reason, never dropped in silence. A list keeps the responses that could
be encoded, as long as its label still compares two of them (preferences) or says something of one (ratings, steps).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from rmkit.chat.encode import Chat, Encoded
from rmkit.data.example import Example
from rmkit.data.pairs import read_pairs
from rmkit.data.reasons import without_numbers
from rmkit.errors import DataError
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.training.objectives.objective import Objective
from rmkit.training.rows import Preference, TrainingRow

if TYPE_CHECKING:
    from torch import Tensor


def read_rows(
    examples: Iterable[Example],
    chat: Chat,
    *,
    objective: Objective,
    head: RatingHead | None = None,
    validation: bool = False,
) -> tuple[list[TrainingRow], dict[str, int]]:
    """The rows that the objective learns from (or, for `validation`, is judged by) in order, and how many were left out
    by reason. `head` names the aspects of rated rows."""
    row_of = objective.validation_row if validation else objective.row
    rows: list[TrainingRow] = []
    skipped: Counter[str] = Counter()
    for example in examples:
        result = row_of(example, chat, head=head)
        if isinstance(result, str):
            skipped[without_numbers(result)] += 1
        else:
            rows.append(result)
    return rows, dict(skipped)


def compared_row(example: Example, chat: Chat, *, ties: bool, ranked: bool = False) -> TrainingRow | str:
    """A row of preferences; `ties` keeps those whose label is one, `ranked` needs a ranking of two responses."""
    pairs, reasons = read_pairs([example])
    if not pairs:
        return next(iter(reasons))
    try:
        encoded = chat.encode_candidates(example.candidates)
    except DataError as error:
        return str(error)
    numbers = [number for number, one in enumerate(encoded) if isinstance(one, Encoded)]
    place = {number: position for position, number in enumerate(numbers)}
    usable = [one for one in encoded if isinstance(one, Encoded)]
    labeled = [
        Preference(place[pair.i], place[pair.j], pair.p, pair.share)
        for pair in pairs
        if pair.i in place and pair.j in place and (pair.p != 0.5 or ties)
    ]
    if not labeled:
        return next((str(one) for one in encoded if isinstance(one, DataError)), "the label is a tie")
    # what the template strips or the limit cuts off may be all that sets two responses apart
    preferences = [one for one in labeled if usable[one.i].ids != usable[one.j].ids]
    if not preferences:
        return "the responses become the same tokens"
    ranks = _ranks(example, numbers) if ranked else ()
    if ranked and len({rank for rank in ranks if rank >= 0}) < 2:
        return "no ranking of two responses"
    total = sum(preference.share for preference in preferences)
    shared = tuple(preference._replace(share=preference.share / total) for preference in preferences)
    return _training_row(example, usable, preferences=shared, ranks=ranks, margin=abs(example.row["margin"] or 0.0))


def _training_row(
    example: Example,
    usable: Sequence[Encoded],
    *,
    preferences: tuple[Preference, ...] = (),
    ranks: tuple[int, ...] = (),
    margin: float = 0.0,
    **labels: Any,
) -> TrainingRow:
    row = example.row
    return TrainingRow(
        id=example.id,
        ids=tuple(one.ids for one in usable),
        tokens=tuple(len(one.ids) - one.prompt_tokens for one in usable),
        preferences=preferences,
        ranks=ranks,
        margin=margin,
        weight=1.0 if row["weight"] is None else float(row["weight"]),
        family=row["family"] or 0,
        truncated=any(one.prompt_truncated or one.response_truncated for one in usable),
        **labels,
    )


def _encoded(example: Example, chat: Chat) -> list[Encoded | DataError] | str:
    row = example.row
    if not row["responses"]:
        return f"no response (kind {row['kind']})"
    if row["prompt"] is None or None in row["responses"]:
        return "text erased"
    try:
        return chat.encode_candidates(example.candidates)
    except DataError as error:
        return str(error)


def rated_row(example: Example, chat: Chat, head: RatingHead) -> TrainingRow | str:
    """The responses rated on an aspect of the head, and the preferences that follow from their ratings."""
    table = ratings_of(example.row, head.aspects)
    if all(math.isnan(value) for ratings in table for value in ratings):
        return f"no rating of {', '.join(head.aspects)}"
    encoded = _encoded(example, chat)
    if isinstance(encoded, str):
        return encoded
    rated = [
        (one, ratings)
        for one, ratings in zip(encoded, table, strict=True)
        if isinstance(one, Encoded) and not all(map(math.isnan, ratings))
    ]
    if not rated:
        return next((str(one) for one in encoded if isinstance(one, DataError)), "no rated response")
    ratings = tuple(ratings for _, ratings in rated)
    return _training_row(
        example, [one for one, _ in rated], ratings=ratings, preferences=_by_rating(ratings, head.weights)
    )


def ratings_of(row: Mapping[str, Any], aspects: Sequence[str]) -> list[tuple[float, ...]]:
    """[N][A] ratings of a row's responses, NaN where missing."""
    result = {
        (one["response"], one["aspect"] or ""): float(one["value"])
        for one in row["scores"] or []
        if one["value"] is not None
    }
    n = len(row["responses"] or [])
    return [tuple(result.get((response, aspect), math.nan) for aspect in aspects) for response in range(n)]


def _by_rating(ratings: Sequence[Sequence[float]], weights: Sequence[float]) -> tuple[Preference, ...]:
    """Pairs of responses whose weighted ratings are known: the higher is better, equal ones are ties."""
    value = [sum(w * r for w, r in zip(weights, one, strict=True) if w) for one in ratings]
    known = [(i, j) for i, j in combinations(range(len(value)), 2) if not math.isnan(value[i] + value[j])]
    return tuple(
        Preference(i, j, 0.5 * (1 + (value[i] > value[j]) - (value[i] < value[j])), 1 / len(known)) for i, j in known
    )


def step_labels(example: Example, *, any_range: bool = False) -> tuple[float, ...] | str:
    """[S] labels of the steps of a row's one response, NaN where there is none; or why the row cannot be used. Labels
    lie between 0 and 1 but for `any_range`."""
    labels = example.row["step_labels"] or []
    if not any(label is not None for label in labels):
        return f"no step labels (kind {example.row['kind']})"
    if len(example.row["responses"] or []) != 1 or len(labels) != len(example.steps):
        return "not one response with one label a step"
    if not any_range and not all(0 <= label <= 1 for label in labels if label is not None):
        return "a step label is not between 0 and 1: the objective step_value takes any number"
    return tuple(math.nan if label is None else float(label) for label in labels)


def stepped_row(example: Example, chat: Chat, *, any_range: bool = False) -> TrainingRow | str:
    """One response in steps; steps that truncation cut off lose their labels."""
    labels = step_labels(example, any_range=any_range)
    if isinstance(labels, str):
        return labels
    encoded = _encoded(example, chat)
    if isinstance(encoded, str):
        return encoded
    [one] = encoded
    if isinstance(one, DataError):
        return str(one)
    read_labels = labels[: len(one.step_index)]
    if all(map(math.isnan, read_labels)):
        return "every labeled step lies beyond the token limit"
    return _training_row(example, [one], step_index=(one.step_index,), step_labels=(read_labels,))


def outcome_row(
    example: Example, chat: Chat, *, aspect: str, step_aspects: str = "", missing: float | None = None
) -> TrainingRow | str:
    """One response in steps with a rating of the whole; none where truncation cut steps off.

    With `step_aspects` the ratings of that name and the numbers 1 ... S stand behind that of the whole, `missing` in
    place of those that are not there.
    """
    ((outcome, *_), *others) = ratings_of(example.row, (aspect,)) or [(math.nan,)]
    if others or math.isnan(outcome):
        return f"not one response with a rating of {aspect or 'no name'}"
    encoded = _encoded(example, chat)
    if isinstance(encoded, str):
        return encoded
    [one] = encoded
    if isinstance(one, DataError):
        return str(one)
    steps = len((example.row["step_ends"] or [()])[0])
    if not steps or len(one.step_index) < steps:
        return "steps beyond the token limit" if steps else "the response is not split into steps"
    names = [f"{step_aspects}{at}" for at in range(1, steps + 1)] if step_aspects else []
    [own] = ratings_of(example.row, names) if names else [()]
    if missing is None and any(map(math.isnan, own)):
        return f"not every step has a rating {step_aspects}N"
    filled = tuple(missing if missing is not None and math.isnan(value) else value for value in own)
    return _training_row(example, [one], ratings=((outcome, *filled),), step_index=(one.step_index,))


def _ranks(example: Example, numbers: Sequence[int]) -> tuple[int, ...]:
    """Ranks as given, else places by the probability of being the best."""
    inputs, p = example.row["ranks"], example.row["p"]
    if inputs:
        return tuple(-1 if inputs[number] is None else inputs[number] for number in numbers)
    if p:
        return tuple(sum(other > p[number] for other in p) for number in numbers)
    return (-1,) * len(numbers)


def table(score_K: Tensor, rows: Sequence[TrainingRow]) -> tuple[Tensor, Tensor]:
    """[B, N] scores of the rows' responses, and which of them are there; N responses of the longest row."""
    import torch

    parts = torch.split_with_sizes(score_K, [len(row.ids) for row in rows])
    score_BN = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    count_B = torch.tensor([len(row.ids) for row in rows], device=score_K.device)
    return score_BN, torch.arange(score_BN.shape[1], device=score_K.device) < count_B[:, None]


def mean_of_rows(loss_K: Tensor, rows: Sequence[TrainingRow]) -> Tensor:
    """[B] mean over each row's responses."""
    import torch

    return torch.stack([part.mean() for part in torch.split_with_sizes(loss_K, [len(row.ids) for row in rows])])
