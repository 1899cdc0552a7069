"""A bucket of moto's S3 server on loopback, behind a proxy that spoils chosen answers.

`Faults.plan` holds what happens to the next requests that fit, each once:

    500, 503        the server's error instead of an answer (503 as S3's SlowDown)
    reset           the connection ends without an answer
    lost            the request is carried out, and the connection ends without an answer
    cut             the answer ends halfway, though its head promises all of it
    short           a whole answer that holds fewer bytes than the object has
    spoil           a whole answer of the right length with other bytes
    slow            the answer comes in drops
    kill            the process `pid` is killed before the request is carried out
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

SECRET = "sEcrEt0fTheB0x"
_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_INTERNAL = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We failed.</Message></Error>"


@dataclass
class Faults:
    """`plan` are (fault, method, pattern of the path); `requests` what came, `struck` what was spoiled."""

    plan: list[tuple[str, str, str]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    pid: int = 0
    kill_at: int = 0  # the change (PUT, POST, DELETE) from now on at which `pid` is killed
    lock: Any = field(default_factory=threading.Lock)

    def next(self, method: str, path: str) -> str:
        with self.lock:
            self.requests.append((method, path))
            if method not in ("GET", "HEAD") and self.kill_at:
                self.kill_at -= 1
                if not self.kill_at:
                    return "kill"
            for rule in self.plan:
                if rule[1] == method and re.search(rule[2], path):
                    self.plan.remove(rule)
                    self.struck.append(rule[0])
                    return rule[0]
        return ""


def proxy(upstream: tuple[str, int], faults: Faults) -> ThreadingHTTPServer:
    """A server that hands requests on and spoils what `faults` plans."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.next(self.command, self.path)
            if fault == "kill":
                os.kill(faults.pid, signal.SIGKILL)
                self.close_connection = True
                return
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            if fault in ("500", "503"):
                self.answer(int(fault), {}, _SLOW_DOWN if fault == "503" else _INTERNAL)
                return
            connection = http.client.HTTPConnection(*upstream, timeout=30)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            heads = {k: v for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding")}
            connection.close()
            if fault == "lost":
                self.close_connection = True
                return
            if fault == "short":
                content = content[:-3]
                heads = {k: v for k, v in heads.items() if k.lower() not in ("content-length", "content-range")}
            if fault == "spoil":
                content = bytes([content[0] ^ 1]) + content[1:]
                heads = {k: v for k, v in heads.items() if "checksum" not in k.lower()}
            self.answer(answer.status, heads, content, fault)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

        def answer(self, status: int, heads: dict[str, str], content: bytes, fault: str = "") -> None:
            self.send_response_only(status)
            for name, value in heads.items():
                self.send_header(name, value)
            if not any(name.lower() == "content-length" for name in heads):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault == "cut":
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return
            step = max(1, len(content) // 5) if fault == "slow" else max(1, len(content))
            for at in range(0, len(content), step):
                self.wfile.write(content[at : at + step])
                self.wfile.flush()
                time.sleep(0.1 if fault == "slow" else 0)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client, or a fault, closed the connection
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@dataclass(frozen=True)
class Bucket:
    """An empty bucket: its address, a plain client (which no fault strikes), and the faults of everybody else."""

    address: str
    faults: Faults
    client: Any

    def names(self, below: str = "") -> list[str]:
        """Names of the objects under a key, in order."""
        root = f"{self.address}/{below}".removeprefix("s3://").rstrip("/")
        return [path.removeprefix(root).strip("/") for path in self.client.find(root)]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[tuple[Any, Faults]]:
    """(moto's server, the faults of a proxy before it); AWS_ENDPOINT_URL names the proxy."""
    s3fs = pytest.importorskip("s3fs")
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    faults = Faults()
    front = proxy(server.get_host_and_port(), faults)
    values = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{front.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "AKIATESTING",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",  # faults meet rmkit's own retries
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # which remember the endpoint of the module before
        yield server, faults
    front.shutdown()
    front.server_close()
    server.stop()


@pytest.fixture
def bucket(s3_server: tuple[Any, Faults]) -> Iterator[Bucket]:
    """A new bucket."""
    import s3fs

    server, faults = s3_server
    host, port = server.get_host_and_port()
    client = s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}", use_listings_cache=False)
    name = f"b{uuid.uuid4().hex[:12]}"
    client.mkdir(name)
    faults.plan.clear()
    faults.requests.clear()
    faults.struck.clear()
    yield Bucket(f"s3://{name}", faults, client)
    faults.plan.clear()
