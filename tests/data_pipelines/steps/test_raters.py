"""Votes, agreement and aggregation: hand-derived numbers, second implementations, planted skills."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.algorithms import dawid_skene, mace, majority
from data_pipelines.algorithms.votes import Votes, pair_votes
from data_pipelines.steps import agreement
from rmkit.errors import ConfigError
from tests.data_pipelines.frames import apply, first_text, frame, pair, vote

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*keyword.*")  # crowd-kit's own


def as_votes(table: list[tuple[int, int, int]], n_rows: int | None = None) -> Votes:
    """From (row, rater, verdict)."""
    row, rater, verdict = np.array(table, np.int64).reshape(-1, 3).T
    names = tuple(f"r{at}" for at in range(int(rater.max(initial=-1)) + 1))
    return Votes(row, rater, verdict, np.full(len(row), -1), names, n_rows or int(row.max(initial=-1)) + 1)


def planted(
    n_rows: int, skills: list[float], *, seed: int, ties: float = 0.0, each: int | None = None
) -> tuple[Votes, np.ndarray]:
    """Votes of raters that see the truth with their skill, and else pick another verdict; the truth per row."""
    draw = np.random.default_rng(seed)
    truth = np.where(draw.random(n_rows) < ties, 2, draw.integers(0, 2, n_rows))
    table = []
    for row in range(n_rows):
        for rater in draw.choice(len(skills), each or len(skills), replace=False):
            right = draw.random() < skills[rater]
            wrong = [v for v in ((0, 1, 2) if ties else (0, 1)) if v != truth[row]]
            table.append((row, int(rater), int(truth[row] if right else draw.choice(wrong))))
    return as_votes(table, n_rows), truth


def test_votes_are_read_in_the_stored_order() -> None:
    row = pair("p", "one", "two", [("ann", "a"), ("bob", "b"), ("ann", "tie")])
    first = first_text(row, "one")
    row["votes"][0]["shown_order"] = [1, 0]
    row["votes"].append(vote("eve", [0, None]))
    votes = pair_votes(frame([row]))
    assert votes.raters == ("ann", "bob")
    assert votes.verdict.tolist() == [first, 1 - first, 2]
    assert votes.first_shown.tolist() == [0, -1, -1]
    assert votes.counts().sum() == 3


def test_alpha_by_hand() -> None:
    # Rows (a a), (a b), (b b): o_aa = 2, o_bb = 2, o_ab = o_ba = 1, n = 6, so alpha = 1 - 5 * 2 / (2 * 3 * 3) = 4 / 9.
    counts = np.array([[2, 0, 0], [1, 1, 0], [0, 2, 0], [1, 0, 0]])
    assert agreement.alpha_interval(counts)[0] == pytest.approx(4 / 9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0, 1, 2, None]), min_size=4, max_size=4), min_size=2, max_size=12))
def test_alpha_equals_the_krippendorff_package(answers: list[list[int | None]]) -> None:
    krippendorff = pytest.importorskip("krippendorff")
    counts = np.array([[row.count(v) for v in (0, 1, 2)] for row in answers])
    pairable = counts[counts.sum(1) >= 2]
    if len(pairable) == 0 or (pairable.sum(0) > 0).sum() < 2:
        assert np.isnan(agreement.alpha_interval(counts, draws=5)[0])
        return
    ordered = counts[:, [0, 2, 1]].astype(float)
    for level in ("nominal", "ordinal"):
        theirs = krippendorff.alpha(value_counts=ordered, value_domain=[0, 1, 2], level_of_measurement=level)
        assert agreement.alpha_interval(ordered, level=level, draws=5)[0] == pytest.approx(theirs, abs=1e-9)


def test_alpha_interval_covers_and_narrows() -> None:
    few, many = (planted(n, [0.8, 0.8, 0.8], seed=3)[0].counts() for n in (50, 800))
    alpha, low, high = agreement.alpha_interval(many)
    # Two raters right with 0.8 agree with probability 0.68; chance gives 0.5; so alpha is about 0.36.
    assert low < 0.36 < high
    assert low < alpha < high
    _, low_few, high_few = agreement.alpha_interval(few)
    assert high - low < (high_few - low_few) / 2
    assert agreement.alpha_interval(many) == (alpha, low, high)


def test_agreement_of_each_rater_with_the_rest() -> None:
    rows = [
        pair("p1", "x", "y", [("ann", "a"), ("bob", "a"), ("cho", "b")]),
        pair("p2", "x", "y", [("ann", "b"), ("bob", "b"), ("cho", "b")]),
        pair("p3", "x", "y", [("ann", "a"), ("bob", "b")]),
        pair("p4", "x", "y", [("ann", "a")]),
    ]
    facts = apply("agreement", rows).facts
    # p1: the others of ann and of bob are split; of cho they agree on a, so cho is wrong. p2: all right. p3: one other.
    expected = {"ann": (0.5, 2), "bob": (0.5, 2), "cho": (0.5, 2)}
    assert {each["rater"]: (each["agreement"], each["n"]) for each in facts["rater_agreement"]} == expected
    assert (facts["units"], facts["raters"], facts["votes"]) == (3, 3, 9)


def test_agreement_floor_drops_with_evidence() -> None:
    rows = [
        pair("p1", "x", "y", [("ann", "a"), ("bob", "a"), ("cho", "b")]),
        pair("p2", "x", "y", [("ann", "a"), ("bob", "b")]),
        pair("p3", "x", "y", [("ann", "a")]),
    ]
    result = apply("agreement", rows, min_agreement=0.6)
    assert result.dropped.rows() == [(rows[1]["id"], "raters disagree", "0.5 of votes agree")]
    assert apply("agreement", rows[2:]).facts["alpha"] is None


def test_majority_shares() -> None:
    shares = majority.posterior(as_votes([(0, 0, 0), (0, 1, 0), (0, 2, 1), (0, 3, 2)], n_rows=2))
    assert shares[0].tolist() == [0.5, 0.25, 0.25]
    assert np.isnan(shares[1]).all()


def test_dawid_skene_posterior_by_hand() -> None:
    # Raters right with 0.9 and 0.6 disagree: 0.9 * 0.4 against 0.1 * 0.6, so p = 0.36 / 0.42.
    confusion = np.array([[[a, 1 - a, 0], [1 - a, a, 0], [0, 0, 1]] for a in (0.9, 0.6)])
    truth = dawid_skene.posterior(as_votes([(0, 0, 0), (0, 1, 1)]), np.array([0.5, 0.5, 0]), confusion)
    assert truth[0] == pytest.approx([0.36 / 0.42, 0.06 / 0.42, 0], abs=1e-6)


@pytest.mark.slow
def test_dawid_skene_equals_crowd_kit_without_symmetry_and_smoothing() -> None:
    pytest.importorskip("crowdkit")
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    votes, _ = planted(150, [0.9, 0.75, 0.6, 0.7], seed=5, ties=0.2)
    long = pd.DataFrame({"task": votes.row, "worker": votes.rater, "label": votes.verdict})
    theirs = DawidSkene(n_iter=500, tol=1e-10).fit_predict_proba(long).sort_index()[[0, 1, 2]].to_numpy()
    prior, confusion = dawid_skene.fit(votes, symmetric=False, smoothing=0, iterations=500, tolerance=1e-10)
    assert dawid_skene.posterior(votes, prior, confusion) == pytest.approx(theirs, abs=1e-4)


def test_symmetric_skills_are_the_planted_ones_and_beat_the_majority() -> None:
    skills = [0.95, 0.9, 0.6, 0.55, 0.55]
    votes, truth = planted(1500, skills, seed=2, each=3)
    prior, confusion = dawid_skene.fit(votes)
    assert confusion[:, 0, 1] == pytest.approx(confusion[:, 1, 0])
    assert dawid_skene.accuracy(prior, confusion) == pytest.approx(skills, abs=0.05)
    ours = (dawid_skene.posterior(votes, prior, confusion).argmax(1) == truth).mean()
    assert ours > (majority.posterior(votes).argmax(1) == truth).mean() + 0.03


def test_rows_with_the_same_votes_are_fitted_once_and_count_as_many() -> None:
    votes, _ = planted(400, [0.9, 0.8, 0.6], seed=4, ties=0.1, each=2)
    distinct, weight_R = votes.distinct()
    assert distinct.n_rows < 100
    assert weight_R.sum() == 400
    assert np.bincount(distinct.row).tolist() == [2] * distinct.n_rows
    assert np.bincount(distinct.verdict, weight_R[distinct.row]).tolist() == np.bincount(votes.verdict).tolist()
    for one, other in zip(dawid_skene.fit(distinct, weight_R=weight_R), dawid_skene.fit(votes), strict=True):
        assert one == pytest.approx(other, abs=1e-9)


def test_swapping_every_response_swaps_every_label() -> None:
    votes, _ = planted(120, [0.9, 0.7, 0.6], seed=9, ties=0.1)
    mirrored = Votes(votes.row, votes.rater, dawid_skene.MIRROR[votes.verdict], votes.first_shown, votes.raters, 120)
    for fit in (dawid_skene.fit, mace.fit):
        one, other = (dawid_skene.posterior(v, *fit(v)[:2]) for v in (votes, mirrored))
        assert one == pytest.approx(other[:, dawid_skene.MIRROR], abs=1e-6)


@pytest.mark.parametrize("variational", [True, False])
def test_mace_stands_where_crowd_kits_steps_stand_still(variational: bool) -> None:
    """One E-step and one M-step of crowd-kit's, from our parameters, change neither these nor the truth."""
    pytest.importorskip("crowdkit")
    import pandas as pd
    from crowdkit.aggregation import MACE

    votes, _ = planted(150, [0.95, 0.8, 0.65, 0.34], seed=4, ties=0.3)
    prior, confusion, _ = mace.fit(votes, symmetric=False, variational=variational, iterations=5000, tolerance=1e-12)
    spam = np.stack([confusion[:, 1, 0], confusion[:, 0, 1], confusion[:, 0, 2]], axis=1)
    peer = MACE(method="vb" if variational else "em", random_state=0)
    peer._initialize(4, 3)
    peer.smoothing_ = 0.01 / 3
    knows = confusion[:, 0, 0] - spam[:, 0]
    peer.spamming_, peer.thetas_ = np.stack([np.ones(4), knows], axis=1), spam  # only the products enter
    long = pd.DataFrame({"task": votes.row, "worker": votes.rater, "label": votes.verdict})
    _, marginals, spammed, knew = peer._e_step(
        long, np.arange(150), np.arange(4), np.arange(3), votes.row, votes.rater, votes.verdict
    )
    theirs = marginals.div(marginals.sum(axis=1), axis=0).to_numpy()
    assert dawid_skene.posterior(votes, prior, confusion) == pytest.approx(theirs, abs=1e-6)
    (peer._variational_m_step if variational else peer._m_step)(knew, spammed)
    assert np.asarray(peer.spamming_)[:, 1] == pytest.approx(knows, abs=1e-6)
    assert np.asarray(peer.spamming_)[:, :1] * np.asarray(peer.thetas_) == pytest.approx(spam, abs=1e-6)


def test_mace_by_hand() -> None:
    # Ann and bob agree on a alone. Start: the truth is a, both may know or spam (1/2 x 1/3), so each knew with
    # 1 / (1 + 1/3) = 3/4. EM: c = (3/4 + s) / (1 + 2 s), xi = (1/4 + s, s, s) / (1/4 + 3 s) with s = 0.01 / 3.
    votes, s = as_votes([(0, 0, 0), (0, 1, 0)]), 0.01 / 3
    _, confusion, competence = mace.fit(votes, symmetric=False, variational=False, iterations=1)
    c, xi = (0.75 + s) / (1 + 2 * s), np.array([0.25 + s, s, s]) / (0.25 + 3 * s)
    assert competence == pytest.approx([c, c])
    assert confusion[0] == pytest.approx(c * np.eye(3) + (1 - c) * xi)
    # Variational: c = exp(psi(1.25) - psi(2)) and so on; psi(2) = 1 - gamma, psi(5/4) = 4 - pi/2 - 3 ln 2 - gamma.
    _, confusion, competence = mace.fit(votes, symmetric=False, iterations=1)
    knows = np.exp(4 - np.pi / 2 - 3 * np.log(2) - 1)
    assert confusion[0, 0, 0] - confusion[0, 1, 0] == pytest.approx(knows)
    assert competence == pytest.approx([1.25 / 2] * 2)
    assert (confusion.sum(axis=2) < 1).all()


@pytest.mark.parametrize("variational", [True, False])
def test_mace_ranks_raters_as_planted(variational: bool) -> None:
    votes, truth = planted(400, [0.95, 0.8, 0.65, 0.34], seed=4, ties=0.3)
    prior, confusion, competence = mace.fit(votes, variational=variational)
    assert list(np.argsort(-competence)) == [0, 1, 2, 3]
    assert competence[3] < 0.2  # a rater right by chance knows nothing
    right = (dawid_skene.posterior(votes, prior, confusion).argmax(1) == truth).mean()
    assert right > (majority.posterior(votes).argmax(1) == truth).mean()


def test_labels_keep_the_distribution_and_name_the_method() -> None:
    rows = [pair("p1", "x", "y", [("ann", "a"), ("bob", "a"), ("cho", "b")], margin=2.0, p=[0.5, 0.5])]
    result = apply("aggregate", rows, method="majority")
    first = first_text(rows[0], "x")
    kept = result.kept.row(0, named=True)
    assert kept["p"][first] == pytest.approx(2 / 3, abs=1e-6)
    assert sum(kept["p"]) == 1
    assert kept["ranks"][first] == 0
    assert (kept["n_votes"], kept["method"], kept["margin"]) == (3, "majority", None)
    assert kept["id"] == rows[0]["id"]


def test_ties_and_the_margin() -> None:
    tied = pair("p1", "x", "y", [("ann", "tie"), ("bob", "tie")], margin=1.0)
    won = pair("p2", "x", "y", [("ann", "a"), ("bob", "a")], margin=1.0)
    result = apply("aggregate", [tied, won], method="majority", min_margin=0.1)
    assert result.kept.row(0, named=True)["margin"] == 1.0
    assert result.dropped.rows() == [(tied["id"], "no clear majority", "p = 0.5")]
    assert apply("aggregate", [tied], method="majority").kept["ranks"].to_list() == [[0, 0]]


def crowd(n: int, seed: int) -> list[dict[str, Any]]:
    """Rows voted on by ann (0.95), bob (0.8) and cho (0.7), then one vote by bob and one by a stranger."""
    draw = np.random.default_rng(seed)
    rows = []
    for at in range(n):
        truth, false = ("a", "b") if draw.random() < 0.5 else ("b", "a")
        votes = [(who, truth if draw.random() < skill else false) for who, skill in SKILLS.items()]
        rows.append(pair(f"prompt {at}", f"x{at}", f"y{at}", votes, meta=truth))
    return [*rows, pair("alone", "x", "y", [("bob", "a")]), pair("stranger", "x", "y", [("new", "a")])]


SKILLS = {"ann": 0.95, "bob": 0.8, "cho": 0.7}


def test_single_votes_are_tempered_by_skill_and_strangers_pass() -> None:
    rows = crowd(600, seed=1)
    result = apply("aggregate", rows)
    alone, stranger = result.kept.row(600, named=True), result.kept.row(601, named=True)
    assert alone["p"][first_text(rows[600], "x")] == pytest.approx(0.8, abs=0.05)
    assert (stranger["p"], stranger["method"]) == (rows[601]["p"], "votes")
    found = {each["rater"]: each for each in result.facts["raters"]}
    assert set(found) == set(SKILLS)
    assert {who: each["accuracy"] for who, each in found.items()} == pytest.approx(SKILLS, abs=0.06)
    assert result.facts["rows_left_as_they_were"] == 1
    assert Counter(result.kept["method"]) == {"dawid_skene": 601, "votes": 1}


def test_no_shared_rows_means_no_skill_and_no_change() -> None:
    rows = [pair(f"p{at}", "x", f"y{at}", [("ann", "a")]) for at in range(5)]
    given = frame(rows)
    for options in ({"method": "dawid_skene"}, {"method": "mace"}, {"method": "mace", "variational": False}):
        result = apply("aggregate", given, **options)
        assert result.kept.equals(given)
        assert result.facts["raters"] == []


def test_a_preference_for_what_is_shown_first_is_measured() -> None:
    rows = [pair(f"p{at}", "x", f"y{at}", [("ann", "a"), ("bob", "b")]) for at in range(8)]
    for at, row in enumerate(rows):
        first = first_text(row, "x")
        row["votes"][0]["shown_order"] = [first, 1 - first]  # ann always takes what she sees first
        row["votes"][1]["shown_order"] = [first, 1 - first] if at % 2 else [1 - first, first]
    bias = {each["rater"]: each["bias_first"] for each in apply("aggregate", rows).facts["raters"]}
    assert bias == {"ann": 0.5, "bob": 0.0}


def test_other_kinds_and_rows_without_votes_pass() -> None:
    rubric = pair("p", "x", "y", []) | {"kind": "rubric", "responses": None}
    given = frame([rubric | {"id": "a"}, pair("p", "x", "y", []) | {"id": "b"}])
    for method in ("majority", "dawid_skene", "mace"):
        assert apply("aggregate", given, method=method).kept.equals(given)
    assert apply("agreement", given).kept.equals(given)
    empty = given.clear()
    assert len(apply("aggregate", empty).kept) == len(apply("agreement", empty).kept) == 0


@pytest.mark.parametrize("options", [{"min_margin": 2.0}, {"smoothing": -1.0}, {"method": "vote"}])
def test_bad_config(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        apply("aggregate", [pair("p", "x", "y")], **options)


def test_pandalm_agreement_is_the_published_one(shared_data: Any) -> None:

    rows = []
    for line in gzip.decompress((shared_data / "annotators_pandalm.jsonl.gz").read_bytes()).splitlines():
        row = json.loads(line)
        votes = [(each["annotator"], each["preference"]) for each in row["labels"]]
        rows.append(pair(row["prompt"][0]["content"], row["response_a"], row["response_b"], votes, id=row["id"]))
    facts = apply("agreement", rows).facts
    assert facts["raters"] == 3
    # The data's README: two people give equal votes in 0.92 of cases.
    counts = pair_votes(frame(rows)).counts()
    equal = (counts * (counts - 1)).sum() / (counts.sum(1) * (counts.sum(1) - 1)).sum()
    assert equal == pytest.approx(0.92, abs=0.01)
    assert 0.8 < facts["interval"][0] < facts["alpha"] < facts["interval"][1] < 0.95


@pytest.mark.slow
def test_symmetric_dawid_skene_is_nearest_to_the_authors_gold(shared_data: Any) -> None:
    rows, gold = [], []
    for line in gzip.decompress((shared_data / "annotators_ukpconvarg.jsonl.gz").read_bytes()).splitlines():
        row = json.loads(line)
        if row["majority"] not in ("a", "b"):
            continue
        votes = [(each["annotator"], each["preference"]) for each in row["labels"]]
        prompt = row["prompt"][0]["content"]
        rows.append(pair(prompt, row["response_a"], row["response_b"], votes, id=row["id"]))
        gold.append(first_text(rows[-1], row[f"response_{row['majority']}"]) == 0)
    table = frame(rows)

    def right(**options: Any) -> float:
        p = apply("aggregate", table, **options).kept["p"].list.first().to_numpy()
        return float(np.where(p == 0.5, 0.5, (p > 0.5) == np.array(gold)).mean())

    symmetric, free = right(), right(symmetric=False)
    assert symmetric > 0.97
    assert symmetric > free > right(method="majority")
