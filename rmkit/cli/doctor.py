"""`rmkit doctor`: what is here, what is missing, and the command that installs it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sqlite3
from importlib import metadata
from typing import Any

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


def devices() -> dict[str, Any]:
    """Processor features and accelerators that training would use."""
    by_key: dict[str, Any] = {"cpus": os.cpu_count(), "machine": platform.machine(), "bf16": _bf16()}
    if importlib.util.find_spec("torch"):
        import torch

        by_key["torch_threads"] = torch.get_num_threads()
        by_key["cuda"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        by_key["mps"] = torch.backends.mps.is_available()
    return by_key


def _bf16() -> list[str]:
    """Instruction sets of this processor that multiply bf16 matrices faster than fp32 ones."""
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "").split()
    except OSError:
        return []
    return [name for name in ("amx_bf16", "avx512_bf16") if name in flags]


def diagnosis() -> dict[str, Any]:
    """Everything the command prints, as one JSON-ready mapping."""
    groups = {extra: names for extra, names in extras.distributions().items() if extra not in ("", "all")}
    requests = {extra: {package: version(package) for package in packages} for extra, packages in groups.items()}
    missing = {extra: [name for name, got in packages.items() if got is None] for extra, packages in requests.items()}
    home = paths.home()
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    return {
        "rmkit": version("rmkit"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "core": {name: version(name) for name in ("duckdb", "polars", "pyarrow", "numpy", "scikit-learn")},
        "devices": devices(),
        "home": str(home),
        "home_writable": os.access(nearest, os.W_OK),
        "free_disk_gb": round(shutil.disk_usage(nearest).free / 1e9, 1),
        "extras": requests,
        "missing": {extra: names for extra, names in missing.items() if names},
        "attention": {name: version(distribution) for name, (_, distribution) in FLASH.items()},
        "install": {extra: extras.install_line(extra) for extra, names in missing.items() if names},
    }


def main(argv: list[str]) -> int:
    """0 when rmkit can work here, 1 when the data folder cannot be written; a missing extra is no fault."""
    parser = arguments.parser(
        "doctor", "What is installed, what is missing, how to get it.", examples=["doctor", "doctor --json"]
    )
    options = parser.parse_args(argv)
    result = diagnosis()
    display.emit(result, as_json=options.json, text=_text(result))
    return int(not result["home_writable"])


def _text(by_key: dict[str, Any]) -> str:
    gpu = ", ".join(by_key["devices"].get("cuda", [])) or "none"
    lines = [
        f"rmkit {by_key['rmkit']}, Python {by_key['python']}, SQLite {by_key['sqlite']}, "
        + ", ".join(f"{name} {got}" for name, got in by_key["core"].items()),
        f"processor: {by_key['devices']['cpus']} cores ({by_key['devices']['machine']}), fast bf16: "
        f"{', '.join(by_key['devices']['bf16']) or 'no'}; CUDA GPU: {gpu}",
        f"data folder: {by_key['home']} ({'writable' if by_key['home_writable'] else 'NOT WRITABLE: set RMKIT_HOME'}, "
        f"{by_key['free_disk_gb']} GB free)",
        "",
    ]
    for extra, packages in by_key["extras"].items():
        missing = by_key["missing"].get(extra, [])
        state = "ok     " if not missing else "missing"
        detail = ", ".join(f"{name} {got}" if got else f"{name} -" for name, got in packages.items())
        lines.append(f"{state}  {extra:<10} {detail}")
        if missing:
            note = f"  ({NOTES[extra]})" if extra in NOTES else ""
            lines.append(f"         {'':<10} -> {by_key['install'][extra]}{note}")
    flash = [f"{name} (flash-attn {got})" for name, got in by_key["attention"].items() if got]
    offered = ", ".join(flash) or "no flash-attn is installed; training shares prompts without it"
    lines.append(f"\ntrain --set attention=...: {offered}")
    return "\n".join(lines)
