"""`rmkit doctor`: what is here, what is missing, and the command that installs it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sqlite3
from dataclasses import dataclass, field
from importlib import metadata

from rmkit import extras, paths
from rmkit.cli import arguments, display
from rmkit.training.attention import FLASH

NOTES = {"ray-serve": "brings a GPL binary, therefore outside `all`"}


def version(distribution: str) -> str | None:
    """Installed version, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Devices:
    """Processor features and accelerators that training would use; of torch nothing is known where it is missing."""

    cpus: int | None
    machine: str
    bf16: list[str]
    torch_threads: int | None = None
    cuda: list[str] = field(default_factory=list)
    mps: bool | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is here and what is missing: distributions by extra with their versions, None for an absent one."""

    rmkit: str | None
    python: str
    sqlite: str
    core: dict[str, str | None]
    devices: Devices
    home: str
    home_writable: bool
    free_disk_gb: float
    extras: dict[str, dict[str, str | None]]
    missing: dict[str, list[str]]
    attention: dict[str, str | None]
    install: dict[str, str]


def devices() -> Devices:
    """What this machine has."""
    if not importlib.util.find_spec("torch"):
        return Devices(os.cpu_count(), platform.machine(), _bf16())
    import torch

    return Devices(
        os.cpu_count(),
        platform.machine(),
        _bf16(),
        torch.get_num_threads(),
        [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        torch.backends.mps.is_available(),
    )


def _bf16() -> list[str]:
    """Instruction sets of this processor that multiply bf16 matrices faster than fp32 ones."""
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "").split()
    except OSError:
        return []
    return [name for name in ("amx_bf16", "avx512_bf16") if name in flags]


def diagnosis() -> Diagnosis:
    """Everything the command prints."""
    groups = {extra: names for extra, names in extras.distributions().items() if extra not in ("", "all")}
    requests = {extra: {package: version(package) for package in packages} for extra, packages in groups.items()}
    missing = {extra: [name for name, got in packages.items() if got is None] for extra, packages in requests.items()}
    home = paths.home()
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    return Diagnosis(
        rmkit=version("rmkit"),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        core={name: version(name) for name in ("duckdb", "polars", "pyarrow", "numpy", "scikit-learn")},
        devices=devices(),
        home=str(home),
        home_writable=os.access(nearest, os.W_OK),
        free_disk_gb=round(shutil.disk_usage(nearest).free / 1e9, 1),
        extras=requests,
        missing={extra: names for extra, names in missing.items() if names},
        attention={name: version(distribution) for name, (_, distribution) in FLASH.items()},
        install={extra: extras.install_line(extra) for extra, names in missing.items() if names},
    )


def main(argv: list[str]) -> int:
    """0 when rmkit can work here, 1 when the data folder cannot be written; a missing extra is no fault."""
    parser = arguments.parser(
        "doctor", "What is installed, what is missing, how to get it.", examples=["doctor", "doctor --json"]
    )
    options = parser.parse_args(argv)
    result = diagnosis()
    display.emit(result, as_json=options.json, text=_text(result))
    return int(not result.home_writable)


def _text(result: Diagnosis) -> str:
    machine = result.devices
    lines = [
        f"rmkit {result.rmkit}, Python {result.python}, SQLite {result.sqlite}, "
        + ", ".join(f"{name} {got}" for name, got in result.core.items()),
        f"processor: {machine.cpus} cores ({machine.machine}), fast bf16: {', '.join(machine.bf16) or 'no'}; CUDA GPU: "
        f"{', '.join(machine.cuda) or 'none'}",
        f"data folder: {result.home} ({'writable' if result.home_writable else 'NOT WRITABLE: set RMKIT_HOME'}, "
        f"{result.free_disk_gb} GB free)",
        "",
    ]
    for extra, packages in result.extras.items():
        missing = result.missing.get(extra, [])
        state = "ok     " if not missing else "missing"
        detail = ", ".join(f"{name} {got}" if got else f"{name} -" for name, got in packages.items())
        lines.append(f"{state}  {extra:<10} {detail}")
        if missing:
            note = f"  ({NOTES[extra]})" if extra in NOTES else ""
            lines.append(f"         {'':<10} -> {result.install[extra]}{note}")
    flash = [f"{name} (flash-attn {got})" for name, got in result.attention.items() if got]
    offered = ", ".join(flash) or "no flash-attn is installed; training shares prompts without it"
    lines.append(f"\ntrain --set attention=...: {offered}")
    return "\n".join(lines)
