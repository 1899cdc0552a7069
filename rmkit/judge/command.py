"""`rmkit judge run JUDGE.toml DATA`: a language model judges a dataset version within a budget, each call paid once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.data.example import Example
from rmkit.data.export_folder import Data, dataset_of, examples_of, export_folder
from rmkit.errors import DataError, UsageError
from rmkit.generate.call_cache import bill
from rmkit.generate.estimate import estimate
from rmkit.judge.config import third_table
from rmkit.judge.judged import (
    Judged,
)
from rmkit.judge.judgment_events import judgment_event, record_judgments
from rmkit.judge.model import (
    Context,
    Judge,
    load_judge,
)
from rmkit.judge.profile import profiles, source_text
from rmkit.judge.tally import judging_lines
from rmkit.ledger import Ledger, open_ledger
from rmkit.plugins import upper
from rmkit.types import Candidates

RECORD_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says about one row: `p_first` of a pair, `scores` [N] of anything else (None where unread)."""

    id: str
    unit: str
    p_first: float | None = None
    swap_gap: float | None = None
    scores: tuple[float | None, ...] | None = None
    unscored: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeResult:
    """What a judge did with a dataset. `estimate` holds the calls and cost of a dry run, which has no verdicts;
    `judging` what every report of a judge states; `recorded` the verdicts that are new in the ledger."""

    judge: str
    fingerprint: str
    prompt: str
    dataset: str
    rows: int
    with_rubric: int
    with_reference: int
    verdicts: tuple[Verdict, ...] = field(default=(), repr=False)
    recorded: int | None = None
    judging: Mapping[str, Any] | None = None
    estimate: Mapping[str, Any] | None = None

    @property
    def unscored(self) -> int:
        return sum(verdict.unscored is not None for verdict in self.verdicts)

    def as_json(self) -> dict[str, Any]:
        """What `rmkit judge --json` prints; the verdicts go to its -o file."""
        keys = ("judge", "fingerprint", "prompt", "dataset", "rows", "with_rubric", "with_reference")
        result: dict[str, Any] = {key: getattr(self, key) for key in keys}
        if self.estimate is not None:
            return result | {**self.estimate, "dry_run": True}
        return result | {"unscored": self.unscored, "recorded": self.recorded, "judging": self.judging}


def _run(argv: list[str]) -> int:
    """Status 1 where the budget ended before the data, or where no verdict could be read."""
    parser = arguments.parser(
        "judge run",
        "Judge a dataset version with a language model: a TOML with the tables [judge] and [generator].",
        examples=[
            "judge run judge.toml hh@v2 --split test --dry-run",
            "judge run judge.toml hh@v2 --split test --max-usd 2 --record -o verdicts.jsonl",
        ],
    )
    parser.add_argument("judge", type=Path, help="the judge's TOML file")
    parser.add_data("data")
    parser.add_split()
    parser.add_limit()
    parser.add_paid_calls()
    parser.add_argument(
        "--record", action="store_true", help="append the verdicts to the ledger, beside people's votes"
    )
    parser.add_output("write one JSON line per row")
    options = parser.parse_args(argv)
    result = judge(
        options.judge,
        options.data,
        split=options.split,
        limit=options.limit,
        max_usd=options.max_usd,
        max_tokens=options.max_tokens,
        record=options.record,
        dry_run=options.dry_run,
        output=options.output,
    )
    display.emit(result.as_json(), as_json=options.json, text=_text(result.as_json()))
    return int(result.judging is not None and (result.judging["budget_spent"] or result.unscored == result.rows))


def judge(
    model: str | Path | Judge,
    data: Data,
    *,
    split: str = "all",
    limit: int | None = None,
    max_usd: float | None = None,
    max_tokens: int | None = None,
    record: bool = False,
    dry_run: bool = False,
    output: Path | None = None,
) -> JudgeResult:
    """Judge the rows of a dataset that have responses (`data` as `export_folder` takes it).

    `model` is a judge's TOML, or a Judge, whose own budget then holds. `record` appends the verdicts to the ledger,
    beside people's votes; `dry_run` calls nobody and estimates the cost; `output` gets one JSON line per row, with all
    votes. Raises ConfigError for a bad TOML, EndpointError where no call can be answered, DataError without rows.
    """
    with open_ledger() as ledger:
        opened = model if isinstance(model, Judge) else _open(Path(model), ledger, max_usd, max_tokens)
        try:
            folder = export_folder(data)
            examples = judged_examples(folder, split, limit)
            queries = [(example.candidates, row_context(example, opened)) for example in examples]
            result = JudgeResult(
                judge=opened.info.name,
                fingerprint=opened.info.fingerprint,
                prompt=opened.prompt.name,
                dataset=dataset_of(folder)["ref"] or str(folder),
                rows=len(queries),
                with_rubric=sum(bool(context.rubric) for _, context in queries),
                with_reference=sum(bool(context.reference) for _, context in queries),
            )
            if dry_run:
                requests = (request for item, context in queries for _, request in opened.requests(item, context))
                return replace(result, estimate=estimate(requests, opened.engine.generator, ledger))
            verdicts, recorded = _judge_all(opened, examples, queries, ledger, output=output, record=record)
            return replace(result, verdicts=tuple(verdicts), recorded=recorded, judging=opened.report())
        finally:
            if opened is not model:
                opened.close()


def _open(path: Path, ledger: Ledger, max_usd: float | None, max_tokens: int | None) -> Judge:
    if table := third_table(path):
        raise UsageError(f"{path} has a table [{table}], which makes it a model; use it with rmkit eval or score")
    return load_judge(path, ledger=ledger, max_usd=max_usd, max_tokens=max_tokens)


def _bill(argv: list[str]) -> int:
    """Every call that was ever paid, by model and purpose."""
    parser = arguments.parser("judge bill", "What all calls have cost, dearest first.", examples=["judge bill"])
    options = parser.parse_args(argv)
    with open_ledger(read_only=True) as ledger:
        rows = bill(ledger)
    columns = ("usd", "calls", "prompt_tokens", "completion_tokens", "purpose", "generator")
    cells = [[f"{row['usd']:.4f}", *(row[name] for name in columns[1:])] for row in rows]
    text = display.table([name.replace("_", " ") for name in columns], cells) if rows else "no call was made yet"
    display.emit({"bill": rows}, as_json=options.json, text=text)
    return 0


def _profiles(argv: list[str]) -> int:
    """The judge families that rmkit knows, or one of them as TOML."""
    parser = arguments.parser(
        "judge profiles",
        "Judges that others trained, as rmkit asks and reads them: judge:FOLDER_OR_ID?profile=NAME, or `profile` in a "
        "judge's TOML. With a name, its table, to write one of your own after.",
        examples=["judge profiles", "judge profiles rm-r1 > mine.toml"],
    )
    parser.add_argument("name", nargs="?", help="print this one as TOML")
    options = parser.parse_args(argv)
    if options.name:
        text = source_text(options.name)
        display.emit({"profile": options.name, "toml": text}, as_json=options.json, text=text.rstrip())
        return 0
    keys = ("profile", "form", "verdict", "models", "note")
    listed = [
        dict(zip(keys, (one.name, one.form, one.read.pattern or "JSON", one.title, one.note), strict=True))
        for one in profiles().values()
    ]
    text = display.table(keys[:2] + keys[3:], [[one[key] for key in keys[:2] + keys[3:]] for one in listed])
    display.emit({"profiles": listed}, as_json=options.json, text=text)
    return 0


def judged_examples(folder: Path, split: str, limit: int | None) -> list[Example]:
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    result = [example for example in examples_of(folder, split) if example.row["responses"]]
    if not result:
        raise DataError(f"{folder} has no row with responses in split {split!r}; a judge needs some")
    return result[:limit]


def row_context(example: Example, judge: Judge) -> Context:
    """The row's own rubric and reference answer."""
    result: Context = upper("row_context")(example.row, rubric=judge.config.rubric)
    return result


def _judge_all(
    judge: Judge,
    examples: Sequence[Example],
    queries: Sequence[tuple[Candidates, Context]],
    ledger: Ledger,
    *,
    output: Path | None,
    record: bool,
) -> tuple[list[Verdict], int | None]:
    """The verdicts, and how many of them are new in the ledger (None unless `record`)."""
    verdicts: list[Verdict] = []
    recorded = 0
    pairs = zip(examples, judge.judged_under(queries), strict=True)
    with display.progress("judging", len(examples)) as advance, _lines(output) as write:
        while chunk := list(islice(pairs, RECORD_AT_ONCE)):
            for example, result in chunk:
                verdict = _verdict(judge, example, result)
                verdicts.append(verdict)
                write(_line(verdict, result))
                advance(1)
            if record:
                events = [judgment_event(judge, result, unit=example.row["unit"]) for example, result in chunk]
                recorded += record_judgments(ledger, [event for event in events if event])
    return verdicts, recorded if record else None


@contextlib.contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], object]]:
    """A function that writes JSON lines to the file, or nowhere."""
    if path is None:
        yield lambda line: None
        return
    with path.open("w") as file:
        yield lambda line: file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _verdict(judge: Judge, example: Example, judged: Judged) -> Verdict:
    if len(judged.candidates.completions) == 2:
        answer = judge.comparison_of(judged)
        p_first = None if answer.unscored else answer.p_first
        return Verdict(example.id, example.row["unit"], p_first, answer.swap_gap, unscored=answer.unscored)
    scores = judged.scores()
    values = tuple(None if score.unscored else score.value for score in scores)
    reason = next((score.unscored for score in scores if score.unscored), None)
    return Verdict(example.id, example.row["unit"], scores=values, unscored=reason)


def _line(verdict: Verdict, judged: Judged) -> dict[str, Any]:
    line: dict[str, Any] = {"id": verdict.id, "unit": verdict.unit}
    if verdict.scores is None:
        line |= {"p_first": verdict.p_first, "swap_gap": verdict.swap_gap}
    else:
        line |= {"scores": list(verdict.scores)}
    votes = [
        {"shown": list(vote.shown), "values": list(vote.reading.values), "unread": vote.reading.unread}
        for vote in judged.votes
    ]
    return line | {"unscored": verdict.unscored, "votes": votes, "rationale": judged.votes[0].sample.text}


def _text(result: Mapping[str, Any]) -> str:
    """Aligned lines; a judge's own report in the words that all commands share."""
    shown = {name: value for name, value in result.items() if name != "judging"}
    return "\n".join([display.fields(shown), *judging_lines(result)])


main = Verbs(
    "judge",
    "Judge a dataset version with a language model, and see what all calls have cost.",
    {
        "run": Command(_run, "judge a dataset version, within a budget"),
        "batch": Command("rmkit.judge.batch_command:main", "the same by a provider's batch files, at half the price"),
        "jury": Command("rmkit.judge.jury_command:main", "how far several judges and their jury agree with people"),
        "align": Command(
            "rmkit.judge.align_command:main", "the prompt and examples that agree best with people; drift"
        ),
        "profiles": Command(_profiles, "judge families of others, as they are asked and read"),
        "bill": Command(_bill, "what all calls in the ledger cost, dearest first"),
    },
    examples=["judge run judge.toml hh@v2 --split test --max-usd 2 --record", "judge bill"],
)
