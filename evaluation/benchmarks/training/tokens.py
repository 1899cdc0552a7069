"""`rmkit bench tokens`: what encoding the rows of a training split costs, in one process and in several.

Pairs are generated: words drawn by Zipf's law, lengths log-normal (sigma 0.6) around the medians asked for, and a
byte-level BPE tokenizer trained on some of them. Each arm is a process of its own over the same export:

    memory   the rows as Python objects, as training held them before there was a store
    1, 2 ..  the token store made anew by so many processes
    again    the same store, opened as a resumed run or a second seed opens it, and its first step of rows read

`rise` is how far the resident memory of the process rose (of the workers not counted), from the imports on.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from evaluation.benchmarks.memory import peak_bytes
from evaluation.benchmarks.training.page import machine
from evaluation.benchmarks.training.run import write_tokenizer
from rmkit.cli import arguments, display

SIGMA = 0.6
WORDS = 20_000
STEP = 64  # rows of a step


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench tokens",
        "Encoding the rows of a training split: time, memory and bytes a token, in one process and in several.",
        examples=["bench tokens --n 100000", "bench tokens --n 20000 --processes 1,2,4 --repeats 3"],
    )
    parser.add_argument("--n", type=arguments.positive, default=100_000, help="pairs")
    parser.add_argument("--prompt", type=int, default=90, help="median words of a prompt")
    parser.add_argument("--reply", type=int, default=60, help="median words of a reply")
    parser.add_argument("--processes", default="1,2", metavar="A,B", help="how many encode")
    parser.add_argument("--no-memory", action="store_true", help="leave out the arm that holds all rows")
    parser.add_argument("--repeats", type=arguments.positive, default=1)
    parser.add_page()
    options = parser.parse_args(argv)
    counts = [int(count) for count in options.processes.split(",")]
    result = run(options, counts)
    if options.page:
        options.page.write_text(page(result, argv))
    display.emit(result, as_json=options.json, text=table(result))
    return 0


def run(options: Any, counts: Sequence[int]) -> dict[str, Any]:
    """Per arm the medians over repeats, and per count of processes the ratio to the first within a repeat."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place, n=options.n, prompt=options.prompt, reply=options.reply)
        memory = [] if options.no_memory else ["memory"]
        repeats = []
        for repeat in range(options.repeats):
            order = [*counts[repeat % len(counts) :], *counts[: repeat % len(counts)]]
            measured = {str(count): _alone(place, str(count)) for count in order}
            measured["again"] = _alone(place, "again")
            repeats.append(measured | {arm: _alone(place, arm) for arm in memory})
    arms = {
        arm: {key: statistics.median(one[arm][key] for one in repeats) for key in repeats[0][arm]}
        for arm in (*memory, *map(str, counts), "again")
    }
    ratios = {
        str(count): [one[str(counts[0])]["seconds"] / one[str(count)]["seconds"] for one in repeats]
        for count in counts[1:]
    }
    spec = {"n": options.n, "prompt": options.prompt, "reply": options.reply, "repeats": options.repeats}
    return {"arms": arms, "ratios": ratios, "spec": spec, "machine": machine(None)}


def prepare(place: Path, *, n: int, prompt: int, reply: int) -> None:
    """An export of n pairs and a tokenizer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rmkit.data.example import EXAMPLE_SCHEMA
    from rmkit.ids import assistant_message, user_message

    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnoprstuvw", k=draw.randint(2, 9))) for _ in range(WORDS)]
    cumulative = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(WORDS)))

    def text(median: int) -> str:
        return " ".join(
            draw.choices(words, cum_weights=cumulative, k=max(1, round(median * draw.lognormvariate(0, SIGMA))))
        )

    folder = place / "data"
    folder.mkdir()
    with pq.ParquetWriter(folder / "rows.parquet", EXAMPLE_SCHEMA, compression="zstd") as writer:
        for start in range(0, n, 16_384):
            rows = []
            for number in range(start, min(start + 16_384, n)):
                row: dict[str, Any] = dict.fromkeys(EXAMPLE_SCHEMA.names)
                row |= {"id": f"{number:032x}", "unit": f"{number:032x}", "kind": "pair", "source": "bench"}
                row |= {"split": "train", "family": number, "p": [1.0, 0.0]}
                row |= {"prompt": user_message(text(prompt))}
                row |= {"responses": [assistant_message(text(reply)), assistant_message(text(reply))]}
                rows.append(row)
            writer.write_table(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA))
    (folder / "manifest.json").write_text(json.dumps({"files": {"rows.parquet": {}}, "ref": None, "digest": None}))
    write_tokenizer(place / "model", [text(prompt) for _ in range(2000)])


def _alone(place: Path, arm: str) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as alone:
        return alone.submit(measure, str(place), arm).result()


def measure(place: str, arm: str) -> dict[str, float]:
    """Seconds, memory and sizes of one arm, in a process of its own."""
    import shutil

    from transformers import AutoTokenizer

    from rmkit.chat.encode import Chat, TruncationPolicy
    from rmkit.data.example import read_examples
    from rmkit.training.data import read_rows
    from rmkit.training.objectives.bradley_terry import BradleyTerry
    from rmkit.training.tokens.encode import stored_rows

    folder = Path(place) / "data"
    os.environ["RMKIT_HOME"] = str(Path(place) / "home")
    chat = Chat(AutoTokenizer.from_pretrained(Path(place) / "model"), TruncationPolicy(max_length=4096))
    if arm not in ("memory", "again"):
        shutil.rmtree(Path(place) / "home", ignore_errors=True)
    before, start = peak_bytes(), time.perf_counter()
    if arm == "memory":
        rows, _ = read_rows(read_examples(folder, split="train"), chat, objective=BradleyTerry())
        seconds = time.perf_counter() - start
        size, tokens = 0, sum(len(ids) for row in rows for ids in row.ids)
    else:
        workers = None if arm == "again" else int(arm)
        stored = stored_rows(folder, ("train",), chat, objective=BradleyTerry(), workers=workers)
        step = random.Random(1).sample(range(len(stored)), min(STEP, len(stored)))
        read = sum(len(stored[number].ids) for number in step)
        assert read == 2 * len(step)
        seconds = time.perf_counter() - start
        size, tokens = sum(path.stat().st_size for path in stored.folder.iterdir()), stored.tokens
    return {
        "seconds": seconds,
        "rise_mb": (peak_bytes() - before) / 2**20,
        "bytes_a_token": size / tokens,
        "tokens": tokens,
    }


def table(result: Mapping[str, Any]) -> str:
    """Markdown: one line an arm."""
    names = {"memory": "in memory, one process", "again": "the store opened again, 64 rows read"}
    lines = [
        "| | seconds | rows/s | memory rise, MB | bytes a token | x one process |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for arm, one in result["arms"].items():
        ratios = result["ratios"].get(arm)
        ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else ""
        name = names.get(arm, f"store, {arm} process{'es' if arm != '1' else ''}")
        rate = "" if arm == "again" else f"{result['spec']['n'] / one['seconds']:,.0f}"
        size = f"{one['bytes_a_token']:.2f}" if one["bytes_a_token"] else ""
        lines.append(f"| {name} | {one['seconds']:.1f} | {rate} | {one['rise_mb']:,.0f} | {size} | {ratio} |")
    tokens = next(iter(result["arms"].values()))["tokens"]
    return "\n".join(
        [*lines, "", f"{result['spec']['n']:,} pairs, {tokens:,.0f} tokens, {result['spec']['repeats']} repeats."]
    )


_ABOUT = """\
Pairs are generated (words by Zipf's law, log-normal lengths), the tokenizer is a byte-level BPE of 8,000 tokens trained
on some of them. Each line is a process of its own over the same export. The rise is how far its resident memory rose,
workers not counted; the map of a store counts only where it was read. *In memory* is what training did before it had a
store, in each of its processes and at each start; *opened again* is what a resumed run, another seed or another process
of the same node does."""


def page(result: Mapping[str, Any], argv: Sequence[str]) -> str:
    """The results page."""
    where = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    return f"""# Encoding the rows of a training split

    rmkit bench tokens {" ".join(argv)}

{table(result)}

{_ABOUT}

Measured on {where["cpu"]}, {where["cores"]} cores, no GPU; Python {where["python"]}, {versions}.
"""
