"""What operators ask a service: is it alive, does it take requests, its counters, another model under a name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from rmkit.errors import RmkitError
from rmkit.serve.http import wire
from rmkit.serve.http.metrics import ServiceMetrics
from rmkit.serve.http.native import PROBLEMS, engine_of
from rmkit.serve.http.problems import HttpError
from rmkit.types import RewardModel

router = APIRouter()


class Health(BaseModel):
    status: str


class Ready(BaseModel):
    ready: bool


@router.get("/healthz", response_model=Health, tags=["health"], summary="The process answers")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_model=Ready,
    tags=["health"],
    summary="It takes requests",
    responses={503: {"model": Ready, "description": "it is going down"}},
)
async def readyz(request: Request) -> Response:
    ready = request.app.state.ready
    return JSONResponse({"ready": ready}, status_code=200 if ready else 503)


@router.get(
    "/metrics",
    tags=["operation"],
    summary="Counters for Prometheus",
    response_class=PlainTextResponse,
    responses=PROBLEMS,
)
async def metrics(request: Request) -> Response:
    counters: ServiceMetrics = request.app.state.counters
    counters.state(engine_of(request), request.app.state.rewards)
    return Response(counters.text(), media_type="text/plain; version=0.0.4")


class Swap(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "helpful", "model": "helpful@prod"}]}
    )

    name: Annotated[str, Field(description="the served name whose model is replaced")]
    model: Annotated[str, Field(description="stored name, alias or folder, under the service's swap roots")]


@router.post(
    "/rmkit/v1/admin/swap",
    response_model=wire.ModelOut,
    tags=["operation"],
    summary="Serve another model under a name",
    responses=PROBLEMS,
)
async def swap(request: Request, requests: Swap) -> Any:
    """Requests that are here already are answered by the old model, later ones by the new. Not a request is refused.
    Only stored models under the folders named at start, their golden scores replayed; only where tokens are asked for,
    and only with one process: several are reloaded by SIGHUP."""
    load: Callable[[str], RewardModel] | None = request.app.state.load_swapped
    if load is None:
        raise HttpError(403, "models are swapped over HTTP only with tokens and one process; send SIGHUP instead")
    batcher = engine_of(request).batcher(requests.name)
    try:
        model = await asyncio.to_thread(load, requests.model)
    except RmkitError as error:
        raise HttpError(400, f"the old model stays: {error}") from error
    batcher.swap(model)
    return wire.model_out(requests.name, model.info)
