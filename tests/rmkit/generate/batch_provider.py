"""A provider with a batch API in OpenAI's form on this machine, which fails in the ways that providers do."""

from __future__ import annotations

import email.parser
import email.policy
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], str]


class BatchProvider:
    """`answer` replies to a request's body. `faults` are taken one by one, by "METHOD /path": a status, "cut" (the work
    is done, the connection breaks) or "hang" (the work is done, nothing comes back). `finish` turns the right result
    lines of a batch into its status, its output and its errors."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.faults: dict[str, list[Any]] = {}
        self.finish: Callable[[list[dict[str, Any]]], tuple[str, str, str]] = lambda lines: (
            "completed",
            dumped(lines),
            "",
        )
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.asked: Counter[str] = Counter()  # custom_id -> how often it was paid in a batch
        self.chats = 0
        self.hanging = threading.Event()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                provider._serve(self, "GET")

            def do_POST(self) -> None:
                provider._serve(self, "POST")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def run(self) -> None:
        """Work on every batch that waits."""
        for batch in self.batches.values():
            if batch["status"] == "validating":
                lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
                self.asked.update(line["custom_id"] for line in lines)
                status, output, errors = self.finish([result_of(line, self.answer(line["body"])) for line in lines])
                batch |= {
                    "status": status,
                    "request_counts": {"total": len(lines), "completed": len(lines), "failed": 0},
                }
                for name, text in (("output_file_id", output), ("error_file_id", errors)):
                    if text:
                        batch[name] = f"file-{len(self.files)}"
                        self.files[batch[name]] = text.encode()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _serve(self, request: Any, method: str) -> None:
        path, _, query = request.path.removeprefix("/v1").partition("?")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        kind = f"{method} /{path.strip('/').split('/')[0]}" + ("/content" if path.endswith("/content") else "")
        self.calls[kind] += 1
        self.keys.add(request.headers.get("Authorization", ""))
        fault = self.faults[kind].pop(0) if self.faults.get(kind) else None
        if isinstance(fault, int):
            message = f"no, {request.headers.get('Authorization')}"
            return self._send(request, fault, json.dumps({"error": {"message": message}}).encode())
        status, content = self._work(method, path, query, request, body)
        if fault == "hang":
            self.hanging.set()
            time.sleep(30)
        return self._send(request, status, content, cut=fault == "cut")

    def _work(self, method: str, path: str, query: str, request: Any, body: bytes) -> tuple[int, bytes]:
        match method, path.strip("/").split("/"):
            case "POST", ["chat", "completions"]:
                self.chats += 1
                return 200, json.dumps(completion(self.answer(json.loads(body)))).encode()
            case "POST", ["files"]:
                head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
                parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
                fields = {part.get_param("name", header="content-disposition"): part for part in parts.iter_parts()}
                assert fields["purpose"].get_content().strip() == "batch"
                name = f"file-{len(self.files)}"
                self.files[name] = fields["file"].get_payload(decode=True)
                return 200, json.dumps({"id": name, "object": "file"}).encode()
            case "GET", ["files", name, "content"]:
                return 200, self.files[name]
            case "POST", ["batches"]:
                asked = json.loads(body)
                assert asked["endpoint"] == "/v1/chat/completions"
                name = f"batch_{len(self.batches)}"
                self.batches[name] = {
                    "id": name,
                    "status": "validating",
                    "request_counts": None,
                    "errors": None,
                    **asked,
                }
                return 200, json.dumps(self.batches[name]).encode()
            case "GET", ["batches"]:  # two a page, newest first
                listed = list(self.batches.values())[::-1]
                after = dict(one.split("=") for one in query.split("&")).get("after")
                start = 1 + [one["id"] for one in listed].index(after) if after else 0
                page = {"data": listed[start : start + 2], "has_more": start + 2 < len(listed)}
                return 200, json.dumps(page).encode()
            case "GET", ["batches", name] if name in self.batches:
                return 200, json.dumps(self.batches[name]).encode()
            case _:
                return 404, json.dumps({"error": {"message": f"nothing at {path}"}}).encode()

    def _send(self, request: Any, status: int, content: bytes, *, cut: bool = False) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2] if cut else content)
        request.close_connection = request.close_connection or cut


def completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": 500, "completion_tokens": 100}}


def result_of(line: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        "id": f"batch_req_{line['custom_id'][:6]}",
        "custom_id": line["custom_id"],
        "response": {"status_code": 200, "request_id": "r", "body": completion(text)},
        "error": None,
    }


def dumped(lines: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)
