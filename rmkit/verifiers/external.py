"""external: a number from a program or a URL of your own: Lean, a simulator, a frozen generator's downstream metric.

    command    runs once per batch; reads one JSON object per completion from standard input, writes as many lines
    url        is sent the same objects as a JSON list (POST) and answers with a list

An object holds prompt, completion (text) and reference. An answer is a number, null, or {"value": number or null,
"unscored": why, "rationale": ...}. What is missing, no number, or of another count is unscored.

A command runs with the rights of this process, unlike `code`; it is never named by a request.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import httpx

from rmkit.errors import ConfigError
from rmkit.ids import messages_json
from rmkit.types import Candidates, Score


@dataclass(frozen=True, kw_only=True)
class External:
    """Either a command or a URL."""

    command: Annotated[str | None, "the program and its arguments, as in a shell but run without one"] = None
    url: Annotated[str | None, "where completions are sent"] = None
    timeout_s: Annotated[float, "seconds that one batch may take"] = 60.0
    max_bytes: Annotated[int, "bytes of an answer"] = 16 * 2**20

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if (self.command is None) == (self.url is None):
            raise ConfigError("external takes either command or url")
        if self.command is not None and not shlex.split(self.command):
            raise ConfigError("the command is empty")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ConfigError("the url begins with http:// or https://")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s must be positive, got {self.timeout_s}")

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        rows = [
            {
                "prompt": json.loads(messages_json(item.prompt)),
                "completion": completion.text,
                "reference": item.reference,
            }
            for item in items
            for completion in item.completions
        ]
        try:
            answers = self._answers(rows) if rows else []
            if len(answers) != len(rows):
                raise ValueError(f"{len(answers)} answers to {len(rows)} completions")
            scores = iter([_score(answer) for answer in answers])
        except (OSError, ValueError, httpx.HTTPError, subprocess.SubprocessError, RecursionError) as error:
            why = f"no result within {self.timeout_s:g} s" if _late(error) else str(error)[:200]
            return [[Score.failed(f"the external verifier failed: {why}")] * len(item.completions) for item in items]
        return [[next(scores) for _ in item.completions] for item in items]

    def _answers(self, rows: Sequence[dict[str, Any]]) -> list[object]:
        if self.url is not None:
            with httpx.Client(timeout=self.timeout_s, trust_env=False) as client:
                answer = client.post(self.url, json=rows).raise_for_status()
            if len(answer.content) > self.max_bytes:
                raise ValueError(f"an answer of more than {self.max_bytes} bytes")
            answers: list[Any] = answer.json()
            if not isinstance(answers, list):
                raise ValueError("the answer is no list")
            return answers
        assert self.command is not None
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        process = subprocess.Popen(
            shlex.split(self.command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            out, _ = process.communicate(lines, timeout=self.timeout_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and whatever it started
            process.wait()
        if process.returncode:
            raise ValueError(f"it ended with status {process.returncode}")
        if len(out) > self.max_bytes:
            raise ValueError(f"an answer of more than {self.max_bytes} bytes")
        return [json.loads(line) for line in out.splitlines() if line.strip()]


def _late(error: Exception) -> bool:
    return isinstance(error, subprocess.TimeoutExpired | httpx.TimeoutException)


def _score(answer: Any) -> Score:
    whole = answer if isinstance(answer, dict) else {"value": answer}
    value, rationale = whole.get("value"), whole.get("rationale")
    if value is None:
        return Score.failed(str(whole.get("unscored") or "the external verifier gave no value")[:300])
    if not isinstance(value, int | float) or not math.isfinite(value):
        return Score.failed("the external verifier gave no finite number")
    return Score(float(value), rationale=None if rationale is None else str(rationale)[:1000])
