"""Worker processes that do what may hang, each task with a time limit that holds: a worker that misses it is killed.

math-verify wants the main thread, puzzles run whatever solver they bring; so both run here. A worker is a fresh Python
that reads tasks as JSON lines and answers them so; it needs no fork, and ends when its parent does. A module's
`warm_up` runs before its first task.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

START_S = 120.0  # importing sympy on a busy machine


class Outcome(NamedTuple):
    """What a task gave, or why it gave nothing."""

    value: Any = None
    failure: str | None = None


class ProcessPool:
    """`target` ("module:function") of each task's arguments, in up to `processes` workers. Thread-safe."""

    def __init__(self, target: str, *, processes: int) -> None:
        self.target = target
        self._workers: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for _ in range(processes):
            self._workers.put(_Worker(target))
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="verify")
        atexit.register(self.close)

    def map(self, tasks: Sequence[Sequence[Any]], *, timeout_s: float) -> list[Outcome]:
        """An outcome per task, in order."""
        return list(self._threads.map(lambda arguments: self._run(arguments, timeout_s), tasks))

    def close(self) -> None:
        """End the workers."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while not self._workers.empty():
            self._workers.get_nowait().kill()

    def _run(self, arguments: Sequence[Any], timeout_s: float) -> Outcome:
        worker = self._workers.get()
        try:
            return worker.run(arguments, timeout_s)
        finally:
            self._workers.put(worker)


class _Worker:
    def __init__(self, target: str) -> None:
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(self, arguments: Sequence[Any], timeout_s: float) -> Outcome:
        with self._lock:
            try:
                process = self._started()
                assert process.stdin is not None
                process.stdin.write(json.dumps(list(arguments)).encode() + b"\n")
                process.stdin.flush()
                line = self._line(process, timeout_s)
            except TimeoutError:
                self.kill()
                return Outcome(failure=f"no result within {timeout_s:g} s")
            except (OSError, EOFError) as error:
                self.kill()
                return Outcome(failure=f"the worker process ended: {error}")
        answer = json.loads(line)
        return Outcome(answer.get("value"), answer.get("failure"))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.kill()
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rmkit.verifiers.process_pool", self._target],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            try:
                self._line(self._process, START_S)  # its imports are not the first task's time
            except TimeoutError as error:
                raise EOFError(f"it did not start within {START_S:g} s") from error
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        assert process.stdout is not None
        until, line = time.monotonic() + timeout_s, b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise TimeoutError
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    raise EOFError("it closed its output")
                line += part
        return line


@cache
def shared_pool(target: str) -> ProcessPool:
    """The one pool of this process for a target, with a worker per processor that it may use."""
    return ProcessPool(target, processes=len(os.sched_getaffinity(0)))


def _work(target: str) -> None:
    """What a worker runs. Its answers go where standard output was; what a library prints goes to standard error."""
    import importlib

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name = target.partition(":")
    module = importlib.import_module(name[0])
    function = getattr(module, name[2])
    if hasattr(module, "warm_up"):
        module.warm_up()
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = {"value": function(*json.loads(line))}
        except Exception as error:
            answer = {"failure": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _work(sys.argv[1])
