"""A webhook's receiver on loopback, in a thread: it keeps what it takes and refuses as often as it is told to."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    def __init__(self) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.refuse = 0  # so many times from now on
        self.status = 500
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.refuse -= 1
                if outer.refuse >= 0:
                    self.send_response(outer.status)
                else:
                    outer.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
                    self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
