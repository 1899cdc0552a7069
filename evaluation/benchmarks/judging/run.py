"""`rmkit bench judge`: the judge engine against an endpoint that answers after a fixed latency, in its own process.

speed    pairs judged through `Judge.judged` with `concurrency` requests in flight, every answer on disk before it is
         used. The ceiling is concurrency / latency; the ratio to it is the share of the slots kept busy.
memory   resident memory of the judging process after a tenth of the calls and at the end.
kill     the judging process is killed (SIGKILL) at a random moment, again and again, until a run ends by itself.
         An answer counts as paid once its record is in the ledger: none of these may be asked for a second time.
         Calls in flight at a kill, or whose answer was on its way to the disk, are lost to both sides.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.benchmarks.judging.page import write_section
from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from evaluation.benchmarks.kill_resume import kill_and_resume
from rmkit.cli import arguments, display
from rmkit.generate import Engine, Limits
from rmkit.generate.call_cache import KIND
from rmkit.generate.endpoint import EndpointGenerator
from rmkit.ids import content_hash
from rmkit.judge import Judge, JudgeConfig
from rmkit.ledger import open_ledger
from rmkit.types import Candidates, Completion, Message

ABOUT = (
    "Pairs judged one call each against an endpoint in another process that answers after a fixed latency;\n"
    "every answer is on disk before it is used. The ceiling is requests in flight / latency. Kills are SIGKILL\n"
    "at random moments; a stored answer that is asked for again would be paid twice."
)
PROMPT_CHARACTERS, RESPONSE_CHARACTERS = 300, 600


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench judge",
        "Throughput, memory and resumption of judges against an endpoint of fixed latency.",
        examples=["bench judge", "bench judge --calls 10000 --repeats 1 --kills 3", "bench judge --json"],
    )
    parser.add_argument("--calls", type=int, default=100_000, help="of the long run (default 100000)")
    parser.add_argument("--short-calls", type=int, default=10_000, help="of each repeat (default 10000)")
    parser.add_argument("--repeats", type=int, default=3, help="short runs beside the long one")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--kills", type=int, default=10, help="(default 10)")
    parser.add_argument("--kill-calls", type=int, default=2000, help="calls of the run that is killed")
    parser.add_page(help="write its section of the results page there")
    parser.add_argument("--worker", nargs=3, metavar=("URL", "LEDGER", "CALLS"), help="used by the command itself")
    options = parser.parse_args(argv)
    if options.worker:
        return _worker(options)
    summary = run(options)
    if options.page:
        write_section(options.page, name="judge", about=ABOUT, argv=argv, text=_text(summary))
    display.emit(summary, as_json=options.json, text=_text(summary))
    return 0


def run(options: Any) -> dict[str, object]:
    """Calls a second against the ceiling, resident megabytes, and what kills cost."""
    runs = []
    with endpoint_process(options.latency_ms) as url, display.progress("runs", options.repeats + 1) as advance:
        for calls in [options.short_calls] * options.repeats + [options.calls]:
            runs.append(_measured(url, calls, options))
            advance(1)
    ceiling = options.concurrency / (options.latency_ms / 1000)
    rates = [result["calls_per_s"] for result in runs]
    return {
        "concurrency": options.concurrency,
        "latency_ms": options.latency_ms,
        "ceiling_calls_per_s": ceiling,
        "runs": runs,
        "calls_per_s": statistics.median(rates),
        "share_of_ceiling": statistics.median(rates) / ceiling,
        "lowest_share": min(rates) / ceiling,
        "highest_share": max(rates) / ceiling,
        "kill": _kills(options) if options.kills else None,
    }


@contextlib.contextmanager
def endpoint_process(latency_ms: float) -> Iterator[str]:
    """The base URL of a scripted endpoint in a process of its own."""
    command = [sys.executable, "-m", "evaluation.benchmarks.judging.scripted_endpoint", "--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _measured(url: str, calls: int, options: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = _command(url, str(Path(folder) / "ledger.sqlite"), calls, options)
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    document: dict[str, Any] = json.loads(out.splitlines()[-1])
    return document


def _command(url: str, ledger: str, calls: int, options: Any) -> list[str]:
    worker = ["--worker", url, ledger, str(calls), "--concurrency", str(options.concurrency)]
    return [sys.executable, "-m", "rmkit", "bench", "judge", "--json", *worker]


def _worker(options: Any) -> int:
    """Judge so many pairs once; one line per item where stdout is watched, the measurement as the last line."""
    url, ledger_path, calls = options.worker[0], options.worker[1], int(options.worker[2])
    config = JudgeConfig(name="bench", orders="given", max_tokens=64)
    limits = Limits(concurrency=options.concurrency)
    memory: list[float] = []
    unscored = 0
    with (
        open_ledger(ledger_path) as ledger,
        Engine(EndpointGenerator(base_url=url, model="scripted"), ledger=ledger, limits=limits) as engine,
    ):
        judge = Judge(config, engine)
        next(iter(judge.judged([next(_pairs(1, seed="warm-up"))])))  # connections, probe
        began, used = time.perf_counter(), time.process_time()
        for done, judged in enumerate(judge.judged(_pairs(calls)), start=1):
            unscored += judged.comparison().unscored is not None
            if done in (calls // 10, calls):
                memory.append(_resident_mb())
        took = time.perf_counter() - began
    result = {
        "calls": calls,
        "wall_s": took,
        "calls_per_s": calls / took,
        "cpu_ms_per_call": 1000 * (time.process_time() - used) / calls,
        "resident_mb_at_a_tenth": memory[0],
        "resident_mb_at_the_end": memory[-1],
        "unscored": unscored,
        "paid_now": engine.tally.calls,
        "found_in_ledger": engine.tally.cached,
    }
    print(json.dumps(result), flush=True)
    return 0


def _pairs(n: int, *, seed: str = "pairs") -> Iterator[Candidates]:
    """Pairs of unlike length, a second one differing from item to item."""
    draw = random.Random(seed)
    filler = "the quick brown fox jumps over the lazy dog " * 40
    for i in range(n):
        responses = [
            filler[: RESPONSE_CHARACTERS + draw.randrange(-200, 200)] + f" ({seed} {i}{side})" for side in "ab"
        ]
        prompt = f"{filler[:PROMPT_CHARACTERS]} {i}?"
        yield Candidates(
            (Message("user", prompt),), tuple(Completion((Message("assistant", text),)) for text in responses)
        )


def _resident_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _kills(options: Any) -> dict[str, object]:
    """Kill and resume until a run ends; what was asked more often than once, and whether its answer had been stored."""
    requests: Counter[str] = Counter()

    def script(body: dict[str, Any]) -> Reply:
        messages = content_hash(json.dumps(body["messages"]))
        if body["max_tokens"] > 1:  # not the probe
            requests[messages] += 1
        return Reply(text=f"{messages}\nVerdict: A", delay_s=options.latency_ms / 1000)

    with tempfile.TemporaryDirectory() as folder, ScriptedEndpoint(script, keep=False) as endpoint:
        ledger = str(Path(folder) / "ledger.sqlite")
        command = _command(endpoint.base_url, ledger, options.kill_calls, options)
        counts, out = kill_and_resume(command, requests, lambda: _stored(ledger), kills=options.kills)
    return counts | {
        "in_flight_or_being_written_at_most": 2 * counts["kills"] * options.concurrency,
        "last_run_found_in_ledger": json.loads(out.splitlines()[-1])["found_in_ledger"],
    }


def _stored(ledger: str) -> set[str]:
    """What the stored answers answer: the script begins each with the hash of what it was asked."""
    with open_ledger(ledger) as opened:
        return {record.value["text"].split()[0] for record in opened.records(KIND)}


def _text(summary: Mapping[str, Any]) -> str:
    lines = [
        f"{summary['concurrency']} in flight, {summary['latency_ms']:g} ms: ceiling "
        f"{summary['ceiling_calls_per_s']:,.0f} calls/s; reached {summary['calls_per_s']:,.0f} (median of "
        f"{len(summary['runs'])} runs), {summary['share_of_ceiling']:.3f} of it "
        f"({summary['lowest_share']:.3f}-{summary['highest_share']:.3f})",
        "",
    ]
    header = ("calls", "seconds", "calls/s", "CPU ms", "MB at 1/10", "MB at end", "unscored")
    rows = []
    for run in summary["runs"]:
        times = (f"{run['wall_s']:.1f}", f"{run['calls_per_s']:.0f}", f"{run['cpu_ms_per_call']:.3f}")
        memory = (f"{run['resident_mb_at_a_tenth']:.1f}", f"{run['resident_mb_at_the_end']:.1f}")
        rows.append((run["calls"], *times, *memory, run["unscored"]))
    lines.append(display.table(header, rows))
    if kill := summary["kill"]:
        lines += ["", display.fields(kill)]
    return "\n".join(lines)
