"""Folders as other people's trainers and authors leave them, a few thousand random weights each: nothing is downloaded.

A folder is a trunk's state dict under some prefix, the family's own tensors beside it, and a config.json with foreign
`architectures`. `Fake.ids` says, in the plainest code, which ids the family's text becomes and where it is read; the
oracle multiplies trunk states by these tensors in numpy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "sky",
    "blue",
    "yes",
    "no",
    "two",
    "plus",
    "four",
    "is",
    "it",
    "step",
    "one",
    "right",
    "wrong",
    "so",
    "name",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|u|>", "<|a|>", "<|end|>", "<r>", "<extra_0>", "<|source|>"]
SPECIAL += ["<|candidate1|>", "<|candidate2|>"]
PLAIN = ["+", "-", "ки", "A", "B", "\n", "Step", "1:", "2:", "3:", "USER:", "ASSISTANT:", "[INST]", "[/INST]", "Human:"]
VOCABULARY = {word: at for at, word in enumerate([*SPECIAL, *PLAIN, *WORDS])}
SIZE = 64
HIDDEN = 16
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ 'Step ' + m['content'] + ' ' }}"
    "{% else %}{{ '<|u|> ' if m['role'] == 'user' else '<|a|> ' }}{{ m['content'] }}{{ ' <|end|> ' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|a|> ' }}{% endif %}"
)
Tensors = dict[str, torch.Tensor]
Text = tuple[str, str]  # a question and an answer


def tokenizer(*, pad: str = "<pad>", template: str | None = TEMPLATE, bos: bool = True) -> Any:
    """Word-level, line breaks as tokens; puts a BOS before every text, and its template writes one too."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    result = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    result.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(Regex(" +"), "removed")]
    )
    if bos:
        result.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=result, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token=pad,
        additional_special_tokens=SPECIAL[4:], chat_template=template, model_max_length=512,
    )  # fmt: skip


def ids_of(text: str) -> list[int]:
    """The ids of words and line breaks, without special tokens at the ends."""
    return [VOCABULARY.get(word, 0) for word in text.replace("\n", " \n ").split(" ") if word]


def chat_ids(question: str, answer: str, *, system: str | None = None) -> list[int]:
    """As the template writes it, one BOS."""
    first = "" if system is None else f"Step {system} "
    return [1, *ids_of(f"{first}<|u|> {question} <|end|> <|a|> {answer} <|end|>")]


def llama(**more: Any) -> Any:
    from transformers import LlamaConfig

    shape: dict[str, Any] = {"vocab_size": SIZE, "hidden_size": HIDDEN, "intermediate_size": 32, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    return LlamaConfig(**shape | more)


def trunk_of(config: Any, *, seed: int) -> Any:
    from transformers import AutoModel

    torch.manual_seed(seed)
    trunk = AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return trunk.eval()


def drawn(seed: int, **shapes: tuple[int, ...]) -> Tensors:
    """Random tensors by name, dots written as two underscores."""
    generator = torch.Generator().manual_seed(seed)
    return {name.replace("__", "."): 0.4 * torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


@dataclass
class Fake:
    """One folder: `ids` gives ids and the places read, `number` the reward of the states [S, h] there."""

    name: str
    folder: Path
    config: Any
    tensors: Tensors
    ids: Callable[[str, str], tuple[list[int], list[int]]]
    number: Callable[[np.ndarray, dict[str, np.ndarray]], Any]
    trunk: Any
    adopt: dict[str, Any] = field(default_factory=dict)  # arguments of `adopt`; empty: told from the files

    def expected(self, question: str, answer: str) -> Any:
        """The oracle: the trunk alone over one text, its states times the tensors, in numpy."""
        ids, places = self.ids(question, answer)
        with torch.no_grad():
            states = self.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0].double().numpy()
        return self.number(states[places], {name: one.double().numpy() for name, one in self.tensors.items()})


def write(
    folder: Path,
    config: Any,
    trunk: Any,
    tensors: Tensors,
    *,
    architecture: str,
    prefix: str = "model.",
    more: dict[str, Any] | None = None,
    fast: Any = None,
    head_file: str = "",
) -> Path:
    """A folder with config.json by hand, all tensors in one file (or the head's in their own), and a tokenizer."""
    folder.mkdir(parents=True)
    state = {f"{prefix}{name}": one.clone() for name, one in trunk.state_dict().items()}
    if head_file:
        save_file(
            {name: one.contiguous() for name, one in tensors.items()}, folder / head_file, metadata={"format": "pt"}
        )
    else:
        state |= tensors
    save_file(
        {name: one.contiguous() for name, one in state.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    document = config.to_dict() | {"architectures": [architecture]} | (more or {})
    for key in ("id2label", "label2id", "num_labels"):
        document.pop(key, None)
    (folder / "config.json").write_text(json.dumps(document))
    (fast or tokenizer()).save_pretrained(folder)
    return folder


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def linear(state: np.ndarray, tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    return state @ tensors[f"{name}.weight"].T + tensors.get(f"{name}.bias", 0)


def mlp(state: np.ndarray, tensors: dict[str, np.ndarray]) -> np.ndarray:
    return linear(relu(linear(state, tensors, "score.0")), tensors, "score.2")


def last(ids: list[int]) -> tuple[list[int], list[int]]:
    return ids, [len(ids) - 1]


def steps_of(answer: str) -> list[str]:
    return answer.split("\n\n")


def scalars(root: Path) -> list[Fake]:
    """Families of one number from a head."""
    config = llama()
    trunk = trunk_of(config, seed=1)
    fakes: list[Fake] = []

    def add(name: str, tensors: Tensors, ids: Any, number: Any, *, architecture: str, **options: Any) -> None:
        adopt = options.pop("adopt", {})
        folder = write(root / name, config, trunk, tensors, architecture=architecture, **options)
        fakes.append(Fake(name, folder, config, tensors, ids, number, trunk, adopt))

    def one(name: str) -> Callable[..., Any]:
        return lambda states, tensors: linear(states[-1], tensors, name)[0]

    def plain(question: str, answer: str) -> tuple[list[int], list[int]]:
        return last(chat_ids(question, answer))

    def empty_system(question: str, answer: str) -> tuple[list[int], list[int]]:
        return last(chat_ids(question, answer, system=""))

    two_layers = drawn(
        2, score__0__weight=(16, 16), score__0__bias=(16,), score__2__weight=(1, 16), score__2__bias=(1,)
    )

    def two(states: np.ndarray, tensors: dict[str, np.ndarray]) -> Any:
        return mlp(states[-1], tensors)[0]

    add("inf", two_layers, plain, two, architecture="INFORMForSequenceClassification")
    add("worldpm", two_layers, empty_system, two, architecture="Qwen2ForRewardModel")
    head = drawn(3, v_head__weight=(1, 16))
    add(
        "athene", head, lambda q, a: last([1, *chat_ids(q, a), 7]), one("v_head"),
        architecture="CustomAutoModelForSequenceClassification",
        adopt={"family": "athene", "tables": {"text": {"append": 7, "max_tokens": 200}, "read": {"at": {"last": 7}}}},
    )  # fmt: skip
    add(
        "internlm", head, lambda q, a: last([*chat_ids(q, a), 7]), one("v_head"),
        architecture="InternLM2ForRewardModel",
        adopt={"family": "internlm2-reward", "tables": {"text": {"append": 7}}},
    )  # fmt: skip
    regression = drawn(4, regression_head__weight=(1, 16))
    add(
        "ultrarm", regression, lambda q, a: last([1, *ids_of(f"Human: {q}\nAssistant: {a}")]), one("regression_head"),
        architecture="LlamaRewardModel",
    )  # fmt: skip
    add(
        "starling", head, lambda q, a: last([1, *ids_of(f"<s> [INST] {q} </s> [/INST] {a} </s>")]), one("v_head"),
        architecture="LlamaModel", prefix="transformer.", more={"pad_token_id": 0},
    )  # fmt: skip
    normal = {
        "normalizer.mean": torch.tensor([0.4]), "normalizer.var": torch.tensor([2.25]),
        "normalizer.count": torch.tensor([9]),
    }  # fmt: skip
    beaver = drawn(5, score_head__weight=(1, 16), score_head__bias=(1,)) | normal

    def spoken(q: str, a: str) -> tuple[list[int], list[int]]:
        words = f"BEGINNING OF CONVERSATION: USER: {q} ASSISTANT:{a}"
        return last([1, *ids_of(words)])

    def reward(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
        return (linear(states[-1], t, "score_head")[0] - 0.4) / (1.5 + 1e-8)

    def cost(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
        return -linear(states[-1], t, "score_head")[0] / (1.5 + 1e-8)

    for kind, number in (("reward", reward), ("cost", cost)):
        more = {"score_type": kind, "do_normalize": True}
        add(f"beaver-{kind}", beaver, spoken, number, architecture="LlamaForScore", more=more)
    grm = drawn(
        6, v_head__summary__0__weight=(24, 16), v_head__summary__0__bias=(24,),
        v_head__summary__2__weight=(1, 24), v_head__summary__2__bias=(1,),
    )  # fmt: skip

    def summary(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
        return linear(relu(linear(states[-1], t, "v_head.summary.0")), t, "v_head.summary.2")[0]

    add("grm", grm, plain, summary, architecture="LlamaForCausalLM")
    value = drawn(7, v_head__summary__weight=(1, 16), v_head__summary__bias=(1,))
    add(
        "trl-value-head", value, plain, one("v_head.summary"), architecture="LlamaForCausalLM",
        head_file="value_head.safetensors",
    )  # fmt: skip
    score = drawn(8, score__weight=(1, 16))
    add("scalar", score, plain, one("score"), architecture="LlamaForSequenceClassification")
    add("nemo-rl", score, plain, one("score"), architecture="LlamaForCausalLM")
    add(
        "openrlhf", score, lambda q, a: last([*chat_ids(q, a), 2]), one("score"), architecture="RewardModel",
        more={"value_head_prefix": "score", "mean": 0.1, "std": 2.0, "normalize_reward": False},
    )  # fmt: skip
    return fakes


def mixtures(root: Path) -> list[Fake]:
    """Families of several numbers and a gate."""
    config = llama()
    trunk = trunk_of(config, seed=11)
    fakes: list[Fake] = []

    def gated(question: str, answer: str) -> tuple[list[int], list[int]]:
        ids = chat_ids(question, answer)
        pattern = ids_of("<|end|> <|a|>")
        return ids, [next(at for at in range(len(ids)) if ids[at : at + 2] == pattern), len(ids) - 1]

    armo = drawn(
        12, regression_layer__weight=(3, 16), gating__layers__0__weight=(8, 16), gating__layers__0__bias=(8,),
        gating__layers__1__weight=(3, 8), gating__layers__1__bias=(3,),
    )  # fmt: skip
    armo |= {"reward_transform_matrix": torch.eye(3) + 0.1, "gating.logit_scale": torch.tensor(1.3)}

    def armo_number(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
        rewards = (states[1] @ t["regression_layer.weight"].T) @ t["reward_transform_matrix"]
        logits = linear(relu(linear(states[0], t, "gating.layers.0")), t, "gating.layers.1")
        return float((softmax(logits / 10) * 1.3 * rewards).sum())

    place = {"match": ids_of("<|end|> <|a|>")}
    folder = write(root / "armo", config, trunk, armo, architecture="LlamaForRewardModelWithGating")
    tables = {"head": {"gate": {"at": place}}}
    fakes.append(Fake("armo", folder, config, armo, gated, armo_number, trunk, {"family": "armorm", "tables": tables}))
    qrm = drawn(
        13, regression_layer__weight=(6, 16), gating_layer__layers__0__weight=(8, 16),
        gating_layer__layers__2__weight=(8,), gating_layer__layers__2__bias=(8,),
        gating_layer__layers__2__running_mean=(8,), gating_layer__layers__9__weight=(3, 8),
        gating_layer__layers__9__bias=(3,),
    )  # fmt: skip
    qrm["gating_layer.layers.2.running_var"] = torch.rand(8, generator=torch.Generator().manual_seed(1)) + 0.5
    qrm["gating_layer.layers.2.num_batches_tracked"] = torch.tensor(4)

    def qrm_number(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
        rewards = (states[1] @ t["regression_layer.weight"].T).reshape(3, 2).mean(-1)
        hidden, norm = relu(states[0] @ t["gating_layer.layers.0.weight"].T), "gating_layer.layers.2"
        hidden = (hidden - t[f"{norm}.running_mean"]) / np.sqrt(t[f"{norm}.running_var"] + 1e-5)
        hidden = hidden * t[f"{norm}.weight"] + t[f"{norm}.bias"]
        return float((softmax(linear(hidden, t, "gating_layer.layers.9")) * rewards).sum())

    folder = write(root / "qrm", config, trunk, qrm, architecture="LlamaForRewardModelWithGating")
    layers = ["gating_layer.layers.0", "relu", "gating_layer.layers.2", "gating_layer.layers.9"]
    tables = {"head": {"group": {"size": 2}, "gate": {"layers": layers, "at": place}}}
    fakes.append(Fake("qrm", folder, config, qrm, gated, qrm_number, trunk, {"family": "qrm", "tables": tables}))
    urm = drawn(
        14, score__weight=(6, 16), weights__fc__0__weight=(8, 16), weights__fc__0__bias=(8,),
        weights__fc__2__weight=(8, 8), weights__fc__2__bias=(8,), weights__fc__4__weight=(3, 8),
        weights__fc__4__bias=(3,),
    )  # fmt: skip

    def selu(x: np.ndarray) -> np.ndarray:
        return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1))

    def urm_number(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
        weights = linear(selu(linear(states[-1], t, "weights.fc.0")), t, "weights.fc.2")
        return float((linear(states[-1], t, "score")[::2] * linear(selu(weights), t, "weights.fc.4")).sum())

    folder = write(root / "urm", config, trunk, urm, architecture="LlamaForSequenceClassification2")
    fakes.append(Fake("urm", folder, config, urm, lambda q, a: last(chat_ids(q, a)), urm_number, trunk))
    ldl = drawn(15, regression_layer__weight=(6, 16), regression_layer__bias=(6,), gating_layer__0__weight=(2, 16))
    folder = write(root / "ldl", config, trunk, {}, architecture="LDLRewardModel27B")
    for name in ("regression_layer", "gating_layer"):
        torch.save({k.removeprefix(f"{name}."): v for k, v in ldl.items() if k.startswith(name)}, folder / f"{name}.pt")

    def ldl_number(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
        bins = softmax(linear(states[-1], t, "regression_layer").reshape(2, 3)) @ np.linspace(0, 1, 3)
        return float((softmax(linear(states[-1], t, "gating_layer.0")) * bins).sum())

    tables = {"head": {"group": {"size": 3}}}
    fakes.append(
        Fake("ldl", folder, config, ldl, lambda q, a: last(chat_ids(q, a)), ldl_number, trunk, {"tables": tables})
    )
    return fakes


def causal(folder: Path, config: Any, *, seed: int, fast: Any = None) -> Any:
    """A language model's folder as `save_pretrained` leaves it; gives back the model."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (fast or tokenizer()).save_pretrained(folder)
    return model


def steps(root: Path) -> list[Fake]:
    """Families with a number at every step; answers split at blank lines."""
    config = llama()
    fakes: list[Fake] = []
    model = causal(root / "tokens", config, seed=21)
    rows = {"lm_head.weight": model.lm_head.weight.detach()}
    plus, minus, mark = (VOCABULARY[one] for one in ("+", "-", "ки"))

    def good(states: np.ndarray, t: dict[str, np.ndarray]) -> list[float]:
        return list(softmax(states @ t["lm_head.weight"][[plus, minus]].T)[:, 0])

    def shepherd(question: str, answer: str) -> tuple[list[int], list[int]]:
        ids, places = [1, *ids_of(question)], []
        for number, step in enumerate(steps_of(answer), start=1):
            ids += [*ids_of(f"Step {number}: {step}"), mark]
            places.append(len(ids) - 1)
            ids += ids_of("\n")
        return ids, places

    def turns(question: str, answer: str) -> tuple[list[int], list[int]]:
        ids, places = [1], []
        for number, step in enumerate(steps_of(answer)):
            shown = step if number else f"{question} {step}"
            ids += ids_of(f"<|u|> {shown} <|end|> <|a|> + <|end|>")
            places.append(len(ids) - 3)
        return ids, places

    each = {"kind": "token", "at": {"each": mark}, "softmax": [plus, minus]}
    tables: dict[str, Any] = {"read": each, "text": {"separator": "\n\n"}}
    base = model.base_model
    fakes.append(
        Fake(
            "math-shepherd",
            root / "tokens",
            config,
            rows,
            shepherd,
            good,
            base,
            {"family": "math-shepherd", "tables": tables},
        )
    )
    tables = {"read": {"at": {"before": "+"}, "softmax": [plus, minus]}}
    fakes.append(
        Fake(
            "rlhflow-prm", root / "tokens", config, rows, turns, good, base, {"family": "rlhflow-prm", "tables": tables}
        )
    )
    tables = {"read": {"logit": 0}, "text": {"max_tokens": 300}}
    fakes.append(
        Fake(
            "nemotron", root / "tokens", config, rows, lambda q, a: last(chat_ids(q, a)),
            lambda states, t: float(states[-1] @ t["lm_head.weight"][0]), base,
            {"family": "nemotron-70b-hf", "tables": tables},
        )
    )  # fmt: skip
    trunk = trunk_of(config, seed=22)
    head = drawn(23, score__0__weight=(16, 16), score__0__bias=(16,), score__2__weight=(2, 16), score__2__bias=(2,))
    folder = write(root / "qwen-prm", config, trunk, head, architecture="Qwen2ForProcessRewardModel")

    def extras(question: str, answer: str) -> tuple[list[int], list[int]]:
        shown = "".join(f"{step}<extra_0>" for step in steps_of(answer)).replace("<extra_0>", " <extra_0> ")
        ids = chat_ids(question, shown, system="so")
        return ids, [at for at, one in enumerate(ids) if one == 8]

    def right(states: np.ndarray, t: dict[str, np.ndarray]) -> list[float]:
        return list(softmax(mlp(states, t))[:, 1])

    fakes.append(
        Fake(
            "qwen-prm",
            folder,
            config,
            head,
            extras,
            right,
            trunk,
            {"family": "qwen-math-prm", "tables": {"text": {"system": "so"}}},
        )
    )
    labels = drawn(24, score__weight=(2, 16), score__bias=(2,))
    folder = write(root / "trl-prm", config, trunk, labels, architecture="LlamaForTokenClassification")

    def apart(question: str, answer: str) -> tuple[list[int], list[int]]:
        ids, places = [1, *ids_of(question)], []
        for step in steps_of(answer):
            ids += [*ids_of(step), *ids_of("\n")]
            places.append(len(ids) - 1)
        return ids, places

    def second(states: np.ndarray, t: dict[str, np.ndarray]) -> list[float]:
        return list(softmax(linear(states, t, "score"))[:, 1])

    tables = {"text": {"separator": "\n\n"}}
    fakes.append(Fake("trl-prm", folder, config, labels, apart, second, trunk, {"family": "trl-prm", "tables": tables}))

    def difference(states: np.ndarray, t: dict[str, np.ndarray]) -> list[float]:
        p = softmax(linear(states, t, "score"))
        return list(p[:, 1] - p[:, 0])

    def blank_lines(question: str, answer: str) -> tuple[list[int], list[int]]:
        ids, places = [1, *ids_of(f"{question}\n\n")], []
        for step in steps_of(answer):
            ids += [*ids_of(step), *ids_of("\n\n")]
            places.append(len(ids) - 1)
        return ids, places

    fakes.append(Fake("pure", folder, config, labels, blank_lines, difference, trunk, {"family": "pure-prm"}))
    value = drawn(25, v_head__summary__weight=(1, 16), v_head__summary__bias=(1,))
    folder = write(
        root / "skywork-o1", config, trunk, value, architecture="LlamaForCausalLM", head_file="value_head.safetensors"
    )

    def lines(question: str, answer: str) -> tuple[list[int], list[int]]:
        ids, places = [1, *ids_of(f"{question}\n")], []
        for step in steps_of(answer):
            ids += [*ids_of(step), *ids_of("\n")]
            places.append(len(ids) - 1)
        return ids, places

    def squashed(states: np.ndarray, t: dict[str, np.ndarray]) -> list[float]:
        return list(1 / (1 + np.exp(-linear(states, t, "v_head.summary")[:, 0])))

    fakes.append(Fake("skywork-o1", folder, config, value, lines, squashed, trunk, {"family": "skywork-o1-prm"}))
    valid = drawn(26, score_head__weight=(3, 16), score_head__bias=(3,))
    folder = write(root / "reasoneval", config, trunk, valid, architecture="ReasonEval_7B")

    def bare(question: str, answer: str) -> tuple[list[int], list[int]]:
        ids, places = [1, *ids_of(question)], []
        for step in steps_of(answer):
            ids += ids_of(step)
            places.append(len(ids) - 1)
        return ids, places

    def last_two(states: np.ndarray, t: dict[str, np.ndarray]) -> list[float]:
        return list(softmax(linear(states, t, "score_head"))[:, 1:].sum(-1))

    fakes.append(Fake("reasoneval", folder, config, valid, bare, last_two, trunk, {"family": "reasoneval"}))
    return fakes


def others(root: Path) -> list[Fake]:
    """Encoders and GPT-NeoX."""
    from transformers import AutoModelForSequenceClassification, DebertaV2Config, GPTNeoXConfig

    deberta = DebertaV2Config(
        vocab_size=SIZE, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        type_vocab_size=0, relative_attention=True, pos_att_type=["p2c", "c2p"], num_labels=1, pad_token_id=3,
        pooler_hidden_size=HIDDEN,
    )  # fmt: skip
    torch.manual_seed(31)
    model = AutoModelForSequenceClassification.from_config(deberta).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = root / "oa-deberta"
    model.save_pretrained(folder)
    tokenizer(template=None).save_pretrained(folder)

    def segments(question: str, answer: str) -> tuple[list[int], list[int]]:
        return [1, *ids_of(question), 2, *ids_of(answer), 2], [0]

    def pooled(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
        hidden = linear(states[0], t, "pooler.dense")
        gelu = hidden * 0.5 * (1 + np.array([math.erf(one / math.sqrt(2)) for one in hidden]))
        return linear(gelu, t, "classifier")[0]

    tensors = {name: one.detach() for name, one in model.state_dict().items() if not name.startswith("deberta.")}
    fakes = [Fake("oa-deberta", folder, deberta, tensors, segments, pooled, model.base_model, {"family": "oa-deberta"})]
    neox = GPTNeoXConfig(
        vocab_size=SIZE, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=256,
    )  # fmt: skip
    trunk = trunk_of(neox, seed=32)
    head = drawn(33, out_proj__weight=(1, 16), out_proj__bias=(1,))
    for pooling in ("last", "mean"):
        folder = write(
            root / f"pythia-{pooling}", neox, trunk, head, architecture="GPTNeoXRewardModel", prefix="gpt_neox.",
            more={"pooling": pooling},
        )  # fmt: skip

        def asked(question: str, answer: str, *, every: bool = pooling == "mean") -> tuple[list[int], list[int]]:
            words = f"<|prompter|>{question}<|endoftext|><|assistant|>{answer}<|endoftext|>"
            ids = [1, *ids_of(words)]
            return ids, list(range(len(ids))) if every else [len(ids) - 1]

        def averaged(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
            return linear(states.mean(0), t, "out_proj")[0]

        fakes.append(Fake(f"pythia-{pooling}", folder, neox, head, asked, averaged, trunk))
    return fakes


def pairs(root: Path) -> list[Fake]:
    """Models that see two responses; `ids` takes the answers in the order shown, joined by a tab."""
    from transformers import AutoModelForSeq2SeqLM, DebertaV2Config, T5Config

    deberta = DebertaV2Config(
        vocab_size=SIZE, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        type_vocab_size=0, relative_attention=True, pos_att_type=["p2c", "c2p"], pad_token_id=3,
    )  # fmt: skip
    trunk = trunk_of(deberta, seed=41)
    head = drawn(42, head_layer__1__weight=(16, 32), head_layer__1__bias=(16,), head_layer__4__weight=(2, 16),
                 head_layer__4__bias=(2,))  # fmt: skip
    more = {"source_prefix_id": 9, "cand1_prefix_id": 10, "cand2_prefix_id": 11}
    folder = write(
        root / "pairrm", deberta, trunk, head, architecture="DebertaV2PairRM", prefix="pretrained_model.", more=more
    )

    def marked(question: str, both: str) -> tuple[list[int], list[int]]:
        ids = []
        for mark, text in zip((9, 10, 11), (question, *both.split("\t")), strict=True):
            ids += [1, mark, *ids_of(text)]
        return ids, [ids.index(mark) for mark in (9, 10, 11)]

    def left_minus_right(states: np.ndarray, t: dict[str, np.ndarray]) -> float:
        sides = [
            linear(np.tanh(linear(np.concatenate([states[0], one]), t, "head_layer.1")), t, "head_layer.4")
            for one in states[1:]
        ]
        return float((sides[0] - sides[1]).mean())

    fakes = [Fake("pairrm", folder, deberta, head, marked, left_minus_right, trunk)]
    config = llama()
    model = causal(root / "pair-preference", config, seed=43)
    a, b = VOCABULARY["A"], VOCABULARY["B"]

    def framed(question: str, both: str) -> tuple[list[int], list[int]]:
        first, second = both.split("\t")
        inner = f"\n\n<turn> user\n {question}\n"  # Jinja drops line breaks behind blocks and at the end
        shown = f"[CONTEXT] {inner} [RESPONSE A] {first} [RESPONSE B] {second} \n"
        return last(ids_of(f"<|u|> {shown} <|end|> <|a|>"))

    def a_minus_b(states: np.ndarray, t: dict[str, np.ndarray]) -> float:
        return float(states[-1] @ (t["lm_head.weight"][a] - t["lm_head.weight"][b]))

    rows = {"lm_head.weight": model.lm_head.weight.detach()}
    place = root / "pair-preference"
    fakes.append(
        Fake("pair-preference", place, config, rows, framed, a_minus_b, model.base_model, {"family": "pair-preference"})
    )
    t5 = T5Config(
        vocab_size=SIZE, d_model=HIDDEN, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=3,
        decoder_start_token_id=3, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(44)
    shp = AutoModelForSeq2SeqLM.from_config(t5).eval()
    shp.save_pretrained(root / "steamshp")
    tokenizer(template=None).save_pretrained(root / "steamshp")

    def decoder(input_ids: torch.Tensor) -> Any:
        """The decoder's only state, as a trunk of one place."""
        start = torch.tensor([[3]])
        out = shp(input_ids=input_ids, decoder_input_ids=start, output_hidden_states=True)
        return SimpleNamespace(last_hidden_state=out.decoder_hidden_states[-1])

    def posted(question: str, both: str) -> tuple[list[int], list[int]]:
        first, second = both.replace("\n", " ").split("\t")
        shown = f"POST: {question}\n\n RESPONSE A: {first}\n\n RESPONSE B: {second}\n\n"
        return [1, *ids_of(f"{shown} Which response is better? RESPONSE")], [0]

    def decoded(states: np.ndarray, t: dict[str, np.ndarray]) -> float:
        return float(states[0] @ (t["lm_head.weight"][a] - t["lm_head.weight"][b]) * t["scale"])

    tied = bool(t5.tie_word_embeddings)
    tensors = {"lm_head.weight": shp.lm_head.weight.detach(), "scale": torch.tensor(HIDDEN**-0.5 if tied else 1.0)}
    fakes.append(Fake("steamshp", root / "steamshp", t5, tensors, posted, decoded, decoder, {"family": "steamshp"}))
    return fakes


REMOTE = """
import pathlib
import torch
from transformers import LlamaModel, LlamaPreTrainedModel

pathlib.Path("MARKER").write_text("the code ran")


class FakeRewardModel(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.v_head = torch.nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **named):
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return {"reward": self.v_head(states[:, -1]).squeeze(-1) * 2}
"""


def remote(root: Path) -> Fake:
    """A folder whose own code writes a marker file when it is imported."""
    config = llama()
    trunk = trunk_of(config, seed=51)
    head = drawn(52, v_head__weight=(1, 16))
    folder = write(
        root / "remote", config, trunk, head, architecture="FakeRewardModel",
        more={"auto_map": {"AutoModel": "modeling_fake.FakeRewardModel"}},
    )  # fmt: skip
    (folder / "modeling_fake.py").write_text(REMOTE.replace("MARKER", str(root / "marker")))

    def number(states: np.ndarray, t: dict[str, np.ndarray]) -> Any:
        return 2 * linear(states[-1], t, "v_head")[0]

    tables = {"read": {"kind": "remote", "field": "reward"}}
    return Fake("remote", folder, config, head, lambda q, a: last(chat_ids(q, a)), number, trunk, {"tables": tables})
