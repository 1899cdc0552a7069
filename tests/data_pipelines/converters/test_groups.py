"""Converters of groups: pairs of levels, self-play, answers from elsewhere, replay and plans, worked by hand."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.converters import Derived, Example, NotConvertibleError
from data_pipelines.converters.groups import levels, off_policy, plans, replay, self_play
from data_pipelines.converters.runner import convert
from data_pipelines.ingest.command import ingest
from rmkit.errors import ConfigError
from rmkit.ids import assistant_message
from warehouse.lineage.why import why
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve


def group(*texts: str, votes: tuple[dict[str, Any], ...] = (), **more: Any) -> Example:
    """A row with the responses `texts`; each keyword but those of a row rates them in their order."""
    blank = dict.fromkeys(("ranks", "p", "step_ends", "reference", "meta", "margin", "generators"))
    row = {name: more.pop(name) for name in list(more) if name in blank}
    scores = [
        {"response": at, "aspect": aspect, "value": float(value)}
        for aspect, values in more.items()
        for at, value in enumerate(values)
        if value is not None
    ]
    return {"responses": list(map(assistant_message, texts)), "votes": list(votes), "scores": scores} | blank | row


def words(derived: Derived) -> list[str]:
    return [json.loads(text)[-1]["content"] for text in derived.responses]


def edit(text: str, rationale: str | None = None) -> dict[str, Any]:
    return {"edit": assistant_message(text), "rationale": rationale, "scores": None}


def test_levels_1_1_2_3_give_five_pairs_that_weigh_eleven() -> None:
    row = group("right", "also right", "wrong", "unreadable", level=[1, 1, 2, 3])
    pairs = list(levels.convert(row, levels.Config()))
    assert {(*words(one), one.margin) for one in pairs} == {
        ("right", "wrong", 2.5),
        ("right", "unreadable", 2.5),
        ("also right", "wrong", 2.5),
        ("also right", "unreadable", 2.5),
        ("wrong", "unreadable", 1.0),
    }
    assert sum(one.margin or 0 for one in pairs) == 11
    assert {(tuple(one.p or ()), one.n_votes) for one in pairs} == {((1.0, 0.0), 0)}
    capped = list(levels.convert(row, levels.Config(cap=3)))
    assert len(capped) == 3
    assert {tuple(words(one)) for one in capped} < {tuple(words(one)) for one in pairs}
    with pytest.raises(NotConvertibleError, match="one level"):
        list(levels.convert(group("a", "b", "c", level=[2, 2, None]), levels.Config()))


def test_the_human_answer_beats_the_policys_of_this_and_the_last_iteration() -> None:
    row = group("by hand", "old", "older", "new", "by hand", generators=["ann", "p-1", "p-0", "p-2", "p-2"])
    config = self_play.Config(policy="p", iteration=2)
    pairs = list(self_play.convert(row, config))
    assert [(*words(one), one.meta["iteration"]) for one in pairs] == [("by hand", "old", 1), ("by hand", "new", 2)]
    alone = self_play.Config(policy="p", iteration=2, previous=False)
    assert [words(one) for one in self_play.convert(row, alone)] == [["by hand", "new"]]
    corrected = group("draft", generators=["p-0"], votes=(edit("better"),), reference="not asked")
    assert [words(one) for one in self_play.convert(corrected, self_play.Config(policy="p"))] == [["better", "draft"]]
    given = group("draft", generators=["p-0"], reference="the answer")
    assert [words(one) for one in self_play.convert(given, self_play.Config(policy="p"))] == [["the answer", "draft"]]
    with pytest.raises(NotConvertibleError, match="as people do"):
        list(self_play.convert(group("x", generators=["p-0"], reference="x"), self_play.Config(policy="p")))
    with pytest.raises(ConfigError, match="name the policy"):
        list(self_play.convert(row, self_play.Config()))


def test_rounds_of_self_play_approach_the_target_and_rest_there() -> None:
    """Five one-word answers: the loss over expected pairs has its optimum where p falls to the target, round by round.

    The logistic loss of l = log p / p_old with pairs (y ~ target, y' ~ p_old), each round solved by gradient descent.
    """
    target = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    names = [f"w{at}" for at in range(5)]

    def pair_weights(policy: np.ndarray) -> np.ndarray:
        """[5, 5] share of each pair (human, own) among those that the converter gives; equal texts are none."""
        weight = np.zeros((5, 5))
        for human in range(5):
            for own in range(5):
                row = group(names[own], generators=["p-0"], reference=names[human])
                try:
                    (pair,) = self_play.convert(row, self_play.Config(policy="p"))
                except NotConvertibleError:
                    continue
                winner, loser = (names.index(word) for word in words(pair))
                weight[winner, loser] += target[human] * policy[own]
        return weight

    def round_of(policy: np.ndarray, beta: float = 1.0) -> np.ndarray:
        weight, z = pair_weights(policy), np.log(policy).copy()
        for _ in range(400):
            gap = beta * (z - np.log(policy))
            push = weight / (1 + np.exp(gap[:, None] - gap[None, :]))
            z = z + 4 * beta * (push.sum(axis=1) - push.sum(axis=0))
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()

    def kl(policy: np.ndarray) -> float:
        return float((target * np.log(target / policy)).sum())

    policy = np.array([0.05, 0.15, 0.2, 0.3, 0.3])
    divergence = [kl(policy)]
    for _ in range(4):
        policy = round_of(policy)
        divergence.append(kl(policy))
    assert all(later < earlier or later < 1e-6 for earlier, later in pairwise(divergence))
    assert divergence[-1] < 0.01 * divergence[0]
    np.testing.assert_allclose(round_of(target), target, atol=1e-9)  # no pair is won more often than lost


def test_a_refinement_takes_the_place_of_the_worst_rollout() -> None:
    row = group(
        *"abcdefgh",
        correct=[1, 0, 0.5, None, 1, 1, 1, 1],
        logp_then=[-1, None, None, None, -2, None, None, None],
        logp_now=[-1.25, None, None, None, -1.5, None, None, None],
        votes=(edit("mended", "the sign is lost"),),
    )
    (unit,) = off_policy.convert(row, off_policy.Config())
    assert words(unit) == ["a", "b", "c", "e", "f", "g", "h", "mended"]  # d has no reward at all
    ratings = {(words(unit)[at], name): value for at, name, value in unit.scores}
    assert [ratings[word, "on_policy"] for word in words(unit)] == [1] * 7 + [0]
    assert (ratings["mended", "correct"], ratings["b", "correct"]) == (1, 0)
    assert {word: ratings.get((word, "staleness")) for word in "abe"} == {"a": 0.25, "b": None, "e": 0.5}
    assert unit.meta == {"critique": "the sign is lost"}
    assert (unit.origins[-1], unit.origins[0]) == (None, 0)


def test_what_is_still_wrong_or_by_nobody_else_is_no_answer_from_elsewhere() -> None:
    row = group("own", "teacher's", "wrong", correct=[0, 1, 0], generators=["p", "big", "big"])
    (unit,) = off_policy.convert(row, off_policy.Config(policy="p"))
    assert words(unit) == ["own", "teacher's"]
    assert [value for _, name, value in unit.scores if name == "on_policy"] == [1, 0]
    with pytest.raises(NotConvertibleError, match="no right answer from elsewhere"):
        list(
            off_policy.convert(group("own", "x", correct=[0, 0], generators=["p", "b"]), off_policy.Config(policy="p"))
        )
    with pytest.raises(NotConvertibleError, match="no answer of the policy"):
        list(off_policy.convert(row, off_policy.Config(policy="q")))


def test_one_success_a_task_within_the_band_is_replayed() -> None:
    # p^(1/len): .96 too easy, .55 taken, .8 likelier, .5 on the excluded end; the last is no success
    p = [0.96, 0.55, 0.8, 0.5, 0.7]
    row = group(*"abcde", correct=[1, 0.6, 1, 1, 0.4], mean_logp=[math.log(one) for one in p])
    (unit,) = replay.convert(row, replay.Config())
    assert words(unit) == ["b"]
    assert {name: round(value, 6) for _, name, value in unit.scores} == {"correct": 0.6, "token_probability": 0.55}
    with pytest.raises(NotConvertibleError, match="band"):
        list(replay.convert(row, replay.Config(low=0.97, high=1)))
    with pytest.raises(NotConvertibleError, match="no success"):
        list(replay.convert(row, replay.Config(threshold=1.5)))


def test_a_plan_is_worth_the_mean_of_its_rollouts() -> None:
    texts = ["<plan>sum</plan> 7", "<plan> sum </plan> 8", "<plan>guess</plan> 9", "no plan", "<plan>guess</plan> 1"]
    (unit,) = plans.convert(group(*texts, correct=[1, 0, 0, 1, None]), plans.Config())
    assert words(unit) == ["sum", "guess"]
    assert (list(unit.scores), unit.ranks, unit.meta) == (
        [(0, "correct", 0.5), (1, "correct", 0.0)],
        [0, 1],
        {"rollouts": [2, 1]},
    )
    with pytest.raises(ConfigError, match="no group"):
        plans.Config(pattern="plan")


@pytest.mark.slow
def test_a_weighted_pair_is_stored_with_its_lineage(home: Path, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "2 + 2?",
            "responses": [{"text": t, "score": v} for t, v in zip("4567", (1, 1, 2, 3), strict=True)],
        }
    ]
    path = tmp_path / "levels.jsonl"
    path.write_text("".join(json.dumps({"id": "r", "source": "toy", "meta": {}} | row) + "\n" for row in rows))
    ingest(path)
    result = convert("levels", "levels", "weighted", levels.Config(aspect="score"))
    assert result["steps"][0]["facts"] == {"units": 5, "equal_units_united": 0}
    with open_warehouse(read_only=True) as connection:
        pairs = checkout(connection, resolve(connection, "weighted")).to_pylist()
        facts = why(connection, pairs[0]["unit"])
    assert Counter(one["margin"] for one in pairs) == {2.5: 4, 1.0: 1}
    assert {unit["unit"]: unit["rewritten_from"] for unit in facts["units"]}[pairs[0]["unit"]] == facts["units"][0][
        "unit"
    ]
    assert facts["sources"][0]["row"] == "r"
