"""Erasing: the text is gone from tables, checkouts and the file's bytes; hashes, digests and refusals stay."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from rmkit.data.example import EXAMPLE_SCHEMA
from rmkit.errors import UsageError
from rmkit.ids import assistant_message, content_hash, user_message
from rmkit.paths import warehouse_path
from warehouse.safety.erase import erase, main
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout, erased
from warehouse.versions.versions import commit
from warehouse.write.load import LoadReport, store_examples

Make = Callable[..., dict[str, Any]]
Load = Callable[..., LoadReport]


def texts(connection: duckdb.DuckDBPyConnection) -> set[str]:
    found = connection.sql("SELECT messages FROM prompt UNION ALL SELECT messages FROM response").fetchall()
    return {text for (text,) in found if text is not None}


def prompt_id(text: str) -> str:
    return content_hash(user_message(text))


def response_id(text: str) -> str:
    return content_hash(assistant_message(text))


def test_a_response_goes_from_every_row_that_uses_it(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make
) -> None:
    said = {"rater": "h", "ranks": [0, 1], "rationale": "x says it all", "edit": assistant_message("x!"), "extra": "{}"}
    version = load(
        [
            make_unit(1, "p", ["x", "y"], said, meta='{"quote":"x"}'),
            make_unit(2, "q", ["x", "z"], {"rater": "h", "ranks": [1, 0]}),
            make_unit(3, "q", ["y", "z"], said, meta='{"quote":"y"}'),
        ]
    ).version
    assert version is not None
    result = erase(connection, response_id("x")[:10], reason="asked", actor="dpo")
    assert (result["row"], result["part"]) == (response_id("x"), "response")
    assert result["erased"] == {"prompt": 0, "response": 1, "judgment": 1}
    assert (result["units"], result["examples"], result["first_in"]) == (2, 2, ["toy@v1"])
    assert texts(connection) == {user_message("p"), user_message("q"), assistant_message("y"), assistant_message("z")}
    assert (
        connection.sql(
            "SELECT edit, rationale, extra FROM judgment WHERE edit IS NULL AND ranks IS NOT NULL"
        ).fetchall()
        == [(None, None, None)] * 2
    )
    assert connection.sql("SELECT meta FROM unit_source ORDER BY line").fetchall() == [
        (None,),
        (None,),
        ('{"quote":"y"}',),
    ]
    graves = connection.sql("SELECT part, h, reason, actor FROM tombstone ORDER BY part").fetchall()
    assert [grave[0] for grave in graves] == ["edit", "rationale", "response"]
    assert graves[2][1:] == (uuid.UUID(response_id("x")), "asked", "dpo")
    left = checkout(connection, 1)
    assert [row["responses"] for row in left.to_pylist()] == [
        sorted([assistant_message("y"), assistant_message("z")], key=content_hash)
    ]
    assert erased(left) == 2


@pytest.mark.parametrize("table", ["example", "unit"])
def test_an_example_takes_prompt_and_responses_along(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make, table: str
) -> None:
    load([make_unit(1, "p", ["x", "y"]), make_unit(2, "q", ["z", "w"])])
    ((row,),) = connection.sql(f"SELECT h::VARCHAR FROM {table} ORDER BY unit_id LIMIT 1").fetchall()
    result = erase(connection, row, reason="r", actor="a")
    assert result["erased"] == {"prompt": 1, "response": 2, "judgment": 0}
    assert texts(connection) == {user_message("q"), assistant_message("z"), assistant_message("w")}


@pytest.mark.parametrize("start", ["rewritten", pytest.param("original", marks=pytest.mark.slow)])
def test_rewritten_versions_of_a_text_go_too(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make, start: str
) -> None:
    load([make_unit(1, " p ", ["x ", "y"]), make_unit(2, "other", ["x ", "z "])])
    rows = checkout(connection, 1).to_pylist()
    for row in rows:
        row["prompt"] = row["prompt"].replace(" ", "")
        row["responses"] = [text.replace(" ", "") for text in row["responses"]]
    name = store_examples(connection, pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), run_id=uuid.uuid4())
    commit(connection, "toy", name, message="normalized", author="t")
    assert assistant_message("x") in texts(connection)
    erase(connection, prompt_id(" p " if start == "original" else "p"), reason="r", actor="a")
    assert not {user_message(" p "), user_message("p")} & texts(connection)
    assert assistant_message("x") in texts(connection)
    erase(connection, response_id("x " if start == "original" else "x"), reason="r", actor="a")
    assert not {assistant_message("x "), assistant_message("x")} & texts(connection)
    assert user_message("other") in texts(connection)


def test_erased_text_cannot_come_back(connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make) -> None:
    units = [make_unit(1, "p", ["x", "y"]), make_unit(2, "q", ["x", "z"])]
    load(units)
    erase(connection, prompt_id("p"), reason="r", actor="a")
    quoting = make_unit(3, "fresh", ["u", "v"], {"ranks": [0, 1], "edit": user_message("p")}, source_row="id-3")
    report = load([*units, quoting, make_unit(4, "new", ["x", "y"])], sha="b" * 64)
    assert (report.n_lines, report.n_accepted, report.n_rejected) == (4, 2, 2)
    rejects = connection.sql("SELECT line, source_row, reason FROM reject ORDER BY line").fetchall()
    assert [(line, row) for line, row, _ in rejects] == [(1, None), (3, "id-3")]
    assert all("erased" in reason for _, _, reason in rejects)
    assert not {user_message("p"), user_message("fresh"), assistant_message("u")} & texts(connection)
    assert user_message("new") in texts(connection)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("abc", "8 to 32 hex digits"),
        ("zzzzzzzzzz", "hex digits"),
        ("0123456789", "no example, unit, prompt or response"),
    ],
)
def test_unusable_ids_are_refused(connection: duckdb.DuckDBPyConnection, row: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        erase(connection, row, reason="r", actor="a")


def test_an_ambiguous_prefix_names_the_candidates(connection: duckdb.DuckDBPyConnection) -> None:
    for last in "ab":
        connection.execute("INSERT INTO prompt VALUES (1, ?, '[]', 1)", ["12345678" + "0" * 23 + last]).fetchall()
    with pytest.raises(UsageError, match=f"ambiguous: prompt 12345678{'0' * 23}a, prompt 12345678"):
        erase(connection, "12345678", reason="r", actor="a")


@pytest.mark.parametrize("keep_file", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_bytes_leave_the_file(
    home: Path, load: Load, make_unit: Make, capsys: pytest.CaptureFixture[str], keep_file: bool
) -> None:
    """With --keep-file text stays readable in freed blocks: the reason why rewriting is the default.

    The secret is looked for where it is stored as it is, in a judgment and in meta; messages are compressed.
    """
    secret = secrets.token_hex(40)
    with open_warehouse() as connection:
        version = load(
            [
                make_unit(1, secret, ["x", "y"], {"rationale": f"because {secret}"}, meta=f'{{"quote":"{secret}"}}'),
                make_unit(2, "q", ["x", "y"]),
            ],
            into=connection,
        ).version
    assert secret.encode() in warehouse_path().read_bytes()
    assert main([prompt_id(secret), "--reason", "r", "--actor", "a", "--json", *["--keep-file"] * keep_file]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["file_rewritten"] is not keep_file
    assert any("ledger" in place for place in result["remains"])
    left = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert (secret.encode() in left) is keep_file
    assert [path.name for path in home.iterdir()] == ["warehouse.duckdb"]
    with open_warehouse() as connection:
        assert checkout(connection, 1)["prompt"].to_pylist() == [user_message("q")]
        assert connection.sql("SELECT digest FROM version").fetchall() == [(version and version.digest,)]
        assert connection.sql("SELECT kind, status FROM run WHERE kind = 'erase'").fetchall() == [("erase", "done")]
        load([make_unit(1, "after", ["x", "y"])], sha="b" * 64, into=connection)  # constraints and writing still work


def test_erase_without_a_warehouse_is_one_line(home: Path) -> None:
    from rmkit.cli.main import main as rmkit

    assert rmkit(["erase", "0123456789", "--reason", "r"]) == 2
    assert not home.exists()


def test_tools_and_reference_go_with_the_text(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make
) -> None:
    load([make_unit(n, f"q{n}", ["yes", "no"], tools='[{"name":"f"}]', reference="her street") for n in (1, 2)])
    erase(connection, content_hash(user_message("q1")), reason="asked", actor="t")
    rows = connection.execute("SELECT tools, reference FROM unit ORDER BY unit_id").fetchall()
    assert rows == [(None, None), ('[{"name":"f"}]', "her street")]
