"""Small heads over frozen features of prompt and response, and how they are trained on pairs.

    r(x, y) = head([p, r, p * r])   or   head([p, r, p * r, 3 l, p l]),     l = ln(1 + characters of y) - 6

with p, r the encoder's unit vectors of prompt and response (d components, scaled by sqrt(d) here) and l the length of
the response beside that of one of 400 characters. The last part is what the mean of token states cannot tell: whether
this kind of prompt wants the longer or the shorter answer. The head is linear, or one hidden layer with ReLU; it has no
output bias, which no comparison could identify. Loss, in fp32 over pairs with soft label p and weight w (Bradley &
Terry 1952):

    sum_i w_i [ -p_i ln sigmoid(m_i) - (1 - p_i) ln sigmoid(-m_i) ] / sum_i w_i,     m = r(x, first) - r(x, second)

AdamW; training stops after `patience` epochs without a lower validation log loss, and the best epoch's weights are
kept.

A head of rank k > 0 judges two responses at once (Zhang et al., Beyond Bradley-Terry, arXiv:2410.02197): it has 1 + 2k
outputs s, u, v, and m = s_1 - s_2 + sum_k (u_1 v_2 - v_1 u_2), which changes its sign when the two change places and
can go round, as no difference of scores can. Rank 0 is the line above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmkit.errors import ConfigError
from rmkit.heads.loop import DescentConfig, best_epoch, descend
from rmkit.metrics import log_loss
from rmkit.metrics.calibration import sigmoid

if TYPE_CHECKING:
    import torch

LENGTH_ORIGIN, LENGTH_SCALE = 6.0, 3.0  # so that lengths, like every other input, lie around zero with a unit spread

Weights = dict[str, "torch.Tensor"]


class Features(NamedTuple):
    """fp32 features of n responses and their prompts: `prompt`, `response` [n, d], `log_length` [n] = ln(1 + chars)."""

    prompt: torch.Tensor
    response: torch.Tensor
    log_length: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class PairHeadConfig(DescentConfig):
    """The heads that compete, and how each is trained."""

    hidden: Annotated[tuple[int, ...], "hidden units of the heads that compete (0: linear)"] = (0, 256)
    length: Annotated[tuple[bool, ...], "whether heads read the response's length: each in turn"] = (False, True)
    linear_lr: Annotated[float, "learning rate of linear heads"] = 3e-4
    hidden_lr: Annotated[float, "learning rate of heads with hidden units"] = 1e-4
    batch_pairs: Annotated[int, "pairs of one step"] = 64
    epochs: Annotated[int, "passes over the train pairs at most"] = 40
    patience: Annotated[int, "epochs without a lower validation log loss after which training stops"] = 5

    def __post_init__(self) -> None:
        DescentConfig.__post_init__(self)
        self.check_positive("linear_lr", "hidden_lr", "batch_pairs", "patience")
        if not self.hidden or min(self.hidden) < 0:
            raise ConfigError(f"hidden: expected sizes of 0 (linear) or more, got {self.hidden}")
        if not self.length:
            raise ConfigError("length: expected [false], [true] or [false, true], got nothing")

    @property
    def shapes(self) -> list[HeadShape]:
        """All heads that compete, the plainer ones first: of equally good ones the first is kept."""
        return [HeadShape(hidden, length) for hidden in self.hidden for length in self.length]


class HeadShape(NamedTuple):
    """A head's hidden units (0: linear), whether it reads the length, and its rank (0: a score)."""

    hidden: int
    length: bool
    rank: int = 0

    def __str__(self) -> str:
        rank = f", rank {self.rank}" if self.rank else ""
        return (f"hidden {self.hidden}" if self.hidden else "linear") + (" with length" if self.length else "") + rank


@dataclass(frozen=True, slots=True)
class PairFeatures:
    """`vectors` [texts, d] and `log_length` [texts]; `rows` [pairs, 3] says which are prompt, first and second; the
    others are [pairs]."""

    vectors: NDArray[np.float16]
    log_length: NDArray[np.float32]
    rows: NDArray[np.int64]
    p: NDArray[np.float64]
    weight: NDArray[np.float64]
    share: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """Weights of the best epoch with its margins and log loss on the validation pairs."""

    weights: Weights
    validation_margin: NDArray[np.float64]
    validation_log_loss: float
    epoch: int


def n_inputs(width: int, *, length: bool) -> int:
    """Inputs of a head on features of `width` components."""
    return 4 * width + 1 if length else 3 * width


def head_scores(features: Features, weights: Weights) -> torch.Tensor:
    """[n] rewards before calibration; [n, heads] from several output rows. The weights' width says whether they read
    the length."""
    import torch

    prompt, response = (part * features.prompt.shape[1] ** 0.5 for part in (features.prompt, features.response))
    inputs = torch.cat([prompt, response, prompt * response], dim=1)
    first = weights.get("hidden", weights["out"])
    if first.shape[-1] > inputs.shape[1]:
        length = (features.log_length - LENGTH_ORIGIN)[:, None]
        inputs = torch.cat([inputs, LENGTH_SCALE * length, prompt * length], dim=1)
    if "hidden" in weights:
        inputs = torch.relu(inputs @ weights["hidden"].T + weights["hidden_bias"])
    return torch.nn.functional.linear(inputs, weights["out"])


def preference_margin(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """[n] margins from the outputs [n] or [n, 1 + 2 rank] of the two responses; exchanged, they change sign."""
    if first.ndim == 1:
        return first - second
    rank = first.shape[1] // 2
    u_1, v_1 = first[:, 1 : 1 + rank], first[:, 1 + rank :]
    u_2, v_2 = second[:, 1 : 1 + rank], second[:, 1 + rank :]
    return first[:, 0] - second[:, 0] + (u_1 * v_2 - v_1 * u_2).sum(1)


def train_head(
    train: PairFeatures,
    validation: PairFeatures,
    config: PairHeadConfig,
    *,
    shape: HeadShape,
    seed: int = 0,
    advance: Callable[[float], None] = lambda amount: None,
) -> TrainedHead:
    """One head of the config's options; `advance` is told of every epoch."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = _initial(n_inputs(train.vectors.shape[1], length=shape.length), shape, generator)
    optimizer = torch.optim.AdamW(
        list(weights.values()),
        lr=config.hidden_lr if shape.hidden else config.linear_lr,
        weight_decay=config.weight_decay,
    )

    def losses() -> Iterator[torch.Tensor]:
        order = torch.randperm(len(train.rows), generator=generator).numpy()
        for at in range(0, len(order), config.batch_pairs):
            index = order[at : at + config.batch_pairs]
            p, weight = (torch.from_numpy(x[index]).float() for x in (train.p, train.weight / train.weight.mean()))
            logit = _margin(train, weights, index)
            yield torch.nn.functional.binary_cross_entropy_with_logits(logit, p, weight=weight)

    def epoch(_: int) -> None:
        descend(optimizer, losses())
        advance(1)

    def validate() -> tuple[float, tuple[Weights, NDArray[np.float64]]]:
        margin = pair_margins(validation, weights)
        state = {name: weight.detach().clone() for name, weight in weights.items()}
        return log_loss(sigmoid(margin), validation.p, weight=validation.share), (state, margin)

    best = best_epoch(epoch, validate, epochs=config.epochs, patience=config.patience)
    return TrainedHead(*best.state, best.loss, best.epoch)


def pair_margins(features: PairFeatures, weights: Weights) -> NDArray[np.float64]:
    """[pairs] margins before calibration."""
    import torch

    with torch.no_grad():
        parts = np.array_split(np.arange(len(features.rows)), len(features.rows) // 4096 + 1)
        return np.concatenate([_margin(features, weights, part).double().numpy() for part in parts])


def check_shapes(weights: Weights, width: int, *, where: str, paired: bool = False) -> None:
    """Raises ModelError unless these are a linear or one-layer head's weights on features of `width` components; of
    any rank where `paired`, else of rank 0."""
    from rmkit.errors import ModelError

    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    *outputs, units = shapes.get("out", (0,))
    rank_fits = not outputs or (paired and len(outputs) == 1 and outputs[0] % 2 == 1)
    layer = {name: shape for name, shape in shapes.items() if name != "out"}
    for inputs in (n_inputs(width, length=False), n_inputs(width, length=True)):
        if rank_fits and (
            (not layer and units == inputs) or layer == {"hidden": (units, inputs), "hidden_bias": (units,)}
        ):
            return
    raise ModelError(
        f"{where}: the head has arrays {shapes}, expected a linear or one-layer head on "
        f"{n_inputs(width, length=False)} inputs, or {n_inputs(width, length=True)} with length"
    )


def _initial(inputs: int, shape: HeadShape, generator: Any) -> Weights:
    """A linear head starts at zero (its loss is convex), a hidden layer with variance 1 / inputs.

    The u and v of a rank start small, but not at zero, where they would have no gradient.
    """
    import torch

    result, width = {}, shape.hidden or inputs
    if shape.hidden:
        result["hidden"] = torch.randn(shape.hidden, inputs, generator=generator) / inputs**0.5
        result["hidden_bias"] = torch.zeros(shape.hidden)
        result["out"] = torch.randn(shape.hidden, generator=generator) / shape.hidden**0.5
    else:
        result["out"] = torch.zeros(inputs)
    if shape.rank:
        turning = 0.1 * torch.randn(2 * shape.rank, width, generator=generator) / width**0.5
        result["out"] = torch.cat([result["out"][None], turning])
    return {name: weight.requires_grad_() for name, weight in result.items()}


def _margin(features: PairFeatures, weights: Weights, index: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
    import torch

    prompt, first, second = features.rows[index].T

    def read(rows: NDArray[np.int64]) -> Features:
        prompts, responses = (torch.from_numpy(features.vectors[at]).float() for at in (prompt, rows))
        return Features(prompts, responses, torch.from_numpy(features.log_length[rows]))

    return preference_margin(head_scores(read(first), weights), head_scores(read(second), weights))
