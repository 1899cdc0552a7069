"""`rmkit leaderboard`: every finished benchmark result under $RMKIT_HOME, best first.

Results are only put side by side when suite, data and scoring are the same (equal suite hash). The order is by the
number over all items, in which an unscored one earns what the suite's own count gives it: a model that scored one item,
rightly, does not lead. A model is marked as level with the best one when the paired test between them, over all items
too and corrected over the table (Holm), does not tell them apart at 5%. Where the headline is missing because a part of
the data is, the order is by the mean of what is there, and the table says so. Elo comes from the games on shared scored
items in the cells of the headline (evaluation.registry.ratings).

The test and Elo need the suite's rules: a suite that is not shipped is named by its file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.registry.ratings import elo, games
from evaluation.scoring.measures import cells_of_measures
from evaluation.scoring.paired import differences, holm
from evaluation.suites.items import Credit, of_all
from evaluation.suites.journal import RESULT, read_credits, read_result
from evaluation.suites.results import count_rule
from evaluation.suites.suite import Suite, load_suite, names
from rmkit import paths
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.errors import DataError

LEVEL_P = 0.05


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "leaderboard",
        "Every finished benchmark result, best first, with intervals and what cannot be told apart.",
        examples=["leaderboard", "leaderboard --suite rm-bench -o leaderboard.md", "leaderboard --suite mine.toml"],
    )
    parser.add_argument("--suite", help="only this suite: its name, or its .toml file where it is your own")
    parser.add_output("also write the tables as Markdown")
    options = parser.parse_args(argv)
    boards = leaderboards(paths.home() / "runs" / "eval", suite=options.suite)
    text = "\n\n".join(markdown(board) for board in boards)
    if options.output:
        write_text(options.output, text + "\n")
    display.emit({"boards": boards}, as_json=options.json, text=text)
    return 0


def leaderboards(folder: Path, *, suite: str | None = None) -> list[dict[str, object]]:
    """One JSON-ready table per suite hash, largest first. Raises DataError where there is no result at all."""
    own = load_suite(suite) if suite is not None and suite.endswith(".toml") else None
    suite = own.name if own else suite
    groups: dict[tuple[str, str], list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(folder.glob(f"*/{RESULT}")):
        result = read_result(path)
        if suite in (None, result["suite"]):
            groups.setdefault((result["suite"], result["suite_hash"]), []).append((path.parent, result))
    if not groups:
        of_suite = f" for suite {suite}" if suite else ""
        raise DataError(f"no finished result{of_suite} under {folder}; make one with: rmkit eval MODEL --suite NAME")
    ordered = sorted(groups.items(), key=lambda entry: (entry[0][0], -len(entry[1])))
    return [_board(group, own or _suite(name)) for (name, _), group in ordered]


def _board(group: Sequence[tuple[Path, dict[str, Any]]], suite: Suite | None) -> dict[str, object]:
    facts = group[0][1]
    ordered = sorted(group, key=lambda entry: -_value(entry[1]["models"][0]["measures"][facts["headline"]]))
    credits = [read_credits(folder) for folder, _ in ordered]
    rows = [_row(result["models"][0], result.get("command", "")) for _, result in ordered]
    ratings, no_elo = _ratings(facts, suite, credits)
    for row, rating, level in zip(rows, ratings, _level(facts, suite, credits), strict=True):
        row |= {"elo": rating, **level}
    keys = (
        "suite",
        "title",
        "paper",
        "license",
        "headline",
        "suite_hash",
        "data",
        "digests",
        "missing",
        "changed",
    )
    return {key: facts[key] for key in (*keys, "unscored")} | {"no_elo": no_elo, "models": rows}


def _ratings(
    facts: Mapping[str, Any], suite: Suite | None, credits: Sequence[Sequence[Credit]]
) -> tuple[list[float | None], str | None]:
    """The Elo of every model, None for one without a game; and why there are none at all."""
    nothing: list[float | None] = [None] * len(credits)
    if len(credits) < 2:
        return nothing, None
    if suite is None:
        return nothing, f"the rules of suite {facts['suite']} are needed: name its file with --suite"
    cells = list(dict.fromkeys(credit.cell for table in credits for credit in table))
    try:
        ratings = elo(games(credits, cells_of_measures(suite, cells)[facts["headline"]]))
    except DataError as error:
        return nothing, str(error)
    return [None if math.isnan(rating) else round(float(rating), 1) for rating in ratings], None


def _value(measure: Mapping[str, Any]) -> float:
    """What a measure is ordered by, over all items: its percent, else the mean of what is there, else nothing."""
    whole = measure["of_all"]
    percent = whole["percent"] if whole["percent"] is not None else whole.get("of_present")
    return float("-inf") if percent is None else float(percent)


def _row(model: Mapping[str, Any], command: str) -> dict[str, object]:
    keys = ("name", "kind", "fingerprint", "items", "measures", "unscored", "wall_s")
    return {key: model.get(key) for key in keys} | {"command": command}


def _level(
    facts: Mapping[str, Any], suite: Suite | None, credits: Sequence[Sequence[Credit]]
) -> list[dict[str, object]]:
    """Of every model: the corrected p against the best one, and whether it is level with it."""
    if suite is None or len(credits) < 2:
        return [{"p_holm": None, "level_with_best": index == 0} for index in range(len(credits))]
    relaxed, target = present_only(suite, facts["missing"]), [facts["headline"]]
    first, *others = map(of_all, credits)
    result = [differences(relaxed, first, other, measures=target, resamples=1)[0].p for other in others]
    adjusted = holm([1.0 if math.isnan(p) else p for p in result])
    behind: list[dict[str, object]] = [{"p_holm": round(p, 6), "level_with_best": p >= LEVEL_P} for p in adjusted]
    return [{"p_holm": None, "level_with_best": True}, *behind]


def present_only(suite: Suite, missing: Sequence[str]) -> Suite:
    """The suite with its missing subsets optional, so that totals are means of what is there."""
    subsets = tuple(replace(subset, optional=subset.optional or subset.name in missing) for subset in suite.subsets)
    return replace(suite, subsets=subsets)


def _suite(name: str) -> Suite | None:
    """The suite, None for one that is not shipped: its file may be anywhere, and a path in a result is not trusted."""
    return load_suite(name) if name in names() else None


def markdown(board: Mapping[str, Any]) -> str:
    """The table as Markdown, everything that identifies it above."""
    headline = board["headline"]
    shown = [name for name in next(iter(board["models"]))["measures"] if name != headline]
    present = [name for name in shown if any(_shown(row["measures"][name]) != "-" for row in board["models"])]
    lines = [
        f"### {board['title']}",
        "",
        f"Suite `{board['suite']}`, hash `{board['suite_hash']}`, data {board['data']}.",
    ]
    if board["missing"]:
        lines.append(f"Missing: {', '.join(board['missing'])}. Numbers in brackets are means of what is there.")
    lines += [f"Changed: {change}." for change in board["changed"]]
    lines += [f"No Elo: {board['no_elo']}."] if board["no_elo"] else []
    head = ["", "model", headline, "95% interval", "right / of", "ties", "unscored", "of all", "Elo", *present]
    rows = [_cells(place, row, headline, present) for place, row in enumerate(board["models"], 1)]
    lines += ["", display.markdown(head, rows)]
    lines += ["", f"The order is by `of all`: {count_rule(board)}."]
    lines += ["", "`=` cannot be told apart from the first (paired test, Holm over the table, 5%). Fingerprints: "]
    lines[-1] += ", ".join(f"{row['name']} `{row['fingerprint']}`" for row in board["models"]) + "."
    return "\n".join(lines)


def _cells(place: int, row: Mapping[str, Any], headline: str, others: Sequence[str]) -> list[str]:
    main_measure = row["measures"][headline]
    counted = main_measure["numerator"]
    return [
        f"{place}{'=' if row['level_with_best'] and place > 1 else ''}",
        row["name"],
        _shown(main_measure),
        display.interval(main_measure, ".1f"),
        "-" if counted is None else f"{counted:.6g} / {main_measure['denominator']:.6g}",
        str(main_measure["ties"]),
        str(main_measure["unscored"]),
        _shown(main_measure["of_all"]),
        display.number(row["elo"], ".0f"),
        *(_shown(row["measures"][name]) for name in others),
    ]


def _shown(measure: Mapping[str, Any]) -> str:
    """The percent; in brackets the mean of what is there; a dash where there is nothing."""
    if measure["percent"] is not None:
        return f"{measure['percent']:.1f}"
    present = measure.get("of_present")
    return "-" if present is None else f"({present:.1f})"
