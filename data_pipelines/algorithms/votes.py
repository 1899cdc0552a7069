"""Pair votes as arrays: which rater said what about which row.

A verdict is 0 (the first response is better), 1 (the second) or 2 (a tie). Positions are those of the stored order,
which goes by content hash: it has nothing to do with quality or with the order a rater saw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

FIRST, SECOND, TIE = 0, 1, 2


@dataclass(frozen=True)
class Votes:
    """V votes: row_V, rater_V, verdict_V, and first_shown_V (1 the first response was shown first, 0 not, -1 unknown).

    `row_V` are positions in the frame (R rows), `rater_V` positions in `raters`.
    """

    row: NDArray[np.int64]
    rater: NDArray[np.int64]
    verdict: NDArray[np.int64]
    first_shown: NDArray[np.int64]
    raters: tuple[str, ...]
    n_rows: int

    def counts(self) -> NDArray[np.int64]:
        """[R, 3] votes per row and verdict."""
        return np.bincount(self.row * 3 + self.verdict, minlength=self.n_rows * 3).reshape(-1, 3)

    def only(self, keep: NDArray[np.bool_]) -> Votes:
        """The votes where `keep` [V] is true; rows and raters keep their numbers."""
        return Votes(
            self.row[keep], self.rater[keep], self.verdict[keep], self.first_shown[keep], self.raters, self.n_rows
        )

    def distinct(self) -> tuple[Votes, NDArray[np.int64]]:
        """One row for all rows on which the same raters said the same, and [R] how many those are."""
        order = np.lexsort((self.verdict, self.rater, self.row))
        row, answers = self.row[order], (self.rater * 3 + self.verdict)[order]
        start = np.flatnonzero(np.diff(row, prepend=-1))
        size = np.diff(start, append=len(row))
        places, weights = [], []
        for n in np.unique(size):
            at = start[size == n][:, None] + np.arange(n)
            _, first, many = np.unique(answers[at], axis=0, return_index=True, return_counts=True)
            places.append(at[first])
            weights.append(many)
        drawn = order[np.concatenate([place.ravel() for place in places])]
        sizes = np.concatenate([np.full(*place.shape) for place in places])
        one = np.repeat(np.arange(len(sizes)), sizes)
        rows = Votes(one, self.rater[drawn], self.verdict[drawn], self.first_shown[drawn], self.raters, len(sizes))
        return rows, np.concatenate(weights)


def pair_votes(frame: pl.DataFrame, *, in_columns: bool = False) -> Votes:
    """All votes on rows of kind pair that rank both responses. One rater's repeated votes on a row all count.

    With `in_columns` the first response is the one in the first column of the file that the vote came from, and votes
    whose file has no such order are left out.
    """
    long = (
        frame.with_row_index("row")
        .filter((pl.col("kind") == "pair") & (pl.col("responses").list.len() == 2))
        .select("row", "votes")
        .explode("votes")
        .drop_nulls("votes")
        .unnest("votes")
        .filter(pl.col("ranks").list.len() == 2, pl.col("ranks").list.eval(pl.element().is_null()).list.any().not_())
    )
    if in_columns:
        long = long.filter(pl.col("column_order").list.len() == 2).with_columns(
            pl.col("ranks").list.gather(pl.col("column_order")),
            shown_order=pl.when(pl.col("column_order").list.first() == 0)
            .then("shown_order")
            .otherwise(pl.col("shown_order").list.eval(1 - pl.element())),
        )
    first, second = (pl.col("ranks").list.get(at, null_on_oob=True) for at in (0, 1))
    shown = pl.col("shown_order").list.first()
    coded = long.select(
        "row",
        rater=pl.col("rater").rank("dense") - 1,
        verdict=pl.when(first < second).then(FIRST).when(first > second).then(SECOND).otherwise(TIE),
        first_shown=pl.when(shown == 0).then(1).when(shown == 1).then(0).otherwise(-1),
    ).cast(pl.Int64)
    row, rater, verdict, first_shown = (coded[name].to_numpy() for name in coded.columns)
    return Votes(row, rater, verdict, first_shown, tuple(long["rater"].unique().sort()), len(frame))
