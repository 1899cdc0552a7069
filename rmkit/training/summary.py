"""What a training command says at its end: of preferences, and of ratings, reactions and steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.cli.display import number


def summary_text(card: Mapping[str, Any], *, rows: str, more: Sequence[str] = ()) -> str:
    """What a training command says at its end: where the model is, what it saw, how it did on validation."""
    validation = card["validation"]
    accuracy, interval = validation["accuracy"], validation["accuracy"]["interval"]
    between = f" [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]" if interval else ""
    return "\n".join(
        [
            f"model        {card['path']}",
            f"fingerprint  {card['fingerprint']}",
            f"data         {card['dataset']['ref']} ({rows})",
            f"validation   accuracy {100 * accuracy['value']:.1f}%{between}, log loss {validation['log_loss']:.3f}, "
            f"ECE {validation['ece']:.3f}, temperature {card['temperature']:.2f}",
            *more,
            f"next         rmkit eval {card['path']} length --data {card['dataset']['ref'] or 'DATA'}",
        ]
    )


def label_summary_text(result: Mapping[str, Any], *, rows: str, more: Sequence[str] = ()) -> str:
    """Where the model is, what it saw, how it did on validation, what to do next."""
    validation, ref = result["validation"], result["dataset"]["ref"] or "DATA"
    requests = f"eval {result['path']} --suite steps --data {ref}"
    return "\n".join(
        [
            f"model        {result['path']}",
            f"fingerprint  {result['fingerprint']}",
            f"data         {ref} ({rows})",
            *(f"validation   {line}" for line in _validation(validation)),
            *more,
            f"next         rmkit {requests if 'first_error' in validation else 'verify ' + result['path']}",
        ]
    )


def _validation(validation: Mapping[str, Any]) -> list[str]:
    lines = [_aspect(name, result) for name, result in validation.get("aspects", {}).items()]
    if "log_loss_of_rate" in validation:
        of = f"{validation['steps']} steps" if "steps" in validation else f"{validation['responses']} reactions"
        lines.append(
            f"log loss {number(validation['log_loss'])} (always the base rate: "
            f"{number(validation['log_loss_of_rate'])}), ECE {number(validation['ece'])}, "
            f"AUC {number(validation['auc'])} on {of}"
        )
    if first := validation.get("first_error"):
        lines.append(
            f"first errors: F1 {number(first['f1'])}; {number(first['error_accuracy'])} of {first['erroneous']} "
            f"with one, {number(first['correct_accuracy'])} of {first['correct']} without"
        )
    if (accuracy := validation.get("accuracy")) and accuracy["value"] is not None:
        lines.append(f"pairs that follow from the ratings: accuracy {100 * accuracy['value']:.1f}%")
    return lines


def _aspect(name: str, result: Mapping[str, Any]) -> str:
    if not result["n"]:
        return f"{name}: no rating"
    return (
        f"{name}: correlation {number(result['pearson'])}, MAE {number(result['mae'])} "
        f"(always the mean: {number(result['mae_of_mean'])}) on {result['n']} ratings"
    )
