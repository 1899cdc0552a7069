"""The prompt book over HTTP, on the command line and in TRL's hands: real service, real ledger."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from rmkit.cli.main import main as cli
from rmkit.curriculum.book import PromptBook
from rmkit.curriculum.observation import Observation
from rmkit.errors import DataError
from rmkit.ledger import open_ledger
from rmkit.serve.clients.prompts import ObservedRewards, PromptClient, proposed_dataset, proposed_rows
from rmkit.serve.http.app import create_app
from tests.rmkit.serve.serving import Steered, client_of

OBSERVE, PROPOSE = "/rmkit/v1/prompts/observe", "/rmkit/v1/prompts/propose"


def post(app: Any, *requests: tuple[str, dict[str, Any]]) -> list[tuple[int, Any]]:
    async def within() -> list[tuple[int, Any]]:
        async with client_of(app) as client:
            answers = [await client.post(path, json=body) for path, body in requests]
            return [(answer.status_code, answer.json()) for answer in answers]

    return asyncio.run(within())


def test_observe_and_propose(tmp_path: Path) -> None:
    seen = {
        "observations": [
            {"prompt": "easy", "rewards": [1] * 30 + [None]},
            {"prompt": "half", "rewards": [1, 0] * 15},
        ],
        "request_id": "r1",
    }
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        app = create_app({"steered": Steered()}, ledger=ledger)
        answers = post(
            app,
            (OBSERVE, seen),
            (OBSERVE, seen),
            (OBSERVE, {**seen, "observations": seen["observations"][:1]}),
            (PROPOSE, {"n": 1, "among": ["easy", "half"], "seed": 1}),
            (PROPOSE, {"n": 5, "skip": ["all_pass"]}),
            (PROPOSE, {"n": 1, "utility": "best"}),
            (OBSERVE, {"observations": [{"prompt": "p", "reward": [1]}]}),
        )
        assert [status for status, _ in answers] == [200, 200, 409, 200, 200, 422, 422]
        assert [answers[0][1]["stored"], answers[1][1]["stored"]] == [True, False]
        assert answers[3][1]["proposals"] == [
            {
                "prompt": "half", "pass_rate": 0.5, "n": 30, "category": None, "bucket": "medium",
                "flags": ["plateau"], "tier": 0, "hint": None,
            }
        ]  # fmt: skip
        assert [one["prompt"] for one in answers[4][1]["proposals"]] == ["half"]
        easy = PromptBook(ledger).record("easy")  # what the service kept when it went down
        assert (easy.belief, easy.unscored) == ((31, 1), 1)


def test_a_service_without_a_ledger_says_so() -> None:
    ((status, answer),) = post(create_app({"steered": Steered()}), (PROPOSE, {"n": 1}))
    assert status == 400
    assert "keeps no ledger" in answer["error"]


class Direct(PromptClient):
    """A client that asks a book in this process; `broken` loses the answers of that many requests."""

    def __init__(self, book: PromptBook, broken: int = 0) -> None:
        self.book, self._target, self.broken = book.name, book, broken

    def observe(self, observations: Any, *, request_id: str | None = None) -> bool:
        from rmkit.curriculum.observation import observation_of
        from rmkit.serve.clients.service_http import UnavailableError

        stored = self._target.observe([observation_of(one) for one in observations], request_id=request_id or "")
        if self.broken:
            self.broken -= 1
            raise UnavailableError("the answer was lost")
        return stored

    def propose(self, n: int, **options: Any) -> list[dict[str, Any]]:
        return [{"prompt": one.prompt} for one in self._target.propose(n, **options)]


def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
    return [None if one == "?" else float(len(one) > 1) for one in completions]


def test_a_reward_function_tells_the_book_once_though_an_answer_is_lost(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        book = PromptBook(ledger)
        observed = ObservedRewards(reward, Direct(book, broken=1), prompt="prompt_id", category="topic")
        rewards = observed(
            ["a"] * 3 + ["b"] * 3,
            ["xx", "x", "?", "x", "x", "yy"],
            prompt_id=[7, 7, 7, 8, 8, 8],
            topic=["s", "s", "s", "t", "t", "t"],
        )
        assert rewards == [1, 0, None, 0, 0, 1]
        observed.flush()
        observed.flush()
        observed.flush()
        book.refresh()
        assert (book.record("7").belief, book.record("7").unscored) == ((2, 2), 1)
        assert book.record("8").belief == (2, 3)
        assert set(book.arms()) == {"s", "t"}
        with pytest.raises(DataError, match="no column 'prompt_id'"):
            observed(["a"], ["x"])


def test_the_stream_holds_what_the_book_proposes(tmp_path: Path) -> None:
    rows = [{"prompt_id": f"p{i}", "prompt": f"question {i}"} for i in range(6)]
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        book = PromptBook(ledger)
        stream = proposed_rows(rows, Direct(book), per_step=3)
        assert len({next(stream)["prompt"] for _ in range(3)}) == 3
        book.observe([Observation(prompt=f"p{i}", rewards=(1,) * 400 if i != 4 else (0, 1) * 200) for i in range(6)])
        assert next(stream) == {"prompt_id": "p4", "prompt": "question 4"}
    with pytest.raises(DataError, match="1 ids for 2 rows"):
        next(proposed_rows([rows[0], rows[0]], Direct(book), per_step=1))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path))

    def run(*argv: str) -> str:
        assert cli(["prompts", *argv]) == 0
        return capsys.readouterr().out

    assert cli(["prompts", "show"]) == 2
    assert "there is no prompt book 'default' yet" in capsys.readouterr().err
    run("new", "run", "--set", "threshold=0.5")
    with open_ledger() as ledger:
        PromptBook(ledger, "run").observe(
            [
                Observation(prompt="hard one", rewards=(0.4,) * 9, category="algebra"),
                Observation(prompt="half", rewards=(0.5, 0) * 6, category="algebra"),
            ]
        )
    before = (tmp_path / "ledger.sqlite").read_bytes()
    shown = json.loads(run("show", "--book", "run", "--json"))
    assert shown["counts"] == {"prompts": 2, "tried": 2, "all_fail": 1, "all_pass": 0, "plateau": 0}
    assert [(one["prompt"], one["pass_rate"]) for one in shown["prompts"]] == [
        ("hard one", pytest.approx(1 / 11)),
        ("half", 0.5),
    ]
    assert "hard one  algebra" in run("show", "--book", "run")
    rows = [json.loads(line) for line in run("export", "--book", "run").splitlines()]
    assert [row["n"] for row in rows] == [12, 9]
    assert run("propose", "--book", "run", "-n", "1", "--skip", "all_fail").strip() == "half"
    assert (tmp_path / "ledger.sqlite").read_bytes() == before
    (tmp_path / "hints.jsonl").write_text('{"prompt": "hard one", "hints": ["square both sides"]}\n')
    run("hints", str(tmp_path / "hints.jsonl"), "--book", "run")
    proposals = json.loads(run("propose", "--book", "run", "--json"))["proposals"]
    assert {one["prompt"]: one["hint"] for one in proposals} == {"hard one": "square both sides", "half": None}
    (tmp_path / "hints.jsonl").write_text('{"prompt": "hard one"}\n')
    assert cli(["prompts", "hints", str(tmp_path / "hints.jsonl")]) == 2
    assert "line 1: expected" in capsys.readouterr().err


@pytest.mark.slow
def test_trl_trains_on_proposed_prompts(tmp_path: Path) -> None:
    """A real GRPO run of a tiny policy: stream and callback against a real service, every rollout counted once."""
    pytest.importorskip("trl")
    from trl import GRPOConfig, GRPOTrainer

    from tests.rmkit.curriculum.tiny_service import serving, tiny_policy, tiny_tokenizer

    tokenizer = tiny_tokenizer(tmp_path)
    policy = tiny_policy(tokenizer)
    rows = [{"prompt_id": f"p{i}", "prompt": f"question {i}"} for i in range(12)]
    with open_ledger(tmp_path / "ledger.sqlite") as ledger, serving(create_app({"s": Steered()}, ledger=ledger)) as url:
        client = PromptClient(url)

        def even(prompts: Any, completions: Any, **_: Any) -> list[float | None]:
            return [float(len(one) % 2 == 0) for one in completions]

        observed = ObservedRewards(even, client, prompt="prompt_id")
        trainer = GRPOTrainer(
            policy,
            reward_funcs=observed,
            args=GRPOConfig(
                output_dir=str(tmp_path / "run"), max_steps=3, per_device_train_batch_size=4, num_generations=4,
                gradient_accumulation_steps=2, max_completion_length=4, use_cpu=True, report_to=[], save_strategy="no",
                accelerator_config={"dispatch_batches": False}, logging_steps=1,
            ),
            train_dataset=proposed_dataset(rows, client, per_step=2),
            processing_class=tokenizer,
            callbacks=[observed.callback()],
        )  # fmt: skip
        trainer.train()
        book = PromptBook(ledger)
        book.refresh()
        records = book.prompts()
    assert len(records) == 12
    assert sum(one.n for one in records.values()) == 3 * 8
