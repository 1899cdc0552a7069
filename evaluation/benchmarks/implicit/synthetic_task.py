"""A toy language for explicit and implicit rewards: concepts with eight wordings each, texts that walk over concepts.

A language model learns it from texts in which every wording of a concept is used alike. Then a preference is planted:
of two responses to a prompt, the better one has more good concepts (less bad ones). Training pairs use wordings 0 to 3
only; the shifted cells use wordings 4 to 7, which the language model knows and the preference pairs never showed:

    id          prompts and responses in the wordings of training
    prompt      prompts in the others, responses in those of training
    response    the other way round
    both        everything in the others
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rmkit.models.transformer.packing import Ids

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

CONCEPTS, WORDINGS, PROMPT = 24, 8, 5
BEGIN, END = 0, 1
SEEN, UNSEEN = (0, 1, 2, 3), (4, 5, 6, 7)
WORDINGS_OF = {"id": (SEEN, SEEN), "prompt": (UNSEEN, SEEN), "response": (SEEN, UNSEEN), "both": (UNSEEN, UNSEEN)}
SHAPE = {
    "vocab_size": 2 + CONCEPTS * WORDINGS,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "pad_token_id": END,
}
Pair = tuple[Ids, Ids]
START = 1 + PROMPT  # where a response begins


@dataclass(frozen=True, slots=True)
class SyntheticTask:
    """Pairs (better, worse) by cell, with `train` and `validation`; weights of the language model."""

    pairs: dict[str, list[Pair]]
    weights: dict[str, torch.Tensor]
    language_loss: float


def world(seed: int, *, n_train: int, n_test: int, language_steps: int) -> SyntheticTask:
    """One language, a model of it, and its pairs, all drawn from the seed."""
    draw = np.random.default_rng(seed)
    follows = draw.dirichlet(np.full(CONCEPTS, 0.15), size=CONCEPTS).cumsum(axis=1)
    weights, loss = language_model(draw, follows, steps=language_steps, seed=seed)
    sizes = {"train": n_train, "validation": n_test, **dict.fromkeys(WORDINGS_OF, n_test)}
    pairs = {cell: preferences(draw, follows, n, *WORDINGS_OF.get(cell, (SEEN, SEEN))) for cell, n in sizes.items()}
    return SyntheticTask(pairs, weights, loss)


def walk(draw: np.random.Generator, follows: NDArray[np.float64], n: int, length: int) -> NDArray[np.int64]:
    """[n, length] concepts."""
    concept = draw.integers(CONCEPTS, size=n)
    steps = [concept]
    for _ in range(length - 1):
        concept = np.minimum((draw.random(n)[:, None] > follows[concept]).sum(axis=1), CONCEPTS - 1)
        steps.append(concept)
    return np.stack(steps, axis=1)


def worded(draw: np.random.Generator, concepts: NDArray[np.int64], wordings: Sequence[int]) -> NDArray[np.int64]:
    """Token ids of concepts, each in a wording drawn from those given."""
    ids: NDArray[np.int64] = 2 + concepts * WORDINGS + draw.choice(wordings, size=concepts.shape)
    return ids


def language_model(
    draw: np.random.Generator, follows: NDArray[np.float64], *, steps: int, seed: int
) -> tuple[dict[str, torch.Tensor], float]:
    """Weights of a causal model after `steps` batches of 64 texts, and its last loss in nats a token."""
    model = causal_model(None, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    for step in range(steps):
        tokens = worded(draw, walk(draw, follows, 64, 12), range(WORDINGS))
        ids = torch.from_numpy(np.concatenate([np.full((64, 1), BEGIN), tokens], axis=1))
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, 2 * (1 - (step + 1) / steps))
    return model.state_dict(), loss.item()


def preferences(
    draw: np.random.Generator,
    follows: NDArray[np.float64],
    n: int,
    prompt_wordings: Sequence[int],
    response_wordings: Sequence[int],
) -> list[Pair]:
    """n pairs of responses of 3 to 6 words; the first has the larger surplus of good concepts."""
    results: list[Pair] = []
    while len(results) < n:
        prompt = worded(draw, walk(draw, follows, 1, PROMPT)[0], prompt_wordings).tolist()
        concepts = [draw.integers(CONCEPTS, size=draw.integers(3, 7)) for _ in range(2)]
        surplus = [int(np.where(one < CONCEPTS // 2, 1, -1).sum()) for one in concepts]
        if surplus[0] == surplus[1]:
            continue
        texts = [(BEGIN, *prompt, *worded(draw, one, response_wordings).tolist(), END) for one in concepts]
        results.append((texts[0], texts[1]) if surplus[0] > surplus[1] else (texts[1], texts[0]))
    return results


def causal_model(weights: dict[str, torch.Tensor] | None, *, seed: int, **more: Any) -> LlamaForCausalLM:
    """The language model with these weights, or with fresh ones."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model: Any = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **more}))
    if weights is not None:
        model.load_state_dict(weights)
    return model


def classifier_of(model: Any, *, seed: int) -> LlamaForSequenceClassification:
    """A classifier with one label on a copy of the language model's trunk, its head fresh."""
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(seed)
    model.config.num_labels = 1
    result: Any = LlamaForSequenceClassification(model.config)
    result.model.load_state_dict(model.model.state_dict())
    return result
