"""`rmkit judge` as a user runs it: on a version, within a budget, into the judgment table, resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from data_pipelines import sample
from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from rmkit.cli import main as cli
from tests.exports import KIND, kind_rows, write_export
from warehouse.sql import run
from warehouse.store import open_warehouse


def kinder(asked: dict[str, Any]) -> Reply:
    """Prefers the response with more kind words."""
    text = asked["messages"][-1]["content"]
    first, second = (part.split("</response")[0] for part in text.split("<response-")[1:])
    kind = [sum(part.count(word) for word in KIND) for part in (first, second)]
    return Reply(text=f"Verdict: {'A' if kind[0] > kind[1] else 'B'}", prompt_tokens=500, completion_tokens=100)


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint(kinder) as started:
        yield started


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RMKIT_LEDGER", raising=False)
    return tmp_path / "home"


@pytest.fixture
def judge(endpoint: ScriptedEndpoint, tmp_path: Path) -> Path:
    path = tmp_path / "judge.toml"
    path.write_text(
        '[judge]\nname = "kind judge"\nverdict = "parse"\nmax_tokens = 200\n[generator]\nmodel = "m"\n'
        f'base_url = "{endpoint.base_url}"\nprompt_price = 1.0\ncompletion_price = 10.0\n'
    )
    return path


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export", kind_rows(20))


def call(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = cli.call("judge", ["run", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_report_tells_what_was_read_and_what_it_cost(
    home: Path, judge: Path, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "verdicts.jsonl"
    status, report = call(judge, export, "-o", output, capsys=capsys)
    assert status == 0
    told = report["judging"]
    assert (told["items"], told["calls"], told["paid_calls"], told["parse_rate"]) == (20, 40, 40, 1.0)
    assert (told["prompt_tokens"], told["completion_tokens"]) == (20_000, 4_000)
    assert told["usd"] == pytest.approx(0.06)
    assert (report["unscored"], told["swap_gap"], report["dataset"]) == (0, 0.0, "made@v1")
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    rows = kind_rows(20)
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert [line["p_first"] for line in lines] == [row["p"][0] for row in rows]
    assert cli.call("judge", ["bill"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert row.split()[:7] == ["0.0600", "40", "20,000", "4,000", "judge", "kind", "judge"]
    assert header.index("purpose") == row.index("judge kind")
    status, again = call(judge, export, capsys=capsys)
    told = again["judging"]
    assert (told["paid_calls"], told["found_in_ledger"], told["usd"], told["usd_paid_before"]) == (0, 40, 0, 0.06)


def test_a_row_is_judged_by_its_own_rubric_and_reference(
    home: Path, judge: Path, endpoint: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = kind_rows(3)
    rows[0] |= {"rubric": json.dumps([{"criterion": "Is it about eggs?", "levels": {"1": "no", "5": "yes"}}])}
    rows[1] |= {"meta": json.dumps({"reference_answer": "the answer is 42"})}
    export = write_export(tmp_path / "own", rows)
    _, report = call(judge, export, capsys=capsys)
    assert (report["rows"], report["with_rubric"], report["with_reference"]) == (3, 1, 1)
    asked = [body["messages"][-1]["content"] for body in endpoint.bodies]
    assert sum("1. Is it about eggs?\n   1: no\n   5: yes" in text for text in asked) == 2  # both orders
    assert sum("the answer is 42" in text and "reference" in text for text in asked) == 2
    judge.write_text(judge.read_text().replace("[generator]", 'rubric = "Only music counts."\n[generator]'))
    call(judge, export, "--limit", 1, capsys=capsys)
    text = endpoint.bodies[-1]["messages"][-1]["content"]
    assert "Only music counts." in text
    assert "eggs?" not in text


def test_a_dry_run_asks_nobody(
    home: Path, judge: Path, export: Path, endpoint: ScriptedEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    call(judge, export, "--limit", 5, capsys=capsys)
    asked = endpoint.n_requests
    _, report = call(judge, export, "--dry-run", capsys=capsys)
    assert endpoint.n_requests == asked
    assert (report["calls"], report["paid_before"], report["at_most_completion_tokens"]) == (40, 10, 30 * 200)
    assert 0.06 < report["at_most_about_usd"] < 0.1


def test_a_spent_budget_is_status_one_and_the_next_run_goes_on(
    home: Path, judge: Path, export: Path, endpoint: ScriptedEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = call(judge, export, "--max-usd", "0.02", capsys=capsys)
    assert status == 1
    assert report["judging"]["budget_spent"]
    assert report["judging"]["usd"] <= 0.02
    assert 0 < report["unscored"] < 20
    status, rest = call(judge, export, capsys=capsys)
    assert status == 0
    assert endpoint.n_requests == 40
    assert rest["judging"]["found_in_ledger"] == report["judging"]["paid_calls"]


def test_verdicts_stand_beside_peoples_votes(
    home: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = sample.write(tmp_path / "mine", sample.SampleConfig(pairs=60))
    assert cli.call("ingest", [str(data), "--name", "sample"]) == 0
    for recorded in (10, 0):  # the second time all are known
        _, report = call(judge, "sample", "--limit", 10, "--record", capsys=capsys)
        assert report["recorded"] == recorded
    assert cli.call("sync", []) == 0
    with open_warehouse(read_only=True) as connection:
        kinds = dict(
            run(
                connection,
                "SELECT rater.kind, count(*) FROM judgment JOIN rater USING (rater_id) "
                "WHERE rater.name = 'kind judge' GROUP BY 1",
            )
        )
    assert kinds == {"llm": 10}


def test_the_plain_text_names_the_numbers(
    home: Path, judge: Path, export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert cli.call("judge", ["run", str(judge), str(export), "--limit", "4"]) == 0
    shown = capsys.readouterr().out
    for name in ("parse rate", "swap gap", "first slot", "longer response wins", "tokens, $"):
        assert name in shown


@pytest.mark.parametrize("orders", ["both", "given"])
def test_evaluation_takes_a_judge_like_any_other_model(
    home: Path, judge: Path, export: Path, orders: str, capsys: pytest.CaptureFixture[str]
) -> None:
    judge.write_text(judge.read_text().replace("max_tokens", f'orders = "{orders}"\nmax_tokens'))
    capsys.readouterr()
    assert cli.call("eval", [str(judge), "length", "--data", str(export), "--split", "all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    percent = {model["name"]: model["measures"]["overall"]["percent"] for model in found["models"]}
    assert percent["kind judge"] == 100.0
    assert found["models"][0]["judging"]["parse_rate"] == 1.0
    assert found["models"][0]["judging"]["usd"] > 0
    assert "judging" not in found["models"][1]


@pytest.mark.parametrize("command", [["eval", "JUDGE"], ["compare", "JUDGE", "length"]])
def test_every_command_that_asks_a_judge_says_how_that_went(
    home: Path, judge: Path, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = [{"role": "user", "content": "how are you?"}]
    pairs = [
        {
            "id": f"p{i}",
            "source": "made",
            "prompt": told,
            "chosen": f"thank you {i}",
            "rejected": f"never {i}",
            "meta": {},
        }
        for i in range(6)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    argv = [str(judge) if word == "JUDGE" else word for word in command]
    page = [] if command[0] != "eval" else ["-o", str(tmp_path / "page.html")]
    capsys.readouterr()
    assert cli.call(argv[0], [*argv[1:], "--suite", "pairs", "--data", str(data), *page]) == 0
    shown = capsys.readouterr().out
    for name in ("parse rate 100.0%", "swap gap", "verdict turned with the order", "tokens, $"):
        assert name in shown
        assert not page or name in (tmp_path / "page.html").read_text()
