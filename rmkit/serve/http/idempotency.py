"""Answers kept under an idempotency key, so that a client that repeats a request is answered, and charged, once.

A key belongs to one client and route, in one process; its answer is kept for KEEP_S, or until newer ones need the room.
A repeat that comes while the first is being answered waits for it; only answers of status 200 are kept. A request costs
the same however many answers are kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import Response

from rmkit.serve.http.problems import HttpError

KEEP_S = 600.0
ROOM_BYTES = 64 * 2**20

ENTRY_BYTES = 1024  # what an answer takes beside its body: keys, digests, objects

Key = tuple[str, ...]


@dataclass(slots=True)
class _Request:
    """One that is being answered."""

    digest: bytes  # SHA-256 of the body
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Answer:
    digest: bytes  # SHA-256 of the request's body
    since: float
    body: bytes
    media_type: str | None

    @property
    def size(self) -> int:
        return ENTRY_BYTES + len(self.body)


class IdempotencyCache:
    """`once` answers a request, or repeats the answer that its key has."""

    def __init__(self, *, room_bytes: int = ROOM_BYTES) -> None:
        self._answers: OrderedDict[Key, _Answer] = OrderedDict()  # oldest first
        self._running: dict[Key, _Request] = {}
        self._room = room_bytes
        self._bytes = 0

    async def once(self, key: Key, body: bytes, answer: Callable[[], Awaitable[Response]]) -> Response:
        """The answer. Raises HttpError 409 where the key came with another body before."""
        digest = hashlib.sha256(body).digest()
        self._forget()
        while (earlier := self._answers.get(key) or self._running.get(key)) is not None:
            if earlier.digest != digest:
                raise HttpError(409, "this idempotency key was used for another request")
            if isinstance(earlier, _Answer):
                again = {"Idempotent-Replayed": "true"}
                return Response(earlier.body, media_type=earlier.media_type, headers=again)
            await earlier.done.wait()
        request = self._running[key] = _Request(digest)
        try:
            response = await answer()
            if response.status_code == 200:
                whole = _Answer(digest, time.monotonic(), bytes(response.body), response.media_type)
                self._answers[key] = whole
                self._bytes += whole.size
                self._forget()
            return response
        finally:
            del self._running[key]
            request.done.set()

    def _forget(self) -> None:
        """Drop what is too old, and the oldest while there is too much: each answer is looked at once and dropped."""
        before = time.monotonic() - KEEP_S
        while self._answers:
            key, oldest = next(iter(self._answers.items()))
            if oldest.since >= before and self._bytes <= self._room:
                return
            self._bytes -= oldest.size
            del self._answers[key]
