"""Turn labels of pairs around, an exact number of them, and remember which: a laboratory for denoising.

round(rate * n) of the n pairs that have a winner (and stand in one of `splits`; rows without a split count too) are
drawn without replacement, with odds w (Efraimidis & Spirakis 2006: the largest log(u) / w are taken, u a hash of seed
and unit, so that the draw depends on neither order nor machine). The kinds differ in w alone:

    symmetric   1
    length      1 where the worse response is the longer one (characters), else 0: a taste for length
    annotator   exp(strength z) with z normal per annotator: some are careless. Annotators are the row's voters (their
                mean w) or, where nobody voted, one of ten made-up ones
    prompt      exp(strength z), z a standardized random linear function of the prompt's words: prompts alike are wrong
                alike

p and ranks are turned around; votes, scores and margin stay as they are, so nothing in a row betrays it. The truth goes
to the warehouse table `label_flip`; `rmkit noise --judge NAME@REF` reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.text import prompt_text, response_texts, words
from data_pipelines.steps import Context, StepResult, nothing_dropped
from rmkit.errors import ConfigError, DataError

Kind = Literal["symmetric", "length", "annotator", "prompt"]
KINDS: tuple[Kind, ...] = ("symmetric", "length", "annotator", "prompt")
MADE_UP_ANNOTATORS = 10


@dataclass(frozen=True, kw_only=True)
class Config:
    kind: Kind = "symmetric"
    rate: float = 0.2
    strength: float = 1.5
    splits: tuple[str, ...] = ("train", "validation", "dev")
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 0.5:
            raise ConfigError(f"noise: rate is a share of flipped labels in [0, 0.5), got {self.rate}")
        if self.strength < 0:
            raise ConfigError(f"noise: strength must not be negative, got {self.strength}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """All rows, some with the label turned around; `records` name those. Raises DataError where too few can be."""
    rows = frame.with_row_index("_row").filter(_eligible(config.splits))
    flipped = rows.filter(flips(rows, config))
    turned = pl.Series(np.isin(np.arange(len(frame)), flipped["_row"].to_numpy()))
    noisy = frame.with_columns(
        pl.when(turned).then(pl.col(name).list.reverse()).otherwise(pl.col(name)).alias(name) for name in ("p", "ranks")
    )
    longer = _worse_is_longer(rows)
    facts = {
        "kind": config.kind,
        "pairs_with_a_winner": len(rows),
        "flipped": len(flipped),
        "flipped_by_split": dict(flipped.group_by("split").len().sort("split").iter_rows()),
        "worse_is_longer": round(float(longer.mean()), 4) if len(rows) else None,
        "note": f"{len(flipped)} of {len(rows)} labels turned around ({config.kind}, seed {config.seed})",
    }
    truth = flipped.select("id", kind=pl.lit(config.kind))
    return nothing_dropped(noisy, facts)._replace(records={"label_flip": truth})


def flips(rows: pl.DataFrame, config: Config) -> NDArray[np.bool_]:
    """[rows] which labels to turn around: exactly round(rate * rows) of them. Every row must be a pair with a winner.

    Raises DataError where fewer can be.
    """
    odds = _odds(rows, config)
    n = round(config.rate * len(rows))
    if n > (possible := int((odds > 0).sum())):
        raise DataError(
            f"noise {config.kind} at rate {config.rate} asks for {n} flips, but only {possible} of {len(rows)} pairs "
            f"can be flipped that way; take a rate of at most {possible / max(len(rows), 1):.3f}"
        )
    with np.errstate(divide="ignore"):
        place = np.log(_fractions(rows["unit"], f"{config.seed} {config.kind}")) / odds
    mask = np.zeros(len(rows), dtype=bool)
    mask[np.lexsort((rows["unit"].to_numpy(), -place))[:n]] = True
    return mask


def _eligible(splits: Sequence[str]) -> pl.Expr:
    """Pairs whose label prefers one response, in the splits or in none."""
    there = pl.col("split").is_null() | pl.col("split").is_in(list(splits))
    pair = (pl.col("kind") == "pair") & (pl.col("responses").list.len() == 2) & (pl.col("p").list.len() == 2)
    return there & pair & (pl.col("p").list.first() != pl.col("p").list.last())


def _odds(rows: pl.DataFrame, config: Config) -> NDArray[np.float64]:
    match config.kind:
        case "symmetric":
            return np.ones(len(rows))
        case "length":
            return _worse_is_longer(rows).astype(np.float64)
        case "annotator":
            return _annotator_odds(rows, config)
        case "prompt":
            return np.asarray(np.exp(config.strength * _prompt_direction(rows["prompt"], config.seed)))


def _worse_is_longer(rows: pl.DataFrame) -> NDArray[np.bool_]:
    lengths = rows.select(n=response_texts().list.eval(pl.element().str.len_chars().cast(pl.Int64)))["n"]
    first, second = (lengths.list.get(at).to_numpy() for at in (0, 1))
    first_wins = rows.select(pl.col("p").list.first() > pl.col("p").list.last()).to_series().to_numpy()
    return np.where(first_wins, second > first, first > second)


def _annotator_odds(rows: pl.DataFrame, config: Config) -> NDArray[np.float64]:
    """Mean over a row's voters of exp(strength z), z normal and fixed per voter."""
    drawn = (MADE_UP_ANNOTATORS * _fractions(rows["unit"], f"{config.seed} annotator of")).astype(int)
    voters = [
        [vote["rater"] for vote in votes or []] or [f"made-up {number}"]
        for votes, number in zip(rows["votes"].to_list(), drawn.tolist(), strict=True)
    ]
    known = sorted({name for row in voters for name in row})
    careless = dict(zip(known, _normal(pl.Series(known), f"{config.seed} careless"), strict=True))
    return np.array([np.mean([np.exp(config.strength * careless[name]) for name in row]) for row in voters])


def _prompt_direction(prompts: pl.Series, seed: int) -> NDArray[np.float64]:
    """[rows] standardized mean over the prompt's distinct words of a random number fixed per word."""
    settings = pl.DataFrame({"prompt": prompts}).with_row_index("row")
    long = settings.select("row", word=words(prompt_text()).list.unique()).explode("word", empty_as_null=False)
    known = long["word"].unique().sort()
    value = pl.DataFrame({"word": known, "z": _normal(known, f"{seed} word")})
    mean = long.join(value, on="word").group_by("row").agg(pl.col("z").mean())
    z = settings.select("row").join(mean, on="row", how="left", maintain_order="left")["z"].fill_null(0).to_numpy()
    spread = z.std()
    return np.asarray((z - z.mean()) / spread if spread > 0 else np.zeros_like(z))


def _normal(names: pl.Series, salt: str) -> NDArray[np.float64]:
    from scipy.special import ndtri

    return np.asarray(ndtri(_fractions(names, salt)))


def _fractions(names: pl.Series, salt: str) -> NDArray[np.float64]:
    """A number in (0, 1) per name, from its hash."""
    digits = [hashlib.sha256(f"{salt} {name}".encode()).digest()[:8] for name in names]
    return np.array([(int.from_bytes(raw) + 0.5) / 2**64 for raw in digits], dtype=np.float64)
