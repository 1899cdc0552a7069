"""Contamination: rows whose prompt is, or quotes, a prompt of an ingested benchmark.

After Brown et al., "Language Models are Few-Shot Learners", 2020, appendix C, and datatrove's decontamination: a row is
a hit when its prompt shares a sequence of `ngram` words (default 13, lower case, no punctuation) with a benchmark
prompt. Sequences that occur in more than `max_occurrences` different benchmark prompts are a template, not a leak, and
do not count. A benchmark prompt shorter than `ngram` words is compared as a whole with each turn of the row's prompt:
equal words are a hit.

With `near` (default 0.7; 0 is off) a turn whose 3-word shingles reach that Jaccard similarity with a benchmark prompt
is a hit too, which catches edited copies too short to share 13 words. With `responses` the rows' responses are searched
for the benchmarks' prompts and responses as well.

Evidence names the benchmark, its row and the words in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from data_pipelines.algorithms.minhash import batches, near_matches, shingles
from data_pipelines.algorithms.text import WORD, prompt_text, response_texts, turn_texts, words
from data_pipelines.scopes import Rows
from data_pipelines.steps import Context, StepResult, nothing_dropped, partition
from rmkit.errors import ConfigError

GRAMS = pl.Schema({"row": pl.Int64, "text": pl.Int64, "word": pl.Int64, "gram": pl.UInt64})


@dataclass(frozen=True, kw_only=True)
class Config:
    ngram: int = 13
    max_occurrences: int = 10
    near: float = 0.7
    responses: bool = False

    def __post_init__(self) -> None:
        if self.ngram < 2:
            raise ConfigError(f"contamination: ngram counts words and must be at least 2, got {self.ngram}")
        if self.max_occurrences < 1:
            raise ConfigError(f"contamination: max_occurrences must be at least 1, got {self.max_occurrences}")
        if not 0 <= self.near <= 1:
            raise ConfigError(f"contamination: near is a Jaccard similarity in [0, 1] (0 is off), got {self.near}")


SCOPE = Rows(same=("benchmark_rows",))


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Drops every hit; facts count them by benchmark, or say that the warehouse holds no benchmark."""
    bench = context.benchmarks
    if not len(bench):
        return nothing_dropped(frame, {"benchmarks": [], "note": "no benchmark in the warehouse: nothing was checked"})
    mine = _texts(frame, config.responses, turns=True)
    theirs = _texts(bench, config.responses, turns=False)
    hits = [_shared_words(mine, theirs, bench, config)]
    if config.near:
        hits.append(_near(mine, theirs.unique("text", keep="first", maintain_order=True), config.near))
    first = pl.concat(hits).unique("row", keep="first", maintain_order=True)
    summary = first.select(
        "row",
        name=bench["name"].gather(first["bench"]),
        evidence=pl.format(
            "{} {}: {}",
            bench["name"].gather(first["bench"]),
            bench["source_row"].gather(first["bench"]).fill_null("?"),
            "common",
        ),
    )
    rows = pl.DataFrame({"row": pl.int_range(len(frame), dtype=pl.Int64, eager=True)})
    joined = rows.join(summary, on="row", how="left", maintain_order="left")
    reason = pl.select(pl.format("in benchmark {}", joined["name"]))["name"]
    counts = dict(summary.group_by("name").len().sort("name").iter_rows())
    facts = {"benchmarks": sorted(bench["name"].unique()), "hits_by_benchmark": counts, "benchmark_rows": len(bench)}
    return partition(frame, reason, evidence=joined["evidence"], facts=facts)


def _texts(frame: pl.DataFrame, responses: bool, *, turns: bool) -> pl.DataFrame:
    """Columns row and text: one line per prompt (or per turn of it), and per response where asked."""
    prompt = turn_texts(pl.col("prompt")) if turns else pl.concat_list(prompt_text())
    listed = pl.concat_list(prompt, response_texts()) if responses else prompt
    lines = frame.select(row=pl.int_range(pl.len(), dtype=pl.Int64), text=listed).explode("text")
    return lines.filter(pl.col("text").str.contains(WORD))


def _shared_words(mine: pl.DataFrame, theirs: pl.DataFrame, bench: pl.DataFrame, config: Config) -> pl.DataFrame:
    """row, bench, common: each row's first shared n-gram, in the order of its words."""
    index = _index(theirs, bench, config)
    known = index["gram"].to_numpy()
    hits = []
    for grams in _grams(mine, config.ngram):
        place = np.searchsorted(known, grams["gram"].to_numpy())
        near = grams.with_columns(place=place).filter(place < len(known))
        shared = near.filter(known[near["place"].to_numpy()] == near["gram"].to_numpy())
        hits.append(shared.unique("row", keep="first", maintain_order=True))
    first = pl.concat(hits).unique("row", keep="first", maintain_order=True)
    settings = pl.DataFrame({"text": mine["text"].gather(first["text"]), "word": first["word"]})
    common = settings.select(common=words(pl.col("text")).list.slice("word", config.ngram).list.join(" "))["common"]
    return first.select("row", bench=index["row"].gather(first["place"]), common=common)


def _index(theirs: pl.DataFrame, bench: pl.DataFrame, config: Config) -> pl.DataFrame:
    """gram, sorted, and row, the first one of the benchmarks that has it; without what too many prompts have."""
    wording = prompt_text().str.to_lowercase().str.replace_all(r"\W+", " ").str.strip_chars()
    prompt = bench.select(wording.rank("dense")).to_series()
    each = pl.concat([part.select("gram", "row").unique() for part in _grams(theirs, config.ngram)])
    by_prompt = each.group_by("gram", prompt=prompt.gather(each["row"])).agg(pl.col("row").min())
    by_gram = by_prompt.group_by("gram").agg(pl.col("row").min(), prompts=pl.len())
    return by_gram.filter(pl.col("prompts") <= config.max_occurrences).sort("gram")


def _grams(texts: pl.DataFrame, n: int) -> Iterator[pl.DataFrame]:
    """The hash of every sequence of n words (gram), the row and the number of its text, and its first word's place.

    A shorter text is one gram, which only another such text can equal. Some texts at a time: a gram keeps no words.
    """
    yield pl.DataFrame(schema=GRAMS)  # there may be no text
    done = 0
    for batch in batches(texts["text"]):
        grams, start = shingles(batch, n)
        count = np.diff(start)
        text = np.repeat(np.arange(len(batch), dtype=np.int64) + done, count)
        word = np.arange(len(grams)) - np.repeat(start[:-1], count)
        columns = {"row": texts["row"].gather(text), "text": text, "word": word, "gram": grams}
        yield pl.DataFrame(columns, schema=GRAMS)
        done += len(batch)


def _near(mine: pl.DataFrame, theirs: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """row, bench, common: rows whose text is a near-duplicate of a benchmark's."""
    pairs = near_matches(theirs["text"], mine["text"], threshold)
    return pairs.select(
        row=mine["row"].gather(pairs["j"]),
        bench=theirs["row"].gather(pairs["i"]),
        common=pl.format("near-duplicate, Jaccard {}", pl.col("jaccard").round(3)),
    )
