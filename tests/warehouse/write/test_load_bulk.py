"""The bulk route agrees with the row-by-row importer on every row it takes, and hands back the rest."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from data_pipelines.sources.unit_builder import UnusableRowError, pair, response
from rmkit.ids import assistant_message, messages_json, user_message
from rmkit.types import Message
from warehouse.write.bulk import pair_units
from warehouse.write.units import UNIT_SCHEMA

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # each example opens a DuckDB: shrinking takes minutes
TURN = pa.struct([("role", pa.string()), ("content", pa.string())])


def table(rows: list[dict[str, Any]], kind: pa.DataType, **more: list[str | None]) -> pa.Table:
    columns = {name: pa.array([row[name] for row in rows], kind) for name in ("prompt", "chosen", "rejected")}
    return pa.table({"line": pa.array(range(1, len(rows) + 1), pa.int64()), **columns, **more})


def taken(rows: list[dict[str, Any]], kind: pa.DataType) -> tuple[list[dict[str, Any]], list[int]]:
    units, rest = pair_units(table(rows, kind), rater="crowd")
    assert units.schema == UNIT_SCHEMA
    lines = units["line"].to_pylist()
    assert lines == sorted(lines)
    assert sorted(lines + rest["line"].to_pylist()) == list(range(1, len(rows) + 1))
    return units.to_pylist(), rest["line"].to_pylist()


def row_by_row(row: dict[str, Any]) -> dict[str, Any]:
    return pair(row["prompt"], response(row["chosen"]), response(row["rejected"]), rater="crowd")


def check(rows: list[dict[str, Any]], kind: pa.DataType) -> list[int]:
    """Every row taken is the unit that the importer would build; the lines handed back."""
    units, rest = taken(rows, kind)
    blank = dict.fromkeys(UNIT_SCHEMA.names)
    for unit in units:
        row = rows[unit["line"] - 1]
        expected = blank | row_by_row(row) | {"line": unit["line"]}
        assert unit == pa.Table.from_pylist([expected], schema=UNIT_SCHEMA).to_pylist()[0]
    return rest


def test_texts_by_hand() -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": " \n", "chosen": "a", "rejected": "b"},
        {"prompt": 'q\x00\x1f"\\é😀\u2028', "chosen": "ж", "rejected": "漢"},
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"prompt": "p", "chosen": None, "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": ""},
        {"prompt": "p", "chosen": "a ", "rejected": "a"},
    ]
    assert check(rows, pa.string()) == [2, 4, 5, 6]
    assert check(rows, pa.large_string()) == [2, 4, 5, 6]
    units, _ = taken(rows, pa.string())
    assert units[0]["prompt"] == user_message("p")
    assert [answer["messages"] for answer in units[0]["responses"]] == [assistant_message("a"), assistant_message("b")]
    (judgment,) = units[0]["judgments"]
    assert (judgment["rater"], judgment["rater_kind"], judgment["ranks"]) == ("crowd", "unknown", [0, 1])


def test_turns_by_hand() -> None:
    def turns(*pairs: tuple[str, str | None]) -> list[dict[str, str | None]]:
        return [{"role": role, "content": content} for role, content in pairs]

    answer, other = turns(("assistant", "a")), turns(("assistant", "b"))
    rows = [
        {"prompt": turns(("system", "s"), ("user", "u")), "chosen": answer, "rejected": other},
        {"prompt": turns(("human", "u")), "chosen": answer, "rejected": other},  # another spelling: row by row
        {"prompt": turns(("user", "u"), ("assistant", "x")), "chosen": answer, "rejected": other},
        {"prompt": turns(("user", "u")), "chosen": turns(("user", "a")), "rejected": other},
        {"prompt": turns(("user", "u")), "chosen": turns(("assistant", " ")), "rejected": other},
        {"prompt": turns(("user", None)), "chosen": answer, "rejected": other},
        {"prompt": [], "chosen": answer, "rejected": other},
        {"prompt": [None], "chosen": answer, "rejected": other},
        {
            "prompt": turns(("user", "u")),
            "chosen": turns(("assistant", "x"), ("tool", "1"), ("assistant", "y")),
            "rejected": other,
        },
    ]
    assert check(rows, pa.list_(TURN)) == [2, 3, 4, 5, 6, 7, 8]
    units, _ = taken(rows, pa.list_(TURN))
    assert units[0]["prompt"] == messages_json((Message("system", "s"), Message("user", "u")))


def test_what_is_passed_on() -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    given = {"source_row": ["7"], "subset": [None], "split": ["test"], "license": ["mit"], "meta": ['{"a":1}']}
    units, _ = pair_units(table(rows, pa.string(), **given), rater="gpt", rater_kind="llm")
    (unit,) = units.to_pylist()
    assert {name: [unit[name]] for name in given} == given
    assert unit["judgments"][0]["rater_kind"] == "llm"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2], pa.int64()),
        pa.Array.from_buffers(
            pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
        ),
        pa.array([[{"role": "user", "content": "u", "name": "n"}]] * 2),
    ],
    ids=["numbers", "not UTF-8", "turns with names"],
)
def test_columns_that_cannot_be_trusted_are_handed_back_whole(column: pa.Array) -> None:
    given = pa.table({"line": [1, 2], "prompt": column, "chosen": ["a", "b"], "rejected": ["c", "d"]})
    units, rest = pair_units(given, rater="crowd")
    assert (units.num_rows, rest.num_rows) == (0, 2)


texts = st.none() | st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=6)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool", "gpt"]), "content": texts}),
    max_size=3,
)


def _rows(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    row = st.fixed_dictionaries({"prompt": values, "chosen": values, "rejected": values})
    return st.lists(row, min_size=1, max_size=40)


@settings(max_examples=10, deadline=None, phases=NO_SHRINKING)
@given(rows=_rows(texts))
def test_any_texts_agree_with_the_importer(rows: list[dict[str, Any]]) -> None:
    rest = check(rows, pa.string())
    for line in rest:  # what is handed back though it is usable is only unusual (no letter, digit or ASCII sign)
        row = rows[line - 1]
        try:
            row_by_row(row)
        except UnusableRowError:
            continue
        assert not all(any(c.isalnum() or "!" <= c <= "~" for c in row[name]) for name in row)


@settings(max_examples=10, deadline=None, phases=NO_SHRINKING)
@given(rows=_rows(messages))
def test_any_turns_agree_with_the_importer(rows: list[dict[str, Any]]) -> None:
    check(rows, pa.list_(TURN))
