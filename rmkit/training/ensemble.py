"""`rmkit train ensemble`: finished models as one, standardized and calibrated on the validation split."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmkit.cli import arguments, display
from rmkit.config import build
from rmkit.data.export_folder import Data, dataset_of, export_folder, model_folder, split_pairs
from rmkit.data.pairs import Pair, column
from rmkit.errors import ModelError, UsageError
from rmkit.metrics import fit_temperature
from rmkit.models import find_model, load_model
from rmkit.models.artifact.folder import building
from rmkit.models.wrappers.ensemble import EnsembleConfig, EnsembleSettings, combined, standardization, write_ensemble
from rmkit.training.command import MIN_VALIDATION, validation_facts
from rmkit.training.summary import summary_text
from rmkit.types import RewardModel

if TYPE_CHECKING:
    from numpy.typing import NDArray


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "train ensemble",
        "Several finished models as one: each standardized, then their mean, worst case or uncertainty-weighted mean.",
        examples=["train ensemble models/seed0 models/seed1 --data hh@v2 --set rule=uwo -o models/hh-both"],
    )
    parser.add_models("members", help="two or more finished models: folders, names or NAME@ALIAS")
    parser.add_data(help="dataset version or export whose validation split is the reference")
    parser.add_config(EnsembleSettings)
    parser.add_output("artifact folder (default $RMKIT_HOME/models/DATA-ensemble)")
    options = parser.parse_args(argv)
    result = train(options.members, options.data, values=arguments.set_values(options), output=options.output)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def train(
    names: Sequence[str],
    data: Data,
    *,
    values: Mapping[str, Any] | None = None,
    output: Path | None = None,
) -> dict[str, object]:
    """Store and reload the ensemble: its path, fingerprint and validation numbers. `values` are settings by name.

    Raises UsageError for fewer than two or repeated members or ones of several scales, DataError for a validation split
    that is too small, ModelError for a member that cannot be used, ConfigError for unknown `values`.
    """
    start = time.monotonic()
    settings = build(EnsembleSettings, values or {}, where="train ensemble")
    folder = export_folder(data)
    members = [load_model(name) for name in names]
    _check(members, names)
    pairs, skipped = split_pairs(folder, "validation", at_least=MIN_VALIDATION)
    target = output or model_folder(folder, "ensemble")
    with building(target) as temporary:
        scores = _reference(members, pairs)
        shapes = [standardization(row.ravel().tolist()) for row in scores]
        config = EnsembleConfig(
            **asdict(settings),
            means=tuple(mean for mean, _ in shapes),
            scales=tuple(scale for _, scale in shapes),
            members=tuple(member.info.fingerprint for member in members),
        )
        margin = _margins(scores, config)
        temperature = fit_temperature(margin, column(pairs, "p"), weight=column(pairs, "share"))
        facts = {
            "name": target.name,
            "dataset": dataset_of(folder),
            "training": {
                "members": {name: member.info.fingerprint for name, member in zip(names, members, strict=True)},
                "pairs": {"validation": len(pairs)},
                "skipped": {"validation": skipped},
                "correlation": _correlation(scores),
                "seconds": round(time.monotonic() - start, 2),
            },
            "validation": validation_facts(margin / temperature, pairs),
        }
        write_ensemble(
            temporary,
            [find_model(name) for name in names],
            config,
            temperature=temperature,
            facts=facts,
            scale=members[0].info.scale,
        )
        fingerprint = load_model(temporary).info.fingerprint
    return {"path": str(target), "fingerprint": fingerprint, "temperature": temperature, "rule": settings.rule, **facts}


def _check(members: Sequence[RewardModel], names: Sequence[str]) -> None:
    if len(members) < 2:
        raise UsageError("an ensemble takes two models or more")
    if "length" in names:
        raise UsageError("the length rule is no artifact and cannot be a member")
    if len({member.info.fingerprint for member in members}) < len(members):
        raise UsageError(f"the same model twice among {', '.join(names)}; name each once")
    if len(scales := sorted({member.info.scale for member in members})) > 1:
        raise UsageError(f"members score on different scales ({', '.join(scales)}), whose numbers cannot be averaged")
    if relative := [member.info.name for member in members if not member.info.pointwise]:
        raise UsageError(f"{', '.join(relative)} cannot score one response by itself, so it has no scale of its own")


def _reference(members: Sequence[RewardModel], pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """[K, pairs, 2] raw scores, NaN where unscored."""
    batch = [pair.candidates for pair in pairs]
    results = []
    with display.progress("scoring the reference set", len(members)) as advance:
        for member in members:
            results.append([[score.value for score in row] for row in member.score(batch)])
            advance(1)
    return np.array(results)


def _margins(values: np.ndarray[Any, Any], config: EnsembleConfig) -> NDArray[np.float64]:
    """[pairs] margins of the rule before the temperature; NaN where a member could not score."""
    z = (values - np.array(config.means)[:, None, None]) / np.array(config.scales)[:, None, None]

    def value(column: np.ndarray[Any, Any]) -> float:
        if np.isnan(column).any():
            return float("nan")
        return combined(column.tolist(), uncertainty_weight=config.uncertainty_weight)[config.rule]

    both = np.apply_along_axis(value, 0, z)
    margin: np.ndarray[Any, Any] = both[:, 0] - both[:, 1]
    return margin


def _correlation(values: np.ndarray[Any, Any]) -> float:
    """Mean correlation between members' scores: how far from copies they are."""
    flat = values.reshape(len(values), -1)
    known = flat[:, ~np.isnan(flat).any(axis=0)]
    if known.shape[1] < 2:
        raise ModelError("the members share fewer than two scored responses of the reference set")
    matrix = np.corrcoef(known)
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())


def _text(result: Mapping[str, Any]) -> str:
    training = result["training"]
    more = [
        f"members      {', '.join(training['members'])}; rule {result['rule']}, "
        f"their scores correlate {training['correlation']:.2f}",
        f"took         {training['seconds']:.1f} s",
    ]
    return summary_text(result, rows=f"{training['pairs']['validation']} validation pairs", more=more)
