"""What a model does on the validation rows, in numbers that fit the kind of label.

preferences    accuracy with a family-clustered interval, ties, log loss, calibration error, margins, length bias
ratings        per aspect correlation and errors beside those of always saying the mean; the objective's own loss;
               and, where responses of one prompt were rated, the preferences that follow from the ratings
reactions      log loss, calibration error, AUC and the base rate
steps          log loss, calibration error and AUC of the step probabilities, first errors found (ProcessBench's F1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rmkit.metrics import calibration, clustered_interval, length_bias, margin_summary, pair_accuracy
from rmkit.metrics.calibration import sigmoid
from rmkit.metrics.steps import auc, first_error, first_error_scores
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.training.objectives.objective import Objective, RunState
from rmkit.training.rows import (
    Array,
    Outputs,
    TrainingRow,
    Validation,
)

WINDOW = 4096  # rows whose ids are held at a time


@dataclass(frozen=True, slots=True)
class Processes:
    """How processes share a validation. `most_passes` gives the largest of their numbers of passes where they must make
    equally many; `gather` the objects of all of them."""

    rank: int = 0
    n: int = 1
    most_passes: Callable[[int], int] = int
    gather: Callable[[Any], Sequence[Any]] = lambda own: [own]


ALONE = Processes()


def logged(facts: dict[str, Any]) -> dict[str, float]:
    """The few numbers worth a line in a log."""
    numbers = {name: facts[name] for name in ("loss", "log_loss", "ece", "auc") if facts.get(name) is not None}
    return numbers | ({"accuracy": facts["accuracy"]["value"]} if facts.get("accuracy") else {})


def validate(
    module: RewardModule,
    rows: Sequence[TrainingRow],
    *,
    max_batch_tokens: int,
    objective: Objective,
    state: RunState | None = None,
    processes: Processes = ALONE,
) -> Validation:
    """What the module's outputs on the rows are worth to the objective. Of several processes, all of which call this,
    each computes the outputs of its share of the rows."""
    n = len(rows)
    result: dict[int, list[Array]] = {}
    share = [(processes.rank + processes.n * at) % n for at in range(-(-n // processes.n))]  # equally many for each
    for start in range(0, len(share), WINDOW):
        numbers = share[start : start + WINDOW]
        part = [rows[number] for number in numbers]
        of_part = outputs(module, part, max_batch_tokens=max_batch_tokens, most_passes=processes.most_passes)
        result |= dict(zip(numbers, of_part, strict=True))
    for other in processes.gather(result):
        result |= other
    judged = [row.without_ids() for row in rows]
    return objective.validate([result[number] for number in range(n)], judged, state or RunState())


@torch.no_grad()
def outputs(
    module: RewardModule,
    rows: Sequence[TrainingRow],
    *,
    max_batch_tokens: int,
    most_passes: Callable[[int], int] = int,
) -> list[list[Array]]:
    """[B][N] arrays: per response one number, one per aspect, or one per step. `most_passes` of the passes needed is
    how many are made; what is above repeats the last one."""
    training = module.training
    module.eval()
    results: list[list[Array]] = [[] for _ in rows]
    batches = module.plan([row.ids for row in rows], max_batch_tokens=max_batch_tokens)
    for batch in [batches[-1]] * (most_passes(len(batches)) - len(batches)) + batches:
        part = [rows[number] for number in batch]
        result = module(module.collate([row.ids for row in part], reads=reads_of(part))).double().cpu().numpy()
        at = 0
        for number in batch:
            results[number] = []
            for size in [len(steps) for steps in rows[number].step_index] or [1] * len(rows[number].ids):
                results[number].append(np.atleast_1d(result[at : at + size].squeeze()))
                at += size
    module.train(training)
    return results


def reads_of(rows: Sequence[TrainingRow]) -> list[tuple[tuple[int, ...], ...]] | None:
    """Where rewards are read: at the ends of the steps, or (None) at the end of every response."""
    return [row.step_index for row in rows] if rows and rows[0].step_index else None


def preferences(outputs: Outputs, rows: Sequence[TrainingRow], *, value: Callable[[Array], float]) -> Validation:
    """Margins and facts of the rows' preferences, of rewards that are the outputs' values."""
    values = [[value(output) for output in row] for row in outputs]
    flat = [(values[number], row, one) for number, row in enumerate(rows) for one in row.preferences]
    margin = np.array([of[one.i] - of[one.j] for of, _, one in flat])
    p = np.array([one.p for _, _, one in flat])
    return Validation(margin, p, _without_nan(_facts(margin, p, [(row, one) for _, row, one in flat])))


def _facts(margin: Array, p: Array, flat: Sequence[tuple[TrainingRow, Any]]) -> dict[str, object]:
    share = np.array([one.share for _, one in flat])
    family = np.array([row.family for row, _ in flat])
    accuracy = pair_accuracy(margin, p, clusters=family, weight=share)
    calibrated = calibration(sigmoid(margin), p, weight=share)
    bias = length_bias(
        margin,
        p,
        length_first=np.array([row.tokens[one.i] for row, one in flat]),
        length_second=np.array([row.tokens[one.j] for row, one in flat]),
    )
    summary = margin_summary(margin, p)
    return {
        "accuracy": asdict(accuracy),
        "log_loss": calibrated.log_loss,
        "ece": calibrated.ece,
        "margin": {"mean": summary.mean, "median": summary.median, "std": summary.std},
        "length_correlation": bias.pearson,
    }


def with_facts(compared: Validation, facts: Mapping[str, Any]) -> Validation:
    """The facts, and beside them those of the preferences where there are any under names of their own."""
    more = compared.facts.items() if len(compared.p) else ()
    return Validation(
        compared.margin, compared.p, _without_nan({**facts, **{key: fact for key, fact in more if key not in facts}})
    )


def aspect_facts(predicted: Array, rating: Array, family: NDArray[Any]) -> dict[str, object]:
    """Correlations and errors of one aspect on the responses that were rated on it."""
    rated = ~np.isnan(rating)
    x, y = predicted[rated], rating[rated]
    if not len(y):
        return {"n": 0}
    error, constant = np.abs(x - y), np.abs(y.mean() - y)
    gain = clustered_interval(constant - error, family[rated])
    return {
        "n": len(y),
        "pearson": _correlation(x, y),
        "spearman": _correlation(_ranks(x), _ranks(y)),
        "mae": float(error.mean()),
        "mae_of_mean": float(constant.mean()),
        "mae_gain_interval": None if gain is None else [gain.low, gain.high],
        "rmse": float(np.sqrt(np.mean((x - y) ** 2))),
    }


def reaction_facts(logit: Array, liked: Array, family: NDArray[Any]) -> dict[str, object]:
    """What logits of reactions are worth beside always saying the base rate."""
    calibrated = calibration(sigmoid(logit), liked)
    return {
        "log_loss": calibrated.log_loss,
        "log_loss_of_rate": calibration(np.full(len(liked), liked.mean()), liked).log_loss,
        "ece": calibrated.ece,
        "auc": auc(logit, liked >= 0.5),
        "rate": float(liked.mean()),
        "mean_probability": float(sigmoid(logit).mean()),
        "families": len(set(family.tolist())),
    }


def step_facts(logits: Sequence[Array], labels: Sequence[Array], families: Sequence[int]) -> dict[str, object]:
    """What the logits of the steps of solutions are worth beside their labels (NaN: none), JSON-ready."""
    logit, label = np.concatenate(logits), np.concatenate(labels)
    known = ~np.isnan(label)
    calibrated = calibration(sigmoid(logit[known]), label[known])
    rate = float(label[known].mean())
    predicted = [first_error(sigmoid(of).tolist()) for of in logits]
    first = first_error_scores(predicted, [first_error(of.tolist()) for of in labels])
    interval = clustered_interval(first.right, families)
    facts = {
        "solutions": len(labels),
        "steps": int(known.sum()),
        "log_loss": calibrated.log_loss,
        "log_loss_of_rate": calibration(np.full(int(known.sum()), rate), label[known]).log_loss,
        "ece": calibrated.ece,
        "auc": auc(logit[known], label[known] >= 0.5),
        "first_error": {
            "f1": first.f1,
            "error_accuracy": first.error_accuracy,
            "correct_accuracy": first.correct_accuracy,
            "erroneous": first.erroneous,
            "correct": first.correct,
            "accuracy": float(first.right.mean()),
            "interval": None if interval is None else [interval.low, interval.high],
        },
    }
    return dict(_without_nan(facts))


def _correlation(x: Array, y: Array) -> float:
    return math.nan if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0 else float(np.corrcoef(x, y)[0, 1])


def _ranks(values: Array) -> Array:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def _without_nan(value: Any) -> Any:
    """NaN as null: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
