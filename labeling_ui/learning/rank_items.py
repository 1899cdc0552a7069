"""`rmkit label prioritize`: what reward models know decides what people see next.

Win probabilities come from the models' own comparisons, differences of responses from the frozen encoder; the strategy
turns them into scores and those into drawing weights (see `strategies`), with propensities kept for every answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labeling_ui.desk.item_weights import write_weights
from labeling_ui.desk.items import Items
from labeling_ui.learning.strategies import Floats, Pool, scores, weights
from labeling_ui.projects.definition import Strategy
from labeling_ui.projects.project import Project, note_change
from rmkit.cli import display
from rmkit.errors import UsageError
from rmkit.ledger import Ledger
from rmkit.types import Candidates, Completion, Event, RewardModel

KIND = "label_priority"
NEEDS_MODELS = ("uncertainty", "disagreement", "model_change", "mislabel")
WINDOW = 256
BATCH = (
    1_000  # items that a greedy strategy puts in order one by one; far more than are labeled before it is asked again
)


def prioritize(ledger: Ledger, project: Project, strategy: Strategy, *, models: Sequence[str]) -> dict[str, object]:
    """Order the project's pairs; what was done, also kept in the ledger.

    Raises UsageError where the strategy needs models (disagreement: two), or the project has no pairs.
    """
    needed = 2 if strategy == "disagreement" else int(strategy in NEEDS_MODELS)
    if len(models) < needed:
        raise UsageError(
            f"strategy {strategy} needs {needed} reward model(s), got {len(models)}; name them with --model"
        )
    items = Items(project.folder)
    if any(len(item.responses) != 2 for item in (items[0], items[len(items) - 1])):
        raise UsageError("only pairs can be ordered by reward models so far")
    from rmkit.models import load_model

    loaded = [load_model(path) for path in models]
    pool = Pool(
        p=_p(loaded, items),
        features=differences(items, range(len(items)))
        if strategy in ("model_change", "coverage")
        else np.zeros((len(items), 1)),
        labeled=np.zeros(len(items), bool),
        label=_labels(project, items) if strategy == "mislabel" else np.full(len(items), np.nan),
    )
    write_weights(
        project.folder, weights(scores(strategy, pool, batch=min(len(items) // 10 + 1, BATCH), seed=project.task.seed))
    )
    summary = {"project": project.name, "strategy": strategy, "items": len(items)}
    summary["models"] = [model.info.fingerprint for model in loaded]
    ledger.append(Event(kind=KIND, actor="rmkit label", payload=summary))
    note_change(ledger, project.name)
    return summary


def _p(models: Sequence[RewardModel], items: Items) -> Floats:
    """[K, n] win probabilities of each item's first stored response; a half where a model could not say."""
    values = np.full((max(len(models), 1), len(items)), 0.5)
    with display.progress("comparing", len(items) * len(models)) as advance:
        for at, model in enumerate(models):
            for start in range(0, len(items), WINDOW):
                batch = [_candidates(items, number) for number in range(start, min(start + WINDOW, len(items)))]
                summary = [one.p_first for one in model.compare(batch)]
                values[at, start : start + len(batch)] = np.nan_to_num(summary, nan=0.5)
                advance(len(batch))
    return values


def _candidates(items: Items, number: int) -> Candidates:
    item = items[number]
    return Candidates(item.prompt, tuple(Completion(response) for response in item.responses))


def differences(items: Items, numbers: Sequence[int]) -> Floats:
    """[n, D] frozen features of the first response minus those of the second, of these items."""
    from rmkit.features.encoder import Encoder, EncoderConfig
    from rmkit.models.small.frozen import response_of

    texts = [
        response_of((item.prompt, completion))
        for number in numbers
        for item in [_candidates(items, number)]
        for completion in item.completions
    ]
    vectors = Encoder(EncoderConfig()).features(texts).astype(np.float64)
    return np.asarray(vectors[0::2] - vectors[1::2])


def _labels(project: Project, items: Items) -> Floats:
    """[n] the probability that the first is better, as the project's data says; NaN where it says nothing."""
    from warehouse.store import open_warehouse
    from warehouse.versions.checkout import checkout
    from warehouse.versions.versions import resolve

    with open_warehouse(read_only=True) as connection:
        rows = checkout(connection, resolve(connection, project.data), columns=("unit", "p")).to_pylist()
    known = {row["unit"]: row["p"][0] for row in rows if row["p"]}
    return np.array([known.get(unit, np.nan) for unit in items.column("unit").to_pylist()], np.float64)
