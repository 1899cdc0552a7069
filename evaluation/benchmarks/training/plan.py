"""`rmkit bench plan`: what `--plan` says of memory, beside the bytes that a real step allocates, and of large models.

Three models of a size that a CPU trains take one optimizer step of two micro-batches under torch's profiler, whose
allocations add up to the most that was held at once; the plan is made from their configs alone. Attention is the one
that runs on a CPU. Of Qwen3-0.6B, Qwen3-8B and Llama-3-70B nothing is loaded: their shapes are planned for a GPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmkit.cli import arguments, display
from rmkit.training.recipes import shape_of

WIDTHS: dict[str, dict[str, Any]] = {  # of the three models
    "qwen3": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 8},
    "llama": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 6},
    "bert": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4},
}
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("qwen3", "full, fp32", {"precision": "fp32"}),
    ("qwen3", "full, bf16, checkpointing", {"precision": "bf16", "gradient_checkpointing": True}),
    ("llama", "LoRA 16, fp32", {"precision": "fp32", "lora_rank": 16}),
    ("llama", "full, fp32, adafactor", {"precision": "fp32", "optim": "adafactor"}),
    ("llama", "full, fp32, padded", {"precision": "fp32", "attention": "sdpa"}),
    ("bert", "full, fp32, padded", {"precision": "fp32", "max_length": 512}),
)
LARGE = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B", "meta-llama/Meta-Llama-3-70B")
WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("full", {}),
    ("full, no checkpointing", {"gradient_checkpointing": False}),
    ("full, 8-bit AdamW", {"optim": "adamw_8bit"}),
    ("full, Adafactor", {"optim": "adafactor"}),
    ("LoRA 16", {"lora_rank": 16}),
    ("QLoRA 16", {"lora_rank": 16, "quantization": "nf4"}),
)
GPUS = (1, 8, 16, 64)


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench plan",
        "Memory that --plan tells beside what a profiled step allocates, and a table for 0.6B, 8B and 70B.",
        examples=["bench plan", "bench plan --tokens 4096"],
    )
    parser.add_argument("--tokens", type=arguments.positive, default=2048, help="of a micro-batch that is profiled")
    parser.add_argument("--large-tokens", type=arguments.positive, default=8192, help="of a micro-batch of the table")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "profiled": [profiled(Path(folder), *case, tokens=options.tokens) for case in CASES],
            "large": large(Path(folder), tokens=options.large_tokens),
            "tokens": options.tokens,
            "large_tokens": options.large_tokens,
        }
    display.emit(result, as_json=options.json, text=table(result))
    return 0


def profiled(folder: Path, family: str, name: str, more: Mapping[str, Any], *, tokens: int) -> dict[str, Any]:
    """Bytes planned and bytes measured of one model and way of training."""
    import torch
    import transformers

    from rmkit.models.transformer.reward_module import RewardModule
    from rmkit.training.config import training_config
    from rmkit.training.model import trainable
    from rmkit.training.plan.memory import memory, sample_rows
    from rmkit.training.run import arguments as trainer_arguments

    place = folder / family
    kinds = {"qwen3": "Qwen3Config", "llama": "LlamaConfig", "bert": "BertConfig"}
    config_class: Any = getattr(transformers, kinds[family])
    key_heads = {"num_key_value_heads": 2, "head_dim": 32} if family == "qwen3" else {}
    shape = config_class(vocab_size=4000, pad_token_id=0, num_labels=1, **WIDTHS[family], **key_heads)
    shape.save_pretrained(place)
    settings = training_config("explicit", model=str(place), **more)
    rows = sample_rows(prompt=120, replies=(60, 90), tokens=tokens)
    planned = memory(settings, rows, device="cpu")

    torch.manual_seed(0)
    model: Any = transformers.AutoModelForSequenceClassification.from_config(shape)
    model.train()
    if settings.attention != "auto":
        model.set_attn_implementation(settings.attention)
    module = RewardModule(trainable(model, settings, peft_task="SEQ_CLS"), packed=settings.attention == "auto")
    options = trainer_arguments(settings, n_rows=100, run=folder / "run")
    trainer_class: Any = transformers.Trainer
    make, named = trainer_class.get_optimizer_cls_and_kwargs(options)
    optimizer = make([weight for weight in module.parameters() if weight.requires_grad], **named)

    def step() -> None:
        for _ in range(2):
            batch = module.collate(rows)
            bf16 = settings.precision == "bf16"
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16, cache_enabled=False):
                outputs = module(batch)
            outputs.float().sum().backward()
            del outputs, batch
        optimizer.step()
        module.zero_grad()

    step()  # makes the optimizer's states
    before = sum(_bytes(weight) for weight in module.parameters())
    before += sum(_bytes(one) for state in optimizer.state.values() for one in state.values() if hasattr(one, "numel"))
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    held = most = 0
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    for event in sorted(events, key=lambda one: one.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    measured = before + most
    return {
        "model": f"{type(model).__name__}, {planned.parameters / 1e6:.1f}M",
        "way": name,
        "planned": planned.total,
        "measured": measured,
        "error": planned.total / measured - 1,
    }


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def large(folder: Path, *, tokens: int) -> list[dict[str, Any]]:
    """Plans for a GPU of the large models, in bf16 with checkpointing unless told otherwise."""
    from rmkit.training.config import training_config
    from rmkit.training.plan.memory import memory, sample_rows

    results = []
    rows = sample_rows(prompt=400, replies=(300, 300), tokens=tokens)
    for name in LARGE:
        place = folder / name.replace("/", "-")
        shape_of(name).save_pretrained(place)
        for way, more in WAYS:
            options = {"precision": "bf16", "gradient_checkpointing": True, **more}
            planned = memory(training_config("explicit", model=str(place), **options), rows)
            parts = {part: getattr(planned, part) for part in ("weights", "gradients", "optimizer", "activations")}
            shares = {str(n): planned.sharded(n) for n in GPUS if n == 1 or options.get("quantization") != "nf4"}
            results.append({"model": name, "way": way, "parameters": planned.parameters, **parts, "on": shares})
    return results


def table(result: Mapping[str, Any]) -> str:
    """Markdown: planned beside measured, then the large models."""
    lines = ["| model | trained | planned, MiB | profiled, MiB | error |", "| --- | --- | ---: | ---: | ---: |"]
    for one in result["profiled"]:
        planned, measured = one["planned"] / 2**20, one["measured"] / 2**20
        lines.append(f"| {one['model']} | {one['way']} | {planned:.1f} | {measured:.1f} | {100 * one['error']:+.1f}% |")
    heads = " | ".join(f"{n} GPU{'s' if n > 1 else ''}" for n in GPUS)
    lines += ["", f"| model | trained | weights | gradients | optimizer | activations | {heads} |"]
    lines.append("| --- | --- |" + " ---: |" * (4 + len(GPUS)))
    for one in result["large"]:
        parts = " | ".join(f"{one[part] / 2**30:.1f}" for part in ("weights", "gradients", "optimizer", "activations"))
        shares = " | ".join(f"{one['on'][str(n)] / 2**30:.0f}" if str(n) in one["on"] else "-" for n in GPUS)
        lines.append(f"| {one['model']} | {one['way']} | {parts} | {shares} |")
    return "\n".join(lines)
