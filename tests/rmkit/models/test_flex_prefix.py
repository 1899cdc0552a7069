"""Flex attention over a packed sequence (uncompiled on the CPU) gives what the form by rows and the plain way give."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.attention.flex_attention")

from rmkit.models.transformer import flex_prefix, shared_attention  # noqa: E402
from rmkit.models.transformer.packing import Layout, Segment, pack  # noqa: E402
from rmkit.models.transformer.reward_module import RewardModule  # noqa: E402
from rmkit.models.transformer.shared_attention import by_rows  # noqa: E402
from tests.rmkit.models.test_prefix import ROWS, gap, rewards_and_gradients  # noqa: E402

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    flex_prefix.refused.cache_clear()
    yield
    flex_prefix.refused.cache_clear()


def test_places_of_a_hand_made_sequence() -> None:
    row, tail, place = flex_prefix.token_places((Segment(0, 2, (1, 3)), Segment(6, 3, ())))
    assert row.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert tail.tolist() == [-1, -1, 0, 1, 1, 1, -1, -1, -1]
    assert place.tolist() == [0, 1, 2, 2, 3, 4, 0, 1, 2]
    packed = pack(ROWS)
    assert flex_prefix.token_places(packed.layout.segments)[2].tolist() == packed.position_ids[0].tolist()


PLAIN = pytest.param({}, marks=pytest.mark.slow)
OPTIONS = [PLAIN, {"window": 4}, {"softcap": 2.0, "scaling": 0.3}, {"window": 9, "softcap": 5.0}]


@pytest.mark.parametrize("options", OPTIONS)
def test_flex_equals_the_form_by_rows(options: dict[str, Any]) -> None:
    layout = pack(ROWS).layout
    total = layout.segments[-1].end
    torch.manual_seed(0)
    inputs = [torch.randn(1, heads, total, 8) for heads in (4, 2, 2)]
    found, expected = flex_prefix.flex(*inputs, layout, **options), by_rows(*inputs, layout, **options)
    assert float((found - expected).abs().max()) < 1e-5
    if "window" in options:
        assert float((flex_prefix.flex(*inputs, layout, **options | {"window": None}) - found).abs().max()) > 1e-3


@pytest.mark.parametrize("window", [None, 5])
def test_gradients_under_its_mask_equal_those_by_rows(window: int | None) -> None:
    """The CPU has no backward pass of flex attention: the same mask, written out, goes through SDPA instead."""
    from torch.nn.attention.flex_attention import create_mask

    layout = pack(ROWS).layout
    total = layout.segments[-1].end
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, total, 8, requires_grad=True) for _ in range(3)]
    weight = torch.randn(1, 2, total, 8)
    block_mask = flex_prefix._block_mask(layout, window=window, device=torch.device("cpu"))
    mask = create_mask(block_mask.mask_mod, None, None, total, total, device="cpu")
    masked = torch.nn.functional.scaled_dot_product_attention(*inputs, attn_mask=mask)
    rows = by_rows(*inputs, layout, window=window)
    gradients = [torch.autograd.grad((out * weight).sum(), inputs) for out in (masked, rows)]
    for one, other in zip(*gradients, strict=True):
        assert float((one - other).abs().max()) < 1e-5


FAMILIES = [
    ("qwen3", {}),
    pytest.param("mistral", {"sliding_window": 6}, marks=pytest.mark.slow),
    pytest.param("gemma2", {"sliding_window": 5, "attn_logit_softcapping": 3.0}, marks=pytest.mark.slow),
    pytest.param("gpt2", {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_rewards_equal_the_plain_way(
    tiny_model: Make, family: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = rewards_and_gradients(tiny_model(family, **options), ROWS, packed=False)
    monkeypatch.setattr(shared_attention, "FLEX_DEVICES", frozenset({"cpu"}))
    calls: list[int] = []
    flex = flex_prefix.flex

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return flex(*arguments, **named)

    monkeypatch.setattr(flex_prefix, "flex", counted)
    module = RewardModule(tiny_model(family, **options))
    probed = len(calls)
    with torch.no_grad():
        found = module(module.collate(ROWS))
    assert len(calls) - probed == module.classifier.config.num_hidden_layers
    assert gap(found, plain) < 1e-5


def test_a_trial_inside_a_checkpointed_layer_leaves_nothing_behind(
    tiny_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of a layer tries, its second does not: autograd must not see the difference."""
    model = tiny_model("qwen3")
    plain, plain_gradients = rewards_and_gradients(model, ROWS)
    monkeypatch.setattr(shared_attention, "FLEX_DEVICES", frozenset({"cpu"}))
    monkeypatch.setattr(flex_prefix, "FORWARD_ONLY", frozenset())

    def like_flex(q: Any, k: Any, v: Any, layout: Any, **options: Any) -> Any:
        return by_rows(q, k, v, layout, **options)

    monkeypatch.setattr(flex_prefix, "flex", like_flex)
    model.train()
    model.gradient_checkpointing_enable()
    packed = pack(ROWS)
    model.zero_grad()
    states = model.base_model(
        input_ids=packed.input_ids, position_ids=packed.position_ids, use_cache=False, layout=packed.layout
    ).last_hidden_state
    rewards = model.score(states[0, packed.reward_index])[:, 0]
    (rewards * (torch.linspace(-1, 1, len(rewards)) + 0.3)).sum().backward()
    assert flex_prefix.refused.cache_info().misses == 1
    assert gap(rewards.detach(), plain) < 1e-5
    found = [p.grad for p in model.parameters() if p.grad is not None]
    for one, other in zip(found, plain_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_does_not_work_is_logged_and_goes_by_rows(
    tiny_model: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = rewards_and_gradients(tiny_model("llama"), ROWS)
    monkeypatch.setattr(shared_attention, "FLEX_DEVICES", frozenset({"cpu"}))

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no triton\nlong trace")

    monkeypatch.setattr(flex_prefix, "flex", broken)
    with caplog.at_level(logging.WARNING):
        found, _ = rewards_and_gradients(tiny_model("llama"), ROWS)
    assert torch.equal(found, expected)
    assert caplog.text.count("flex attention is not used on cpu (RuntimeError: no triton); prompts are shared") == 1

    def wrong(query: Any, *_: Any, **__: Any) -> Any:
        return query

    flex_prefix.refused.cache_clear()
    monkeypatch.setattr(flex_prefix, "flex", wrong)
    with caplog.at_level(logging.WARNING):
        found, _ = rewards_and_gradients(tiny_model("llama"), ROWS)
    assert torch.equal(found, expected)
    assert "flex attention is not used on cpu (" in caplog.text.splitlines()[-1]


@pytest.mark.slow
def test_dropout_goes_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_attention, "FLEX_DEVICES", frozenset({"cpu"}))
    layout = Layout(pack(ROWS).layout.segments)
    total = layout.segments[-1].end
    q = torch.randn(1, 2, total, 4)
    assert shared_attention._takes_flex(q, q, dropout=0.0)
    assert not shared_attention._takes_flex(q, q, dropout=0.1)
