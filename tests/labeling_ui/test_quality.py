"""Agreement, skill, speed and bias on a planted crowd, against figures computed by hand."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

import numpy as np
import polars as pl
import pytest

from data_pipelines.algorithms import dawid_skene
from data_pipelines.algorithms.votes import Votes
from labeling_ui.agreement import ItemAgreement, by_item, by_label, by_question, over_time
from labeling_ui.desk.answers import Answer
from labeling_ui.projects.project import Project
from labeling_ui.projects.work import SCHEMA, Work
from labeling_ui.quality import Share, agreement, people_reports, skill_intervals
from rmkit.ledger import Ledger
from tests.labeling_ui.conftest import ANNA, BEN

Make = Callable[..., Project]


def _work(*rows: tuple[str, int, str, list[int] | None], **columns: object) -> pl.DataFrame:
    """Rows of (rater, item, slot, ranks)."""
    made = [
        {
            "event": f"{at}",
            "rater": rater,
            "item": item,
            "slot": slot,
            "verdict": "ok",
            "ranks": ranks,
            "answer": str(ranks),
            "time": datetime(2026, 1, 1, tzinfo=UTC),
            **columns,
        }
        for at, (rater, item, slot, ranks) in enumerate(rows)
    ]
    return pl.DataFrame(made, schema=SCHEMA)


FIRST, SECOND = [0, 1], [1, 0]


def test_alpha_of_a_hand_worked_table() -> None:
    """Two raters, four items: same, same, same, different; 5 times first, 3 times second.

    Observed disagreement 2 of 8 ordered pairs; expected (5 * 3 + 3 * 5) / (8 * 7). alpha = 1 - (2/8) / (30/56).
    """
    said = [(FIRST, FIRST), (FIRST, FIRST), (SECOND, SECOND), (FIRST, SECOND)]
    work = _work(*[(name, item, str(at), both[at]) for item, both in enumerate(said) for at, name in enumerate("ab")])
    found = agreement(work)
    assert found.nominal.value == pytest.approx(1 - (2 / 8) / (30 / 56))
    assert (found.nominal.level, found.ordinal.level) == ("nominal", "ordinal")
    assert (found.items, found.pairs) == (4, Share(3, 4))


def test_alpha_is_that_of_the_krippendorff_package_on_both_levels() -> None:
    """Anna and Ben agree on the side and differ in strength: far on the nominal level of verdicts with strengths."""
    krippendorff = pytest.importorskip("krippendorff")
    draw = random.Random(5)
    rows, table = [], [[np.nan] * 30 for _ in range(3)]
    for item in range(30):
        for at, name in enumerate("abc"):
            side, strength = draw.choice((-1, -1, 1, 0)), draw.randint(1, 3)
            if draw.random() < 0.2:
                continue
            ranks = [0, 0] if side == 0 else FIRST if side < 0 else SECOND
            rows.append((name, item, str(at), ranks, None if side == 0 else float(strength)))
            table[at][item] = side * strength
    work = _work(*[row[:4] for row in rows]).with_columns(
        strength=pl.Series([row[4] for row in rows], dtype=pl.Float64)
    )
    found = agreement(work)
    theirs = krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal")
    assert found.ordinal.value == pytest.approx(theirs, abs=1e-9)
    signs = krippendorff.alpha(reliability_data=np.sign(table), level_of_measurement="nominal")
    assert found.nominal.value == pytest.approx(signs, abs=1e-9)
    assert abs(theirs - signs) > 0.02


def test_gold_and_repeats_are_not_in_the_agreement() -> None:
    own = [("a", 0, "0", FIRST), ("b", 0, "1", FIRST)]
    extra = [("a", 0, "repeat-a", SECOND), ("b", 5, "gold-b", FIRST), ("a", 5, "gold-a", SECOND)]
    assert agreement(_work(*own, *extra)).pairs == Share(1, 1)
    reports = {report.name: report for report in people_reports(_work(*own, *extra))}
    assert reports["a"].repeated_same == Share(0, 1)
    assert reports["b"].repeated_same == Share(0, 0)
    assert reports["a"].with_others == Share(1, 1)


def test_agreement_with_others_counts_every_pair_of_two_people_s_answers_once() -> None:
    """Against a walk over all pairs of answers; a joined table of them grew with the square of the answers an item has.

    Person `a` answers item 3 twice, which is no pair of two people.
    """
    draw = random.Random(3)
    rows = [
        (name, item, str(at), draw.choice([FIRST, SECOND]))
        for item in range(9)
        for at, name in enumerate(draw.sample("abcdefg", draw.randrange(1, 8)))
    ]
    rows.append(("a", 3, "9", FIRST))
    counts = {name: [0, 0] for name, *_ in rows}
    for name, item, _, ranks in rows:
        for other, same, _, theirs in rows:
            if other != name and same == item:
                counts[name][0] += ranks == theirs
                counts[name][1] += 1
    reports = people_reports(_work(*rows))
    assert {report.name: [report.with_others.right, report.with_others.n] for report in reports} == counts


def test_the_skill_of_a_careless_person_stands_apart() -> None:
    """Four careful people agree on forty items; the fifth says the same of every second one only.

    Ten of the fifth's twenty answers per truth are right, four pseudo-votes follow the average person, right nine
    times in ten: (10 + 3.6) / 24.
    """
    rows = [
        (name, item, str(at), FIRST if item % 2 else SECOND) for item in range(40) for at, name in enumerate("abcd")
    ]
    rows += [("e", item, "4", FIRST) for item in range(40)]
    skill = {report.name: report.skill for report in people_reports(_work(*rows))}
    assert all(skill[name] > 0.98 for name in "abcd")  # type: ignore[operator]
    assert skill["e"] == pytest.approx(13.6 / 24, abs=1e-6)


def test_biases_and_times_follow_the_events(
    ledger: Ledger, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anna always takes the first shown in three seconds; Ben takes the longer ("wrong: 1!" beats "right: 0")."""
    project = make_project(overlap=2)
    desk = project.desk(ledger)
    work = Work(ledger, project.name, desk.items)
    assert work.frame().is_empty()
    monkeypatch.setattr(
        "labeling_ui.desk.desk.time.time", count(time.time(), 60).__next__
    )  # a minute between two calls
    while held := desk.open(ANNA):
        desk.submit(ANNA, held[0].id, Answer(better=0), active_ms=3000, wall_ms=9000)
    while held := desk.open(BEN):
        lengths = [len(response[-1].content) for response in desk.shown(held[0])]
        desk.submit(BEN, held[0].id, Answer(better=lengths.index(max(lengths))), active_ms=500)
    anna, ben = people_reports(work.frame())
    assert (anna.answers, anna.first_shown, anna.active_s, anna.wall_s) == (12, Share(12, 12), 3.0, 9.0)
    assert (ben.longer, ben.active_s) == (Share(12, 12), 0.5)
    assert anna.longer.n == 12
    assert "0.5 s for an answer" in ben.warnings()


def test_an_undone_answer_is_not_counted_and_the_new_one_is(ledger: Ledger, make_project: Make) -> None:
    project = make_project()
    desk = project.desk(ledger)
    work = Work(ledger, project.name, desk.items)
    (hold,) = desk.open(ANNA)
    desk.submit(ANNA, hold.id, Answer(better=0))
    assert work.frame().height == 1
    desk.undo(ANNA, hold.id)
    assert work.frame().is_empty()
    desk.submit(ANNA, hold.id, Answer(verdict="bad_item", reason="broken text"))
    (report,) = people_reports(work.frame())
    assert (report.answers, report.bad_items) == (0, 1)


def test_known_items_are_marked_right_or_wrong(ledger: Ledger, make_project: Make, pairs: str) -> None:
    project = make_project(gold=pairs, gold_share=0.49)
    desk = project.desk(ledger)
    for _ in range(4):
        for hold in desk.open(ANNA):
            desk.submit(ANNA, hold.id, Answer(better=0))
    frame = Work(ledger, project.name, desk.items).frame()
    for row in frame.to_dicts():
        right = desk.items[row["item"]].responses[row["ranks"].index(0)][-1].content.startswith("right")
        assert row["gold_right"] is right


def test_wilson_interval_and_nothing_of_nothing() -> None:
    """8 of 10: center (0.8 + 1.92/10) / (1 + 3.84/10), half width by the printed formula (Wilson 1927)."""
    z = 1.959964
    center = (0.8 + z**2 / 20) / (1 + z**2 / 10)
    half = z * math.sqrt(0.8 * 0.2 / 10 + z**2 / 400) / (1 + z**2 / 10)
    assert Share(8, 10).interval == pytest.approx((center - half, center + half), abs=1e-6)
    assert math.isnan(Share(0, 0).value)


def test_the_skill_of_who_answered_more_is_known_more_closely() -> None:
    """Four people judge 60 items; `a` errs on every fifth of 60, `d` on every fifth of the first 15 only."""
    rows = []
    for item in range(60):
        truth, other = (FIRST, SECOND) if item % 2 else (SECOND, FIRST)
        rows += [(name, item, str(at), truth) for at, name in enumerate("bc")]
        rows.append(("a", item, "2", other if item % 5 == 0 else truth))
        if item < 15:
            rows.append(("d", item, "3", other if item % 5 == 0 else truth))
    work = _work(*rows)
    bounds = skill_intervals(work)
    skill = {report.name: report.skill for report in people_reports(work)}
    for name in "abcd":
        assert bounds[name][0] <= skill[name] <= bounds[name][1]  # type: ignore[operator]
    assert bounds["a"][1] - bounds["a"][0] < bounds["d"][1] - bounds["d"][0]
    assert bounds["a"][1] < bounds["b"][0] + 0.1
    assert skill_intervals(_work(("a", 0, "0", FIRST))) == {}


def test_each_question_each_label_and_each_item_have_their_own_agreement() -> None:
    """Two aspects of two responses by three people, against the krippendorff package; labels and items by hand."""
    krippendorff = pytest.importorskip("krippendorff")
    draw = random.Random(2)
    table: dict[str, dict[str, list[float]]] = {name: {} for name in ("truth", "style")}
    rows, values = [], []
    for item in range(20):
        for at, name in enumerate("abc"):
            values_of = []
            for aspect in table:
                for place in range(2):
                    value = float(min(max(item % 4 + draw.choice((0, 0, 1, -1)), 0), 4))
                    table[aspect].setdefault(name, []).append(value)
                    values_of.append({"question": aspect, "place": place, "value": value})
            rows.append((name, item, str(at), None))
            values.append(values_of)
    work = _work(*rows).with_columns(values=pl.Series(values, dtype=SCHEMA["values"]))  # type: ignore[arg-type]
    by_name = {one.question: one for one in by_question(work)}
    assert set(by_name) == {"truth", "style"}
    for aspect, columns in table.items():
        for level in ("nominal", "ordinal"):
            theirs = krippendorff.alpha(reliability_data=list(columns.values()), level_of_measurement=level)
            assert getattr(by_name[aspect], level).value == pytest.approx(theirs, abs=1e-9)
        assert (by_name[aspect].things, by_name[aspect].same.n) == (40, 120)

    pairs = [
        ("a", 0, "0", FIRST),
        ("b", 0, "1", FIRST),
        ("c", 0, "2", SECOND),
        ("a", 1, "0", [0, 0]),
        ("b", 2, "0", FIRST),
    ]
    labels = {one.label: (one.answers, one.shared) for one in by_label(_work(*pairs))}
    assert labels == {"1 is better": (3, Share(2, 4)), "2 is better": (1, Share(0, 2)), "tie": (1, Share(0, 0))}
    assert by_item(_work(*pairs)) == [ItemAgreement(0, 3, 2, Share(1, 3))]


def test_agreement_over_time_goes_by_the_last_answer_to_an_item() -> None:
    """Items of the first day agree, those of the ninth do not; the second answer to item 1 comes on the ninth."""
    days = {(0, "a"): 1, (0, "b"): 1, (1, "a"): 1, (1, "b"): 9, (2, "a"): 9, (2, "b"): 9}
    values_of = {(2, "b"): SECOND}
    work = _work(*[(name, item, "01"["ab".index(name)], values_of.get((item, name), FIRST)) for item, name in days])
    work = work.with_columns(time=pl.Series([datetime(2026, 1, day, tzinfo=UTC) for day in days.values()]))
    assert [share for _, share in over_time(work)] == [Share(1, 1), Share(1, 2)]
    assert over_time(work.head(1)) == []


def test_fits_side_by_side_are_the_fits_one_by_one() -> None:
    rng = np.random.default_rng(0)
    row, rater = np.repeat(np.arange(80), 3), np.tile(np.arange(3), 80)
    votes = Votes(row, rater, rng.integers(0, 3, 240), np.full(240, -1), ("a", "b", "c"), 80)
    drawn = rng.multinomial(80, np.full(80, 1 / 80), size=4)
    alone = [dawid_skene.accuracy(*dawid_skene.fit(votes, weight_R=one)) for one in drawn]
    np.testing.assert_allclose(dawid_skene.accuracy_of_draws(votes, drawn), alone, atol=1e-5)
