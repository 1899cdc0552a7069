"""Drift: statistics by hand and under the null, what the command finds, what it queues."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.drift.outliers import outliers, queue_events
from evaluation.drift.served import Observed, served
from evaluation.drift.statistics import compare, ks, psi, psi_p_value, slices, verdicts
from rmkit.cli.main import main as rmkit
from rmkit.errors import DataError
from rmkit.ids import assistant_message, content_hash, user_message
from rmkit.ledger import open_ledger
from rmkit.ledger.annotation_queue import KIND
from rmkit.types import Event


def seen(
    value: float | None, *, chars: int = 100, source: str | None = None, prompt: str = "p", **more: Any
) -> Observed:
    return Observed(
        value, chars, source, prompt, f"{prompt}-{value}", unscored=None if value is not None else "no", **more
    )


def many(values: Any, **more: Any) -> list[Observed]:
    return [seen(float(value), prompt=f"p{n}", **more) for n, value in enumerate(values)]


def test_psi_by_hand() -> None:
    """Two bins cut at the median 2: reference halves, served one in four above."""
    reference, current = np.array([1.0, 2, 3, 4]), np.array([1.0, 1, 2, 4])
    expected = (0.75 - 0.5) * math.log(1.5) + (0.25 - 0.5) * math.log(0.5)
    assert psi(reference, current, bins=2)[0] == pytest.approx(expected)
    assert psi(reference, reference, bins=2) == (0, 2)
    empty = psi(reference, np.array([1.0, 1, 1]), bins=2)  # the empty bin counts half an observation
    assert empty[0] == pytest.approx((3 / 3.5 - 0.5) * math.log(6 / 3.5) + (0.5 / 3.5 - 0.5) * math.log(1 / 3.5))


def thumbs(down: int, up: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.repeat([0.0, 1.0], [down, up])


def test_bins_used_are_those_that_hold_something() -> None:
    """Thumbs have two, whatever the ten deciles say; 100 of 200 against 132 of 200 is chi-squared with one degree."""
    value, bins_used = psi(thumbs(100, 100), thumbs(68, 132))
    assert bins_used == 2
    assert value == pytest.approx(0.16 * math.log(0.66 / 0.5) - 0.16 * math.log(0.34 / 0.5))  # 0.1061
    # 0.1061 / (1 / 200 + 1 / 200) = 10.61 = 3.258^2, and P(|z| > 3.258) = 0.00112; with nine degrees it was 0.303
    assert psi_p_value(value, 200, 200, bins_used=bins_used) == pytest.approx(0.00112, abs=1e-5)
    moved = compare(many(thumbs(100, 100)), many(thumbs(68, 132)))["scores"]
    assert (moved["psi_bins"], moved["psi_without_drift"]) == (2, pytest.approx(0.01))
    assert moved["psi_p"] == pytest.approx(0.00112, abs=1e-5)
    assert psi(np.arange(40.0) % 4, np.arange(40.0) % 4)[1] == 4
    assert psi(np.arange(400.0), np.arange(300.0))[1] == 10
    assert psi(np.ones(50), np.ones(60)) == (0, 1)
    assert psi_p_value(0.0, 50, 60, bins_used=1) == 1


def test_a_rare_thumb_down_is_a_bin_of_its_own() -> None:
    """10 of 200 down against 40 of 200; in one bin with the thumbs up they moved nothing (PSI 0)."""
    expected = (0.2 - 0.05) * math.log(0.2 / 0.05) + (0.8 - 0.95) * math.log(0.8 / 0.95)
    value, bins_used = psi(thumbs(10, 190), thumbs(40, 160))
    assert value == pytest.approx(expected)
    assert bins_used == 2
    assert psi(thumbs(0, 200), thumbs(40, 160))[1] == 2
    assert result_of(many(thumbs(10, 190)), many(thumbs(40, 160)))[1]
    zeros = np.r_[np.zeros(90), np.arange(1.0, 11)]  # continuous, but for one value that most have
    lower = np.r_[np.zeros(60), np.full(30, -1.0), np.arange(1.0, 11)]
    assert psi(zeros, lower)[0] == pytest.approx((0.3 - 0.5 / 100.5) * math.log(0.3 / (0.5 / 100.5)), rel=0.5)


FOUR, TEN = [0.1, 0.2, 0.3, 0.4], [0.02, 0.03, 0.05, 0.05, 0.05, 0.1, 0.1, 0.15, 0.2, 0.25]


@pytest.mark.parametrize(
    ("before", "after", "size", "power"),
    [
        ([0.5, 0.5], [0.34, 0.66], (0.02, 0.09), (0.68, 0.83)),  # in truth 5.0% and 76%; with nine degrees 0% and 8%
        ([0.05, 0.95], [0.15, 0.85], (0.02, 0.10), (0.75, 0.95)),
        (FOUR, [0.2, 0.2, 0.3, 0.3], (0.02, 0.09), (0.45, 0.75)),
        (TEN, [0.8 * a + 0.2 * b for a, b in zip(TEN, TEN[::-1], strict=True)], (0.02, 0.10), (0.22, 0.44)),
        (None, 0.4, (0.02, 0.09), (0.55, 0.85)),
    ],
    ids=["2 levels", "2 levels, one rare", "4 levels", "10 levels", "continuous"],
)
def test_size_and_power_of_psi(
    before: list[float] | None, after: Any, size: tuple[float, float], power: tuple[float, float]
) -> None:
    """300 times 200 observations against 200: p < 0.05 without drift (size), p < 0.01 with it (power)."""
    draw = np.random.default_rng(0)

    def sample(levels: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        if isinstance(levels, list):
            return draw.choice(len(levels), size=200, p=levels).astype(float)
        return draw.normal(levels or 0, size=200)

    def p_values(moved: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        results = [psi(sample(before), sample(moved)) for _ in range(300)]
        return np.array([psi_p_value(value, 200, 200, bins_used=used) for value, used in results])

    seen_size, seen_power = float(np.mean(p_values(before) < 0.05)), float(np.mean(p_values(after) < 0.01))
    assert size[0] <= seen_size <= size[1]
    assert power[0] <= seen_power <= power[1]


def test_p_values_of_ks_hold_where_nothing_has_drifted() -> None:
    """300 pairs of samples of one distribution: about one in twenty below 0.05."""
    draw = np.random.default_rng(0)
    p = [ks(draw.normal(size=400), draw.normal(size=600), 400, 600)[1] for _ in range(300)]
    assert 0.02 <= float(np.mean(np.array(p) < 0.05)) <= 0.09


def test_ks_agrees_with_scipy() -> None:
    from scipy.stats import ks_2samp

    draw = np.random.default_rng(1)
    a, b = draw.normal(size=500), draw.normal(0.15, size=700)
    distance, p = ks(a, b, 500, 700)
    theirs = ks_2samp(a, b, method="asymp")
    assert distance == pytest.approx(theirs.statistic)
    assert p == pytest.approx(theirs.pvalue, rel=0.15)  # scipy corrects for small samples


def result_of(reference: list[Observed], current: list[Observed]) -> tuple[dict[str, Any], list[str]]:
    per_source, skipped = slices(reference, current)
    result = {"whole": compare(reference, current), "slices": per_source, "skipped": skipped}
    return result, verdicts(result)


def test_a_shift_is_found_in_its_slice_only() -> None:
    draw = np.random.default_rng(2)
    reference = many(draw.normal(size=800), source="a") + many(draw.normal(size=800), source="b")
    current = many(draw.normal(size=400), source="a") + many(draw.normal(1.0, size=100), source="b")
    current += [seen(0.0, source="c", prompt="x"), seen(0.0, source="d", prompt="y")]
    result, sentences = result_of(reference, current)
    assert [sentence.split(":")[0] for sentence in sentences] == ["scores of b"]
    assert result["slices"]["b"]["scores"]["shift_in_sd"] == pytest.approx(1, abs=0.25)
    assert result["skipped"] == dict.fromkeys(("c", "d"), "the reference has no such source")
    assert result["slices"]["b"]["scores"]["p_holm"] >= result["slices"]["b"]["scores"]["psi_p"]


def test_unscored_rates_drift_upwards_only() -> None:
    fine = many(range(500))
    failing = [seen(None, prompt=f"p{n}") if n % 8 == 0 else one for n, one in enumerate(fine)]
    result, sentences = result_of(fine, failing)
    assert [sentence.split(" of ")[0] for sentence in sentences] == ["unscored rate"]
    assert result["whole"]["unscored"]["served"] == {"numerator": 63, "denominator": 500, "rate": 0.126}
    assert not result_of(failing, fine)[1]


def test_many_completions_of_few_prompts_prove_little() -> None:
    """The same 2,000 scores: drift from 2,000 prompts, chance from the eight of one unlucky batch."""
    draw = np.random.default_rng(3)
    reference, moved = many(draw.normal(size=2000)), draw.normal(0.5, size=2000)
    assert result_of(reference, many(moved))[1]
    assert not result_of(reference, [seen(float(v), prompt=f"q{n % 8}") for n, v in enumerate(moved)])[1]


def test_the_strangest_are_strange_for_their_length() -> None:
    """Long replies earn 10 in the reference: a 10 is ordinary when long and strange when short."""
    draw = np.random.default_rng(4)
    short = [seen(float(v), chars=50, prompt=f"s{n}") for n, v in enumerate(draw.normal(0, 1, 400))]
    long = [seen(float(v), chars=500, prompt=f"l{n}") for n, v in enumerate(draw.normal(10, 1, 400))]
    current = [
        seen(10.0, chars=500, prompt="usual"),
        seen(10.0, chars=50, prompt="hack"),
        seen(-6.0, chars=50, prompt="low"),
        seen(9.0, chars=50, prompt="hack"),  # one per prompt
        seen(None, prompt="failed"),
    ]
    found = outliers(short + long, current, most=3)
    assert [one.observed.prompt for one in found] == ["hack", "low", "usual"]
    assert found[0].z == pytest.approx(10, abs=1.5)
    assert outliers(short + long, current, most=4)[3].z is None


def log_rewards(
    values: Any, *, day: int, name: str = "m", fingerprint: str = "f", text: bool = False, source: str = "s"
) -> None:
    start = datetime(2026, 1, day, tzinfo=UTC)
    events = []
    for n, value in enumerate(values):
        prompt, reply = user_message(f"prompt {n}"), assistant_message(f"reply {n} {day} " + "x" * (n % 40))
        one = {"response": content_hash(reply), "chars": 20 + n % 40, "value": float(value)}
        item: dict[str, Any] = {"prompt": content_hash(prompt), "source": source, "completions": [one]}
        if text:
            item["prompt_text"], one["text"] = prompt, reply
        payload = {"request_id": f"{day}-{n}", "model": name, "fingerprint": fingerprint, "items": [item]}
        events.append(Event(kind="reward", actor="t", time=start + timedelta(minutes=n), payload=payload))
    with open_ledger() as ledger:
        ledger.append_many(events)


def test_served_scores_of_one_fingerprint(home: Path) -> None:
    log_rewards([1, 2], day=1, fingerprint="old")
    log_rewards([3], day=2)
    log_rewards([9], day=3, name="other")
    with open_ledger() as ledger:
        fingerprint, found = served(ledger, "m")
        assert (fingerprint, [one.value for one in found]) == ("f", [3])
        assert [one.value for one in served(ledger, "m", fingerprint="old")[1]] == [1, 2]
        assert served(ledger, "m", since=datetime(2026, 1, 2, tzinfo=UTC))[0] == "f"
        with pytest.raises(DataError, match="serve one"):
            served(ledger, "nobody")


def test_the_command_tells_queues_and_draws(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(5)
    log_rewards(draw.normal(size=150), day=1)
    log_rewards([*draw.normal(2, size=149), 40.0], day=5, text=True)
    page = tmp_path / "drift.html"
    status = rmkit(["drift", "m", "--split-at", "2026-01-03", "--queue", "2", "-o", str(page), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert status == 1
    assert [sentence.split(":")[0] for sentence in told["drifted"]] == ["scores of all", "scores of s"]
    assert told["queued"] == {"project": "drift-m", "new": 2, "without_text": 0}
    assert page.read_text().count("<svg") == 4
    with open_ledger() as ledger:
        queued = [recorded.event.payload for recorded in ledger.events(kinds=[KIND])]
    assert queued[0]["priority"] == 1.0
    assert (queued[0]["evidence"]["value"], queued[0]["prompt"]) == (40.0, user_message("prompt 149"))
    assert rmkit(["drift", "m", "--split-at", "2026-01-03", "--queue", "2", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["queued"]["new"] == 0  # the same items are queued once


def test_nothing_drifts_in_a_stable_service(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(6)
    for day in (1, 5):
        log_rewards(draw.normal(size=150), day=day)
    assert rmkit(["drift", "m", "--split-at", "2026-01-03"]) == 0
    assert "no drift" in capsys.readouterr().out


def test_texts_come_from_the_warehouse_by_hash(home: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    row = {"prompt": "Is it?", "chosen": "It is indeed.", "rejected": "No."}
    rows.write_text(json.dumps(row) + "\n")
    assert rmkit(["ingest", str(rows), "--name", "d"]) == 0
    known = Observed(
        9.0, 13, None, content_hash(user_message("Is it?")), content_hash(assistant_message("It is indeed."))
    )
    unknown = Observed(-9.0, 13, None, content_hash("elsewhere"), content_hash("nowhere"))
    found = outliers(many(np.random.default_rng(7).normal(size=200)), [known, unknown], most=5)
    events, textless = queue_events(found, model="m", fingerprint="f", project="p")
    assert (len(events), textless) == (1, 1)
    assert events[0].payload["responses"] == [assistant_message("It is indeed.")]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["m"], "either --reference"),
        (["m", "--reference", "hh"], "either --reference"),
        (["m", "--split-at", "2026-01-03"], "at least 50 of each"),
        (["m", "--reference", "hh", "--model", "length"], "fingerprint"),
        (["nobody", "--split-at", "2026-01-03"], "serve one"),
    ],
)
def test_what_cannot_be_compared_is_told(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    log_rewards(range(10), day=1)
    assert rmkit(["drift", *arguments]) == 2
    assert reason in capsys.readouterr().err


def log_steps(steps: int, *, hacked: bool, day: int = 1, begin: int = 0, text: bool = False) -> None:
    """Sixteen completions a step in two requests: the model likes length; the verifier is right half of the time, or
    less and less often."""
    draw = np.random.default_rng(day)
    start = datetime(2026, 2, day, tzinfo=UTC)
    events = []
    for step in range(begin, begin + steps):
        for request in range(2):
            right = draw.random(8) < (0.5 - 0.012 * step if hacked else 0.5 + 0.01 * step)
            chars = (100 + (10 * step if hacked else step) + draw.normal(0, 10, 8)).astype(int)
            replies = [assistant_message(f"{step} {request} {n} " + ("so " * 3 * (step // 4)) * text) for n in range(8)]
            lines = [
                {"response": content_hash(reply), "chars": int(size), "value": float(size)}
                | ({"text": reply} if text else {})
                for reply, size in zip(replies, chars, strict=True)
            ]
            rewards = [
                {
                    "raw": float(size), "reward": float(size - chars.mean()),
                    "components": {"reward": float(size), "right": float(one)}, "columns": {"length": float(size) / 4},
                }
                for size, one in zip(chars, right, strict=True)
            ]  # fmt: skip
            item = {
                "prompt": content_hash(user_message(f"{step} {request}")), "source": None, "completions": lines,
                "group": f"g{request}", "rewards": rewards,
            }  # fmt: skip
            payload = {
                "request_id": f"{day}-{step}-{request}", "model": "m", "fingerprint": "f", "items": [item],
                "step": step, "policy_version": f"v{step // 20}", "signal": "raw",
            }  # fmt: skip
            events.append(Event(kind="reward", actor="t", time=start + timedelta(minutes=step), payload=payload))
    with open_ledger() as ledger:
        ledger.append_many(events)


def test_a_hacking_run_rings_and_a_clean_one_does_not(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_steps(40, hacked=False)
    assert rmkit(["drift", "m", "--watch", "--truth", "right", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["alarm"]) == (40, None)
    assert told["measures"]["proxy"] == pytest.approx(139, abs=8)
    assert told["measures"]["length"] == pytest.approx(told["measures"]["proxy"] / 4)  # tokens, where they came
    assert told["measures"]["canary"] is None
    log_steps(40, hacked=True, day=2, text=True)  # a new run under the same name
    assert (
        rmkit(["drift", "m", "--watch", "--canary", "so so so so so so so so so so so so so so so so", "--json"]) == 1
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["truth"]) == (40, ["right"])
    assert 20 <= told["alarm"]["step"] <= 30
    assert {one["name"] for one in told["now"]["signs"]} == {"right", "length", "repetition", "canary"}
    assert rmkit(["drift", "m", "--watch", "--set", "threshold=1e9"]) == 0
    assert "no alarm" in capsys.readouterr().out
    assert rmkit(["drift", "m", "--watch", "--truth", "rigth"]) == 2
    assert "did you mean 'right'" in capsys.readouterr().err


def test_steps_that_the_trainer_does_not_number(home: Path) -> None:
    from evaluation.drift.watch import BLOCK, watch

    lengths = [int(20 + 3 * (n // BLOCK) + n % 7) for n in range(24 * BLOCK)]
    watched = watch([seen(float(chars), chars=chars) for chars in lengths], model="m")
    assert (watched.steps, watched.truth) == (24, ())
    assert watched.alarm is not None
    assert [one.name for one in watched.alarm.signs] == ["length"]


def test_a_run_that_went_on_from_a_checkpoint_is_one_run(home: Path) -> None:
    from evaluation.drift.watch import watch

    def told(*steps: int) -> tuple[int, float | None]:
        """Steps of the last run, and its last proxy: each completion's value is its place in the log."""
        log = [replace(seen(float(at)), step=step) for at, step in enumerate(steps)]
        result = watch(log, model="m")
        return result.steps, result.measures["proxy"]

    killed = [*range(12), *range(8, 16)]  # killed in step 11, gone on from a checkpoint at 8
    assert told(*killed) == (16, 19.0)
    assert told(*killed, *range(8, 12)) == (12, 23.0)  # and killed again: 12 to 15 are to come once more
    assert told(*killed, 0, 1) == (2, 21.0)  # another run


def test_a_signal_s_fields_and_splits_by_step_and_policy(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_steps(40, hacked=True)
    for split in (["--split-step", "20"], ["--split-policy", "v1"]):
        assert rmkit(["drift", "m", *split, "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        fields = told["whole"]["fields"]
        assert set(fields) == {
            "raw", "reward", "component reward", "component right", "column length", "spread of groups",
        }  # fmt: skip
        assert fields["raw"]["mean_reference"] == pytest.approx(195, abs=5)  # steps 0 to 19
        assert fields["column length"]["mean_served"] == pytest.approx(395 / 4, abs=2)
        assert fields["component right"]["mean_reference"] > fields["component right"]["mean_served"] + 0.1
        assert {one.split(" of ")[0] for one in told["drifted"]} >= {"scores", "raw", "column length"}
        assert not any(one.startswith("reward of") for one in told["drifted"])  # centered in its group, it has no trend
    assert rmkit(["drift", "m", "--split-step", "20"]) == 1
    assert "component right" in capsys.readouterr().out
    assert rmkit(["drift", "m", "--split-policy", "v9"]) == 2
    assert "unknown policy version 'v9'" in capsys.readouterr().err
    assert rmkit(["drift", "m", "--split-step", "20", "--watch"]) == 2


def test_what_a_signal_left_in_the_log(home: Path) -> None:
    log_steps(1, hacked=False)
    with open_ledger() as ledger:
        [first, *_] = served(ledger, "m")[1]
    assert (first.group, first.step, first.policy_version) == ("0/g0", 0, "v0")
    assert (first.raw, first.proxy, first.columns) == (first.value, first.value, {"length": first.chars / 4})
    assert set(first.components) == {"reward", "right"}
