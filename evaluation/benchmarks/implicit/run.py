"""`rmkit bench implicit`: explicit against implicit reward models, where wording shifts (algorithms, section 4)

Analytic: responses of one token, a frozen trunk, a trainable vocabulary head. DPO's gradient touches the rows of the
two tokens of a pair only, for the softmax's denominator cancels, so that on tokens no pair showed the margin stays 0; a
linear head on the response's features knows them. Trained by plain gradient descent; Adam is told too.

Wording: the toy language of `implicit_world`. Both kinds start from the same language model, see the same batches of
the same pairs, train all weights without weight decay, and choose learning rate (and beta) by accuracy on validation
pairs in the wording of training. They run through the modules and losses of `rmkit train`.

    accuracy    mean 1[m > 0] + 1/2 1[|m| <= 1e-4]
    difference  explicit minus implicit in points; intervals from the seeds (t distribution), each a new language

Controls: accuracy on the training pairs, the longer response, the implicit reward per token, and how the margin goes
with the difference in length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.benchmarks.implicit.page import page
from evaluation.benchmarks.implicit.synthetic_task import (
    START,
    WORDINGS_OF,
    Pair,
    SyntheticTask,
    causal_model,
    classifier_of,
    world,
)
from evaluation.probes.style import correlation
from rmkit.cli import arguments, display
from rmkit.errors import UsageError
from rmkit.losses.bradley_terry import bradley_terry
from rmkit.models.transformer.policy import PolicyModule
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.training.kinds.implicit import ImplicitModule

if TYPE_CHECKING:
    from rmkit.models.transformer.packing import Ids

TIE = 1e-4
PROMPT_TOKENS = 4  # of the analytic case
RATES, BETAS = (2e-3, 5e-3), (0.1, 0.5)
BATCH = 32
Margins = dict[str, NDArray[np.float64]]


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench implicit",
        "Explicit against implicit rewards on an analytic case and on a toy language whose wording shifts.",
        examples=["bench implicit", "bench implicit --seeds 8 --page implicit.md"],
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=300, help="training pairs")
    parser.add_argument("--steps", type=int, default=60, help=f"training steps of {BATCH} pairs")
    parser.add_argument("--language-steps", type=int, default=300, help="steps of the language model")
    parser.add_page()
    inputs = parser.parse_args(argv)
    if inputs.seeds < 2:
        raise UsageError(f"an interval over seeds takes 2 or more, got {inputs.seeds}")
    start = time.perf_counter()
    runs = []
    with display.progress("seeds", inputs.seeds) as advance:
        for seed in range(inputs.seeds):
            runs.append(one_seed(seed, pairs=inputs.pairs, steps=inputs.steps, language_steps=inputs.language_steps))
            advance(1)
    result = {
        "command": arguments.command_line("bench implicit", argv),
        "analytic": [analytic(seed) for seed in range(inputs.seeds)],
        "runs": runs,
        "cells": {cell: together([run["cells"][cell] for run in runs]) for cell in ("train", *WORDINGS_OF)},
        "seconds": round(time.perf_counter() - start, 1),
    }
    shifted = [[run["cells"][cell]["difference"] for run in runs] for cell in WORDINGS_OF if cell != "id"]
    result["out_of_distribution"] = interval([fmean(of) for of in zip(*shifted, strict=True)])
    if inputs.page:
        inputs.page.write_text(page(result))
    display.emit(result, as_json=inputs.json, text=page(result))
    return 0


def one_seed(seed: int, *, pairs: int, steps: int, language_steps: int, n_test: int = 500) -> dict[str, Any]:
    """Accuracies of the two chosen models in every cell of one language."""
    result = world(seed, n_train=pairs, n_test=n_test, language_steps=language_steps)
    known = reference_of(result, seed=seed)
    explicit = [({"rate": rate}, _explicit(result, seed, rate=rate, steps=steps)) for rate in RATES]
    implicit = [
        ({"rate": rate, "beta": beta}, _implicit(result, seed, known, rate=rate, beta=beta, steps=steps))
        for beta in BETAS
        for rate in RATES
    ]
    chosen = {name: _best(names) for name, names in (("explicit", explicit), ("implicit", implicit))}
    cells = {cell: _cell(result.pairs[cell], cell, chosen) for cell in ("train", *WORDINGS_OF)}
    settings = {name: settings for name, (settings, _) in chosen.items()}
    return {"seed": seed, "language_loss": result.language_loss, "chosen": settings, "cells": cells}


def reference_of(result: SyntheticTask, *, seed: int) -> dict[Ids, tuple[int, float]]:
    """Where each response begins and its log-probability under the language model."""
    ids = list(dict.fromkeys(ids for pairs in result.pairs.values() for pair in pairs for ids in pair))
    policy = PolicyModule(causal_model(result.weights, seed=seed)).eval()
    results = policy.token_log_probs([[one] for one in ids], [[START]] * len(ids), max_batch_tokens=8192)
    return {one: (START, sum(tokens[0])) for one, tokens in zip(ids, results, strict=True)}


def _explicit(result: SyntheticTask, seed: int, *, rate: float, steps: int) -> Margins:
    module = RewardModule(classifier_of(causal_model(result.weights, seed=seed), seed=seed))
    return _trained(module, result, rate=rate, steps=steps, seed=seed)


def _implicit(result: SyntheticTask, seed: int, known: Any, *, rate: float, beta: float, steps: int) -> Margins:
    module = ImplicitModule(causal_model(result.weights, seed=seed), beta=beta)
    module.known = known
    margins = _trained(module, result, rate=rate, steps=steps, seed=seed)
    module.per_token = True
    return margins | {f"{cell}/per_token": margins_of(module, pairs) for cell, pairs in result.pairs.items()}


def _trained(module: Any, result: SyntheticTask, *, rate: float, steps: int, seed: int) -> Margins:
    descend(module, result.pairs["train"], torch.optim.AdamW, rate=rate, steps=steps, seed=seed)
    return {cell: margins_of(module, pairs) for cell, pairs in result.pairs.items()}


def descend(
    module: Any, pairs: Sequence[Pair], optimizer: Callable[..., Any], *, rate: float, steps: int, seed: int
) -> None:
    """Steps of `BATCH` pairs on Bradley-Terry (of implicit rewards: DPO), the rate falling to 0, no weight decay."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    result, draw = optimizer(trained, lr=rate, weight_decay=0.0), np.random.default_rng(seed)
    for step in range(steps):
        drawn = [pairs[at] for at in draw.choice(len(pairs), size=min(BATCH, len(pairs)), replace=False)]
        reward_B2 = module(module.collate(drawn)).reshape(-1, 2)
        result.zero_grad()
        loss: Any = bradley_terry(reward_B2[:, 0], reward_B2[:, 1]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        result.step()
        for group in result.param_groups:
            group["lr"] = rate * (1 - (step + 1) / steps)


@torch.no_grad()
def margins_of(module: Any, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """[n] reward of the better minus reward of the worse response."""
    reward_B2 = module(module.collate(pairs)).double().reshape(-1, 2)
    margin: NDArray[np.float64] = (reward_B2[:, 0] - reward_B2[:, 1]).numpy()
    return margin


def accuracy(margin: NDArray[np.float64]) -> float:
    """In percent; margins up to `TIE` are ties and count half."""
    return 100 * float(np.mean(np.where(np.abs(margin) <= TIE, 0.5, margin > 0)))


def _best(result: Sequence[tuple[dict[str, float], Margins]]) -> tuple[dict[str, float], Margins]:
    return max(result, key=lambda one: accuracy(one[1]["validation"]))


def _cell(pairs: Sequence[Pair], cell: str, chosen: dict[str, tuple[dict[str, float], Margins]]) -> dict[str, float]:
    margin = {name: margins[cell] for name, (_, margins) in chosen.items()}
    longer = np.array([len(better) - len(worse) for better, worse in pairs], dtype=np.float64)
    names = {name: accuracy(of) for name, of in margin.items()}
    return names | {
        "difference": names["explicit"] - names["implicit"],
        "per_token": accuracy(chosen["implicit"][1][f"{cell}/per_token"]),
        "longer": accuracy(longer),
        **{f"{name}_length": correlation(of, longer) for name, of in margin.items()},
    }


def together(cells: Sequence[dict[str, float]]) -> dict[str, object]:
    """Means over the seeds; of the difference also the interval."""
    means = {name: fmean(cell[name] for cell in cells) for name in cells[0]}
    return means | {"difference": interval([cell["difference"] for cell in cells])}


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95% t interval over the seeds."""
    from scipy.stats import t

    mean, half = fmean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


def analytic(
    seed: int, *, tokens: int = 80, unseen: int = 24, n_pairs: int = 600, steps: int = 200
) -> dict[str, object]:
    """One-token responses: margins of DPO on unseen tokens by optimizer, and accuracies of both kinds there."""
    draw = np.random.default_rng(seed)
    model = causal_model(None, seed=seed, vocab_size=tokens, pad_token_id=0)
    prompts = [(0, *draw.integers(tokens, size=PROMPT_TOKENS).tolist()) for _ in range(6)]
    classifier = RewardModule(classifier_of(model, seed=seed))
    quality = _quality(classifier, prompts, draw, tokens)
    seen, rest = np.split(draw.permutation(np.arange(2, tokens)), [tokens - 2 - unseen])
    train, test = (_one_token_pairs(draw, prompts, quality, of, n_pairs) for of in (seen, rest))
    by_key: dict[str, Any] = {"seed": seed}
    for name, optimizer, rate in (("sgd", torch.optim.SGD, 30.0), ("adam", torch.optim.AdamW, 1e-2)):
        start = causal_model(model.state_dict(), seed=seed, vocab_size=tokens, pad_token_id=0)
        known = _one_token_reference(PolicyModule(start), train + test)
        policy = ImplicitModule(start, beta=0.1)
        policy.known = known
        _only(policy, policy.classifier.lm_head)
        descend(policy, train, optimizer, rate=rate, steps=steps, seed=seed)
        margin = margins_of(policy, test)
        by_key[name] = {"train": accuracy(margins_of(policy, train)), "unseen": accuracy(margin)}
        by_key[name]["largest_margin"] = float(np.abs(margin).max())
    _only(classifier, classifier.classifier.score)
    descend(classifier, train, torch.optim.AdamW, rate=3e-2, steps=steps, seed=seed)
    by_key["explicit"] = {
        "train": accuracy(margins_of(classifier, train)),
        "unseen": accuracy(margins_of(classifier, test)),
    }
    return by_key


def _only(module: Any, part: Any) -> None:
    module.requires_grad_(False)
    part.requires_grad_(True)


@torch.no_grad()
def _quality(
    module: RewardModule, prompts: Sequence[Any], draw: np.random.Generator, tokens: int
) -> NDArray[np.float64]:
    """[tokens] a linear function of the frozen features of each response token, mean over the prompts."""
    ids = [[(*prompt, token) for token in range(tokens)] for prompt in prompts]
    states = module._states(module.collate(ids)).reshape(len(prompts), tokens, -1).mean(0).double().numpy()
    quality: NDArray[np.float64] = states @ draw.normal(size=states.shape[1])
    return quality


def _one_token_pairs(
    draw: np.random.Generator, prompts: Sequence[Any], quality: NDArray[np.float64], tokens: Any, n: int
) -> list[Pair]:
    results: list[Pair] = []
    for _ in range(n):
        prompt, drawn = prompts[int(draw.integers(len(prompts)))], draw.choice(tokens, size=2, replace=False)
        better, worse = sorted(drawn.tolist(), key=lambda token: -quality[token])
        results.append(((*prompt, better), (*prompt, worse)))
    return results


def _one_token_reference(policy: PolicyModule, pairs: Sequence[Pair]) -> dict[Ids, tuple[int, float]]:
    ids = list(dict.fromkeys(one for pair in pairs for one in pair))
    result = policy.token_log_probs([[one] for one in ids], [[len(one) - 1] for one in ids], max_batch_tokens=8192)
    return {one: (len(one) - 1, tokens[0][0]) for one, tokens in zip(ids, result, strict=True)}
