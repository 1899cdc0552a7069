"""`rmkit rubrics calibrate JUDGE.toml DATA`: a threshold, AUROC, precision and recall for each clause, from labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rmkit.cli import arguments, display
from rmkit.data.export_folder import Data, dataset_of, export_folder
from rmkit.errors import DataError, UsageError
from rmkit.judge.command import judged_examples
from rubrics.clause_model import ClauseRewardModel, load
from rubrics.clause_thresholds import Calibration, ClauseCalibration, Labeled, calibrated, write_thresholds

AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateResult:
    """`labels` counts labeled responses over all clauses, `unscored` those that the judge could not score."""

    judge: str
    dataset: str
    labels: int
    unscored: int
    calibration: Calibration
    without_labels: tuple[str, ...]


def main(argv: list[str]) -> int:
    """Status 0; the judge's calls are kept like any."""
    parser = arguments.parser(
        "rubrics calibrate",
        "A threshold for each clause of a rubric, from people's labels of responses: ratings from 0 to 1 whose "
        "aspect is the criterion's text or dimension. One half of the prompt families fits, the other is reported on.",
        examples=["rubrics calibrate policy.toml labeled@v1 -o thresholds.json"],
    )
    parser.add_argument("judge", type=Path, help="a judge's TOML with the table [rubric]")
    parser.add_data("data")
    parser.add_split()
    parser.add_limit()
    parser.add_seed()
    parser.add_output("write the thresholds (JSON), for thresholds = FILE in [rubric]")
    options = parser.parse_args(argv)
    result = calibrate(options.judge, options.data, split=options.split, limit=options.limit, seed=options.seed)
    if options.output:
        write_thresholds(options.output, result.calibration)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def calibrate(
    judge: Path, data: Data, *, split: str = "all", limit: int | None = None, seed: int = 0
) -> CalibrateResult:
    """Raises UsageError where the TOML has no judge under a rubric file, DataError without labels of its clauses."""
    model = load(judge)
    if not isinstance(model, ClauseRewardModel) or model.rubric is None:
        raise UsageError(f"{judge}: thresholds are for clauses that a judge is asked about, of a rubric file")
    try:
        folder = export_folder(data)
        names = {
            name: one.criterion for one in model.rubric.criteria for name in (one.dimension, one.criterion) if name
        }
        labels = []
        for example in judged_examples(folder, split, limit):
            met = {
                (one["response"] or 0, names[one["aspect"]]): one["value"] >= 0.5
                for one in example.row["scores"] or ()
                if one["aspect"] in names and one["value"] is not None and 0 <= one["value"] <= 1
            }
            if met:
                labels.append((example.candidates, met, int(example.row["family"] or 0)))
        if not labels:
            raise DataError(f"{folder}: no rating from 0 to 1 of {', '.join(map(repr, names))}")
        labeled: dict[str, list[Labeled]] = {}
        with display.progress("clauses", len(labels)) as advance:
            for at in range(0, len(labels), AT_ONCE):
                chunk = labels[at : at + AT_ONCE]
                for (_, met, family), scores in zip(chunk, model.score([one[0] for one in chunk]), strict=True):
                    for (place, criterion), is_met in met.items():
                        p = scores[place].aspects.get(criterion, math.nan)
                        labeled.setdefault(criterion, []).append(Labeled(p, is_met, family))
                advance(len(chunk))
        return CalibrateResult(
            judge=model.info.name,
            dataset=dataset_of(folder)["ref"] or str(folder),
            labels=sum(map(len, labeled.values())),
            unscored=sum(math.isnan(one.p) for rows in labeled.values() for one in rows),
            calibration=calibrated(labeled, seed=seed),
            without_labels=tuple(
                one.criterion for one in model.rubric.criteria if one.criterion not in labeled and not one.check
            ),
        )
    finally:
        model.close()


def _text(result: CalibrateResult) -> str:
    columns = ("clause", "threshold", "AUROC", "precision", "recall", "F1", "F1 at .5", "F1 unseen", "n", "met")
    lines = [
        f"{result.judge} on {result.labels} labels of {result.dataset} ({result.unscored} unscored)",
        display.table(columns, [_row(one) for one in result.calibration.clauses]),
        f"clauses without labels take {result.calibration.pooled:.3f}"
        + (f": {'; '.join(result.without_labels)}" if result.without_labels else ""),
    ]
    return "\n".join(lines)


def _row(one: ClauseCalibration) -> list[object]:
    values: Mapping[str, float] = {
        "auroc": one.auroc,
        "precision": one.point.precision,
        "recall": one.point.recall,
        "f1": one.point.f1,
        "half": one.at_half.f1,
        "unseen": one.unseen.f1,
    }
    cells = ["-" if math.isnan(value) else f"{value:.3f}" for value in values.values()]
    mark = "" if one.fitted else " (pooled)"
    return [one.criterion[:50], f"{one.threshold:.3f}{mark}", *cells, one.point.n, one.point.positives]
