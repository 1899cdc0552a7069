"""Calibration and normalization: the links against known truths and scikit-learn, and what is stored beside a model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmkit.errors import DataError, ModelError, UsageError
from rmkit.metrics import calibration, log_loss
from rmkit.metrics.calibration import sigmoid
from rmkit.metrics.isotonic import fit_isotonic
from rmkit.models import load_model
from rmkit.models.scoring import stream_scores
from rmkit.models.wrappers.calibrated import CalibratedModel
from rmkit.scoring import calibrate, verify
from rmkit.training import command as train
from rmkit.types import Candidates, Completion, Message
from tests.exports import kind_rows, write_export


def pair(*texts: str) -> Candidates:
    return Candidates((Message("user", "tell me"),), tuple(Completion((Message("assistant", t),)) for t in texts))


def test_isotonic_by_hand() -> None:
    # with both orders, margins -2 -1 1 2 have labels .2 .7 .3 .8: the middle two violate and pool to 1/2
    link = fit_isotonic([1.0, 2.0], [0.3, 0.8])
    assert link([2.0, 1.0, 0.0, -1.0, -2.0, 9.0]) == pytest.approx(
        [0.75, 0.5, 0.5, 0.5, 0.25, 0.75]
    )  # 1 - 1/4: clipped
    wide = fit_isotonic([1.0, 2.0] * 10, [0.3, 0.8] * 10)
    assert wide([2.0, 1.5, -2.0]) == pytest.approx([0.8, 0.65, 0.2])  # linear between the knots
    assert np.isnan(wide([math.nan])).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1), st.floats(0.1, 3)), min_size=1, max_size=30))
def test_isotonic_is_monotone_symmetric_and_never_certain(rows: list[tuple[float, float, float]]) -> None:
    margin, p, weight = (np.array(column) for column in zip(*rows, strict=True))
    link = fit_isotonic(margin, p, weight=weight)
    grid = np.linspace(-6, 6, 101)
    q = link(grid)
    assert np.all(np.diff(q) >= -1e-12)
    assert q + q[::-1] == pytest.approx(np.ones(101), abs=1e-12)
    assert q.min() >= 1 / (len(rows) + 2) - 1e-12


def test_isotonic_finds_a_link_that_no_temperature_has() -> None:
    draw = np.random.default_rng(0)
    margin = draw.normal(size=4000)
    truth = 0.5 + 0.4 * np.tanh(8 * margin)  # quickly to 0.9, never beyond
    label = (draw.random(4000) < truth).astype(float)
    fresh = draw.normal(size=4000)
    outcome = (draw.random(4000) < 0.5 + 0.4 * np.tanh(8 * fresh)).astype(float)
    link = fit_isotonic(margin, label)
    assert np.abs(link(margin) - truth).mean() < 0.03
    assert calibration(link(fresh), outcome).ece < 0.03
    assert log_loss(link(fresh), outcome) < log_loss(sigmoid(2 * fresh), outcome) - 0.02


@pytest.fixture
def stored(home: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A lexical model and the noisy data that it was trained on."""
    data = write_export(tmp_path / "data", kind_rows(600, flipped=0.25))
    train.train("lexical", str(data), output=tmp_path / "model", values={"hash_bits": 10, "c_grid": [0.1]})
    return tmp_path / "model", data


def test_calibrating_changes_probabilities_and_nothing_else(
    stored: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = stored
    before = load_model(folder)
    batch = [pair("thank you glad", "stupid boring"), pair("never", "happy chess")]
    assert calibrate.main([str(folder), "--data", str(data), "--method", "isotonic", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["cross_fitted"]) == {"as it is", "temperature", "isotonic"}
    one = told["cross_fitted"]["isotonic"]
    assert one["log_loss"]["low"] < one["log_loss"]["value"] < one["log_loss"]["high"]
    assert one["change"]["value"] == pytest.approx(
        one["log_loss"]["value"] - told["cross_fitted"]["as it is"]["log_loss"]["value"]
    )
    after = load_model(folder)
    assert isinstance(after, CalibratedModel)
    assert after.info == before.info
    assert after.score(batch) == before.score(batch)
    margins = [row[0].value - row[1].value for row in before.score(batch)]
    expected = np.interp(margins, told["link"]["margin"], told["link"]["p"])
    assert [one.p_first for one in after.compare(batch)] == pytest.approx(expected)
    assert after.compare([pair("", "happy")])[0].unscored is not None
    assert verify.main([str(folder)]) == 0
    assert calibrate.main([str(folder), "--data", str(data), "--method", "none"]) == 0
    assert load_model(folder).compare(batch) == before.compare(batch)


def test_a_shrunk_model_is_repaired_by_a_temperature(stored: tuple[Path, Path]) -> None:
    folder, data = stored
    model = load_model(folder)

    class Shrunk:
        info = model.info

        def score(self, batch):  # type: ignore[no-untyped-def]
            return [[type(s)(s.value / 8) for s in row] for row in model.score(batch)]

        def compare(self, batch):  # type: ignore[no-untyped-def]
            return [type(c)(float(sigmoid(8 * np.log(c.p_first / (1 - c.p_first))))) for c in model.compare(batch)]

    result = calibrate.calibrate(folder, Shrunk(), str(data), split="validation")
    found = result["cross_fitted"]
    assert found["temperature"]["change"]["high"] < 0  # far better than the overconfident probabilities
    assert found["temperature"]["ece"]["value"] < found["as it is"]["ece"]["value"]
    assert result["method"] == "temperature"
    assert result["link"]["temperature"] == pytest.approx(1 / 8, rel=0.35)


def test_normalized_scores_are_served_beside_raw_ones(
    stored: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = stored
    raw = load_model(folder)
    assert calibrate.normalize_main([str(folder), "--data", str(data), "--clip", "1.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    texts = {tuple(row["responses"]) for row in kind_rows(600, flipped=0.25) if row["split"] == "validation"}
    assert told["responses"] == len({text for both in texts for text in both})
    model = load_model(folder)
    batch = [pair("thank you glad happy gladly welcome certainly", "stupid", "eggs", "")]
    [scores], [plain] = model.score(batch), raw.score(batch)
    assert [one.value for one in scores[:3]] == [one.value for one in plain[:3]]
    z = [(one.value - told["mean"]) / told["scale"] for one in plain[:3]]
    assert [one.normalized for one in scores[:3]] == pytest.approx([min(max(one, -1.5), 1.5) for one in z])
    assert scores[3].normalized is None
    assert max(z) > 1.5  # the clip was needed
    assert model.info == raw.info
    assert isinstance(model, CalibratedModel)
    assert [row[:3] for row in stream_scores(model, iter(batch), window=1)] == [scores[:3]]
    assert "Normalized score" in (folder / "README.md").read_text()


def test_an_edited_or_foreign_file_is_refused(stored: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder, data = stored
    calibrate.normalize_main([str(folder), "--data", str(data)])
    path = folder / "calibration.json"
    good = json.loads(path.read_text())
    for change, match in (
        ({"normalization": {**good["normalization"], "mean": 5.0}}, "was changed since"),
        ({"fingerprint": "0" * 32}, "belongs to model"),
        ({"link": {"method": "magic"}}, "expected one of"),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(ModelError, match=match):
            load_model(folder)
        assert verify.main([str(folder)]) == 1
        assert capsys.readouterr().out.count("DIFFERS  calibration") == 1
    path.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(folder)


def test_what_cannot_be_calibrated_is_refused(stored: tuple[Path, Path], tmp_path: Path) -> None:
    folder, data = stored
    with pytest.raises(UsageError, match="no artifact"):
        calibrate.main(["length", "--data", str(data)])
    few = write_export(tmp_path / "few", kind_rows(60))
    with pytest.raises(DataError, match="at least 50 are needed"):
        calibrate.main([str(folder), "--data", str(few)])
    with pytest.raises(UsageError, match="positive"):
        calibrate.normalize_main([str(folder), "--data", str(data), "--clip", "0"])
    assert not (folder / "calibration.json").exists()
