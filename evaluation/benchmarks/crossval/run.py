"""`rmkit bench crossval`: a frozen encoder with a small head on human preferences, by five-fold cross-validation.

Whole prompt families (near-duplicate prompts, and talks with the same opening) go into one fold, so that no prompt is
on both sides. Of the families outside a fold one in eight chooses the head and stops its training; the fold itself is
predicted once. All rows of a set so get a margin from a head that has not seen their family. Two arms, both trained as
`rmkit train frozen` trains: with its defaults, and without the heads that may read the reply's length. Beside them
stands the length rule (the longer reply is better); differences to it are paired row by row, intervals resample
families.

Where rows have three votes or more, people are asked the same question as the model: each vote in turn is held out,
and it and the model must name the reply that most of the other votes name. Left out are held-out questions whose other
votes name none (ties count as votes). A held-out tie and a tie of the model earn 1/2 each. A row counts once, however
many of its votes could be held out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.suites.voted_pairs import VotedPair, read_voted_pairs
from rmkit.cli import arguments, display
from rmkit.data.pairs import Pair, column
from rmkit.errors import DataError, UsageError
from rmkit.ids import file_sha256
from rmkit.metrics import clustered_interval, pair_accuracy, pair_credit, paired_difference
from rmkit.models.small.length import LengthModel

if TYPE_CHECKING:
    from rmkit.models.small.frozen import Fit, FrozenConfig

Margins = NDArray[np.float64]

ARMS: Mapping[str, Mapping[str, Any]] = {"frozen": {}, "without_length": {"length": (False,)}}  # options of the heads
MIN_VOTES = 3
VALIDATION = 8  # one family in so many of those outside a fold


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    from evaluation.benchmarks.crossval import page as crossval_page

    results = {}
    for inputs in options.sets:
        name, equals, files = inputs.partition("=")
        if not (equals and files):
            raise UsageError(f"a set is NAME=FILE or NAME=FILE,FILE, got {inputs!r}")
        paths = [Path(file) for file in files.split(",")]
        results[name] = measure(paths, encoder=options.encoder, folds=options.folds, seed=options.seed)
    result = {"sets": results, "folds": options.folds, "seed": options.seed, **crossval_page.setting()}
    if options.plot:
        crossval_page.plot(results, options.plot)
    if options.page:
        crossval_page.write(options.page, result, argv=argv, plot=options.plot)
    display.emit(result, as_json=options.json, text=crossval_page.table(results))
    return 0


def _parser() -> arguments.Parser:
    parser = arguments.parser(
        "bench crossval",
        "Frozen encoder and head on human preferences, cross-validated by prompt family, beside length and people.",
        examples=[
            "bench crossval hh=pairs_hh_harmless.jsonl.gz,pairs_hh_helpful.jsonl.gz",
            "bench crossval pandalm=annotators_pandalm.jsonl.gz --plot crossval.svg --page crossval.md",
        ],
    )
    parser.add_argument("sets", nargs="+", metavar="NAME=FILE[,FILE]", help="pairs or annotators files (JSONL), pooled")
    parser.add_encoder()
    parser.add_argument("--folds", type=int, default=5)
    parser.add_seed(help="of folds and heads")
    parser.add_argument("--plot", type=arguments.output_path, help="write the accuracies as a chart (SVG or PNG)")
    parser.add_page()
    return parser


def measure(files: Sequence[Path], *, encoder: str = "minilm", folds: int = 5, seed: int = 0) -> dict[str, object]:
    """Accuracies, their difference and the human ceiling of one set, JSON-ready."""
    from rmkit.features.encoder import Encoder
    from rmkit.models.small.frozen import FrozenConfig

    rows, skipped = read_voted_pairs(files)
    pairs = [row.pair for row in rows]
    config = FrozenConfig(encoder=encoder)
    used = Encoder(config)
    margins, heads = out_of_fold(pairs, config, folds=folds, seed=seed)
    margins = {"length": length_margins(pairs), **margins}
    return {
        "files": {path.name: file_sha256(path) for path in files},
        "encoder": {"name": Path(encoder).name, "fingerprint": used.fingerprint, "dtype": used.dtype},
        "rows": len(rows),
        "skipped": skipped,
        "families": len(set(column(pairs, "family"))),
        "largest_family": max(Counter(pair.family for pair in pairs).values()),
        "heads": heads,
        **compared(margins, pairs),
        "parts": _parts(margins, pairs) if len(files) > 1 else {},
        "people": ceiling(rows, margins),
    }


def folds_of(family: Sequence[int], *, folds: int, seed: int) -> NDArray[np.int64]:
    """[n] fold of each row: families from the largest on, each into the fold that has the fewest rows.

    Families of one size come in an order drawn from the seed. Raises DataError for fewer families than folds.
    """
    size = Counter(family)
    if len(size) < folds or folds < 2:
        raise DataError(f"{len(size)} prompt families cannot be cut into {folds} folds; 2 or more, at most one each")
    filled, fold_of = [0] * folds, {}
    for number in sorted(size, key=lambda number: (-size[number], _draw(number, seed))):
        fold_of[number] = min(range(folds), key=lambda fold: (filled[fold], fold))
        filled[fold_of[number]] += size[number]
    return np.array([fold_of[number] for number in family])


def _draw(family: int, seed: int) -> str:
    return hashlib.sha256(f"{seed} {family}".encode()).hexdigest()


def out_of_fold(
    pairs: Sequence[Pair], config: FrozenConfig, *, folds: int, seed: int
) -> tuple[dict[str, Margins], list[dict[str, object]]]:
    """[n] margins of each arm, by heads that saw neither the row nor its family; and what each fold chose."""
    from rmkit.features.encoder import Encoder
    from rmkit.models.small.frozen import fit, pair_features

    pair_features(pairs, Encoder(config))  # all texts once; the folds read the cache
    fold = folds_of([pair.family for pair in pairs], folds=folds, seed=seed)
    margins = {name: np.full(len(pairs), np.nan) for name in ARMS}
    heads = []
    for number in range(folds):
        test, outside = (np.flatnonzero(side).tolist() for side in (fold == number, fold != number))
        held = _validation_families([pairs[row].family for row in outside], seed=seed + number)
        train, validation = ([row for row in outside if (pairs[row].family in held) == side] for side in (False, True))
        details: dict[str, Any] = {"train": len(train), "validation": len(validation), "test": len(test)}
        for name, options in ARMS.items():
            chosen = replace(config, **options)
            fitted = fit([pairs[row] for row in train], [pairs[row] for row in validation], chosen, seed=seed)
            margins[name][test] = _margins([pairs[row] for row in test], fitted)
            details[name] = {"head": fitted.facts["head"], "epoch": fitted.facts["epoch"]}
        heads.append(details)
    return margins, heads


def _validation_families(family: Sequence[int], *, seed: int) -> set[int]:
    ordered = sorted(set(family), key=lambda number: _draw(number, seed))
    return set(ordered[: max(1, len(ordered) // VALIDATION)])


def _margins(pairs: Sequence[Pair], fitted: Fit) -> Margins:
    import torch

    from rmkit.heads.pairs import pair_margins
    from rmkit.models.small.frozen import pair_features

    weights = {name: torch.from_numpy(array) for name, array in fitted.arrays.items()}
    return pair_margins(pair_features(pairs, fitted.encoder), weights)


def length_margins(pairs: Sequence[Pair]) -> Margins:
    """[n] margins of the length rule."""
    scores = LengthModel().score([pair.candidates for pair in pairs])
    return np.array([first.value - second.value for first, second in scores])


def compared(margins: Mapping[str, Margins], pairs: Sequence[Pair]) -> dict[str, object]:
    """Accuracies on the decided rows (ties earn nothing, and are counted), and the heads' paired gain over length."""
    p, family = column(pairs, "p"), column(pairs, "family")
    credit = {name: pair_credit(margin, p) for name, margin in margins.items()}
    accuracy = {name: asdict(pair_accuracy(margin, p, clusters=family)) for name, margin in margins.items()}
    gain = {
        name: asdict(paired_difference(credit[name], credit["length"], family)) for name in margins if name != "length"
    }
    return {"accuracy": accuracy, "gain": gain}


def _parts(margins: Mapping[str, Margins], pairs: Sequence[Pair]) -> dict[str, object]:
    """The same per file of a pooled set."""
    subset = np.array([pair.subset for pair in pairs])
    parts: dict[str, object] = {}
    for name in dict.fromkeys(subset.tolist()):
        at = np.flatnonzero(subset == name).tolist()
        parts[str(name)] = compared({key: values[at] for key, values in margins.items()}, [pairs[row] for row in at])
    return parts


def ceiling(rows: Sequence[VotedPair], margins: Mapping[str, Margins]) -> dict[str, object] | None:
    """Held-out votes and the models against most of the other votes; None without three votes a row."""
    requests = [row for row in range(len(rows)) if held_out(rows[row].votes, 1.0) is not None]
    if not requests:
        return None
    family = np.array([rows[row].pair.family for row in requests])
    earned = {
        name: np.array([held_out(rows[row].votes, values[row]) for row in requests]) for name, values in margins.items()
    }
    credits = {"people": earned["length"][:, 0], **{name: both[:, 1] for name, both in earned.items()}}
    accuracy = {name: {"value": float(one.mean()), "interval": _interval(one, family)} for name, one in credits.items()}
    gap = {
        name: asdict(paired_difference(credits["people"], one, family))
        for name, one in credits.items()
        if name != "people"
    }
    return {"rows": len(requests), "accuracy": accuracy, "people_minus": gap}


def _interval(values: NDArray[np.float64], family: NDArray[np.int64]) -> Mapping[str, object] | None:
    result = clustered_interval(values, family)
    return asdict(result) if result else None


def held_out(votes: Sequence[str], margin: float) -> tuple[float, float] | None:
    """Mean credit of the row's held-out votes and of the margin; None where no question can be asked."""
    if len(votes) < MIN_VOTES:
        return None
    answers = "a" if margin > 0 else "b" if margin < 0 else "tie"
    human, model = [], []
    for place, vote in enumerate(votes):
        others = Counter([*votes[:place], *votes[place + 1 :]]).most_common()
        top = [name for name, count in others if count == others[0][1]]
        if len(top) == 1 and top[0] != "tie":
            human.append(0.5 if vote == "tie" else float(vote == top[0]))
            model.append(0.5 if answers == "tie" else float(answers == top[0]))
    return (sum(human) / len(human), sum(model) / len(model)) if human else None
