"""Rollouts of a scripted policy over real HTTP: what is asked, what counts for what, kills, budgets, bad replies."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("aiohttp")

from data_pipelines.converters import tree_labels
from data_pipelines.loops.rollouts import joined
from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from rmkit.errors import ConfigError, DataError
from rmkit.trees.first_error import first_error
from tests.data_pipelines.frames import apply, frame, pair
from tests.harness.kills import command, killed_at, spread

SOLUTION = ["s1", "s2", "s3", "x4", "x5", "x6", "x7", "#### 1"]  # goes wrong at its fourth step
RIGHT = [f"s{i}" for i in range(1, 8)] + ["#### 7"]


class Policy:
    """Answers `SOLUTION`; goes on rightly from a right prefix where the seed is not odd, else wrongly."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, body: dict[str, Any]) -> Reply:
        *_, last = body["messages"]
        if body["messages"][-1]["content"] in ("Hi", "Hel"):
            return Reply(text="ok")
        self.asked[json.dumps(body, sort_keys=True)] += 1
        if last["role"] == "user":
            return Reply(text="\n".join(SOLUTION))
        steps = last["content"].strip().split("\n")
        if body["seed"] == 11:
            return Reply(text="s1\nz2\n#### 3")  # begins anew
        right = steps == RIGHT[: len(steps)] and body["seed"] % 2 == 0
        rest = RIGHT[len(steps) :] if right else [f"y{i}" for i in range(len(steps), 7)] + ["#### 2"]
        return Reply(text="\n".join(rest))


@pytest.fixture
def policy() -> Policy:
    return Policy()


@pytest.fixture
def server(policy: Policy) -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint(policy) as endpoint:
        yield endpoint


def problems(n: int = 1) -> pl.DataFrame:
    rows = [pair(f"p{i}", "a", "b") | {"reference": "7"} for i in range(n)]
    return frame(rows)


def options(server: ScriptedEndpoint, **more: Any) -> dict[str, Any]:
    generator = {"model": "m", "base_url": server.base_url, "attempts": 1} | more.pop("generator", {})
    return {"generator": generator, "verifier": "exact_match", "samples": 1, "continuations": 4, "seed": 10} | more


def labels(row: dict[str, Any], rule: str) -> list[float | None]:
    [one] = tree_labels.convert(row | {"meta": None}, tree_labels.Config(rule=rule))
    return list(one.step_labels or ())


def test_every_prefix_is_continued_and_what_began_anew_is_no_sample(
    home: Path, server: ScriptedEndpoint, policy: Policy
) -> None:
    result = apply("rollouts", problems(), **options(server))
    [row] = result.kept.to_dicts()
    assert sum(policy.asked.values()) == 1 + 7 * 4
    assert result.facts["continuations"] == 28
    assert result.facts["failed"] == {"a continuation ignored its prefix": 6}  # seed 11; behind s1 it only repeats it
    # Seeds 10 and 12 are right while the prefix is, 13 wrong, 11 counts behind s1 alone, and the solution is wrong.
    # Behind s1: 2 of 4 + 1; behind s2 also the right ones of s1: 2 + 2 of 2 + 3 + 1; behind s3: 2 + 2 + 2 of 4 + 3 + 1
    assert labels(row, "mean")[:4] == pytest.approx([2 / 5, 4 / 6, 6 / 8, 0])
    assert labels(row, "any_correct") == [1, 1, 1, 0, 0, 0, 0, 0]
    assert row["ranks"] is None
    assert row["method"] == "rollouts"


def test_adaptive_rollouts_bisect_to_the_same_labels_with_fewer_calls(
    home: Path, server: ScriptedEndpoint, policy: Policy
) -> None:
    result = apply("rollouts", problems(), **options(server, adaptive=True))
    [row] = result.kept.to_dicts()
    assert labels(row, "any_correct") == [1, 1, 1, 0, 0, 0, 0, 0]
    # 4 of 8 steps are dead (4 calls), 2 alive at the first call, 3 as well
    assert sum(policy.asked.values()) == 1 + 4 + 1 + 1
    assert result.facts["continuations"] == 6


def test_a_run_again_pays_for_nothing_and_ends_with_the_same_rows(
    home: Path, server: ScriptedEndpoint, policy: Policy
) -> None:
    """A killed run has paid for some calls, in whatever order they came back."""
    with pytest.raises(DataError, match="did not pay for all calls"):
        apply("rollouts", problems(3), **options(server, max_usd=6, generator={"completion_price": 5000.0}))
    paid = sum(policy.asked.values())
    assert 0 < paid < 3 * 29
    first = apply("rollouts", problems(3), **options(server))
    again = apply("rollouts", problems(3), **options(server))
    assert max(policy.asked.values()) == 1  # nothing was paid twice
    assert sum(policy.asked.values()) == 3 * 29
    assert first.kept.equals(again.kept)
    assert again.facts["paid_calls"] == 0


def test_solutions_that_are_there_are_looked_into(home: Path, server: ScriptedEndpoint, policy: Policy) -> None:
    row = pair("p", "\n".join(SOLUTION), "b") | {"reference": "7"}
    result = apply("rollouts", frame([row]), **options(server, samples=0, adaptive=True))
    [new] = result.kept.to_dicts()
    found = list(tree_labels.convert(new | {"meta": None}, tree_labels.Config(rule="any_correct")))
    assert [1, 1, 1, 0, 0, 0, 0, 0] in [list(one.step_labels or ()) for one in found]
    # a solution that was given is no fair sample of its first steps: the mean leaves it out
    means = [list(one.step_labels or ()) for one in tree_labels.convert(new | {"meta": None}, tree_labels.Config())]
    assert next(one for one in means if len(one) == 8)[2] == 1  # one call, which came out right


def test_what_cannot_be_verified_or_answered_is_counted(home: Path) -> None:
    def broken(body: dict[str, Any]) -> Reply:
        return Reply(status=400, text="no") if body["messages"][0]["content"] == "p0" else Reply(text=" ")

    with ScriptedEndpoint(broken) as server:
        rows = [pair(f"p{i}", "a", "b") | {"reference": "7"} for i in range(2)]
        rows.append(pair("p2", "a", "b") | {"reference": None})
        result = apply("rollouts", frame(rows), **options(server))
    assert dict(result.dropped.select("reason", "evidence").iter_rows()).keys() == {
        "no sample could be verified",
        "no reference to verify against",
    }
    assert result.facts["failed"]["empty reply"] == 1


def test_leaves_that_the_verifier_cannot_judge_are_counted_and_have_no_label(
    home: Path, server: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verifier fails on all that ends in 2, as a sandbox may; what is left still labels the prefixes."""
    from rmkit.types import Score
    from rmkit.verifiers import verifier as verifiers

    class Failing:
        def score(self, items: Any) -> Any:
            return [[self._one(one.text) for one in item.completions] for item in items]

        def _one(self, text: str) -> Score:
            return Score.failed("timed out") if text.endswith("2") else Score(float(text.endswith("7")))

    monkeypatch.setattr(verifiers, "load_verifier", lambda *_, **__: Failing())
    result = apply("rollouts", problems(), **options(server))
    [row] = result.kept.to_dicts()
    assert result.facts["failed"]["unverifiable: timed out"] > 5
    rated = {one["response"] for one in row["scores"] if one["aspect"] == "correct"}
    assert 0 < len(rated) < len(row["responses"])
    assert labels(row, "any_correct")[:3] == [1, 1, 1]


@pytest.mark.parametrize(
    ("steps", "reply", "text"),
    [
        (["a\n", "b\n"], "c\nd", "a\nb\nc\nd"),
        (["a\n", "b\n"], "\n\nc", "a\nb\nc"),
        (["a\n", "b\n"], "a\nb\nc", "a\nb\nc"),  # repeats the prefix first
        (["a\n", "b\n"], "a\nz", None),  # begins anew
        (["a\n"], "", "a"),
        (["a\n", "b\n"], "b again", "a\nb\nb again"),
    ],
)
def test_a_continuation_goes_on_behind_its_prefix(steps: list[str], reply: str, text: str | None) -> None:
    assert joined(steps, reply, separator="\n") == text
    marked = [step.replace("\n", " ;") for step in steps]
    want = None if text is None else text.replace("\n", " ;")
    assert joined(marked, reply.replace("\n", " ;"), separator=" ;") == want


def bisected(n: int, known: int, right: int) -> tuple[int, int]:
    """(what the search returns, how many prefixes it tried) where `right` steps are right."""
    search, tries = first_error(n, known), 0
    try:
        middle = next(search)
        while True:
            tries += 1
            middle = search.send(middle <= right)
    except StopIteration as end:
        return end.value, tries


@pytest.mark.parametrize("known", [0, 1])
def test_bisection_finds_every_first_error(known: int) -> None:
    for n in range(1, 18):
        for right in range(known, n):
            where, tries = bisected(n, known, right)
            assert where == right
            assert tries <= max(n - known - 1, 0).bit_length()


def test_labels_are_balanced_at_each_place(home: Path) -> None:
    def row(i: int, *own: float | None) -> dict[str, Any]:
        return pair(f"p{i}", "a", "b") | {"id": f"id{i}", "kind": "steps", "step_labels": list(own)}

    rows = [row(0, 1, 1), row(1, 1, 0), row(2, 0, 0), row(3, 1, None), row(4, 1, 0)]
    result = apply("balance_steps", frame(rows))
    counts = [Counter(one[place] for one in result.kept["step_labels"].to_list()) for place in (0, 1)]
    assert [(one[1.0], one[0.0]) for one in counts] == [(1, 1), (1, 1)]
    assert result.facts["removed"] == 3 + 2
    assert re.search("no label is left", str(result.dropped["reason"].to_list()))
    backwards = apply("balance_steps", frame(rows[::-1]))
    assert sorted(backwards.kept["id"]) == sorted(result.kept["id"])


def test_settings_out_of_range_are_refused() -> None:
    from data_pipelines.steps.trees.rollouts import Config
    from rmkit.generate.config import GeneratorConfig

    generator = GeneratorConfig(model="m", base_url="http://localhost:1/v1")
    for wrong in ({"temperature": 0}, {"samples": -1}, {"separator": ""}, {"samples": 0, "continuations": 0}):
        with pytest.raises(ConfigError):
            Config(generator=generator, **wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("adaptive", "calls"), [(False, 29), (True, 7)])
def test_a_killed_run_goes_on_without_paying_twice_and_ends_with_the_same_labels(
    tmp_path: Path, adaptive: bool, calls: int
) -> None:
    """Twenty kills of the real command; only what no disk held may be asked again."""
    policy = Policy()

    def slowly(body: dict[str, Any]) -> Reply:
        time.sleep(0.01)
        return policy(body)

    n, concurrency = 12, 4
    lines = [{"prompt": f"p{i}", "responses": [{"text": "a", "score": 1}], "reference": "7"} for i in range(n)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with ScriptedEndpoint(slowly) as server:
        (tmp_path / "rollouts.toml").write_text(
            '[recipe]\nname = "rollouts"\n[[step]]\nuse = "rollouts"\nverifier = "exact_match"\nsamples = 1\n'
            f"continuations = 4\nadaptive = {str(adaptive).lower()}\nseed = 10\n"
            f'[step.generator]\nmodel = "m"\nbase_url = "{server.base_url}"\nconcurrency = {concurrency}\n'
        )

        def run(home: str) -> subprocess.Popen[bytes]:
            return command(tmp_path, home, "run", "rollouts.toml", "--data", "problems", "--out", "grown")

        def labeled(home: str) -> list[Any]:
            assert run(home).wait() == 0
            assert command(tmp_path, home, "convert", "tree_labels", "--data", "grown", "--out", "steps").wait() == 0
            assert command(tmp_path, home, "export", "steps", "-o", f"{home}-export").wait() == 0
            rows = pl.read_parquet(sorted((tmp_path / f"{home}-export").glob("*.parquet"))).to_dicts()
            return sorted((row["prompt"], row["responses"], row["step_labels"]) for row in rows)

        assert command(tmp_path, "killed", "ingest", "problems.jsonl", "--name", "problems").wait() == 0
        kills = killed_at(spread(n * calls), lambda: run("killed"), policy.asked, tmp_path / "killed")
        again = labeled("killed")
        print(f"\n{[(kill.asked, kill.unstored, kill.lost, kill.alive) for kill in kills]}")
        assert sum(kill.alive for kill in kills) >= 12
        assert max(kill.lost for kill in kills) <= 2 * concurrency  # in flight, or on the way to the disk
        assert len(policy.asked) == n * calls
        assert policy.asked.total() <= n * calls + sum(kill.unstored for kill in kills)  # none that a disk held
        assert command(tmp_path, "whole", "ingest", "problems.jsonl", "--name", "problems").wait() == 0
        policy.asked.clear()
        assert labeled("whole") == again
        assert sum(policy.asked.values()) == n * calls
