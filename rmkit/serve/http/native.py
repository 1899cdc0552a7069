"""The native routes under /rmkit/v1: Candidates in, full Scores or Comparisons out."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel

from rmkit.errors import ConfigError
from rmkit.serve.http import wire
from rmkit.serve.http.idempotency import IdempotencyCache
from rmkit.serve.http.problems import HttpError
from rmkit.serve.queue.batcher import Answer, Call
from rmkit.serve.queue.engine import Engine
from rmkit.serve.rewards.request import RewardItem, RewardRequest
from rmkit.serve.rewards.rewards import rewards
from rmkit.signal.signal import SENT, Signal

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": wire.Problem, "description": text}
    for status, text in (
        (400, "not JSON, or it makes no sense"),
        (401, "no valid token"),
        (403, "the token lacks the scope"),
        (404, "no such model"),
        (409, "the idempotency key was used for another request"),
        (413, "too large"),
        (422, "not of this form"),
        (429, "too much at once; see Retry-After"),
        (503, "going down"),
        (504, "the deadline passed"),
    )
}

router = APIRouter(prefix="/rmkit/v1", tags=["rmkit"], responses=PROBLEMS)


def engine_of(request: Request) -> Engine:
    """The engine behind the app that got the request."""
    engine: Engine = request.app.state.engine
    return engine


def call_of(request: Request, *, priority: int = 0, timeout_s: float | None = None, sources: Any = ()) -> Call:
    """The call that a request makes: its client and id as the door found them out."""
    return Call(
        client=request.scope.get("rmkit.client", "local"),
        route=request.scope["path"],
        request_id=request.scope.get("rmkit.request_id", ""),
        priority=priority,
        deadline=None if timeout_s is None else time.monotonic() + timeout_s,
        sources=tuple(sources),
    )


IdempotencyKey = Annotated[
    str | None,
    Header(max_length=200, description="A repeated request with the same key gets the first one's answer."),
]


@router.post("/score", response_model=wire.ScoreResponse, summary="Score completions")
async def score(request: Request, body: wire.ScoreRequest, idempotency_key: IdempotencyKey = None) -> Response:
    """Scores [items][completions] in the order asked. One bad completion is unscored and says why; the others are
    scored all the same."""

    async def answer() -> Response:
        call = _call(request, body, body.items)
        engine = engine_of(request)
        answered, rows = await rewards(engine, request.app.state.gather, _reward_request(engine, body), call)
        scores = [[wire.score_out(reward) for reward in row] for row in rows]
        return _json(wire.ScoreResponse(scores=scores, **_answered(request, body, call, answered)))

    return await _once(request, idempotency_key, answer)


@router.post("/compare", response_model=wire.CompareResponse, summary="Compare pairs")
async def compare(request: Request, body: wire.CompareRequest, idempotency_key: IdempotencyKey = None) -> Response:
    """For each item the probability that its first completion is better than its second."""

    async def answer() -> Response:
        call = _call(request, body, body.items)
        items = [item.read() for item in body.items]
        answered = await engine_of(request).compare_answer(body.model, items, call=call)
        comparisons = [wire.comparison_out(one) for one in answered.results]
        return _json(wire.CompareResponse(comparisons=comparisons, **_answered(request, body, call, answered)))

    return await _once(request, idempotency_key, answer)


@router.get("/models", response_model=wire.Models, summary="What is served")
async def models(request: Request) -> Response:
    """Every model by its served name, with the meaning of its numbers."""
    engine = engine_of(request)
    served = [wire.model_out(name, batcher.model.info) for name, batcher in engine.batchers.items()]
    return _json(wire.Models(default=engine.default, models=served))


def _reward_request(engine: Engine, body: wire.ScoreRequest) -> RewardRequest:
    items = [
        RewardItem(
            candidates=item.read(),
            row=item.row,
            columns={**item.components, **item.columns},
            group_id=item.group_id,
            group_size=item.group_size,
        )
        for item in body.items
    ]
    return RewardRequest(
        items=items,
        signal=_signal(engine, body),
        model=body.model,
        step=body.step,
        policy_version=body.policy_version,
        spans=body.spans,
    )


def _signal(engine: Engine, body: wire.ScoreRequest) -> Signal | None:
    """The request's own signal, the one that it names, or the service's first. Raises HttpError."""
    own = body.model_dump(include={*SENT, "columns"}, exclude_unset=True)
    if body.signal is not None or not own:
        if own:
            raise HttpError(400, f"a request names a signal or brings {', '.join(own)}, not both")
        return engine.signal(body.signal)
    try:
        return _own_signal(json.dumps(own, sort_keys=True))
    except ConfigError as error:
        raise HttpError(400, str(error)) from error


@lru_cache(maxsize=256)
def _own_signal(fields: str) -> Signal:
    """The signal of a request's own fields: a trainer sends the same with every request. Raises ConfigError."""
    signal = Signal.of(json.loads(fields), where="the request")
    _ = signal.shape  # read now: what is wrong with a chain is the request's fault
    return signal


def _call(request: Request, body: wire.BaseRequest, items: Sequence[wire.ItemIn]) -> Call:
    sources = [item.source for item in items]
    return call_of(request, priority=body.priority, timeout_s=body.timeout_s, sources=sources)


async def _once(request: Request, key: str | None, answer: Callable[[], Awaitable[Response]]) -> Response:
    if key is None:
        return await answer()
    replies: IdempotencyCache = request.app.state.replies
    who = (request.scope.get("rmkit.client", ""), request.scope["path"], key)
    return await replies.once(who, await request.body(), answer)


def _answered(request: Request, body: wire.BaseRequest, call: Call, answer: Answer[Any]) -> dict[str, Any]:
    return {
        "request_id": call.request_id,
        "model": wire.model_out(body.model or engine_of(request).default, answer.info),
        "queued_ms": round(1000 * answer.queued_s, 3),
        "total_ms": round(1000 * answer.total_s, 3),
    }


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
