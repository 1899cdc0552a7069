"""`rmkit judge align JUDGE.toml DATA`: the prompt and examples that agree best with people, and a judge's drift."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rmkit.atomic import draft_file
from rmkit.cli import arguments, display
from rmkit.config import read_object
from rmkit.data.export_folder import Data, dataset_of, export_folder
from rmkit.data.pairs import Pair, read_pairs
from rmkit.errors import ConfigError, DataError, UsageError, unknown
from rmkit.generate import Request
from rmkit.generate.estimate import estimate
from rmkit.judge.agreement import OVERALL, Agreement, labels_of, with_rows
from rmkit.judge.align import (
    Difference,
    Part,
    Variant,
    agreements,
    difference,
    mean_credit,
    part_of,
    shot_sets,
    with_shots,
)
from rmkit.judge.command import judged_examples
from rmkit.judge.model import Context, Judge, load_judge
from rmkit.judge.prompt_file import BUILT_IN, FOLDER, PromptFile
from rmkit.ledger import Ledger, open_ledger
from rmkit.types import Candidates, Comparison

AT_ONCE = 64
AGAIN = 1_000_003  # seeds of the calls that ask once more, away from those of votes


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantResult:
    """What a variant did on the pairs to choose by; `credit` counts unread verdicts as wrong."""

    name: str
    shots: int
    credit: float
    agreement: tuple[Agreement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The judge asked again about the pairs of an earlier report: `flips` of `n` verdicts turned around."""

    flips: int
    n: int
    agreement: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignResult:
    """`tested` holds the chosen variant and the judge as it was on pairs that chose nothing; `better` says that the
    interval of their difference lies above 0. `verdicts` are the chosen one's p by pair; a dry run has but an
    `estimate`."""

    judge: str
    dataset: str
    by: str
    chosen: str
    variants: tuple[VariantResult, ...]
    tested: tuple[Agreement, ...]
    gain: Difference | None
    better: bool
    verdicts: Mapping[str, float | None]
    asked: int = 0
    drift: Drift | None = None
    written: str | None = None
    estimate: Mapping[str, Any] | None = None


class JudgeAgain(Judge):
    """A judge that is asked anew, whatever was answered before: its calls carry other seeds."""

    asked = 0

    def requests(self, item: Candidates, context: Context | None = None) -> list[tuple[tuple[int, ...], Request]]:
        offset = AGAIN * self.asked
        return [
            (shown, replace(request, seed=request.seed + offset))
            for shown, request in Judge.requests(self, item, context)
        ]


def main(argv: list[str]) -> int:
    """Status 0; the calls are kept like any."""
    parser = arguments.parser(
        "judge align",
        "Choose among prompts and examples for a judge by its agreement with people, and say on other pairs what was "
        "won. With --against, ask again about the pairs of an earlier report: has the judge drifted?",
        examples=[
            "judge align judge.toml hh@v2 --prompts mine.jinja yours.jinja --shots 0 4 --sets 3 -o aligned.toml",
            "judge align aligned.toml hh@v2 --against aligned.json",
        ],
    )
    parser.add_argument("judge", type=Path, help="the judge's TOML file")
    parser.add_data("data")
    parser.add_split()
    parser.add_limit()
    parser.add_argument("--prompts", type=Path, nargs="+", default=[], help="Jinja files beside the judge's own prompt")
    parser.add_argument("--shots", type=arguments.whole_number, nargs="+", default=[0], help="examples in the prompt")
    parser.add_argument("--sets", type=arguments.positive, default=1, help="draws of examples for each number of them")
    parser.add_argument("--by", default=OVERALL, help="the criterion that decides: overall, or a rating of the data")
    parser.add_argument("--against", type=Path, help="an earlier report (JSON): ask its pairs again")
    parser.add_seed()
    parser.add_paid_calls()
    parser.add_argument(
        "-o", "--output", type=arguments.output_path, help="write the chosen judge as NAME.toml, its prompt and report"
    )
    options = parser.parse_args(argv)
    result = align(
        options.judge,
        options.data,
        prompts=options.prompts,
        shots=options.shots,
        sets=options.sets,
        by=options.by,
        against=options.against,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        max_usd=options.max_usd,
        max_tokens=options.max_tokens,
        dry_run=options.dry_run,
        output=options.output,
    )
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def align(
    judge: Path,
    data: Data,
    *,
    prompts: Sequence[Path] = (),
    shots: Sequence[int] = (0,),
    sets: int = 1,
    by: str = OVERALL,
    against: Path | None = None,
    split: str = "all",
    limit: int | None = None,
    seed: int = 0,
    max_usd: float | None = None,
    max_tokens: int | None = None,
    dry_run: bool = False,
    output: Path | None = None,
) -> AlignResult:
    """Which variant agrees best with people, see `rmkit.judge.align`.

    Raises DataError where a part has no decided pair, ConfigError for what is no prompt or too few examples, UsageError
    for an unknown criterion and for an output away from the judge's TOML (which names files relative to itself).
    """
    if output is not None and (output.suffix != ".toml" or output.resolve().parent != judge.resolve().parent):
        raise UsageError(f"-o {output}: the chosen judge is a .toml beside {judge}, whose paths are relative to it")
    folder = export_folder(data)
    examples = judged_examples(folder, split, limit)
    pairs, _ = read_pairs(examples)
    labels = {pair.id: labels_of(pair, example) for pair, example in with_rows(pairs, examples)}
    criteria = list(dict.fromkeys(name for row in labels.values() for name in row))
    if by not in criteria:
        raise UsageError(unknown("criterion", by, criteria))
    parts: dict[Part, list[Pair]] = {"shots": [], "choose": [], "test": []}
    for pair in pairs:
        parts[part_of(pair.family, shots=any(shots), seed=seed)].append(pair)
    with open_ledger() as ledger:
        opened = load_judge(judge, ledger=ledger, max_usd=max_usd, max_tokens=max_tokens)
        try:
            variants = _variants(opened, judge, prompts, parts["shots"], shots, sets=sets, seed=seed)
            judges = {one.name: _judge(opened, one) for one in variants}
            if against is not None:
                return _asked_again(opened, judges[variants[0].name], pairs, labels, against, by=by, folder=folder)
            for part in ("choose", "test"):
                if not any(labels[pair.id].get(by, 0.5) != 0.5 for pair in parts[part]):
                    raise DataError(f"no pair that people decided by {by} is left to {part} by; more data is needed")
            if dry_run:
                return _estimated(opened, list(judges.values()), parts, by=by, folder=folder, ledger=ledger)
            results = [_result(one, judges[one.name], parts["choose"], labels, by=by) for one in variants]
            best = max(results, key=lambda one: (one.credit, -one.shots))  # the first, and the shorter, of equal ones
            own, chosen = (_answers(judges[name], parts["test"]) for name in (variants[0].name, best.name))
            p, families, rows = _people(parts["test"], labels, by)
            gain = None if best.name == variants[0].name else difference(chosen, own, p, families)
            tested = agreements(best.name, chosen, rows, families)
            tested += [] if gain is None else agreements(variants[0].name, own, rows, families)
            result = AlignResult(
                judge=opened.info.name,
                dataset=dataset_of(folder)["ref"] or str(folder),
                by=by,
                chosen=best.name,
                variants=tuple(results),
                tested=tuple(tested),
                gain=gain,
                better=bool(gain and gain.low is not None and gain.low > 0),
                verdicts=_verdicts(parts["test"], chosen),
            )
            text = next(one.text for one in variants if one.name == best.name)
            return result if output is None else _written(result, judge, text, output)
        finally:
            opened.close()


def _variants(
    judge: Judge,
    path: Path,
    prompts: Sequence[Path],
    examples: Sequence[Pair],
    shots: Sequence[int],
    *,
    sets: int,
    seed: int,
) -> list[Variant]:
    """The judge as it is, then every other prompt and number of examples."""
    if judge.profile:
        raise UsageError(f"{path}: profile {judge.profile.name} brings its prompt; leave it out to choose one")
    own = path.parent / judge.config.prompt if judge.config.prompt else FOLDER / BUILT_IN[judge.config.form]
    variants = [Variant(name="as it is", text=own.read_text())]
    for prompt in (own, *prompts):
        if not prompt.is_file():
            raise ConfigError(f"the prompt {prompt} is not there")
        text = prompt.read_text()
        for k in dict.fromkeys(shots):
            draws = shot_sets(examples, k, sets=sets, seed=seed) if k else [[]]
            for number, drawn in enumerate(draws, start=1):
                if not k and prompt == own:
                    continue
                name = prompt.name + (f", {k} examples" if k else "") + (f", set {number}" if len(draws) > 1 else "")
                variants.append(
                    Variant(name=name, text=with_shots(text, drawn, pairs=not judge.info.pointwise), shots=k)
                )
    return variants


def _judge(opened: Judge, variant: Variant, *, asked: int = 0) -> JudgeAgain:
    prompt = PromptFile(Path(f"{variant.name}.jinja"), text=variant.text)
    judge = JudgeAgain(opened.config, opened.engine, prompt=prompt)
    judge.asked = asked
    return judge


def _answers(judge: Judge, pairs: Sequence[Pair]) -> list[Comparison]:
    answers: list[Comparison] = []
    with display.progress(judge.prompt.name.removesuffix(".jinja"), len(pairs)) as advance:
        for at in range(0, len(pairs), AT_ONCE):
            answers += judge.compare([pair.candidates for pair in pairs[at : at + AT_ONCE]])
            advance(len(answers) - at)
    return answers


def _people(
    pairs: Sequence[Pair], labels: Mapping[str, Mapping[str, float]], by: str
) -> tuple[list[float], list[int], list[Mapping[str, float]]]:
    rows = [labels[pair.id] for pair in pairs]
    return [row.get(by, 0.5) for row in rows], [pair.family for pair in pairs], rows


def _result(
    variant: Variant, judge: Judge, pairs: Sequence[Pair], labels: Mapping[str, Mapping[str, float]], *, by: str
) -> VariantResult:
    answers = _answers(judge, pairs)
    p, families, rows = _people(pairs, labels, by)
    return VariantResult(
        name=variant.name,
        shots=variant.shots,
        credit=mean_credit(answers, p),
        agreement=tuple(agreements(variant.name, answers, rows, families)),
    )


def _verdicts(pairs: Sequence[Pair], answers: Sequence[Comparison]) -> dict[str, float | None]:
    return {pair.id: None if one.unscored else one.p_first for pair, one in zip(pairs, answers, strict=True)}


def _estimated(
    opened: Judge,
    judges: Sequence[Judge],
    parts: Mapping[Part, Sequence[Pair]],
    *,
    by: str,
    folder: Path,
    ledger: Ledger,
) -> AlignResult:
    """What all variants on the pairs to choose by, and two on those to test, would ask and cost."""
    asked = [(judge, pair) for judge in judges for pair in parts["choose"]]
    asked += [(judge, pair) for judge in judges[:2] for pair in parts["test"]]
    requests = (request for judge, pair in asked for _, request in judge.requests(pair.candidates))
    return AlignResult(
        judge=opened.info.name,
        dataset=dataset_of(folder)["ref"] or str(folder),
        by=by,
        chosen="",
        variants=(),
        tested=(),
        gain=None,
        better=False,
        verdicts={},
        estimate=estimate(requests, opened.engine.generator, ledger) | {"variants": len(judges)},
    )


def _asked_again(
    opened: Judge,
    judge: JudgeAgain,
    pairs: Sequence[Pair],
    labels: Mapping[str, Mapping[str, float]],
    against: Path,
    *,
    by: str,
    folder: Path,
) -> AlignResult:
    earlier = read_object(against, raises=DataError, hint="name a report of rmkit judge align", keys={"verdicts": dict})
    then = earlier["verdicts"]
    same = [pair for pair in pairs if pair.id in then]
    if not same:
        raise DataError(f"{against} has none of the data's {len(pairs)} pairs; name the data that it was made on")
    judge.asked = int(earlier.get("asked", 0)) + 1
    now = _answers(judge, same)
    before = [
        Comparison.failed("unread then") if (p := then[pair.id]) is None else Comparison(float(p)) for pair in same
    ]
    both = [
        (one.p_first, other.p_first)
        for one, other in zip(before, now, strict=True)
        if not (one.unscored or other.unscored)
    ]
    p, families, rows = _people(same, labels, by)
    return AlignResult(
        judge=opened.info.name,
        dataset=dataset_of(folder)["ref"] or str(folder),
        by=by,
        chosen="as it is",
        variants=(),
        tested=tuple(agreements("as it is", now, rows, families)),
        gain=None,
        better=False,
        verdicts=_verdicts(same, now),
        asked=judge.asked,
        drift=Drift(
            flips=sum((one - 0.5) * (other - 0.5) < 0 for one, other in both),
            n=len(both),
            agreement=difference(now, before, p, families),
        ),
    )


def _written(result: AlignResult, judge: Path, text: str, output: Path) -> AlignResult:
    """The chosen judge as a TOML beside the old one, with its prompt, and the report that --against takes."""
    prompt = output.with_suffix(".jinja")
    lines = [line for line in judge.read_text().splitlines() if not re.match(r"\s*prompt\s*=", line)]
    at = next(number for number, line in enumerate(lines) if line.strip() == "[judge]")
    lines.insert(at + 1, f"prompt = {json.dumps(prompt.name)}")
    result = replace(result, written=str(output))
    for path, content in (
        (prompt, text),
        (output, "\n".join(lines) + "\n"),
        (output.with_suffix(".json"), json.dumps(asdict(result), indent=1) + "\n"),
    ):
        with draft_file(path) as draft:
            draft.write_text(content)
    return result


def _text(result: AlignResult) -> str:
    if result.estimate is not None:
        return display.fields(result.estimate)
    lines = [f"{result.judge} on {result.dataset}, agreement with people in percent (a tie is half)"]
    rows = [_row(one) for variant in result.variants for one in variant.agreement]
    columns = ("variant", "criterion", "agrees", "interval", "pairs", "ties", "unscored")
    if rows:
        lines += ["", f"to choose by ({result.by}; unread verdicts count as wrong)", display.table(columns, rows)]
    lines += ["", "on pairs that chose nothing", display.table(columns, [_row(one) for one in result.tested]), ""]
    if result.drift:
        change = result.drift.agreement
        lines.append(f"asked again: {result.drift.flips} of {result.drift.n} verdicts turned around")
        lines.append(f"agreement by {result.by} changed by {_points(change)}")
    elif result.gain is None:
        lines.append("chosen: the judge as it is")
    else:
        word = "better than" if result.better else "not shown to be better than"
        lines.append(f"chosen: {result.chosen}, {word} the judge as it is: {_points(result.gain)}")
    if result.written:
        lines.append(f"written: {result.written}")
    return "\n".join(lines)


def _row(one: Agreement) -> list[object]:
    share, bounds = display.percent(one.share), display.interval(one, ".1f", scale=100)
    return [one.judge, one.criterion, share, bounds, one.n, one.ties, one.unscored]


def _points(change: Difference) -> str:
    if change.low is None or change.high is None:
        return f"{100 * change.value:+.1f} points over {change.n} pairs"
    return f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}] over {change.n} pairs"
