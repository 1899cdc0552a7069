"""What `rmkit bench crossval` shows: a table, a chart and the results page."""

from __future__ import annotations

import platform
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.reports.charts import COLORS
from rmkit.revision import versions

SHOWN = {
    "length": "length rule",
    "frozen": "frozen encoder + head",
    "without_length": "the same, without length",
    "people": "a held-out vote",
}


def setting() -> dict[str, object]:
    """The versions that the numbers depend on."""
    return {"python": platform.python_version(), "versions": versions("torch", "transformers", "numpy")}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: one line a set (and one for each file of a pooled set), accuracies in percent with 95% intervals."""
    lines = [
        "| set | decided rows | families | length rule | head | head - rule | without length | it - rule |",
        "| --- | ---: | ---: | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        lines.append(_line(f"**{name}**", result))
        lines += [_line(f"- {file.split('.')[0]}", part) for file, part in result["parts"].items()]
    requests = {name: result["people"] for name, result in results.items() if result["people"]}
    if requests:
        lines += [
            "",
            "| set | rows with three votes or more | length rule | head | without length | a person | person - head |",
            "| --- | ---: | --- | --- | --- | --- | --- |",
        ]
        lines += [_people(name, people) for name, people in requests.items()]
    return "\n".join(lines)


def _line(name: str, result: Mapping[str, Any]) -> str:
    accuracy, gain = result["accuracy"], result["gain"]
    length = accuracy["length"]
    families = length["interval"]["n_clusters"] if length["interval"] else 1
    cells = [_percent(length) + f", {length['numerator']:.0f}" + (f", {length['ties']} ties" if length["ties"] else "")]
    for head in ("frozen", "without_length"):
        cells += [f"{_percent(accuracy[head])}, {accuracy[head]['numerator']:.0f}", _percent(gain[head], signed=True)]
    return f"| {name} | {length['n']} | {families} | {' | '.join(cells)} |"


def _people(name: str, people: Mapping[str, Any]) -> str:
    cells = [_percent(people["accuracy"][who]) for who in ("length", "frozen", "without_length", "people")]
    cells.append(_percent(people["people_minus"]["frozen"], signed=True))
    return f"| {name} | {people['rows']} | {' | '.join(cells)} |"


def _percent(result: Mapping[str, Any], *, signed: bool = False) -> str:
    sign, interval = "+" if signed else "", result["interval"]
    value = f"{100 * result['value']:{sign}.1f}"
    return f"{value} [{100 * interval['low']:{sign}.1f}, {100 * interval['high']:{sign}.1f}]" if interval else value


def plot(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Accuracies with intervals per set; people on the rows that have three votes or more."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.9 * len(results) + 1.2))
    names = list(results)
    for index, (who, label) in enumerate(SHOWN.items()):
        result = [(y, one) for y, name in enumerate(names) if (one := _shown(results[name], who)) is not None]
        at = [len(names) - 1 - y + 0.2 * (1.5 - index) for y, _ in result]
        value = [100 * one["value"] for _, one in result]
        ends = [(100 * one["interval"]["low"], 100 * one["interval"]["high"]) for _, one in result]
        error = [[v - low for v, (low, _) in zip(value, ends, strict=True)]]
        error.append([high - v for v, (_, high) in zip(value, ends, strict=True)])
        axes.errorbar(value, at, xerr=error, fmt="o", color=COLORS[index], label=label, capsize=3)
    axes.axvline(50, color="#888888", linewidth=1, linestyle="--")
    axes.set_yticks(
        range(len(names)), [f"{name} ({results[name]['accuracy']['length']['n']})" for name in reversed(names)]
    )
    axes.set_ylim(-0.55, len(names) - 0.45)
    axes.set_xlabel("accuracy, %, with 95% interval (rows in brackets)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _shown(result: Mapping[str, Any], who: str) -> Mapping[str, Any] | None:
    shown = (result["people"] or {"accuracy": {}})["accuracy"] if who == "people" else result["accuracy"]
    results = shown.get(who)
    return results if results and results["interval"] else None


def write(page: Path, result: Mapping[str, Any], *, argv: Sequence[str], plot: Path | None) -> None:
    """The results page, complete: what was asked, the numbers, the data and the versions."""
    results = result["sets"]
    named = [Path(one).name if one.endswith((".md", ".svg", ".png")) else _bare(one) for one in argv]
    lines = [
        "# Benchmark on people's preferences: a frozen encoder by cross-validation",
        "",
        f"    {shlex.join(['rmkit', 'bench', 'crossval', *named])}",
        "",
        *_ABOUT.format(folds=result["folds"]).splitlines(),
        "",
        table(results),
        "",
    ]
    if plot is not None:
        lines += [f"![accuracies with intervals]({plot.name})", ""]
    lines += ["## Data and choices", ""]
    lines += [_data(name, one) for name, one in results.items()]
    installed = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    encoder = next(iter(results.values()))["encoder"]
    lines += ["", f"Encoder {encoder['name']} (`{encoder['fingerprint']}`, {encoder['dtype']} features); Python"]
    lines += [f"{result['python']}, {installed}; seed {result['seed']}."]
    page.write_text("\n".join(lines) + "\n")


def _bare(inputs: str) -> str:
    """NAME=FILE,FILE without folders, which are of this machine."""
    name, equals, files = inputs.partition("=")
    return f"{name}={','.join(Path(file).name for file in files.split(','))}" if equals else inputs


def _data(name: str, result: Mapping[str, Any]) -> str:
    files = ", ".join(f"`{file}` (sha256 {sha256[:12]})" for file, sha256 in result["files"].items())
    left = "; ".join(f"{count} left out: {reason}" for reason, count in result["skipped"].items())
    chosen = Counter(head["frozen"]["head"] for head in result["heads"])
    heads = ", ".join(f"{name} ({count})" for name, count in sorted(chosen.items()))
    undecided = result["accuracy"]["length"]["undecided"]
    return (
        f"- **{name}**: {files}; {result['rows']} rows, {undecided} of them undecided, {result['families']} families "
        f"(largest {result['largest_family']} rows){'; ' + left if left else ''}; heads chosen: {heads}."
    )


_ABOUT = """\
Features of a frozen encoder (mean of the last hidden states of prompt and of reply, 256 tokens each) and a small head,
{folds} folds by prompt family: each row is predicted by a head that saw neither it nor a row of its family. `head` is
that of `rmkit train frozen` with its defaults: of linear and hidden ones, each with and without the reply's log length
(alone and times the prompt's features) among its inputs, the one with the lowest validation log loss. `without length`
is the same choice among heads that cannot read the length. The length rule says that the longer reply is better.
Accuracy in percent on the rows whose label is decided, with the count of right rows; a tie of the rule earns nothing.
Square brackets are 95% intervals over resampled families; differences are paired row by row.

Where a row has three votes or more, each vote is held out in turn, and the person and the models must name the reply
that most of the others name. That is the ceiling: what one person reaches against other people, on the same rows."""
