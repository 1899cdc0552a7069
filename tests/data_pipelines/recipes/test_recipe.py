"""`rmkit run` on the built-in sample, whose faults are known; resuming after faults at every point."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from data_pipelines.recipes import recipe as recipes
from data_pipelines.recipes import record, runner
from data_pipelines.recipes.recipe import parse_recipe, read_recipe, run_recipe
from data_pipelines.sample import SampleConfig, write
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, StoreError, VersionError
from warehouse.sql import run
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout

SAMPLE = SampleConfig(pairs=150, exact_duplicates=10, near_duplicates=12, leaked=8, benchmark_pairs=60, seed=5)


@pytest.fixture(scope="module")
def sample_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the sample and its benchmark are ingested; copied for each test."""
    folder = tmp_path_factory.mktemp("sample")
    data, benchmark = write(folder, SAMPLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", str(folder / "home"))
        cli.call("ingest", [str(data), "--name", "sample", "--json"])
        cli.call("ingest", [str(benchmark), "--name", "held-out", "--benchmark", "--json"])
    return folder / "home"


@pytest.fixture
def home(sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(sample_home, tmp_path / "home")
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def said(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """The JSON result of a command."""

    def call(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert cli.call(arguments[0], [*arguments[1:], "--json"]) == 0
        made: dict[str, Any] = json.loads(capsys.readouterr().out)
        return made

    return call


def counted() -> dict[str, int]:
    """Rows of every table that a run could touch."""
    names = "version delta run run_io step_result step_drop rater_skill example unit prompt response branch"
    with open_warehouse(read_only=True) as connection:
        return {table: run(connection, f"SELECT count(*) FROM {table}")[0][0] for table in names.split()}


def rows_of(ref: str) -> pl.DataFrame:
    with open_warehouse(read_only=True) as connection:
        made = pl.from_arrow(checkout(connection, recipes.resolve(connection, ref), votes=True))
    assert isinstance(made, pl.DataFrame)
    return made


def test_clean_finds_what_was_planted(said: Callable[..., dict[str, Any]]) -> None:
    result = said("run", "clean", "--data", "sample")
    steps = {step["step"]: step for step in result["steps"]}
    assert steps["contamination"]["reasons"] == {"in benchmark rmkit-sample-bench": SAMPLE.leaked}
    assert steps["near_dedup"]["reasons"] == {"near-duplicate": SAMPLE.near_duplicates}
    assert (result["version"], result["changed"]) == ("sample@v2", True)
    assert result["rows_in"] - result["rows_out"] == sum(step["n_dropped"] for step in result["steps"])
    for before, after in zip(result["steps"], result["steps"][1:], strict=False):
        assert before["n_kept"] == after["n_in"]
    skill = {each["rater"].split("/")[-1]: each["accuracy"] for each in steps["aggregate"]["facts"]["raters"]}
    assert skill["ann"] > skill["cho"] > skill["eli"]
    kept = rows_of("sample@v2")
    assert len(kept) == result["rows_out"]
    assert kept.group_by("family").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(kept["method"]) == {"dawid_skene"}


def test_everything_is_recorded(said: Callable[..., dict[str, Any]], home: Path) -> None:
    result = said("run", "clean", "--data", "sample")
    with open_warehouse(read_only=True) as connection:
        stored = run(
            connection, "SELECT step, n_in, n_kept, n_dropped, config, facts FROM step_result ORDER BY step_no"
        )
        reasons = dict(run(connection, "SELECT reason, count(*) FROM step_drop GROUP BY 1"))
        evidence = run(connection, "SELECT count(*) FROM step_drop WHERE evidence IS NULL")[0][0]
        skills = run(connection, "SELECT name, accuracy, n, method FROM rater_skill JOIN rater USING (rater_id)")
        io = run(connection, "SELECT direction, version_id FROM run_io WHERE run_id = ? ORDER BY 1", [result["run"]])
        status, config = run(connection, "SELECT status, config FROM run WHERE run_id = ?", [result["run"]])[0]
        stats, recipe, parents = run(connection, "SELECT stats, recipe, parents FROM version ORDER BY version_id")[-1]
        orphans = run(
            connection,
            "SELECT count(*) FROM step_drop WHERE example_id NOT IN "
            "(SELECT example_id FROM delta WHERE version_id = 1)",
        )[0][0]
    assert [row[:4] for row in stored] == [
        (step["step"], step["n_in"], step["n_kept"], step["n_dropped"]) for step in result["steps"]
    ]
    assert json.loads(stored[4][4])["threshold"] == 0.7
    assert json.loads(stored[5][5])["alpha"] > 0.2
    assert reasons == {"in benchmark rmkit-sample-bench": SAMPLE.leaked, "near-duplicate": SAMPLE.near_duplicates}
    assert (evidence, orphans, status, len(skills), len(io)) == (0, 0, "done", 5, 2)
    assert json.loads(config)["data"]
    assert json.loads(recipe)["step"][0] == {
        "use": "normalize",
        **dict.fromkeys(["nfc", "newlines", "invisible", "trailing_spaces", "blank_lines"], True),
    }
    assert sum(json.loads(stats)["rows_by_split"].values()) == result["rows_out"]
    assert parents == [1]
    assert list((home / "runs").iterdir()) == []


def test_the_second_time_changes_nothing(said: Callable[..., dict[str, Any]]) -> None:
    first = said("run", "clean", "--data", "sample")
    before = counted()
    again = said("run", "clean", "--data", "sample@v1")
    assert counted() == before
    assert (again["changed"], again["digest"], again["run"]) == (False, first["digest"], first["run"])


def test_out_names_another_dataset(said: Callable[..., dict[str, Any]]) -> None:
    result = said("run", "clean", "--data", "sample", "--out", "sample-clean")
    assert result["version"] == "sample-clean@v1"
    same = said("run", "clean", "--data", "sample")
    assert (same["version"], same["digest"]) == ("sample@v2", result["digest"])


def test_text_for_people(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.call("run", ["clean", "--data", "sample"])
    shown = capsys.readouterr().out
    assert "near_dedup" in shown
    assert f"{SAMPLE.near_duplicates} near-duplicate" in shown
    assert "sample@v2" in shown
    cli.call("run", ["clean", "--data", "sample@v1"])
    assert "nothing changed: sample@v2" in capsys.readouterr().out


def test_rewritten_text_names_its_parent_and_keeps_its_origin(home: Path, tmp_path: Path) -> None:
    line = {
        "id": "1",
        "prompt": [{"role": "user", "content": "Say hello "}],
        "chosen": "Hello!\r\n",
        "rejected": "No.  ",
    }
    (tmp_path / "untidy.jsonl").write_text(json.dumps(line | {"source": "made", "meta": {}}) + "\n")
    cli.call("ingest", [str(tmp_path / "untidy.jsonl"), "--name", "untidy", "--license", "MIT"])
    result = run_recipe(
        parse_recipe({"recipe": {"name": "tidy"}, "step": [{"use": "normalize"}]}, where="test"), "untidy"
    )
    before, after = rows_of("untidy@v1").row(0, named=True), rows_of("untidy@v2").row(0, named=True)
    assert result["steps"][0]["facts"]["rows_changed"] == 1
    assert "Hello!\\r\\n" in "".join(before["responses"])
    assert sorted(json.loads(text)[0]["content"] for text in after["responses"]) == ["Hello!", "No."]
    better = [json.loads(text)[0]["content"] for text in after["responses"]][after["ranks"].index(0)]
    assert better == "Hello!"
    assert (after["license"], after["source"]) == (before["license"], before["source"])
    with open_warehouse(read_only=True) as connection:
        sql = "SELECT p.h::VARCHAR FROM unit u JOIN unit p ON p.unit_id = u.parent_unit_id WHERE u.h = ?::UUID"
        ((parent,),) = run(connection, sql, [after["unit"]])
    assert parent.replace("-", "") == before["unit"]


def test_the_warehouse_is_free_while_steps_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free, real = [], runner.run_step

    def spying(*arguments: Any, **options: Any) -> Any:
        with open_warehouse(wait_s=0):  # read-write: fails where anybody holds the file
            free.append(True)
        return real(*arguments, **options)

    monkeypatch.setattr(runner, "run_step", spying)
    run_recipe(read_recipe("clean"), "sample")
    assert len(free) == 8


class Killed(BaseException):
    """Stands for a kill: nothing in the code may catch it."""


def stopped_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run clean on the sample and stop it after that many steps."""
    left, real = [steps], runner.run_step

    def dying(*arguments: Any, **options: Any) -> Any:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return real(*arguments, **options)

    clean = read_recipe("clean")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_step", dying)
        with pytest.raises(Killed):
            run_recipe(clean, "sample")


def told(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key not in ("wall_s", "reused")}


@pytest.fixture(scope="module")
def expected(sample_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed run says."""
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    shutil.copytree(sample_home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", str(home))
        return run_recipe(read_recipe("clean"), "sample")


ANYWHERE = [0, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 2, 3, 4, 5, 6)), 7]


@pytest.mark.parametrize("survived", ANYWHERE)
def test_resumes_after_a_stop_in_any_step(
    home: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    before = counted()
    stopped_after(survived, monkeypatch)
    assert counted() == before
    assert len(list(home.glob("runs/*/kept"))) == min(survived, 1)
    result = run_recipe(read_recipe("clean"), "sample")
    assert [step["reused"] for step in result["steps"]] == [at < survived for at in range(8)]
    assert result["digest"] == expected["digest"]
    assert list(map(told, result["steps"])) == list(map(told, expected["steps"]))
    assert list((home / "runs").iterdir()) == []


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_pipelines.recipes.parts.PIECE_ROWS", 70)


@pytest.mark.parametrize("name", ["clean", "strict"])
def test_parts_give_what_the_whole_gives(
    home: Path, sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, in_parts: None
) -> None:
    real, sizes = runner.run_step, []

    def watched(step: str, frame: Any, *arguments: Any, **options: Any) -> Any:
        sizes.extend([len(frame)] if isinstance(frame, pl.DataFrame) and "prompt" in frame.columns else [])
        return real(step, frame, *arguments, **options)

    monkeypatch.setattr(runner, "run_step", watched)
    parts = run_recipe(read_recipe(name), "sample")
    assert len(sizes) >= 9  # three steps go row by row,
    assert max(sizes) <= 70  # and none saw all texts at once
    monkeypatch.undo()
    shutil.copytree(sample_home, tmp_path / "whole")
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "whole"))
    whole = run_recipe(read_recipe(name), "sample")
    assert parts["digest"] == whole["digest"]
    assert list(map(told, parts["steps"])) == list(map(told, whole["steps"]))


def test_a_step_without_a_scope_sees_the_whole_frame(home: Path, in_parts: None) -> None:
    table = {"recipe": {"name": "some"}, "step": [{"use": "subset", "max_rows": 33}, {"use": "quality"}]}
    assert run_recipe(parse_recipe(table, where="test"), "sample")["rows_out"] == 33


def test_a_stop_within_a_step_loses_the_part_under_way(
    home: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, in_parts: None
) -> None:
    stopped_after(2, monkeypatch)
    assert len(list(home.glob("runs/*.parts/0*/report.json"))) == 2
    calls: list[str] = []
    real = runner.run_step

    def counted_call(name: str, *arguments: Any, **options: Any) -> Any:
        calls.append(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(runner, "run_step", counted_call)
    result = run_recipe(read_recipe("clean"), "sample")
    assert calls.count("normalize") == calls.count("quality") - 2 > 0
    assert result["digest"] == expected["digest"]
    assert list(map(told, result["steps"])) == list(map(told, expected["steps"]))
    assert list((home / "runs").iterdir()) == []


def test_a_failed_commit_leaves_nothing_and_repeats_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = counted()
    with monkeypatch.context() as patch:
        patch.setattr(record, "_store_records", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run_recipe(read_recipe("clean"), "sample")
    assert counted() == before
    result = run_recipe(read_recipe("clean"), "sample")
    assert all(step["reused"] for step in result["steps"])


def test_a_kill_right_after_the_commit_leaves_no_folder_for_good(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run starts from the version that was just made, so its steps have other keys."""
    stopped_after(7, monkeypatch)  # nothing recorded: these folders are still good for something
    kept = set((home / "runs").iterdir())
    other = {"recipe": {"name": "other"}, "step": [{"use": "exact_dedup"}]}
    run_recipe(parse_recipe(other, where="test"), "sample@v1", out="elsewhere")
    assert set((home / "runs").iterdir()) == kept
    assert len(kept) == 7

    def committed(*arguments: Any, **options: Any) -> None:
        record.record(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "record", committed)
        with pytest.raises(Killed):
            run_recipe(read_recipe("clean"), "sample")
    assert len(list((home / "runs").iterdir())) == 8
    run_recipe(parse_recipe(other, where="test"), "sample", out="elsewhere")  # version 2 of it
    assert list((home / "runs").iterdir()) == []


def test_a_damaged_folder_is_not_trusted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kept/*.arrow", "dropped.arrow", "report.json"):
        stopped_after(2, monkeypatch)
        paths = list(home.glob(f"runs/*/{name}"))
        assert paths
        for path in paths:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = run_recipe(read_recipe("clean"), "sample")
    assert not any(step["reused"] for step in result["steps"])


def test_another_config_reuses_only_what_it_shares(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = recipes.read_toml(recipes.shipped()["clean"])
    stopped_after(2, monkeypatch)
    table["step"][1]["merge_labels"] = False
    result = run_recipe(parse_recipe(table, where="test"), "sample")
    assert not any(step["reused"] for step in result["steps"])


def test_a_new_benchmark_or_vote_forgets_old_results(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_after(3, monkeypatch)
    with open_warehouse() as connection:
        run(connection, "UPDATE source SET is_benchmark = false")
    result = run_recipe(read_recipe("clean"), "sample")
    assert not any(step["reused"] for step in result["steps"])
    assert "no benchmark" in result["steps"][3]["facts"]["note"]


def test_a_full_disk_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rmkit.atomic.os.rename", full)
    with pytest.raises(StoreError, match="No space left"):
        run_recipe(read_recipe("clean"), "sample")


def test_nothing_left_is_an_error_and_no_version(home: Path) -> None:
    before = counted()
    table = {"recipe": {"name": "harsh"}, "step": [{"use": "quality", "min_words": 9999}]}
    with pytest.raises(DataError, match=r"dropped all \d+ rows \(quality alone"):
        run_recipe(parse_recipe(table, where="test"), "sample")
    assert counted() == before


def test_unknown_data(home: Path) -> None:
    with pytest.raises(VersionError, match="did you mean sample"):
        run_recipe(read_recipe("clean"), "sampel")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, ["no [[step]]"]),
        ({"step": []}, ["no [[step]]"]),
        ({"recipe": {"name": "x"}, "step": [{"threshold": 1}]}, ["step 1", 'use = "NAME"']),
        ({"recipe": {"name": "x"}, "step": [{"use": "near_dup"}]}, ["near_dup", "near_dedup", "normalize"]),
        ({"recipe": {"name": "x"}, "step": [{"use": "split", "ratio": 1}]}, ["ratio", "train", "validation"]),
        ({"recipe": {"name": "x"}, "step": [{"use": "split"}], "steps": []}, ["'steps'"]),
        ({"recipe": {}, "step": [{"use": "split"}]}, ["missing name"]),
        ({"recipe": {"name": "x", "title": "y"}, "step": [{"use": "split"}]}, ["title", "description"]),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(table: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(table, where="my.toml")
    assert str(caught.value).startswith("my.toml")
    assert all(word in str(caught.value) for word in words)


def test_unknown_recipe_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="certain, clean, denoise, strict"):
        read_recipe("cleen")
    with pytest.raises(ConfigError, match="no such file"):
        read_recipe(str(tmp_path / "absent.toml"))
