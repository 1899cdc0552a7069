"""`rmkit train KIND`: a reward model from a dataset version, complete and verified before it appears.

Training sees the train split, every choice (C, head, early stopping, temperature) the validation split, and nothing
ever the test split.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmkit import config
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Run, Verbs
from rmkit.data.export_folder import Data, export_folder, model_folder, split_pairs, trainable_dataset
from rmkit.data.pairs import Pair, column
from rmkit.metrics import calibration, fit_temperature, pair_accuracy
from rmkit.metrics.calibration import sigmoid
from rmkit.models import load_model, load_raw
from rmkit.models.artifact.folder import build_artifact, building
from rmkit.models.artifact.golden import write_golden_scores
from rmkit.plugins import load, upper
from rmkit.training.summary import summary_text

MIN_TRAIN, MIN_VALIDATION = 20, 5

KINDS = {
    "lexical": "hashed n-grams, logistic regression: seconds, no torch",
    "frozen": "frozen encoder features and a small head: a minute, needs the train extra",
    "pairwise": "frozen encoder features and a head that sees both responses: preferences that no score can order",
    "explicit": "fine-tune a transformer with a scalar head: needs the train extra, wants a GPU",
    "process": "fine-tune a transformer that scores every step: as explicit, on rows with step labels",
    "process-frozen": "frozen encoder features of every step and a small head: minutes, needs the train extra",
    "peers": "two fine-tuned transformers that select training pairs for each other, for noisy labels",
    "implicit": "train a policy by DPO, IPO ...: its log-ratios to the reference are the rewards",
    "contrastive": "an implicit model and its reverse as one: token rewards of the difference",
    "judge": "a language model as a judge (SFT, DPO, GRPO) on data of rmkit judge-data: needs the train extra",
    "ensemble": "several models as one: mean, worst case or uncertainty-weighted, with a std",
    "routed": "a model for each category behind one score, and the router that tells them apart",
}

CONFIGS = {  # of the small models
    "lexical": "rmkit.models.small.lexical:LexicalConfig",
    "frozen": "rmkit.models.small.frozen:FrozenConfig",
    "pairwise": "rmkit.models.small.pairwise:PairwiseConfig",
    "process-frozen": "rmkit.heads.steps:FrozenProcessConfig",
}


@dataclass(frozen=True, slots=True)
class Trained:
    """What a trainer hands over: arrays and config to store, margins on the validation pairs, facts to tell."""

    arrays: Mapping[str, NDArray[Any]]
    config: Mapping[str, Any]
    validation_margin: NDArray[np.float64]
    facts: Mapping[str, Any]
    encoder: Mapping[str, Any] | None = None


def small_parser(kind: str) -> arguments.Parser:
    """The arguments that all small models share."""
    parser = arguments.parser(
        f"train {kind}",
        f"Train a reward model: {KINDS[kind]}.",
        examples=[f"train {kind} --data hh@v2", f"train {kind} --data exports/hh-v2 -o models/hh --seed 1"],
    )
    parser.add_data()
    parser.add_output("artifact folder (default $RMKIT_HOME/models/DATA-KIND)")
    parser.add_config(load(CONFIGS[kind]))
    parser.add_seed()
    parser.add_allow_benchmark()
    return parser


def _train_small(kind: str, argv: list[str]) -> int:
    parser = small_parser(kind)
    if kind == "frozen":
        methods = "peer, self, mean, cross_fit, confident, gap, upo, upo_smoothed"
        parser.add_argument("--denoise", default="", metavar="METHOD", help=f"weigh the train pairs: {methods}")
        parser.add_argument("--noise", type=float, help="share of wrong labels to expect (default: estimated)")
    options = parser.parse_args(argv)
    result = train(
        kind,
        options.data,
        denoise=getattr(options, "denoise", ""),
        noise=getattr(options, "noise", None),
        output=options.output,
        seed=options.seed,
        values=arguments.set_values(options),
        allow_benchmark=options.allow_benchmark,
    )
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def train(
    kind: str,
    data: Data,
    *,
    output: Path | None = None,
    seed: int = 0,
    values: Mapping[str, Any] | None = None,
    allow_benchmark: bool = False,
    denoise: str = "",
    noise: float | None = None,
) -> dict[str, object]:
    """Train, store and reload a `lexical`, `frozen` or `pairwise` model; its path, facts and validation numbers.

    `denoise` weighs the train pairs of a frozen model first (rmkit.training.denoised).

    Raises DataError where a split is missing or too small or holds benchmark rows, ConfigError for unknown `values`.
    """
    start = time.monotonic()
    folder = export_folder(data)
    dataset = trainable_dataset(folder, allow_benchmark=allow_benchmark)
    trains, skipped_train = split_pairs(folder, "train", at_least=MIN_TRAIN)
    validation, skipped_validation = split_pairs(folder, "validation", at_least=MIN_VALIDATION)
    target = output or model_folder(folder, kind)
    with building(target) as temporary:  # before the work: an unwritable place is told at once
        noise_facts: Mapping[str, Any] = {}
        if denoise:
            trains, noise_facts = _denoised(trains, values or {}, method=denoise, noise=noise, seed=seed)
        trainer = {"lexical": _lexical, "frozen": _frozen, "pairwise": _pairwise}[kind]
        trained = trainer(trains, validation, values or {}, seed)
        temperature = fit_temperature(trained.validation_margin, column(validation, "p"))
        card = {
            "model": kind,
            "name": target.name,
            "kind": "explicit",
            "scale": "win_logit" if kind == "pairwise" else "logit",
            "pointwise": kind != "pairwise",
            "config": dict(trained.config),
            "temperature": temperature,
            "encoder": trained.encoder,
            "dataset": dataset,
            "seed": seed,
            "training": {
                "pairs": {"train": len(trains), "validation": len(validation)},
                "skipped": {"train": skipped_train, "validation": skipped_validation},
                **trained.facts,
                **({"denoise": dict(noise_facts)} if denoise else {}),
                "seconds": round(time.monotonic() - start, 2),
            },
            "validation": validation_facts(trained.validation_margin / temperature, validation),
        }
        build_artifact(temporary, card=card, arrays=trained.arrays)
        small: Any = load_raw(temporary, check=False)  # every small model replays golden scores
        write_golden_scores(temporary, small)
        model = load_model(temporary)
    return {"path": str(target), "fingerprint": model.info.fingerprint, **card}


def _lexical(train: Sequence[Pair], validation: Sequence[Pair], values: Mapping[str, Any], seed: int) -> Trained:
    from rmkit.models.small import lexical

    settings = config.build(lexical.LexicalConfig, values, where="train lexical")
    with display.progress("fitting", len(settings.c_grid)) as advance:
        fitted = lexical.fit(train, validation, settings, advance=advance)
    facts = {"c": fitted.c, "validation_log_loss_by_c": fitted.validation_log_loss}
    return Trained(lexical.arrays_of(fitted), asdict(settings), fitted.validation_margin, facts)


def _frozen(train: Sequence[Pair], validation: Sequence[Pair], values: Mapping[str, Any], seed: int) -> Trained:
    from rmkit.models.small import frozen

    return _encoded(train, validation, config.build(frozen.FrozenConfig, values, where="train frozen"), seed)


def _pairwise(train: Sequence[Pair], validation: Sequence[Pair], values: Mapping[str, Any], seed: int) -> Trained:
    from rmkit.models.small import pairwise

    return _encoded(train, validation, config.build(pairwise.PairwiseConfig, values, where="train pairwise"), seed)


def _encoded(train: Sequence[Pair], validation: Sequence[Pair], settings: Any, seed: int) -> Trained:
    from rmkit.models.small import frozen

    fitted = frozen.fit(train, validation, settings, seed=seed)
    encoder = {"name": settings.encoder, "fingerprint": fitted.encoder.fingerprint, "sha256": fitted.encoder.sha256}
    return Trained(fitted.arrays, asdict(settings), fitted.validation_margin, fitted.facts, encoder)


def _denoised(
    pairs: Sequence[Pair], values: Mapping[str, Any], *, method: str, noise: float | None, seed: int
) -> tuple[list[Pair], Mapping[str, object]]:
    from rmkit.models.small import frozen
    from rmkit.training.denoised import denoised

    encoder = config.build(frozen.FrozenConfig, values, where="train frozen")
    return denoised(pairs, method=method, noise=noise, encoder=encoder, seed=seed)


def validation_facts(margin: NDArray[np.float64], pairs: Sequence[Pair]) -> dict[str, object]:
    """Accuracy with a family-clustered interval, log loss and calibration error of calibrated margins, JSON-ready."""
    p, share, family = column(pairs, "p"), column(pairs, "share"), column(pairs, "family")
    calibrated = calibration(sigmoid(margin), p, weight=share)
    accuracy = pair_accuracy(margin, p, clusters=family, weight=share)
    return {"accuracy": asdict(accuracy), "log_loss": calibrated.log_loss, "ece": calibrated.ece}


def _text(result: Mapping[str, Any]) -> str:
    training = result["training"]
    pairs = training["pairs"]
    rows = f"{pairs['train']} train pairs, {pairs['validation']} validation pairs"
    more = [f"took         {training['seconds']:.1f} s"]
    if noise := training.get("denoise"):
        more.append(f"denoised     {noise['left_out']} of {noise['pairs']} train pairs left out ({noise['method']})")
    return summary_text(result, rows=rows, more=more)


def _transformer(argv: list[str], *, kind: str) -> int:
    status: int = load("rmkit.training.explicit:main")(argv, kind=kind)
    return status


def _judge(argv: list[str]) -> int:
    status: int = upper("train_judge")(argv)
    return status


TRAINERS: dict[str, str | Run] = {
    **{kind: partial(_train_small, kind) for kind in ("lexical", "frozen", "pairwise")},
    **{kind: partial(_transformer, kind=kind) for kind in ("explicit", "process", "implicit")},
    "process-frozen": "rmkit.training.process_frozen:main",
    "peers": "rmkit.training.peer_review_command:main",
    "contrastive": "rmkit.training.contrastive:main",
    "judge": _judge,
    "ensemble": "rmkit.training.ensemble:main",
    "routed": "rmkit.training.routed:main",
}
main = Verbs(
    "train",
    "A reward model from a dataset version, complete and verified before it appears.",
    {kind: Command(TRAINERS[kind], summary) for kind, summary in KINDS.items()},
    examples=["train lexical --data hh@v2", "train frozen --data hh@v2 -o models/hh"],
    word="KIND",
)
