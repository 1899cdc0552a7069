"""What `rmkit bench judge-training` shows: two tables, the plot and the results page."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.benchmarks.rubrics.filter import interval
from rmkit.revision import versions_text

STAGES = {"untrained": "untrained", "sft": "SFT", "dpo": "SFT, then DPO", "grpo": "SFT, then GRPO"}
COLORS = ("#0072b2", "#d55e00", "#009e73")

_ABOUT = """\
A tiny Llama (two layers, width 64, one token a word, random weights) learns to judge pairs: one response holds a good
word, the other a bad one. The stub teacher knows the words of one group (60% of the training items) and names the first
slot for the rest, so admission in both orders leaves nothing about the second group; DPO pairs are right against wrong
samples (n = 8 in each order) of the SFT judge on those items. GRPO starts from the same SFT judge on all items, and
rewards replies whose twin in the other order is right too. Held-out pairs of words occur in no training item.
As a control, SFT and DPO run with the training labels permuted. Everything runs through the functions behind
`rmkit judge-data` and `rmkit train judge`, and the trained judges are loaded from their judge.toml."""


def text(result: Mapping[str, Any]) -> str:
    """Both tables and a line per claim, as Markdown."""
    parts = (_admission(result["admission"]), _training(result), _claims(result), _spark(result["spark"]))
    return "\n\n".join("\n".join(lines) for lines in parts)


def _admission(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| teacher, where it does not know | orders | items | admitted | lucky among them | expected | off by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        counts = f"{row['items']:,} | {row['admitted']:,}"
        shares = f"{row['lucky']:.4f} | {row['expected']:.4f} | {row['standard_errors']:.1f} SE"
        lines.append(f"| {row['guess']} | {row['orders']} | {counts} | {shares} |")
    return lines


def _training(result: Mapping[str, Any]) -> list[str]:
    seeds = len({run["seed"] for run in result["runs"]})
    lines = [
        f"Held-out accuracy in %, mean over {seeds} seeds (smallest to largest).",
        "",
        "| labels | stage | both orders: all pairs | taught words | the other words | one order: all pairs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for permuted in (False, True):
        for stage, name in STAGES.items():
            cells = [
                _cell(_values(result, stage, permuted, group, measure))
                for group, measure in (
                    ("all", "both_orders"),
                    ("taught", "both_orders"),
                    ("untaught", "both_orders"),
                    ("all", "one_order"),
                )
            ]
            if cells[0]:
                lines.append(f"| {'permuted' if permuted else 'true'} | {name} | {' | '.join(cells)} |")
    return lines


def _spark(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"Share right in % on rollouts that no group held, mean over {len(runs)} seeds (smallest to largest).",
        "",
        "| asked | right | 95% interval over seeds | prior |",
        "| --- | --- | --- | --- |",
    ]
    requests = {
        "yes_no": "yes or no, one rollout",
        "one_order": "a pair, one order",
        "both_orders": "a pair, both orders",
    }
    for key, name in requests.items():
        values = [100 * run[key] for run in runs]
        lines.append(f"| {name} | {_cell(values)} | {_between(values)} | 50 |")
    rows = [f"{fmean(run['rows'][task] for run in runs):.0f} {task}" for task in runs[0]["rows"]]
    first = fmean(run["right_first"] for run in runs)
    return [*lines, "", f"Trained on {' and '.join(rows)} items; the right rollout stood first in {100 * first:.1f}%."]


def _between(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "-"
    result = interval(values)
    return f"{result['low']:.1f} to {result['high']:.1f}"


def _values(result: Mapping[str, Any], stage: str, permuted: bool, group: str, measure: str) -> list[float]:
    runs = [run for run in result["runs"] if run["permuted"] == permuted and stage in run["stages"]]
    return [100 * run["stages"][stage][group][measure] for run in runs]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{fmean(values):.1f} ({min(values):.0f} to {max(values):.0f})"


def _claims(result: Mapping[str, Any]) -> list[str]:
    true = [run for run in result["runs"] if not run["permuted"]]
    lines = [f"SFT and DPO with their data took {fmean(run['seconds'] for run in true):.0f} s a seed."]
    before, after = (_values(result, stage, False, "all", "both_orders") for stage in ("sft", "dpo"))
    if len(true) > 1:
        gain = interval([b - a for a, b in zip(before, after, strict=True)])
        between = f"{gain['low']:+.1f} to {gain['high']:+.1f}"
        lines.append(f"DPO after SFT: {gain['mean']:+.1f} points in both orders (95% interval over seeds {between}).")
    guessed = _values(result, "dpo", True, "all", "one_order")
    lines.append(f"With permuted labels, one order: {_cell(guessed)}, 95% interval over seeds {_between(guessed)}.")
    for run in true:
        if grpo := run["stages"].get("grpo"):
            first, last = fmean(grpo["reward"][:5]), fmean(grpo["reward"][-5:])
            lines.append(
                f"GRPO, seed {run['seed']}: both-order reward {first:.2f} in the first five of {grpo['steps']} steps, "
                f"{last:.2f} in the last five; right in the order shown {fmean(grpo['right_share'][:5]):.2f} -> "
                f"{fmean(grpo['right_share'][-5:]):.2f}."
            )
    return lines


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Held-out both-order accuracy by stage, every seed a line; beside it GRPO's reward by step."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    arms = (("taught words", False, "taught"), ("words the teacher did not know", False, "untaught"))
    for color, (label, permuted, group) in zip(COLORS, (*arms, ("permuted labels", True, "all")), strict=True):
        _lines(left, result, color, label, permuted, group)
    left.set_xticks(range(3), ["untrained", "SFT", "then DPO"])
    left.set_ylim(-3, 103)
    left.set_ylabel("right in both orders, held out, %")
    left.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    curves = [run["stages"]["grpo"]["reward"] for run in result["runs"] if "grpo" in run["stages"]]
    for curve in curves:
        right.plot(range(1, len(curve) + 1), curve, color=COLORS[0], linewidth=0.7, alpha=0.45)
    if curves:
        mean = [fmean(step) for step in zip(*curves, strict=True)]
        right.plot(range(1, len(mean) + 1), mean, color=COLORS[0], linewidth=2.2)
    right.set_xlabel("GRPO step")
    right.set_ylabel("share of replies right in both orders")
    right.set_ylim(-0.03, 1.03)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _lines(axis: Any, result: Mapping[str, Any], color: str, label: str, permuted: bool, group: str) -> None:
    stages = ("untrained", "sft", "dpo")
    curves = list(zip(*(_values(result, stage, permuted, group, "both_orders") for stage in stages), strict=True))
    for curve in curves:
        axis.plot(range(3), curve, color=color, linewidth=0.7, alpha=0.45)
    axis.plot(range(3), [fmean(at) for at in zip(*curves, strict=True)], "o-", color=color, linewidth=2.2, label=label)


def write(page: Path, result: Mapping[str, Any], *, argv: Sequence[str]) -> None:
    """The results page and, beside it, its plot."""
    picture = page.with_suffix(".png")
    plot(result, picture)
    named = [Path(one).name if "/" in one else one for one in argv]
    lines = [
        "# Benchmark of judge training",
        "",
        f"    {shlex.join(['rmkit', 'bench', 'judge-training', *named])}",
        "",
        "## What admission lets through",
        "",
        "Stub teachers know 60% of the items and are right about them in both orders. The lucky share of the admitted",
        "items is what SFT would learn from guesses; `off by` is in standard errors of the expected share.",
        "",
        *_admission(result["admission"]),
        "",
        "## What the judge learns",
        "",
        *_ABOUT.splitlines(),
        "",
        *_training(result),
        "",
        "Chance in both orders is 1/2 for a judge that guesses consistently, 1/4 for coins, 0 for one that names a",
        "slot; in one order it is 1/2. The untrained model says nothing readable.",
        "",
        f"![accuracy by stage, and GRPO's reward]({picture.name})",
        "",
        *(f"- {line}" for line in _claims(result)),
        "",
        "## Recycled rollouts (SPARK)",
        "",
        "The same tiny model, trained by SFT on items that `judge-data spark` makes of verified rollouts: 400 groups",
        "of four, of every difficulty, the reflection items left out (their prompt is longer than this model reads).",
        "The prior, and a guess that keeps to itself when the order is turned, is right in one half.",
        "",
        *_spark(result["spark"]),
        "",
        f"Python {platform.python_version()}, {versions_text('torch', 'transformers', 'trl')}; "
        f"{result['items']} training items, "
        f"{result['runs'][0]['held_out']} held-out pairs a seed.",
    ]
    page.write_text("\n".join(lines) + "\n")
