"""Replies of a language model to many prompts: what the step `generate` and UPO's loop have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rmkit.generate import Budget, Engine, Generator, Limits, Request, Sample
from rmkit.ledger import Ledger


class Replies(NamedTuple):
    """The distinct texts of one prompt's samples, in the order they came, and why the other samples failed."""

    texts: tuple[str, ...]
    errors: tuple[str, ...]


def sampled_replies(
    generator: Generator,
    requests: Sequence[Request],
    n: int,
    *,
    ledger: Ledger,
    purpose: str,
    limits: Limits | None = None,
    budget: Budget | None = None,
) -> list[Replies]:
    """`n` samples of every request, one result each in order. Calls are kept in the ledger and are never made twice.

    Empty replies count as failures. Raises EndpointError where no request can be answered; what was answered is kept.
    """
    with Engine(generator, ledger=ledger, purpose=purpose, limits=limits, budget=budget) as engine:
        answers = engine.samples([one for request in requests for one in request.samples(n)])
    results = []
    for at in range(0, len(answers), n):
        drawn = answers[at : at + n]
        texts = dict.fromkeys(one.text for one in drawn if _failure(one) is None)
        errors = [why for one in drawn if (why := _failure(one)) is not None]
        results.append(Replies(tuple(texts), tuple(errors)))
    return results


def _failure(sample: Sample) -> str | None:
    """A reply that was cut off, or a refusal, is a reply all the same."""
    if sample.finish in ("error", "malformed"):
        return sample.no_reply
    return None if sample.text.strip() else "empty reply"
