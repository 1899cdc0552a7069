"""A real explicit model behind the dialects: what plain transformers computes for the client's own text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("torch")

from fastapi.testclient import TestClient

from rmkit.chat.encode import Chat, TruncationPolicy
from rmkit.models.transformer.explicit import ExplicitRewardModel
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.serve.http.app import create_app
from rmkit.types import ModelInfo, sigmoid
from tests.rmkit.serve.serving import local_client

Make = Callable[..., Any]

TALK = [{"role": "user", "content": "Is the sky blue?"}, {"role": "assistant", "content": "Yes, it is."}]
LONG = [TALK[0], {"role": "assistant", "content": "so what? " * 200}]


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer: Make, chatml: str) -> Any:
    return make_tokenizer(chatml)


@pytest.fixture(scope="module")
def model(tiny_model: Make, tokenizer: Any) -> ExplicitRewardModel:
    classifier = tiny_model("llama", vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    info = ModelInfo("tiny", "explicit", "logit", True, "0")
    truncation = TruncationPolicy(max_length=250, response_reserve_tokens=100)
    return ExplicitRewardModel(RewardModule(classifier), Chat(tokenizer, truncation), info)


@pytest.fixture(scope="module")
def client(model: ExplicitRewardModel) -> Iterator[TestClient]:
    with local_client(create_app({"tiny": model})) as found:
        yield found


def logit(model: ExplicitRewardModel, tokenizer: Any, messages: list[dict[str, str]]) -> float:
    """One text through transformers' own template, tokenizer and classifier."""
    import torch

    ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=False)
    classifier = model.module.classifier
    before = classifier.config._attn_implementation
    classifier.set_attn_implementation("eager")
    with torch.no_grad():
        value = float(classifier(input_ids=ids).logits[0, 0])
    classifier.set_attn_implementation(before)
    return value


def test_every_form_of_input_gives_the_logit_of_plain_transformers(
    client: TestClient, model: ExplicitRewardModel, tokenizer: Any
) -> None:
    expected = logit(model, tokenizer, TALK)
    text = tokenizer.apply_chat_template(TALK, tokenize=False)
    llama = (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nIs the sky blue?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes, it is.<|eot_id|>"
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for given in ({"input": text}, {"input": llama}, {"input": ids}, {"messages": TALK}):
        made = client.post("/vllm/classify", json=given | {"use_activation": False}).json()
        assert made["data"][0]["probs"][0] == pytest.approx(expected, abs=1e-4)
        squashed = client.post("/vllm/classify", json=given).json()["data"][0]["probs"][0]
        assert squashed == pytest.approx(sigmoid(expected), abs=1e-4)  # this config does not say regression
    assert client.post("/openrlhf", json={"query": [llama]}).json()["rewards"][0] == pytest.approx(expected, abs=1e-4)
    assert client.post("/sglang/classify", json={"text": text}).json()["embedding"][0] == pytest.approx(
        expected, abs=1e-4
    )


def test_an_over_long_reply_is_refused_and_its_neighbors_are_scored_where_the_dialect_can_say_so(
    client: TestClient, tokenizer: Any
) -> None:
    long = tokenizer.apply_chat_template(LONG, tokenize=False)
    answer = client.post("/vllm/classify", json={"input": long})
    assert answer.status_code == 422
    assert "the response takes" in answer.json()["error"]["message"]
    body = {"items": [{"prompt": [TALK[0]], "completions": [[LONG[1]], [TALK[1]]]}]}
    long_score, score = client.post("/rmkit/v1/score", json=body).json()["scores"][0]
    assert long_score["value"] is None
    assert score["value"] is not None
