"""`rmkit eval MODEL --suite S`: a benchmark by its own rules, resumable, or from other people's stored scores."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.suites import results
from evaluation.suites.evaluator import run, select
from evaluation.suites.journal import RESULT, open_journal, run_folder, write_result
from evaluation.suites.load import Loaded, load_items
from evaluation.suites.results import Evaluated
from evaluation.suites.stored_scores import load_stored, stored_files
from evaluation.suites.suite import Suite, load_suite, names
from rmkit.cli import display as console
from rmkit.errors import UsageError
from rmkit.judge.tally import report_of
from rmkit.models import load_model
from rmkit.types import RewardModel


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    command = f"rmkit eval {shlex.join(argv)}"
    suite = load_suite(options.suite)
    if options.from_scores and (options.models or options.data or options.limit):
        raise UsageError("--from-scores takes no model, no --data and no --limit: the file holds the scores")
    if options.from_scores:
        result = from_scores(suite, options.from_scores, allow_changed=options.allow_changed, command=command)
    else:
        result = evaluate(
            suite,
            options.models,
            data=options.data,
            limit=options.limit,
            allow_changed=options.allow_changed,
            fresh=options.fresh,
            command=command,
        )
    if options.output:
        from evaluation.reports.suite import write_report

        write_report(result, options.output)
    console.emit(result, as_json=options.json, text=results.table(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "eval --suite",
        f"Evaluate reward models on a benchmark by its own scoring rules: {', '.join(names())}, or a .toml of yours.",
        examples=[
            "eval models/hh-lexical length --suite rm-bench --data bench_rmbench.jsonl.gz",
            "eval models/hh-lexical --suite rewardbench --limit 50      # from the hub, a smoke run",
            "eval models/hh-lexical --suite my_suite.toml --data hh@v2:test -o report.html",
            "eval --suite rewardbench --from-scores eval-set-scores/model.json",
        ],
    )
    parser.add_argument("models", nargs="*", help="artifact folders, names of `rmkit models`, NAME@ALIAS, or `length`")
    parser.add_argument("--suite", required=True, help="a suite's name, or the path of a .toml")
    parser.add_argument("--data", help="file, folder or NAME@VERSION[:SPLIT] (default $RMKIT_BENCHMARKS, else the hub)")
    parser.add_argument("--limit", type=int, help="only so many items, taken in turn from the subsets: a smoke run")
    parser.add_argument("--from-scores", type=Path, metavar="FILE|FOLDER", help="score what a run has stored")
    parser.add_argument("--allow-changed", action="store_true", help="accept other counts or contents than declared")
    parser.add_argument("--fresh", action="store_true", help="forget the answers of an earlier, unfinished run")
    parser.add_argument("-o", "--output", type=Path, help="also write a report: .html, .md or .json")
    return parser


def evaluate(
    suite: Suite,
    models: Sequence[str],
    *,
    data: str | None = None,
    limit: int | None = None,
    allow_changed: bool = False,
    fresh: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """The result of every model on the suite, JSON-ready; finished ones are also kept in the run's folder."""
    if not models:
        raise UsageError("name at least one model, or pass --from-scores FILE")
    facts, result = evaluate_models(
        suite, models, data=data, limit=limit, allow_changed=allow_changed, fresh=fresh, command=command
    )
    return facts | {"models": [one.result for one in result]}


def evaluate_models(
    suite: Suite,
    models: Sequence[str],
    *,
    data: str | None = None,
    limit: int | None = None,
    allow_changed: bool = False,
    fresh: bool = False,
    command: str = "",
) -> tuple[dict[str, Any], list[Evaluated]]:
    """What was measured on, and every model's result and credits. A file or a folder that is no model is stored scores.

    A new result of a whole run is kept in the run's folder and in the warehouse; a smoke run is not a result. Raises
    UsageError for models that would be the same twice, and whatever loading data and models raises.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be 1 or more, got {limit}")
    if all(stored_files(Path(name)) for name in models):
        return _stored(suite, models, allow_changed=allow_changed, command=command)
    loaded = load_items(suite, data, allow_changed=allow_changed)
    opened = [open_model(name) for name in models]  # all of them first: a bad one costs no scoring
    if len({model.info.fingerprint for model in opened}) < len(opened):
        raise UsageError(f"the same model twice among {', '.join(models)}; name each once")
    results.check_store()
    facts = results.suite_facts(suite, loaded, limit=limit) | {"command": command}
    return facts, [_asked(suite, loaded, model, facts, limit=limit, fresh=fresh) for model in opened]


def _asked(
    suite: Suite, loaded: Loaded, model: RewardModel, facts: dict[str, Any], *, limit: int | None, fresh: bool
) -> Evaluated:
    items = select(loaded.items, limit)
    folder = run_folder(suite.name, facts["suite_hash"], model.info.fingerprint)
    header = {key: facts[key] for key in ("suite", "suite_hash", "data")}
    header |= {"model": model.info.name, "fingerprint": model.info.fingerprint}
    with open_journal(folder, header, fresh=fresh) as journal:
        progress = run(model, suite, items, journal)
        result = results.evaluated(suite, items, journal.answers, model.info, progress, judging=report_of(model))
        result.result["folder"] = str(folder)
        if limit is None and (progress.answered or not (folder / RESULT).exists()):
            result.result["run"] = results.store(facts, model.info, items, journal.answers)
            write_result(folder, facts | {"models": [result.result]}, result.credits)
    return result


def _stored(
    suite: Suite, files: Sequence[str], *, allow_changed: bool, command: str
) -> tuple[dict[str, Any], list[Evaluated]]:
    read = [load_stored(suite, Path(name), allow_changed=allow_changed) for name in files]
    facts = results.suite_facts(suite, read[0][0], limit=None) | {"command": command}
    return facts, [results.evaluated(suite, loaded.items, answers, info) for loaded, answers, info in read]


def open_model(name: str) -> RewardModel:
    """A model by path, by its name under $RMKIT_HOME/models, or by NAME@ALIAS."""
    return load_model(name)


def from_scores(suite: Suite, path: Path, *, allow_changed: bool = False, command: str = "") -> dict[str, Any]:
    """The suite's measures from stored scores; nothing is asked of any model."""
    facts, [result] = _stored(suite, [str(path)], allow_changed=allow_changed, command=command)
    return facts | {"models": [result.result]}
