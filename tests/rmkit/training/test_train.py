"""`rmkit train`: what it prints, where it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, MissingExtraError, ModelError, UsageError
from rmkit.models import load_model
from rmkit.training import command as train
from tests.exports import kind_rows, row, write_export


def run(*arguments: str) -> int:
    return cli.call("train", list(arguments))


def test_the_json_result_says_all_that_others_need(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_export(tmp_path / "data", kind_rows(100), ref="made@v3")
    assert run("lexical", "--data", str(data), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(home / "models" / "made-v3-lexical")
    assert result["dataset"]["ref"] == "made@v3"
    assert result["training"]["pairs"] == {"train": 60, "validation": 20}
    assert result["validation"]["accuracy"]["denominator"] == 20
    assert result["validation"]["accuracy"]["value"] >= 0.9
    assert result["fingerprint"] == load_model(result["path"]).info.fingerprint


def test_the_text_names_the_next_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_export(tmp_path / "data", kind_rows(100))
    run("lexical", "--data", str(data), "-o", str(tmp_path / "m"))
    text = capsys.readouterr().out
    assert f"rmkit eval {tmp_path / 'm'} length --data made@v1" in text
    assert "made@v1 (60 train pairs, 20 validation pairs)" in text


def test_the_test_split_is_never_read(tmp_path: Path) -> None:
    rows = kind_rows(100)
    poisoned = [one | {"p": one["p"][::-1]} if one["split"] == "test" else one for one in rows]
    results = [
        train.train("lexical", str(write_export(tmp_path / name / "data", some)), output=tmp_path / name / "model")
        for name, some in (("a", rows), ("b", poisoned), ("c", [one for one in rows if one["split"] != "test"]))
    ]
    assert len({result["fingerprint"] for result in results}) == 1


def test_dev_is_accepted_as_the_validation_split(tmp_path: Path) -> None:
    rows = [one | {"split": one["split"].replace("validation", "dev")} for one in kind_rows(100)]
    result = train.train("lexical", str(write_export(tmp_path / "data", rows)), output=tmp_path / "model")
    assert result["training"]["pairs"]["validation"] == 20


def test_skipped_rows_are_counted_not_hidden(tmp_path: Path) -> None:
    rows = [*kind_rows(100), row("q", ["a", "b"], split="train"), row("q", ["a"], kind="single", split="train")]
    result = train.train("lexical", str(write_export(tmp_path / "data", rows)), output=tmp_path / "model")
    assert result["training"]["skipped"]["train"] == {
        "no label that compares responses": 1,
        "nothing to compare (kind single)": 1,
    }


def without_split(split: str) -> list[dict[str, Any]]:
    return [one for one in kind_rows(100) if one["split"] != split]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (without_split("train"), "no 'train' split.*it has: test, validation.*split"),
        (without_split("validation"), "no 'validation' split"),
        ([one | {"split": None} for one in kind_rows(20)], "it has: rows without one"),
        (kind_rows(30), "train split has 18 usable pairs, at least 20"),
        ([*without_split("train"), row("q", ["a"], kind="single", split="train")], "1 rows: nothing to compare"),
    ],
)
def test_unusable_data_is_told_before_any_work(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        train.train("lexical", str(write_export(tmp_path / "data", rows)), output=tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_benchmark_rows_are_refused_unless_allowed(tmp_path: Path) -> None:
    data = write_export(tmp_path / "data", kind_rows(100))
    manifest = json.loads((data / "manifest.json").read_text())
    (data / "manifest.json").write_text(json.dumps(manifest | {"benchmark_rows": 7}))
    with pytest.raises(DataError, match="7 benchmark rows"):
        train.train("lexical", str(data), output=tmp_path / "model")
    assert run("lexical", "--data", str(data), "-o", str(tmp_path / "model"), "--allow-benchmark") == 0


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an export folder"):
        run("lexical", "--data", str(tmp_path))


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    for arguments in (["magic", "--data", "x"], []):
        with pytest.raises(UsageError, match=r"lexical, frozen, .*explicit"):
            run(*arguments)


def test_help_needs_no_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "frozen" in capsys.readouterr().out


def test_config_comes_from_toml_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    data = str(write_export(tmp_path / "data", kind_rows(100)))
    (tmp_path / "good.toml").write_text("hash_bits = 12\nc_grid = [1]\n")
    (tmp_path / "bad.toml").write_text("hashbits = 12\n")
    run("lexical", "--data", data, "--config", str(tmp_path / "good.toml"), "-o", str(tmp_path / "model"))
    card = json.loads((tmp_path / "model/reward_model.json").read_text())
    assert (card["config"]["hash_bits"], card["config"]["c_grid"]) == (12, [1.0])
    with pytest.raises(ConfigError, match="did you mean 'hash_bits'"):
        run("lexical", "--data", data, "--config", str(tmp_path / "bad.toml"), "-o", str(tmp_path / "other"))


def test_an_output_that_is_something_else_is_not_touched(tmp_path: Path) -> None:
    data = write_export(tmp_path / "data", kind_rows(100))
    with pytest.raises(ModelError, match="not a reward model"):
        train.train("lexical", str(data), output=data)
    assert (data / "manifest.json").is_file()


def test_without_torch_the_extra_is_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    data = write_export(tmp_path / "data", kind_rows(100))
    with pytest.raises(MissingExtraError, match=r"\[train\]'"):
        train.train("frozen", str(data), output=tmp_path / "model")
    assert not (tmp_path / "model").exists()
