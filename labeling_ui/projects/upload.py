"""A file that a lead uploads: looked at as `rmkit ingest --dry-run` does, then stored as a dataset version.

It lies in `$RMKIT_HOME/uploads` under the SHA-256 of its bytes: the same file uploaded again is the same file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from data_pipelines.ingest import preview
from data_pipelines.ingest import report as reports
from data_pipelines.ingest.command import Origin, load, slug
from data_pipelines.ingest.inputs import Opened, open_inputs
from data_pipelines.ingest.preview import DryRun
from data_pipelines.ingest.reading import Reading
from data_pipelines.sources.reading.containers import members
from data_pipelines.sources.reading.lines import open_member
from data_pipelines.sources.reading.streams import Parsed
from data_pipelines.sources.reading.unpacked import check_unpacked
from labeling_ui.projects.people import Person
from rmkit import paths
from rmkit.atomic import draft_file
from rmkit.errors import DataError, RmkitError, UsageError
from warehouse.write.load import LoadReport

MAX_MB = 50
MAX_UNPACKED_MB = 1024
SUFFIXES = (
    "csv",
    "tsv",
    "txt",
    "json",
    "jsonl",
    "ndjson",
    "parquet",
    "arrow",
    "feather",
    "xlsx",
    "gz",
    "zst",
    "bz2",
    "xz",
)
_ROWS, _CHARACTERS = 50, 60  # read for the names and a sample of the columns


@dataclass(frozen=True, slots=True)
class Look:
    """What a file would be read as: either `result`, or `problem`, which says what must be said first.

    `columns` maps each column to a sample of it; there are none where the bytes themselves cannot be read.
    """

    result: DryRun | None
    problem: str | None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def doubts(self) -> tuple[str, ...]:
        return tuple(self.result.doubts) if self.result else ()


def keep_upload(lead: Person, name: str, content: bytes) -> Path:
    """Where the file lies now.

    Raises ForbiddenError for an annotator, UsageError for a file too large or empty, DataError for one that unpacks to
    more than MAX_UNPACKED_MB.
    """
    lead.require("lead", "upload data")
    if not content:
        raise UsageError(f"{name} is empty")
    if len(content) > MAX_MB << 20:
        raise UsageError(f"{name} has {len(content) >> 20} MB, over the limit of {MAX_MB}; read it with: rmkit ingest")
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name.replace("\\", "/")).name).strip(".-") or "upload"
    target = paths.home() / "uploads" / hashlib.sha256(content).hexdigest()[:16] / plain[-100:]
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft_file(target) as draft:
            draft.write_bytes(content)
            check_unpacked(draft, max_bytes=MAX_UNPACKED_MB << 20, name=plain)
    return target


def look(path: Path, reading: Reading) -> Look:
    """What the first rows would become; nothing is stored."""
    try:
        columns = _columns(path, reading)
    except RmkitError as error:
        return Look(None, str(error))
    try:
        opened = _opened(path, reading)
        return Look(preview.dry_run(opened, reports.explanation(opened), rater=reading.rater), None, columns)
    except RmkitError as error:
        return Look(None, str(error), columns)


def store_upload(
    lead: Person, path: Path, reading: Reading, *, dataset: str | None = None, in_spite: bool = False
) -> LoadReport:
    """The file as a version of `dataset` (default: its name). The same file read in the same way changes nothing.

    Raises DataError where something speaks against it, unless `in_spite`, and where no row is usable.
    """
    lead.require("lead", "store data")
    opened = _opened(path, reading)
    if not in_spite and (doubts := preview.doubts(opened, rater=reading.rater)):
        raise DataError(f"{path.name}: {'; '.join(doubts)}")
    return load(opened, reading, Origin(), dataset=dataset or slug(path.name), author=lead.name)[0]


def _opened(path: Path, reading: Reading) -> Opened:
    """The file under its own name: where it lies on the server is nobody's business."""
    return replace(open_inputs(path, reading), path=path.name)


def _columns(path: Path, reading: Reading) -> dict[str, str]:
    member = members(path, member=reading.member)[0]
    rows = [
        item.value
        for item in islice(open_member(member, path, reading.layout).items, _ROWS)
        if isinstance(item, Parsed)
    ]
    samples: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            if not samples.get(name):
                samples[name] = " ".join(str("" if value is None else value).split())[:_CHARACTERS]
    return samples
