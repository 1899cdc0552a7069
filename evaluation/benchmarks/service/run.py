"""`rmkit bench service`: the reward service under load, beside the bare engine and beside a plain reward server.

Everything runs on loopback with one model (random weights, at least 20 ms a completion on two cores). In each round

- the clients (64 in a closed loop, mixed lengths) load the service, which stays up through all rounds;
- the bare engine scores the same items in this process, while a burner takes as much processor time as the clients did;
- the clients load a plain FastAPI server (`service_plain`): one padded forward pass per request;
- with `--chain` the clients load the service once more, with a chain of five transforms in each request, before or
  after the load without one in turn.

Throughput is completions per second, after WARM_S; ratios are per round, and medians are told with their range. Every
answer is held against the bare engine's scores. At the end ten times as many clients, who do not heed Retry-After, load
a service that may queue two seconds of work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.service import setup
from rmkit.cli import arguments, display

WARM_S = 3.0  # of each loaded stretch, before throughput counts
OVERLOAD_WAIT_S = 2.0  # how much work the overloaded service may queue
BURN = "import sys, time\nshare = float(sys.argv[1])\nwhile True:\n end = time.perf_counter() + 0.01 * share\n" + (
    " while time.perf_counter() < end: pass\n time.sleep(0.01 * (1 - share))\n"
)


def main(argv: list[str]) -> int:
    options = _options(argv)
    with tempfile.TemporaryDirectory(prefix="rmkit-bench-service-") as folder:
        result = run(options, Path(folder))
    from evaluation.benchmarks.service import page

    if options.plot:
        page.plot(result, options.plot)
    if options.page:
        page.write(options.page, result, argv=argv, plot=options.plot)
    display.emit(page.summary(result), as_json=options.json, text=page.table(result))
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = arguments.parser(
        "bench service",
        "The reward service under load, beside the bare engine and beside a plain reward server.",
        examples=[
            "bench service",
            "bench service --mode groups --chain",
            "bench service --seconds 20 --rounds 2 --overload-s 5 --layers 2 --hidden 128",
        ],
    )
    parser.add_argument("--seconds", type=float, default=180.0, help="load on the service, all rounds (default 180)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of service, bare engine, plain server")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument(
        "--mode", choices=("samples", "groups"), default="samples", help="completions per request: 1 or 8"
    )
    parser.add_argument("--chain", action="store_true", help="load it with a chain in each request too (--mode groups)")
    parser.add_argument("--prompts", type=int, default=96, help="prompts in the pool, 8 completions each")
    parser.add_argument("--overload-s", type=float, default=20.0, help="ten times the clients, for so long; 0: not")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=320)
    parser.add_argument("--plot", type=arguments.output_path, help="write the chart (SVG or PNG)")
    parser.add_page()
    options = parser.parse_args(argv)
    if options.chain and options.mode != "groups":
        parser.error("--chain shapes whole groups; add --mode groups")
    return options


def run(options: Any, folder: Path) -> dict[str, object]:
    """All rounds and the overload; every number that the page shows."""
    from rmkit.models import load_model

    os.environ["RMKIT_HOME"] = str(folder / "home")
    model = load_model(setup.write_model(folder / "model", layers=options.layers, hidden=options.hidden))
    pool = setup.make_items(options.prompts)
    items = [setup.candidates(item) for item in pool]
    expected = [[score.value for score in row] for row in model.score(items)]
    setup.write_requests(folder / "requests", pool, expected, mode=options.mode)
    stretch, short = options.seconds / options.rounds, max(2 * WARM_S, options.seconds / options.rounds / 2)
    rounds = []
    with (
        display.progress("rounds", options.rounds) as advance,
        server(["-m", "rmkit", "serve", f"bench={folder / 'model'}", "--port", "0", "--quiet", "--json"]) as ours,
        server(["-m", "evaluation.benchmarks.service.plain", str(folder / "model")]) as plain,
        Memory(ours.pid) as memory,
    ):
        for number in range(options.rounds):
            styles = {"service": "rmkit", **({"chain": "chain"} if options.chain else {})}
            one: dict[str, Any] = {}
            for name in sorted(styles, reverse=bool(number % 2)):
                spent = processor_s(ours.pid)
                one[name] = load(ours.url, folder, style=styles[name], seconds=stretch, clients=options.clients)
                one[name]["server_cpu_s"] = processor_s(ours.pid) - spent
            one["bare"] = bare_rate(model, items, seconds=short, burn=one["service"]["client_cpu"])
            one["plain"] = load(plain.url, folder, style="plain", seconds=short, clients=options.clients)
            rounds.append(one)
            advance(1)
    result = {**_facts(options), **summarize(rounds, stretch, short), "memory_mb": memory.megabytes}
    if options.overload_s:
        result["overload"] = overload(folder, options)
    return result


class Server:
    """A server in a process of its own; `url` is what it announced."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"no server: {' '.join(arguments)} ended with {self.process.wait()}")
        self.url: str = json.loads(line)["url"]
        self.pid = self.process.pid


@contextlib.contextmanager
def server(arguments: Sequence[str]) -> Iterator[Server]:
    started = Server(arguments)
    try:
        yield started
    finally:
        started.process.terminate()
        try:
            started.process.wait(20)
        except subprocess.TimeoutExpired:
            started.process.kill()
            started.process.wait()


class Memory:
    """Resident megabytes of a process, every half second."""

    def __init__(self, pid: int) -> None:
        self.megabytes: list[float] = []
        self._path = Path(f"/proc/{pid}/statm")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        page_mb = os.sysconf("SC_PAGE_SIZE") / 2**20
        while not self._ended.wait(0.5):
            with contextlib.suppress(OSError):
                self.megabytes.append(int(self._path.read_text().split()[1]) * page_mb)


def load(url: str, folder: Path, **options: Any) -> dict[str, Any]:
    """What `service_load` saw, run as a process of its own."""
    requests = json.dumps({"url": url, "requests": str(folder / "requests"), **options})
    command = [sys.executable, "-m", "evaluation.benchmarks.service.load", requests]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def processor_s(pid: int) -> float:
    """Processor seconds that a process has used so far, user and system."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def bare_rate(model: Any, items: Sequence[Any], *, seconds: float, burn: float) -> dict[str, float]:
    """Completions of the engine alone per second, beside a process that burns `burn` of one core, and its processor
    milliseconds per completion."""
    burner = subprocess.Popen([sys.executable, "-c", BURN, str(min(burn, 1.0))])
    try:
        count, start, processor = 0, time.perf_counter(), time.process_time()
        while (spent := time.perf_counter() - start) < seconds:
            count += sum(len(row) for row in model.score(items))
        return {"rate": count / spent, "cpu_ms": 1000 * (time.process_time() - processor) / count}
    finally:
        burner.terminate()
        burner.wait()


def summarize(rounds: Sequence[Mapping[str, Any]], stretch: float, short: float) -> dict[str, object]:
    """Rates and ratios per round, latencies over all rounds, and what went wrong."""
    rates = {
        "service": [rate(one["service"], stretch) for one in rounds],
        "bare": [one["bare"]["rate"] for one in rounds],
        "plain": [rate(one["plain"], short) for one in rounds],
    }
    chain = {}
    if "chain" in rounds[0]:
        pairs = [(one["chain"], one["service"]) for one in rounds]
        chain = {
            "rate": _ratios([rate(chained, stretch) for chained, _ in pairs], rates["service"]),
            "cpu": _ratios([_cpu_ms(plain) for _, plain in pairs], [_cpu_ms(chained) for chained, _ in pairs]),
            "counts": _counts([chained for chained, _ in pairs]),
        }
    return {
        "chain": chain,
        "rates": rates,
        "ratio_to_bare": _ratios(rates["service"], rates["bare"]),
        "ratio_to_plain": _ratios(rates["service"], rates["plain"]),
        "latency_s": {name: _latency([one[name] for one in rounds]) for name in ("service", "plain")},
        "counts": {name: _counts([one[name] for one in rounds]) for name in ("service", "plain")},
        "cpu_ms": {
            "service": statistics.median(_cpu_ms(one["service"]) for one in rounds),
            "bare": statistics.median(one["bare"]["cpu_ms"] for one in rounds),
        },
        "client_cpu": statistics.median(one["service"]["client_cpu"] for one in rounds),
        "ms_per_completion": 1000 / statistics.median(rates["bare"]),
    }


def rate(loaded: Mapping[str, Any], seconds: float) -> float:
    """Completions answered per second between WARM_S and the end."""
    done = sum(n for at, _, status, n in loaded["answers"] if WARM_S <= at <= seconds and status == 200)
    return float(done / (seconds - WARM_S))


def _cpu_ms(loaded: Mapping[str, Any]) -> float:
    done = sum(n for _, _, status, n in loaded["answers"] if status == 200)
    return float(1000 * loaded["server_cpu_s"] / max(1, done))


def _ratios(ours: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    ratios = [mine / theirs if theirs else float("inf") for mine, theirs in zip(ours, other, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def _latency(loads: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    seconds = sorted(took for one in loads for _, took, status, _ in one["answers"] if status == 200)
    return {f"p{p}": seconds[min(len(seconds) - 1, len(seconds) * p // 100)] for p in (50, 95, 99)}


def _counts(loads: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    names = ("right", "wrong", "lost")
    statuses: dict[str, int] = {}
    for one in loads:
        for _, _, status, _ in one["answers"]:
            statuses[str(status)] = statuses.get(str(status), 0) + 1
    return {**{name: sum(one["counts"].get(name, 0) for one in loads) for name in names}, **statuses}


def overload(folder: Path, options: Any) -> dict[str, object]:
    """Ten times the clients on a service that may queue OVERLOAD_WAIT_S of work; then how soon one is answered."""
    settings = folder / "overload.toml"
    settings.write_text(f"max_wait_s = {OVERLOAD_WAIT_S}\n")
    arguments = ["-m", "rmkit", "serve", f"bench={folder / 'model'}", "--port", "0", "--quiet", "--json"]
    with server([*arguments, "--config", str(settings)]) as ours, Memory(ours.pid) as memory:
        load(ours.url, folder, style="rmkit", seconds=4.0, clients=options.clients)  # it learns its speed
        seen = load(
            ours.url,
            folder,
            style="rmkit",
            seconds=options.overload_s,
            clients=10 * options.clients,
            recovery=True,
        )
    per_second: dict[str, list[int]] = {}
    for at, _, status, _ in seen["answers"]:
        counts = per_second.setdefault(str(status), [0] * (int(options.overload_s) + 1 + int(WARM_S) * 20))
        counts[min(int(at), len(counts) - 1)] += 1
    slowest = max(took for _, took, _, _ in seen["answers"])
    return {
        "clients": 10 * options.clients,
        "seconds": options.overload_s,
        "counts": _counts([seen]),
        "per_second": per_second,
        "slowest_answer_s": slowest,
        "recovery_s": seen["recovery_s"],
        "memory_mb": memory.megabytes,
    }


def _facts(options: Any) -> dict[str, object]:
    import torch

    return {
        "mode": options.mode,
        "clients": options.clients,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "prompts": options.prompts,
        "layers": options.layers,
        "hidden": options.hidden,
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
    }
