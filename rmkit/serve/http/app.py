"""The application: health, native routes and the dialects, in front of one engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rmkit import __version__
from rmkit.errors import DataError
from rmkit.ledger import Ledger
from rmkit.serve import compat
from rmkit.serve.auth.tokens import Keyring
from rmkit.serve.http import api_page, native, operations, prompts
from rmkit.serve.http.gateway import GatewayMiddleware
from rmkit.serve.http.idempotency import IdempotencyCache
from rmkit.serve.http.metrics import ServiceMetrics
from rmkit.serve.http.problems import HttpError
from rmkit.serve.queue.engine import Engine
from rmkit.serve.rewards.groups import GroupGather
from rmkit.serve.rewards.reward_log import RewardLog, Served
from rmkit.serve.settings import ServeSettings
from rmkit.serve.signals import with_signals
from rmkit.signal.signal import Signal
from rmkit.types import RewardModel

DESCRIPTION = """Rewards for policy training. `value` is the named model's raw number (its scale and fingerprint stand
under /rmkit/v1/models), `reward` the number to train on. What cannot be scored is null and says why.

Send a token as `Authorization: Bearer TOKEN`, as a Basic password, or before the path as `/t/TOKEN/...`."""


def create_app(
    models: Mapping[str, RewardModel],
    settings: ServeSettings | None = None,
    *,
    keyring: Keyring | None = None,
    ledger: Ledger | None = None,
    load_swapped: Callable[[str], RewardModel] | None = None,
    signals: Mapping[str, Signal] | None = None,
) -> FastAPI:
    """The service over models that are loaded already, by the names to serve them under; the first is the default.

    Without a `keyring` everybody on this machine comes in; without a `ledger` rewards are not logged; without
    `load_swapped` no model is put in another's place over HTTP. `app.state.engine` is the Engine; shutting the app down
    answers what waits. `signals` are those that requests may name, their models and verifiers served beside; raises
    what loading one raises, UsageError for two of one name, ConfigError for components that nothing gives.
    """
    settings = settings or ServeSettings()
    models = with_signals(models, signals or {})
    app = FastAPI(
        title="rmkit reward service",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,  # FastAPI's pages load their scripts from a CDN: `api_page` is ours
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose the token of a path
    )
    counters = ServiceMetrics()
    rewards = RewardLog(ledger, sample=settings.log_sample, text=settings.log_text) if ledger else None

    def answered(served: Served) -> None:
        counters.served(served)
        counters.state(engine, rewards)
        if rewards:
            rewards.add(served)

    app.state.engine = engine = Engine(models, settings, observers=[answered], signals=signals)
    app.state.settings, app.state.counters, app.state.rewards = settings, counters, rewards
    app.state.gather, app.state.replies, app.state.ready = GroupGather(), IdempotencyCache(), True
    app.state.load_swapped, app.state.books = load_swapped, prompts.Books(ledger)
    app.include_router(native.router)
    app.include_router(operations.router)
    app.include_router(prompts.router)
    app.include_router(api_page.router)
    compat.mount(
        app,
        root=settings.compat,
        policy_template=settings.policy_template,
        unscored_reward=settings.unscored_reward,
    )
    for error, answer in (
        (HttpError, _refused),
        (DataError, _unusable),
        (RequestValidationError, _malformed),
        (HTTPException, _not_found),
    ):
        app.add_exception_handler(error, answer)  # type: ignore[arg-type]
    app.add_middleware(
        GatewayMiddleware, settings=settings, keyring=keyring, full=engine.refuse_if_full, visited=counters.visited
    )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.ready = False
    await run_in_threadpool(app.state.engine.close)
    await run_in_threadpool(app.state.books.close)
    if app.state.rewards:
        await run_in_threadpool(app.state.rewards.close)


async def _refused(request: Request, error: HttpError) -> Response:
    return _problem(request, error.status, str(error), error.headers)


async def _unusable(request: Request, error: DataError) -> Response:
    return _problem(request, 400, str(error))


async def _not_found(request: Request, error: HTTPException) -> Response:
    return _problem(request, error.status_code, str(error.detail), error.headers)


async def _malformed(request: Request, error: RequestValidationError) -> Response:
    """Where and what, without the values: a request's text belongs in no log."""
    summary = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]]
    return _problem(request, 422, "; ".join(summary))


def _problem(request: Request, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    content = {"error": message, "request_id": request.scope.get("rmkit.request_id")}
    return JSONResponse(content, status_code=status, headers=dict(headers or {}))
