"""Where an adopted model's files lie: a folder, or a Hub id whose revision is resolved in full.

    ORG/NAME              the revision that its main branch has now
    ORG/NAME@REVISION     a branch, a tag or a commit

What the Hub has once given is read from its cache; without a connection a resolved revision still opens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmkit import config
from rmkit.errors import ConfigError, ModelError
from rmkit.hub import fault
from rmkit.ids import digest, file_sha256

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[\w./-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NOT_NEEDED = ["*.onnx", "*.gguf", "*.h5", "*.msgpack", "*.ot", "*.tflite", "optimizer*", "*.png", "*.jpg", "*.pdf"]
_READ = (".json", ".safetensors", ".bin", ".pt", ".py", ".jinja", ".model", ".txt")  # what a score depends on
_NOT_READ = ("training_args.bin", "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json")


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of weights. `hub` is ORG/NAME with `revision` in 40 digits, both empty for a folder of one's own."""

    folder: Path
    hub: str = ""
    revision: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the id, or the folder's name."""
        return self.hub.rsplit("/", 1)[-1] if self.hub else self.folder.resolve().name

    @property
    def address(self) -> str:
        """What `open_source` takes to open the very same files."""
        return f"{self.hub}@{self.revision}" if self.hub else str(self.folder.resolve())

    @property
    def config(self) -> dict[str, Any]:
        """config.json; empty where there is none."""
        path = self.folder / "config.json"
        return config.read_object(path, raises=ModelError, hint="download it again") if path.is_file() else {}

    @property
    def license(self) -> str:
        """What the card's metadata says, a name of one's own included."""
        named = str(self.card.get("license") or "")
        return str(self.card.get("license_name") or named) if named == "other" else named

    @property
    def base(self) -> str:
        """The models that the card says it was made from."""
        bases = self.card.get("base_model") or ""
        return ", ".join(map(str, bases)) if isinstance(bases, list) else str(bases)

    def files(self) -> list[Path]:
        """The files that a score depends on, sorted: weights, configs, tokenizer, code."""
        return [
            path
            for path in sorted(self.folder.iterdir())
            if path.is_file() and path.suffix in _READ and path.name not in _NOT_READ
        ]

    def hashes(self) -> dict[str, dict[str, Any]]:
        """SHA-256 and size of every file by name."""
        return {path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size} for path in self.files()}

    def mark(self) -> str:
        """32 hex digits that change whenever a file is written: no content is read."""
        if self.hub:
            return digest([self.hub, self.revision])[:32]
        stats = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in self.files()]
        return digest([str(self.folder.resolve()), *stats])[:32]

    def code_sha256(self) -> str:
        """One hash over the Python files, "" where there are none."""
        code = [path for path in self.files() if path.suffix == ".py"]
        if not code:
            return ""
        return hashlib.sha256("".join(f"{one.name} {file_sha256(one)}\n" for one in code).encode()).hexdigest()


def is_foreign(folder: Path) -> bool:
    """Whether a folder holds somebody else's model: a config or an adapter, and no artifact of rmkit."""
    return (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()


def is_adapter(source: Source) -> bool:
    """Whether a folder holds an adapter, whose base lies elsewhere."""
    return (source.folder / "adapter_config.json").is_file()


def beside(name: str, source: Source, *, role: str) -> Source:
    """Another model that `source` needs: a Hub id, a folder, or one inside of the source's own. Raises ConfigError
    where none is named."""
    if not name:
        raise ConfigError(f"{source.folder} needs a {role} model: name it by model.{role}")
    inside = source.folder / name
    return open_source(inside if not Path(name).is_absolute() and inside.is_dir() else name)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ORG/NAME[@REVISION]."""
    return _HUB_ID.fullmatch(name) is not None and not name.startswith("models/")


def open_source(name: str | Path, *, revision: str = "") -> Source:
    """The files of a folder or a Hub id. Raises ModelError where there are none, or the Hub does not give them."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not is_foreign(path):
            raise ModelError(f"{path} holds no config.json and no adapter_config.json, so it is no model")
        return Source(path, card=_card(path))
    if not is_hub_id(str(name)):
        raise ModelError(f"no model {name}: neither a folder nor a Hub id (ORG/NAME or ORG/NAME@REVISION)")
    hub, _, named = str(name).partition("@")
    return _downloaded(hub, named or revision)


def _card(folder: Path) -> dict[str, Any]:
    """The metadata at the top of README.md; empty where there is none that can be read."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    from huggingface_hub import metadata_load

    try:
        return dict(metadata_load(readme) or {})
    except Exception:  # anybody's YAML
        return {}


def _downloaded(hub: str, revision: str) -> Source:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    at = f"{hub}@{revision}" if revision else hub
    try:
        commit = (
            revision if _COMMIT.fullmatch(revision) else str(HfApi().model_info(hub, revision=revision or None).sha)
        )
        folder = Path(snapshot_download(hub, revision=commit, ignore_patterns=_NOT_NEEDED))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:  # a gated one is the first of them
        raise ModelError(f"no model {at}: not a folder, not a stored name; {fault(error, at)}") from error
    except Exception as error:  # of whatever client it has: no connection, a proxy, a full disk
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code == 401
        if refused and not _COMMIT.fullmatch(revision):
            raise ModelError(fault(error, at)) from error
        return _cached(hub, revision, error)
    return Source(folder, hub, commit, _card(folder))


def _cached(hub: str, revision: str, error: Exception) -> Source:
    """What the Hub's cache holds, where the Hub itself does not answer."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub, revision=revision or None, local_files_only=True))
    except (OSError, ValueError):
        raise ModelError(
            f"no model {hub}: no folder and no stored name, and as a Hub id it is not in the cache and cannot be "
            f"downloaded: {fault(error, hub)}"
        ) from error
    return Source(folder, hub, folder.name, _card(folder))
