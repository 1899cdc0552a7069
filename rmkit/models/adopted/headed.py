"""What the readers column, mixture and token share: a trunk with a head behind it, read at some tokens of a text.

The engine is that of rmkit's own transformers: prompts are shared, passes have a token budget, a text scores as if it
were alone. A reader says what the rows of numbers at the tokens read, one row a token, mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rmkit.chat.encode import Encoded
from rmkit.errors import DataError, ModelError
from rmkit.models.adopted.head import numbers_of
from rmkit.models.adopted.network import Network, open_config, open_network, open_tokenizer, pad_id_of
from rmkit.models.adopted.profile import Profile
from rmkit.models.adopted.source import Source
from rmkit.models.adopted.text import AdoptedChat
from rmkit.models.scoring import finite_score
from rmkit.models.transformer.checkpoint import Checkpoint, Loading
from rmkit.models.transformer.engine import TransformerModel
from rmkit.models.transformer.process import p_first_right
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.types import Candidates, Completion, ModelInfo, Score, sigmoid

Rows = Sequence[Sequence[float]]
Number = Callable[[Rows], float]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a reader needs to open a model: its files, how it is read, what its number is called.

    `module` stands in for the network where its weights lie elsewhere.
    """

    source: Source
    profile: Profile
    info: ModelInfo
    temperature: float = 1.0
    device: str | None = None
    options: Mapping[str, Any]
    module: Any = None


class HeadedModel(TransformerModel):
    """A network read at the tokens of `Encoded.step_index`; `number` makes one number of the rows read together."""

    def __init__(
        self,
        module: RewardModule,
        chat: AdoptedChat,
        opening: Opening,
        *,
        number: Number,
        loading: Loading | None = None,
    ) -> None:
        super().__init__(chat, opening.info, temperature=opening.temperature, **opening.options)
        self.loading = loading
        self.profile = opening.profile
        self.module = module.eval()
        self.number = number
        self.scaled = scaling(opening.profile, opening.source)
        self.labels = _labels(opening.source)

    def place(self, item: Candidates, completion: Completion) -> Encoded:
        encoded = super().place(item, completion)
        if self.profile.head.pooling == "mean":
            return replace(encoded, step_index=tuple(range(len(encoded.ids))))
        return encoded

    def outputs(self, rows: Sequence[Sequence[Encoded]]) -> list[list[Any]]:
        """[P][N][S] the head's numbers, a list of them, at each of the S tokens read."""
        ids = [[one.ids for one in row] for row in rows]
        reads = [[one.step_index for one in row] for row in rows]
        result = self.module.outputs(ids, reads=reads, max_batch_tokens=self.max_batch_tokens, precision=self.precision)
        return [[[_listed(value) for value in values] for values in row] for row in result]

    def read(self, output: Any, encoded: Encoded) -> Score:
        rows: Rows = output
        if not all(math.isfinite(value) for row in rows for value in row):
            return Score.failed("the model gave a number that is not finite")
        truncated = encoded.prompt_truncated or encoded.response_truncated
        if self.profile.head.pooling == "mean":
            rows = [[math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]]
        if not self.profile.in_steps:
            aspects = dict(zip(self.labels, rows[-1], strict=False)) if len(rows[-1]) > 1 else {}
            return replace(finite_score(self.scaled(self.number(rows))), truncated=truncated, aspects=aspects)
        return replace(
            score_of_steps([self.scaled(self.number([row])) for row in rows], self.profile), truncated=truncated
        )

    def p_first(self, first: float, second: float) -> float:
        if self.info.scale == "probability":
            return p_first_right(first, second)
        return sigmoid((first - second) / self.temperature)


def open_headed(opening: Opening, number: Number) -> HeadedModel:
    """The model with its tokenizer. Raises ModelError where files, names and shapes do not agree with the profile."""
    source, profile = opening.source, opening.profile
    if opening.module is not None:
        return HeadedModel(opening.module, open_chat(source, profile), opening, number=number)
    network = open_network(source, profile, device=opening.device)
    chat = open_chat(source, profile, network)
    return HeadedModel(RewardModule(network.model), chat, opening, number=number, loading=network.loading)


def open_chat(source: Source, profile: Profile, network: Network | None = None) -> AdoptedChat:
    """The tokenizer of a folder under a profile's rules."""
    tokenizer = open_tokenizer(source)
    config = network.model.config if network else open_config(source)
    pad_id = network.pad_id if network else pad_id_of(config)
    return AdoptedChat(tokenizer, profile, max_length=longest(profile, config, tokenizer), pad_id=pad_id)


def longest(profile: Profile, config: Any, tokenizer: Any) -> int:
    """Tokens that a text may have: the profile's, else as many as model and tokenizer have places."""
    if profile.text.max_tokens:
        return profile.text.max_tokens
    places = getattr(config.get_text_config(), "max_position_embeddings", None) or 4096
    return int(min(places, tokenizer.model_max_length))


def scaling(profile: Profile, source: Source) -> Callable[[float], float]:
    """The profile's [scale] as a function of the number read, tensors that it names read once."""
    table = profile.scale
    mean, std = 0.0, 1.0
    if not table.when or source.config.get(table.when):
        named = any(isinstance(one, str) for one in (table.mean, table.std))
        checkpoint = Checkpoint.of(source.folder) if named else Checkpoint(source.folder, {})
        mean, std = (numbers_of(checkpoint, one) for one in (table.mean, table.std))
        std += table.eps
    if not std:
        raise ModelError("scale.std is 0")
    return lambda number: _of(table.sign * (number - mean) / std, table.of)


def score_of_steps(values: Sequence[float], profile: Profile) -> Score:
    """The score of step values: their chosen reduction, all four as aspects."""
    if not values or not all(map(math.isfinite, values)):
        return Score.failed("the model gave no number, or one that is not finite, for a step")
    aspects = {
        "min": min(values),
        "last": values[-1],
        "product": math.prod(values),
        "mean": math.fsum(values) / len(values),
    }
    return Score(aspects[profile.scale.aggregate], steps=tuple(values), aspects=aspects)


def softmax(values: Sequence[float]) -> list[float]:
    """Probabilities of logits."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / math.fsum(powers) for power in powers]


def column_of(row: Sequence[float], column: int) -> float:
    """One number of a row. Raises DataError where the head has no such output."""
    if not -len(row) <= column < len(row):
        raise DataError(f"the head gives {len(row)} numbers, and the profile reads number {column}")
    return row[column]


def _of(number: float, what: str) -> float:
    return sigmoid(number) if what == "sigmoid" else number


def _listed(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


def _labels(source: Source) -> list[str]:
    """Names of the outputs where the config has any of its own."""
    names = source.config.get("id2label") or {}
    listed = [str(names[key]) for key in sorted(names, key=int)] if all(str(key).isdigit() for key in names) else []
    return [] if all(name == f"LABEL_{at}" for at, name in enumerate(listed)) else listed
