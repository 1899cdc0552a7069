"""Critiques of a scripted judge over real HTTP: what is asked, what counts as a vote, what is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from data_pipelines.step_agreement import Solution, step_agreement
from data_pipelines.steps.trees.critiques import voted, wrong_steps
from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from rmkit.errors import ConfigError, DataError
from rmkit.ids import assistant_message
from tests.data_pipelines.frames import apply, frame, pair

REPLIES = {  # by seed, counted from 10: step 3 is wrong for all that can be read, step 2 for two of three
    10: "Step 2 is a slip.\nWrong steps: 2, 3",
    11: "I cannot say.",
    12: "First I thought:\nwrong steps: 1\nbut no.\n**Wrong steps:** 3 and 9",
    13: "Wrong steps: 2, 3",
}


@pytest.fixture
def server() -> Iterator[ScriptedEndpoint]:
    def answer(body: dict[str, Any]) -> Reply:
        asked = body["messages"][-1]["content"]
        if "1. 2+2=4\n2. 4*3=11\n3. so 11" not in asked or "What is (2+2)*3?" not in asked:
            return Reply(text="Wrong steps: none")
        return Reply(text=REPLIES[body["seed"]])

    with ScriptedEndpoint(answer) as endpoint:
        yield endpoint


def solution(prompt: str, *steps: str) -> dict[str, Any]:
    text = "\n".join(steps)
    ends = [len("\n".join(steps[: at + 1])) + (at + 1 < len(steps)) for at in range(len(steps))]
    row = pair(prompt, "a", "b")
    return row | {
        "kind": "steps", "responses": [assistant_message(text)], "step_ends": [ends], "p": None, "votes": [],
        "id": prompt,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("vote", "labels"),
    [
        ("intersection", [1, 1, 0]),
        ("majority", [1, 0, 0]),
        ("union", [1, 0, 0]),
        ("share", [1, pytest.approx(1 / 3), 0]),
    ],
)
def test_a_vote_of_the_readable_critiques_labels_the_steps(
    home: Path, server: ScriptedEndpoint, vote: str, labels: list[float]
) -> None:
    rows = frame([solution("What is (2+2)*3?", "2+2=4", "4*3=11", "so 11"), pair("no steps", "a", "b")])
    generator = {"model": "m", "base_url": server.base_url, "attempts": 1}
    result = apply("critiques", rows, generator=generator, vote=vote, seed=10)
    [row] = result.kept.to_dicts()
    assert row["step_labels"] == labels
    assert (row["n_votes"], row["method"]) == (3, "critiques")
    assert result.facts["failed"] == {"no line of wrong steps": 1}
    assert result.dropped["reason"].to_list() == ["no solution in steps"]


def test_the_last_line_of_wrong_steps_counts() -> None:
    assert wrong_steps("Wrong steps: none") == wrong_steps("WRONG STEPS - : None.") == []
    assert wrong_steps("wrong step: 4") == [3]
    assert wrong_steps("Wrong steps: 1, 12, and 3") == [0, 11, 2]
    assert wrong_steps("All steps are right.") is None
    assert voted([None, None], "majority") is None
    assert voted([0.5, 0.51], "majority") == [1, 0]


def test_settings_that_make_no_vote_are_refused(server: ScriptedEndpoint) -> None:
    generator = {"model": "m", "base_url": server.base_url}
    with pytest.raises(ConfigError, match="temperature 0 are one"):
        apply("critiques", frame([solution("p", "a", "b")]), generator=generator, temperature=0.0)


def test_sources_are_compared_where_both_label() -> None:
    """Ten steps of three solutions, one label missing: 5 of 9 alike. The shares of right steps are 5/9 and 7/9."""
    people: dict[Solution, list[float | None]] = {
        ("p", "r1", (1, 2, 3)): [1.0, 1.0, 0.0],
        ("p", "r2", (1, 2, 3, 4)): [1.0, 0.0, 0.0, None],
        ("q", "r3", (1, 2, 3)): [1.0, 1.0, 0.0],
        ("q", "r4", (1,)): [1.0],
    }
    rollouts: dict[Solution, list[float | None]] = {
        ("p", "r1", (1, 2, 3)): [0.9, 0.5, 0.2],
        ("p", "r2", (1, 2, 3, 4)): [1.0, 0.7, 0.6, 0.1],
        ("q", "r3", (1, 2, 3)): [0.8, 0.4, 0.7],
        ("z", "r4", (1,)): [1.0],
    }
    result = step_agreement(people, rollouts, names=("people", "rollouts"))
    assert (result.solutions, result.steps) == (3, 9)
    assert result.same == pytest.approx(5 / 9)
    by_chance = (5 * 7 + 4 * 2) / 81
    assert result.kappa == pytest.approx((5 / 9 - by_chance) / (1 - by_chance))
    assert (result.only_first_wrong, result.only_second_wrong) == pytest.approx((3 / 9, 1 / 9))
    assert result.first_error == pytest.approx(1 / 3)
    assert (result.low, result.high) == pytest.approx((1 / 3, 4 / 6))  # all of q, all of p
    with pytest.raises(DataError, match="people and rollouts share no labeled step"):
        step_agreement(people, {}, names=("people", "rollouts"))
