"""`rmkit judge jury JURY.toml DATA`: how far a jury and each of its judges agree with people, by criterion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rmkit.cli import arguments, display
from rmkit.data.example import Example
from rmkit.data.export_folder import Data, dataset_of, export_folder
from rmkit.data.pairs import Pair, read_pairs
from rmkit.errors import DataError, UsageError
from rmkit.judge.command import judged_examples
from rmkit.judge.jury import Jury, load
from rmkit.judge.tally import judging_lines, report_of
from rmkit.metrics.accuracy import pair_accuracy
from rmkit.types import Comparison

OVERALL = "overall"
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one judge with people on one criterion: `share` of the `n` pairs that both decided or it tied (a tie is half),
    with its interval over prompt families; `unscored` pairs are left out of it."""

    judge: str
    criterion: str
    share: float | None
    low: float | None
    high: float | None
    n: int
    ties: int
    unscored: int


@dataclass(frozen=True, slots=True)
class JuryResult:
    """Agreement with people, the jury itself first; `between` holds for each two judges how often they decide alike."""

    jury: str
    fingerprint: str
    dataset: str
    pairs: int
    agreement: tuple[Agreement, ...]
    between: Mapping[str, float | None]
    judging: Mapping[str, Any]


def main(argv: list[str]) -> int:
    """Status 0; the calls of the judges are kept like any."""
    parser = arguments.parser(
        "judge jury",
        "A jury's agreement with people on the pairs of a dataset: of the jury and each judge, overall and on each "
        "aspect that people rated.",
        examples=["judge jury jury.toml hh@v2 --split test", "judge jury jury.toml helpsteer@v1 --limit 200 --json"],
    )
    parser.add_argument("jury", type=Path, help="the jury's TOML file, with the table [jury]")
    parser.add_data("data")
    parser.add_split()
    parser.add_limit()
    options = parser.parse_args(argv)
    result = agreement_with_people(options.jury, options.data, split=options.split, limit=options.limit)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def agreement_with_people(jury: Path | Jury, data: Data, *, split: str = "all", limit: int | None = None) -> JuryResult:
    """How far the jury and each of its judges agree with the pairs' labels and, where people rated aspects, with those.

    Raises DataError where no pair of the data is decided, UsageError for a TOML without [jury].
    """
    opened = jury if isinstance(jury, Jury) else _open(jury)
    try:
        folder = export_folder(data)
        examples = judged_examples(folder, split, limit)
        pairs, _ = read_pairs(examples)
        labels = [_labels(pair, example) for pair, example in _with_rows(pairs, examples)]
        if not any(p != 0.5 for row in labels for p in row.values()):
            raise DataError(f"{folder}: no pair that people decided in split {split!r}; a jury is compared on such")
        opinions: list[list[Comparison]] = [[] for _ in range(1 + len(opened.jurors))]
        with display.progress("jury", len(pairs)) as advance:
            for at in range(0, len(pairs), AT_ONCE):
                chunk = opened.opinions([pair.candidates for pair in pairs[at : at + AT_ONCE]])
                for column, answers in zip(opinions, [opened.verdicts(chunk), *chunk], strict=True):
                    column += answers
                advance(len(chunk[0]))
        names = [opened.info.name, *(juror.name for juror in opened.jurors)]
        families = [pair.family for pair in pairs]
        criteria = list(dict.fromkeys(name for row in labels for name in row))
        return JuryResult(
            jury=opened.info.name,
            fingerprint=opened.info.fingerprint,
            dataset=dataset_of(folder)["ref"] or str(folder),
            pairs=len(pairs),
            agreement=tuple(
                _agreement(name, criterion, column, [row.get(criterion, 0.5) for row in labels], families)
                for criterion in criteria
                for name, column in zip(names, opinions, strict=True)
            ),
            between={
                f"{a} / {b}": _alike(opinions[i], opinions[j])
                for (i, a), (j, b) in combinations(enumerate(names), 2)
                if i
            },
            judging=report_of(opened) or {},
        )
    finally:
        if opened is not jury:
            opened.close()


def _open(path: Path) -> Jury:
    from rmkit.judge.config import third_table

    if third_table(path) != "jury":
        raise UsageError(f"{path} has no table [jury]; agreement of one judge: rmkit eval {path} --data DATA")
    return load(path)


def _with_rows(pairs: Sequence[Pair], examples: Sequence[Example]) -> Iterator[tuple[Pair, Example]]:
    rows = {example.id: example for example in examples}
    return ((pair, rows[pair.example]) for pair in pairs)


def _labels(pair: Pair, example: Example) -> dict[str, float]:
    """Criterion -> people's probability that the pair's first response is better by it."""
    labels = {OVERALL: pair.p}
    rated: dict[str, dict[int, float]] = {}
    for score in example.row["scores"] or []:
        if score["value"] is not None and score["aspect"]:
            rated.setdefault(score["aspect"], {})[score["response"] or 0] = float(score["value"])
    for aspect, values in rated.items():
        if pair.i in values and pair.j in values:
            labels[aspect] = (1 + (values[pair.i] > values[pair.j]) - (values[pair.i] < values[pair.j])) / 2
    return labels


def _agreement(
    name: str, criterion: str, answers: Sequence[Comparison], p: Sequence[float], families: Sequence[int]
) -> Agreement:
    margins = [math.nan if one.unscored else one.p_first - 0.5 for one in answers]
    result = pair_accuracy(margins, p, clusters=families, ties="half")
    bounds = result.interval
    return Agreement(
        judge=name,
        criterion=criterion,
        share=result.value if result.n else None,
        low=bounds.low if bounds else None,
        high=bounds.high if bounds else None,
        n=result.n,
        ties=result.ties,
        unscored=result.unscored,
    )


def _alike(first: Sequence[Comparison], second: Sequence[Comparison]) -> float | None:
    """Share of the pairs that both decided, and decided alike."""
    both = [
        (a.p_first > 0.5) == (b.p_first > 0.5)
        for a, b in zip(first, second, strict=True)
        if not (a.unscored or b.unscored) and 0.5 not in (a.p_first, b.p_first)
    ]
    return sum(both) / len(both) if both else None


def _text(result: JuryResult) -> str:
    rows = [
        [
            one.criterion,
            one.judge,
            display.percent(one.share),
            display.interval(one, ".1f", scale=100),
            one.n,
            one.ties,
            one.unscored,
        ]
        for one in result.agreement
    ]
    lines = [
        f"{result.jury} on {result.pairs} pairs of {result.dataset}, agreement with people in percent (a tie is half)",
        display.table(("criterion", "judge", "agrees", "interval", "pairs", "ties", "unscored"), rows),
        "",
        "judges that decide alike: "
        + ", ".join(f"{two} {display.percent(share)}" for two, share in result.between.items()),
        *judging_lines({"judging": result.judging}),
    ]
    return "\n".join(lines)
