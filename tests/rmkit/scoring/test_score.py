"""`rmkit score`: forms of rows, bad rows, resuming after kill -9 to the same bytes, refusing what does not belong."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmkit.errors import BusyError, DataError, UsageError
from rmkit.scoring import command as score
from rmkit.scoring.rows import candidates_of, open_source
from rmkit.scoring.score_file import open_scores
from rmkit.training import command as train
from rmkit.types import Message
from tests.exports import kind_rows, write_export

USER = {"role": "user", "content": "tell me about eggs"}


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def lexical(home: Path, tmp_path: Path) -> str:
    data = write_export(tmp_path / "data", kind_rows(200))
    return str(train.train("lexical", str(data), output=tmp_path / "lexical", values={"hash_bits": 10})["path"])


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"prompt": "p", "response": "a"}, ["a"]),
        ({"prompt": "p", "completion": [{"role": "assistant", "content": "a"}]}, ["a"]),
        (
            {"prompt": "p", "responses": ["a", {"text": "b"}, {"messages": [{"role": "assistant", "content": "c"}]}]},
            ["a", "b", "c"],
        ),
        ({"prompt": [USER], "chosen": "good", "rejected": "bad"}, ["good", "bad"]),
        ({"prompt": "p", "response_a": "a", "response_b": "b", "labels": []}, ["a", "b"]),
        ({"prompt": "p", "steps": ["one", "two"], "labels": [1, 0]}, ["one\n\ntwo"]),
        ({"messages": [USER, {"role": "assistant", "content": "a"}]}, ["a"]),
    ],
)
def test_every_documented_form_is_read(row: dict[str, Any], texts: list[str]) -> None:
    found = candidates_of(row)
    assert [completion.text for completion in found.completions] == texts
    assert found.prompt[-1].role == "user"


def test_steps_keep_their_ends_and_turns_their_order() -> None:
    assert candidates_of({"prompt": "p", "steps": ["one", "two!"]}).completions[0].step_ends == (3, 9)
    turns = [USER, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    found = candidates_of({"messages": [*turns, {"role": "assistant", "content": "c"}]})
    assert found.prompt == (Message("user", USER["content"]), Message("assistant", "a"), Message("user", "b"))
    assert found.completions[0].text == "c"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, ((), None, ())),
        (
            {"tools": [{"name": "add"}], "reference": 72},
            (({"type": "function", "function": {"name": "add"}},), "72", ()),
        ),
        (
            {"tools": '[{"name": "add"}]', "rubric": "is brief"},
            (({"type": "function", "function": {"name": "add"}},), None, ({"criterion": "is brief"},)),
        ),
        ({"rubric": [{"criterion": "a"}], "reference": ""}, ((), "", ({"criterion": "a"},))),
    ],
)
def test_what_belongs_to_the_prompt_reaches_the_model(facts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    turns = {"messages": [USER, {"role": "assistant", "content": "a", "reasoning": "hm"}]}
    for row in ({"prompt": "p", "response": "a"}, turns):
        found = candidates_of(row | facts)
        assert (found.tools, found.reference, found.rubric) == expected
    assert found.completions[0].messages[0].reasoning == "hm"


BAD = [
    ({"prompt": "p", "response": "a", "tools": "add"}, "tools must be a list of objects"),
    ({"prompt": "p", "response": "a", "reference": ["72"]}, "reference must be a text or a number"),
    ("{not json", "not JSON"),
    ("[1]", "not a JSON object"),
    ({"response": "a"}, "no prompt"),
    ({"prompt": "p"}, "no response"),
    ({"prompt": 3, "response": "a"}, "neither text nor a list of turns"),
    ({"prompt": "p", "response": 3}, "neither text nor a list of turns"),
    ({"prompt": "p", "steps": ["a", ""]}, "empty step"),
    ({"messages": [USER]}, "does not end with an assistant"),
    ({"prompt": [{"role": "user"}], "response": "a"}, "a turn has no content"),
    ({"prompt": "p", "responses": "text"}, "responses must be a list"),
]


def test_a_bad_row_keeps_its_place_and_says_why(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "p", "response": "abc", "id": "first"},
        *(row for row, _ in BAD),
        {"prompt": "p", "response": " "},
    ]
    data = write_lines(tmp_path / "rows.jsonl", rows)
    assert score.main(["length", str(data), "-o", str(tmp_path / "out.jsonl"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    lines = read(tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == ["first", *(str(n) for n in range(2, len(rows) + 1))]
    assert lines[0]["unscored"] is None
    assert lines[0]["scores"][0]["value"] == pytest.approx(1.3862943611)  # ln(1 + 3)
    assert set(lines[0]["scores"][0]) == {
        "value", "normalized", "std", "steps", "aspects", "rationale", "truncated", "unscored"
    }  # fmt: skip
    for line, (_, reason) in zip(lines[1:-1], BAD, strict=True):
        assert reason in line["unscored"]
        assert line["scores"] == []
    assert lines[-1]["scores"][0]["value"] is None
    assert "no assistant text" in lines[-1]["scores"][0]["unscored"]
    assert (told["items"], told["responses"], told["scored"]) == (len(rows), 2, 1)
    assert sum(told["unscored"].values()) == len(rows) - 1


def test_gzip_parquet_and_exports_give_the_same_scores(lexical: str, tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "prompt": "tell me", "responses": ["thank you", "stupid " * n]} for n in range(1, 6)]
    plain = write_lines(tmp_path / "rows.jsonl", rows)
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    found = []
    for number, source in enumerate((plain, packed, table)):
        out = tmp_path / f"out{number}.jsonl"
        assert score.main([lexical, str(source), "-o", str(out)]) == 0
        found.append(out.read_bytes())
    assert found[0] == found[1] == found[2]
    assert score.main([lexical, str(tmp_path / "data"), "--split", "test", "-o", str(tmp_path / "export.jsonl")]) == 0
    lines = read(tmp_path / "export.jsonl")
    assert len(lines) == sum(row["split"] == "test" for row in kind_rows(200))
    assert all(len(line["scores"]) == 2 for line in lines)


def test_a_cut_off_gzip_file_keeps_what_came_before(home: Path, tmp_path: Path) -> None:
    whole = gzip.compress(
        "".join(json.dumps({"prompt": "p", "response": os.urandom(40).hex()}) + "\n" for _ in range(300)).encode()
    )
    data = tmp_path / "cut.jsonl.gz"
    data.write_bytes(whole[: len(whole) // 2])
    asked = list(open_source(str(data)).rows())
    assert len(asked) > 50
    assert [one.fault is None for one in asked] == [True] * (len(asked) - 1) + [False]
    assert "cut off or damaged" in str(asked[-1].fault)


def test_a_missing_file_and_a_split_of_a_file_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_source(str(tmp_path / "nothing.jsonl"))
    data = write_lines(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "a"}])
    with pytest.raises(UsageError, match="a file is scored whole"):
        open_source(str(data), split="test")


SLOW_MODEL = """
import json, os, sys, time
from rmkit.models.small.length import LengthModel
import rmkit.scoring.command
class Slow(LengthModel):
    def score(self, batch):
        with open(os.environ["SEEN"], "a") as seen:
            seen.write("".join(item.completions[0].text + "\\n" for item in batch))
        time.sleep(float(os.environ["PAUSE"]))
        return super().score(batch)
rmkit.scoring.command.load_model = lambda *a, **k: Slow()
sys.exit(rmkit.scoring.command.main(sys.argv[1:]))
"""


def test_killed_and_run_again_gives_the_same_bytes_and_scores_nothing_twice(home: Path, tmp_path: Path) -> None:
    rows = [{"id": str(n), "prompt": "p", "response": f"answer {n} " + "x" * (n % 7)} for n in range(95)]
    rows[40] = {"id": "bad"}
    data = write_lines(tmp_path / "rows.jsonl", rows)

    def start(out: Path, *, pause: float, seen: Path) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SEEN": str(seen), "PAUSE": str(pause)}
        command = [sys.executable, "-c", SLOW_MODEL, "length", str(data), "-o", str(out), "--window", "10"]
        return subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL)

    unbroken = tmp_path / "unbroken.jsonl"
    assert start(unbroken, pause=0, seen=tmp_path / "seen0").wait() == 0
    out, seen, part = tmp_path / "out.jsonl", tmp_path / "seen1", tmp_path / "out.jsonl.part"
    process = start(out, pause=0.2, seen=seen)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (part.exists() and part.read_bytes().count(b"\n") >= 30):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    kept = part.read_bytes().count(b"\n")
    assert 30 <= kept < 95
    with part.open("ab") as file:
        file.write(b'{"id": "torn')  # the write that the kill cut off
    seen.unlink()
    assert start(out, pause=0, seen=seen).wait() == 0
    assert out.read_bytes() == unbroken.read_bytes()
    assert not part.exists()
    again = [line.split()[1] for line in seen.read_text().splitlines()]
    assert len(again) == len(set(again)) == 95 - kept - (kept <= 40)
    assert {int(n) for n in again} & set(range(kept)) == set()
    run = json.loads((tmp_path / "out.jsonl.run.json").read_text())
    assert run["finished"] is True
    assert run["counts"]["unscored"] == {"no prompt": 1}
    seen.unlink()
    assert start(out, pause=0, seen=seen).wait() == 0  # complete: nothing is asked
    assert not seen.exists()


def test_other_models_data_and_options_are_refused(lexical: str, tmp_path: Path, home: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [{"prompt": "p", "response": f"a {n}"} for n in range(5)])
    out = str(tmp_path / "out.jsonl")
    assert score.main(["length", str(data), "-o", out]) == 0
    with pytest.raises(UsageError, match="was begun with fingerprint"):
        score.main([lexical, str(data), "-o", out])
    with pytest.raises(UsageError, match="window 512; now it is window 2"):
        score.main(["length", str(data), "-o", out, "--window", "2"])
    before = Path(out).read_bytes()
    write_lines(data, [{"prompt": "p", "response": "other"}])
    with pytest.raises(UsageError, match="data_digest"):
        score.main(["length", str(data), "-o", out])
    assert Path(out).read_bytes() == before
    assert score.main([lexical, str(data), "-o", out, "--fresh"]) == 0
    assert len(read(Path(out))) == 1
    foreign = write_lines(tmp_path / "mine.jsonl", ["precious"])
    with pytest.raises(UsageError, match="no file of scores"):
        score.main(["length", str(data), "-o", str(foreign)])
    assert foreign.read_text() == "precious\n"


def test_two_processes_do_not_write_one_file(home: Path, tmp_path: Path) -> None:
    header = {"made_from": {"fingerprint": "f"}}
    opened = open_scores(tmp_path / "out.jsonl", header, window=4)
    refused = pytest.raises(BusyError, match="another process is writing")
    with open_scores(tmp_path / "out.jsonl", header, window=4), refused:
        opened.__enter__()


def test_options_of_transformers_are_refused_for_others(lexical: str, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "a"}])
    with pytest.raises(UsageError, match="a lexical model, which takes no precision"):
        score.main([lexical, str(data), "-o", str(tmp_path / "o.jsonl"), "--precision", "bf16"])
    with pytest.raises(UsageError, match="takes no max_batch_tokens"):
        score.main(
            [lexical, str(data), "-o", str(tmp_path / "o.jsonl"), "--precision", "fp32", "--max-batch-tokens", "9"]
        )
    assert score.main([lexical, str(data), "-o", str(tmp_path / "o.jsonl"), "--precision", "fp32"]) == 0
