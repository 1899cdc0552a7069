"""The study of explicit and implicit models: its numbers by hand; the whole command on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.probes.shift_study import _summary, between, page
from rmkit.cli import main as cli
from tests.data_pipelines.kind_pairs import write_kind_pairs


def run(**points: float) -> dict[str, Any]:
    return {"cells": {name: {"first": {"percent": 70.0 + value}, "second": {"percent": 70.0},
                             "difference": {"points": value}} for name, value in points.items()}}  # fmt: skip


def test_mean_and_maximum_over_shifted_cells_by_hand() -> None:
    runs = [run(id=1.0, prompt=2.0, both=6.0), run(id=-1.0, prompt=4.0, both=2.0)]
    chosen = [{"explicit": {"learning_rate": 1e-3}, "implicit": {"learning_rate": 1e-3, "beta": 0.1}}] * 2
    found = _summary("d@v1", runs, chosen, "rmkit probe implicit ...")
    assert (found.mean.mean, found.largest, found.maximum.mean) == (3.5, "both", 4.0)
    # values 6 and 2: deviation 2.828, standard error 2, t(0.975, 1) = 12.706
    assert found.maximum.low == pytest.approx(4 - 12.706 * 2, abs=0.01)
    assert found.mean.high == pytest.approx(3.5 + 12.706 * 0.5, abs=0.01)
    assert [(one.name, one.explicit, one.difference.mean) for one in found.cells] == [
        ("id", 70.0, 0.0), ("prompt", 73.0, 3.0), ("both", 74.0, 4.0)]  # fmt: skip
    assert between([2.5]).low is None
    assert "largest +4.0 [-21.4, +29.4] (both;" in page(found)


@pytest.mark.slow
def test_the_whole_study(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from evaluation.denoise.fine_tuned import causal_model

    for name, seed in (("kind", 0), ("other", 1)):
        path = write_kind_pairs(tmp_path / f"{name}.jsonl", 120, seed=seed)
        cli.call("ingest", [str(path), "--name", name, "--json"])
    causal_model(tmp_path / "model", hidden=32, seed=0)
    words = ["implicit", "kind", "--model", str(tmp_path / "model"), "--cell", "id=kind:test"]
    words += ["--cell", "prompt=other:test", "--seeds", "2", "--rates", "1e-3", "--betas", "0.1,0.5"]
    words += ["--set", "max_length=256", "--set", "num_train_epochs=1"]
    words += ["--page", str(tmp_path / "study.md"), "-o", str(tmp_path / "models"), "--json"]
    capsys.readouterr()
    assert cli.call("probe", words) == 0
    result = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in result["cells"]] == ["id", "prompt"]
    assert result["largest"] == "prompt"
    names = [f"{kind}-{seed}-0.001" for seed in (0, 1) for kind in ("explicit", "implicit")]
    models = {path.name for path in (tmp_path / "models").iterdir()}
    assert models == {name + beta for name in names for beta in (["-0.1", "-0.5"] if "implicit" in name else [""])}
    assert "seed 1: explicit learning rate 0.001" in (tmp_path / "study.md").read_text()
