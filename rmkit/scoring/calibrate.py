"""`rmkit calibrate` and `rmkit normalize`: probabilities and a common scale for a finished model, on held-out data.

Both write calibration.json beside the model (`rmkit.models.wrappers.calibrated`); raw scores and fingerprint stay as
they are.

Calibration is judged by cross-fitting: prompt families are dealt into five folds, each fold is predicted by links
fitted on the other four, so no pair helps to predict itself. The link stored is fitted on all pairs. What has the
lowest log loss is kept, which may be the model as it is (nothing is stored then), unless a method is asked for. Mind
that "as it is" flatters a model whose training fitted its temperature on the very split named here. Intervals are
clustered by family; "change" is the paired difference from the model's own probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmkit.cli import arguments, display
from rmkit.data.export_folder import dataset_of, export_folder, split_pairs
from rmkit.data.pairs import Pair, column
from rmkit.errors import DataError, UsageError
from rmkit.metrics import calibration, clustered_interval, fit_temperature, log_loss
from rmkit.metrics.isotonic import fit_isotonic
from rmkit.models import find_model, load_raw
from rmkit.models.wrappers.calibrated import Link, Normalization, read_calibration, write_calibration
from rmkit.models.wrappers.ensemble import standardization
from rmkit.types import RewardModel

AS_IT_IS = "as it is"
FOLDS = 5
MIN_PAIRS = 50

Numbers = NDArray[np.float64]


def main(argv: list[str]) -> int:
    """`rmkit calibrate`."""
    parser = _parser(
        "calibrate",
        "Fit margin -> probability on held-out pairs: temperature and isotonic, both reported, the better one stored.",
        examples=["calibrate models/hh-explicit --data hh@v2", "calibrate hh@prod --data hh@v2 --method isotonic"],
    )
    parser.add_argument(
        "--method",
        choices=("best", "temperature", "isotonic", "none"),
        default="best",
        help="what to store: the best by cross-fitted log loss (default), one of the two, or none (take it away)",
    )
    return _run(parser, argv, calibrate, _calibrated_text)


def normalize_main(argv: list[str]) -> int:
    """`rmkit normalize`."""
    parser = _parser(
        "normalize",
        "Store mean and scale of a model's scores on a reference set: it then serves raw and normalized scores.",
        examples=["normalize models/hh-explicit --data hh@v2", "normalize hh@prod --data hh@v2 --clip 5"],
    )
    parser.add_argument(
        "--clip", type=float, help="keep normalized scores within plus or minus this (default: no limit)"
    )
    return _run(parser, argv, normalize, _normalized_text)


def _parser(name: str, summary: str, *, examples: Sequence[str]) -> arguments.Parser:
    parser = arguments.parser(name, summary, examples=examples)
    parser.add_model(help=arguments.ARTIFACT, type=arguments.local_name)
    parser.add_device()
    parser.add_data()
    parser.add_split("validation")
    return parser


def _run(
    parser: arguments.Parser, argv: list[str], fit: Callable[..., dict[str, Any]], text: Callable[[Any], str]
) -> int:
    """Fit to the model that the arguments name; what stands in them besides goes to `fit`."""
    options = vars(parser.parse_args(argv))
    name, as_json, _ = (options.pop(name) for name in ("model", "json", "device"))
    if name == "length":
        raise UsageError("the length rule is no artifact; there is no place to store anything beside it")
    folder = find_model(name)
    model = load_raw(folder)
    if not model.info.pointwise:
        raise UsageError(f"{model.info.name} scores responses relative to each other, which has no scale to calibrate")
    result = fit(folder, model, **options, command=arguments.command_line(parser.prog.removeprefix("rmkit "), argv))
    display.emit(result, as_json=as_json, text=text(result))
    return 0


def calibrate(
    folder: Path, model: RewardModel, data: str, *, split: str, method: str = "best", command: str = ""
) -> dict[str, object]:
    """Fit, judge and store the link. Raises DataError where the split has too few pairs."""
    stored = read_calibration(folder, model.info.fingerprint)
    if method == "none":
        write_calibration(folder, replace(stored, link=None, link_facts=None))
        return {"path": str(folder), "method": "none"}
    pairs, summary = _held_out(data, split, command)
    batch = [pair.candidates for pair in pairs]
    margin = np.array([first.value - second.value for first, second in model.score(batch)])
    own = np.array([one.p_first for one in model.compare(batch)])
    if not np.isfinite(margin).sum() >= MIN_PAIRS:
        raise DataError(
            f"{int(np.isfinite(margin).sum())} of {len(pairs)} pairs could be scored, {MIN_PAIRS} are needed"
        )
    judged = judge(margin, own, pairs)
    chosen = min(judged, key=lambda name: judged[name]["log_loss"]["value"]) if method == "best" else method
    link = FITS[chosen](margin, pairs) if chosen in FITS else None
    facts = summary | {
        "pairs": len(pairs),
        "unscored": int(np.isnan(margin).sum()),
        "families": len({pair.family for pair in pairs}),
        "folds": FOLDS,
        "cross_fitted": judged,
    }
    write_calibration(folder, replace(stored, link=link, link_facts=facts if link else None))
    result = {"method": chosen, "link": asdict(link) if link else None}
    return {"path": str(folder), "fingerprint": model.info.fingerprint, **result, **facts}


def _held_out(data: str, split: str, command: str) -> tuple[list[Pair], dict[str, object]]:
    """The pairs to fit on, and what is to be told of them."""
    source = export_folder(data)
    pairs, skipped = split_pairs(source, split, at_least=MIN_PAIRS)
    dataset = dataset_of(source)
    name = f"{dataset['ref'] or source.name}, {split} split"
    return pairs, {"data": name, "digest": dataset["digest"], "skipped": skipped, "command": command}


def _temperature(margin: Numbers, pairs: Sequence[Pair]) -> Link:
    return Link(
        method="temperature", temperature=fit_temperature(margin, column(pairs, "p"), weight=column(pairs, "share"))
    )


def _isotonic(margin: Numbers, pairs: Sequence[Pair]) -> Link:
    result = fit_isotonic(margin, column(pairs, "p"), weight=column(pairs, "share"))
    return Link(method="isotonic", margin=result.margin, p=result.p)


FITS: dict[str, Callable[[Numbers, Sequence[Pair]], Link]] = {"temperature": _temperature, "isotonic": _isotonic}


def judge(margin: Numbers, own: Numbers, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Log loss and calibration error of the model's own probabilities and of both links, cross-fitted by family."""
    fold = _folds(pairs)
    predicted = {AS_IT_IS: own}
    for name, fit in FITS.items():
        values = np.full(len(pairs), np.nan)
        for number in range(FOLDS):
            out = fold == number
            inside = [pair for pair, left in zip(pairs, out, strict=True) if not left]
            values[out] = fit(margin[~out], inside)(margin[out])
        predicted[name] = values
    return {name: _quality(values, own, pairs) for name, values in predicted.items()}


def _folds(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """[pairs] fold numbers: whole families, dealt in a seeded order. Raises DataError for fewer families than folds."""
    families, index = np.unique([pair.family for pair in pairs], return_inverse=True)
    if len(families) < FOLDS:
        raise DataError(f"{len(families)} prompt families are too few to judge a calibration; {FOLDS} are needed")
    order: NDArray[np.int64] = np.random.default_rng(0).permutation(len(families)) % FOLDS
    return order[index]


def _quality(q: Numbers, own: Numbers, pairs: Sequence[Pair]) -> dict[str, object]:
    p, share, family = (column(pairs, name) for name in ("p", "share", "family"))
    loss, before = _losses(q, p), _losses(own, p)
    known = ~np.isnan(loss)
    result = calibration(q, p, weight=share)
    return {
        "log_loss": {"value": result.log_loss, **_interval(loss[known], share[known], family[known])},
        "change": {
            "value": float(np.average((loss - before)[known], weights=share[known])),
            **_interval((loss - before)[known], share[known], family[known]),
        },
        "ece": {"value": result.ece, **_ece_interval(q, p, share, family)},
    }


def _losses(q: Numbers, p: Numbers) -> Numbers:
    """[n] cross-entropy of each pair, as `rmkit.metrics.log_loss` averages it."""
    return np.array([log_loss([one], [label]) for one, label in zip(q, p, strict=True)])


def _interval(value: Numbers, share: Numbers, family: NDArray[Any]) -> dict[str, float | None]:
    result = clustered_interval(value * share, family, denominator=share)
    return {"low": None, "high": None} if result is None else {"low": result.low, "high": result.high}


def _ece_interval(
    q: Numbers, p: Numbers, share: Numbers, family: NDArray[Any], *, resamples: int = 500
) -> dict[str, float]:
    """Percentile interval over resampled families, shifted by its bias: resampling inflates a calibration error."""
    families, index = np.unique(family, return_inverse=True)
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(resamples):
        times = np.bincount(generator.integers(len(families), size=len(families)), minlength=len(families))[index]
        drawn.append(calibration(q, p, weight=share * times).ece if (times > 0).any() else np.nan)
    bias = float(np.nanmean(drawn)) - calibration(q, p, weight=share).ece
    low, high = np.nanquantile(drawn, [0.025, 0.975]) - bias
    return {"low": max(0.0, float(low)), "high": float(high)}


def normalize(
    folder: Path, model: RewardModel, data: str, *, split: str, clip: float | None = None, command: str = ""
) -> dict[str, object]:
    """Measure and store mean and scale over all responses of the split."""
    if clip is not None and not clip > 0:
        raise UsageError(f"--clip takes a positive number, got {clip}")
    stored = read_calibration(folder, model.info.fingerprint)
    pairs, summary = _held_out(data, split, command)
    scores = _distinct_scores(model, pairs)
    values = np.array([value for value in scores if np.isfinite(value)])
    mean, scale = standardization(scores)
    if scale == 0:
        raise DataError(f"{model.info.name} gives every response of the {split} split the score {mean:g}")
    normalization = Normalization(mean=mean, scale=scale, clip=clip)
    beyond = 0.0 if clip is None else float(np.mean(np.abs((values - mean) / scale) > clip))
    facts = summary | {"responses": len(scores), "unscored": len(scores) - len(values), "clipped_share": beyond}
    write_calibration(folder, replace(stored, normalization=normalization, normalization_facts=facts))
    return {"path": str(folder), "fingerprint": model.info.fingerprint, **asdict(normalization), **facts}


def _distinct_scores(model: RewardModel, pairs: Sequence[Pair]) -> list[float]:
    """Each response of each prompt once: a list of four enters as four responses, not as twelve."""
    by_key: dict[tuple[str, str], float] = {}
    for pair, scores in zip(pairs, model.score([pair.candidates for pair in pairs]), strict=True):
        for text, score in zip((pair.first, pair.second), scores, strict=True):
            by_key[pair.prompt, text] = score.value
    return list(by_key.values())


def _calibrated_text(result: Mapping[str, Any]) -> str:
    if result["method"] == "none":
        return f"{result['path']}: no link is stored any more; probabilities are the model's own"
    header = ("", "log loss", "95% interval", "change", "95% interval", "ECE", "95% interval")
    lines = [
        f"{result['data']}: {result['pairs']} pairs in {result['families']} prompt families, {result['unscored']} "
        f"unscored; cross-fitted over {result['folds']} folds of families",
        "",
        display.table(header, [_row(name, one) for name, one in result["cross_fitted"].items()]),
    ]
    if (link := result["link"]) is None:
        return "\n".join([*lines, "", "nothing is stored: the model's own probabilities are the best of these"])
    text = f"T = {link['temperature']:.3f}" if result["method"] == "temperature" else f"{len(link['margin'])} knots"
    return "\n".join([*lines, "", f"stored: {result['method']} ({text}); scores and fingerprint stay as they are"])


def _row(name: str, one: Mapping[str, Any]) -> list[str]:
    cells = [name]
    for key, form in (("log_loss", ".4f"), ("change", "+.4f"), ("ece", ".4f")):
        none = key == "change" and name == AS_IT_IS  # it is what changes are measured from
        cells += ["-", "-"] if none else [display.number(one[key]["value"], form), display.interval(one[key], form)]
    return cells


def _normalized_text(result: Mapping[str, Any]) -> str:
    clip = (
        "" if result["clip"] is None else f", clipped to +-{result['clip']:g} ({result['clipped_share']:.1%} of them)"
    )
    return "\n".join(
        [
            f"{result['data']}: {result['responses']} responses, {result['unscored']} unscored",
            f"stored: normalized = (raw - {result['mean']:.6g}) / {result['scale']:.6g}{clip}",
            "scores now carry both; raw value and fingerprint stay as they are",
        ]
    )
