"""Peer review in full: two fine-tuned causal models, 40% wrong labels planted, audit, adapters, policies under DPO."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import pyarrow.parquet as pq  # noqa: E402

from rmkit.chat.encode import Chat  # noqa: E402
from rmkit.data.example import read_examples  # noqa: E402
from rmkit.errors import ConfigError, DataError, UsageError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.reliability.peer_review import ReviewConfig  # noqa: E402
from rmkit.reliability.review_audit import ReviewAudit  # noqa: E402
from rmkit.training.config import ImplicitConfig, TrainingConfig, training_config  # noqa: E402
from rmkit.training.data import read_rows  # noqa: E402
from rmkit.training.peer_review import Peers, PeerTrainer, reward_margins  # noqa: E402
from rmkit.training.peer_review_command import _EPOCHS, build_peers, train_peers  # noqa: E402
from rmkit.training.rows import TrainingRow  # noqa: E402
from rmkit.training.run import arguments as trainer_arguments  # noqa: E402
from rmkit.training.run import last_checkpoint  # noqa: E402
from tests.exports import row, write_export  # noqa: E402

Make = Callable[..., Any]
WORDS = ["the", "quick", "brown", "fox", "sky", "is", "not", "step", "2", "+", "="]
EPOCHS, RATE, PAIRS = 5, 0.4, 320


def flipped_rows(n: int, *, rate: float, seed: int = 0) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """Pairs in which the answer that says Yes is better, `rate` of the train labels turned around; id -> right."""
    draw = random.Random(seed)
    rows, right = [], {}
    wrong = set(draw.sample(range(n), round(rate * n)))
    for number in range(n + n // 4):
        good, bad = (" ".join([*draw.choices(WORDS, k=4), word, *draw.choices(WORDS, k=4)]) for word in ("Yes", "No"))
        first = draw.random() < 0.5
        label = float(first) if number not in wrong else float(not first)
        made = row(f"Is the sky blue {number}?", [good, bad] if first else [bad, good], p=[label, 1 - label],
                   family=number, split="train" if number < n else "validation")  # fmt: skip
        rows.append(made)
        right[made["id"]] = number not in wrong
    return rows, right


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Make, chatml: str) -> str:
    """A tiny causal language model."""
    import transformers as hf

    torch.set_num_threads(1)
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("causal")
    tokenizer = make_tokenizer(chatml, pad="<|im_end|>", adds_bos=True)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bool]]:
    rows, right = flipped_rows(PAIRS, rate=RATE)
    return write_export(tmp_path_factory.mktemp("data") / "yes", rows, ref="yes@v1"), right


def settings(model: str, **more: Any) -> TrainingConfig:
    quick = {
        "learning_rate": 3e-3,
        "num_train_epochs": float(EPOCHS),
        "global_batch_size": 8,
        "max_batch_tokens": 800,
        "max_length": 200,
    }
    return training_config("explicit", model=model, **{**quick, "response_reserve_tokens": 100, **more})


def make(
    config: TrainingConfig,
    data: tuple[Path, dict[str, bool]],
    run: Path,
    *,
    review: ReviewConfig | None = None,
    **more: Any,
) -> tuple[PeerTrainer, list[TrainingRow], Chat]:
    folder, right = data
    first, second, chat = build_peers(config)
    rows, _ = read_rows(read_examples(folder, split="train"), chat, objective=config.objective)
    arguments = trainer_arguments(config, n_rows=len(rows), run=run)
    for name, value in {**_EPOCHS, **more}.items():
        setattr(arguments, name, value)
    truth = np.array([right[one.id] for one in rows])
    trainer = PeerTrainer(
        Peers(first, second),
        arguments,
        config=config,
        review=review or ReviewConfig(),
        noise=RATE,
        rows=rows,
        truth=truth,
    )
    held_out, _ = read_rows(
        read_examples(folder, split="validation"), chat, objective=config.objective, validation=True
    )
    return trainer, held_out, chat


def accuracy(trainer: PeerTrainer, rows: Sequence[TrainingRow]) -> float:
    margins = [trainer._scored(module, rows) for module in trainer.model.both]
    return float((sum(m / m.std() for m in margins) > 0).mean())


@pytest.fixture(scope="module")
def unbroken(checkpoint: str, data: tuple[Path, dict[str, bool]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    trainer, held_out, _ = make(settings(checkpoint), data, tmp_path_factory.mktemp("run"))
    trainer.train()
    return trainer, held_out


@pytest.mark.slow
def test_two_models_find_the_wrong_labels_and_the_audit_says_how(unbroken: Any, data: Any) -> None:
    trainer, held_out = unbroken
    audit: ReviewAudit = trainer.audit()
    assert accuracy(trainer, held_out) > 0.9
    first, last = audit.epochs[0], audit.epochs[-1]
    assert (first.keep_ratio, first.kept) == (1.0, (PAIRS, PAIRS))
    assert (last.keep_ratio, last.kept) == (0.6, (192, 192))
    assert last.kept_precision is not None
    assert min(last.kept_precision) > 0.85
    assert audit.margin.shape == (EPOCHS, 2, PAIRS)
    assert audit.selected_by == (("all", "all"), *[("B", "A")] * (EPOCHS - 1))
    for epoch in range(1, EPOCHS):  # each pool is the top of the other's margins after the epoch before
        for model, other in ((0, 1), (1, 0)):
            kept, deciding = audit.kept[epoch, model], audit.margin[epoch - 1, other]
            assert deciding[kept].min() >= deciding[~kept].max()


def test_a_step_moves_each_model_as_if_it_were_alone_with_its_kept_rows(
    checkpoint: str, data: Any, tmp_path: Path
) -> None:
    trainer, _, _ = make(settings(checkpoint), data, tmp_path)
    rows = trainer.rows[:10]
    trainer.parts = [[np.arange(3, 8)], [np.arange(5)]]
    trainer.steps_per_epoch = 1
    trainer.training_step(trainer.model, {})
    for module, kept in zip(trainer.model.both, (rows[3:8], rows[:5]), strict=True):
        got = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        module.zero_grad()
        torch.nn.functional.softplus(-reward_margins(module, kept)).mean().backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        wanted = [p.grad for p in module.parameters() if p.grad is not None]
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, wanted, strict=True))


@pytest.mark.slow
def test_adapters_share_one_frozen_trunk_and_learn(checkpoint: str, data: Any, tmp_path: Path) -> None:
    config = settings(checkpoint, lora_rank=4, learning_rate=2e-2, num_train_epochs=2.0)
    trainer, held_out, _ = make(config, data, tmp_path)
    first, second = (dict(module.named_parameters()) for module in trainer.model.both)
    frozen = [name for name, weight in first.items() if not weight.requires_grad]
    assert frozen
    assert all(first[name] is second[name] for name in frozen)
    assert not any(first[name] is second[name] for name in first if name not in frozen)
    before = {name: first[name].clone() for name in frozen}
    trainer.train()
    assert all(torch.equal(before[name], first[name]) for name in frozen)
    assert accuracy(trainer, held_out) > 0.6
    saved = Path(last_checkpoint(tmp_path) or "") / "peers.safetensors"
    assert saved.stat().st_size < 0.7 * sum(4 * weight.numel() for weight in first.values())


@pytest.mark.slow
def test_selection_within_each_batch(checkpoint: str, data: Any, tmp_path: Path) -> None:
    trainer, held_out, _ = make(settings(checkpoint), data, tmp_path, review=ReviewConfig(scope="batch"))
    trainer.train()
    last = trainer.audit().epochs[-1]
    assert last.kept == (200, 200)  # 40 steps of 8 rows keep max(1, round(0.6 * 8)) = 5 each
    assert last.kept_precision is not None
    assert min(last.kept_precision) > 0.75
    assert accuracy(trainer, held_out) > 0.8


@pytest.mark.slow
def test_the_command_stores_both_models_and_the_audit(checkpoint: str, data: Any, home: Path, tmp_path: Path) -> None:
    result = train_peers(str(data[0]), settings(checkpoint), noise=RATE, output=tmp_path / "peers")
    assert result.mean_accuracy > 0.9
    for name in ("A", "B"):
        assert load_model(result.models[name].path).info.kind == "explicit"
    audit = pq.read_table(result.audit)
    assert audit.num_rows == EPOCHS * 2 * PAIRS
    assert len(result.epochs) == EPOCHS
    assert not (home / "runs" / "peers-peers").exists()
    with pytest.raises(UsageError, match="nothing to resume"):
        train_peers(str(data[0]), settings(checkpoint), noise=RATE, output=tmp_path / "peers", resume=True)


@pytest.mark.slow
def test_policies_under_dpo_that_review_each_other_beat_those_that_do_not(home: Path, tmp_path: Path) -> None:
    """40% of the labels are wrong; beta 1 lets plain DPO learn them by heart."""
    from evaluation.denoise.fine_tuned import causal_model

    gains = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        rows, right = flipped_rows(240, rate=RATE, seed=seed)
        write_export(folder / "data", rows, ref="yes@v1")
        causal_model(folder / "base", hidden=32, seed=seed)
        config = ImplicitConfig(model=str(folder / "base"), learning_rate=3e-3, beta=1.0, num_train_epochs=5.0,
                                global_batch_size=8, max_batch_tokens=2000, max_length=200,
                                response_reserve_tokens=100, seed=seed)  # fmt: skip
        arms = {
            noise: train_peers(str(folder / "data"), config, noise=noise, output=folder / f"at-{noise}", restart=True)
            for noise in (0.0, RATE)
        }
        gains.append(arms[RATE].mean_accuracy - arms[0.0].mean_accuracy)
        assert load_model(arms[RATE].models["A"].path).info.kind == "implicit"
        audit = pq.read_table(arms[RATE].audit).to_pandas()
        last = audit[(audit.epoch == EPOCHS) & audit.kept]
        assert last.id.map(right).mean() > 0.7
    assert min(gains) > 0
    assert np.mean(gains) > 0.05


def test_bad_input_is_told(checkpoint: str, data: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"in \[0, 0.5\)"):
        train_peers(str(data[0]), settings(checkpoint), noise=0.5)
    with pytest.raises(ConfigError, match="late batches train on wrong labels"):
        train_peers(str(data[0]), settings(checkpoint), noise=0.4, review=ReviewConfig(curriculum=True, scope="batch"))
    with pytest.raises(ConfigError, match="1 epochs end before the first selection"):
        make(settings(checkpoint, num_train_epochs=1.0), data, tmp_path)
    with pytest.raises(ConfigError, match="one of bradley_terry, soft_label, dpo, got focal"):
        make(settings(checkpoint, objective="focal"), data, tmp_path)
    few = write_export(tmp_path / "few", flipped_rows(40, rate=0.2)[0])
    with pytest.raises(DataError, match="40 usable training pairs, at least 50"):
        make(settings(checkpoint), (few, flipped_rows(40, rate=0.2)[1]), tmp_path)
