"""`rmkit bench training`: explicit reward training beside TRL's RewardTrainer, end to end on the same pairs.

Every arm is a process of its own that reads the same pairs, tokenizes them, loads the same initial weights and takes
the same number of optimizer steps over the same number of pairs with the same optimizer, precision, dropout (none) and
checkpointing. The arms run in turn, all of them once per repeat; ratios are taken within a repeat and their median is
reported. Pairs per second count from the raw pairs to the last step (imports and weight loading are left out).

    trl            RewardTrainer with its default sampling
    trl_grouped    the same with train_sampling_strategy = group_by_length
    rmkit          all ingredients together
    head           one alone: cut and padded as trl is, only the fp32 head at the reward token differs
    bucketed       head + rows of a step sorted by length before they are cut
    budget         head + padded micro-batches under the token budget, rows unsorted
    prefix         head + shared prompts: micro-batches of the same pairs as trl's, packed without padding
    packed         rmkit without shared prompts

An optimizer step is `--global-batch-size` pairs in every arm; trl takes it in micro-batches of `--micro-batch` pairs
(its default, 8) with gradient accumulation. trl and every arm of ours draw the same batches, so their loss curves are
compared step by step. Memory is the
process's peak resident set, and how far it rose during training.
"""

from __future__ import annotations

import gzip
import json
import math
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.benchmarks.training import page
from evaluation.benchmarks.training.arms import OURS, PEERS, PRELOADED, measure
from rmkit.cli import arguments, display
from rmkit.errors import DataError, RmkitError, UsageError, unknown

if TYPE_CHECKING:
    from transformers import Qwen3Config

SIZES = {  # hidden, layers, heads, key heads, head width, feed-forward
    "toy": (64, 2, 4, 2, 16, 128),
    "small": (384, 6, 6, 2, 64, 1024),
    "base": (768, 12, 12, 4, 64, 2048),
    "qwen3-0.6b": (1024, 28, 16, 8, 128, 3072),
    "qwen3-8b": (4096, 36, 32, 8, 128, 12288),
}
CHATML = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>{{ '\\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"
)


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    if not options.pairs:
        raise UsageError("--pairs takes one or more files of pairs (prompt, chosen, rejected), e.g. HH-RLHF as JSONL")
    if options.global_batch_size % options.micro_batch:
        raise UsageError(
            f"--global-batch-size {options.global_batch_size} is no multiple of --micro-batch {options.micro_batch}"
        )
    arms = options.arms.split(",")
    if extra := set(arms) - {*PEERS, *OURS}:
        raise UsageError(unknown("arm", min(extra), (*PEERS, *OURS)))
    with tempfile.TemporaryDirectory() as folder:
        spec = _prepare(Path(folder), options)
        results = _run(spec, arms, repeats=options.repeats, file=options.results)
    summary = _summary(results, spec)
    if options.plot:
        page.plot(summary, options.plot)
    if options.page:
        page.write(options.page, summary, argv=argv, plot=options.plot)
    display.emit(summary, as_json=options.json, text=page.table(summary))
    return 0


def _parser() -> arguments.Parser:
    parser = arguments.parser(
        "bench training",
        "Explicit reward training beside TRL's RewardTrainer: pairs per second, memory, loss curve.",
        examples=[
            "bench training --pairs pairs_hh_harmless.jsonl.gz pairs_hh_helpful.jsonl.gz",
            "bench training --pairs hh.jsonl --size toy --n 64 --repeats 1 --arms trl,rmkit",
        ],
    )
    parser.add_argument("--pairs", nargs="+", type=Path, help="JSONL (or .gz) with prompt turns, chosen, rejected")
    parser.add_argument("--n", type=int, default=512, help="pairs per run (default 512)")
    parser.add_argument("--global-batch-size", type=int, default=32, help="pairs per optimizer step")
    parser.add_argument(
        "--micro-batch", type=int, default=8, help="pairs of a padded forward pass (default 8, as TRL's)"
    )
    parser.add_argument("--max-batch-tokens", type=int, default=4096, help="our token budget")
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in every arm")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="times that every arm runs (default 5)")
    parser.add_argument("--arms", default=",".join((*PEERS, *OURS)), help="comma-separated (default: all)")
    parser.add_argument(
        "--results",
        type=arguments.local_path,
        help="JSONL of what each arm measured; the same command goes on after what stands there",
    )
    parser.add_argument("--plot", type=arguments.output_path, help="write a bar chart (SVG or PNG)")
    parser.add_page()
    return parser


def _prepare(folder: Path, options: Any) -> dict[str, object]:
    """Pairs, tokenizer and initial weights on disk, the same for every arm."""
    pairs = _read_pairs(options.pairs, options.n)
    (folder / "pairs.json").write_text(json.dumps(pairs))
    _write_model(folder / "model", pairs, size=options.size)
    return {
        "folder": str(folder),
        "n": len(pairs),
        "global_batch_size": options.global_batch_size,
        "micro_batch": options.micro_batch,
        "max_batch_tokens": options.max_batch_tokens,
        "size": options.size,
        "precision": options.precision,
        "checkpointing": options.checkpointing,
        "threads": options.threads,
        "files": [path.name for path in options.pairs],
    }


def _read_pairs(files: Sequence[Path], n: int) -> list[dict[str, object]]:
    """n pairs spread evenly over the files' rows."""
    rows: list[dict[str, Any]] = []
    for path in files:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            rows += [
                {key: row[key] for key in ("prompt", "chosen", "rejected")}
                for row in map(json.loads, file)
                if row["chosen"].strip() and row["rejected"].strip() and row["chosen"] != row["rejected"]
            ]
    if len(rows) < n:
        raise DataError(f"{len(rows)} usable pairs in {len(files)} files, {n} were asked for; lower --n")
    return [rows[i * len(rows) // n] for i in range(n)]


def _write_model(folder: Path, pairs: Sequence[Mapping[str, Any]], *, size: str) -> None:
    """A random Qwen3-type model and a byte-level BPE tokenizer trained on the pairs: nothing is downloaded."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    texts = (text for pair in pairs for text in (pair["chosen"], *(turn["content"] for turn in pair["prompt"])))
    fast = write_tokenizer(folder, texts)
    torch.manual_seed(0)
    config = model_config(size, vocabulary=len(fast), pad_id=fast.pad_token_id)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


def write_tokenizer(folder: Path, texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer of 8,000 tokens, trained on the texts, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=CHATML
    )
    fast.save_pretrained(folder)
    return fast


def model_config(size: str, *, vocabulary: int, pad_id: int) -> Qwen3Config:
    """A Qwen3-type config with one label."""
    from transformers import Qwen3Config

    hidden, layers, heads, key_heads, width, feed_forward = SIZES[size]
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=width,
        intermediate_size=feed_forward,
        max_position_embeddings=1 << 16,
        pad_token_id=pad_id,
        num_labels=1,
    )


def _run(
    spec: Mapping[str, Any], arms: Sequence[str], *, repeats: int, file: Path | None
) -> list[dict[str, dict[str, object]]]:
    """Per repeat and arm what the child measured; the order of arms turns from repeat to repeat."""
    same = {key: value for key, value in spec.items() if key != "folder"}
    results: list[dict[str, dict[str, Any]]] = [{} for _ in range(repeats)]
    if file is not None and file.exists():
        for line in map(json.loads, file.read_text().splitlines()):
            if line["spec"] != same:
                raise UsageError(f"{file} was measured with other settings: {line['spec']}")
            if line["repeat"] < repeats:
                results[line["repeat"]][line["arm"]] = line["result"]
    with display.progress("arms", repeats * len(arms)) as advance:
        for repeat, measured in enumerate(results):
            shift = repeat % len(arms)
            for arm in (*arms[shift:], *arms[:shift]):
                if arm not in measured:
                    measured[arm] = _run_arm({**spec, "arm": arm})
                    if file is not None:
                        with file.open("a") as out:
                            line = {"spec": same, "repeat": repeat, "arm": arm, "result": measured[arm]}
                            out.write(json.dumps(line) + "\n")
                advance(1)
    return [{arm: measured[arm] for arm in arms} for measured in results]


def _run_arm(spec: Mapping[str, Any]) -> dict[str, object]:
    """Measured in a fresh process, forked from one that has imported the libraries and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with ProcessPoolExecutor(1, mp_context=context) as alone:
        try:
            return alone.submit(measure, spec).result()
        except RmkitError:
            raise
        except Exception as error:
            raise RmkitError(f"arm {spec['arm']} failed: {type(error).__name__}: {error}") from error


def _summary(results: Sequence[Mapping[str, Mapping[str, Any]]], spec: Mapping[str, Any]) -> dict[str, object]:
    """Medians per arm, medians of ratios within repeats (wall clock and CPU), the largest step-wise loss difference."""
    arms = list(results[0])
    measures = ("pairs_per_s", "train_s", "cpu_s", "tokens", "peak_mb", "rise_mb")
    medians = {
        arm: {key: statistics.median(repeat[arm][key] for repeat in results) for key in measures} for arm in arms
    }
    against = [(arm, peer) for peer in PEERS if peer in arms for arm in arms if arm != peer and arm not in PEERS]
    summary: dict[str, Any] = {
        "arms": medians,
        "ratios": {f"{arm}/{peer}": _ratios(results, "pairs_per_s", arm, peer) for arm, peer in against},
        "cpu_ratios": {f"{arm}/{peer}": _ratios(results, "cpu_s", peer, arm) for arm, peer in against},
        "repeats": len(results),
        "spec": {key: value for key, value in spec.items() if key != "folder"},
        "machine": page.machine(spec["threads"]),
    }
    if "trl" in arms:
        summary["losses"] = {arm: results[0][arm]["losses"] for arm in arms if arm != "trl_grouped"}
        summary["loss_gap"] = {
            arm: max(_loss_gap(repeat[arm]["losses"], repeat["trl"]["losses"]) for repeat in results)
            for arm in arms
            if arm not in PEERS
        }
    return summary


def _ratios(results: Sequence[Mapping[str, Mapping[str, Any]]], key: str, over: str, under: str) -> dict[str, float]:
    values = [repeat[over][key] / repeat[under][key] for repeat in results]
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _loss_gap(result: Sequence[float], expected: Sequence[float]) -> float:
    if len(result) != len(expected):
        return math.inf
    return max(abs(a - b) for a, b in zip(result, expected, strict=True))
