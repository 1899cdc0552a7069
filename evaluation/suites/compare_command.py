"""`rmkit compare A B ...`: models on the same items, each against the first, with corrected tests."""

from __future__ import annotations

from evaluation.front import compare
from evaluation.suites.command import add_evaluation
from evaluation.suites.results import compared_table
from rmkit.cli import arguments, display


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "compare",
        "Compare reward models on the same items: differences, intervals, tests corrected for their number.",
        examples=[
            "compare models/a models/b --data hh@v2",
            "compare models/a models/b --suite rm-bench --data bench_rmbench.jsonl.gz",
            "compare a.json b.json --suite rewardbench      # two files of stored scores",
        ],
    )
    parser.add_models(help="two or more models, or files of stored scores; the first is compared with the others")
    parser.add_device()
    add_evaluation(parser)
    options = parser.parse_args(argv)
    result = compare(
        options.models,
        data=options.data,
        suite=options.suite,
        split=options.split,
        ties=options.ties,
        allow_changed=options.allow_changed,
        command=arguments.command_line("compare", argv),
    ).as_json()
    display.emit(result, as_json=options.json, text=compared_table(result))
    return 0
