"""Evaluation from Python and for the command line: models on a suite, each after the first compared with it.

evaluate("hh-frozen", data="hh@v2").models[0].measures["overall"].percent
evaluate(["hh-frozen", my_model], suite="rm-bench", data="bench_rmbench.jsonl.gz")
compare(["a.json", "b.json"], suite="rewardbench").comparisons[0].differences
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from evaluation.scoring.paired import differences, with_holm
from evaluation.suites import results
from evaluation.suites.evaluator import run, select
from evaluation.suites.journal import RESULT, open_journal, run_folder, write_result
from evaluation.suites.load import Loaded, load_items
from evaluation.suites.results import EvalResult, ModelComparison, ModelResult
from evaluation.suites.stored_scores import load_stored, stored_files
from evaluation.suites.suite import Suite, load_suite
from evaluation.suites.version import DEFAULT_SPLIT, local_data, with_split
from rmkit.data.export_folder import export_folder
from rmkit.errors import UsageError
from rmkit.judge.tally import report_of
from rmkit.models import load_model
from rmkit.types import RewardModel

DATASET_SUITE = "pairs"  # what a dataset is evaluated by where no suite is named


def evaluate(
    models: str | Path | RewardModel | Sequence[str | Path | RewardModel],
    *,
    data: Any = None,
    suite: str | Suite | None = None,
    split: str = DEFAULT_SPLIT,
    ties: Literal["zero", "half"] | None = None,
    limit: int | None = None,
    allow_changed: bool = False,
    fresh: bool = False,
    command: str = "",
) -> EvalResult:
    """The result of every model on the suite, by default the pairs of a dataset's split.

    A model is anything `load_model` takes, an object with `score` and `compare`, or a file of stored scores (then all
    are). `data` is a dataset NAME[@VERSION][:SPLIT], a file or folder of a benchmark, or what
    `rmkit.data.export_folder` takes; without it the suite looks for its own. `ties` is what a tie earns on pairs,
    instead of what the suite says; `limit` makes it a smoke run of so many items; `fresh` forgets the answers of an
    unfinished run; `allow_changed` takes other data than the suite declares.

    Answers are kept as they come, under $RMKIT_HOME/runs/eval, and what is there is not asked again. The result of a
    whole run is kept beside them and in the warehouse, where there is one. Raises UsageError for models that would be
    the same twice, and whatever loading data and models raises.
    """
    listed = [models] if isinstance(models, str | Path | RewardModel) else list(models)
    if not listed:
        raise UsageError("name at least one model, or pass --from-scores FILE")
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be 1 or more, got {limit}")
    if suite is None and data is None:
        raise UsageError("name the data (--data NAME@VERSION) or a suite (--suite NAME)")
    rules = suite if isinstance(suite, Suite) else load_suite(suite or DATASET_SUITE)
    rules = rules if ties is None else rules.with_ties(ties)
    if all(isinstance(model, str | Path) and stored_files(Path(model)) for model in listed):
        facts, result = _stored(rules, [Path(str(model)) for model in listed], allow_changed=allow_changed)
    else:
        loaded = load_items(rules, _source(data, split), allow_changed=allow_changed)
        opened = [load_model(str(model)) if isinstance(model, str | Path) else model for model in listed]
        if len({model.info.fingerprint for model in opened}) < len(opened):
            raise UsageError(f"the same model twice among {', '.join(map(str, listed))}; name each once")
        results.check_store()
        facts = results.suite_facts(rules, loaded, limit=limit) | {"command": command}
        result = [_run(rules, loaded, model, facts, limit=limit, fresh=fresh) for model in opened]
    return EvalResult(**facts | {"command": command}, models=tuple(result), comparisons=_against_first(rules, result))


def compare(
    models: Sequence[str | Path | RewardModel],
    *,
    data: Any = None,
    suite: str | Suite | None = None,
    split: str = DEFAULT_SPLIT,
    ties: Literal["zero", "half"] | None = None,
    allow_changed: bool = False,
    command: str = "",
) -> EvalResult:
    """As `evaluate`, for two models or more: `comparisons` holds the differences of the first from every other one."""
    if isinstance(models, str | Path | RewardModel) or len(models) < 2:
        raise UsageError("name two models or more to compare")
    return evaluate(
        models, data=data, suite=suite, split=split, ties=ties, allow_changed=allow_changed, command=command
    )


def _source(data: Any, split: str) -> str | None:
    """The data as suites name it, its split with it where it is a dataset."""
    if data is None:
        return None
    named = local_data(str(data)) if isinstance(data, str | Path) else str(export_folder(data))
    return with_split(named, split)


def _run(
    suite: Suite, loaded: Loaded, model: RewardModel, facts: dict[str, Any], *, limit: int | None, fresh: bool
) -> ModelResult:
    items = select(loaded.items, limit)
    folder = run_folder(suite.name, facts["suite_hash"], model.info.fingerprint)
    header = {key: facts[key] for key in ("suite", "suite_hash", "data")}
    header |= {"model": model.info.name, "fingerprint": model.info.fingerprint}
    with open_journal(folder, header, fresh=fresh) as journal:
        progress = run(model, suite, items, journal)
        result = results.evaluated(
            suite, items, journal.answers, model.info, progress, judging=report_of(model), folder=str(folder)
        )
        if limit is None and (progress.answered or not (folder / RESULT).exists()):
            result = replace(result, run=results.store(facts, model.info, items, journal.answers))
            write_result(folder, facts | {"models": [result.as_json()]}, result.credits)
    return result


def _stored(suite: Suite, files: Sequence[Path], *, allow_changed: bool) -> tuple[dict[str, Any], list[ModelResult]]:
    read = [load_stored(suite, file, allow_changed=allow_changed) for file in files]
    facts = results.suite_facts(suite, read[0][0], limit=None)
    return facts, [results.evaluated(suite, loaded.items, answers, info) for loaded, answers, info in read]


def _against_first(suite: Suite, models: Sequence[ModelResult]) -> tuple[ModelComparison, ...]:
    """The first model minus every other one; p_holm over all tests of all of them together."""
    first, *others = models
    if not first.credits:
        return ()
    parts = [differences(suite, first.credits, other.credits) for other in others]
    corrected = iter(with_holm([one for part in parts for one in part]))
    return tuple(
        ModelComparison(first, other, tuple(next(corrected) for _ in part))
        for other, part in zip(others, parts, strict=True)
    )
