"""Bytes of a training step, measured on tensors that have shapes and no contents.

The model is built from its config alone and taken through two micro-batches, forward and backward, by the code that
trains it, under PyTorch's FakeTensorMode; a dispatch mode follows every storage from its first tensor to its last. So
checkpointing, adapters, autocast's copies and whatever else an architecture holds are counted, not guessed.

    weights      of the model; of a trunk in 4 bits NF4_BYTES a weight
    gradients    of what is trained, 4 bytes each
    optimizer    states of what is trained: 8 bytes in AdamW, 2 in its 8-bit form, sums of rows and columns in Adafactor
    activations  the most that lives beside these at any moment of the second micro-batch

On a GPU, attention over packed rows holds queries, keys, values, outputs and one fp32 number a head and token (flex,
flash); a stand-in holds just these. Not counted: CUDA's own context, the allocator's waste, kernels' work space.
"""

from __future__ import annotations

import contextlib
import logging
import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from rmkit.errors import ModelError
from rmkit.models.transformer import explicit, process, shared_attention
from rmkit.models.transformer.packing import Ids
from rmkit.models.transformer.pretrained import load_config, quiet
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.training.config import Optimizer, TrainingConfig
from rmkit.training.kinds.implicit import ImplicitModule
from rmkit.training.model import trainable

Device = Literal["cpu", "cuda"]
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # blocks of 64 with a scale of 8 bits, those in blocks of 256 with fp32
STAND_IN = "rmkit_plan"
CLASSES = {
    "explicit": explicit.CLASSIFIER,
    "process": process.CLASSIFIER,
    "implicit": "AutoModelForCausalLM",
}
_PEFT_TASKS = {"explicit": "SEQ_CLS", "process": "TOKEN_CLS", "implicit": "CAUSAL_LM"}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device that holds the whole model, and what they follow from: counts of weights, and the bytes of
    the largest layer, which sharded training gathers in one piece, and of what stands outside of layers."""

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    largest_layer: int
    outside_layers: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations

    def sharded(self, n: int) -> int:
        """Bytes on each of n devices under FSDP2: a share of what belongs to weights, two gathered layers, what stands
        outside of layers, which is gathered for the whole step, and the activations of the device's own rows."""
        if n == 1:
            return self.total
        own = (self.weights + self.gradients + self.optimizer) / n
        return math.ceil(own + 2 * self.largest_layer + self.outside_layers + self.activations)


def memory(config: TrainingConfig, rows: Sequence[Sequence[Ids]], *, device: Device = "cuda") -> Memory:
    """What a micro-batch of these rows takes. Raises ModelError where the model cannot be built or run on shapes."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    shape = load_config(config.model)
    with torch.device("meta"), quiet_logs():
        module = _module(config, shape, device=device)
    with FakeTensorMode(), quiet_logs():
        _as_if_on_cpu(module)
        live = LiveBytes()
        weights = [*module.parameters(), *module.buffers()]
        try:
            with live:
                for tensor in weights:
                    live.watch(tensor)
                for _ in range(2):  # from the second on gradients are there
                    live.peak = live.now
                    _step(module, rows, config)
        except Exception as error:  # what an architecture does that shapes alone cannot follow
            raise ModelError(
                f"{type(module.classifier).__name__} cannot be planned: {type(error).__name__}: {error}"
            ) from error
        trained = [weight for weight in module.parameters() if weight.requires_grad]
        gradients = sum(weight.numel() * weight.element_size() for weight in trained)
        held = sum(one.numel() * one.element_size() for one in weights)
        layers = [part for part in module.modules() if type(part).__name__ in (module._no_split_modules or ())]
        sizes = [sum(weight.numel() * weight.element_size() for weight in layer.parameters()) for layer in layers]
        return Memory(
            parameters=sum(weight.numel() for weight in module.parameters()),
            trained=sum(weight.numel() for weight in trained),
            weights=round(held - _saved_by_4_bits(module) if config.quantization == "nf4" else held),
            gradients=gradients,
            optimizer=sum(optimizer_bytes(tuple(weight.shape), config.optim) for weight in trained),
            activations=live.peak - held - gradients,
            largest_layer=max(sizes, default=held),
            outside_layers=held - sum(sizes),
        )


def optimizer_bytes(shape: tuple[int, ...], optimizer: Optimizer) -> int:
    """Bytes of the optimizer's state of one weight."""
    n = math.prod(shape)
    match optimizer:
        case "adafactor" if len(shape) > 1:
            return 4 * (n // shape[-1] + n // shape[-2])
        case "adafactor":
            return 4 * n
        case "adamw_8bit" | "paged_adamw_8bit" if n >= 4096:  # bitsandbytes leaves smaller ones in fp32
            return 2 * n + 8 * math.ceil(n / 256)
        case _:
            return 8 * n


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages that tensors made within the mode (or watched) hold, now and at most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = WeakIdKeyDictionary()
        self.now = self.peak = 0

    def watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            size = storage.nbytes()
            self._known[storage] = size
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                self.watch(one)
        return out


def _module(config: TrainingConfig, shape: Any, *, device: Device) -> RewardModule:
    """The module that training would build, on shapes; packed where the model's own code can be."""
    import transformers

    loader = getattr(transformers, CLASSES[config.kind])
    shape.pad_token_id = shape.pad_token_id or 0
    if config.kind != "implicit":
        shape.num_labels = 1
    try:
        with quiet():
            model = loader.from_config(shape, dtype=torch.float32)
    except (ValueError, KeyError, ImportError, OSError) as error:
        raise ModelError(f"{config.model} has no class for {CLASSES[config.kind]}: {error}") from error
    model.train()
    model = trainable(model, config, peft_task=_PEFT_TASKS[config.kind], train_heads=config.kind != "implicit")
    if config.kind == "implicit":
        module: RewardModule = _Policy(model, beta=1.0, packed=False, share=config.share_prompts)
    else:
        module = RewardModule(model, packed=False, share=config.share_prompts)
    module.equal_lengths = False
    causal = hasattr(module.classifier, "score") or hasattr(module.classifier, "lm_head")
    if config.attention == "auto" and causal:
        _register()
        module.padded_because = None
        module.classifier.set_attn_implementation(STAND_IN if device == "cuda" else shared_attention.NAME)
    elif device == "cuda" and config.attention not in ("sdpa", "eager", "auto"):
        _register()
        module.classifier.set_attn_implementation(STAND_IN)
    return module


def _as_if_on_cpu(module: nn.Module) -> None:
    """Give the modules tensors of the mode that is on, in place of those of the meta device; tied ones stay tied."""
    weights: dict[int, Any] = {}
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            if id(weight) not in weights:
                new = torch.empty(weight.shape, dtype=weight.dtype, device="cpu")
                weights[id(weight)] = nn.Parameter(new, requires_grad=weight.requires_grad)
            part._parameters[name] = weights[id(weight)]
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")


class _Policy(ImplicitModule):
    """A policy whose references are known without a pass."""

    def _check_logits(self) -> None:
        pass  # it compares numbers

    def collate(self, rows: Sequence[Sequence[Ids]], *, reads: Any = None) -> Any:
        if reads is None:
            self.known = {ids: (max(1, len(ids) // 2), 0.0) for row in rows for ids in row}
        return super().collate(rows, reads=reads)


def _step(module: RewardModule, rows: Sequence[Sequence[Ids]], config: TrainingConfig) -> None:
    batch = module.collate(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.precision == "bf16", cache_enabled=False):
        outputs = module(batch)
    outputs.float().sum().backward()


def _saved_by_4_bits(module: RewardModule) -> float:
    """What 4 bits take off the linear layers of a trunk, adapters aside."""
    linear = [
        part.weight.numel() * (part.weight.element_size() - NF4_BYTES)
        for part in module.classifier.base_model.modules()
        if isinstance(part, nn.Linear) and not part.weight.requires_grad
    ]
    return sum(linear)


class _StandIn(torch.autograd.Function):
    """What attention kernels of GPUs hold for their backward pass, without what they compute."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        context.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        query, key, value, _, per_token = context.saved_tensors
        delta = torch.empty_like(per_token)
        result = tuple(torch.empty_like(x) for x in (query, key, value))
        del delta
        return result


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
    out: Any = _StandIn.apply(query, key, value)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    shared_attention.register()
    AttentionInterface.register(STAND_IN, _attend)
    AttentionMaskInterface.register(STAND_IN, lambda *_, **__: None)


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Without warnings of checks that want numbers."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


def sample_rows(*, prompt: int, replies: Sequence[int], tokens: int) -> list[list[Ids]]:
    """Rows of one shape that fill `tokens` packed tokens: a prompt of so many, replies of their own lengths."""
    row = prompt + sum(replies)
    whole = max(1, tokens // row)
    head = tuple(3 + at % 7 for at in range(prompt))
    tails = [tuple(11 + (at + number) % 7 for at in range(n)) for number, n in enumerate(replies)]
    result: list[list[Ids]] = [[(*head, 20 + number, *tail[1:]) for number, tail in enumerate(tails)]] * whole
    return result


def packed_length(config: TrainingConfig, rows: Sequence[Sequence[Ids]]) -> int:
    """Tokens that the rows take as training lays them out."""
    from rmkit.models.transformer.packing import packed_tokens

    if config.attention == "auto":
        return sum(packed_tokens(row, share=config.share_prompts) for row in rows)
    return sum(len(row) for row in rows) * max(len(ids) for row in rows for ids in row)
