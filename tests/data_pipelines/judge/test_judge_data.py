"""Training data for judges: what is admitted, contrasted, recycled, and why the rest is dropped."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.judge.data import (
    command as judge_data,
)
from data_pipelines.judge.data import (
    dpo as judge_data_dpo,
)
from data_pipelines.judge.data import (
    recycled_rollouts,
)
from data_pipelines.judge.data import (
    sft as judge_data_sft,
)
from data_pipelines.judge.data import (
    verdicts as judge_data_verdicts,
)
from data_pipelines.judge.data.folder import DROPPED, ROWS, Built, read_folder, read_lines, write_folder
from data_pipelines.judge.data.items import Item, read_items
from rmkit.data.example import read_examples
from rmkit.errors import DataError, StoreError, UsageError
from rmkit.generate import Engine, Limits, Prices, Request, Sample
from rmkit.judge import Judge, JudgeConfig
from rmkit.types import Candidates, Completion, Message
from tests.exports import row, write_export


class Scripted:
    """A Generator that answers from a function of the request."""

    prices, name = Prices(), "scripted"

    def __init__(self, answer: Callable[[Request], str | Sample]) -> None:
        self._answer = answer

    async def sample(self, request: Request) -> Sample:
        said = self._answer(request)
        return said if isinstance(said, Sample) else Sample(text=said)

    async def close(self) -> None:
        return None


@contextmanager
def judge_of(answer: Callable[[Request], str | Sample], **config: Any) -> Iterator[Judge]:
    with Engine(Scripted(answer), limits=Limits(concurrency=8)) as engine:
        yield Judge(JudgeConfig(**({"name": "judge"} | config)), engine)


def item(name: str, better: int = 0) -> Item:
    """Its better response says `good`, the other `bad`."""
    words = ("good", "bad") if better == 0 else ("bad", "good")
    completions = tuple(Completion((Message("assistant", f"{word} {name}"),)) for word in words)
    return Item(name, Candidates((Message("user", f"ask {name} please"),), completions), better, "made")


def shown(request: Request) -> tuple[str, str]:
    """The item's name, and the right letter."""
    text = request.prompt[-1].content
    found = re.search(r"ask (\S+) please", text)
    assert found
    return found[1], "A" if text.index("good ") < text.index("bad ") else "B"


def other(letter: str) -> str:
    return "B" if letter == "A" else "A"


def teacher(request: Request) -> str | Sample:
    name, letter = shown(request)
    match name:
        case "knows":
            return f"Verdict: {other(letter)}\nno, wait.\nVerdict: {letter}"  # the last verdict counts
        case "wrong":
            return f"Verdict: {other(letter)}"
        case "slot":
            return "Verdict: A"
        case "mute":
            return "I cannot say."
        case "both":
            return "Verdict: A or B"
        case "cut":
            return Sample(text=f"Verdict: {letter}", finish="length")
    return Sample.failed("the budget of 3 USD is spent")


NAMES = ("knows", "wrong", "slot", "mute", "both", "cut", "unpaid")


def test_only_what_is_right_in_both_orders_is_admitted_and_every_other_item_says_why() -> None:
    with judge_of(teacher, temperature=0.7, votes=3) as judge:
        built = judge_data_sft.admitted(judge, [item(name) for name in NAMES], skipped={"tie": 2})
    assert {one["id"]: one["reason"] for one in built.dropped} == {
        "wrong": "wrong in both orders",
        "slot": "right in one order only",
        "mute": "no readable verdict",
        "both": "no readable verdict",
        "cut": "no readable verdict",
        "unpaid": "no answer: the budget of 3 USD is spent",
    }
    assert sum(built.reasons.values()) == 6 + 2
    first, second = built.rows
    assert [first["verdict"], second["verdict"]] == ["A", "B"]
    assert [first["order"], second["order"]] == [[0, 1], [1, 0]]
    assert first["completion"] == [{"role": "assistant", "content": "Verdict: B\nno, wait.\nVerdict: A"}]
    assert first["prompt"][1]["content"].index("good") < first["prompt"][1]["content"].index("bad")
    assert second["prompt"][1]["content"].index("bad") < second["prompt"][1]["content"].index("good")
    assert first["length_gap"] == len("good") - len("bad")


def test_the_label_decides_which_verdict_is_right() -> None:
    with judge_of(teacher) as judge:
        built = judge_data_sft.admitted(judge, [item("knows", better=1)], skipped={})
        flipped = judge_data_sft.admitted(judge, [Item("x", item("knows").candidates, 1, "made")], skipped={})
    assert [row["verdict"] for row in built.rows] == ["B", "A"]
    assert flipped.reasons == {"wrong in both orders": 1}


def test_one_order_admits_the_slot_guesser_that_two_orders_refuse() -> None:
    with judge_of(teacher) as judge:
        built = judge_data_sft.admitted(judge, [item("slot")], skipped={}, orders="given")
        assert [row["id"] for row in built.rows] == ["slot"]
        assert judge_data_sft.admitted(judge, [item("slot", 1)], skipped={}, orders="given").reasons == {"wrong": 1}


def sampled(request: Request) -> str | Sample:
    """The judge under training, by item: which of the eight samples (seeds) are right."""
    name, letter = shown(request)
    match name:
        case "mixed":  # right samples differ in their words
            return f"because {request.seed}\nVerdict: {letter if request.seed % 2 else other(letter)}"
        case "plain":
            return f"Verdict: {letter if request.seed % 2 else other(letter)}"
        case "easy":
            return f"Verdict: {letter}"
        case "hopeless":
            return f"Verdict: {other(letter)}"
        case "slot":
            return "Verdict: B"
        case "babble":
            return "so so" if request.seed else f"Verdict: {letter}"
        case "silent":
            return "so so"
    # one order only is mixed
    return f"{request.seed}\nVerdict: " + ("A" if letter == "A" or request.seed in (3, 5) else "B")


def contrasted(*names: str, samples: int = 8) -> Built:
    with judge_of(sampled) as judge:
        return judge_data_dpo.contrasted(judge, [item(name) for name in names], skipped={}, samples=samples)


def test_pairs_hold_one_prompt_with_a_right_and_a_wrong_sample() -> None:
    built = contrasted("mixed")
    assert [row["verdict"] for row in built.rows] == ["A", "B"]
    first = built.rows[0]
    assert first["chosen"][0]["content"] == "because 1\nVerdict: A"
    assert first["rejected"][0]["content"] == "because 0\nVerdict: B"
    assert first["samples"] == [1, 0]
    assert first["right"] == [4, 8]


def test_equal_pairs_of_texts_come_once() -> None:
    assert len(contrasted("plain").rows) == 2  # one of each order, though four pairs of samples would fit


def test_what_is_right_or_wrong_every_time_teaches_nothing() -> None:
    built = contrasted("easy", "hopeless", "slot", "babble", "silent", "plain")
    assert {one["id"]: one["reason"] for one in built.dropped} == {
        "easy": "right every time",
        "hopeless": "wrong every time",
        "slot": "the same place every time",
        "babble": "right every time",
        "silent": "no readable sample in one order",
    }


def test_an_order_that_alone_is_mixed_gives_two_pairs_and_their_surplus_is_dropped() -> None:
    built = contrasted("lopsided", "plain")
    assert Counter(row["verdict"] for row in built.rows) == {"A": 1, "B": 1}
    assert built.reasons == {"surplus of one verdict": 2}
    alone = contrasted("lopsided")
    assert not alone.rows
    assert alone.reasons == {"surplus of one verdict": 2}


def test_verdict_tokens_are_balanced_and_solutions_are_the_better_response() -> None:
    items = [item(str(at), better=at % 3 == 0) for at in range(10)]
    with judge_of(teacher) as judge:
        built = judge_data_verdicts.verdict_rows(judge, items, skipped={}, solutions=0.25)
    verdicts = Counter(row["verdict"] for row in built.rows)
    assert verdicts == {"A": 10, "B": 10, None: 5}
    assert all(r["completion"][0]["content"].startswith("good") for r in built.rows if r["task"] == "solution")
    with judge_of(teacher, form="yes_no") as judge:
        built = judge_data_verdicts.verdict_rows(judge, items, skipped={})
    assert Counter(row["verdict"] for row in built.rows) == {"yes": 10, "no": 10}
    for one in built.rows:
        assert ("good" in one["prompt"][-1]["content"]) == (one["verdict"] == "yes")
        assert one["completion"][0]["content"] == f"Verdict: {one['verdict']}"
    with judge_of(teacher, form="scale") as judge, pytest.raises(UsageError, match="the judge's is scale"):
        judge_data_verdicts.verdict_rows(judge, items, skipped={})


def test_both_orders_stand_side_by_side() -> None:
    with judge_of(teacher) as judge:
        built = judge_data_verdicts.both_orders(judge, [item("x"), item("y", 1)], skipped={})
    assert [(r["id"], r["order"], r["verdict"]) for r in built.rows] == [
        ("x", [0, 1], "A"),
        ("x", [1, 0], "B"),
        ("y", [0, 1], "B"),
        ("y", [1, 0], "A"),
    ]


def group(name: str, correct: Sequence[bool | None], reference: str = "") -> recycled_rollouts.Group:
    word = {True: "good", False: "bad", None: "odd"}
    texts = [f"thinking\n{word[found]} {name} {at}" for at, found in enumerate(correct)]
    completions = tuple(Completion((Message("assistant", text),)) for text in texts)
    return recycled_rollouts.Group(name, Candidates((Message("user", name),), completions), tuple(correct), reference)


def recycled(groups: Sequence[recycled_rollouts.Group], **options: Any) -> Built:
    with judge_of(teacher, form="yes_no") as single, judge_of(teacher) as pair:
        return recycled_rollouts.recycled([pair, single], groups, skipped={}, **options)


def test_spark_one_item_a_group_by_its_mixture() -> None:
    groups = [group(f"m{at}", [True, False, None, False]) for at in range(100)]
    built = recycled(groups, reflection=False)
    tasks = Counter((row["task"], row["verdict"]) for row in built.rows)
    assert tasks == {("pairwise", "A"): 35, ("pairwise", "B"): 35, ("pointwise", "yes"): 15, ("pointwise", "no"): 15}
    assert len({row["id"] for row in built.rows}) == 100
    for one in built.rows:
        text = one["prompt"][-1]["content"]
        assert "odd" not in text
        if one["task"] == "pairwise":
            assert one["verdict"] == ("A" if text.index("good ") < text.index("bad ") else "B")
        else:
            assert ("good " in text) == (one["verdict"] == "yes")
    for start in range(0, 80, 20):  # every stretch of twenty holds seven pairs of each verdict
        stretch = Counter((r["task"], r["verdict"]) for r in built.rows[start : start + 20])
        assert abs(stretch["pairwise", "A"] - 7) <= 1
        assert abs(stretch["pointwise", "no"] - 3) <= 1


def test_spark_all_right_and_all_wrong_are_pointwise_and_the_surplus_is_told() -> None:
    groups = [group(f"r{at}", [True, True]) for at in range(6)] + [group(f"w{at}", [None, False]) for at in range(4)]
    built = recycled([*groups, group("unread", [None, None])], reflection=False)
    assert Counter(row["verdict"] for row in built.rows) == {"yes": 4, "no": 4}
    assert built.reasons == {"surplus of one verdict: yes": 2, "no rollout that the verifier could read": 1}


def test_spark_reflection_leads_from_a_wrong_rollout_to_gold() -> None:
    groups = [group(f"m{at}", [True, False]) for at in range(10)]
    built = recycled([*groups, group("alone", [False]), group("told", [False], reference="42")])
    made = [row for row in built.rows if row["task"].startswith("reflection")]
    assert Counter(row["task"] for row in made) in ({"reflection, whole": 6, "reflection, end only": 5},)
    assert all("bad " in row["prompt"][-1]["content"] for row in made)
    assert {("thinking" in row["prompt"][-1]["content"], row["task"]) for row in made} == {
        (True, "reflection, whole"),
        (False, "reflection, end only"),
    }
    gold = {row["id"]: row["completion"][0]["content"] for row in made}
    assert gold["told"] == "42"
    assert gold["m3"].endswith("good m3 0")
    assert built.reasons["nothing to reflect towards: no right rollout, no reference"] == 1


def test_spark_reads_groups_from_rows_with_a_verifiers_scores(tmp_path: Path) -> None:
    def scores(*values: float) -> list[dict[str, Any]]:
        return [{"response": at, "aspect": "score", "value": value} for at, value in enumerate(values)]

    rows = [
        row("q1", ["a", "b", "c"], kind="list", scores=scores(1, 0), meta=json.dumps({"reference": "a"})),
        row("q2", ["a", "b"], kind="list", scores=scores(0.4, 0)),
    ]
    groups, skipped = recycled_rollouts.read_groups(read_examples(write_export(tmp_path / "x", rows)))
    assert [(one.correct, one.reference) for one in groups] == [((True, False, None), "a")]
    assert skipped == {"score is not 0 or 1 (a verifier's), but 0.4 and the like": 1}
    with judge_of(teacher) as pair, pytest.raises(UsageError, match="form yes_no"):
        recycled_rollouts.recycled([pair], groups, skipped={})


TOML = '[judge]\nname = "j"\n[generator]\nmodel = "stub"\nbase_url = "http://127.0.0.1:9/v1"\n'


def test_items_are_pairs_with_a_label_and_ties_are_counted(tmp_path: Path) -> None:
    rows = [
        row("q1", ["a", "b"], p=[0.2, 0.8]),
        row("q2", ["a", "b"], p=[0.5, 0.5]),
        row("q3", ["a"], kind="single"),
    ]
    items, skipped = read_items(read_examples(write_export(tmp_path / "x", rows)))
    assert [(one.better, one.verdict((0, 1)), one.verdict((1, 0))) for one in items] == [(1, "B", "A")]
    assert skipped == {"nothing to compare (kind single)": 1, "a tie has no right verdict": 1}


def test_a_folder_tells_what_it_holds_and_notices_changes(tmp_path: Path) -> None:
    toml = tmp_path / "judge.toml"
    toml.write_text(TOML)
    with judge_of(teacher) as judge:
        built = judge_data_sft.admitted(judge, [item(name) for name in NAMES], skipped={})
    manifest = write_folder(tmp_path / "data", built, judge=toml, stage="sft", dataset={"ref": "hh@v2"})
    assert (manifest["rows"], manifest["items"], sum(manifest["dropped"].values())) == (2, 1, 6)
    again = Built(list(reversed(built.rows)), built.dropped, {})
    assert write_folder(tmp_path / "again", again, judge=toml, stage="sft")["digest"] == manifest["digest"]
    assert read_folder(tmp_path / "data") == manifest
    assert read_lines(tmp_path / "data" / ROWS) == built.rows
    assert "Verdict: A" in (tmp_path / "data" / "prompt.jinja").read_text()
    with pytest.raises(StoreError, match="exists already"):
        write_folder(tmp_path / "data", built, judge=toml, stage="sft")
    with pytest.raises(DataError, match="no training row was left"):
        write_folder(tmp_path / "empty", Built([], built.dropped, {}), judge=toml, stage="sft")
    assert not (tmp_path / "empty").exists()
    (tmp_path / "data" / DROPPED).write_text("")
    with pytest.raises(DataError, match="was changed"):
        read_folder(tmp_path / "data")
    with pytest.raises(DataError, match="no judge data"):
        read_folder(tmp_path)


def test_the_command_builds_a_folder_that_names_its_version(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "judge.toml").write_text(TOML)
    rows = [row(f"q{at}", ["a", "b"], p=[1.0, 0.0], split="train") for at in range(5)]
    export = write_export(tmp_path / "x", [*rows, row("held out", ["a", "b"], p=[1.0, 0.0], split="test")])
    asked = [str(tmp_path / "judge.toml"), str(export), "-o", str(tmp_path / "out")]
    assert judge_data.main(["orders", *asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    manifest = read_folder(tmp_path / "out")
    assert (told["rows"], told["read"], told["judging"]["paid_calls"]) == (10, 5, 0)
    assert manifest["dataset"]["ref"] == "made@v1"
    assert manifest["judge"]["form"] == "pairwise"
    with pytest.raises(UsageError, match="exists already"):
        judge_data.main(["orders", *asked])
    dpo = ["dpo", *asked[:2], "-o", str(tmp_path / "dpo"), "--failed", str(tmp_path / "out")]
    with pytest.raises(UsageError, match="takes SFT judge data"):
        judge_data.main(dpo)
