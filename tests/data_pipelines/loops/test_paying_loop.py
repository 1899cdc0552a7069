"""A loop that pays in every kind of step: what it may cost, and ten kills."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.loops.loop import read_loop
from data_pipelines.loops.runner import LoopResult, run_loop
from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from evaluation.benchmarks.kill_resume import kill_and_resume
from rmkit.cli import main as cli
from rmkit.errors import BudgetError
from rmkit.generate.call_cache import KIND, bill
from rmkit.ledger import open_ledger
from rmkit.models import load_model
from tests.data_pipelines.kind_pairs import write_kind_pairs
from warehouse.store import open_warehouse
from warehouse.versions.versions import get, resolve

PRICE = 1000.0  # dollars per million tokens of either kind: a call of 10 and 10 costs 2 cents
CALL = 0.02
LOOP = """
[loop]
name = "paying"
rounds = {rounds}

[[step]]
use = "subset"
data = "{{data}}"
split = "train"
one_per_prompt = true
part = "{{round}}"
parts = "{{rounds}}"
max_rows = {rows}

[[step]]
use = "generate"
samples = 3
max_tokens = 16

[step.generator]
model = "writer"
base_url = "{url}"
prompt_price = {price}
completion_price = {price}
concurrency = 4

[[step]]
use = "score"
model = "{judge}"

[[step]]
use = "binarize"
how = "best_worst"

[[step]]
use = "train_reward"
as = "reward"
kind = "lexical"
data = "{{data}}"

[[step]]
use = "evaluate"
data = "{{data}}"
reward = "{judge}"
"""


class Paid:
    """A scripted endpoint that writes and judges; `requests` counts what it was asked, by the hash that each answer
    begins with."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.requests: Counter[str] = Counter()
        self.delay_s = delay_s

    def __call__(self, body: dict[str, Any]) -> Reply:
        name = hashlib.sha256(json.dumps([body["messages"], body.get("seed")]).encode()).hexdigest()[:16]
        if body["max_tokens"] > 1:  # not the probe
            self.requests[name] += 1
        judging = "Score: N" in json.dumps(body["messages"])
        text = f"{name} Score: {1 + int(name, 16) % 9}" if judging else f"{name} kindly yours"
        return Reply(
            text=text.replace(" Score", "\nScore"), delay_s=self.delay_s, prompt_tokens=10, completion_tokens=10
        )


@pytest.fixture
def paid() -> Iterator[tuple[Paid, ScriptedEndpoint]]:
    script = Paid()
    with ScriptedEndpoint(script, keep=False) as endpoint:
        yield script, endpoint


def written(folder: Path, url: str, *, rounds: int, rows: int) -> Path:
    """The TOMLs of loop and judge; the dataset `kind` in this home."""
    judge, loop = folder / "judge.toml", folder / "paying.toml"
    prices = f"prompt_price = {PRICE}\ncompletion_price = {PRICE}\nconcurrency = 4"
    judge.write_text(
        f'[judge]\nform = "scale"\nname = "grader"\nlowest = 1\nhighest = 9\nmax_tokens = 16\n'
        f'[generator]\nmodel = "grader"\nbase_url = "{url}"\n{prices}\n'
    )
    loop.write_text(LOOP.format(rounds=rounds, rows=rows, url=url, price=PRICE, judge=judge))
    cli.call("ingest", [str(write_kind_pairs(folder / "pairs.jsonl", 80)), "--name", "kind", "--json"])
    return loop


def digests(result: LoopResult) -> list[str]:
    with open_warehouse(read_only=True) as connection:
        return [get(connection, resolve(connection, one.version)).digest for one in result.steps if one.version]


@pytest.mark.slow
def test_all_calls_of_a_loop_come_out_of_one_budget(
    home: Path, tmp_path: Path, paid: tuple[Paid, ScriptedEndpoint]
) -> None:
    script, endpoint = paid
    loop = read_loop(str(written(tmp_path, endpoint.base_url, rounds=1, rows=4)))
    spent = [0.0]
    for max_usd in (0.2, 1.0):
        with pytest.raises(BudgetError, match=f"\\${max_usd:g} do not pay for the next call"):
            run_loop(loop, "kind", folder=tmp_path / "paying", max_usd=max_usd)
        spent.append(billed())
        assert spent[-2] < spent[-1] <= max_usd
    result = run_loop(loop, "kind", folder=tmp_path / "paying", max_usd=100.0)
    assert result.usd == pytest.approx(billed()) == CALL * len(script.requests)
    assert set(script.requests.values()) == {1}  # over all restarts
    with open_ledger() as ledger:
        rows = bill(ledger)
    assert {str(row["purpose"]).rpartition(" ")[0] for row in rows} == {"loop paying"}
    assert {str(row["generator"]).split()[0] for row in rows} == {"writer", "grader"}
    judged = [one for one in result.steps if one.use == "evaluate"]
    assert [one.facts["evaluate"]["accuracy"] <= 1 for one in judged] == [True]


def billed() -> float:
    with open_ledger() as ledger:
        return sum(float(str(row["usd"])) for row in bill(ledger))


@pytest.mark.slow
def test_a_loop_killed_ten_times_ends_as_an_unbroken_one_and_pays_nothing_twice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    paid: tuple[Paid, ScriptedEndpoint],
) -> None:
    endpoint = paid[1]
    results = []
    for kills in (0, 10):
        place = tmp_path / f"killed-{kills}"
        place.mkdir()
        monkeypatch.setenv("RMKIT_HOME", str(place / "home"))
        monkeypatch.delenv("RMKIT_LEDGER", raising=False)
        endpoint.script = script = Paid(delay_s=0.04)
        path = written(place, endpoint.base_url, rounds=6, rows=9)
        command = [sys.executable, "-m", "rmkit", "loop", str(path), "--data", "kind"]
        command += ["--out", "paying", "-o", str(place / "paying"), "--json"]
        counts, _ = kill_and_resume(
            command, script.requests, stored, kills=kills, longest_s=1.2, environment=dict(os.environ)
        )
        result = run_loop(read_loop(str(path)), "kind", folder=place / "paying", dataset="paying")  # what it left
        facts = [(one.round, one.use, one.version, one.facts) for one in result.steps]
        rewards = [load_model(Path(one.artifact)).info.fingerprint for one in result.steps if one.artifact]
        without_folder = json.dumps(facts, sort_keys=True, default=str).replace(str(place), "")
        results.append((digests(result), rewards, set(script.requests), without_folder))
        with capsys.disabled():
            print(f"\n{counts}")
        assert counts["kills"] == kills
        assert counts["stored_answers_paid_again"] == 0
    unbroken, killed = results
    assert [len(part) for part in unbroken[:2]] == [6, 6]
    assert killed == unbroken


def stored() -> set[str]:
    """What the answers in the ledger answer."""
    with open_ledger(read_only=True) as opened:
        return {record.value["text"].split()[0] for record in opened.records(KIND)}
