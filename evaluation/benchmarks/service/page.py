"""What `rmkit bench service` shows: a table, a chart and the results page."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.service.setup import COMPLETION_TOKENS, PROMPT_TOKENS, SIGMA, N
from rmkit.revision import versions_text

Result = Mapping[str, Any]


def summary(result: Result) -> dict[str, object]:
    """The result without the long series."""
    facts = {key: value for key, value in result.items() if key != "memory_mb"}
    if "overload" in facts:
        facts["overload"] = {k: v for k, v in facts["overload"].items() if k not in ("per_second", "memory_mb")}
    return {**facts, "memory": memory(result["memory_mb"])}


def memory(megabytes: Sequence[float]) -> dict[str, float]:
    """Medians of the first and the last third of the loaded time, and the peak."""
    third = max(1, len(megabytes) // 3)
    return {
        "first_third_mb": statistics.median(megabytes[:third]),
        "last_third_mb": statistics.median(megabytes[-third:]),
        "peak_mb": max(megabytes),
    }


def rows(result: Result) -> list[tuple[str, str, str]]:
    """(what, found, aim) of each line of the table."""
    rates, counts, used = result["rates"], result["counts"], memory(result["memory_mb"])
    latency = result["latency_s"]
    results = [
        ("service, completions a second", _spread(rates["service"]), ""),
        ("bare engine beside an equal client burn", _spread(rates["bare"]), ""),
        ("plain FastAPI server", _spread(rates["plain"]), ""),
        ("service / bare engine", _ratio(result["ratio_to_bare"]), "at least 0.9"),
        ("service / plain server", _ratio(result["ratio_to_plain"]), "at least 2"),
        ("cost of a completion, bare", f"{result['ms_per_completion']:.1f} ms", "at least 20 ms"),
        (
            "processor time of a completion, service / bare engine",
            f"{result['cpu_ms']['service']:.1f} / {result['cpu_ms']['bare']:.1f} ms",
            "",
        ),
        ("latency of the service, p50 / p95 / p99", _percentiles(latency["service"]), ""),
        ("latency of the plain server, p50 / p95 / p99", _percentiles(latency["plain"]), ""),
        ("answers right / wrong / lost", _three(counts["service"]), "none wrong, none lost"),
        ("processor time of the clients", f"{result['client_cpu']:.2f} cores", ""),
        (
            "memory of the service, first / last third / peak",
            f"{used['first_third_mb']:.0f} / {used['last_third_mb']:.0f} / {used['peak_mb']:.0f} MB",
            "flat",
        ),
    ]
    if chain := result.get("chain"):
        results += [
            ("with a chain / without, completions a second", _ratio(chain["rate"]), "at least 0.97"),
            ("without a chain / with, processor time of a completion", _ratio(chain["cpu"]), "at least 0.97"),
            ("answers with a chain right / wrong / lost", _three(chain["counts"]), "none wrong, none lost"),
        ]
    if over := result.get("overload"):
        statuses = {key: value for key, value in over["counts"].items() if key.isdigit()}
        text = ", ".join(f"{value:,} x {key}" for key, value in sorted(statuses.items()))
        peak = max(over["memory_mb"])
        results += [
            (f"overload, {over['clients']} clients: answers", text, "only 200 and 429"),
            ("overload: wrong / lost", f"{over['counts']['wrong']} / {over['counts']['lost']}", "0 / 0"),
            ("overload: slowest answer", f"{over['slowest_answer_s']:.1f} s", "nothing hangs"),
            ("overload: first answer after it", f"{over['recovery_s']:.2f} s", "within 5 s"),
            ("overload: peak memory", f"{peak:.0f} MB", ""),
        ]
    return results


def table(result: Result) -> str:
    lines = rows(result)
    width = max(len(what) for what, _, _ in lines)
    return "\n".join(f"{what:<{width}}  {results:<34}  {aim}".rstrip() for what, results, aim in lines)


def plot(result: Result, path: Path) -> None:
    """Rates per round, memory over the run, and the overload's answers second by second."""
    from matplotlib.figure import Figure

    from evaluation.reports.charts import COLORS

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    rates, resident, over = figure.subplots(1, 3)
    for color, name in zip(COLORS, ("service", "bare", "plain"), strict=False):
        values = result["rates"][name]
        rates.plot(range(1, len(values) + 1), values, "o-", color=color, label=name)
    rates.set(xlabel="round", ylabel="completions a second", ylim=(0, None))
    rates.legend()
    resident.plot([n / 2 for n in range(len(result["memory_mb"]))], result["memory_mb"], color=COLORS[0])
    resident.set(xlabel="seconds", ylabel="service, resident MB", ylim=(0, None))
    if "overload" in result:
        for color, (status, counts) in zip(COLORS, sorted(result["overload"]["per_second"].items()), strict=False):
            over.plot(counts[: int(result["overload"]["seconds"]) + 3], color=color, label=status)
        over.set(xlabel="seconds of overload", ylabel="answers a second", yscale="symlog")
        over.legend()
    for axes in (rates, resident, over):
        axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def write(path: Path, result: Result, *, argv: Sequence[str], plot: Path | None) -> None:
    """The results page, complete: what was asked, the numbers, the setting and the versions."""
    requests = " ".join(Path(one).name if one.endswith((".md", ".svg", ".png")) else one for one in argv)
    each = "one completion" if result["mode"] == "samples" else f"one prompt with its {N} completions"
    lines = [
        "# Benchmark of the reward service",
        "",
        f"    rmkit bench service {requests}".rstrip(),
        "",
        f"{result['clients']} clients in a closed loop, {result['rounds']} rounds, {result['seconds']:g} seconds of "
        f"load on the service in all; each request carries {each}. The pool has {result['prompts']} prompts with {N} "
        f"completions each, lengths log-normal (mean {PROMPT_TOKENS} and {COMPLETION_TOKENS} tokens, sigma {SIGMA}).",
        "",
        "| what | result | aim |",
        "| --- | --- | --- |",
        *(f"| {what} | {results} | {aim} |" for what, results, aim in rows(result)),
        "",
        "Rates and ratios are medians over the rounds, with their range; in each round service, bare engine and plain "
        "server take turns. Every answer is held against the bare engine's score (1e-4, fp32).",
        "",
    ]
    if plot is not None:
        lines += [f"![rates, memory, overload]({plot.name})", ""]
    lines += [
        f"Model: Qwen3 shape, {result['layers']} layers of width {result['hidden']}, random weights, fp32, "
        f"{result['threads']} threads. {os.cpu_count()} cores ({platform.machine()}), load {result['load_before']:.1f} "
        f"before the run; Python {platform.python_version()}, {versions_text('torch', 'fastapi', 'uvicorn')}."
        " The service logged every reward to its ledger.",
    ]
    path.write_text("\n".join(lines) + "\n")


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _ratio(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _percentiles(latency: Mapping[str, float]) -> str:
    return " / ".join(f"{latency[name]:.2f}" for name in ("p50", "p95", "p99")) + " s"


def _three(counts: Mapping[str, int]) -> str:
    return " / ".join(f"{counts[name]:,}" for name in ("right", "wrong", "lost"))
