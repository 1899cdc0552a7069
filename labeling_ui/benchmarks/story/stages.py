"""The stages of the story. Each runs commands as a user would type them and gives what its part of the page shows.

A stage that was killed is run again from its beginning, so each may be repeated at any point: what a command has done
already, it does not do twice. What a stage gives is JSON; it may read what earlier ones gave.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.benchmarks.policy.sums_task import HEDGES
from labeling_ui.benchmarks.process import Server
from labeling_ui.benchmarks.story import task
from labeling_ui.client import StudioClient
from rmkit.errors import RmkitError

ITEMS, STEPS, FINDINGS, HACKED_FROM = 2000, 32, 240, 16
SUITE = ("--suite", "annotators")
MAP = {
    "prompt": "task_given",
    "response_a": "left_reply",
    "response_b": "right_reply",
    "preference": "which_won",
    "rater": "who_said",
    "time": "said_at",
}
SIGNAL = """mix = {reward = 1.0, right = 0.0}   # the policy learns from the model alone; the verifier only watches
chain = ["z_score"]

[verifiers.right]
use = "number"

[columns]
reference = "answer"
"""
SPLIT = """[recipe]
name = "halves"

[[step]]
use = "split"
train = 0.5
validation = 0.2
test = 0.3
"""
EXPLICIT = ("max_length=64", "learning_rate=1e-3", "num_train_epochs=10")
ANNOTATORS = ("anna", "ben")
Facts = dict[str, Any]


class Story:
    """One story in a folder: its data home, its files, and what earlier stages gave (`facts`)."""

    def __init__(self, folder: Path, facts: Mapping[str, Facts]) -> None:
        self.folder, self.facts = folder.resolve(), dict(facts)
        self.home = self.folder / "home"
        self.commands: list[str] = []

    def rmkit(self, *arguments: str, status: tuple[int, ...] = (0,)) -> Facts:
        """The command's JSON. Raises RmkitError where its status is none of these."""
        self.commands.append(" ".join(["rmkit", *(f"'{one}'" if " " in one else one for one in arguments)]))
        command = [sys.executable, "-m", "rmkit", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(), cwd=self.folder)
        if done.returncode not in status:
            raise RmkitError(
                f"{self.commands[-1]}: status {done.returncode}: {(done.stderr + done.stdout).strip()[-600:]}"
            )
        result: Facts = json.loads(done.stdout.strip().splitlines()[-1])
        return result | {"status": done.returncode}

    def text(self, *arguments: str, status: tuple[int, ...] = (0,)) -> str:
        """What the command prints."""
        self.commands.append(" ".join(["rmkit", *arguments]))
        command = [sys.executable, "-m", "rmkit", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(), cwd=self.folder)
        if done.returncode not in status:
            raise RmkitError(f"{self.commands[-1]}: status {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout + done.stderr

    def outside(self, *arguments: str) -> Facts:
        """The JSON of a process of `outside`: somebody else's trainer."""
        command = [sys.executable, "-m", "labeling_ui.benchmarks.story.outside", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(), cwd=self.folder)
        if done.returncode:
            raise RmkitError(f"{' '.join(arguments)}: {done.stderr.strip()[-800:]}")
        result: Facts = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    @contextlib.contextmanager
    def serving(self, model: str) -> Iterator[str]:
        """The URL of `rmkit serve` with the signal, in a process of its own."""
        arguments = ["serve", f"reward={model}", "--signal", "shop.toml", "--log-text", "--port", "0"]
        self.commands.append(" ".join(["rmkit", *arguments]))
        command = [sys.executable, "-m", "rmkit", *arguments, "--quiet", "--json"]
        environment = self._environment()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=self.folder) as process:
            try:
                document = json.loads((process.stdout or sys.stdin).readline() or "{}")
                if "url" not in document:
                    raise RmkitError("the reward service did not start")
                yield str(document["url"])
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)

    def _environment(self) -> dict[str, str]:
        own = {"RMKIT_HOME": str(self.home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return {key: value for key, value in os.environ.items() if key != "RMKIT_LEDGER"} | own


def votes(story: Story) -> Facts:
    """A file whose columns no form knows, looked at, named, read."""
    planted = task.write_votes(story.folder / "votes.csv", ITEMS, seed=1)
    refused = story.text("ingest", "votes.csv", "--dry-run", status=(2,))
    roles = ",".join(f"{role}={column}" for role, column in MAP.items())
    read = story.rmkit(
        "ingest", "votes.csv", "--name", "shop", "--license", "CC0-1.0", "--rater-kind", "human", "--map", roles
    )["files"][0]
    return {"planted": planted, "refused": refused.strip(), "read": read, "version": "shop@v1"}


def version(story: Story) -> Facts:
    """Cleaned, votes aggregated, split by prompt family."""
    return story.rmkit("run", "clean", "--data", "shop@v1")


def models(story: Story) -> Facts:
    """A policy and a reward model that others trained, one adopted, one trained here."""
    policy = story.outside("policy", "policy")
    bought = story.outside("reward", "policy", "bought")
    adopted = story.rmkit("adopt", bought["checkpoint"], "-o", "models/bought")
    trained = story.rmkit("train", "lexical", "--data", "shop@v2", "-o", "models/words")
    return {"policy": policy, "adopted": adopted, "trained": trained}


def people(story: Story) -> Facts:
    """How often each model chooses as people do, beside how often people choose alike."""
    result = story.rmkit("eval", "models/bought", "models/words", "length", *SUITE, "--data", "shop@v2")
    return {"annotators": result}


def gate(story: Story) -> Facts:
    """The adopted model goes first, the trained one takes its place, and the adopted one does not get it back."""
    pairs = story.rmkit("eval", "models/bought", "models/words", "--data", "shop@v2")
    for model in ("models/bought", "models/words"):
        _promote_once(story, model)
    refused = story.rmkit("models", "promote", "models/bought", "reward@prod", status=(1,))
    return {"pairs": pairs, "refused": refused, "history": story.rmkit("models", "history", "reward@prod")["history"]}


def grpo(story: Story) -> Facts:
    """The model in production is served with a signal, and TRL trains a policy on it."""
    (story.folder / "shop.toml").write_text(SIGNAL)
    with story.serving("reward@prod") as url:
        story.commands.append("(TRL's GRPOTrainer asks the service)")
        return story.outside("grpo", "policy", "policies/first", url, str(STEPS))


def alarm(story: Story) -> Facts:
    """The hacking alarm, and what was served late beside what was served early; the oddest replies are queued."""
    canaries = [part for word in HEDGES for part in ("--canary", word)]
    watched = story.rmkit("drift", "reward", "--watch", "--truth", "right", *canaries, status=(0, 1))
    reference = story.rmkit("drift", "reward", "--reference", "shop@v2", "--model", "reward@prod", status=(0, 1))
    queued = story.rmkit(
        "drift", "reward", "--split-step", str(HACKED_FROM), "--queue", str(FINDINGS), "--project", "mend",
        "-o", "drift.html", status=(0, 1),
    )  # fmt: skip
    return {"watched": watched, "reference": reference, "drift": queued}


def queue(story: Story) -> Facts:
    """A project of what drift found, and two accounts."""
    listed = story.rmkit("label")["projects"]
    if not any(one["name"] == "mend" for one in listed):
        story.rmkit("label", "create", "mend", "--data", "shop@v2", "--task", "edit", "--queued")
    project = next(one for one in story.rmkit("label")["projects"] if one["name"] == "mend")
    tokens = {name: story.rmkit("label", "people", "add", name)["token"] for name in ANNOTATORS}
    return {"project": project, "tokens": tokens}


def answers(story: Story) -> Facts:
    """Two people correct the replies through the studio's REST API; a right and plain one they skip."""
    story.commands.append("rmkit label serve")
    counts: dict[str, Counter[str]] = {}
    seen = []
    with _studio(story) as url:
        for name, token in story.facts["queue"]["tokens"].items():
            done = counts.setdefault(name, Counter())
            with StudioClient(url, token=token) as client:
                while items := client.next("mend"):
                    question, reply = items[0]["prompt"][-1]["content"], items[0]["responses"][0][-1]["content"]
                    right = str(task.total_of(question))
                    answer = {"verdict": "skip"} if reply == right else {"better": 0, "edit": right}
                    client.answer("mend", items[0]["id"], answer, active_ms=900, wall_ms=4000)
                    done["skipped" if "verdict" in answer else "corrected"] += 1
                    seen.append([question, reply, right])
    committed = story.rmkit("label", "commit", "mend")
    project = next(one for one in story.rmkit("label")["projects"] if one["name"] == "mend")
    return {"people": counts, "seen": seen[:8], "committed": committed, "project": project}


def retrain(story: Story) -> Facts:
    """Votes and corrections as one version, a transformer trained on it, and the gate again on both."""
    (story.folder / "halves.toml").write_text(SPLIT)
    split = story.rmkit("run", "halves.toml", "--data", story.facts["answers"]["committed"]["version"])
    data = story.rmkit("merge", split["version"], "--into", "shop")["version"]
    settings = [part for one in EXPLICIT for part in ("--set", one)]
    trained = story.rmkit(
        "train", "explicit", "--data", data, "--model", "policy", "-o", "models/sums", *settings, "--resume", "auto"
    )
    compared = {
        name: story.rmkit("eval", "models/sums", "models/words", "--data", name)
        for name in ("shop@v2", split["version"])
    }
    aligned = story.rmkit("eval", "models/sums", "models/words", *SUITE, "--data", "shop@v2")
    _promote_once(story, "models/sums")
    return {
        "split": split, "data": data, "trained": trained, "compared": compared, "annotators": aligned,
        "history": story.rmkit("models", "history", "reward@prod")["history"],
    }  # fmt: skip


def again(story: Story) -> Facts:
    """The same policy under the new model, watched by the same alarm."""
    with story.serving("reward@prod") as url:
        trained = story.outside("grpo", "policy", "policies/second", url, str(STEPS))
    canaries = [part for word in HEDGES for part in ("--canary", word)]
    watched = story.rmkit("drift", "reward", "--watch", "--truth", "right", *canaries, status=(0, 1))
    return {"grpo": trained, "watched": watched}


def lineage(story: Story) -> Facts:
    """`rmkit why`: a pair that people voted on; a correction, back to the reply it corrects, to what drift found odd
    about it, to the model that had rewarded it, and to the data that this model had learned from."""
    voted = story.rmkit("diff", "shop@v1", "shop@v2", "--rows", "1")["rows"][0]["new"]
    corrected = story.rmkit("diff", "shop@v2", story.facts["retrain"]["data"], "--rows", "1")["rows"][0]["new"]
    edit = json.loads(story.rmkit("why", corrected)["sources"][0]["meta"])
    finding = json.loads(story.rmkit("why", edit["edited_unit"])["sources"][0]["meta"])
    trained, base = story.facts["models"]["trained"], story.facts["version"]
    chain = {
        "edit": edit,
        "finding": finding,
        "rewarded_by": finding["evidence"]["fingerprint"],
        "trained": trained["fingerprint"],
        "trained_on": trained["dataset"]["digest"],
        "version": base["digest"],
    }
    rows = {"voted": voted, "corrected": corrected, "finding": edit["edited_unit"]}
    return {"chain": chain, "rows": rows, "texts": {name: story.text("why", row) for name, row in rows.items()}}


STAGES: dict[str, Callable[[Story], Facts]] = {
    one.__name__: one
    for one in (votes, version, models, people, gate, grpo, alarm, queue, answers, retrain, again, lineage)
}


def _promote_once(story: Story, model: str) -> None:
    """Where the alias's history has it, it was promoted before this stage was killed."""
    history = story.rmkit("models", "history", "reward@prod")["history"]
    if not any(str(one.get("path", "")).endswith(model) for one in history):
        story.rmkit("models", "promote", model, "reward@prod")


@contextlib.contextmanager
def _studio(story: Story) -> Iterator[str]:
    server = Server(story.home, folder=story.folder)
    server.start()
    try:
        yield server.url
    finally:
        server.kill()
