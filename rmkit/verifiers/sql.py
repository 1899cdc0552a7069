"""sql: 1 where the completion's query gives the rows that the reference query gives, else 0.

The reference is the query, or JSON {"query", "setup"}: `setup` makes tables and rows, after the verifier's own. Both
queries run on one database in memory that nothing can leave: no files, no attached databases, no extensions, reading
only. Rows are compared as a multiset, in order where the reference query orders them; numbers to nine digits.
"""

from __future__ import annotations

import importlib
import json
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from rmkit.errors import ConfigError, DataError, require
from rmkit.types import Candidates, Score
from rmkit.verifiers.answer_text import last_block
from rmkit.verifiers.verifier import each, gold

MAX_ROWS = 100_000
_FENCE = re.compile(r"```(?:sql|sqlite|duckdb)?[ \t]*\n(.*?)\n[ \t]*```", re.DOTALL | re.IGNORECASE)
_ORDER = re.compile(r"\border\s+by\b(?![^()]*\))", re.IGNORECASE)
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_LEAVES = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Sql:
    """Unscored without a reference, and where the reference query or a setup fails. A query that fails is wrong."""

    engine: Annotated[Literal["sqlite", "duckdb"], "which database runs the queries"] = "sqlite"
    setup: Annotated[str, "SQL that makes the tables of every item"] = ""
    timeout_s: Annotated[float, "seconds that one query may take"] = 5.0
    memory_mb: Annotated[int, "memory of DuckDB"] = 512

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.timeout_s > 0 or self.memory_mb < 1:
            raise ConfigError(f"timeout_s and memory_mb must be positive, got {self.timeout_s}, {self.memory_mb}")
        if self.engine == "duckdb":
            require("duckdb", extra="data")

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, item: Candidates, text: str) -> Score:
        query, setup = _reference(gold(item))
        database = _sqlite if self.engine == "sqlite" else _duckdb
        try:
            run = database(self.setup + ";\n" + setup, self.timeout_s, self.memory_mb)
            target = run(query)
        except Exception as error:  # two engines, each with its own errors
            raise DataError(f"the reference query cannot be run: {type(error).__name__}") from error
        try:
            got = run(last_block(text, _FENCE).strip().rstrip(";"))
        except Exception as error:
            return Score(0.0, rationale=f"the query fails: {str(error).splitlines()[0][:200] or type(error).__name__}")
        return Score(float(_same(target, got, ordered=bool(_ORDER.search(query)))))


def _reference(reference: str) -> tuple[str, str]:
    if not reference.lstrip().startswith("{"):
        return reference, ""
    try:
        document = json.loads(reference)
        return str(document["query"]), str(document.get("setup", ""))
    except (ValueError, KeyError, RecursionError) as error:
        raise DataError('the reference is a query, or JSON {"query", "setup"}') from error


def _sqlite(setup: str, timeout_s: float, _: int) -> Callable[[str], Rows]:
    connection = sqlite3.connect(":memory:")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000_000)
    until = [time.monotonic() + timeout_s]
    connection.set_progress_handler(lambda: time.monotonic() > until[0], 10_000)
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action in _LEAVES else sqlite3.SQLITE_OK)
    connection.executescript(setup)
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY)

    def run(query: str) -> Rows:
        until[0] = time.monotonic() + timeout_s
        return _bounded(connection.execute(query).fetchmany(MAX_ROWS + 1))

    return run


def _duckdb(setup: str, timeout_s: float, memory_mb: int) -> Callable[[str], Rows]:
    duckdb = importlib.import_module("duckdb")  # named by an option: the kernel runs without it
    settings = {"enable_external_access": "false", "memory_limit": f"{memory_mb}MB", "threads": "1"}
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET lock_configuration = true")

    def limited(statement: str) -> Any:
        timer = threading.Timer(timeout_s, connection.interrupt)
        timer.start()
        try:
            return connection.execute(statement)
        finally:
            timer.cancel()

    if setup.strip(" ;\n"):
        limited(setup)

    def run(query: str) -> Rows:
        kinds = [statement.type for statement in connection.extract_statements(query)]
        if kinds != [duckdb.StatementType.SELECT]:
            raise ValueError("one SELECT is expected")
        return _bounded(limited(query).fetchmany(MAX_ROWS + 1))

    return run


def _bounded(rows: Rows) -> Rows:
    if len(rows) > MAX_ROWS:
        raise ValueError(f"more than {MAX_ROWS} rows")
    return rows


def _same(target: Rows, got: Rows, *, ordered: bool) -> bool:
    first, second = ([tuple(map(_plain, row)) for row in rows] for rows in (target, got))
    return first == second if ordered else Counter(first) == Counter(second)


def _plain(value: Any) -> str | float | None:
    """Numbers alike whatever their type: 2, 2.0 and Decimal('2.00')."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return str(value) if value is not None else None
    return float(f"{float(value):.9g}")
