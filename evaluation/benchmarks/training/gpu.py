"""`rmkit bench gpu-training`: a training step on one device, packed beside padded, and scoring with its numbers.

Qwen3-0.6B- and 8B-sized models of random weights in bf16, pairs of random ids whose prompt and reply lengths are drawn
from log-normals (sigma 0.6), gradient checkpointing in every arm where asked for. Needs torch and transformers only;
beside TRL itself, end to end, runs `rmkit bench training --size qwen3-0.6b --precision bf16` on the same device.

    padded        what RewardTrainer computes: chosen and rejected of `--micro-batch` pairs, padded to the longest,
                  SDPA, the head on every token in the trunk's precision
    padded_flash  the same with flash_attention_2, where flash-attn is installed
    packed        rmkit without shared prompts: no padding, fp32 head at the reward tokens, cut by token budget
    rows          the same with prompts shared, row by row
    rmkit         the same through flex attention (CUDA only)

Arms take turns on the same rows after one untimed step each; ratios are taken within a repeat. The optimizer is left
out: it costs every arm the same, and with it an 8B model would not fit on one device. `peak` is the measured speed of
one large bf16 matrix product; `use` is the share of it that 6 x parameters x tokens amounts to (2 forward, 4 backward;
attention and recomputation not counted), once for the tokens that an arm really computed.

Scoring takes `--completions` replies a prompt through the engine of the service: fp32 weights, and bf16 autocast over
them. `gap` is the largest difference to the scores of the padded way in fp32.
"""

from __future__ import annotations

import copy
import importlib.util
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from evaluation.benchmarks.training.run import SIZES, model_config
from rmkit.cli import arguments, display
from rmkit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Row = list[tuple[int, ...]]

VOCABULARY = 8000
SIGMA = 0.6


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    if options.pairs % options.micro_batch:
        raise UsageError(f"--pairs {options.pairs} is no multiple of --micro-batch {options.micro_batch}")
    summary = run(options) | scoring(options)
    display.emit(summary, as_json=options.json, text=table(summary))
    return 0


def _parser() -> arguments.Parser:
    parser = arguments.parser(
        "bench gpu-training",
        "Forward and backward of a training step: packed with shared prompts beside padded.",
        examples=["bench gpu-training --size qwen3-0.6b", "bench gpu-training --size qwen3-8b --checkpointing"],
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="qwen3-0.6b")
    parser.add_argument("--pairs", type=int, default=64, help="pairs a step")
    parser.add_argument("--micro-batch", type=int, default=8, help="pairs of a padded forward pass")
    parser.add_argument("--max-batch-tokens", type=int, default=16384, help="our token budget")
    parser.add_argument("--prompt", type=int, default=256, help="median tokens of a prompt")
    parser.add_argument("--reply", type=int, default=128, help="median tokens of a reply")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in every arm")
    parser.add_argument("--completions", type=int, default=16, help="replies a prompt where scoring is measured")
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def run(options: Any) -> dict[str, object]:
    """Per arm the seconds of a step, pairs per second, memory and use of the matrix peak; ratios to `padded`."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    peak = matrix_peak(device, dtype)
    rows = make_rows(options.pairs, prompt=options.prompt, reply=options.reply, seed=0)
    arms = _arms(options, device, dtype)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    with display.progress("steps", len(arms) * (options.repeats + 1)) as advance:
        for repeat in range(options.repeats + 1):
            for name in [*arms][repeat % len(arms) :] + [*arms][: repeat % len(arms)]:
                result = _timed(arms[name], rows, device)
                advance(1)
                if repeat:  # the first step compiles and warms up
                    measured[name].append(result)
    return _summary(options, measured, peak=peak, parameters=arms[next(iter(arms))].parameters, device=device)


def scoring(options: Any) -> dict[str, object]:
    """Per way and precision: completions per second, memory, and how far scores are from those of `padded` in fp32."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from rmkit.models.transformer.reward_module import RewardModule

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    with torch.device(device):
        config = model_config(options.size, vocabulary=VOCABULARY, pad_id=0)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    groups = max(1, 2 * options.pairs // options.completions)
    rows = make_rows(groups, prompt=options.prompt, reply=options.reply, seed=1, replies=options.completions)
    ways = {"padded": (False, False), "rows": (True, False)} | (
        {"rmkit": (True, True)} if device.type == "cuda" else {}
    )
    measured: dict[tuple[str, str], dict[str, Any]] = {}
    for name, (packed, flex) in ways.items():
        with _shared(model, flex=flex) if packed else _attention(model, "sdpa"):
            module = RewardModule(model, packed=packed)
            for precision in ("fp32", "bf16"):
                measured[name, precision] = _scored(module, rows, options, precision=precision, device=device)
    exact = measured["padded", "fp32"]["scores"]
    return {
        "scoring": [
            {
                "way": name,
                "precision": precision,
                "completions_per_s": groups * options.completions / one["seconds"],
                "ratio": measured["padded", precision]["seconds"] / one["seconds"],
                "memory_gib": one["memory_gib"],
                "gap": float((one["scores"] - exact).abs().max()),
            }
            for (name, precision), one in measured.items()
        ],
        "deviation": float(exact.std()),
    }


def _scored(module: Any, rows: Sequence[Row], options: Any, *, precision: str, device: Any) -> dict[str, Any]:
    """Median seconds over the repeats after one untimed pass, peak memory, and the scores."""
    import torch

    seconds = []
    for repeat in range(options.repeats + 1):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        _wait(device)
        start = time.perf_counter()
        outputs = module.outputs(rows, max_batch_tokens=options.max_batch_tokens, precision=precision)
        _wait(device)
        if repeat:
            seconds.append(time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return {"seconds": statistics.median(seconds), "memory_gib": memory, "scores": torch.tensor(outputs).flatten()}


def make_rows(n: int, *, prompt: int, reply: int, seed: int, replies: int = 2) -> list[Row]:
    """n prompts of random ids with some replies each; lengths log-normal around the medians."""
    draw = random.Random(seed)

    def ids(length: float) -> tuple[int, ...]:
        return tuple(draw.randrange(1, VOCABULARY) for _ in range(max(1, round(length))))

    results = []
    for _ in range(n):
        head = ids(prompt * draw.lognormvariate(0, SIGMA))
        results.append([(*head, *ids(reply * draw.lognormvariate(0, SIGMA))) for _ in range(replies)])
    return results


def matrix_peak(device: Any, dtype: Any) -> float:
    """FLOP/s of one large square product, the best of several."""
    import torch

    n, rounds = (8192, 20) if device.type == "cuda" else (512, 3)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(rounds):
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


class _Arm:
    """One way to compute a step's gradients: `losses(rows)` yields (loss, computed tokens) of each micro-batch."""

    def __init__(self, model: Any, losses: Callable[[Sequence[Row]], Iterator[tuple[Any, int]]], setting: Any) -> None:
        self.model, self.losses, self.setting = model, losses, setting
        self.parameters = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()

    def step(self, rows: Sequence[Row]) -> tuple[float, int]:
        """The step's mean loss, and how many tokens went through the trunk."""
        self.model.zero_grad(set_to_none=True)
        total, tokens = 0.0, 0
        with self.setting():
            for loss, count in self.losses(rows):
                (loss / len(rows)).backward()
                total += float(loss.detach()) / len(rows)
                tokens += count
        return total, tokens


def _arms(options: Any, device: Any, dtype: Any) -> dict[str, _Arm]:
    import torch
    from transformers import AutoModelForSequenceClassification

    from rmkit.models.transformer.reward_module import RewardModule

    torch.manual_seed(0)
    with torch.device(device):
        config = model_config(options.size, vocabulary=VOCABULARY, pad_id=0)
        model = AutoModelForSequenceClassification.from_config(config, dtype=dtype)
    plain_head = copy.deepcopy(model.score)  # the module below turns the model's own into fp32
    module = RewardModule(model)
    model.train()
    if options.checkpointing:
        model.gradient_checkpointing_enable()

    def padded(rows: Sequence[Row]) -> Iterator[tuple[Tensor, int]]:
        return _padded(model, plain_head, rows, micro_batch=options.micro_batch)

    def packed(rows: Sequence[Row]) -> Iterator[tuple[Tensor, int]]:
        return _packed(module, rows, max_batch_tokens=options.max_batch_tokens)

    result = {"padded": _Arm(model, padded, lambda: _attention(model, "sdpa"))}
    if device.type == "cuda" and importlib.util.find_spec("flash_attn"):
        result["padded_flash"] = _Arm(model, padded, lambda: _attention(model, "flash_attention_2"))
    result["packed"] = _Arm(model, packed, lambda: _apart(module))
    result["rows"] = _Arm(model, packed, lambda: _shared(model, flex=False))
    if device.type == "cuda":
        result["rmkit"] = _Arm(model, packed, lambda: _shared(model, flex=True))
    return result


@contextmanager
def _attention(model: Any, name: str) -> Iterator[None]:
    model.set_attn_implementation(name)
    yield


@contextmanager
def _shared(model: Any, *, flex: bool) -> Iterator[None]:
    from rmkit.models.transformer import shared_attention

    model.set_attn_implementation(shared_attention.NAME)
    devices = shared_attention.FLEX_DEVICES if flex else frozenset()
    with mock.patch.object(shared_attention, "FLEX_DEVICES", devices):
        yield


@contextmanager
def _apart(module: Any) -> Iterator[None]:
    with _shared(module.classifier, flex=False), mock.patch.object(module, "share", False):
        yield


def _padded(model: Any, head: Any, rows: Sequence[Row], *, micro_batch: int) -> Iterator[tuple[Tensor, int]]:
    import torch

    from rmkit.models.transformer.packing import pad

    for start in range(0, len(rows), micro_batch):
        part = rows[start : start + micro_batch]
        ordered = [[row[side]] for side in (0, 1) for row in part]  # all chosen, then all rejected
        batch = pad(ordered, pad_id=0).to(model.device)
        states = model.base_model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state
        logits = head(states)[torch.arange(len(states), device=states.device), batch.reward_index, 0]
        chosen, rejected = logits.float().chunk(2)
        yield -torch.nn.functional.logsigmoid(chosen - rejected).sum(), batch.input_ids.numel()


def _packed(module: Any, rows: Sequence[Row], *, max_batch_tokens: int) -> Iterator[tuple[Tensor, int]]:
    import torch

    for numbers in module.plan(rows, max_batch_tokens=max_batch_tokens):
        batch = module.collate([rows[number] for number in numbers])
        chosen, rejected = module(batch).view(-1, 2).T
        yield -torch.nn.functional.logsigmoid(chosen - rejected).sum(), batch.input_ids.numel()


def _timed(arm: _Arm, rows: Sequence[Row], device: Any) -> dict[str, float]:
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    _wait(device)
    start = time.perf_counter()
    loss, tokens = arm.step(rows)
    _wait(device)
    seconds = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return {"seconds": seconds, "tokens": tokens, "loss": loss, "memory_gib": memory}


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def _summary(
    options: Any, measured: Mapping[str, list[dict[str, float]]], *, peak: float, parameters: int, device: Any
) -> dict[str, object]:
    from evaluation.benchmarks.training.page import machine

    arms = {}
    for name, result in measured.items():
        middle = {key: statistics.median(one[key] for one in result) for key in result[0]}
        flops = 6 * parameters * middle["tokens"] / middle["seconds"]
        against = [base["seconds"] / one["seconds"] for base, one in zip(measured["padded"], result, strict=True)]
        ratio = {"median": statistics.median(against), "low": min(against), "high": max(against)}
        arms[name] = {**middle, "pairs_per_s": options.pairs / middle["seconds"], "use": flops / peak, "ratio": ratio}
    spec = {key: value for key, value in vars(options).items() if key != "json"}
    where = {**machine(None), "device": device.type}
    return {"arms": arms, "peak_tflops": peak / 1e12, "parameters": parameters, "spec": spec, "machine": where}


def table(summary: Mapping[str, Any]) -> str:
    """Markdown: one line an arm, and what it was measured on."""
    spec, where = summary["spec"], summary["machine"]
    lines = ["| arm | pairs/s | x padded | tokens a step | use of the peak | memory GiB | loss |"]
    lines.append("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for name, one in summary["arms"].items():
        ratio = one["ratio"]
        lines.append(
            f"| {name} | {one['pairs_per_s']:.2f} | {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] | "
            f"{one['tokens']:.0f} | {100 * one['use']:.1f}% | {one['memory_gib']:.1f} | {one['loss']:.5f} |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    scoring = ["| scoring | completions/s | x padded | memory GiB | gap |", "| --- | ---: | ---: | ---: | ---: |"]
    scoring += [
        f"| {one['way']}, {one['precision']} | {one['completions_per_s']:.1f} | {one['ratio']:.2f} | "
        f"{one['memory_gib']:.1f} | {one['gap']:.1e} |"
        for one in summary["scoring"]
    ]
    return "\n".join(
        [
            *lines,
            "",
            *scoring,
            "",
            f"{spec['completions']} completions a prompt; their scores have a standard deviation of "
            f"{summary['deviation']:.2g}.",
            "",
            f"{spec['size']}, {summary['parameters'] / 1e6:.0f}M parameters without embeddings, {spec['precision']}, "
            f"checkpointing {'on' if spec['checkpointing'] else 'off'}; {spec['pairs']} pairs a step, "
            f"{spec['repeats']} repeats. {where['gpu'] or where['cpu']}: {summary['peak_tflops']:.2f} TFLOP/s at most; "
            f"{versions}.",
        ]
    )
