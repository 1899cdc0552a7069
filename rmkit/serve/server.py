"""Running the service: in one process or several, ended by SIGTERM in good order, models loaded anew on SIGHUP."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from rmkit.cli import display
from rmkit.devices import VISIBLE
from rmkit.errors import RmkitError, UsageError
from rmkit.ledger import open_ledger
from rmkit.serve.auth.tokens import Keyring
from rmkit.serve.http.app import create_app
from rmkit.serve.http.connections import Connection
from rmkit.serve.parity_check import exactness
from rmkit.serve.places import take
from rmkit.serve.plan import ServePlan

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75  # longer than clients keep their pooled connections, so that they close first
LOAD_S = 300  # a process may take so long to load its models
SWITCH_S = 0.001  # the scoring thread shares the interpreter with the event loop


def build_app(plan: ServePlan) -> FastAPI:
    """The application of one process: models loaded and verified, tokens and ledger opened."""
    sys.setswitchinterval(SWITCH_S)
    models = {name: plan.load(name) for name in plan.models}
    ledger = open_ledger()
    keyring = Keyring(lambda: plan.principals(ledger), share=1 / plan.workers) if plan.auth else None
    app = create_app(
        models,
        plan.settings,
        keyring=keyring,
        ledger=ledger if plan.log else None,
        load_swapped=plan.load_swapped if plan.auth and plan.workers == 1 else None,
        signals=plan.read_signals(),
    )
    app.state.plan = plan
    Connection.settings = plan.settings
    return app


def worker_app() -> FastAPI:
    """The application of one of several processes, which share the processor."""
    plan = ServePlan.from_environment()
    if plan.devices:
        os.environ[VISIBLE] = plan.devices[take(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), len(plan.devices))]
    display.log_to_stderr(logging.WARNING)
    logging.getLogger("rmkit.serve").setLevel(os.environ.get("RMKIT_SERVE_LOG", "INFO"))
    _share_processor(plan.workers)
    threading.Thread(target=_end_with_supervisor, name="supervisor-watch", daemon=True).start()
    return build_app(plan)


def _end_with_supervisor() -> None:
    """A worker whose supervisor was killed would serve on alone and hold the port against the next start."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _share_processor(workers: int) -> None:
    from importlib.util import find_spec

    if find_spec("torch"):
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def check_models(plan: ServePlan, *, as_json: bool) -> None:
    """Load every model once and say what it is; a mismatch ends the command before anything listens."""
    if plan.workers == 1 and plan.precision is None:
        return  # loading follows at once and checks the same
    for name in plan.models:
        model = plan.load(name)
        if plan.precision == "bf16" and model.info.pointwise:
            print(f"{name}: {exactness(model)}", file=sys.stderr)


def run_one(plan: ServePlan, host: str, port: int, *, drain_s: float, as_json: bool) -> int:
    """Serve in this process until SIGTERM or SIGINT."""
    app = build_app(plan)
    _Server(_config(app, host, port), app, drain_s=drain_s, as_json=as_json).run()
    return 0


def run_many(plan: ServePlan, host: str, port: int, *, metrics: str, as_json: bool) -> int:
    """Serve in several processes, which are restarted when they die and one after the other on SIGHUP."""
    from uvicorn.supervisors import Multiprocess

    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
    plan.to_environment()
    config = _config("rmkit.serve.server:worker_app", host, port, workers=plan.workers)
    bound = _bind(config)
    _announce(plan, host, bound.getsockname()[1], as_json=as_json)
    Multiprocess(config, sockets=[bound]).run()
    return 0


def _config(app: Any, host: str, port: int, *, workers: int | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        workers=workers,
        factory=isinstance(app, str),
        http=Connection,
        ws="none",
        proxy_headers=False,  # whoever asks may write X-Forwarded-For: a client is its token or the peer's address
        access_log=False,  # ours knows what to leave out
        log_config=None,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_S,
        server_header=False,
        timeout_worker_healthcheck=LOAD_S,
    )


def _bind(config: uvicorn.Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((config.host, config.port))
    except OSError as error:
        raise UsageError(f"cannot listen on {config.host}:{config.port}: {error.strerror}; try --port 0") from error
    bound.set_inheritable(True)
    return bound


class _Server(uvicorn.Server):
    """uvicorn's server with an announcement, a grace before the drain, and models reloaded on SIGHUP."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, drain_s: float, as_json: bool) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s
        self._as_json = as_json
        self._told_to_end = False

    def run(self, sockets: Any = None) -> None:
        super().run(sockets=[_bind(self.config)])

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            return
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        _announce(self._app.state.plan, self.config.host, sockets[0].getsockname()[1], as_json=self._as_json)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal ends the service in good order, after its grace; a second one at once."""
        self._app.state.ready = False
        if self._told_to_end:
            self.should_exit = self.force_exit = True
        elif self._drain_s:
            asyncio.get_running_loop().call_later(self._drain_s, setattr, self, "should_exit", True)
        else:
            self.should_exit = True
        self._told_to_end = True

    def _reload(self) -> None:
        self._reloading = asyncio.ensure_future(self._reload_all())  # kept: a task without a reference may vanish

    async def _reload_all(self) -> None:
        plan: ServePlan = self._app.state.plan
        for name in plan.models:  # verifiers hold no weights
            batcher = self._app.state.engine.batchers[name]
            try:
                model = await asyncio.to_thread(plan.load, name)
            except RmkitError as error:
                log.error("%s stays as it is: %s", name, error)
                continue
            batcher.swap(model)
            log.info("%s is served anew, fingerprint %s", name, model.info.fingerprint)


def _announce(plan: ServePlan, host: str, port: int, *, as_json: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    url, signals = f"http://{shown}:{port}", list(plan.read_signals())
    summary = {
        "url": url,
        "models": list(plan.models),
        "signals": signals,
        "tokens": plan.auth,
        "workers": plan.workers,
        "devices": list(plan.devices),
    }
    served = [*plan.models, *(f"signal {name}" for name in signals)]
    text = f"serving {', '.join(served)} on {url} (API: {url}/docs)"
    if not plan.auth:
        text += "\nno token is asked for: whoever reaches this address may use it"
    display.emit(summary, as_json=as_json, text=text)
    sys.stdout.flush()
