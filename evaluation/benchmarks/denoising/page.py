"""What `rmkit bench denoising` shows: tables of accuracy and of selection, and the results page."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rmkit.revision import versions

SHOWN = {
    "clean": "clean labels",
    "standard": "standard",
    "ensemble": "2 models",
    "label_smoothing": "cDPO",
    "robust": "rDPO",
    "cross_fit": "5-fold filter",
    "self": "self",
    "mean": "mean",
    "peer": "**peer**",
    "peer_batch": "peer, per batch",
}

RULES = {
    "all": "all",
    "agreed": "estimator agrees",
    "drawn": "drawn by 1 - BALD",
    "bald": "lowest BALD",
    "mean_p": "highest mean p",
    "margin": "largest margin",
}


def setting() -> dict[str, object]:
    """Machine and versions that the numbers depend on."""
    import torch

    return {
        "versions": versions("torch", "transformers", "numpy"),
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def text(result: Mapping[str, Any]) -> str:
    """Everything measured, as Markdown."""
    parts = []
    if "quality" in result:
        parts += [accuracy_table(result["quality"]), selection_table(result["quality"])]
        parts.append(certainty_table(result["selection"]))
        if summary := result.get("acceptance"):
            verdict = "passed" if summary["passed"] else "FAILED"
            parts.append(
                f"Acceptance (relevance, 40% flips): peer - standard {summary['gain']:+.1f} points (at least 15), kept "
                f"precision {summary['kept_precision']:.2f} (at least 0.80): {verdict}"
            )
    if "speed" in result:
        parts.append(speed_table(result["speed"]))
    return "\n\n".join(parts)


def accuracy_table(quality: Mapping[str, Any]) -> str:
    """Test accuracy in percent with the standard error over seeds."""
    measured = {name for _, _, result in _rows(quality) for name in result}
    methods = [name for name in SHOWN if name in measured]
    lines = [
        "| task, noise | " + " | ".join(SHOWN[name] for name in methods) + " | peer - standard | peer - self |",
        "| --- |" + " --- |" * (len(methods) + 2),
    ]
    for task, noise, result in _rows(quality):
        cells = [_spread(result[name]["accuracy"]) for name in methods]
        cells += [_spread(result["peer"][what], signed=True) for what in ("minus_standard", "minus_self")]
        lines.append(f"| {task}, {noise} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def selection_table(quality: Mapping[str, Any]) -> str:
    """How well the margins and the selections tell right labels from wrong ones."""
    measured = {name for _, _, result in _rows(quality) for name in result}
    methods = [name for name in ("cross_fit", "self", "peer", "peer_batch") if name in measured]
    lines = [
        "| task, noise | AUC after one epoch | " + " | ".join(f"{SHOWN[name]}: kept right" for name in methods) + " |",
        "| --- | --- |" + " --- |" * len(methods),
    ]
    for task, noise, result in _rows(quality):
        cells = [_spread(result["peer"]["auc_first_epoch"], digits=2)]
        cells += [_spread(result[name]["kept_precision"], digits=2) for name in methods]
        lines.append(f"| {task}, {noise} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def certainty_table(selection: Mapping[str, Any]) -> str:
    """Wrong labels in percent among the model-labeled pairs that each of UPO's rules keeps."""
    lines = ["| task | " + " | ".join(RULES.values()) + " |", "| --- |" + " --- |" * len(RULES)]
    for task, result in selection.items():
        lines.append(f"| {task} | " + " | ".join(_spread(result[rule]) for rule in RULES) + " |")
    return "\n".join(lines)


def speed_table(speed: Mapping[str, Any]) -> str:
    """Seconds of both ways and the ratio, median and range over repeats."""
    lines = ["| what | seconds | beside | seconds | ratio | range |", "| --- | --- | --- | --- | --- | --- |"]
    review = speed["peer_review"]
    what = (
        f"peer review, {review['pairs']:,} pairs x {review['width']} features, {review['epochs']} epochs, "
        f"batch {review['batch']}, 40% noise"
    )
    lines.append(_speed(what, review, "peer", "one standard head", "standard"))
    if passes := speed.get("dropout"):
        what = f"{passes['passes']} dropout passes over {passes['pairs']} pairs, trunk not cached"
        lines.append(_speed(what, passes, "dropout", "one pass", "one"))
    return "\n".join(lines)


def _speed(what: str, result: Mapping[str, Any], ours: str, beside: str, other: str) -> str:
    between = f"{result['ratio_low']:.2f} to {result['ratio_high']:.2f}"
    seconds = f"{result[f'{ours}_s']:.1f} | {beside} | {result[f'{other}_s']:.1f}"
    return f"| {what} | {seconds} | {result['ratio']:.2f} | {between} |"


def _rows(quality: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [(task, noise, result) for task, of in quality.items() for noise, result in of["noises"].items()]


def _spread(result: Mapping[str, float] | None, *, digits: int = 1, signed: bool = False) -> str:
    if result is None:
        return "-"
    value = f"{result['mean']:{'+' if signed else ''}.{digits}f}"
    return f"{value} ± {result['se']:.{digits}f}" if "se" in result else value


def write(path: Path, result: Mapping[str, Any], *, argv: Sequence[str]) -> None:
    """The results page with the command that makes it."""
    # without the folders of files, which differ from reader to reader
    options = shlex.join(Path(word).name if "/" in word else word for word in argv)
    lines = ["# Benchmark of denoising", "", f"    rmkit bench denoising {options}", ""]
    if "quality" in result:
        lines += [*_introduction(result), accuracy_table(result["quality"]), "", *_SELECTION]
        lines += [selection_table(result["quality"]), "", *_reading(result["quality"])]
        lines += [*_CERTAINTY, certainty_table(result["selection"]), ""]
    if "speed" in result:
        lines += ["## Speed", "", speed_table(result["speed"]), ""]
    installed = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines.append(f"Measured with {installed} on {result['cores']} cores ({result['cpu']}).")
    path.write_text("\n".join(lines) + "\n")


def _introduction(result: Mapping[str, Any]) -> list[str]:
    sizes = "; ".join(
        f"{task}: {of['facts']['train_pairs']} training and {of['facts']['test_pairs']} test pairs"
        for task, of in result["quality"].items()
    )
    return [
        "An exact share of the training labels is turned around; the test labels stay as they are and their prompts",
        "are others. All methods train the same head (256 hidden units, ten epochs) on the same frozen features and",
        "are told the true rate. Accuracy in percent at the last epoch, mean and standard error over",
        f"{result['seeds']} seeds; differences are paired by seed. `relevance`: the reply that was given against one",
        "given to another prompt; `preferences`: the file's own labels; `planted`: labels of a dense random linear",
        "teacher; `length`: only labels whose worse reply is the longer one are turned around.",
        "",
        f"{sizes}.",
        "",
    ]


_SELECTION = [
    "How well a margin tells right labels from wrong ones after the first epoch (1: perfectly, 0.5: not at all), and",
    "what share of the labels that a method learned from in the end is right:",
    "",
]
_CERTAINTY = [
    "## Selecting by uncertainty",
    "",
    "400 pairs keep their labels and train a reward head and a dropout estimator (UPO); the head labels the other",
    "pairs. Wrong labels in percent among all of these, those whose order the estimator's majority shares, and the",
    "half of them that each rule keeps:",
    "",
]


def _reading(quality: Mapping[str, Any]) -> list[str]:
    """What the differences amount to, counted."""
    gains = [result["peer"]["minus_standard"] for _, _, result in _rows(quality)]
    twins = [result["peer"]["minus_self"] for _, _, result in _rows(quality)]
    return [
        f"Peer review is better than standard training by more than two standard errors in {_above(gains, 1)} of "
        f"{len(gains)} rows, worse in {_above(gains, -1)}. Against selecting by one's own margins it is better in "
        f"{_above(twins, 1)}, worse in {_above(twins, -1)}.",
        "",
    ]


def _above(differences: Sequence[Mapping[str, float]], sign: int) -> int:
    return sum(sign * one["mean"] > 2 * one.get("se", float("inf")) for one in differences)
