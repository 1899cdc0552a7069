"""Stored log-probabilities of a policy and its reference: an implicit reward model that needs no GPU to evaluate.

JSON Lines (also gzipped) or Parquet, one row a response:

    id, response    the example's id and the response's position in its row, from 0 (in a benchmark file of pairs the
                    chosen response is 0, the rejected one 1)
    policy          sum of the policy's log-probabilities over the response's tokens, prompt masked
    reference       the same under the reference model
    tokens          number of those tokens
    cell            optional: the row counts in this cell only, where ids of several cells would collide
    truncated       optional: true where the response was cut off
    reference_model optional: its name or hash; two different ones in a file are refused

    reward = policy - reference     DPO's implicit reward (Rafailov et al. 2023) without beta, which changes no order
    per token = reward / tokens     the length-normalized control

A response that is missing, cut off or not finite is unscored with its reason, never zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.suites.load import SUFFIXES, read_rows
from rmkit.errors import DataError
from rmkit.ids import file_sha256
from rmkit.types import ModelInfo

COLUMNS = ("id", "response", "policy", "reference", "tokens")


class Reward(NamedTuple):
    """NaN exactly where `unscored` says why."""

    total: float
    per_token: float
    unscored: str | None = None


@dataclass(frozen=True, slots=True)
class StoredLogprobs:
    """Rewards by cell (None: any), example id and position."""

    info: ModelInfo
    rewards: Mapping[tuple[str | None, str, int], Reward]

    def reward(self, cell: str, row: str, position: int) -> Reward:
        """The reward of one response, its cell's own before the file's general one."""
        general = self.rewards.get((None, row, position), _lost("no log-probabilities stored"))
        return self.rewards.get((cell, row, position), general)


def names_logprobs(name: str) -> bool:
    """Whether a model's name is a file of stored log-probabilities."""
    return name.endswith(SUFFIXES) and Path(name).is_file()


def load_logprobs(path: Path) -> StoredLogprobs:
    """Raises DataError for rows that are not of the format, repeated responses and several references."""
    rows = read_rows(path)
    references = {
        str(row["reference_model"]) for row in rows if isinstance(row, Mapping) and row.get("reference_model")
    }
    if len(references) > 1:
        raise DataError(
            f"{path}: {len(references)} references ({', '.join(sorted(references))}); rewards compare only "
            "against one, store each in a file of its own"
        )
    rewards: dict[tuple[str | None, str, int], Reward] = {}
    for number, row in enumerate(rows, start=1):
        key = _key(row, path, number)
        if key in rewards:
            raise DataError(f"{path}, row {number}: response {key[2]} of {key[1]} is there twice; one run is expected")
        rewards[key] = _reward(row)
    if not rewards:
        raise DataError(f"{path} holds no rows; expected one a response with {', '.join(COLUMNS)}")
    info = ModelInfo(path.name.split(".")[0], "implicit", "log_ratio", True, "stored:" + file_sha256(path)[:32])
    return StoredLogprobs(info, rewards)


def _key(row: Any, path: Path, number: int) -> tuple[str | None, str, int]:
    missing = [name for name in COLUMNS if not isinstance(row, Mapping) or name not in row]
    if missing:
        raise DataError(f"{path}, row {number}: no {', '.join(missing)}; expected {', '.join(COLUMNS)} in every row")
    position = row["response"]
    if isinstance(position, bool) or not isinstance(position, int) or position < 0:
        raise DataError(f"{path}, row {number}: response is a position from 0, got {position!r}")
    return (str(row["cell"]) if row.get("cell") else None), str(row["id"]), position


def _reward(row: Mapping[str, Any]) -> Reward:
    if row.get("truncated"):
        return _lost("truncated")
    for name in ("policy", "reference"):
        if not _finite(row[name]):
            return _lost(f"{name} log-probability is {row[name]}")
    if not _finite(row["tokens"]) or row["tokens"] < 1:
        return _lost(f"token count is {row['tokens']}")
    total = float(row["policy"]) - float(row["reference"])
    return Reward(total, total / float(row["tokens"]))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _lost(reason: str) -> Reward:
    return Reward(math.nan, math.nan, reason)
