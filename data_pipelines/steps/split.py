"""Split by prompt family, so that no prompt, nor a reworded one, stands on both sides.

A family is a connected set of prompts: near-duplicates of each other (Jaccard of 3-word shingles >= `threshold`), or
conversations that open with the same user turn (`same_opening`, turns of five words or more: branches of one talk). Its
number is the smallest content hash of its prompts, its place is u = SHA-256(seed, number) as a fraction of 2^64 against
the cumulated ratios. So the place of a family depends on nothing but its own prompts: rows added later move no other
family. Ratios are therefore met on average, not exactly. Only where a split with a ratio would stay empty, as happens
with a dozen families, does it get the nearest family (by u) of a split that has several.

`respect = "source"` keeps the split that a row came with (dev, val and valid mean validation). Where a family has rows
of several, all of it goes to the most held-out one (test, then validation), since one side has to give way.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.minhash import OnDisk, components, near_pairs, text_hashes
from data_pipelines.algorithms.text import MESSAGES, prompt_text, words
from data_pipelines.scopes import Pieces, Streamed
from data_pipelines.steps import Context, StepResult, nothing_dropped, with_texts_from
from rmkit.data.text_file import TextFile
from rmkit.errors import ConfigError
from warehouse.sql import sorted_places

SYNONYMS = {"dev": "validation", "val": "validation", "valid": "validation", "training": "train", "testing": "test"}
HELD_OUT = ("train", "validation", "test")  # the later, the more held out
OPENING_WORDS = 5


@dataclass(frozen=True, kw_only=True)
class Config:
    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1
    threshold: float = 0.7
    same_opening: bool = True
    respect: Literal["none", "source"] = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        ratios = self.ratios()
        if min(ratios.values()) < 0 or abs(sum(ratios.values()) - 1) > 1e-9:
            raise ConfigError(f"split: ratios must be >= 0 and add up to 1, got {ratios}")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"split: threshold is a Jaccard similarity in (0, 1], got {self.threshold}")

    def ratios(self) -> dict[str, float]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


SCOPE = Streamed("over")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """All rows, with `family` and `split` set."""
    return with_texts_from(frame, over([frame], config, context))


def over(pieces: Pieces, config: Config, context: Context) -> StepResult:
    """The same for a frame in pieces; gives id, family and split."""
    family = families_of(pieces, threshold=config.threshold, same_opening=config.same_opening)
    numbers = family.unique().sort()
    assigned = pl.DataFrame({"family": numbers, "_split": places(numbers.to_list(), config)})
    frame = pl.concat([piece.select("id", "split") for piece in pieces])
    marked = frame.with_columns(family).join(assigned, on="family", how="left", maintain_order="left")
    if config.respect == "source":
        marked = marked.with_columns(_split=pl.coalesce(_stated().over("family"), "_split"))
    in_splits = marked.select("id", "family", split="_split")
    rows = dict(in_splits.group_by("split").len().sort("split").iter_rows())
    facts = {
        "families": len(numbers),
        "largest_family": in_splits.group_by("family").len()["len"].max() or 0,
        "rows_by_split": rows,
        "families_by_split": dict(
            in_splits.group_by("split").agg(pl.col("family").n_unique()).sort("split").iter_rows()
        ),
    }
    empty = [name for name, ratio in config.ratios().items() if ratio and not rows.get(name)]
    if empty and len(in_splits):
        facts["warning"] = f"no rows in {', '.join(empty)}: {len(numbers)} families are too few for these ratios"
    return nothing_dropped(in_splits, facts)


def families(frame: pl.DataFrame, *, threshold: float = 0.7, same_opening: bool = True) -> pl.Series:
    """The family number of each row (Int64 >= 0), a function of the prompts alone."""
    return families_of([frame], threshold=threshold, same_opening=same_opening)


def families_of(pieces: Pieces, *, threshold: float = 0.7, same_opening: bool = True) -> pl.Series:
    """The same for the rows of all pieces. Of a prompt, memory holds some hashes."""
    rows, seen = [], []
    with TextFile() as texts, TextFile() as prompts:
        for piece in pieces:
            distinct = piece.select(pl.col("prompt").unique(maintain_order=True))
            facts = _prompt_facts(distinct)
            texts.append(facts["text"].to_arrow())
            prompts.append(distinct["prompt"].to_arrow())
            seen.append(facts.drop("text"))
            rows.append(_hashed(piece["prompt"], "h", "g"))
        texts.finish()
        prompts.finish()
        # Prompts are compared in the order of their text, so that pairs do not depend on that of the rows.
        first = pl.concat(seen).with_row_index("at").unique(["h", "g"], keep="first", maintain_order=True)
        order = sorted_places(prompts, first["at"].to_numpy().astype(np.int64))
        known = first.select(pl.exclude("at"))[order.tolist()] if len(first) else first
        pairs = near_pairs(OnDisk(texts, first["at"].to_numpy().astype(np.int64)[order]), threshold).select("i", "j")
    if same_opening:
        pairs = pl.concat([pairs, _openings(known)])
    cluster = components(len(known), pairs["i"].to_numpy(), pairs["j"].to_numpy())
    numbered = known.select("h", "g", family=pl.Series(_smallest(cluster, known["digest"].to_numpy())))
    return pl.concat(rows).join(numbered, on=["h", "g"], how="left", maintain_order="left")["family"]


def _prompt_facts(distinct: pl.DataFrame) -> pl.DataFrame:
    """Per prompt its text, the digest that numbers its family, and hashes: of itself (h, g), and of its first user turn
    (x, y), null where that is shorter than OPENING_WORDS."""
    turns = pl.col("prompt").str.json_decode(MESSAGES)
    users = turns.list.eval(pl.element().filter(pl.element().struct.field("role") == "user").struct.field("content"))
    read = distinct.select("prompt", text=prompt_text().fill_null(""), opening=users.list.first())
    digest = [int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) for text in read["prompt"]]
    long = read.select(words(pl.col("opening")).list.len() >= OPENING_WORDS).to_series().fill_null(False)
    return pl.concat(
        [
            read.select("text", digest=pl.Series(digest, dtype=pl.Int64)),
            _hashed(read["prompt"], "h", "g"),
            _hashed(read["opening"].fill_null(""), "x", "y").select(pl.when(long).then(pl.all())),
        ],
        how="horizontal",
    )


def _hashed(texts: pl.Series, *names: str) -> pl.DataFrame:
    return pl.DataFrame(text_hashes(texts), schema=dict.fromkeys(names, pl.UInt64))


def places(numbers: Sequence[int], config: Config) -> list[str]:
    """The split of each family: its place, but none with a ratio is left empty while another has two families."""
    inputs = {number: place(number, config) for number in numbers}
    end = 0.0
    for name, ratio in config.ratios().items():
        end += ratio
        count = Counter(inputs.values())
        movable = [number for number in numbers if count[inputs[number]] > 1]
        if ratio and not count[name] and movable:
            middle = end - ratio / 2
            inputs[min(movable, key=partial(_distance, middle, config.seed))] = name
    return [inputs[number] for number in numbers]


def place(family: int, config: Config) -> str:
    """The split in whose share of [0, 1) the family stands."""
    u = _fraction(family, config.seed)
    total = 0.0
    for name, ratio in config.ratios().items():
        total += ratio
        if u < total:
            return name
    return max(config.ratios(), key=config.ratios().__getitem__)  # rounding left a sliver above the last bound


def _fraction(family: int, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed} {family}".encode()).digest()[:8]) / 2**64


def _distance(middle: float, seed: int, family: int) -> tuple[float, int]:
    return abs(_fraction(family, seed) - middle), family


def _openings(known: pl.DataFrame) -> pl.DataFrame:
    """Links of each prompt to the first one with the same opening."""
    numbered = known.with_row_index("j").drop_nulls("x")
    linked = numbered.with_columns(i=pl.col("j").first().over("x", "y"))
    return linked.filter(pl.col("i") != pl.col("j")).select(pl.col("i", "j").cast(pl.UInt32))


def _smallest(cluster: NDArray[np.int64], digest: NDArray[np.int64]) -> NDArray[np.int64]:
    least = np.full(len(digest), np.iinfo(np.int64).max, np.int64)
    np.minimum.at(least, cluster, digest)
    return np.asarray(least[cluster])


def _stated() -> pl.Expr:
    """The most held-out split that came with the rows of a family; null where none did."""
    name = pl.col("split").replace(SYNONYMS)
    rank = name.replace_strict({name: at for at, name in enumerate(HELD_OUT)}, default=None, return_dtype=pl.Int8)
    return rank.max().replace_strict(dict(enumerate(HELD_OUT)), default=None, return_dtype=pl.String)
