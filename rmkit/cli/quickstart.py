"""`rmkit quickstart`: the whole chain on one file, through the very commands that a user would type.

Nothing here does work of its own: every step is a command line that is printed and can be pasted into a shell.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

from rmkit import paths
from rmkit.cli import arguments, display
from rmkit.cli import main as cli
from rmkit.errors import DataError, MissingExtraError, UsageError
from rmkit.storage.places import at_addresses

MAX_ROWS = 3000
MODELS = ("lexical", "frozen")
OWN_WORK = ("--license", "Apache-2.0")

Result = dict[str, Any]


class Chain:
    """Runs commands with --json; shows each command line and its wall time on stderr unless `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.results: dict[str, Result] = {}
        self.began = time.monotonic()

    def run(self, label: str, *arguments: str) -> Result:
        """The command's JSON result, kept under the label."""
        self.note(f"$ rmkit {shlex.join(arguments)}")
        captured, start = io.StringIO(), time.monotonic()
        with contextlib.redirect_stdout(captured):
            cli.call(arguments[0], [*arguments[1:], "--json"])
        wall_s = round(time.monotonic() - start, 2)
        self.note(f"    {wall_s:.1f} s")
        self.results[label] = json.loads(captured.getvalue().strip().splitlines()[-1]) | {"wall_s": wall_s}
        return self.results[label]

    def note(self, line: str) -> None:
        if not self.quiet:
            print(at_addresses(line), file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "quickstart",
        "Ingest, clean, version, train, evaluate and report, on the built-in sample or on your own file.",
        examples=[
            "quickstart",
            "quickstart --from preferences.jsonl",
            "quickstart --from hh.jsonl.gz --max-rows 0     # all rows, not a sample by prompt family",
        ],
    )
    parser.add_argument(
        "--from", dest="source", metavar="FILE", help="your preference data, in any format ingest knows"
    )
    parser.add_argument("--max-rows", type=int, default=MAX_ROWS, help="rows to keep, 0 for all")
    parser.add_argument(
        "-o", "--report", type=arguments.output_path, help="the HTML page (default $RMKIT_HOME/reports/VERSION.html)"
    )
    options = parser.parse_args(argv)
    if options.max_rows < 0:
        raise UsageError(f"--max-rows takes 0 (all rows) or more, got {options.max_rows}")
    result = quickstart(options.source, max_rows=options.max_rows, report=options.report, quiet=options.json)
    display.emit(result, as_json=options.json, text=_summary(result))
    return 0


def quickstart(source: str | None, *, max_rows: int, report: Path | None, quiet: bool) -> Result:
    """Each command's JSON result under its label; a model that this machine cannot train has `left_out` instead.

    Raises DataError when no model could be trained.
    """
    chain = Chain(quiet=quiet)
    name = _ingest(chain, source)
    clean = chain.run("clean", "run", str(_recipe(max_rows)), "--data", name)
    models = [path for model in MODELS if (path := _train(chain, model, clean["version"]))]
    if not models:
        raise DataError(f"no model could be trained: {chain.results['train_lexical']['left_out']}")
    _report(chain, clean, [*models, "length"], report, bench=source is None)
    chain.results["wall_s"] = {"total": round(time.monotonic() - chain.began, 1)}
    return chain.results


def _ingest(chain: Chain, source: str | None) -> str:
    """The dataset's NAME@VERSION."""
    if source is not None:
        return _version(chain.run("ingest", "ingest", source))
    result = chain.run("sample", "sample", str(paths.home() / "sample"))
    chain.run("benchmark", "ingest", result["benchmark"], "--name", "sample-bench", "--benchmark", *OWN_WORK)
    return _version(chain.run("ingest", "ingest", result["data"], "--name", "sample", *OWN_WORK))


def _version(ingested: Result) -> str:
    return str(ingested["files"][0]["version"])


def _recipe(max_rows: int) -> Path:
    """The shipped recipe, with a sampling step in front where rows are limited, as a file that can be looked at."""
    text = resources.files("data_pipelines.recipes").joinpath("clean.toml").read_text()
    if max_rows:
        text = text.replace("[[step]]", f'[[step]]\nuse = "subset"\nmax_rows = {max_rows}\n\n[[step]]', 1)
    path = paths.home() / "quickstart.toml"
    path.write_text(text)
    return path


def _train(chain: Chain, kind: str, version: str) -> str | None:
    """Path of the trained model; None, with the reason told, where an extra that it needs is not installed."""
    try:
        return str(chain.run(f"train_{kind}", "train", kind, "--data", version)["path"])
    except MissingExtraError as error:
        chain.note(f"    left out: {error}")
        chain.results[f"train_{kind}"] = {"left_out": str(error)}
        return None


def _report(chain: Chain, clean: Result, models: list[str], report: Path | None, *, bench: bool) -> None:
    version = clean["version"]
    stem = paths.home() / "reports" / version.replace("@", "-")
    files = [f"{stem}.test.json"]
    chain.run("eval", "eval", *models, "--data", version, "-o", files[0])
    notes: list[str] = []
    if bench:
        files.append(f"{stem}.bench.json")
        chain.run("bench", "eval", *models, "--data", "sample-bench", "--split", "all", "-o", files[1])
        notes.append(
            "This is rmkit's own sample, whose truth is known: a rule decides each pair, one vote in five contradicts "
            "it, and duplicates, leaked benchmark prompts and broken lines were planted. The test split carries the "
            "noisy labels; the benchmark carries the truth."
        )
    if sampled := _sampled(clean):
        notes.append(sampled)
    summary = [argument for note in notes for argument in ("--note", note)]
    out = ["-o", str(report)] if report else []
    chain.run("report", "report", version, "--eval", *files, *summary, *out)


def _sampled(clean: Result) -> str | None:
    step = clean["steps"][0]
    if step["step"] != "subset" or not step["n_dropped"]:
        return None
    return (
        f"This is a sample: {step['n_kept']:,} of {step['n_in']:,} rows, drawn by prompt family. "
        "For all rows: rmkit quickstart --from FILE --max-rows 0."
    )


def _summary(answers: dict[str, Result]) -> str:
    """The ten lines that matter, and what to do next."""
    (ingest,), clean = answers["ingest"]["files"], answers["clean"]
    lost = sorted(((n, why) for step in clean["steps"] for why, n in step["reasons"].items()), reverse=True)[:3]
    facts = {step["step"]: step["facts"] for step in clean["steps"]}
    lines = [
        "",
        f"read      {ingest['rows']:,} rows: {ingest['accepted']:,} accepted, {ingest['rejected']:,} rejected",
        f"cleaned   {clean['version']}: {clean['rows_out']:,} of {clean['rows_in']:,} rows kept, digest "
        f"{clean['digest'][:12]}",
        "dropped   " + ("; ".join(f"{n:,} {why}" for n, why in lost) or "nothing"),
        _agreement(facts.get("agreement", {})),
        *_accuracies("test", answers["eval"]),
        *(_accuracies("truth", answers["bench"]) if "bench" in answers else []),
        *(f"left out  {kind}: {summary['left_out']}" for kind, summary in answers.items() if summary.get("left_out")),
        f"report    {answers['report']['report']}",
        f"time      {answers['wall_s']['total']:.0f} s",
        "",
        "next:",
        "  open the report in a browser",
        f"  rmkit why {_an_example(answers)}          # everything known about one row",
        f"  rmkit datasets {clean['version'].split('@')[0]}            # versions, then rmkit diff A B",
        "  rmkit quickstart --from YOUR_FILE   # the same on your data",
    ]
    return "\n".join(line for line in lines if line is not None)


def _agreement(facts: Result) -> str:
    if facts.get("alpha") is None:
        return "agreement undefined: no row has two votes"
    low, high = facts["interval"]
    return f"agreement Krippendorff's alpha {facts['alpha']:.2f} [{low:.2f}, {high:.2f}], {facts['units']:,} rows"


def _accuracies(what: str, result: Result) -> list[str]:
    lines = []
    for model in result["models"]:
        accuracy = model["measures"][result["headline"]]
        between = "no interval: one prompt family"
        if accuracy["low"] is not None:
            between = f"{accuracy['low']:.1f}, {accuracy['high']:.1f}"
        value = "none" if accuracy["percent"] is None else f"{accuracy['percent']:.1f}%"
        lines.append(f"{what:<9} {model['name']:<24} {value:>6} [{between}] of {accuracy['denominator']:,.6g} pairs")
    return lines


def _an_example(answers: dict[str, Result]) -> str:
    mistakes = [mistake for model in answers["eval"]["models"] for mistake in model["probes"]["mistakes"]]
    return str(mistakes[0]["item"].rpartition("/")[2][:12]) if mistakes else "ROW"
