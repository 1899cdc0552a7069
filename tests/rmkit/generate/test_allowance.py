"""One allowance over several engines, each in a thread and loop of its own."""

from __future__ import annotations

import asyncio

import pytest

from rmkit.errors import BudgetError, UsageError
from rmkit.generate import Engine, Limits, Request, Sample
from rmkit.generate.allowance import allowance, current_allowance
from rmkit.generate.call_cache import bill
from rmkit.generate.request import Prices
from rmkit.ledger import open_ledger
from rmkit.types import Message

REQUEST = Request(prompt=(Message("user", "x"),), max_tokens=10)
USD = 0.25  # what a call really costs


class Scripted:
    """Costs a dollar per token at worst, a quarter in all in fact."""

    def __init__(self, name: str, prices: Prices) -> None:
        self.name, self.prices, self.calls = name, prices, 0

    async def sample(self, request: Request) -> Sample:
        self.calls += 1
        await asyncio.sleep(0.01)
        return Sample(
            text=f"{self.calls}", prompt_tokens=1, completion_tokens=1, usd=USD if self.prices.prompt else 0.0
        )

    async def close(self) -> None:
        pass


def test_two_engines_share_what_is_allowed_and_stop_with_everything_stored(home: object) -> None:
    paid = Prices(prompt=1e6, completion=1e6)
    worst = float(REQUEST.most_tokens + REQUEST.max_tokens)
    first, second, free = Scripted("first", paid), Scripted("second", paid), Scripted("free", Prices())
    with open_ledger() as ledger:
        with allowance("loop x", max_usd=worst + 3 * USD, spent_usd=USD) as allowed:
            engines = [Engine(one, ledger=ledger, limits=Limits(concurrency=8)) for one in (first, second, free)]
            assert len(engines[0].samples(REQUEST.samples(2))) == 2  # one waits for the other: both never fit together
            assert allowed.spent_usd == pytest.approx(3 * USD)
            with pytest.raises(BudgetError, match=r"loop x: .* do not pay for the next call .* larger --max-usd"):
                engines[1].samples(REQUEST.samples(9))
            assert len(engines[2].samples(REQUEST.samples(5))) == 5  # what costs nothing always fits
        stored = bill(ledger)
        again = Engine(second, ledger=ledger)
        again.samples(REQUEST.samples(second.calls))
        assert again.tally.cached == second.calls
    assert current_allowance() is None
    assert {row["purpose"] for row in stored} == {"loop x"}
    assert sum(float(str(row["usd"])) for row in stored) == pytest.approx((first.calls + second.calls) * USD)
    assert (first.calls, second.calls) == (2, 1)  # one was gone, three more: then the worst case no longer fits


def test_an_allowance_is_a_number_of_dollars() -> None:
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="max_usd"), allowance("x", max_usd=wrong):
            pass
