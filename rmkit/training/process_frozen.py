"""`rmkit train process-frozen`: a head on a frozen encoder's features of every step, from rows with step labels.

The heads compete on the validation split (`rmkit.heads.steps`); the test split is not touched.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmkit import config
from rmkit.cli import arguments, display
from rmkit.data.example import Example
from rmkit.data.export_folder import Data, export_folder, model_folder, trainable_dataset
from rmkit.data.reasons import check_enough, without_numbers
from rmkit.errors import DataError
from rmkit.features.encoder import Encoder
from rmkit.heads.steps import FrozenProcessConfig, Solution, StepHead, fit, step_inputs
from rmkit.models import load_model
from rmkit.models.artifact.folder import build_artifact, building
from rmkit.models.artifact.golden import write_golden_scores
from rmkit.models.small.process_frozen import load, solution_of
from rmkit.models.transformer.process import probes
from rmkit.training.command import small_parser
from rmkit.training.data import step_labels
from rmkit.training.splits import MIN_TRAIN, MIN_VALIDATION, examples
from rmkit.training.summary import label_summary_text
from rmkit.training.validation import step_facts

KIND = "process-frozen"


class Rows(NamedTuple):
    """Labeled solutions of a split: `labels` [S] each, NaN where there is none; `skipped` rows by reason."""

    solutions: list[Solution]
    labels: list[NDArray[np.float64]]
    families: list[int]
    skipped: Mapping[str, int]


def main(argv: list[str]) -> int:
    options = small_parser(KIND).parse_args(argv)
    result = train(
        options.data,
        output=options.output,
        seed=options.seed,
        values=arguments.set_values(options),
        allow_benchmark=options.allow_benchmark,
    )
    training = result["training"]
    rows = f"{training['rows']['train']} train solutions, {training['rows']['validation']} validation solutions"
    more = [f"head         {training['head']}", f"took         {training['seconds']:.1f} s"]
    display.emit(result, as_json=options.json, text=label_summary_text(result, rows=rows, more=more))
    return 0


def train(
    data: Data,
    *,
    output: Path | None = None,
    seed: int = 0,
    values: Mapping[str, Any] | None = None,
    allow_benchmark: bool = False,
) -> dict[str, Any]:
    """Train, store and reload the model; its path, facts and validation numbers.

    Raises DataError where a split is missing or too small or holds benchmark rows, ConfigError for unknown `values`.
    """
    start = time.monotonic()
    settings = config.build(FrozenProcessConfig, values or {}, where=f"train {KIND}")
    folder = export_folder(data)
    dataset = trainable_dataset(folder, allow_benchmark=allow_benchmark)
    rows = {}
    for split, least in (("train", MIN_TRAIN), ("validation", MIN_VALIDATION)):
        rows[split] = read_solutions(examples(folder, split), separator=settings.step_separator)
        n, skipped = len(rows[split].solutions), rows[split].skipped
        check_enough(split, n, skipped, rows=n + sum(skipped.values()), least=least)
    target = output or model_folder(folder, KIND)
    with building(target) as temporary:
        encoder = Encoder(settings)
        head, validation = _fitted(rows, encoder, settings, seed=seed)
        card = {
            "model": KIND,
            "name": target.name,
            "kind": "process",
            "scale": "probability",
            "pointwise": True,
            "config": asdict(settings),
            "encoder": {"name": settings.encoder, "fingerprint": encoder.fingerprint, "sha256": encoder.sha256},
            "dataset": dataset,
            "seed": seed,
            "training": {
                "rows": {split: len(part.solutions) for split, part in rows.items()},
                "skipped": {split: dict(part.skipped) for split, part in rows.items()},
                **head.facts,
                "seconds": round(time.monotonic() - start, 2),
            },
            "validation": validation,
        }
        build_artifact(temporary, card=card, arrays=head.arrays)
        write_golden_scores(temporary, load(temporary, check=False), probes=probes(settings.step_separator))
        info = load_model(temporary).info
    return {"path": str(target), "fingerprint": info.fingerprint, **card}


def read_solutions(result: Iterable[Example], *, separator: str) -> Rows:
    """The labeled solutions among the examples."""
    rows, skipped = Rows([], [], [], {}), Counter[str]()
    for example in result:
        labels, solution = step_labels(example), _solution(example, separator)
        if isinstance(labels, str) or isinstance(solution, str):
            skipped[without_numbers(labels if isinstance(labels, str) else str(solution))] += 1
        else:
            rows.solutions.append(solution)
            rows.labels.append(np.array(labels))
            rows.families.append(example.row["family"] or 0)
    return rows._replace(skipped=skipped)


def _solution(example: Example, separator: str) -> Solution | str:
    if example.row["prompt"] is None or None in (example.row["responses"] or []):
        return "text erased"
    try:
        item = example.candidates
        return solution_of(item.prompt, item.completions[0], separator=separator)
    except DataError as error:
        return str(error)


def _fitted(
    rows: Mapping[str, Rows], encoder: Encoder, settings: FrozenProcessConfig, *, seed: int
) -> tuple[StepHead, dict[str, object]]:
    """The best head, and what it does on the validation solutions."""
    tables = []
    for split in ("train", "validation"):
        texts = {text for one in rows[split].solutions for text in (one.prompt, *one.steps)}
        with display.progress(f"encoding {split}", len(texts)) as advance:
            inputs = step_inputs(
                rows[split].solutions, lambda t: encoder.features(t, advance=advance), width=encoder.width
            )
        tables.append((np.concatenate(inputs), np.concatenate(rows[split].labels)))
    head = fit(tables[0], tables[1], settings, seed=seed)
    held = rows["validation"]
    ends = np.cumsum([len(labels) for labels in held.labels])[:-1]
    return head, step_facts(np.split(head.logits(tables[1][0]), ends), held.labels, held.families)
