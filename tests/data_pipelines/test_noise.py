"""`rmkit noise` and its step: exact counts, the four kinds, the truth in the warehouse and what judges by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.recipes.recipe import parse_recipe, run_recipe
from data_pipelines.sample import SampleConfig, write
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, UsageError
from tests.data_pipelines.frames import apply, frame, pair, version_frame
from warehouse.lineage import reliability_audit
from warehouse.sql import run
from warehouse.store import open_warehouse
from warehouse.versions.versions import resolve

SAMPLE = SampleConfig(pairs=120, exact_duplicates=0, near_duplicates=0, leaked=0, benchmark_pairs=60, seed=2)


def rows(n: int = 60) -> pl.DataFrame:
    """n pairs whose first vote decides; the worse reply is the longer one in a third."""
    made = []
    for i in range(n):
        long = "long " * 9 if i % 3 == 0 else ""
        made.append(pair(f"question {i} about thing {i % 7}", f"good {i}", f"{long}bad {i}", [(f"w{i % 4}", "a")]))
    return frame(made)


def turned(before: pl.DataFrame, after: pl.DataFrame) -> set[str]:
    both = before.select("id", was="p").join(after.select("id", now="p"), on="id")
    return set(both.filter(pl.col("was") != pl.col("now"))["id"])


@given(rate=st.floats(0, 0.49), seed=st.integers(0, 5), kind=st.sampled_from(["symmetric", "annotator", "prompt"]))
@settings(max_examples=30, deadline=None)
def test_the_count_is_exact_and_the_truth_names_exactly_the_turned_rows(rate: float, seed: int, kind: str) -> None:
    before = rows()
    result = apply("noise", before, kind=kind, rate=rate, seed=seed)
    truth = set(result.records["label_flip"]["id"])
    assert len(truth) == round(rate * 60) == result.facts["flipped"]
    assert turned(before, result.kept) == truth
    untouched = [name for name in before.columns if name not in ("p", "ranks")]
    assert result.kept.select(untouched).equals(before.select(untouched))


def test_labels_are_turned_around_and_twice_is_never() -> None:
    before = rows(10)
    result = apply("noise", before, rate=0.4)
    flipped = result.kept.filter(pl.col("id").is_in(result.records["label_flip"]["id"].implode()))
    for row in flipped.iter_rows(named=True):
        assert row["p"] == before.filter(pl.col("id") == row["id"])["p"][0].to_list()[::-1]


def test_the_draw_depends_on_neither_order_nor_other_settings() -> None:
    before = rows()
    drawn = {
        name: set(apply("noise", rows_, rate=0.3, seed=4).records["label_flip"]["id"])
        for name, rows_ in {"as is": before, "reversed": before.reverse()}.items()
    }
    assert drawn["as is"] == drawn["reversed"]
    fewer = set(apply("noise", before, rate=0.2, seed=4).records["label_flip"]["id"])
    assert fewer < drawn["as is"]  # rates are nested: a curve over the rate is not one over the draw
    assert set(apply("noise", before, rate=0.3, seed=5).records["label_flip"]["id"]) != drawn["as is"]


def test_length_flips_only_where_the_worse_reply_is_longer() -> None:
    before = rows()
    flipped = apply("noise", before, kind="length", rate=0.3).records["label_flip"]["id"]
    prompts = before.filter(pl.col("id").is_in(flipped.implode()))["prompt"].to_list()
    assert len(prompts) == 18
    assert all(int(prompt.split("question ")[1].split()[0]) % 3 == 0 for prompt in prompts)
    with pytest.raises(DataError, match=r"asks for 24 flips, but only 20 of 60 .* at most 0.333"):
        apply("noise", before, kind="length", rate=0.4)


def test_annotator_noise_falls_on_some_annotators_and_prompt_noise_on_prompts_alike() -> None:
    before = frame([pair(f"ask {i} of kind{i % 4} kind{i % 4}x", f"a {i}", f"b {i}", [(f"w{i % 8}", "a")])
                    for i in range(800)])  # fmt: skip
    for kind, group in (("annotator", "votes"), ("prompt", "prompt")):
        result = apply("noise", before, kind=kind, rate=0.2, strength=2.0, seed=1)
        name = (
            (lambda row: row["votes"][0]["rater"])
            if group == "votes"
            else (lambda row: row["prompt"].split("kind")[1][0])
        )
        flipped = set(result.records["label_flip"]["id"])
        shares: dict[str, list[bool]] = {}
        for row in before.iter_rows(named=True):
            shares.setdefault(name(row), []).append(row["id"] in flipped)
        rates = [float(np.mean(share)) for share in shares.values()]
        assert max(rates) - min(rates) > 0.25, (kind, rates)  # symmetric noise would spread by about 0.1
    even = apply("noise", before, kind="annotator", rate=0.2, strength=0.0, seed=1)
    by_rater = before.filter(pl.col("id").is_in(even.records["label_flip"]["id"].implode()))
    counts = by_rater.select(pl.col("votes").list.first().struct.field("rater"))["rater"].value_counts()["count"]
    assert counts.max() - counts.min() < 20


def test_ties_lists_and_other_splits_stay() -> None:
    before = frame(
        [pair(f"p {i}", f"a {i}", f"b {i}", [("w", "a")], split="train" if i % 2 else "test") for i in range(20)]
        + [pair("tied", "a", "b", [("w", "tie")], split="train")]
    )
    result = apply("noise", before, rate=0.4)
    assert result.facts["pairs_with_a_winner"] == 10
    assert result.facts["flipped_by_split"] == {"train": 4}


@pytest.mark.parametrize("rate", [-0.1, 0.5, 1.0])
def test_a_rate_outside_zero_to_a_half_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"share of flipped labels in \[0, 0.5\)"):
        apply("noise", rows(4), rate=rate)


@pytest.fixture
def said(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """The JSON result of a command, in a home that holds the sample."""
    data, _ = write(tmp_path, SAMPLE)

    def call(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert cli.call(arguments[0], [*arguments[1:], "--json"]) == 0
        made: dict[str, Any] = json.loads(capsys.readouterr().out)
        return made

    call("ingest", str(data), "--name", "sample")
    return call


def test_the_truth_survives_later_versions_and_judges_a_filter(said: Callable[..., dict[str, Any]]) -> None:
    made = said("noise", "sample", "--rate", "0.3", "--out", "noisy")
    assert made["version"] == "noisy@v1"
    with open_warehouse(read_only=True) as connection:
        clean, noisy = (resolve(connection, ref) for ref in ("sample", "noisy"))
        assert reliability_audit.flipped(connection, clean) is None
        truth = reliability_audit.flipped(connection, noisy)
        given, after = (version_frame(connection, version) for version in (clean, noisy))
    assert truth is not None
    assert sum(truth.values()) == made["flipped"] == round(0.3 * made["pairs_with_a_winner"])
    was = dict(given.select("unit", "p").iter_rows())
    for row in after.iter_rows(named=True):
        assert (row["p"] != was[row["unit"]]) == truth[row["id"]]
    # A recipe that rewrites text and drops a known part: the flips are followed to the new rows.
    steps = [{"use": "normalize"}, {"use": "subset", "max_rows": 60, "seed": 1}]
    later = run_recipe(parse_recipe({"recipe": {"name": "half"}, "step": steps}, where="test"), "noisy")
    judged = said("noise", "--judge", later["version"])
    with open_warehouse(read_only=True) as connection:
        left = reliability_audit.flipped(connection, resolve(connection, later["version"]))
    assert left is not None
    assert (judged["kept"], judged["kept_flipped"]) == (len(left), sum(left.values())) == (60, judged["kept_flipped"])
    assert judged["rows"] == len(truth)
    assert judged["dropped_recall"] == (made["flipped"] - judged["kept_flipped"]) / made["flipped"]
    assert judged["kept_precision"] == 1 - judged["kept_flipped"] / 60


def test_the_same_flips_once_more_take_the_noise_back(said: Callable[..., dict[str, Any]]) -> None:
    said("noise", "sample", "--rate", "0.3", "--out", "noisy")
    back = said("noise", "noisy", "--rate", "0.3", "--out", "back")
    with open_warehouse(read_only=True) as connection:
        truth = reliability_audit.flipped(connection, resolve(connection, "back"))
        digests = dict(
            run(connection, "SELECT name || '@v' || number, digest FROM version JOIN dataset USING (dataset_id)")
        )
    assert truth is not None
    assert not any(truth.values())
    assert digests[back["version"]] == digests["sample@v1"]


def test_a_second_noise_in_the_same_dataset_is_judged_by_its_own_flips(said: Callable[..., dict[str, Any]]) -> None:
    said("noise", "sample", "--rate", "0.3", "--out", "noisy")
    second = said("noise", "sample", "--rate", "0.1", "--seed", "9", "--out", "noisy")
    assert second["version"] == "noisy@v2"
    assert said("noise", "--judge", "noisy@v2")["kept_flipped"] == second["flipped"]


def test_the_same_command_again_changes_nothing(said: Callable[..., dict[str, Any]]) -> None:
    first = said("noise", "sample", "--rate", "0.3", "--out", "noisy")
    again = said("noise", "sample", "--rate", "0.3", "--out", "noisy")
    assert (again["digest"], again["run"], again["changed"]) == (first["digest"], first["run"], False)
    with open_warehouse(read_only=True) as connection:
        assert run(connection, "SELECT count(*) FROM label_flip")[0][0] == first["flipped"]


def test_faults_are_told(said: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="comes from no version with injected noise"):
        said("noise", "--judge", "sample")
    with pytest.raises(UsageError, match="exactly one of them"):
        said("noise")
    with pytest.raises(ConfigError, match=r"\[0, 0.5\)"):
        said("noise", "sample", "--rate", "0.5")
