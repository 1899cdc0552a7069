"""Seeds and learning rates: runs that are there are not repeated, and chance is told as an interval."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.cli import main as cli  # noqa: E402
from rmkit.data.export_folder import dataset_of  # noqa: E402
from rmkit.errors import ConfigError, UsageError  # noqa: E402
from rmkit.training import sweep  # noqa: E402
from rmkit.training.config import ExplicitConfig  # noqa: E402
from rmkit.training.run import run_folder  # noqa: E402
from tests.rmkit.training.test_training import Make, base_model, data, make_trainer, settings  # noqa: E402, F401


def test_interval_over_seeds_is_students() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [0.6, 0.64, 0.59, 0.66]
    found = sweep.spread(values)
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert found["mean"] == pytest.approx(0.6225)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-4)
    assert sweep.spread([0.5]) == {"mean": 0.5, "low": None, "high": None}
    for df, value in enumerate(sweep.T_975, start=1):
        assert value == pytest.approx(stats.t.ppf(0.975, df), abs=1e-3)


def test_rates_are_compared_by_their_means() -> None:
    runs = [
        {"learning_rate": rate, "seed": seed, "validation": {"log_loss": loss, "accuracy": 0.5}}
        for rate, losses in ((1e-5, (0.70, 0.60)), (1e-4, (0.64, 0.65)))
        for seed, loss in enumerate(losses)
    ]
    found = sweep.summary(runs, by="log_loss")
    assert found["best_learning_rate"] == 1e-4  # the single lowest loss belongs to the other
    assert [row["log_loss"]["mean"] for row in found["rates"]] == pytest.approx([0.65, 0.645])
    assert found["rates"][1]["seeds"] == 2
    assert "lowest mean log_loss: learning rate 0.0001" in sweep.text(found)


def fake(card: dict[str, Any], calls: list[tuple[Any, ...]]) -> Any:
    def train(_: str, chosen: ExplicitConfig, *, output: Path, resume: bool, restart: bool) -> dict[str, Any]:
        calls.append((chosen.learning_rate, chosen.seed, output.name, resume))
        validation = {"accuracy": {"value": 0.5 + chosen.seed / 100}, "log_loss": chosen.learning_rate, "margin": {}}
        made = {**card, "validation": validation, "training": {"settings": chosen.as_json()}}
        output.mkdir()
        (output / "reward_model.json").write_text(json.dumps(made))
        return made

    return train


def test_what_is_done_is_not_repeated_and_what_is_broken_off_goes_on(data: Path, home: Path, tmp_path: Path) -> None:  # noqa: F811
    chosen = ExplicitConfig(model="x")
    calls: list[tuple[Any, ...]] = []
    train = fake({"dataset": dataset_of(data)}, calls)
    options: dict[str, Any] = {"seeds": 2, "learning_rates": [1e-5, 3e-5], "output": tmp_path / "hh", "train": train}
    first = sweep.sweep(str(data), chosen, **options)
    assert [call[:3] for call in calls] == [
        (1e-5, 0, "hh-lr1e-05-seed0"),
        (1e-5, 1, "hh-lr1e-05-seed1"),
        (3e-5, 0, "hh-lr3e-05-seed0"),
        (3e-5, 1, "hh-lr3e-05-seed1"),
    ]
    assert sweep.sweep(str(data), chosen, **options) == first
    assert len(calls) == 4
    assert json.loads((tmp_path / "hh-sweep.json").read_text()) == first

    more = sweep.sweep(str(data), chosen, **options | {"seeds": 3, "learning_rates": [1e-5]})
    assert [call[2] for call in calls[4:]] == ["hh-lr1e-05-seed2"]
    assert more["rates"][0]["accuracy"]["mean"] == pytest.approx(0.51)
    assert more["rates"][0]["accuracy"]["low"] == pytest.approx(0.51 - 4.303 * 0.01 / 3**0.5)

    broken_off = run_folder(tmp_path / "hh-lr1e-05-seed3") / "checkpoint-2"
    broken_off.mkdir(parents=True)
    (broken_off / "trainer_state.json").write_text("{}")
    sweep.sweep(str(data), chosen, **options | {"seeds": 4, "learning_rates": [1e-5]})
    assert calls[-1] == (1e-5, 3, "hh-lr1e-05-seed3", True)  # resumed


def test_an_artifact_of_other_settings_is_not_taken(data: Path, home: Path, tmp_path: Path) -> None:  # noqa: F811
    chosen = ExplicitConfig(model="x")
    train = fake({"dataset": dataset_of(data)}, [])
    options: dict[str, Any] = {"output": tmp_path / "hh", "train": train}
    sweep.sweep(str(data), chosen, **options)
    with pytest.raises(
        ConfigError, match=r"hh-lr1e-05-seed0 was made with other num_train_epochs; give the sweep another -o"
    ):
        sweep.sweep(str(data), replace(chosen, num_train_epochs=2.0), **options)
    with pytest.raises(UsageError, match="--seeds takes 1 or more"):
        sweep.sweep(str(data), chosen, seeds=0, **options)
    with pytest.raises(UsageError, match="must be positive"):
        sweep.sweep(str(data), chosen, learning_rates=[1e-5, 0.0], **options)


@pytest.mark.slow
def test_two_seeds_through_the_command(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = [f"--set=max_length={200}", "--set=response_reserve_tokens=100", "--set=global_batch_size=32"]
    arguments = ["explicit", "--data", str(data), "--model", base_model("llama"), *common, "-o", str(tmp_path / "yes")]
    assert cli.call("train", [*arguments, "--seeds", "2", "--learning-rates", "1e-3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    assert result["runs"][0]["validation"] != result["runs"][1]["validation"]
    row = result["rates"][0]
    assert row["log_loss"]["low"] < row["log_loss"]["mean"] < row["log_loss"]["high"]
    before = (tmp_path / "yes-lr0.001-seed1" / "reward_model.json").stat().st_mtime_ns
    assert cli.call("train", [*arguments, "--seeds", "2", "--learning-rates", "1e-3"]) == 0
    assert "lowest mean log_loss: learning rate 0.001" in capsys.readouterr().out
    assert (tmp_path / "yes-lr0.001-seed1" / "reward_model.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="numbers with commas"):
        cli.call("train", [*arguments, "--learning-rates", "1e-3;2"])
