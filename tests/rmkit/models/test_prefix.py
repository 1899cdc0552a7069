"""Packed rows with shared prompts give the rewards and gradients of the plain padded way."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from rmkit.models.transformer import shared_attention  # noqa: E402
from rmkit.models.transformer.packing import Segment, common_prefix, pack, packed_tokens, pad  # noqa: E402
from rmkit.models.transformer.reward_module import RewardModule  # noqa: E402

Make = Callable[..., Any]
Row = list[tuple[int, ...]]


def row(prompt: int, *tails: int, seed: int = 0) -> Row:
    """One prompt of `prompt` random tokens with completions of the given lengths, each starting differently."""
    draw = random.Random(1000 * prompt + seed)
    head = tuple(draw.randrange(1, 90) for _ in range(prompt))
    return [
        (*head, 90 + number % 7, *(draw.randrange(1, 90) for _ in range(tail - 1))) for number, tail in enumerate(tails)
    ]


ROWS = [row(9, 4, 7), row(1, 5, 3, 6), row(20, 2), row(12, 3, 3, 3, 3, 3, 3, 3, 2), [(5, 6, 7), (8, 9)]]


def gap(first: Any, second: Any) -> float:
    return float((first - second).abs().max() / second.abs().max())


def rewards_and_gradients(model: Any, rows: list[Row], **options: Any) -> tuple[Any, list[Any]]:
    module = RewardModule(model, **options)
    model.zero_grad()
    rewards = module(module.collate(rows))
    weights = torch.linspace(-1, 1, len(rewards)) + 0.3
    (rewards * weights).sum().backward()
    return rewards.detach().clone(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3", "gpt2"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", [True, False])
def test_rewards_and_gradients_equal_the_plain_way(tiny_model: Make, family: str, share: bool) -> None:
    plain, plain_gradients = rewards_and_gradients(tiny_model(family), ROWS, packed=False)
    model = tiny_model(family)
    packed, gradients = rewards_and_gradients(model, ROWS, share=share)
    assert model.config.get_text_config()._attn_implementation == shared_attention.NAME
    assert gap(packed, plain) < 1e-5
    assert len(gradients) == len(plain_gradients) > 10
    for found, expected in zip(gradients, plain_gradients, strict=True):
        assert float((found - expected).abs().max()) < 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("mistral", {"sliding_window": 6}),
        ("gemma3", {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
        ("gemma2", {"sliding_window": 5, "attn_logit_softcapping": 3.0}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    ],
)
def test_sliding_windows_and_soft_caps_are_honoured(tiny_model: Make, family: str, options: dict[str, Any]) -> None:
    plain, plain_gradients = rewards_and_gradients(tiny_model(family, **options), ROWS, packed=False)
    packed, gradients = rewards_and_gradients(tiny_model(family, **options), ROWS)
    assert gap(packed, plain) < 1e-5
    for found, expected in zip(gradients, plain_gradients, strict=True):
        assert float((found - expected).abs().max()) < 1e-5 * max(1.0, float(expected.abs().max()))
    no_window = {key: value for key, value in options.items() if "softcapping" in key} | {"sliding_window": 200}
    if family != "qwen2":
        unlimited, _ = rewards_and_gradients(tiny_model(family, **options | no_window), ROWS, packed=False)
        assert gap(unlimited, plain) > 1e-3  # the window matters on these rows


def test_gradient_checkpointing_changes_nothing(tiny_model: Make) -> None:
    plain, plain_gradients = rewards_and_gradients(tiny_model("qwen3"), ROWS)
    model = tiny_model("qwen3").train()
    model.gradient_checkpointing_enable()
    found, gradients = rewards_and_gradients(model, ROWS)
    assert gap(found, plain) < 1e-6
    for one, other in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_reward_is_the_classifiers_own_logit(tiny_model: Make) -> None:
    model = tiny_model("llama")
    batch = pad(ROWS, pad_id=0)
    expected = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0].detach()
    found, _ = rewards_and_gradients(model, ROWS)
    assert gap(found, expected) < 1e-5


def test_one_completion_does_not_see_another(tiny_model: Make) -> None:
    module = RewardModule(tiny_model("qwen3"))
    first = row(9, 4, 7)
    changed = [first[0], (*first[1][:-2], 3, 4)]
    with torch.no_grad():
        before, after = (module(module.collate([rows])) for rows in (first, changed))
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("overhead", [0.0, 1e9])
def test_both_forms_of_the_tail_attention_agree(
    tiny_model: Make, overhead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, plain_gradients = rewards_and_gradients(tiny_model("gemma3"), ROWS, packed=False)
    monkeypatch.setattr(shared_attention, "_DENSE_OVERHEAD", overhead)
    found, gradients = rewards_and_gradients(tiny_model("gemma3"), ROWS)
    assert gap(found, plain) < 1e-5
    for one, other in zip(gradients, plain_gradients, strict=True):
        assert float((one - other).abs().max()) < 1e-5 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize(("family", "reason"), [("bert", "depend on what follows"), ("bloom", "Bloom")])
def test_falls_back_with_a_logged_reason(
    tiny_model: Make, family: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model(family)
    with caplog.at_level(logging.WARNING):
        module = RewardModule(model)
    assert module.padded_because is not None
    assert reason in module.padded_because
    assert "prompts are not shared" in caplog.text
    with torch.no_grad():
        found = module(module.collate(ROWS))
        alone = torch.cat([module(module.collate([[line]])) for rows in ROWS for line in rows])
        batch = pad(ROWS, pad_id=0)
        expected = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    assert gap(found, alone) < 1e-5
    assert gap(found, expected) < 1e-5


def test_a_model_that_hides_its_window_is_not_packed(tiny_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("mistral", sliding_window=6)
    for layer in model.model.layers:
        monkeypatch.setattr(layer.self_attn, "config", layer.self_attn.config)
    real = shared_attention.shared_prefix_attention

    def hiding(*arguments: Any, sliding_window: int | None = None, **named: Any) -> Any:
        return real(*arguments, **named)

    monkeypatch.setattr(shared_attention, "shared_prefix_attention", hiding)
    reason = shared_attention.unsupported(model)
    assert reason is not None
    assert "sliding window" in reason or "states differ" in reason
    assert model.config._attn_implementation != shared_attention.NAME


def test_the_head_is_fp32_under_autocast_and_in_a_bf16_trunk(tiny_model: Make) -> None:
    for family in ("llama", "bert"):
        module = RewardModule(tiny_model(family))
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            rewards = module(module.collate(ROWS))
        assert rewards.dtype == torch.float32
        assert (rewards.bfloat16().float() != rewards).any()  # finer than bf16 can tell
    module = RewardModule(tiny_model("llama").to(torch.bfloat16))
    assert module.classifier.score.weight.dtype == torch.float32
    assert module.classifier.model.embed_tokens.weight.dtype == torch.bfloat16
    with torch.no_grad():
        assert module(module.collate(ROWS)).dtype == torch.float32


def test_packing_by_hand() -> None:
    packed = pack([[(1, 2, 3), (1, 2, 4, 5)], [(7, 8)], [(5, 1), (6, 1)]])
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 5, 7, 8, 5, 1, 6, 1]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 2, 3, 0, 1, 0, 1, 0, 1]]
    assert packed.reward_index.tolist() == [2, 4, 6, 8, 10]
    assert packed.layout.segments == (Segment(0, 2, (1, 2)), Segment(5, 2, ()), Segment(7, 2, ()), Segment(9, 2, ()))


def test_equal_and_nested_completions_keep_a_token_of_their_own() -> None:
    assert common_prefix([(1, 2, 3), (1, 2, 3)]) == 2
    assert common_prefix([(1, 2, 3), (1, 2)]) == 1
    assert common_prefix([(1,), (1,)]) == 0
    packed = pack([[(1, 2, 3), (1, 2, 3)]])
    assert packed.input_ids.tolist() == [[1, 2, 3, 3]]
    assert packed.reward_index.tolist() == [2, 3]


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_packing_loses_nothing(rows: list[Row]) -> None:
    packed = pack(rows)
    ids, positions = packed.input_ids[0].tolist(), packed.position_ids[0].tolist()
    rebuilt: list[tuple[int, ...]] = []
    for segment in packed.layout.segments:
        prefix = ids[segment.start : segment.start + segment.prefix]
        at = segment.start + segment.prefix
        for tail in segment.tails or (0,):
            rebuilt.append(tuple(prefix + ids[at : at + tail]))
            assert positions[at : at + tail] == list(range(segment.prefix, segment.prefix + tail))
            at += tail
    assert rebuilt == [line for row in rows for line in row]
    assert [ids[index] for index in packed.reward_index] == [line[-1] for line in rebuilt]
    assert len(ids) == sum(packed_tokens(row) for row in rows)
