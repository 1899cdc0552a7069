"""Options of `rmkit ingest` that say how rows are to be read, each on small files, and what they refuse."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import main
from data_pipelines.sources import paths
from data_pipelines.sources.verdicts import Verdict, parse_values, verdict
from rmkit.errors import DataError, RmkitError, UsageError
from tests.data_pipelines.sources.readings import read, text, turns, votes


def put(path: Path, data: str | list[dict[str, Any]]) -> Path:
    content = data if isinstance(data, str) else "".join(json.dumps(row) + "\n" for row in data)
    path.write_text(content, encoding="utf-8")
    return path


ROW = {"a": {"b": [{"c": 1}, {"c": 2}]}, "x.y": 3, "r_1": "p", "r_2": "q", "r_10": "t", "h_a": 0, "h_b": "1", "n": None}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b[].c", [1, 2]),
        ("a.b[1].c", 2),
        ("x.y", 3),
        ("['x.y']", 3),
        ("r_{1..2}", ["p", "q"]),
        ("r_{10..12}", ["t"]),
        ("r_1+n+r_2", "p\nq"),
        ("r_1/n/r_2", "p/q"),
        ("n//r_2", "q"),
        ("h_a|h_b", "h_b"),
        ("a.z", paths.MISSING),
        ("n", None),
        ("z?", paths.MISSING),
    ],
)
def test_a_path_leads_to_its_place(path: str, value: Any) -> None:
    assert paths.value_at(ROW, paths.parse(path)) == value


@pytest.mark.parametrize("path", ["", "[0]", "a..b", "a[b", "r_{1..99999}"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        paths.parse(path)


@pytest.mark.parametrize(
    ("values", "label", "right"),
    [
        ("1=a,2=b,0=tie", 1, Verdict("a")),
        ("1=a,2=b,0=tie", "2.0", Verdict("b")),
        ("1=a,2=b,0=tie", "+1", Verdict("a")),
        ("-3..-1=a,0=tie,1..3=b", -2, Verdict("a", 2.0)),
        ("-3..-1=a,0=tie,1..3=b", "0", Verdict("tie")),
        ("-3..-1=a,0=tie,1..3=b", 0.5, None),
        ("-100=none,-3..-1=a", -100, Verdict("none")),
        ("soft=1..2", 1.95, Verdict("b", 0.95)),
        ("soft=1..2", 1.5, Verdict("tie", 0.5)),
        ("soft=0..1", 0.2, Verdict("a", 0.8)),
        ("A>B=b", "A>B", Verdict("b")),
        ("maybe=tie", "Maybe", Verdict("tie")),
        ("", 1, None),
        ("", True, None),
        ("", "", Verdict("none")),
    ],
)
def test_values_say_what_labels_mean(values: str, label: Any, right: Verdict | None) -> None:
    assert verdict(label, parse_values(values)) == right


@pytest.mark.parametrize("text", ["1=c", "=a", "soft=2..1", "1..x=a", "a"])
def test_values_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="--values takes"):
        parse_values(text)


def test_numbers_are_refused_with_their_counts_until_their_meaning_is_said(tmp_path: Path) -> None:
    rows = "prompt,response_a,response_b,label\n" + "".join(f"Bird {n}?,Yes.,No.,{n % 2}\n" for n in range(5))
    path = put(tmp_path / "x.csv", rows)
    with pytest.raises(
        DataError, match=r"values of label mean: '0' 3, '1' 2.*--map prompt=prompt.*--values '0=\?,1=\?'"
    ):
        read(path)
    assert votes(path, values="0=b,1=a")["Bird 1?"] == {"a": 1}
    told = {"prompt": "prompt", "response_a": "response_a", "response_b": "response_b", "preference": "label"}
    with pytest.raises(
        DataError, match=r"label holds '0' 3, '1' 2: numbers mean opposite things.*--values '0=\?,1=\?'"
    ):
        read(path, roles=told)


def test_a_column_a_rater(tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv", "q,left,right,ann,bob\nBird?,Yes.,No.,left,\nSea?,Red.,Black.,right,tie\n")
    result = read(path, wide=("ann", "b*"))
    raters = [[(j["rater"], j["ranks"]) for j in unit["judgments"]] for unit in result.units]
    assert raters == [[("ann", [0, 1])], [("ann", [1, 0]), ("bob", [0, 0])]]
    with pytest.raises(UsageError, match=r"no column matches 'zed' of --wide; there are: ann, bob, left, q, right"):
        read(path, wide=("zed",))


def test_texts_from_another_file(tmp_path: Path) -> None:
    judged = put(tmp_path / "votes.csv", "item,verdict,annotator\n1,a,ann\n2,b,ann\n3,a,bob\n")
    items = put(tmp_path / "items.jsonl", [
        {"item": "1", "prompt": "Bird?", "answer_1": "Yes.", "answer_2": "No."},
        {"item": 2, "prompt": "Sea?", "answer_1": "Red.", "answer_2": "Black."},
    ])  # fmt: skip
    result = read(judged, items=(str(items),), on="item")
    assert [turns(unit["prompt"])[0][1] for unit in result.units] == ["Bird?", "Sea?"]
    assert result.stream.reasons == {"no row of --items has this key": 1}
    with pytest.raises(UsageError, match="--on other: the rows have no such column"):
        read(judged, items=(str(items),), on="other")
    with pytest.raises(UsageError, match="--on names the columns that join --items"):
        read(judged, on="item")


def test_a_saved_map_reads_the_next_delivery_and_refuses_drift(home: Path, tmp_path: Path, capsys: Any) -> None:
    first = put(tmp_path / "one.csv", "q,l,r,pick,who\nBird?,Yes.,No.,1,ann\nSea?,Red.,Black.,2,bob\n")
    saved = tmp_path / "map.toml"
    told = ["--map", "prompt=q,response_a=l,response_b=r,preference=pick", "--values", "1=a,2=b"]
    assert main([str(first), *told, "--save-map", str(saved)]) == 0
    second = put(tmp_path / "two.csv", "q,l,r,pick,who\nLake?,Big.,Small.,2,cyd\n")
    assert main([str(second), "--use-map", str(saved), "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    assert (facts["labels"], facts["units"]) == ({"b": 1}, 1)
    for rows, reason in (
        ("q,l,pick,who\nLake?,Big.,2,cyd\n", "no column r"),
        ("q,l,r,pick,who\nLake?,Big.,Small.,3,cyd\n", "3"),
    ):
        with pytest.raises(RmkitError, match=reason):
            main([str(put(tmp_path / "three.csv", rows)), "--use-map", str(saved)])


def test_stdin_and_a_dry_run_store_nothing(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(
        json.dumps({"prompt": f"{n}?", "chosen": "a", "rejected": "b", "rater": "gpt-4"}) + "\n" for n in range(3)
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows.encode())))
    assert main(["-", "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["rows"], facts["units"], facts["labels"], facts["raters"]) == (
        3,
        {"pair": 3},
        {"a": 3},
        {"unknown": 1},
    )
    assert ["rater", "1 distinct, name", "gpt-4"] in [
        [one["role"], one["why"], one["sample"]] for one in facts["reading"]["columns"]
    ]
    assert not home.exists()


def test_a_signed_scale_may_follow_its_option(home: Path, tmp_path: Path, capsys: Any) -> None:
    path = put(tmp_path / "x.csv", "prompt,response_a,response_b,preference\nBird?,Yes.,No.,-2\nSea?,Red.,Black.,1\n")
    assert main([str(path), "--values", "-3..-1=a,0=tie,1..3=b", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == {"a": 1, "b": 1}


def test_a_survey_question_is_a_column(tmp_path: Path) -> None:
    label = "Which is better (1/2)?"
    path = put(tmp_path / "x.csv", f"Asked?,One (A/B),Other,{label}\nBird?,Yes.,No.,2\nSea?,Red.,Black.,1\n")
    roles = {"prompt": "Asked?", "response_a": "One (A/B)", "response_b": "Other", "preference": label}
    assert votes(path, roles=roles, values="1=a,2=b") == {"Bird?": {"b": 1}, "Sea?": {"a": 1}}


def test_a_kind_of_raters_is_a_kind_or_a_column(tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv", "prompt,response_a,response_b,preference,by,what\nBird?,Yes.,No.,a,ann,LLM\n")
    for said, kind in (("llm", "llm"), ("what", "llm"), ("human", "human"), (None, "unknown")):
        (unit,) = read(path, rater_kind=said).units
        assert [(j["rater"], j["rater_kind"]) for j in unit["judgments"]] == [("ann", kind)]
    with pytest.raises(
        UsageError, match=r"--rater-kind takes human, llm.* or a column that says it, got 'zebra'; it has:"
    ):
        read(path, rater_kind="zebra")


def test_nothing_on_stdin_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(DataError, match=r"^-: nothing came in by stdin$"):
        main(["-"])


def test_rows_that_lie_deeper_are_pointed_at(tmp_path: Path) -> None:
    rows = [{"prompt": "Bird?", "chosen": "Yes.", "rejected": "No."}]
    path = put(tmp_path / "x.json", json.dumps({"about": {"version": 1}, "body": {"pairs": rows}}))
    with pytest.raises(DataError, match=r"rows may lie deeper: --records body.pairs$"):
        read(path)
    assert len(read(path, records="body.pairs").units) == 1


def test_western_text_is_offered_the_usual_code_page_first(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("prompt,chosen,rejected\nGröße à Paris?,Groß.,Très petit.\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"not UTF-8: it may be cp1252.*--encoding cp1252 reads it as that"):
        read(path)
    assert turns(read(path, encoding="cp1252").units[0]["prompt"]) == [["user", "Größe à Paris?"]]


def test_many_rejected_rows_stop_a_load_before_it_stores(home: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "chosen": "a", "rejected": "a" if n % 3 else "b"} for n in range(30)]
    path = put(tmp_path / "x.jsonl", rows)
    with pytest.raises(
        DataError, match=r"20 of 30 rows are rejected \(identical responses: 20\); look with --dry-run, --yes"
    ):
        main([str(path)])
    assert main([str(path), "--yes"]) == 0


def test_an_answer_letter_and_lists_of_options(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "Bird?", "choices": ["Ostrich", "Stone"], "answer": "B"},
        {"question": "Sea?", "choices": ["Red", "Sand"], "answer": "Red"},
        {"question": "Lake?", "choices": ["Big", "Dry"], "answer": 1},
    ]
    result = read(put(tmp_path / "x.jsonl", rows))
    assert [unit["judgments"][0]["ranks"] for unit in result.units] == [[1, 0], [0, 1]]
    assert result.stream.reasons == {"the answer is neither a letter nor the text of one option": 1}


def test_reasoning_and_tools_are_part_of_what_is_said(tmp_path: Path) -> None:
    def reply(**more: Any) -> list[dict[str, Any]]:
        return [{"role": "assistant", "content": "7", **more}]

    call = [{"type": "function", "function": {"name": "add", "arguments": "{}"}}]
    rows = [
        {"prompt": "3+4?", "chosen": reply(reasoning_content="3 and 4"), "rejected": reply(reasoning_content="guess")},
        {"prompt": "3+4?", "chosen": reply(tool_calls=call), "rejected": reply()},
        {"prompt": "3+4?", "chosen": reply(), "rejected": reply()},
    ]
    result = read(put(tmp_path / "x.jsonl", rows))
    assert len(result.units) == 2
    assert json.loads(result.units[0]["responses"][0]["messages"])[0]["reasoning"] == "3 and 4"
    assert result.stream.reasons == {"identical responses": 1}


def test_python_literals_in_cells_are_what_they_hold(tmp_path: Path) -> None:
    talk = "[{'role': 'user', 'content': 'It''s a bird?'}]".replace("''", "\\'")
    side = "[{{'role': 'assistant', 'content': '{}'}}]"
    path = put(tmp_path / "x.csv", f'prompt,chosen,rejected\n"{talk}","{side.format("Yes.")}","{side.format("No.")}"\n')
    (unit,) = read(path).units
    assert (turns(unit["prompt"]), text(unit["responses"][1])) == ([["user", "It's a bird?"]], "No.")


def test_a_table_of_unknown_columns_needs_its_numbers_said_and_nothing_more(tmp_path: Path) -> None:
    lines = [
        f"2026-03-0{1 + n}T10:00:00Z,ana,Which is number {n}?,It is {n}.,It is {n + 1}.,{n % 3},{n + 4}"
        for n in range(6)
    ]
    path = put(tmp_path / "x.csv", "ts,coder,ask,reply_1,reply_2,pick,secs\n" + "\n".join(lines) + "\n")
    with pytest.raises(
        DataError, match=r"not clear: what the values of pick mean: '0' 2, '1' 2, '2' 2. Seen: .*prompt=ask"
    ):
        read(path)
    (first, *_) = read(path, values="0=tie,1=a,2=b").units
    (judgment,) = first["judgments"]
    assert (judgment["rater"], judgment["rater_kind"], judgment["ranks"], judgment["active_ms"]) == (
        "ana",
        "human",
        [0, 0],
        4000,
    )
    assert str(judgment["time"]).startswith("2026-03-01 10:00")
    assert turns(first["prompt"]) == [["user", "Which is number 0?"]]


def test_detection_does_not_depend_on_the_order_of_columns_and_rows(tmp_path: Path) -> None:
    rows = [
        {"who": f"w{n % 3}", "verdict": ("left", "right", "tie")[n % 3], "ms": n, "left_answer": f"L {n}.",
        "right_answer": f"R {n}.",
         "question": f"Which is number {n}?"}
        for n in range(12)
    ]  # fmt: skip
    seen: Counter[str] = Counter()
    for order in (rows, rows[::-1], [dict(reversed(row.items())) for row in rows[5:] + rows[:5]]):
        result = read(put(tmp_path / "x.jsonl", order))
        plan = result.opened.shards[0].plan
        judged = sorted((turns(unit["prompt"])[0][1], unit["judgments"][0]["ranks"]) for unit in result.units)
        seen[json.dumps([plan.name, sorted((plan.form.roles if plan.form else {}).items()), judged])] += 1
    assert list(seen.values()) == [3]
