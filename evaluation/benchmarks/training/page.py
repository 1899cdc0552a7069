"""What `rmkit bench training` shows: a table, a chart and the results page."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.training.arms import PEERS
from evaluation.reports.charts import COLORS
from rmkit.revision import versions

MEANING = {
    "trl": "TRL's RewardTrainer, default sampling",
    "trl_grouped": "the same, rows grouped by length",
    "rmkit": "rmkit: all of it",
    "head": "fp32 head at the reward token alone",
    "bucketed": "... and rows of a step sorted by length",
    "budget": "... and a token budget, rows unsorted",
    "prefix": "... and shared prompts, same micro-batches",
    "packed": "all but shared prompts",
}


def machine(threads: int | None) -> dict[str, object]:
    """Where and with what it was measured."""
    import torch

    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions("torch", "transformers", "trl", "accelerate"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def table(summary: Mapping[str, Any]) -> str:
    """Markdown: a line for each arm, medians; ratios with the slowest and fastest repeat in brackets."""
    names = ["arm", "what", "pairs/s", "x trl", "x trl_grouped", "CPU s", "x trl by CPU", "x trl_grouped by CPU"]
    names += ["rise MB", "peak MB", "loss gap"]
    lines = [f"| {' | '.join(names)} |", "| --- | --- | ---: | --- | --- | ---: | --- | --- | ---: | ---: | ---: |"]
    for arm, values in summary["arms"].items():
        ratios = [_ratio(summary, kind, arm, peer) for kind in ("ratios", "cpu_ratios") for peer in PEERS]
        gap = summary.get("loss_gap", {}).get(arm)
        cells = [
            f"{values['pairs_per_s']:.2f}",
            *ratios[:2],
            f"{values['cpu_s']:.1f}",
            *ratios[2:],
            f"{values['rise_mb']:.0f}",
            f"{values['peak_mb']:.0f}",
            "" if gap is None else f"{gap:.1e}",
        ]
        lines.append(f"| {arm} | {MEANING[arm]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(summary: Mapping[str, Any], kind: str, arm: str, peer: str) -> str:
    result = summary[kind].get(f"{arm}/{peer}")
    return f"{result['median']:.2f} [{result['low']:.2f}, {result['high']:.2f}]" if result else ""


def plot(summary: Mapping[str, Any], path: Path) -> None:
    """Pairs per second of every arm, and beside them the loss curves of TRL and rmkit where both ran."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    arms = list(summary["arms"])[::-1]
    losses = {arm: summary.get("losses", {}).get(arm) for arm in ("trl", "rmkit")}
    both = all(curve and len(curve) > 1 for curve in losses.values())
    size = (11 if both else 7.5, 0.42 * len(arms) + 1.3)
    figure, axes = plt.subplots(
        1, 2 if both else 1, figsize=size, width_ratios=[1.5, 1] if both else None, squeeze=False
    )
    speed = axes[0][0]
    bars = speed.barh(
        [MEANING[arm] for arm in arms],
        [summary["arms"][arm]["pairs_per_s"] for arm in arms],
        color=["#999999" if arm in PEERS else COLORS[0] for arm in arms],
    )
    speed.bar_label(bars, fmt="%.2f", padding=3)
    speed.set_xlabel("pairs per second, end to end (median)")
    if both:
        curve = axes[0][1]
        steps = range(1, len(losses["trl"]) + 1)
        curve.plot(steps, losses["trl"], color="#999999", linewidth=5, alpha=0.6, label="trl")
        curve.plot(steps, losses["rmkit"], color=COLORS[0], linewidth=1.5, label="rmkit")
        curve.set_xlabel("optimizer step")
        curve.set_ylabel("loss")
        curve.legend(frameon=False)
    for part in axes[0]:
        part.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def write(page: Path, summary: Mapping[str, Any], *, argv: Sequence[str], plot: Path | None) -> None:
    """The results page: command, setting, table, chart, machine and versions."""
    spec, where = summary["spec"], summary["machine"]
    command = shlex.join(["rmkit", "bench", "training", *(Path(one).name if "/" in one else one for one in argv)])
    installed = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    lines = [
        "# Benchmark of reward model training beside TRL",
        "",
        f"    {command}",
        "",
        f"{spec['n']} pairs spread over {', '.join(f'`{name}`' for name in spec['files'])}; a Qwen3-type model of "
        f"random weights (`{spec['size']}`) and a tokenizer trained on the pairs; {spec['precision']}, "
        f"{spec['global_batch_size']} pairs an optimizer step in every arm, padded arms in micro-batches of "
        f"{spec['micro_batch']} pairs, token budget {spec['max_batch_tokens']}, checkpointing "
        f"{'on' if spec['checkpointing'] else 'off'}, no dropout, AdamW. {summary['repeats']} repeats.",
        "",
        table(summary),
        "",
        *_ABOUT.splitlines(),
        "",
    ]
    if plot is not None:
        lines += [f"![pairs per second, and the loss curves]({plot.name})", ""]
    lines.append(
        f"Measured on {where['gpu'] or where['cpu']}, {where['cores']} cores, {where['threads']} threads, load "
        f"{where['load']:.1f} at the end (the run's own included); Python {where['python']}, {installed}."
    )
    if not where["gpu"]:
        lines += ["", *_NO_GPU.splitlines()]
    page.write_text("\n".join(lines) + "\n")


_ABOUT = """\
Pairs per second count from the raw pairs (tokenizing, collating, training) to the last step, without imports and
loading. Arms take turns within a repeat; ratios are taken within repeats, their median stands before the lowest and the
highest. `rise` is how far the resident memory rose meanwhile, `peak` its highest. `loss gap` is the largest difference
between the loss of a step and that of TRL on the same batch, over all steps and repeats. TRL's `padding_free` is an
option of its SFT trainer alone; rows without padding are what the arm `packed` shows."""

_NO_GPU = """\
No GPU was at hand. `rmkit bench gpu-training --size qwen3-0.6b` and `--size qwen3-8b --checkpointing` measure a step of
such a model in bf16 beside the padded way, with the share of the measured matrix peak; they have been run at toy size
on a CPU only (same losses and gradients in both arms)."""
