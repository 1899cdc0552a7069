"""A gold answer reaches the reward through every adapter: "72" and "99" differ and equal a mix worked out by hand.

The service's model gives a completion its length / 10; the signal is 2 * exact_match + model. "#### 72." has 8
characters: 2.8 where the gold answer is 72, 0.8 where it is 99. A gold answer that is missing (or, for `answer`, cannot
be read) gives no reward, in the form that each trainer reads as missing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from rmkit.errors import DataError
from rmkit.serve.clients import SignalClient, nemo_rl, openrlhf, verifiers, verl
from rmkit.serve.clients.ms_swift import SwiftReward
from rmkit.serve.clients.trl import AsyncRewardFunction, RewardFunction
from rmkit.serve.http.app import create_app
from rmkit.serve.settings import ServeSettings
from rmkit.signal import Signal
from rmkit.types import Score
from tests.rmkit.serve.compat_service import Running, running
from tests.rmkit.serve.serving import Steered

QUESTION = "What is 8 * 9?"
PROMPT = [{"role": "user", "content": QUESTION}]
REPLY = "#### 72."
RIGHT, WRONG = 2.8, 0.8
GOLD = [("72", RIGHT), ("99", WRONG), (72, RIGHT), (None, None)]
MIX = {"exact_match": 2, "reward": 1}


class Tenth(Steered):
    def _score(self, completion: Any) -> Score:
        return Score(len(completion.text) / 10)


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    signals = {
        "math": Signal.of({"mix": MIX, "columns": {"reference": "answer"}}, name="math"),
        "gym": Signal.of({"mix": MIX, "columns": {"reference": "verifier_metadata.answer"}}, name="gym"),
        "shaped": Signal.of({"mix": MIX, "chain": ["center"], "columns": {"reference": "answer"}}, name="shaped"),
        "verl": Signal.of({"mix": MIX}, name="verl"),
    }
    app = create_app({"tenth": Tenth()}, ServeSettings(policy_template="plain"), signals=signals)
    with running(app) as found:
        yield found


@pytest.fixture(autouse=True)
def address(service: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RMKIT_REWARD_URL", service.url())
    monkeypatch.setenv("RMKIT_REWARD_SIGNAL", "math")
    for cached in (openrlhf._service, verifiers._client):
        cached.cache_clear()
    yield
    for cached in (openrlhf._service, verifiers._client):
        cached.cache_clear()


def close(first: float | None, second: float | None) -> bool:
    return first is second if first is None or second is None else first == pytest.approx(second, abs=1e-6)


@pytest.mark.parametrize(("gold", "expected"), GOLD)
def test_trl(service: Running, gold: Any, expected: float | None) -> None:
    columns = {"answer": [gold, "99"], "completion_ids": [[1, 2], [3]], "trainer_state": SimpleNamespace(global_step=3)}
    completions = [[{"role": "assistant", "content": REPLY}]] * 2
    first, second = RewardFunction(service.url(), signal="math")([PROMPT, PROMPT], completions, **columns)
    assert (close(first, expected), close(second, WRONG)) == (True, True)
    own = {"mix": MIX, "columns": {"reference": "answer"}}  # said by the trainer instead of the service
    assert close(RewardFunction(service.url(), signal=own)([PROMPT], [REPLY], answer=[gold])[0], expected)
    again = asyncio.run(AsyncRewardFunction(service.url(), signal="math")([PROMPT], [REPLY], answer=[gold]))
    assert close(again[0], expected)


def test_trl_groups_are_shaped_and_the_components_are_metrics(service: Running) -> None:
    """2.8, 0.2 and a group of its own: centered to 1.3, -1.3 and 0."""
    told: dict[str, float] = {}
    function = RewardFunction(service.url(), signal="shaped", group="id", name="r")
    got = function(
        [PROMPT, PROMPT, PROMPT],
        [REPLY, "99", REPLY],
        answer=["72"] * 3,
        id=["a", "a", "b"],
        log_metric=told.__setitem__,
    )
    assert got == pytest.approx([1.3, -1.3, 0])
    assert told == {"r/unscored": 0, "r/exact_match": pytest.approx(2 / 3), "r/reward": pytest.approx(0.6)}
    assert [one.raw for one in function.last] == pytest.approx([2.8, 0.2, 2.8])


def test_two_processes_of_trl_share_a_group(service: Running) -> None:
    """Each sends half of the group; coroutines wait for each other."""
    function = AsyncRewardFunction(service.url(), signal="shaped", group="id", group_size=4)

    async def both() -> list[Any]:
        halves = [([REPLY, "99"], ["72"] * 2), (["72!", "no"], ["72"] * 2)]
        return await asyncio.gather(
            *(function([PROMPT] * 2, texts, answer=gold, id=["g"] * 2) for texts, gold in halves)
        )

    rewards = [2.8, 0.2, 2.3, 0.2]
    mean = sum(rewards) / 4
    first, second = asyncio.run(both())
    assert [*first, *second] == pytest.approx([one - mean for one in rewards])


@pytest.mark.parametrize(("gold", "expected"), GOLD)
def test_ms_swift(service: Running, gold: Any, expected: float | None) -> None:
    function = SwiftReward(url=service.url(), signal="math")
    rows = {"messages": [[*PROMPT, {"role": "assistant", "content": REPLY}]], "prompt_id": ["p"], "answer": [gold]}
    call = function([REPLY], **rows, response_token_ids=[[[1, 2], [3]]])
    if expected is None:
        with pytest.raises(DataError, match="no reference answer"):  # None would be 0 there
            asyncio.run(call)
        other = SwiftReward(url=service.url(), signal="math", unscored_reward=-3.0)
        assert asyncio.run(other([REPLY], **rows)) == [-3]
    else:
        assert close(asyncio.run(call)[0], expected)


@pytest.mark.parametrize(("gold", "expected"), GOLD)
@pytest.mark.parametrize("name", ["compute_score", "compute_score_async", "compute_score_batch"])
def test_verl_functions(service: Running, name: str, gold: Any, expected: float | None) -> None:
    options: dict[str, Any] = {"url": service.url(), "signal": {"mix": MIX}}

    def run(**more: Any) -> dict[str, float]:
        if name == "compute_score_batch":
            return verl.compute_score_batch(["d"], [REPLY], [gold], [{"prompt": PROMPT}], **options, **more)[0]
        answer = getattr(verl, name)("d", REPLY, gold, {"prompt": PROMPT}, **options, **more)
        return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer  # type: ignore[no-any-return]

    if expected is None:
        with pytest.raises(DataError, match="no reference answer"):
            run()
        assert run(unscored_reward=-3.0) == {
            "score": -3, "rmkit_unscored": 1, "rmkit_truncated": 0, "rmkit_raw": -3,
        }  # fmt: skip
    else:
        assert close(run()["score"], expected)


@pytest.mark.parametrize(("gold", "expected"), GOLD)
@pytest.mark.parametrize("form", ["plain", "mapping", "json"])
def test_openrlhf_labels(service: Running, form: str, gold: Any, expected: float | None) -> None:
    label = gold if form == "plain" else {"reference": gold, "components": {"tests": 1}}
    if form == "json":
        label = json.dumps(label)
    body = {"query": [QUESTION + REPLY], "prompts": [QUESTION], "labels": [label]}
    answer = httpx.post(service.url() + "/openrlhf?mix=exact_match:2,reward:1", json=body)
    if expected is None:
        assert answer.status_code == 422
        assert "no reference answer" in answer.json()["error"]
    else:
        assert close(answer.json()["rewards"][0], expected)


def test_openrlhf_file_and_what_the_filter_sees(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMKIT_REWARD_SIGNAL", "shaped")
    labels = [{"answer": "72", "prompt_id": "p"}] * 2
    answer = openrlhf.reward_func([QUESTION + REPLY, QUESTION + "99"], [QUESTION] * 2, labels)
    assert answer["rewards"] == pytest.approx([1.3, -1.3])
    assert answer["scores"] == pytest.approx([2.8, 0.2])


@pytest.mark.parametrize(("gold", "expected"), GOLD)
def test_slime(service: Running, gold: Any, expected: float | None) -> None:
    for prompt in (QUESTION, PROMPT):
        body = {"prompt": prompt, "response": REPLY, "label": {"reference": gold}}
        answer = httpx.post(service.url() + "/slime?mix=exact_match:2,reward:1", json=body)
        if expected is None:
            assert answer.status_code == 422
        else:
            assert close(answer.json()["reward"], expected)
            assert answer.json()["components"] == {"exact_match": round(expected - 0.8) / 2, "reward": 0.8}


@pytest.mark.parametrize(("gold", "expected"), GOLD)
def test_nemo_gym_components_sum_to_the_reward(service: Running, gold: Any, expected: float | None) -> None:
    body = {
        "responses_create_params": {"input": QUESTION},
        "response": {"output": [{"type": "message", "role": "assistant", "content": REPLY}]},
        "verifier_metadata": {"answer": gold},
    }
    answer = httpx.post(service.url() + "/nemo-gym/verify?signal=gym", json=body).json()
    if expected is None:
        assert (answer["reward"], answer["mask_sample"]) == (0, True)
        assert "no reference answer" in answer["_ng_failure_judge_error"]
    else:
        assert close(answer["reward"], expected)
        assert sum(answer["reward_components"].values()) == pytest.approx(answer["reward"])
        assert answer["reward_components"]["exact_match"] == pytest.approx(expected - 0.8)
    shaped = httpx.post(service.url() + "/nemo-gym/verify?signal=shaped", json={**body, "answer": "72"}).json()
    assert "reward_components" not in shaped  # a centered reward is no sum of them


@pytest.mark.parametrize(("gold", "expected"), GOLD)
def test_nemo_rl(service: Running, gold: Any, expected: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    import sys
    import types

    for name in ("nemo_rl", "nemo_rl.environments", "nemo_rl.environments.interfaces"):
        module = types.ModuleType(name)
        module.EnvironmentReturn = lambda **fields: SimpleNamespace(**fields)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    environment = nemo_rl.RewardServiceEnvironment({"url": service.url(), "signal": "math"})
    logs = [[*PROMPT, {"role": "assistant", "content": REPLY}]]
    if expected is None:
        with pytest.raises(DataError, match="no reference answer"):
            environment.step(logs, [{"answer": gold}])
    else:
        assert close(environment.step(logs, [{"answer": gold}]).rewards.tolist()[0], expected)


@pytest.mark.parametrize(("gold", "expected"), GOLD)
def test_verifiers_plug_function(gold: Any, expected: float | None) -> None:
    noted: dict[str, float] = {}
    trace = SimpleNamespace(messages=[*PROMPT, {"role": "assistant", "content": REPLY}], record_metrics=noted.update)
    call = verifiers.shaped(SimpleNamespace(answer=gold, prompt=QUESTION), trace)
    if expected is None:
        with pytest.raises(DataError, match="no reference answer"):
            asyncio.run(call)
    else:
        assert close(asyncio.run(call), expected)
        assert noted == {"rmkit_exact_match": round(expected - 0.8) / 2, "rmkit_reward": 0.8}


def test_groups_that_cannot_fill_say_so(service: Running) -> None:
    body = {
        "items": [
            {"prompt": QUESTION, "completions": [REPLY], "row": {"answer": "72"}, "group_id": "g", "group_size": 3}
        ],
        "signal": "shaped",
        "timeout_s": 0.2,
    }
    [[score]] = httpx.post(service.url() + "/rmkit/v1/score", json=body).json()["scores"]
    assert (score["reward"], score["raw"]) == (None, pytest.approx(2.8))
    assert score["unscored"] == "only 1 of the group's 3 completions came before the deadline"


def test_many_groups_of_coroutines_fill(service: Running) -> None:
    """Six groups of four whose samples come one by one, in any order."""
    from rmkit.serve.clients import Sample

    client = SignalClient(service.url(), signal="shaped", group_size=4)

    async def one(group: int, place: int) -> float | None:
        sample = Sample(
            prompt=PROMPT, completion="x" * (10 * place + group + 1), row={"answer": "72"}, group=f"g{group}"
        )
        return (await client.rewards_async([sample], step=group))[0].reward

    async def all_of() -> list[float | None]:
        return await asyncio.gather(*(one(group, place) for place in range(4) for group in range(6)))

    rewards = asyncio.run(all_of())
    assert rewards == pytest.approx([place - 1.5 for place in range(4) for _ in range(6)])
