"""`rmkit eval`: reward models on a dataset's split or a benchmark, resumable, or from other people's stored scores."""

from __future__ import annotations

from pathlib import Path

from evaluation.front import evaluate
from evaluation.suites import results
from evaluation.suites.stored_scores import check_stored
from evaluation.suites.suite import names
from evaluation.suites.version import DEFAULT_SPLIT
from rmkit.cli import arguments, display
from rmkit.cli.arguments import Parser
from rmkit.errors import UsageError


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "eval",
        "Evaluate reward models on the pairs of a dataset, or on a benchmark by its own scoring rules: "
        f"{', '.join(names())}, or a .toml of yours.",
        examples=[
            "eval models/hh-lexical length --data hh@v2",
            "eval A B --data hh@v2 --split validation -o hh.json",
            "eval models/hh-lexical length --suite rm-bench --data bench_rmbench.jsonl.gz",
            "eval models/hh-lexical --suite rewardbench --limit 50      # from the hub, a smoke run",
            "eval models/hh-lexical --suite my_suite.toml --data hh@v2 -o report.html",
            "eval --suite rewardbench --from-scores eval-set-scores/model.json",
        ],
    )
    parser.add_models(nargs="*")
    parser.add_device()
    add_evaluation(parser)
    parser.add_limit(help="only so many items, taken in turn from the subsets: a smoke run")
    parser.add_argument("--from-scores", type=Path, metavar="FILE|FOLDER", help="score what a run has stored")
    parser.add_argument("--fresh", action="store_true", help="forget the answers of an earlier, unfinished run")
    parser.add_output("also write a report: .html, .md, .json or .yaml")
    options = parser.parse_args(argv)
    if options.from_scores and (options.models or options.data or options.limit):
        raise UsageError("--from-scores takes no model, no --data and no --limit: the file holds the scores")
    if options.from_scores:
        check_stored(options.from_scores)
    result = evaluate(
        [options.from_scores] if options.from_scores else options.models,
        data=options.data,
        suite=options.suite,
        split=options.split,
        ties=options.ties,
        limit=options.limit,
        allow_changed=options.allow_changed,
        fresh=options.fresh,
        command=arguments.command_line("eval", argv),
    ).as_json()
    if options.output:
        from evaluation.reports.suite import write_report

        write_report(result, options.output)
    display.emit(result, as_json=options.json, text=results.table(result))
    return 0


def add_evaluation(parser: Parser) -> None:
    """What `rmkit eval` and `rmkit compare` take to say on what, and how ties count."""
    parser.add_suite(required=False, help="a suite's name, or the path of a .toml (default pairs, of a dataset)")
    parser.add_split(DEFAULT_SPLIT, help="split of a dataset, or all")
    parser.add_argument(
        "--ties", choices=("zero", "half"), help="what equal scores earn in pairs (default: see --suite)"
    )
