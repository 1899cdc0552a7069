"""No weight is random unless it is said: broken checkpoints are mended to the last byte, or refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmkit.errors import ModelError
from rmkit.plugins import ROOT

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from rmkit.models.transformer.pretrained import load_pretrained, load_tokenizer, set_pad  # noqa: E402

CLASSIFIER, POLICY = "AutoModelForSequenceClassification", "AutoModelForCausalLM"
SHAPE = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}
Weights = dict[str, Any]


def drawn(model: Any) -> Any:
    """Every tensor different from every other, norms too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("classifier")
    drawn(hf.LlamaForSequenceClassification(hf.LlamaConfig(**SHAPE, num_labels=1))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("policy")
    drawn(hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE))).save_pretrained(folder)
    return folder


def stored(folder: Path, target: Path, change: Callable[[Weights], Weights], **config: Any) -> Path:
    """A copy of the folder with other weights."""
    shutil.copytree(folder, target)
    weights = change(load_file(folder / "model.safetensors"))
    save_file({name: one.contiguous() for name, one in weights.items()}, target / "model.safetensors", {"format": "pt"})
    document = json.loads((target / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps(document))
    return target


def bytes_of(tensors: dict[str, Any]) -> Counter[str]:
    """Bytes by content: what a tensor is called does not matter."""
    count: Counter[str] = Counter()
    for one in tensors.values():
        raw = one.detach().contiguous().numpy().tobytes()
        count[hashlib.sha256(raw).hexdigest()] += len(raw)
    return count


def renamed(**names: str) -> Callable[[Weights], Weights]:
    def change(weights: Weights) -> Weights:
        return {
            next((new + name[len(old) :] for old, new in names.items() if name.startswith(old)), name): one
            for name, one in weights.items()
        }

    return change


def behind(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: one for name, one in weights.items()}


def inside(wrapper: str) -> Callable[[Weights], Weights]:
    return lambda weights: {re.sub(r"(layers\.\d+\.)", rf"\1{wrapper}.", name): one for name, one in weights.items()}


def bare(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {
        prefix + name.removeprefix("model."): one for name, one in weights.items() if name != "score.weight"
    }


MENDED: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "as it is": (behind(""), "from the checkpoint"),
    "ddp": (behind("module."), "from the checkpoint"),
    "compiled": (behind("_orig_mod."), "from the checkpoint"),
    "both": (behind("module._orig_mod."), "from the checkpoint"),
    "layers compiled": (inside("_orig_mod"), "from the checkpoint"),
    "fsdp": (inside("_fsdp_wrapped_module"), "from the checkpoint"),
    "activations": (inside("_checkpoint_wrapped_module"), "from the checkpoint"),
    "value-head wrapper": (behind("pretrained_model."), "from the checkpoint"),
    "bare trunk": (bare(""), "new"),
    "bare trunk wrapped": (bare("pretrained_model."), "new"),
    "bare trunk by another name": (bare("transformer."), "new"),
    "another trainer's names": (renamed(model="transformer", **{"score.": "v_head."}), "from the checkpoint"),
    "another trainer's head": (renamed(**{"score.": "value_head."}), "from the checkpoint"),
}


@pytest.mark.parametrize("case", MENDED)
def test_every_byte_of_the_file_is_in_the_model(case: str, classifier: Path, tmp_path: Path) -> None:
    change, head = MENDED[case]
    folder = stored(classifier, tmp_path / "m", change)
    result = load_pretrained(CLASSIFIER, folder, new_head=True, num_labels=1)
    file, model = bytes_of(load_file(folder / "model.safetensors")), bytes_of(result.model.state_dict())
    assert file - model == Counter()
    assert (model - file).total() == (16 * 4 if head == "new" else 0)  # the head alone is freshly drawn
    assert result.head == head
    assert all(parameter.requires_grad for parameter in result.model.parameters())
    result.model.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert set(again) == set(load_file(classifier / "model.safetensors"))
    assert bytes_of(again) == model
    assert bool(result.notes) == (case not in ("as it is", "bare trunk"))
    if head == "new":
        with pytest.raises(ModelError, match=r"lacks the weights score\.weight; they would be random"):
            load_pretrained(CLASSIFIER, folder, num_labels=1)


BROKEN: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "a layer is missing": (
        lambda weights: {name: one for name, one in weights.items() if "layers.1." not in name},
        r"lacks the weights model\.layers\.1\..* and 5 more; they would be random",
    ),
    "a shard behind a prefix": (
        lambda weights: {
            ("module." if "layers.0." in name else "") + name: one
            for name, one in weights.items()
            if "layers.1." not in name
        },
        "lacks the weights",
    ),
    "nothing known": (behind("actor.critic."), "lacks the weights"),
    "two labels": (
        lambda weights: weights | {"score.weight": torch.randn(2, 16)},
        r"score\.weight has shape \[2, 16\], expected \[1, 16\]: it tells 2 labels apart",
    ),
    "a head of two layers": (
        lambda weights: {
            **bare("model.")(weights),
            "score.0.weight": torch.randn(16, 16),
            "score.2.weight": torch.randn(1, 16),
        },
        r"no place for: score\.0\.weight, score\.2\.weight",
    ),
    "a head with a bias": (
        lambda weights: renamed(**{"score.": "v_head."})(weights) | {"v_head.bias": torch.randn(1)},
        r"no place for: v_head\.bias",
    ),
    "another vocabulary": (
        lambda weights: weights | {"model.embed_tokens.weight": torch.randn(64, 16)},
        r"embed_tokens\.weight has shape \[64, 16\], expected \[61, 16\]$",
    ),
    "a normalizer": (lambda weights: weights | {"normalizer.mean": torch.randn(1)}, r"no place for: normalizer\.mean"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_mended_is_refused_in_one_line(case: str, classifier: Path, tmp_path: Path) -> None:
    change, reason = BROKEN[case]
    folder = stored(classifier, tmp_path / "m", change)
    with pytest.raises(ModelError, match=reason) as caught:
        load_pretrained(CLASSIFIER, folder, new_head=True, num_labels=1)
    assert "\n" not in str(caught.value)


def test_a_language_model_gives_its_trunk_and_a_new_head(policy: Path) -> None:
    result = load_pretrained(CLASSIFIER, policy, new_head=True, num_labels=1)
    file, model = bytes_of(load_file(policy / "model.safetensors")), bytes_of(result.model.state_dict())
    assert (result.head, result.unused) == ("new", ("lm_head.weight",))
    assert (file - model).total() == 61 * 16 * 4  # the vocabulary head
    assert (model - file).total() == 16 * 4


def test_a_classifier_is_no_language_model(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks the weights lm_head\.weight"):
        load_pretrained(POLICY, classifier)
    tied = stored(classifier, tmp_path / "tied", behind("module."), tie_word_embeddings=True)
    result = load_pretrained(POLICY, tied)
    assert result.unused == ("score.weight",) or result.unused == ("module.score.weight",)


@pytest.mark.parametrize("config", [{"auto_map": {"AutoModelForSequenceClassification": "m.M"}, "model_type": "mine"}])
def test_code_of_its_own_gets_one_line(config: dict[str, Any], classifier: Path, tmp_path: Path) -> None:
    folder = stored(classifier, tmp_path / "m", behind(""), **config)
    (folder / "m.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(ModelError, match=r"code of its own .* is not run") as caught:
        load_pretrained(CLASSIFIER, folder, new_head=True)
    assert "\n" not in str(caught.value)


def test_an_architecture_without_the_class_gets_one_line(classifier: Path, tmp_path: Path) -> None:
    folder = stored(classifier, tmp_path / "m", behind(""), model_type="blip-2")
    with pytest.raises(ModelError, match="no such class") as caught:
        load_pretrained(CLASSIFIER, folder, new_head=True)
    assert "\n" not in str(caught.value)


def test_a_head_in_a_file_apart_is_not_overlooked(policy: Path, tmp_path: Path) -> None:
    folder = stored(policy, tmp_path / "m", behind(""))
    save_file({"v_head.summary.weight": torch.randn(1, 16)}, folder / "value_head.safetensors")
    with pytest.raises(ModelError, match=r"lies apart in value_head\.safetensors"):
        load_pretrained(CLASSIFIER, folder, new_head=True, num_labels=1)


@pytest.fixture(scope="module")
def adapters(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Any]]:
    peft = pytest.importorskip("peft")

    def save(auto: str, **options: Any) -> tuple[Path, Any]:
        torch.manual_seed(2)
        base = getattr(hf, auto).from_pretrained(policy, **({"num_labels": 1} if auto == CLASSIFIER else {}))
        model = drawn(peft.get_peft_model(base, peft.LoraConfig(r=2, **options)))
        folder = Path(tmp_path_factory.mktemp("adapters"))
        model.save_pretrained(folder)
        plain = load_file(policy / "model.safetensors")
        for name, one in model.base_model.model.named_parameters():  # the trunk as it was: only adapters were trained
            if (key := name.replace("base_layer.", "")) in plain:
                one.data.copy_(plain[key])
        return folder, model.merge_and_unload()

    return save


TRUNK = ["q_proj", "down_proj"]


def test_adapters_are_merged_and_that_is_said(adapters: Callable[..., Any], policy: Path) -> None:
    folder, expected = adapters(CLASSIFIER, task_type="SEQ_CLS", target_modules=TRUNK)
    result = load_pretrained(CLASSIFIER, folder, num_labels=1)
    assert result.notes == (f"adapters of {folder} merged into {policy}",)
    assert result.head == "from the checkpoint"
    assert all(parameter.requires_grad for parameter in result.model.parameters())
    state = result.model.state_dict()
    assert set(state) == set(hf.LlamaForSequenceClassification(hf.LlamaConfig(**SHAPE, num_labels=1)).state_dict())
    for name, one in expected.state_dict().items():
        torch.testing.assert_close(state[name], one, rtol=0, atol=1e-5)
    moved = [
        name
        for name, one in load_file(policy / "model.safetensors").items()
        if name in state and not torch.equal(one, state[name])
    ]
    assert {name.split(".")[-2] for name in moved} == set(TRUNK)


def test_adapters_of_a_policy_may_begin_a_reward_model(adapters: Callable[..., Any]) -> None:
    folder, _ = adapters(POLICY, task_type="CAUSAL_LM", target_modules=TRUNK)
    assert load_pretrained(CLASSIFIER, folder, new_head=True, num_labels=1).head == "new"
    with pytest.raises(ModelError, match=r"lacks the weights score\.weight"):
        load_pretrained(CLASSIFIER, folder, num_labels=1)


def test_adapters_whose_head_was_lost_are_refused(adapters: Callable[..., Any]) -> None:
    """What OpenRLHF leaves: low-rank changes of a head that was random and never stored."""
    folder, _ = adapters(CLASSIFIER, target_modules=[*TRUNK, "score"])
    with pytest.raises(ModelError, match="adapt a head that neither it nor"):
        load_pretrained(CLASSIFIER, folder, new_head=True, num_labels=1)


def test_adapters_of_another_shape_are_refused(adapters: Callable[..., Any], tmp_path: Path) -> None:
    folder, _ = adapters(CLASSIFIER, task_type="SEQ_CLS", target_modules=TRUNK)
    with pytest.raises(ModelError, match="do not fit"):
        load_pretrained(POLICY, folder)
    half = shutil.copytree(folder, tmp_path / "half")
    weights = load_file(half / "adapter_model.safetensors")
    save_file(
        {name: one for name, one in weights.items() if "layers.1." not in name}, half / "adapter_model.safetensors"
    )
    with pytest.raises(ModelError, match="do not fit"):
        load_pretrained(CLASSIFIER, half, num_labels=1)
    (half / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        load_pretrained(CLASSIFIER, half, num_labels=1)


def test_adapters_whose_base_is_gone_say_so(adapters: Callable[..., Any], tmp_path: Path) -> None:
    folder, _ = adapters(POLICY, task_type="CAUSAL_LM", target_modules=TRUNK)
    lost = shutil.copytree(folder, tmp_path / "lost")
    settings = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "/gone/base"}))
    with pytest.raises(ModelError, match="belong to /gone/base, which is not there"):
        load_pretrained(POLICY, lost)


def test_a_value_head_is_no_language_model_head(policy: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(policy, tmp_path / "value")
    weights = load_file(folder / "model.safetensors")
    weights["v_head.weight"] = torch.randn(1, 16)
    save_file({k: v for k, v in weights.items() if k != "lm_head.weight"}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks the weights lm_head\.weight; they would be random"):
        load_pretrained(POLICY, folder)


def test_the_tokenizer_of_adapters_is_their_base_s(
    adapters: Callable[..., Any], policy: Path, make_tokenizer: Any
) -> None:
    folder, _ = adapters(CLASSIFIER, task_type="SEQ_CLS", target_modules=TRUNK)
    make_tokenizer("{{ messages[0]['content'] }}").save_pretrained(policy)
    assert load_tokenizer(folder).chat_template == "{{ messages[0]['content'] }}"


def composite(family: str) -> Any:
    text, vision = SHAPE | {"head_dim": 8, "pad_token_id": None}, {"hidden_size": 16, "intermediate_size": 20}
    if family == "gemma3":
        inner = hf.Gemma3TextConfig(**text).to_dict()
        vision |= {"num_hidden_layers": 1, "num_attention_heads": 2}
        return hf.Gemma3Config(text_config=inner, vision_config=vision, num_labels=1)
    linear = {
        f"linear_{name}": 2 if name.startswith("num") else 8
        for name in ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")
    }
    inner = hf.Qwen3_5TextConfig(**text, **linear, layer_types=["linear_attention", "full_attention"]).to_dict()
    vision |= {"depth": 1, "num_heads": 2, "out_hidden_size": 16}
    return hf.Qwen3_5Config(text_config=inner, vision_config=vision, num_labels=1)


@pytest.mark.parametrize("family", ["gemma3", "qwen3_5"])
def test_plain_transformers_reads_a_composite_model_at_the_token_that_we_read(family: str) -> None:
    """Its classifier looks for the pad id in the config's text part; without it a batch is refused, or read wrongly."""
    torch.manual_seed(0)
    model = drawn(hf.AutoModelForSequenceClassification.from_config(composite(family))).eval()
    assert model.config is not model.config.get_text_config()
    set_pad(model.config, 7)
    rows = [[5, 6, 8, 9], [5, 6]]
    ids = torch.tensor([row + [7] * (4 - len(row)) for row in rows])
    with torch.no_grad():
        batched = model(input_ids=ids, attention_mask=(ids != 7).long()).logits[:, 0]
        alone = [float(model(input_ids=torch.tensor([row])).logits[0, 0]) for row in rows]
    assert batched.tolist() == pytest.approx(alone, abs=1e-4)
    assert abs(alone[0] - alone[1]) > 1e-2


def test_weights_are_loaded_in_one_place() -> None:
    """Anywhere else transformers would draw what is missing, without a word."""
    allowed = ("rmkit/models/transformer/", "rmkit/models/adopted/", "evaluation/benchmarks/", "tests/", "labeling_ui/")
    call = re.compile(r"(?:AutoModel\w*|PeftModel)\b[^\n]*\.from_pretrained\(")
    rooms = ("rmkit", "rubrics", "warehouse", "data_pipelines", "evaluation")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found = [
        str(path.relative_to(ROOT))
        for path in files
        if call.search(path.read_text()) and not str(path.relative_to(ROOT)).startswith(allowed)
    ]
    assert found == []
