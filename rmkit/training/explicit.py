"""`rmkit train explicit`: fine-tune a transformer with a scalar head into a verified artifact.

Training sees the train split; validation picks the checkpoint and fits the temperature; the test split is not touched.
An interrupted run goes on with --resume exactly where its last checkpoint stood.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.cli import arguments as cli
from rmkit.cli import display
from rmkit.cli.arguments import settings_text
from rmkit.data.export_folder import Data, export_folder, model_folder, trainable_dataset
from rmkit.errors import MissingExtraError, UsageError
from rmkit.plugins import resolve
from rmkit.revision import git_sha
from rmkit.training.config import CONFIGS, TrainingConfig, default_objective, objectives
from rmkit.training.kinds import kind_of
from rmkit.training.run import Resume, arguments, finished, is_main_process, prepare_run_dir, run_folder, steps
from rmkit.training.settings import read_settings
from rmkit.training.splits import names_of, read_splits

if TYPE_CHECKING:
    from rmkit.training.trainer import RewardTrainer

log = logging.getLogger(__name__)

PACKAGES = ("rmkit", "torch", "transformers", "tokenizers", "accelerate")  # whose versions an artifact records
SUMMARIES = {
    "explicit": "Fine-tune a transformer with a scalar head on a dataset version.",
    "process": "Fine-tune a transformer with a head that scores every step of a solution.",
    "implicit": "Train a policy on preferences (DPO, IPO, ...): its log-ratios to the reference are the rewards.",
}
EXAMPLES = {
    "explicit": (
        "train explicit --data hh@v2 --model Qwen/Qwen3-0.6B --set precision=bf16 --set lora_rank=16",
        "train explicit --data exports/hh-v2 --config explicit.toml -o models/hh --resume auto --set save_steps=100",
        "train explicit --data hh@v2 --config qwen3-8b --plan --gpus 8",
        "train explicit --data helpsteer@v1 --model ID_OR_PATH --set objective=regression",
    ),
    "process": ("train process --data prm@v2 --model Qwen/Qwen3-0.6B --set reduction=min --set max_length=4096",),
    "implicit": (
        "train implicit --data hh@v2 --model Qwen/Qwen3-0.6B --set beta=0.1 --set precision=bf16",
        "train implicit --data hh@v2 --model PATH --set objective=ipo --seeds 3",
        "train implicit --data hh@v2 --model PATH --set reverse=true -o models/hh-reverse",
    ),
}


def main(argv: list[str], *, kind: str = "explicit") -> int:
    parser = cli.parser(f"train {kind}", SUMMARIES[kind], examples=EXAMPLES[kind])
    parser.add_data(required=True)
    parser.add_argument("--model", help="Hugging Face id or folder of a causal or encoder model")
    parser.epilog = f"{_objectives_text(kind)}\n\n{parser.epilog}"
    parser.add_config(CONFIGS[kind], hidden=("model", "objective", "seed"))
    parser.add_seed(None, help="as --set seed=N")
    parser.add_output(f"artifact folder (default $RMKIT_HOME/models/DATA-{kind})")
    parser.add_resume()
    parser.add_allow_benchmark()
    parser.add_argument("--seeds", type=int, help="train K times with seeds N ... N+K-1: mean and interval")
    parser.add_argument(
        "--plan", action="store_true", help="tell memory, steps, tokens and disk; load and train nothing"
    )
    parser.add_argument("--gpus", type=cli.positive, default=1, metavar="N", help="GPUs that --plan is made for")
    parser.add_argument("--gpu-memory", type=float, metavar="GIB", help="of each (default: this GPU's, else 80)")
    parser.add_argument("--learning-rates", metavar="A,B,C", help="train once for each rate (and seed)")
    options = parser.parse_args(argv)
    settings = read_settings(options.config, options.set, kind=kind, model=options.model, seed=options.seed)
    if options.resume and options.restart:
        raise UsageError("--resume and --restart exclude each other")
    if options.plan:
        from rmkit.training.plan import report

        planned = report.plan(options.data, settings, gpus=options.gpus, gpu_gib=options.gpu_memory)
        display.emit(planned, as_json=options.json, text=report.text(planned))
        return 0
    if options.seeds is not None or options.learning_rates:
        from rmkit.training import sweep

        return sweep.run(options, settings, train=train)
    result = train(
        options.data,
        settings,
        output=options.output,
        resume=options.resume,
        restart=options.restart,
        allow_benchmark=options.allow_benchmark,
    )
    if is_main_process():
        display.emit(result, as_json=options.json, text=_text(result))
    return 0


def _objectives_text(kind: str) -> str:
    """The objectives of a kind of model, and the options of those that have any."""
    names_of: dict[str, list[str]] = {}
    for name in objectives(kind):
        cls = resolve("objectives", name)
        if fields(cls):
            names_of.setdefault(settings_text(cls), []).append(name)
    title = f"objectives, as --set objective=NAME or MODULE:OBJECT (default {default_objective(kind).name()})"
    known = f"{title}:\n  {', '.join(objectives(kind))}"
    return "\n".join([known, *(f"settings of {', '.join(names)}:\n{text}" for text, names in names_of.items())])


def train(
    data: Data,
    settings: TrainingConfig,
    *,
    output: Path | None = None,
    resume: Resume = False,
    restart: bool = False,
    allow_benchmark: bool = False,
) -> dict[str, Any]:
    """Train, store and reload an explicit model: its path, fingerprint, facts and validation numbers.

    With `resume="auto"` an interrupted run goes on, a finished one is given back, and where there is neither one
    begins. Of several processes (torchrun) the first stores and reloads; the others give back nothing.

    Raises DataError where a split is missing or too small, where there are benchmark rows, or a loss is not finite;
    UsageError where an interrupted run stands in the way.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("transformers", "train") from error
    from rmkit.metrics import fit_temperature
    from rmkit.models import load_model
    from rmkit.models.artifact import folder as artifact
    from rmkit.training.model import stored_dtype
    from rmkit.training.tokens.encode import stored_head
    from rmkit.training.validation import validate

    start = time.monotonic()
    folder = export_folder(data)
    dataset = trainable_dataset(folder, allow_benchmark=allow_benchmark)
    target = output or model_folder(folder, settings.kind)
    run = run_folder(target)
    identity = {"settings": settings.as_json(), "dataset": dataset}
    if resume == "auto" and not restart and (card := finished(target, settings, dataset)):
        log.info("%s was trained by this very command", target)
        return {"path": str(target), **card} if is_main_process() else {}
    checkpoint = prepare_run_dir(run, identity, resume=resume, restart=restart)
    with artifact.building(target) if is_main_process() else contextlib.nullcontext() as temporary:
        kind, objective = kind_of(settings), settings.objective
        head = stored_head(folder, names_of("train"), objective)
        module, chat = kind.build(settings, head=head)
        loading = dict(module.loading)
        splits = read_splits(folder, chat, objective, head, max_eval_samples=settings.max_eval_samples)
        rows = kind.prepare(splits.rows, settings, module)
        trainer, mean_loss = _trained(module, rows, settings, head=head, run=run, checkpoint=checkpoint)
        if not (at_once := trainer.fits_one_device()):
            trainer.evaluate()  # by shares, of weights that are not rounded yet
        module = trainer.whole(lambda: kind.build(settings, head=head)[0])
        if temporary is None:
            return {}
        stored = str(stored_dtype(settings)).removeprefix("torch.")
        module, state = kind.storable(module, settings, head=head), trainer.run_state
        result = trainer.validated
        if at_once or result is None:
            result = validate(
                module,
                rows["validation"],
                max_batch_tokens=trainer.max_batch_tokens,
                objective=objective,
                state=state,
            )
        facts = {
            "name": target.name,
            "temperature": fit_temperature(result.margin, result.p),
            "dataset": dataset,
            "seed": settings.seed,
            "validation": result.facts,
            "training": {
                "settings": settings.as_json(),
                "rows": {split: len(part) for split, part in rows.items()},
                "skipped": splits.skipped,
                "truncated": splits.truncated,
                "loading": loading,
                "attention": module.attention,
                "stored_dtype": stored,
                "validated": "as stored" if at_once else "by shares, before rounding",
                "padded_because": module.padded_because,
                **training_stats(trainer),
                "mean_loss": mean_loss,
                "seconds": round(time.monotonic() - start, 2),
                "revision": git_sha(),
                "versions": {name: version(name) for name in PACKAGES},
            },
            **objective.metadata(state),
        }
        kind.save(temporary, module, chat, settings, facts=facts, head=objective.trained_head(state))
        info = load_model(temporary, device=None if at_once else "cpu").info
    shutil.rmtree(run, ignore_errors=True)
    return {"path": str(target), "fingerprint": info.fingerprint, "kind": info.kind, "scale": info.scale, **facts}


def _trained(
    module: Any, rows: Mapping[str, Any], settings: TrainingConfig, *, head: Any, run: Path, checkpoint: str | None
) -> tuple[RewardTrainer, float]:
    """The trainer after its last step, and the mean loss."""
    from rmkit.training.trainer import RewardTrainer

    with display.progress("training", steps(settings, len(rows["train"]))) as advance:
        trainer = RewardTrainer(
            module,
            arguments(settings, n_rows=len(rows["train"]), run=run),
            config=settings,
            rows=rows["train"],
            validation=rows["validation"],
            head=head,
            on_step=advance,
        )
        outcome = trainer.train(resume_from_checkpoint=checkpoint)
    return trainer, outcome.training_loss


def training_stats(trainer: Any) -> dict[str, object]:
    """How a run went: its processes, steps, losses, and the token budget that memory left."""
    return {
        "processes": trainer.args.world_size,
        "sharded": trainer.shards,
        "max_batch_tokens": trainer.max_batch_tokens,
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


def _text(result: Mapping[str, Any]) -> str:
    from rmkit.training.summary import label_summary_text, summary_text

    training = result["training"]
    rows = f"{training['rows']['train']} train rows, {training['rows']['validation']} validation rows"
    sharing = f"no ({training['padded_because']})" if training["padded_because"] else "yes"
    skipped: Counter[str] = Counter()
    for reasons in training["skipped"].values():
        skipped.update(reasons)
    head = "" if result["kind"] == "implicit" else training["loading"]["head"]  # a policy has none of its own
    more = [
        f"skipped      {skipped.total()} rows",
        *(f"             {n} {reason}" for reason, n in skipped.most_common()),
        f"truncated    {sum(training['truncated'].values())} rows",
        f"prompts shared  {sharing}",
        *([f"score head   {head}"] if head else []),
        *(f"checkpoint   {note}" for note in training["loading"]["notes"]),
        f"took         {training['seconds']:.1f} s, {training['steps']} steps (best: {training['best_step']})",
    ]
    if "accuracy" in result["validation"] and result["scale"] != "rating":
        return summary_text(result, rows=rows, more=more)
    return label_summary_text(result, rows=rows, more=more)
