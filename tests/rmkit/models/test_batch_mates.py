"""A text scores as if alone, for every kind of rotary embedding and head; a wrapped model still runs plainly."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rmkit.errors import ModelError  # noqa: E402
from rmkit.models.transformer.packing import Parts, pad  # noqa: E402
from rmkit.models.transformer.policy import PolicyModule  # noqa: E402
from rmkit.models.transformer.reward_module import RewardModule  # noqa: E402
from rmkit.models.transformer.rope import frequency_borders  # noqa: E402

Make = Callable[..., Any]
Row = list[tuple[int, ...]]

BORDER = 24
LONG = {"original_max_position_embeddings": BORDER, "short_factor": [1.0] * 4, "long_factor": [1.5, 3.0, 6.0, 9.0]}
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": BORDER},
    "longrope": LONG,
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": BORDER,
    },
    "proportional": {"partial_rotary_factor": 0.5},
}


def rope(kind: str) -> dict[str, Any]:
    longest = BORDER if kind == "dynamic" else 4 * BORDER
    return {
        "max_position_embeddings": longest,
        "rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **KINDS[kind]},
    }


def layered(kind: str) -> dict[str, Any]:
    """Rotary parameters of their own for each type of layer (Gemma 3)."""
    changing, fixed = rope(kind), {"rope_type": "default", "rope_theta": 50.0}
    by_layer = {"full_attention": changing.pop("rope_parameters"), "sliding_attention": fixed}
    layers = ["sliding_attention", "full_attention", "full_attention"]
    return changing | {"rope_parameters": by_layer, "layer_types": layers, "sliding_window": 7}


CASES = [("llama", kind, rope(kind)) for kind in KINDS]
CASES += [("gemma3", f"{kind} in layers", layered(kind)) for kind in ("dynamic", "longrope")]


def row(prompt: int, *tails: int) -> Row:
    draw = random.Random(prompt)
    head = tuple(draw.randrange(4, 90) for _ in range(prompt))
    return [(*head, 90 + n % 7, *(draw.randrange(4, 90) for _ in range(tail - 1))) for n, tail in enumerate(tails)]


# texts of 5 to 60 tokens, completions of one prompt on both sides of the border and on it, two of one length beyond it
ROWS = [row(3, 2, 9), row(18, 6, 3, 7, 22, 22, 1), row(59, 1), row(23, 1, 2), row(8, 4)]
TEXTS = [text for one in ROWS for text in one]


def alone(model: Any) -> Any:
    """[R] transformers' own logits, one text at a time, each in a copy that has read nothing before."""
    with torch.no_grad():
        return torch.stack([copy.deepcopy(model)(input_ids=torch.tensor([text])).logits[0, 0] for text in TEXTS])


def scores(module: RewardModule, rows: list[Row], *, max_batch_tokens: int = 10_000) -> Any:
    found = module.outputs(rows, max_batch_tokens=max_batch_tokens)
    return torch.tensor([value for one in found for [value] in one])


@pytest.mark.parametrize(("family", "options"), [c[::2] for c in CASES], ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_a_text_scores_as_if_it_were_alone(tiny_model: Make, family: str, options: dict[str, Any]) -> None:
    expected = alone(tiny_model(family, **options))
    single: list[Row] = [[text] for text in TEXTS]
    for arm in ({}, {"share": False}, {"packed": False}):
        module = RewardModule(tiny_model(family, **options), **arm).eval()
        assert (module.padded_because is None) == ("packed" not in arm)
        for rows, budget in ((ROWS, 10_000), (ROWS, 70), (single, 10_000), (single, 1)):
            assert scores(module, rows, max_batch_tokens=budget) == pytest.approx(expected, abs=1e-4)
        backwards = scores(module, single[::-1]).flip(0)
        assert backwards == pytest.approx(expected, abs=1e-4)
        last = torch.tensor([value for one in module.outputs([ROWS[1]], max_batch_tokens=9999) for [value] in one])
        assert last == pytest.approx(expected[2:8], abs=1e-4)  # after longer and shorter texts than its own


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_the_border_matters_on_these_texts(tiny_model: Make, kind: str) -> None:
    """Padded together the plain way, short texts take the long ones' frequencies, or the test above shows nothing."""
    model = tiny_model("llama", **rope(kind))
    batch = pad(ROWS, pad_id=0)
    with torch.no_grad():
        together = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    assert float((together - alone(tiny_model("llama", **rope(kind)))).abs().max()) > 0.01


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_gradients_are_those_of_texts_alone(tiny_model: Make, kind: str) -> None:
    weights = torch.linspace(-1, 1, len(TEXTS)) + 0.3
    plain = tiny_model("llama", **rope(kind))
    for text, weight in zip(TEXTS, weights, strict=True):
        fresh = copy.deepcopy(plain)
        (fresh(input_ids=torch.tensor([text])).logits[0, 0] * weight).backward()
        for parameter, other in zip(plain.parameters(), fresh.parameters(), strict=True):
            if other.grad is not None:
                parameter.grad = other.grad if parameter.grad is None else parameter.grad + other.grad
    model = tiny_model("llama", **rope(kind))
    module = RewardModule(model)
    (module(module.collate(ROWS)) * weights).sum().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_borders_by_hand(tiny_model: Make) -> None:
    for kind in KINDS:
        borders = frequency_borders(tiny_model("llama", **rope(kind)).config)
        assert (borders is None) == (kind not in ("dynamic", "longrope"))
    [switch, grow] = [frequency_borders(tiny_model("llama", **rope(k)).config) for k in ("longrope", "dynamic")]
    assert switch is not None
    assert grow is not None
    assert [switch.key(n) == switch.key(BORDER) for n in (5, 24, 25, 60)] == [True, True, False, False]
    assert switch.key(25) == switch.key(60)
    assert [grow.key(n) == grow.key(BORDER) for n in (5, 24, 25, 60)] == [True, True, False, False]
    assert grow.key(25) != grow.key(60)


def test_parts_by_hand(tiny_model: Make) -> None:
    module = RewardModule(tiny_model("llama", **rope("longrope")))
    batch = module.collate([row(18, 6, 3, 7), row(3, 2), row(30, 1)], reads=[[(1, 23), (20,), (2,)], [(4,)], [(0, 30)]])
    assert isinstance(batch, Parts)
    short, long = batch.parts
    assert [part.input_ids.shape[1] for part in batch.parts] == [18 + 6 + 3 + 5, 25 + 31]
    assert short.reward_index.tolist() == [1, 23, 26, 31]
    assert long.reward_index.tolist() == [2, 25, 55]
    assert batch.order.tolist() == [0, 1, 2, 4, 3, 5, 6]
    assert not isinstance(module.collate([row(3, 2), row(4, 5)]), Parts)


def test_phi_3_changes_its_factors(tiny_model: Make) -> None:
    from transformers import Phi3Config, Phi3ForSequenceClassification

    config = Phi3Config(
        vocab_size=97, pad_token_id=0, num_labels=1, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=96, bos_token_id=1, eos_token_id=2,
        original_max_position_embeddings=BORDER, rope_parameters=rope("longrope")["rope_parameters"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Phi3ForSequenceClassification(config).eval()
    expected = alone(model)
    assert scores(RewardModule(model), ROWS) == pytest.approx(expected, abs=1e-4)


def xlnet() -> Any:
    from transformers import XLNetConfig, XLNetForSequenceClassification

    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=97, d_model=32, n_layer=2, n_head=4, d_inner=48, num_labels=1, pad_token_id=0)
    return XLNetForSequenceClassification(config).eval()


def test_a_head_that_reads_the_padded_end_gets_no_padding(caplog: pytest.LogCaptureFixture) -> None:
    model = xlnet()
    expected = alone(model)
    batch = pad(ROWS, pad_id=0)
    with torch.no_grad():
        together = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    assert float((together - expected).abs().max()) > 0.01
    module = RewardModule(model)
    assert "reads padding" in caplog.text
    assert scores(module, ROWS) == pytest.approx(expected, abs=1e-4)
    assert not RewardModule(_bert()).equal_lengths


def _bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
                   num_labels=1, problem_type="regression")
    ).eval()  # fmt: skip


def test_a_model_that_mixes_its_batch_is_refused() -> None:
    model = _bert()
    forward = model.bert.forward

    def mixing(*arguments: Any, **named: Any) -> Any:
        out = forward(*arguments, **named)
        out["pooler_output"] = out["pooler_output"] - out["pooler_output"].mean(0)  # as a batch norm in training does
        return out

    model.bert.forward = mixing
    with pytest.raises(ModelError, match="with what else is in its batch"):
        RewardModule(model)


PLAIN = [
    ("llama", {}),
    ("gemma2", {"sliding_window": 5, "attn_logit_softcapping": 3.0}),
    ("mistral", {"sliding_window": 6}),
    ("llama", rope("dynamic")),
    ("bert", {}),
]


@pytest.mark.parametrize(("family", "options"), PLAIN)
def test_a_wrapped_model_runs_plainly_as_before(tiny_model: Make, family: str, options: dict[str, Any]) -> None:
    model = tiny_model(family, **options)
    short = [text for text in TEXTS if len(text) < BORDER]
    batch = pad([[text] for text in short], pad_id=0)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with torch.no_grad():
        before = model(**inputs).logits
        module = RewardModule(model)
        scores(module, ROWS)
        assert float((model(**inputs).logits - before).abs().max()) < 1e-5
        assert float((model(input_ids=batch.input_ids[:1, :5]).logits - before[:1]).abs().max()) < 1e-5


@pytest.mark.parametrize("options", [{}, {"sliding_window": 5, "attn_logit_softcapping": 3.0}])
def test_a_wrapped_policy_generates_as_before(tiny_model: Make, options: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    config = tiny_model("gemma2" if options else "llama", **options).config
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    prompts = pad([[TEXTS[0]], [TEXTS[2]]], pad_id=0)
    ids, mask = prompts.input_ids.flip(1), prompts.attention_mask.flip(1)  # padded on the left
    before = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0)
    module = PolicyModule(model)
    module.token_log_probs(ROWS, [[1] * len(one) for one in ROWS], max_batch_tokens=10_000)
    after = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert after.tolist() == before.tolist()


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_log_probabilities_are_those_of_texts_alone(tiny_model: Make, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(tiny_model("llama", **rope(kind)).config).eval()
    found = PolicyModule(copy.deepcopy(model)).token_log_probs(
        ROWS, [[2] * len(one) for one in ROWS], max_batch_tokens=9999
    )
    for text, values in zip(TEXTS, (values for one in found for values in one), strict=True):
        with torch.no_grad():
            logits = copy.deepcopy(model)(input_ids=torch.tensor([text])).logits[0]
        expected = [float(logits[at - 1].log_softmax(-1)[text[at]]) for at in range(2, len(text))]
        assert values == pytest.approx(expected, abs=1e-4)
