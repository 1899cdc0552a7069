"""`rmkit bench versions`: what ten versions, a diff and a checkout cost, beside hand-written SQL.

The tables are filled directly with generated pairs of about 1 KB (one prompt, two responses, one source line each).
Ten versions follow, each with ops on about 2% of the rows: rows leave, come back, come new, change split or weight, and
are relabeled (`HISTORY`). Half of the ops fall on 2% of the rows, so that these get several each. Measured, in one
run, times as [median, fastest, slowest] of the repeats:

    history    bytes of the ten versions' deltas: sixteen copies of them, one insert per version as commits do, in a
               fresh file, and a sixteenth of its size (one copy alone would be rounded to blocks of 256 KiB, and
               smaller blocks are compressed otherwise); and what the warehouse file itself grew by, in whole blocks
    diff       counts between version 3 and version 9 and between the first and the last
    checkout   the last version to Arrow, beside the same columns from the joins one would write by hand for pairs (a
               materialized membership table, inner joins, two joins for the two responses), ordered as the checkout is
               and unordered; and a version of a thousandth of the rows, beside the whole one
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from rmkit.cli import arguments, display
from warehouse.store import STORAGE_VERSION, open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.diff import diff
from warehouse.versions.versions import commit, members, resolve

N_VERSIONS = 10
_CHUNK = 100_000
_PHRASES = 4096
_COPIES = 16

# One op per drawn row. Of the rows held, 40% of the ops remove, 40% move to the other split, 20% weigh anew; a row that
# was removed comes back. Example n_pairs + j is the other label of unit 50 * j + 7: one in ten of them per version.
HISTORY = """
CREATE OR REPLACE TEMP TABLE state AS
WITH drawn AS (
    SELECT *, hash(example_id, $number, 'draw') % 1000 < CASE WHEN hash(example_id, 'hot') % 50 = 0 THEN 350 ELSE 7 END
            AND example_id < $n_known AND example_id % 50 <> 7 AS hit,
        hash(example_id, $number, 'op') % 10 AS op,
        unit_id % 50 = 7 AND unit_id < $n_known AND hash(unit_id) % 10 = $number - 1 AS relabel
    FROM state
)
SELECT example_id, unit_id,
    CASE WHEN hit THEN NOT here OR op >= 4 WHEN relabel THEN example_id >= $n_pairs
        WHEN example_id < $n_pairs THEN here OR example_id BETWEEN $n_known AND $n_new - 1 ELSE here END AS here,
    CASE WHEN hit AND here AND op BETWEEN 4 AND 7 THEN if(split = 'test', 'train', 'test') ELSE split END AS split,
    CASE WHEN hit AND here AND op > 7 THEN (1 + op + $number) / 8 ELSE weight END AS weight
FROM drawn ORDER BY example_id
"""

HAND_WRITTEN = """
SELECT replace(e.h::VARCHAR, '-', '') AS id, replace(u.h::VARCHAR, '-', '') AS unit, u.kind, source.name AS source,
    us.subset, coalesce(us.license, source.license) AS license, p.messages AS prompt,
    [r1.messages, r2.messages] AS responses, [g1.model, g2.model] AS generators, u.step_ends,
    rubric.criteria AS rubric,
    u.tools, u.reference, e.p, e.ranks, e.margin, e.scores, e.step_labels, e.n_votes, e.method,
    p.family_id AS family, m.split, m.weight,
    us.meta
FROM bench_rows m
JOIN example e ON e.example_id = m.example_id
JOIN unit u ON u.unit_id = e.unit_id
JOIN prompt p ON p.prompt_id = u.prompt_id
JOIN response r1 ON r1.resp_id = u.resp_ids[1]
JOIN response r2 ON r2.resp_id = u.resp_ids[2]
JOIN unit_source us ON us.unit_id = u.unit_id
JOIN source ON source.source_id = us.source_id
LEFT JOIN generator g1 ON g1.gen_id = us.gen_ids[1]
LEFT JOIN generator g2 ON g2.gen_id = us.gen_ids[2]
LEFT JOIN rubric ON rubric.rubric_id = u.rubric_id
WHERE p.messages IS NOT NULL AND r1.messages IS NOT NULL AND r2.messages IS NOT NULL
"""


def main(argv: list[str]) -> int:
    """Entry point of `rmkit bench versions`; always 0, the reader judges the numbers."""
    parser = arguments.parser(
        "bench versions",
        "Size of a ten-version history, time of a diff, and checkout speed beside hand-written SQL.",
        examples=["bench versions", "bench versions --rows 100000 --repeats 3"],
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="generated pairs (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats, the median counts (%(default)s)")
    parser.add_argument(
        "--folder", type=arguments.local_path, help="where the warehouse file is built (default: a temp folder)"
    )
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(Path(folder) / "warehouse.duckdb", rows=options.rows, repeats=options.repeats)
    display.emit(result, as_json=options.json)
    return 0


def measure(path: Path, *, rows: int, repeats: int) -> dict[str, object]:
    """Build the warehouse at `path` and measure; times in seconds or milliseconds as the keys say."""
    with open_warehouse(path) as connection:
        fill_pairs(connection, rows)
        connection.execute("CHECKPOINT").fetchall()
        before = _file_bytes(connection)
        result: dict[str, Any] = {"rows": rows, "versions": N_VERSIONS, "repeats": repeats, "file_mb": before / 2**20}
        started = time.perf_counter()
        first = commit_history(connection, rows)
        result["commit_s"] = (time.perf_counter() - started) / (N_VERSIONS + 1)
        connection.execute("CHECKPOINT").fetchall()
        result["file_growth_mb"] = (_file_bytes(connection) - before) / 2**20
        result |= _measure_history(connection, first, path.with_name("history.duckdb"))
        return result | _measure_diff(connection, first, repeats) | _measure_checkout(connection, repeats)


def fill_pairs(connection: duckdb.DuckDBPyConnection, n: int, *, seed: int = 0) -> None:
    """`n` pairs with prompts and responses of random phrases (about 1 KB), one example, one source line each."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE phrase AS SELECT list(left(base64(from_hex(sha256(i::VARCHAR))), 30) || ' ' "
        "|| chr((97 + i % 26)::INTEGER) || ' the answer to this is ' ORDER BY i) AS phrases FROM range(?) t(i)",
        [_PHRASES],
    ).fetchall()
    connection.execute(
        "INSERT INTO source SELECT 1, 'generated', NULL, 'generated', sha256(''), NULL, NULL, 'CC0-1.0', NULL, false, "
        "'model', 'none', $1, $1, 0, gen_random_uuid(), now()",
        [n],
    ).fetchall()
    connection.execute("INSERT INTO generator (gen_id, model) VALUES (1, 'left'), (2, 'right')").fetchall()
    with display.progress("generate pairs", n) as advance:
        for start in range(0, n, _CHUNK):
            stop = min(start + _CHUNK, n)
            _fill_chunk(connection, start, stop, seed)
            advance(stop - start)


def _text(role: str, salt: int, n_phrases: int) -> str:
    picks = f"list_transform(range({n_phrases}), lambda k: phrases[1 + (hash(i, k, {salt}) % {_PHRASES})::INTEGER])"
    return f"""'[{{"content":"' || i || ' ' || array_to_string({picks}, '') || '","role":"{role}"}}]'"""


def _fill_chunk(connection: duckdb.DuckDBPyConnection, start: int, stop: int, seed: int) -> None:
    salt = 10 * seed
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE pair AS SELECT i, {_text('user', salt, 5)} AS prompt, "
        f"{_text('assistant', salt + 1, 6)} AS a, {_text('assistant', salt + 2, 6)} AS b "
        "FROM range(?::BIGINT, ?::BIGINT) t(i), phrase",
        [start, stop],
    ).fetchall()
    for statement in (
        "INSERT INTO prompt SELECT i, left(sha256(prompt), 32)::UUID, prompt, i FROM pair ORDER BY i",
        "INSERT INTO response SELECT 2 * i + k, left(sha256(t), 32)::UUID, t FROM "
        "(SELECT i, 0 AS k, a AS t FROM pair UNION ALL SELECT i, 1, b FROM pair) ORDER BY i, k",
        "INSERT INTO unit SELECT i, left(sha256(prompt || a || b), 32)::UUID, 'pair', i, "
        "CASE WHEN sha256(a) < sha256(b) THEN [2 * i, 2 * i + 1] ELSE [2 * i + 1, 2 * i] END, NULL, NULL, NULL, NULL, "
        "NULL, NULL "
        "FROM pair ORDER BY i",
        "INSERT INTO unit_source SELECT i, 1, i + 1, 'row-' || i, NULL, NULL, NULL, [1, 2], NULL FROM pair ORDER BY i",
        "INSERT INTO example SELECT i, left(sha256('example' || prompt || a || b), 32)::UUID, i, 'generated', "
        "[1.0, 0.0], [0, 1], NULL, NULL, NULL, 1 FROM pair ORDER BY i",
    ):
        connection.execute(statement).fetchall()


def commit_history(connection: duckdb.DuckDBPyConnection, n_pairs: int) -> int:
    """Commit dataset `bench`: nine in ten of the pairs, then ten versions as `HISTORY` says; the first version's id."""
    connection.execute(
        "INSERT INTO example SELECT $1 + unit_id // 50, left(sha256('other' || unit_id), 32)::UUID, unit_id, "
        "'generated', [0.0, 1.0], [1, 0], NULL, NULL, NULL, 1 FROM unit WHERE unit_id % 50 = 7 ORDER BY unit_id",
        [n_pairs],
    ).fetchall()
    known, step = n_pairs * 9 // 10, max(n_pairs // 500, 1)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE state AS SELECT example_id, unit_id, example_id < ? AS here, "
        "if(example_id % 10 = 0, 'test', 'train') AS split, 1.0::DOUBLE AS weight FROM example",
        [known],
    ).fetchall()
    first = _commit_state(connection, 0)
    for number in range(1, N_VERSIONS + 1):
        connection.execute(HISTORY, {"number": number, "n_known": known, "n_new": known + step, "n_pairs": n_pairs})
        known += step
        _commit_state(connection, number)
    return first


def _commit_state(connection: duckdb.DuckDBPyConnection, number: int) -> int:
    rows = "(SELECT example_id, split, weight FROM state WHERE here)"
    commit(connection, "bench", rows, message=f"state {number}", author="bench")
    return resolve(connection, "bench")


def _file_bytes(connection: duckdb.DuckDBPyConnection) -> int:
    block_size, used = connection.execute("SELECT block_size, used_blocks FROM pragma_database_size()").fetchall()[0]
    return int(block_size) * int(used)


def _measure_history(connection: duckdb.DuckDBPyConnection, first: int, path: Path) -> dict[str, object]:
    query = "SELECT count(*), count(DISTINCT example_id) FROM delta WHERE version_id > ?"
    ops, rows = connection.execute(query, [first]).fetchall()[0]
    return {"history_mb": _history_bytes(connection, first, path) / 2**20, "ops": ops, "rows_with_ops": rows}


def _history_bytes(connection: duckdb.DuckDBPyConnection, first: int, path: Path) -> float:
    """What the deltas after the version `first` take in a file of their own at `path`, which is removed again."""
    connection.execute(f"ATTACH '{path}' AS copies (STORAGE_VERSION '{STORAGE_VERSION}')").fetchall()
    connection.execute("CREATE TABLE copies.delta AS FROM delta WHERE false").fetchall()
    for _ in range(_COPIES):
        for version_id in range(first + 1, first + 1 + N_VERSIONS):
            connection.execute(f"INSERT INTO copies.delta FROM delta WHERE version_id = {version_id}").fetchall()
    connection.execute("CHECKPOINT copies").fetchall()
    connection.execute("DETACH copies").fetchall()
    n_bytes = path.stat().st_size
    path.unlink()
    return n_bytes / _COPIES


def _measure_diff(connection: duckdb.DuckDBPyConnection, first: int, repeats: int) -> dict[str, object]:
    pairs = {"diff_v3_v9": (first + 2, first + 8), "diff_first_last": (first, first + N_VERSIONS)}
    works = [lambda old=old, new=new: diff(connection, old, new) for old, new in pairs.values()]
    times = _times_s(works, repeats)
    return {f"{name}_ms": _spread(taken, 1000) for name, taken in zip(pairs, times, strict=True)}


def _measure_checkout(connection: duckdb.DuckDBPyConnection, repeats: int) -> dict[str, object]:
    version_id = resolve(connection, "bench")
    small = "(SELECT example_id, 'train' AS split, 1.0 AS weight FROM example WHERE hash(example_id) % 1000 = 0)"
    commit(connection, "small", small, message="a thousandth", author="bench")
    small_id = resolve(connection, "small")
    connection.execute(f"CREATE TABLE bench_rows AS FROM {members(connection, version_id)}").fetchall()
    works = {
        "checkout": lambda: checkout(connection, version_id),
        "sql_ordered": lambda: connection.sql(HAND_WRITTEN + " ORDER BY e.h").to_arrow_table(),
        "sql_unordered": lambda: connection.sql(HAND_WRITTEN).to_arrow_table(),
        "checkout_small": lambda: checkout(connection, small_id),
    }
    result = {
        f"{name}_s": _spread(taken, 1) for name, taken in zip(works, _times_s(works.values(), repeats), strict=True)
    }
    ours = result["checkout_s"][0]
    return result | {
        "speed_over_ordered_sql": result["sql_ordered_s"][0] / ours,
        "speed_over_unordered_sql": result["sql_unordered_s"][0] / ours,
    }


def _spread(times_s: Sequence[float], scale: float) -> list[float]:
    """[median, fastest, slowest] of the times, scaled."""
    return [round(scale * time_s, 4) for time_s in (statistics.median(times_s), min(times_s), max(times_s))]


def _times_s(works: Iterable[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Times after one untimed round, the contestants taking turns, so that a slow moment of the machine meets all."""
    works = list(works)
    times: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for work, measured in zip(works, times, strict=True):
            started = time.perf_counter()
            work()
            if turn:
                measured.append(time.perf_counter() - started)
    return times
