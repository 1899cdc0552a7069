"""`rmkit probe perturb MODEL --suite S`: does the model fall for flattery, repetition, cut-off replies and list marks?

`rmkit probe shift ...` is the probe of two models under distribution shift (evaluation.probes.shift_command),
`rmkit probe cycles ...` that of preferences that go round (evaluation.probes.cycles_command).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.probes.perturb import perturb_probe
from evaluation.reports.json_ready import without_nan, write_json
from evaluation.suites.evaluator import select
from evaluation.suites.load import load_items
from evaluation.suites.suite import load_suite
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.errors import DataError, UsageError
from rmkit.judge.tally import judging_lines, report_of
from rmkit.models import load_model

BEST_FIRST = ("pairs", "first_best", "best_of", "rmbench", "judgebench")
DEFAULT_LIMIT = 200


def perturb(argv: list[str]) -> int:
    parser = arguments.parser(
        "probe perturb",
        "Change good replies in ways that must not earn more (cut off, repeated, flattering ...); see what it scores.",
        examples=[
            "probe perturb models/a --suite xstest --data bench_xstest.jsonl.gz",
            "probe perturb a --suite pairs --data mine.jsonl",
        ],
    )
    parser.add_model()
    parser.add_device()
    parser.add_suite(help="a suite whose first candidate is the better one")
    parser.add_limit(DEFAULT_LIMIT, help="replies to change")
    parser.add_output("also write the result as JSON")
    options = parser.parse_args(argv)
    suite = load_suite(options.suite)
    if suite.form not in BEST_FIRST:
        raise UsageError(f"suite {suite.name} does not say which reply is the best; probe one of pairs, e.g. xstest")
    loaded = load_items(suite, options.data, allow_changed=options.allow_changed)
    model = load_model(options.model)
    first = list({item.cluster: item for item in reversed(loaded.items)}.values())[::-1]
    items = select(first, options.limit)
    if not items:
        raise DataError(f"{loaded.source}: nothing to probe")
    with display.progress(f"probing {model.info.name}", len(items)) as advance:
        results = perturb_probe(model, items, advance=advance)
    result = {
        "suite": suite.name,
        "suite_hash": suite.hash(loaded.digests),
        "model": model.info.name,
        "fingerprint": model.info.fingerprint,
        "command": arguments.command_line("probe perturb", argv),
        "judging": report_of(model),
        **results,
    }
    if options.output:
        write_json(options.output, without_nan(result))
    display.emit(result, as_json=options.json, text=table(result))
    return 0


def table(result: Mapping[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['model']} ({result['fingerprint'][:12]}) on {result['replies']} good replies of {result['suite']}",
    ]
    header = ("change", "must be", "rose", "percent", "95% interval", "fell", "same", "unscored", "mean change (sd)")
    rows = []
    for name, one in result["perturbations"].items():
        rose = one["rose"]
        counts = (f"{rose['numerator']} / {rose['denominator']}", display.number(rose["percent"], ".1f"))
        rest = (display.interval(rose, ".1f"), one["fell"], one["unchanged"], one["unscored"])
        mean = display.number(one["mean_change"], "+.2f")
        rows.append((name, "lower" if one["expected"] == "worse" else "equal", *counts, *rest, mean))
    return "\n".join([*lines, display.table(header, rows, indent="  "), *judging_lines(result)])


main = Verbs(
    "probe",
    "What a model should not fall for, and what two models make of shifted data.",
    {
        "perturb": Command(perturb, "changed replies that must not earn more: cut off, repeated, flattering ..."),
        "shift": Command("evaluation.probes.shift_command:main", "two models on pairs in and out of distribution"),
        "implicit": Command("evaluation.probes.shift_study:main", "trains explicit and implicit models, and compares"),
        "cycles": Command("evaluation.probes.cycles_command:main", "do preferences go round, and what that costs"),
    },
    examples=[
        "probe perturb models/a --suite xstest --data bench_xstest.jsonl.gz",
        "probe shift a dpo_logprobs.jsonl --cell id=hh@v2 --cell prompt=webgpt@v1",
        "probe cycles judge.toml --suite rewardbench2",
    ],
)
