"""The head of an adopted model: tensors by name, as a module that turns states into numbers.

    linear, mlp     layers in their order; a layer is NAME.weight with NAME.bias, or a batch norm with its running stats
    group           neighboring outputs as one: their mean, the first, or the expectation of bins from 0 to 1
    transform       a matrix behind that
    gate            weights of the outputs, from the same or another state: they stand behind the K outputs, [R, 2 K]

Everything runs in fp32 (`RewardModule`). Axes: R tokens read, h the width of the trunk, K numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rmkit.errors import ConfigError, ModelError, unknown
from rmkit.models.adopted.profile import ACTIVATIONS, GateTable, GroupTable, HeadTable
from rmkit.models.transformer.checkpoint import Checkpoint


class Head(nn.Module):
    """[R, h] states to [R, K] numbers, or [R, 2 K] with the gate's weights behind them."""

    def __init__(
        self, layers: nn.Sequential, *, group: GroupTable | None, transform: Tensor | None, gate: nn.Module | None
    ) -> None:
        super().__init__()
        self.layers: nn.Sequential = layers
        self.group = group
        self.gate = gate
        self.register_buffer("transform", transform)

    def forward(self, states: Tensor) -> Tensor:
        numbers: Tensor = self.layers(states)
        if self.group is not None:
            numbers = _grouped(numbers, self.group)
        if isinstance(self.transform, Tensor):
            numbers = numbers @ self.transform
        return numbers if self.gate is None else torch.cat([numbers, self.gate(states)], dim=-1)


class Gate(nn.Module):
    """[R, h] states to [R, K] weights."""

    def __init__(self, layers: nn.Module, table: GateTable, scale: float | Tensor) -> None:
        super().__init__()
        self.layers = layers
        self.table = table
        self.scale: Tensor
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, states: Tensor) -> Tensor:
        weights: Tensor = self.layers(states)
        if self.table.softmax:
            weights = torch.softmax(weights / self.table.temperature, dim=-1)
        return weights * self.scale


def build_head(table: HeadTable, checkpoint: Checkpoint) -> tuple[Head, set[str]]:
    """The head that a profile's table describes, and the names of the tensors in it.

    Raises ModelError for a tensor that is not there, ConfigError where the table names no layer.
    """
    taken = Taken(checkpoint)
    chain = table.mlp or ((table.linear,) if table.linear else ())
    if not chain:
        raise ConfigError("[head] names neither linear nor mlp, so there is no head to read")
    layers = layers_of(chain, taken)
    transform = taken(table.transform).float() if table.transform else None
    gate = None
    if (described := table.gate) is not None:
        scale = described.scale
        gate = Gate(
            layers_of(_gate_chain(described, checkpoint), taken),
            described,
            taken(scale).float() if isinstance(scale, str) else float(scale),
        )
    return Head(layers, group=table.group, transform=transform, gate=gate).eval(), taken.names


class Taken:
    """A checkpoint's tensors by name, remembering which were asked for."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.names: set[str] = set()

    def __call__(self, name: str) -> Tensor:
        [tensor] = self.checkpoint.read([name]).values()
        self.names.add(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self.checkpoint.tensors


def layers_of(chain: Sequence[str], taken: Taken) -> nn.Sequential:
    """A chain of layers by name and activations. Raises ModelError where a name is neither."""
    modules = [ACTIVATION[name]() if name in ACTIVATION else _layer(name, taken) for name in chain]
    return nn.Sequential(*modules)


ACTIVATION: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


def _layer(name: str, taken: Taken) -> nn.Module:
    if f"{name}.weight" not in taken:
        raise ModelError(
            f"{taken.checkpoint.folder} has no tensor {name}.weight, which the head is read from; it has "
            f"{taken.checkpoint.summary()}"
        )
    weight = taken(f"{name}.weight").float()
    bias = taken(f"{name}.bias").float() if f"{name}.bias" in taken else None
    if f"{name}.running_mean" in taken:
        norm = nn.BatchNorm1d(len(weight))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            norm.weight.copy_(weight)
            norm.bias.copy_(bias if bias is not None else torch.zeros(len(weight)))
            norm.running_mean.copy_(taken(f"{name}.running_mean"))
            norm.running_var.copy_(taken(f"{name}.running_var"))
        if f"{name}.num_batches_tracked" in taken:
            taken(f"{name}.num_batches_tracked")
        return norm.eval()
    if weight.ndim != 2:
        raise ModelError(f"{name}.weight has shape {list(weight.shape)}; a layer has two axes")
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear


def _gate_chain(gate: GateTable, checkpoint: Checkpoint) -> list[str]:
    """Layers of the gate: those listed, or all numbered ones under a prefix, the activation between and after norms."""
    if not isinstance(gate.layers, str):
        return list(gate.layers)
    if gate.act not in ACTIVATIONS:
        raise ConfigError(f"head.gate.act: {unknown('activation', gate.act, ACTIVATIONS)}")
    pattern = re.compile(rf"{re.escape(gate.layers)}\.(\d+)\.weight$")
    numbers = sorted(int(match[1]) for name in checkpoint.tensors if (match := pattern.match(name)))
    if not numbers:
        raise ModelError(f"{checkpoint.folder} has no tensors {gate.layers}.N.weight, which the gate is made of")
    chain: list[str] = []
    for number in numbers:
        chain += [gate.act] * bool(chain) + [f"{gate.layers}.{number}"]
    return chain


def _grouped(numbers: Tensor, group: GroupTable) -> Tensor:
    if numbers.shape[-1] % group.size:
        raise ModelError(f"the head gives {numbers.shape[-1]} numbers, which are no groups of {group.size}")
    parts = numbers.reshape(*numbers.shape[:-1], -1, group.size)
    match group.by:
        case "mean":
            return parts.mean(-1)
        case "first":
            return parts[..., 0]
    bins = torch.linspace(0, 1, group.size, device=numbers.device)
    return torch.softmax(parts, dim=-1) @ bins


def numbers_of(checkpoint: Checkpoint, value: Any) -> float:
    """A number, or the one in the tensor that `value` names (`NAME:sqrt`: its root)."""
    if not isinstance(value, str):
        return float(value)
    name, _, how = value.partition(":")
    number = checkpoint.read([name])[name].float().reshape(-1)
    if len(number) != 1:
        raise ModelError(f"{name} holds {len(number)} numbers, expected one")
    return float(number.sqrt() if how == "sqrt" else number)


def named_tensors(table: HeadTable, extra: Iterable[Any]) -> set[str]:
    """Tensors that a scale names."""
    return {str(one).partition(":")[0] for one in extra if isinstance(one, str) and one}
