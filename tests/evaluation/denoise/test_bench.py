"""The denoising bench: cells, cache and resuming, statistics by hand, advice on planted cases, reports, the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from evaluation.denoise import grid as denoise_grid
from evaluation.denoise import report as denoise_report
from evaluation.denoise.grid import BenchData, Cell, Result, check_methods, parse_cells, run_grid
from evaluation.denoise.methods import available
from evaluation.denoise.summary import Line, advice, resampled, summarize
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, UsageError
from rmkit.features.encoder import single_threaded
from rmkit.heads.stacked_training import HeadConfig
from rmkit.reliability.feature_pairs import FeaturePairs, stacked

HEAD = HeadConfig(hidden=32, lr=3e-3, epochs=6)
TRAIN, TEST = 400, 200


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


def task(*, easy: bool, seed: int = 0) -> BenchData:
    """Pairs whose better reply lies along one direction; hard: labels of a random teacher on width-64 features."""
    draw = np.random.default_rng(seed)
    width = 16 if easy else 64
    teacher = draw.normal(size=width)

    def pairs(n: int, name: str) -> FeaturePairs:
        prompt, a, b = draw.normal(size=(3, n, width))
        value = (a - b) @ teacher if easy else ((a - b) * prompt) @ teacher
        if easy:
            a = a + 2.0 * np.sign(value)[:, None] * teacher / np.linalg.norm(teacher)
        first = value > 0
        chosen, rejected = np.where(first[:, None], a, b), np.where(first[:, None], b, a)
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (prompt, chosen, rejected)]
        return stacked([f"{name}{i}" for i in range(n)], *unit)

    def flips(kind: str, rate: float, seed: int) -> NDArray[np.bool_]:
        return np.random.default_rng([seed, 1]).permutation(TRAIN) < round(rate * TRAIN)

    name = "easy" if easy else "hard"
    return BenchData(name, name, pairs(TRAIN, "t"), pairs(TEST, "v"), np.arange(TEST) // 2, flips)


def test_selection_helps_where_margins_separate_and_the_advice_says_so(home: Path) -> None:
    data = task(easy=True)
    results = run_grid(data, parse_cells(["symmetric"], [0.4], 2), check_methods(["clean", "peer", "self"]), head=HEAD,
                       workers=1)  # fmt: skip
    lines = {line.method: line for line in summarize(results, data.test_family)}
    assert lines["clean"].accuracy > lines["peer"].accuracy > lines["standard"].accuracy + 5
    assert (lines["peer"].kept_precision or 0) > 0.7
    assert lines["clean"].p_holm is None  # the ceiling is no claim
    found = advice(list(lines.values()))
    assert found["recommend"] in ("peer", "self")
    assert found["filter"]
    assert found["reason"].startswith("use ")


def test_where_margins_do_not_separate_the_advice_is_not_to_filter(home: Path) -> None:
    data = task(easy=False)
    results = run_grid(data, parse_cells(["symmetric"], [0.2, 0.4], 2), check_methods(["peer", "self"]), head=HEAD,
                       workers=1)  # fmt: skip
    lines = summarize(results, data.test_family)
    found = advice(lines)
    assert found["recommend"] is None
    assert not found["filter"]
    assert found["reason"].startswith("do not filter")
    assert "AUC 0." in found["reason"]


def test_every_method_runs_and_is_cached_and_gives_the_same_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cells = task(easy=True), [Cell("symmetric", 0.3, 1)]
    first = run_grid(data, cells, available(), head=HEAD, workers=1)
    assert all(result.credit.shape == (TEST,) and set(result.credit) <= {0.0, 0.5, 1.0} for result in first)
    accuracy = {result.method: float(result.credit.mean()) for result in first}
    assert accuracy["clean"] > 0.9
    assert accuracy["peer"] > accuracy["standard"]
    kept = {result.method: result.facts.get("kept_precision") for result in first}
    assert all((kept[name] or 0) > 0.85 for name in ("cross_fit", "gap", "upo_mean_p", "upo_margin")), kept
    with monkeypatch.context() as patch:  # nothing may be computed
        patch.setattr(denoise_grid, "compute", None)
        again = run_grid(data, cells, available(), head=HEAD, workers=1)
    for before, after in zip(first, again, strict=True):
        assert np.array_equal(before.credit, after.credit)
        assert before.facts == after.facts
    for path in (home / "runs" / "denoise").rglob("standard.npz"):
        path.unlink()
    redone = run_grid(data, cells, ["standard"], head=HEAD, workers=1)
    assert np.array_equal(redone[0].credit, next(x for x in first if x.method == "standard").credit)


def test_a_killed_grid_goes_on_and_equals_an_unbroken_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cells = task(easy=True), parse_cells(["symmetric"], [0.2], 3)
    methods = ["standard", "peer"]
    unbroken = run_grid(data, cells, methods, head=HEAD, workers=1)
    for path in (home / "runs" / "denoise").rglob("*.npz"):
        path.unlink()
    store, done = denoise_grid._store, []

    def killed(*arguments: Any) -> None:
        store(*arguments)
        done.append(arguments[0])
        if len(done) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(denoise_grid, "_store", killed)
        with pytest.raises(KeyboardInterrupt):
            run_grid(data, cells, methods, head=HEAD, workers=1)
    kept = {
        path: path.stat().st_mtime_ns for path in (home / "runs" / "denoise").rglob("*.npz") if path.name != "task.npz"
    }
    assert len(kept) == 3
    resumed = run_grid(data, cells, methods, head=HEAD, workers=1)
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    for one, other in zip(unbroken, resumed, strict=True):
        assert np.array_equal(one.credit, other.credit)
        assert np.array_equal(one.histogram, other.histogram)


@pytest.mark.slow
def test_processes_give_what_one_process_gives(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cells = task(easy=True), parse_cells(["symmetric"], [0.2], 2)
    alone = run_grid(data, cells, ["standard", "peer"], head=HEAD, workers=1)
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "other"))
    together = run_grid(data, cells, ["standard", "peer"], head=HEAD, workers=2)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.credit, other.credit)


def result(method: str, seed: int, credit: list[float], *, rate: float = 0.2, kind: str = "symmetric") -> Result:
    none = np.zeros((0, 2, 48), dtype=np.int64)
    nobody = np.zeros(0, dtype=bool)
    return Result(Cell(kind, rate, seed), method, np.array(credit, dtype=np.float32), {}, none, nobody, nobody)


def test_a_line_by_hand() -> None:
    results = [result("standard", 0, [1, 0, 0, 0]), result("standard", 1, [1, 1, 0, 0])]
    results += [result("peer", 0, [1, 1, 0.5, 0]), result("peer", 1, [1, 1, 1, 1])]
    standard, peer = summarize(results, np.array([0, 0, 1, 2]))
    assert standard.accuracy == pytest.approx(37.5)
    assert standard.seed_sd == pytest.approx(100 * np.std([0.25, 0.5], ddof=1))
    assert peer.difference == pytest.approx(100 * ((2.5 - 1) + (4 - 2)) / 8)
    assert standard.difference is None
    assert standard.p_holm is None
    assert peer.p_holm == peer.p


def test_resampling_whole_families_is_wider_than_pairs_and_agrees_with_theory() -> None:
    draw = np.random.default_rng(0)
    family = np.repeat(np.arange(100), 4)
    value = np.repeat(draw.normal(size=100), 4)[None]
    clustered = resampled(value, family).std()
    alone = resampled(value, np.arange(400)).std()
    assert clustered == pytest.approx(value[0, ::4].std() / 10, rel=0.1)
    assert alone == pytest.approx(value.std() / 20, rel=0.1)


def test_seeds_are_resampled_too() -> None:
    value = np.repeat(np.array([[0.0], [1.0]]), 50, axis=1)  # all spread is between seeds
    assert resampled(value, np.arange(50)).std() == pytest.approx(np.sqrt(0.25 / 2), rel=0.05)


def line(method: str, kind: str, difference: float | None, p: float | None, *, auc: float = 0.7) -> Line:
    empty = dict.fromkeys(("seed_sd", "difference_low", "difference_high", "kept", "kept_precision", "found"))
    return Line(kind=kind, rate=0.4, method=method, seeds=5, accuracy=70, low=60, high=80, difference=difference, p=p,
                p_holm=p, auc=auc, **empty)  # fmt: skip


def test_a_method_that_loses_anywhere_is_not_recommended_and_its_loss_is_told() -> None:
    lines = [line("standard", "symmetric", None, None), line("standard", "length", None, None)]
    risky = [line("peer", "symmetric", 10.0, 0.001), line("peer", "length", -4.0, 0.01)]
    steady = [line("robust", "symmetric", 5.0, 0.001), line("robust", "length", 2.0, 0.01)]
    found = advice([*lines, *risky, *steady])
    assert (found["recommend"], found["filter"]) == ("robust", False)
    assert found["reason"].startswith("do not filter, train with robust")
    assert advice([*lines, *risky])["recommend"] is None
    assert advice([*lines, *risky])["cautions"] == [
        "peer loses 4.0 points to standard training under length noise of 40%"
    ]


def test_margins_that_say_nothing_are_told_by_kind() -> None:
    floor = [line("standard", "symmetric", None, None, auc=0.58), line("standard", "length", None, None, auc=0.41)]
    peer = [line("peer", "symmetric", -0.9, 0.5), line("peer", "length", -1.0, 0.5)]
    assert advice([*floor, *peer])["reason"] == (
        "do not filter: no method beats standard training in most of the noises tried without losing in another; the "
        "margins hardly separate right from wrong labels (AUC 0.58 under symmetric noise, 0.41 under length noise; a "
        "coin has 0.50)"
    )
    floor[0] = line("standard", "symmetric", None, None, auc=0.9)
    assert "labels with AUC 0.90 under symmetric noise, 0.41 under length noise" in advice([*floor, *peer])["reason"]


def test_cells_and_methods_are_checked() -> None:
    assert [cell.name for cell in parse_cells(["symmetric", "length"], [0.2, 0], 1)] == [
        "symmetric-0-0", "symmetric-0.2-0", "length-0.2-0"]  # fmt: skip
    with pytest.raises(ConfigError, match=r"rates in \[0, 0.5\)"):
        parse_cells(["symmetric"], [0.5], 1)
    with pytest.raises(ConfigError, match=r"unknown method 'pear'; did you mean '\w+'\? Known: clean, standard"):
        check_methods(["pear"])
    assert check_methods(["peer", "standard"]) == ["standard", "peer"]


def test_the_page_holds_advice_charts_and_every_line(home: Path, tmp_path: Path) -> None:
    data = task(easy=True)
    results = run_grid(
        data, parse_cells(["symmetric"], [0, 0.4], 1), ["standard", "clean", "peer"], head=HEAD, workers=1
    )
    made = denoise_report.result_of(data, results, command="rmkit denoise bench easy")
    denoise_report.write(made, tmp_path / "out" / "page.html")
    page = (tmp_path / "out" / "page.html").read_text()
    assert page.count("<svg") == 2 + 2 * 3  # curve, selection, and margins of three epochs for two methods
    assert made["advice"]["reason"].split(":")[0] in page
    assert not [tag for tag in ("src=", "<link", "@import") if tag in page]  # it needs no network
    denoise_report.write(made, tmp_path / "page.md")
    table = [line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("| ")]
    assert len(table) == 2 + 6
    denoise_report.write(made, tmp_path / "page.json")
    assert json.loads((tmp_path / "page.json").read_text())["lines"] == made["lines"]
    with pytest.raises(UsageError, match=r"expected .html, .md or .json"):
        denoise_report.write(made, tmp_path / "page.pdf")


@pytest.mark.slow
def test_the_command_on_a_version(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.data_pipelines.kind_pairs import write_kind_pairs
    from tests.rmkit.tiny_encoder import write_tiny_encoder

    cli.call("ingest", [str(write_kind_pairs(tmp_path / "pairs.jsonl", 240)), "--name", "kind", "--json"])
    cli.call("ingest", [str(write_kind_pairs(tmp_path / "few.jsonl", 40)), "--name", "few", "--json"])
    encoder = str(write_tiny_encoder(tmp_path / "encoder"))
    with pytest.raises(DataError, match="28 usable train pairs with a winner, at least 50"):
        cli.call("denoise", ["bench", "few", "--encoder", encoder])
    capsys.readouterr()
    options = ["--methods", "clean,peer", "--seeds", "1", "--rates", "0.3", "--kinds", "symmetric,annotator"]
    small = ["--encoder", encoder, "--epochs", "2", "--workers", "1"]
    assert cli.call("denoise", ["bench", "kind", *options, *small, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [(line["kind"], line["method"]) for line in made["lines"]] == [
        (kind, method) for kind in ("symmetric", "annotator") for method in ("standard", "clean", "peer")
    ]
    assert made["facts"]["train_pairs"] == 168
    with pytest.raises(UsageError, match=r"did you mean .bench.\?"):
        cli.call("denoise", ["bunch"])


def test_downstream_credits_follow_rm_benchs_own_matrix() -> None:
    from evaluation.denoise.downstream import _comparisons, compared
    from evaluation.scoring.rmbench import credits
    from evaluation.suites.items import Answer, Item
    from evaluation.suites.suite import load_suite
    from rmkit.types import Candidates, Completion, Message

    def item(name: str, subset: str) -> Item:
        replies = tuple(Completion((Message("assistant", f"{name} reply {n}"),)) for n in range(6))
        return Item(name, subset, name, candidates=Candidates((Message("user", name),), replies))

    items = [
        item("p0", "chat"),
        item("p1", "chat"),
        item("p2", "code"),
        item("p3", "safety-refuse"),
        item("p4", "safety-response"),
    ]
    scores = np.random.default_rng(0).normal(size=(5, 6))
    pairs = [pair for at, one in enumerate(items) for pair in _comparisons(one, at)]
    assert [pair.first for pair in pairs[:9]] == [pairs[0].first] * 3 + [pairs[3].first] * 3 + [pairs[6].first] * 3
    credit = [float(scores[at][i] > scores[at][3 + j]) for at in range(5) for i in range(3) for j in range(3)]
    wanted = [credits(one, Answer(one.id, scores=tuple(row))) for one, row in zip(items, scores.tolist(), strict=True)]
    results = [result("standard", 0, [0.0] * 45), result("peer", 0, credit)]
    lines = compared(load_suite("rm-bench"), results, items)
    assert [(line["method"], line["measure"]) for line in lines] == [
        ("peer", name) for name in ("chat", "code", "safety")
    ]
    assert lines[0]["second"] == lines[1]["second"] == 0
    hard = [c for c in wanted[2] if c.cell == "code/hard"]
    normal, easy = ([c for c in wanted[2] if c.cell == f"code/{name}"] for name in ("normal", "easy"))
    rates = [100 * np.mean([c.earned for c in part]) for part in (hard, normal, easy)]
    assert lines[1]["first"] == pytest.approx(np.mean(rates))
