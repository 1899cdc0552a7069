"""The network of an adopted model: transformers' trunk with the head that its author trained, strictly loaded.

Where transformers has a class for all of it (`*ForSequenceClassification`, `*ForTokenClassification`, a language model)
that class loads the folder. Everything else is taken apart: the trunk by its `model_type`, the tensors of the head by
name. Either way no weight is random and none is left over (`checkpoint.load_strictly`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmkit import config
from rmkit.devices import chosen
from rmkit.errors import ModelError
from rmkit.models.adopted.head import build_head, named_tensors
from rmkit.models.adopted.profile import Profile
from rmkit.models.adopted.source import Source, beside, is_adapter
from rmkit.models.transformer.checkpoint import Checkpoint, Loading, load_strictly

SEQUENCE, TOKENS, CAUSAL = (
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForCausalLM",
)


class HeadedTrunk(nn.Module):
    """A trunk with a head behind it, shaped like one of transformers' classifiers, which is all that `RewardModule`
    asks of a model."""

    def __init__(self, trunk: Any, score: nn.Module) -> None:
        super().__init__()
        self.model = trunk
        self.score = score

    @property
    def base_model(self) -> Any:
        """The trunk."""
        return self.model

    @property
    def config(self) -> Any:
        """The trunk's."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def _no_split_modules(self) -> Any:
        return self.model._no_split_modules

    def set_attn_implementation(self, name: str) -> None:
        """As transformers' models have it."""
        self.model.set_attn_implementation(name)


class VocabularyRows(nn.Module):
    """[R, h] states to [R, K] raw logits of K ids, capped or scaled as the language model does it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, cap: float | None, factor: float) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            if bias is not None:
                self.linear.bias.copy_(bias)
        self.cap = cap
        self.factor = factor

    def forward(self, states: Tensor) -> Tensor:
        logits: Tensor = self.linear(states) * self.factor
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


@dataclass(frozen=True)
class Network:
    """A model for `RewardModule`, what it took from the files, and the config's own pad id (None: it has none)."""

    model: Any
    loading: Loading
    pad_id: int | None


def open_config(source: Source) -> Any:
    """transformers' config of a folder. Raises ModelError where its model_type is unknown without custom code."""
    from transformers import AutoConfig

    raw = source.config
    kind = raw.get("model_type")
    try:
        if kind in _known_types():  # an auto_map beside a type that transformers knows is not needed, and not run
            return AutoConfig.for_model(**{key: value for key, value in raw.items() if key != "auto_map"})
        return AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        code = "; its own code is needed: rmkit adopt MODEL --trust-remote-code" if raw.get("auto_map") else ""
        raise ModelError(f"{source.folder}: transformers does not know the model type {kind!r}{code}") from error


def open_tokenizer(source: Source) -> Any:
    """The fast tokenizer of a folder. Raises ModelError where there is none.

    A folder that names the general class gets it: transformers 5 would take that of the model's type, which may build
    another tokenizer than the one in tokenizer.json.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    settings = source.folder / "tokenizer_config.json"
    named = config.read_object(settings, raises=ModelError, hint="download it again") if settings.is_file() else {}
    general = named.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
    try:
        if general and (source.folder / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(source.folder)
        return AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{source.folder} has no tokenizer that can be used: {str(error).splitlines()[0]}") from error


def _known_types() -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING


def pad_id_of(config: Any) -> int | None:
    """The pad id that transformers' own classifiers read their position by."""
    text = config.get_text_config()
    pad = getattr(config, "pad_token_id", None)
    return pad if pad is not None else getattr(text, "pad_token_id", None)


def open_network(source: Source, profile: Profile, *, device: str | None = None) -> Network:
    """The model that a profile with a head or with listed ids describes. Raises ModelError (see the top)."""
    options = _options(profile, device)
    if is_adapter(source):
        return _merged(source, profile, options, device)
    config = open_config(source)
    pad_id = pad_id_of(config)
    checkpoint = Checkpoint.of(source.folder, more=_more_files(source, profile))
    auto = native_class(source, profile, checkpoint)
    if auto is not None:
        model, loading = _native(source, auto, checkpoint, options)
    elif profile.read.kind == "token":
        model, loading = _token_head(source, profile, checkpoint, options)
    else:
        model, loading = _rebuilt(profile, checkpoint, config, options)
    return _ready(model, loading, pad_id, device)


def _ready(model: Any, loading: Loading, pad_id: int | None, device: str | None) -> Network:
    for part in (model.config, model.config.get_text_config()):
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = 0  # what padding holds is masked; without an id rows cannot be padded
    return Network(model.eval().to(chosen(device)), loading, pad_id)


def _merged(source: Source, profile: Profile, options: Mapping[str, Any], device: str | None) -> Network:
    """A LoRA adapter of a sequence classifier, laid over its base and merged. Only the base's head may be missing: the
    adapter brings it."""
    import transformers
    from peft import PeftModel, get_peft_model_state_dict

    adapter = Checkpoint.of(source.folder)
    base = beside(profile.model.base, source, role="base")
    [head] = [one for name, one in adapter.tensors.items() if name.endswith(("score.weight", "classifier.weight"))]
    below = Checkpoint.of(base.folder)
    model, loading = load_strictly(
        getattr(transformers, SEQUENCE),
        base.folder,
        names=below.tensors,
        num_labels=head.shape[0],
        may_lack=lambda name: head.name.endswith(name),
        **options,
    )
    try:
        wrapped = PeftModel.from_pretrained(model, str(source.folder))
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"{source.folder} does not fit on {base.address}: {str(error).splitlines()[0]}") from error
    known = set(get_peft_model_state_dict(wrapped))
    if strange := sorted(known ^ set(adapter.tensors)):
        raise ModelError(f"{source.folder}: tensors of the adapter and of its config differ: {', '.join(strange[:6])}")
    tensors = loading.tensors + len(adapter.tensors)
    n_bytes = loading.n_bytes + sum(one.n_bytes for one in adapter.tensors.values())
    pad_id = pad_id_of(model.config)
    if pad_id is None:  # the trainer set it from the tokenizer
        pad_id = open_tokenizer(source).pad_token_id
    return _ready(wrapped.merge_and_unload(), Loading(tensors, n_bytes, loading.left_aside), pad_id, device)


def native_class(source: Source, profile: Profile, checkpoint: Checkpoint) -> str | None:
    """The class of transformers that loads all of a folder to the profile's head; None where it must be rebuilt."""
    if profile.read.kind not in ("column", "mixture") or profile.head.gate or profile.head.group:
        return None
    architectures = source.config.get("architectures") or [""]
    names = (profile.head.linear, *profile.head.mlp)
    own = not any(names) or names[0] in ("score", "classifier", "classification_head")
    if not own or len(profile.head.mlp) > 1:
        return None
    for auto, ending in ((SEQUENCE, "ForSequenceClassification"), (TOKENS, "ForTokenClassification")):
        if str(architectures[0]).endswith(ending) and str(architectures[0]) in class_names(auto):
            return auto
    return None


def class_names(auto: str) -> set[str]:
    """Names of all classes that one of transformers' auto classes can give."""
    import transformers

    return {
        one for value in getattr(transformers, auto)._model_mapping._model_mapping.values() for one in _several(value)
    }


def _several(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,)


def head_labels(checkpoint: Checkpoint) -> int | None:
    """Outputs of the usual head, by its tensor's shape: the config of a classifier need not say (transformers 5)."""
    for name in (
        "score.weight",
        "classifier.weight",
        "classifier.out_proj.weight",
        "classification_head.out_proj.weight",
    ):
        if name in checkpoint.tensors:
            return checkpoint.tensors[name].shape[0]
    return None


def _options(profile: Profile, device: str | None) -> dict[str, Any]:
    """On a CPU everything is fp32: products in bf16 round to what else is in a batch."""
    if torch.device(chosen(device)).type == "cpu":
        return {"dtype": torch.float32}
    return {"dtype": getattr(torch, profile.model.dtype) if profile.model.dtype else "auto"}


def _more_files(source: Source, profile: Profile) -> tuple[str, ...]:
    if profile.head.file:
        return profile.head.file
    return tuple(one for one in ("value_head.safetensors", "value_head.bin") if (source.folder / one).is_file())[:1]


def _native(source: Source, auto: str, checkpoint: Checkpoint, options: Mapping[str, Any]) -> tuple[Any, Loading]:
    import transformers

    labels = head_labels(checkpoint)
    named = dict(options) if labels is None else {**options, "num_labels": labels}
    return load_strictly(getattr(transformers, auto), source.folder, names=checkpoint.tensors, **named)


def _rebuilt(profile: Profile, checkpoint: Checkpoint, config: Any, options: Mapping[str, Any]) -> tuple[Any, Loading]:
    head, of_head = build_head(profile.head, checkpoint)
    of_head |= named_tensors(profile.head, (profile.scale.mean, profile.scale.std))
    trunk, loading = open_trunk(profile, checkpoint, config, options, of_head=of_head)
    return HeadedTrunk(trunk, head), loading


def open_trunk(
    profile: Profile, checkpoint: Checkpoint, config: Any, options: Mapping[str, Any], *, of_head: set[str]
) -> tuple[Any, Loading]:
    """The trunk of the config's type, all of it from the tensors that are not the head's."""
    from transformers import AutoModel

    prefix = profile.head.prefix
    aside = _of_the_same_head(of_head)
    rest = {name: one for name, one in checkpoint.tensors.items() if name not in of_head and not name.startswith(aside)}
    bare = {name: name.removeprefix(prefix) for name in rest}
    if prefix and not any(name.startswith(prefix) for name in rest):
        raise ModelError(
            f"{checkpoint.folder}: no tensor begins with {prefix!r} (head.prefix); it has {checkpoint.summary()}"
        )
    try:
        loader = AutoModel._model_mapping[type(config)]
    except KeyError as error:
        raise ModelError(f"transformers has no trunk for {type(config).__name__}") from error
    state = {bare[name]: tensor for name, tensor in checkpoint.read(rest).items()}
    names = {bare[name]: one for name, one in rest.items()}
    # a pooler that stands beside the trunk's states is not read; encoders may bring it or leave it out
    trunk, loading = load_strictly(
        loader,
        None,
        config=config,
        names=names,
        state=state,
        may_lack=lambda name: name.startswith("pooler."),
        may_hold=lambda name: name.startswith("pooler."),
        **options,
    )
    taken = {name: checkpoint.tensors[name] for name in of_head if name in checkpoint.tensors}
    n_bytes = loading.n_bytes + sum(one.n_bytes for one in taken.values())
    return trunk, Loading(loading.tensors + len(taken), n_bytes, loading.left_aside)


def _of_the_same_head(of_head: set[str]) -> tuple[str, ...]:
    """Beginnings of names that belong to a part of the head that is read by halves: counters of a normalizer."""
    return tuple({f"{name.split('.')[0]}." for name in of_head if name.split(".")[0] in ("normalizer",)}) or ("\0",)


def _token_head(
    source: Source, profile: Profile, checkpoint: Checkpoint, options: Mapping[str, Any]
) -> tuple[Any, Loading]:
    """A language model whose vocabulary head is cut down to the ids that are read."""
    import transformers

    model, loading = load_strictly(getattr(transformers, CAUSAL), source.folder, names=checkpoint.tensors, **options)
    rows = model.get_output_embeddings()
    read = profile.read
    ids = [read.logit] if read.logit is not None else list(read.softmax or ())
    if not ids or not all(isinstance(one, int) and 0 <= one < rows.weight.shape[0] for one in ids):
        raise ModelError(f"read.softmax (or read.logit) must list ids below {rows.weight.shape[0]}, got {ids}")
    config = model.config.get_text_config()
    factor = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    head = VocabularyRows(
        rows.weight.detach()[ids].float(),
        None if rows.bias is None else rows.bias.detach()[ids].float(),
        cap=getattr(config, "final_logit_softcapping", None),
        factor=factor,
    )
    return HeadedTrunk(model.base_model, head), loading
