"""Topics of prompts: k-means on the frozen encoder's features, each named by the words that set it apart.

    words of topic t     highest  ln((n_wt + a) / (n_t + a V)) - ln((n_w,rest + a) / (n_rest + a V)),  a = 1/2

n counts the prompts that hold a word; a word must stand in at least two of the topic's. Features have length one, so
that distance and cosine order alike. Of two datasets the topics are those of both together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmkit.errors import DataError

WORDS = 4
PRIOR = 0.5
_COMMON = (
    "the a an of to in is are was be and or for with on at by from as it its this that these those i you he she we they"
    " my your me do does did can could would should will what how why when where who which not no if so but about have"
    " has had there their them his her our us than then some any all one please"
)
COMMON = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """`rows` of the dataset, and `other` of the one that it is held against; shares are of each one's own rows."""

    words: tuple[str, ...]
    rows: int
    share: float
    other: int
    other_share: float
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicMap:
    """`topics` from the largest to the smallest; `topic` [n] is each prompt's number among them, `place` [n, 2] where
    it lies on the plane of the two largest principal components."""

    topics: tuple[Topic, ...]
    topic: NDArray[np.int64]
    place: NDArray[np.float64]


def topic_map(
    features: NDArray[np.floating], texts: Sequence[str], other: Sequence[bool], *, k: int, seed: int = 0
) -> TopicMap:
    """Of features [n, width] of prompts, of which those with `other` [n] belong to the second dataset.

    Raises DataError for fewer prompts than topics.
    """
    from sklearn.cluster import KMeans

    if len(texts) < k or len(texts) != len(features):
        raise DataError(f"{k} topics need at least as many prompts, got {len(texts)}")
    x = np.asarray(features, np.float64)
    fitted = KMeans(n_clusters=k, n_init=4, random_state=seed).fit(x)
    label, own = fitted.labels_, ~np.asarray(other, bool)
    distance = fitted.transform(x)[np.arange(len(x)), label]
    order = sorted(range(k), key=lambda topic: (-int((own & (label == topic)).sum()), topic))
    words = _words([set(re.findall(r"[^\W\d_]{2,}", text.lower())) - COMMON for text in texts], label, k)
    topics = []
    for topic in order:
        inside = label == topic
        rows, others = int((inside & own).sum()), int((inside & ~own).sum())
        nearest = int(np.flatnonzero(inside)[np.argmin(distance[inside])])
        topics.append(
            Topic(
                words=words[topic],
                rows=rows,
                share=rows / max(1, int(own.sum())),
                other=others,
                other_share=others / max(1, int((~own).sum())),
                example=" ".join(texts[nearest].split()),
            )
        )
    rank = np.empty(k, np.int64)
    rank[order] = np.arange(k)
    centered = x - x.mean(axis=0)
    axes = np.linalg.svd(centered, full_matrices=False)[2][:2]
    return TopicMap(topics=tuple(topics), topic=rank[label], place=centered @ axes.T)


def _words(bags: Sequence[set[str]], label: NDArray[np.int64], k: int) -> list[tuple[str, ...]]:
    every: Counter[str] = Counter(word for bag in bags for word in bag)
    result = []
    for topic in range(k):
        inside = [bag for bag, one in zip(bags, label, strict=True) if one == topic]
        counts: Counter[str] = Counter(word for bag in inside for word in bag)
        n, rest, v = sum(counts.values()), sum(every.values()), len(every)
        weight = {
            word: np.log((many + PRIOR) / (n + PRIOR * v))
            - np.log((every[word] - many + PRIOR) / (rest - n + PRIOR * v))
            for word, many in counts.items()
            if many >= min(2, len(inside))
        }
        result.append(tuple(sorted(weight, key=lambda word: (-weight[word], word))[:WORDS]))
    return result
