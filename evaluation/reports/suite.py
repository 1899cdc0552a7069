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
    return "\n".join(lines).rstrip()


def identity(result: Mapping[str, Any]) -> list[str]:
    """What the numbers are numbers of, as sentences."""
    lines = [
        f"suite `{result['suite']}`, hash `{result['suite_hash']}`",
        f"data {result['data']}, license {result['license']}",
        f"command `{result['command']}`",
    ]
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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("evaluation.reports", "."),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("suite.html.j2").render(
        result=result,
        identity=[line.replace("`", "") for line in identity(result)],
        models=[
            {**model, "rows": rows(model), "charts": _charts(model), "judged": judging_lines(model)}
            for model in result["models"]
        ],
        overview=_overview(result),
        curves=_curves(result["models"]),
        version=__version__,
    )


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


def _charts(model: Mapping[str, Any]) -> dict[str, Any]:
    from evaluation.reports.charts import reliability

    by_key: dict[str, Any] = {"matrices": _matrices(model["cells"])}
    calibration = model["probes"].get("calibration")
    if calibration and calibration["bins"]:
        bins = [
            {"n": one["n"], "predicted": one["mean_predicted"], "observed": one["mean_label"]}
            for one in calibration["bins"]
        ]
        by_key["reliability"] = reliability({model["name"]: bins})
    return by_key


def _matrices(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One style matrix per domain that has its nine cells."""
    from evaluation.reports.suite_charts import style_matrix

    domains = dict.fromkeys(name.split("/")[0] for name in cells if name.split("/")[-1].isdigit())
    return [
        style_matrix([[cells[f"{domain}/{i}{j}"]["percent"] for j in range(3)] for i in range(3)], title=domain)
        for domain in domains
    ]


def _curves(models: Sequence[Mapping[str, Any]]) -> str | None:
    from evaluation.reports.suite_charts import best_of_n

    curves = {
        model["name"]: model["probes"]["best_of_n"]["curve"] for model in models if "best_of_n" in model["probes"]
    }
    return best_of_n(curves) if curves else None
