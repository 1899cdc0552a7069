"""What a run will take: memory on each GPU, steps, tokens, disk, and what would make it fit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from rmkit.chat.encode import Chat, ensure_pad
from rmkit.data.export_folder import Data, export_folder
from rmkit.models.transformer.packing import Ids, common_prefix, packed_tokens
from rmkit.models.transformer.pretrained import load_tokenizer
from rmkit.training.config import TrainingConfig
from rmkit.training.model import stored_dtype
from rmkit.training.plan.memory import Memory, memory, packed_length, sample_rows
from rmkit.training.run import steps
from rmkit.training.splits import names_of
from rmkit.training.tokens.encode import count_rows, stored_head, stored_rows

SAMPLE = 512  # rows that stand for all of them
USABLE = 0.92  # of a GPU's memory; the rest goes to CUDA's context and to what the allocator cannot fill
DEFAULT_GIB = 80.0
GIB, GB = 2**30, 1e9
SHARDS = (2, 4, 8, 16, 32, 64, 128)
CHECKPOINTS = 3  # the best, the newest, and the one being written


@dataclass(frozen=True, slots=True)
class Way:
    """A change of settings, and what a GPU would then hold."""

    change: str
    bytes: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is known before a run. Bytes are those of one GPU; `total` is what it holds in the way that the run was
    planned, `ways` what else there is."""

    model: str
    settings: dict[str, object]
    memory: Memory
    gpus: int
    gpu_bytes: int
    total: int
    fits: bool
    micro_batch_tokens: int
    ways: tuple[Way, ...]
    rows: int
    usable_rows: int
    tokens_a_row: float
    tokens: int
    steps: int
    checkpoint_bytes: int
    model_bytes: int
    store_bytes: int

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "memory": {**asdict(self.memory), "total": self.memory.total}}


def plan(data: Data, config: TrainingConfig, *, gpus: int = 1, gpu_gib: float | None = None) -> Plan:
    """The plan of `rmkit train KIND` on this data. Reads the model's config and tokenizer, and some rows; no weights.

    Raises ModelError where the model's shape cannot be followed, DataError where the data has no train split.
    """
    folder, names = export_folder(data), names_of("train")
    tokenizer = load_tokenizer(config.model)
    ensure_pad(tokenizer)
    chat = Chat(tokenizer, config.truncation, reasoning=config.reasoning)
    head = stored_head(folder, names, config.objective)
    n_rows = count_rows(folder, names)
    sample = stored_rows(folder, names, chat, objective=config.objective, head=head, at_most=SAMPLE)
    ids = [row.ids for row in sample]
    usable = round(n_rows * len(ids) / max(1, len(ids) + sum(sample.skipped.values())))
    batch = _micro_batch(config, ids)
    held = memory(config, batch)
    limit = round((gpu_gib or _gpu_gib()) * GIB)
    total = _on_each(held, gpus, sharded=config.sharding == "fsdp2")
    tokens_a_row = statistics.fmean(packed_tokens(row, share=config.share_prompts) for row in ids)
    raw_tokens = statistics.fmean(sum(map(len, row)) for row in ids)
    n_bytes = 4 if str(stored_dtype(config)).endswith("32") else 2
    return Plan(
        model=config.model,
        settings=config.as_json(),
        memory=held,
        gpus=gpus,
        gpu_bytes=limit,
        total=total,
        fits=total <= USABLE * limit,
        micro_batch_tokens=packed_length(config, batch),
        ways=tuple(_ways(config, ids, held, limit)),
        rows=n_rows,
        usable_rows=usable,
        tokens_a_row=tokens_a_row,
        tokens=round(usable * tokens_a_row * config.num_train_epochs),
        steps=steps(config, usable),
        checkpoint_bytes=held.gradients + held.optimizer,
        model_bytes=(held.parameters - (held.trained if config.lora_rank else 0)) * n_bytes,
        store_bytes=round(4.3 * raw_tokens * usable),
    )


def _gpu_gib() -> float:
    import torch

    return torch.cuda.get_device_properties(0).total_memory / GIB if torch.cuda.is_available() else DEFAULT_GIB


def _on_each(held: Memory, gpus: int, *, sharded: bool) -> int:
    """Bytes on each GPU. DDP holds gradients once more, in the buckets that it sends."""
    if sharded:
        return held.sharded(gpus)
    return held.total + (held.gradients if gpus > 1 else 0)


def _micro_batch(config: TrainingConfig, rows: list[tuple[Ids, ...]]) -> list[list[Ids]]:
    """Rows of the sample's middle shape that fill the token budget."""
    prompts = [common_prefix(row) if len(row) > 1 else len(row[0]) // 2 for row in rows]
    replies = [len(ids) - prompt for row, prompt in zip(rows, prompts, strict=True) for ids in row]
    n = round(statistics.median(map(len, rows)))
    prompt, reply = round(statistics.fmean(prompts)), max(1, round(statistics.fmean(replies)))
    shared = config.attention == "auto" and config.share_prompts
    tokens = (
        config.max_batch_tokens if shared else config.max_batch_tokens * (prompt + n * reply) // (n * (prompt + reply))
    )
    return sample_rows(prompt=prompt, replies=[reply] * n, tokens=tokens)


def _ways(config: TrainingConfig, rows: list[tuple[Ids, ...]], held: Memory, limit: int) -> Iterator[Way]:
    """Changes that take memory off, the gentlest first, and how many GPUs are enough under FSDP2."""

    def way(change: str, size: int) -> Way:
        return Way(change, size, size <= USABLE * limit)

    lighter = config
    if not config.gradient_checkpointing:
        lighter = replace(config, gradient_checkpointing=True)
        held = memory(lighter, _micro_batch(lighter, rows))
        yield way("gradient_checkpointing=true", held.total)
    longest = max(packed_tokens(row, share=config.share_prompts) for row in rows)
    if (fewer := max(longest, config.max_batch_tokens // 4)) < config.max_batch_tokens:
        small = replace(lighter, max_batch_tokens=fewer)
        held = replace(held, activations=memory(small, _micro_batch(small, rows)).activations)
        yield way(f"and max_batch_tokens={fewer}", held.total)
    if config.optim.startswith("adamw_torch") and not config.lora_rank:
        yield way("and optim=adamw_8bit", held.total - held.optimizer + 2 * held.trained)
        sums = memory(replace(lighter, optim="adafactor"), [list(rows[0])]).optimizer
        yield way("or optim=adafactor", held.total - held.optimizer + sums)
    for n in SHARDS:
        if config.quantization == "none" and held.sharded(n) <= USABLE * limit:
            yield way(f"or {n} GPUs with sharding=fsdp2", held.sharded(n))
            break
    if not config.lora_rank:
        adapters = replace(lighter, lora_rank=16)
        with_adapters = memory(adapters, _micro_batch(adapters, rows))
        yield way("or lora_rank=16", with_adapters.total)
        if config.kind != "implicit":
            four_bits = replace(adapters, quantization="nf4")
            yield way("or lora_rank=16 and quantization=nf4", memory(four_bits, _micro_batch(four_bits, rows)).total)


def text(result: Plan) -> str:
    """The plan as lines."""
    held, settings = result.memory, result.settings
    trained = "all trained" if held.trained == held.parameters else f"{_count(held.trained)} trained"
    how = f"{settings['precision']}, checkpointing {'on' if settings['gradient_checkpointing'] else 'off'}"
    spread_by = "FSDP2" if settings["sharding"] == "fsdp2" else "DDP"
    spread = "" if result.gpus == 1 else f", {result.gpus} GPUs under {spread_by}"
    verdict = "fits" if result.fits else "does not fit"
    ways = [
        f"{one.change:<44} {one.bytes / GIB:8.1f} GiB  {'fits' if one.fits else 'does not fit'}" for one in result.ways
    ]
    checkpoints = f"{CHECKPOINTS} checkpoints of {result.checkpoint_bytes / GB:.1f} GB at most"
    return "\n".join(
        [
            f"model        {result.model}: {_count(held.parameters)} weights, {trained}",
            f"held         weights {held.weights / GIB:.1f}, gradients {held.gradients / GIB:.1f}, optimizer "
            f"{held.optimizer / GIB:.1f}, activations {held.activations / GIB:.1f} GiB ({how}, "
            f"{result.micro_batch_tokens:,} tokens a pass)",
            f"a GPU        {result.total / GIB:.1f} of {result.gpu_bytes / GIB:.0f} GiB{spread}: {verdict}",
            *(f"{'otherwise' if not number else '':<13}{line}" for number, line in enumerate(ways)),
            f"rows         {result.usable_rows:,} of {result.rows:,} in the train split"
            f"{f' (estimated on {SAMPLE})' if result.rows > SAMPLE else ''}",
            f"steps        {result.steps:,} of {settings['global_batch_size']} rows",
            f"tokens       {result.tokens:,} as training packs them, {result.tokens_a_row:.0f} a row",
            f"disk         {checkpoints}, model {result.model_bytes / GB:.1f} GB, token store "
            f"{result.store_bytes / GB:.2f} GB",
        ]
    )


def _count(n: int) -> str:
    size = min(int(math.log10(max(1, n)) // 3), 4)
    return f"{n / 1000**size:.3g}{('', ' thousand', ' million', ' billion', ' trillion')[size]}"
