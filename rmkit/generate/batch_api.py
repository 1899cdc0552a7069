"""A provider's batch API in OpenAI's form: files up, batches created, asked for and found again, results down.

    POST /files  GET /files/ID/content        POST /batches  GET /batches/ID  GET /batches?after=ID

Creating a batch is the one call that costs money, so it is never repeated blindly: after an attempt whose end is
unknown the provider's list is searched for a batch with this file's hash in its metadata.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from rmkit.atomic import draft_file
from rmkit.errors import EndpointError

MARK = "rmkit_sha256"
ENDPOINT = "/v1/chat/completions"
OVER = ("completed", "failed", "expired", "cancelled", "gone")  # a batch in such a state gives no more answers
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as its provider sees it; `gone` where the provider knows it no more."""

    id: str
    status: str
    output_file: str = ""
    error_file: str = ""
    completed: int = 0
    total: int = 0
    reason: str = ""


class _UnsureError(Exception):
    """An attempt whose end is unknown or that may succeed later."""

    def __init__(self, why: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class BatchApi:
    """`base_url` as for chat completions, ending in /v1. The key appears in no message."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        attempts: int = 5,
        wait_s: float = 0.5,
        timeout_s: float = 120.0,
    ) -> None:
        self._url = base_url.rstrip("/")
        self._key = key
        self._attempts = attempts
        self._wait_s = wait_s
        local = urlsplit(base_url).hostname in ("localhost", "127.0.0.1", "::1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=timeout_s, trust_env=not local)

    def upload(self, path: Path) -> str:
        """The id of the uploaded file. Raises EndpointError."""

        def attempt() -> str:
            with path.open("rb") as file:
                files = {"file": (path.name, file, "application/jsonl")}
                answer = self._ask("POST", "/files", data={"purpose": "batch"}, files=files)
            return self._text(answer, "id")

        return self._patiently(attempt)

    def create(self, file_id: str, sha256: str, *, window: str) -> Batch:
        """A new batch over an uploaded file, or the one that an attempt before made. Raises EndpointError."""

        def attempt() -> Batch:
            body = {
                "input_file_id": file_id,
                "endpoint": ENDPOINT,
                "completion_window": window,
                "metadata": {MARK: sha256},
            }
            return self._batch(self._ask("POST", "/batches", json=body))

        for number in range(1, self._attempts + 1):
            try:
                return attempt()
            except _UnsureError as error:
                if number == self._attempts:
                    raise EndpointError(self._given_up(error)) from None
                self._sleep(number, error)
                if batch := self.find(sha256):
                    return batch
        raise AssertionError("attempts are at least 1")

    def find(self, sha256: str) -> Batch | None:
        """The batch over a file of this hash, None where the provider's whole list holds none. Raises EndpointError."""
        after = ""
        while True:
            query = {"limit": "100"} | ({"after": after} if after else {})
            answer = self._patiently(lambda query=query: self._ask("GET", "/batches", params=query))  # type: ignore[misc]
            listed = [one for one in answer.get("data") or () if isinstance(one, Mapping)]
            for one in listed:
                if isinstance(one.get("metadata"), Mapping) and one["metadata"].get(MARK) == sha256:
                    return self._batch(one)
            if not answer.get("has_more") or not listed or str(listed[-1].get("id")) == after:
                return None
            after = str(listed[-1].get("id"))

    def batch(self, batch_id: str) -> Batch:
        """The batch as it is now. Raises EndpointError."""
        try:
            return self._batch(self._patiently(lambda: self._ask("GET", f"/batches/{batch_id}", absent_ok=True)))
        except FileNotFoundError:
            return Batch(batch_id, "gone")

    def download(self, file_id: str, target: Path) -> None:
        """Write a file's content, whole or not at all. Raises EndpointError."""

        def attempt() -> None:
            try:
                with (
                    draft_file(target) as draft,
                    self._client.stream("GET", f"{self._url}/files/{file_id}/content") as answer,
                ):
                    if answer.status_code != 200:
                        answer.read()
                        self._refuse(answer)
                    with draft.open("wb") as file:
                        for piece in answer.iter_bytes():
                            file.write(piece)
            except httpx.TransportError as error:
                raise _UnsureError(f"the connection broke off ({type(error).__name__})") from None

        self._patiently(attempt)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _patiently(self, attempt: Callable[[], Answer]) -> Answer:
        for number in range(1, self._attempts):
            try:
                return attempt()
            except _UnsureError as error:
                self._sleep(number, error)
        try:
            return attempt()
        except _UnsureError as error:
            raise EndpointError(self._given_up(error)) from None

    def _given_up(self, error: _UnsureError) -> str:
        return f"{self._url} does not answer after {self._attempts} attempts: {error}; repeat the command, it goes on"

    def _sleep(self, number: int, error: _UnsureError) -> None:
        time.sleep(min(error.retry_after_s, 30.0) + random.uniform(0, self._wait_s * 2 ** (number - 1)))

    def _ask(self, method: str, path: str, *, absent_ok: bool = False, **options: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, self._url + path, **options)
        except httpx.TransportError as error:
            raise _UnsureError(f"{method} {path}: {type(error).__name__}") from None
        if absent_ok and answer.status_code == 404:
            raise FileNotFoundError(path)
        if answer.status_code not in (200, 201):
            self._refuse(answer)
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise _UnsureError(f"{method} {path}: the answer is no JSON object")
        return document

    def _refuse(self, answer: httpx.Response) -> None:
        status, where = answer.status_code, f"{answer.request.method} {answer.request.url.path}"
        why = f"HTTP {status}: {self._words(answer)}"
        if status in (408, 425, 429) or status >= 500:
            after = answer.headers.get("Retry-After", "")
            raise _UnsureError(f"{where}: {why}", retry_after_s=float(after) if after.isdigit() else 0.0)
        hint = {401: "check the variable that key_env names", 404: "check base_url: has this provider a batch API?"}
        raise EndpointError(f"{where}: {why}; {hint.get(status, 'the provider refuses it')}")

    def _words(self, answer: httpx.Response) -> str:
        text = answer.text
        try:
            document = answer.json()
            error = document.get("error", document) if isinstance(document, dict) else document
            text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        except ValueError:
            pass
        return " ".join((text.replace(self._key, "***") if self._key else text).split())[:200] or "no reason given"

    def _batch(self, document: Mapping[str, Any]) -> Batch:
        counts = document.get("request_counts")
        counts = counts if isinstance(counts, Mapping) else {}
        errors = document.get("errors")
        listed = errors.get("data") if isinstance(errors, Mapping) else None
        first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], Mapping) else {}
        return Batch(
            id=self._text(document, "id"),
            status=self._text(document, "status").lower(),
            output_file=str(document.get("output_file_id") or ""),
            error_file=str(document.get("error_file_id") or ""),
            completed=int(counts.get("completed") or 0),
            total=int(counts.get("total") or 0),
            reason=str(first.get("message") or ""),
        )

    def _text(self, document: Mapping[str, Any], key: str) -> str:
        value = document.get(key)
        if not isinstance(value, str) or not value:
            raise EndpointError(f"{self._url}: the answer has no {key!r}; this is no batch API in OpenAI's form")
        return value
