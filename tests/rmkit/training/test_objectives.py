"""Objectives as objects: built-in ones and those of users go through the same door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.cli import main as cli  # noqa: E402
from rmkit.config import options  # noqa: E402
from rmkit.errors import ConfigError, UsageError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.plugins import BUILT_IN, resolve  # noqa: E402
from rmkit.training import explicit  # noqa: E402
from rmkit.training.config import CONFIGS, objectives, training_config  # noqa: E402
from rmkit.training.objectives.objective import REDUCTION_OF  # noqa: E402
from rmkit.training.rows import Preference  # noqa: E402
from rmkit.training.trainer import row_losses  # noqa: E402
from tests.rmkit.training.test_training import Make, base_model, data, row_of  # noqa: E402, F401

HINGE = """
from dataclasses import dataclass
from typing import Annotated

from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Hinge(PairObjective):
    gap: Annotated[float, "the margin from which on a pair costs nothing"] = 1.0

    def pair_losses(self, pairs: Pairs, state: RunState):
        return (self.gap - pairs.chosen + pairs.rejected).clamp(min=0)
"""


@pytest.fixture
def hinge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's own objective, in a module of the user's."""
    (tmp_path / "my_objectives.py").write_text(HINGE)
    monkeypatch.syspath_prepend(tmp_path)
    return "my_objectives:Hinge"


def test_a_users_objective_trains_from_the_command_line(
    base_model: Make,  # noqa: F811
    data: Path,  # noqa: F811
    home: Path,
    hinge: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flat = {"objective": hinge, "gap": 2, "learning_rate": 3e-3, "num_train_epochs": 2, "global_batch_size": 16}
    flat |= {"max_length": 200, "response_reserve_tokens": 100}
    chosen = [f"--set={key}={value}" for key, value in flat.items()]
    arguments = ["explicit", "--data", str(data), "--model", base_model("llama"), "-o", str(tmp_path / "hinge")]
    assert cli.call("train", [*arguments, *chosen, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["training"]["loss"][0] == pytest.approx(2.0, abs=0.2)  # the gap, at rewards that know nothing yet
    assert result["training"]["loss"][-1] < 1.0
    assert result["validation"]["accuracy"]["value"] > 0.8
    stored = result["training"]["settings"]
    assert (stored["objective"], stored["gap"]) == (hinge, 2.0)
    assert json.loads(json.dumps(training_config("explicit", **stored).as_json())) == stored
    assert load_model(tmp_path / "hinge").info.kind == "explicit"  # what is stored needs no code of the user's


def test_a_users_objective_is_weighted_and_centered_like_any_other(hinge: str) -> None:
    config = training_config("explicit", model="x", objective=hinge, gap=0.5, center_rewards_coefficient=0.1)
    row = row_of(3, Preference(0, 1, 1.0, 0.25), Preference(2, 1, 0.0, 0.75), weight=2.0)
    # chosen 0 by 0.2 of 0.5: 0.3; chosen 1 over 2, which is ahead by 0.6: 1.1; rewards add up to 1.1
    same = training_config("explicit", model="x", objective=config.objective, center_rewards_coefficient=0.1)
    assert same == config
    loss = row_losses(torch.tensor([0.3, 0.1, 0.7]), [row], config).item()
    assert loss == pytest.approx(2 * (0.25 * 0.3 + 0.75 * 1.1 + 0.1 * 1.1**2))


def test_flat_options_say_all_of_a_config() -> None:
    for kind in CONFIGS:
        for name in objectives(kind):
            own = {option.name: option.default for option in options(resolve("objectives", name))}
            if (needed := REDUCTION_OF.get(resolve("objectives", name).steps)) is not None:
                own["reduction"] = needed
            own |= {key: 0.3 for key in own if key in ("label_noise", "focal_gamma", "margin_scale", "negatives_kept")}
            config = training_config(kind, model="x", objective=name, seed=7, **own)
            flat = config.as_json()
            assert (flat["objective"], flat["seed"]) == (name, 7)
            assert own.items() <= flat.items()
            assert training_config(kind, **flat) == config
    assert set(BUILT_IN["objectives"]) == {name for kind in CONFIGS for name in objectives(kind)}


def test_every_option_has_a_line_of_help_and_one_owner() -> None:
    for kind, cls in CONFIGS.items():
        shared = {option.name: option.help for option in options(cls)}
        assert all(shared.values())
        for name in objectives(kind):
            own = {option.name: option.help for option in options(resolve("objectives", name))}
            assert all(own.values())
            assert not own.keys() & shared.keys()


def test_what_an_objective_does_not_have_is_refused_by_name(hinge: str) -> None:
    with pytest.raises(ConfigError, match="label_noise is an option of label_smoothing and robust, not of focal"):
        training_config("explicit", model="x", objective="focal", label_noise=0.2)
    with pytest.raises(ConfigError, match="unknown key 'gab'; did you mean 'gap'"):
        training_config("explicit", model="x", objective=hinge, gab=2)
    with pytest.raises(ConfigError, match="'process', which is for rmkit train process"):
        training_config("explicit", model="x", objective="process")
    with pytest.raises(ConfigError, match="is no subclass of"):
        training_config("explicit", model="x", objective="json:loads")
    with pytest.raises(UsageError, match="did you mean 'margin'"):
        training_config("explicit", model="x", objective="margins")
    with pytest.raises(UsageError, match="cannot be loaded"):
        training_config("explicit", model="x", objective="my_objectives:Hing")


@pytest.mark.parametrize("kind", ["explicit", "process", "implicit"])
def test_help_lists_the_settings_of_the_kind_and_of_its_objectives(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        explicit.main(["--help"], kind=kind)
    text = capsys.readouterr().out
    names = [option.name for option in options(CONFIGS[kind])]
    names += [option.name for name in objectives(kind) for option in options(resolve("objectives", name))]
    assert all(name in text for name in (*names, *objectives(kind)))
    assert ("focal_gamma" in text) == (kind == "explicit")
