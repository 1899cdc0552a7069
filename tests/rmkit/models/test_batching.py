"""Cutting a step into micro-batches changes the work, never the mathematics."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmkit.errors import ConfigError
from rmkit.models.transformer.batching import micro_batches

lengths = st.lists(st.integers(1, 50), max_size=30)


@given(lengths=lengths, max_batch_tokens=st.integers(1, 120), padded=st.booleans())
def test_every_row_once_and_within_the_budget(lengths: list[int], max_batch_tokens: int, padded: bool) -> None:
    batches = micro_batches(lengths, max_batch_tokens=max_batch_tokens, padded=padded)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        rows = [lengths[row] for row in batch]
        cost = max(rows) * len(rows) if padded else sum(rows)
        assert cost <= max_batch_tokens or len(batch) == 1


@given(lengths=lengths, max_batch_tokens=st.integers(1, 120), padded=st.booleans())
def test_no_neighbors_could_have_shared_a_batch(lengths: list[int], max_batch_tokens: int, padded: bool) -> None:
    batches = micro_batches(lengths, max_batch_tokens=max_batch_tokens, padded=padded)
    for batch, following in itertools.pairwise(batches):
        rows = [lengths[row] for row in batch] + [lengths[following[0]]]
        assert (max(rows) * len(rows) if padded else sum(rows)) > max_batch_tokens


def test_longest_first_and_deterministic() -> None:
    assert micro_batches([3, 9, 3, 5], max_batch_tokens=9, padded=True) == [[1], [3], [0, 2]]
    assert micro_batches([3, 9, 3, 5], max_batch_tokens=11, padded=False) == [[1], [3, 0, 2]]
    assert micro_batches([], max_batch_tokens=10, padded=True) == []
    with pytest.raises(ConfigError, match="budget"):
        micro_batches([1], max_batch_tokens=0, padded=True)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("max_batch_tokens", [10, 45, 10_000])
def test_the_gradient_of_a_step_does_not_depend_on_the_cut(
    tiny_model: Callable[..., Any], packed: bool, max_batch_tokens: int
) -> None:
    torch = pytest.importorskip("torch")
    from rmkit.losses.bradley_terry import bradley_terry
    from rmkit.models.transformer.reward_module import RewardModule

    draw = torch.Generator().manual_seed(5)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, 97, (n,), generator=draw).tolist())

    pairs = []
    for prompt, chosen, rejected in [(5, 3, 9), (20, 2, 4), (3, 1, 1), (11, 8, 2), (7, 7, 7)]:
        head = ids(prompt)
        pairs.append([head + ids(chosen), head + ids(rejected)])

    plain = tiny_model("llama")
    loss = 0.0
    for pair in pairs:  # one pair at a time, no padding, the classifier's own logits
        chosen, rejected = (plain(input_ids=torch.tensor([line])).logits[:, 0] for line in pair)
        loss = loss + bradley_terry(chosen, rejected).sum() / len(pairs)
    loss.backward()

    model = tiny_model("llama")
    module = RewardModule(model, packed=packed)
    total = 0.0
    for rows in module.plan(pairs, max_batch_tokens=max_batch_tokens):
        scores = module(module.collate([pairs[row] for row in rows])).view(-1, 2)
        part = bradley_terry(scores[:, 0], scores[:, 1]).sum() / len(pairs)
        part.backward()
        total += part.item()
    assert total == pytest.approx(loss.item(), abs=1e-5)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-5)
