"""What requests would cost, without asking anybody: the dry runs of all commands that call models."""

from __future__ import annotations

from collections.abc import Iterable

from rmkit.generate.call_cache import IN_BATCH, KIND
from rmkit.generate.request import Generator, Request
from rmkit.ledger import Ledger

CHARACTERS_PER_TOKEN = 4


def estimate(requests: Iterable[Request], generator: Generator, ledger: Ledger) -> dict[str, object]:
    """JSON-ready: calls, how many of them are paid already or wait in a batch, and what the others take: prompt tokens
    about (4 characters a token), completion tokens and dollars at most (every reply as long as allowed).
    """
    result = {"calls": 0, "paid_before": 0, "in_batches": 0, "about_prompt_tokens": 0, "at_most_completion_tokens": 0}
    for request in requests:
        result["calls"] += 1
        key = request.key(generator.name)
        if ledger.record(KIND, key):
            result["paid_before"] += 1
            continue
        if (waiting := ledger.record(IN_BATCH, key)) and waiting.value["folder"]:
            result["in_batches"] += 1
            continue
        result["about_prompt_tokens"] += request.characters // CHARACTERS_PER_TOKEN
        result["at_most_completion_tokens"] += request.max_tokens
    usd = generator.prices.usd(result["about_prompt_tokens"], result["at_most_completion_tokens"])
    return result | {"at_most_about_usd": round(usd, 4)}
