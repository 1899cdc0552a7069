"""`rmkit denoise crm`: collaborative reward modeling from a version to a comparison with plain training.

Two models that review each other's pairs (`rmkit train peers`), two that are trained plainly with the same settings
and seeds, an ensemble of each two, and all four on one suite: differences with intervals, paired by item. With a
policy also what it gains by: of its replies to held-out prompts each ensemble picks the best, another reward model
says what those are worth.

    FOLDER/peers/ (A, B, audit.parquet)   FOLDER/plain-A, plain-B   FOLDER/peers-both, plain-both

What is in the folder is not trained again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.loops.replies import sampled_replies
from evaluation.front import evaluate
from evaluation.suites.results import EvalResult
from rmkit import paths
from rmkit.cli import arguments, display
from rmkit.features.encoder import EncoderConfig
from rmkit.generate import Request
from rmkit.generate.local import load_local
from rmkit.ids import parse_messages
from rmkit.ledger import open_ledger
from rmkit.metrics.bootstrap import clustered_interval
from rmkit.models import load_model
from rmkit.training.front import train
from rmkit.training.peer_review_command import AUDIT, train_peers
from rmkit.training.run import last_checkpoint, run_folder
from rmkit.training.settings import read_settings
from rmkit.types import Candidates, Completion, Message
from warehouse.versions.dataset import load_dataset

ARMS = ("peers-both", "plain-both", "peers/A", "plain-A")


@dataclass(frozen=True, slots=True)
class PolicyGain:
    """Mean worth of the reply that each ensemble picks out of `samples`, over `prompts`; the difference's interval."""

    prompts: int
    samples: int
    peers: float
    plain: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CrmResult:
    """`evaluation` has the models in the order of ARMS, each compared with the peers' ensemble."""

    folder: Path
    version: str | None
    evaluation: EvalResult
    policy: PolicyGain | None

    def as_json(self) -> dict[str, object]:
        policy = None if self.policy is None else asdict(self.policy)
        ends = {"folder": str(self.folder), "version": self.version}
        return ends | {"evaluation": self.evaluation.as_json(), "policy": policy}


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "denoise crm",
        "Two models under peer review and two trained plainly, as ensembles on one suite; CRM against its baseline.",
        examples=[
            "denoise crm hh@v2 --model Qwen/Qwen3-0.6B --set num_train_epochs=3 -o runs/crm",
            "denoise crm hh@v2 --model Qwen/Qwen3-0.6B --suite rm-bench --suite-data rmbench.jsonl.gz -o runs/crm",
        ],
    )
    parser.add_data("data")
    parser.add_argument("--model", required=True, help="Hugging Face id or folder of a causal or encoder model")
    parser.add_argument("--noise", type=float, help="share of wrong labels (default: estimated)")
    parser.add_encoder(help="frozen encoder that estimates the noise: minilm or a folder")
    parser.add_argument("--suite", help="a benchmark (default: the data's test split)")
    parser.add_argument("--suite-data", type=Path, help="where the benchmark's data lies")
    parser.add_argument("--policy", type=Path, help="a policy whose best replies the ensembles pick")
    parser.add_argument("--test-reward", help="the reward model that says what these are worth")
    parser.add_argument("--samples", type=int, default=8, help="replies a prompt that are picked from")
    parser.add_argument("--max-tokens", type=int, default=256, help="of a reply")
    parser.add_argument("--config", type=Path, metavar="TOML", help="settings of `rmkit train explicit`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting (repeatable)")
    parser.add_seed()
    parser.add_output("folder of the models", type=arguments.local_path)
    options = parser.parse_args(argv)
    if (options.policy is None) != (options.test_reward is None):
        parser.error("--policy and --test-reward go together")
    folder = options.output or paths.home() / "runs" / f"crm-{options.data.replace('@', '-')}"
    version = trained(
        options.data,
        folder,
        model=options.model,
        noise=options.noise,
        encoder=options.encoder,
        config=options.config,
        assignments=options.set,
        seed=options.seed,
    )
    suite = {"suite": options.suite, "data": options.suite_data} if options.suite else {"data": options.data}
    result = CrmResult(
        folder=folder,
        version=version,
        evaluation=evaluate([folder / name for name in ARMS], split="test", **suite),
        policy=None
        if options.policy is None
        else policy_gain(
            options.data,
            options.policy,
            [folder / name for name in ARMS[:2]],
            test_reward=options.test_reward,
            samples=options.samples,
            max_tokens=options.max_tokens,
            seed=options.seed,
        ),
    )
    display.emit(result, as_json=options.json, text=text(result))
    return 0


def trained(
    data: str,
    folder: Path,
    *,
    model: str,
    noise: float | None = None,
    encoder: str = EncoderConfig.encoder,
    config: Path | None = None,
    assignments: Sequence[str] = (),
    seed: int = 0,
) -> str | None:
    """All models of the folder; the version weighed by the peers, None where they were there already.

    Raises whatever training raises; the same call goes on.
    """
    settings = read_settings(config, assignments, kind="explicit", model=model, seed=seed)
    version = None
    if not (folder / "peers" / AUDIT).is_file():
        dataset = f"{data.partition('@')[0]}-peers"
        peers = train_peers(
            data,
            settings,
            noise=noise,
            encoder=encoder,
            output=folder / "peers",
            out=dataset,
            resume=last_checkpoint(paths.home() / "runs" / "peers-peers") is not None,
        )
        version = peers.version
    values: dict[str, Any] = {key: value for key, value in settings.as_json().items() if key != "seed"}
    for number, name in enumerate("AB"):
        target = folder / f"plain-{name}"
        if not target.exists():
            begun = last_checkpoint(run_folder(target)) is not None
            train("explicit", data, output=target, seed=seed + number, resume=begun, **values)
    for kind in ("peers", "plain"):
        if not (folder / f"{kind}-both").exists():
            members = [str(folder / (f"peers/{name}" if kind == "peers" else f"plain-{name}")) for name in "AB"]
            train("ensemble", data, output=folder / f"{kind}-both", members=members)
    return version


def policy_gain(
    data: str, policy: Path, rewards: Sequence[Path], *, test_reward: str, samples: int, max_tokens: int, seed: int
) -> PolicyGain:
    """Best of `samples` under both ensembles (peers, plain), judged by `test_reward`."""
    prompts = list(dict.fromkeys(one.row["prompt"] for one in load_dataset(data, split="test")))
    requests = [
        Request(prompt=parse_messages(prompt), max_tokens=max_tokens, temperature=1.0, seed=seed) for prompt in prompts
    ]
    with open_ledger() as ledger:
        replies = sampled_replies(load_local(policy), requests, samples, ledger=ledger, purpose="denoise crm")
    items = [
        Candidates(request.prompt, tuple(Completion((Message("assistant", text),)) for text in one.texts))
        for request, one in zip(requests, replies, strict=True)
        if one.texts
    ]
    worth = [[one.value for one in row] for row in load_model(test_reward).score(items)]
    picked = []
    for reward in rewards:
        scores = [[one.value for one in row] for row in load_model(reward).score(items)]
        picked.append([value[int(np.argmax(row))] for row, value in zip(scores, worth, strict=True)])
    difference = np.array(picked[0]) - np.array(picked[1])
    between = clustered_interval(difference, np.arange(len(difference)))
    low, high = (math.nan, math.nan) if between is None else (between.low, between.high)
    peers, plain = (float(np.mean(one)) for one in picked)
    return PolicyGain(len(items), samples, peers, plain, float(difference.mean()), low, high)


def text(result: CrmResult) -> str:
    """Accuracies, differences to the peers' ensemble, the policy's part."""
    measure = result.evaluation.headline
    rows: list[tuple[Any, ...]] = []
    for name, model in zip(ARMS, result.evaluation.models, strict=True):
        other = next((one for one in result.evaluation.comparisons if one.second is model), None)
        gap = next((one for one in other.differences if one.measure == measure), None) if other else None
        between = "" if gap is None else f"{gap.difference:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"
        rows.append((name, f"{model.measures[measure].percent:.1f}", between))
    lines = [f"{result.evaluation.title}: {measure}", display.table(("model", "%", "peers-both minus it"), rows)]
    if result.policy is not None:
        one = result.policy
        lines.append(
            f"best of {one.samples} replies to {one.prompts} prompts: peers {one.peers:.3f}, plain {one.plain:.3f}, "
            f"difference {one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
        )
    if result.version:
        lines.append(f"weighed data: {result.version}")
    return "\n".join([*lines, f"models in {result.folder}"])
