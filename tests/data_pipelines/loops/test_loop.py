"""Loops: what a TOML may say, names in braces, parts, hill-climbing, the runner on real versions, the shipped ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.loops.loop import Climb, filled, parse_loop, read_loop, shipped
from data_pipelines.loops.runner import _Climber, _parts, _same_loop, run_loop
from rmkit.atomic import write_text
from rmkit.cli import main as cli
from rmkit.errors import ConfigError
from tests.data_pipelines.kind_pairs import write_kind_pairs
from warehouse.versions.dataset import load_dataset

HALVES = {
    "loop": {"name": "halves", "rounds": 2},
    "settings": {"share": {"default": [0.5, 0.1]}, "seed": 0},
    "step": [
        {"use": "subset", "once": True, "max_rows": 20, "as": "small"},
        {"use": "subset", "data": "{data}", "split": "train", "part": "{round}", "parts": "{rounds}", "seed": "{seed}"},
        {"use": "quality"},
        {"use": "join", "other": "{small}", "share": "{share}", "split": ""},
    ],
}


def test_what_a_loop_may_say() -> None:
    loop = parse_loop(HALVES, where="halves").with_settings({"rounds": 3})
    assert (loop.rounds, loop.names) == (3, {"share": [0.5, 0.1], "seed": 0})
    assert [loop.names_of(number, data="d")["share"] for number in (0, 1, 2, 3)] == [0.5, 0.5, 0.1, 0.1]
    assert [[step.use for step in part] for part in _parts(loop.steps, 0)] == [["subset"]]
    assert [[step.use for step in part] for part in _parts(loop.steps, 1)] == [["subset", "quality"], ["join"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": [{"use": "sbset"}]}, "sbset.*subset"),
        ({"step": [{"use": "subset", "max_row": 3}]}, "max_row"),
        ({"step": [{"use": "subset", "seed": "{sed}"}]}, "sed.*seed"),
        ({"step": [{"use": "subset", "once": "yes"}]}, "once"),
        ({"step": []}, "no \\[\\[step\\]\\]"),
        ({"settings": {"data": 1}}, "data is given by the loop"),
        ({"settings": {"policy": {}}}, "missing policy"),
        ({"loops": {}}, "loops"),
        ({"step": [{"use": "subset", "part": 3, "parts": 2}]}, "part lies in 1 .. 2"),
    ],
)
def test_faults_are_named_before_anything_runs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_loop(HALVES | change, where="halves").with_settings({})


def test_settings_have_the_type_of_their_default() -> None:
    loop = parse_loop(HALVES, where="halves")
    for values in ({"seed": "many"}, {"seed": True}, {"rounds": 0}, {"sed": 1}):
        with pytest.raises(ConfigError):
            loop.with_settings(values)


def test_names_in_braces() -> None:
    names = {"n": 3, "folder": "models/a", "flag": False}
    value = {"k": "{n}", "path": "{folder}/x-{n}", "on": "{flag}", "list": ["{n}", 1], "plain": "no"}
    assert filled(value, names, where="") == {
        "k": 3, "path": "models/a/x-3", "on": False, "list": [3, 1], "plain": "no"}  # fmt: skip


def test_a_climber_goes_back_and_turns_around() -> None:
    climber = _Climber(Climb(setting="c", measure="evaluate.mean_reward", by=1.0), {"c": 4.0})
    tried = []
    for value in (0.2, 0.5, 0.4, 0.6, 0.6):
        tried.append(climber.trial)
        climber.accepts(value)
    assert tried == [4.0, 5.0, 6.0, 4.0, 3.0]  # 6 was worse than 5: back to 5, now downwards; 4 was better
    assert climber.trial == 5.0


def test_all_shipped_loops_can_be_read(tmp_path: Path) -> None:
    for name in shipped():
        loop = read_loop(name)
        given = {key: f"models/{key}" for key, setting in loop.settings.items() if setting.default is None}
        assert loop.with_settings(given).description
        assert all(setting.help for setting in loop.settings.values())


def test_a_loop_can_be_mended_until_its_first_step_has_ended(tmp_path: Path) -> None:
    loops = [parse_loop(HALVES, where="halves").with_settings({"seed": seed}) for seed in (0, 1)]
    for loop in loops:
        _same_loop(tmp_path, loop, "digest", "halves")
    (tmp_path / "round-0").mkdir()
    (tmp_path / "round-0" / "01-subset.json").write_text("{}")
    _same_loop(tmp_path, loops[1], "digest", "halves")
    with pytest.raises(ConfigError, match="other settings"):
        _same_loop(tmp_path, loops[0], "digest", "halves")
    with pytest.raises(ConfigError, match="other data"):
        _same_loop(tmp_path, loops[1], "another digest", "halves")


def test_rounds_are_versions_and_a_loop_that_was_cut_off_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.call("ingest", [str(write_kind_pairs(tmp_path / "pairs.jsonl", 100)), "--name", "kind", "--json"])
    path = tmp_path / "halves.toml"
    path.write_text(
        '[loop]\nname = "halves"\nrounds = 2\n[settings]\nshare = [0.5, 0.1]\nseed = 0\n'
        '[[step]]\nuse = "subset"\nonce = true\nmax_rows = 20\nas = "small"\n'
        '[[step]]\nuse = "subset"\ndata = "{data}"\nsplit = "train"\npart = "{round}"\nparts = "{rounds}"\n'
        '[[step]]\nuse = "join"\nother = "{small}"\nshare = "{share}"\nsplit = ""\n'
    )
    folder = tmp_path / "halves"
    arguments = [str(path), "--data", "kind", "-o", str(folder), "--json"]
    whole, records = write_text, list[Path]()

    def cut(target: Path, text: str) -> None:
        if target.suffix == ".json" and target.parent.name == "round-1":
            records.append(target)
            if len(records) == 2:
                raise KeyboardInterrupt
        whole(target, text)

    with monkeypatch.context() as patch:
        patch.setattr("data_pipelines.loops.runner.write_text", cut)
        with pytest.raises(KeyboardInterrupt):  # behind the commit of round 1's join, before its record
            cli.call("loop", arguments)
    capsys.readouterr()
    assert cli.call("loop", arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert [(one["round"], one["use"]) for one in result["steps"]] == [
        (0, "subset"), (1, "subset"), (1, "join"), (2, "subset"), (2, "join")]  # fmt: skip
    train = {row.id for row in load_dataset("kind", split="train")}
    parts = [{row.id for row in load_dataset(one["version"])} for one in result["steps"] if one["use"] == "subset"][1:]
    assert parts[0] | parts[1] == train
    assert not parts[0] & parts[1]
    joins = [one["facts"]["join"] for one in result["steps"] if one["use"] == "join"]
    assert [one["of_other"] for one in joins] == [10, 2]
    assert len(load_dataset("halves@round-2")) == joins[1]["rows"]
    assert len({one["version"] for one in result["steps"]}) == 5  # the cut-off one was not committed twice
    assert result["steps"][-1]["version"] == "halves@v5"
    page = (folder / "loop.md").read_text()
    assert "| join: of other |  | 10 | 2 |" in page
    with pytest.raises(ConfigError, match="other settings"):
        run_loop(read_loop(str(path)).with_settings({"seed": 1}), "kind", folder=folder)
