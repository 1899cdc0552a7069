"""Reader `judge`: a language model that says its verdict in words, asked and read as its family's profile says.

What vouches for the artifact is no verdict, which would cost a reply a probe, but how likely the model finds one fixed
reply after each probe's question: weights, tokenizer, chat template and prompt all show in it. Golden scores hold its
mean log-probability a token over a thousand, so that what they may differ by is a tenth of a nat: bf16 on another
machine stays below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rmkit.errors import DataError, UsageError
from rmkit.generate import Engine, Limits
from rmkit.generate.local import load_local
from rmkit.generate.request import Refused
from rmkit.judge.model import Context, Judge
from rmkit.ledger import open_ledger
from rmkit.models.adopted.headed import Opening
from rmkit.models.adopted.judge_profile import judge_profile, judge_settings
from rmkit.models.adopted.pair import YARDSTICK
from rmkit.types import Candidates, Comparison, Completion, Score

REPLY = "The second response is better."  # what is said to each probe
PROBED = Context(rubric="Is the response helpful?")
PER_NAT = 1e-3


class AdoptedJudge:
    """A judge over a folder's own weights; its calls are kept in this home's ledger like those of any judge."""

    def __init__(self, opening: Opening) -> None:
        profile = opening.profile
        if unknown := sorted(set(opening.options) - {"precision", "max_batch_tokens", "batch_size"}):
            raise UsageError(f"{opening.source.name} is a judge, which takes no {', '.join(unknown)}")
        if opening.options.get("precision", "fp32") != "fp32":
            raise UsageError(f"{opening.source.name} is a judge: it generates in the precision of its weights")
        of_judge = judge_profile(profile)
        self.generator = load_local(
            opening.source.folder,
            batch_size=int(opening.options.get("batch_size", 16)),
            device=opening.device,
            template_options=of_judge.template_options() if of_judge else None,
        )
        config = judge_settings(profile, opening.info.name)
        purpose = f"judge {config.name}"
        engine = Engine(self.generator, ledger=open_ledger(), limits=Limits(), purpose=purpose)
        self.judge = Judge(config, engine, profile=of_judge)
        self.info = opening.info

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """See `RewardModel`."""
        return self.judge.score(batch)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """See `RewardModel`."""
        return self.judge.compare(batch)

    def golden_scores(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """How likely a fixed reply is after the question about each completion (see above)."""
        return [[self._likelihood(item, completion) for completion in item.completions] for item in batch]

    def _likelihood(self, item: Candidates, completion: Completion) -> Score:
        shown = item.of(completion) if self.info.pointwise else item.of(completion, YARDSTICK)
        try:
            request = self.judge.requests(shown, PROBED)[0][1]
            return Score(PER_NAT * self.generator.log_probability(request.prompt, REPLY))
        except (DataError, Refused) as error:
            return Score.failed(str(error))

    def report(self) -> dict[str, Any]:
        """As `Judge.report`."""
        return self.judge.report()

    def close(self) -> None:
        """End the engine's thread."""
        self.judge.close()


def open_model(opening: Opening) -> AdoptedJudge:
    """The model. Raises ModelError where the folder holds no language model with a chat template."""
    return AdoptedJudge(opening)
