"""slime's remote reward model (`--rm-type remote_rm --rm-url http://HOST:PORT/slime --reward-key reward`), version 0.3.

    POST {"prompt": text or messages, "response": text, "label": any} -> {"reward", "raw", "components", "value"}

One sample a request. Labels and the address's `?signal=`, `?mix=`, `?chain=`, `?group_size=` are as for OpenRLHF; `raw`
is the mix before the chain, for slime's filters.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from rmkit.chat.reader import read_conversation
from rmkit.serve.compat.dialect import DialectRoute, Label, numbers, one_reply, score_each, signal_of
from rmkit.serve.compat.policy_readers import PolicyText
from rmkit.types import Candidates, Message

router = APIRouter(route_class=DialectRoute, tags=["slime"])


class RewardRequest(BaseModel):
    prompt: str | list[dict[str, Any]]
    response: str
    label: Any = None


class RewardResponse(BaseModel):
    reward: float
    raw: float
    components: dict[str, float]
    value: float | None


@router.post("/reward", summary="slime remote reward model")
async def reward(request: Request, body: RewardRequest) -> RewardResponse:
    def read(text: PolicyText) -> Candidates:
        if isinstance(body.prompt, str):
            return text.read_reply(body.prompt, body.prompt + body.response)[0]
        return one_reply(read_conversation(body.prompt, role="user"), (Message("assistant", body.response),))

    signal, group_size = signal_of(request)
    label = Label.read(body.label, group_size=group_size)
    scored = await score_each(request, [read], signal=signal, labels=[label])
    [value, raw] = numbers(request, [scored[0].shaped, scored[0].mixed])
    own = scored[0].reward
    return RewardResponse(
        reward=value,
        raw=raw,
        components=dict(own.components),
        value=own.score.value if own.score.unscored is None else None,
    )


bare = reward  # slime is given the address without a path
