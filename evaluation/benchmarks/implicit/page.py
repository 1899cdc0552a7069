"""The page of `rmkit bench implicit`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rmkit.revision import versions_text

ABOUT = """\
An implicit model (DPO) is a policy whose log-ratio to its reference is the reward; an explicit one reads a scalar from
the last token. Lin et al. 2024 (arXiv:2409.03650) found implicit ones 3% worse in the mean out of distribution, 7% at
most. On your own models: `rmkit probe shift EXPLICIT IMPLICIT --cell id=... --cell prompt=...`.
"""
ANALYTIC = """\
A frozen trunk, a trainable vocabulary head, no weight decay; quality is linear in a token's features. The gradient of
DPO touches the rows of a pair's two tokens only, so that tokens no pair showed keep margin 0. Margins up to 1e-4 are
ties and count half.
"""
WORDING = """\
Each is a new toy language of 24 concepts with 8 wordings, a causal model trained on it, and pairs in which the response
with more good concepts wins. Training pairs use half of the wordings; the shifted cells use the other half in prompts,
responses or both. Both kinds have the same start, the same batches, and train all weights; learning rate (and beta) are
chosen on validation pairs. Accuracy in percent, mean over seeds; difference in points with a 95% t interval.
"""


def page(result: Mapping[str, Any]) -> str:
    """Markdown: the analytic case, the cells, what was chosen, what it says."""
    return "\n".join(
        [
            "# Explicit against implicit reward models under shift",
            "",
            f"    {result['command']}",
            "",
            ABOUT,
            "## One-token responses: what the algebra says",
            "",
            ANALYTIC,
            *_analytic(result["analytic"]),
            "",
            "## A language whose wording shifts",
            "",
            f"{len(result['runs'])} seeds.",
            WORDING,
            "| cell | explicit | implicit | explicit - implicit | implicit per token | longer wins | length corr. |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(_line(name, cell) for name, cell in result["cells"].items()),
            "",
            f"Mean over the three shifted cells: {_between(result['out_of_distribution'])} points: "
            f"{_verdict(result['out_of_distribution'])}",
            "",
            f"Chosen: {_chosen(result['runs'])}.",
            f"Language models ended at {fmean(run['language_loss'] for run in result['runs']):.2f} nats a token. "
            f"{versions_text('torch', 'transformers')}; {result['seconds']:.0f} s.",
            "",
        ]
    )


def _analytic(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| | training pairs | unseen tokens | largest margin there |",
        "| --- | ---: | ---: | ---: |",
    ]
    for key, name in (("sgd", "DPO, gradient descent"), ("adam", "DPO, Adam"), ("explicit", "linear head")):
        train, unseen = (fmean(run[key][part] for run in runs) for part in ("train", "unseen"))
        largest = f"{max(run[key]['largest_margin'] for run in runs):.1e}" if key != "explicit" else "-"
        lines.append(f"| {name} | {train:.1f} | {unseen:.1f} | {largest} |")
    return [*lines, "", f"Accuracy in percent, mean over {len(runs)} seeds; the margin is the largest of all of them."]


def _line(name: str, cell: Mapping[str, Any]) -> str:
    return (
        f"| {name} | {cell['explicit']:.1f} | {cell['implicit']:.1f} | {_between(cell['difference'])} | "
        f"{cell['per_token']:.1f} | {cell['longer']:.1f} | {cell['explicit_length']:+.2f} / "
        f"{cell['implicit_length']:+.2f} |"
    )


def _between(one: Mapping[str, float]) -> str:
    return f"{one['mean']:+.1f} [{one['low']:+.1f}, {one['high']:+.1f}]"


def _verdict(one: Mapping[str, float]) -> str:
    if one["low"] > 0:
        return "the explicit models generalize better."
    if one["high"] < 0:
        return "the implicit models generalize better."
    return "these seeds do not tell the two apart."


def _chosen(runs: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(
        f"{name} " + ", ".join(f"{key} {value:g}" for key, value in run["chosen"][name].items())
        for run in runs
        for name in ("explicit", "implicit")
    )
    return "; ".join(f"{what} ({count} seeds)" for what, count in sorted(counts.items()))
