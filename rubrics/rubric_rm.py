"""Rubric-RM (OpenRubrics, arXiv 2510.07743): a writer gives each request its rubric, a judge decides under it.

The rubric is written once per request, greedily, from the request alone, and shared by all responses and all votes: so
voting@k (k judge samples under one rubric) differs only in the judge. Rubrics are answers of paid calls like any other:
the ledger keeps them, and every response to the same request meets the same rubric, today and tomorrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rmkit.errors import ConfigError
from rmkit.generate import Budget, Engine, Request, Sample
from rmkit.generate.config import open_generator
from rmkit.generate.tally import spent
from rmkit.ids import content_hash, messages_json
from rmkit.judge import Context, Judge, load_judge
from rmkit.judge.config import read_writer
from rmkit.judge.prompt_file import PromptFile, Shown
from rmkit.ledger import Ledger, open_ledger
from rmkit.types import Candidates, Comparison, Score, score_by_comparison
from rubrics.validate import parse_reply, rubric_text

WRITER_PROMPT = Path(__file__).parent / "prompts" / "writer_v1.jinja"
RUBRIC_TOKENS = 1024


class RubricRewardModel:
    """A pairwise reward model. `judge` should take k votes at a temperature for voting@k (the paper: 5 at 0.7)."""

    def __init__(self, writer: Engine, judge: Judge, *, prompt: PromptFile | None = None) -> None:
        self._writer = writer
        self._judge = judge
        self._prompt = prompt or PromptFile(WRITER_PROMPT)
        identity = [writer.generator.name, self._prompt.hash, judge.info.fingerprint]
        self.info = replace(judge.info, fingerprint=content_hash(" ".join(identity)))

    def close(self) -> None:
        """End the threads and connections of writer and judge."""
        self._writer.close()
        self._judge.close()

    def report(self) -> dict[str, object]:
        """As `Judge.report`; calls, tokens and cost are those of writer and judge together."""
        return self._judge.tally.report() | spent([self._writer.tally, self._judge.engine.tally])

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """See `RewardModel`: win_logit over all pairs of a list."""
        return score_by_comparison(self.compare, batch)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """See `RewardModel`. Unscored where no rubric could be written, or the judge abstained."""
        rubrics = self.rubrics(batch)
        ready = [item for item in batch if isinstance(rubrics[messages_json(item.prompt)], str)]
        under = (
            (item, Context(rubric=str(rubrics[messages_json(item.prompt)]), reference=item.reference or ""))
            for item in ready
        )
        judged = self._judge.judged_under(under)
        results = []
        for item in batch:
            rubric = rubrics[messages_json(item.prompt)]
            if isinstance(rubric, str):
                results.append(self._judge.comparison_of(next(judged)))
            else:
                results.append(Comparison.failed(rubric.why))
        return results

    def rubrics(self, batch: Sequence[Candidates]) -> dict[str, str | NoRubric]:
        """Request (canonical JSON) -> its rubric as text, or why there is none."""
        prompts = {messages_json(item.prompt): item.prompt for item in batch}
        requests = [
            Request(
                prompt=self._prompt.render(prompt, Shown(responses=()), settings={}),
                max_tokens=RUBRIC_TOKENS,
            )
            for prompt in prompts.values()
        ]
        return dict(zip(prompts, map(_rubric, self._writer.samples(requests)), strict=True))


def load(path: Path, *, ledger: Ledger | None = None) -> RubricRewardModel:
    """The model of a judge's TOML with the table [writer]; its calls are cached in `ledger` (default: this home's).

    Raises ConfigError where the file is wrong or has no [writer].
    """
    ledger = ledger or open_ledger()
    writer = open_writer(path, ledger=ledger)
    return RubricRewardModel(writer, load_judge(path, ledger=ledger))


def open_writer(path: Path, *, ledger: Ledger, budget: Budget | None = None) -> Engine:
    """The engine of the table [writer]. Raises ConfigError where there is none."""
    config = read_writer(path)
    if config is None:
        raise ConfigError(f"{path}: no table [writer]; it names the model that writes rubrics, like [generator]")
    return Engine(open_generator(config), ledger=ledger, budget=budget, limits=config.limits, purpose="rubric writer")


class NoRubric:
    """The writer gave no usable rubric."""

    def __init__(self, why: str) -> None:
        self.why = why


def _rubric(sample: Sample) -> str | NoRubric:
    if why := sample.no_reply:
        return NoRubric(f"no rubric: {why}")
    criteria, problems = parse_reply(sample.text)
    return rubric_text(criteria) if criteria and not problems else NoRubric(f"no rubric: {problems[0]}")
