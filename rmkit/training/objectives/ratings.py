"""Objectives over ratings of single responses, which learn from the train split what ratings mean before training.

Aspects with one value only teach nothing: they are refused by name, or left out where nobody named them. Several
aspects make one value by a weighted mean, which means something only on one scale: without declared weights, aspects
whose spans differ more than twofold are refused.

Axes: K responses of all rows, A aspects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from rmkit.errors import ConfigError, DataError
from rmkit.models.transformer.rating_head import HeadKind, RatingHead
from rmkit.training.objectives.objective import Objective, RunState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from rmkit.chat.encode import Chat
    from rmkit.data.example import Example
    from rmkit.training.rows import (
        Outputs,
        TrainingRow,
        Validation,
    )

MAX_SPAN_RATIO = 2.0

Values = Mapping[str, Sequence[float]]


class Scales(TypedDict, total=False):
    """The fields of `RatingHead` that say how outputs become ratings; one entry per aspect."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: tuple[tuple[float, ...], ...]
    cuts: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingObjective(Objective):
    """One output an aspect; a row's loss is the mean over its responses."""

    head_kind: ClassVar[HeadKind]
    selects_by: ClassVar[str] = "loss"

    aspects: Annotated[tuple[str, ...], "aspects to learn; by default all that the training split has"] = ()
    aspect_weights: Annotated[tuple[float, ...], "their weights in the reward, one each; by default equal"] = ()

    def __post_init__(self) -> None:
        if self.aspect_weights and len(self.aspect_weights) != len(self.aspects):
            raise ConfigError("aspect_weights needs aspects, and one weight for each of them")
        if self.aspect_weights and (min(self.aspect_weights) < 0 or sum(self.aspect_weights) <= 0):
            raise ConfigError(f"aspect_weights must not be negative, nor all zero, got {self.aspect_weights}")

    def scales(self, values: Values) -> Scales:
        """The fields of the head that say how outputs become ratings. Raises DataError where the ratings do not fit."""
        raise NotImplementedError

    def head(self, examples: Iterable[Example]) -> RatingHead:
        """Raises DataError where the ratings do not fit the objective."""
        values = ratings_by_aspect(examples)
        names = self.aspects or tuple(sorted(name for name, result in values.items() if len(set(result)) > 1))
        _check_names(names, values)
        values = {name: values[name] for name in names}
        weights = self.aspect_weights or (1.0,) * len(names)
        scales = self.scales(values)
        if not self.aspect_weights:
            _check_one_scale(values)
        shares = tuple(weight / sum(weights) for weight in weights)
        return RatingHead(kind=self.head_kind, aspects=names, weights=shares, **scales)

    def row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        from rmkit.training.data import rated_row

        assert head is not None
        return rated_row(example, chat, head)

    def rating_losses(self, output_KA: Tensor, rating_KA: Tensor, state: RunState) -> Tensor:
        """[K] loss of each response; ratings are on the data's own scales, NaN where missing."""
        raise NotImplementedError

    def losses(self, outputs: Tensor, rows: Sequence[TrainingRow], state: RunState) -> Tensor:
        from rmkit.training.data import mean_of_rows

        return mean_of_rows(self._response_losses(outputs, rows, state), rows)

    def _response_losses(self, outputs: Tensor, rows: Sequence[TrainingRow], state: RunState) -> Tensor:
        assert state.head is not None
        output_KA = outputs.reshape(-1, len(state.head.aspects))
        rating_KA = output_KA.new_tensor([ratings for row in rows for ratings in row.ratings])
        return self.rating_losses(output_KA, rating_KA, state)

    def validate(self, outputs: Outputs, rows: Sequence[TrainingRow], state: RunState) -> Validation:
        """The objective's own loss, what is known of the aspects, and the preferences that follow from the ratings."""
        import numpy as np
        import torch

        from rmkit.training.validation import preferences, with_facts

        head = self.trained_head(state)
        assert head is not None
        output_KA = np.array([output for row in outputs for output in row])
        rating_KA = np.array([ratings for row in rows for ratings in row.ratings])
        family_K = np.array([row.family for row in rows for _ in row.ids])
        with torch.no_grad():
            loss_K = self._response_losses(torch.from_numpy(output_KA), rows, state).numpy()
        facts: dict[str, Any] = {"loss": float(loss_K.mean()), "responses": len(loss_K)}
        facts |= self.facts(output_KA, rating_KA, family_K, head)
        compared = preferences(outputs, rows, value=lambda output: head.value(output.tolist()))
        return with_facts(compared, facts)

    def facts(
        self,
        output_KA: NDArray[np.float64],
        rating_KA: NDArray[np.float64],
        family_K: NDArray[Any],
        head: RatingHead,
    ) -> dict[str, object]:
        """What the ratings of the responses are worth beside those in the data, JSON-ready but for NaN."""
        import numpy as np

        from rmkit.training.validation import aspect_facts

        predicted_KA = np.array([head.ratings(output.tolist()) for output in output_KA])
        aspects = {
            name: aspect_facts(predicted_KA[:, a], rating_KA[:, a], family_K) for a, name in enumerate(head.aspects)
        }
        return {"aspects": aspects}


def ratings_by_aspect(examples: Iterable[Example]) -> dict[str, list[float]]:
    """All ratings of the examples' responses."""
    results: dict[str, list[float]] = {}
    for example in examples:
        for one in example.row["scores"] or []:
            if one["value"] is not None:
                results.setdefault(one["aspect"] or "", []).append(float(one["value"]))
    return results


def _check_names(names: Sequence[str], values: Values) -> None:
    text = ", ".join(f"{name or '(unnamed)'} ({len(result)})" for name, result in sorted(values.items())) or "none"
    if not names:
        raise DataError(f"no aspect has two different ratings in the train split; it has: {text}")
    if missing := [name for name in names if name not in values]:
        raise DataError(f"no rating of {', '.join(missing)} in the train split; it has: {text}")
    if flat := [name for name in names if len(set(values[name])) < 2]:
        raise DataError(
            f"every rating of {', '.join(flat)} is the same, which teaches nothing; leave it out of aspects"
        )


def _check_one_scale(values: Values) -> None:
    span = {name: max(names) - min(names) for name, names in values.items()}
    if max(span.values()) > MAX_SPAN_RATIO * min(span.values()):
        text = ", ".join(f"{name} {min(names):g} to {max(names):g}" for name, names in values.items())
        raise DataError(
            f"the aspects are on different scales ({text}), so their mean means nothing; "
            "name some with aspects, or give aspect_weights"
        )
