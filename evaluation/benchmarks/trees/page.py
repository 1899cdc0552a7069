"""The tables of `rmkit bench trees`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.cli import display


def page(result: Mapping[str, Any]) -> str:
    """Markdown of all that was measured."""
    settings = result["settings"]
    progress = display.markdown(
        ("K", "variance of the advantage", "correlation with progress", "bias, C(n - k, K)", "bias, plug-in"),
        [
            (
                str(one["k"]),
                f"{one['variance']:.4f}",
                f"{one['correlation']:.3f}",
                f"{one['bias']:+.4f}",
                f"{one['plug_in_bias']:+.4f}",
            )
            for one in result["progress"]
        ],
    )
    search = display.markdown(
        ("bin", "budget", "method", "accuracy", "seeds from to", "steps written"),
        [
            (
                one["bin"],
                str(one["budget"]),
                one["method"],
                f"{one['accuracy']:.3f}",
                f"{one['least']:.3f} to {one['most']:.3f}",
                f"{one['written']:.1f}",
            )
            for one in result["search"]
        ],
    )
    return f"""{hits_table(result["labels"])}

{result["labels"][0]["solutions"]} wrong solutions of {settings["problems"]} problems.

{progress}

{_confidence(result["confidence"])}

{search}

{_study(result["study"])}

{_shared(result["shared"])}
{_verdicts(result["verdicts"]) if result["verdicts"] else ""}"""


def hits_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rules by the number of continuations (`run.Hit`)."""
    return display.markdown(
        (
            "rule",
            "continuations of a prefix",
            "names the first error",
            "interval",
            "steps right",
            "continuations a problem",
        ),
        [
            (
                one["rule"] + (", bisected" if one["adaptive"] else ""),
                str(one["rollouts"]),
                f"{one['hits']:.3f}",
                f"{one['low']:.3f} to {one['high']:.3f}",
                f"{one['step_accuracy']:.3f}",
                f"{one['continuations']:.1f}",
            )
            for one in rows
        ],
    )


def _confidence(rows: list[dict[str, Any]]) -> str:
    return display.markdown(
        ("visits of a pair", "wrong pairs", "with confidence", "without", "difference, seeds from to"),
        [
            (
                str(one["visits"]),
                f"{one['wrong']:.3f}",
                f"{one['weighted']:.3f}",
                f"{one['unweighted']:.3f}",
                f"{one['least']:+.3f} to {one['most']:+.3f}",
            )
            for one in rows
        ],
    )


def _study(cells: list[dict[str, Any]]) -> str:
    """Of each bin and budget over the seeds: what was chosen, what it and the majority reached held out."""
    places = dict.fromkeys((one["bin"], one["budget"]) for one in cells)
    rows = []
    for name, budget in places:
        here = [one for one in cells if (one["bin"], one["budget"]) == (name, budget) and one["held_out"] is not None]
        chosen = [one["method"] for one in here]
        counts = ", ".join(f"{method} {chosen.count(method)}" for method in dict.fromkeys(chosen))
        means = [sum(one[key] for one in here) / len(here) for key in ("tuned", "held_out", "majority")]
        rows.append((name, str(budget), counts, *(f"{value:.3f}" for value in means)))
    return display.markdown(
        ("bin", "budget", "chosen, by seeds", "where chosen", "held out", "majority held out"), rows
    )


def _verdicts(result: Mapping[str, Any]) -> str:
    trees = result["trees"]
    shape = (
        f"{trees['problems']} problems with {trees['solutions']} solutions make {trees['nodes']} nodes. "
        f"{trees['prompts_branching']} prompts and {trees['branching']} other nodes have two children or more, the "
        f"deepest behind step {trees['deepest_branching']}. Pairs: "
        + ", ".join(f"{name} {n}" for name, n in trees["pairs"].items())
        + "."
    )
    rows = [(one["rule"], f"{one['right']:.3f}", f"{one['wrong']:.3f}", f"{one['auc']:.4f}") for one in result["rules"]]
    table = display.markdown(("rule", "steps of right solutions", "of wrong ones", "AUC beside the verdict"), rows)
    return f"\n{shape}\n\n{table}\n"


def _shared(one: Mapping[str, Any]) -> str:
    return (
        f"A beam of {one['width']} (prefix {one['prefix']} tokens, {one['suffix']} of their own): "
        f"{1000 * one['shared_s']:.0f} ms with shared prefixes, {1000 * one['plain_s']:.0f} ms plain, "
        f"{one['plain_s'] / one['shared_s']:.1f} times; scores differ by {one['difference']:.1e} at most "
        f"(standard deviation {one['spread']:.2f})."
    )
