"""`rmkit verify`: is this artifact still the one that was saved? Files, fingerprint, golden scores, calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmkit.cli import arguments, display
from rmkit.errors import MissingExtraError, ModelError, RmkitError, UsageError, one_line
from rmkit.models import find_model, load_raw
from rmkit.models.artifact.folder import Artifact, check_fingerprint, open_artifact
from rmkit.models.artifact.golden import replay
from rmkit.models.artifact.model_card import CALIBRATION
from rmkit.models.wrappers.calibrated import read_calibration


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "verify",
        "Check an artifact: file hashes, fingerprint, golden ids and scores. Status 1 where anything differs.",
        examples=["verify models/hh-explicit", "verify hh@prod --json"],
    )
    parser.add_model(help=arguments.ARTIFACT)
    parser.add_device()
    options = parser.parse_args(argv)
    if options.model == "length":
        raise UsageError("the length rule is code, not an artifact: there is nothing to verify")
    result = verify(find_model(options.model), device=options.device)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0 if result.same else 1


@dataclass(frozen=True, slots=True)
class Check:
    """One check of an artifact: whether it is as saved, and what was seen."""

    check: str
    same: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether an artifact is the one that was saved. Checks behind a failed one are not made."""

    path: Path
    same: bool
    fingerprint: str | None
    checks: tuple[Check, ...]


def verify(folder: Path, *, device: str | None = None) -> Verification:
    """The artifact, checked part by part.

    Raises ModelError only where the folder is no artifact at all.
    """
    checks: list[Check] = []
    open_card = _Opened(folder)
    if not open_card.readable:
        open_artifact(folder)  # raises, saying what an artifact is
    for name, check in open_card.checks(device):
        try:
            summary = check()
        except (MissingExtraError, ModuleNotFoundError):
            raise
        except Exception as error:  # whatever a library raises on such a folder, the model is not as it was saved
            summary = str(error) if isinstance(error, RmkitError) else f"{type(error).__name__}: {error}"
            checks.append(Check(name, same=False, detail=one_line(summary)))
            break
        if summary is not None:
            checks.append(Check(name, same=True, detail=summary))
    fingerprint = open_card.artifact.card.get("fingerprint") if open_card.artifact else None
    return Verification(folder, all(one.same for one in checks), fingerprint, tuple(checks))


class _Opened:
    """The folder on its way through the checks: each finds what the one before it opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifact: Artifact | None = None
        self.model: Any = None
        self.readable = (folder / "reward_model.json").is_file()

    def checks(self, device: str | None) -> list[tuple[str, Callable[[], str | None]]]:
        return [
            ("files", self.files),
            ("fingerprint", self.fingerprint),
            ("weights and tokenizer", lambda: self.load(device)),
            ("golden ids", self.ids),
            ("golden scores fp32", lambda: self.golden("fp32")),
            ("golden scores bf16", lambda: self.golden("bf16")),
            ("calibration", self.calibration),
        ]

    def files(self) -> str:
        self.artifact = open_artifact(self.folder)
        files = dict(self.artifact.card.get("files") or {})
        size = sum((self.folder / name).stat().st_size for name in files)
        return f"{len(files)} files, {size / 1e6:.1f} MB: SHA-256 as recorded"

    def fingerprint(self) -> str:
        assert self.artifact
        check_fingerprint(self.artifact)
        return f"{self.artifact.card['fingerprint']} follows from the card"

    def load(self, device: str | None) -> str:
        assert self.artifact
        options = {} if device is None else {"device": device}
        self.model = load_raw(self.folder, check=False, **options)
        return f"{self.artifact.card['model']} model, kind {self.model.info.kind}, scale {self.model.info.scale}"

    def ids(self) -> str | None:
        if not hasattr(self.model, "chat"):
            return None
        from rmkit.models.transformer.artifact import verify_ids

        verify_ids(self.folder, self.model)
        return "the golden texts become the same ids"

    def golden(self, precision: Any) -> str | None:
        assert self.artifact
        replayed = replay(self.artifact, self.model, precision=precision)
        if replayed is None:
            return None
        if replayed.fault:
            raise ModelError(replayed.fault)
        return f"{replayed.n} scores, largest difference {replayed.largest:.1e} (allowed {replayed.allowed:.1e})"

    def calibration(self) -> str | None:
        if not (self.folder / CALIBRATION).is_file():
            return None
        result = read_calibration(self.folder, self.model.info.fingerprint)
        parts = [name for name in ("link", "normalization") if getattr(result, name) is not None]
        return f"{' and '.join(parts)} of this very model ({result.digest[:12]})"


def _text(result: Verification) -> str:
    rows = [["ok" if one.same else "DIFFERS", one.check, one.detail] for one in result.checks]
    verdict = "the model is the one that was saved" if result.same else "do NOT use this model: it is not as saved"
    return f"{display.table(('', 'check', 'result'), rows)}\n\n{result.path}: {verdict}"
