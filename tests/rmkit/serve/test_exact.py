"""Scores through the service are the model's own: whatever the batch mates, through another server, at every start."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("fastapi")

import httpx  # noqa: E402

from rmkit.chat.encode import Chat, TruncationPolicy  # noqa: E402
from rmkit.errors import ModelError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.transformer import explicit  # noqa: E402
from rmkit.models.transformer.explicit import ExplicitRewardModel  # noqa: E402
from rmkit.serve import vllm_backend  # noqa: E402
from rmkit.serve.http.app import create_app  # noqa: E402
from rmkit.serve.parity_check import exactness  # noqa: E402
from rmkit.serve.settings import ServeSettings  # noqa: E402
from rmkit.serve.vllm_backend import VllmModel  # noqa: E402
from rmkit.types import Candidates, Completion, Message  # noqa: E402
from tests.rmkit.serve.serving import client_of  # noqa: E402

Make = Callable[..., Any]
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "sky", "blue", "yes", "no"]


@pytest.fixture(scope="session")
def folder(tiny_model: Make, make_tokenizer: Make, chatml: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of a tiny Qwen3-type reward model of random weights."""
    tokenizer = make_tokenizer(chatml)
    model = tiny_model("qwen3", vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    made = tmp_path_factory.mktemp("serve") / "model"
    made.mkdir()
    chat = Chat(tokenizer, TruncationPolicy(max_length=200, response_reserve_tokens=100))
    explicit.save(made, model=model, chat=chat, facts={"name": "tiny"})
    return made


def text(draw: random.Random, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))


def bodies(n: int) -> list[dict[str, Any]]:
    """Requests of one item of one to three completions; every prompt comes several times."""
    draw = random.Random(0)
    prompts = [text(draw, 30) for _ in range(n // 4)]
    return [
        {"items": [{"prompt": draw.choice(prompts), "completions": [text(draw, 25) for _ in range(n % 3 + 1)]}]}
        for n in range(n)
    ]


def candidates(body: dict[str, Any]) -> Candidates:
    [item] = body["items"]
    replies = tuple(Completion((Message("assistant", reply),)) for reply in item["completions"])
    return Candidates((Message("user", item["prompt"]),), replies)


def served(model: Any, asked: list[dict[str, Any]], **settings: Any) -> list[list[float]]:
    """Values of all requests, sent at once."""
    app = create_app({"m": model}, ServeSettings(**settings))

    async def within() -> list[list[float]]:
        async with client_of(app) as client:
            answers = await asyncio.gather(*(client.post("/rmkit/v1/score", json=body) for body in asked))
        assert {answer.status_code for answer in answers} == {200}
        return [[score["value"] for score in answer.json()["scores"][0]] for answer in answers]

    return asyncio.run(asyncio.wait_for(within(), 60))


def test_scores_do_not_depend_on_who_else_asks(folder: Path) -> None:
    """Sixty requests at once, in batches large and small, against each alone: 1e-4 in fp32."""
    model = load_model(folder)
    asked = bodies(60)
    alone = [[score.value for score in model.score([candidates(body)])[0]] for body in asked]
    spread = max(value for row in alone for value in row) - min(value for row in alone for value in row)
    assert spread > 0.1  # or the test would show nothing
    for batch_tokens in (64, 500, 100_000):
        for got, wanted in zip(served(model, asked, batch_tokens=batch_tokens), alone, strict=True):
            assert got == pytest.approx(wanted, abs=1e-4)


def test_the_drift_of_bf16_is_measured(folder: Path) -> None:
    exact, coarse = (exactness(load_model(folder, precision=precision)) for precision in ("fp32", "bf16"))
    assert exact.batch_mates < 1e-4
    assert exact.precision is not None
    assert exact.precision < 1e-6
    assert coarse.precision is not None
    assert 1e-4 < coarse.precision < coarse.spread
    assert "the precision by" in str(coarse)


def test_a_shortened_text_is_flagged(folder: Path) -> None:
    app = create_app({"m": load_model(folder)})

    async def within() -> Any:
        async with client_of(app) as client:
            body = {"items": [{"prompt": "the sky " * 200, "completions": ["yes"]}]}
            body["items"].append({"prompt": "the sky", "completions": ["yes"]})
            return (await client.post("/rmkit/v1/score", json=body)).json()["scores"]

    [[long], [short]] = asyncio.run(within())
    assert (long["truncated"], short["truncated"]) == (True, False)


class Behind(httpx.BaseTransport):
    """A vLLM-like server in this process: the raw logits of some weights, given ids."""

    def __init__(self, model: ExplicitRewardModel, *, squash: bool = False) -> None:
        self.model = model
        self.squash = squash
        self.asked: list[dict[str, Any]] = []
        self.status = 200

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        import json

        asked = json.loads(request.read())
        self.asked.append(asked)
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "busy"}})
        logits = [self.model.module.outputs([[tuple(ids)]], max_batch_tokens=8192)[0][0][0] for ids in asked["input"]]
        squash = self.squash or asked.get("use_activation", True)
        rows = [{"index": n, "probs": [1 / (1 + 2.718281828**-x) if squash else x]} for n, x in enumerate(logits)]
        return httpx.Response(200, json={"data": rows[::-1]})  # in any order


@pytest.fixture
def behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Behind:
    model = load_model(folder)
    assert isinstance(model, ExplicitRewardModel)
    server = Behind(model)
    real = httpx.Client
    monkeypatch.setattr(vllm_backend.httpx, "Client", lambda **more: real(transport=server, **more))
    return server


def test_a_model_in_another_server_gives_the_same_scores(folder: Path, behind: Behind) -> None:
    model = VllmModel.connect(str(folder), "http://vllm:8000/")
    asked = [candidates(body) for body in bodies(20)]
    wanted = load_model(folder).score(asked)
    for row, expected in zip(model.score(asked), wanted, strict=True):
        assert [score.value for score in row] == pytest.approx([score.value for score in expected], abs=1e-5)
    assert model.info == load_model(folder).info
    assert behind.asked[-1]["use_activation"] is False
    assert model.compare([candidates(body) for body in bodies(20) if len(body["items"][0]["completions"]) == 2])


def test_other_weights_or_squashed_scores_are_refused(folder: Path, behind: Behind) -> None:
    behind.squash = True
    with pytest.raises(ModelError, match="golden score differs"):
        VllmModel.connect(str(folder), "http://vllm:8000")
    behind.squash = False
    with torch.no_grad():
        behind.model.module.classifier.score.weight.mul_(1.01)
    with pytest.raises(ModelError, match="golden score differs"):
        VllmModel.connect(str(folder), "http://vllm:8000")


def test_a_server_that_fails_leaves_its_items_unscored(folder: Path, behind: Behind) -> None:
    model = VllmModel.connect(str(folder), "http://vllm:8000")
    behind.status = 500
    [[score]] = model.score([candidates({"items": [{"prompt": "p", "completions": ["yes"]}]})])
    assert score.unscored == "the model's server gave no scores (HTTPStatusError)"
