"""Search over a planted world whose best answer is known, and aggregates worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from rmkit.errors import ConfigError, UsageError
from rmkit.search.aggregate import AGGREGATES, choose, reduce_scores
from rmkit.search.puct import exploration
from rmkit.search.select import SearchConfig, select
from rmkit.search.space import Candidate, Extension, State, StepScores
from rmkit.search.study import Row, best_methods, bin_of
from rmkit.trees.dump import as_rows, read_dump, tree_of

LENGTH = 4


class Digits:
    """A policy that writes LENGTH steps of which each is right ("1\\n") with probability `p`."""

    def __init__(self, p: float, seed: int = 0) -> None:
        self._p = p
        self._random = random.Random(seed)
        self.written = 0
        self.widest = 0

    def steps(self, states: Sequence[State], n: int) -> list[list[Extension]]:
        self.widest = max(self.widest, len(states))
        return [[self._step(state) for _ in range(n)] for state in states]

    def solutions(self, states: Sequence[State], n: int) -> list[list[State]]:
        return [[self._solution(state) for _ in range(n)] for state in states]

    def _step(self, state: State) -> Extension:
        self.written += 1
        right = self._random.random() < self._p
        last = len(state) == LENGTH - 1
        text = "1" if right else f"0{self._random.randrange(3)}"
        if not last:
            return Extension(f"{text}\n", False)
        return Extension(f"{text} #### {'yes' if right and is_right(state) else 'no'}", True)

    def _solution(self, state: State) -> State:
        while len(state) < LENGTH:
            state = (*state, self._step(state).step)
        return state


def is_right(state: State) -> bool:
    return all(step.startswith("1") for step in state)


def perfect(states: Sequence[State]) -> list[StepScores]:
    return [tuple(0.9 if is_right(state[:end]) else 0.1 for end in range(1, len(state) + 1)) for state in states]


def accuracy(method: str, budget: int, aggregate: str = "min-max") -> float:
    config = SearchConfig(method=method, budget=budget, aggregate=aggregate, max_steps=LENGTH)  # type: ignore[arg-type]
    results = [select(Digits(0.5, seed), perfect, config) for seed in range(60)]
    return sum(one.chosen is not None and one.chosen.answer == "yes" for one in results) / len(results)


def test_scores_of_steps_find_what_a_majority_misses() -> None:
    # a solution is right with probability 1/16: of 16 one is with 1 - (15/16)^16 = .64, while the majority never is
    assert accuracy("best_of_n", 16, "majority") == 0
    assert accuracy("best_of_n", 16) == pytest.approx(1 - (15 / 16) ** 16, abs=0.15)
    assert accuracy("best_of_n", 1) < 0.2
    # equal states are one, so that a beam of 16 writes 4 next steps or more behind the right one
    assert accuracy("beam", 16) > 0.9
    # where scores are perfect, the luck of two more steps only blurs them
    assert 0.3 < accuracy("lookahead", 48) < 0.9
    # a node is written behind once: four steps all wrong, at any of four places, lose the way: (15/16)^4 = .77
    assert accuracy("puct", 16) == pytest.approx((15 / 16) ** 4, abs=0.15)
    assert accuracy("uct", 16) == pytest.approx((15 / 16) ** 4, abs=0.15)


@pytest.mark.parametrize("method", ["best_of_n", "beam", "lookahead", "puct", "uct"])
def test_the_budget_is_steps_and_holds(method: str) -> None:
    for budget in (1, 4, 12):
        policy = Digits(0.5)
        config = SearchConfig(method=method, budget=budget, max_steps=LENGTH)  # type: ignore[arg-type]
        result = select(policy, perfect, config)
        assert result.written == policy.written
        slack = 4 * LENGTH if method == "lookahead" else 4  # what the last round writes
        assert result.written <= max(budget, 4) * LENGTH + slack
        assert policy.widest <= max(1, budget)  # the frontier


@pytest.mark.parametrize("method", ["best_of_n", "beam", "puct"])
def test_the_trace_is_a_tree_that_is_read_back(method: str) -> None:
    result = select(Digits(0.7), perfect, SearchConfig(method=method, budget=8, max_steps=LENGTH))  # type: ignore[arg-type]
    rows = as_rows(result.nodes)
    tree = tree_of(read_dump({"nodes": rows}))
    assert result.chosen is not None
    [*_, end] = tree.walk(result.chosen.steps)
    assert tree.nodes[end].facts.value == result.chosen.scores[-1]
    if method == "puct":
        first = [tree.nodes[child] for child in tree.nodes[0].children]
        visits = {"".join(one.steps): one.facts.visits for one in result.nodes}
        assert all(node.visits == visits[node.step] >= 1 for node in first)
        assert sum(node.visits for node in first) == len(result.nodes)  # each node was reached once through one of them


def candidate(answer: str, *scores: float) -> Candidate:
    return Candidate(("x",) * len(scores), scores, answer)


@pytest.mark.parametrize(("how", "value"), [("min", 0.2), ("last", 0.5), ("mean", 0.5), ("product", 0.08)])
def test_scores_of_steps_become_one(how: str, value: float) -> None:
    assert reduce_scores((0.8, 0.2, 0.5), how) == pytest.approx(value)
    assert math.isnan(reduce_scores((), how))


def test_candidates_are_chosen_as_each_aggregate_says() -> None:
    a, b, c = candidate("1", 0.9, 0.3), candidate("2", 0.5, 0.5), candidate("2", 0.4, 0.6)
    none, broken = candidate("", 1.0, 1.0), candidate("3", math.nan)
    few = [a, b, c, none, broken]
    want = {"majority": b, "min-max": b, "last-max": c, "mean-max": a, "product-max": a}
    want |= {"min-vote": b, "last-vote": c, "mean-vote": b, "product-vote": b}
    assert {name: choose(few, name) for name in AGGREGATES} == want
    assert choose([none, candidate("", 0.2)], "last-vote") == none
    assert choose([broken], "last-max") == broken
    assert choose([], "majority") is None


def test_exploration_is_as_published() -> None:
    assert exploration("puct", parent=9, own=2, prior=0.5, c=1.5) == pytest.approx(1.5 * 0.5 * 3 / 3)
    assert exploration("uct", parent=9, own=2, prior=0.5, c=0.2) == pytest.approx(
        0.2 * math.sqrt((1 + math.log(9)) / 2.1)
    )


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a model"):
        select(Digits(0.5), None, SearchConfig(method="beam"))
    with pytest.raises(UsageError, match="did you mean 'min-max'"):
        SearchConfig(aggregate="min-mx")
    with pytest.raises(ConfigError, match="must be positive"):
        SearchConfig(budget=0)
    assert select(Digits(0.9), None, SearchConfig(aggregate="majority", budget=3)).scored == 0


def test_a_policy_that_never_answers_chooses_nothing() -> None:
    class Silent(Digits):
        def steps(self, states: Sequence[State], n: int) -> list[list[Extension]]:
            return [[] for _ in states]

    for method in ("beam", "lookahead", "puct"):
        result = select(Silent(0.5), perfect, SearchConfig(method=method, budget=4))  # type: ignore[arg-type]
        assert result.chosen is None
        assert result.written == 0


def test_the_best_method_is_chosen_on_one_half_and_tried_on_the_other() -> None:
    rows = []
    held = {}
    for at in range(8):
        held[f"q{at}"] = at % 2 == 1
        # beam is right on all tuning questions, and on one of four held-out ones; majority on two of each
        rows.append(Row(f"q{at}", "majority", 4, float(at in (0, 2, 1, 3)), 4))
        rows.append(Row(f"q{at}", "beam", 4, float(at % 2 == 0 or at == 1), 4))
        rows.append(Row(f"q{at}", "silent", 4, math.nan, 4))
    bins = {f"q{at}": "easy" for at in range(8)}
    [cell] = best_methods(rows, bins, held)
    assert (cell.bin, cell.method, cell.tuned, cell.held_out, cell.majority) == ("easy", "beam", 1.0, 0.25, 0.5)
    assert (cell.n_tuned, cell.n_held_out) == (4, 4)
    assert cell.low is not None
    assert cell.low < 0.25
    assert [bin_of(rate) for rate in (1.0, 0.5, 0.49, 0.1, 0.09, 0.0)] == ["easy"] * 2 + ["medium"] * 2 + ["hard"] * 2
