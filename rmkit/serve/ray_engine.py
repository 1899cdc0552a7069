"""`rmkit serve --engine ray`: the same application as replicas under Ray Serve (extra ray-serve).

Each replica loads and verifies its own copy of the models. Ray's proxy spreads requests over them, restarts what dies
and, with Ray's cluster tools, reaches past one machine.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from rmkit.cli import display
from rmkit.errors import MissingExtraError, UsageError
from rmkit.serve.plan import VARIABLE, ServePlan


def run_replicas(plan: ServePlan, host: str, port: int, *, as_json: bool) -> int:
    """Serve `plan.workers` replicas until SIGTERM or SIGINT. Raises MissingExtraError without ray[serve]."""
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")  # its 5 s are too few on a busy machine
    try:
        ray, serve = (import_module(name) for name in ("ray", "ray.serve"))
    except ImportError as error:
        raise MissingExtraError("ray[serve]", "ray-serve") from error
    plan.to_environment()
    ray.init(runtime_env={"env_vars": _environment()}, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": host, "port": port}, logging_config={"enable_access_log": False})
    resources = replica_resources(plan, ray.cluster_resources())
    serve.run(_deployment(serve, plan, resources), name="rmkit", route_prefix="/")
    summary = {
        "url": f"http://{host}:{port}",
        "models": list(plan.models),
        "tokens": plan.auth,
        "replicas": plan.workers,
        "resources": resources,
    }
    display.emit(summary, as_json=as_json, text=f"serving {', '.join(plan.models)} on {summary['url']} with Ray")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    serve.shutdown()
    ray.shutdown()
    return 0


def replica_resources(plan: ServePlan, cluster: Mapping[str, float]) -> dict[str, float]:
    """What Ray sets apart for each replica. Raises UsageError where this machine has not enough GPUs for all of them; a
    cluster (RAY_ADDRESS) may grow."""
    here = cluster.get("GPU", 0.0)
    gpus = (1.0 if here else 0.0) if plan.gpus is None else plan.gpus
    if gpus * plan.workers > here and "RAY_ADDRESS" not in os.environ:
        raise UsageError(
            f"{plan.workers} replicas of {gpus:g} GPUs are more than the {here:g} here; lower --workers, or let "
            "them share with --gpus 0.5"
        )
    return {"num_cpus": 0.5, "num_gpus": gpus}


def _deployment(serve: Any, plan: ServePlan, resources: Mapping[str, float]) -> Any:
    from rmkit.serve.server import worker_app

    @serve.deployment(num_replicas=plan.workers, ray_actor_options=dict(resources), max_ongoing_requests=1024)
    @serve.ingress(worker_app)
    class Rewards:
        """One replica; the application does everything."""

    bound: Any = Rewards
    return bound.bind()


def _environment() -> dict[str, str]:
    names = (VARIABLE, "RMKIT_HOME", "RMKIT_LEDGER", "RMKIT_SERVE_LOG", "OMP_NUM_THREADS")
    return {name: os.environ[name] for name in names if name in os.environ}
