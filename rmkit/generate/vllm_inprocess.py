"""vLLM in this process: its own batching, no HTTP. Needs a GPU and the package `vllm`, which rmkit does not install.

Written after the signatures of vLLM 0.11 and later (`LLM.chat`, `SamplingParams`, `StructuredOutputsParams`,
`RequestOutput`) and tested against a stand-in that has them; it has not run on a GPU yet. A server (`vllm serve`, back
end `endpoint`) is the way that is tested with real HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmkit.chat.template import as_template_dict
from rmkit.errors import UsageError
from rmkit.generate.batches import Batches, Outcome
from rmkit.generate.request import KEPT_LOGPROBS, Prices, Refused, Request, Sample, TokenLogprobs
from rmkit.ids import model_digest


class VllmGenerator:
    """A model that vLLM loads by name or path; `options` go to `vllm.LLM` and belong to its identity in the cache."""

    prices = Prices()

    def __init__(self, model: str, *, batch_size: int = 256, **options: Any) -> None:
        try:
            import vllm  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise UsageError(
                "vllm is not installed; run: pip install vllm, or serve the model and use base_url"
            ) from error
        settings = json.dumps(options, sort_keys=True, default=str) if options else ""
        weights = f":{model_digest(Path(model))[:16]}" if Path(model).is_dir() else ""
        self.name = f"vllm:{model}{weights}{settings}"
        self._vllm = vllm
        self._template_options = options.pop("chat_template_kwargs", None)
        self._llm = vllm.LLM(model=model, **options)
        self._batches = Batches(self._answers, size=batch_size)

    async def sample(self, request: Request) -> Sample:
        """See `Generator`. Raises Refused for what vLLM does not take, such as a prompt longer than its context."""
        return await self._batches.sample(request)

    async def close(self) -> None:
        await self._batches.close()

    def _answers(self, requests: Sequence[Request]) -> list[Outcome]:
        """vLLM refuses a batch for one request it does not take: then they are asked one by one."""
        begun = {request.prompt[-1].role == "assistant" for request in requests}
        if len(begun) > 1:
            return [outcome for request in requests for outcome in self._answers([request])]
        more: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": False} if True in begun else {}
        messages = [[as_template_dict(message) for message in request.prompt] for request in requests]
        try:
            parameters = [self._parameters(request) for request in requests]
            if self._template_options:
                more["chat_template_kwargs"] = self._template_options
            return [_sample(output) for output in self._llm.chat(messages, parameters, use_tqdm=False, **more)]
        except ValueError as error:
            if len(requests) == 1:
                return [Refused(" ".join(str(error).split())[:200])]
            return [outcome for request in requests for outcome in self._answers([request])]

    def _parameters(self, request: Request) -> object:
        schema = {}
        if request.schema:
            schema["structured_outputs"] = self._vllm.sampling_params.StructuredOutputsParams(json=dict(request.schema))
        return self._vllm.SamplingParams(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed if request.temperature > 0 else None,
            stop=list(request.stop) or None,
            logprobs=request.top_logprobs or None,
            **schema,
        )


def _sample(output: Any) -> Sample:
    result = output.outputs[0]
    steps = list(zip(result.token_ids, result.logprobs or (), strict=False))[-KEPT_LOGPROBS:]
    return Sample(
        text=result.text,
        finish="length" if result.finish_reason == "length" else "stop",
        prompt_tokens=len(output.prompt_token_ids or ()),
        completion_tokens=len(result.token_ids),
        logprobs=tuple(
            TokenLogprobs(
                step[token].decoded_token or "",
                step[token].logprob,
                tuple((other.decoded_token or "", other.logprob) for other in step.values()),
            )
            for token, step in steps
        ),
    )
