"""The bytes that all requests being answered may hold, shared so that no client takes what the others need.

Dynamic thresholds (Choudhury & Hahne 1998): a client may hold as much as is still free, so one client alone gets half,
two get a third each, and something is always left for the next. Its only request may take all that is free.
"""

from __future__ import annotations

from rmkit.serve.http.problems import HttpError


class ByteBudget:
    """`pending` bytes of at most `total` are held now."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.pending = 0
        self._held: dict[str, int] = {}

    def check(self, client: str, size: int, *, own: int = 0) -> None:
        """Raise HttpError (429) where `size` bytes more are too many; `own` of this request count already."""
        free = self.total - self.pending - size
        held = self._held.get(client, 0)
        if free < 0:
            raise HttpError(429, "too many bytes are being answered; try again later", retry_after_s=1)
        if held > own and held + size > free:
            raise HttpError(429, "too many bytes of yours are being answered; try again later", retry_after_s=1)

    def take(self, client: str, size: int) -> None:
        self.pending += size
        self._held[client] = self._held.get(client, 0) + size

    def give_back(self, client: str, size: int) -> None:
        self.pending -= size
        if left := self._held.get(client, 0) - size:
            self._held[client] = left
        else:
            self._held.pop(client, None)
