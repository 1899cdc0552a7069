"""The page of `rmkit bench process`: every number with its denominator, every difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmkit.revision import versions_text

NOTES = """`frozen` is the process model: a head over a frozen MiniLM's features of each step, chosen on the validation
fold. All predictions are out of fold, and a problem lies in one fold only. Log loss (lower is better) and AUC are over
all labeled steps; F1 is ProcessBench's, the harmonic mean of the accuracies on solutions with an error (was the first
one found?) and without one, at the threshold that is best on the validation fold. Intervals (95%) resample whole
problems, 2,000 times, the same ones for both arms of a difference."""


def page(result: Mapping[str, Any]) -> str:
    """Markdown."""
    installed = versions_text("torch", "transformers", "scikit-learn")
    lines = [
        "# Benchmark of process models on labeled steps",
        "",
        f"    {result['command']}",
        "",
        NOTES,
        "",
        f"{result['folds']} folds, seed {result['seed']}, encoder {result['encoder']}; {installed}.",
    ]
    for name, results in result["files"].items():
        lines += ["", f"## {name}", "", *_file(results)]
    return "\n".join([*lines, ""])


def _file(result: Mapping[str, Any]) -> list[str]:
    correct = result["rows"] - result["erroneous"]
    heads = result["heads"]["frozen"]
    return [
        f"{result['rows']} solutions of {result['problems']} problems ({result['erroneous']} with an error, {correct} "
        f"without); {result['steps']} labeled steps, {result['wrong_steps']} of them wrong. Encoding took "
        f"{result['encoding_s']:.0f} s, all {result['total_s']:.0f} s. Heads chosen: {'; '.join(heads)}.",
        "",
        "| arm | log loss | AUC | F1 of first errors | found errors | left correct |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_arm(name, arm) for name, arm in result["arms"].items()),
        "",
        "| frozen minus | log loss | AUC | F1 |",
        "| --- | --- | --- | --- |",
        *(_difference(name, one) for name, one in result["differences"].items()),
    ]


def _arm(name: str, result: Mapping[str, Any]) -> str:
    cells = [_number(result[measure]) for measure in ("log_loss", "auc", "f1")]
    shares = [f"{100 * result[key]:.1f}%" for key in ("error_accuracy", "correct_accuracy")]
    return f"| {name} | {' | '.join([*cells, *shares])} |"


def _difference(name: str, result: Mapping[str, Any]) -> str:
    cells = [_number(result[measure], sign="+") for measure in ("log_loss", "auc", "f1")]
    return f"| {name} | {' | '.join(cells)} |"


def _number(result: Mapping[str, float], *, sign: str = "") -> str:
    value, low, high = (format(result[key], f"{sign}.3f") for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
