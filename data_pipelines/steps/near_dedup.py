"""Near-duplicate rows: of two rows that say almost the same, the one with the smaller id stays.

Rows are compared by Jaccard similarity of their 3-word shingles (see minhash). With `text = "all"` (default) the whole
row must reach `threshold`, and each of its parts, the prompt and every response against its closest counterpart,
`part_threshold`: two rows with one long prompt and different answers are not duplicates, however alike they look as
texts. With `text = "prompt"` one row per prompt is left.

Only rows of the listed `kinds` are compared. Solutions in steps are left out by default, since data about steps often
holds a solution beside itself with one planted error, and so are rubrics, which may share a prompt.

The default of 0.7 is that of BigCode's deduplication (Kocetkov et al., "The Stack", 2022): three edited words in a text
of sixty give 0.73, while 0.8 (Lee et al., 2022) would let a re-posted row with a changed greeting pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from data_pipelines.algorithms.minhash import Engine, OnDisk, jaccard, near_pairs, shingle_sets
from data_pipelines.algorithms.text import prompt_text, response_texts
from data_pipelines.scopes import Pieces, Streamed
from data_pipelines.steps import Context, StepResult, partition, with_texts_from
from rmkit.data.example import KINDS
from rmkit.data.text_file import TextFile
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    threshold: float = 0.7
    part_threshold: float = 0.7
    kinds: tuple[str, ...] = ("pair", "list", "single")
    text: Literal["all", "prompt"] = "all"
    engine: Engine = "polars"

    def __post_init__(self) -> None:
        for name in ("threshold", "part_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"near_dedup: {name} is a Jaccard similarity in (0, 1], got {getattr(self, name)}")
        if unknown := set(self.kinds) - set(KINDS):
            raise ConfigError(f"near_dedup: no kind {', '.join(sorted(unknown))}; one of: {', '.join(KINDS)}")


SCOPE = Streamed("over")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Keep the first by id of every group; evidence is the kept row's id and the similarity."""
    return with_texts_from(frame, over([frame], config, context))


def over(pieces: Pieces, config: Config, context: Context) -> StepResult:
    """The same for a frame in pieces; of the rows kept it gives the ids alone."""
    ids = [pl.Series("id", [], pl.String)]
    with TextFile() as file:
        for piece in pieces:
            rows = _texts(piece, config)
            whole = pl.concat_list("prompt", "responses") if config.text == "all" else pl.concat_list("prompt")
            file.append(rows.select(text=whole.list.join("\n\n", ignore_nulls=True))["text"].to_arrow())
            ids.append(rows["id"])
        file.finish()
        order = pl.concat(ids).arg_sort()
        pairs = near_pairs(OnDisk(file, order.to_numpy().astype(np.int64)), config.threshold, engine=config.engine)
    compared = pl.concat(ids).gather(order)
    if config.text == "all" and len(pairs):
        used = pl.concat([pairs["i"], pairs["j"]]).unique().sort()
        named = compared.gather(used).implode()
        rows = pl.concat([_texts(piece.filter(pl.col("id").is_in(named)), config) for piece in pieces]).sort("id")
        places = pairs.select(pl.Series(name, used.search_sorted(pairs[name]), pl.UInt32) for name in ("i", "j"))
        pairs = pairs.filter(weakest_part(rows, places) >= config.part_threshold)
    result = pl.DataFrame(
        _greedy(pairs), schema={"row": pl.Int64, "kept": pl.Int64, "jaccard": pl.Float64}, orient="row"
    )
    summary = result.select(
        id=compared.gather(result["row"]),
        reason=pl.lit("near-duplicate"),
        evidence=pl.format("kept {}, Jaccard {}", compared.gather(result["kept"]), pl.col("jaccard").round(3)),
    )
    everything = pl.concat([piece.select("id") for piece in pieces])
    joined = everything.join(summary, on="id", how="left", maintain_order="left")
    return partition(everything, joined["reason"], evidence=joined["evidence"], facts=_facts(result, config))


def _texts(piece: pl.DataFrame, config: Config) -> pl.DataFrame:
    """id and the texts of the rows that are compared."""
    compared = piece.filter(pl.col("kind").is_in(config.kinds))
    return compared.select("id", prompt=prompt_text(), responses=response_texts())


def _greedy(pairs: pl.DataFrame) -> list[tuple[int, int, float]]:
    """(dropped, kept, jaccard): a row goes when an earlier row that itself stays is its near-duplicate."""
    dropped: dict[int, tuple[int, int, float]] = {}
    for i, j, similarity in pairs.sort("i", "j").iter_rows():
        if i not in dropped and j not in dropped:
            dropped[j] = (j, i, similarity)
    return list(dropped.values())


def weakest_part(rows: pl.DataFrame, pairs: pl.DataFrame) -> pl.Series:
    """Per pair the least similar part: prompt against prompt, each response against its closest counterpart.

    Rows with different numbers of responses have similarity 0.
    """
    used = pl.concat([pairs["i"], pairs["j"]]).unique().sort()
    parts = pl.concat(
        [
            rows[used.to_list()].select(row=used, part=pl.lit(0), text="prompt"),
            rows[used.to_list()]
            .select(row=used, part=pl.int_ranges(1, pl.col("responses").list.len() + 1), text="responses")
            .explode("part", "text")
            .drop_nulls("part"),
        ],
        how="vertical_relaxed",
    ).with_row_index("at")
    sets = shingle_sets(parts["text"].fill_null(""))
    numbered = pairs.select("i", "j").with_row_index("pair")
    left = numbered.join(parts, left_on="i", right_on="row")
    both = left.join(parts, left_on="j", right_on="row", suffix="_j").filter(
        (pl.col("part") == 0) == (pl.col("part_j") == 0)
    )
    alike = both.with_columns(jaccard=jaccard(sets, both["at"], both["at_j"]))
    weakest = alike.group_by("pair", "part").agg(pl.col("jaccard").max()).group_by("pair").agg(pl.col("jaccard").min())
    counts = rows["responses"].list.len()
    same = (counts.gather(pairs["i"]) == counts.gather(pairs["j"])).cast(pl.Float64)
    return numbered.join(weakest, on="pair", how="left", maintain_order="left")["jaccard"] * same


def _facts(result: pl.DataFrame, config: Config) -> dict[str, object]:
    share, _ = np.histogram(result["jaccard"].to_numpy(), bins=[0, 0.7, 0.8, 0.9, 0.9999, 1.1])
    named = dict(zip(("below 0.7", "0.7-0.8", "0.8-0.9", "0.9-1", "equal words"), share.tolist(), strict=True))
    return {"engine": config.engine, "threshold": config.threshold, "dropped_by_jaccard": named}
