"""The commands of search, killed at many points: nothing is paid twice, and the end is the same."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from evaluation.benchmarks.trees.planted import ScriptedPolicy, chains
from rmkit.ids import content_hash
from rmkit.training import command as train
from tests.exports import kind_rows, write_export
from tests.harness.kills import command, killed_at, spread

CONCURRENCY = 4
PROBLEMS = chains(10, length=4, errors=(0.1, 0.3), seed=3)


class Policy:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._known = {one.text: one for one in PROBLEMS}

    def __call__(self, body: dict[str, Any]) -> Reply:
        first, *rest = body["messages"]
        if (chain := self._known.get(first["content"])) is None:
            return Reply(text="ok")
        self.asked[json.dumps(body, sort_keys=True)] += 1
        time.sleep(0.01)
        begun = [line for line in rest[-1]["content"].split("\n") if line] if rest else []
        draw = random.Random(content_hash(json.dumps([body["messages"], body["seed"]])))
        text = "\n".join(ScriptedPolicy.going_on(chain, begun, draw))
        return Reply(text=text.split("\n")[0] if body.get("stop") else text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--method", "beam", "--budget", "4", "-o"),
        ("run", "--method", "puct", "--budget", "4", "-o"),
        ("study", "--budgets", "1,4", "--searches", "beam,uct", "--bin-samples", "4", "-o"),
    ],
)
def test_a_killed_search_goes_on_without_paying_twice_and_ends_with_the_same_answers(
    home: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Twenty kills of the real command; only what no disk held may be asked again."""
    policy = Policy()
    lines = [{"prompt": one.text, "reference": str(one.answer)} for one in PROBLEMS]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = write_export(tmp_path / "data", kind_rows(200))
    train.train("lexical", str(data), output=tmp_path / "lexical", values={"hash_bits": 10})
    with ScriptedEndpoint(policy) as server:
        (tmp_path / "policy.toml").write_text(
            f'[generator]\nmodel = "m"\nbase_url = "{server.base_url}"\nconcurrency = {CONCURRENCY}\n'
        )
        shared = ("--model", "lexical", "--generator", "policy.toml", "--prompts", "problems.jsonl", "--seed", "1")

        def search(home: str) -> Any:
            return command(tmp_path, home, "search", *arguments, home + "-out", *shared)

        def result(home: str) -> dict[str, bytes]:
            at = tmp_path / f"{home}-out"
            files = sorted(at.glob("*.json*")) if at.is_dir() else [at]
            assert files
            return {path.name.replace(home, ""): path.read_bytes() for path in files}

        assert search("whole").wait() == 0
        paid = sum(policy.asked.values())
        assert paid == len(policy.asked)
        whole = result("whole")
        policy.asked.clear()
        kills = killed_at(spread(paid), lambda: search("killed"), policy.asked, tmp_path / "killed")
        assert search("killed").wait() == 0
        print(f"\n{[(kill.asked, kill.unstored, kill.lost, kill.alive) for kill in kills]} of {paid}")
        assert sum(kill.alive for kill in kills) >= 12
        assert max(kill.lost for kill in kills) <= 2 * CONCURRENCY  # in flight, or on the way to the disk
        assert len(policy.asked) == paid
        assert policy.asked.total() <= paid + sum(kill.unstored for kill in kills)  # none that a disk held
        assert result("killed") == whole
