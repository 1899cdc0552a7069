"""`rmkit export`: a version as a folder of files, byte for byte the same every time.

Rows are sorted by example hash within each split, the writer's options are pinned, and nothing that changes between two
runs (clock, path, warehouse id) is written. The folder is built beside its place and takes it in one step, so nobody
ever sees half of one. What may leave is decided here: the targets release and research refuse licenses,
benchmark data and sources without consent (`targets`); rows of a source that was taken back go nowhere.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmkit.atomic import draft_folder, put
from rmkit.cli import arguments, display
from rmkit.config import read_object
from rmkit.data.example import EXAMPLE_SCHEMA, MANIFEST, read_manifest
from rmkit.errors import BusyError, DataError, StoreError, UsageError
from rmkit.ids import content_hash, file_sha256
from rmkit.ledger import open_ledger
from rmkit.paths import home
from rmkit.storage.places import at_addresses
from warehouse.lineage.source_facts import SourceFacts, read_facts
from warehouse.out.card import card
from warehouse.out.croissant import NAME as CROISSANT
from warehouse.out.croissant import croissant
from warehouse.out.forms import FORMS, LINES, MARKS, Form, json_lines, of_form, trl_fields
from warehouse.out.manifest import PARQUET, describe, rows_of_files, verify_export
from warehouse.out.targets import TARGETS, Target, refused_licenses
from warehouse.sql import run
from warehouse.store import open_warehouse
from warehouse.versions.digest import digest_pieces
from warehouse.versions.stream import PIECE_ROWS, pieces, stream
from warehouse.versions.versions import resolve

ROWS_PER_FILE = 262_144
NOTE_WAIT_S = 600.0  # an ingest may write for minutes; erasing must know of every export
_UNSPLIT = "rows"  # file name of rows that belong to no split
_NOTES = {
    "erased_rows": "left out: their text was erased",
    "removed_rows": "left out: their source was taken back",
    "benchmark_rows": "are benchmark data: not to be trained on",
}


def export_version(
    connection: duckdb.DuckDBPyConnection,
    version_id: int,
    folder: Path | None = None,
    *,
    form: Form = "native",
    split: str | None = None,
    target: Target = "local",
    allow_licenses: Collection[str] = (),
    allow_benchmark: bool = False,
    languages: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> Path:
    """Write a version (or one split) and give back its folder (default: under $RMKIT_HOME/exports).

    An identical export that is already there is left untouched. Reads only; `record_export` notes it in the warehouse.
    `target` says for whom it is (`warehouse.out.targets`); rows of a source that was taken back are left out for all.
    `languages` (ISO codes) and `tasks` (the Hub's task categories, else those of preference data) go into manifest and
    card.

    Raises VersionError for an unknown version, UsageError for a split without rows, DataError where the target
    may not have a license, a benchmark or a source without consent, StoreError where the folder holds something else.
    """
    with open_ledger(read_only=True) as ledger:
        facts = read_facts(ledger)
    removed = [sha256 for sha256, one in facts.items() if one.removed]
    manifest = describe(connection, version_id, form=form, split=split, removed=removed)
    if split is not None and not run(connection, "SELECT 1 FROM exported LIMIT 1") and not manifest["removed_rows"]:
        raise UsageError(f"{manifest['ref']} has no rows in split {split!r}")
    for source in manifest["sources"]:
        own = facts.get(source["sha256"], SourceFacts())
        source |= {"consent": own.consent, "collected": own.collected, "removal": own.removal}
    if target != "local":
        _check_target(connection, manifest, facts, target, allow_licenses, allow_benchmark)
    folder = folder or home() / "exports" / _default_name(manifest, split)
    manifest |= {"languages": list(languages)} if languages else {}
    manifest |= {"tasks": list(tasks)} if tasks else {}
    manifest["complete"] = split is None and not manifest["erased_rows"] and not manifest["removed_rows"]
    with draft_folder(folder) as draft:
        _write(connection, version_id, draft, manifest)
        if not _is_there(folder, draft, manifest):
            put(draft, folder, replace=True)
    return folder


def _check_target(
    connection: duckdb.DuckDBPyConnection,
    manifest: dict[str, Any],
    facts: Mapping[str, SourceFacts],
    target: Target,
    allow_licenses: Collection[str],
    allow_benchmark: bool,
) -> None:
    without = rows_of_files(connection, [sha256 for sha256, one in facts.items() if one.consent == "refused"])
    if without:
        raise DataError(
            f"{manifest['ref']} may not be released: consent was refused for the source of {without} rows; drop "
            f"them with a recipe (rmkit provenance show {manifest['ref']} names the source)"
        )
    if bad := refused_licenses(manifest["stated_licenses"], target, allow_licenses):
        listed = ", ".join(f"{name} ({n} rows)" for name, n in bad.items())
        raise DataError(
            f"{manifest['ref']} may not be released: {listed}; drop those rows with a recipe, or add "
            + " ".join(f"--allow-license {name}" for name in bad)
        )
    if manifest["benchmark_rows"] and not allow_benchmark:
        names = ", ".join(source["name"] for source in manifest["sources"] if source["is_benchmark"])
        raise DataError(
            f"{manifest['ref']} may not be released: {manifest['benchmark_rows']} rows are benchmark data ({names}), "
            "which others must not train on; drop them with a recipe, or add --allow-benchmark"
        )


def _default_name(manifest: dict[str, Any], split: str | None) -> str:
    name = re.sub(r"[^\w.-]", "-", manifest["dataset"])
    parts = [f"{name}-v{manifest['version']}-{manifest['digest'][:8]}"]
    parts += [] if manifest["form"] == "native" else [manifest["form"]]
    return "-".join([*parts, *([] if split is None else [_file_stem(split)])])


def _file_stem(split: str | None) -> str:
    if split is None:
        return _UNSPLIT
    return split if re.fullmatch(r"\w[\w.]*", split) and split != _UNSPLIT else f"split-{content_hash(split)[:8]}"


def _write(connection: duckdb.DuckDBPyConnection, version_id: int, folder: Path, manifest: dict[str, Any]) -> None:
    """The files of the rows in `exported`, a row group at a time, and what describes them."""
    form = manifest["form"]
    schema = _trl_schema(connection) if form == "trl" else EXAMPLE_SCHEMA
    left_out: Counter[str] = Counter()
    splits: dict[str | None, _Split] = {}
    [(n_rows,)] = run(connection, "SELECT count(*) FROM exported")
    with ExitStack() as stack, display.progress("writing", n_rows) as advance:

        def written() -> Iterator[pa.Table]:
            """Each piece, once it is on the way to its files."""
            for piece in stream(connection, version_id, among="exported"):
                rows, reasons = of_form(piece, form, schema)
                left_out.update(reasons)
                for split in pc.unique(rows["split"]).to_pylist():
                    if split not in splits:
                        splits[split] = stack.enter_context(closing(_Split(folder, split, form, schema)))
                    chosen = pc.is_null(rows["split"]) if split is None else pc.equal(rows["split"], split)
                    splits[split].add(rows.filter(chosen))
                yield rows
                advance(len(piece))

        manifest["rows_digest"] = digest_pieces(written())  # which takes all of them
        if not splits:  # an empty version is one empty file, not none
            splits[None] = stack.enter_context(closing(_Split(folder, None, form, schema)))
        for one in splits.values():
            one.finish()
    manifest["left_out"] = dict(sorted(left_out.items()))
    manifest["complete"] = manifest["complete"] and not left_out
    manifest["n_rows"] = sum(one.n_rows for one in splits.values())
    manifest["schema"] = {field.name: str(field.type) for field in schema}
    manifest["files"] = {
        name: {"sha256": file_sha256(folder / name), "rows": n}
        for one in splits.values()
        for name, n in one.files.items()
    }
    manifest["splits"] = {
        _file_stem(split) if split is None else split: {"rows": one.n_rows, "files": list(one.files)}
        for split, one in sorted(splits.items(), key=lambda item: (item[0] is None, item[0]))
    }
    (folder / "README.md").write_text(card(manifest), encoding="utf-8")
    (folder / CROISSANT).write_text(croissant(manifest), encoding="utf-8")
    for name in ("README.md", CROISSANT):
        manifest["files"][name] = {"sha256": file_sha256(folder / name)}
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _trl_schema(connection: duckdb.DuckDBPyConnection) -> pa.Schema:
    """TRL's columns with a place for what any message of `exported` holds, read where the warehouse keeps the texts."""
    texts = (
        "SELECT messages FROM exported JOIN unit USING (unit_id) JOIN prompt USING (prompt_id) UNION ALL "
        "SELECT messages FROM (SELECT unnest(resp_ids) AS resp_id FROM exported JOIN unit USING (unit_id)) "
        "JOIN response USING (resp_id)"
    )
    marks = ", ".join(f"coalesce(bool_or(contains(messages, '{mark}')), false)" for mark in MARKS.values())
    [held] = run(connection, f"SELECT {marks} FROM ({texts})")
    [(tools,)] = run(connection, "SELECT count(tools) > 0 FROM exported JOIN unit USING (unit_id)")
    return trl_fields([name for name, one in zip(MARKS, held, strict=True) if one], tools=tools)


class _Split:
    """The files of one split; `files` says how many rows each has."""

    def __init__(self, folder: Path, split: str | None, form: Form, schema: pa.Schema) -> None:
        self.folder, self.stem, self.form, self.schema = folder, _file_stem(split), form, schema
        self.files: dict[str, int] = {}
        self.n_rows = 0
        self._held: list[pa.RecordBatch] = []
        self._open = ExitStack()
        self._write: Callable[[pa.Table], None] | None = None

    def add(self, rows: pa.Table) -> None:
        """Take the rows, and write what fills row groups."""
        self._held += rows.to_batches()
        groups = list(pieces(self._held, PIECE_ROWS))
        self._held = groups.pop().to_batches() if groups and len(groups[-1]) < PIECE_ROWS else []
        for group in groups:
            self._put(group)

    def finish(self) -> None:
        """Write the rest; a split without rows has one empty file."""
        if self._held or not self.files:
            self._put(pa.Table.from_batches(self._held, schema=self.schema))
        self.close()

    def close(self) -> None:
        self._open.close()

    def _put(self, group: pa.Table) -> None:
        number, begun = divmod(self.n_rows, ROWS_PER_FILE)
        name = f"{self.stem}-{number:05d}.{'jsonl' if self.form in LINES else 'parquet'}"
        if self._write is None or not begun:
            self._write = self._opened(self.folder / name)
        self._write(group)
        self.n_rows += len(group)
        self.files[name] = self.files.get(name, 0) + len(group)

    def _opened(self, path: Path) -> Callable[[pa.Table], None]:
        self.close()
        if self.form in LINES:
            file = self._open.enter_context(path.open("w", encoding="utf-8", newline="\n"))
            return lambda group: file.writelines(json_lines(group, self.form))
        options = {name: value for name, value in PARQUET.items() if name != "row_group_size"}
        write: Callable[[pa.Table], None] = self._open.enter_context(
            pq.ParquetWriter(path, self.schema, **options)
        ).write
        return write


def _is_there(folder: Path, draft: Path, manifest: dict[str, Any]) -> bool:
    """Whether an identical export is there; one of the same dataset version may differ, since rows may be erased."""
    if not folder.exists():
        return False
    here = _manifest_of(folder)
    if here is None or (here.get("ref"), here.get("digest")) != (manifest["ref"], manifest["digest"]):
        raise StoreError(f"{folder} exists and is not an export of {manifest['ref']}; choose another folder with -o")
    return _identical(folder, draft)


def _manifest_of(folder: Path) -> dict[str, object] | None:
    try:
        return read_object(folder / MANIFEST, raises=DataError, hint="export again")
    except DataError:
        return None


def _identical(one: Path, other: Path) -> bool:
    names = {path.name for path in one.iterdir()}
    if names != {path.name for path in other.iterdir()}:
        return False
    return all(file_sha256(one / name) == file_sha256(other / name) for name in names)


def record_export(connection: duckdb.DuckDBPyConnection, version_id: int, folder: Path, *, form: str) -> None:
    """Note an export in the warehouse, with its manifest; the same one is noted once."""
    run(
        connection,
        f"INSERT INTO export SELECT $1, $2, $3, $4, now() WHERE NOT EXISTS ({_NOTED})",
        _note(version_id, folder, form),
    )


_NOTED = "FROM export WHERE version_id = $1 AND format = $2 AND path = $3 AND manifest = $4"


def _note(version_id: int, folder: Path, form: str) -> list[object]:
    return [version_id, form, at_addresses(str(folder.resolve())), (folder / MANIFEST).read_text(encoding="utf-8")]


def main(argv: list[str]) -> int:
    """Entry point of `rmkit export`."""
    parser = arguments.parser(
        "export",
        "Write a dataset version as files with a manifest and a dataset card; the same version gives the same bytes.",
        examples=["export hh", "export hh@v2 -o out/hh --format trl --split train", "export hh@gold --target release"],
    )
    parser.add_argument("ref", metavar="NAME@VERSION", nargs="?", help="a version, tag, branch or digest prefix")
    parser.add_output(
        "folder, or s3://BUCKET/KEY (default: $RMKIT_HOME/exports/NAME-vN-DIGEST)",
        type=arguments.repeatable_output_path,
    )
    parser.add_argument("--format", choices=FORMS, default="native", help="form of the rows")
    parser.add_argument("--split", help="only this split")
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default="local",
        help="for whom: release and research refuse licenses, benchmarks, sources without consent",
    )
    parser.add_argument("--allow-license", action="append", default=[], metavar="ID", help="let this one pass")
    parser.add_argument("--allow-benchmark", action="store_true", help="let benchmark rows pass")
    parser.add_argument("--language", action="append", default=[], metavar="CODE", help="for the card: en, de ...")
    parser.add_argument(
        "--task", action="append", default=[], metavar="CATEGORY", help="for the card: text-ranking ..."
    )
    parser.add_argument("--verify", type=Path, metavar="FOLDER", help="check files and digests of an export instead")
    options = parser.parse_args(argv)
    if (options.ref is None) == (options.verify is None):
        raise UsageError("rmkit export takes NAME@VERSION, or --verify FOLDER; see rmkit export --help")
    if options.verify is not None:
        folder, manifest = options.verify, verify_export(options.verify)
    else:
        folder = export_folder(
            options.ref,
            options.output,
            form=options.format,
            split=options.split,
            target=options.target,
            allow_licenses=options.allow_license,
            allow_benchmark=options.allow_benchmark,
            languages=options.language,
            tasks=options.task,
        )
        manifest = read_manifest(folder)
    result = _result(folder, manifest)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def export_folder(ref: str, folder: Path | None = None, *, form: Form = "native", **options: Any) -> Path:
    """The folder of an export of NAME@VERSION, written and noted in the warehouse; `options` as `export_version`."""
    with open_warehouse(read_only=True) as connection:
        version_id = resolve(connection, ref)
        folder = export_version(connection, version_id, folder, form=form, **options)
        [(is_noted,)] = run(connection, f"SELECT EXISTS ({_NOTED})", _note(version_id, folder, form))
    if not is_noted:  # an export that is there already is only read
        try:
            with open_warehouse(wait_s=NOTE_WAIT_S) as connection:
                record_export(connection, version_id, folder, form=form)
        except BusyError as error:
            raise BusyError(f"{folder} is complete but not on the warehouse's list of exports yet: {error}") from error
    return folder


def _result(folder: Path, manifest: dict[str, Any]) -> dict[str, object]:
    keys = ("ref", "digest", "rows_digest", "form", "n_rows", "erased_rows", "left_out", "benchmark_rows", "licenses")
    splits = {split: facts["rows"] for split, facts in manifest["splits"].items()}
    removed = {"removed_rows": manifest.get("removed_rows", 0)}
    return {"path": folder} | {key: manifest[key] for key in keys} | removed | {"splits": splits}


def _text(result: dict[str, Any]) -> str:
    counted = [f"{result[key]} rows {what}" for key, what in _NOTES.items() if result.get(key)]
    left_out = [f"{n} rows left out: {reason}" for reason, n in result["left_out"].items()]
    lines = [
        f"{result['ref']} as {result['form']} in {result['path']}",
        f"  {result['n_rows']} rows: {_counts(result['splits'])}",
        f"  licenses: {_counts(result['licenses'])}",
        f"  digest {result['digest']}",
        *(f"  {line}" for line in (*counted, *left_out)),
        f"check it any time with: rmkit export --verify {result['path']}",
    ]
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "none"
