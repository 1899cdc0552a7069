"""Scores through the service are the model's own: whatever the batch mates, at every start."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("fastapi")

from rmkit.chat.encode import Chat, TruncationPolicy  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.transformer import explicit  # noqa: E402
from rmkit.serve.http.app import create_app  # noqa: E402
from rmkit.serve.parity_check import exactness  # noqa: E402
from rmkit.serve.settings import ServeSettings  # noqa: E402
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
