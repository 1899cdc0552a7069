"""The leaderboard over finished runs, and Bradley-Terry ratings against closed forms and another implementation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from evaluation import suites
from evaluation.registry.leaderboard import leaderboards, main, markdown
from evaluation.registry.ratings import elo, games, strengths
from evaluation.suites.items import Answer, Credit, Item
from evaluation.suites.journal import write_result
from evaluation.suites.load import Loaded
from evaluation.suites.results import evaluated, suite_facts
from evaluation.suites.suite import load_suite
from rmkit.errors import DataError, StoreError
from rmkit.types import ModelInfo


def finished_run(home: Path, name: str, right: dict[str, int], *, n: int = 60, digest: str = "d") -> None:
    """A run of RM-Bench (without math) in which the first `right[subset]` prompts of `n` are right in every cell."""
    suite = load_suite("rm-bench")
    items = [Item(f"{s}/{i}", s, f"{s}/{i}") for s in right for i in range(n)]
    answers = {
        item.id: Answer(
            item.id, (1.0,) * 3 + (0.0,) * 3 if int(item.id.split("/")[1]) < right[item.subset] else (0.0,) * 6
        )
        for item in items
    }
    missing = tuple(s.name for s in suite.subsets if s.name not in right)
    facts = suite_facts(suite, Loaded(tuple(items), "file", {"chat": digest}, missing, ()), limit=None)
    made = evaluated(suite, items, answers, ModelInfo(name, "explicit", "logit", True, name * 4), resamples=10)
    folder = home / "runs" / "eval" / f"{name}-{digest}"
    folder.mkdir(parents=True)
    write_result(folder, facts | {"models": [made.as_json()]}, made.credits)


ALL = ("chat", "code", "safety-refuse", "safety-response")


def test_best_first_with_what_cannot_be_told_apart(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run(home, "weak", dict.fromkeys(ALL, 20))
    finished_run(home, "best", dict.fromkeys(ALL, 50))
    finished_run(home, "near", dict.fromkeys(ALL, 49))
    assert main(["--json"]) == 0
    [board] = json.loads(capsys.readouterr().out)["boards"]
    assert [row["name"] for row in board["models"]] == ["best", "near", "weak"]
    assert [row["level_with_best"] for row in board["models"]] == [True, True, False]
    assert board["models"][1]["p_holm"] == pytest.approx(2 / 2**4)  # four prompts differ, all one way: 1 / 8 exactly
    assert board["models"][0]["elo"] > board["models"][1]["elo"] > board["models"][2]["elo"]
    assert board["models"][0]["measures"]["overall"]["percent"] is None
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "Missing: math" in text
    assert "| 2= | near | (81.7) |" in text
    assert "| 3 | weak | (33.3) |" in text


def test_other_data_is_another_table(home: Path, tmp_path: Path) -> None:
    finished_run(home, "one", dict.fromkeys(ALL, 30))
    finished_run(home, "two", dict.fromkeys(ALL, 30), digest="other")
    assert [len(board["models"]) for board in leaderboards(home / "runs" / "eval")] == [1, 1]
    assert main(["-o", str(tmp_path / "board.md")]) == 0
    assert (tmp_path / "board.md").read_text().count("### RM-Bench") == 2
    with pytest.raises(DataError, match="no finished result for suite hep"):
        main(["--suite", "hep"])
    with pytest.raises(StoreError, match=r"board\.md"):
        main(["-o", str(tmp_path / "board.md" / "no.md")])  # under a file, where no folder can be


def test_nothing_yet_and_damage(home: Path) -> None:
    with pytest.raises(DataError, match=r"no finished result under .*rmkit eval MODEL --suite NAME"):
        main([])
    finished_run(home, "one", dict.fromkeys(ALL, 30))
    (home / "runs" / "eval" / "one-d" / "result.json").write_text("{")
    with pytest.raises(StoreError, match="evaluate again with --fresh"):
        main([])


def test_ratings_of_two_models_are_the_log_odds_of_their_wins() -> None:
    log = strengths([[0, 30], [10, 0]], prior=0)
    assert log[0] - log[1] == pytest.approx(math.log(3))
    ratings = elo([[0, 9.5], [0.5, 0]])  # with the prior: 10 to 1
    assert ratings[0] - ratings[1] == pytest.approx(400)
    assert ratings.mean() == pytest.approx(1000)


def test_ratings_agree_with_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(8)
    truth = np.array([1.0, 0.3, -0.2, -1.1])
    wins = np.zeros((4, 4))
    rows, labels = [], []
    for i in range(4):
        for j in range(i + 1, 4):
            for _ in range(60):
                won = generator.random() < 1 / (1 + math.exp(truth[j] - truth[i]))
                wins[(i, j) if won else (j, i)] += 1
                row = np.zeros(4)
                row[i], row[j] = 1, -1
                rows.append(row)
                labels.append(won)
    model = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-10, max_iter=5000).fit(rows, labels)
    reference = model.coef_[0] - model.coef_[0].mean()
    assert strengths(wins, prior=0) == pytest.approx(reference, abs=1e-4)


def test_a_model_that_wins_everything_keeps_a_finite_rating() -> None:
    assert np.isfinite(elo([[0, 20, 20], [0, 0, 10], [0, 10, 0]])).all()


def earned_in(cell: str, *earned: float | None) -> list[Credit]:
    return [
        Credit(str(i), "c", cell, 0.0, 0.0, unscored=True) if e is None else Credit(str(i), "c", cell, e)
        for i, e in enumerate(earned)
    ]


def test_games_are_played_on_shared_scored_credits_and_equal_credit_is_half() -> None:
    first = earned_in("s", 1, 0, 1, 1) + earned_in("other", 1, 1, 1, 1)
    second = earned_in("s", 0, 0, None, 1) + earned_in("other", 0, 0, 0, 0)
    assert games([first, second], {"s"}).tolist() == [[0, 2], [1, 0]]


def test_the_headline_s_games_alone_make_elo(home: Path) -> None:
    """Ten votes on each of 60 pairs; one model names the majority in 40 of them, the other in 30, both do in 20.

    20 games won, 10 lost, 30 even: with the prior 35.5 to 25.5, 57.5 points. All cells together gave 28.9: people's
    agreement with each other is the same for every model (120 draws more), and votes without ties are counted beside
    all votes (every game twice).
    """
    suite = load_suite("annotators")
    items = [Item(str(i), "all", str(i), {"votes": ["a"] * 8 + ["b"] * 2}) for i in range(60)]
    answers = {"better": [i < 40 for i in range(60)], "worse": [i < 20 or 40 <= i < 50 for i in range(60)]}
    facts = suite_facts(suite, Loaded(tuple(items), "file", {"all": "d"}, (), ()), limit=None)
    for name, right in answers.items():
        scores = {item.id: Answer(item.id, (float(ok), 0.5)) for item, ok in zip(items, right, strict=True)}
        made = evaluated(suite, items, scores, ModelInfo(name, "explicit", "logit", True, name), resamples=10)
        folder = home / "runs" / "eval" / name
        folder.mkdir(parents=True)
        write_result(folder, facts | {"models": [made.as_json()]}, made.credits)
    [board] = leaderboards(home / "runs" / "eval")
    better, worse = board["models"]
    assert (better["name"], worse["name"]) == ("better", "worse")
    assert better["elo"] - worse["elo"] == pytest.approx(400 * math.log10(35.5 / 25.5), abs=0.11)


def test_a_model_without_a_game_has_no_rating() -> None:
    assert elo(np.array([[0, 9.5, 0], [0.5, 0, 0], [0, 0, 0]])) == pytest.approx([1200, 800, math.nan], nan_ok=True)


def test_ratings_that_do_not_exist_or_are_not_reached_are_refused() -> None:
    with pytest.raises(DataError, match=r"4 players fall into 2 groups \(2, 2\)"):
        elo([[0, 1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 5], [0, 0, 2, 0]])
    with pytest.raises(DataError, match=r"2 players fall into 2 groups \(1, 1\)"):
        strengths([[0, 5], [0, 0]], prior=0)
    with pytest.raises(DataError, match="not converged after 2 steps"):
        strengths([[0, 30, 4], [10, 0, 3], [1, 2, 0]], steps=2)


def test_a_long_chain_of_one_sided_games_converges() -> None:
    """Only neighbors met, 9,000 to 1: every step is ln(9000.5 / 1.5), 8.70. Ten thousand steps of
    Hunter's iteration stopped in silence at 6.45 for the first and 4.52 in the middle."""
    wins = np.zeros((30, 30))
    for i in range(29):
        wins[i, i + 1], wins[i + 1, i] = 9000, 1
    assert np.diff(strengths(wins)) == pytest.approx([-math.log(9000.5 / 1.5)] * 29)


def test_a_suite_that_is_not_shipped_is_named_by_its_file(home: Path, tmp_path: Path) -> None:
    for name, right in (("one", 30), ("two", 40)):
        finished_run(home, name, dict.fromkeys(ALL, right))
        path = home / "runs" / "eval" / f"{name}-d" / "result.json"
        path.write_text(path.read_text().replace('"rm-bench"', '"mine"'))
    [board] = leaderboards(home / "runs" / "eval")
    assert [model["elo"] for model in board["models"]] == [None, None]
    assert "No Elo: the rules of suite mine are needed: name its file with --suite." in markdown(board)
    shipped = Path(suites.__file__).parent / "rm-bench.toml"
    (tmp_path / "mine.toml").write_text(shipped.read_text().replace('name = "rm-bench"', 'name = "mine"'))
    [board] = leaderboards(home / "runs" / "eval", suite=str(tmp_path / "mine.toml"))
    assert [model["name"] for model in board["models"]] == ["two", "one"]
    assert board["models"][0]["elo"] > 1000 > board["models"][1]["elo"]
    assert board["no_elo"] is None
