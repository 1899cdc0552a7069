"""`rmkit bench uncertainty`: what a standard deviation costs, beside one pass that gives none.

    explicit, head dropout     trunk once, T thinned heads in one product       / one plain pass
    explicit, model dropout    T complete passes with dropout in every layer    / one plain pass
    frozen, head dropout       encoder once, T thinned heads                    / encoder once, one head
    frozen, cached features    T thinned heads on stored features               / one head on stored features

Random ids through a random Qwen3-type model by rmkit's own engine (shared prompts, token-budget batches), and random
words through the frozen encoder. Nothing is cached but where it says so. Both sides of a ratio take turns within each
repeat; ratios are medians over the repeats. Scores with and without head dropout must agree, or the run stops.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rmkit.cli import arguments, display
from rmkit.errors import MissingExtraError, ModelError
from rmkit.revision import versions

if TYPE_CHECKING:
    from rmkit.models.transformer.explicit import ExplicitRewardModel

VOCABULARY = 8000
LIMIT = 1.3
LEAST_S = 0.2
SHAPES = {"tiny": (64, 2, 128), "small": (512, 8, 1536)}  # hidden, layers, feed forward

Way = Callable[[], Any]


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench uncertainty",
        "MC dropout over a head, over cached features and over the whole model, beside one plain pass.",
        examples=["bench uncertainty --threads 1", "bench uncertainty --size tiny --items 8 --repeats 2"],
    )
    parser.add_argument("--passes", type=int, default=10, help="T")
    parser.add_argument("--rate", type=float, default=0.1, help="dropout rate")
    parser.add_argument("--items", type=int, default=8, help="prompts of two completions each")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", choices=tuple(SHAPES), default="small", help="of the transformer")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all)")
    parser.add_page()
    options = parser.parse_args(argv)
    summary = run(options) | {"command": arguments.command_line("bench uncertainty", argv)}
    if options.page:
        options.page.write_text(page(summary))
    display.emit(summary, as_json=options.json, text=_text(summary))
    return 0


def run(options: Any) -> dict[str, object]:
    """Per case the seconds of both ways and the median ratio. Raises ModelError where head dropout moved a score."""
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    cases: dict[str, Any] = {}
    makers = (_explicit_cases, _frozen_cases)
    with display.progress("cases", len(makers)) as advance:
        for make in makers:
            for name, (plain, spread) in make(options).items():
                cases[name] = _timed(plain, spread, options.repeats)
            advance(1)
    return {
        "cases": cases,
        "limit": LIMIT,
        "met": cases["explicit, head dropout"]["ratio"] <= LIMIT,
        "passes": options.passes,
        "rate": options.rate,
        "items": options.items,
        "size": options.size,
        "repeats": options.repeats,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": versions("torch", "transformers"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _explicit_cases(options: Any) -> dict[str, tuple[Way, Way]]:
    from rmkit.models.wrappers.dropout import ModelDropout, Spread, with_dropout

    plain = _engine(options.size)
    thinned: Any = with_dropout(_engine(options.size), rate=options.rate, passes=options.passes)
    whole = ModelDropout(_engine(options.size), rate=options.rate, passes=options.passes).model
    rows, read = _rows(options.items), Spread()

    def with_std() -> list[float]:
        return [read.score(output).value for row in _outputs(thinned, rows) for [output] in row]

    def passes() -> list[object]:
        whole.module.train()
        return [_outputs(whole, rows) for _ in range(options.passes)]

    def once() -> list[float]:
        return [value for row in _outputs(plain, rows) for [value] in row]

    off = max(abs(a - b) for a, b in zip(once(), with_std(), strict=True))
    if off > 1e-5:
        raise ModelError(f"head dropout moved a score by {off:.1e}; the two ways do not measure the same thing")
    return {"explicit, head dropout": (once, with_std), "explicit, model dropout": (once, passes)}


def _outputs(model: Any, rows: Any) -> Any:
    return model.module.outputs(rows, max_batch_tokens=model.max_batch_tokens)


def _engine(size: str) -> ExplicitRewardModel:
    import torch
    from transformers import AutoModelForSequenceClassification, Qwen3Config

    from rmkit.models.transformer.explicit import ExplicitRewardModel
    from rmkit.models.transformer.reward_module import RewardModule
    from rmkit.types import ModelInfo

    hidden, layers, feed_forward = SHAPES[size]
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=feed_forward,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=hidden // 8,
        pad_token_id=0,
        num_labels=1,
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    if torch.cuda.is_available():
        model.cuda()
    info = ModelInfo("random", "explicit", "logit", True, "random")
    chat: Any = None  # ids go in, so nothing is rendered
    return ExplicitRewardModel(RewardModule(model), chat, info)


def _rows(items: int) -> list[list[tuple[int, ...]]]:
    """Prompts of 64 to 192 ids with two completions of 32 to 96 each."""
    draw = random.Random(0)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(1, VOCABULARY) for _ in range(draw.randint(low, high)))

    return [[prompt + ids(32, 96) for _ in range(2)] for prompt in (ids(64, 192) for _ in range(items))]


def _frozen_cases(options: Any) -> dict[str, tuple[Way, Way]]:
    """Empty, with a note on the result, where the encoder is not installed."""
    import torch

    from rmkit.features.encoder import Encoder, EncoderConfig, Text
    from rmkit.heads.pairs import Features, head_scores
    from rmkit.models.wrappers.dropout import thinned

    try:
        encoder = Encoder(EncoderConfig(dtype="fp32"))
    except MissingExtraError:
        return {}
    draw = random.Random(1)
    words = [f"word{number}" for number in range(500)]
    texts = [Text(" ".join(draw.choices(words, k=draw.randint(10, 40))), "start") for _ in range(2 * options.items)]
    features = torch.from_numpy(encoder.encode(texts))
    one = {"out": torch.randn(3 * features.shape[1], generator=torch.Generator().manual_seed(0))}
    many = {"out": thinned(one["out"], rate=options.rate, passes=options.passes)}

    def scored(vectors: Any, weights: Any) -> object:
        prompt, response = vectors.chunk(2)
        with torch.no_grad():
            return head_scores(Features(prompt, response, torch.zeros(len(prompt))), weights).tolist()

    def encoded(weights: Any) -> object:
        return scored(torch.from_numpy(encoder.encode(texts)), weights)

    stored = features.repeat(64, 1)  # more rows, so that a head's time can be told from the clock's noise
    return {
        "frozen, head dropout": (lambda: encoded(one), lambda: encoded(many)),
        "frozen, cached features": (lambda: scored(stored, one), lambda: scored(stored, many)),
    }


def _timed(plain: Way, spread: Way, repeats: int) -> dict[str, object]:
    times: dict[str, list[float]] = {"plain": [], "spread": []}
    plain()
    start = time.perf_counter()
    plain()
    often = 1 + int(LEAST_S / (time.perf_counter() - start))  # what takes a millisecond is timed many times over
    for repeat in range(repeats + 1):  # the first is the warm-up
        ways = (("plain", plain), ("spread", spread))
        for name, way in ways if repeat % 2 else ways[::-1]:
            start = time.perf_counter()
            for _ in range(often):
                way()
            times[name].append((time.perf_counter() - start) / often)
    ratios = [slow / fast for slow, fast in zip(times["spread"][1:], times["plain"][1:], strict=True)]
    return {
        "plain_s": statistics.median(times["plain"][1:]),
        "with_std_s": statistics.median(times["spread"][1:]),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
    }


def _text(summary: Mapping[str, Any]) -> str:
    lines = [
        f"T = {summary['passes']}, rate {summary['rate']:g}, {summary['items']} prompts of two completions; "
        f"{summary['size']} model, fp32, {summary['threads']} threads, {summary['repeats']} repeats",
        "",
        display.table(("case", "one pass, ms", "with std, ms", "ratio", "range"), _cells(summary, to="-")),
    ]
    verdict = "met" if summary["met"] else "MISSED"
    return "\n".join([*lines, "", f"aim: head dropout at most {summary['limit']:g} times one uncached pass: {verdict}"])


def _cells(summary: Mapping[str, Any], *, to: str) -> list[list[str]]:
    rows = []
    for name, case in summary["cases"].items():
        times = [f"{1000 * case['plain_s']:.1f}", f"{1000 * case['with_std_s']:.1f}"]
        rows.append([name, *times, f"{case['ratio']:.2f}", f"{case['ratio_low']:.2f}{to}{case['ratio_high']:.2f}"])
    return rows


def page(summary: Mapping[str, Any]) -> str:
    """docs/benchmarks/uncertainty.md."""
    installed = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
    where = summary["gpu"] or f"{summary['threads']} of {summary['cores']} processor cores, no GPU"
    return "\n".join(
        [
            "# Benchmark of uncertainty",
            "",
            f"    {summary['command']}",
            "",
            f"What a standard deviation by MC dropout (T = {summary['passes']}, rate {summary['rate']:g}) costs beside "
            "one pass that gives none. A thinned",
            "linear head is a row of weights, so T passes over a head are one product behind a trunk that runs once; "
            "full-model",
            f"dropout runs everything T times. {summary['items']} prompts with two completions each through a random "
            f"Qwen3-type model (size {summary['size']}), and",
            f"as many pairs of short texts through the frozen encoder; fp32; medians of {summary['repeats']} repeats, "
            "ways in turn within each.",
            "",
            "| case | one pass, ms | with std, ms | ratio | range |",
            "| --- | ---: | ---: | ---: | ---: |",
            *(f"| {' | '.join(row)} |" for row in _cells(summary, to=" to ")),
            "",
            f"Aim: over a head at most {summary['limit']:g} times one uncached pass of the trunk"
            f"{'' if summary['met'] else ' (MISSED here)'}. On cached features there is no trunk to hide behind: the "
            "ratio there is",
            "that of T + 1 heads to one, on times of a fraction of a millisecond a text.",
            "",
            f"Measured on {where}; {installed}.",
            "",
        ]
    )
