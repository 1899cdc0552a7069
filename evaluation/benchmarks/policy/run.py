"""`rmkit bench policy`: TRL trains a policy on rewards that come from a running service, and gets what it asks for.

A lexical reward model is trained on noisy preferences of a small world (`planted_policy`) through the ordinary
commands, served by `rmkit serve` in a process of its own, with tokens; TRL's GRPO and RLOO trainers ask it over HTTP
through `RewardFunction`. The policy has never seen a preference. Each trainer runs with every seed twice: with the
reward, and with its sign reversed, which must drive the same served reward down; otherwise something else than the
reward moves it. Reported are the service's rewards of the first and the last ten steps, and what the world's people
would say: courteous minus rude words per reply.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.benchmarks.policy import page as policy_page
from evaluation.benchmarks.policy import synthetic_task as world
from rmkit.cli import arguments, display
from rmkit.errors import RmkitError
from rmkit.revision import versions
from rmkit.serve.clients.trl import RewardFunction

TRAINERS = ("grpo", "rloo")
PACKAGES = ("trl", "transformers", "torch", "scikit-learn", "fastapi", "uvicorn", "httpx")
ENDS = 10  # steps averaged at either end
GROUP, BATCH = 8, 32
_SPLIT = '[recipe]\nname = "planted"\ndescription = "split by family"\n\n[[step]]\nuse = "split"\n'


def main(argv: list[str]) -> int:
    """0 where every run went the way of its reward, 1 otherwise."""
    parser = arguments.parser(
        "bench policy",
        "Train a policy with TRL on rewards from a running service; its rewards must rise, reversed ones fall.",
        examples=["bench policy", "bench policy --steps 120 --seeds 5 --page policy.md --plot policy.png"],
    )
    parser.add_argument("--steps", type=int, default=80, help="optimizer steps of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=4000, help="preference pairs for the reward model")
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    parser.add_argument("--plot", type=arguments.output_path, help="write the curves (PNG or SVG)")
    parser.add_page()
    options = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is on a hub
    import trl  # noqa: F401 - refused at once where it is missing

    with tempfile.TemporaryDirectory(prefix="rmkit-policy-") as folder:
        result = measure(Path(folder), options.trainers, steps=options.steps, seeds=options.seeds, pairs=options.pairs)
    if options.plot:
        policy_page.plot(result["runs"], options.plot)
    if options.page:
        policy_page.write(options.page, result, argv=argv, plot=options.plot)
    display.emit(result, as_json=options.json, text=policy_page.table(result))
    return 0 if result["as_rewarded"] else 1


def measure(folder: Path, trainers: Sequence[str], *, steps: int, seeds: int, pairs: int) -> dict[str, Any]:
    """The reward model's facts and every run, in a data home of its own under `folder`."""
    model = _trained_model(folder, pairs)
    plan = [(trainer, sign, seed) for trainer in trainers for sign in (1, -1) for seed in range(seeds)]
    runs = []
    with serving(folder, model["path"]) as url, display.progress("runs", len(plan)) as advance:
        for trainer, sign, seed in plan:
            runs.append(_run(trainer, url, folder / "runs", steps=steps, sign=sign, seed=seed))
            advance(1)
    where = {"versions": versions(*PACKAGES), "python": sys.version.split()[0]}
    as_rewarded = all(run["sign"] * (run["last"] - run["first"]) > 0 for run in runs)
    return {"model": model, "steps": steps, "seeds": seeds, "runs": runs, "as_rewarded": as_rewarded, **where}


def _trained_model(folder: Path, pairs: int) -> dict[str, Any]:
    """Preferences to a reward model, through the commands that a user would type."""
    data, recipe = folder / "planted.jsonl", folder / "planted.toml"
    world.write_pairs(data, pairs, seed=7)
    recipe.write_text(_SPLIT)
    rmkit_json(folder, "ingest", str(data), "--name", "planted", "--license", "Apache-2.0")
    data_version = rmkit_json(folder, "run", str(recipe), "--data", "planted@v1")
    trained = rmkit_json(folder, "train", "lexical", "--data", data_version["version"])
    judged = rmkit_json(folder, "eval", trained["path"], "--data", data_version["version"])
    return {
        "path": trained["path"],
        "fingerprint": trained["fingerprint"],
        "digest": data_version["digest"],
        "accuracy": judged["models"][0]["measures"]["overall"],
    }


def rmkit_json(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "rmkit", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(folder), check=False)
    if done.returncode:
        raise RmkitError(f"rmkit {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1:]}")
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document


def _environment(folder: Path) -> dict[str, str]:
    home = {"RMKIT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return {key: value for key, value in os.environ.items() if key != "RMKIT_LEDGER"} | home


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """The URL, with a token as Basic password, of `rmkit serve` with these arguments in a process of its own."""
    token = rmkit_json(folder, "token", "create", "trainer")["token"]
    command = [sys.executable, "-m", "rmkit", "serve", *arguments, "--port", "0", "--quiet", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment(folder)) as process:
        try:
            document = json.loads((process.stdout or sys.stdin).readline() or "{}")
            if "url" not in document or not document["tokens"]:
                raise RmkitError("the service did not start, or asks for no token")
            yield document["url"].replace("://", f"://trainer:{token}@")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


class Recorder:
    """The reward function that the trainer calls: the service's rewards times `sign`, and what they were."""

    def __init__(self, url: str, *, sign: int) -> None:
        self.ask = RewardFunction(url)
        self.sign = sign
        self.rewards: list[float] = []
        self.liking: list[float] = []
        self.unscored = 0
        self.__name__ = "rmkit_reward"

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        inputs = self.ask(prompts, completions, **columns)
        scored = [reward for reward in inputs if reward is not None]
        self.unscored += len(inputs) - len(scored)
        self.rewards.append(statistics.fmean(scored))
        self.liking.append(statistics.fmean(world.liking(world.reply_of(completion)) for completion in completions))
        return [None if reward is None else self.sign * reward for reward in inputs]


def _run(trainer: str, url: str, folder: Path, *, steps: int, sign: int, seed: int) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback

    torch.set_num_threads(1)
    words, recorder = world.tokenizer(), Recorder(url, sign=sign)
    requests = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in world.prompts(256, seed=100 + seed)]
    kind, config = _trainer(trainer)
    settings = config(
        output_dir=str(folder / f"{trainer}-{sign}-{seed}"),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        num_generations=GROUP,
        max_completion_length=world.REPLY_WORDS,
        learning_rate=1.5e-3,
        lr_scheduler_type="constant",
        beta=0.0,
        seed=seed,
        use_cpu=True,
        bf16=False,
        logging_steps=steps,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    result = kind(
        model=world.policy(words, seed=seed),
        processing_class=words,
        reward_funcs=recorder,
        args=settings,
        train_dataset=Dataset.from_list(requests),
    )
    result.remove_callback(PrinterCallback)  # stdout is for the result
    result.train()
    return {
        "trainer": trainer,
        "sign": sign,
        "seed": seed,
        "first": statistics.fmean(recorder.rewards[:ENDS]),
        "last": statistics.fmean(recorder.rewards[-ENDS:]),
        "liking_first": statistics.fmean(recorder.liking[:ENDS]),
        "liking_last": statistics.fmean(recorder.liking[-ENDS:]),
        "unscored": recorder.unscored,
        "rewards": [round(reward, 4) for reward in recorder.rewards],
    }


def _trainer(name: str) -> tuple[Any, Any]:
    trl = importlib.import_module("trl")
    return {"grpo": (trl.GRPOTrainer, trl.GRPOConfig), "rloo": (trl.RLOOTrainer, trl.RLOOConfig)}[name]
