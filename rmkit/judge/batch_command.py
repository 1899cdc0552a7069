"""`rmkit judge batch`: a judge's calls through a provider's batch files, at half the price, then read as any other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.data.export_folder import export_folder
from rmkit.errors import ConfigError, UsageError
from rmkit.generate import batch_files
from rmkit.generate.batch_api import OVER, BatchApi
from rmkit.generate.batch_files import BatchFolder
from rmkit.generate.config import key_of
from rmkit.generate.endpoint import EndpointGenerator
from rmkit.generate.request import Request
from rmkit.judge.command import judged_examples, row_context
from rmkit.judge.config import read_judge, third_table
from rmkit.judge.model import Judge, load_judge
from rmkit.ledger import open_ledger

POLLED_S = 30.0


def _write(argv: list[str]) -> int:
    """Files of the calls that `rmkit judge run` would pay for now; asks nobody."""
    parser = arguments.parser(
        "judge batch write",
        "Write the calls that `rmkit judge run` would make now as files for a provider's batch API. Calls that were "
        "paid, or that wait in a batch, are left out.",
        examples=[
            "judge batch write judge.toml hh@v2 --split test -o batches/hh",
            "judge batch write judge.toml hh@v2 -o batches/all --max-usd 5",
        ],
    )
    parser.add_argument("judge", type=Path, help="the judge's TOML file")
    parser.add_data("data")
    parser.add_split()
    parser.add_limit()
    parser.add_output("folder of the batch", required=True, type=arguments.local_path)
    parser.add_argument("--max-usd", type=float, metavar="USD", help="leave out what could cost more, at half price")
    parser.add_argument("--max-lines", type=arguments.positive, default=batch_files.MOST_LINES, help="lines of a file")
    parser.add_argument("--max-bytes", type=arguments.positive, default=batch_files.MOST_BYTES, help="bytes of a file")
    options = parser.parse_args(argv)
    if table := third_table(options.judge):
        raise UsageError(f"{options.judge} has a table [{table}], which makes it a model; batches are for judges alone")
    _, config, _ = read_judge(options.judge)
    if config.backend != "endpoint":
        raise ConfigError(f"{options.judge}: backend {config.backend} is no provider; batches need base_url")
    with open_ledger() as ledger:
        judge = load_judge(options.judge, ledger=ledger)
        try:
            assert isinstance(judge.engine.generator, EndpointGenerator)
            written = batch_files.write(
                options.output,
                _requests(judge, options),
                generator=judge.engine.generator,
                config=config,
                ledger=ledger,
                purpose=f"judge {judge.config.name} (batch)",
                max_usd=options.max_usd,
                most_lines=options.max_lines,
                most_bytes=options.max_bytes,
            )
        finally:
            judge.close()
    result = {"folder": str(options.output), **asdict(written)}
    text = display.fields(result)
    if written.lines:
        text += f"\nnext: rmkit judge batch submit {options.output}"
    display.emit(result, as_json=options.json, text=text)
    return 0


def _requests(judge: Judge, options: Any) -> Iterator[Request]:
    for example in judged_examples(export_folder(options.data), options.split, options.limit):
        for _, request in judge.requests(example.candidates, row_context(example, judge)):
            yield request


def _submit(argv: list[str]) -> int:
    """Status 0 once every file of the folder is a batch at the provider."""
    parser = _parser("submit", "Upload a folder's files and create their batches; goes on where it was interrupted.")
    parser.add_argument("--window", default="24h", help="the provider's completion window")
    options = parser.parse_args(argv)
    with batch_files.alone(options.folder), open_ledger() as ledger, _opened(options.folder) as api:
        state = batch_files.submit(options.folder, api, ledger, window=options.window)
    return _show(state, options, next_step="status")


def _status(argv: list[str]) -> int:
    """Status 1 while a batch is under way."""
    parser = _parser("status", "How far a folder's batches are.")
    parser.add_argument("--wait", action="store_true", help=f"ask every {POLLED_S:g} seconds until all are over")
    options = parser.parse_args(argv)
    with batch_files.alone(options.folder), _opened(options.folder) as api:
        state = batch_files.refresh(options.folder, api, wait_s=POLLED_S if options.wait else None)
    _show(state, options, next_step="collect")
    return int(any(file.status not in (*OVER, "collected") for file in state.files))


def _collect(argv: list[str]) -> int:
    """Status 1 where a batch is not over yet, or left requests unanswered."""
    parser = _parser(
        "collect", "Store the answers of batches that are over, where every command finds them as paid calls."
    )
    options = parser.parse_args(argv)
    with batch_files.alone(options.folder), open_ledger() as ledger, _opened(options.folder) as api:
        state = batch_files.collect(options.folder, api, ledger)
    _show(state, options, next_step="")
    return int(any(file.status != "collected" or file.left for file in state.files))


def _parser(verb: str, summary: str) -> Any:
    parser = arguments.parser(f"judge batch {verb}", summary, examples=[f"judge batch {verb} batches/hh"])
    parser.add_argument("folder", type=arguments.local_path, help="folder of the batch")
    return parser


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[BatchApi]:
    """The provider's API of a folder's generator, its key from the environment."""
    config = batch_files.read_folder(folder).generator
    api = BatchApi(config.base_url, key=key_of(config), attempts=config.attempts, timeout_s=config.timeout_s)
    try:
        yield api
    finally:
        api.close()


def _show(state: BatchFolder, options: Any, *, next_step: str) -> int:
    result = {
        "folder": str(options.folder),
        "generator": state.name,
        "answered": sum(file.answered for file in state.files),
        "usd": round(sum(file.usd for file in state.files), 6),
        "files": [asdict(file) for file in state.files],
    }
    header = ("file", "lines", "status", "batch", "answered", "not answered", "usd")
    rows = [
        [
            file.name,
            file.lines,
            file.status,
            file.batch_id,
            file.answered,
            "; ".join(f"{n}: {why}" for why, n in file.left.items()),
            f"{file.usd:.4f}",
        ]
        for file in state.files
    ]
    text = display.table(header, rows)
    if next_step:
        text += f"\nnext: rmkit judge batch {next_step} {options.folder}"
    elif any(file.left for file in state.files):
        text += "\nwhat was not answered: rmkit judge batch write adds it again, rmkit judge run asks at the full price"
    display.emit(result, as_json=options.json, text=text)
    return 0


main = Verbs(
    "judge batch",
    "A judge's calls through a provider's batch API (OpenAI's form), at half the price; each is paid once.",
    {
        "write": Command(_write, "files of the calls that are not paid yet; asks nobody"),
        "submit": Command(_submit, "upload the files, create the batches"),
        "status": Command(_status, "how far they are"),
        "collect": Command(_collect, "store the answers; then rmkit judge run finds them"),
    },
    examples=[
        "judge batch write judge.toml hh@v2 --split test -o batches/hh",
        "judge batch submit batches/hh",
        "judge batch collect batches/hh",
    ],
)
