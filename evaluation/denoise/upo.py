"""`rmkit denoise upo`: UPO's loop from a dataset version, a policy and a reward model to a better policy.

Labeled pairs and prompts come from the version's train split. The estimator is the dropout classifier on frozen
features (rmkit.heads.pair_estimator), trained on the labeled pairs. A round: data_pipelines.loops.upo.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.algorithms.weighing import judged_pairs
from data_pipelines.loops.upo import LoopConfig, run_loop
from data_pipelines.loops.upo_policy import PolicyConfig, PolicyPair
from evaluation.denoise.data import version_frame
from rmkit import paths
from rmkit.cli import arguments, display
from rmkit.data.pairs import Pair
from rmkit.features.encoder import Encoder, EncoderConfig
from rmkit.heads.pair_estimator import EstimatorConfig, PairEstimator
from rmkit.ids import assistant_message, content_hash, messages_json
from rmkit.ledger import open_ledger
from rmkit.models import load_model
from rmkit.models.small.frozen import pair_features
from rmkit.reliability.feature_pairs import FeaturePairs
from rmkit.reliability.uncertainty import Uncertainty
from rmkit.reliability.upo import UpoConfig

PROMPT_TOKENS = 1024


class FeatureEstimator:
    """Trained on labeled pairs at the start; the same pairs and seed give the same passes."""

    def __init__(
        self, labeled: Sequence[PolicyPair], encoder: EncoderConfig, config: EstimatorConfig, seed: int
    ) -> None:
        self.encoder = Encoder(encoder)
        pairs = self._features(labeled)
        self.fitted = PairEstimator(pairs.width, config, seed=seed).fit(pairs)

    def __call__(self, pairs: Sequence[PolicyPair]) -> Uncertainty:
        return self.fitted.uncertainty(self._features(pairs))

    def _features(self, pairs: Sequence[PolicyPair]) -> FeaturePairs:
        texts = [_as_pair(number, pair) for number, pair in enumerate(pairs)]
        features = pair_features(texts, self.encoder)
        return FeaturePairs(tuple(one.id for one in texts), features.vectors, features.rows)


def _as_pair(number: int, pair: PolicyPair) -> Pair:
    return Pair(
        example=f"{number} {content_hash(pair.chosen + pair.rejected)}",
        i=0,
        j=1,
        prompt=messages_json(pair.prompt),
        first=assistant_message(pair.chosen),
        second=assistant_message(pair.rejected),
        p=1.0,
        share=1.0,
        weight=1.0,
        family=0,
        subset="upo",
    )


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "denoise upo",
        "Improve a policy with its own replies: sample, score, keep the certain pairs, train, again.",
        examples=["denoise upo hh@v2 --policy models/policy --reward models/hh-frozen --prompts 3000 -o runs/upo-hh"],
    )
    parser.add_data("data", metavar="NAME[@REF]", help="labeled pairs, whose prompts are sampled for")
    parser.add_argument("--policy", type=Path, required=True, help="folder of a causal model with a chat template")
    parser.add_argument("--reward", required=True, help="the reward model that orders replies")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=1000, help="prompts of all rounds together")
    parser.add_argument("--samples", type=int, default=6, help="replies a prompt (at least 4)")
    parser.add_argument("--max-tokens", type=int, default=512, help="tokens of a reply")
    parser.add_argument("--selector", choices=("mean_p", "bald", "margin", "drawn"), default="mean_p")
    parser.add_argument("--lr", type=float, default=5e-6)
    parser.add_encoder(help="frozen encoder of the estimator: minilm or a folder")
    parser.add_seed()
    parser.add_output("folder of the rounds; the same command goes on in it")
    options = parser.parse_args(argv)
    frame, name, _ = version_frame(options.data)
    pairs = judged_pairs(frame, ("train",))
    labeled = [_as_policy_pair(pair) for pair in pairs]
    prompts = list({messages_json(pair.prompt): pair.prompt for pair in labeled}.values())
    drawn = np.sort(np.random.default_rng(options.seed).permutation(len(prompts))[: options.prompts])
    encoder, estimator = EncoderConfig(encoder=options.encoder), EstimatorConfig()
    folder = options.output or paths.home() / "runs" / f"upo-{name.replace('@', '-')}"
    config = LoopConfig(
        iterations=options.iterations,
        samples=options.samples,
        max_tokens=options.max_tokens,
        selection=UpoConfig(selector=options.selector),
        policy=PolicyConfig(lr=options.lr, max_length=PROMPT_TOKENS + options.max_tokens),
        seed=options.seed,
    )
    with open_ledger() as ledger:
        facts = run_loop(
            folder,
            options.policy,
            prompts=[prompts[at] for at in drawn],
            labeled=labeled,
            reward=load_model(options.reward),
            estimate=FeatureEstimator(labeled, encoder, estimator, seed=options.seed),
            ledger=ledger,
            config=config,
        )
    result = {"data": name, "policy": str(folder / f"iteration-{config.iterations}" / "policy"), "rounds": facts}
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def _as_policy_pair(pair: Pair) -> PolicyPair:
    first, second = (completion.text for completion in pair.candidates.completions)
    chosen, rejected = (first, second) if pair.p > 0.5 else (second, first)
    return PolicyPair(pair.candidates.prompt, chosen, rejected)


def _text(result: dict[str, Any]) -> str:
    header = ("round", "prompts", "samples", "mean reward", "candidates", "selected", "trained on", "median BALD")
    rows = []
    for one in result["rounds"]:
        sampled = (one["round"], one["prompts"], one["samples"], f"{one['mean_reward']:.3f}", one["candidates"])
        rows.append((*sampled, one["selected"], one["training"]["pairs"], f"{one['median_bald']:.4f}"))
    return f"{display.table(header, rows)}\npolicy in {result['policy']}"
