"""Solutions of a prompt and continuations from their prefixes, verified: what trees are grown of.

Calls go through the engine, so they are bounded, paid once and kept in the ledger; what is asked next follows from the
answers alone. A run that was killed therefore asks the same again, finds it paid, and ends with the same samples.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rmkit.chat.steps import in_steps, step_texts
from rmkit.errors import DataError
from rmkit.generate import Engine, Request, Sample
from rmkit.trees.first_error import first_error
from rmkit.types import Candidates, Completion, Message, RewardModel


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`samples` solutions, `continuations` from each prefix that is tried."""

    samples: int
    continuations: int
    adaptive: bool
    separator: str
    right: float = 0.5


@dataclass(slots=True)
class Sampled:
    """A text, what the verifier says of it, and how often it was sampled with so many steps given."""

    text: str
    step_ends: tuple[int, ...]
    outcome: float
    starts: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Samples:
    """All samples of one prompt by their text, how many continuations were asked for, and what failed by reason."""

    by_text: dict[str, Sampled] = field(default_factory=dict)
    continued: int = 0
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Work:
    """One prompt: its item (with the reference), the request for a solution, and solutions that are there already."""

    item: Candidates
    request: Request
    completions: tuple[Completion, ...] = ()


async def sampled(engine: Engine, verifier: RewardModel, plan: Plan, work: Work) -> Samples:
    """The samples of one prompt, from within `engine.each`."""
    return await _Prompt(engine, verifier, plan, work).run()


class _Prompt:
    def __init__(self, engine: Engine, verifier: RewardModel, plan: Plan, work: Work) -> None:
        self._engine = engine
        self._verifier = verifier
        self._plan = plan
        self._work = work
        self._samples = Samples()
        self._tried: dict[str, asyncio.Task[bool]] = {}  # prefixes that solutions share are continued once

    async def run(self) -> Samples:
        texts = [(completion.text, -1) for completion in self._work.completions]
        if not self._work.completions:
            drawn = await asyncio.gather(*map(self._engine.sample, self._work.request.samples(self._plan.samples)))
            texts = [(sample.text, 0) for sample in drawn if self._is_reply(sample)]
        solutions = await self._add(texts)
        if self._plan.adaptive:
            for one in solutions:  # one after the other: what is settled for the next must not depend on the clock
                await self._find_error(one)
        elif self._plan.continuations:
            steps = [step_texts(_completion(one.text, one.step_ends)) for one in solutions]
            await asyncio.gather(*(self._alive(own[:t]) for own in steps for t in range(1, len(own))))
        return self._samples

    async def _find_error(self, solution: Sampled) -> None:
        if math.isnan(solution.outcome) or solution.outcome >= self._plan.right:
            return  # every step of a right solution can still come out right
        steps = step_texts(_completion(solution.text, solution.step_ends))
        search = first_error(len(steps), self._living(steps))
        try:
            middle = next(search)
            while True:
                middle = search.send(await self._alive(steps[:middle]))
        except StopIteration:
            return

    def _living(self, steps: Sequence[str]) -> int:
        """How many of a wrong solution's steps some right sample begins with."""
        keys, most = [step.strip() for step in steps], 0
        for one in self._samples.by_text.values():
            if one.outcome >= self._plan.right:
                own = [step.strip() for step in step_texts(_completion(one.text, one.step_ends))]
                shared = next((i for i, (a, b) in enumerate(zip(keys, own, strict=False)) if a != b), len(own))
                most = max(most, min(shared, len(keys) - 1))
        return most

    async def _alive(self, steps: Sequence[str]) -> bool:
        """Whether a continuation of these steps came out right; they are continued where nobody did yet."""
        prefix = _bare("".join(steps), self._plan.separator)
        if prefix not in self._tried:
            self._tried[prefix] = asyncio.create_task(self._continue(prefix, steps))
        return await self._tried[prefix]

    async def _continue(self, prefix: str, steps: Sequence[str]) -> bool:
        """Adaptively, continuations are drawn in growing batches until one comes out right."""
        request = replace(
            self._work.request,
            prompt=(*self._work.request.prompt, Message("assistant", prefix + self._plan.separator)),
        )
        requests = request.samples(self._plan.continuations)
        batch, alive = (1 if self._plan.adaptive else len(requests)), False
        while requests and not (alive and self._plan.adaptive):
            now, requests = requests[:batch], requests[batch:]
            batch *= 2
            drawn = await asyncio.gather(*map(self._engine.sample, now))
            self._samples.continued += len(drawn)
            texts = []
            for sample in drawn:
                if not self._is_reply(sample, empty=True):
                    continue
                text = joined(steps, sample.text, separator=self._plan.separator)
                if text is None:
                    self._samples.failures["a continuation ignored its prefix"] += 1
                else:
                    texts.append((text, len(steps)))
            added = await self._add(texts)
            alive = alive or any(one.outcome >= self._plan.right for one in added)
        return alive

    async def _add(self, texts: Sequence[tuple[str, int]]) -> list[Sampled]:
        """The samples of (text, steps given), each text once, verified where they are new; -1 means all steps."""
        samples, marked = self._samples, dict[str, Completion]()
        for text in dict.fromkeys(text for text, _ in texts if text not in samples.by_text):
            try:
                marked[text] = in_steps(_completion(text), separator=self._plan.separator)
            except DataError as error:
                samples.failures[str(error)] += 1
        if marked:
            item = self._work.item.of(*marked.values())
            [scores] = await asyncio.to_thread(self._verifier.score, [item])
            for (text, completion), score in zip(marked.items(), scores, strict=True):
                if text in samples.by_text:  # another prefix led to the same text meanwhile
                    continue
                if score.unscored is not None:
                    samples.failures[f"unverifiable: {score.unscored}"] += 1
                samples.by_text[text] = Sampled(text, completion.step_ends, score.value)
        result: dict[str, Sampled] = {}
        for text, start in texts:
            if (one := samples.by_text.get(text)) is not None:
                one.starts[len(one.step_ends) if start < 0 else start] += 1
                result[text] = one
        return list(result.values())

    def _is_reply(self, sample: Sample, *, empty: bool = False) -> bool:
        """A reply that was cut off is one; an `empty` continuation ends its prefix. What is none is counted."""
        why = sample.no_reply if sample.finish in ("error", "malformed") else None
        if why is None and not empty and not sample.text.strip():
            why = "empty reply"
        if why is not None:
            self._samples.failures[why] += 1
        return why is None


def joined(steps: Sequence[str], reply: str, *, separator: str) -> str | None:
    """The whole text of a continuation; None where the reply begins anew instead of going on.

    A reply that repeats the prefix and then goes on is cut; between prefix and reply stands the separator once.
    """
    prefix, rest = _bare("".join(steps), separator), _bare(reply, separator)
    if rest.startswith(prefix):
        rest = _bare(rest[len(prefix) :], separator)
    elif _bare(rest.split(separator, 1)[0], separator) == _bare(steps[0], separator):
        return None
    return prefix + (separator + rest if rest.strip() else "")


def _bare(text: str, separator: str) -> str:
    """Without separators and line breaks at its ends, and without blanks behind."""
    text = text.strip("\n").rstrip()
    mark = separator.strip()
    while mark and text.lstrip().startswith(mark):
        text = text.lstrip()[len(mark) :].lstrip()
    while mark and text.endswith(mark):
        text = text.removesuffix(mark).rstrip()
    return text


def _completion(text: str, step_ends: tuple[int, ...] = ()) -> Completion:
    return Completion((Message("assistant", text),), step_ends=step_ends)
