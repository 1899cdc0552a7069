"""Reward models whose behavior a test can see and steer, and a client over an application in this process."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from rmkit.types import Candidates, Comparison, Completion, Message, ModelInfo, Score, compare_by_score


def item(prompt: str, *completions: str) -> Candidates:
    return Candidates(
        (Message("user", prompt),), tuple(Completion((Message("assistant", one),)) for one in completions)
    )


class Steered:
    """The score is the completion's length plus `offset`. It waits at `gate` before each batch and remembers batches.

    A completion "bad" makes it raise; "nan" is unscored.
    """

    def __init__(self, *, offset: float = 0.0, pointwise: bool = True, name: str = "steered") -> None:
        self.info = ModelInfo(name, "explicit", "logit", pointwise, fingerprint=f"{offset:g}")
        self.offset = offset
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.batches: list[list[Candidates]] = []

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        self.started.set()
        assert self.gate.wait(20)
        self.batches.append(list(batch))
        if any(completion.text == "bad" for one in batch for completion in one.completions):
            raise RuntimeError("secret text of the request")
        return [[self._score(completion) for completion in one.completions] for one in batch]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)

    def _score(self, completion: Completion) -> Score:
        return Score.failed("nothing there") if completion.text == "nan" else Score(len(completion.text) + self.offset)


def local_client(app: Any) -> Any:
    """Starlette's client under a name that a service without tokens answers to."""
    from starlette.testclient import TestClient

    return TestClient(app, base_url="http://localhost")


@asynccontextmanager
async def client_of(app: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, whose shutdown runs at the end."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", **options) as client:
            yield client
