"""`rmkit train peers`: two models that review each other's training pairs, stored as an ensemble of both.

The run keeps its audit beside the model: audit.parquet has one row per pair, epoch and model.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit import paths
from rmkit.atomic import draft_folder, put
from rmkit.cli import arguments, display
from rmkit.cli.display import number
from rmkit.config import build
from rmkit.data.export_folder import export_folder, model_folder, split_pairs, trainable_dataset
from rmkit.errors import ConfigError, MissingExtraError, UsageError
from rmkit.features.encoder import EncoderConfig
from rmkit.plugins import upper
from rmkit.reliability.peer_review import ReviewConfig
from rmkit.training.config import TrainingConfig, training_config
from rmkit.training.kinds import kind_of
from rmkit.training.run import Resume

if TYPE_CHECKING:
    from rmkit.chat.encode import Chat
    from rmkit.models.transformer.reward_module import RewardModule
    from rmkit.reliability.noise_prior import NoisePrior
    from rmkit.reliability.review_audit import EpochFacts
    from rmkit.training.rows import TrainingRow

AUDIT = "audit.parquet"


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "train peers",
        "Fine-tune two transformers that select training pairs for each other, on data with wrong labels.",
        examples=[
            "train peers --data hh@v2 --model Qwen/Qwen3-0.6B --set num_train_epochs=3 --out hh-peers",
            "train peers --kind implicit --data hh@v2 --model Qwen/Qwen3-0.6B --noise 0.3 --set num_train_epochs=3",
        ],
    )
    parser.add_argument(
        "--kind", choices=("explicit", "implicit"), default="explicit", help="scalar heads, or policies under DPO"
    )
    parser.add_data()
    parser.add_argument("--model", help="Hugging Face id or folder of a causal or encoder model")
    parser.add_argument(
        "--noise", type=float, help="share of wrong labels to expect, in [0, 0.5) (default: an upper estimate)"
    )
    parser.add_encoder(help="frozen encoder that estimates the noise: minilm or a folder")
    parser.add_argument("--out", metavar="NAME", help="dataset for a version weighed by what both models kept")
    parser.epilog = f"and those of rmkit train explicit (or, with --kind implicit, implicit)\n\n{parser.epilog}"
    parser.add_config(ReviewConfig)
    parser.add_seed(None, help="as --set seed=N")
    parser.add_output("folder of models A and B and the audit", type=arguments.local_path)
    parser.add_resume()
    parser.add_allow_benchmark()
    options = parser.parse_args(argv)
    values = arguments.set_values(options)
    review = {field.name: values.pop(field.name) for field in fields(ReviewConfig) if field.name in values}
    values |= {name: value for name in ("model", "seed") if (value := getattr(options, name)) is not None}
    settings = training_config(options.kind, **values)
    result = train_peers(
        options.data,
        settings,
        noise=options.noise,
        review=build(ReviewConfig, review, where="train peers"),
        encoder=options.encoder,
        out=options.out,
        output=options.output,
        resume=options.resume,
        restart=options.restart,
        allow_benchmark=options.allow_benchmark,
    )
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


@dataclass(frozen=True, slots=True)
class Peer:
    """One of the two models: its artifact, and its accuracy on the validation pairs."""

    path: Path
    accuracy: float


@dataclass(frozen=True, slots=True)
class PeersResult:
    """Both models by name (A, B), the accuracy of their mean, the facts of each epoch, and the file of the audit."""

    path: Path
    noise: NoisePrior
    skipped: Mapping[str, Mapping[str, int]]
    epochs: tuple[EpochFacts, ...]
    models: Mapping[str, Peer]
    mean_accuracy: float
    audit: Path
    seconds: float
    version: str | None = None


def _text(result: PeersResult) -> str:
    header = ("epoch", "keep", "kept A", "kept B", "mean margin A", "B", "Jaccard")
    rows = [
        (
            one.epoch,
            number(one.keep_ratio, ".2f"),
            *one.kept,
            *(number(margin, ".2f") for margin in one.mean_margin),
            number(one.jaccard, ".2f"),
        )
        for one in result.epochs
    ]
    alone = ", ".join(f"{name} {display.percent(one.accuracy)}" for name, one in result.models.items())
    text = f"validation accuracy: {alone}, mean of both {display.percent(result.mean_accuracy)}"
    end = [f"models and audit in {result.path}", *([f"weighed data: {result.version}"] if result.version else [])]
    return "\n".join([f"noise {result.noise}", display.table(header, rows), text, *end])


def train_peers(
    data: str,
    settings: TrainingConfig,
    *,
    noise: float | None = None,
    encoder: str = EncoderConfig.encoder,
    review: ReviewConfig | None = None,
    out: str | None = None,
    output: Path | None = None,
    resume: Resume = False,
    restart: bool = False,
    allow_benchmark: bool = False,
) -> PeersResult:
    """Train both models, each reviewing the other's pairs.

    Policies share one reference, whose log-probabilities are computed once. Without `noise` it is estimated by
    cross-fitted heads on features of `encoder`. With `out` what both models kept goes into the warehouse: the audit of
    every pair and epoch, and a version of that dataset with the weights 0, 1/2 and 1; `data` must name a version then.

    Raises DataError below 50 pairs or where there are benchmark rows, ConfigError for a noise prior outside [0, 0.5),
    UsageError where an interrupted run stands in the way.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("transformers", "train") from error
    import pyarrow.parquet as pq

    from rmkit.reliability.label_weights import MIN_PAIRS
    from rmkit.reliability.noise_prior import stated
    from rmkit.training.denoised import estimated_prior
    from rmkit.training.peer_review import Peers, PeerTrainer
    from rmkit.training.run import arguments as trainer_arguments
    from rmkit.training.run import prepare_run_dir, steps
    from rmkit.training.splits import read_splits

    if settings.save_steps is not None:
        raise ConfigError("save_steps: peers are stored at the ends of epochs, where their pools are complete")
    review, start = review or ReviewConfig(), time.monotonic()
    if out is not None and Path(data).is_dir():
        raise UsageError(f"--out takes a dataset version to weigh, NAME@REF, got the folder {data}")
    folder = export_folder(data)
    if noise is None:
        pairs, _ = split_pairs(folder, "train", at_least=MIN_PAIRS)
        prior = estimated_prior(pairs, encoder=EncoderConfig(encoder=encoder), seed=settings.seed)
    else:
        prior = stated(noise)
    target = output or model_folder(folder, "peers")
    if target.exists() and not (target / AUDIT).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target} exists and holds no reviewed pair of models; name another folder with -o")
    run = paths.home() / "runs" / f"peers-{target.name}"
    dataset = trainable_dataset(folder, allow_benchmark=allow_benchmark)
    identity = {"settings": settings.as_json(), "review": asdict(review), "noise": prior.value, "dataset": dataset}
    checkpoint = prepare_run_dir(run, identity, resume=resume, restart=restart)
    first, second, chat = build_peers(settings)
    splits = read_splits(folder, chat, settings.objective, max_eval_samples=settings.max_eval_samples)
    everything: dict[str, Sequence[TrainingRow]] = {
        split: list(part) for split, part in splits.rows.items()
    }  # both models score all of them each epoch
    rows = kind_of(settings).prepare(everything, settings, first, second)
    arguments = trainer_arguments(settings, n_rows=len(rows["train"]), run=run)
    for name, value in _EPOCHS.items():
        setattr(arguments, name, value)
    with display.progress("training", steps(settings, len(rows["train"]))) as advance:
        trainer = PeerTrainer(
            Peers(first, second),
            arguments,
            config=settings,
            review=review,
            noise=prior.value,
            rows=rows["train"],
            on_step=advance,
        )
        trainer.train(resume_from_checkpoint=checkpoint)
    audit = trainer.audit()
    with draft_folder(target) as draft:
        models, mean_accuracy = _stored(trainer, chat, rows["validation"], settings, draft, target, identity)
        pq.write_table(audit.table(), draft / AUDIT)
        put(draft, target, replace=True)
    shutil.rmtree(run, ignore_errors=True)
    weighed = None if out is None else str(upper("peer_verdicts")(data, target, out))
    return PeersResult(
        path=target,
        noise=prior,
        skipped=splits.skipped,
        epochs=audit.epochs,
        models=models,
        mean_accuracy=mean_accuracy,
        audit=target / AUDIT,
        seconds=round(time.monotonic() - start, 2),
        version=weighed,
    )


def build_peers(settings: TrainingConfig) -> tuple[RewardModule, RewardModule, Chat]:
    """Models A and B, which differ in their seed, and their chat."""
    kind = kind_of(settings)
    first, chat = kind.build(settings)
    return first, kind.build(replace(settings, seed=settings.seed + 1))[0], chat


# The Trainer's defaults for one model do not fit two: the last epoch counts, and pools are complete at ends of epochs.
_EPOCHS = {
    "eval_strategy": "no",
    "save_strategy": "epoch",
    "load_best_model_at_end": False,
    "max_grad_norm": 0.0,  # each model's gradient is clipped on its own
}


def _stored(
    trainer: Any,
    chat: Any,
    validation: Any,
    settings: TrainingConfig,
    draft: Path,
    target: Path,
    answers: Mapping[str, Any],
) -> tuple[dict[str, Peer], float]:
    """Both models as artifacts DRAFT/A and DRAFT/B, and what they and their mean reach on the validation pairs."""
    from rmkit.metrics import fit_temperature
    from rmkit.models.artifact import folder as artifact
    from rmkit.training.validation import validate

    peers: dict[str, Peer] = {}
    margins = []
    for name, module in zip(("A", "B"), trainer.model.both, strict=True):
        result = validate(module, validation, max_batch_tokens=trainer.max_batch_tokens, objective=settings.objective)
        margins.append(result.margin)
        with artifact.building(draft / name) as temporary:
            facts = {
                "name": f"{target.name}-{name}",
                "temperature": fit_temperature(result.margin, result.p),
                "dataset": answers["dataset"],
                "seed": settings.seed,
                "validation": result.facts,
                "training": {"settings": settings.as_json(), "review": answers["review"], "noise": answers["noise"]},
            }
            kind_of(settings).save(temporary, module, chat, settings, facts=facts)
        peers[name] = Peer(target / name, result.facts["accuracy"]["value"])
    mean = sum(margin / margin.std() for margin in margins)
    right = ((mean > 0) == (result.p > 0.5))[result.p != 0.5]
    return peers, float(right.mean())
