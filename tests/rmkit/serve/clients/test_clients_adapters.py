"""Adapters of trainers that are not run from their own wheels here, and what all adapters promise."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from rmkit.errors import DataError
from rmkit.serve.clients import Patience, UnavailableError, nemo_rl, verl
from rmkit.serve.clients.trl import AsyncRewardFunction, RewardFunction
from rmkit.types import Message
from tests.rmkit.serve.compat_service import TALK, TOKEN, Running, Witness, free_port, reward_service, worth

FORMS = ["bare", "path", "basic"]
HASTY = Patience(timeout_s=10, attempts=2, longest_wait_s=0.02, breaker_cooldown_s=0.01)
ASKED = TALK[0].content
USER = [{"role": "user", "content": ASKED}]


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness()


@pytest.fixture(scope="module")
def service(witness: Witness) -> Iterator[Running]:
    with reward_service(witness) as found:
        yield found


def token(form: str) -> dict[str, str]:
    return {"token": TOKEN} if form == "bare" else {}


def said(reply: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": reply}]


def talk(reply: str) -> float:
    return worth([TALK[0], Message("assistant", reply)])


@pytest.mark.parametrize("form", FORMS)
def test_trl_texts_and_conversations(service: Running, form: str) -> None:
    function = RewardFunction(service.url(form), **token(form))
    columns = {"completion_ids": [[1], [2]], "trainer_state": object(), "answer": ["a", "b"]}
    expected = [talk("Yes."), talk("No.")]
    assert function(prompts=[ASKED, ASKED], completions=["Yes.", "No."], **columns) == expected
    assert function(prompts=[USER, USER], completions=[said("Yes."), said("No.")], **columns) == expected
    assert function(prompts=[], completions=[]) == []


def test_trl_none_for_the_unscored_alone_and_the_share_as_a_metric(
    service: Running, caplog: pytest.LogCaptureFixture
) -> None:
    told: dict[str, float] = {}
    function = RewardFunction(service.url("path"), name="helpful")
    replies = ["Yes.", Witness.unscorable, "No.", "half \ud800"]
    rewards = function([USER] * 4, [said(reply) for reply in replies], log_metric=told.__setitem__)
    assert rewards == [talk("Yes."), None, talk("No."), None]
    assert told == {"helpful/unscored": 0.5}
    assert "2 of 4 completions are unscored; the first: asked not to" in caplog.text


def test_trl_sends_the_completions_of_a_prompt_as_one_group(service: Running, witness: Witness) -> None:
    witness.seen.clear()
    other = [{"role": "user", "content": "Another one?"}]
    RewardFunction(service.url("path"))([USER, USER, other, USER], [said(reply) for reply in "abcd"])
    assert sorted(len(item.completions) for item in witness.seen) == [1, 3]  # the service joins what we cannot


def test_trl_with_tool_turns_and_content_parts(service: Running) -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}
    completion = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "blue", "name": "look"},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
    ]
    kept = {"type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
    expected = worth(
        [
            TALK[0],
            Message("assistant", "", tool_calls=(kept,)),
            Message("tool", "blue", "look"),
            Message("assistant", "Yes."),
        ]
    )
    assert RewardFunction(service.url("path"))([USER], [completion]) == [expected]
    image = [{"role": "assistant", "content": [{"type": "image", "image": "x"}]}]
    assert RewardFunction(service.url("path"))([USER], [image]) == [None]


def test_trl_never_scores_a_templated_prompt_as_if_it_were_a_users_text(service: Running) -> None:
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert RewardFunction(service.url("path"))([prompt], ["Yo"]) == [None]


def test_trl_of_different_lengths_is_refused(service: Running) -> None:
    with pytest.raises(DataError, match="2 prompts and 1 completions"):
        RewardFunction(service.url("path"))([USER, USER], [said("Yes.")])


@pytest.mark.parametrize("form", FORMS)
def test_trl_async_and_pickled(service: Running, form: str) -> None:
    function = AsyncRewardFunction(service.url(form), **token(form))
    assert inspect.iscoroutinefunction(function.__call__)  # how TRL finds out, and what it calls the column
    assert not inspect.iscoroutinefunction(RewardFunction(service.url(form)).__call__)
    assert function.__name__ == "rmkit_reward"

    async def both() -> list[list[float | None]]:
        copy = pickle.loads(pickle.dumps(function))
        return list(await asyncio.gather(function([USER], [said("Yes.")]), copy([USER], [said("No.")])))

    assert asyncio.run(both()) == [[talk("Yes.")], [talk("No.")]]


def test_trl_when_the_service_is_away() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError):
        RewardFunction(url, patience=HASTY)([USER], [said("Yes.")])
    assert RewardFunction(url, patience=HASTY, on_failure="none")([USER] * 2, [said("a"), said("b")]) == [None, None]


def test_verl_says_what_is_missing(service: Running) -> None:
    asked: dict[str, Any] = {
        "url": service.url("path"),
        "data_source": "d",
        "solution_str": "Yes.",
        "ground_truth": None,
    }
    with pytest.raises(DataError, match="extra_info holds no 'prompt'"):
        verl.compute_score(**asked, extra_info={})
    with pytest.raises(DataError, match="cannot be scored"):
        verl.compute_score(**asked | {"solution_str": Witness.unscorable}, extra_info={"prompt": USER})
    made = verl.compute_score(**asked, extra_info={"prompt": USER}, reward_router_address="x", reward_model_tokenizer=1)
    expected = {"score": talk("Yes."), "rmkit_unscored": 0.0, "rmkit_truncated": 0.0, "rmkit_raw": talk("Yes.")}
    assert made == expected
    batch = {"data_sources": ["d"] * 2, "ground_truths": [None] * 2, "extra_infos": [{"question": USER}] * 2}
    rows = verl.compute_score_batch(
        **batch,
        solution_strs=["Yes.", Witness.unscorable],
        url=service.url("path"),
        prompt_key="question",
        unscored_reward=-1.0,
    )
    assert [row["score"] for row in rows] == [talk("Yes."), -1.0]
    assert [list(row) for row in rows] == [list(made)] * 2


class EnvironmentReturn(NamedTuple):
    """NeMo-RL 0.6's, field by field."""

    observations: list[dict[str, str]]
    metadata: list[Any]
    next_stop_strings: list[Any]
    rewards: Any
    terminateds: Any
    answers: list[str | None] | None = None


@pytest.fixture
def nemo(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nemo_rl", "nemo_rl.environments", "nemo_rl.environments.interfaces"):
        module = types.ModuleType(name)
        module.EnvironmentReturn = EnvironmentReturn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("nemo")
@pytest.mark.parametrize("form", FORMS)
def test_nemo_rl_environment(service: Running, form: str) -> None:
    torch = pytest.importorskip("torch")
    environment = nemo_rl.RewardServiceEnvironment({"url": service.url(form), "unscored_reward": -5.0, **token(form)})
    ids = torch.tensor([1, 2])
    logs = [
        [{**USER[0], "token_ids": ids}, {**said(reply)[0], "token_ids": ids}] for reply in ("Yes.", Witness.unscorable)
    ]
    made = environment.step(logs, [{"k": 1}, None])
    assert made.rewards.dtype == torch.float32
    assert made.rewards.tolist() == pytest.approx([talk("Yes."), -5.0], abs=1e-6)
    assert made.terminateds.tolist() == [True, True]
    assert made.answers == ["Yes.", Witness.unscorable]
    assert made.metadata == [{"k": 1}, {"rmkit_unscored": "asked not to"}]
    assert {len(field) for field in made} == {2}
    _, metrics = environment.global_post_process_and_metrics({"rewards": made.rewards})
    assert metrics["rmkit/mean_reward"] == pytest.approx((talk("Yes.") - 5) / 2)
    assert environment.global_post_process_and_metrics({})[1] == {}
    with pytest.raises(DataError, match="unscored_reward"):
        nemo_rl.RewardServiceEnvironment({"url": service.url(form), **token(form)}).step(logs, [None, None])
    environment.shutdown()


@pytest.mark.slow  # ray takes its time to import
def test_nemo_rl_finds_an_actor_by_its_name() -> None:
    pytest.importorskip("ray")
    actor = nemo_rl.RewardServiceActor
    assert callable(actor.options)  # what NeMo-RL calls on it
    with pytest.raises(AttributeError):
        _ = nemo_rl.SomethingElse
