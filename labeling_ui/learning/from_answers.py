"""The queue of a project from its own answers: what each strategy would have gained on them, and an order by one.

The answers so far are a labeled set: `simulate` replays them with every strategy, over linear heads on frozen features.
The same heads, fitted on all answers, then order what is left; reward models are not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from labeling_ui.desk.item_weights import write_weights
from labeling_ui.desk.items import Items
from labeling_ui.learning.rank_items import BATCH, KIND, differences
from labeling_ui.learning.simulate import Labeled, bootstrap_p, simulate, summary, verdict
from labeling_ui.learning.strategies import LEARNING, Floats, Pool, SimulationConfig, scores, weights
from labeling_ui.projects.definition import Strategy
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, note_change
from labeling_ui.projects.work import counted
from rmkit.errors import DataError, UsageError
from rmkit.ids import content_hash, messages_json
from rmkit.ledger import Ledger
from rmkit.types import Event

LEAST = 40  # answered pairs, fewer tell nothing of a strategy
MOST = 2000  # pairs that are encoded for a page, of those with an answer and of those without


@dataclass(frozen=True, slots=True)
class Replay:
    """`rows` as `simulate.summary` gives them, over `pairs` with an answer; `verdict` says what to do."""

    pairs: int
    rows: Sequence[dict[str, Any]]
    verdict: str


def replay(items: Items, work: pl.DataFrame, *, seed: int = 0) -> Replay:
    """What each strategy would have gained on the answers so far. Raises DataError where they are too few."""
    numbers, p = _answered(work, seed=seed)
    if len(numbers) < LEAST:
        raise DataError(f"{len(numbers)} pairs have an answer; from {LEAST} on a strategy can be tried on them")
    families = np.array([int(content_hash(messages_json(items[int(one)].prompt))[:12], 16) for one in numbers])
    pool = len(numbers) // 2
    start, batch = max(pool // 5, 5), max(pool // 10, 2)
    rounds = max(min((pool - start) // batch - 1, 6), 1)
    settings = SimulationConfig(start=start, batch=batch, rounds=rounds, seeds=8, strategies=("random", *LEARNING))
    # Stored order goes by content hash: which is the first says nothing, so there is no sign that could be learned.
    values = simulate(Labeled(differences(items, numbers.tolist()), p, families), settings)
    rows = summary(values, settings)
    return Replay(len(numbers), rows, verdict(rows))


def order_by_answers(
    ledger: Ledger, project: Project, lead: Person, work: pl.DataFrame, strategy: Strategy
) -> dict[str, Any]:
    """Order what is left by a strategy, which a running studio takes up at once; what was done, kept in the ledger.

    `random` goes back to no preference. Of a large project a random part is ordered, the rest keeps the mean weight.
    Raises UsageError for a strategy that answers alone cannot feed, DataError where they are too few.
    """
    lead.require("lead", "change the order of items")
    items = Items(project.folder)
    new = np.ones(len(items))
    n_ordered = 0
    if strategy != "random":
        if strategy not in LEARNING:
            raise UsageError(f"strategy {strategy} needs reward models: rmkit label prioritize {project.name}")
        answered, p = _answered(work, seed=project.task.seed)
        if len(answered) < LEAST:
            raise DataError(f"{len(answered)} pairs have an answer; from {LEAST} on they can order the others")
        left = _sample(np.setdiff1d(np.arange(len(items)), answered), seed=project.task.seed)
        new[left] = _weights(items, answered, p, left, strategy, seed=project.task.seed)
        n_ordered = len(left)
    write_weights(project.folder, new)
    done = {"project": project.name, "strategy": strategy, "items": n_ordered, "models": []}
    ledger.append(Event(kind=KIND, actor=lead.name, payload=done))
    note_change(ledger, project.name)
    return done


def strategy_in_use(ledger: Ledger, project: str) -> str:
    """The last strategy by which the project was ordered."""
    last = "random"
    for recorded in ledger.events(kinds=[KIND]):
        if recorded.event.payload["project"] == project:
            last = str(recorded.event.payload["strategy"])
    return last


def _weights(
    items: Items, answered: NDArray[np.int64], p: Floats, left: NDArray[np.int64], strategy: Strategy, *, seed: int
) -> Floats:
    """[left] weights whose mean is one."""
    x = differences(items, [*answered.tolist(), *left.tolist()])
    labeled = np.arange(len(x)) < len(answered)
    label = np.concatenate([p, np.full(len(left), np.nan)])
    heads = bootstrap_p(x, np.nan_to_num(label), labeled, SimulationConfig(), np.random.default_rng(seed))
    score = scores(strategy, Pool(heads, x, labeled, label), batch=min(len(left) // 10 + 1, BATCH), seed=seed)
    drawn = weights(score[~labeled])
    return np.asarray(drawn / drawn.mean())


def _answered(work: pl.DataFrame, *, seed: int) -> tuple[NDArray[np.int64], Floats]:
    """(numbers of pairs with an answer, ascending, how many of the answers prefer the first; a tie is a half)."""
    pairs = counted(work).filter(pl.col("ranks").list.len() == 2, ~pl.col("ranks").list.contains(None))
    first, second = (pl.col("ranks").list.get(at) for at in (0, 1))
    value = pl.when(first < second).then(1.0).when(first > second).then(0.0).otherwise(0.5)
    means = pairs.group_by("item").agg(p=value.mean()).sort("item")
    chosen = _sample(np.arange(means.height), seed=seed)
    return means["item"].to_numpy()[chosen], means["p"].to_numpy()[chosen]


def _sample(numbers: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
    if len(numbers) <= MOST:
        return numbers
    return np.sort(np.random.default_rng(seed).choice(numbers, MOST, replace=False))
