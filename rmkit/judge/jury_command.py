"""`rmkit judge jury JURY.toml DATA`: how far a jury and each of its judges agree with people, by criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rmkit.cli import arguments, display
from rmkit.data.export_folder import Data, dataset_of, export_folder
from rmkit.data.pairs import read_pairs
from rmkit.errors import DataError, UsageError
from rmkit.judge.agreement import Agreement, agreement_of, labels_of, with_rows
from rmkit.judge.command import judged_examples
from rmkit.judge.jury import Jury, load
from rmkit.judge.tally import judging_lines, report_of
from rmkit.types import Comparison

AT_ONCE = 64


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
        labels = [labels_of(pair, example) for pair, example in with_rows(pairs, examples)]
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
                agreement_of(name, criterion, column, [row.get(criterion, 0.5) for row in labels], families)
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
