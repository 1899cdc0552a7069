"""`rmkit compare A B ... --suite S`: models on the same items, each against the first, with corrected tests."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.scoring.paired import differences, with_holm
from evaluation.suites.command import evaluate_models
from evaluation.suites.results import Evaluated
from evaluation.suites.suite import Suite, load_suite
from rmkit.cli import display as console
from rmkit.errors import UsageError
from rmkit.judge.tally import judging_lines


def main(argv: list[str]) -> int:
    parser = console.parser(
        "compare",
        "Compare reward models on the same benchmark items: differences, intervals, tests corrected for their number.",
        examples=[
            "compare models/a models/b --suite rm-bench --data bench_rmbench.jsonl.gz",
            "compare a.json b.json --suite rewardbench      # two files of stored scores",
        ],
    )
    parser.add_argument(
        "models", nargs="+", help="two or more models (or files of stored scores); the first is compared"
    )
    parser.add_argument("--suite", required=True, help="a suite's name, or the path of a .toml")
    parser.add_argument("--data", help="file or folder of the data (default $RMKIT_BENCHMARKS, else the hub)")
    parser.add_argument("--allow-changed", action="store_true", help="accept other counts or contents than declared")
    options = parser.parse_args(argv)
    result = compare(
        load_suite(options.suite),
        options.models,
        data=options.data,
        allow_changed=options.allow_changed,
        command=f"rmkit compare {shlex.join(argv)}",
    )
    console.emit(result, as_json=options.json, text=table(result))
    return 0


def compare(
    suite: Suite,
    models: Sequence[str],
    *,
    data: str | None = None,
    allow_changed: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """JSON-ready: what was measured on and, for every other model, the differences of the first from it."""
    if len(models) < 2:
        raise UsageError("name two models or more to compare")
    facts, result = evaluate_models(suite, models, data=data, allow_changed=allow_changed, command=command)
    return facts | {"first": _named(result[0]), "comparisons": against_first(suite, result)}


def against_first(suite: Suite, result: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """The first model minus every other one; p_holm over all tests of all of them together."""
    first, others = result[0], result[1:]
    results = [differences(suite, first.credits, other.credits) for other in others]
    corrected = iter(with_holm([one for part in results for one in part]))
    return [
        {"second": _named(other), "differences": [next(corrected).as_json() for _ in part]}
        for other, part in zip(others, results, strict=True)
    ]


def _named(one: Evaluated) -> dict[str, Any]:
    return {key: one.result.get(key) for key in ("name", "kind", "fingerprint", "judging")}


def table(result: Mapping[str, Any]) -> str:
    """The comparison as text."""
    lines = [f"{result['title']} ({result['suite']}, hash {result['suite_hash'][:12]}), data {result['data']}"]
    if result["missing"]:
        lines.append(f"  MISSING: {', '.join(result['missing'])}")
    for one in result["comparisons"]:
        lines += ["", f"{result['first']['name']} minus {one['second']['name']} (percent points)"]
        lines.append(
            f"  {'':<44} {'first':>7} {'second':>7} {'diff':>7} {'95% interval':>15} {'p':>8} {'Holm':>8} "
            f"{'only 1st':>8} {'only 2nd':>8} {'prompts':>7} {'unscored 1st, 2nd':>17}"
        )
        lines += [_line(difference) for difference in one["differences"]]
        for model in (result["first"], one["second"]):
            lines += [f"  {model['name']},{line}" for line in judging_lines(model)]
    return "\n".join(
        [*lines, "", "p: label swaps prompt by prompt; Holm: over all tests shown; unscored: left out of both"]
    )


def _line(one: Mapping[str, Any]) -> str:
    unscored = f"{one['unscored_first']}, {one['unscored_second']}"
    if one["difference"] is None:
        lost = not one["n"] and one["unscored_first"] + one["unscored_second"]
        why = f"nothing scored by both; unscored {unscored}" if lost else "parts are missing"
        return f"  {one['measure']:<44} {'-':>7} {'-':>7} {'-':>7}   ({why})"
    between = "-" if one["low"] is None else f"[{one['low']:+.2f}, {one['high']:+.2f}]"
    return (
        f"  {one['measure']:<44} {one['first']:>7.2f} {one['second']:>7.2f} {one['difference']:>+7.2f} {between:>15} "
        f"{one['p']:>8.4f} {one['p_holm']:>8.4f} {one['only_first']:>8} {one['only_second']:>8} {one['clusters']:>7} "
        f"{unscored:>17}"
    )
