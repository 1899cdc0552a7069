"""Denoising as a training mode of the frozen model: pairs are weighed on the features that the head will learn from.

    peer, self, mean     collaborative reward modeling in its fast form (rmkit.reliability.crm)
    cross_fit            pairs that heads which never saw them contradict weigh nothing
    confident            pairs that cleanlab finds mislabeled weigh nothing
    gap                  only pairs with the larger half of the reward gaps, suspected mislabels left out (MPO)
    upo, upo_smoothed    a dropout estimator: its surer half of the labels, or all with soft labels

Weights multiply the pairs' own, and pairs of weight 0 are left out. Undecided pairs stay as they are. Nothing but facts
is written: for an audit per pair use the recipe steps.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Literal, get_args

from rmkit.data.pairs import Pair
from rmkit.errors import ConfigError
from rmkit.features.encoder import Encoder, EncoderConfig
from rmkit.heads.pair_estimator import cross_fitted_uncertainty
from rmkit.models.small.frozen import pair_features
from rmkit.reliability import noise_prior
from rmkit.reliability.confident_learning import confident_filter
from rmkit.reliability.crm import collaborate
from rmkit.reliability.cross_fit import cross_fit_filter
from rmkit.reliability.feature_pairs import oriented
from rmkit.reliability.label_weights import LabelWeights
from rmkit.reliability.mpo import split_by_gap
from rmkit.reliability.peer_review import ReviewConfig
from rmkit.reliability.upo import select_certain

Method = Literal["peer", "self", "mean", "cross_fit", "confident", "gap", "upo", "upo_smoothed"]
METHODS: tuple[Method, ...] = get_args(Method)


def denoised(
    pairs: Sequence[Pair], *, method: str, noise: float | None, encoder: EncoderConfig, seed: int
) -> tuple[list[Pair], Mapping[str, object]]:
    """The pairs with their new weights or soft labels, and facts to tell.

    `noise` None: estimated by cross-fitting, with its interval; peer review alone needs it. Raises ConfigError for an
    unknown method or a noise prior outside [0, 0.5), DataError below 50 decided pairs.
    """
    if method not in METHODS:
        raise ConfigError(f"denoise: expected one of {', '.join(METHODS)}, got {method!r}")
    features = pair_features(pairs, Encoder(encoder))
    result, decided = oriented([pair.id for pair in pairs], features.vectors, features.rows, p=features.p)
    families = [pair.family for pair, known in zip(pairs, decided, strict=True) if known]

    @functools.cache
    def crossed() -> LabelWeights:
        return cross_fit_filter(result, groups=families, seed=seed)

    if noise is None:
        prior = noise_prior.from_margins(crossed().evidence["margin"], groups=families, seed=seed)
    else:
        prior = noise_prior.stated(noise)
    match method:
        case "cross_fit":
            verdicts = crossed()
        case "confident":
            first = features.p[decided] > 0.5
            verdicts = confident_filter(result.ids, crossed().evidence["margin"], first_preferred=first)
        case "gap":
            verdicts = split_by_gap(result.ids, crossed().evidence["margin"])
        case "upo" | "upo_smoothed":
            passes = cross_fitted_uncertainty(result, families, seed=seed)
            verdicts = select_certain(result.ids, passes, margin=crossed().evidence["margin"], seed=seed)
        case _:
            review = ReviewConfig(selector=method)
            verdicts = collaborate(result, noise=prior.value, review=review, seed=seed).verdicts
    weighted = _softened(pairs, verdicts) if method == "upo_smoothed" else _weighed(pairs, verdicts)
    facts = {"method": method, "noise": asdict(prior), "pairs": len(pairs), "left_out": len(pairs) - len(weighted)}
    return weighted, facts | {"reasons": {} if method == "upo_smoothed" else verdicts.reasons}


def estimated_prior(pairs: Sequence[Pair], *, encoder: EncoderConfig, seed: int) -> noise_prior.NoisePrior:
    """The share of labels that heads on frozen features which never saw them contradict: an upper estimate, with its
    interval. Raises DataError below 50 decided pairs."""
    features = pair_features(pairs, Encoder(encoder))
    result, decided = oriented([pair.id for pair in pairs], features.vectors, features.rows, p=features.p)
    families = [pair.family for pair, known in zip(pairs, decided, strict=True) if known]
    margin = cross_fit_filter(result, groups=families, seed=seed).evidence["margin"]
    return noise_prior.from_margins(margin, groups=families, seed=seed)


def _weighed(pairs: Sequence[Pair], verdicts: LabelWeights) -> list[Pair]:
    weight = dict(zip(verdicts.ids, verdicts.weight.tolist(), strict=True))
    weighed = [replace(pair, weight=pair.weight * weight.get(pair.id, 1.0)) for pair in pairs]
    return [pair for pair in weighed if pair.weight > 0]


def _softened(pairs: Sequence[Pair], verdicts: LabelWeights) -> list[Pair]:
    """p of the labeled order becomes the soft label."""
    assert verdicts.soft_label is not None
    right = dict(zip(verdicts.ids, verdicts.soft_label.tolist(), strict=True))
    return [
        replace(pair, p=right[pair.id] if pair.p > 0.5 else 1 - right[pair.id]) if pair.id in right else pair
        for pair in pairs
    ]
