"""A trainer's samples to a reward service under a signal, and back: one reward per sample, in the trainer's order.

    client = SignalClient("http://HOST:PORT", signal={"mix": {"exact_match": 1, "reward": 0.2}, "chain": ["z_score"]})
    rewards = client.rewards([Sample(prompt=..., completion=..., row={"reference": "72"})])

`signal` is the name of one that the service was started with, a Signal, a mapping or TOML file of its fields, or
nothing for the service's first. Neighbors with one prompt and row travel as one group. `rewards` blocks,
`rewards_async` is a coroutine: where a group's samples come in calls of their own, they must be coroutines, since
threads that wait for each other run out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmkit.errors import DataError
from rmkit.ids import messages_json
from rmkit.serve.clients.address import address
from rmkit.serve.clients.chat_values import candidates
from rmkit.serve.clients.service_http import Patience, RewardServiceError, ServiceHttp
from rmkit.signal.columns import as_text, plain
from rmkit.signal.signal import Signal
from rmkit.types import Candidates, Span

log = logging.getLogger(__name__)

SignalLike = str | Path | Signal | Mapping[str, Any] | None
BAD_ITEMS = (400, 413, 422)
REQUEST_COMPLETIONS = 256


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One prompt and completion (texts or messages) with its dataset row, its own columns, and the id of its group."""

    prompt: Any
    completion: Any
    row: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    tools: Any = ()


@dataclass(frozen=True, kw_only=True)
class SampleReward:
    """`reward` None says why in `unscored`. `value` is the model's raw number, `raw` the mix before the chain."""

    reward: float | None = None
    raw: float | None = None
    value: float | None = None
    components: Mapping[str, float] = field(default_factory=dict)
    unscored: str | None = None
    truncated: bool = False
    spans: Sequence[Span] = ()

    def or_else(self, unscored_reward: float | None) -> float:
        """The reward; for an unscored one the stand-in, or DataError where there is none."""
        if self.reward is not None:
            return self.reward
        if unscored_reward is None:
            raise DataError(
                f"a completion cannot be scored ({self.unscored}); pass unscored_reward to go on with a number"
            )
        return unscored_reward


@dataclass
class _Item:
    """Samples that travel together."""

    candidates: Candidates
    first: Sample
    samples: list[Sample]
    places: list[int]


Exchange = Generator[dict[str, Any], Any, list[SampleReward]]


class SignalClient:
    """Thread-safe, picklable, fork-safe. `group_size` is how many samples a group has in all, where they may come in
    several calls."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        model: str | None = None,
        signal: SignalLike = None,
        group_size: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.service = ServiceHttp(address(url, token=token, model=model), patience or Patience())
        self.fields = _fields(signal)
        self.group_size = group_size

    def rewards(self, samples: Sequence[Sample], **options: Any) -> list[SampleReward]:
        """[n] rewards in order; `options`: step, policy_version, spans.

        Raises RewardServiceError where the service cannot be asked, or refuses every sample.
        """
        exchange = self._exchange(samples, **options)
        answer: Any = None
        try:
            while True:
                body = exchange.send(answer)
                try:
                    answer = self.service.ask("/rmkit/v1/score", body)
                except RewardServiceError as error:
                    answer = error
        except StopIteration as end:
            rewards: list[SampleReward] = end.value
            return rewards

    async def rewards_async(self, samples: Sequence[Sample], **options: Any) -> list[SampleReward]:
        """As `rewards`."""
        exchange = self._exchange(samples, **options)
        answer: Any = None
        try:
            while True:
                body = exchange.send(answer)
                try:
                    answer = await self.service.ask_async("/rmkit/v1/score", body)
                except RewardServiceError as error:
                    answer = error
        except StopIteration as end:
            rewards: list[SampleReward] = end.value
            return rewards

    def close(self) -> None:
        """Give the connections back."""
        self.service.close()

    def _exchange(
        self,
        samples: Sequence[Sample],
        *,
        step: int | None = None,
        policy_version: str | None = None,
        spans: bool = False,
    ) -> Exchange:
        """Yields request bodies, is sent the answers or RewardServiceErrors, gives the rewards."""
        rewards: list[SampleReward | None] = [None] * len(samples)
        head: dict[str, object] = {
            "model": self.service.at.model,
            "step": step,
            "policy_version": policy_version,
            "spans": spans or None,
        }
        head = {name: value for name, value in head.items() if value is not None} | self.fields
        refused: list[RewardServiceError] = []
        waiting = list(_chunks(_items(samples, rewards)))
        while waiting:
            chunk = waiting.pop(0)
            answer = yield head | {"items": [self._written(item) for item in chunk]}
            if isinstance(answer, RewardServiceError):
                if answer.status not in BAD_ITEMS:
                    raise answer
                if len(chunk) > 1:  # what is bad is to be unscored alone
                    waiting = [[item] for item in chunk] + waiting
                    continue
                refused.append(answer)
                for place in chunk[0].places:
                    rewards[place] = SampleReward(unscored=str(answer))
                continue
            for item, row in zip(chunk, answer["scores"], strict=True):
                for place, one in zip(item.places, row, strict=True):
                    rewards[place] = _read(one)
        results = [one or SampleReward(unscored="it was not answered") for one in rewards]
        if refused and all(one.reward is None for one in results):
            raise refused[0]  # not the samples are at fault but the request
        failures = [one.unscored for one in results if one.reward is None]
        if failures:
            log.warning("%d of %d completions are unscored; the first: %s", len(failures), len(results), failures[0])
        return results

    def _written(self, item: _Item) -> dict[str, object]:
        document: dict[str, Any] = {
            "prompt": json.loads(messages_json(item.candidates.prompt)),
            "completions": [json.loads(messages_json(one.messages)) for one in item.candidates.completions],
        }
        if item.candidates.tools:
            document["tools"] = [dict(tool) for tool in item.candidates.tools]
        if item.first.row:
            document["row"] = plain(item.first.row)
        names = dict.fromkeys(name for sample in item.samples for name in sample.columns)
        if names:
            document["columns"] = {name: [plain(sample.columns.get(name)) for sample in item.samples] for name in names}
        if item.first.group is not None:
            document["group_id"] = item.first.group[:200]
        if self.group_size is not None:
            document["group_size"] = self.group_size
        return document


def _fields(signal: SignalLike) -> dict[str, object]:
    if signal is None:
        return {}
    if isinstance(signal, str) and not signal.endswith(".toml"):
        return {"signal": signal}
    if isinstance(signal, str | Path):
        signal = Signal.read(signal)
    return (signal if isinstance(signal, Signal) else Signal.of(signal)).sent()


def _items(samples: Sequence[Sample], rewards: list[SampleReward | None]) -> list[_Item]:
    """Neighbors with one prompt, row and group together; what cannot be read has its reason already."""
    items: list[_Item] = []
    for place, sample in enumerate(samples):
        try:
            one = candidates(sample.prompt, [sample.completion], tools=sample.tools)
            messages_json(one.prompt)
            messages_json(one.completions[0].messages)
        except DataError as error:
            rewards[place] = SampleReward(unscored=str(error))
            continue
        last = items[-1] if items else None
        if last and last.candidates.of(*one.completions) == one and _same(last.first, sample):
            last.candidates = last.candidates.of(*last.candidates.completions, *one.completions)
            last.samples.append(sample)
            last.places.append(place)
        else:
            items.append(_Item(one, sample, [sample], [place]))
    return items


def _same(first: Sample, second: Sample) -> bool:
    if first.group != second.group:
        return False
    return first.row is second.row or as_text(first.row) == as_text(second.row)


def _chunks(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Runs of items with at most REQUEST_COMPLETIONS completions; what belongs to one group stays together."""
    chunk: list[_Item] = []
    size = 0
    for item in items:
        together = chunk and item.first.group is not None and chunk[-1].first.group == item.first.group
        if chunk and not together and size + len(item.places) > REQUEST_COMPLETIONS:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.places)
    if chunk:
        yield chunk


def _read(one: Mapping[str, Any]) -> SampleReward:
    reward = one.get("reward")
    return SampleReward(
        reward=reward,
        raw=one.get("raw"),
        value=one.get("value"),
        components=one.get("components") or {},
        unscored=None if reward is not None else one.get("unscored") or "the service gave no reward",
        truncated=bool(one.get("truncated")),
        spans=[Span(*span) for span in one.get("spans") or ()],
    )
