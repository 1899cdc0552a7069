"""`rmkit serve MODEL [NAME=MODEL ...]`: load, verify, open the door."""

from __future__ import annotations

import logging
import os
import tempfile
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rmkit import plugins
from rmkit.cli import arguments
from rmkit.devices import VISIBLE, assigned
from rmkit.errors import UsageError, require, unknown
from rmkit.paths import home
from rmkit.serve.settings import ServeSettings

if TYPE_CHECKING:
    from rmkit.serve.plan import ServePlan

_SETTINGS = ("compat", "policy_template", "unscored_reward", "log_sample", "log_text")  # as in ServeSettings
HOST, PORT = "127.0.0.1", 8383


def main(argv: list[str]) -> int:
    """Serves until it is told to stop (SIGTERM or Ctrl-C: what waits is answered first). 0 after a clean end."""
    options = _options(argv)
    require("fastapi", "uvicorn", "prometheus_client", extra="serve")
    from rmkit.serve import server

    plan = _plan(options)
    level = "WARNING" if options.quiet else "INFO"
    logging.getLogger("rmkit.serve").setLevel(level)
    os.environ["RMKIT_SERVE_LOG"] = level  # for the processes that serve where there are several
    if options.engine == "ray":
        from rmkit.serve.ray_engine import run_replicas

        return run_replicas(plan, options.host, options.port, as_json=options.json)
    server.check_models(plan, as_json=options.json)
    if plan.workers == 1:
        if plan.devices:
            os.environ[VISIBLE] = plan.devices[0]
        return server.run_one(plan, options.host, options.port, drain_s=options.drain_s, as_json=options.json)
    with tempfile.TemporaryDirectory(prefix="rmkit-metrics-") as folder:
        return server.run_many(plan, options.host, options.port, metrics=folder, as_json=options.json)


def _options(argv: list[str]) -> Namespace:
    parser = arguments.parser(
        "serve",
        "Serve reward models over HTTP: the native API, and the dialects of trainers and inference servers.",
        examples=[
            "serve models/helpful",
            "serve helpful=models/helpful@prod safe=models/safe --workers 2",
            "serve models/helpful --devices auto                       # a worker on each GPU",
            "serve models/helpful --compat openrlhf --port 5000",
            "serve helpful=models/helpful --signal math.toml",
            "serve models/helpful --host 0.0.0.0      # asks for tokens: rmkit token create trainer",
        ],
    )
    parser.add_models(nargs="*", help=f"{arguments.MODEL}; or NAME=MODEL; none where a signal brings what is served")
    parser.add_device()
    parser.add_argument(
        "--signal",
        action="append",
        default=[],
        metavar="FILE.toml",
        help="a signal: verifiers, mix and chain (see docs/verifiers.md); the first one is for trainers that name none "
        "(repeatable)",
    )
    parser.add_argument("--host", default=HOST, help=f"address to listen on (default {HOST}: this machine only)")
    parser.add_argument("--port", type=int, default=PORT, help="port, 0 for a free one")
    parser.add_argument(
        "--workers", type=arguments.positive, help="processes, each with the models (default: one a device, or 1)"
    )
    parser.add_argument(
        "--devices", metavar="auto|0,1", help="GPUs that workers are spread over (auto: all); cpu: none of them"
    )
    parser.add_argument(
        "--gpus",
        type=float,
        metavar="X",
        help="under Ray: GPUs of each replica, or a share of one (default 1 if any)",
    )
    parser.add_argument("--compat", metavar="NAME", help="dialect served at the root beside its own prefix")
    parser.add_argument("--policy-template", metavar="NAME", help="how trainers' text is read back (default auto)")
    parser.add_argument(
        "--unscored-reward", type=float, metavar="X", help="sent where a dialect has no word for unscored"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of the network's products (default fp32)")
    parser.add_config(ServeSettings, hidden=_SETTINGS)
    parser.add_argument("--log-sample", type=float, metavar="SHARE", help="share of requests logged (default 1)")
    parser.add_argument(
        "--log-text", action="store_true", default=None, help="log the texts too, which drift can then queue"
    )
    parser.add_argument("--no-log", action="store_true", help="keep no reward in the ledger")
    parser.add_argument(
        "--token-file", type=arguments.local_path, help="file with one more token that may do everything"
    )
    parser.add_argument(
        "--no-auth", action="store_true", help="ask for no token although there are some (loopback only)"
    )
    parser.add_argument(
        "--swap-root",
        action="append",
        default=[],
        type=arguments.local_path,
        metavar="FOLDER",
        help="models under it may be swapped in over HTTP, as those of $RMKIT_HOME/models may (repeatable)",
    )
    parser.add_argument("--drain-s", type=float, default=0.0, help="serve on for so long after SIGTERM, not ready")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="ray: replicas under Ray Serve")
    parser.add_argument(
        "--backend", nargs=2, metavar=("KIND", "URL"), help="vllm-http or sglang-http, and its URL: weights there"
    )
    parser.add_argument("--quiet", action="store_true", help="no access log")
    options: Namespace = parser.parse_args(argv)
    return options


def _plan(options: Namespace) -> ServePlan:
    from rmkit.ledger import open_ledger
    from rmkit.serve.auth.tokens import operator_token
    from rmkit.serve.plan import ServePlan, named_models, needs_tokens

    named = {name: getattr(options, name) for name in _SETTINGS}
    settings = arguments.settings(ServeSettings, options, where="serve", named=named)
    if options.backend and len(options.models) != 1:
        raise UsageError("--backend takes one model, whose template, limits and golden scores apply")
    if options.backend and options.backend[0] not in (kinds := plugins.names("backends")):
        raise UsageError(unknown("kind of server", options.backend[0], kinds))
    if options.devices and options.engine == "ray":
        raise UsageError("Ray gives each replica its GPUs: --gpus X says how many, --workers how many replicas")
    if options.gpus is not None and options.engine != "ray":
        raise UsageError("--gpus belongs to --engine ray; name the GPUs of workers with --devices")
    environments = assigned(options.devices) if options.devices else []
    tokens = [operator_token(_token(options.token_file))] if options.token_file else []
    plan = ServePlan(
        models=named_models(options.models),
        settings=settings,
        workers=options.workers or max(1, len(environments)),
        devices=tuple(one[VISIBLE] for one in environments),
        gpus=options.gpus,
        operator_tokens=tuple(asdict(one) for one in tokens),
        log=not options.no_log,
        precision=options.precision,
        backend=tuple(options.backend or ()),
        swap_roots=tuple(str(root.resolve()) for root in (home() / "models", *options.swap_root)),
        signals=tuple(str(Path(one).resolve()) for one in options.signal),
    )
    if not plan.models and not plan.read_signals():
        raise UsageError("name a model to serve, or --signal FILE.toml")
    with open_ledger(read_only=True) as ledger:
        known = plan.principals(ledger)
    return replace(plan, auth=needs_tokens(options.host, known, no_auth=options.no_auth))


def _token(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise UsageError(f"cannot read the token file {path}: {error.strerror}") from error
    if len(token) < 16:
        raise UsageError(f"the token in {path} has {len(token)} characters; at least 16 are needed")
    return token
