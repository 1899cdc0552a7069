"""Rows of ids as tensors: packed behind shared prompts without padding, or padded the plain way.

A row is one prompt with its N completions, given as N id sequences. Packed, all rows of a micro-batch lie in one
sequence of T tokens: each row's common beginning once, then the N different tails. Position ids count as if every
completion followed the prompt directly; `shared_attention` keeps each from seeing any other.

Axes: K completions of all rows together, T packed tokens, L tokens of the longest completion, R tokens that are read
(one per completion, its last, unless `reads` names others: the ends of its steps).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """One row's place in the packed sequence: a prefix, then tails that each see the prefix and themselves."""

    start: int
    prefix: int
    tails: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + self.prefix + sum(self.tails)


@dataclass(slots=True)
class Layout:
    """The segments of a packed sequence, and the masks that attention builds from them once per batch.

    `windows` collects the sliding windows that layers asked for, so that a probe can see whether they do.
    """

    segments: tuple[Segment, ...]
    masks: dict[tuple[int, str, int | None], Tensor] = field(default_factory=dict)
    windows: set[int | None] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Packed:
    """[1, T] ids and positions without padding; reward_index [R] says where rewards are read."""

    input_ids: Tensor
    position_ids: Tensor
    reward_index: Tensor
    layout: Layout

    def to(self, device: torch.device | str) -> Packed:
        moved = {name: getattr(self, name).to(device) for name in ("input_ids", "position_ids", "reward_index")}
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class Padded:
    """[K, L] ids and mask, padded on the right; rewards are read on lines `line` [R] at `reward_index` [R]."""

    input_ids: Tensor
    attention_mask: Tensor
    line: Tensor
    reward_index: Tensor

    def to(self, device: torch.device | str) -> Padded:
        names = ("input_ids", "attention_mask", "line", "reward_index")
        return Padded(*(getattr(self, name).to(device) for name in names))


@dataclass(frozen=True, slots=True)
class Parts:
    """Batches of texts that must not be read in one pass. Output `order[r]` of all of them, one after the other, is
    that of the r-th token read, in the order of the rows; [R]."""

    parts: tuple[Packed | Padded, ...]
    order: Tensor

    def to(self, device: torch.device | str) -> Parts:
        return Parts(tuple(part.to(device) for part in self.parts), self.order.to(device))


Batch = Packed | Padded | Parts


def common_prefix(sequences: Sequence[Ids]) -> int:
    """Length of the common beginning; at least one token of every sequence stays outside it."""
    shortest, longest = min(sequences), max(sequences)  # in lexicographic order these two part first
    limit = min(len(sequence) for sequence in sequences) - 1
    return next((i for i, (a, b) in enumerate(zip(shortest, longest, strict=False)) if a != b or i == limit), limit)


def packed_tokens(sequences: Sequence[Ids], *, share: bool = True) -> int:
    """Tokens that a row takes in a packed sequence."""
    total = sum(len(sequence) for sequence in sequences)
    return total - (len(sequences) - 1) * common_prefix(sequences) if share and len(sequences) > 1 else total


def pack(rows: Sequence[Sequence[Ids]], *, share: bool = True, reads: Sequence[Sequence[Ids]] | None = None) -> Packed:
    """Rows of N id sequences each in one sequence; completions keep their order. Without `share` none shares."""
    ids: list[int] = []
    positions: list[int] = []
    rewards: list[int] = []
    segments: list[Segment] = []
    read = iter(_reads(rows, reads))
    for sequences in rows if share else [[sequence] for row in rows for sequence in row]:
        prefix = common_prefix(sequences) if len(sequences) > 1 else len(sequences[0])
        groups = [sequences] if prefix else [[sequence] for sequence in sequences]
        for group in groups:
            shared = prefix or len(group[0])
            tails = tuple(len(sequence) - shared for sequence in group) if len(group) > 1 else ()
            start = len(ids)
            segments.append(Segment(start, shared, tails))
            ids += group[0][:shared]
            positions += range(shared)
            for sequence in group:
                tail = len(ids)
                ids += sequence[shared:]
                positions += range(shared, len(sequence))
                rewards += [start + at if at < shared else tail + at - shared for at in next(read)]
    return Packed(torch.tensor([ids]), torch.tensor([positions]), torch.tensor(rewards), Layout(tuple(segments)))


def pad(rows: Sequence[Sequence[Ids]], *, pad_id: int, reads: Sequence[Sequence[Ids]] | None = None) -> Padded:
    """Every completion on a line of its own, padded on the right to the longest."""
    sequences = [sequence for row in rows for sequence in row]
    length = torch.tensor([len(sequence) for sequence in sequences])
    ids = torch.full((len(sequences), max(map(len, sequences))), pad_id)
    for line, sequence in enumerate(sequences):
        ids[line, : len(sequence)] = torch.tensor(sequence)
    mask = (torch.arange(ids.shape[1]) < length[:, None]).long()
    places = [(line, at) for line, read in enumerate(_reads(rows, reads)) for at in read]
    lines, index = torch.tensor(places).reshape(-1, 2).T
    return Padded(ids, mask, lines, index)


def split_row(sequences: Sequence[Ids], key: Callable[[int], Hashable]) -> dict[Hashable, list[int]]:
    """Which sequences of a row, by number, have lengths of the same key."""
    together: dict[Hashable, list[int]] = {}
    for number, sequence in enumerate(sequences):
        together.setdefault(key(len(sequence)), []).append(number)
    return together


def in_parts(
    rows: Sequence[Sequence[Ids]],
    reads: Sequence[Sequence[Ids]] | None,
    *,
    key: Callable[[int], Hashable],
    collate: Callable[[Sequence[Sequence[Ids]], Sequence[Sequence[Ids]]], Packed | Padded],
) -> Batch:
    """One batch where all lengths have the same key, else one by `collate` for each key."""
    read = iter(_reads(rows, reads))
    reads_by_row = [[next(read) for _ in row] for row in rows]
    by_key: dict[Hashable, list[tuple[list[Ids], list[Ids], list[int]]]] = {}  # a row's sequences, reads, outputs
    outputs = 0
    for sequences, row_reads in zip(rows, reads_by_row, strict=True):
        starts = [outputs := outputs + len(at) for at in row_reads]
        for one, numbers in split_row(sequences, key).items():
            places = [starts[n] - len(row_reads[n]) + i for n in numbers for i in range(len(row_reads[n]))]
            part = ([sequences[n] for n in numbers], [row_reads[n] for n in numbers], places)
            by_key.setdefault(one, []).append(part)
    parts = tuple(collate([row for row, _, _ in group], [at for _, at, _ in group]) for group in by_key.values())
    if len(parts) == 1:
        return parts[0]
    place_R = torch.tensor([place for group in by_key.values() for _, _, places in group for place in places])
    return Parts(parts, place_R.argsort())


def _reads(rows: Sequence[Sequence[Ids]], reads: Sequence[Sequence[Ids]] | None) -> list[Ids]:
    """Per sequence the tokens to read: the given ones, else the last."""
    if reads is None:
        return [(len(sequence) - 1,) for row in rows for sequence in row]
    return [read for row in reads for read in row]
