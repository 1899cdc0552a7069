"""`rmkit bench neardup`: time, recall and memory of near-duplicate search on texts with planted duplicates.

Texts of about 330 characters: words drawn from a Zipf-like vocabulary, one tenth of them copies of earlier ones with
one to three words replaced. Recall is measured on the planted pairs whose exact Jaccard similarity (3-word shingles, as
Python sets, apart from the code under test) reaches the threshold; pairs edited below it are counted beside. Precision
is the share of reported pairs whose similarity, computed in the same independent way, reaches the threshold.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl

from data_pipelines.algorithms.minhash import Engine, near_pairs
from evaluation.benchmarks.memory import peak_bytes
from rmkit.cli import arguments, display
from rmkit.errors import MissingExtraError

VOCABULARY = 30_000
WORDS = 56


def main(argv: list[str]) -> int:
    """Entry point of `rmkit bench neardup`; always 0, the reader judges the numbers."""
    parser = arguments.parser(
        "bench neardup",
        "Seconds, recall and precision of near-duplicate search on texts with planted duplicates.",
        examples=["bench neardup", "bench neardup --texts 10000 --threshold 0.8 --json"],
    )
    parser.add_argument("--texts", type=int, default=100_000, help="how many texts; a tenth are planted copies")
    parser.add_argument("--threshold", type=float, default=0.7, help="Jaccard similarity of a duplicate")
    parser.add_seed()
    inputs = parser.parse_args(argv)
    result = neardup(inputs.texts, inputs.threshold, seed=inputs.seed)
    display.emit(result, as_json=inputs.json, text=_text(result))
    return 0


def neardup(n: int, threshold: float, *, seed: int = 0) -> dict[str, object]:
    """What each installed engine needs and finds; `engines` maps polars and rensa to their numbers."""
    texts, planted = planted_texts(n, seed=seed)
    sets = _Shingles(texts)
    due = [pair for pair in planted if sets.jaccard(*pair) >= threshold]
    engines: dict[str, Any] = {}
    for engine in ("polars", "rensa"):
        try:
            engines[engine] = _measured(texts, planted, due, sets, threshold=threshold, engine=engine)
        except MissingExtraError as error:
            engines[engine] = {"left_out": str(error)}
    return {
        "texts": n,
        "mean_characters": round(float(np.mean(texts.str.len_chars().to_numpy())), 1),
        "planted": len(planted),
        "planted_at_threshold": len(due),
        "threshold": threshold,
        "seed": seed,
        "engines": engines,
    }


def planted_texts(n: int, *, seed: int) -> tuple[pl.Series, list[tuple[int, int]]]:
    """n texts, and the (original, copy) positions of the n // 10 planted copies, which stand at the end."""
    draw = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfw"))
    lengths = draw.integers(3, 8, VOCABULARY)
    vocabulary = np.array(["".join(draw.choice(letters, length)) for length in lengths])
    copies = n // 10
    rank = np.minimum(draw.zipf(1.2, (n - copies, WORDS)) - 1, VOCABULARY - 1)
    words = np.concatenate([vocabulary[rank], vocabulary[rank[:copies]]])
    for copy in range(n - copies, n):
        spots = draw.choice(WORDS, draw.integers(1, 4), replace=False)
        words[copy, spots] = vocabulary[draw.integers(0, VOCABULARY, len(spots))]
    texts = pl.Series("text", [" ".join(line) for line in words])
    return texts, [(at, n - copies + at) for at in range(copies)]


class _Shingles:
    """Exact similarity from Python sets of word triples."""

    def __init__(self, texts: pl.Series) -> None:
        self.texts = texts

    def jaccard(self, i: int, j: int) -> float:
        a, b = self._of(i), self._of(j)
        return len(a & b) / len(a | b)

    def _of(self, at: int) -> set[tuple[str, ...]]:
        words = self.texts[at].split()
        return set(zip(words, words[1:], words[2:], strict=False))


def _measured(
    texts: pl.Series,
    planted: list[tuple[int, int]],
    due: list[tuple[int, int]],
    sets: _Shingles,
    *,
    threshold: float,
    engine: Engine,
) -> dict[str, object]:
    start = time.perf_counter()
    pairs = near_pairs(texts, threshold, engine=engine)
    seconds = time.perf_counter() - start
    names = set(pairs.select("i", "j").iter_rows())
    right = sum(sets.jaccard(i, j) >= threshold - 1e-9 for i, j in names)
    return {
        "seconds": round(seconds, 2),
        "recall": round(len(names & set(due)) / max(len(due), 1), 5),
        "found_of_all_planted": len(names & set(planted)),
        "pairs": len(names),
        "precision": round(right / max(len(names), 1), 5),
        "peak_rss_mb": peak_bytes() // 2**20,
    }


def _text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['texts']:,} texts of {result['mean_characters']} characters, {result['planted']:,} planted copies, "
        f"{result['planted_at_threshold']:,} of them at Jaccard >= {result['threshold']}; seed {result['seed']}"
    ]
    for engine, summary in result["engines"].items():
        if "left_out" in summary:
            lines.append(f"  {engine}: {summary['left_out']}")
            continue
        lines.append(
            f"  {engine:<7} {summary['seconds']:>6.2f} s   recall {summary['recall']:.4f}"
            f"   precision {summary['precision']:.4f}"
            f"   {summary['pairs']:,} pairs   peak {summary['peak_rss_mb']:,} MB"
        )
    return "\n".join(lines)
