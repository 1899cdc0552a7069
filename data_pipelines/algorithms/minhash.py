"""Near-duplicate texts: MinHash signatures, banded lookup, then the exact Jaccard similarity of every candidate.

Broder, "On the resemblance and containment of documents", 1997; bands after Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", chapter 3. A text is the set of its 3-word shingles (lower case; a character counts as a word in
scripts without spaces; a text of fewer words is one shingle). 128 permutations h -> a h + b mod 2^32 with odd a give
the signature; it is cut into bands of r values, and two texts that agree on a whole band are a candidate, which
happens with probability 1 - (1 - J^r)^(128/r). r is the largest for which that is at least 0.995 at the threshold
(r = 4 at J = 0.7). Candidates are then kept or dismissed by their exact Jaccard, so bands decide speed and recall,
never precision.

Word hashes come from BLAKE2b, so that the same texts give the same pairs on every machine and library version. Engine
"rensa" takes the signatures from the rensa package instead (its R-MinHash); everything else is shared. The default does
not depend on what is installed: a pair at the threshold's edge may be found by one engine only, and the digest of a
dataset must not change with an optional package.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.text import words
from rmkit.data.text_file import TextFile
from rmkit.errors import MissingExtraError

Engine = Literal["polars", "rensa"]

PERMUTATIONS = 128
SHINGLE_WORDS = 3
CANDIDATE_RECALL = 0.995
BATCH_BYTES = 8_000_000  # of text taken apart at once; its words and hashes take about fifteen times as much
BATCH_SHINGLES = 4_000_000  # of both sides of the pairs compared at once
BUCKET_ALL_PAIRS = 16  # larger buckets link each member to the first and to its neighbor only

PAIRS = pl.Schema({"i": pl.UInt32, "j": pl.UInt32, "jaccard": pl.Float64})

_SEED = 20_231_107
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


class Texts(Protocol):
    """Texts that need not be in memory."""

    def __len__(self) -> int: ...

    def mapped(self, function: Callable[[pl.Series], NDArray[Any]]) -> NDArray[Any]:
        """[n, ...] what the function gives for some texts at a time, one line each."""

    def gather(self, at: NDArray[np.int64]) -> pl.Series:
        """The texts at these positions."""


class InMemory:
    """Texts of a Series."""

    def __init__(self, texts: pl.Series) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def mapped(self, function: Callable[[pl.Series], NDArray[Any]]) -> NDArray[Any]:
        """See Texts."""
        return np.concatenate([function(batch) for batch in batches(self._texts)])

    def gather(self, at: NDArray[np.int64]) -> pl.Series:
        """See Texts."""
        return self._texts.gather(at)


class OnDisk:
    """Texts of a file, in an order of their own: the text at position k is that at `order`[k] of the file."""

    def __init__(self, file: TextFile, order: NDArray[np.int64]) -> None:
        self._file, self._order = file, order

    def __len__(self) -> int:
        return len(self._order)

    def mapped(self, function: Callable[[pl.Series], NDArray[Any]]) -> NDArray[Any]:
        """See Texts. The file is read from its beginning to its end."""
        results = []
        for start, end in _runs(self._file.n_bytes, BATCH_BYTES):
            results.append(function(pl.Series(self._file.array()[start:end].take(np.arange(end - start)))))
            self._file.release()
        return np.concatenate(results)[self._order]

    def gather(self, at: NDArray[np.int64]) -> pl.Series:
        """See Texts."""
        result = pl.Series(self._file.array().take(self._order[at]))
        self._file.release()
        return result


def near_pairs(texts: pl.Series | Texts, threshold: float, *, engine: Engine = "polars") -> pl.DataFrame:
    """Pairs of texts with Jaccard >= threshold: columns i < j (positions) and jaccard, sorted by i, j.

    Equal texts are linked to their first occurrence only (jaccard 1), and further pairs are reported for that one.
    """
    if isinstance(texts, pl.Series):
        texts = InMemory(texts)
    if not len(texts):
        return pl.DataFrame(schema=PAIRS)
    firsts = (
        pl.DataFrame(texts.mapped(text_hashes), schema=["h", "g"])
        .with_row_index("j")
        .with_columns(i=pl.col("j").first().over("h", "g"))
        .drop("h", "g")
    )
    equal = firsts.filter(pl.col("i") != pl.col("j")).select("i", "j", jaccard=pl.lit(1.0))
    position = firsts.filter(pl.col("i") == pl.col("j"))["j"].to_numpy().astype(np.int64)
    rows = band_rows(threshold)
    keys = texts.mapped(lambda batch: _band_keys(batch, rows, engine))[position]
    result = _verified(texts, position, _candidates(keys), threshold)
    near = result.with_columns(
        i=pl.Series(position[result["i"]], dtype=pl.UInt32), j=pl.Series(position[result["j"]], dtype=pl.UInt32)
    )
    return pl.concat([equal, near]).sort("i", "j")


def text_hashes(texts: pl.Series) -> NDArray[np.uint64]:
    """[n, 2] 128 bits of each text, good for one process: equal only for equal texts."""
    return np.stack([texts.hash(seed).to_numpy() for seed in (_SEED, _SEED + 1)], axis=1)


def near_matches(theirs: pl.Series, mine: pl.Series, threshold: float) -> pl.DataFrame:
    """Pairs of a text of `theirs` (i) and one of `mine` (j) with Jaccard >= threshold, sorted by j, i; columns as
    `near_pairs`. Whom a text of `mine` matches does not depend on what else is there."""
    rows = band_rows(threshold)
    known, compared = (
        np.concatenate(
            [np.zeros((0, PERMUTATIONS // rows), np.uint64), *(_band_keys(b, rows, "polars") for b in batches(t))]
        )
        for t in (theirs, mine)
    )
    pairs = [np.zeros(0, np.int64)]
    for band in range(known.shape[1]):
        order = np.argsort(known[:, band], kind="stable")
        first = np.searchsorted(known[order, band], compared[:, band], "left")
        many = np.minimum(np.searchsorted(known[order, band], compared[:, band], "right") - first, BUCKET_ALL_PAIRS)
        j = np.repeat(np.arange(len(compared)), many)
        offset = np.arange(len(j)) - np.repeat(np.cumsum(many) - many, many)
        pairs.append(j * len(known) + order[np.repeat(first, many) + offset])
    distinct = np.unique(np.concatenate(pairs))
    i, j = (distinct % max(len(known), 1), distinct // max(len(known), 1))
    texts, at = np.unique(np.concatenate([i, j + len(known)]), return_inverse=True)
    sets = shingle_sets(
        pl.concat([theirs.gather(texts[texts < len(known)]), mine.gather(texts[texts >= len(known)] - len(known))])
    )
    similarity = jaccard(sets, pl.Series(at[: len(i)]), pl.Series(at[len(i) :]))
    result = pl.DataFrame({"i": i, "j": j, "jaccard": similarity}).cast(pl.Schema(PAIRS))
    return result.filter(pl.col("jaccard") >= threshold)


def clusters(texts: pl.Series, threshold: float, *, engine: Engine = "polars") -> NDArray[np.int64]:
    """For each text the position of the first text of its cluster (connected components of `near_pairs`)."""
    pairs = near_pairs(texts, threshold, engine=engine)
    return components(len(texts), pairs["i"].to_numpy(), pairs["j"].to_numpy())


def components(n: int, i: NDArray[np.uint32], j: NDArray[np.uint32]) -> NDArray[np.int64]:
    """For each of n nodes the smallest node connected with it by the edges (i, j)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, label = connected_components(coo_array((np.ones(len(i), bool), (i, j)), shape=(n, n)), directed=False)
    first = np.full(n, n, np.int64)
    np.minimum.at(first, label, np.arange(n))
    return np.asarray(first[label])


def band_rows(threshold: float) -> int:
    """Values per band: the most for which a pair at the threshold is a candidate with CANDIDATE_RECALL."""
    fits = [r for r in range(1, 17) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= CANDIDATE_RECALL]
    return max(fits, default=1)


def shingles(texts: pl.Series, size: int = SHINGLE_WORDS) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of every `size` words in a row, all texts in one array, and where each text's begin ([n + 1]).

    Every text has at least one; one of fewer words has that one. See `batches` for many texts.
    """
    split = texts.to_frame("text").with_columns(words=words(pl.col("text")))
    wordless = pl.col("words").list.len() == 0  # punctuation only, or empty: the text itself is the only word
    listed = split.select(pl.when(wordless).then(pl.concat_list("text")).otherwise("words"))["text"]
    lengths = listed.list.len().to_numpy().astype(np.int64)
    start = np.concatenate([[0], np.cumsum(lengths)])
    hashed = np.concatenate([_word_hashes(listed.explode()), np.zeros(size - 1, np.uint64)])
    left = np.repeat(start[1:], lengths) - np.arange(start[-1])  # words from here to the end of the text
    begins = (left >= size) | (np.repeat(lengths, lengths) == left)  # a short text is one shingle
    at = np.flatnonzero(begins)
    factor = _factors(size)
    mixed = hashed[at] * factor[0]
    for k in range(1, size):
        mixed += np.where(left[at] > k, hashed[at + k], np.uint64(0)) * factor[k]
    mixed ^= mixed >> np.uint64(29)  # the multiplications leave low bits weak; both halves are used below
    count = np.where(lengths >= size, lengths - size + 1, 1)
    return mixed, np.concatenate([[0], np.cumsum(count)])


def _factors(size: int) -> NDArray[np.uint64]:
    """[size] odd numbers, one per place in a shingle."""
    more = np.random.default_rng(_SEED).integers(0, 2**64, max(size - len(_MIX), 0), dtype=np.uint64)
    return np.concatenate([_MIX, more | np.uint64(1)])[:size]


def _word_hashes(tokens: pl.Series) -> NDArray[np.uint64]:
    vocabulary = tokens.unique(maintain_order=False)
    hashes = [int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest()) for word in vocabulary]
    table = pl.DataFrame({"word": vocabulary, "hash": pl.Series(hashes, dtype=pl.UInt64)})
    joined = tokens.to_frame("word").join(table, on="word", how="left", maintain_order="left")
    return joined["hash"].to_numpy()


def _candidates(keys: NDArray[np.uint64]) -> pl.DataFrame:
    """Distinct pairs i < j of texts, of which `keys` [n, bands] has the bands, that share one."""
    pairs = np.unique(np.concatenate([_bucket_pairs(keys[:, band]) for band in range(keys.shape[1])]))
    return pl.DataFrame({"i": pairs // len(keys), "j": pairs % len(keys)})


def batches(texts: pl.Series) -> Iterator[pl.Series]:
    """The texts in order, about BATCH_BYTES at once."""
    for start, end in _runs(texts.str.len_bytes().fill_null(0).to_numpy(), BATCH_BYTES):
        yield texts.slice(start, end - start)


def _runs(sizes: NDArray[Any], most: int) -> Iterator[tuple[int, int]]:
    """Bounds of runs whose sizes, all but the last one, add up to less than `most`."""
    before = np.cumsum(sizes, dtype=np.int64) - sizes
    bounds = [*np.flatnonzero(np.diff(before // most, prepend=-1)).tolist(), len(sizes)]
    return itertools.pairwise(bounds)


def _band_keys(texts: pl.Series, rows: int, engine: Engine) -> NDArray[np.uint64]:
    """[texts, bands] one key per band."""
    values, start = shingles(texts)
    signature = _rensa_signature(values, start) if engine == "rensa" else _signature(values, start)
    bands = PERMUTATIONS // rows
    parts = signature[: bands * rows].reshape(bands, rows, -1).astype(np.uint64)
    key = np.zeros((bands, signature.shape[1]), np.uint64)
    for row in range(rows):
        key = (key ^ parts[:, row]) * _MIX[0]
        key ^= key >> np.uint64(32)
    return key.T


def _signature(values: NDArray[np.uint64], start: NDArray[np.int64]) -> NDArray[np.uint32]:
    """[permutations, texts] minima. Works through slices that stay in the processor's cache."""
    draw = np.random.default_rng(_SEED).integers(0, 2**32, (2, PERMUTATIONS), dtype=np.uint32)
    factor, offset = draw[0] | np.uint32(1), draw[1]
    high = (values >> np.uint64(32)).astype(np.uint32)
    signature = np.empty((PERMUTATIONS, len(start) - 1), np.uint32)
    step = 1000
    for first in range(0, len(start) - 1, step):
        at = start[first : first + step + 1]
        part, begins = high[at[0] : at[-1]], at[:-1] - at[0]
        buffer = np.empty_like(part)
        for k in range(PERMUTATIONS):
            np.multiply(part, factor[k], out=buffer)
            np.add(buffer, offset[k], out=buffer)
            signature[k, first : first + len(begins)] = np.minimum.reduceat(buffer, begins)
    return signature


def _rensa_signature(values: NDArray[np.uint64], start: NDArray[np.int64]) -> NDArray[np.uint32]:
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise MissingExtraError("rensa", "dedup") from error
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(values, start.astype(np.uint64), PERMUTATIONS, _SEED)
    return np.array(matrix.to_rows(), np.uint32).T


def _bucket_pairs(key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs of equal keys as i * n + j, i < j: all of a small bucket, a star and a chain of a large one."""
    n = len(key)
    order = np.argsort(key, kind="stable")  # stable: within a bucket positions ascend
    new = np.concatenate([[True], key[order][1:] != key[order][:-1]])
    begins = np.flatnonzero(new)
    begin = np.repeat(begins, np.diff(np.append(begins, n)))
    pairs = [order[begin] * n + order]  # star, with (i, i) for the first itself
    for gap in range(1, BUCKET_ALL_PAIRS):
        near = np.arange(gap, n)
        near = near[(near - gap >= begin[near]) & ((gap == 1) | (_sizes(begin, n)[near] <= BUCKET_ALL_PAIRS))]
        pairs.append(order[near - gap] * n + order[near])
    joined = np.concatenate(pairs)
    return np.asarray(joined[joined // n != joined % n])


def _sizes(begin: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.asarray(np.bincount(begin, minlength=n)[begin])


def _verified(texts: Texts, position: NDArray[np.int64], candidates: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Candidates (numbers of `position`) with their exact Jaccard, those below the threshold left out."""
    if not len(candidates):
        return pl.DataFrame(schema=PAIRS)
    used = pl.concat([candidates["i"], candidates["j"]]).unique().sort()
    sets = shingle_sets(texts.gather(position[used.to_numpy()]))
    at = pl.DataFrame({"text": used, "at": pl.int_range(len(used), eager=True)})
    placed = candidates.join(at, left_on="i", right_on="text").join(at, left_on="j", right_on="text", suffix="_j")
    similarity = jaccard(sets, placed["at"], placed["at_j"])
    result = placed.select(pl.col("i", "j").cast(pl.UInt32)).with_columns(jaccard=similarity)
    return result.filter(pl.col("jaccard") >= threshold)


def shingle_sets(texts: pl.Series) -> pl.Series:
    """For each text the list of its distinct shingle hashes."""
    parts = []
    for batch in batches(texts):
        values, start = shingles(batch)
        flat = pl.DataFrame({"set": pl.Series(values), "text": np.repeat(np.arange(len(batch)), np.diff(start))})
        parts.append(flat.group_by("text", maintain_order=True).agg(pl.col("set").unique())["set"])
    return pl.concat(parts) if parts else pl.Series("set", [], pl.List(pl.UInt64))


def distinct_shingles(texts: pl.Series) -> pl.Series:
    """For each text the number of its distinct shingles."""
    counts = [shingle_sets(batch).list.len() for batch in batches(texts)]
    return pl.concat(counts) if counts else pl.Series("set", [], pl.UInt32)


def jaccard(sets: pl.Series, i: pl.Series, j: pl.Series) -> pl.Series:
    """|A & B| / |A | B| of the sets at positions i and j, row by row."""
    size = sets.list.len().to_numpy()
    common = pl.col("a").list.set_intersection("b").list.len()
    similarity = common / (pl.col("a").list.len() + pl.col("b").list.len() - common)
    parts = [pl.Series("jaccard", [], pl.Float64)]
    for start, end in _runs(size[i.to_numpy()] + size[j.to_numpy()], BATCH_SHINGLES):
        pairs = pl.DataFrame({"a": sets.gather(i[start:end]), "b": sets.gather(j[start:end])})
        parts.append(pairs.select(jaccard=similarity)["jaccard"])
    return pl.concat(parts)
