"""`rmkit export`: a version as a folder of files, byte for byte the same every time.

Rows are sorted by example hash within each split, the writer's options are pinned, and nothing that changes between two
runs (clock, path, warehouse id) is written. The folder is built beside its place and takes it in one step, so nobody
ever sees half of one. What may leave is decided here: the targets release and research refuse licenses,
benchmark data and sources without consent (`targets`); rows of a source that was taken back go nowhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmkit.atomic import draft_folder, put
from rmkit.cli import arguments, display
from rmkit.config import read_object
from rmkit.data.example import MANIFEST, read_manifest
from rmkit.errors import BusyError, DataError, StoreError, UsageError
from rmkit.ids import content_hash, file_sha256
from rmkit.ledger import open_ledger
from rmkit.paths import home
from rmkit.storage.places import at_addresses
from warehouse.lineage.source_facts import SourceFacts, read_facts
from warehouse.out.card import card
from warehouse.out.croissant import NAME as CROISSANT
from warehouse.out.croissant import croissant
from warehouse.out.forms import FORMS, LINES, Form, json_lines, sft_rows, trl_table
from warehouse.out.manifest import PARQUET, describe, identities, verify_export
from warehouse.out.targets import TARGETS, Target, refused_licenses
from warehouse.sql import run
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.digest import digest_rows
from warehouse.versions.versions import get, resolve

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
    table = checkout(connection, version_id, split=split)
    if split is not None and not table.num_rows:
        raise UsageError(f"{get(connection, version_id).ref} has no rows in split {split!r}")
    with open_ledger(read_only=True) as ledger:
        facts = read_facts(ledger)
    table, n_removed = _without_removed(connection, table, [sha256 for sha256, one in facts.items() if one.removed])
    manifest = describe(connection, version_id, table, form=form)
    for source in manifest["sources"]:
        own = facts.get(source["sha256"], SourceFacts())
        source |= {"consent": own.consent, "collected": own.collected, "removal": own.removal}
    manifest["removed_rows"] = n_removed
    if target != "local":
        _check_target(connection, manifest, table, facts, target, allow_licenses, allow_benchmark)
    folder = folder or home() / "exports" / _default_name(manifest, split)
    manifest |= {"languages": list(languages)} if languages else {}
    manifest |= {"tasks": list(tasks)} if tasks else {}
    manifest["complete"] = split is None and not manifest["erased_rows"] and not n_removed
    with draft_folder(folder) as draft:
        _write(draft, table, manifest)
        if not _is_there(folder, draft, manifest):
            put(draft, folder, replace=True)
    return folder


def _without_removed(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, removed: Sequence[str]
) -> tuple[pa.Table, int]:
    """The table without the rows of which any source is one of these files, and how many those are."""
    gone = _of_sources(connection, table, removed)
    if not gone:
        return table, 0
    return table.filter(pc.invert(pc.is_in(table["id"], pa.array(sorted(gone))))), len(gone)


def _of_sources(connection: duckdb.DuckDBPyConnection, table: pa.Table, files: Sequence[str]) -> set[str]:
    """Ids of the rows that come from any of these files, whatever else they come from."""
    if not files:
        return set()
    connection.register("exported", table.select(["id"]))
    try:
        rows = run(
            connection,
            "SELECT DISTINCT x.id FROM exported x JOIN example e ON e.h = x.id::UUID "
            "JOIN unit_source us USING (unit_id) JOIN source s USING (source_id) "
            "WHERE list_contains(?, s.file_sha256)",
            [list(files)],
        )
    finally:
        connection.unregister("exported")
    return {row_id for (row_id,) in rows}


def _check_target(
    connection: duckdb.DuckDBPyConnection,
    manifest: dict[str, Any],
    table: pa.Table,
    facts: Mapping[str, SourceFacts],
    target: Target,
    allow_licenses: Collection[str],
    allow_benchmark: bool,
) -> None:
    without = _of_sources(connection, table, [sha256 for sha256, one in facts.items() if one.consent == "refused"])
    if without:
        raise DataError(
            f"{manifest['ref']} may not be released: consent was refused for the source of {len(without)} rows; drop "
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


def _write(folder: Path, table: pa.Table, manifest: dict[str, Any]) -> None:
    rows, left_out = _of_form(table, manifest["form"])
    rows = rows.replace_schema_metadata(None)
    manifest["left_out"] = left_out
    manifest["complete"] = manifest["complete"] and not left_out
    manifest["n_rows"] = rows.num_rows
    manifest["schema"] = {field.name: str(field.type) for field in rows.schema}
    manifest["rows_digest"] = digest_rows(set(identities(rows)))
    manifest["files"], manifest["splits"] = {}, {}
    for split, part in _by_split(rows):
        names = list(_write_split(folder, split, part, manifest))
        manifest["splits"][_file_stem(split) if split is None else split] = {"rows": part.num_rows, "files": names}
    (folder / "README.md").write_text(card(manifest), encoding="utf-8")
    (folder / CROISSANT).write_text(croissant(manifest), encoding="utf-8")
    for name in ("README.md", CROISSANT):
        manifest["files"][name] = {"sha256": file_sha256(folder / name)}
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _of_form(table: pa.Table, form: Form) -> tuple[pa.Table, dict[str, int]]:
    """The rows that a form holds, and how many examples it has no row for, by reason."""
    match form:
        case "trl":
            return trl_table(table)
        case "sft":
            return sft_rows(table)
        case _:
            return table, {}


def _by_split(rows: pa.Table) -> Iterator[tuple[str | None, pa.Table]]:
    splits = pc.unique(rows["split"]).to_pylist() or [None]  # an empty version is one empty file, not none
    for split in sorted(splits, key=lambda name: (name is None, name)):
        chosen = pc.is_null(rows["split"]) if split is None else pc.equal(rows["split"], split)
        yield split, rows.filter(chosen)


def _write_split(folder: Path, split: str | None, part: pa.Table, manifest: dict[str, Any]) -> Iterator[str]:
    lines = manifest["form"] in LINES
    for number, start in enumerate(range(0, max(part.num_rows, 1), ROWS_PER_FILE)):
        piece = part.slice(start, ROWS_PER_FILE)
        name = f"{_file_stem(split)}-{number:05d}.{'jsonl' if lines else 'parquet'}"
        if lines:
            with (folder / name).open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(json_lines(piece, manifest["form"]))
        else:
            pq.write_table(piece, folder / name, **PARQUET)
        manifest["files"][name] = {"sha256": file_sha256(folder / name), "rows": piece.num_rows}
        yield name


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
