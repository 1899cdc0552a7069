"""How the answers of a key agree: clusters are equal labels of `column`.

    share       of the key's answers that are like this one
    entropy     of the clusters, in nats
    evenness    entropy / ln(answers), 1 where all differ; 0 for a sole answer
    distinct    the number of clusters
    answers     the number of answers

A completion without an answer counts nowhere and has none of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from rmkit.shaping.group import Column, Floats, Group, Kind, numbers
from rmkit.shaping.transform import REWARD, Stage, Transform, keys, merged, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster(Transform):
    stage: ClassVar[Stage] = "group"

    column: Annotated[str, "labels: the answers, or the clusters that an equivalence gave them"] = "answer"
    into: Annotated[str, "the column that it writes"] = REWARD
    how: Annotated[Literal["share", "entropy", "evenness", "distinct", "answers"], "which number"] = "share"
    by: Annotated[Any, "the keys: columns, group, batch, row, position"] = "group"

    @property
    def needs(self) -> dict[str, Kind]:
        return merged({self.column: "key"}, keys(self.by))

    def result(self, group: Group) -> Column:
        column = group.column(self.column)
        present = column.values >= 0 if column.labels is not None else ~np.isnan(column.values)
        codes, m = group.key(names(self.by, "by"), column)
        cluster, count = group.key([*names(self.by, "by"), self.column], column)
        answers = np.bincount(codes[present], minlength=m)
        size = np.bincount(cluster[present], minlength=count)
        of = np.zeros(count, np.int64)
        of[cluster[present]] = codes[present]
        some = size > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            share = size / answers[of]
            entropy: Floats = np.bincount(of[some], -share[some] * np.log(share[some]), minlength=m).astype(np.float64)
            result: Floats
            match self.how:
                case "share":
                    result = share[cluster]
                case "entropy":
                    result = entropy[codes]
                case "evenness":
                    result = np.where(answers > 1, entropy / np.log(answers), 0.0)[codes]
                case "distinct":
                    result = np.bincount(of[some], minlength=m)[codes].astype(np.float64)
                case _:
                    result = answers[codes].astype(np.float64)
        return numbers(np.where(present, result, np.nan), column.lengths)
