"""`rmkit bench policy-signal`: what a signal adds beside the raw reward model, and what proposed prompts add beside
uniform ones: GRPO on sums, paired by seed.

A policy that half knows its sums (`sums_task`) is trained by TRL on rewards over HTTP. Behind `rmkit serve` stand a
lexical reward model, trained on judges who like hedging as well as right answers, and the signal below: a verifier of
numbers against the dataset's gold answers, a length term, the group's z-score. Three arms of a seed share the policy's
weights and the sums:

    control    the model's raw number, normalized by TRL within its group (the verifier comes along with weight 0)
    signal     the signal, prompts in TRL's own order
    proposed   the signal, prompts as the prompt book proposes them (the service keeps it)

Reported: the share of right answers among sampled replies to the sums that were rewarded and to a fifth that no arm
ever trained on, the gain of the signal over the control, and the share of groups with a signal (outcomes that differ)
when prompts are proposed, against TRL's order; each with a 95% interval over the paired seeds (Student's t).
"""

from __future__ import annotations

import copy
import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evaluation.benchmarks.policy import sums_task
from evaluation.benchmarks.policy.run import rmkit_json, serving
from rmkit.cli import arguments, display
from rmkit.serve.clients.alarm import WatchedRewards
from rmkit.serve.clients.prompts import ObservedRewards, PromptClient, proposed_dataset
from rmkit.serve.clients.trl import RewardFunction

Arm = Literal["control", "signal", "proposed"]
ARMS: tuple[Arm, ...] = ("control", "signal", "proposed")
SIGNAL = """
mix = {right = 1.0, brief = 0.1}
chain = ["z_score"]

[verifiers.right]
use = "number"

[verifiers.brief]
use = "length"
unit = "words"
min = 1
max = 1
slack = 5

[columns]
reference = "answer"
"""
RAW = """
mix = {reward = 1.0, right = 0.0}

[columns]
reference = "answer"
"""
GROUP, BATCH = 8, 64
PREFERENCES = 1500
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}  # two-sided, n - 1 degrees


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of one policy: right answers to rewarded and to held-out sums; of its run: groups whose outcomes differ, and the
    step at which the hacking alarm rang first."""

    rewarded: float
    held_out: float
    mixed_groups: float | None = None
    alarm: int | None = None


@dataclass(frozen=True, kw_only=True)
class Runs:
    """One seed: the policy before, and after each arm."""

    seed: int
    before: Shares
    after: Mapping[Arm, Shares]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A mean over paired seeds and its 95% interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, differences: Sequence[float]) -> Gain:
        mean = statistics.fmean(differences)
        half = T_95[len(differences)] * statistics.stdev(differences) / math.sqrt(len(differences))
        return cls(mean=mean, low=mean - half, high=mean + half)

    def __str__(self) -> str:
        return f"{self.mean:+.3f} (95% interval {self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True, kw_only=True)
class Result:
    """`rewarded`, `held_out`: gains in right answers of the signal over the control; `mixed_groups`: of proposed
    prompts over TRL's order, in the share of groups with a signal; None where an arm did not run."""

    steps: int
    seeds: tuple[Runs, ...]
    rewarded: Gain | None
    held_out: Gain | None
    mixed_groups: Gain | None

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def main(argv: list[str]) -> int:
    """0 where the lower bound of the signal's gain on the rewarded sums is above zero, 1 otherwise."""
    parser = arguments.parser(
        "bench policy-signal",
        "Train a policy with TRL on a signal (verifier, length, z-score) beside the raw reward model, and on proposed "
        "prompts beside uniform ones; pairs by seed.",
        examples=["bench policy-signal", "bench policy-signal --seeds 3 --steps 60 --json"],
    )
    parser.add_argument("--steps", type=arguments.positive, default=30, help="optimizer steps of each run")
    parser.add_argument("--seeds", type=int, choices=sorted(T_95), default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="arms to run (default: all)")
    options = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import trl  # noqa: F401 - refused at once where it is missing

    with tempfile.TemporaryDirectory(prefix="rmkit-signal-") as folder:
        result = measure(Path(folder), steps=options.steps, seeds=options.seeds, arms=options.arms)
    display.emit(result.as_json(), as_json=options.json, text=_text(result))
    return 0 if result.rewarded is None or result.rewarded.low > 0 else 1


def measure(folder: Path, *, steps: int, seeds: int, arms: Sequence[Arm] = ARMS) -> Result:
    """Every run, against one service in a data home of its own under `folder`."""
    import rmkit

    rmkit.train("lexical", sums_task.preferences(PREFERENCES, seed=7), output=str(folder / "words"))
    signals = {folder / "sums.toml": SIGNAL, folder / "raw.toml": RAW}
    for path, text in signals.items():
        path.write_text(text)
    for seed in range(seeds):  # the policy moves, so old outcomes count less and less
        rmkit_json(folder, "prompts", "new", f"run-{seed}", "--set", "decay=0.5")
    with (
        serving(folder, f"words={folder / 'words'}", *(f"--signal={path}" for path in signals)) as url,
        display.progress("runs", len(arms) * seeds) as advance,
    ):
        runs = tuple(
            _seed(url, folder / "runs", seed, steps=steps, arms=arms, advance=advance) for seed in range(seeds)
        )
    return Result(
        steps=steps,
        seeds=runs,
        rewarded=_gain(runs, "signal", "control", "rewarded"),
        held_out=_gain(runs, "signal", "control", "held_out"),
        mixed_groups=_gain(runs, "proposed", "signal", "mixed_groups"),
    )


def _gain(runs: Sequence[Runs], arm: Arm, over: Arm, what: str) -> Gain | None:
    """None where an arm did not run."""
    if not all({arm, over} <= set(run.after) for run in runs):
        return None
    return Gain.of([getattr(run.after[arm], what) - getattr(run.after[over], what) for run in runs])


def _seed(url: str, folder: Path, seed: int, *, steps: int, arms: Sequence[Arm], advance: Any) -> Runs:
    import torch

    torch.set_num_threads(1)
    words, sums = sums_task.tokenizer(), sums_task.Sums.of(seed)
    policy = sums_task.warm_policy(words, sums, seed=seed)

    def shares(model: Any) -> Shares:
        rewarded, held_out = (sums_task.accuracy(model, words, part) for part in (sums.rewarded, sums.held_out))
        return Shares(rewarded=rewarded, held_out=held_out)

    after: dict[Arm, Shares] = {}
    for arm in arms:
        model = copy.deepcopy(policy)
        recorder = _train(arm, model, words, sums, url, folder / f"{arm}-{seed}", steps=steps, seed=seed)
        alarm = recorder.watched.alarm
        after[arm] = replace(
            shares(model.eval()), mixed_groups=recorder.mixed / recorder.groups, alarm=alarm.step if alarm else None
        )
        advance(1)
    return Runs(seed=seed, before=shares(policy), after=after)


def _train(
    arm: Arm, model: Any, words: Any, sums: sums_task.Sums, url: str, folder: Path, *, steps: int, seed: int
) -> _Recorder:
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    rows = [
        {"id": sums_task.question(one), "prompt": [{"role": "user", "content": sums_task.question(one)}],
         "answer": str(sum(one))}
        for one in sums.rewarded
    ]  # fmt: skip
    recorder = _Recorder(RewardFunction(url, signal="raw" if arm == "control" else "sums"))
    dataset: Any = Dataset.from_list(rows)
    rewards: Any = recorder
    callbacks = [recorder.watched.callback()]
    if arm == "proposed":
        book = PromptClient(url, book=f"run-{seed}")
        rewards = ObservedRewards(recorder, book, prompt="id", outcome=lambda _, __: list(recorder.outcomes))
        dataset = proposed_dataset(rows, book, prompt="id", per_step=BATCH // GROUP, utility="half")
        callbacks.append(rewards.callback())
    trainer = GRPOTrainer(
        model=model,
        processing_class=words,
        reward_funcs=rewards,
        train_dataset=dataset,
        callbacks=callbacks,
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            num_generations=GROUP,
            max_completion_length=sums_task.REPLY_WORDS,
            learning_rate=2e-3,
            lr_scheduler_type="constant",
            scale_rewards="group" if arm == "control" else "none",  # the chain has normalized already
            accelerator_config={"dispatch_batches": False},
            beta=0.0,
            seed=seed,
            use_cpu=True,
            bf16=False,
            logging_steps=steps,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    trainer.remove_callback(PrinterCallback)  # stdout is for the result
    trainer.train()
    return recorder


class _Recorder:
    """The reward function of one arm; `outcomes` of the last call are right (1), wrong (0) or unknown."""

    def __init__(self, ask: RewardFunction) -> None:
        self.ask, self.watched = ask, WatchedRewards(ask, truth=["right"])
        self.__name__ = "rmkit_reward"
        self.outcomes: list[float | None] = []
        self.groups = self.mixed = 0

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        rewards = self.watched(prompts, completions, **columns)
        self.outcomes = [one.components.get("right") for one in self.ask.last]
        for begin in range(0, len(self.outcomes), GROUP):
            known = {one for one in self.outcomes[begin : begin + GROUP] if one is not None}
            self.groups += 1
            self.mixed += len(known) > 1
        return rewards


def _text(result: Result) -> str:
    gains = [("rewarded", result.rewarded), ("held-out", result.held_out)]
    rows = [
        [run.seed, name, *map(display.number, (one.rewarded, one.held_out, one.mixed_groups)), one.alarm or "-"]
        for run in result.seeds
        for name, one in [("before", run.before), *run.after.items()]
    ]
    return "\n".join(
        [
            display.table(
                ("seed", "arm", "right, rewarded sums", "right, held out", "groups with signal", "alarm at step"), rows
            ),
            *(f"gain of the signal over the control, {what} sums {gain}" for what, gain in gains if gain),
            *(
                [f"groups with a signal, proposed over TRL's order {result.mixed_groups}"]
                if result.mixed_groups
                else []
            ),
        ]
    )
