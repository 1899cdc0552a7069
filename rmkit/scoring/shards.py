"""Scores in shares: `--shard I/N` scores every N-th window of the data, and `merge` puts the shares together.

A share holds whole windows, so that what is batched together is what one run would batch, and the merged file has the
bytes of an unbroken run. Shares need nothing of each other: they may be made on other machines, each resumed alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rmkit.atomic import draft_file
from rmkit.config import read_object
from rmkit.errors import UsageError
from rmkit.scoring.score_file import RUN, Tally, beside, write_run


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` of `count`, counted from 0."""

    index: int
    count: int

    def path(self, output: Path) -> Path:
        """Where the share of a file of scores lies: scores.jsonl -> scores.0-of-8.jsonl."""
        return output.with_name(f"{output.stem}.{self.index}-of-{self.count}{output.suffix}")


def shard(text: str) -> Shard:
    """I/N, from 0/N to N-1/N. Raises UsageError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--shard takes I/N with I from 0 to N-1, such as 0/8; got {text!r}")
    return Shard(int(match[1]), int(match[2]))


def parts(output: Path) -> list[Path]:
    """The finished shares of a file of scores that lie beside its place, in order.

    Raises UsageError where there are none, of several numbers of shares, or some are missing.
    """
    pattern = re.compile(rf"{re.escape(output.stem)}\.(\d+)-of-(\d+){re.escape(output.suffix)}")
    matches = [match for path in output.parent.glob("*") if (match := pattern.fullmatch(path.name))]
    counts = {int(match[2]) for match in matches}
    if len(counts) != 1:
        what = "no shares" if not counts else f"shares of {' and of '.join(map(str, sorted(counts)))}"
        raise UsageError(f"{what} of {output.name} lie in {output.parent}; make them with rmkit score --shard I/N")
    shards = [Shard(index, min(counts)) for index in range(min(counts))]
    absent = [f"{one.index}/{one.count}" for one in shards if not one.path(output).is_file()]
    if absent:
        raise UsageError(f"shares {', '.join(absent)} of {output.name} are missing; run rmkit score --shard for each")
    return [one.path(output) for one in shards]


def merge(output: Path) -> dict[str, Any]:
    """Write `output` from its shares, with the record that one run would have left; the record.

    Raises UsageError where a share is missing, not finished, or of another model, data or options than the first.
    """
    paths = parts(output)
    runs = [read_object(beside(path, RUN), raises=UsageError, hint="make this share again") for path in paths]
    for index, (path, one) in enumerate(zip(paths, runs, strict=True)):
        if (recorded := one["made_from"].get("shard")) != [index, len(paths)]:
            raise UsageError(f"{path.name} holds share {'/'.join(map(str, recorded or ['none']))}; make it again")
        if not one.get("finished"):
            raise UsageError(f"{path.name} is not finished; run its command again")
        if differing := _differing(runs[0], one):
            raise UsageError(f"{path.name} differs from {paths[0].name} in {', '.join(differing)}; make it again")
    tally, n_lines = Tally(), Counter[Path]()
    with draft_file(output) as draft, draft.open("wb") as out:
        for path, line in _in_turn(paths, runs[0]["made_from"]["window"]):
            n_lines[path] += 1
            tally.add(json.loads(line))
            out.write(line)
        for path, one in zip(paths, runs, strict=True):
            if (n := n_lines[path]) != (expected := one["counts"]["items"]):
                raise UsageError(f"{path.name} holds {n} items, its record says {expected}; make it again")
        if tally.items != (n := runs[0]["data_items"]):
            raise UsageError(f"the shares hold {tally.items} items and their data {n}; make them again with --fresh")
    header = {key: value for key, value in runs[0].items() if key not in ("finished", "counts", "data_items")}
    header["made_from"] = {key: value for key, value in header["made_from"].items() if key != "shard"}
    write_run(output, header, tally, finished=True)
    return header | {"counts": tally}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    ours, theirs = ({**run["made_from"], "data_items": run.get("data_items")} for run in (one, other))
    return sorted(key for key in ours if key != "shard" and ours[key] != theirs.get(key))


def _in_turn(paths: Sequence[Path], window: int) -> Iterator[tuple[Path, bytes]]:
    """A window of lines of each file in turn, until all are at their end; each with its file."""
    with ExitStack() as stack:
        files = [(path, stack.enter_context(path.open("rb"))) for path in paths]
        while some := [(path, line) for path, file in files for line in islice(file, window)]:
            yield from some
