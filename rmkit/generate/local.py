"""Sampling from a transformers model in this process, batched: whatever requests wait together run together.

Sampling uses the Gumbel trick, argmax(log p + g), with noise from each request's own seed: a request gets the same
reply whatever it is batched with (up to rounding), which `generate(do_sample=True)` cannot promise.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rmkit.chat.template import as_template_dict
from rmkit.devices import chosen
from rmkit.errors import ModelError
from rmkit.generate.batches import Batches, Outcome
from rmkit.generate.request import KEPT_LOGPROBS, Prices, Refused, Request, Sample, TokenLogprobs
from rmkit.ids import content_hash, messages_json, model_digest
from rmkit.models.transformer.pretrained import load_pretrained, load_tokenizer
from rmkit.types import Conversation


class LocalGenerator:
    """A causal language model and its tokenizer. `name` identifies them in the cache: change it with the weights."""

    prices = Prices()

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        batch_size: int = 16,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        """`template_options` go to the chat template beside the messages, and into the name."""
        if not tokenizer.chat_template:
            raise ModelError(f"{name} has no chat template; give its tokenizer one (tokenizer.chat_template)")
        self._template_options = dict(template_options or {})
        self.name = name + (json.dumps(self._template_options, sort_keys=True) if template_options else "")
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batches = Batches(self._answers, size=batch_size)

    async def sample(self, request: Request) -> Sample:
        """See `Generator`. Raises Refused where prompt and reply do not fit the model."""
        return await self._batches.sample(request)

    async def close(self) -> None:
        await self._batches.close()

    def _answers(self, requests: Sequence[Request]) -> list[Outcome]:
        prompts = [self._prompt_ids(request) for request in requests]
        room = getattr(self._model.config, "max_position_embeddings", None) or 10**9
        outcomes: list[Outcome] = [
            Refused(f"{len(ids)} prompt tokens and {request.max_tokens} of reply exceed the model's {room}")
            for ids, request in zip(prompts, requests, strict=True)
        ]
        fitting = [i for i, request in enumerate(requests) if len(prompts[i]) + request.max_tokens <= room]
        if fitting:
            result = self._generate([prompts[i] for i in fitting], [requests[i] for i in fitting])
            for i, sample in zip(fitting, result, strict=True):
                outcomes[i] = sample
        return outcomes

    def _prompt_ids(self, request: Request) -> list[int]:
        ids: list[int] = self._tokenizer.apply_chat_template(
            [as_template_dict(message, arguments="object") for message in request.prompt],
            add_generation_prompt=request.prompt[-1].role != "assistant",
            continue_final_message=request.prompt[-1].role == "assistant",
            tokenize=True,
            return_dict=False,
            **self._template_options,
        )
        return ids

    @torch.inference_mode()
    def _generate(self, prompts: Sequence[Sequence[int]], requests: Sequence[Request]) -> list[Sample]:
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._eos()[0]
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        rows = list(map(tuple, prompts))
        shared = (
            {} if len(set(rows)) == len(rows) or width < 2 else {"past_key_values": self._prefilled(rows, ids, mask)}
        )
        result = self._model.generate(
            input_ids=ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            max_new_tokens=max(request.max_tokens for request in requests),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
            eos_token_id=self._eos(),
            logits_processor=[_GumbelNoise(requests)],
            stopping_criteria=[_StopTexts(self._tokenizer, requests, width)],
            output_logits=any(request.top_logprobs for request in requests),
            return_dict_in_generate=True,
            **shared,
        )
        replies = result.sequences[:, width:].tolist()
        return [
            self._sample(request, len(prompt), reply, [step[row] for step in result.logits or ()])
            for row, (request, prompt, reply) in enumerate(zip(requests, prompts, replies, strict=True))
        ]

    def _prefilled(self, rows: Sequence[tuple[int, ...]], ids: torch.Tensor, mask: torch.Tensor) -> Any:
        """The cache of all prompts but for their last token, each distinct one read once: samples of a prompt, or
        continuations of a prefix, share it."""
        first = {row: rows.index(row) for row in rows}
        place = {row: at for at, row in enumerate(first)}
        once = torch.tensor(list(first.values()))
        ids, mask = ids[once, :-1].to(self._model.device), mask[once, :-1].to(self._model.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        ).past_key_values
        cache.batch_select_indices(torch.tensor([place[row] for row in rows], device=ids.device))
        return cache

    @torch.inference_mode()
    def log_probability(self, prompt: Conversation, reply: str) -> float:
        """The mean log-probability of a token of `reply` as the answer to `prompt`, in nats.

        Raises Refused where both do not fit the model.
        """
        ids = self._prompt_ids(Request(prompt=prompt))
        reply_ids = self._tokenizer(reply, add_special_tokens=False)["input_ids"]
        room = getattr(self._model.config, "max_position_embeddings", None) or 10**9
        if len(ids) + len(reply_ids) > room:
            raise Refused(f"{len(ids)} prompt tokens and {len(reply_ids)} of reply exceed the model's {room}")
        logits = self._model(torch.tensor([[*ids, *reply_ids]], device=self._model.device)).logits[0, len(ids) - 1 : -1]
        chosen = torch.log_softmax(logits.float(), dim=-1)[torch.arange(len(reply_ids)), torch.tensor(reply_ids)]
        return float(chosen.mean())

    def _eos(self) -> list[int]:
        """Both what the generation config stops at and what the tokenizer calls end: chat models often differ."""
        configured = self._model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        return list(dict.fromkeys(t for t in [self._tokenizer.eos_token_id, *listed] if t is not None)) or [0]

    def _sample(self, request: Request, n_prompt: int, reply: list[int], logits: list[torch.Tensor]) -> Sample:
        ends = set(self._eos())
        length = next((i for i, token in enumerate(reply) if token in ends), None)
        stopped = length is not None and length < request.max_tokens
        tokens = reply[: length if stopped else request.max_tokens]
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        cut = min((result for stop in request.stop if (result := text.find(stop)) >= 0), default=None)
        if cut is not None:  # what stands behind the stop is padding, and was not asked for
            tokens, stopped = tokens[: _length_until(self._tokenizer, tokens, request.stop)], False
        return Sample(
            text=text if cut is None else text[:cut],
            finish="stop" if stopped or cut is not None else "length",
            prompt_tokens=n_prompt,
            completion_tokens=len(tokens) + stopped,
            logprobs=self._logprobs(request, tokens, logits),
        )

    def _logprobs(self, request: Request, tokens: list[int], logits: list[torch.Tensor]) -> tuple[TokenLogprobs, ...]:
        if not request.top_logprobs:
            return ()
        first = max(0, len(tokens) - KEPT_LOGPROBS)
        results = []
        for token, step in list(zip(tokens, logits, strict=False))[first:]:
            logprobs = torch.log_softmax(step.float(), dim=-1)
            top = logprobs.topk(min(request.top_logprobs, len(logprobs)))
            likeliest = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            alternatives = tuple((self._tokenizer.decode([index]), value) for index, value in likeliest)
            results.append(TokenLogprobs(self._tokenizer.decode([token]), float(logprobs[token]), alternatives))
        return tuple(results)


def _length_until(tokenizer: Any, tokens: Sequence[int], stops: Sequence[str]) -> int:
    """How many of the tokens it takes until one of `stops`, which their text holds, is written."""
    lengths = range(1, len(tokens) + 1)

    def written(n: int) -> bool:
        text = tokenizer.decode(tokens[:n], skip_special_tokens=True)
        return any(stop in text for stop in stops)

    return lengths[min(bisect_left(lengths, True, key=written), len(tokens) - 1)]


class _StopTexts:
    """A row ends where it wrote one of its request's stop texts; the others go on."""

    def __init__(self, tokenizer: Any, requests: Sequence[Request], begin: int) -> None:
        self._tokenizer = tokenizer
        self._stops = [request.stop for request in requests]
        # A character may take several tokens; a stop that the window misses is cut from the text later.
        self._windows = [4 * max(map(len, stops), default=0) + 4 for stops in self._stops]
        self._begin = begin

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for row, (stops, window) in enumerate(zip(self._stops, self._windows, strict=True)):
            if stops:
                last = input_ids[row, max(self._begin, input_ids.shape[1] - window) :]
                text = self._tokenizer.decode(last, skip_special_tokens=True)
                done[row] = any(stop in text for stop in stops)
        return done


class _GumbelNoise:
    """Turns greedy decoding into sampling, each row at its own temperature, top-p and seed."""

    def __init__(self, requests: Sequence[Request]) -> None:
        drawn = [(i, request) for i, request in enumerate(requests) if request.temperature > 0]
        self._rows = torch.tensor([i for i, _ in drawn], dtype=torch.long)
        self._temperature = torch.tensor([[request.temperature] for _, request in drawn])
        self._top_p = [request.top_p for _, request in drawn]
        self._random = [torch.Generator().manual_seed(_seed(request)) for _, request in drawn]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float().clone()
        if not self._random:
            return scores
        rows = self._rows.to(scores.device)
        logprobs = torch.log_softmax(scores[rows] / self._temperature.to(scores.device), dim=-1)
        for at, top_p in enumerate(self._top_p):
            if top_p < 1:
                logprobs[at] = _nucleus(logprobs[at], top_p)
        n = logprobs.shape[1]
        uniform = torch.stack([torch.rand(n, generator=random, dtype=torch.float64) for random in self._random])
        noise = -torch.log(-torch.log(uniform.to(scores.device).clamp(1e-300))).float()
        scores[rows] = logprobs + noise
        return scores


def _seed(request: Request) -> int:
    """Of seed and prompt: with the seed alone the samples of all prompts would share their noise and err alike."""
    return int(content_hash(f"{request.seed} {messages_json(request.prompt)}")[:15], 16)


def _nucleus(logprobs: torch.Tensor, top_p: float) -> torch.Tensor:
    """-inf outside the smallest set of likeliest tokens whose probabilities reach top_p."""
    ordered, order = logprobs.sort(descending=True)
    before = ordered.exp().cumsum(0) - ordered.exp()
    return logprobs.masked_fill(
        torch.zeros_like(logprobs, dtype=torch.bool).scatter(0, order, before >= top_p), -torch.inf
    )


def load_local(
    folder: Path,
    *,
    batch_size: int = 16,
    device: str | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> LocalGenerator:
    """The generator of a saved causal model. Raises ModelError where the folder holds none."""
    tokenizer = load_tokenizer(folder, local_files_only=True)
    model = load_pretrained("AutoModelForCausalLM", folder, local_files_only=True).model
    identity = model_digest(Path(folder))[:16]
    target = chosen(device)
    return LocalGenerator(
        model.to(target),
        tokenizer,
        name=f"local:{Path(folder).name}:{identity}",
        batch_size=batch_size,
        template_options=template_options,
    )
