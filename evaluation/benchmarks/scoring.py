"""`rmkit bench scoring`: scoring N completions a prompt with shared prompts, beside the plain padded way.

Random ids, a random Qwen3-type model, N completions a prompt at a given prompt to completion ratio. The plain way is
what a reward model's users write today: one padded batch of the N texts per prompt through the classifier's trunk with
the head at the last token. Both ways take turns within a repeat; ratios are medians over the repeats, and the largest
difference between their scores is printed. The arithmetic limit counts tokens through the linear layers: for equal
lengths N (p + c) / (p + N c); attention, of which shared prompts need even less, comes on top. `natural` draws
completion lengths from a log-normal of the same mean (sigma 0.6), so the plain way also pays for padding.
"""

from __future__ import annotations

import copy
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rmkit.cli import arguments, display

Row = list[tuple[int, ...]]

VOCABULARY = 8000
SIGMA = 0.6


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench scoring",
        "Best-of-N scoring with shared prompts beside the plain padded way.",
        examples=["bench scoring", "bench scoring --completion 32 --prompts 2 --repeats 3 --threads 1"],
    )
    parser.add_argument("--n", type=int, default=16, help="completions per prompt")
    parser.add_argument("--completion", type=int, default=64, help="mean tokens of a completion")
    parser.add_argument("--ratios", default="4,8", help="prompt to completion ratios")
    parser.add_argument("--prompts", type=int, default=4, help="prompts per run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--size", default="small", help="model size of `bench training`")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all)")
    options = parser.parse_args(argv)
    summary = run(options)
    display.emit(summary, as_json=options.json, text=_text(summary))
    return 0


def run(options: Any) -> dict[str, object]:
    """Per case the completions per second of both ways, the median ratio and the largest score difference."""
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    shared, plain = _modules(options.size)
    cases = {}
    settings = [(int(ratio), lengths) for lengths in ("equal", "natural") for ratio in options.ratios.split(",")]
    with display.progress("cases", len(settings) * options.repeats) as advance:
        for ratio, lengths in settings:
            rows = make_rows(
                options.prompts, n=options.n, completion=options.completion, ratio=ratio, lengths=lengths, seed=ratio
            )
            cases[f"{ratio}:1 {lengths}"] = _case(shared, plain, rows, options, advance)
    return {
        "cases": cases,
        "n": options.n,
        "completion_tokens": options.completion,
        "prompts": options.prompts,
        "size": options.size,
        "precision": options.precision,
        "threads": torch.get_num_threads(),
        "repeats": options.repeats,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _modules(size: str) -> tuple[Any, Any]:
    """The same weights twice: read with shared prompts, and padded."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from evaluation.benchmarks.training.run import model_config
    from rmkit.models.transformer.reward_module import RewardModule

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(model_config(size, vocabulary=VOCABULARY, pad_id=0)).eval()
    if torch.cuda.is_available():
        model.cuda()
    return RewardModule(copy.deepcopy(model)).eval(), RewardModule(model, packed=False).eval()


def make_rows(prompts: int, *, n: int, completion: int, ratio: int, lengths: str, seed: int) -> list[Row]:
    """Random prompts of ratio * completion tokens, each with n completions of equal or log-normal lengths."""
    draw = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(1, VOCABULARY) for _ in range(count))

    def length() -> int:
        if lengths == "equal":
            return completion
        return max(1, round(completion * draw.lognormvariate(-(SIGMA**2) / 2, SIGMA)))

    return [[prompt + ids(length()) for _ in range(n)] for prompt in (ids(ratio * completion) for _ in range(prompts))]


def limit(rows: Sequence[Row]) -> float:
    """Tokens of the plain way, padding included, per token of the shared one."""
    from rmkit.models.transformer.packing import packed_tokens

    padded = sum(len(row) * max(len(ids) for ids in row) for row in rows)
    return padded / sum(packed_tokens(row) for row in rows)


def _case(
    shared: Any, plain: Any, rows: Sequence[Row], options: Any, advance: Callable[[float], None]
) -> dict[str, object]:
    times: dict[str, list[float]] = {"shared": [], "plain": []}
    scores = {}
    for repeat in range(options.repeats + 1):  # the first is the warm-up
        ways = (("shared", shared), ("plain", plain))
        for name, module in ways if repeat % 2 else ways[::-1]:
            start = time.perf_counter()
            scores[name] = _score(module, rows, options.precision)
            times[name].append(time.perf_counter() - start)
        if repeat:
            advance(1)
    ratios = [slow / fast for slow, fast in zip(times["plain"][1:], times["shared"][1:], strict=True)]
    completions = sum(len(row) for row in rows)
    return {
        "plain_completions_per_s": completions / statistics.median(times["plain"][1:]),
        "shared_completions_per_s": completions / statistics.median(times["shared"][1:]),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "limit": limit(rows),
        "largest_difference": max(abs(a - b) for a, b in zip(scores["shared"], scores["plain"], strict=True)),
    }


def _score(module: Any, rows: Sequence[Row], precision: str) -> list[float]:
    """Scores prompt by prompt: the N completions of one prompt are what the plain way batches."""
    import torch

    results: list[float] = []
    device = module.classifier.device.type
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        for row in rows:
            results += module(module.collate([row])).tolist()
    return results


def _text(summary: Mapping[str, Any]) -> str:
    lines = [
        f"N = {summary['n']}, completions of {summary['completion_tokens']} tokens, {summary['prompts']} prompts; "
        f"{summary['size']} model, {summary['precision']}, {summary['threads']} threads, {summary['repeats']} repeats",
        "",
    ]
    header = ("case", "plain/s", "shared/s", "ratio", "range", "limit", "difference")
    rows = []
    for name, case in summary["cases"].items():
        per_s = (f"{case['plain_completions_per_s']:.1f}", f"{case['shared_completions_per_s']:.1f}")
        ratio = (f"{case['ratio']:.2f}", f"{case['ratio_low']:.2f}-{case['ratio_high']:.2f}", f"{case['limit']:.2f}")
        rows.append((name, *per_s, *ratio, f"{case['largest_difference']:.1e}"))
    return "\n".join([*lines, display.table(header, rows)])
