"""A language model as a reward model: it is shown responses, and its verdicts become scores and comparisons.

    scale, yes_no   each response alone; the value is the mean over votes (yes_no: the probability of yes)
    pairwise        P(a > b) = (p1(a, b) + 1 - p1(b, a)) / 2 with p1 the first slot's probability, mean over votes;
                    orders that disagree make a tie, and swap_gap says by how much (algorithms, section 7)
    listwise        the share of the others that a response beats, mean over votes and both orders

A reply without a readable verdict abstains. Where every vote of an order abstains, the item is unscored with the
reason.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rmkit.chat.reasoning import without_reasoning
from rmkit.errors import DataError
from rmkit.generate import Budget, Engine, Request, Sample
from rmkit.generate.config import open_generator
from rmkit.generate.tally import spent
from rmkit.ids import canonical_json, content_hash
from rmkit.judge.config import JudgeConfig, read_judge
from rmkit.judge.judged import Judged, Vote
from rmkit.judge.profile import Profile, TurnPrompt
from rmkit.judge.prompt_file import BUILT_IN, FOLDER, PromptFile, Shown
from rmkit.judge.reply_reader import read_reply
from rmkit.judge.tally import JudgeTally
from rmkit.judge.verdict import ParsedVerdict, read_pair, read_ranking, read_scale, read_yes_no
from rmkit.ledger import Ledger, open_ledger
from rmkit.plugins import upper
from rmkit.types import Candidates, Comparison, ModelInfo, Score, score_by_comparison, sigmoid

LONGEST_LIST = 26  # letters


@dataclass(frozen=True, slots=True)
class Context:
    """What an item is judged by, beside the conversation."""

    rubric: str = ""
    reference: str = ""


class Judge:
    """A generative reward model. `context` gives each item its rubric and reference; by default they are the item's
    own, but for a rubric of the config, which comes before it."""

    def __init__(
        self,
        config: JudgeConfig,
        engine: Engine,
        *,
        prompt: PromptFile | TurnPrompt | None = None,
        profile: Profile | None = None,
        context: Callable[[Candidates], Context] | None = None,
    ) -> None:
        self.config = config
        self.engine = engine
        self.profile = profile
        self.prompt: PromptFile | TurnPrompt = prompt or (
            profile.prompt() if profile else PromptFile(FOLDER / BUILT_IN[config.form])
        )
        self.tally = JudgeTally()
        self._context = context or self._own_context
        identity = {key: value for key, value in asdict(config).items() if key not in ("name", "prompt", "profile")}
        identity |= {"read": asdict(profile.read)} if profile else {}
        fingerprint = content_hash(canonical_json([engine.generator.name, self.prompt.hash, identity]))
        self.info = ModelInfo(config.name, "generative", config.scale, config.pointwise, fingerprint)

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """See `RewardModel`. A pairwise judge asks all pairs: win_logit scores that hold within their list only."""
        if self.config.form == "pairwise":
            return score_by_comparison(self.compare, batch)
        return [judged.scores() for judged in self.judged(batch)]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """See `RewardModel`. Ratings compare by value (a tie is 0.5), probabilities of yes by the logistic link."""
        if any(len(item.completions) != 2 for item in batch):
            raise ValueError("a comparison takes two completions")
        return [self.comparison_of(judged) for judged in self.judged(batch)]

    def judged(self, items: Iterable[Candidates]) -> Iterator[Judged]:
        """Every item with all its votes, in order; many items are under way at once, memory stays flat.

        Raises EndpointError where no call can be answered. An item that cannot be asked about is unscored.
        """
        return self.judged_under((item, None) for item in items)

    def judged_under(self, items: Iterable[tuple[Candidates, Context | None]]) -> Iterator[Judged]:
        """As `judged`, each item with a context of its own: several rubrics for one prompt, say."""
        for judged in self.engine.each(self._judge, items):
            self.tally.add(judged)
            yield judged

    def comparison_of(self, judged: Judged) -> Comparison:
        """What the judge says about a pair."""
        if not self.info.pointwise:
            return judged.comparison()
        first, second = judged.scores()
        if reason := first.unscored or second.unscored:
            return Comparison.failed(reason)
        if self.config.form == "yes_no":
            return Comparison(p_first=sigmoid(_logit(first.value) - _logit(second.value)))
        return Comparison(p_first=(1 + (first.value > second.value) - (first.value < second.value)) / 2)

    def requests(self, item: Candidates, context: Context | None = None) -> list[tuple[tuple[int, ...], Request]]:
        """All calls about an item: the order shown, and what is asked. Raises DataError where it cannot be shown."""
        if len(item.completions) > LONGEST_LIST and self.config.form == "listwise":
            raise DataError(f"a listwise judge shows at most {LONGEST_LIST} responses, got {len(item.completions)}")
        context = context or self._context(item)
        if self.profile and self.profile.needs_rubric and not context.rubric:
            raise DataError(f"{self.profile.name} judges by a rubric; neither the item nor the judge brings one")
        results = []
        for shown in self._orders(len(item.completions)):
            what = Shown(
                responses=tuple(item.completions[i] for i in shown), rubric=context.rubric, reference=context.reference
            )
            request = self._request(item, what)
            results += [(shown, vote) for vote in request.samples(self.config.votes)]
        return results

    def report(self) -> dict[str, Any]:
        """What every report of a judge states about all it judged so far, JSON-ready (see `tally`)."""
        return self.tally.report() | spent([self.engine.tally])

    def close(self) -> None:
        """End the engine's thread and connections."""
        self.engine.close()

    def _request(self, item: Candidates, shown: Shown) -> Request:
        config = self.config
        settings = {"lowest": config.lowest, "highest": config.highest, "ties": config.ties}
        conversation, shown = item.prompt, replace(shown, tools=item.tools)
        if config.reasoning == "strip":
            conversation = tuple(map(without_reasoning, conversation))
            answers = (replace(one, messages=tuple(map(without_reasoning, one.messages))) for one in shown.responses)
            shown = replace(shown, responses=tuple(answers))
        return Request(
            prompt=self.prompt.render(conversation, shown, settings=settings),
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_logprobs=0 if config.verdict == "parse" or config.form == "listwise" else config.top_logprobs,
        )

    def _orders(self, n: int) -> list[tuple[int, ...]]:
        if self.info.pointwise:
            return [(i,) for i in range(n)]
        order = tuple(range(n))
        return [order] if self.config.orders == "given" or n == 1 else [order, order[::-1]]

    def _own_context(self, item: Candidates) -> Context:
        if not item.rubric:
            return Context(rubric=self.config.rubric, reference=item.reference or "")
        result: Context = upper("item_context")(item, rubric=self.config.rubric)
        return result

    async def _judge(self, work: tuple[Candidates, Context | None]) -> Judged:
        item, context = work
        try:
            requests = self.requests(item, context)
        except (DataError, UnicodeError) as error:  # half a surrogate pair, a list too long: one item, not the batch
            return self._unasked(item, f"cannot be asked: {error}")
        if len(requests) == 1:  # a task and a future less
            samples = [await self.engine.sample(requests[0][1])]
        else:
            samples = await asyncio.gather(*(self.engine.sample(request) for _, request in requests))
        votes = [
            Vote(shown, sample, self._read(sample, len(shown)))
            for (shown, _), sample in zip(requests, samples, strict=True)
        ]
        return Judged(item, tuple(votes))

    def _unasked(self, item: Candidates, why: str) -> Judged:
        failed = Sample.failed(why)
        orders = self._orders(len(item.completions))
        return Judged(item, tuple(Vote(shown, failed, ParsedVerdict(unread=why)) for shown in orders))

    def _read(self, sample: Sample, n: int) -> ParsedVerdict:
        config, use_logprobs = self.config, self.config.verdict == "auto"
        if self.profile:
            limits = float(config.lowest), float(config.highest)
            form, read = config.form, self.profile.read
            return read_reply(sample, read, form=form, n=n, default_range=limits, use_logprobs=use_logprobs)
        match config.form:
            case "pairwise":
                return read_pair(sample, ties=config.ties, use_logprobs=use_logprobs)
            case "yes_no":
                return read_yes_no(sample, use_logprobs=use_logprobs)
            case "scale":
                return read_scale(sample, lowest=config.lowest, highest=config.highest, use_logprobs=use_logprobs)
            case "listwise":
                return read_ranking(sample, n=n)


def _logit(p: float) -> float:
    clipped = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(clipped) - math.log1p(-clipped)


def load_judge(
    path: Path,
    *,
    ledger: Ledger | None = None,
    max_usd: float | None = None,
    max_tokens: int | None = None,
    context: Callable[[Candidates], Context] | None = None,
) -> Judge:
    """The judge of a TOML file, its calls cached in `ledger` (default: this home's).

    Raises ConfigError where file, prompt or key are wrong. Close it when done.
    """
    config, generator, profile = read_judge(path)
    prompt = PromptFile(path.parent / config.prompt) if config.prompt else None
    engine = Engine(
        open_generator(generator),
        ledger=ledger or open_ledger(),
        budget=Budget(max_usd=max_usd, max_tokens=max_tokens),
        limits=generator.limits,
        purpose=f"judge {config.name}",
    )
    return Judge(config, engine, prompt=prompt, profile=profile, context=context)
