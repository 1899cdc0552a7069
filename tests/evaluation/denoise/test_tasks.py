"""Tasks with known labels: splits by prompt, mismatched replies, the planted teacher; the bench on a tiny encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.benchmarks.denoising import run as denoising
from evaluation.benchmarks.denoising import selection as denoising_selection
from evaluation.benchmarks.denoising import speed as denoising_speed
from evaluation.denoise import tasks as noise_tasks
from evaluation.denoise.tasks import (
    bench_data,
    mismatched,
    noise_frame,
    planted,
    preferences,
    read_talks,
    relevance,
    split,
)
from rmkit.cli.main import main as rmkit
from rmkit.errors import DataError, UsageError
from rmkit.revision import versions_text
from tests.rmkit.tiny_encoder import WORDS, write_tiny_encoder

TOPICS = ("eggs", "bread", "rivers", "music", "chess", "stars", "trains", "paint")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """720 pairs of 240 prompts; the reply repeats the prompt's topic."""
    generator = np.random.default_rng(0)
    words = [word for word in WORDS.split() if word not in TOPICS]
    rows = []
    for number in range(720):
        topic = TOPICS[number % 8]
        said = " ".join(generator.choice(words, 4)) if number % 3 else "hello"
        prompt = [{"role": "user", "content": f"tell me about {topic} {number // 3} {said if number % 3 == 0 else ''}"}]
        good = f"{topic} {topic} " + " ".join(generator.choice(words, 3))
        bad = " ".join(generator.choice(words, int(generator.integers(2, 9))))
        rows.append({"id": f"r{number}", "prompt": prompt, "chosen": good, "rejected": bad, "subset": "ab"[number % 2]})
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture
def encoder_folder(tmp_path: Path) -> Path:
    return write_tiny_encoder(tmp_path / "encoder")


def test_prompts_with_one_first_turn_stay_on_one_side(pairs_file: Path) -> None:
    train, test = split(read_talks(pairs_file), test=200)
    assert len(train) + len(test) == 720
    assert 195 <= len(test) <= 200
    assert not {talk.group for talk in train} & {talk.group for talk in test}
    assert {talk.id for talk in split(read_talks(pairs_file), test=200)[1]} == {talk.id for talk in test}
    assert {talk.id for talk in split(read_talks(pairs_file), test=200, seed=1)[1]} != {talk.id for talk in test}
    with pytest.raises(DataError, match="pairs are too few to hold 5000 out for the test"):
        split(read_talks(pairs_file), test=5000)
    share = split(read_talks(pairs_file), test=0.3)[1]
    assert len(share) == pytest.approx(216, abs=3)


def test_mismatched_replies_are_those_of_other_prompts(pairs_file: Path) -> None:
    talks = read_talks(pairs_file)
    made = mismatched(talks)
    reply_of = {talk.chosen: talk.group for talk in talks}
    for before, after in zip(talks, made, strict=True):
        assert after.chosen == before.chosen
        assert reply_of[after.rejected] != after.group
    with pytest.raises(DataError, match="no mismatched pair"):
        mismatched([talk for talk in talks if talk.group == talks[0].group])


def test_subsets_and_missing_ones(pairs_file: Path) -> None:
    assert len(read_talks(pairs_file, subset="a")) == 360
    with pytest.raises(DataError, match="no pairs of a subset zebra"):
        read_talks(pairs_file, subset="zebra")


def test_features_follow_the_labels_and_flips_are_exact(home: Path, pairs_file: Path, encoder_folder: Path) -> None:
    encoder = noise_tasks.encoder_of(str(encoder_folder))
    data = preferences(pairs_file, encoder=encoder)
    train, _ = split(read_talks(pairs_file), test=500)
    assert data.train.ids == tuple(talk.id for talk in train)
    expected = encoder.features(noise_tasks.texts_of(train[3:4]))
    np.testing.assert_allclose(data.train.vectors[data.train.rows[3]], expected, atol=2e-3)  # fp16, other batches
    for kind in ("symmetric", "length", "prompt", "annotator"):
        mask = data.flips(kind, 0.2, 0)
        assert mask.sum() == round(0.2 * len(train))
        assert not np.array_equal(mask, data.flips(kind, 0.2, 1))
    longer = np.array([len(talk.rejected) > len(talk.chosen) for talk in train])
    assert longer[data.flips("length", 0.2, 0)].all()
    assert data.digest != relevance(pairs_file, encoder=encoder).digest


def test_pairs_of_one_prompt_share_its_row(home: Path, pairs_file: Path, encoder_folder: Path) -> None:
    talks = read_talks(pairs_file)
    twice = [*talks[:60], *(replace(talk, id=f"{talk.id}-again", chosen=talk.rejected) for talk in talks[:60])]
    found = bench_data("twice", [twice, talks[60:70]], noise_tasks.encoder_of(str(encoder_folder))).train
    np.testing.assert_array_equal(found.rows[:60, 0], found.rows[60:, 0])
    np.testing.assert_array_equal(found.rows[:60, 2], found.rows[60:, 1])
    assert len(set(found.rows[:60, 0])) == len({talk.prompt_json for talk in talks[:60]})


def test_planted_labels_are_the_teachers(home: Path, pairs_file: Path, encoder_folder: Path) -> None:
    encoder = noise_tasks.encoder_of(str(encoder_folder))
    data, own = planted(pairs_file, encoder=encoder), preferences(pairs_file, encoder=encoder)
    assert data.train.ids == own.train.ids
    weights = np.random.default_rng(0).standard_normal((2, encoder.width))
    prompt, chosen, rejected = (data.train.vectors[data.train.rows[:, i]].astype(np.float64) for i in range(3))
    taste = (chosen - rejected) @ weights[0] + (prompt * (chosen - rejected)) @ weights[1] * encoder.width**0.5
    assert (taste > 0).all()
    turned = (data.train.vectors[data.train.rows[:, 1]] != own.train.vectors[own.train.rows[:, 1]]).any(axis=1)
    assert 0.3 < turned.mean() < 0.7


def test_the_noise_frame_has_the_better_reply_first(pairs_file: Path) -> None:
    talk = read_talks(pairs_file)[0]
    row = noise_frame([talk]).row(0, named=True)
    assert json.loads(row["responses"][0]) == [{"content": talk.chosen, "role": "assistant"}]
    assert (row["p"], row["unit"]) == ([1.0, 0.0], "r0")


@pytest.mark.slow
def test_the_bench_measures_and_writes_its_page(
    home: Path, pairs_file: Path, encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    small = {"relevance": (("symmetric", 0.4),), "planted": (("symmetric", 0.2),)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoising, "NOISES", small)
        patch.setattr(denoising, "METHODS", ("standard", "self", "peer"))
        patch.setattr(denoising_selection, "LABELED", 100)
        options = ["--pairs", str(pairs_file), "--encoder", str(encoder_folder), "--seeds", "2", "--workers", "1"]
        status = rmkit(["bench", "denoising", *options, "--page", str(page), "--json"])
        found = json.loads(capsys.readouterr().out)
    cell = found["quality"]["relevance"]["noises"]["symmetric 40%"]
    gain = cell["peer"]["accuracy"]["mean"] - cell["standard"]["accuracy"]["mean"]
    assert cell["peer"]["minus_standard"]["mean"] == pytest.approx(gain, abs=1e-4)  # fp32 percents
    assert 0.5 < cell["peer"]["kept_precision"]["mean"] <= 1
    assert found["acceptance"]["gain"] == pytest.approx(gain, abs=1e-4)
    assert status == int(not found["acceptance"]["passed"])
    wrong = found["selection"]["relevance"]
    assert set(wrong) == {"all", "agreed", "drawn", "bald", "mean_p", "margin"}
    assert wrong["mean_p"]["mean"] < wrong["all"]["mean"]
    text = page.read_text()
    assert versions_text() in text
    assert "| planted, symmetric 20% |" in text
    assert str(tmp_path) not in text


def test_the_standard_error_is_that_of_the_mean() -> None:
    assert denoising.spread(np.array([1.0, 2.0, 6.0])) == {
        "mean": 3.0,
        "se": pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5),
    }
    assert denoising.spread(np.array([2.0])) == {"mean": 2.0}
    assert denoising.spread(np.array([])) is None


def test_acceptance_fails_on_too_small_a_gain() -> None:
    def measured(gain: float, precision: float) -> dict[str, object]:
        peer = {"minus_standard": {"mean": gain}, "kept_precision": {"mean": precision}}
        return {"relevance": {"noises": {"symmetric 40%": {"peer": peer}}}}

    assert denoising.acceptance(measured(16, 0.85))["passed"]  # type: ignore[index]
    assert not denoising.acceptance(measured(14, 0.85))["passed"]  # type: ignore[index]
    assert not denoising.acceptance(measured(16, 0.79))["passed"]  # type: ignore[index]
    assert denoising.acceptance({}) is None


def test_nothing_to_measure_and_unknown_tasks(pairs_file: Path, encoder_folder: Path) -> None:
    with pytest.raises(UsageError, match="nothing to measure"):
        denoising.main([])
    with pytest.raises(UsageError, match="unknown task 'x'"):
        denoising.main(["--pairs", str(pairs_file), "--tasks", "x"])


@pytest.mark.slow
def test_speed_of_both_ways(home: Path, pairs_file: Path, encoder_folder: Path) -> None:
    found = denoising_speed.measure(pairs=600, repeats=1, texts=pairs_file, encoder=str(encoder_folder))
    review, passes = found["peer_review"], found["dropout"]
    assert review["ratio"] == pytest.approx(review["peer_s"] / review["standard_s"])
    assert (passes["passes"], passes["pairs"]) == (10, 400)
    assert denoising_speed.made_up(200).rows.shape == (200, 3)


@pytest.mark.slow
def test_acceptance_of_the_specification(home: Path, shared_data: Path) -> None:
    """Relevance of real replies, 40% flips: peer review beats standard training by 15 points, 80% of the kept right."""
    data = relevance(shared_data / "pairs_hh_harmless.jsonl.gz", encoder=noise_tasks.encoder_of("minilm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoising, "NOISES", {"relevance": (("symmetric", 0.4),)})
        patch.setattr(denoising, "METHODS", ("standard", "self", "peer"))
        found = denoising.acceptance(denoising.quality([data], seeds=5))
    assert found is not None
    assert found["passed"], found
