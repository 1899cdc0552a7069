"""Process reward models: a transformer that scores every step of a solution where the step ends.

`Score.steps` are the probabilities that each step is right; the value is their minimum, last, product or mean, as the
model's config says, and all four are kept in `Score.aspects`. Which token ends a step comes from `chat`, from the
completion's `step_ends`; a completion without them is split behind each `step_separator`. A causal model sees a step
and what came before it; an encoder reads the whole solution, later steps included.

With the reduction `sum` the steps are contributions instead, which add up to the value, a rating (`sum_to_outcome`);
with `value` they are values of the states behind them, in any range, and the last is the value (`step_value`, `oreo`).

For independent events P(first right | exactly one is) has the odds ratio of the two values, which `compare` returns.

    config.json, model.safetensors, tokenizer files   what `AutoModelForTokenClassification` loads: one logit a token
    reward_model.json   as every transformer's (`transformer_artifact`), with the reduction and the step separator
    golden.jsonl        holds step tokens and step probabilities too
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from rmkit.chat.encode import Chat, Encoded
from rmkit.chat.steps import in_steps
from rmkit.errors import DataError
from rmkit.losses.process import Reduction, reduce_steps
from rmkit.models.artifact.folder import Artifact
from rmkit.models.artifact.golden import PROBES
from rmkit.models.transformer.artifact import open_with_chat, store, verified
from rmkit.models.transformer.engine import TransformerModel
from rmkit.models.transformer.pretrained import complete
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.types import Candidates, Completion, ModelInfo, Score, bradley_terry, sigmoid

REDUCTIONS: tuple[Reduction, ...] = ("min", "last", "product", "mean")
SUM, VALUE = "sum", "value"  # of contributions, of values of states: no probabilities
StepReduction = Reduction | Literal["sum", "value"]
CLASSIFIER = "AutoModelForTokenClassification"
REWARD_INDEX = "the token with the last visible character of each step"


class ProcessRewardModel(TransformerModel):
    """A module over a classifier of tokens, with its chat; `options` are those of TransformerModel."""

    def __init__(
        self,
        module: RewardModule,
        chat: Chat,
        info: ModelInfo,
        *,
        reduction: StepReduction = "min",
        step_separator: str = "\n\n",
        **options: Any,
    ) -> None:
        super().__init__(chat, info, **options)
        self.module = module.eval()
        self.reduction: StepReduction = reduction
        self.step_separator = step_separator

    def place(self, item: Candidates, completion: Completion) -> Encoded:
        stepped = in_steps(completion, separator=self.step_separator)
        encoded = super().place(item, stepped)
        if (n := len(stepped.step_ends)) > len(encoded.step_index):
            raise DataError(f"only {len(encoded.step_index)} of {n} steps fit into the token limit; raise max_length")
        return encoded

    def outputs(self, rows: Sequence[Sequence[Encoded]]) -> list[list[list[float]]]:
        """[P][N][S] logits of the steps."""
        ids = [[one.ids for one in row] for row in rows]
        reads = [[one.step_index for one in row] for row in rows]
        return self.module.outputs(ids, reads=reads, max_batch_tokens=self.max_batch_tokens, precision=self.precision)

    def read(self, output: Sequence[float], encoded: Encoded) -> Score:
        return step_score(output, reduction=self.reduction)

    def p_first(self, first: float, second: float) -> float:
        return bradley_terry(first, second) if self.reduction in (SUM, VALUE) else p_first_right(first, second)


def step_score(logits: Sequence[float], *, reduction: StepReduction) -> Score:
    """Step probabilities, their chosen reduction as value, all as aspects; or contributions and their sum."""
    if not all(map(math.isfinite, logits)):
        return Score.failed("the model gave a logit that is not finite")
    if reduction in (SUM, VALUE):
        return Score(math.fsum(logits) if reduction == SUM else logits[-1], steps=tuple(logits))
    logit_S = torch.tensor(logits, dtype=torch.float64)
    aspects: dict[str, float] = {how: float(reduce_steps(logit_S, how=how)) for how in REDUCTIONS}
    return Score(aspects[reduction], steps=tuple(sigmoid(logit) for logit in logits), aspects=aspects)


def p_first_right(first: float, second: float) -> float:
    """The odds ratio of two values that are probabilities (clipped to [1e-9, 1 - 1e-9])."""
    a, b = (min(max(value, 1e-9), 1 - 1e-9) for value in (first, second))
    return sigmoid(math.log(a / (1 - a)) - math.log(b / (1 - b)))


def probes(separator: str) -> list[tuple[str, str]]:
    """Texts of one step, and texts of several."""
    worked = ("She has 3 boxes of 4 pens.", "That is 3 * 4 = 12 pens.", "Two are lost, so 12 - 2 = 10 remain.")
    wrong = ("She has 3 boxes of 4 pens.", "That is 3 + 4 = 7 pens.", "7 - 2 = 5 remain.")
    question = "Ann has 3 boxes of 4 pens and loses 2. How many remain?"
    return [*PROBES, *((question, separator.join(steps)) for steps in (worked, wrong))]


def save(
    folder: Path, *, model: Any, chat: Chat, facts: Mapping[str, Any], reduction: StepReduction, step_separator: str
) -> None:
    """Write a token classifier (not wrapped by peft) into an existing empty folder, with its golden scores."""
    label = {SUM: "contribution", VALUE: "value"}.get(reduction, "right")
    model.config.id2label, model.config.label2id = {0: label}, {label: 0}
    store(
        folder,
        {"": model},
        chat,
        kind="process",
        scale="rating" if reduction in (SUM, VALUE) else "probability",
        values={"reward_index": REWARD_INDEX, "reduction": reduction, "step_separator": step_separator},
        facts=facts,
        load=load,
        probes=probes(step_separator),
    )


def load(folder: str | Path, *, check: bool = True, device: str | None = None, **options: Any) -> ProcessRewardModel:
    """The model in an artifact folder, its golden scores replayed unless told otherwise (see `transformer_artifact`).

    `options` go to the model (max_batch_tokens, precision); `device` defaults to a GPU where there is one.
    """
    opened, chat = open_with_chat(Path(folder))
    module = RewardModule(complete(CLASSIFIER, folder, device=device, dtype="float32", num_labels=1))
    return verified(opened, around(opened, chat, module, **options), check=check)


def around(opened: Artifact, chat: Chat, module: RewardModule, **options: Any) -> ProcessRewardModel:
    """The artifact's model with its network given."""
    steps = {name: opened.card["config"][name] for name in ("reduction", "step_separator")}
    return ProcessRewardModel(module, chat, opened.info, **steps, **options)
