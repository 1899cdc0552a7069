"""What engines did and what it cost, in the words that every report uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rmkit.generate.budget import BUDGET_OF


@dataclass(slots=True)
class Tally:
    """What an engine did. `calls` were answered and paid now, `cached` were found, `failed` got no answer."""

    calls: int = 0
    cached: int = 0
    failed: int = 0
    retries: int = 0
    truncated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    cached_tokens: int = 0
    cached_usd: float = 0.0
    perhaps_usd: float = 0.0  # worst case of attempts that broke off: counted against the budget, not in `usd`
    reasons: Counter[str] = field(default_factory=Counter)


def spent(tallies: Iterable[Tally]) -> dict[str, object]:
    """JSON-ready: calls, tokens and dollars of this run, and what was found in the ledger as paid before."""
    result = list(tallies)
    return {
        "paid_calls": sum(one.calls for one in result),
        "found_in_ledger": sum(one.cached for one in result),
        "failed_calls": sum(one.failed for one in result),
        "retries": sum(one.retries for one in result),
        "truncated": sum(one.truncated for one in result),
        "prompt_tokens": sum(one.prompt_tokens for one in result),
        "completion_tokens": sum(one.completion_tokens for one in result),
        "usd": round(sum(one.usd for one in result), 6),
        "tokens_paid_before": sum(one.cached_tokens for one in result),
        "usd_paid_before": round(sum(one.cached_usd for one in result), 6),
        "usd_perhaps_billed_for_broken_calls": round(sum(one.perhaps_usd for one in result), 6),
        "budget_spent": any(reason.startswith(BUDGET_OF) for one in result for reason in one.reasons),
    }
