"""The prompt book over HTTP: what happened to prompts, and which to train on next."""

from __future__ import annotations

import threading
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from rmkit.curriculum.book import PromptBook
from rmkit.curriculum.observation import observation_of
from rmkit.curriculum.utilities import Utility
from rmkit.errors import ConflictError, UsageError
from rmkit.ledger import Ledger
from rmkit.serve.http.native import PROBLEMS
from rmkit.serve.http.problems import HttpError

router = APIRouter(prefix="/rmkit/v1/prompts", tags=["prompts"], responses=PROBLEMS)

BOOKS = 64  # a book lives in memory

BookName = Annotated[str, Field(pattern=r"^[\w.-]{1,100}$", description="one book per training run")]
Prompt = Annotated[str, Field(min_length=1, max_length=400)]


class ObservationIn(BaseModel):
    """Raw outcomes of one prompt's rollouts. Without rewards the prompt is only made known."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[Prompt, Field(description="its id, the same in every epoch")]
    rewards: Annotated[list[float | None], Field(max_length=65536, description="in [0, 1]; null where unscored")] = []
    category: Annotated[str, Field(max_length=200)] | None = None
    parent: Annotated[Prompt, Field(description="the prompt that this one rewrites")] | None = None
    advantage: Annotated[float, Field(description="mean |A|; GRPO's where not given")] | None = None
    drift: Annotated[float, Field(ge=0, description="token mean |log p_now - log p_then|, last response")] | None = None
    tier: Annotated[int, Field(ge=0, description="of the hint that the rollouts had")] = 0
    stage: Annotated[str, Field(pattern="^(direct|decompose|reflect)$")] = "direct"
    score: Annotated[float, Field(description="for the run's quantile trackers")] | None = None
    entropy: Annotated[float, Field(description="for the run's entropy history")] | None = None
    rollouts: Annotated[list[str], Field(max_length=65536, description="names of the rollouts, for replay")] = []


class Observe(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"observations": [{"prompt": "p-17", "rewards": [1, 0, None, 1], "category": "algebra"}]}]
        },
    )

    observations: Annotated[list[ObservationIn], Field(max_length=10_000)]
    book: BookName = "default"
    request_id: Annotated[
        str, Field(max_length=200, description="told again under the same id, observations count once")
    ] = ""


class Observed(BaseModel):
    stored: bool = Field(description="false where this request id was stored before")


class Propose(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"n": 64, "utility": "half", "skip": ["all_pass"]}]}
    )

    n: Annotated[int, Field(ge=1, le=100_000)]
    book: BookName = "default"
    utility: Utility = "half"
    among: Annotated[list[Prompt], Field(max_length=1_000_000)] | None = Field(
        default=None, description="the prompts to choose from; all that the book knows where not given"
    )
    bandit: Annotated[str, Field(pattern="^(|sec|dump)$", description="draws categories first")] = ""
    skip: list[str] = Field(default=[], description="flags of prompts to leave out: all_fail, all_pass, plateau")
    seed: Annotated[int, Field(ge=0)] | None = None


class ProposalOut(BaseModel):
    prompt: str
    pass_rate: float
    n: int
    category: str | None
    bucket: str | None
    flags: list[str]
    tier: int = Field(description="of the hint to give, 0 for none")
    hint: str | None


class Proposed(BaseModel):
    proposals: list[ProposalOut]


class Books:
    """The books that a service was asked for, each opened once."""

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger, self._lock = ledger, threading.Lock()
        self._books: dict[str, PromptBook] = {}

    def book(self, name: str) -> PromptBook:
        """Raises HttpError where the service has no ledger."""
        if self._ledger is None:
            raise HttpError(400, "this service keeps no ledger, so it has no prompt book; serve it without --no-log")
        with self._lock:
            if name not in self._books:
                if len(self._books) >= BOOKS:
                    raise HttpError(429, f"this service has {BOOKS} prompt books open, as many as it may")
                self._books[name] = PromptBook(self._ledger, name)
            return self._books[name]

    def close(self) -> None:
        """Keep what was folded."""
        for book in self._books.values():
            book.close()


@router.post("/observe", response_model=Observed, summary="Tell outcomes of prompts")
async def observe(request: Request, body: Observe) -> Any:
    """Stored when answered, all or none of them. Unscored rewards count as neither success nor failure."""
    books: Books = request.app.state.books
    observations = [observation_of(one.model_dump(exclude_defaults=True)) for one in body.observations]
    client = request.scope.get("rmkit.client", "local")

    def store() -> bool:
        return books.book(body.book).observe(observations, request_id=body.request_id, actor=f"trainer {client}")

    try:
        return Observed(stored=await run_in_threadpool(store))
    except ConflictError as error:
        raise HttpError(409, str(error)) from error


@router.post("/propose", response_model=Proposed, summary="Which prompts to train on next")
async def propose(request: Request, body: Propose) -> Any:
    """Best first, with pass rate, flags and hint of each; fewer than asked where there are no more."""
    books: Books = request.app.state.books

    def choose() -> list[ProposalOut]:
        proposals = books.book(body.book).propose(
            body.n, utility=body.utility, among=body.among, bandit=body.bandit, seed=body.seed, skip=body.skip
        )
        return [ProposalOut.model_validate(one, from_attributes=True) for one in proposals]

    try:
        return Proposed(proposals=await run_in_threadpool(choose))
    except UsageError as error:
        raise HttpError(400, str(error)) from error
