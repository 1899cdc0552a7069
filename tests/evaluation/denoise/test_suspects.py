"""Suspicious labels, the whole flow: noise -> queue -> people's answers -> sync -> new version -> what it changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from data_pipelines.algorithms.weighing import part_of
from data_pipelines.steps.reward_gap import Config as MarginConfig
from evaluation.denoise.suspects import adjudicated, queue_suspects
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError
from rmkit.features.encoder import EncoderConfig, single_threaded
from rmkit.heads.stacked_training import HeadConfig
from rmkit.ledger import open_ledger
from rmkit.ledger.annotation_queue import KIND
from rmkit.types import Event
from tests.data_pipelines.frames import apply, frame, pair, version_frame
from tests.data_pipelines.kind_pairs import step_settings, write_kind_pairs
from tests.rmkit.tiny_encoder import write_tiny_encoder
from warehouse.lineage import reliability_audit
from warehouse.store import open_warehouse
from warehouse.versions.versions import resolve

Said = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


@pytest.fixture
def said(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """The JSON result of a command, in a home that holds noisy@v1: three labels in ten of the train split are wrong."""

    def call(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert cli.call(arguments[0], [*arguments[1:], "--json"]) == 0
        made: dict[str, Any] = json.loads(capsys.readouterr().out)
        return made

    call("ingest", str(write_kind_pairs(tmp_path / "pairs.jsonl", 240)), "--name", "kind")
    call("noise", "kind", "--rate", "0.3", "--splits", "train", "--out", "noisy")
    return call


def settings(folder: Path) -> MarginConfig:
    return MarginConfig(**(step_settings(write_tiny_encoder(folder)) | {"splits": ("train",)}))


def truth_of(ref: str) -> dict[str, tuple[bool, list[float]]]:
    """By unit: whether the label is wrong, and the label."""
    with open_warehouse(read_only=True) as connection:
        version = resolve(connection, ref)
        wrong = reliability_audit.flipped(connection, version) or {}
        rows = version_frame(connection, version).select("id", "unit", "p").iter_rows()
        return {unit: (wrong[example], p) for example, unit, p in rows}


@pytest.mark.slow
def test_people_answer_about_the_worst_labels_and_the_version_and_the_metric_change(
    said: Said, home: Path, tmp_path: Path
) -> None:
    margins = settings(tmp_path / "encoder")
    with open_ledger() as ledger:
        found = queue_suspects("noisy", project="recheck", limit=40, margins=margins, ledger=ledger)
        assert (found["version"], found["queued"]) == ("noisy@v1", 40)
        again = queue_suspects("noisy", project="recheck", limit=40, margins=margins, ledger=ledger)
        assert (again["found"], again["queued"]) == (40, 0)
        events = [recorded.event for recorded in ledger.events(0, kinds=(KIND,), limit=100)]
        before = truth_of("noisy")
        units = [event.payload["unit"] for event in events]
        assert sum(before[unit][0] for unit in units) >= 30  # of 40; by chance 12 would be wrong
        assert all(event.payload["priority"] > 0.5 for event in events)
        assert events[0].payload["priority"] >= events[-1].payload["priority"]
        assert "models that have not seen this pair" in events[0].payload["reason"]
        with pytest.raises(DataError, match=r"none of the 40 queued rows .* rmkit sync"):
            adjudicated("noisy", project="recheck", ledger=ledger)
        for unit in units[:35]:  # people know the truth; five rows stay unanswered
            wrong, p = before[unit]
            ranks = [0, 1] if (p[0] > 0.5) != wrong else [1, 0]
            ledger.append(Event(kind="judgment", actor="lea", payload={"unit": unit, "ranks": ranks}))
    assert said("sync")["n_merged"] == 35
    with open_ledger() as ledger:
        result = adjudicated(
            "noisy",
            project="recheck",
            ledger=ledger,
            out="rechecked",
            encoder=part_of(margins, EncoderConfig),
            head=part_of(margins, HeadConfig),
        )
    assert (result["queued"], result["answered"], result["relabeled"]) == (40, 35, 35)
    assert result["winner_changed"] == sum(before[unit][0] for unit in units[:35])
    after = truth_of(result["version"])
    answered = set(units[:35])
    assert {unit for unit, (_, p) in after.items() if p != before[unit][1]} <= answered
    assert result["accuracy_after"] > result["accuracy_before"]
    assert result["difference_low"] <= result["difference"] <= result["difference_high"]
    with open_warehouse(read_only=True) as connection:
        rows = version_frame(connection, resolve(connection, result["version"]))
    labels = {row["unit"]: row for row in rows.iter_rows(named=True)}
    assert all(labels[unit]["method"] == "adjudicated" for unit in answered)
    for unit in answered:
        wrong, p = before[unit]
        assert (labels[unit]["p"][0] > 0.5) == ((p[0] > 0.5) != wrong)


def test_answers_from_before_the_question_and_by_machines_do_not_count(said: Said, tmp_path: Path) -> None:
    margins = settings(tmp_path / "encoder")
    with open_ledger() as ledger:
        queue_suspects("noisy", project="recheck", limit=2, margins=margins, ledger=ledger)
        [first, second] = [recorded.event for recorded in ledger.events(0, kinds=(KIND,), limit=100)]
        early = {"kind": "judgment", "actor": "lea", "payload": {"unit": first.payload["unit"], "ranks": [0, 1]}}
        ledger.append(Event(**early, time=first.time.replace(year=2000)))
        machine = {"unit": second.payload["unit"], "ranks": [0, 1], "rater_kind": "llm"}
        ledger.append(Event(kind="judgment", actor="judge", payload=machine))
    said("sync")
    with open_ledger() as ledger, pytest.raises(DataError, match="none of the 2 queued rows"):
        adjudicated("noisy", project="recheck", ledger=ledger)
    with open_ledger() as ledger, pytest.raises(DataError, match="nothing of kind@v1 is in the queue of recheck"):
        adjudicated("kind", project="recheck", ledger=ledger)


def test_relabel_takes_every_form_of_answer_and_refuses_others() -> None:
    before = frame([pair(f"p{i}", f"a {i}", f"b {i}", weight=0.5) for i in range(3)])
    units = before["unit"].to_list()
    lines = [f"{units[0]} 0.25 4", f"{units[1]} 0.5 2", f"{'0' * 32} 1 1"]
    result = apply("relabel", before, labels=lines)
    rows = result.kept.to_dicts()
    assert [rows[0][name] for name in ("p", "ranks", "n_votes", "method", "weight")] == [
        [0.25, 0.75], [1, 0], 4, "adjudicated", 1.0]  # fmt: skip
    assert (rows[1]["p"], rows[1]["ranks"]) == ([0.5, 0.5], [0, 0])
    assert rows[2] == before.to_dicts()[2]
    assert result.facts["not_in_this_version"] == 1
    for wrong in ("xyz 1 1", f"{units[0]} 1.5 1", f"{units[0]} one 1", f"{units[0]} 1 0"):
        with pytest.raises(ConfigError, match="expected 'UNIT P N'"):
            apply("relabel", before, labels=[wrong])
    with pytest.raises(ConfigError, match="named twice"):
        apply("relabel", before, labels=[lines[0], lines[0]])
