"""Explicit reward models: a transformer with a scalar head, scored exactly and fast.

The raw score is the classifier's own logit, so plain transformers gives the same number; the temperature fitted on
validation only enters `compare`. Each prompt is read once for all its completions.

    config.json, model.safetensors, tokenizer files   what `AutoModelForSequenceClassification` loads
    reward_model.json   as every transformer's (`transformer_artifact`), with the meaning of ratings where it gives any
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmkit.chat.encode import Chat, Encoded
from rmkit.models.artifact.folder import Artifact
from rmkit.models.scoring import finite_score
from rmkit.models.transformer.artifact import open_with_chat, store, verified
from rmkit.models.transformer.engine import TransformerModel
from rmkit.models.transformer.pretrained import complete
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.types import ModelInfo, Score

CLASSIFIER = "AutoModelForSequenceClassification"
REWARD_INDEX = "last token; the text never ends in padding"


class ExplicitRewardModel(TransformerModel):
    """A reward module with its chat; `options` are those of TransformerModel.

    `head` says what the outputs of a model with several aspects or with ratings mean; None is one logit.
    """

    def __init__(
        self, module: RewardModule, chat: Chat, info: ModelInfo, *, head: RatingHead | None = None, **options: Any
    ) -> None:
        super().__init__(chat, info, **options)
        self.module = module.eval()
        self.head = head

    def outputs(self, rows: Sequence[Sequence[Encoded]]) -> list[list[Any]]:
        """[P][N] the head's output at the last token: a number, or one per aspect."""
        ids = [[one.ids for one in row] for row in rows]
        result = self.module.outputs(ids, max_batch_tokens=self.max_batch_tokens, precision=self.precision)
        return [[output for [output] in row] for row in result]

    def read(self, output: Any, encoded: Encoded) -> Score:
        if self.head is None:
            score = finite_score(output)
        else:
            score = self.head.score(output if isinstance(output, list) else [output])
        return replace(score, truncated=True) if encoded.prompt_truncated or encoded.response_truncated else score


def save(folder: Path, *, model: Any, chat: Chat, facts: Mapping[str, Any], head: RatingHead | None = None) -> None:
    """Write a sequence classifier (not wrapped by peft) into an existing empty folder, with its golden scores.

    `facts` are name, temperature, dataset, training, validation, seed ... as the card shall tell them; `head` says what
    the outputs mean where they are ratings or reactions.
    """
    labels = list(head.aspects) if head else ["reward"]
    model.config.problem_type = "regression"  # servers then return the raw logit
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: at for at, label in enumerate(labels)}
    store(
        folder,
        {"": model},
        chat,
        kind="explicit",
        scale=head.scale if head else "logit",
        values={"reward_index": REWARD_INDEX} | ({"head": head.as_json()} if head else {}),
        facts=facts,
        load=load,
    )


def load(folder: str | Path, *, check: bool = True, device: str | None = None, **options: Any) -> ExplicitRewardModel:
    """The model in an artifact folder, its golden scores replayed unless told otherwise (see `transformer_artifact`).

    `options` go to the model (max_batch_tokens, precision); `device` defaults to a GPU where there is one.
    """
    opened, chat = open_with_chat(Path(folder))
    head = _head(opened)
    labels = len(head.aspects) if head else 1
    classifier = complete(CLASSIFIER, folder, device=device, dtype="float32", num_labels=labels)
    return verified(opened, around(opened, chat, RewardModule(classifier), **options), check=check)


def around(opened: Artifact, chat: Chat, module: RewardModule, **options: Any) -> ExplicitRewardModel:
    """The artifact's model with its network given."""
    temperature = opened.card.get("temperature", 1.0)
    return ExplicitRewardModel(module, chat, opened.info, head=_head(opened), temperature=temperature, **options)


def _head(opened: Artifact) -> RatingHead | None:
    stored = opened.card["config"].get("head")
    return None if stored is None else RatingHead.of(stored)
