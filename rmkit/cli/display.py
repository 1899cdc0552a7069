"""How commands show things: the result on stdout, progress on a terminal, log lines.

stdout is for results; logs, progress and errors go to stderr.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rmkit.cli.arguments import parser as parser


def emit(result: Mapping[str, Any], *, as_json: bool, text: str | None = None) -> None:
    """Print a command's result on stdout: one JSON object, or the text (default: aligned key-value lines)."""
    if as_json:
        print(_UNSEEN.sub(_json_escape, json.dumps(result, default=_jsonable, ensure_ascii=False)))
    elif text is not None:
        print(printable(text))
    else:
        width = max((len(key) for key in result), default=0)
        for key, value in result.items():
            print(printable(f"{key:<{width}}  {value}"))


# What a terminal, a log's reader or an eye would act on: controls (ANSI sequences, DEL, C1), line and paragraph
# separators, and the marks that turn the reading direction of what follows.
_UNSEEN = re.compile(r"\r\n|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|\t|\n")


def printable(text: str, *, lines: bool = True) -> str:
    """The text with its control characters shown as escapes (ESC as `\\x1b`); `lines` leaves tabs and newlines."""
    plain = {"\n": "\n", "\r\n": "\n", "\t": "\t"} if lines else {}
    return _UNSEEN.sub(lambda result: plain.get(result[0]) or _escape(result), text)


def shown(value: Any) -> Any:
    """The same for the values of an HTML template (Jinja's `finalize`), whatever they are."""
    return type(value)(printable(value)) if isinstance(value, str) else value


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


class LineFormatter(logging.Formatter):
    """A log line that no text within it can end, forge or color; the traceback below it keeps its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record), lines=False)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return printable(super().formatException(ei))


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else str(value)


def log_to_stderr(level: int) -> None:
    """Log to stderr from this level on, unless the process logs elsewhere already."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


@contextlib.contextmanager
def progress(label: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr where that is a terminal, silence elsewhere. Yields `advance(amount)`."""
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.advance(task, amount)
