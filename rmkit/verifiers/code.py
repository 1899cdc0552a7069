"""code: 1 where a completion's Python program passes its unit tests, else 0; or the share that it passes.

The program is the last code block, else the whole reply. The reference says what it must do:

    assert add(2, 3) == 5                                  Python, run behind the program
    ["assert ...", "assert ..."]                           one test each
    {"test": "def check(f): ...", "entry_point": "add"}    HumanEval's form
    {"inputs": ["2 3\\n"], "outputs": ["5\\n"]}              standard input and what is printed for it (APPS' form)

Every program runs under bubblewrap (see `sandbox`) with limits on time, memory, processes and disk; without it there is
an error and no run. What a program tries in vain (to fork, to reach the network, to write) is its own failure: its
value is 0, the rationale says why. Asserts share a process with the program, so one that knows this can feign success;
programs that print are judged from outside.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

from rmkit.errors import ConfigError, DataError
from rmkit.types import Candidates, Score
from rmkit.verifiers import sandbox
from rmkit.verifiers.answer_text import last_block
from rmkit.verifiers.sandbox import Limits
from rmkit.verifiers.verifier import gold

_FENCE = re.compile(r"```(?:python|py|python3)?[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL | re.IGNORECASE)

# Runs in the sandbox: the program, then each test; a line per test goes to what was standard output.
_HARNESS = """
import json, os, sys
task = json.loads(sys.stdin.read())
report = os.fdopen(os.dup(1), "w")
os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
def say(**row):
    print(task["nonce"], json.dumps(row), file=report, flush=True)
def why(error):
    return f"{type(error).__name__}: {error}"[:200]
say(ready=True)
names = {"__name__": "program"}
try:
    exec(compile(open("/code/program.py").read(), "program.py", "exec"), names)
except BaseException as error:
    say(failed=why(error))
    os._exit(1)
for test in task["tests"]:
    try:
        exec(compile(test, "test.py", "exec"), dict(names))
        say(passed=True)
    except BaseException as error:
        say(passed=False, why=why(error))
os._exit(0)
"""


class Tests(NamedTuple):
    """Either tests to run behind the program, or pairs of input and output."""

    asserts: tuple[str, ...] = ()
    cases: tuple[tuple[str, str], ...] = ()


class Result(NamedTuple):
    passed: int
    total: int
    why: str | None


@dataclass(frozen=True, kw_only=True)
class Code:
    """Unscored without tests, and where the sandbox itself fails. Raises UsageError where there is none."""

    partial: Annotated[bool, "the share of passed tests instead of all or nothing"] = False
    timeout_s: Annotated[float, "seconds of one program (of each input, where it prints)"] = 10.0
    memory_mb: Annotated[int, "address space of each of its processes"] = 512
    processes: Annotated[int, "processes and threads at a time"] = 16
    disk_mb: Annotated[int, "what it may write to /tmp, which is memory"] = 64

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not (self.timeout_s > 0 and self.memory_mb > 0 and self.processes > 0 and self.disk_mb > 0):
            raise ConfigError("the limits of code must all be positive")
        sandbox.bubblewrap()

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        tasks = [(item, completion.text) for item in items for completion in item.completions]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="sandbox") as threads:
            scores = iter(list(threads.map(lambda task: self._score(*task), tasks)))
        return [[next(scores) for _ in item.completions] for item in items]

    @property
    def _limits(self) -> Limits:
        return Limits(
            timeout_s=self.timeout_s, memory_mb=self.memory_mb, processes=self.processes, disk_mb=self.disk_mb
        )

    def _score(self, item: Candidates, text: str) -> Score:
        try:
            tests, program = _tests(gold(item)), last_block(text, _FENCE)
            result = self._printed(program, tests) if tests.cases else self._asserted(program, tests)
        except DataError as error:
            return Score.failed(str(error))
        value = result.passed / result.total if self.partial else float(result.passed == result.total)
        return Score(value, rationale=result.why)

    def _asserted(self, program: str, tests: Tests) -> Result:
        nonce, total = secrets.token_hex(8), len(tests.asserts)
        ended = sandbox.run(
            [sandbox.python(), "-I", "/code/harness.py"],
            files={"harness.py": _HARNESS.encode(), "program.py": program.encode(errors="replace")},
            stdin=json.dumps({"tests": tests.asserts, "nonce": nonce}).encode(),
            limits=self._limits,
        )
        rows: list[dict[str, Any]] = [
            json.loads(line[len(nonce) :])
            for line in ended.output.decode(errors="replace").splitlines()
            if line.startswith(nonce)
        ]
        if not rows and ended.stopped is None:
            raise DataError(f"the sandbox failed: {ended.errors.decode(errors='replace').strip()[:200]}")
        if failed := next((row["failed"] for row in rows if "failed" in row), None):
            return Result(0, total, failed)
        results = [row for row in rows if "passed" in row]
        passed = sum(row["passed"] for row in results)
        first = next((row["why"] for row in results if not row["passed"]), None)
        if len(results) < total:  # it ended on the way: stopped, killed, or by itself
            first = first or ended.stopped or f"the program ended the process (status {ended.status})"
        return Result(passed, total, first)

    def _printed(self, program: str, tests: Tests) -> Result:
        passed, first = 0, None
        for stdin, target in tests.cases:
            ended = sandbox.run(
                [sandbox.python(), "-I", "/code/program.py"],
                files={"program.py": program.encode(errors="replace")},
                stdin=stdin.encode(errors="replace"),
                limits=self._limits,
            )
            errors = ended.errors.decode(errors="replace").strip()
            if errors.startswith("bwrap:"):
                raise DataError(f"the sandbox failed: {errors[:200]}")
            if (
                ended.stopped is None
                and ended.status == 0
                and _lines(ended.output.decode(errors="replace")) == _lines(target)
            ):
                passed += 1
                continue
            last = errors.splitlines()[-1][:200] if errors else "another output than expected"
            first = first or ended.stopped or last
            if not self.partial:
                break
        return Result(passed, len(tests.cases), first)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _tests(reference: str) -> Tests:
    """What a reference asks for. Raises DataError for JSON of another form."""
    try:
        document: Any = json.loads(reference)
    except (ValueError, RecursionError):
        return Tests((reference,))
    if isinstance(document, list) and document and all(isinstance(one, str) for one in document):
        return Tests(tuple(document))
    if isinstance(document, dict):
        inputs, outputs = document.get("inputs"), document.get("outputs")
        if isinstance(inputs, list) and isinstance(outputs, list) and len(inputs) == len(outputs) > 0:
            return Tests(cases=tuple((str(stdin), str(target)) for stdin, target in zip(inputs, outputs, strict=True)))
        if isinstance(test := document.get("test"), str):
            name = document.get("entry_point")
            return Tests((f"{test}\ncheck({name})" if isinstance(name, str) and name.isidentifier() else test,))
    raise DataError('tests are Python, a list of them, {"test", "entry_point"} or {"inputs", "outputs"}')
