"""`rmkit probe cycles MODEL --data D`: do a model's preferences go round, and what would a score lose by that?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from evaluation.probes.games import Game, preference_matrix, solution
from evaluation.reports.json_ready import without_nan, write_json
from evaluation.suites.evaluator import select
from evaluation.suites.load import load_items
from evaluation.suites.suite import load_suite
from rmkit.cli import arguments, display
from rmkit.errors import DataError
from rmkit.judge.tally import judging_lines, report_of
from rmkit.models import load_model
from rmkit.types import Candidates, RewardModel

KEYS = ("nash", "bradley_terry_best", "bradley_terry_softmax")
DEFAULT_LIMIT = 100


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "probe cycles",
        "Ask a model for every pair of a prompt's replies; report cycles, Nash weights and exploitability.",
        examples=[
            "probe cycles judge.toml --suite rewardbench2 --data bench_rewardbench2.jsonl.gz --limit 50",
            "probe cycles models/a --suite rewardbench2 --json      # the matrix of every prompt's replies",
        ],
    )
    parser.add_model()
    parser.add_device()
    parser.add_suite(help="a suite with three replies a prompt or more")
    parser.add_limit(DEFAULT_LIMIT, help="prompts to ask")
    parser.add_output("also write the result as JSON")
    options = parser.parse_args(argv)
    suite = load_suite(options.suite)
    loaded = load_items(suite, options.data, allow_changed=options.allow_changed)
    several = [item for item in loaded.items if item.candidates and len(item.candidates.completions) >= 3]
    if not several:
        raise DataError(f"{loaded.source}: no prompt with three replies or more, so nothing can go round")
    model = load_model(options.model)
    requests = select(several, options.limit)
    results = cycles({item.id: item.candidates for item in requests if item.candidates}, model)
    facts = {"suite": suite.name, "suite_hash": suite.hash(loaded.digests), "model": model.info.name}
    facts |= {"fingerprint": model.info.fingerprint, "command": arguments.command_line("probe cycles", argv)}
    result = facts | results | {"judging": report_of(model)}
    if options.output:
        write_json(options.output, without_nan(result))
    display.emit(result, as_json=options.json, text=table(result))
    return 0


def cycles(pools: Mapping[str, Candidates], model: RewardModel) -> dict[str, object]:
    """Every pool's game, and all of them together. Pools with an unscored comparison are counted and left out."""
    games: dict[str, Game] = {}
    with display.progress(f"asking {model.info.name}", len(pools)) as advance:
        for name, pool in pools.items():
            games[name] = preference_matrix(model, pool)
            advance(1)
    solved = {
        name: solution(game.preference) | {"preference": game.preference.tolist()}
        for name, game in games.items()
        if not game.unscored
    }
    cyclic = [one for one in solved.values() if one["cycles"]]
    return {
        "prompts": len(games),
        "unscored": len(games) - len(solved),
        "cyclic": len(cyclic),
        "swap_gap": fmean(game.swap_gap for game in games.values()),
        "exploitability": {"all": _means(list(solved.values())), "cyclic": _means(cyclic)},
        "games": solved,
    }


def _means(games: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    return {key: fmean(one["exploitability"][key] for one in games) if games else None for key in KEYS}


def table(result: Mapping[str, Any]) -> str:
    """The result as text."""
    solved = result["prompts"] - result["unscored"]
    share = 100 * result["cyclic"] / solved if solved else math.nan
    lines = [
        f"{result['model']} ({result['fingerprint'][:12]}) on {result['prompts']} prompts of {result['suite']}",
        f"  preferences go round: {result['cyclic']} / {solved} ({share:.1f}%); unscored: {result['unscored']}; "
        f"mean swap gap {result['swap_gap']:.3f}",
    ]
    rows = [
        [label, *(display.number(result["exploitability"][name][key]) for key in KEYS)]
        for name, label in (("all", "all prompts"), ("cyclic", "with a cycle"))
    ]
    header = ("exploitability", "Nash", "best score", "softmax of scores")
    lines += [display.table(header, rows, indent="  "), "  0.5: nothing beats it more often than not"]
    return "\n".join([*lines, *judging_lines(result)])
