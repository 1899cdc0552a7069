"""`rmkit bench hard-rules`: checkable rules as code on many responses, responses a second for a whole rubric.

Twelve rules of different kinds run on every response. With --data the responses are those of a file of lists or pairs,
repeated to the number asked for; without it they are drawn from a few words, about 150 words each.
"""

from __future__ import annotations

import gzip
import json
import random
import statistics
import time
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from evaluation.benchmarks.judging.page import write_section
from rmkit.cli import arguments, display
from rmkit.errors import DataError
from rubrics.criteria import Criterion
from rubrics.rule_text import checked, described

ABOUT = "Twelve rules of different kinds (counts, texts, JSON, language ...) as code on every response, one thread."
RULES: tuple[dict[str, Any], ...] = (
    {"rule": "max_words", "value": 200},
    {"rule": "min_sentences", "value": 3},
    {"rule": "max_paragraphs", "value": 5},
    {"rule": "min_bullets", "value": 1},
    {"rule": "max_characters", "value": 1500},
    {"rule": "includes", "values": ["because", "example"]},
    {"rule": "excludes", "values": ["sorry", "as an AI", "delve"]},
    {"rule": "begins_with", "value": "Sure"},
    {"rule": "json"},
    {"rule": "code_block"},
    {"rule": "no_commas"},
    {"rule": "language", "value": "en"},
)
WORDS = (
    "the",
    "a",
    "of",
    "because",
    "for",
    "example",
    "sorry,",
    "it",
    "is",
    "not",
    "that",
    "easy.",
    "Sure",
    "river",
    "stone",
    "-",
    "1.",
    "light",
    "paper",
)


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench hard-rules",
        "Twelve checkable rules as code on many responses.",
        examples=["bench hard-rules", "bench hard-rules --data nway_alpacaeval.jsonl.gz --repeats 5"],
    )
    parser.add_argument("--responses", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, help="a .jsonl(.gz) of lists or pairs")
    parser.add_page(help="write its section of the results page there")
    options = parser.parse_args(argv)
    summary = run(options)
    if options.page:
        lines = [f"{name.replace('_', ' '):<22}{value}" for name, value in summary.items()]
        write_section(options.page, name="hard-rules", about=ABOUT, argv=argv, text="\n".join(lines))
    display.emit(summary, as_json=options.json)
    return 0


def run(options: Any) -> dict[str, object]:
    """Median responses a second with the slowest and fastest repeat, and the share of rules kept."""
    texts = list(islice(cycle(_texts(options.data)), options.responses))
    criteria = [Criterion(criterion=described(rule), tag="hard_rule", check=rule) for rule in RULES]
    rates, per_cpu = [], []
    for _ in range(options.repeats):
        began, used = time.perf_counter(), time.process_time()
        result = checked(criteria, texts)
        rates.append(len(texts) / (time.perf_counter() - began))
        per_cpu.append(len(texts) / (time.process_time() - used))
    return {
        "responses": len(texts),
        "rules": len(criteria),
        "mean_characters": round(statistics.fmean(map(len, texts))),
        "responses_per_s": round(statistics.median(rates)),
        "responses_per_cpu_s": round(statistics.median(per_cpu)),
        "slowest": round(min(rates)),
        "fastest": round(max(rates)),
        "share_kept": round(statistics.fmean(bool(one) for row in result for one in row), 4),
    }


def _texts(path: Path | None) -> list[str]:
    if path is None:
        draw = random.Random(0)
        return [" ".join(draw.choices(WORDS, k=draw.randrange(50, 250))) for _ in range(1000)]
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    document = [text for line in raw.splitlines() for text in responses_in(json.loads(line))]
    if not document:
        raise DataError(f"{path} holds no lists or pairs of responses")
    return document


def responses_in(row: Mapping[str, Any]) -> list[str]:
    """The responses' texts of a row with `responses`, or with `chosen` and `rejected`."""
    listed = row.get("responses") or [row[name] for name in ("chosen", "rejected") if name in row]
    return [_text(one.get("response", one.get("text", one)) if isinstance(one, Mapping) else one) for one in listed]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n\n".join(str(turn["content"]) for turn in value if turn.get("role") == "assistant")
    return str(value)
