"""Any table through --map, and the two lanes of plain pairs, which must agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.ingest.rows import CONFLICT, Shard, UnitStream
from data_pipelines.sources import find
from data_pipelines.sources.form import parse_map
from data_pipelines.sources.reading.lines import open_rows
from data_pipelines.sources.reading.streams import Item, Parsed
from data_pipelines.sources.recognize import Hints, recognize
from data_pipelines.sources.unit_builder import UnusableRowError
from rmkit.errors import DataError, UsageError
from tests.data_pipelines.sources.readings import read


def run(
    items: list[Item],
    *,
    roles: dict[str, str] | None = None,
    tables: Any = None,
    fast: bool = True,
    rater: str | None = None,
) -> tuple[list[dict[str, Any]], UnitStream]:
    """The units of items, or of tables, by the bulk route where it is open, or row by row."""
    sample = [item.value for item in items if isinstance(item, Parsed)] or [pair(id=1, split="train", n=[1])]
    plan = recognize(sample, path="f", hints=Hints(roles=roles or {}))
    stream = UnitStream([Shard("f", plan if fast else replace(plan, fast=None), items, tables)], path="f", rater=rater)
    units = [unit for batch in stream.batches() for unit in batch.to_pylist()]
    return sorted(units, key=lambda unit: unit["line"]), stream


def rows(*values: dict[str, Any]) -> list[Item]:
    return [Parsed(line, value) for line, value in enumerate(values, 1)]


def pair(**changes: Any) -> dict[str, Any]:
    return {"prompt": "A color?", "chosen": "Red.", "rejected": "Sea.", **changes}


def test_a_map_names_columns() -> None:
    assert parse_map("prompt=question, chosen=better.text,rejected=prompt") == {
        "prompt": "question",
        "chosen": "better.text",
        "rejected": "prompt",
    }


@pytest.mark.parametrize("text", ["prompt", "color=x", "prompt=", "prompt=a,prompt=b", "prompt=[", "score.=x"])
def test_a_bad_map_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_map(text)


def test_a_mapped_csv_of_votes(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text('q,l,r,w,who,why\n"A color?",Red.,Sea.,model_b,ann,blue\n"A color?",Red.,Sea.,tie,bob,\n')
    units = read(path, roles=parse_map("prompt=q,response_a=l,response_b=r,preference=w")).units
    assert [(u["line"], u["judgments"][0]["rater"], u["judgments"][0]["ranks"]) for u in units] == [
        (2, "ann", [1, 0]),
        (3, "bob", [0, 0]),
    ]
    assert units[0]["judgments"][0]["rationale"] == "blue"


def test_lists_from_json_texts_and_both_directions_of_ranking() -> None:
    row = {"prompt": '[{"role": "user", "content": "Hi"}]', "responses": '["a", "b", "c"]', "scores": "[1, null, 3]"}
    ((unit,), _) = run(rows(row))
    assert (unit["kind"], unit["judgments"][0]["ranks"]) == ("list", [1, None, 0])
    assert json.loads(unit["prompt"])[0]["content"] == "Hi"
    ((unit,), _) = run(rows({**row, "scores": None, "ranks": [1, 2, 1], "models": ["m", "n", "o"]}))
    assert (unit["judgments"][0]["ranks"], unit["responses"][1]["generator"]) == ([0, 1, 0], "n")
    with pytest.raises(UnusableRowError, match="different lengths"):
        list(find("generic").units({**row, "responses": ["a", "b"], "scores": [1]}))


def test_responses_of_several_turns_stand_under_messages() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"at": "a"}}}
    turns = [{"role": "assistant", "content": "I look.", "tool_calls": [call]}]
    turns += [{"role": "tool", "content": "4", "tool_call_id": "c1"}, {"role": "assistant", "content": "Four."}]
    row = {
        "prompt": "Count.",
        "responses": [{"messages": turns, "score": 1, "model": "m"}, {"text": "Five.", "score": 0}],
    }
    ((unit,), _) = run(rows(row))
    first = next(one for one in unit["responses"] if one["generator"] == "m")
    assert [turn["role"] for turn in json.loads(first["messages"])] == ["assistant", "tool", "assistant"]
    assert json.loads(first["messages"])[0]["tool_calls"][0]["function"]["name"] == "look"
    assert unit["judgments"][0]["ranks"] == [0, 1]


def test_arena_talks_share_their_prompt() -> None:
    talk = [{"role": "user", "content": "Hi"}]
    row = {
        "response_a": [*talk, {"role": "assistant", "content": "Yo"}],
        "response_b": [*talk, {"role": "assistant", "content": "Hey"}],
        "preference": "tie (bothbad)",
    }
    (unit,) = find("generic").units(row)
    assert json.loads(unit["prompt"]) == talk
    assert unit["judgments"][0]["ranks"] == [0, 0]


@pytest.mark.parametrize("value", ["0", "1", 1, "-1", "neither of them", True])
def test_a_preference_that_could_mean_either_side_is_refused(value: object) -> None:
    with pytest.raises(UnusableRowError, match="preference is not a, b or tie"):
        list(find("generic").units({"prompt": "A?", "response_a": "x", "response_b": "y", "preference": value}))


def test_both_lanes_make_the_same_units() -> None:
    values = [
        pair(id="1", subset="s", split="validation", extra={"k": [1]}),
        pair(id="2", chosen='  two\nlines \x01 \u2028 "quoted" \\ '),
        pair(id="3", rejected=" … "),
        pair(id="4", chosen="Sea."),
        pair(id="5", prompt=""),
        pair(id="6", chosen=7),
        pair(id="7", rejected=None),
        pair(id="8", prompt="\u00a0\t"),
        pair(id="9", license="MIT"),
    ]
    fast, one = run(rows(*values))
    slow, other = run(rows(*values), fast=False)
    assert fast == slow
    assert [unit["source_row"] for unit in fast] == ["1", "2", "3", "6", "9"]
    assert one.n_lines == other.n_lines == 9
    assert one.reasons == other.reasons
    assert sum(one.reasons.values()) == one.n_rejected == 4


def test_a_parquet_file_takes_the_same_lane(tmp_path: Path) -> None:
    values = [
        pair(id=1, split="validation", n=[1]),
        pair(id=2, rejected=" … ", n=None),
        pair(id=3, chosen="Sea."),
        pair(id=4, prompt=None),
        pair(id=1, chosen="Blue."),
        pair(id=5, split=""),
        pair(id=1, split="validation", n=[1]),
    ]
    table = pa.Table.from_pylist(values)
    bad = pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(table, tmp_path / "f.parquet")
    pq.write_table(pa.table({"prompt": bad, "chosen": ["a", "b"], "rejected": ["c", "d"]}), tmp_path / "bad.parquet")
    direct, one = run([], tables=opened(tmp_path / "f.parquet"))
    slow, other = run(rows(*values), fast=False)
    assert direct == slow
    assert (one.n_lines, one.reasons) == (other.n_lines, other.reasons)
    assert [unit["line"] for unit in direct] == [1, 2, 6, 7]
    units, stream = run([], tables=opened(tmp_path / "bad.parquet"))
    assert ([unit["line"] for unit in units], stream.reasons) == ([1], {"invalid UTF-8": 1})


@pytest.mark.parametrize(
    "odd", [{"prompt": "[1]"}, {"margin": 2.0}, {"id": 1.5}, {"chosen": [1]}, {"license": ["MIT"]}]
)
def test_tables_with_anything_special_go_row_by_row(tmp_path: Path, odd: dict[str, Any]) -> None:
    pq.write_table(pa.Table.from_pylist([{**pair(), **odd}] * 2), tmp_path / "f.parquet")
    values = [item.value for item in open_rows(tmp_path / "f.parquet").items if isinstance(item, Parsed)]
    slow, one = run(rows(pair(), *values), fast=False)
    tables = [pa.Table.from_pylist([pair()]), *opened(tmp_path / "f.parquet")]
    direct, other = run([], tables=tables)
    assert [unit["responses"] for unit in direct] == [unit["responses"] for unit in slow]
    assert one.reasons == other.reasons


def test_conversational_tables_agree_too(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "A color?"}]
    red, sea = ({"role": "assistant", "content": text} for text in ("Red.", "Sea."))
    values = [
        {"prompt": talk, "chosen": [red], "rejected": [sea]},
        {"prompt": talk, "chosen": [*talk, red], "rejected": [*talk, sea]},
        {"prompt": [*talk, red], "chosen": [red], "rejected": [sea]},
        {"prompt": [{"role": "human", "content": "A color?"}], "chosen": [sea], "rejected": [red]},
        {"prompt": talk, "chosen": [red], "rejected": [red]},
    ]
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "f.parquet")
    direct, one = run([], tables=opened(tmp_path / "f.parquet"))
    slow, other = run(rows(*values), fast=False)
    assert direct == slow
    assert [unit["line"] for unit in direct] == [1, 2, 4]
    assert one.reasons == other.reasons == {"the prompt does not end with a user turn": 1, "identical responses": 1}


def opened(path: Path) -> Any:
    return open_rows(path).tables


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=6)] * 3), min_size=1, max_size=8))
def test_both_lanes_agree_on_any_text(texts: list[tuple[str, str, str]]) -> None:
    values = [pair(prompt="A?", chosen="c", rejected="r"), *(pair(prompt=p, chosen=c, rejected=r) for p, c, r in texts)]
    fast, one = run(rows(*values))
    slow, other = run(rows(*values), fast=False)
    assert fast == slow
    assert (one.n_lines, one.reasons) == (other.n_lines, other.reasons) == (len(values), other.reasons)


def test_the_second_of_two_rows_with_one_id_must_say_the_same() -> None:
    values = [pair(id="1"), pair(id="1"), pair(id="1", chosen="Blue."), pair(id=2), pair(id="2", chosen=None)]
    units, stream = run(rows(*values))
    assert [unit["line"] for unit in units] == [1, 2, 4]
    assert stream.reasons == {CONFLICT: 1, "missing field chosen": 1}
    (first, *_) = stream.rejects().to_pylist()
    assert (first["line"], first["source_row"]) in [(3, "1"), (5, "2")]


def test_unstated_raters_get_the_name_that_was_given() -> None:
    units, _ = run(rows(pair(), pair(margin=2)), rater="gpt-4:llm")
    assert {(j["rater"], j["rater_kind"]) for unit in units for j in unit["judgments"]} == {("gpt-4", "llm")}
    units, _ = run(rows(pair()))
    assert units[0]["judgments"][0]["rater"] == "unstated"


def test_nothing_usable_names_the_top_reasons() -> None:
    with pytest.raises(DataError, match=r"f: nothing usable in 3 rows \(empty prompt: 2; identical responses: 1\)"):
        run(rows(pair(prompt=""), pair(prompt=" "), pair(chosen="Sea.")))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": []}, "empty prompt"),
        ({"prompt": 5}, "neither text nor a list"),
        ({"prompt": [{"role": "system", "content": "Be nice."}]}, "no user turn"),
        ({"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "end with a user turn"),
        ({"prompt": [{"role": "user", "content": None}]}, "a turn has no content"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "only text can be scored"),
        ({"prompt": ["a", "b"]}, "whose turns they are is not said"),
        ({"prompt": [{"role": ["user"], "content": "a"}]}, "a turn has no role"),
        ({"chosen": [{"role": "user", "content": "a"}]}, "assistant turns"),
        ({"chosen": "\n"}, "empty response"),
        ({"chosen": {"n": 1}}, "none of its fields is named like a text"),
        ({"margin": "big"}, "margin is not a number"),
        ({"margin": 10**400}, "out of range"),
        ({"rejected": "Red."}, "identical responses"),
    ],
)
def test_each_fault_of_a_pair_has_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        list(find("trl").units(pair(**changes)))


def test_parts_tool_turns_and_other_spellings_are_read() -> None:
    prompt = [
        {"from": "human", "value": "What is 2+2?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"a": 2}}]},
        {"role": "tool", "content": [{"type": "text", "text": "4"}], "tool_call_id": "c1"},
    ]
    (unit,) = find("trl").units(pair(prompt=prompt))
    assert [turn["role"] for turn in json.loads(unit["prompt"])] == ["user", "assistant", "tool"]
    assert json.loads(unit["prompt"])[2] == {"content": "4", "role": "tool", "tool_call_id": "c1"}


def test_meta_keeps_what_pandas_and_parquet_write() -> None:
    (unit,) = find("trl").units(pair(points=float("nan"), when=pa.scalar(0, pa.timestamp("s")).as_py()))
    assert json.loads(unit["meta"]) == {"points": None, "when": "1970-01-01 00:00:00"}
