"""Deep ensembles: K reward models as one, with the spread among them as uncertainty.

Each member is standardized first, z_k = (r_k - mean_k) / scale_k, by its own scores of a reference set: members trained
apart share neither zero nor unit. Then (Coste et al. 2024, "Reward model ensembles help mitigate overoptimization",
equations 2 to 4; lambda 0.5)

    mean    (1/K) sum_k z_k
    wco     min_k z_k                            worst case
    uwo     mean - lambda * variance             variance = (1/K) sum_k (z_k - mean)^2

`value` is the rule's number divided by a temperature fitted on reference pairs, so it is a calibrated logit; `std` is
that of the z_k over K - 1, divided alike. `aspects` keep all three numbers in that unit. Members must have the same
scale and be pointwise; the folder holds them whole:

    reward_model.json   members with mean, scale and fingerprint; rule, lambda, temperature
    members/0 ...       the members' own artifacts
    golden.jsonl        as every artifact's

Trunks that members share run once: frozen models on one encoder, and explicit models whose weights differ in the head
only. Other explicit members cost a pass each.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rmkit.errors import ConfigError, ModelError
from rmkit.models.artifact import folder as artifact
from rmkit.models.artifact import golden
from rmkit.models.artifact.model_card import CALIBRATION
from rmkit.types import Candidates, Comparison, RewardModel, Score, compare_by_score

Rule = Literal["mean", "wco", "uwo"]
RULES: tuple[Rule, ...] = ("mean", "wco", "uwo")
MEMBERS = "members"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSettings:
    """How standardized scores become one."""

    rule: Annotated[Rule, "the mean, the worst case, or the mean minus weighted variance"] = "mean"
    uncertainty_weight: Annotated[float, "weight of the variance in uwo"] = 0.5

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"rule: expected one of {', '.join(RULES)}, got {self.rule!r}")
        if self.uncertainty_weight < 0:
            raise ConfigError(f"uncertainty_weight: expected 0 or more, got {self.uncertainty_weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig(EnsembleSettings):
    """The same with what standardizes each of the K members."""

    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        EnsembleSettings.__post_init__(self)
        if not len(self.means) == len(self.scales) == len(self.members):
            raise ConfigError("means, scales and members must have an entry per member")
        if any(scale <= 0 for scale in self.scales):
            raise ConfigError(f"scales: a member whose scores do not vary cannot be standardized, got {self.scales}")


def combined(z: Sequence[float], *, uncertainty_weight: float) -> dict[str, float]:
    """All rules' numbers of one completion from its K standardized scores."""
    mean = statistics.fmean(z)
    return {"mean": mean, "wco": min(z), "uwo": mean - uncertainty_weight * statistics.pvariance(z, mean)}


MemberScores = Callable[[Sequence[Candidates]], list[list[list[Score]]]]


class EnsembleModel:
    """K members behind one score. `member_scores` gives [K][P][N] raw scores."""

    def __init__(
        self, opened: artifact.Artifact, config: EnsembleConfig, members: Sequence[RewardModel], *, temperature: float
    ) -> None:
        self.info = opened.info
        self.config = config
        self.members = list(members)
        self.temperature = temperature
        self.member_scores: MemberScores = shared_trunk(self.members) or (
            lambda batch: [member.score(batch) for member in self.members]
        )

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P][N] scores; a completion that any member cannot score is unscored."""
        return self._combined(self.member_scores(batch))

    def golden_scores(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """The same from the members' exact scores."""
        exact: list[Any] = self.members
        return self._combined([member.golden_scores(batch) for member in exact])

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """[P] sigmoid of the difference of the values."""
        return compare_by_score(self.score, batch)

    def _combined(self, scores_KPN: Sequence[Sequence[Sequence[Score]]]) -> list[list[Score]]:
        return [
            [self._one(scores_K) for scores_K in zip(*rows_KN, strict=True)]
            for rows_KN in zip(*scores_KPN, strict=True)
        ]

    def _one(self, scores: Sequence[Score]) -> Score:
        if failed := next((one for one in scores if one.unscored), None):
            return failed
        config = self.config
        z = [(one.value - mean) / scale for one, mean, scale in zip(scores, config.means, config.scales, strict=True)]
        result = combined(z, uncertainty_weight=config.uncertainty_weight)
        aspects = {name: value / self.temperature for name, value in result.items()}
        return Score(aspects[config.rule], std=statistics.stdev(z) / self.temperature, aspects=aspects)


def shared_trunk(members: Sequence[RewardModel]) -> MemberScores | None:
    """One pass for all members where they differ in the head only; None where they do not share their trunk."""
    kinds = {type(member).__name__ for member in members}
    if kinds == {"FrozenModel"}:
        return _shared_encoder(members)
    return _shared_network(members) if kinds == {"ExplicitRewardModel"} else None


def _shared_encoder(members: Sequence[Any]) -> MemberScores | None:
    if len({member.encoder.fingerprint for member in members}) > 1:
        return None
    from rmkit.models.scoring import Item, score_outputs

    def outputs(items: list[Item]) -> NDArray[np.float64]:
        features = members[0].features(items)
        return np.stack([member.rewards(features) for member in members], axis=1)

    return lambda batch: score_outputs(batch, outputs, n=len(members))


def _shared_network(members: Sequence[Any]) -> MemberScores | None:
    import torch

    from rmkit.models.wrappers.dropout import head_of, set_rows

    first = members[0]
    classifiers = [member.module.classifier for member in members]
    if any(member.head is not None or member.chat.fingerprint != first.chat.fingerprint for member in members):
        return None
    heads = [head_of(classifier) for classifier in classifiers]
    if not all(_only_head(classifier, head) for classifier, head in zip(classifiers, heads, strict=True)):
        return None
    trunks = [classifier.base_model.state_dict() for classifier in classifiers]
    if not all(trunk.keys() == trunks[0].keys() for trunk in trunks):
        return None
    if not all(torch.equal(trunk[name], weight) for trunk in trunks[1:] for name, weight in trunks[0].items()):
        return None
    biases = None if heads[0].bias is None else torch.cat([head.bias.detach() for head in heads])
    set_rows(heads[0], torch.cat([head.weight.detach() for head in heads]), biases)
    first.head = EachOutput()

    def scores(batch: Sequence[Candidates]) -> list[list[list[Score]]]:
        result = first.score(batch)
        return [[[_output(one, at) for one in row] for row in result] for at in range(len(members))]

    return scores


def _only_head(classifier: Any, head: Any) -> bool:
    """Whether the linear layer is all that stands behind the trunk."""
    own = sum(parameter.numel() for parameter in classifier.parameters())
    trunk, last = (sum(p.numel() for p in part.parameters()) for part in (classifier.base_model, head))
    return bool(own == trunk + last)


class EachOutput:
    """Reads the outputs of K heads: the first as the value, all of them by number as aspects."""

    def score(self, outputs: Sequence[float]) -> Score:
        if not all(map(math.isfinite, outputs)):
            return Score.failed(f"a member gave {list(outputs)}, not finite numbers")
        return Score(outputs[0], aspects={str(at): value for at, value in enumerate(outputs)})


def _output(score: Score, at: int) -> Score:
    return score if score.unscored else replace(score, value=score.aspects[str(at)], aspects={})


def write_ensemble(
    folder: Path,
    members: Sequence[Path],
    config: EnsembleConfig,
    *,
    temperature: float,
    facts: Mapping[str, Any],
    scale: str,
) -> None:
    """Write an ensemble of artifact folders into an existing empty folder, members copied, golden scores made.

    Files are linked where the file system can, so members on the same disk take no space twice.
    """
    cards = [copied_member(source, folder, str(number)) for number, source in enumerate(members)]
    card = {
        "model": "ensemble",
        "kind": "ensemble",
        "scale": scale,
        "pointwise": True,
        "temperature": temperature,
        **facts,
        "config": asdict(config),
    }
    artifact.sign(folder, card, bound=cards)
    golden.write_golden_scores(folder, load(folder, check=False))


def copied_member(source: Path, folder: Path, name: str) -> str:
    """Copy an artifact folder under `members`; the path of its card in `folder`, to bind. Without its calibration:
    members are standardized by their raw scores."""
    shutil.copytree(
        source,
        folder / MEMBERS / name,
        copy_function=_link_or_copy,
        ignore=shutil.ignore_patterns(CALIBRATION),
    )
    return f"{MEMBERS}/{name}/{artifact.CARD}"


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def load(folder: Path, *, check: bool = True, **options: Any) -> EnsembleModel:
    """The ensemble in an artifact folder, its members verified and its golden scores replayed. Raises ModelError."""
    from rmkit import config
    from rmkit.models import load_model

    opened = artifact.open_artifact(folder)
    card = opened.card
    settings = config.build_stored(EnsembleConfig, card["config"], where=f"{folder / artifact.CARD}")
    members = [load_model(folder / MEMBERS / str(at), check=check, **options) for at in range(len(settings.members))]
    result = tuple(member.info.fingerprint for member in members)
    if result != settings.members:
        raise ModelError(f"{folder}: its members are {', '.join(result)}, {artifact.CARD} says {settings.members}")
    model = EnsembleModel(opened, settings, members, temperature=float(card["temperature"]))
    return golden.verified(opened, model, check=check)


def standardization(scores: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (over n - 1) of a member's reference scores; failures (NaN) are left out."""
    known = [value for value in scores if math.isfinite(value)]
    if len(known) < 2:
        raise ModelError(f"a member gave {len(known)} scores on the reference set; at least 2 are needed")
    return statistics.fmean(known), statistics.stdev(known)
