"""A dialect of the reward service: POST {"prompt": text, "replies": [text]} -> [number]."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from rmkit.serve.compat.dialect import DialectRoute, Reading, numbers, one_reply, score_each
from rmkit.types import Message

router = APIRouter(route_class=DialectRoute, tags=["plain-texts"])


class Texts(BaseModel):
    prompt: str
    replies: list[str]


@router.post("/numbers")
async def plain_numbers(request: Request, body: Texts) -> list[float]:
    prompt = Message("user", body.prompt)
    scored = await score_each(request, [_read(prompt, Message("assistant", reply)) for reply in body.replies])
    return numbers(request, [one.score for one in scored])


def _read(prompt: Message, reply: Message) -> Reading:
    return lambda text: one_reply([prompt], [reply])
