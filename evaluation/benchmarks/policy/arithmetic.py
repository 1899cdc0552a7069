"""`rmkit bench policy-signal`: what a signal adds, beside the raw reward model: GRPO on sums, paired by seed.

A policy (two-layer Llama, random weights, a token a word) answers sums of two digits. Behind `rmkit serve` stand a
lexical reward model, trained on right and wrong answers of other sums (words alone cannot tell them apart), and the
signal below: a verifier of numbers against the dataset's gold answers, a length term, the group's z-score. TRL asks
over HTTP, in one arm with the signal, in the other for the model's raw number. Both arms of a seed share weights,
prompts and random numbers. Reported is the share of right answers over the last ten steps, its gain over the control
per seed, and a 95% interval of the mean gain (Student's t).
"""

from __future__ import annotations

import math
import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks.policy.run import serving
from rmkit.cli import arguments, display
from rmkit.serve.clients.trl import RewardFunction
from rmkit.verifiers.verifier import load_verifier

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
LARGEST, REPLY_WORDS = 5, 5
GROUP, BATCH, ENDS = 8, 128, 10
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}  # two-sided, n - 1 degrees
_WORDS = ("so", "well", "maybe", "about")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One seed's shares of right answers over the last steps."""

    seed: int
    signal: float
    control: float
    first: float  # over the first steps of the signal's arm

    @property
    def gain(self) -> float:
        return self.signal - self.control


@dataclass(frozen=True, kw_only=True)
class Result:
    """`interval` is of the mean gain."""

    steps: int
    pairs: tuple[Pair, ...]
    gain: float
    interval: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def main(argv: list[str]) -> int:
    """0 where the lower bound of the gain is above zero, 1 otherwise."""
    parser = arguments.parser(
        "bench policy-signal",
        "Train a policy with TRL on a signal (verifier, length, z-score) beside the raw reward model; pairs by seed.",
        examples=["bench policy-signal", "bench policy-signal --seeds 3 --steps 60 --json"],
    )
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of each run")
    parser.add_argument("--seeds", type=int, choices=sorted(T_95), default=5)
    options = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import trl  # noqa: F401 - refused at once where it is missing

    with tempfile.TemporaryDirectory(prefix="rmkit-signal-") as folder:
        result = measure(Path(folder), steps=options.steps, seeds=options.seeds)
    display.emit(result.as_json(), as_json=options.json, text=_text(result))
    return 0 if result.interval[0] > 0 else 1


def measure(folder: Path, *, steps: int, seeds: int) -> Result:
    """Every pair of runs, against one service in a data home of its own under `folder`."""
    model, signal = _trained_model(folder), folder / "sums.toml"
    signal.write_text(SIGNAL)
    pairs = []
    with (
        serving(folder, f"words={model}", "--signal", str(signal)) as url,
        display.progress("runs", 2 * seeds) as advance,
    ):
        for seed in range(seeds):
            shares = {}
            for arm in ("signal", "control"):
                shares[arm] = _run(arm, url, folder / "runs", steps=steps, seed=seed)
                advance(1)
            ends = {arm: statistics.fmean(share[-ENDS:]) for arm, share in shares.items()}
            pairs.append(Pair(seed=seed, **ends, first=statistics.fmean(shares["signal"][:ENDS])))
    gains = [pair.gain for pair in pairs]
    half = T_95[seeds] * statistics.stdev(gains) / math.sqrt(seeds)
    mean = statistics.fmean(gains)
    return Result(steps=steps, pairs=tuple(pairs), gain=mean, interval=(mean - half, mean + half))


def _trained_model(folder: Path) -> Path:
    import rmkit

    rng = random.Random(7)
    rows = []
    for number in range(400):
        first, second = rng.randrange(LARGEST), rng.randrange(LARGEST)
        wrong = rng.choice([n for n in range(2 * LARGEST - 1) if n != first + second])
        replies = [f"{rng.choice(_WORDS)} {answer}" for answer in (first + second, wrong)]
        rows.append({"prompt": f"{first} + {second} in case {number}", "chosen": replies[0], "rejected": replies[1]})
    rmkit.train("lexical", rows, output=str(folder / "words"))
    return folder / "words"


def _run(arm: str, url: str, folder: Path, *, steps: int, seed: int) -> list[float]:
    """[steps] shares of right answers."""
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    torch.set_num_threads(1)
    rng = random.Random(100 + seed)
    sums = [(rng.randrange(LARGEST), rng.randrange(LARGEST)) for _ in range(512)]
    rows = [{"prompt": [{"role": "user", "content": f"{a} + {b}"}], "answer": str(a + b)} for a, b in sums]
    recorder = _Recorder(url, arm)
    tokenizer = _tokenizer()
    settings = GRPOConfig(
        output_dir=str(folder / f"{arm}-{seed}"),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        num_generations=GROUP,
        max_completion_length=REPLY_WORDS,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        scale_rewards="none" if arm == "signal" else "group",  # the chain has normalized already
        beta=0.0,
        seed=seed,
        use_cpu=True,
        bf16=False,
        logging_steps=steps,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=_policy(tokenizer, seed), processing_class=tokenizer, reward_funcs=recorder, args=settings,
        train_dataset=Dataset.from_list(rows),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # stdout is for the result
    trainer.train()
    return recorder.shares


class _Recorder:
    """The reward function of one arm, and the share of right answers in each of its calls."""

    def __init__(self, url: str, arm: str) -> None:
        raw = {"mix": {"reward": 1.0}}
        self.ask = RewardFunction(url, signal="sums" if arm == "signal" else raw)
        self.right = load_verifier("number")
        self.shares: list[float] = []
        self.__name__ = "rmkit_reward"

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        from dataclasses import replace

        import rmkit

        items = [
            replace(rmkit.candidates(prompt, [completion]), reference=answer)
            for prompt, completion, answer in zip(prompts, completions, columns["answer"], strict=True)
        ]
        self.shares.append(statistics.fmean(row[0].value for row in self.right.score(items)))
        return self.ask(prompts, completions, **columns)


def _tokenizer() -> Any:
    from evaluation.benchmarks.policy import synthetic_task

    return synthetic_task.word_tokenizer((*map(str, range(2 * LARGEST - 1)), "+", *_WORDS))


def _policy(tokenizer: Any, seed: int) -> Any:
    from evaluation.benchmarks.policy import synthetic_task

    return synthetic_task.policy(tokenizer, seed=seed)


def _text(result: Result) -> str:
    lines = [
        f"seed {pair.seed}: right answers {pair.first:.3f} at first, {pair.signal:.3f} with the signal, "
        f"{pair.control:.3f} with the raw model"
        for pair in result.pairs
    ]
    low, high = result.interval
    return "\n".join([*lines, f"gain {result.gain:+.3f} (95% interval {low:+.3f} to {high:+.3f})"])
