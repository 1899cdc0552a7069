"""How commands show things: the result on stdout, progress on a terminal, log lines.

stdout is for results; logs, progress and errors go to stderr.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rmkit.storage.places import at_addresses

_HELD: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("held", default=None)


def emit(result: Any, *, as_json: bool, text: str | None = None) -> None:
    """Print a command's result, a mapping or a dataclass: one JSON object, or the text (default: `fields`)."""
    if as_json:
        document = result if isinstance(result, Mapping) else _jsonable(result)
        shown = _UNSEEN.sub(_json_escape, json.dumps(document, default=_jsonable, ensure_ascii=False))
    else:
        shown = printable(fields(result) if text is None else text)
    if (held := _HELD.get()) is None:
        print(at_addresses(shown))
    else:
        held.append(at_addresses(shown))


@contextlib.contextmanager
def holding_results() -> Iterator[None]:
    """Within it, and after `hold_results`, what `emit` is given is printed at the end, unless the block raises."""
    token = _HELD.set(None)
    try:
        yield
        for text in _HELD.get() or ():
            print(text)
    finally:
        _HELD.reset(token)


def hold_results() -> None:
    """From now on results speak of what is not at its address yet."""
    if _HELD.get() is None:
        _HELD.set([])


def fields(result: Any) -> str:
    """A mapping or a dataclass as aligned lines, a key and its value each; what is None has no line."""
    values = result if isinstance(result, Mapping) else dataclasses.asdict(result)
    present = {str(key).replace("_", " "): value for key, value in values.items() if value is not None}
    width = max(map(len, present), default=0)
    return "\n".join(f"{key:<{width}}  {_cell(value)}" for key, value in present.items())


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, indent: str = "") -> str:
    """Aligned columns under a header: those of numbers to the right, words to the left, a dash for what is missing."""
    lines = [list(header), *([_cell(value) for value in row] for row in rows)]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [len(column) > 1 and all(map(_NUMERIC.fullmatch, column[1:])) for column in columns]

    def line(cells: Sequence[str]) -> str:
        places = zip(cells, widths, right, strict=True)
        return indent + "  ".join(cell.rjust(width) if last else cell.ljust(width) for cell, width, last in places)

    return "\n".join(line(cells).rstrip() for cells in lines)


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The same as a Markdown table."""
    lines = [list(header), ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def number(value: float | None, form: str = ".3f", *, scale: float = 1) -> str:
    """A value, times `scale`; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else format(scale * value, form)


def percent(share: float | None, form: str = ".1f") -> str:
    """A share in [0, 1] as percent, 71.3%; a dash where there is none."""
    return "-" if number(share) == "-" else f"{number(share, form, scale=100)}%"


def interval(bounds: Any, form: str = ".3f", *, scale: float = 1) -> str:
    """[low, high] of what has both, times `scale`: a mapping or an object; a dash where there is none."""
    if bounds is None:
        return "-"
    low, high = (bounds["low"], bounds["high"]) if isinstance(bounds, Mapping) else (bounds.low, bounds.high)
    return "-" if number(low) == "-" else f"[{number(low, form, scale=scale)}, {number(high, form, scale=scale)}]"


_NUMERIC = re.compile(r"[-+\d.,/%\[\] ]*(e[-+]\d+)?")


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:,}" if type(value) is int else f"{value:.6g}" if isinstance(value, float) else str(value)


# What a terminal, a log's reader or an eye would act on: controls (ANSI sequences, DEL, C1), line and paragraph
# separators, and the marks that turn the reading direction of what follows.
_UNSEEN = re.compile(r"\r\n|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|\t|\n")


def printable(text: str, *, lines: bool = True) -> str:
    """The text with its control characters shown as escapes (ESC as `\\x1b`); `lines` leaves tabs and newlines."""
    plain = {"\n": "\n", "\r\n": "\n", "\t": "\t"} if lines else {}
    return _UNSEEN.sub(lambda result: plain.get(result[0]) or _escape(result), text)


def shown(value: Any) -> object:
    """The same for the values of an HTML template (Jinja's `finalize`), whatever they are."""
    return type(value)(printable(value)) if isinstance(value, str) else value


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


class LineFormatter(logging.Formatter):
    """A log line that no text within it can end, forge or color; the traceback below it keeps its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(at_addresses(super().formatMessage(record)), lines=False)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return printable(super().formatException(ei))


def _jsonable(value: Any) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return value.as_json() if hasattr(value, "as_json") else dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else str(value)


_TELL_HEADERS = ("aiobotocore", "boto", "s3fs", "urllib3")  # debug lines with the headers that hold tokens


def log_to_stderr(level: int) -> None:
    """Log to stderr from this level on, unless the process logs elsewhere already."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: record.levelno > logging.DEBUG or not record.name.startswith(_TELL_HEADERS))
    logging.basicConfig(level=level, handlers=[handler])


@contextlib.contextmanager
def only_errors_of(name: str) -> Iterator[None]:
    """Within it a logger says errors only; afterwards what it said before."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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
