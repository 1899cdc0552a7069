"""What happens outside of rmkit in the story, each in a process of its own as at a user's: a policy that somebody
trained, a reward model of TRL's RewardTrainer, and GRPO by TRL's GRPOTrainer on rewards from a running service.

    python -m labeling_ui.benchmarks.story.outside policy FOLDER
    python -m labeling_ui.benchmarks.story.outside reward POLICY FOLDER
    python -m labeling_ui.benchmarks.story.outside grpo POLICY FOLDER URL STEPS

The last line of stdout is JSON. GRPO writes a checkpoint every few steps and goes on from the last one.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.policy.sums_task import DIGITS, HEDGES
from evaluation.benchmarks.policy.synthetic_task import reply_of
from labeling_ui.benchmarks.story import task

GROUP, BATCH, SAVE_STEPS = 4, 64, 4
PROMPTS, HELD_OUT = 512, 300  # of GRPO; held-out ones, on which the policy is measured
CURVES = "curves.json"


def main(argv: list[str]) -> int:
    import torch

    torch.set_num_threads(1)
    what, *rest = argv
    processes: dict[str, Callable[..., dict[str, Any]]] = {"policy": policy, "reward": reward, "grpo": grpo}
    print(json.dumps(processes[what](*rest)))
    return 0


def policy(folder: str) -> dict[str, Any]:
    """A policy that half knows its sums; its share of right answers."""
    words = task.tokenizer()
    model = task.read_policy(words, seed=0)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return _measured(model, words)


def reward(base: str, folder: str) -> dict[str, Any]:
    """A classifier by RewardTrainer on 120 pairs of somebody else, who likes a short reply."""
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    rng = random.Random(3)
    rows = []
    for _ in range(120):
        one = rng.randrange(DIGITS), rng.randrange(DIGITS)
        short, long = (task.reply(one, right=rng.random() < 0.6, hedges=hedges, rng=rng) for hedges in (0, 2))
        messages = [[{"role": "assistant", "content": text}] for text in (short, long)]
        question = [{"role": "user", "content": task.prompt(one, rng)}]
        rows.append({"prompt": question, "chosen": messages[0], "rejected": messages[1]})
    trainer = RewardTrainer(
        model=base,
        train_dataset=Dataset.from_list(rows),
        args=RewardConfig(
            output_dir=folder, max_steps=30, per_device_train_batch_size=16, learning_rate=1e-3, max_length=64, seed=0,
            use_cpu=True, bf16=False, save_steps=30, report_to="none", disable_tqdm=True,
        ),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # stdout is for the result
    trainer.train()
    return {"checkpoint": str(Path(folder) / "checkpoint-30")}


def grpo(base: str, folder: str, url: str, steps: str) -> dict[str, Any]:
    """Train on the service's rewards: right answers before and after, and what each step's replies were like."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.trainer_callback import PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from rmkit.serve.clients.alarm import WatchedRewards
    from rmkit.serve.clients.trl import RewardFunction

    model: Any = AutoModelForCausalLM.from_pretrained(base)
    words: Any = AutoTokenizer.from_pretrained(base)
    before = _measured(model, words)
    rng = random.Random(11)
    questions = [task.prompt((rng.randrange(DIGITS), rng.randrange(DIGITS)), rng) for _ in range(PROMPTS)]
    rows = [
        {"prompt": [{"role": "user", "content": one}], "answer": str(task.total_of(one))}
        for one in dict.fromkeys(questions)
    ]
    watched = WatchedRewards(
        RewardFunction(url, signal="shop", policy_version=Path(folder).name), truth=["right"], canaries=HEDGES
    )
    curves = _Curves(watched, Path(folder))
    trainer = GRPOTrainer(
        model=model,
        processing_class=words,
        reward_funcs=curves,
        train_dataset=Dataset.from_list(rows),
        callbacks=[watched.callback()],
        args=GRPOConfig(
            output_dir=folder,
            max_steps=int(steps),
            per_device_train_batch_size=BATCH,
            num_generations=GROUP,
            max_completion_length=task.REPLY_WORDS,
            learning_rate=2e-3,
            lr_scheduler_type="constant",
            scale_rewards="none",  # the signal's chain has normalized already
            beta=0.0,
            seed=0,
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_steps=SAVE_STEPS,
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    last = get_last_checkpoint(folder) if Path(folder).is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(Path(folder) / "final"))
    alarm = watched.alarm
    return {
        "before": before,
        "after": _measured(model.eval(), words),
        "steps": curves.steps(),
        "resumed_at": 0 if last is None else int(last.rsplit("-", 1)[1]),
        "alarm_in_trainer": None if alarm is None else str(alarm),
    }


class _Curves:
    """The reward function that the trainer calls; what each step's replies were like is kept beside the checkpoints."""

    def __init__(self, watched: Any, folder: Path) -> None:
        self.watched, self.path = watched, folder / CURVES
        self.__name__ = "rmkit_reward"
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        rewards: list[float | None] = self.watched(prompts, completions, **columns)
        texts = [reply_of(one) for one in completions]
        answers = self.watched.function.last
        known = self.steps()
        known[str(columns["trainer_state"].global_step)] = {
            "proxy": _mean([one.raw for one in answers if one.raw is not None]),
            "right": _mean([one.components.get("right", 0.0) for one in answers]),
            "hedges": _mean([sum(word in HEDGES for word in text.split()) for text in texts]),
        }
        self.path.write_text(json.dumps(known))
        return rewards

    def steps(self) -> dict[str, dict[str, float]]:
        """By the trainer's step; a step that was trained again after a kill stands as it was the last time."""
        return json.loads(self.path.read_text()) if self.path.exists() else {}


def _measured(model: Any, words: Any) -> dict[str, Any]:
    """On held-out prompts: the share of right answers, hedging words a reply, and the first replies."""
    rng = random.Random(99)
    questions = [task.prompt((rng.randrange(DIGITS), rng.randrange(DIGITS)), rng) for _ in range(HELD_OUT)]
    texts = task.replies(model, words, questions, seed=7)
    right = [task.is_right(question, text) for question, text in zip(questions, texts, strict=True)]
    hedges = [sum(word in HEDGES for word in text.split()) for text in texts]
    return {"right": _mean(right), "hedges": _mean(hedges), "replies": list(zip(questions[:4], texts[:4], strict=True))}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
