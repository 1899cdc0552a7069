"""A planted arithmetic task: chains of additions and multiplications modulo a number (10), one line a step.

    3+4*2-5   ->   3+4=7 / 7*2=4 / 4-5=9 / #### 9

The policy is scripted, not trained: each step is wrong with a probability that grows with the problem's difficulty, and
what follows goes on from the wrong number. A wrong chain may still end right, by a second error or a factor that hides
the first. Which step is the first wrong one is therefore known. Replies follow from prompt, prefix and seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rmkit.generate import Prices, Request, Sample
from rmkit.ids import content_hash, messages_json
from rmkit.types import Candidates, Completion, Message

OPERATIONS = ("+", "-", "*")


@dataclass(frozen=True, slots=True)
class Chain:
    """A problem: the first number, and what is done to it; `error` is the policy's chance to get a step wrong."""

    first: int
    rest: tuple[tuple[str, int], ...]
    error: float
    modulus: int = 10

    @property
    def text(self) -> str:
        return str(self.first) + "".join(f"{sign}{number}" for sign, number in self.rest)

    @property
    def answer(self) -> int:
        value = self.first
        for sign, number in self.rest:
            value = applied(value, sign, number, self.modulus)
        return value

    @property
    def item(self) -> Candidates:
        nothing = Completion((Message("assistant", ""),))
        return Candidates((Message("user", self.text),), (nothing,), reference=str(self.answer))

    def first_error(self, steps: Sequence[str]) -> int:
        """The index of the first wrong step, -1 where there is none."""
        value = self.first
        for at, (step, (sign, number)) in enumerate(zip(steps, self.rest, strict=False)):
            value = applied(value, sign, number, self.modulus)
            if not step.strip().endswith(f"={value}"):
                return at
        return -1 if len(steps) <= len(self.rest) or steps[-1].strip() == f"#### {value}" else len(self.rest)


def applied(value: int, sign: str, number: int, modulus: int = 10) -> int:
    return (value + number if sign == "+" else value - number if sign == "-" else value * number) % modulus


def chains(n: int, *, length: int, errors: Sequence[float], seed: int) -> list[Chain]:
    """Problems of the error rates in turn."""
    draw = random.Random(seed)
    return [
        Chain(
            draw.randrange(10),
            tuple((draw.choice(OPERATIONS), draw.randrange(1, 10)) for _ in range(length)),
            errors[at % len(errors)],
        )
        for at in range(n)
    ]


class ScriptedPolicy:
    """Goes on with a begun solution, or begins one; a generator like any other."""

    prices = Prices()
    name = "scripted arithmetic"

    def __init__(self, problems: Sequence[Chain]) -> None:
        self._known = {one.text: one for one in problems}
        self.calls = 0

    async def sample(self, request: Request) -> Sample:
        self.calls += 1
        chain = self._known[request.prompt[0].content]
        begun = [line for line in request.prompt[-1].content.split("\n") if line] if len(request.prompt) > 1 else []
        seed = content_hash(f"{request.seed} {messages_json(request.prompt)}")
        text = "\n".join(self.going_on(chain, begun, random.Random(seed)))
        if request.stop and (at := text.find(request.stop[0])) >= 0:
            text = text[:at]
        return Sample(text=text, completion_tokens=len(text))

    async def close(self) -> None:
        """Nothing is open."""

    @staticmethod
    def going_on(chain: Chain, begun: Sequence[str], draw: random.Random) -> list[str]:
        value = int(begun[-1].split("=")[-1]) if begun and "=" in begun[-1] else chain.first
        if begun and begun[-1].startswith("####"):
            return []
        lines = []
        for sign, number in chain.rest[len(begun) :]:
            right = applied(value, sign, number, chain.modulus)
            wrong = draw.random() < chain.error
            result = draw.choice([one for one in range(chain.modulus) if one != right]) if wrong else right
            lines.append(f"{value}{sign}{number}={result}")
            value = result
        return [*lines, f"#### {value}"]
