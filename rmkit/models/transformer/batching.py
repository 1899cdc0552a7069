"""Which rows go through the model together: micro-batches under a token budget.

A training step is a fixed number of rows, drawn as plain training draws them; only how the step is cut into
micro-batches depends on length. Each row's loss counts the same whatever micro-batch it falls into, so the gradient of
the step is that of one big batch. Scoring uses the same plan over windows of its input.
"""

from __future__ import annotations

from collections.abc import Sequence

from rmkit.errors import ConfigError


def micro_batches(lengths: Sequence[int], *, max_batch_tokens: int, padded: bool) -> list[list[int]]:
    """Row numbers in micro-batches, longest rows first, together a permutation of all rows.

    `lengths` are tokens per row. A micro-batch costs the sum of its lengths, or, where rows are padded, its row count
    times its longest; it exceeds `max_batch_tokens` only when a single row does. Longest first, so that memory that
    does not suffice fails at once.
    """
    if max_batch_tokens < 1:
        raise ConfigError(f"the token budget must be positive, got {max_batch_tokens}")
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: list[list[int]] = []
    longest = total = 0
    for row in order:
        cost = longest * (len(batches[-1]) + 1) if padded and batches else total + lengths[row]
        if not batches or cost > max_batch_tokens:
            batches.append([])
            longest, total = lengths[row], 0
        batches[-1].append(row)
        total += lengths[row]
    return batches
