"""Scores to compare: what a service gave (the ledger's `reward` events), and what its model gives a reference set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rmkit.cli import display
from rmkit.data.example import Example
from rmkit.errors import DataError
from rmkit.ids import content_hash, messages_json
from rmkit.ledger import Ledger
from rmkit.types import RewardModel

BATCH = 256


@dataclass(frozen=True, slots=True)
class Observed:
    """One completion's score. `value` None is unscored; texts (canonical JSON) are None where they were not logged.

    Under a signal: `raw` is the mix, `reward` what the chain made of it; `group` tells apart the completions that were
    shaped together. `step` and `policy_version` are the trainer's, `columns` numbers that it brought.
    """

    value: float | None
    chars: int
    source: str | None
    prompt: str
    response: str
    time: datetime | None = None
    unscored: str | None = None
    prompt_text: str | None = None
    text: str | None = None
    raw: float | None = None
    reward: float | None = None
    components: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    step: int | None = None
    policy_version: str | None = None

    @property
    def proxy(self) -> float | None:
        """What a policy is trained on, before the chain: the mix, the model's number where there is no signal."""
        return self.value if self.raw is None and self.reward is None and not self.components else self.raw


def served(
    ledger: Ledger, name: str, *, since: datetime | None = None, fingerprint: str | None = None
) -> tuple[str, list[Observed]]:
    """The fingerprint (the last one served under the name, where none is given) and its scores since then.

    Raises DataError where nothing was served under the name.
    """
    events = [
        recorded.event
        for recorded in ledger.events(kinds=["reward"])
        if recorded.event.payload["model"] == name and (since is None or recorded.event.time >= since)
    ]
    if not events:
        raise DataError(f"no reward of a model named {name!r} is in the ledger; serve one: rmkit serve {name}=MODEL")
    target = fingerprint or str(events[-1].payload["fingerprint"])
    result = [
        observed
        for event in events
        if event.payload["fingerprint"] == target
        for observed in completions(event.payload, event.time)
    ]
    return target, result


def completions(payload: Mapping[str, Any], time: datetime) -> Iterator[Observed]:
    """The completions of one `reward` event."""
    step = payload.get("step")
    for number, item in enumerate(payload["items"]):
        if "p_first" in item:  # a comparison has no score
            continue
        signal = item.get("rewards") or [{}] * len(item["completions"])
        # Steps repeat group ids; without an id the completions of an item are a group.
        group = f"{step}/{item['group']}" if "group" in item else f"{payload['request_id']}/{number}"
        for one, reward in zip(item["completions"], signal, strict=True):
            yield Observed(
                value=one["value"],
                chars=one["chars"],
                source=item["source"],
                prompt=item["prompt"],
                response=one["response"],
                time=time,
                unscored=one.get("unscored"),
                prompt_text=item.get("prompt_text"),
                text=one.get("text"),
                raw=reward.get("raw"),
                reward=reward.get("reward"),
                components=reward.get("components", {}),
                columns=reward.get("columns", {}),
                group=group,
                step=step,
                policy_version=payload.get("policy_version"),
            )


def reference(model: RewardModel, examples: Iterable[Example]) -> list[Observed]:
    """The model's scores of every response of the examples that have any."""
    rows = [example for example in examples if example.row["responses"]]
    results: list[Observed] = []
    with display.progress(f"scoring the reference with {model.info.name}", len(rows)) as advance:
        for at in range(0, len(rows), BATCH):
            batch = rows[at : at + BATCH]
            for example, scores in zip(batch, model.score([one.candidates for one in batch]), strict=True):
                candidates = example.candidates
                prompt = messages_json(candidates.prompt)
                for completion, score in zip(candidates.completions, scores, strict=True):
                    results.append(
                        Observed(
                            value=None if score.unscored else score.value,
                            chars=len(completion.text),
                            source=example.row["source"],
                            prompt=content_hash(prompt),
                            response=content_hash(messages_json(completion.messages)),
                            unscored=score.unscored,
                        )
                    )
            advance(len(batch))
    return results
