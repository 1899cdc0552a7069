"""Folders as trainers leave them: TRL's RewardTrainer in full and as LoRA, plain transformers of every architecture."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rmkit.errors import ModelError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.adopted.adopt import adopt  # noqa: E402
from tests.rmkit.models.adopted import fakes as made  # noqa: E402
from tests.rmkit.models.adopted.test_readers import TEXTS, item  # noqa: E402
from tests.rmkit.serve.trainer_wheels import imported_from, wheel  # noqa: E402

Make = Callable[..., Any]


def plainly(model: Any, *, pad_side: str, pad: int = 3) -> list[float]:
    """transformers' own classifier over one padded batch of all texts."""
    rows = [made.chat_ids(*text) for text in TEXTS]
    longest = max(map(len, rows))
    ids, mask = torch.full((len(rows), longest), pad), torch.zeros(len(rows), longest, dtype=torch.long)
    for line, one in enumerate(rows):
        place = slice(longest - len(one), None) if pad_side == "left" else slice(len(one))
        ids[line, place], mask[line, place] = torch.tensor(one), 1
    with torch.no_grad():
        return [float(one) for one in model(input_ids=ids, attention_mask=mask).logits[:, 0]]


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    made.tokenizer().save_pretrained(folder)
    return folder


FAMILIES = ["qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3", "gpt2", "bloom", "bert"]


def check_family(tiny_model: Make, family: str, folder: Path) -> None:
    model = tiny_model(family, pad_token_id=3)
    model.config.problem_type = None  # as a trainer leaves it that never heard of regression
    opened = load_model(saved(model, folder))
    ours = [score.value for [score] in opened.score([item(*text) for text in TEXTS])]
    assert ours == pytest.approx(plainly(model, pad_side="right"), abs=1e-4)
    if family not in ("gpt2", "bert"):  # which count places from the left end, padding included
        assert ours == pytest.approx(plainly(model, pad_side="left"), abs=1e-4)


def test_scores_are_those_of_batched_transformers(tiny_model: Make, home: Path, tmp_path: Path) -> None:
    check_family(tiny_model, "llama", tmp_path / "llama")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_batched_transformers_in_every_architecture(
    tiny_model: Make, home: Path, tmp_path: Path, family: str
) -> None:
    check_family(tiny_model, family, tmp_path / family)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [1, 2, 5])
def test_a_folder_of_plain_transformers_with_several_labels(home: Path, tmp_path: Path, labels: int) -> None:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(2)
    model = AutoModelForSequenceClassification.from_config(made.llama(num_labels=labels)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = saved(model, tmp_path / "plain")
    weights = {1: [1.0], 2: [-1.0, 1.0], 5: [0.3, 0.74, 0.46, 0.47, -0.33]}[labels]
    tables: dict[str, Any] = {}
    if labels > 1:
        with pytest.raises(ModelError, match=f"has {labels} labels"):
            load_model(folder)
        tables = {"read": {"column": 1, "minus": 0}}
    if labels == 5:
        tables = {"read": {"kind": "mixture", "at": "not-pad"}, "head": {"weights": weights}}
    opened = load_model(adopt(folder, tables=tables, output=tmp_path / "model").path)
    ours = [score.value for [score] in opened.score([item(*text) for text in TEXTS])]
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([made.chat_ids(*text)])).logits[0].tolist() for text in TEXTS]
    assert ours == pytest.approx([sum(w * one for w, one in zip(weights, row, strict=True)) for row in rows], abs=1e-4)


def composite(family: str) -> Any:
    """A config of text and vision parts, whose classifier looks for the pad id in the text part."""
    import transformers as hf

    text: dict[str, Any] = {"vocab_size": made.SIZE, "hidden_size": 16, "intermediate_size": 32, "head_dim": 8}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 3}
    vision: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32}
    if family == "gemma3":
        vision |= {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
        config = hf.Gemma3Config(
            text_config=text | {"sliding_window": 8}, vision_config=vision, num_labels=1, mm_tokens_per_image=4
        )
    else:
        text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8}
        text |= {"linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}
        vision |= {"depth": 1, "num_heads": 2, "out_hidden_size": 16}
        config = hf.Qwen3_5Config(text_config=text, vision_config=vision, num_labels=1)
    config.pad_token_id = 3
    return config


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3", "qwen3_5"])
def test_a_composite_config_is_read_where_transformers_reads_it(home: Path, tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(composite(family)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    opened = load_model(saved(model, tmp_path / family))
    ours = [score.value for [score] in opened.score([item(*text) for text in TEXTS])]
    assert ours == pytest.approx(plainly(model, pad_side="right"), abs=1e-4)
    assert len({round(value, 4) for value in ours}) > 6


def reward_trainer(folder: Path, *, lora: bool, base: Path | None = None, pad: str = "<pad>") -> Any:
    """A folder of TRL's RewardTrainer after one step."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    rows = [
        {"chosen": [{"role": "user", "content": q}, {"role": "assistant", "content": a}],
         "rejected": [{"role": "user", "content": q}, {"role": "assistant", "content": "no"}]}
        for q, a in TEXTS[:4]
    ]  # fmt: skip
    if base is None:
        torch.manual_seed(5)
        model = AutoModelForSequenceClassification.from_config(made.llama(num_labels=1))
    else:
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    config = RewardConfig(
        output_dir=str(folder), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, bf16=False,
        learning_rate=1e-2, save_strategy="no", logging_strategy="no", gradient_checkpointing=False, max_length=200,
    )  # fmt: skip
    peft = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["score"])
    trainer = RewardTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=made.tokenizer(pad=pad),
        peft_config=peft if lora else None,
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(folder))
    return trainer.model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("pad", ["<pad>", "</s>"])
def test_a_folder_of_trls_reward_trainer(home: Path, tmp_path: Path, pad: str) -> None:
    model = reward_trainer(tmp_path / "trl", lora=False, pad=pad)
    opened = load_model(tmp_path / "trl")
    ours = [score.value for [score] in opened.score([item(*text) for text in TEXTS])]
    pad_id = made.VOCABULARY[pad]
    assert ours == pytest.approx(plainly(model, pad_side="right", pad=pad_id), abs=1e-4)
    assert ours == pytest.approx(plainly(model, pad_side="left", pad=pad_id), abs=1e-4)


@pytest.mark.slow
def test_a_lora_folder_of_trls_reward_trainer_is_merged_over_its_base(home: Path, tmp_path: Path) -> None:
    made.causal(tmp_path / "base", made.llama(), seed=8)
    model = reward_trainer(tmp_path / "lora", lora=True, base=tmp_path / "base")
    adoption = adopt(tmp_path / "lora")
    assert adoption.card["config"]["linked"]["base"]["model.safetensors"]["sha256"]
    ours = [score.value for [score] in load_model(adoption.path).score([item(*text) for text in TEXTS])]
    assert ours == pytest.approx(plainly(model, pad_side="right"), abs=1e-4)
    settings = tmp_path / "lora" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"task_type": None}))
    with pytest.raises(ModelError, match="stores no score head"):
        adopt(tmp_path / "lora", output=tmp_path / "other")


@pytest.mark.slow
def test_a_folder_that_openrlhfs_own_class_saves(home: Path, tmp_path: Path) -> None:
    """Its class from its wheel, saved by its last lines: save_pretrained, the config as JSON, the tokenizer."""
    made.causal(tmp_path / "base", made.llama(), seed=9)
    root = wheel("openrlhf", "0.11.2")
    empty = ("deepspeed", "flash_attn", "ray", "openrlhf.models.ring_attn_utils", "openrlhf.models.utils")
    with imported_from(root, ["openrlhf", "openrlhf.models", "openrlhf.utils"], empty=empty):
        from openrlhf.models.model import get_llm_for_sequence_regression

        model = get_llm_for_sequence_regression(
            str(tmp_path / "base"), "reward", param_dtype="bf16", attn_implementation="eager", init_value_head=True
        )
        model.float().eval()
        model.config.value_head_prefix = model.value_head_prefix
        model.config.mean, model.config.std = 0.3, 1.7
        ids = [torch.tensor([[*made.chat_ids(*text), 2]]) for text in TEXTS]
        with torch.no_grad():
            expected = [float(model(input_ids=one, attention_mask=torch.ones_like(one))) for one in ids]
        model.save_pretrained(tmp_path / "rm")
        model.config.to_json_file(tmp_path / "rm" / "config.json")
    made.tokenizer().save_pretrained(tmp_path / "rm")
    adoption = adopt(tmp_path / "rm")
    assert adoption.profile.family == "openrlhf"
    ours = [score.value for [score] in load_model(adoption.path).score([item(*text) for text in TEXTS])]
    assert ours == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_folder_that_llama_factorys_callback_leaves(home: Path, tmp_path: Path) -> None:
    """The function of its wheel that parts a value head from its language model, run on TRL's old state dict."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    source = (wheel("llamafactory", "0.9.5") / "llamafactory" / "train" / "callbacks.py").read_text()
    [function] = [one for one in ast.parse(source).body if getattr(one, "name", "") == "fix_valuehead_checkpoint"]
    model = made.causal(tmp_path / "base", made.llama(), seed=10)
    head = made.drawn(11, v_head__summary__weight=(1, 16), v_head__summary__bias=(1,))
    folder = tmp_path / "rm"
    folder.mkdir()
    save_file({**{name: one.clone() for name, one in model.state_dict().items()}, **head}, folder / "model.safetensors")
    names: dict[str, Any] = {
        "os": os, "torch": torch, "safe_open": safe_open, "save_file": save_file, "PreTrainedModel": type(model),
        "PeftModel": type(model), "SAFE_WEIGHTS_NAME": "model.safetensors", "WEIGHTS_NAME": "pytorch_model.bin",
        "V_HEAD_SAFE_WEIGHTS_NAME": "value_head.safetensors", "V_HEAD_WEIGHTS_NAME": "value_head.bin",
        "logger": SimpleNamespace(info_rank0=lambda text: None),
    }  # fmt: skip
    exec(compile(ast.Module([function], []), "callbacks.py", "exec"), names)
    names["fix_valuehead_checkpoint"](SimpleNamespace(pretrained_model=model), str(folder), True)
    made.tokenizer().save_pretrained(folder)
    assert (folder / "value_head.safetensors").is_file()
    adoption = adopt(folder)
    assert adoption.profile.family == "trl-value-head"
    ours = [score.value for [score] in load_model(adoption.path).score([item(*text) for text in TEXTS])]
    with torch.no_grad():
        states = [
            model.model(input_ids=torch.tensor([made.chat_ids(*text)])).last_hidden_state[0, -1] for text in TEXTS
        ]
        expected = [float(one @ head["v_head.summary.weight"][0] + head["v_head.summary.bias"][0]) for one in states]
    assert ours == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_an_openrlhf_adapter_whose_base_head_is_lost_is_refused(home: Path, tmp_path: Path) -> None:
    """Key for key after its description: no task type, score only as LoRA factors."""
    from safetensors.torch import save_file

    folder = tmp_path / "lora"
    folder.mkdir()
    factors = {"base_model.model.score.lora_A.weight": torch.ones(2, 16)}
    factors |= {"base_model.model.score.lora_B.weight": torch.ones(1, 2)}
    save_file(
        factors,
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps({"task_type": None, "base_model_name_or_path": "base"}))
    with pytest.raises(ModelError, match="stores no score head"):
        load_model(folder)
