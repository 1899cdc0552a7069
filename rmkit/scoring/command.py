"""`rmkit score`: any reward model over any number of prompts with responses, into a file that survives interruption."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rmkit import devices
from rmkit.cli import arguments, display
from rmkit.data.reasons import reason_lines
from rmkit.errors import ModelError, RmkitError, UsageError
from rmkit.models import load_model
from rmkit.models.scoring import WINDOW
from rmkit.models.wrappers.calibrated import CalibratedModel
from rmkit.scoring.rows import ScoreRow, Source, open_source
from rmkit.scoring.score_file import RUN, ScoreFile, Tally, beside, finished, line_of, open_scores
from rmkit.scoring.shards import Shard, merge, parts, shard
from rmkit.storage.places import staged_root
from rmkit.types import RewardModel


@dataclass(frozen=True, slots=True)
class ScoreRun:
    """What a run did: counts over the whole file, items found in it before, seconds now."""

    tally: Tally
    resumed: int
    seconds: float


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "score",
        "Score prompts with their responses. Interrupted, the same command goes on where it stopped.",
        examples=[
            "score models/hh-explicit answers.jsonl -o scores.jsonl",
            "score hh@prod hh@v2 --split test -o scores.jsonl",
            "score models/hh-explicit answers.parquet -o scores.jsonl --precision bf16 --max-batch-tokens 65536",
            "score models/hh-explicit answers.jsonl -o scores.jsonl --dropout 0.1    # with a std by MC dropout",
            "score models/hh-explicit answers.jsonl -o scores.jsonl --devices auto   # a process on each GPU",
            "score models/hh-explicit answers.jsonl -o scores.jsonl --shard 0/8      # on one of eight machines",
            "score --merge scores.jsonl                                              # when all eight are there",
        ],
    )
    parser.add_model(nargs="?")
    parser.add_data("data", metavar="FILE", nargs="?", help="JSON lines, Parquet, an export folder or NAME@VERSION")
    parser.add_output("file of scores, JSON lines")
    parser.add_split()
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of the network's products (default fp32)")
    parser.add_argument("--max-batch-tokens", type=int, help="token budget of one forward pass (default 8192)")
    parser.add_device()
    spread = parser.add_mutually_exclusive_group()
    spread.add_argument("--devices", metavar="auto|0,1", help="a process on each of these GPUs (auto: all)")
    spread.add_argument(
        "--shard", type=shard, metavar="I/N", help="score this share, from 0/N to N-1/N; -o names the file of all"
    )
    spread.add_argument(
        "--merge", type=arguments.local_path, metavar="OUT", help="put the shares of OUT that lie beside it together"
    )
    parser.add_argument("--dropout", type=float, metavar="RATE", help="mean and std over passes with MC dropout")
    parser.add_argument("--passes", type=int, default=10, help="passes of MC dropout")
    parser.add_argument("--dropout-in", choices=("head", "model"), default="head", help="what is thinned out")
    parser.add_argument("--window", type=arguments.positive, default=WINDOW, help="items batched and stored together")
    parser.add_argument("--fresh", action="store_true", help="throw away what an earlier run left")
    options = parser.parse_args(argv)
    if options.merge is not None:
        header = merge(options.merge)
        return _shown(ScoreRun(header["counts"], 0, 0.0), header, options.merge, as_json=options.json)
    if options.model is None or options.data is None or options.output is None:
        raise UsageError("rmkit score takes MODEL FILE -o OUT, or --merge OUT; see rmkit score --help")
    if options.shard is not None and options.output.is_relative_to(staged_root()):
        raise UsageError("shares are written to this machine; name a file of it with -o, and send what --merge makes")
    if options.devices:
        environments = devices.assigned(options.devices)
        if len(environments) > 1:
            start = time.perf_counter()
            header = _on_devices(argv, options, environments)
            done = ScoreRun(header["counts"], 0, time.perf_counter() - start)
            return _shown(done, header, options.output, as_json=options.json)
        os.environ.update(environments[0])
    source = open_source(options.data, split=options.split)
    model = _model(options)
    header = _header(model, source, options, command=arguments.command_line("score", argv))
    path = options.output if options.shard is None else options.shard.path(options.output)
    done = score_to(model, source, path, header=header, window=options.window, fresh=options.fresh, share=options.shard)
    return _shown(done, header, path, as_json=options.json)


def _shown(done: ScoreRun, header: Mapping[str, Any], path: Path, *, as_json: bool) -> int:
    result = _result(done, header, path)
    display.emit(result, as_json=as_json, text=_text(result))
    return 0


def _on_devices(argv: Sequence[str], options: Any, environments: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A process a device, each with its share; then the file of all. Raises RmkitError with what the first that failed
    said; the others end first, and the same command goes on."""
    n = len(environments)
    rest = [*argv]
    if "--devices" in rest:
        at = rest.index("--devices")
        rest[at : at + 2] = [f"--devices={options.devices}"]
    rest.remove(f"--devices={options.devices}")
    faults = []
    with ExitStack() as stack, display.progress(f"scoring on {n} devices", n) as advance:
        processes = []
        for number, environment in enumerate(environments):
            output = stack.enter_context(tempfile.TemporaryFile("w+"))
            command = [sys.executable, "-m", "rmkit", "score", *rest, "--shard", f"{number}/{n}"]
            process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
            processes.append((process, output, environment))
        for process, output, environment in processes:
            if process.wait():
                output.seek(0)
                faults.append(f"on {devices.named(environment)}: {output.read().strip()[-500:]}")
            advance(1)
    if faults:
        raise RmkitError(faults[0])
    header = merge(options.output)
    for path in parts(options.output):
        path.unlink()
        beside(path, RUN).unlink()
    return header


def _model(options: Any) -> RewardModel:
    named = {"precision": options.precision, "max_batch_tokens": options.max_batch_tokens}
    model = load_model(options.model, **{key: value for key, value in named.items() if value is not None})
    if options.precision == "bf16" and model.info.pointwise:
        from rmkit.serve.parity_check import exactness

        print(f"{model.info.name} in bf16: {exactness(model)}", file=sys.stderr)
    if options.dropout is None:
        return model
    from rmkit.models.wrappers.dropout import with_dropout

    return with_dropout(model, rate=options.dropout, passes=options.passes, where=options.dropout_in)


def _header(model: RewardModel, source: Source, options: Any, *, command: str) -> dict[str, object]:
    """What the numbers are numbers of; `made_from` is what an interrupted run must share to be continued."""
    info = model.info
    return {
        "format": 1,
        "command": command,
        "model": info.name,
        "kind": info.kind,
        "scale": info.scale,
        "data": source.name,
        "made_from": {
            "fingerprint": info.fingerprint,
            "calibration": model.calibration.digest if isinstance(model, CalibratedModel) else None,
            "data_digest": source.digest,
            "precision": options.precision or "fp32",
            "max_batch_tokens": options.max_batch_tokens,
            "window": options.window,
            "dropout": options.dropout and [options.dropout_in, options.dropout, options.passes],
            **({} if options.shard is None else {"shard": [options.shard.index, options.shard.count]}),
        },
    }


def score_to(
    model: RewardModel,
    source: Source,
    path: Path,
    *,
    header: Mapping[str, Any],
    window: int,
    fresh: bool = False,
    share: Shard | None = None,
) -> ScoreRun:
    """Score what the file at `path` does not hold yet, and complete it; of a share its own windows alone.

    Raises UsageError where it was begun with another model, data or options, BusyError where another process writes it.
    """
    start = time.perf_counter()
    if (before := finished(path, header, fresh=fresh)) is not None:
        return ScoreRun(before, before.items, 0.0)
    index, count = (0, 1) if share is None else (share.index, share.count)
    n_items = 0
    with open_scores(path, header, window=window, fresh=fresh) as file:
        total = None if source.total is None else -(-source.total // count)
        with display.progress(f"scoring with {model.info.name}", total) as advance:
            advance(file.resumed)
            for number, requests in enumerate(_windows(source.rows(), window)):
                n_items += len(requests)
                turn, whose = divmod(number, count)
                if whose == index and turn * window >= file.resumed:
                    _score_window(model, requests, file)
                    advance(len(requests))
        file.finish(**({} if share is None else {"data_items": n_items}))
        return ScoreRun(file.tally, file.resumed, time.perf_counter() - start)


def _windows(rows: Iterable[ScoreRow], window: int) -> Iterator[list[ScoreRow]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, window)):
        yield chunk


def _score_window(model: RewardModel, requests: list[ScoreRow], file: ScoreFile) -> None:
    batch = [one.candidates for one in requests if one.candidates is not None]
    scores = model.score(batch) if batch else []
    if [len(row) for row in scores] != [len(item.completions) for item in batch]:
        raise ModelError(f"model {model.info.name} broke the protocol: one score per response was asked for")
    remaining = iter(scores)
    file.append([line_of(one.id, [] if one.candidates is None else next(remaining), one.fault) for one in requests])


def _result(done: ScoreRun, header: Mapping[str, Any], path: Path) -> dict[str, object]:
    tally = done.tally
    return {
        "path": str(path),
        "model": header["model"],
        "fingerprint": header["made_from"]["fingerprint"],
        "scale": header["scale"],
        "items": tally.items,
        "responses": tally.responses,
        "scored": tally.scored,
        "unscored": dict(tally.unscored),
        "resumed": done.resumed,
        "seconds": round(done.seconds, 2),
    }


def _text(result: Mapping[str, Any]) -> str:
    shown = {
        "scores": result["path"],
        "model": f"{result['model']} ({result['fingerprint'][:12]}), scale {result['scale']}",
        "scored": f"{result['scored']} of {result['responses']} responses in {result['items']} items",
        "from before": f"{result['resumed']} items" if result["resumed"] else None,
        "took": f"{result['seconds']:.1f} s",
    }
    return "\n".join([display.fields(shown), *(f"unscored: {line}" for line in reason_lines(result["unscored"]))])
