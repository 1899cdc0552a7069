"""The cache of paid calls, which is also the bill: one ledger record of kind `call` per answered request.

An answer is handed on only after its record is on disk, so a run that was killed finds everything it has used. Calls
that were under way when it died are unknown to both sides and made again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rmkit.generate.request import Sample, TokenLogprobs
from rmkit.ledger import Ledger, Record

KIND = "call"
IN_BATCH = "call_in_batch"  # request key -> the folder of the submitted batch that will answer it, "" when it is over
GATHER_S = 0.005  # how long an answer waits for others to share its commit: a model takes longer anyway


class CallCache:
    """Answers by request key. Used from one event loop; writes of a moment share one commit."""

    def __init__(self, ledger: Ledger, *, purpose: str) -> None:
        self._ledger = ledger
        self._purpose = purpose
        self._waiting: list[tuple[Record, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    def get(self, key: str) -> Sample | None:
        """The answer paid before, marked as cached."""
        record = self._ledger.record(KIND, key)
        return None if record is None else _decoded(record.value)

    def batch_of(self, key: str) -> str:
        """The folder of the submitted batch that is to answer this request, "" where there is none."""
        record = self._ledger.record(IN_BATCH, key)
        return "" if record is None else str(record.value["folder"])

    async def put(self, key: str, sample: Sample, *, generator: str) -> None:
        """Returns when the answer is on disk. Errors as `Ledger.put`."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((call_record(key, sample, generator=generator, purpose=self._purpose), stored))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await stored

    async def _write(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            group, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await asyncio.to_thread(self._ledger.put_many, KIND, [record for record, _ in group])
            except Exception as raised:
                error = raised
            for _, stored in group:
                if not stored.done():  # its caller may have been cancelled meanwhile
                    stored.set_exception(error) if error else stored.set_result(None)


def call_record(key: str, sample: Sample, *, generator: str, purpose: str) -> Record:
    """What the ledger keeps of an answered request."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Record(key, _encoded(sample) | {"generator": generator, "purpose": purpose, "time": now}, 0)


def bill(ledger: Ledger) -> list[dict[str, object]]:
    """What was ever paid: one row per generator and purpose with calls, tokens and dollars, dearest first."""
    rows: dict[tuple[str, str], dict[str, Any]] = defaultdict(
        lambda: {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0}
    )
    for record in ledger.records(KIND):
        row = rows[record.value["generator"], record.value["purpose"]]
        row["calls"] += 1
        for name in ("prompt_tokens", "completion_tokens", "usd"):
            row[name] += record.value[name]
    listed = [{"generator": generator, "purpose": purpose} | row for (generator, purpose), row in rows.items()]
    return sorted(listed, key=lambda row: (-row["usd"], row["generator"], row["purpose"]))


def _encoded(sample: Sample) -> dict[str, object]:
    return {
        "text": sample.text,
        "finish": sample.finish,
        "prompt_tokens": sample.prompt_tokens,
        "completion_tokens": sample.completion_tokens,
        "logprobs": [[token.token, token.logprob, [list(pair) for pair in token.top]] for token in sample.logprobs],
        "usd": sample.usd,
        "seconds": sample.seconds,
    }


def _decoded(value: Mapping[str, Any]) -> Sample:
    return Sample(
        text=value["text"],
        finish=value["finish"],
        prompt_tokens=value["prompt_tokens"],
        completion_tokens=value["completion_tokens"],
        logprobs=tuple(
            TokenLogprobs(token, logprob, tuple((name, p) for name, p in top))
            for token, logprob, top in value["logprobs"]
        ),
        usd=value["usd"],
        seconds=value["seconds"],
        cached=True,
    )
