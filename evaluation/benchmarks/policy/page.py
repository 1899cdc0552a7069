"""What `rmkit bench policy` shows: a table, the curves and the results page."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLORS = {1: "#0072b2", -1: "#d55e00"}
ARMS = {1: "reward", -1: "sign reversed"}

_ABOUT = """\
A policy (two-layer Llama from a config, random weights, one token a word) is trained by TRL on rewards that come from
`rmkit serve` over HTTP, with a token, through `rmkit.serve.clients.trl.RewardFunction`. Behind the service stands a
lexical reward model, trained by `rmkit train` on noisy preferences of a small world: people choose by courteous minus
rude words, with probability sigmoid of the difference. The reward model knows the preferences only, the policy the
rewards only. As a control every run is repeated with the sign of the reward reversed; the same served reward must then
fall. Rewards are the served ones (never reversed), averaged over the first and the last ten steps; beside them stands
what the world's people would count, courteous minus rude words per reply. Empty replies are unscored: TRL gets None.
Runs of one seed share their first weights and random numbers, so their noise is alike across trainers and arms."""


def table(result: Mapping[str, Any]) -> str:
    """One line per run, as Markdown."""
    lines = [
        "| trainer | arm | seed | reward, first 10 steps | last 10 | change | courteous words net, first 10 | last |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in result["runs"]:
        rewards = f"{run['first']:+.3f} | {run['last']:+.3f} | {run['last'] - run['first']:+.3f}"
        liking = f"{run['liking_first']:+.2f} | {run['liking_last']:+.2f}"
        lines.append(f"| {run['trainer'].upper()} | {ARMS[run['sign']]} | {run['seed']} | {rewards} | {liking} |")
    return "\n".join(lines)


def _summary(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for trainer in dict.fromkeys(run["trainer"] for run in result["runs"]):
        for sign, arm in ARMS.items():
            changes = [r["last"] - r["first"] for r in result["runs"] if (r["trainer"], r["sign"]) == (trainer, sign)]
            went = sum(sign * change > 0 for change in changes)
            lines.append(
                f"- {trainer.upper()}, {arm}: {went} of {len(changes)} seeds went the way of their reward; change "
                f"{statistics.fmean(changes):+.3f} on average (smallest {min(changes, key=abs):+.3f})"
            )
    return lines


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Served reward by step, every run thin and the mean of an arm thick."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    trainers = list(dict.fromkeys(run["trainer"] for run in runs))
    figure, axes = plt.subplots(1, len(trainers), figsize=(4.6 * len(trainers), 3.4), sharey=True, squeeze=False)
    for axis, trainer in zip(axes[0], trainers, strict=True):
        for sign, arm in ARMS.items():
            curves = [run["rewards"] for run in runs if (run["trainer"], run["sign"]) == (trainer, sign)]
            for curve in curves:
                axis.plot(range(1, len(curve) + 1), curve, color=COLORS[sign], linewidth=0.7, alpha=0.45)
            mean = [statistics.fmean(step) for step in zip(*curves, strict=True)]
            axis.plot(range(1, len(mean) + 1), mean, color=COLORS[sign], linewidth=2.2, label=arm)
        axis.set_title(trainer.upper())
        axis.set_xlabel("optimizer step")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("served reward, mean of 32 replies")
    axes[0][0].legend(frameon=False, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def write(page: Path, result: Mapping[str, Any], *, argv: Sequence[str], plot: Path | None) -> None:
    """The results page: what was asked, every run, the reward model and the versions."""
    model, named = result["model"], [Path(one).name if "/" in one else one for one in argv]
    accuracy = model["accuracy"]
    lines = [
        "# Benchmark of the reward service: a policy learns from it",
        "",
        f"    {shlex.join(['rmkit', 'bench', 'policy', *named])}",
        "",
        *_ABOUT.splitlines(),
        "",
        *_summary(result),
        "",
        table(result),
        "",
    ]
    if plot is not None:
        lines += [f"![served reward by step]({plot.name})", ""]
    replies = len(result["runs"]) * result["steps"] * 32
    lines += [
        f"{result['steps']} steps of 32 replies in groups of 8; {replies:,} replies scored over HTTP, "
        f"{sum(run['unscored'] for run in result['runs'])} of them unscored.",
        "",
        f"Reward model: lexical, fingerprint `{model['fingerprint']}`, data digest `{model['digest'][:12]}`; held-out",
        f"accuracy on the noisy judgments {accuracy['percent']:.1f}% ({accuracy['numerator']:.0f} of "
        f"{accuracy['denominator']:.0f}; 95% interval {accuracy['low']:.1f} to {accuracy['high']:.1f}).",
        f"Python {result['python']}, "
        + ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        + ".",
    ]
    page.write_text("\n".join(lines) + "\n")
