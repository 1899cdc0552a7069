"""Dumps of searches through the commands: an agent's tree becomes pairs and labels of turns; what is no tree is
rejected with its line and reason, and the reasons are counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import ingest
from rmkit.cli.main import main
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve

Node = dict[str, Any]
ROOT: Node = {"id": 0, "parent": None, "step": ""}
CYCLE = "the nodes form a cycle"


def node(at: int, parent: int, step: str, **more: Any) -> Node:
    return {"id": at, "parent": parent, "step": step, "visits": 1, **more}


def end(at: int, parent: int, step: str, reward: float) -> Node:
    return node(at, parent, step, terminal=True, reward=reward)


GOOD = [ROOT, node(1, 0, "3 * 4 = 12"), end(2, 1, "2 + 12 = 14", 1), end(3, 1, "2 + 12 = 15", 0)]
BAD: dict[str, list[Node]] = {
    CYCLE: [ROOT, node(1, 2, "a"), node(2, 1, "b")],
    "a node's parent does not exist": [ROOT, node(1, 7, "a")],
    "a node's steps do not rebuild its state": [ROOT, node(1, 0, "a"), node(2, 1, "b", state="a c")],
    "a node's state does not begin with its parent's": [
        {"id": 0, "parent": None},
        {"id": 1, "parent": 0, "state": "a", "visits": 1},
        {"id": 2, "parent": 1, "state": "b", "visits": 1},
    ],
    "no end of the tree is verified": [ROOT, node(1, 0, "a"), node(2, 0, "b")],
    "two nodes share an id": [ROOT, node(1, 0, "a"), node(1, 0, "b")],
}


def written(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_what_is_no_tree_is_rejected_with_its_line_and_counted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = [GOOD, *BAD.values(), BAD[CYCLE], GOOD]
    lines = [{"prompt": f"Problem {n}", "nodes": nodes, "reference": "14"} for n, nodes in enumerate(trees)]
    report = ingest(written(tmp_path / "dump.jsonl", lines), dataset="searched")
    assert report.n_rejected == 7
    capsys.readouterr()
    assert main(["ingest", "--rejects", "searched", "--json"]) == 0
    rejects = json.loads(capsys.readouterr().out)["rejects"]
    assert Counter(one["reason"] for one in rejects) == Counter([*BAD, CYCLE])
    assert sorted(one["line"] for one in rejects) == [2, 3, 4, 5, 6, 7, 8]
    assert main(["convert", "tree_labels", "--data", "searched", "--out", "steps", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows_out"] == 4


def test_rows_of_which_no_tree_can_be_made_are_counted_by_reason(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rated = [{"text": "a\nb", "score": 1}, {"text": "a\nc", "score": 0}]
    aspects = [{"text": "a b", "scores": {"help": 1, "truth": 2}}, {"text": "a c", "scores": {"help": 2, "truth": 1}}]
    lines = [{"prompt": f"P {n}", "responses": responses} for n, responses in enumerate([rated, aspects, aspects])]
    ingest(written(tmp_path / "rows.jsonl", lines), dataset="rows")
    capsys.readouterr()
    assert main(["convert", "tree_labels", "--data", "rows", "--out", "steps", "--json"]) == 0
    [step] = json.loads(capsys.readouterr().out)["steps"]
    assert step["reasons"] == {"no rating 'correct' says what the responses are worth": 2}
    assert (step["n_kept"], step["facts"]["units"]) == (1, 2)


def turn(name: str, text: str = "") -> list[Node]:
    call = {"id": f"c-{name}", "type": "function", "function": {"name": name, "arguments": {}}}
    reply = {"role": "tool", "content": f"{name} done", "tool_call_id": f"c-{name}"}
    return [{"role": "assistant", "content": text, "tool_calls": [call]}, reply]


def test_the_tree_of_an_agent_becomes_pairs_and_labels_of_turns(home: Path, tmp_path: Path) -> None:
    """Three calls to success, two failed siblings at the first and one at the third, and an outage (TP-LLaMA)."""
    failed = {"terminal": True, "reward": 0}
    end: Node = {"messages": [{"role": "assistant", "content": "It is 7."}], "terminal": True, "reward": 1}
    third = [{"messages": turn("read", "I read it."), "children": [end]}, {"messages": turn("write")} | failed]
    first = {
        "messages": turn("find", "I search."),
        "visits": 9,
        "children": [{"messages": turn("open"), "children": third}],
    }
    others = [{"messages": turn("guess")} | failed, {"messages": turn("search")} | failed]
    others.append({"messages": turn("wait"), "terminal": "outage"})
    lines = [{"prompt": "What is in the file?", "tree": {"children": [first, *others]}}]
    report = ingest(written(tmp_path / "agent.jsonl", lines), dataset="agent")
    assert (report.n_rejected, report.n_units) == (0, 1)
    assert main(["convert", "tree_pairs", "--data", "agent", "--out", "pairs", "--set", "rule=on_path"]) == 0
    assert main(["convert", "tree_labels", "--data", "agent", "--out", "steps", "--set", "rule=any_correct"]) == 0
    with open_warehouse(read_only=True) as connection:
        pairs, steps = (
            checkout(connection, resolve(connection, name)).to_pylist() for name in ("pairs@v1", "steps@v1")
        )
    sides = [[_calls(row["responses"][row["ranks"].index(rank)]) for rank in (0, 1)] for row in pairs]
    assert sorted(sides) == [
        [["find"], ["guess"]],
        [["find"], ["search"]],
        [["find", "open", "read"], ["find", "open", "write"]],
    ]
    right = next(row for row in steps if "It is 7." in row["responses"][0])
    assert right["step_labels"] == [1, 1, 1]  # find, read and the answer have words, open has none
    assert {one["aspect"]: one["value"] for one in right["scores"]} == {"correct": 1} | {
        f"turn {n}": 1 for n in range(1, 5)
    }
    assert len(steps) == 4  # what met an outage says nothing


def _calls(text: str) -> list[str]:
    return [turn["tool_calls"][0]["function"]["name"] for turn in json.loads(text) if turn.get("tool_calls")]
