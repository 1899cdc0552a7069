"""The artifact folder of a reward model: what makes a number from it trustworthy later.

    reward_model.json   model, kind, scale, config, temperature, dataset, training facts, validation, fingerprint
    weights.npz         of small models: named fp32 / int32 arrays, never pickles (others: `transformer_artifact`)
    golden.jsonl        probe texts of rmkit's own with the scores that the model gave when it was saved (`golden`)
    README.md           model card
    calibration.json    what `rmkit calibrate` and `rmkit normalize` found later, where they were run

Nothing appears under the final name before it is complete: the folder is built beside it, checked by loading it, and
takes the name in one step (`rmkit.atomic`). On loading, the weights must have the recorded SHA-256, the fingerprint
must follow from the files, and the golden scores must come out again; otherwise the model refuses to load.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rmkit import __version__
from rmkit.atomic import draft_folder, put
from rmkit.config import file_in, read_object
from rmkit.errors import ModelError
from rmkit.ids import canonical_json, digest, file_sha256
from rmkit.storage.staged import check_replaceable
from rmkit.types import ModelInfo

CARD, WEIGHTS = "reward_model.json", "weights.npz"
CARD_KEYS = {
    **dict.fromkeys(("model", "name", "kind", "scale", "fingerprint"), str),
    "pointwise": bool,
    "config": dict,
    "files": dict,
}

Arrays = Mapping[str, NDArray[Any]]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """An opened artifact whose files are those that its card names."""

    folder: Path
    card: Mapping[str, Any]

    @property
    def info(self) -> ModelInfo:
        """What a number from this model means."""
        card = self.card
        return ModelInfo(card["name"], card["kind"], card["scale"], card["pointwise"], card["fingerprint"])

    def weights(self) -> dict[str, NDArray[Any]]:
        """The arrays by name. Raises ModelError where the file cannot be read as arrays."""
        path = self.folder / WEIGHTS
        try:
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ModelError(f"{path} is compressed, as rmkit never writes it; do not use this folder")
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path} cannot be read: {error}; train the model again") from error


def fingerprint(card: Mapping[str, Any]) -> str:
    """32 hex digits over all that a score depends on: model, config, temperature, encoder, weights."""
    parts = {key: card.get(key) for key in ("model", "scale", "config", "temperature", "encoder", "files")}
    return digest([canonical_json(parts)])[:32]


def build_artifact(folder: Path, *, card: Mapping[str, Any], arrays: Arrays) -> None:
    """Write card and weights into an existing empty folder; `golden.seal` adds the golden scores."""
    np.savez(folder / WEIGHTS, allow_pickle=False, **{name: arrays[name] for name in sorted(arrays)})
    sign(folder, card, bound=[WEIGHTS])


def sign(folder: Path, card: Mapping[str, Any], *, bound: Sequence[str]) -> None:
    """Write the card with the hashes of the files it is bound to, and the fingerprint that follows from it."""
    full = {"format": 1, "rmkit": __version__, **card, "files": {name: file_sha256(folder / name) for name in bound}}
    full["fingerprint"] = fingerprint(full)
    (folder / CARD).write_text(json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` that takes its name, whole, at the end of the block, and is gone on failure.

    An older artifact at `target` is replaced in one step; anything else there is refused with ModelError.
    """
    if target.exists() and not (target / CARD).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise ModelError(f"{target} exists and is not a reward model; name another folder with -o")
    check_replaceable(target)
    with draft_folder(target) as folder:
        yield folder
        put(folder, target, replace=True)


def open_artifact(folder: Path) -> Artifact:
    """The artifact, the hashes of its files verified. Raises ModelError."""
    if not (folder / CARD).is_file():
        raise ModelError(f"{folder} is not a reward model: no {CARD}; make one with: rmkit train")
    card = read_object(folder / CARD, raises=ModelError, hint="train the model again", keys=CARD_KEYS)
    for name, expected in card["files"].items():
        path = file_in(folder, name, raises=ModelError)
        if not path.is_file():
            raise ModelError(f"{path} is missing; the model cannot be used without it, train it again")
        if (got := file_sha256(path)) != expected:
            raise ModelError(f"{path} was changed: sha256 is {got[:12]}..., {CARD} says {str(expected)[:12]}...")
    return Artifact(folder, card)


def check_fingerprint(artifact: Artifact) -> None:
    """Raises ModelError where the card's fingerprint does not follow from its contents."""
    stored = artifact.card.get("fingerprint")
    if (computed := fingerprint(artifact.card)) != stored:
        raise ModelError(f"{artifact.folder}: {CARD} was changed: fingerprint {stored}, its contents give {computed}")
