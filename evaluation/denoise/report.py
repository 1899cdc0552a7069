"""The denoising bench as text, Markdown, one self-contained HTML page, or JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.denoise import charts as denoise_charts
from evaluation.denoise.grid import BenchData, Result
from evaluation.denoise.summary import CEILING, FLOOR, Line, advice, summarize
from rmkit.atomic import write_text
from rmkit.errors import UsageError
from rmkit.revision import versions_text

HEADER = ("noise", "rate", "method", "accuracy", "± seeds", "vs standard", "95% interval", "p (Holm)")
SELECTION = ("kept", "kept, right", "wrong, found", "AUC", "disparity")
SHOWN_EPOCHS = (1, 2, 4, 10)


def result_of(data: BenchData, results: Sequence[Result], *, command: str) -> dict[str, object]:
    """Everything that was measured, JSON-ready: `lines`, `advice`, `histograms` by noise and method, and the data."""
    lines = summarize(results, data.test_family)
    return {
        "title": f"Denoising {data.name}",
        "data": data.name,
        "digest": data.digest,
        "facts": dict(data.facts),
        "command": command,
        "seeds": len({result.cell.seed for result in results}),
        "lines": [asdict(line) for line in lines],
        "advice": advice(lines),
        "histograms": _histograms(results),
    }


def _histograms(results: Sequence[Result]) -> list[dict[str, object]]:
    """Counts summed over seeds, for every noisy cell and method that tells its epochs."""
    summed: dict[tuple[str, float, str], Any] = {}
    for result in results:
        if result.cell.rate and len(result.histogram):
            key = (result.cell.kind, result.cell.rate, result.method)
            summed[key] = summed.get(key, 0) + result.histogram
    return [
        {"kind": kind, "rate": rate, "method": method, "counts": counts.tolist()}
        for (kind, rate, method), counts in summed.items()
    ]


def write(result: Mapping[str, Any], path: Path) -> None:
    """The result in the form that the suffix names: .html, .md or .json. Raises UsageError, DataError."""
    match path.suffix:
        case ".html":
            output = page(result)
        case ".md":
            output = markdown(result)
        case ".json":
            output = json.dumps(dict(result), allow_nan=False, indent=1)
        case _:
            raise UsageError(f"cannot tell the kind of report from {path.name!r}; expected .html, .md or .json")
    write_text(path, output + "\n")


def identity(result: Mapping[str, Any]) -> list[str]:
    """What the numbers are numbers of, as sentences."""
    facts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in result["facts"].items())
    return [
        f"data {result['data']} (digest {result['digest'][:12]}): {facts}; {result['seeds']} seeds",
        f"command: {result['command']}; {versions_text()}",
        "accuracy on labels that stay right, percent; difference to standard training on the same flips, seeds and "
        "pairs, interval over seeds and prompt families",
    ]


def cells(line: Line) -> list[str]:
    """A line of the table as texts."""
    gain = ["", ""]
    if line.difference is not None:
        gain = [f"{line.difference:+.1f}", f"{line.difference_low:+.1f} to {line.difference_high:+.1f}"]
    return [
        line.kind if line.rate else "none",
        f"{line.rate:.0%}",
        line.method,
        f"{line.accuracy:.1f}",
        "" if line.seed_sd is None else f"{line.seed_sd:.1f}",
        *gain,
        "" if line.p_holm is None else f"{line.p_holm:.2g}" if line.p_holm >= 1e-4 else "<1e-4",
        *("" if value is None else f"{100 * value:.0f}" for value in (line.kept, line.kept_precision, line.found)),
        *("" if value is None else f"{value:.2f}" for value in (line.auc, line.disparity)),
    ]


def lines_of(result: Mapping[str, Any]) -> list[Line]:
    return [Line(**line) for line in result["lines"]]


def text(result: Mapping[str, Any]) -> str:
    """Aligned columns and the advice."""
    rows = [[*HEADER, *SELECTION], *(cells(line) for line in lines_of(result))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*table, "", *advice_lines(result)])


def advice_lines(result: Mapping[str, Any]) -> list[str]:
    """The advice and its cautions as sentences."""
    results = result["advice"]
    return [f"Advice for {result['data']}: {results['reason']}.", *(f"Caution: {one}." for one in results["cautions"])]


def markdown(result: Mapping[str, Any]) -> str:
    lines = [f"## {result['title']}", "", *(f"- {line}" for line in identity(result)), ""]
    lines += [*advice_lines(result), "", "| " + " | ".join([*HEADER, *SELECTION]) + " |"]
    lines += ["| --- | ---: | --- | " + " | ".join(["---:"] * (len(HEADER) + len(SELECTION) - 3)) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(cells(line)) + " |" for line in lines_of(result))])


def page(result: Mapping[str, Any]) -> str:
    """One HTML page that needs no network."""
    lines = lines_of(result)
    kinds = list(dict.fromkeys(line.kind for line in lines if line.rate))
    parts = [_section("Advice", "".join(f"<p>{html.escape(one)}</p>" for one in advice_lines(result)))]
    for kind in kinds:
        charts = [denoise_charts.accuracy_over_rate(lines, kind=kind)]
        if any(line.kind == kind and line.rate and line.found is not None for line in lines):
            charts.append(denoise_charts.selection(lines, kind=kind))
        parts.append(_section(f"{kind.capitalize()} noise", "".join(charts) + _margins(result, kind)))
    parts.append(_section("All numbers", _table(lines)))
    shown = "".join(f"<li>{html.escape(line)}</li>" for line in identity(result))
    return f"{_HEAD.format(title=html.escape(result['title']))}<ul>{shown}</ul>{''.join(parts)}</main></body></html>"


def _margins(result: Mapping[str, Any], kind: str) -> str:
    """Margin histograms over the epochs at the highest rate: standard training and one selecting method."""
    rates = [results["rate"] for results in result["histograms"] if results["kind"] == kind]
    mine = [results for results in result["histograms"] if results["kind"] == kind and results["rate"] == max(rates)]
    target = (FLOOR, next((results["method"] for results in mine if results["method"] not in (FLOOR, CEILING)), FLOOR))
    rows = []
    for results in (one for one in mine if one["method"] in target):
        counts = np.array(results["counts"])
        shown = [epoch for epoch in SHOWN_EPOCHS if epoch <= len(counts)]
        charts = [denoise_charts.margin_histogram(counts[epoch - 1], title=f"epoch {epoch}") for epoch in shown]
        rows.append(
            f"<h3>Margins, {results['method']}, {results['rate']:.0%}</h3><div class='row'>{''.join(charts)}</div>"
        )
    return "".join(rows)


def _table(lines: Sequence[Line]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in [*HEADER, *SELECTION])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(line)) + "</tr>" for line in lines
    )
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; --ink: #1c2430; --soft: #5c6675; --line: #d9dee6; --card: #fff; --page: #f4f6f9; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6eaf0; --soft: #9aa5b4; --line: #313947; --card: #1b212b; --page: #12161d; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }}
main {{ max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }}
h1 {{ font-size: 28px; margin: 0 0 4px; }} h2 {{ font-size: 19px; margin: 0 0 8px; }}
h3 {{ font-size: 14px; margin: 20px 0 6px; color: var(--soft); }}
ul {{ padding-left: 20px; color: var(--soft); overflow-wrap: anywhere; }}
section {{ background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 24px;
  margin: 16px 0; }}
.scroll {{ overflow-x: auto; }} .row {{ display: flex; flex-wrap: wrap; gap: 4px; }}
.row svg {{ width: 24%; min-width: 200px; }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; border-bottom: 1px solid var(--line); padding: 4px 12px 4px 0; white-space: nowrap; }}
th {{ color: var(--soft); }} svg {{ max-width: 100%; height: auto; }}
</style></head><body><main><h1>{title}</h1>"""
