"""`rmkit denoise votes`: from one random vote a pair, does denoising recover what the other voters say?

For every pair with three clear votes or more one vote is drawn; it is the label that methods see. The truth is the
majority of the *other* votes. Pairs where those are tied are left out and counted: 3 : 2 pairs then stay only where the
drawn vote was the minority's, so single votes look a little worse here than they are. Two questions, both on truth:

    labels   of the train pairs, when each label a filter dropped is turned around: share that is right, beside that of
             the single votes themselves; interval over prompt families, all draws pooled
    model    accuracy on the test families' full majorities of a model trained with the method, beside one trained on
             the single votes; interval over draws and families

`seen` is the smallest difference of labels or accuracy that this data would show in four runs of five (2.8 standard
errors of the difference; 5% two-sided).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.votes import TIE, Votes, pair_votes
from data_pipelines.steps.split import Config as SplitConfig
from data_pipelines.steps.split import families, places
from evaluation.denoise import grid as denoise_grid
from evaluation.denoise.data import bench_data, version_frame
from evaluation.denoise.grid import BenchData, Cell, Result
from evaluation.denoise.summary import CEILING, FLOOR, RESAMPLES, resampled
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.data.example import Example
from rmkit.data.pairs import Pair, read_pairs
from rmkit.errors import DataError, UsageError
from rmkit.features.encoder import EncoderConfig
from rmkit.heads.stacked_training import HeadConfig
from rmkit.metrics.bootstrap import cluster_sums
from rmkit.reliability.label_weights import check_enough
from rmkit.revision import versions_text

MIN_VOTES = 3
POWER = 1.96 + 0.84
Floats = NDArray[np.float64]


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "denoise votes",
        "Denoise one random vote a pair and hold the result against the majority of the other voters.",
        examples=["denoise votes ukp --max-pairs 4000 -o votes.md", "denoise votes pandalm --draws 10"],
    )
    parser.add_data("data", metavar="NAME[@REF]", help="a version whose pairs have three votes or more")
    parser.add_argument("--draws", type=int, default=3, help="how often a vote is drawn")
    parser.add_argument("--methods", default="all", help="several with commas")
    parser.add_argument(
        "--max-pairs", type=int, default=4000, help="a random sample of the pairs (default 4000, 0: all)"
    )
    parser.add_argument("--test-share", type=float, default=0.25, help="share of prompt families held out")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_encoder()
    parser.add_workers()
    parser.add_output("write the table: .md")
    options = parser.parse_args(argv)
    from evaluation.denoise.methods import available

    if options.output and options.output.suffix != ".md":
        raise UsageError(f"the table is written as .md, got {options.output.name!r}")
    methods = denoise_grid.check_methods(available() if options.methods == "all" else options.methods.split(","))
    result = recover(
        options.data,
        methods,
        draws=options.draws,
        max_pairs=options.max_pairs,
        test_share=options.test_share,
        head=HeadConfig(epochs=options.epochs),
        encoder=EncoderConfig(encoder=options.encoder),
        workers=options.workers,
    ) | {"command": arguments.command_line("denoise votes", argv)}
    if options.output:
        write_text(options.output, markdown(result) + "\n")
    display.emit(result, as_json=options.json, text=markdown(result))
    return 0


def recover(
    ref: str,
    methods: Sequence[str],
    *,
    draws: int = 3,
    max_pairs: int = 0,
    test_share: float = 0.25,
    head: HeadConfig | None = None,
    encoder: EncoderConfig | None = None,
    workers: int | None = None,
) -> dict[str, object]:
    """One line per method, JSON-ready. Raises DataError where too few pairs have three votes, or no family is left."""
    frame, name, version_digest = version_frame(ref)
    frame = _voted(frame, max_pairs)
    votes = pair_votes(frame)
    held_out = _held_out(frame, test_share)
    disagree = _disagreement(votes)
    results: list[Result] = []
    owners: list[NDArray[np.int64]] = []
    ties = 0
    for draw in range(draws):
        drawn, truth = draw_votes(votes, seed=draw)
        usable = (truth >= 0) & ~held_out
        ties += int(((truth < 0) & ~held_out).sum())
        data = _data(
            frame, name, f"{version_digest} {draw} {max_pairs}", drawn, truth, usable, held_out, votes, encoder
        )
        cell = Cell("votes", round(disagree, 3), draw)
        results += denoise_grid.run_grid(data, [cell], methods, head=head, prior=round(disagree, 3), workers=workers)
        owners.append(frame["family"].to_numpy()[usable])
    return {
        "data": name,
        "digest": version_digest,
        "pairs": int((~held_out).sum()),
        "families": frame["family"].n_unique(),
        "test_pairs": len(results[0].credit),
        "test_families": len(set(data.test_family.tolist())),
        "draws": draws,
        "tied_left_out": round(ties / draws, 1),
        "wrong_votes": disagree,
        "lines": _lines(results, methods, owners, data.test_family),
    }


def draw_votes(votes: Votes, *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per row the drawn vote (0 first, 1 second) and the majority of the others; -1 where that is tied or unclear."""
    draw = np.random.default_rng(seed)
    rows = np.arange(votes.n_rows)
    clear = np.flatnonzero(votes.verdict != TIE)
    shuffled = clear[draw.permutation(len(clear))]
    row, first = np.unique(votes.row[shuffled], return_index=True)
    drawn = np.full(votes.n_rows, -1)
    drawn[row] = votes.verdict[shuffled[first]]
    others = votes.counts()
    others[row, drawn[row]] -= 1
    top = others.max(axis=1)
    decided = (drawn >= 0) & (top > 0) & ((others == top[:, None]).sum(axis=1) == 1) & (others.argmax(axis=1) != TIE)
    truth = np.where(decided, others.argmax(axis=1), -1)
    return drawn[rows], truth


def _disagreement(votes: Votes) -> float:
    """Share of clear votes that contradict the majority of the others on their pair; tied majorities do not count."""
    others = votes.counts()[votes.row]
    others[np.arange(len(votes.row)), votes.verdict] -= 1
    top = others.max(axis=1)
    known = (votes.verdict != TIE) & (top > 0) & ((others == top[:, None]).sum(axis=1) == 1)
    known &= others.argmax(axis=1) != TIE
    return float((others.argmax(axis=1) != votes.verdict)[known].mean())


def _voted(frame: pl.DataFrame, max_pairs: int) -> pl.DataFrame:
    """Pairs with three clear votes or more, at most so many of them, with their families."""
    counts = pair_votes(frame).counts()
    voted = frame.filter(pl.Series(counts[:, :TIE].sum(axis=1) >= MIN_VOTES))
    check_enough(len(voted), what=f"pairs with {MIN_VOTES} clear votes")
    if max_pairs and len(voted) > max_pairs:
        chosen = np.sort(np.random.default_rng(0).permutation(len(voted))[:max_pairs])
        voted = voted[chosen]
    return voted.with_columns(families(voted).alias("family"))


def _held_out(frame: pl.DataFrame, share: float) -> NDArray[np.bool_]:
    """[rows] families held out, placed as the split step places them."""
    numbers = frame["family"].unique().sort().to_list()
    where = dict(zip(numbers, places(numbers, SplitConfig(train=1 - share, validation=0, test=share)), strict=True))
    mask = np.array([where[family] == "test" for family in frame["family"]])
    if mask.all() or not mask.any():
        raise DataError(
            f"{len(numbers)} prompt families cannot be split into train and test; add data with more prompts"
        )
    return mask


def _data(
    frame: pl.DataFrame,
    name: str,
    content: str,
    drawn: NDArray[np.int64],
    truth: NDArray[np.int64],
    usable: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    votes: Votes,
    encoder: EncoderConfig | None,
) -> BenchData:
    """Train pairs labeled by the truth, with the drawn votes as what is turned around; test pairs by all votes."""
    counts = votes.counts()
    decided = held_out & (counts[:, 0] != counts[:, 1])
    train = _labeled(frame, usable, truth)
    test = _labeled(frame, decided, (counts[:, 1] > counts[:, 0]).astype(np.int64))
    wrong = drawn[usable] != truth[usable]
    return bench_data(name, content, train, test, noise=lambda kind, rate, seed: wrong, encoder=encoder)


def _labeled(frame: pl.DataFrame, mask: NDArray[np.bool_], winner: NDArray[np.int64]) -> list[Pair]:
    rows = frame.filter(pl.Series(mask)).drop("votes", "parent_order")
    pairs, _ = read_pairs(Example(row | {"p": [0.5, 0.5], "weight": 1.0}) for row in rows.iter_rows(named=True))
    return [replace(pair, p=float(1 - side)) for pair, side in zip(pairs, winner[mask], strict=True)]


def _lines(
    results: Sequence[Result], methods: Sequence[str], owners: Sequence[NDArray[np.int64]], family: NDArray[np.int64]
) -> list[dict[str, object]]:
    by = {method: [result for result in results if result.method == method] for method in methods}
    floor = np.stack([result.credit for result in by[FLOOR]]).astype(np.float64)
    lines = []
    for method in methods:
        credit = np.stack([result.credit for result in by[method]]).astype(np.float64)
        line: dict[str, Any] = {"method": method, "accuracy": 100 * credit.mean()}
        if method != FLOOR:
            line |= _difference("model", 100 * (credit - floor).mean(), 100 * resampled(credit - floor, family))
        if len(by[method][0].kept):
            line |= _recovered(by[method], owners)
        lines.append(line)
    return lines


def _recovered(results: Sequence[Result], owners: Sequence[NDArray[np.int64]]) -> dict[str, object]:
    """Labels after turning what was dropped around, against the votes as they were."""
    right = np.concatenate([result.right for result in results]).astype(np.float64)
    selected = np.concatenate([result.kept for result in results])
    corrected = np.where(selected, right, 1 - right)
    sums = cluster_sums(np.concatenate(owners), corrected, corrected - right, np.ones(len(right)))
    drawn = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES) @ sums
    return {
        "votes_right": 100 * right.mean(),
        "labels_right": 100 * corrected.mean(),
        "kept": 100 * selected.mean(),
        "kept_right": 100 * right[selected].mean() if selected.any() else None,
        **_difference("labels", 100 * (corrected - right).mean(), 100 * drawn[:, 1] / drawn[:, 2]),
    }


def _difference(name: str, value: float, drawn: Floats) -> dict[str, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        f"{name}_difference": float(value),
        f"{name}_low": float(low),
        f"{name}_high": float(high),
        f"{name}_seen": float(POWER * drawn.std()),
    }


def markdown(result: Mapping[str, Any]) -> str:
    """A table of all methods under what it was measured on."""
    lines = result["lines"]
    right = next(line["votes_right"] for line in lines if "votes_right" in line)
    seen = {name: [line[f"{name}_seen"] for line in lines if f"{name}_seen" in line] for name in ("labels", "model")}
    head = [
        f"{result['data']} (digest {result['digest'][:12]}): {result['pairs']} train pairs of which "
        f"{result['tied_left_out']:g} have tied other votes and are left out, {result['families']} prompt families; "
        f"{result['test_pairs']} test pairs of {result['test_families']} families; {result['draws']} draws.",
        f"A single vote agrees with the majority of the others in {right:.1f}% of the train pairs; over all votes "
        f"{100 * result['wrong_votes']:.1f}% disagree, which is the prior the methods are told.",
        f"Smallest difference that this data would show: {np.median(seen['labels']):.1f} points of labels, "
        f"{np.median(seen['model']):.1f} points of accuracy (medians over the methods).",
        f"Command: `{result.get('command', 'rmkit denoise votes')}`, {versions_text()}",
    ]
    table = [
        "| method | kept % | kept, right % | labels right % | vs the votes | model % | vs single votes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return "\n\n".join(head) + "\n\n" + "\n".join([*table, *(_row(line) for line in lines)])


def _row(line: Mapping[str, Any]) -> str:
    def gain(name: str) -> str:
        keys = [f"{name}_{part}" for part in ("difference", "low", "high")]
        return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(line[key] for key in keys)) if keys[0] in line else ""

    names = {CEILING: "the other voters' majority (ceiling)", FLOOR: "single votes as they are"}
    shown = [
        f"{line[name]:.1f}" if line.get(name) is not None else "" for name in ("kept", "kept_right", "labels_right")
    ]
    cells = [
        names.get(line["method"], line["method"]),
        *shown,
        gain("labels"),
        f"{line['accuracy']:.1f}",
        gain("model"),
    ]
    return "| " + " | ".join(cells) + " |"
