"""`rmkit probe MODEL --suite S`: does the model fall for flattery, repetition, cut-off replies and list marks?

`rmkit probe shift ...` is the probe of two models under distribution shift (evaluation.probes.shift_command),
`rmkit probe cycles ...` that of preferences that go round (evaluation.probes.cycles_command).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.probes.perturb import perturb_probe
from evaluation.reports.json_ready import without_nan, write_json
from evaluation.suites.evaluator import select
from evaluation.suites.load import load_items
from evaluation.suites.suite import load_suite
from rmkit.cli import display as console
from rmkit.errors import DataError, UsageError
from rmkit.judge.tally import judging_lines, report_of
from rmkit.models import load_model

BEST_FIRST = ("pairs", "best_of", "rmbench", "judgebench")
DEFAULT_LIMIT = 200


def main(argv: list[str]) -> int:
    if argv[:1] == ["shift"]:
        from evaluation.probes.shift_command import main as shift

        return shift(argv[1:])
    if argv[:1] == ["cycles"]:
        from evaluation.probes.cycles_command import main as cycles

        return cycles(argv[1:])
    parser = console.parser(
        "probe",
        "Change good replies in ways that must not earn more (cut off, repeated, flattering ...); see what it scores.",
        examples=[
            "probe models/a --suite xstest --data bench_xstest.jsonl.gz",
            "probe a --suite pairs --data mine.jsonl",
            "probe shift a dpo_logprobs.jsonl --cell id=hh@v2 --cell prompt=webgpt@v1    # probe shift --help",
            "probe cycles judge.toml --suite rewardbench2                                # probe cycles --help",
        ],
    )
    parser.add_argument("model", help="artifact folder, a name under $RMKIT_HOME/models, or `length`")
    parser.add_argument("--suite", required=True, help="a suite whose first candidate is the better one")
    parser.add_argument("--data", help="file or folder of the data (default $RMKIT_BENCHMARKS, else the hub)")
    parser.add_argument("--limit", type=int, default=DEFAULT_LIMIT, help=f"replies to change (default {DEFAULT_LIMIT})")
    parser.add_argument("--allow-changed", action="store_true", help="accept other counts or contents than declared")
    parser.add_argument("-o", "--output", type=Path, help="also write the result as JSON")
    options = parser.parse_args(argv)
    if options.limit < 1:
        raise UsageError(f"--limit must be 1 or more, got {options.limit}")
    suite = load_suite(options.suite)
    if suite.form not in BEST_FIRST:
        raise UsageError(f"suite {suite.name} does not say which reply is the best; probe one of pairs, e.g. xstest")
    loaded = load_items(suite, options.data, allow_changed=options.allow_changed)
    model = load_model(options.model)
    first = list({item.cluster: item for item in reversed(loaded.items)}.values())[::-1]
    items = select(first, options.limit)
    if not items:
        raise DataError(f"{loaded.source}: nothing to probe")
    with console.progress(f"probing {model.info.name}", len(items)) as advance:
        results = perturb_probe(model, items, advance=advance)
    result = {
        "suite": suite.name,
        "suite_hash": suite.hash(loaded.digests),
        "model": model.info.name,
        "fingerprint": model.info.fingerprint,
        "command": f"rmkit probe {shlex.join(argv)}",
        "judging": report_of(model),
        **results,
    }
    if options.output:
        write_json(options.output, without_nan(result))
    console.emit(result, as_json=options.json, text=table(result))
    return 0


def table(result: Mapping[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['model']} ({result['fingerprint'][:12]}) on {result['replies']} good replies of {result['suite']}",
        f"  {'change':<12} {'must be':>8} {'rose':>13} {'percent':>8} {'95% interval':>14} {'fell':>6} {'same':>6} "
        f"{'unscored':>8} {'mean change (sd)':>17}",
    ]
    for name, one in result["perturbations"].items():
        rose = one["rose"]
        percent = "-" if rose["percent"] is None else f"{rose['percent']:.1f}"
        between = "-" if rose["low"] is None else f"[{rose['low']:.1f}, {rose['high']:.1f}]"
        mean = "-" if one["mean_change"] is None else f"{one['mean_change']:+.2f}"
        must = "lower" if one["expected"] == "worse" else "equal"
        lines.append(
            f"  {name:<12} {must:>8} {rose['numerator']:>6} / {rose['denominator']:<4} {percent:>8} {between:>14} "
            f"{one['fell']:>6} {one['unchanged']:>6} {one['unscored']:>8} {mean:>17}"
        )
    return "\n".join([*lines, *judging_lines(result)])
