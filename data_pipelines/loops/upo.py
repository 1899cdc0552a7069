"""UPO's loop: sample -> score -> estimate -> select -> train the policy -> again (arXiv:2409.11212).

    $FOLDER/iteration-1/  policy/       the policy after the round, as transformers saves it
                          pairs.parquet every candidate pair: rewards, T probabilities, BALD, alpha, why (not) selected
                          facts.json    counts, mean reward of the samples, noise of the selection where truth is known

A round's folder appears by one rename and holds everything the next one needs, replies are cached in the ledger, and
every draw depends on (seed, round) alone: a loop that was killed goes on with the round it was in, and ends as an
unbroken one does.

The estimator and the reward model are made before the loop from labeled pairs D0 and stay. Any Generator that can be
trained serves; here the policy is a transformers model in this process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.loops.replies import sampled_replies
from data_pipelines.loops.upo_policy import PolicyConfig, PolicyPair, train_policy
from rmkit.atomic import draft_folder, put, write_text
from rmkit.config import read_object
from rmkit.errors import ConfigError, DataError
from rmkit.generate import Request
from rmkit.generate.local import LocalGenerator
from rmkit.ids import content_hash, messages_json
from rmkit.ledger import Ledger
from rmkit.reliability.label_weights import LabelWeights
from rmkit.reliability.uncertainty import Uncertainty
from rmkit.reliability.upo import MixConfig, UpoConfig, mix, select_certain
from rmkit.types import Candidates, Completion, Conversation, Message, RewardModel


class Estimator(Protocol):
    """T probabilities per pair that its order is right: `rmkit.heads.pair_estimator` behind features, or a model
    with dropout on."""

    def __call__(self, pairs: Sequence[PolicyPair]) -> Uncertainty: ...


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """`samples` replies a prompt; of the ordered pairs of upper and lower half, `pair_share` become candidates."""

    iterations: int = 3
    samples: int = 6
    temperature: float = 0.8
    max_tokens: int = 1024
    pair_share: float = 0.25
    selection: UpoConfig = field(default_factory=UpoConfig)
    shares: MixConfig = field(default_factory=MixConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.samples < 4 or not 0 < self.pair_share <= 1:
            raise ConfigError(
                f"iterations must be positive, samples at least 4 (UPO halves them), pair_share in (0, 1]; got "
                f"{self.iterations}, {self.samples}, {self.pair_share}"
            )


@dataclass(frozen=True)
class Candidate:
    """A pair that a reward model ordered. `margin` is the difference of rewards."""

    id: str
    pair: PolicyPair
    margin: float


def run_loop(
    folder: Path,
    policy: Path,
    *,
    prompts: Sequence[Conversation],
    labeled: Sequence[PolicyPair],
    reward: RewardModel,
    estimate: Estimator,
    ledger: Ledger,
    config: LoopConfig | None = None,
) -> list[dict[str, object]]:
    """The facts of every round, finished ones read from the folder. The last policy is in its last round's folder.

    Round t takes every `iterations`-th prompt. Raises ConfigError where the folder holds a loop with other settings,
    DataError where a round finds no pair.
    """
    config = config or LoopConfig()
    _same_loop(folder, policy, prompts, config, reward)
    facts = []
    for number in range(1, config.iterations + 1):
        result = folder / f"iteration-{number}"
        if not result.exists():
            before = policy if number == 1 else folder / f"iteration-{number - 1}" / "policy"
            share = prompts[number - 1 :: config.iterations]
            _round(result, before, number, share, labeled, reward, estimate, ledger, config)
        facts.append(read_object(result / "facts.json", raises=DataError, hint=f"delete {result}, it is made again"))
    return facts


def _same_loop(
    folder: Path, policy: Path, prompts: Sequence[Conversation], config: LoopConfig, reward: RewardModel
) -> None:
    answers = [repr(config), reward.info.fingerprint, str(policy), *(messages_json(prompt) for prompt in prompts)]
    key, summary = content_hash("\n".join(answers)), folder / "loop.json"
    if summary.exists() and read_object(summary, raises=ConfigError, hint="name another folder").get("key") != key:
        raise ConfigError(f"{folder} holds a loop with other settings, prompts or reward model; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(summary, json.dumps({"key": key, "config": repr(config)}))


def _round(
    result: Path,
    before: Path,
    number: int,
    prompts: Sequence[Conversation],
    labeled: Sequence[PolicyPair],
    reward: RewardModel,
    estimate: Estimator,
    ledger: Ledger,
    config: LoopConfig,
) -> None:
    from rmkit.models.transformer.pretrained import load_pretrained, load_tokenizer

    model, reference = (load_pretrained("AutoModelForCausalLM", before, dtype="float32").model for _ in range(2))
    tokenizer = load_tokenizer(before)
    name = f"upo-{result.parent.name}-{number}-{_weights_key(before)}"
    groups, failed = sample(LocalGenerator(model, tokenizer, name=name), prompts, config, number, ledger)
    scores = [[score.value for score in one] for one in reward.score(groups)]
    results = candidates(groups, scores, share=config.pair_share, seed=[config.seed, number])
    if not results:
        raise DataError(f"round {number}: no two replies with different rewards; raise temperature or samples")
    verdicts = select_certain(
        [one.id for one in results],
        estimate([one.pair for one in results]),
        margin=[one.margin for one in results],
        config=config.selection,
        seed=config.seed + number,
    )
    old, new = mix(
        len(labeled),
        verdicts,
        prompts=[messages_json(one.pair.prompt) for one in results],
        config=config.shares,
        seed=config.seed + number,
    )
    alpha = np.asarray(verdicts.evidence["alpha"])
    data = [labeled[at] for at in old] + [results[at].pair._replace(alpha=float(alpha[at])) for at in new]
    data = [data[at] for at in np.random.default_rng([config.seed, number]).permutation(len(data))]
    trained = train_policy(model, reference, tokenizer, data, config=config.policy, seed=config.seed + number)
    known = [value for one in scores for value in one if np.isfinite(value)]
    facts = {
        "round": number,
        "prompts": len(prompts),
        "samples": sum(len(group.completions) for group in groups),
        "failed": failed,
        "mean_reward": float(np.mean(known)),
        "candidates": len(results),
        "selected": int(verdicts.keep.sum()),
        "old_pairs": len(old),
        "new_pairs": len(new),
        **dict(verdicts.facts),
        "training": trained,
    }
    _write(result, model, tokenizer, results, verdicts, set(new.tolist()), facts)


def sample(
    generator: LocalGenerator, prompts: Sequence[Conversation], config: LoopConfig, number: int, ledger: Ledger
) -> tuple[list[Candidates], int]:
    """Distinct replies per prompt (prompts with fewer than two are left out), and how many samples gave no text."""
    requests = [
        Request(
            prompt=prompt,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            seed=1_000_000 * number + 1000 * at + config.seed,
        )
        for at, prompt in enumerate(prompts)
    ]
    drawn = sampled_replies(generator, requests, config.samples, ledger=ledger, purpose=f"upo round {number}")
    groups = [
        Candidates(
            prompt, tuple(Completion((Message("assistant", text),), source=generator.name) for text in one.texts)
        )
        for prompt, one in zip(prompts, drawn, strict=True)
        if len(one.texts) >= 2
    ]
    failed = sum(len(one.errors) for one in drawn)
    return groups, failed


def candidates(
    groups: Sequence[Candidates], scores: Sequence[Sequence[float]], *, share: float, seed: Sequence[int]
) -> list[Candidate]:
    """Strictly ordered pairs, winner from the upper and loser from the lower half of a prompt's rewards; a random share
    of all of them, at least one a prompt that has any."""
    draw = np.random.default_rng(seed)
    results: list[Candidate] = []
    for group, reward in zip(groups, scores, strict=True):
        order = [at for at in np.argsort(np.negative(reward), kind="stable").tolist() if np.isfinite(reward[at])]
        half = len(order) // 2
        pairs = [(i, j) for i, j in product(order[:half], order[len(order) - half :]) if reward[i] > reward[j]]
        drawn = sorted(draw.permutation(len(pairs))[: max(1, round(share * len(pairs)))].tolist()) if pairs else []
        for at in drawn:
            i, j = pairs[at]
            chosen, rejected = group.completions[i].text, group.completions[j].text
            key = content_hash("\n".join([messages_json(group.prompt), chosen, rejected]))
            results.append(Candidate(key, PolicyPair(group.prompt, chosen, rejected), float(reward[i] - reward[j])))
    return results


def _write(
    result: Path,
    model: Any,
    tokenizer: Any,
    results: Sequence[Candidate],
    verdicts: LabelWeights,
    trained_on: set[int],
    facts: Mapping[str, Any],
) -> None:
    numbers = ("mean_p", "variance", "bald", "vote", "sampling_weight", "alpha")
    columns = {
        "id": [one.id for one in results],
        "prompt": [messages_json(one.pair.prompt) for one in results],
        "chosen": [one.pair.chosen for one in results],
        "rejected": [one.pair.rejected for one in results],
        "margin": [one.margin for one in results],
        "passes": np.asarray(verdicts.evidence["passes"]).tolist(),
        **{name: np.asarray(verdicts.evidence[name]) for name in numbers},
        "selected": verdicts.keep,
        "reason": list(verdicts.reason),
        "trained_on": [at in trained_on for at in range(len(results))],
    }
    with draft_folder(result) as draft:
        model.save_pretrained(draft / "policy")
        tokenizer.save_pretrained(draft / "policy")
        pq.write_table(pa.table(columns), draft / "pairs.parquet")
        (draft / "facts.json").write_text(json.dumps(facts, indent=1))
        put(draft, result)


def _weights_key(folder: Path) -> str:
    """Identity of the policy's weights, so that cached replies are never another policy's."""
    from rmkit.ids import file_sha256

    return "".join(file_sha256(path)[:8] for path in sorted(folder.glob("*.safetensors")))
