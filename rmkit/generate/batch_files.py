"""Requests as files of a provider's batch API, answers from there into the cache of paid calls, at half the price.

    FOLDER/batch.json              which generator, which files, how far each is
    FOLDER/requests-0001.jsonl     a line a request; its custom_id is the request's key in the cache
    FOLDER/results-0001.jsonl      what the provider gave back; errors-0001.jsonl what it did not answer

A file goes from `written` to `uploaded`, `creating` (the call that costs money is under way), the provider's own
states, and `collected`. Each step is on disk before the next, so a command that was killed goes on where it was; while
a request waits in a submitted batch, nothing else asks it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rmkit.atomic import draft_file, write_text
from rmkit.config import build, read_object
from rmkit.errors import BusyError, DataError, UsageError
from rmkit.generate.batch_api import OVER, BatchApi
from rmkit.generate.call_cache import IN_BATCH, KIND, call_record
from rmkit.generate.config import GeneratorConfig
from rmkit.generate.endpoint import EndpointGenerator
from rmkit.generate.request import Request
from rmkit.ids import file_sha256
from rmkit.ledger import Ledger, Record
from rmkit.types import Message

MANIFEST = "batch.json"
MOST_LINES, MOST_BYTES = 50_000, 200_000_000  # of a file, at OpenAI
PRICE = 0.5  # of a batched call, by that of a call
STORED_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFile:
    """One file of requests. `answered` are in the cache of calls now; `left` by reason were not answered."""

    name: str
    sha256: str
    lines: int
    bytes: int
    status: str = "written"
    file_id: str = ""
    batch_id: str = ""
    answered: int = 0
    left: dict[str, int] = field(default_factory=dict)
    usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFolder:
    """A folder's manifest. `purpose` labels the calls in the bill."""

    generator: GeneratorConfig
    name: str
    purpose: str
    files: tuple[BatchFile, ...] = ()

    def save(self, folder: Path) -> None:
        """Write the manifest."""
        write_text(folder / MANIFEST, json.dumps({"format": 1, **asdict(self)}, indent=2, ensure_ascii=False) + "\n")

    def with_file(self, file: BatchFile) -> BatchFolder:
        """The same with this file in the place of its namesake."""
        return replace(self, files=tuple(file if one.name == file.name else one for one in self.files))


@dataclass(frozen=True, slots=True)
class Written:
    """What `write` did: requests by what became of them, and the most that the new lines can cost (already halved)."""

    files: int
    lines: int
    paid_before: int
    in_batches: int
    over_budget: int
    at_most_usd: float


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder for this process alone: two that submit it at once would pay twice. Raises BusyError, UsageError."""
    read_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError(f"another process works on {folder}; wait for it") from None
    finally:
        os.close(descriptor)


def read_folder(folder: Path) -> BatchFolder:
    """The manifest. Raises UsageError where there is none, DataError or ConfigError where it is damaged."""
    if not (folder / MANIFEST).is_file():
        raise UsageError(f"{folder} holds no {MANIFEST}; begin with: rmkit judge batch write JUDGE DATA -o {folder}")
    document = read_object(folder / MANIFEST, raises=DataError, hint="write the batch again into a new folder")
    document.pop("format", None)
    return build(BatchFolder, document, where=str(folder / MANIFEST))


def write(
    folder: Path,
    requests: Iterable[Request],
    *,
    generator: EndpointGenerator,
    config: GeneratorConfig,
    ledger: Ledger,
    purpose: str,
    max_usd: float | None = None,
    most_lines: int = MOST_LINES,
    most_bytes: int = MOST_BYTES,
) -> Written:
    """Add files with the requests that are neither answered nor waiting in a batch, this folder's or another's.

    Raises UsageError where the folder is another generator's, DataError for a request larger than a file may be.
    """
    if (folder / MANIFEST).is_file():
        state = read_folder(folder)
        if state.name != generator.name:
            raise UsageError(f"{folder} holds requests to {state.name}, not to {generator.name}; name another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists and is no batch; name another folder with -o")
    else:
        state = BatchFolder(generator=config, name=generator.name, purpose=purpose)
        folder.mkdir(parents=True, exist_ok=True)
    waiting = {key for file in state.files if file.status != "collected" for key in keys_of(folder / file.name)}
    counts: Counter[str] = Counter()
    usd = 0.0

    def lines() -> Iterator[bytes]:
        nonlocal usd
        for request in requests:
            key = request.key(generator.name)
            in_batch = ledger.record(IN_BATCH, key)
            if ledger.record(KIND, key):
                counts["paid_before"] += 1
            elif key in waiting or (in_batch and in_batch.value["folder"]):
                counts["in_batches"] += 1
            else:
                worst = PRICE * generator.prices.usd(request.most_tokens, request.max_tokens)
                if max_usd is not None and usd + worst > max_usd:
                    counts["over_budget"] += 1
                    continue
                usd += worst
                waiting.add(key)
                counts["lines"] += 1
                yield _line(key, generator.whole_body(request))

    new = list(_split(folder, lines(), len(state.files), most_lines, most_bytes))
    replace(state, files=(*state.files, *new)).save(folder)
    return Written(
        len(new), counts["lines"], counts["paid_before"], counts["in_batches"], counts["over_budget"], round(usd, 6)
    )


def _line(key: str, body: Mapping[str, Any]) -> bytes:
    line = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": dict(body)}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _split(folder: Path, lines: Iterator[bytes], n: int, most_lines: int, most_bytes: int) -> Iterator[BatchFile]:
    line = next(lines, None)
    while line is not None:
        n += 1
        path = folder / f"requests-{n:04d}.jsonl"
        count = size = 0
        with draft_file(path) as draft, draft.open("wb") as file:
            while line is not None and count < most_lines and size + len(line) <= most_bytes:
                file.write(line)
                count, size = count + 1, size + len(line)
                line = next(lines, None)
            if not count:
                raise DataError(
                    f"a request has {len(line or b'')} bytes, a file may have {most_bytes}; raise --max-bytes"
                )
        yield BatchFile(name=path.name, sha256=file_sha256(path), lines=count, bytes=size)


def keys_of(path: Path) -> list[str]:
    """The custom ids of a file of requests."""
    with path.open("rb") as file:
        return [str(json.loads(line)["custom_id"]) for line in file]


def submit(folder: Path, api: BatchApi, ledger: Ledger, *, window: str = "24h") -> BatchFolder:
    """Upload every file and create its batch, going on where an earlier attempt ended.

    Raises EndpointError as `BatchApi`; what was reached until then is kept.
    """
    state = read_folder(folder)
    for file in state.files:
        if file.status not in ("written", "uploaded", "creating"):
            continue
        if file.status == "written":
            file = _without_paid(folder, file, ledger)
            state = state.with_file(file)
            state.save(folder)
            if file.status == "collected":
                continue
        if file_sha256(folder / file.name) != file.sha256:
            raise DataError(f"{folder / file.name} was changed since it was written; write the batch into a new folder")
        if file.status == "creating" and (known_batch := api.find(file.sha256)):
            state = state.with_file(replace(file, status=known_batch.status, batch_id=known_batch.id))
            state.save(folder)
            continue
        if file.status == "written":
            file = replace(file, status="uploaded", file_id=api.upload(folder / file.name))
            state = state.with_file(file)
            state.save(folder)
        _mark(ledger, keys_of(folder / file.name), str(folder.resolve()))
        state = state.with_file(replace(file, status="creating"))
        state.save(folder)
        batch = api.create(file.file_id, file.sha256, window=window)
        state = state.with_file(replace(file, status=batch.status, batch_id=batch.id))
        state.save(folder)
    return state


def _without_paid(folder: Path, file: BatchFile, ledger: Ledger) -> BatchFile:
    """The file without what was paid for since it was written."""
    path = folder / file.name
    paid = {key for key in keys_of(path) if ledger.record(KIND, key)}
    if not paid:
        return file
    if len(paid) == file.lines:
        return replace(file, status="collected")
    with draft_file(path) as draft, draft.open("wb") as rest, path.open("rb") as lines:
        for line in lines:
            if json.loads(line)["custom_id"] not in paid:
                rest.write(line)
    return replace(file, sha256=file_sha256(path), lines=file.lines - len(paid), bytes=path.stat().st_size)


def _mark(ledger: Ledger, keys: Sequence[str], folder: str) -> None:
    """Say which batch is to answer these requests, "" for none any more."""
    for at in range(0, len(keys), STORED_AT_ONCE):
        ledger.put_many(IN_BATCH, [Record(key, {"folder": folder}, 0) for key in keys[at : at + STORED_AT_ONCE]])


def refresh(folder: Path, api: BatchApi, *, wait_s: float | None = None) -> BatchFolder:
    """Ask the provider how far every batch is; with `wait_s` until all are over, every so many seconds."""
    state = read_folder(folder)
    while True:
        for file in state.files:
            if file.batch_id and file.status != "collected":
                batch = api.batch(file.batch_id)
                left = {"under way": batch.total - batch.completed} if batch.status not in OVER and batch.total else {}
                state = state.with_file(replace(file, status=batch.status, answered=batch.completed, left=left))
        state.save(folder)
        if wait_s is None or all(one.status in (*OVER, "collected", "written") for one in state.files):
            return state
        time.sleep(wait_s)


def collect(folder: Path, api: BatchApi, ledger: Ledger) -> BatchFolder:
    """Put the answers of every batch that is over into the cache of calls, and let go of what it did not answer.

    Repeating it changes nothing; what was paid for meanwhile in another way is left as it is.
    """
    state = refresh(folder, api)
    generator = EndpointGenerator(
        base_url=state.generator.base_url,
        model=state.generator.model,
        prices=state.generator.prices,
        extra=state.generator.extra,
        omit=state.generator.omit,
    )
    for file in state.files:
        if not file.batch_id or file.status == "collected" or file.status not in OVER:
            continue
        batch = api.batch(file.batch_id)
        requests = _requests(folder / file.name)
        answered: set[str] = set()
        wrong: dict[str, str] = {}
        usd = 0.0
        for kind, file_id in (("results", batch.output_file), ("errors", batch.error_file)):
            if file_id:
                path = folder / file.name.replace("requests", kind)
                api.download(file_id, path)
                usd += _store(path, requests, answered, wrong, generator, ledger, state.purpose)
        absent = f"the batch is {batch.status}" + (f": {batch.reason}" if batch.reason else "")
        left = Counter(wrong.get(key, absent) for key in requests if key not in answered)
        _mark(ledger, list(requests), "")
        done = replace(file, status="collected", answered=len(answered), left=dict(left), usd=round(usd, 6))
        state = state.with_file(done)
        state.save(folder)
    return state


def _requests(path: Path) -> dict[str, Request]:
    """Custom id -> as much of its request as reading the answer takes."""
    results = {}
    with path.open("rb") as file:
        for line in file:
            document = json.loads(line)
            body = document["body"]
            prompt = tuple(Message(str(one["role"]), str(one.get("content") or "")) for one in body["messages"])
            results[document["custom_id"]] = Request(prompt=prompt, top_logprobs=int(body.get("top_logprobs") or 0))
    return results


def _store(
    path: Path,
    requests: Mapping[str, Request],
    answered: set[str],
    wrong: dict[str, str],
    generator: EndpointGenerator,
    ledger: Ledger,
    purpose: str,
) -> float:
    """Store the answers of a file of results; dollars of the new ones. Adds to `answered`, and to `wrong` why not."""
    usd, records = 0.0, []
    with path.open("rb") as lines:
        for line in lines:
            key, body, why = _parsed(line)
            if key not in requests or key in answered:
                continue  # another's, or the same again
            if body is None:
                wrong[key] = why
                continue
            answered.add(key)
            if ledger.record(KIND, key):
                continue
            sample = generator.read(body, requests[key])
            sample = replace(sample, usd=PRICE * sample.usd)
            usd += sample.usd
            records.append(call_record(key, sample, generator=generator.name, purpose=purpose))
            if len(records) >= STORED_AT_ONCE:
                ledger.put_many(KIND, records)
                records = []
    ledger.put_many(KIND, records)
    return usd


def _parsed(line: bytes) -> tuple[str, dict[str, Any] | None, str]:
    """A result's custom id, its chat completion, and why there is none."""
    body: Any = None
    try:
        document = json.loads(line)
        key, response = str(document["custom_id"]), document.get("response") or {}
        body = response.get("body")
        error = document.get("error")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", None, "a line that cannot be read"
    try:
        if response["status_code"] == 200 and isinstance(body["choices"][0]["message"], dict):
            return key, body, ""
    except (KeyError, IndexError, TypeError):
        pass
    inner = error or (body.get("error") if isinstance(body, dict) else None)
    reason = inner.get("message") or inner.get("code") if isinstance(inner, dict) else inner
    status = response.get("status_code")
    return key, None, " ".join(f"{f'HTTP {status}: ' if status else ''}{reason or 'no chat completion'}".split())[:120]
