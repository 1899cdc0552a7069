"""The evaluator: any reward model on any suite, through the RewardModel protocol alone.

    pointwise models     score once per reply: items that share a prompt become one group, repeated replies are scored
                         once, and groups go to the model longest first, so that it can share prefixes and pad little
    judges (pointwise is false) on pairs         compare, asked in both orders
    judges on longer lists                       score, one list at a time (their scores hold within it only)
    suites over steps                            the scores of the steps, as probabilities

Batches are sized by time (about five seconds each), every batch is on disk before the next one starts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from evaluation.scoring.rule import rule_of
from evaluation.suites.items import Answer, Item
from evaluation.suites.journal import Journal
from evaluation.suites.suite import Suite
from rmkit.cli import display
from rmkit.errors import DataError, ModelError
from rmkit.ids import canonical_json, messages_json
from rmkit.types import LOGIT_SCALES, Candidates, Comparison, Completion, RewardModel, Score, sigmoid

FIRST_BATCH, BATCH_S, LARGEST_BATCH = 16, 5.0, 1024


@dataclass(frozen=True, slots=True)
class Group:
    """One thing to ask: candidates, and for every item in it the positions of its replies among them."""

    candidates: Candidates
    items: tuple[tuple[Item, tuple[int, ...]], ...]

    @property
    def characters(self) -> int:
        """Length of the prompt and its longest reply."""
        prompt = sum(len(message.content) for message in self.candidates.prompt)
        return prompt + max(len(completion.text) for completion in self.candidates.completions)


@dataclass(slots=True)
class Progress:
    """What an evaluation did: items answered before (resumed) and now, and the time spent in the model and in all."""

    resumed: int = 0
    answered: int = 0
    model_s: float = 0.0
    wall_s: float = 0.0


def select(items: Sequence[Item], limit: int | None) -> list[Item]:
    """All items, or the first `limit` of them taken in turn from every subset, so that a smoke run sees them all."""
    if limit is None:
        return list(items)
    by_subset: dict[str, list[Item]] = {}
    for item in items:
        by_subset.setdefault(item.subset, []).append(item)
    in_turn = (item for row in zip_longest(*by_subset.values()) for item in row if item is not None)
    return [item for _, item in zip(range(limit), in_turn, strict=False)]


def run(model: RewardModel, suite: Suite, items: Sequence[Item], journal: Journal) -> Progress:
    """Ask the model for every item that the journal has no answer to. Raises ModelError for a model of the wrong kind
    or one that breaks the protocol; what was answered until then is kept."""
    done = Progress(resumed=sum(item.id in journal.answers for item in items))
    start = time.perf_counter()
    open_items = [item for item in items if item.id not in journal.answers]
    with display.progress(f"{suite.name}: {model.info.name}", len(open_items)) as advance:
        for rules, ask in ((True, _ask_pairs), (False, _ask_groups)):
            part = [item for item in open_items if _compared(model, suite, item) == rules]
            for answers in _batches(_groups(model, part), ask, model, suite, done):
                journal.append(answers)
                done.answered += len(answers)
                advance(len(answers))
    done.wall_s = time.perf_counter() - start
    return done


def _compared(model: RewardModel, suite: Suite, item: Item) -> bool:
    return not model.info.pointwise and rule_of(suite, item.subset).compares


def _groups(model: RewardModel, items: Sequence[Item]) -> list[Group]:
    """The items as groups, longest first; merged by prompt where a score does not depend on the company."""
    bare = [item.id for item in items if item.candidates is None]
    if bare:
        raise DataError(f"{len(bare)} items have stored scores only, no texts to score (first: {bare[0]})")
    if not model.info.pointwise:
        result = [Group(c, ((item, tuple(range(len(c.completions)))),)) for item in items if (c := item.candidates)]
    else:
        by_prompt: dict[str, list[Item]] = {}
        for item in items:
            assert item.candidates is not None
            one = item.candidates
            key = messages_json(one.prompt) + canonical_json([list(one.tools), one.reference, list(one.rubric)])
            by_prompt.setdefault(key, []).append(item)
        result = [_merged(group) for group in by_prompt.values()]
    return sorted(result, key=lambda group: -group.characters)


def _merged(items: Sequence[Item]) -> Group:
    """One group over the distinct replies of items with the same prompt. Steps are part of a reply's identity."""
    position: dict[tuple[str, tuple[int, ...]], int] = {}
    replies: list[Completion] = []
    places = []
    for item in items:
        assert item.candidates is not None
        at = []
        for completion in item.candidates.completions:
            key = messages_json(completion.messages), completion.step_ends
            if key not in position:
                position[key] = len(replies)
                replies.append(completion)
            at.append(position[key])
        places.append((item, tuple(at)))
    assert items[0].candidates is not None
    return Group(items[0].candidates.of(*replies), tuple(places))


Ask = Callable[[RewardModel, Suite, Sequence[Group]], list[Answer]]


def _batches(
    groups: Sequence[Group], ask: Ask, model: RewardModel, suite: Suite, done: Progress
) -> Iterator[list[Answer]]:
    at, size = 0, FIRST_BATCH
    while at < len(groups):
        batch = groups[at : at + size]
        at += len(batch)
        start = time.perf_counter()
        answers = ask(model, suite, batch)
        took = time.perf_counter() - start
        done.model_s += took
        yield [replace(answer, latency_ms=1000 * took / len(answers)) for answer in answers]
        size = _next_size(size, took)


def _next_size(size: int, took_s: float) -> int:
    """Towards BATCH_S a batch, at most doubling, never below FIRST_BATCH / 2."""
    target = size * BATCH_S / max(took_s, 1e-3)
    return int(min(max(target, FIRST_BATCH / 2), 2 * size, LARGEST_BATCH))


def _ask_groups(model: RewardModel, suite: Suite, groups: Sequence[Group]) -> list[Answer]:
    scored = model.score([group.candidates for group in groups])
    expected = [len(group.candidates.completions) for group in groups]
    if [len(scores) for scores in scored] != expected:
        raise ModelError(f"model {model.info.name} broke the protocol: asked for {expected[:4]}... scores, got others")
    answers = [
        _answer(model, suite, item, [scores[position] for position in positions])
        for group, scores in zip(groups, scored, strict=True)
        for item, positions in group.items
    ]
    return _with_predicted(model, [item for group in groups for item, _ in group.items], answers)


def _with_predicted(model: RewardModel, items: Sequence[Item], answers: list[Answer]) -> list[Answer]:
    """Pairs of a dataset whose labels are probabilities: a scale without a link has none, so the model is asked."""
    pairs = {item.id: item.candidates for item in items if len(item.positions) == 2 and item.candidates}
    if not pairs or model.info.scale in LOGIT_SCALES:
        return answers
    predicted = {name: one.p_first for name, one in zip(pairs, model.compare(list(pairs.values())), strict=True)}
    return [replace(answer, predicted=predicted.get(answer.item, math.nan)) for answer in answers]


def _answer(model: RewardModel, suite: Suite, item: Item, scores: Sequence[Score]) -> Answer:
    reasons = "; ".join(dict.fromkeys(score.unscored for score in scores if score.unscored)) or None
    if not rule_of(suite, item.subset).steps:
        predicted = _probability(model, scores) if rule_of(suite, item.subset).probabilities else math.nan
        return Answer(item.id, tuple(score.value for score in scores), predicted=predicted, unscored=reasons)
    steps = () if reasons else _step_probabilities(model, suite, item, scores[0])
    return Answer(item.id, steps=steps, unscored=reasons)


def _probability(model: RewardModel, scores: Sequence[Score]) -> float:
    """Of one response: its score as a probability, NaN on a scale that has none."""
    value = scores[0].value
    if model.info.scale in ("logit", "log_ratio"):
        return sigmoid(value)
    return value if model.info.scale == "probability" else math.nan


def _step_probabilities(model: RewardModel, suite: Suite, item: Item, score: Score) -> tuple[float, ...]:
    assert item.candidates is not None
    target = len(item.candidates.completions[0].step_ends)
    if len(score.steps) != target:
        raise ModelError(
            f"suite {suite.name} needs a score for each step ({target} on item {item.id}), model {model.info.name} "
            f"({model.info.kind}) gave {len(score.steps)}; evaluate a process reward model on it"
        )
    if model.info.scale in LOGIT_SCALES:
        return tuple(sigmoid(value) for value in score.steps)
    if model.info.scale != "probability":
        raise ModelError(f"steps on the scale {model.info.scale!r} have no threshold; expected probabilities or logits")
    return score.steps


def _ask_pairs(model: RewardModel, suite: Suite, groups: Sequence[Group]) -> list[Answer]:
    """Both orders in one call; probabilities are turned to the item's first candidate."""
    pairs = [group.candidates for group in groups]
    swapped = [pair.of(*pair.completions[::-1]) for pair in pairs]
    compared = model.compare([*pairs, *swapped])
    if len(compared) != 2 * len(pairs):
        raise ModelError(f"model {model.info.name} broke the protocol: {2 * len(pairs)} pairs, {len(compared)} answers")
    halves = zip(groups, compared[: len(pairs)], compared[len(pairs) :], strict=True)
    return [_compared_answer(group.items[0][0], forward, backward) for group, forward, backward in halves]


def _compared_answer(item: Item, forward: Comparison, backward: Comparison) -> Answer:
    p = (forward.p_first, 1 - backward.p_first)
    reasons = "; ".join(dict.fromkeys(one.unscored for one in (forward, backward) if one.unscored)) or None
    return Answer(item.id, p=p, unscored=reasons)


def lengths(items: Sequence[Item]) -> Mapping[str, tuple[int, ...]]:
    """Characters of every item's replies, for the length probe; empty for items without texts."""
    return {
        item.id: tuple(len(completion.text) for completion in item.candidates.completions) if item.candidates else ()
        for item in items
    }


def mean_latency_ms(answers: Sequence[Answer]) -> float:
    """Mean of the known latencies, NaN where there are none."""
    known = [answer.latency_ms for answer in answers if not math.isnan(answer.latency_ms)]
    return sum(known) / len(known) if known else math.nan
