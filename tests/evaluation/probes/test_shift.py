"""Shift cells: hand-derived numbers, a planted effect, stored log-probabilities and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.probes.command import main
from evaluation.probes.shift import Cell, Side, shift_probe
from evaluation.suites.stored_logprobs import load_logprobs
from rmkit.errors import DataError, UsageError
from rmkit.metrics import paired_difference
from tests.exports import row, write_export

NAN = math.nan


def side(*margin: float, per_token: tuple[float, ...] | None = None) -> Side:
    reasons = tuple("lost" if math.isnan(value) else None for value in margin)
    return Side(np.array(margin), reasons, None if per_token is None else np.array(per_token))


def cell(name: str, first: Side, second: Side, *, clusters: str, longer: tuple[float, ...] = ()) -> Cell:
    lengths = np.array(longer or (1.0,) * len(clusters))
    return Cell(name, tuple(clusters), tuple(clusters), lengths, first, second)


ID = cell(
    "id",
    side(1, 2, -1, 0, NAN, 3),
    side(1, -2, -1, 2, 5, NAN, per_token=(1, 2, -1, 2, 5, NAN)),
    clusters="aabbcd",
    longer=(3, -1, 0, 2, 9, 9),
)


def test_a_cell_by_hand() -> None:
    made = shift_probe([ID])["cells"]["id"]
    # Scored by both: the first four. First: 1, 1, 0, 1/2 (a tie); second: 1, 0, 0, 1; per token: 1, 1, 0, 1.
    assert (made["pairs"], made["scored"], made["dropped"], made["prompts"]) == (6, 4, 2, 2)
    assert made["reasons"] == {"first: lost": 1, "second: lost": 1}
    assert (made["first"]["percent"], made["first"]["numerator"], made["first"]["denominator"]) == (62.5, 2.5, 4)
    assert (made["second"]["percent"], made["second"]["per_token"]["percent"]) == (50, 75)
    assert made["difference"]["points"] == pytest.approx(12.5)
    # Prompt a gains 1 on two pairs, b loses 1/2 on two: every mean of resampled prompts lies between those.
    assert (made["difference"]["low"], made["difference"]["high"]) == (-25, 50)
    # The longer one is better, worse, as long (half), better.
    assert (made["length_rule"]["numerator"], made["length_rule"]["denominator"]) == (2.5, 4)
    assert made["first"]["length_correlation"] == pytest.approx((3 - 2) / math.sqrt((1 + 4 + 1) * (9 + 1 + 4)))
    assert made["second"]["length_correlation"] == pytest.approx((3 + 2 + 4) / math.sqrt((1 + 4 + 1 + 4) * 14))


def test_ties_and_their_width_are_options() -> None:
    assert shift_probe([ID], ties="zero")["cells"]["id"]["first"]["numerator"] == 2
    wide = shift_probe([ID], tie_width=1.0)["cells"]["id"]
    assert (wide["first"]["numerator"], wide["first"]["ties"]) == (0.5 + 1 + 0.5 + 0.5, 3)
    assert wide["second"]["numerator"] == 0.5 + 0 + 0.5 + 1


def test_mean_and_largest_are_over_the_shifted_cells_whatever_their_sizes() -> None:
    cells = [
        ID,
        cell("prompt", side(1, 1, 1, 1), side(1, 1, 1, -1), clusters="efgh"),  # +25
        cell("both", side(1, -1), side(-1, -1), clusters="ea"),  # +50
        cell("train", side(1), side(-1), clusters="t"),  # no part of the mean
    ]
    made = shift_probe(cells)
    together = made["out_of_distribution"]
    assert together["cells"] == ["prompt", "both"]
    assert together["mean"]["points"] == pytest.approx(37.5)
    assert together["largest"] == {"points": 50, "cell": "both"}
    assert [made["cells"][name]["prompts_in_id"] for name in ("id", "prompt", "both", "train")] == [4, 0, 1, 0]


def test_without_anything_scored_there_is_no_number_and_no_mean() -> None:
    lost = cell("prompt", side(NAN, 1), side(1, NAN), clusters="xy")
    made = shift_probe([ID, lost])
    assert made["out_of_distribution"] is None
    assert made["cells"]["prompt"]["dropped"] == 2
    assert math.isnan(made["cells"]["prompt"]["difference"]["points"])


def planted(name: str, generator: np.random.Generator, *, explicit: float, implicit: float, n: int = 400) -> Cell:
    """Margins right with the given probabilities; two pairs a prompt, right or wrong together."""
    right = [np.repeat(generator.random(n // 2) < p, 2) for p in (explicit, implicit)]
    sides = [side(*np.where(ok, 1.0, -1.0).tolist()) for ok in right]
    prompts = tuple(f"{name}{i // 2}" for i in range(n))
    return Cell(name, prompts, prompts, np.ones(n), *sides)


def test_a_planted_effect_of_shift_is_found_and_none_where_there_is_none() -> None:
    generator = np.random.default_rng(0)
    cells = [
        planted("id", generator, explicit=0.85, implicit=0.85),
        planted("prompt", generator, explicit=0.80, implicit=0.70),
        planted("response", generator, explicit=0.80, implicit=0.75),
        planted("both", generator, explicit=0.78, implicit=0.50),
    ]
    made = shift_probe(cells)
    inside, both = (made["cells"][name]["difference"] for name in ("id", "both"))
    assert inside["low"] < 0 < inside["high"]
    assert both["low"] > 15
    together = made["out_of_distribution"]
    assert together["mean"]["low"] > 5
    assert together["mean"]["low"] < (10 + 5 + 28) / 3 < together["mean"]["high"]
    assert together["largest"]["cell"] == "both"


def test_the_interval_of_one_shifted_cell_is_that_of_a_paired_difference() -> None:
    generator = np.random.default_rng(1)
    one = planted("prompt", generator, explicit=0.8, implicit=0.6)
    mean = shift_probe([one])["out_of_distribution"]["mean"]
    other = paired_difference(one.first.margin > 0, one.second.margin > 0, np.array(one.clusters), resamples=4000)
    assert other.interval is not None
    assert mean["points"] == pytest.approx(100 * other.value)
    assert mean["low"] == pytest.approx(100 * other.interval.low, abs=0.8)
    assert mean["high"] == pytest.approx(100 * other.interval.high, abs=0.8)


def test_a_prompt_in_two_cells_is_drawn_in_both() -> None:
    """Gains that cancel between cells prompt by prompt leave a mean that never moves."""
    ups, downs = side(1, 1, -1, -1), side(-1, -1, 1, 1)
    cells = [cell("prompt", ups, downs, clusters="abcd"), cell("both", downs, ups, clusters="abcd")]
    assert shift_probe(cells)["out_of_distribution"]["mean"] == {"points": 0, "low": 0, "high": 0}


def stored(example: str, response: int, policy: float | None, reference: float = -10.0, **more: Any) -> dict[str, Any]:
    return {"id": example, "response": response, "policy": policy, "reference": reference, "tokens": 4} | more


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_stored_logprobs_by_hand_and_the_same_from_parquet(tmp_path: Path) -> None:
    rows = [
        stored("a", 0, -12.0),
        stored("a", 1, -9.0, tokens=2),
        stored("b", 0, None),
        stored("b", 1, -1.0, tokens=0),
        stored("c", 0, -1.0, truncated=True),
        stored("c", 1, -1.0, cell="both"),
        stored("c", 1, -2.0),
    ]
    columns = dict.fromkeys(key for one in rows for key in one)
    table = pa.Table.from_pylist([{key: one.get(key) for key in columns} for one in rows])
    pq.write_table(table, tmp_path / "p.parquet")
    for path in (write_rows(tmp_path / "p.jsonl", rows), tmp_path / "p.parquet"):
        read = load_logprobs(path)
        assert read.reward("id", "a", 0)[:2] == (-2, -0.5)
        assert read.reward("id", "a", 1)[:2] == (1, 0.5)
        assert read.reward("id", "b", 0).unscored == "policy log-probability is None"
        assert read.reward("id", "b", 1).unscored == "token count is 0"
        assert read.reward("id", "c", 0).unscored == "truncated"
        assert (read.reward("both", "c", 1).total, read.reward("id", "c", 1).total) == (9, 8)
        assert read.reward("id", "z", 0).unscored == "no log-probabilities stored"
        assert (read.info.name, read.info.kind, read.info.scale) == ("p", "implicit", "log_ratio")
    infinite = load_logprobs(write_rows(tmp_path / "inf.jsonl", [stored("a", 0, -math.inf)]))
    assert infinite.reward("id", "a", 0).unscored == "policy log-probability is -inf"
    assert math.isnan(infinite.reward("id", "a", 0).total)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([stored("a", 0, -1), stored("a", 0, -2)], "row 2: response 0 of a is there twice"),
        ([{"id": "a", "response": 0, "policy": -1.0}], "row 1: no reference, tokens; expected id, response"),
        ([stored("a", -1, -1)], "a position from 0, got -1"),
        ([stored("a", 0, -1, reference_model="x"), stored("a", 1, -1, reference_model="y")], r"2 references \(x, y\)"),
        ([], "holds no rows"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_logprobs(write_rows(tmp_path / "p.jsonl", rows))


def export_of(folder: Path) -> tuple[str, list[str]]:
    """A version of two test pairs, the better response first in one and second in the other; the rows' ids."""
    rows = [
        row("q1", ["short", "much longer"], p=[0.0, 1.0], family=1, subset="x", split="test"),
        row("q2", ["so much longer", "so"], p=[0.0, 1.0], family=2, subset="x", split="test"),
        row("q3", ["a", "bb"], p=[1.0, 0.0], family=3, subset="x", split="test"),
    ]
    return str(write_export(folder, rows)), [one["id"] for one in rows]


def command_files(folder: Path) -> list[str]:
    version, ids = export_of(folder / "data")
    prompts = ("p0", "q1", "p2")  # the second one is in the version, too
    pairs = [{"id": str(i), "prompt": prompts[i], "chosen": "yes yes", "rejected": "no"} for i in range(3)]
    other = write_rows(folder / "other.jsonl", pairs)
    rows = [
        *(stored(ids[0], i, policy) for i, policy in enumerate((-20, -5))),  # right: the second is the better one
        *(stored(ids[1], i, policy) for i, policy in enumerate((-20, -5))),  # right
        stored(ids[2], 0, -5),  # the other one is not stored
        *(stored("0", i, policy, cell="prompt") for i, policy in enumerate((-5, -20))),  # right
        *(stored("1", i, policy) for i, policy in enumerate((-20, -5))),  # wrong
        *(stored("2", i, policy) for i, policy in enumerate((-5, -5))),  # a tie
    ]
    scores = write_rows(folder / "dpo.jsonl", rows)
    return ["shift", "length", str(scores), "--cell", f"id={version}", "--cell", f"prompt={other}"]


def test_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command_files(tmp_path)
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    inside, moved = result["cells"]["id"], result["cells"]["prompt"]
    assert (inside["pairs"], inside["scored"], inside["reasons"]) == (3, 2, {"second: no log-probabilities stored": 1})
    assert (inside["first"]["percent"], inside["second"]["percent"]) == (50, 100)  # the length rule is right on q1 only
    assert (moved["first"]["percent"], moved["second"]["percent"]) == (100, 50)
    assert (moved["second"]["numerator"], moved["second"]["denominator"], moved["second"]["ties"]) == (1.5, 3, 1)
    assert (inside["prompts_in_id"], moved["prompts_in_id"]) == (3, 1)
    assert result["out_of_distribution"]["mean"]["points"] == 50
    assert (result["first"]["name"], result["second"]["name"], result["second"]["kind"]) == (
        "length",
        "dpo",
        "implicit",
    )
    assert result["command"].startswith("rmkit probe shift length")
    assert main([*arguments, "-o", str(tmp_path / "new" / "shift.json")]) == 0
    written = json.loads((tmp_path / "new" / "shift.json").read_text())
    assert written.pop("command") != result.pop("command")
    assert written == result
    text = capsys.readouterr().out
    assert "first minus second out of distribution: mean +50.00" in text
    assert "id: 1 pairs dropped from both, second: no log-probabilities stored" in text


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["id=a"], "needs --cell id=DATA and one of prompt, response, both; got id"),
        (["prompt=a"], "needs --cell id=DATA"),
        (["id=a", "far=b"], "NAME one of train, id, prompt, response, both; got 'far=b'"),
        (["id=a", "prompt="], "got 'prompt='"),
        (["id=a", "prompt=b", "prompt=c"], "a cell is given twice"),
    ],
)
def test_cells_are_checked(cells: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        main(["shift", "length", "length", *(part for one in cells for part in ("--cell", one))])


def test_two_models_are_needed(home: Path, tmp_path: Path) -> None:
    arguments = command_files(tmp_path)
    arguments[2] = "length"
    with pytest.raises(UsageError, match="length and length are the same model"):
        main(arguments)
    with pytest.raises(UsageError, match="--tie-width must be 0 or more"):
        main([*arguments, "--tie-width", "-1"])
