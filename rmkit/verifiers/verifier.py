"""What a verifier is, and a verifier as a reward model: evaluated, mixed and served like one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, runtime_checkable

from rmkit import plugins
from rmkit.config import build
from rmkit.errors import DataError
from rmkit.ids import digest
from rmkit.types import Candidates, Comparison, ModelInfo, Score, compare_by_score

Check = Callable[[Candidates, str], "float | Score"]


@runtime_checkable
class Verifier(Protocol):
    """A frozen dataclass; `revision` changes whenever the same options would give another number."""

    revision: ClassVar[int]

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        """[P] Candidates -> [P][N] Score; what cannot be verified is unscored and says why. Thread-safe."""
        ...


def each(items: Sequence[Candidates], check: Check) -> list[list[Score]]:
    """[P][N] scores of a check of one completion's text, which raises DataError for what it cannot verify."""
    return [[_checked(check, item, completion.text) for completion in item.completions] for item in items]


def _checked(check: Check, item: Candidates, text: str) -> Score:
    try:
        value = check(item, text)
    except DataError as error:
        return Score.failed(str(error))
    return value if isinstance(value, Score) else Score(float(value))


def gold(item: Candidates) -> str:
    """The item's reference answer. Raises DataError where it has none."""
    if item.reference is None or not item.reference.strip():
        raise DataError("there is no reference answer to verify against")
    return item.reference


class VerifierModel:
    """A verifier behind the interface of reward models. Values are ratings: a difference is no Bradley-Terry logit, so
    the better of two completions wins with probability 1, and equal ones tie."""

    def __init__(self, name: str, verifier: Verifier) -> None:
        self.verifier = verifier
        options = asdict(verifier)  # type: ignore[call-overload]
        identity = digest([type(verifier).__qualname__, str(verifier.revision), repr(sorted(options.items()))])
        self.info = ModelInfo(name, "explicit", "rating", pointwise=True, fingerprint=identity[:32])

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return self.verifier.verify(batch)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch, p_first=_larger)


def _larger(first: float, second: float) -> float:
    return 0.5 if first == second else float(first > second)


def load_verifier(
    use: str, options: Mapping[str, Any] | None = None, *, name: str = "", where: str = "", trusted: bool = False
) -> VerifierModel:
    """The verifier of that name in the group `verifiers` with its options, as a model called `name`.

    Raises UsageError for an unknown one, ConfigError for options that it does not take.
    """
    kind = plugins.resolve("verifiers", use, trusted=trusted)
    return VerifierModel(name or use, build(kind, options or {}, where=where or f"verifier {use}"))
