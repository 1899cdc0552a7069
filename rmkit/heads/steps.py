"""A small head over a frozen encoder's features of each step, and how it is trained: minutes on two cores.

    logit_k = head(standardized [e(step_k), surface_k])
    surface = k, ln(1 + k), ln characters of the step and of all steps before, cosines of the step with the prompt and
              with the step before

so a step is judged by itself and what came before it, never by what follows; texts of any length can be read, for each
step is encoded alone. Heads compete by validation log loss: linear ones with the L2 penalties of `penalties` (mean
cross-entropy + penalty / 2 |w|^2, minimized to convergence by L-BFGS), and one hidden layer of ReLU units (AdamW, early
stopping), which wins where there are tens of thousands of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmkit.errors import ConfigError
from rmkit.features.encoder import EncoderConfig, Text, single_threaded
from rmkit.heads.loop import DescentConfig, best_epoch, descend
from rmkit.metrics import log_loss
from rmkit.metrics.calibration import sigmoid

if TYPE_CHECKING:
    import torch

SURFACE = 6

Array = NDArray[np.float32]
Weights = dict[str, "torch.Tensor"]


class Solution(NamedTuple):
    """A prompt as text and the texts of its steps."""

    prompt: str
    steps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FrozenProcessConfig(EncoderConfig, DescentConfig):
    """The encoder, the heads that compete on its features of steps, and how a solution is read."""

    reduction: Annotated[
        Literal["min", "last", "product", "mean"], "what makes the value of a solution from its steps"
    ] = "min"
    step_separator: Annotated[str, "what ends a step of a response whose steps are not marked"] = "\n\n"

    penalties: Annotated[tuple[float, ...], "L2 penalties of the linear heads that compete"] = (
        *(0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    )
    hidden: Annotated[int, "hidden units of the other head (0: there is none)"] = 128
    learning_rate: Annotated[float, "of AdamW, for the hidden layer"] = 5e-4
    weight_decay: Annotated[float, "of AdamW, for the hidden layer"] = 0.05
    dropout: Annotated[float, "dropout of the hidden layer in training, in [0, 1)"] = 0.3
    batch_steps: Annotated[int, "steps of solutions in one training step"] = 256
    epochs: Annotated[int, "passes over the train steps at most"] = 20
    patience: Annotated[int, "epochs without a lower validation log loss after which training stops"] = 3

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        DescentConfig.__post_init__(self)
        self.check_positive("learning_rate", "batch_steps", "patience")
        if not self.penalties or min(self.penalties) <= 0:
            raise ConfigError(f"penalties: expected positive numbers, got {self.penalties}")
        if self.hidden < 0 or not 0 <= self.dropout < 1:
            raise ConfigError("hidden must not be negative, dropout lies in [0, 1)")
        if not self.step_separator:
            raise ConfigError("step_separator must not be empty")


@dataclass(frozen=True, slots=True)
class StepHead:
    """A fitted head: `arrays` to store, and what the choice showed."""

    arrays: Mapping[str, Array]
    facts: Mapping[str, Any]

    def logits(self, inputs: Array) -> NDArray[np.float64]:
        """[steps] logits of being right, from `step_inputs` of the steps."""
        scaled = (inputs - self.arrays["mean"]) / self.arrays["std"]
        if "hidden" in self.arrays:
            scaled = np.maximum(scaled @ self.arrays["hidden"].T + self.arrays["hidden_bias"], 0)
        values: NDArray[np.float64] = (scaled @ self.arrays["out"] + self.arrays["bias"]).astype(np.float64)
        return values


def step_inputs(
    solutions: Sequence[Solution], encode: Callable[[Sequence[Text]], NDArray[Any]], *, width: int
) -> list[Array]:
    """Per solution [steps, width + SURFACE] inputs of the head; each distinct text is encoded once."""
    row_of: dict[str, int] = {}
    for solution in solutions:
        for text in (solution.prompt, *solution.steps):
            row_of.setdefault(text, len(row_of))
    vectors = np.asarray(encode([Text(text, "start") for text in row_of]), dtype=np.float32).reshape(-1, width)
    return [_inputs(solution, vectors, row_of) for solution in solutions]


def _inputs(solution: Solution, vectors: Array, row_of: Mapping[str, int]) -> Array:
    step_SD = vectors[[row_of[step] for step in solution.steps]]
    prompt_D = vectors[row_of[solution.prompt]]
    before_SD = np.concatenate([prompt_D[None], step_SD[:-1]])
    length_S = np.array([len(step) for step in solution.steps], dtype=np.float32)
    number_S = np.arange(len(solution.steps), dtype=np.float32)
    surface = [
        number_S,
        np.log1p(number_S),
        np.log1p(length_S),
        np.log1p(length_S.cumsum() - length_S),
        step_SD @ prompt_D,
        (step_SD * before_SD).sum(axis=1),
    ]
    return np.concatenate([step_SD, np.stack(surface, axis=1)], axis=1).astype(np.float32)


def fit(
    train: tuple[Array, NDArray[np.float64]],
    validation: tuple[Array, NDArray[np.float64]],
    config: FrozenProcessConfig,
    *,
    seed: int = 0,
    surface: int = SURFACE,
) -> StepHead:
    """The head with the least validation log loss. Inputs [steps, width], the last `surface` of them not penalized;
    labels [steps] in [0, 1], NaN is left out."""
    inputs, label = _labeled(*train)
    held_inputs, held_label = _labeled(*validation)
    mean, std = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    scaled, held_out = (inputs - mean) / std, ((held_inputs - mean) / std, held_label)
    losses: dict[str, float] = {}
    best: Mapping[str, Array] = {}
    with single_threaded():
        for name, result in _heads(scaled, label, held_out, config, seed=seed, surface=surface):
            head = StepHead({"mean": mean, "std": std, **result}, {})
            losses[name] = log_loss(sigmoid(head.logits(held_inputs)), held_label)
            if losses[name] == min(losses.values()):
                best = head.arrays
    chosen = min(losses, key=lambda name: losses[name])
    return StepHead(best, {"head": chosen, "validation_log_loss_by_head": losses})


def _labeled(inputs: Array, label: NDArray[np.float64]) -> tuple[Array, NDArray[np.float64]]:
    known = ~np.isnan(label)
    return inputs[known], label[known]


def _heads(
    scaled: Array,
    label: NDArray[np.float64],
    held_out: tuple[Array, NDArray[np.float64]],
    config: FrozenProcessConfig,
    *,
    seed: int,
    surface: int,
) -> Iterator[tuple[str, dict[str, Array]]]:
    """(name, arrays) of every competing head; each linear one starts where the one before ended."""
    by_key: dict[str, Array] = {}
    for penalty in sorted(config.penalties, reverse=True) if scaled.shape[1] > surface else [0.0]:
        by_key = _linear(scaled, label, penalty, surface=surface, start=by_key)
        yield f"linear, penalty {penalty:g}", by_key
    if config.hidden:
        yield f"hidden {config.hidden}", _hidden(scaled, label, held_out, config, seed=seed)


def _linear(
    scaled: Array, label: NDArray[np.float64], penalty: float, *, surface: int, start: Mapping[str, Array]
) -> dict[str, Array]:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    inputs, target = torch.from_numpy(scaled), torch.from_numpy(label).float()
    first = {"out": np.zeros(scaled.shape[1], dtype=np.float32), "bias": np.zeros(1, dtype=np.float32)} | dict(start)
    weight, bias = (torch.tensor(first[name], requires_grad=True) for name in ("out", "bias"))
    penalized = scaled.shape[1] - surface
    optimizer: Any = torch.optim.LBFGS([weight, bias], max_iter=100, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        size = (weight[:penalized] ** 2).sum()
        loss = binary_cross_entropy_with_logits(inputs @ weight + bias, target) + penalty / 2 * size
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    return {"out": weight.detach().numpy(), "bias": bias.detach().numpy()}


def _hidden(
    scaled: Array,
    label: NDArray[np.float64],
    held_out: tuple[Array, NDArray[np.float64]],
    config: FrozenProcessConfig,
    *,
    seed: int,
) -> dict[str, Array]:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Dropout(config.dropout),
        torch.nn.Linear(scaled.shape[1], config.hidden),
        torch.nn.ReLU(),
        torch.nn.Dropout(config.dropout),
        torch.nn.Linear(config.hidden, 1),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    inputs, target = torch.from_numpy(scaled), torch.from_numpy(label).float()
    held = torch.from_numpy(held_out[0].astype(np.float32))

    def losses() -> Iterator[torch.Tensor]:
        order: Any = torch.randperm(len(inputs))
        for part in order.split(config.batch_steps):
            yield binary_cross_entropy_with_logits(network(inputs[part])[:, 0], target[part])

    def validate() -> tuple[float, Weights]:
        with torch.no_grad():
            loss = log_loss(sigmoid(network.eval()(held)[:, 0].numpy()), held_out[1])
        return loss, {name: weight.clone() for name, weight in network.state_dict().items()}

    def epoch(_: int) -> None:
        network.train()
        descend(optimizer, losses())

    best = best_epoch(epoch, validate, epochs=config.epochs, patience=config.patience).state
    names = {"hidden": "1.weight", "hidden_bias": "1.bias", "bias": "4.bias"}
    arrays = {name: best[key].numpy() for name, key in names.items()}
    return arrays | {"out": best["4.weight"][0].numpy()}
