"""Benchmark results as a file: one self-contained HTML page, Markdown, JSON, or a model card's model-index.

The page needs no network: styles and charts are inside. It shows what was measured on, every measure with its
denominator and interval, the style matrix (RM-Bench), reliability, length and style bias, the best-of-N curve, and the
worst mistakes behind a warning (benchmarks of safety hold offensive texts by design).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.registry.model_index import model_index
from evaluation.suites.results import count_rule, percent, right_of
from rmkit import __version__
from rmkit.atomic import write_text
from rmkit.cli.display import shown
from rmkit.errors import UsageError
from rmkit.judge.tally import judging_lines
from rmkit.metrics.bootstrap import FEW_CLUSTERS

LENGTHS = {"shorter": "better one is shorter", "equal": "about equal", "longer": "better one is longer"}


def write_report(result: Mapping[str, Any], path: Path) -> None:
    """Write the result in the form that the suffix names: .html, .md, .json or .yaml (model-index).

    Raises UsageError for another suffix, DataError where the file cannot be written.
    """
    match path.suffix:
        case ".html":
            text = html(result)
        case ".md":
            text = markdown(result)
        case ".json":
            text = json.dumps(dict(result), ensure_ascii=False, allow_nan=False, indent=1)
        case ".yaml" | ".yml":  # JSON is YAML
            text = json.dumps(model_index(result), ensure_ascii=False, allow_nan=False, indent=2)
        case _:
            raise UsageError(f"cannot tell the kind of report from {path.name!r}; expected .html, .md, .json or .yaml")
    write_text(path, text + "\n")


def markdown(result: Mapping[str, Any]) -> str:
    """Tables of every model's measures under what identifies the numbers."""
    lines = [f"## {result['title']}", "", *(f"- {line}" for line in identity(result)), ""]
    for model in result["models"]:
        lines += [f"### {model['name']}", "", f"{model['kind']}, fingerprint `{model['fingerprint']}`", ""]
        lines += [
            "| measure | percent | 95% interval | right / of | of all | right / of all | ties | unscored | prompts |"
        ]
        lines += ["| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        lines += ["| " + " | ".join(row) + " |" for row in rows(model)]
        lines += ["", *(f"- {line.strip()}" for line in judging_lines(model))]
        lines += [""]
    for one in map(_comparison, result["comparisons"]):
        lines += [
            f"### {one['title']}",
            "",
            "| measure | first | second | difference | 95% interval | p | Holm | prompts | unscored |",
        ]
        lines += ["| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | --- |"]
        lines += ["| " + " | ".join(row) + " |" for row in one["rows"]]
        lines += [""]
    return "\n".join(lines).rstrip()


def identity(result: Mapping[str, Any]) -> list[str]:
    """What the numbers are numbers of, as sentences."""
    lines = [
        f"suite `{result['suite']}`, hash `{result['suite_hash']}`",
        f"data {result['data']}, license {result['license']}",
        f"command `{result['command']}`",
    ]
    if version := result["version"]:
        lines.append(f"dataset `{version['ref'] or 'without a name'}`, digest `{version['digest'] or 'none'}`")
    lines += [f"left out: {count} {reason}" for reason, count in result["left_out"].items()]
    lines.append(f"of all: {count_rule(result)}")
    if result["missing"]:
        lines.append(f"missing: {', '.join(result['missing'])}; totals that need them are not given")
    lines += [f"changed: {change}" for change in result["changed"]]
    if result["limit"] is not None:
        lines.append(f"limited to {result['limit']} items: a smoke run, not a result")
    return lines


def rows(model: Mapping[str, Any], *, cells: bool = True) -> list[list[str]]:
    """One row of texts per measure, and per cell that is not part of a style matrix."""
    shown = list(model["measures"].values())
    if cells:
        shown += [cell for name, cell in model["cells"].items() if not name.split("/")[-1].isdigit()]
    return [_row(measure) for measure in shown]


def _row(measure: Mapping[str, Any]) -> list[str]:
    low, whole = measure["low"], measure["of_all"]
    between = "-" if low is None else f"{low:.1f} to {measure['high']:.1f}"
    counts = [str(measure[key]) for key in ("ties", "unscored", "clusters")]
    return [measure["name"], _value(measure), between, right_of(measure), _value(whole), right_of(whole), *counts]


def _value(measure: Mapping[str, Any]) -> str:
    present = measure.get("of_present")
    return percent(measure) if present is None else f"- (of what is there: {present:.2f})"


def html(result: Mapping[str, Any]) -> str:
    """The page."""
    return page("suite.html.j2", title=result["title"], e=context(result))


def page(template: str, **values: Any) -> str:
    """A template of this folder as text, all texts escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("evaluation.reports", "."),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **values)


def context(result: Mapping[str, Any]) -> dict[str, object]:
    """What `evaluation.html.j2` says of one result: charts as SVG, numbers as texts."""
    from evaluation.reports import charts

    models, top = result["models"], best(result)
    bins = {model["name"]: _bins(model["probes"]) for model in models}
    margins, length = top["probes"].get("margins"), {model["name"]: _length(model["probes"]) for model in models}
    prompts = max(model["measures"][result["headline"]]["clusters"] for model in models)
    return {
        "title": f"Models on {result['data']}",
        "identity": [line.replace("`", "") for line in identity(result)],
        "headline": result["headline"],
        "summary": [_summary(model, result["headline"]) for model in models],
        "caution": caution(prompts),
        "comparisons": [_comparison(one) for one in result["comparisons"]],
        "overview": _overview(result),
        "reliability": charts.reliability(known)
        if (known := {name: one for name, one in bins.items() if one})
        else None,
        "best": top["name"],
        "margins": charts.histogram(margins["edges"], margins["counts"], xlabel="margin towards the better reply")
        if margins and margins["n"]
        else "",
        "length": charts.grouped_bars([*LENGTHS.values()], known_length, ylabel="right, percent")
        if (known_length := {name: one for name, one in length.items() if one})
        else None,
        "curves": _curves(models),
        "models": [
            {**model, "rows": rows(model), "matrices": _matrices(model["cells"]), "judged": judging_lines(model)}
            for model in models
        ],
    }


def best(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model with the highest headline (for the eye; the intervals say whether it means anything)."""
    top: Mapping[str, Any] = max(
        result["models"], key=lambda model: model["measures"][result["headline"]]["percent"] or 0
    )
    return top


def caution(prompts: int) -> str:
    """A warning where there are too few prompts for percentile intervals, else nothing."""
    few = f"Below {FEW_CLUSTERS} prompts, there are {prompts} here, the intervals are narrower than they should be."
    return few if prompts < FEW_CLUSTERS else ""


def _summary(model: Mapping[str, Any], headline: str) -> list[str]:
    _, value, between, fraction, whole, _, ties, unscored, _ = _row(model["measures"][headline])
    calibrated = model["probes"].get("calibration") or {}
    numbers = [calibrated.get(key) for key in ("log_loss", "ece", "brier")]
    shown_numbers = ["-" if number is None else f"{number:.3f}" for number in numbers]
    return [model["name"], value, between, fraction, whole, ties, unscored, *shown_numbers]


def _comparison(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": f"{one['first']['name']} minus {one['second']['name']}, percent points",
        "rows": [_difference(difference) for difference in one["differences"]],
    }


def _difference(one: Mapping[str, Any]) -> list[str]:
    values = ["-" if one[key] is None else f"{one[key]:.2f}" for key in ("first", "second")]
    values.append("-" if one["difference"] is None else f"{one['difference']:+.2f}")
    values.append("-" if one["low"] is None else f"{one['low']:+.2f} to {one['high']:+.2f}")
    values += ["-" if one[key] is None else f"{one[key]:.4f}" for key in ("p", "p_holm")]
    return [one["measure"], *values, str(one["clusters"]), f"{one['unscored_first']}, {one['unscored_second']}"]


def _bins(probes: Mapping[str, Any]) -> list[dict[str, float]]:
    return [
        {"n": one["n"], "predicted": one["mean_predicted"], "observed": one["mean_label"]}
        for one in (probes.get("calibration") or {"bins": ()})["bins"]
        if one["n"]
    ]


def _length(probes: Mapping[str, Any]) -> list[float | None]:
    accuracy = (probes.get("length") or {"accuracy": {}})["accuracy"]
    values = [accuracy[key]["percent"] for key in LENGTHS if key in accuracy]
    return values if any(value is not None for value in values) else []


def _overview(result: Mapping[str, Any]) -> str | None:
    """The declared measures of all models with their intervals; None where none is whole."""
    from evaluation.reports.charts import forest

    results = [
        {
            "label": name if len(result["models"]) == 1 else f"{name}: {model['name']}",
            "value": measure["percent"],
            "low": measure["percent"] if measure["low"] is None else measure["low"],
            "high": measure["percent"] if measure["high"] is None else measure["high"],
            "color": index % 6,
        }
        for name in result["models"][0]["measures"]
        for index, model in enumerate(result["models"])
        for measure in [model["measures"][name]]
        if measure["percent"] is not None
    ]
    return forest(results, xlabel="percent, 95% interval over prompts") if results else None


def _matrices(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One style matrix per domain that has its nine cells."""
    from evaluation.reports.charts import style_matrix

    domains = dict.fromkeys(name.split("/")[0] for name in cells if name.split("/")[-1].isdigit())
    return [
        style_matrix([[cells[f"{domain}/{i}{j}"]["percent"] for j in range(3)] for i in range(3)], title=domain)
        for domain in domains
    ]


def _curves(models: Sequence[Mapping[str, Any]]) -> str | None:
    from evaluation.reports.charts import best_of_n

    curves = {
        model["name"]: model["probes"]["best_of_n"]["curve"] for model in models if "best_of_n" in model["probes"]
    }
    return best_of_n(curves) if curves else None
