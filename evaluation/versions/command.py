"""`rmkit eval`: any reward models on one split of a dataset version, compared on the same items.

Every number comes with its numerator, denominator and a bootstrap interval over prompt families; ties, unscored and
undecided pairs are counted apart. Models after the first are compared with the first, item by item. One row per item
and model goes to the warehouse table `eval_item`, so that any number can be traced back to what made it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.reports.json_ready import without_nan, write_json
from evaluation.suites import command as suite_command
from evaluation.versions.held_out import HeldOut, load_held_out, score_held_out
from evaluation.versions.stored_items import item_rows, store_items
from evaluation.versions.summary import compare, summarize
from rmkit.cli import display as console
from rmkit.data.reasons import reason_lines
from rmkit.errors import UsageError
from rmkit.judge.tally import judging_lines
from rmkit.metrics.accuracy import TiePolicy
from rmkit.models import load_model


def main(argv: list[str]) -> int:
    if any(argument == "--suite" or argument.startswith("--suite=") for argument in argv):
        return suite_command.main(argv)
    parser = console.parser(
        "eval",
        "Evaluate reward models: accuracy with intervals, calibration, length bias, worst mistakes.",
        examples=[
            "eval models/hh-lexical length --data hh@v2",
            "eval A B --data hh@v2 --split test -o hh.json",
            "eval A B --suite rm-bench --data bench_rmbench.jsonl.gz    # a benchmark; eval --suite X --help",
        ],
    )
    parser.add_argument("models", nargs="+", help="artifact folders, names of `rmkit models`, NAME@ALIAS, or `length`")
    parser.add_argument("--data", required=True, help="dataset version NAME@VERSION, or an export folder")
    parser.add_argument("--split", default="test", help="split to score, or all (default test)")
    parser.add_argument(
        "--ties", choices=("zero", "half"), default="zero", help="credit of equal scores (default zero)"
    )
    parser.add_argument("-o", "--output", type=Path, help="also write the result, with one row per item, as JSON")
    options = parser.parse_args(argv)
    held_out = load_held_out(options.data, options.split)
    command = f"rmkit eval {shlex.join(argv)}"
    result, per_item = evaluate(options.models, held_out, ties=options.ties, command=command)
    if options.output:
        write_json(options.output, result | {"per_item": per_item})
    console.emit(result, as_json=options.json, text=table(result))
    return 0


def evaluate(
    names: Sequence[str], held_out: HeldOut, *, ties: TiePolicy = "zero", command: str = ""
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result (JSON-ready, NaN as None) and one row per model and pair.

    Per-item rows are also stored in the warehouse, where there is one: `run` is then the id of the eval run.
    """
    models = [load_model(name) for name in names]  # all of them first: a bad one costs no scoring
    if len({model.info.fingerprint for model in models}) < len(models):
        raise UsageError(f"the same model twice among {', '.join(names)}; name each once")
    scored = [score_held_out(model, held_out, path=name) for model, name in zip(models, names, strict=True)]
    result = {
        "suite": held_out.ref,
        "digest": held_out.digest,
        "split": held_out.split,
        "examples": len(held_out.examples),
        "pairs": len(held_out.pairs),
        "families": len({pair.family for pair in held_out.pairs}),
        "skipped": dict(held_out.skipped),
        "ties": ties,
        "command": command,
        "models": [summarize(one, held_out, ties=ties) for one in scored],
        "comparisons": [compare(scored[0], other, held_out, ties=ties) for other in scored[1:]],
        "run": store_items(held_out, scored, command=command),
    }
    rows = [row for one in scored for row in item_rows(one, held_out)]
    return without_nan(result), without_nan(rows)


def table(result: Mapping[str, Any]) -> str:
    """The result as text: what was asked, one line per model, one per comparison."""
    digest = (result["digest"] or "no digest")[:12]
    lines = [
        f"{result['suite']} ({digest}), split {result['split']}: {result['pairs']} pairs from {result['examples']} "
        f"examples in {result['families']} prompt families",
        *(f"  left out: {count} rows, {reason}" for reason, count in result["skipped"].items()),
        "",
        f"{'model':<32} {'accuracy':>8} {'95% interval':>14} {'right/decided':>14} {'ties':>5} {'unscored':>8} "
        f"{'ECE':>6} {'log loss':>8} {'short':>6} {'long':>6}",
        *(_model_line(model) for model in result["models"]),
        "",
        "short, long: accuracy where the better response is the shorter, the longer. Fingerprints:",
        *(f"  {model['name']:<32} {model['fingerprint']}" for model in result["models"]),
    ]
    for model in result["models"]:
        lines += [f"  unscored by {model['name']}: {line}" for line in reason_lines(model["unscored"], of="responses")]
    for model in result["models"]:
        lines += ["", f"{model['name']} is a judge:", *judged] if (judged := judging_lines(model)) else []
    if result["comparisons"]:
        lines += ["", "accuracy against the first model, on the pairs both scored (points, 95% interval):"]
        lines += [_comparison_line(comparison) for comparison in result["comparisons"]]
    return "\n".join(lines)


def _model_line(model: Mapping[str, Any]) -> str:
    accuracy, calibrated, by_length = model["accuracy"], model["calibration"], model["length_bias"]["accuracy"]
    return (
        f"{model['name']:<32} {_percent(accuracy['value']):>8} {_between(accuracy['interval']):>14} "
        f"{accuracy['numerator']:>7.6g}/{accuracy['denominator']:<6.6g} {accuracy['ties']:>5} "
        f"{accuracy['unscored']:>8} {_number(calibrated['ece']):>6} {_number(calibrated['log_loss']):>8} "
        f"{_percent(by_length['shorter']['value']):>6} {_percent(by_length['longer']['value']):>6}"
    )


def _comparison_line(comparison: Mapping[str, Any]) -> str:
    points = "  -  " if comparison["difference"] is None else f"{100 * comparison['difference']:+.1f}"
    between = _between(comparison["interval"])
    models = f"{comparison['first']} minus {comparison['second']}"
    return f"  {models}: {points} {between} on {comparison['n']} of {comparison['decided']} pairs"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _between(interval: Mapping[str, Any] | None) -> str:
    return "-" if interval is None else f"[{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"
