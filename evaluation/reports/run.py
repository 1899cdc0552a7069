"""`rmkit report`: one self-contained HTML page about a dataset version and the models evaluated on it.

What was dropped and why, whether the annotators agree, and what the models do, each number with its denominator and
interval. The page is one file: no script, no network. What is said is decided here and, of models, in
`evaluation.reports.suite`; how it looks, in the templates, which escape all texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.reports import charts
from evaluation.reports.lineage import made_from
from evaluation.reports.suite import best, context, page
from rmkit import paths
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.config import read_object
from rmkit.errors import DataError
from warehouse.lineage.runs import environment
from warehouse.store import open_warehouse
from warehouse.versions import versions


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "report",
        "Write one self-contained HTML page about a dataset version and the models evaluated on it.",
        examples=["report hh@v2 --eval hh.json -o hh.html", "report hh@v2 -o hh.html     # the data alone"],
    )
    parser.add_argument("version", help="dataset version, NAME@VERSION")
    parser.add_argument(
        "--eval", nargs="*", type=Path, default=[], metavar="FILE", help="results: rmkit eval ... -o FILE"
    )
    parser.add_argument("--note", action="append", default=[], help="a sentence to put at the top (repeatable)")
    parser.add_output("the page (default $RMKIT_HOME/reports/VERSION.html)")
    options = parser.parse_args(argv)
    with open_warehouse(read_only=True) as connection:
        lineage = made_from(connection, versions.resolve(connection, options.version))
    results = [_read(path) for path in options.eval]
    out = options.output or paths.home() / "reports" / f"{lineage['version'].ref.replace('@', '-')}.html"
    write_text(out, render(lineage, results, notes=options.note))
    display.emit({"report": str(out)}, as_json=options.json, text=str(out))
    return 0


def _read(path: Path) -> dict[str, Any]:
    hint = f"it is not a result of rmkit eval; write one with: rmkit eval MODEL --data D -o {path}"
    return read_object(path, raises=DataError, hint=hint, keys={"models": list, "headline": str, "comparisons": list})


def render(lineage: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, notes: Sequence[str] = ()) -> str:
    """The page as text."""
    version, steps = lineage["version"], lineage["steps"]
    return page(
        "run.html.j2",
        title=f"{version.ref}: data and reward models",
        lead=version.message or f"{version.n_rows} rows",
        tiles=_tiles(lineage, results),
        notes=notes,
        sources=[{**source, "file": Path(source["path"] or "").name} for source in lineage["sources"]],
        rejects=lineage["rejects"],
        steps=steps,
        widest=max((step["n_in"] for step in steps), default=1) or 1,
        splits=lineage["splits"],
        family_overlap=lineage["family_overlap"],
        agreement=_agreement(steps),
        evaluations=[context(result) for result in results],
        provenance=_provenance(lineage, results),
        commands=[result["command"] for result in results if result.get("command")],
    )


def _tiles(lineage: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    own = [source for source in lineage["sources"] if not source["is_benchmark"]]
    tiles = [
        {"value": f"{sum(source['n_lines'] for source in own):,}", "label": "rows in the source files"},
        {"value": f"{lineage['version'].n_rows:,}", "label": "rows in this version"},
    ]
    if (alpha := _facts(lineage["steps"], "agreement").get("alpha")) is not None:
        tiles.append({"value": f"{alpha:.2f}", "label": "Krippendorff's alpha of the votes"})
    for result in results[:2]:
        top = best(result)
        value = top["measures"][result["headline"]]["percent"]
        label = f"{top['name']} on {result['data']}, {result['headline']}"
        tiles.append({"value": "-" if value is None else f"{value:.1f}%", "label": label})
    return tiles


def _facts(steps: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next((step["facts"] for step in steps if step["step"] == name), {})


def _agreement(steps: Sequence[Mapping[str, Any]]) -> dict[str, object] | None:
    facts = _facts(steps, "agreement")
    if not facts.get("votes"):
        return None
    if facts["alpha"] is None:
        return {
            "text": f"{facts['votes']} votes by {facts['raters']} raters, at most one a row: agreement is undefined."
        }
    low, high = facts["interval"]
    text = (
        f"Krippendorff's alpha ({facts['level']}) is {facts['alpha']:.3f}, 95% interval {low:.3f} to {high:.3f}, over "
        f"{facts['units']:,} rows with two votes or more ({facts['votes']:,} votes by {facts['raters']} raters). "
        "1 is perfect agreement, 0 is what chance gives."
    )
    skills = sorted(_facts(steps, "aggregate").get("raters") or [], key=lambda one: -one["n"])[:12]
    if not skills:
        return {"text": text}
    rest = {one["rater"]: one["agreement"] for one in facts["rater_agreement"]}
    series = {
        "skill estimated by the aggregation": [100 * one["accuracy"] for one in skills],
        "agreement with the majority of the others": [
            100 * rest[one["rater"]] if one["rater"] in rest else None for one in skills
        ],
    }
    names = [f"{one['rater'].split('/')[-1]}\n{one['n']} votes" for one in skills]
    return {
        "text": text,
        "chart": charts.grouped_bars(names, series, ylabel="percent"),
        "caption": "Skill is the estimated probability that the annotator's vote names the better answer; the labels "
        "of this version weigh votes by it and keep the probability, not only the majority.",
    }


def _provenance(lineage: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    version, run = lineage["version"], lineage["run"]
    models = {model["name"]: model["fingerprint"] for result in results for model in result["models"]}
    rows = [("dataset", f"{version.ref}, digest {version.digest}")]
    rows += [("recipe", version.recipe)] if version.recipe else []
    rows += [("code", run["git_sha"])] if run.get("git_sha") else []
    rows += [(f"model {name}", f"fingerprint {fingerprint}") for name, fingerprint in models.items()]
    return [*rows, ("machine", ", ".join(f"{key} {value}" for key, value in environment().items()))]
