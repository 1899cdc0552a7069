"""`rmkit denoise fine-tuned`: two fine-tuned causal models under peer review on a planted task, beside plain training.

The task: answers that affirm are better, among words that say nothing; a share of the training labels is turned around,
validation labels are right. The models are made from a config (5 million parameters, byte-level tokens, random
weights), so nothing is downloaded. `standard` is the same two models trained on all pairs (noise prior 0). With `--kind
implicit` the models are policies under DPO, whose reference is where they started.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.data.example import EXAMPLE_SCHEMA, MANIFEST
from rmkit.ids import assistant_message, content_hash, user_message
from rmkit.revision import versions_text
from rmkit.training.config import ExplicitConfig, ImplicitConfig
from rmkit.training.peer_review_command import PeersResult, train_peers

WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "sky",
    "river",
    "step",
    "two",
    "music",
    "bread",
)
GOOD, BAD = ("yes", "indeed", "surely"), ("no", "never", "hardly")
TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>{{ '\\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "denoise fine-tuned",
        "Peer review with two fine-tuned causal models of 5M parameters on a planted task, beside plain training.",
        examples=["denoise fine-tuned --seeds 3", "denoise fine-tuned --pairs 400 --epochs 4 --rate 0.2"],
    )
    parser.add_argument("--kind", choices=("explicit", "implicit"), default="explicit", help="scalar heads, or DPO")
    parser.add_argument("--pairs", type=int, default=400, help="training pairs")
    parser.add_argument("--rate", type=float, default=0.4, help="share of wrong training labels")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=320, help="hidden size; 320 makes 5M parameters")
    parser.add_argument("--lr", type=float, help="learning rate (default 3e-4; with adapters 2e-3)")
    parser.add_argument("--beta", type=float, default=1.0, help="of implicit rewards (default 1)")
    parser.add_argument("--lora-rank", type=int, default=0, help="two adapters on one frozen trunk instead")
    parser.add_output("also write the table as Markdown")
    options = parser.parse_args(argv)
    seeds = [_one(options, seed) for seed in range(options.seeds)]
    result = {"command": arguments.command_line("denoise fine-tuned", argv), "rate": options.rate, "seeds": seeds}
    text = markdown(result)
    if options.output:
        write_text(options.output, text + "\n")
    display.emit(result, as_json=options.json, text=text)
    return 0


def _one(options: Any, seed: int) -> dict[str, object]:
    """Both arms with one seed: accuracies in percent and the audit's epochs, the truth added."""
    with tempfile.TemporaryDirectory() as folder:
        right = planted(Path(folder) / "data", pairs=options.pairs, rate=options.rate, seed=seed)
        parameters = causal_model(Path(folder) / "base", hidden=options.hidden, seed=seed)
        values: dict[str, Any] = {
            "model": str(Path(folder) / "base"),
            "learning_rate": options.lr or (2e-3 if options.lora_rank else 3e-4),
            "lora_rank": options.lora_rank,
            "num_train_epochs": float(options.epochs),
            "global_batch_size": 16,
            "max_batch_tokens": 2048,
            "max_length": 256,
            "response_reserve_tokens": 128,
            "seed": seed,
        }
        implicit = options.kind == "implicit"
        settings = ImplicitConfig(**values, beta=options.beta) if implicit else ExplicitConfig(**values)
        arms = {
            name: train_peers(
                str(Path(folder) / "data"), settings, noise=noise, output=Path(folder) / name, restart=True
            )
            for name, noise in (("standard", 0.0), ("peer", options.rate))
        }
        epochs = _with_truth(arms["peer"], right)
    return {
        "seed": seed,
        "parameters": parameters,
        "standard": 100 * mean(one.accuracy for one in arms["standard"].models.values()),
        "standard_ensemble": 100 * arms["standard"].mean_accuracy,
        "peer": 100 * mean(one.accuracy for one in arms["peer"].models.values()),
        "peer_ensemble": 100 * arms["peer"].mean_accuracy,
        "epochs": epochs,
    }


def _with_truth(arm: PeersResult, right: Mapping[str, bool]) -> list[dict[str, object]]:
    """The epochs of the audit with AUC and kept precision of both models."""
    import pyarrow.parquet as pq

    from rmkit.reliability.separation import auc, kept_precision

    audit = pq.read_table(arm.audit).to_pydict()
    epoch, model = np.array(audit["epoch"]), np.array(audit["model"])
    clean = np.array([right[one] for one in audit["id"]])
    values, margin = np.array(audit["kept"]), np.array(audit["margin"])
    results = []
    for facts in arm.epochs:
        masks = [(epoch == facts.epoch) & (model == name) for name in ("A", "B")]
        results.append(
            asdict(facts)
            | {"auc": [auc(margin[mask], clean[mask]) for mask in masks]}
            | {"kept_precision": [kept_precision(values[mask], clean[mask]) for mask in masks]}
        )
    return results


def planted(folder: Path, *, pairs: int, rate: float, seed: int) -> dict[str, bool]:
    """An export folder of the task; which labels are right, by id. Validation: a quarter as many pairs, all right."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = random.Random(seed)
    wrong = set(draw.sample(range(pairs), round(rate * pairs)))
    rows, right = [], {}
    for number in range(pairs + max(pairs // 4, 20)):
        good, bad = (" ".join(draw.sample([*draw.choices(WORDS, k=7), draw.choice(key)], 8)) for key in (GOOD, BAD))
        first = draw.random() < 0.5
        label = float(first != (number in wrong))
        texts = [assistant_message(text) for text in ((good, bad) if first else (bad, good))]
        by_key: dict[str, Any] = dict.fromkeys(EXAMPLE_SCHEMA.names)
        by_key |= {"id": content_hash(f"{seed} {number}"), "unit": content_hash("".join(texts)), "kind": "pair"}
        by_key |= {"source": "planted", "prompt": user_message(f"is it so, {number}?"), "responses": texts}
        by_key |= {"p": [label, 1 - label], "n_votes": 1, "family": number, "weight": 1.0}
        rows.append(by_key | {"split": "train" if number < pairs else "validation"})
        right[by_key["id"]] = number not in wrong
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), folder / "rows.parquet")
    manifest = {
        "files": {"rows.parquet": {}},
        "ref": f"planted@seed{seed}",
        "digest": content_hash(f"{seed} {rate} {pairs}"),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest | {"benchmark_rows": 0}))
    return right


def causal_model(folder: Path, *, hidden: int, seed: int) -> int:
    """A causal language model with random weights and a byte-level tokenizer in the folder; its parameters."""
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join([*WORDS, *GOOD, *BAD])] * 20, trainer)
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=TEMPLATE
    )
    torch.manual_seed(seed)
    config = hf.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=int(2.7 * hidden),
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    model = hf.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return int(sum(weight.numel() for weight in model.parameters()))


def markdown(result: Mapping[str, Any]) -> str:
    """Accuracies by seed, and the audit of the first seed by epoch."""
    lines = [
        f"{result['seeds'][0]['parameters'] / 1e6:.1f}M parameters a model, {result['rate']:.0%} of the training "
        f"labels turned around. Command: `{result['command']}`, {versions_text()}",
        "",
        "| seed | standard, mean of two % | standard, both together % | peer, mean of two % | peer, both together % |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    arms = ("standard", "standard_ensemble", "peer", "peer_ensemble")
    lines += [f"| {one['seed']} | " + " | ".join(f"{one[arm]:.1f}" for arm in arms) + " |" for one in result["seeds"]]
    lines += ["", "Audit, seed 0 (A / B):", ""]
    lines += ["| epoch | keep ratio | kept | kept and right % | AUC of the margin | mean margin | Jaccard |"]
    lines += ["| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for one in result["seeds"][0]["epochs"]:
        both = [
            " / ".join(str(value) for value in one["kept"]),
            " / ".join(f"{100 * value:.0f}" for value in one["kept_precision"]),
            " / ".join(f"{value:.2f}" for value in one["auc"]),
            " / ".join(f"{value:.2f}" for value in one["mean_margin"]),
        ]
        lines.append(f"| {one['epoch']} | {one['keep_ratio']:.2f} | {' | '.join(both)} | {one['jaccard']:.2f} |")
    return "\n".join(lines)
