"""What the denoising steps share: pairs of a frame as features; a method's verdicts as kept, dropped or weighed rows.

Only rows of kind pair whose label prefers one response are judged, and only in `splits` (or in no split): the test
split is neither learned from nor touched. Other rows pass unchanged. What happens to a judged row is `action`:

    drop        weight 0: dropped with the method's reason; any other weight is multiplied into the row's
    weight      every row stays, its weight multiplied by the method's
    soft_label  every row stays; p becomes the method's probability that the labeled order is right

`rmkit train` multiplies losses by the weight and learns from p, so all three reach the model. Everything a method saw
and decided goes to the warehouse table `reliability`. Weights and p are rounded to six digits, so that a processor's
last bit makes no new version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from data_pipelines.steps import DROPPED, StepResult
from rmkit.data.example import Example
from rmkit.data.pairs import Pair, column, read_pairs
from rmkit.errors import ConfigError, DataError
from rmkit.features.encoder import EncoderConfig
from rmkit.heads.stacked_training import HeadConfig
from rmkit.reliability.feature_pairs import FeaturePairs, oriented
from rmkit.reliability.label_weights import LabelWeights
from rmkit.reliability.noise_prior import NoisePrior
from rmkit.types import Score
from warehouse.lineage.reliability_audit import AUDIT

Action = Literal["drop", "weight", "soft_label"]
DIGITS = 6
Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class WeighingConfig(EncoderConfig):
    """`encoder` and `max_tokens` say which frozen features are judged by; see the module for `action` and `splits`."""

    action: Action = "drop"
    splits: tuple[str, ...] = ("train", "validation", "dev")
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class CrossFitConfig(HeadConfig, WeighingConfig):
    """For methods whose margins come from heads that have not seen the pair's prompt family."""

    folds: int = 5

    def __post_init__(self) -> None:
        for kind in (HeadConfig, WeighingConfig):
            part_of(self, kind)
        if self.folds < 2:
            raise ConfigError(f"folds must be at least 2, got {self.folds}")


def part_of(config: Any, kind: type[Settings]) -> Settings:
    """The fields of `kind` out of a step's config, which has them all."""
    return kind(**{field.name: getattr(config, field.name) for field in fields(kind) if field.init})  # type: ignore[arg-type]


def judged_pairs(frame: pl.DataFrame, splits: tuple[str, ...]) -> list[Pair]:
    """The pairs to judge, one per row; ids are the rows'."""
    there = pl.col("split").is_null() | pl.col("split").is_in(list(splits))
    pair = (pl.col("kind") == "pair") & (pl.col("responses").list.len() == 2)
    rows = frame.filter(there & pair).drop("votes", "parent_order", strict=False)
    result, _ = read_pairs(Example(row) for row in rows.iter_rows(named=True))
    return [one for one in result if one.p != 0.5]


def by_label(pairs: Sequence[Pair], scores: Sequence[Sequence[Score]]) -> list[tuple[Score, Score]]:
    """Each pair's scores, the response that the label prefers first."""
    return [(two[0], two[1]) if pair.p > 0.5 else (two[1], two[0]) for pair, two in zip(pairs, scores, strict=True)]


def feature_pairs(frame: pl.DataFrame, config: WeighingConfig) -> FeaturePairs:
    """The judged pairs' frozen features, turned so that the label prefers the first. Raises DataError for none."""
    from rmkit.features.encoder import Encoder
    from rmkit.models.small.frozen import pair_features

    pairs = judged_pairs(frame, config.splits)
    if not pairs:
        raise DataError(
            f"no row to judge: only pairs with a winner are, in the splits {', '.join(config.splits)} or in none"
        )
    features = pair_features(pairs, Encoder(part_of(config, EncoderConfig)))
    weight = column(pairs, "weight")
    result, _ = oriented([pair.example for pair in pairs], features.vectors, features.rows, p=features.p)
    usable = weight > 0  # an earlier method already took these out
    return FeaturePairs(result.ids, result.vectors, result.rows, result.soft_label, weight).take(usable)


def family_of(frame: pl.DataFrame, pairs: FeaturePairs) -> list[object]:
    """The prompt family of each pair; before a split gave families, its prompt."""
    known = {
        row: prompt if family is None else family
        for row, family, prompt in frame.select("id", "family", "prompt").rows()
    }
    return [known[one] for one in pairs.ids]


def first_preferred(frame: pl.DataFrame, pairs: FeaturePairs) -> NDArray[np.bool_]:
    """[n] whether each pair's label prefers the response that is stored first."""
    known = dict(frame.select("id", pl.col("p").list.first() > pl.col("p").list.last()).iter_rows())
    return np.array([known[one] for one in pairs.ids])


def cross_fitted(
    frame: pl.DataFrame, pairs: FeaturePairs, head: HeadConfig, *, folds: int = 5, seed: int
) -> NDArray[np.float64]:
    """[n] margin of each label by a head that has not seen its prompt family."""
    from rmkit.reliability.cross_fit import cross_fitted_margins

    return cross_fitted_margins(pairs, head=head, folds=folds, groups=family_of(frame, pairs), seed=seed)


def estimated_noise(frame: pl.DataFrame, pairs: FeaturePairs, head: HeadConfig, *, seed: int) -> NoisePrior:
    """The share of labels that models which never saw them contradict: an upper estimate, with its interval."""
    from rmkit.reliability.noise_prior import from_margins

    return from_margins(cross_fitted(frame, pairs, head, seed=seed), groups=family_of(frame, pairs), seed=seed)


def agreement_with(gold: pl.DataFrame, frame: pl.DataFrame, ids: Sequence[str]) -> NDArray[np.bool_]:
    """For the pairs (ids of the frame) that gold has too, with a winner: whether both prefer the same response."""

    def winners(rows: pl.DataFrame) -> dict[tuple[str, frozenset[str]], str]:
        pairs = rows.filter((pl.col("kind") == "pair") & (pl.col("p").list.first() != pl.col("p").list.last()))
        return {
            (prompt, frozenset(responses)): responses[0 if p[0] > p[1] else 1]
            for prompt, responses, p in pairs.select("prompt", "responses", "p").iter_rows()
        }

    known, ours = winners(gold), winners(frame.filter(pl.col("id").is_in(list(ids))))
    return np.array([known[pair] == winner for pair, winner in ours.items() if pair in known], dtype=bool)


def noise_facts(prior: NoisePrior) -> dict[str, object]:
    """What the report says about the share of wrong labels."""
    return {"noise": asdict(prior), "note": f"wrong labels: {prior}"}


def weighed(
    frame: pl.DataFrame,
    verdicts: LabelWeights,
    *,
    action: Action,
    audit: pa.Table | None = None,
    facts: Mapping[str, Any] | None = None,
) -> StepResult:
    """The step's result. Raises ConfigError where soft labels are wanted of a method that has none."""
    if action == "soft_label" and verdicts.soft_label is None:
        raise ConfigError(f'{verdicts.method} estimates no soft label; action = "drop" or "weight"')
    details = _details(verdicts)
    joined = frame.join(details, on="id", how="left", maintain_order="left")
    out = (pl.col("_weight") == 0).fill_null(value=False) if action == "drop" else pl.lit(value=False)
    dropped = joined.filter(out).select(DROPPED.names())
    weighted = joined.filter(~out).with_columns(_weights() if action != "soft_label" else _soft_labels(verdicts.method))
    summary = {"action": action, "not_judged": len(frame) - len(details)} | _summary(verdicts) | dict(facts or {})
    return StepResult(
        weighted.select(frame.columns).cast(frame.schema), dropped, summary, _records(verdicts, details, audit)
    )


def audited(result: StepResult, verdicts: LabelWeights) -> StepResult:
    """The result of a step that did itself what the verdicts say, with their facts and the audit of all rows."""
    return result._replace(
        facts=_summary(verdicts) | result.facts, records=_records(verdicts, _details(verdicts), None)
    )


def _summary(verdicts: LabelWeights) -> dict[str, object]:
    return {
        "method": verdicts.method,
        "judged": len(verdicts.ids),
        "reasons": verdicts.reasons,
        "mean_weight": round(float(verdicts.weight.mean()), 4) if verdicts.ids else None,
        **verdicts.facts,
    }


def _details(verdicts: LabelWeights) -> pl.DataFrame:
    """One row per judged row: its weight, the probability that its label is right, reason and evidence."""
    columns: dict[str, tuple[Any, Any]] = {
        "id": (list(verdicts.ids), pl.String),
        "_weight": (np.round(verdicts.weight, DIGITS), pl.Float64),
        "_right": (np.round(_right(verdicts), DIGITS), pl.Float64),
        "reason": (list(verdicts.reason), pl.String),
        "evidence": (_evidence(verdicts), pl.String),
    }
    return pl.DataFrame({name: pl.Series(values, dtype=kind) for name, (values, kind) in columns.items()})


def _weights() -> list[pl.Expr]:
    times = (pl.coalesce("weight", 1.0) * pl.col("_weight")).round(DIGITS)
    return [pl.when(pl.col("_weight").is_not_null()).then(times).otherwise("weight").alias("weight")]


def _soft_labels(method: str) -> list[pl.Expr]:
    """p, ranks and method of the judged rows; the margin stays, since the winner is as it was unless p crosses 1/2."""
    right, wrong = pl.col("_right"), (1 - pl.col("_right")).round(DIGITS)
    first_wins = pl.col("p").list.first() > pl.col("p").list.last()
    p = pl.when(first_wins).then(pl.concat_list(right, wrong)).otherwise(pl.concat_list(wrong, right))
    first_now = first_wins == (right > 0.5)
    tied = right == 0.5
    ranks = pl.concat_list((~tied & ~first_now).cast(pl.Int32), (~tied & first_now).cast(pl.Int32))
    new = {"p": p, "ranks": ranks, "method": pl.lit(method), "margin": pl.when(right > 0.5).then("margin")}
    return [pl.when(right.is_not_null()).then(value).otherwise(pl.col(name)).alias(name) for name, value in new.items()]


def _right(verdicts: LabelWeights) -> NDArray[np.float64]:
    return np.ones(len(verdicts.ids)) if verdicts.soft_label is None else verdicts.soft_label


def _evidence(verdicts: LabelWeights) -> list[str]:
    """One JSON object of rounded numbers per pair; NaN as null."""
    columns = {name: np.asarray(values) for name, values in verdicts.evidence.items()}
    return [
        json.dumps({name: _plain(values[at]) for name, values in columns.items()}) for at in range(len(verdicts.ids))
    ]


def _plain(value: Any) -> object:
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value]
    if isinstance(value, np.floating | float):
        return round(float(value), DIGITS) if np.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value


def _records(verdicts: LabelWeights, summary: pl.DataFrame, audit: pa.Table | None) -> dict[str, pl.DataFrame]:
    """The final decision on every judged pair, after the epochs where the method has some."""
    n = len(summary)
    final = {
        "id": summary["id"],
        "method": [verdicts.method] * n,
        "margin": _margin(verdicts),
        "kept": verdicts.keep,
        "weight": summary["_weight"],
        "reason": [reason or None for reason in verdicts.reason],
        "evidence": summary["evidence"],
    }
    tables = [] if audit is None else [audit]
    tables.append(pa.table({name: pa.array(values) for name, values in final.items()}))
    return {"reliability": pl.DataFrame(pl.from_arrow(pa.concat_tables([_as_audit(table) for table in tables])))}


def _margin(verdicts: LabelWeights) -> NDArray[np.float64]:
    """The margin behind the decision, the mean of several models' where each tells its own."""
    summary = [values for name, values in verdicts.evidence.items() if name == "margin" or name.startswith("margin_")]
    return np.mean(summary, axis=0) if summary else np.full(len(verdicts.ids), np.nan)


def _as_audit(table: pa.Table) -> pa.Table:
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in AUDIT
    ]
    return pa.table(columns, schema=AUDIT)
