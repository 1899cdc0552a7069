"""The vLLM back end against a stand-in module with vLLM's own signatures and types. It has not run on a GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from rmkit.errors import UsageError
from rmkit.generate import Engine, Request
from rmkit.generate.config import GeneratorConfig, open_generator
from rmkit.judge import Judge, JudgeConfig
from rmkit.types import Candidates, Completion, Message

CONTEXT = 200  # words


@dataclass
class StructuredOutputsParams:
    json: str | dict[str, Any] | None = None


@dataclass
class SamplingParams:
    """The fields used, with vLLM's names and defaults: another name is a TypeError, as there."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    structured_outputs: StructuredOutputsParams | None = None


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = True


class LLM:
    """Says "Verdict: A" with probability 0.8 at the last of three tokens; refuses prompts beyond its context."""

    calls: ClassVar[list[list[SamplingParams]]] = []

    def __init__(self, model: str, *, tensor_parallel_size: int = 1, dtype: str = "auto") -> None:
        self.model = model

    def chat(
        self,
        messages: list[list[dict[str, Any]]],
        sampling_params: SamplingParams | list[SamplingParams] | None = None,
        use_tqdm: bool = True,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
    ) -> list[RequestOutput]:
        assert isinstance(sampling_params, list)
        assert len(sampling_params) == len(messages)
        LLM.calls.append(sampling_params)
        for conversation in messages:
            if sum(len(turn["content"].split()) for turn in conversation) > CONTEXT:
                raise ValueError("The decoder prompt is longer than the maximum model length of 200.")
        return [self._output(i, asked) for i, asked in enumerate(sampling_params)]

    def _output(self, i: int, asked: SamplingParams) -> RequestOutput:
        places = [{7: Logprob(0.0, 1, "Verdict")}, {8: Logprob(0.0, 1, ":")}]
        places.append({9: Logprob(-0.22314355, 1, " A"), 10: Logprob(-1.6094379, 2, " B")})
        cut = asked.max_tokens is not None and asked.max_tokens < 3
        made = CompletionOutput(
            index=0,
            text="Verdict:" if cut else "Verdict: A",
            token_ids=[7, 8] if cut else [7, 8, 9],
            cumulative_logprob=-0.2,
            logprobs=places[: 2 if cut else 3] if asked.logprobs else None,
            finish_reason="length" if cut else "stop",
        )
        return RequestOutput(str(i), None, [1, 2, 3, 4], [made])


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module, parameters = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    parameters.StructuredOutputsParams = StructuredOutputsParams  # type: ignore[attr-defined]
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    module.sampling_params = parameters  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    LLM.calls.clear()


def asked(text: str, **settings: Any) -> Request:
    return Request(prompt=(Message("user", text),), **settings)


def engine(model: str = "org/model", **extra: Any) -> Engine:
    return Engine(open_generator(GeneratorConfig(model=model, backend="vllm", extra=extra)))


def test_a_judge_reads_vllms_log_probabilities() -> None:
    pair = Candidates((Message("user", "q"),), tuple(Completion((Message("assistant", text),)) for text in ("x", "y")))
    with engine() as running:
        judge = Judge(JudgeConfig(name="v", top_logprobs=5), running)
        [answer] = judge.compare([pair])
    assert answer.p_first == pytest.approx((0.8 + 0.2) / 2)  # it always leans to what stands first
    assert answer.swap_gap == pytest.approx(0.6, abs=1e-6)
    assert judge.report()["label_mass"] == pytest.approx(1.0)
    assert judge.report()["prompt_tokens"] == 8
    assert {parameters.logprobs for batch in LLM.calls for parameters in batch} == {5}


def test_settings_reach_vllm_by_its_names() -> None:
    schema = {"type": "object"}
    with engine() as running:
        running.samples([asked("a", temperature=0.7, seed=3, stop=("x",), top_p=0.9, schema=schema), asked("b")])
    first, second = (parameters for batch in LLM.calls for parameters in batch)
    assert (first.temperature, first.top_p, first.seed, first.stop) == (0.7, 0.9, 3, ["x"])
    assert first.structured_outputs == StructuredOutputsParams(json=schema)
    assert (second.seed, second.stop, second.structured_outputs, second.logprobs) == (None, None, None, None)


def test_one_prompt_too_long_fails_alone_and_a_cut_reply_says_so() -> None:
    with engine() as running:
        long, cut, good = running.samples([asked("word " * 300), asked("a", max_tokens=2), asked("b")])
    assert "longer than the maximum model length" in str(long.error)
    assert (cut.finish, good.finish, good.text) == ("length", "stop", "Verdict: A")


def test_the_identity_covers_weights_and_options(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    names = [engine(str(tmp_path)).generator.name, engine(str(tmp_path), dtype="float16").generator.name]
    (tmp_path / "config.json").write_text('{"a": 1}')
    names.append(engine(str(tmp_path)).generator.name)
    assert len(set(names)) == 3


def test_without_vllm_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UsageError, match="pip install vllm, or serve the model"):
        engine()
