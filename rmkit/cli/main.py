"""The front door. Commands are named as strings and imported only when called, so `rmkit --help` stays instant."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence

from rmkit import __version__, atomic, paths
from rmkit.cli.display import log_to_stderr, printable
from rmkit.cli.verbs import Command, find, listing
from rmkit.devices import DEVICE
from rmkit.errors import RmkitError, UsageError, machine_fault, missing_extra, one_line
from rmkit.plugins import ROOT
from rmkit.storage.places import at_addresses
from rmkit.storage.staged import publishing

SWEPT_LEVELS = 4  # $RMKIT_HOME/runs/eval/KEY is the deepest place with drafts


COMMANDS: dict[str, dict[str, Command]] = {
    "start": {
        "quickstart": Command("rmkit.cli.quickstart:main", "from a preference dump to a reward model and a report"),
        "doctor": Command("rmkit.cli.doctor:main", "what is installed, what is missing, how to get it"),
        "completion": Command("rmkit.cli.completion:main", "a script that completes commands in bash or zsh"),
        "sample": Command("data_pipelines.sample:main", "write the built-in sample data, whose truth is known"),
    },
    "data": {
        "ingest": Command("data_pipelines.ingest.command:main", "bring a file or a hub dataset into the warehouse"),
        "run": Command("data_pipelines.recipes.recipe:main", "run a recipe of cleaning steps, making a new version"),
        "convert": Command(
            "data_pipelines.converters.command:main", "units of another kind: pairs from edits, demonstrations"
        ),
        "loop": Command("data_pipelines.loops.command:main", "sample, score, select, train, again: self-improvement"),
        "memory": Command("rmkit.memory.command:main", "what was learned in words: preferences, cases, lessons"),
        "noise": Command("data_pipelines.noise:main", "turn an exact share of labels around, remembering which"),
        "step-agreement": Command(
            "data_pipelines.step_agreement:main", "do people, rollouts and critiques label the same steps alike"
        ),
        "sync": Command("warehouse.events.sync:main", "merge the ledger's events into the warehouse"),
        "erase": Command("warehouse.safety.erase:main", "erase a row's text for good; digests stay provable"),
    },
    "versions": {
        "datasets": Command("warehouse.versions.commands:datasets", "datasets with their versions, branches and tags"),
        "diff": Command("warehouse.versions.commands:diff", "rows added, removed and changed between two versions"),
        "coverage": Command("evaluation.coverage.command:main", "a map of what the prompts are about"),
        "tag": Command("warehouse.versions.commands:tag", "name a version"),
        "branch": Command("warehouse.versions.commands:branch", "start or list branches"),
        "merge": Command("warehouse.versions.commands:merge", "merge one branch or version into another"),
        "export": Command("warehouse.out.export:main", "write a version as Parquet with manifest and card"),
        "drops": Command("warehouse.lineage.drops:main", "which rows the making of a version dropped, and why"),
        "provenance": Command("warehouse.lineage.provenance_command:main", "sources: consent, dates, removal"),
        "why": Command("warehouse.lineage.why:main", "everything known about one row"),
        "backup": Command("warehouse.safety.backup:main", "consistent copy of ledger and warehouse, while in use"),
        "restore": Command("warehouse.safety.restore:main", "bring a backup back, verified"),
    },
    "serving": {
        "serve": Command("rmkit.serve.command:main", "reward models over HTTP, for every policy trainer"),
        "prompts": Command("rmkit.curriculum.command:main", "the prompt book: pass rates, what to train on next"),
        "drift": Command("evaluation.drift.command:main", "served scores against a reference set, strangest to people"),
        "token": Command("rmkit.serve.auth.command:main", "who may use a service: make, list, revoke tokens"),
    },
    "people": {
        "label": Command("labeling_ui.command:main", "the labeling studio: projects, people, pages, labels"),
        "queue": Command(
            "labeling_ui.learning.simulate:main", "what each way of choosing the next item would have learned"
        ),
    },
    "models": {
        "adopt": Command(
            "rmkit.models.adopted.command:main", "a reward model of the Hub, or of another trainer's folder"
        ),
        "train": Command("rmkit.training.command:main", "train a reward model on a dataset version"),
        "search": Command("rmkit.search.command:main", "answers by best-of-N, votes, beams and tree search"),
        "score": Command("rmkit.scoring.command:main", "score prompts with their responses, resumable"),
        "verify": Command("rmkit.scoring.verify:main", "is a model still the one that was saved"),
        "calibrate": Command("rmkit.scoring.calibrate:main", "probabilities for a model's margins, on held-out pairs"),
        "normalize": Command("rmkit.scoring.calibrate:normalize_main", "a common scale for a model's scores"),
        "models": Command("evaluation.registry.command:main", "list, promote behind a gate, roll back, model card"),
        "push": Command(
            "evaluation.registry.push:main", "a model or a dataset version to the Hugging Face Hub, private"
        ),
        "judge": Command("rmkit.judge.command:main", "judge a dataset version with a language model, within a budget"),
        "judge-data": Command(
            "data_pipelines.judge.data.command:main", "training data for a judge, every drop with a reason"
        ),
        "rubrics": Command("rubrics.command:main", "write rubrics that explain preferences; run hard rules as code"),
        "eval": Command(
            "evaluation.suites.command:main", "models on a dataset or a benchmark: intervals, calibration, length"
        ),
        "suites": Command("evaluation.suites.listing:main", "benchmarks: what each is, its rule, where its data lies"),
        "compare": Command(
            "evaluation.suites.compare_command:main", "models on the same benchmark items, tests corrected"
        ),
        "probe": Command("evaluation.probes.command:main", "does a model fall for flattery, repetition, cut text"),
        "leaderboard": Command("evaluation.registry.leaderboard:main", "every finished benchmark result, best first"),
        "report": Command("evaluation.reports.run:main", "one self-contained HTML page about a run of the chain"),
        "denoise": Command("evaluation.denoise.command:main", "which denoising helps on your data; suspicious labels"),
        "bench": Command("evaluation.benchmarks:main", "the benchmarks that the documentation quotes"),
    },
}


# The extra that brings most of what a command needs; `data` for the others.
EXTRAS = {
    "bench": "dev",
    "denoise": "train",
    "drift": "report",
    "judge": "judge",
    "judge-data": "judge",
    "label": "ui",
    "loop": "train",
}
EXTRAS |= {"push": "train", "report": "report", "rubrics": "judge", "serve": "serve", "train": "train"}


def commands() -> dict[str, Command]:
    """All commands by name."""
    return {name: command for group in COMMANDS.values() for name, command in group.items()}


def call(name: str, arguments: Sequence[str]) -> int:
    """Run one command in this process, as the shell would; errors are raised, not printed.

    Raises MissingExtraError wherever in the command an import fails for want of an extra; its help says so instead.
    """
    command = find(commands(), name, what="command")
    before = os.environ.get(DEVICE)  # --device sets it for this command alone
    try:
        with publishing():
            return command.load()(list(arguments))
    except ModuleNotFoundError as error:
        if ".benchmarks" in (error.name or ""):
            raise UsageError(f"rmkit {name} runs in a checkout: the wheel has no benchmarks") from None
        missing = missing_extra(error, prefer=EXTRAS.get(name, "data"))
        if missing is None:
            raise
        if not {"-h", "--help"} & set(arguments):
            raise missing from error
        print(f"rmkit {name}: {command.summary}\n\nIts options cannot be listed yet: {missing}")
        return 0
    finally:
        if before is None:
            os.environ.pop(DEVICE, None)
        else:
            os.environ[DEVICE] = before


def usage() -> str:
    """The text of `rmkit --help`."""
    lines = [
        f"rmkit {__version__}: from human, model and verifier feedback to trustworthy reward models",
        "",
        "usage: rmkit [--debug] COMMAND ...        rmkit COMMAND --help shows options and examples",
    ]
    for group, members in COMMANDS.items():
        lines += ["", f"{group}:", *listing(members)]
    return "\n".join([*lines, "", "Data lives under $RMKIT_HOME (default ./.rmkit). A first try: rmkit quickstart"])


def _printed(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return _reader_left()
    return 0


def _reader_left() -> int:
    """The reader of our output (head, less) went away: no error, and nothing to say about it at the exit either."""
    sys.stderr.close()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0 done, 1 the command's own negative answer, 2 an error (one line on stderr), 130 interrupted."""
    if argv is None:
        _own_rooms_first()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _printed(usage())
    if arguments[0] == "--version":
        return _printed(__version__)
    atomic.sweep(paths.home(), depth=SWEPT_LEVELS)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # lone surrogates of other people's texts
    log_to_stderr(logging.DEBUG if debug else logging.WARNING)
    try:
        return call(arguments[0], arguments[1:])
    except RmkitError as error:
        if debug:
            raise
        print(printable(f"rmkit: {at_addresses(one_line(str(error)))}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rmkit: interrupted; finished parts are kept, run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:  # a full disk, say: the machine's fault, so the traceback helps nobody
        if debug or (fault := machine_fault(error)) is None:
            raise
        print(printable(f"rmkit: {at_addresses(one_line(fault))}"), file=sys.stderr)
        return 2


def _own_rooms_first() -> None:
    """Whatever the user's folder is called, in this process and in those that it starts.

    `python -m` and torchrun put the folder in which they were called first, and `evaluation`, `warehouse` and `rubrics`
    are names that anyone may use.
    """
    root = str(ROOT)
    sys.path.insert(0, root)
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *others])
