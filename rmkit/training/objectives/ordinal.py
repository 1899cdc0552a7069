"""Ratings as ordered levels, whose thresholds are learned with the rewards (`rmkit.losses.ordinal`).

Thresholds start where a score of 0 gives the levels' shares in the train split; they are learned as free parameters
`raw_cuts` [A, K], of which `ordered_cuts` makes ascending ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from rmkit.errors import DataError
from rmkit.models.transformer.rating_head import HeadKind, RatingHead
from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.ratings import RatingObjective, Scales, Values

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_LEVELS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordinal(RatingObjective):
    head_kind: ClassVar[HeadKind] = "ordinal"

    def scales(self, values: Values) -> Scales:
        levels = {name: tuple(sorted(set(ratings))) for name, ratings in values.items()}
        for name, of in levels.items():
            if len(of) > MAX_LEVELS:
                raise DataError(
                    f"{name} has {len(of)} different values, too many for levels (at most {MAX_LEVELS}); "
                    "use the objective regression"
                )
        cuts = tuple(_first_cuts(values[name], of) for name, of in levels.items())
        return {"levels": tuple(levels.values()), "cuts": cuts}

    def learned(self, head: RatingHead | None) -> nn.ParameterDict:
        import torch

        assert head is not None
        raw_AK = torch.zeros(len(head.aspects), max(map(len, head.cuts)))
        for a, cuts in enumerate(head.cuts):
            steps = [math.log(math.expm1(max(high - low, 1e-3))) for low, high in pairwise(cuts)]
            raw_AK[a, : len(cuts)] = torch.tensor([cuts[0], *steps])
        return torch.nn.ParameterDict({"raw_cuts": raw_AK})

    def rating_losses(self, output_KA: Tensor, rating_KA: Tensor, state: RunState) -> Tensor:
        """Aspect by aspect, for each has its own number of levels; a rating between levels counts as the nearest."""
        from rmkit.losses.ordinal import cumulative_link, ordered_cuts

        assert state.head is not None
        assert state.learned is not None
        raw_AK = state.learned["raw_cuts"].to(output_KA)
        total_K = count_K = output_KA.new_zeros(len(output_KA))
        for a, levels in enumerate(state.head.levels):
            rated_K = ~rating_KA[:, a].isnan()
            distance_KL = (rating_KA[:, a, None].nan_to_num() - output_KA.new_tensor(levels)).abs()
            level_K = distance_KL.argmin(-1).masked_fill(~rated_K, -1)
            cut_AK = ordered_cuts(raw_AK[a : a + 1, : len(levels) - 1])
            total_K = total_K + cumulative_link(output_KA[:, a : a + 1], level_BA=level_K[:, None], cut_AK=cut_AK)
            count_K = count_K + rated_K
        return total_K / count_K.clamp(min=1)

    def trained_head(self, state: RunState) -> RatingHead:
        """The head with the thresholds learned so far."""
        from rmkit.losses.ordinal import ordered_cuts

        assert state.head is not None
        assert state.learned is not None
        raw_AK = state.learned["raw_cuts"].detach().double().cpu()
        levels = state.head.levels
        cuts = [ordered_cuts(raw_AK[a : a + 1, : len(of) - 1])[0].tolist() for a, of in enumerate(levels)]
        return replace(state.head, cuts=tuple(map(tuple, cuts)))


def _first_cuts(values: Sequence[float], levels: Sequence[float]) -> tuple[float, ...]:
    """[levels - 1] thresholds at which a score of 0 gives the levels' shares."""
    below = [sum(value <= level for value in values) / len(values) for level in levels[:-1]]
    return tuple(math.log(share / (1 - share)) for share in below)
