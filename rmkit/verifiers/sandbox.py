"""One untrusted program under bubblewrap: no network, a file system of its own, limits on memory, processes and time.

    namespaces   user, pid, network, ipc, uts: nothing outside is seen, and all of it dies with its first process
    files        /usr (and where Python lies) read-only, /tmp in memory and bounded; nothing else of the machine
    limits       address space and size of files per process, processes, processor seconds; wall-clock time and output
                 are held by the parent, which kills the namespace
    identity     nobody: the limit on processes does not bind root, so root's id is given up before bubblewrap starts

Where bubblewrap or user namespaces are missing, nothing runs: `Sandbox` raises at the start.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rmkit.errors import UsageError

NOBODY = 65534
_HELP = (
    "programs are only run in a sandbox: install bubblewrap (apt-get install bubblewrap) on Linux, and allow user "
    "namespaces (sysctl kernel.unprivileged_userns_clone=1, or a container that permits them)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`memory_mb` is each process's address space: all of them together may use `processes` times as much."""

    timeout_s: float = 10.0
    memory_mb: int = 512
    processes: int = 16
    disk_mb: int = 64
    output_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its status (negative: a signal), output and errors; `stopped` says which limit ended it."""

    status: int
    output: bytes
    errors: bytes
    stopped: str | None = None


@cache
def python() -> str:
    """The interpreter that programs run on: the one behind this process where an unprivileged user may run it, else the
    system's. Raises UsageError where there is none."""
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (own.resolve(), Path("/usr/bin/python3").resolve(), Path("/usr/local/bin/python3").resolve()):
        with contextlib.suppress(OSError):
            if not subprocess.run([candidate, "-I", "-c", ""], check=False, env={}, cwd="/", **_identity()).returncode:
                return str(candidate)
    raise UsageError(f"user {NOBODY} can run neither {own} nor /usr/bin/python3; install python3 for everybody")


def _identity() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@cache
def bubblewrap() -> str:
    """Where bubblewrap is, tried once. Raises UsageError where programs cannot be held."""
    path = shutil.which("bwrap")
    if path is None or sys.platform != "linux" or shutil.which("prlimit") is None:
        raise UsageError(f"no bubblewrap here; {_HELP}")
    ended = _run([path, *_namespaces(Limits()), "--remount-ro", "/", "--", "/usr/bin/env", "true"], b"", {}, Limits())
    if ended.status != 0:
        why = (ended.errors.decode(errors="replace").strip() or ended.stopped or f"status {ended.status}")[:200]
        raise UsageError(f"bubblewrap cannot make a sandbox here ({why}); {_HELP}")
    return path


def run(command: Sequence[str], *, files: dict[str, bytes], stdin: bytes = b"", limits: Limits = Limits()) -> Ended:
    """Run a command with these files under /code (read-only), in /tmp. Raises UsageError without a sandbox.

    Nothing is written outside: the files are handed over in memory.
    """
    prlimit = [
        "/usr/bin/prlimit",
        f"--as={limits.memory_mb * 2**20}",
        f"--nproc={limits.processes}",
        f"--cpu={max(1, round(limits.timeout_s) + 1)}",
        f"--fsize={limits.disk_mb * 2**20}",
        "--core=0",
        "--",
    ]
    return _run(
        [bubblewrap(), *_namespaces(limits), "{files}", "--remount-ro", "/", "--", *prlimit, *command],
        stdin,
        files,
        limits,
    )


def _namespaces(limits: Limits) -> list[str]:
    base = Path(python()).parents[1]
    binds = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64"):
        place = Path("/", name)
        if place.is_symlink():
            binds += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            binds += ["--ro-bind", str(place), str(place)]
    if not base.is_relative_to("/usr"):
        binds += ["--ro-bind", str(base), str(base)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a thread counts as a process
    return [
        "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox", "--cap-drop", "ALL",
        "--die-with-parent", "--new-session", *binds, "--proc", "/proc", "--dev", "/dev",
        "--size", str(limits.disk_mb * 2**20), "--tmpfs", "/tmp", "--remount-ro", "/dev", "--chdir", "/tmp",
        "--clearenv",
        *(part for name, value in environment.items() for part in ("--setenv", name, value)), "--disable-userns",
    ]  # fmt: skip


def _run(command: list[str], stdin: bytes, files: dict[str, bytes], limits: Limits) -> Ended:
    descriptors: list[int] = []
    try:
        binds = []
        for name, content in files.items():
            descriptors.append(_in_memory(content))
            binds += ["--perms", "0444", "--ro-bind-data", str(descriptors[-1]), f"/code/{name}"]
        arguments = [part for one in command for part in (binds if one == "{files}" else [one])]
        with open(_in_memory(stdin), "rb") as source:
            process = subprocess.Popen(
                arguments, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=descriptors,
                start_new_session=True, cwd="/", env={"PATH": "/usr/bin:/bin"}, **_identity(),
            )  # fmt: skip
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    try:
        return _watched(process, limits)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # bubblewrap; its namespace dies with it
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def _watched(process: subprocess.Popen[bytes], limits: Limits) -> Ended:
    """Wait for the end, of time or of output."""
    assert process.stdout is not None
    assert process.stderr is not None
    parts: dict[int, bytearray] = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    until, stopped = time.monotonic() + limits.timeout_s, None
    with selectors.DefaultSelector() as selector:
        for descriptor in parts:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() and stopped is None:
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                stopped = f"stopped after {limits.timeout_s:g} s"
            for key, _ in ready:
                if chunk := os.read(key.fd, 1 << 16):
                    parts[key.fd] += chunk
                    if len(parts[key.fd]) > limits.output_bytes:
                        stopped = f"stopped after {limits.output_bytes} bytes of output"
                else:
                    selector.unregister(key.fd)
    if stopped is None:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            stopped = f"stopped after {limits.timeout_s:g} s"
    status = -signal.SIGKILL if process.returncode is None else process.returncode
    if status > 128:  # bubblewrap answers 128 + signal
        status = 128 - status
    if stopped is None and status == -signal.SIGXCPU:
        stopped = "stopped at its processor seconds"
    output, errors = (bytes(part[: limits.output_bytes]) for part in parts.values())
    return Ended(status, output, errors, stopped)


def _in_memory(content: bytes) -> int:
    """A descriptor of a file in memory, at its beginning, readable by whoever inherits it."""
    descriptor = os.memfd_create("rmkit")
    os.fchmod(descriptor, 0o444)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
