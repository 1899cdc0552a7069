"""Denoising steps in a recipe: what is dropped and weighed, the audit in the warehouse, resuming, bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from data_pipelines.algorithms.weighing import weighed
from data_pipelines.recipes import record
from data_pipelines.recipes.recipe import parse_recipe, run_recipe
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, VersionError
from rmkit.features.encoder import single_threaded
from rmkit.reliability.label_weights import LabelWeights
from tests.data_pipelines.frames import frame, pair, version_frame
from tests.data_pipelines.kind_pairs import step_settings, write_kind_pairs
from tests.rmkit.tiny_encoder import write_tiny_encoder
from warehouse.sql import run
from warehouse.store import open_warehouse
from warehouse.versions.versions import resolve

PAIRS, TRAIN, RATE = 240, 168, 0.3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


@pytest.fixture(scope="module")
def noisy_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the pairs, noisy@v1 made of them, and the features of the tiny encoder cached."""
    folder = tmp_path_factory.mktemp("denoise")
    write_tiny_encoder(folder / "encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", str(folder / "home"))
        cli.call("ingest", [str(write_kind_pairs(folder / "pairs.jsonl", PAIRS)), "--name", "kind", "--json"])
        recipe = parse_recipe({"recipe": {"name": "s"}, "step": [{"use": "split", "respect": "source"}]}, where="test")
        run_recipe(recipe, "kind")
        cli.call("noise", ["kind", "--rate", str(RATE), "--splits", "train", "--out", "noisy", "--json"])
    return folder


@pytest.fixture
def settings(noisy_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The steps' settings, in a home of the test's own."""
    shutil.copytree(noisy_home / "home", tmp_path / "home")
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    return step_settings(noisy_home / "encoder") | {"splits": ["train"]}


def clean(*steps: dict[str, Any], out: str = "clean") -> dict[str, Any]:
    table = {"recipe": {"name": "denoise"}, "step": list(steps)}
    return run_recipe(parse_recipe(table, where="test"), "noisy", out=out)


def judged(ref: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    cli.call("noise", ["--judge", ref, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def rows_of(ref: str) -> pl.DataFrame:
    with open_warehouse(read_only=True) as connection:
        return version_frame(connection, resolve(connection, ref))


@pytest.mark.parametrize("step", [{"use": "peer_review", "noise": RATE}, {"use": "cross_fit"}], ids=lambda s: s["use"])
def test_most_of_what_is_dropped_was_wrong(
    step: dict[str, Any], settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    result = clean(step | settings)
    found = judged(result["version"], capsys)
    assert found["flipped"] == round(RATE * TRAIN)
    assert found["dropped_recall"] > 0.7
    assert found["kept_precision"] > 0.85
    assert found["dropped"] == result["rows_in"] - result["rows_out"]
    facts = result["steps"][0]["facts"]
    assert facts["judged"] == TRAIN
    assert facts["not_judged"] == PAIRS - TRAIN
    assert sum(result["steps"][0]["reasons"].values()) == found["dropped"]


def test_the_audit_of_every_pair_epoch_and_model_is_in_the_warehouse(settings: dict[str, Any]) -> None:
    result = clean({"use": "peer_review", "noise": RATE, **settings})
    with open_warehouse(read_only=True) as connection:
        audit = connection.sql("SELECT * FROM reliability ORDER BY ALL").pl()
        drops = dict(run(connection, "SELECT example_id, reason FROM step_drop"))
    epochs = audit.filter(pl.col("epoch").is_not_null())
    final = audit.filter(pl.col("epoch").is_null())
    assert len(epochs) == settings["epochs"] * 2 * TRAIN
    assert set(epochs.group_by("epoch", "model").len()["len"]) == {TRAIN}
    assert len(final) == TRAIN
    assert {str(one) for one in audit["run_id"]} == {result["run"]}
    last = epochs.filter(pl.col("epoch") == settings["epochs"])
    kept = last.group_by("example_id").agg(pl.col("kept").sum().alias("n_kept"))
    both = final.join(kept, on="example_id")
    assert (both["weight"] == both["n_kept"] / 2).all()
    assert set(both.filter(pl.col("n_kept") == 0)["example_id"]) == set(drops)
    assert dict(last.select("model", "selected_by").unique().iter_rows()) == {"A": "B", "B": "A"}
    assert np.allclose(epochs["loss"], np.logaddexp(0, -epochs["margin"].to_numpy()))


def test_half_weights_travel_in_the_rows_and_all_stay_where_only_weighed(settings: dict[str, Any]) -> None:
    made = {}
    for action in ("drop", "weight"):
        result = clean({"use": "peer_review", "noise": RATE, **settings, "action": action}, out=action)
        made[action] = rows_of(result["version"])
    assert len(made["weight"]) == PAIRS
    assert set(made["weight"]["weight"]) == {0.0, 0.5, 1.0}
    positive = made["weight"].filter(pl.col("weight") > 0)
    assert positive.select("id", "weight").equals(made["drop"].select("id", "weight"))


def test_without_a_prior_the_share_of_wrong_labels_is_estimated_and_told(settings: dict[str, Any]) -> None:
    facts = clean({"use": "peer_review", **settings})["steps"][0]["facts"]
    assert facts["noise"]["source"] == "cross_fit"
    assert facts["noise"]["low"] <= RATE <= facts["noise"]["high"]
    assert facts["note"].startswith("wrong labels: 0.")


def test_a_version_that_knows_some_labels_gives_the_share_of_wrong_ones(settings: dict[str, Any]) -> None:
    facts = clean({"use": "peer_review", "gold": "kind", **settings})["steps"][0]["facts"]
    assert facts["noise"]["source"] == "gold"
    assert facts["noise"]["n"] == TRAIN
    assert facts["noise"]["value"] == pytest.approx(round(RATE * TRAIN) / TRAIN)
    with pytest.raises(ConfigError, match="noise or gold, not both"):
        clean({"use": "peer_review", "gold": "kind", "noise": 0.2, **settings})
    with pytest.raises(VersionError, match="nowhere"):
        clean({"use": "peer_review", "gold": "nowhere", **settings})


@pytest.mark.slow
def test_same_seed_same_audit_another_seed_another(settings: dict[str, Any]) -> None:
    audits = []
    for seed in (0, 0, 1):
        clean({"use": "peer_review", "noise": RATE, **settings, "seed": seed}, out=f"out{len(audits)}")
        with open_warehouse() as connection:
            audits.append(connection.sql("SELECT * EXCLUDE run_id FROM reliability ORDER BY ALL").pl())
            run(connection, "DELETE FROM reliability")
    assert audits[0].equals(audits[1])
    assert not audits[0].equals(audits[2])


def test_a_run_cut_off_before_recording_goes_on_with_its_audit(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"use": "peer_review", "noise": RATE, **settings}
    with monkeypatch.context() as patch:
        patch.setattr(record, "open_warehouse", _killed)
        with pytest.raises(KeyboardInterrupt):
            clean(step)
    result = clean(step)
    assert result["steps"][0]["reused"]
    with open_warehouse(read_only=True) as connection:
        assert run(connection, "SELECT count(*) FROM reliability")[0][0] == TRAIN * (2 * settings["epochs"] + 1)


def _killed() -> None:
    raise KeyboardInterrupt


def test_test_rows_are_neither_learned_from_nor_touched(settings: dict[str, Any]) -> None:
    before = rows_of("noisy").filter(pl.col("split") == "test")
    after = rows_of(clean({"use": "cross_fit", **settings})["version"]).filter(pl.col("split") == "test")
    assert after.equals(before)


def test_soft_labels_turn_rows_whose_order_is_probably_wrong() -> None:
    given = frame([pair(f"p{i}", f"a {i}", f"b {i}", [("w", "a")], margin=2.0) for i in range(4)])
    right = np.array([0.9, 0.5, 0.25, 1.0])
    told = LabelWeights("made", tuple(given["id"]), np.ones(4), ("",) * 4, soft_label=right)
    kept = weighed(given, told, action="soft_label").kept
    for before, after, p in zip(given.iter_rows(named=True), kept.iter_rows(named=True), right, strict=True):
        first = before["p"][0] == 1.0
        assert after["p"] == pytest.approx([p, 1 - p] if first else [1 - p, p])
        same = [0, 1] if (p > 0.5) == first else [1, 0]
        assert after["ranks"] == ([0, 0] if p == 0.5 else same)
        assert after["margin"] == (2.0 if p > 0.5 else None)
        assert (after["method"], after["weight"]) == ("made", 1.0)


def test_weights_multiply_and_zero_is_dropped_with_its_reason_and_numbers() -> None:
    given = frame([pair(f"p{i}", f"a {i}", f"b {i}", weight=0.5 * i + 0.5) for i in range(3)])
    evidence = {"margin": np.array([1.0, np.nan, -2.0]), "passes": np.array([[0.1, 0.2]] * 3)}
    told = LabelWeights(
        "made", tuple(given["id"]), np.array([1.0, 0.25, 0.0]), ("", "doubtful", "wrong"), evidence=evidence
    )
    result = weighed(given, told, action="drop")
    assert dict(result.kept.select("id", "weight").iter_rows()) == {given["id"][0]: 0.5, given["id"][1]: 0.25}
    assert result.dropped.rows() == [(given["id"][2], "wrong", '{"margin": -2.0, "passes": [0.1, 0.2]}')]
    audit = result.records["reliability"]
    assert audit["evidence"][1] == '{"margin": null, "passes": [0.1, 0.2]}'
    assert audit.select("margin", "kept", "reason").rows()[2] == (-2.0, False, "wrong")


def test_bad_input_is_told(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"in \[0, 0.5\); got 0.6"):
        clean({"use": "peer_review", "noise": 0.6, **settings})
    with pytest.raises(ConfigError, match="curriculum with scope 'batch'"):
        clean({"use": "peer_review", "scope": "batch", "curriculum": True, **settings})
    with pytest.raises(ConfigError, match="estimates no soft label"):
        clean({"use": "cross_fit", **settings, "action": "soft_label"})
    with pytest.raises(DataError, match="40 usable pairs, at least 50"):
        clean({"use": "subset", "max_rows": 40}, {"use": "peer_review", "noise": 0.2, **settings, "splits": _ALL})
    with pytest.raises(DataError, match="no row to judge"):
        clean({"use": "cross_fit", **settings, "splits": ["elsewhere"]})


_ALL = ["train", "validation", "test"]
