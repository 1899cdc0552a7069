"""The tensors of a folder by name, without loading them, and a network that takes exactly them.

transformers fills what it does not find with random numbers and says so in a log line. `load_strictly` refuses that:
every tensor of the network comes from the checkpoint, and every tensor of the checkpoint goes into the network, but for
the few whose absence changes nothing (`HARMLESS`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rmkit.errors import ModelError
from rmkit.models.transformer.pretrained import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# An unused vocabulary head, and rotary frequencies that old versions stored though they follow from the config.
HARMLESS = re.compile(r"(?:^|\.)lm_head\.|rotary_emb\.inv_freq$|(?:^|\.)attn\.(?:masked_)?bias$")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin")
_ENDINGS = (".safetensors", ".bin", ".pt")


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file, under the name it has there."""

    file: Path
    name: str
    shape: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by name in all weight files of a folder. Pickles are read without running what they hold."""

    folder: Path
    tensors: Mapping[str, Stored]

    @classmethod
    def of(cls, folder: Path, *, more: Sequence[str] = ()) -> Checkpoint:
        """The weights of a folder, and further files by name; of a .pt the stem begins its tensors' names.

        Raises ModelError where there is no weight file, or one cannot be read.
        """
        tensors: dict[str, Stored] = {}
        for path in _weight_files(folder):
            tensors |= _listed(path, stem="")
        for name in more:
            if not (folder / name).is_file():
                raise ModelError(f"{folder} has no {name}, which the head is read from")
            tensors |= _listed(folder / name, stem=f"{Path(name).stem}." if name.endswith(".pt") else "")
        return cls(folder, tensors)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of these names. Raises ModelError for one that is not there."""
        by_file: dict[Path, list[str]] = {}
        for name in names:
            if name not in self.tensors:
                raise ModelError(f"{self.folder} has no tensor {name}; it has {self.summary()}")
            by_file.setdefault(self.tensors[name].file, []).append(name)
        result: dict[str, Tensor] = {}
        for path, own in by_file.items():
            opened = _opened(path)
            result |= {name: opened(self.tensors[name].name) for name in own}
        return result

    def summary(self, *, outside: str = "layers.") -> str:
        """Names and shapes, those of repeated layers left out."""
        shown = [f"{name} {list(one.shape)}" for name, one in self.tensors.items() if outside not in name]
        return ", ".join(shown[:24]) + (f" and {len(shown) - 24} more" if len(shown) > 24 else "")


@dataclass(frozen=True, slots=True)
class Loading:
    """What a network took from a checkpoint: tensors, their bytes, and those that were left aside as harmless."""

    tensors: int
    n_bytes: int
    left_aside: tuple[str, ...] = field(default=())


def load_strictly(
    loader: Any,
    source: Path | None,
    *,
    names: Mapping[str, Stored],
    state: Mapping[str, Tensor] | None = None,
    may_lack: Callable[[str], bool] = lambda name: False,
    may_hold: Callable[[str], bool] = lambda name: False,
    **options: Any,
) -> tuple[PreTrainedModel, Loading]:
    """What `loader.from_pretrained` makes of a folder, or of the tensors in `state`, with nothing random in it.

    `names` are the tensors that are offered. Raises ModelError where any weight of the network is missing or has
    another shape, and where a tensor goes nowhere, unless it is harmless or the two callbacks allow it.
    """
    if state is not None:
        options |= {"state_dict": dict(state)}
    where = source or "the checkpoint"
    try:
        with quiet():
            model, report = loader.from_pretrained(source, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{where} cannot be loaded by {loader.__name__}: {error}") from error
    mismatched = [str(one[0] if isinstance(one, tuple) else one) for one in report.get("mismatched_keys", ())]
    missing = sorted({*map(str, report["missing_keys"]), *mismatched})
    if missing := [name for name in missing if not may_lack(name)]:
        raise ModelError(f"{where} lacks the weights {_few(missing)}; scores would be random")
    unexpected = sorted(map(str, report["unexpected_keys"]))
    if strange := [name for name in unexpected if not HARMLESS.search(name) and not may_hold(name)]:
        raise ModelError(
            f"{where} holds weights that {type(model).__name__} has no place for: {_few(strange)}; another class was "
            "trained, and its number would not be this one"
        )
    taken = {name: one for name, one in names.items() if name not in unexpected}
    return model, Loading(len(taken), sum(one.n_bytes for one in taken.values()), tuple(unexpected))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights: what an index names, the usual single file, else the only one there."""
    for name in _INDEXES:
        if (folder / name).is_file():
            try:
                listed = sorted(set(json.loads((folder / name).read_text())["weight_map"].values()))
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
                raise ModelError(f"{folder / name} cannot be read: {error}") from error
            if absent := [one for one in listed if not (folder / Path(one).name).is_file()]:
                raise ModelError(f"{folder} lacks {_few(absent)}, which {name} names; the download is not complete")
            return [folder / Path(one).name for one in listed]
    for name in _SINGLE:
        if (folder / name).is_file():
            return [folder / name]
    others = [one for one in sorted(folder.iterdir()) if one.suffix in _ENDINGS and one.name != "training_args.bin"]
    if len(others) == 1:
        return others
    seen = ", ".join(one.name for one in others) or "no weight file"
    raise ModelError(f"{folder}: which files hold the weights cannot be told: {seen}; expected {_SINGLE[0]}")


def _listed(path: Path, *, stem: str) -> dict[str, Stored]:
    if path.suffix == ".safetensors":
        return {
            stem + name: Stored(path, name, tuple(one["shape"]), one["data_offsets"][1] - one["data_offsets"][0])
            for name, one in _header(path).items()
        }
    return {
        stem + name: Stored(path, name, tuple(one.shape), one.numel() * one.element_size())
        for name, one in _pickled(path).items()
    }


def _header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: dtype, shape and offsets by name."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(path.stat().st_size, 100_000_000):
                raise ValueError(f"a header of {length} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        sizes = [math.prod(one["shape"]) for one in header.values()]
        assert all(size >= 0 for size in sizes)
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise ModelError(f"{path} is no safetensors file: {error}") from error
    return header


def _pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle. Raises ModelError for one that holds anything but tensors: opening it would run it."""
    import pickle

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path} is a pickle that holds more than tensors, which could run code, and is not opened: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if isinstance(loaded, Tensor):
        return {"weight": loaded}
    if not isinstance(loaded, dict) or not all(isinstance(one, Tensor) for one in loaded.values()):
        raise ModelError(f"{path} holds no tensors by name")
    return loaded


def _opened(path: Path) -> Callable[[str], Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        file: Any = safe_open(path, framework="pt")
        return lambda name: file.get_tensor(name)
    tensors = _pickled(path)
    return lambda name: tensors[name]
