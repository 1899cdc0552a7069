"""`rmkit score`: any reward model over any number of prompts with responses, into a file that survives interruption."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rmkit.cli import arguments, display
from rmkit.data.reasons import reason_lines
from rmkit.errors import ModelError
from rmkit.models import load_model
from rmkit.models.scoring import WINDOW
from rmkit.models.wrappers.calibrated import CalibratedModel
from rmkit.scoring.rows import ScoreRow, Source, open_source
from rmkit.scoring.score_file import ScoreFile, Tally, finished, line_of, open_scores
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
        ],
    )
    parser.add_model()
    parser.add_data("data", metavar="FILE", help="JSON lines, Parquet, an export folder or NAME@VERSION")
    parser.add_output("file of scores, JSON lines", required=True)
    parser.add_split()
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of the network's products (default fp32)")
    parser.add_argument("--max-batch-tokens", type=int, help="token budget of one forward pass (default 8192)")
    parser.add_device()
    parser.add_argument("--dropout", type=float, metavar="RATE", help="mean and std over passes with MC dropout")
    parser.add_argument("--passes", type=int, default=10, help="passes of MC dropout")
    parser.add_argument("--dropout-in", choices=("head", "model"), default="head", help="what is thinned out")
    parser.add_argument("--window", type=arguments.positive, default=WINDOW, help="items batched and stored together")
    parser.add_argument("--fresh", action="store_true", help="throw away what an earlier run left")
    options = parser.parse_args(argv)
    source = open_source(options.data, split=options.split)
    model = _model(options)
    header = _header(model, source, options, command=arguments.command_line("score", argv))
    done = score_to(model, source, options.output, header=header, window=options.window, fresh=options.fresh)
    result = _result(done, header, options.output)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def _model(options: Any) -> RewardModel:
    named = {"precision": options.precision, "max_batch_tokens": options.max_batch_tokens, "device": options.device}
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
        },
    }


def score_to(
    model: RewardModel, source: Source, path: Path, *, header: Mapping[str, Any], window: int, fresh: bool = False
) -> ScoreRun:
    """Score what the file at `path` does not hold yet, and complete it.

    Raises UsageError where it was begun with another model, data or options, BusyError where another process writes it.
    """
    start = time.perf_counter()
    if (before := finished(path, header, fresh=fresh)) is not None:
        return ScoreRun(before, before.items, 0.0)
    with open_scores(path, header, window=window, fresh=fresh) as file:
        with display.progress(f"scoring with {model.info.name}", source.total) as advance:
            advance(file.resumed)
            for requests in _windows(islice(source.rows(), file.resumed, None), window):
                _score_window(model, requests, file)
                advance(len(requests))
        file.finish()
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
