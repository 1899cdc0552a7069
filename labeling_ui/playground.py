"""One case before several judges: a prompt and its replies, scored side by side, mixed and shaped as for a trainer."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rmkit import plugins
from rmkit.errors import RmkitError, unknown
from rmkit.models import load_model
from rmkit.models.artifact import aliases
from rmkit.serve.clients.reward_client import RewardClient
from rmkit.serve.rewards.placement import spans_of
from rmkit.serve.rewards.shaping import Shaped, shape
from rmkit.shaping import chain
from rmkit.shaping.chain import Spec
from rmkit.signal.mix import MODEL, Mixed, mixed
from rmkit.types import Candidates, RewardModel, Score, Span
from rmkit.verifiers.verifier import load_verifier

Z = 1.959964
SERVED = "served: "
_NEEDS_OPTIONS = ("external",)  # and would run what it names
_scoring = threading.Lock()  # one model at a time: pages run in threads, and a model fills the memory


@dataclass(frozen=True, slots=True)
class Column:
    """What one judge says: a score and its spans (steps or tokens) for each reply."""

    name: str
    scores: tuple[Score, ...]
    spans: tuple[tuple[Span, ...], ...]


@dataclass(frozen=True, slots=True)
class Played:
    """The judges' columns, why others gave none, and for each reply the mix and what the chain makes of it."""

    columns: tuple[Column, ...]
    failed: Mapping[str, str]
    mix: tuple[Mixed, ...]
    shaped: tuple[Shaped, ...]


def judges() -> list[str]:
    """Models of this home by name, those of the service at RMKIT_REWARD_URL, and verifiers."""
    local = [folder.name for folder in aliases.artifacts()]
    verifiers = [name for name in plugins.names("verifiers") if name not in _NEEDS_OPTIONS]
    return [*local, *_served(), *verifiers]


def interval(score: Score) -> tuple[float, float] | None:
    """95% of a normal distribution, None where the model says nothing of its uncertainty."""
    if score.unscored is not None or score.std is None:
        return None
    return score.value - Z * score.std, score.value + Z * score.std


def play(case: Candidates, names: Sequence[str], *, weights: Mapping[str, float], transforms: Spec = ()) -> Played:
    """Ask the judges. One that cannot answer is a reason, and no other is lost.

    Without `weights` the reward is the first judge's. Raises ConfigError for a chain that cannot be read, DataError for
    one that does not fit its columns.
    """
    columns, failed, known = [], {}, judges()
    for name in names:
        if name not in known:  # any other could be a path, or code to import
            failed[name] = unknown("judge", name, known)
            continue
        try:
            columns.append(_column(name, case))
        except RmkitError as error:
            failed[name] = str(error)
    mix = weights or {one.name: 1.0 for one in columns[:1]}
    rows = tuple(
        mixed(
            mix,
            {one.name: one.scores[at].value for one in columns},
            reasons={one.name: why for one in columns if (why := one.scores[at].unscored)} | failed,
        )
        for at in range(len(case.completions))
    )
    shaped: list[Shaped] = ["there is no chain"] * len(rows)
    if transforms:
        values = [(
            "case", {MODEL: row.reward, "length": float(len(one.text)), **row.components}
        ) for row, one in zip(rows, case.completions, strict=True)]  # fmt: skip
        shaped = shape(chain(transforms), values)
    return Played(tuple(columns), failed, rows, tuple(shaped))


def _column(name: str, case: Candidates) -> Column:
    model = _model(name)
    with _scoring:
        [scores] = model.score([case])
        try:
            [spans] = spans_of(model, [case], [scores])
        except (AttributeError, RmkitError):  # a model behind a service, whose inside is not here
            spans = [[] for _ in scores]
    return Column(name, tuple(scores), tuple(tuple(one) for one in spans))


@lru_cache(maxsize=4)
def _model(name: str) -> RewardModel:
    if name.startswith(SERVED):
        return RewardClient(model=name.removeprefix(SERVED))
    folders = {folder.name: folder for folder in aliases.artifacts()}
    return load_model(folders[name]) if name in folders else load_verifier(name)


def _served() -> list[str]:
    """Only the service that whoever runs the studio has named: its token goes to no address that a page names."""
    if not os.environ.get("RMKIT_REWARD_URL"):
        return []
    try:
        listed = RewardClient().service.ask("/rmkit/v1/models")["models"]
    except RmkitError:
        return []
    return [f"{SERVED}{one['name']}" for one in listed]
