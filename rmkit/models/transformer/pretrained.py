"""Weights that others stored, into a class of transformers: all of them or none, and what was done about it.

transformers fills what a checkpoint lacks with random numbers, leaves aside what it has no place for, and says so in a
log line; a model would then be trained or scored on noise. Here every weight comes from the checkpoint, but for a score
head that training wants new, and that is said. Mended are names that only a wrapper changed (torch.compile, DDP, FSDP,
TRL's value-head wrapper, a trunk by another name), a head under another trainer's name, and adapters, which are merged
into their base. Everything else is a ModelError of one line.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rmkit.devices import chosen
from rmkit.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter_config.json"
_VALUE_HEADS = ("value_head.safetensors", "value_head.bin")

# What other tasks put on top of a trunk, and frequencies that follow from the config: left aside without loss.
_HARMLESS = re.compile(
    r"(?:^|\.)(?:lm_head|embed_out|cls|predictions|lm_predictions|mask_predictions|sop_classifier|vocab_\w+|generator_\w+"
    r"|discriminator_predictions|mtp|pooler)\."
    r"|(?:rotary_emb\.inv_freq|position_ids|\.attn\.(?:masked_)?bias|^decoder\.bias)$"
)
_WRAPPED = r"_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module"
_OUTER = rf"^(?:(?:module|pretrained_model|{_WRAPPED})\.)+"
_INNER = rf"(?<=\.)(?:{_WRAPPED})\."
_TRUNK = r"^(?:transformer|base_model|backbone)\."
_HEAD = r"^(?:v_head|value_head|regression_head|reward_head|score_head)\.weight$"


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A model with the weights of a checkpoint.

    `new` are the names of its head's weights that the checkpoint does not have (freshly drawn), `unused` those that the
    checkpoint has for other tasks, `notes` what was mended, a line each.
    """

    model: Any
    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, object]:
        """What a model card says of it."""
        return {"head": self.head, "unused": list(self.unused), "notes": list(self.notes)}

    @property
    def head(self) -> str:
        """Where the weights outside of the trunk come from."""
        own = [name for name in self.model.state_dict() if _is_head(self.model, name)]
        if not self.new:
            return "from the checkpoint"
        return "new" if len(self.new) == len(own) else f"new in part: {', '.join(self.new)}"


def load_pretrained(auto: str, source: str | Path, *, new_head: bool = False, **options: Any) -> Pretrained:
    """What transformers' class `auto` (AutoModelForCausalLM ...) makes of a folder or Hub id.

    With `new_head` the head may be missing. Raises ModelError where any other weight is missing, has another shape or
    would be left aside, and for what the class does not know; MissingExtraError for adapters without peft.
    """
    if (Path(source) / ADAPTER).is_file():
        return _merged(auto, Path(source), new_head=new_head, **options)
    if own := [name for name in _VALUE_HEADS if (Path(source) / name).is_file()]:
        raise ModelError(f"{source}: its head lies apart in {own[0]}, which no class of transformers reads")
    result, report = _loaded(auto, source, **options)
    if report.missing and (mapping := _mapping(result.model, report)):
        note = f"names of weights mended, {report.unexpected[0]} for one"
        result, report = _loaded(auto, source, **options, key_mapping=mapping)
        result.model._weight_conversions = None  # else transformers would save the weights under the names mended
        result = replace(result, notes=(note,))
    model = result.model
    if report.mismatched:
        name, stored, expected = report.mismatched[0]
        wide = _is_head(model, name) and expected[0] == 1
        labels = f": it tells {stored[0]} labels apart, and one score is expected" if wide else ""
        raise ModelError(f"{source}: {name} has shape {list(stored)}, expected {list(expected)}{labels}")
    missing = [name for name in report.missing if not (new_head and _is_head(model, name))]
    if missing:
        raise ModelError(f"{source} lacks the weights {_few(missing)}; they would be random")
    strange = [name for name in report.unexpected if not _HARMLESS.search(name) and not _of_other_head(model, name)]
    if strange:
        raise ModelError(f"{source} holds weights that {type(model).__name__} has no place for: {_few(strange)}")
    return replace(result, new=report.missing, unused=report.unexpected)


def complete(auto: str, source: str | Path, *, device: str | None = None, **options: Any) -> PreTrainedModel:
    """The same model, with nothing new in it, in eval mode on `device` (None: a GPU where there is one).

    On a CPU it computes in fp32, whatever the weights are stored in: products in bf16 round to what else is in a batch.
    """
    device = chosen(device)
    if torch.device(device).type == "cpu":
        options = {"dtype": torch.float32, **options}
    return load_pretrained(auto, source, **options).model.eval().to(device)


def load_config(source: str | Path) -> Any:
    """The config of a folder or Hub id, of adapters that of their base; no weights are loaded. Raises ModelError."""
    from transformers import AutoConfig

    place = _base(Path(source)) if (Path(source) / ADAPTER).is_file() else source
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{place} has no config that can be loaded: {_plainly(error)}") from error


def load_tokenizer(source: str | Path, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub id, of adapters without one that of their base. Raises ModelError."""
    from transformers import AutoTokenizer

    place = source
    if (Path(source) / ADAPTER).is_file() and not list(Path(source).glob("tokenizer*")):
        place = _base(Path(source))
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise ModelError(f"{place} has no tokenizer that can be loaded: {_first_line(error)}") from error


def set_pad(config: Any, pad: int) -> None:
    """The pad id in a model's config, and in the part of a composite one where classifiers of transformers read it."""
    config.pad_token_id = pad
    config.get_text_config().pad_token_id = pad


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and its report on missing weights, which is checked here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@dataclass(frozen=True, slots=True)
class _Report:
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


def _loaded(auto: str, source: str | Path, **options: Any) -> tuple[Pretrained, _Report]:
    import transformers

    loader = getattr(transformers, auto)
    try:
        with quiet():
            model, report = loader.from_pretrained(
                source, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False, **options
            )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise ModelError(f"{source} cannot be loaded by {auto}: {_plainly(error)}") from error
    if getattr(model, "_hf_peft_config_loaded", False):  # of a folder they are merged before this
        raise ModelError(f"{source} holds adapters; download it and name the folder, or name a merged model")
    mismatched = tuple((name, tuple(stored), tuple(expected)) for name, stored, expected in report["mismatched_keys"])
    names = {name for name, _, _ in mismatched}
    missing = tuple(sorted(set(report["missing_keys"]) - names))
    return Pretrained(model), _Report(missing, tuple(sorted(report["unexpected_keys"])), mismatched)


def _plainly(error: Exception) -> str:
    """The reason in one line; transformers' own run over dozens."""
    text = str(error)
    if "custom code" in text or "does not recognize this architecture" in text:
        return "transformers does not know its architecture, and code of its own (auto_map) is not run here"
    if "Unrecognized configuration class" in text:
        return "its architecture has no such class (models of vision or audio, encoder-decoders)"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _mapping(model: Any, report: _Report) -> dict[str, str]:
    """Patterns of names and what to put in their place; empty unless the checkpoint's names then are the model's."""
    expected = set(model.state_dict())
    prefix = f"{model.base_model_prefix}."
    head = [name for name in expected if _is_head(model, name) and "Classification" in type(model).__name__]
    candidates = {_OUTER: "", _INNER: "", _TRUNK: prefix} | ({_HEAD: head[0]} if len(head) == 1 else {})
    used: dict[str, str] = {}
    taken = 0
    for name in report.unexpected:
        renamed = name
        for old, new in candidates.items():
            if re.search(old, renamed):
                renamed = re.sub(old, new, renamed)
                used[old] = new
        taken += renamed != name and (renamed in expected or prefix + renamed in expected)
    return used if taken else {}


def _is_head(model: Any, name: str) -> bool:
    """Whether a weight lies outside of the trunk; an encoder's pooler belongs to the head behind it."""
    if model.base_model is model:
        return name.startswith("pooler.")
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


def _of_other_head(model: Any, name: str) -> bool:
    """Whether a language model or a bare trunk leaves aside a classifier's head."""
    classifies = "Classification" in type(model).__name__
    return not classifies and name.split(".")[0] in ("score", "classifier", "pooler")


def _base(folder: Path) -> str:
    try:
        base = json.loads((folder / ADAPTER).read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / ADAPTER} names no base model: {error}") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"{folder / ADAPTER} names no base model (base_model_name_or_path)")
    return base


def _merged(auto: str, folder: Path, *, new_head: bool, **options: Any) -> Pretrained:
    """The base model with the folder's adapters merged into its weights."""
    try:
        from peft import PeftConfig, PeftModel, get_peft_model_state_dict
        from safetensors import safe_open
    except ImportError as error:
        raise MissingExtraError("peft", "train") from error
    if "quantization_config" in options:
        raise ModelError(f"{folder} holds adapters, which do not merge into 4-bit weights; merge them first")
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"{folder} has an {ADAPTER} but no {file.name}")
    base = _base(folder)
    if not Path(base).is_dir() and (base.startswith((".", "/")) or base.count("/") > 1):  # no Hub id either
        raise ModelError(
            f"the adapters in {folder} belong to {base}, which is not there; bring it back, or name its place in "
            f"{ADAPTER} (base_model_name_or_path)"
        )
    result = load_pretrained(auto, base, new_head=True, **options)
    model = result.model
    with safe_open(file, framework="pt") as opened:
        stored = set(opened.keys())
    heads = {name for name in model.state_dict() if _is_head(model, name)}
    modules = {name.rsplit(".", 1)[0] for name in heads}
    if lost := [name for name in stored if "lora_" in name and result.new and any(f".{m}." in name for m in modules)]:
        raise ModelError(f"{folder}: {_few(sorted(lost))} adapt a head that neither it nor {base} holds")
    try:
        settings = PeftConfig.from_pretrained(str(folder))
        settings.task_type = None  # a policy's adapters may go into a classifier
        with quiet(), warnings.catch_warnings():  # what is missing is compared below
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(model, str(folder), config=settings)
            expected = set(get_peft_model_state_dict(adapted))
            merged = adapted.merge_and_unload()
        merged.requires_grad_(True)  # peft froze what is not an adapter
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"the adapters in {folder} do not fit {base}: {_first_line(error)}") from error
    if differ := sorted(expected ^ stored):
        raise ModelError(f"the adapters in {folder} do not fit {base}: {_few(differ)}")
    new = tuple(name for name in result.new if f"base_model.model.{name}" not in stored)
    if new and not new_head:
        raise ModelError(f"{folder} lacks the weights {_few(new)}; they would be random")
    notes = (*result.notes, f"adapters of {folder} merged into {base}")
    return Pretrained(merged, new, result.unused, notes)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
