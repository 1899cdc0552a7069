"""How much of an SFT set is luck: stub teachers before admission in one order and in both (algorithms, section 6).

The teacher knows 60% of the items and is right about them in both orders. About the others it

    coin            tosses a fair coin at every call          one order .2 / .8 = 1/4, both .1 / .7 = 1/7
    coin per item   tosses once an item, and keeps to it      one order 1/4, both .2 / .8 = 1/4: asking twice is no help
    first slot      names what stands first                   one order 1/4 (labels are balanced), both 0

"lucky" is the share of admitted items that the teacher did not know. Standard errors are those of a share of
independent items, sqrt(p (1 - p) / n) at the expected p.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from data_pipelines.judge.data.items import Item
from data_pipelines.judge.data.sft import admitted
from rmkit.generate import Engine, Limits, Prices, Request, Sample
from rmkit.judge import Judge, JudgeConfig
from rmkit.types import Candidates, Completion, Message

KNOWN = 0.6
EXPECTED: dict[tuple[str, str], float] = {
    ("coin", "given"): 1 / 4,
    ("coin", "both"): 1 / 7,
    ("coin per item", "given"): 1 / 4,
    ("coin per item", "both"): 1 / 4,
    ("first slot", "given"): 1 / 4,
    ("first slot", "both"): 0.0,
}


def run(n: int, *, seed: int = 0) -> list[dict[str, object]]:
    """One row per teacher and orders asked: admitted, lucky share, expected share, standard errors between them."""
    return [measured(n, guess, orders, seed=seed) for guess, orders in EXPECTED]


def measured(n: int, guess: str, orders: Any, *, seed: int = 0) -> dict[str, object]:
    """The lucky share of what is admitted of n items."""
    draw = random.Random(f"{seed} {guess} {orders}")
    items = [_item(at, draw) for at in range(n)]
    known = {item.id for item in items if draw.random() < KNOWN}
    with Engine(_Teacher(_answers(guess, items, known, draw)), limits=Limits(concurrency=64)) as engine:
        built = admitted(Judge(JudgeConfig(name="teacher"), engine), items, skipped={}, orders=orders)
    ids = {row["id"] for row in built.rows}
    lucky, expected = len(ids - known) / len(ids), EXPECTED[guess, orders]
    error = (expected * (1 - expected) / len(ids)) ** 0.5
    return {
        "guess": guess,
        "orders": "both" if orders == "both" else "one",
        "items": n,
        "admitted": len(ids),
        "rows": len(built.rows),
        "lucky": lucky,
        "expected": expected,
        "standard_errors": abs(lucky - expected) / error if error else float(lucky > 0) and float("inf"),
    }


def _item(at: int, draw: random.Random) -> Item:
    texts = (f"reply {at} one", f"reply {at} two")
    completions = tuple(Completion((Message("assistant", text),)) for text in texts)
    return Item(str(at), Candidates((Message("user", f"request {at}"),), completions), draw.randrange(2), "made")


def _answers(guess: str, items: list[Item], known: set[str], draw: random.Random) -> Callable[[str], str]:
    """Prompt text -> the letter that this teacher says."""
    better = {item.id: item.better for item in items}
    answers = {item.id: draw.randrange(2) for item in items}

    def answer(requests: str) -> str:
        at = requests.split("request ", 1)[1].split("\n", 1)[0]
        first = 0 if requests.index(f"reply {at} one") < requests.index(f"reply {at} two") else 1
        if at in known:
            return "AB"[better[at] != first]
        match guess:
            case "coin":
                return draw.choice("AB")
            case "coin per item":
                return "AB"[answers[at] != first]
        return "A"

    return answer


class _Teacher:
    """A Generator that answers from a function of the prompt's last message."""

    name, prices = "stub teacher", Prices()

    def __init__(self, answer: Callable[[str], str]) -> None:
        self._answer = answer

    async def sample(self, request: Request) -> Sample:
        return Sample(text=f"Compared.\nVerdict: {self._answer(request.prompt[-1].content)}")

    async def close(self) -> None:
        return None
