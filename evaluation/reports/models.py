"""The report's section about the models of one `rmkit eval` result: tables and charts in the template's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.reports import charts
from rmkit.judge.tally import judging_lines
from rmkit.metrics.bootstrap import FEW_CLUSTERS

SUBSETS_SHOWN = 12
MISTAKES_SHOWN = 5
LENGTHS = {"shorter": "better one is shorter", "equal": "about equal", "longer": "better one is longer"}


def best(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model with the highest accuracy (for the eye; the intervals say whether it means anything)."""
    results: Mapping[str, Any] = max(result["models"], key=lambda model: model["accuracy"]["value"] or 0)
    return results


def suite(result: Mapping[str, Any]) -> str:
    split = "" if result["split"] == "all" else f", {result['split']} split"
    return f"{result['suite']}{split}"


def with_short_names(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with the beginning that all trained models' names share left out, for narrow tables."""
    names = [model["name"] for model in result["models"] if model["name"] != "length"]
    starts = {name.rpartition("-")[0] + "-" for name in names}
    cut = starts.pop() if len(starts) == 1 and len(names) > 1 else ""
    return {
        **result,
        "models": [model | {"name": model["name"].removeprefix(cut)} for model in result["models"]],
        "comparisons": [
            one | {side: one[side].removeprefix(cut) for side in ("first", "second")} for one in result["comparisons"]
        ],
    }


def evaluation(result: Mapping[str, Any]) -> dict[str, Any]:
    models, top = result["models"], best(result)
    return {
        "title": f"Models on {suite(result)}",
        "text": f"{result['pairs']:,} pairs in {result['families']:,} prompt families. Accuracy is the share of "
        "decided pairs whose better answer gets the higher reward; a tie earns "
        f"{'half' if result['ties'] == 'half' else 'nothing'}, unscored pairs are counted apart. Intervals are 95% "
        "bootstraps over prompt families." + _caution(result["families"]),
        "forest": _forest(models),
        "models": [_model_row(model) for model in models],
        "judges": {model["name"]: judged for model in models if (judged := judging_lines(model))},
        "paired": _paired(result["comparisons"]),
        "best": top["name"],
        "reliability": charts.reliability({model["name"]: _bins(model) for model in models if _bins(model)}),
        "margins": charts.histogram(
            top["margins"]["edges"], top["margins"]["counts"], xlabel="margin towards the label's better answer"
        ),
        "subsets": _subsets(models),
        "length": _length(models),
        "mistakes": [_mistake(mistake) for mistake in top["mistakes"][:MISTAKES_SHOWN]],
    }


def _caution(families: int) -> str:
    few = f" Below {FEW_CLUSTERS} families, there are {families} here, the intervals are narrower than they should be."
    return few if families < FEW_CLUSTERS else ""


def _forest(models: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for index, model in enumerate(models):
        accuracy = model["accuracy"]
        if accuracy["value"] is None:
            continue
        spread = accuracy["interval"] or {"low": accuracy["value"], "high": accuracy["value"]}
        ends = {"low": 100 * spread["low"], "high": 100 * spread["high"]}
        rows.append({"label": model["name"], "value": 100 * accuracy["value"], "color": index} | ends)
    return charts.forest(rows, xlabel="accuracy, percent (dashed: a coin)", reference=50)


def _model_row(model: Mapping[str, Any]) -> dict[str, Any]:
    accuracy, calibrated = model["accuracy"], model["calibration"]
    return {
        "name": model["name"],
        "accuracy": f"{percent(accuracy)}%",
        "interval": _interval(accuracy["interval"]),
        "fraction": f"{accuracy['numerator']:,.6g} / {accuracy['denominator']:,.6g}",
        "ties": accuracy["ties"],
        "unscored": accuracy["unscored"],
        "log_loss": _number(calibrated["log_loss"]),
        "ece": _number(calibrated["ece"]),
        "brier": _number(calibrated["brier"]),
    }


def percent(accuracy: Mapping[str, Any]) -> str:
    return "-" if accuracy["value"] is None else f"{100 * accuracy['value']:.1f}"


def _with_unscored(accuracy: Mapping[str, Any]) -> str:
    lost = accuracy["unscored"]
    return percent(accuracy) + (f" ({lost} unscored)" if lost else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(interval: Mapping[str, Any] | None) -> str:
    return "-" if interval is None else f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}"


def _paired(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """The paired differences in words."""
    summary = [
        f"{one['first']} minus {one['second']}: {100 * one['difference']:+.1f} points ({_interval(one['interval'])}, "
        f"{one['n']} of {one['decided']} pairs)"
        for one in comparisons
        if one["difference"] is not None
    ]
    return "On the pairs that both scored, with 95% intervals: " + "; ".join(summary) + "." if summary else ""


def _bins(model: Mapping[str, Any]) -> list[dict[str, float]]:
    return [
        {"n": one["n"], "predicted": one["mean_predicted"], "observed": one["mean_label"]}
        for one in model["calibration"]["bins"]
        if one["n"]
    ]


def _subsets(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = list(models[0]["by_subset"])[:SUBSETS_SHOWN]
    return [
        {
            "name": name,
            "n": models[0]["by_subset"][name]["n"] + models[0]["by_subset"][name]["unscored"],
            "values": [_with_unscored(model["by_subset"][name]) for model in models],
        }
        for name in names
    ]


def _length(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    series = {
        model["name"]: [
            None if (value := model["length_bias"]["accuracy"][key]["value"]) is None else 100 * value
            for key in LENGTHS
        ]
        for model in models
    }
    counts = {key: models[0]["length_bias"]["accuracy"][key]["denominator"] for key in LENGTHS}
    groups = [f"{label}\n{counts[key]:.6g} pairs" for key, label in LENGTHS.items()]
    summary = [
        f"{model['name']} {bias['pearson']:+.2f}"
        for model in models
        if (bias := model["length_bias"])["pearson"] is not None
    ]
    longer = models[0]["length_bias"]["longer_preferred"]
    return {
        "chart": charts.grouped_bars(groups, series, ylabel="accuracy, percent"),
        "text": f"The labels prefer the longer answer in {_share(longer)} of the pairs of unequal length. "
        f"Correlation of a model's margin with the difference in length: {', '.join(summary)}. A model that judges "
        "content is about as right on the left as on the right.",
    }


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _mistake(mistake: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": mistake["id"],
        "margin": f"{mistake['margin']:.3g}",
        "prompt": mistake["prompt"],
        "chosen": mistake["better"],
        "rejected": mistake["worse"],
    }
