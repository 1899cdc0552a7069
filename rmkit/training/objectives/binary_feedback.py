"""Reactions to single responses, such as thumbs; the reward is the logit of a liked one.

The loss is `rmkit.losses.binary_feedback`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from rmkit.errors import ConfigError, DataError
from rmkit.models.transformer.rating_head import HeadKind, RatingHead
from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.ratings import RatingObjective, Scales, Values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction(RatingObjective):
    head_kind: ClassVar[HeadKind] = "reaction"
    selects_by: ClassVar[str] = "log_loss"

    negatives_kept: Annotated[float, "share of the negative reactions that sampling left, in (0, 1]"] = 1.0

    def __post_init__(self) -> None:
        RatingObjective.__post_init__(self)
        if not 0 < self.negatives_kept <= 1:
            raise ConfigError(f"negatives_kept is a share in (0, 1], got {self.negatives_kept}")

    def scales(self, values: Values) -> Scales:
        if len(values) != 1:
            raise DataError(
                f"a reaction is one aspect, the data has {', '.join(values)}; name one: --set aspects='[\"NAME\"]'"
            )
        [(name, ratings)] = values.items()
        if min(ratings) < 0 or max(ratings) > 1:
            raise DataError(
                f"reactions lie in [0, 1], {name} reaches from {min(ratings):g} to {max(ratings):g}; "
                "use the objective regression or ordinal"
            )
        return {}

    def rating_losses(self, output_KA: Tensor, rating_KA: Tensor, state: RunState) -> Tensor:
        from rmkit.losses.binary_feedback import reaction

        return reaction(output_KA[:, 0], liked_B=rating_KA[:, 0], negatives_kept=self.negatives_kept)

    def facts(
        self,
        output_KA: NDArray[np.float64],
        rating_KA: NDArray[np.float64],
        family_K: NDArray[Any],
        head: RatingHead,
    ) -> dict[str, object]:
        from rmkit.training.validation import reaction_facts

        sampled_K = output_KA[:, 0] - math.log(self.negatives_kept)  # the split was sampled like the training data
        return reaction_facts(sampled_K, rating_KA[:, 0], family_K)
