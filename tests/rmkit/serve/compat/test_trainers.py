"""The trainers' own client code, run from their wheels against the running service: right answers, no others."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("aiohttp")
pytest.importorskip("torch")

import torch

from rmkit.serve.clients import openrlhf, verl
from rmkit.types import Message
from tests.rmkit.serve.compat_service import (
    PROMPT,
    REPLY,
    TALK,
    TOKEN,
    Running,
    Witness,
    reward_service,
    running,
    worth,
)
from tests.rmkit.serve.trainer_wheels import imported_from, wheel

Make = Callable[..., Any]
CLIENTS = Path(verl.__file__).parent


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with reward_service(Witness("policy/reward-model")) as found:
        yield found


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer: Make, chatml: str) -> Any:
    return make_tokenizer(chatml)


# OpenRLHF 0.11.2


class Engine:
    """What OpenRLHF asks for a reply."""

    def __init__(self, tokenizer: Any, reply: str) -> None:
        self.ids = tokenizer(reply, add_special_tokens=False)["input_ids"]

    async def generate(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=self.ids, finish_reason="stop", logprobs=None)])


@pytest.fixture(scope="module")
def executor() -> Iterator[Callable[..., Any]]:
    """`execute(urls, tokenizer, reply, ...)`: OpenRLHF's single-turn executor, from prompt to reward."""
    with imported_from(wheel("openrlhf", "0.11.2"), ["openrlhf", "openrlhf.utils"]):
        agent = importlib.import_module("openrlhf.utils.agent")

        def execute(
            urls: Any, tokenizer: Any, reply: str, *, prompt: str = PROMPT, max_length: int = 4096, label: Any = "label"
        ) -> Any:
            made = agent.SingleTurnAgentExecutor(urls)
            sampling = SimpleNamespace(max_tokens=64, logprobs=None)
            call = made.execute(prompt, label, sampling, max_length, tokenizer, Engine(tokenizer, reply))
            return asyncio.run(call)

        # between its five attempts it sleeps a second: not here
        agent.asyncio = SimpleNamespace(**{**vars(asyncio), "sleep": _no_sleep})
        execute.executor = agent.SingleTurnAgentExecutor  # type: ignore[attr-defined]
        yield execute


@pytest.mark.parametrize("label", [REPLY, {"reference": REPLY, "prompt_id": "p"}, "another answer"])
def test_openrlhfs_label_is_the_gold_answer(service: Running, executor: Make, tokenizer: Any, label: Any) -> None:
    url = service.url("path") + "/openrlhf?mix=exact_match:2,reward:.5"
    out = executor(url, tokenizer, REPLY + "<|im_end|>", label=label)
    right = 0 if label == "another answer" else 2
    assert out["reward"] == out["scores"] == [pytest.approx(right + worth(TALK) / 2)]


@pytest.mark.parametrize("form", ["path", "basic"])
@pytest.mark.parametrize("end", ["/openrlhf", "/openrlhf/get_reward"])
def test_openrlhf_gets_the_reward_of_the_reply(
    service: Running, executor: Make, tokenizer: Any, form: str, end: str
) -> None:
    out = executor(service.url(form) + end, tokenizer, REPLY + "<|im_end|>")
    assert out["reward"] == out["scores"] == [worth(TALK)]
    assert out["extra_logs"] == {"rmkit_unscored": [0.0], "rmkit_prompt_cut": [0.0]}


def test_openrlhf_with_several_urls_and_a_prompt_cut_by_the_trainer(
    service: Running, executor: Make, tokenizer: Any
) -> None:
    urls = [service.url("path") + "/openrlhf"] * 3
    assert executor(urls, tokenizer, REPLY)["reward"] == [worth(TALK)]
    long = "<|im_start|>user\n" + "far " * 400 + "near?<|im_end|>\n<|im_start|>assistant\n"
    out = executor(urls, tokenizer, REPLY, prompt=long, max_length=264)  # the executor drops the prompt's beginning
    assert out["reward"] == [worth([Message("user", "far " * 400 + "near?"), Message("assistant", REPLY)])]
    assert out["extra_logs"]["rmkit_prompt_cut"] == [1.0]


def test_openrlhf_itself_never_gets_a_reward_for_what_cannot_be_scored(
    service: Running, executor: Make, tokenizer: Any
) -> None:
    url = service.url("path") + "/openrlhf"
    for reply in (Witness.unscorable, "Good.<|im_end|>\n<|im_start|>user\nGreat!"):
        assert executor(url, tokenizer, reply)["reward"] is None
    assert executor(service.url() + "/openrlhf", tokenizer, REPLY)["reward"] is None  # no token


async def _no_sleep(_: float) -> None: ...


def test_openrlhf_tries_again_after_a_500(service: Running, executor: Make, tokenizer: Any) -> None:
    failures = [500, 500, 500, 500]

    async def shaky(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":  # the service behind goes on when this one ends
            return
        if failures:
            await send({"type": "http.response.start", "status": failures.pop(), "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await service.app(scope, receive, send)

    with running(shaky) as found:
        assert executor(found.url("path") + "/openrlhf", tokenizer, REPLY)["reward"] == [worth(TALK)]
    assert not failures


def test_openrlhf_runs_the_reward_function_file(
    service: Running, executor: Make, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMKIT_REWARD_URL", service.url("basic"))
    openrlhf._service.cache_clear()
    out = executor(str(CLIENTS / "openrlhf.py"), tokenizer, REPLY + "<|im_end|>")
    assert out["reward"] == [worth(TALK)]


def test_openrlhfs_batches(service: Running, executor: Make) -> None:
    fetch = executor.executor(service.url("path") + "/openrlhf")._fetch_rewards_via_http
    replies = ["a", "b"]
    got = asyncio.run(fetch([PROMPT + reply for reply in replies], [PROMPT] * 2, [None, {"x": 1}]))
    assert got[0]["rewards"] == [worth([TALK[0], Message("assistant", reply)]) for reply in replies]


# verl 0.9.1


class Row:
    def __init__(self, tokenizer: Any, reply: str, **columns: Any) -> None:
        ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
        self.batch = {
            "responses": torch.tensor([*ids, 0, 0]),
            "attention_mask": torch.tensor([1, 1] + [1] * len(ids) + [0, 0]),
        }
        self.non_tensor_batch = {"raw_prompt": [{"role": "user", "content": TALK[0].content}], **columns}


class Rows:
    """As much of verl's DataProto as reward workers touch."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        names = self.rows[0].non_tensor_batch
        self.non_tensor_batch = {n: np.array([r.non_tensor_batch[n] for r in self.rows], dtype=object) for n in names}
        longest = max(len(row.batch["responses"]) for row in self.rows)
        pad = torch.nn.functional.pad
        responses = [row.batch["responses"] for row in self.rows]
        masks = [row.batch["attention_mask"] for row in self.rows]
        self.batch = {
            "prompts": torch.zeros(len(self.rows), 2, dtype=torch.long),
            "responses": torch.stack([pad(one, (0, longest - len(one))) for one in responses]),
            "attention_mask": torch.stack([pad(one, (0, longest + 2 - len(one))) for one in masks]),
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Any:
        return Rows(self.rows[at]) if isinstance(at, slice) else self.rows[at]


@pytest.fixture(scope="module")
def verl_code() -> Iterator[SimpleNamespace]:
    packages = ["verl", "verl.experimental", "verl.experimental.reward_loop", "verl.trainer", "verl.trainer.ppo"]
    packages += ["verl.utils", "verl.workers"]
    empty = ["ray", "omegaconf", "tensordict", "verl.protocol", "verl.single_controller", "verl.utils.fs"]
    empty += ["verl.experimental.reward_loop.reward_model", "verl.utils.tokenizer"]
    with imported_from(wheel("verl", "0.9.1"), packages, empty=empty, DataProto=Rows):
        import sys

        sys.modules["verl.utils"].hf_tokenizer = None  # type: ignore[attr-defined]
        yield SimpleNamespace(
            loop=importlib.import_module("verl.experimental.reward_loop.reward_loop"),
            naive=importlib.import_module("verl.experimental.reward_loop.reward_manager.naive"),
            batch=importlib.import_module("verl.workers.reward_manager.batch"),
            reward=importlib.import_module("verl.trainer.ppo.reward"),
        )


def worker(code: SimpleNamespace, address: str, engine: str, tokenizer: Any, model: str) -> Any:
    made = object.__new__(code.loop.RewardLoopWorker)
    made.reward_router_address, made.input_tokenizer, made.reward_model_tokenizer = address, tokenizer, tokenizer
    rollout = SimpleNamespace(name=engine)
    reward_model = SimpleNamespace(enable=True, model_path=model, rollout=rollout)
    custom = SimpleNamespace(path=None)
    made.config = SimpleNamespace(reward=SimpleNamespace(custom_reward_function=custom, reward_model=reward_model))
    return made


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_verls_discriminative_worker_gets_the_raw_logit(
    service: Running, verl_code: SimpleNamespace, tokenizer: Any, engine: str
) -> None:
    """Its address is a host and port; a path behind it, with token and dialect, is left as it is."""
    address = f"127.0.0.1:{service.port}/t/{TOKEN}/{engine}"
    asker = worker(verl_code, address, engine, tokenizer, "policy/reward-model")
    data = Rows([Row(tokenizer, REPLY + "<|im_end|>"), Row(tokenizer, "No.")])
    got = asyncio.run(asker.compute_score_batch(data))
    assert got == [
        {"reward_score": worth(TALK)},
        {"reward_score": worth([TALK[0], Message("assistant", "No.")])},
    ]


def test_verls_worker_at_the_root_with_a_bos_it_strips(verl_code: SimpleNamespace, make_tokenizer: Make) -> None:
    llama = make_tokenizer(
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ m['content'] | trim }}<|eot_id|>{% endfor %}",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
    )
    with reward_service(Witness("rm"), compat="vllm", locked=False) as open_service:
        asker = worker(verl_code, f"127.0.0.1:{open_service.port}", "vllm", llama, "rm")
        got = asyncio.run(asker.compute_score(Rows([Row(llama, REPLY + "<|eot_id|>")])))
    assert got == {"reward_score": worth(TALK)}


def test_verls_worker_stops_at_once_where_the_service_refuses(
    service: Running, verl_code: SimpleNamespace, tokenizer: Any
) -> None:
    aiohttp = importlib.import_module("aiohttp")
    asker = worker(verl_code, f"127.0.0.1:{service.port}/vllm", "vllm", tokenizer, "policy/reward-model")
    with pytest.raises(aiohttp.ClientResponseError, match="401"):
        asyncio.run(asker.compute_score(Rows([Row(tokenizer, REPLY)])))
    asker = worker(verl_code, f"127.0.0.1:{service.port}/t/{TOKEN}/vllm", "vllm", tokenizer, "policy/reward-model")
    with pytest.raises(aiohttp.ClientResponseError, match="422"):
        asyncio.run(asker.compute_score(Rows([Row(tokenizer, Witness.unscorable)])))


def columns(prompt: Any) -> dict[str, Any]:
    return {
        "data_source": "d",
        "reward_model": {"ground_truth": "g"},
        "extra_info": {"prompt": prompt},
        "__num_turns__": 2,
        "reward_scores": {},
    }


@pytest.mark.parametrize("name", ["compute_score", "compute_score_async"])
@pytest.mark.parametrize("form", ["bare", "path", "basic"])
def test_verls_naive_manager_calls_the_reward_function(
    service: Running, verl_code: SimpleNamespace, tokenizer: Any, name: str, form: str
) -> None:
    """Loaded by path and with its keywords, as verl's config says."""
    options = {"url": service.url(form), "unscored_reward": -7.5} | ({"token": TOKEN} if form == "bare" else {})
    custom = {"path": str(CLIENTS / "verl.py"), "name": name, "reward_kwargs": options}
    function = verl_code.reward.get_custom_reward_fn(SimpleNamespace(reward={"custom_reward_function": custom}))
    manager = object.__new__(verl_code.naive.NaiveRewardManager)
    manager.tokenizer, manager.compute_score = tokenizer, function
    manager.is_async_reward_score = name.endswith("async")
    manager.reward_router_address = manager.reward_model_tokenizer = None

    async def run() -> list[dict[str, Any]]:
        manager.loop = asyncio.get_running_loop()
        prompts = [TALK[0].content, np.array([{"role": "user", "content": TALK[0].content}], dtype=object)]
        rows = [Row(tokenizer, REPLY + "<|im_end|>", **columns(prompt)) for prompt in prompts]
        rows.append(Row(tokenizer, Witness.unscorable, **columns(TALK[0].content)))
        return [await manager.run_single(Rows([row])) for row in rows]

    first, second, failed = asyncio.run(run())
    assert first == second
    assert first["reward_score"] == worth(TALK)
    assert failed["reward_score"] == -7.5
    assert failed["reward_extra_info"]["rmkit_unscored"] == 1
    assert list(first["reward_extra_info"]) == list(failed["reward_extra_info"])  # verl's columns come from the first


def test_verls_batch_manager_calls_the_batch_function(
    service: Running, verl_code: SimpleNamespace, tokenizer: Any
) -> None:
    manager = verl_code.batch.BatchRewardManager(
        tokenizer, 0, verl.compute_score_batch, url=service.url("path"), unscored_reward=-7.5
    )
    replies = [REPLY, "No.", Witness.unscorable]
    data = Rows([Row(tokenizer, reply, **columns(TALK[0].content)) for reply in replies])
    made = manager(data, return_dict=True)
    rewards = made["reward_tensor"].sum(dim=1).tolist()
    expected = [worth([TALK[0], Message("assistant", reply)]) for reply in replies[:2]]
    assert rewards == pytest.approx([*expected, -7.5], abs=1e-6)
    assert [len(column) for column in made["reward_extra_info"].values()] == [3, 3, 3, 3]
    assert made["reward_extra_info"]["rmkit_unscored"] == [0, 0, 1]


# LLaMA-Factory 0.9.5


@pytest.mark.parametrize("form", ["path", "basic"])
def test_llama_factory_gets_its_scores(service: Running, form: str) -> None:
    pytest.importorskip("requests")
    root = wheel("llamafactory", "0.9.5")
    names = ["llamafactory", "llamafactory.extras", "llamafactory.train", "llamafactory.train.ppo"]
    with imported_from(root, names, empty=["llamafactory.extras.packages", "trl"]):
        code = importlib.import_module("llamafactory.train.ppo.ppo_utils")
        code.requests = importlib.import_module("requests")
        texts = [PROMPT + reply + "<|im_end|>\n" for reply in (REPLY, "No.")]
        scores = code.get_rewards_from_server(service.url(form) + "/llama-factory", texts)
    assert scores.tolist() == pytest.approx([worth(TALK), worth([TALK[0], Message("assistant", "No.")])], abs=1e-6)


# NeMo-Gym 0.5.1


@pytest.mark.slow  # a wheel of 34 megabytes
def test_nemo_gyms_failed_judge_is_tagged_as_nemo_gym_tags_it(service: Running) -> None:
    """Its own wrapper of verify functions beside our answer to a rollout that cannot be scored."""
    import httpx
    from pydantic import BaseModel

    class Asked(BaseModel):
        responses_create_params: dict[str, Any]
        response: dict[str, Any]

    part = {"type": "output_text", "text": Witness.unscorable}
    message = {"type": "message", "role": "assistant", "content": [part]}
    body = {"responses_create_params": {"input": "Hi"}, "response": {"output": [message]}}
    root = wheel("nemo-gym", "0.5.1", "--python-version", "3.14")
    with imported_from(root, ["nemo_gym"], empty=["nemo_gym.server_utils"]):
        judge = importlib.import_module("nemo_gym.judge")

        async def verify(body: Asked) -> None:
            raise judge.JudgeError("asked not to")

        theirs = json.loads(asyncio.run(judge.judge_failsafe(verify)(body=Asked(**body))).body)
    ours = httpx.post(service.url("basic") + "/nemo-gym/verify", json=body).json()
    assert ours == theirs | {"mask_sample": True}
