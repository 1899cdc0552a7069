"""One client's connection: uvicorn's, which a client cannot hold open without asking anything.

uvicorn waits without end for the rest of a request's head, and for that of a body that was refused already.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rmkit.serve.settings import ServeSettings

MAX_HEAD_BYTES = 64 * 1024
_REFUSAL = b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """`settings` is the process's own: uvicorn is given the class, by name where it starts several processes."""

    settings = ServeSettings()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_bytes: int | None = 0  # None while no head is being read
        self._deadline: asyncio.TimerHandle | None = None
        self._close_after(self.settings.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")
        elif self.cycle.response_complete and self._deadline is None:  # the rest of a body that was refused
            self._close_after(self.settings.body_timeout_s)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._deadline is None:  # the first head's began with the connection
            self._close_after(self.settings.header_timeout_s)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head_bytes = None
        self._stop()

    def _close_after(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._refuse, b"408 Request Timeout")

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: bytes) -> None:
        self._stop()
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:  # never into another answer
                self.transport.write(_REFUSAL % status)
            self.transport.close()
