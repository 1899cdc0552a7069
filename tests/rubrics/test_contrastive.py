"""Contrastive rubrics against a scripted endpoint: written, validated, filtered, used, turned into training sets."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from evaluation.benchmarks.judging.scripted_endpoint import Reply, Script, ScriptedEndpoint
from evaluation.benchmarks.rubrics import filter as rubric_filter
from rmkit.errors import ConfigError
from rmkit.generate import Engine, Limits
from rmkit.generate.endpoint import EndpointGenerator
from rmkit.judge import Context, Judge, JudgeConfig
from rmkit.judge.prompt_file import PromptFile
from rmkit.types import Candidates, Completion, Message
from rubrics.clauses import score_clauses
from rubrics.contrastive import ContrastConfig, Instance, contrast
from rubrics.criteria import Criterion
from rubrics.rubric_rm import WRITER_PROMPT, RubricRewardModel
from rubrics.training_sets import balanced, judge_rows, writer_rows
from rubrics.validate import parse_reply, problems_of, rubric_text

RUBRIC = "1. The response has at most 6 words. [hard rule]\n2. The response answers without hedging. [principle]"


def item(*texts: str, prompt: str = "Say it in six words.") -> Candidates:
    return Candidates((Message("user", prompt),), tuple(Completion((Message("assistant", text),)) for text in texts))


def shown(asked: dict[str, Any]) -> list[str]:
    return [text for _, text in re.findall(r"(?s)<response-\w (\w+)>\n(.*?)\n</response-\w \1>", said_to(asked))]


def said_to(asked: dict[str, Any]) -> str:
    text: str = asked["messages"][-1]["content"]
    return text


@pytest.fixture
def engine_of() -> Iterator[Callable[[Script], Engine]]:
    opened: list[Any] = []

    def make(script: Script) -> Engine:
        endpoint = ScriptedEndpoint(script).__enter__()
        made = Engine(
            EndpointGenerator(base_url=endpoint.base_url, model="m"), limits=Limits(concurrency=8, wait_s=0.01)
        )
        opened.extend([endpoint, made])
        return made

    yield make
    for each in reversed(opened):
        each.__exit__(None, None, None)


def rule_judge(asked: dict[str, Any]) -> Reply:
    """The benchmark's judge: runs the rules of the rubric it is given."""
    return Reply(text="By the rules:\n" + rubric_filter.judge(said_to(asked), 0))


def pairwise(engine: Engine, **config: Any) -> Judge:
    return Judge(JudgeConfig(**({"name": "j", "verdict": "parse"} | config)), engine)


# ---- the writer's reply ----


def test_a_reply_becomes_criteria_with_tags_and_code() -> None:
    criteria, problems = parse_reply(RUBRIC + "\n\n- The response *is* kind. **[Principle]**")
    assert problems == []
    assert [c.tag for c in criteria] == ["hard_rule", "principle", "principle"]
    assert criteria[0].check == {"rule": "max_words", "value": 6}
    assert criteria[2].criterion == "The response *is* kind."
    assert parse_reply(rubric_text(criteria))[0] == criteria  # what is written can be read again


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "no criterion"),
        ("Here is the rubric:\n" + RUBRIC, "text beside the list"),
        ("1. The response is kind.", "a criterion without a tag"),
        ("1. [principle]", "a criterion without a tag"),
    ],
)
def test_a_reply_that_is_no_rubric_is_told(reply: str, problem: str) -> None:
    assert problem in parse_reply(reply)[1]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("The response is better than the other response.", "which response is which"),
        ("The response agrees with response A.", "which response is which"),
        ("The response is like the chosen answer.", "which response is which"),
        ("The response mentions Napoleon as a cause.", "name, number or phrase"),
        ("The response gives the year 1815.", "name, number or phrase"),
        ("The response says the emperor lost the decisive battle clearly.", "name, number or phrase"),
        ("It is kind.", "no statement about the response"),
        ("The response is " + "very " * 70 + "long.", "more than 60 words"),
    ],
)
def test_principles_that_leak_or_point_are_refused(line: str, problem: str) -> None:
    found = item("In 1815 Napoleon fell: the emperor lost the decisive battle.", "No idea.")
    assert any(problem in one for one in problems_of([Criterion(criterion=line, tag="principle")], found))


def test_a_fair_rubric_has_no_problems_and_a_double_one_has() -> None:
    criteria, _ = parse_reply(RUBRIC)
    found = item("In 1815 Napoleon fell.", "No idea.")
    assert problems_of(criteria, found) == []
    assert problems_of([*criteria, criteria[0]], found) == ["the same criterion twice"]


# ---- the filter ----


def test_only_rubrics_that_reproduce_the_label_are_kept(engine_of: Any) -> None:
    def write(asked: dict[str, Any]) -> Reply:
        text = said_to(asked)
        if "inverted" in text:
            return Reply(text="1. The response has at least 6 words. [hard rule]")
        if "useless" in text:
            return Reply(text="1. The response contains no commas. [hard rule]")
        if "chatty" in text:
            return Reply(text="Sure! " + RUBRIC)
        if "cut" in text:
            return Reply(text=RUBRIC, finish="length")
        return Reply(text=RUBRIC)

    kinds = ["good", "inverted", "useless", "chatty", "cut"]
    instances = [
        Instance(id=kind, candidates=item("Four words is fine.", "These are clearly more than six words.", prompt=kind))
        for kind in kinds
    ]
    outcomes = contrast(engine_of(write), pairwise(engine_of(rule_judge)), instances)
    assert [outcome.instance.id for outcome in outcomes] == kinds
    assert [outcome.dropped and outcome.dropped.split(":")[0] for outcome in outcomes] == [
        None,
        "inconsistent",
        "inconsistent",  # it cannot tell: the orders disagree, which is not right
        "invalid",
        "writer",
    ]
    assert (outcomes[0].accuracy, outcomes[0].comparisons[0].swap_gap) == (1.0, 0.0)
    assert outcomes[2].comparisons[0].swap_gap == 1.0


def test_the_writer_sees_the_better_response_first_and_both_fenced(engine_of: Any) -> None:
    seen: list[str] = []

    def write(asked: dict[str, Any]) -> Reply:
        seen.append(said_to(asked))
        assert shown(asked) == ["better", "worse"]
        return Reply(text=RUBRIC)

    contrast(engine_of(write), pairwise(engine_of(rule_judge)), [Instance(id="1", candidates=item("better", "worse"))])
    assert "The best response:" in seen[0]
    assert "The worst response:" in seen[0]


def test_lists_are_judged_in_all_pairs(engine_of: Any) -> None:
    texts = ["one two", "one two three four", "one two three four five six seven eight", "a b c d e f g h i j"]
    rubric = "1. The response has at most 6 words. [hard rule]"  # says nothing about 0-1 and 2-3
    judge = pairwise(engine_of(rule_judge))
    writer = engine_of(lambda asked: Reply(text=rubric))
    instances = [Instance(id="1", candidates=item(*texts))]
    [lenient] = contrast(writer, judge, instances)
    assert lenient.accuracy == pytest.approx(4 / 6)
    assert lenient.dropped is None
    [strict] = contrast(writer, judge, instances, config=ContrastConfig(tau=0.7))
    assert strict.dropped == "inconsistent: too few pairs are decided as the label says"
    reversed_list = [Instance(id="1", candidates=item(*texts[::-1]))]
    [wrong] = contrast(writer, judge, reversed_list, config=ContrastConfig(tau=0.0))
    assert wrong.dropped == "inconsistent: best against worst is decided against the label"


def test_what_was_dropped_is_written_anew_a_bounded_number_of_times(engine_of: Any) -> None:
    tries: Counter[str] = Counter()

    def write(asked: dict[str, Any]) -> Reply:
        if asked["max_tokens"] == 1:
            return Reply(text="probe")
        name = said_to(asked).split("\n")[2]
        tries[name] += 1
        return Reply(text=RUBRIC if name == "second" and tries[name] == 2 else "nonsense")

    pair = ("short one", "this one is clearly longer than six")
    instances = [Instance(id=name, candidates=item(*pair, prompt=name)) for name in ("second", "never")]
    judge = pairwise(engine_of(rule_judge))
    outcomes = contrast(engine_of(write), judge, instances, config=ContrastConfig(rewrites=2))
    assert [(outcome.attempts, outcome.dropped is None) for outcome in outcomes] == [(2, True), (3, False)]
    assert tries == {"second": 2, "never": 3}


def test_a_judge_that_likes_one_slot_cannot_make_rubrics_look_consistent(engine_of: Any) -> None:
    judge = pairwise(engine_of(lambda asked: Reply(text="Verdict: A")), orders="given")
    instances = [Instance(id=str(i), candidates=item(f"x{i}", f"y{i}")) for i in range(60)]
    outcomes = contrast(engine_of(lambda asked: Reply(text=RUBRIC)), judge, instances)
    assert 15 < sum(outcome.dropped is None for outcome in outcomes) < 45


def test_only_a_pairwise_judge_can_decide(engine_of: Any) -> None:
    judge = pairwise(engine_of(rule_judge), form="scale")
    with pytest.raises(ConfigError, match="decided on pairs"):
        contrast(judge.engine, judge, [])


def test_real_pairs_from_end_to_end(shared_data: Path, engine_of: Any, tmp_path: Path) -> None:
    """HH pairs: a scripted writer says what separates the lengths of a pair, or the opposite on every fourth."""
    with gzip.open(shared_data / "pairs_hh_helpful.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines][:80]
    instances = [
        Instance(
            id=row["id"],
            candidates=Candidates(
                tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"]),
                tuple(Completion((Message("assistant", row[name]),)) for name in ("chosen", "rejected")),
            ),
        )
        for row in rows
        if len(row["chosen"].split()) != len(row["rejected"].split())
    ]
    wrong: set[str] = set()

    def write(asked: dict[str, Any]) -> Reply:
        better, worse = (len(text.split()) for text in shown(asked))
        honest = (better + worse) % 4 != 0
        if not honest:
            wrong.add(shown(asked)[0])
        bound = "at most" if (better < worse) == honest else "at least"
        limit = min(better, worse) if bound == "at most" else max(better, worse)
        return Reply(text=f"1. The response has {bound} {limit} words. [hard rule]")

    judge = pairwise(engine_of(rule_judge))
    outcomes = contrast(engine_of(write), judge, instances)
    assert len(outcomes) > 60
    for outcome in outcomes:
        planted = outcome.instance.candidates.completions[0].text in wrong
        assert (outcome.dropped is not None) == planted, outcome.instance.id
    kept = [outcome for outcome in outcomes if outcome.dropped is None]
    rows_of_writer = list(writer_rows(outcomes, PromptFile(WRITER_PROMPT)))
    assert len(rows_of_writer) == len(kept)
    assert rows_of_writer[0]["completion"] == [{"role": "assistant", "content": kept[0].text}]
    under = [(outcome.instance.candidates, Context(rubric=outcome.text)) for outcome in kept]
    judged = zip((o.instance.id for o in kept), judge.judged_under(under), (o.text for o in kept), strict=True)
    rows_of_judge = list(judge_rows(judge, judged))
    assert len(rows_of_judge) == 2 * len(kept)  # both orders, all right
    assert Counter(row["verdict"] for row in balanced(rows_of_judge)[0]) == {"A": len(kept), "B": len(kept)}
    assert all(row["completion"][0]["content"].endswith(f"Verdict: {row['verdict']}") for row in rows_of_judge)
    assert kept[0].text in rows_of_judge[0]["prompt"][-1]["content"]
    assert judge.tally.report()["parse_rate"] == 1.0


# ---- rubrics at work ----


def test_a_rubric_is_written_once_and_shared_by_all_votes(engine_of: Any) -> None:
    written: Counter[str] = Counter()

    def write(asked: dict[str, Any]) -> Reply:
        written[said_to(asked)] += 1
        return Reply(text=RUBRIC if "six" in said_to(asked) else "I had rather not")

    model = RubricRewardModel(engine_of(write), pairwise(engine_of(rule_judge)))
    pairs = [item("short", "this one is clearly longer than six"), item("this one is clearly longer than six", "short")]
    other = item("a", "b", prompt="Something else.")
    first, second, third = model.compare([*pairs, other])
    assert (first.p_first, second.p_first) == (1.0, 0.0)
    assert third.unscored == "no rubric: text beside the list"
    assert sorted(written.values()) == [1, 1]
    assert model.info.fingerprint != model._judge.info.fingerprint


@pytest.mark.parametrize(("accuracy", "expected"), [(0.7, 0.837), (0.4, 0.317)])
def test_voting_helps_only_where_a_vote_is_better_than_chance(engine_of: Any, accuracy: float, expected: float) -> None:
    """Majority of five: sum of binomials, .83692 at .7 and .31744 at .4."""

    def noisy(asked: dict[str, Any]) -> Reply:
        if asked["max_tokens"] == 1:
            return Reply(text="probe")
        right = random.Random(f"{asked['seed']}{said_to(asked)}").random() < accuracy
        better_first = len(shown(asked)[0].split()) < len(shown(asked)[1].split())
        return Reply(text=f"Verdict: {'A' if right == better_first else 'B'}")

    judge = pairwise(engine_of(noisy), votes=5, temperature=0.7, orders="given")
    model = RubricRewardModel(engine_of(lambda asked: Reply(text=RUBRIC)), judge)
    answers = model.compare([item(f"short {i}", f"this one is longer {i}") for i in range(200)])
    share = sum(answer.p_first > 0.5 for answer in answers) / len(answers)
    assert share == pytest.approx(expected, abs=3 * (expected * (1 - expected) / 200) ** 0.5)


CLAUSES = (
    Criterion(criterion="The response names a river.", weight=2.0),
    Criterion(criterion="The response is polite.", weight=1.0),
    Criterion(criterion="The response has at most 6 words.", tag="hard_rule", check={"rule": "max_words", "value": 6}),
    Criterion(criterion="The response insults someone.", weight=-1.0),
)


def test_clauses_are_asked_one_by_one_and_their_order_changes_nothing(engine_of: Any) -> None:
    asked_about: list[str] = []

    def clause_judge(asked: dict[str, Any]) -> Reply:
        text, response = said_to(asked), shown(asked)[0]
        clause = next(c.criterion for c in CLAUSES if c.criterion in text)
        assert sum(c.criterion in text for c in CLAUSES) == 1  # knows of no other clause
        asked_about.append(clause)
        word = {"river": "Rhine", "polite": "please", "insults": "fool"}
        met = next(word[key] in response for key in word if key in clause)
        return Reply(text=f"Evidence.\nVerdict: {'yes' if met else 'no'}")

    judge = pairwise(engine_of(clause_judge), form="yes_no")
    candidates = item("The Rhine, please.", "Rhine, you fool", "Please take the Rhine, it is a very long river indeed")
    plain = score_clauses(judge, [(candidates, CLAUSES)])[0]
    assert [found.aggregate.value for found in plain] == pytest.approx([1.0, (2 - 1) / 3, 0.0])
    assert plain[2].aggregate.broken == (2,)
    assert plain[0].met == (1.0, 1.0, 1.0, 0.0)
    assert plain[1].passed == (True, False, True, True)
    assert len(asked_about) == 9  # the hard rule cost no call
    for order in permutations(range(4)):
        again = score_clauses(judge, [(candidates, [CLAUSES[i] for i in order])])[0]
        assert [a.aggregate.value for a in again] == [a.aggregate.value for a in plain]
        assert [tuple(a.met[order.index(i)] for i in range(4)) for a in again] == [a.met for a in plain]


def test_the_filter_benchmark_tells_good_rules_from_bad(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--seeds", "2", "--tasks", "6", "--requests", "5", "--cases", "4:0.75", "--json"]
    assert rubric_filter.main(options) == 0
    [case] = json.loads(capsys.readouterr().out)["cases"].values()
    assert case["precision_before"] == pytest.approx(0.7, abs=0.08)
    assert case["precision_gain"]["mean"] > 0.05
    assert case["accuracy_gain"]["mean"] > 0
