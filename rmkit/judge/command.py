"""`rmkit judge JUDGE.toml DATA`: a language model judges a dataset version, within a budget, each answer paid once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rmkit.cli import display as console
from rmkit.data.example import Example
from rmkit.data.export_folder import dataset_of, examples_of, export_folder
from rmkit.errors import DataError, UsageError
from rmkit.generate.call_cache import bill
from rmkit.generate.estimate import estimate
from rmkit.judge.config import third_table
from rmkit.judge.judgment_events import judgment_event, record_judgments
from rmkit.judge.model import Context, Judge, Judged, load_judge
from rmkit.judge.tally import judging_lines
from rmkit.ledger import Ledger, open_ledger
from rmkit.plugins import upper
from rmkit.types import Candidates

RECORD_AT_ONCE = 200


def main(argv: list[str]) -> int:
    """Status 1 where the budget ended before the data, or where no verdict could be read."""
    if argv[:1] == ["bill"]:
        return _bill(argv[1:])
    options = _parser().parse_args(argv)
    if table := third_table(options.judge):
        raise UsageError(
            f"{options.judge} has a table [{table}], which makes it a model; use it with rmkit eval or score"
        )
    with open_ledger() as ledger:
        judge = load_judge(options.judge, ledger=ledger, max_usd=options.max_usd, max_tokens=options.max_tokens)
        try:
            folder = export_folder(options.data)
            examples = _examples(folder, options.split, options.limit)
            result: dict[str, Any] = {"judge": judge.info.name, "fingerprint": judge.info.fingerprint}
            result |= {"prompt": judge.prompt.name, "dataset": dataset_of(folder)["ref"] or str(folder)}
            queries = [(example.candidates, _context(example, judge)) for example in examples]
            result |= {"rows": len(queries), "with_rubric": sum(bool(context.rubric) for _, context in queries)}
            result |= {"with_reference": sum(bool(context.reference) for _, context in queries)}
            if options.dry_run:
                requests = (request for item, context in queries for _, request in judge.requests(item, context))
                result |= estimate(requests, judge.engine.generator, ledger) | {"dry_run": True}
            else:
                result |= _run(judge, examples, queries, ledger, output=options.output, record=options.record)
        finally:
            judge.close()
    console.emit(result, as_json=options.json, text=_text(result))
    return int(not options.dry_run and (result["judging"]["budget_spent"] or result["unscored"] == result["rows"]))


def _bill(argv: list[str]) -> int:
    """Every call that was ever paid, by model and purpose."""
    argument_parser = console.parser(
        "judge bill", "What all calls in the ledger cost, dearest first.", examples=["judge bill"]
    )
    options = argument_parser.parse_args(argv)
    with open_ledger(read_only=True) as ledger:
        rows = bill(ledger)
    lines = [f"{'usd':>10} {'calls':>8} {'prompt tokens':>14} {'completion':>11}  purpose, model"]
    for row in rows:
        counts = f"{row['usd']:>10.4f} {row['calls']:>8,} {row['prompt_tokens']:>14,} {row['completion_tokens']:>11,}"
        lines.append(f"{counts}  {row['purpose']}, {row['generator']}")
    console.emit({"bill": rows}, as_json=options.json, text="\n".join(lines) if rows else "no call was made yet")
    return 0


def _parser() -> Any:
    argument_parser = console.parser(
        "judge",
        "Judge a dataset version with a language model: a TOML with the tables [judge] and [generator].",
        examples=[
            "judge judge.toml hh@v2 --split test --dry-run",
            "judge judge.toml hh@v2 --split test --max-usd 2 --record -o verdicts.jsonl",
            "judge bill",
        ],
    )
    argument_parser.add_argument("judge", type=Path, help="the judge's TOML file")
    argument_parser.add_argument("data", help="dataset version NAME@VERSION, or an export folder")
    argument_parser.add_argument("--split", default="all", help="one split only (default: all rows)")
    argument_parser.add_argument("--limit", type=int, help="the first so many rows")
    argument_parser.add_argument(
        "--dry-run", action="store_true", help="count calls and estimate the cost; call nobody"
    )
    argument_parser.add_argument("--max-usd", type=float, help="stop before the calls of this run could cost more")
    argument_parser.add_argument(
        "--max-tokens", type=int, help="stop before the calls of this run could use more tokens"
    )
    argument_parser.add_argument(
        "--record", action="store_true", help="append the verdicts to the ledger, beside people's votes"
    )
    argument_parser.add_argument("-o", "--output", type=Path, help="write one JSON line per row")
    return argument_parser


def _examples(folder: Path, split: str, limit: int | None) -> list[Example]:
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    result = [example for example in examples_of(folder, split) if example.row["responses"]]
    if not result:
        raise DataError(f"{folder} has no row with responses in split {split!r}; a judge needs some")
    return result[:limit]


def _context(example: Example, judge: Judge) -> Context:
    """The row's own rubric and reference answer."""
    result: Context = upper("row_context")(example.row, rubric=judge.config.rubric)
    return result


def _run(
    judge: Judge,
    examples: Sequence[Example],
    requests: Sequence[tuple[Candidates, Context]],
    ledger: Ledger,
    *,
    output: Path | None,
    record: bool,
) -> dict[str, Any]:
    recorded = unscored = 0
    pairs = zip(examples, judge.judged_under(requests), strict=True)
    with console.progress("judging", len(examples)) as advance, _lines(output) as write:
        while chunk := list(islice(pairs, RECORD_AT_ONCE)):
            for example, result in chunk:
                line = _line(judge, example, result)
                unscored += line["unscored"] is not None
                write(line)
                advance(1)
            if record:
                events = [judgment_event(judge, result, unit=example.row["unit"]) for example, result in chunk]
                recorded += record_judgments(ledger, [event for event in events if event])
    return {"unscored": unscored, "recorded": recorded if record else None, "judging": judge.report()}


@contextlib.contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], object]]:
    """A function that writes JSON lines to the file, or nowhere."""
    if path is None:
        yield lambda line: None
        return
    with path.open("w") as file:
        yield lambda line: file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _line(judge: Judge, example: Example, judged: Judged) -> dict[str, Any]:
    line: dict[str, Any] = {"id": example.id, "unit": example.row["unit"]}
    if len(judged.candidates.completions) == 2:
        answer = judge.comparison_of(judged)
        line |= {"p_first": None if answer.unscored else answer.p_first, "swap_gap": answer.swap_gap}
        reason = answer.unscored
    else:
        scores = judged.scores()
        line["scores"] = [None if score.unscored else score.value for score in scores]
        reason = next((score.unscored for score in scores if score.unscored), None)
    votes = [
        {"shown": list(vote.shown), "values": list(vote.reading.values), "unread": vote.reading.unread}
        for vote in judged.votes
    ]
    return line | {"unscored": reason, "votes": votes, "rationale": judged.votes[0].sample.text}


def _text(result: Mapping[str, Any]) -> str:
    """Aligned lines; a judge's own report in the words that all commands share."""
    shown = {name: value for name, value in result.items() if name != "judging" and value is not None}
    shown = {name: f"{value:,}" if type(value) is int else value for name, value in shown.items()}
    width = max(map(len, shown))
    lines = [f"{name.replace('_', ' '):<{width}}  {value}" for name, value in shown.items()]
    return "\n".join([*lines, *judging_lines(result)])
