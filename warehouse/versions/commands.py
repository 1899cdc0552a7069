"""The commands about versions: `rmkit datasets | diff | tag | branch | merge`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from rmkit.cli import arguments, display
from rmkit.errors import UsageError
from rmkit.user import user_name
from warehouse.lineage.preview import excerpts
from warehouse.store import open_warehouse
from warehouse.versions import branches, history
from warehouse.versions import merge as merging
from warehouse.versions.diff import diff as compare
from warehouse.versions.diff import diff_rows
from warehouse.versions.versions import MAIN, branch_head, dataset_id, get, resolve


def datasets(argv: list[str]) -> int:
    """Entry point of `rmkit datasets [NAME]`."""
    parser = arguments.parser(
        "datasets",
        "All datasets, or the history of one: versions with what they added and removed, branches and tags.",
        examples=["datasets", "datasets hh", "datasets hh --json"],
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="a dataset; all without it")
    options = parser.parse_args(argv)
    with open_warehouse(read_only=True) as connection:
        if options.name is None:
            result = {"datasets": history.all_datasets(connection)}
            text = history.datasets_text(result["datasets"])
        else:
            result = history.one_dataset(connection, options.name)
            text = history.dataset_text(result)
    display.emit(result, as_json=options.json, text=text)
    return 0


def diff(argv: list[str]) -> int:
    """Entry point of `rmkit diff OLD NEW`."""
    parser = arguments.parser(
        "diff",
        "Rows added, removed, relabeled (same unit, other label) and changed (split or weight) between two versions.",
        examples=["diff hh@v1 hh@v2", "diff hh@v1 hh --rows 10", "diff hh@gold hh@experiment --rows 100 --json"],
    )
    parser.add_argument("old", metavar="OLD", help="NAME@VERSION")
    parser.add_argument("new", metavar="NEW", help="NAME@VERSION")
    parser.add_argument("--rows", type=int, default=0, metavar="N", help="show up to N rows of each kind of change")
    options = parser.parse_args(argv)
    with open_warehouse(read_only=True) as connection:
        old, new = resolve(connection, options.old), resolve(connection, options.new)
        counts = compare(connection, old, new)
        rows = _diff_rows(connection, old, new, options.rows) if options.rows else []
        refs = [get(connection, version_id).ref for version_id in (old, new)]
    kinds = ("added", "removed", "relabeled", "changed")
    result = {"old": refs[0], "new": refs[1]} | {kind: getattr(counts, kind) for kind in kinds} | {"rows": rows}
    display.emit(result, as_json=options.json, text=_diff_text(result, kinds))
    return 0


def _diff_rows(connection: duckdb.DuckDBPyConnection, old: int, new: int, n: int) -> list[dict[str, object]]:
    """Up to `n` rows of each kind of change, with ids, labels and the beginning of the prompt."""
    changes = diff_rows(connection, old, new, limit_per_kind=n).to_pylist()
    ids = [change[side] for change in changes for side in ("old_id", "new_id") if change[side] is not None]
    facts = excerpts(connection, ids)
    nothing = {"id": None, "label": None, "prompt": None}
    shown = []
    for change in changes:
        was, now = (facts.get(change[side], nothing) for side in ("old_id", "new_id"))
        states = {key: change[key] for key in ("old_split", "new_split", "old_weight", "new_weight")}
        ids_labels = {"old": was["id"], "new": now["id"], "old_label": was["label"], "new_label": now["label"]}
        shown.append({"what": change["what"]} | ids_labels | states | {"prompt": now["prompt"] or was["prompt"]})
    return shown


def _diff_text(result: dict[str, Any], kinds: Sequence[str]) -> str:
    lines = [f"{result['old']} -> {result['new']}: " + ", ".join(f"{result[kind]} {kind}" for kind in kinds)]
    marks = {"added": "+", "removed": "-", "relabeled": "~", "changed": "*"}
    for row in result["rows"]:
        before, after = (_state(row, side) for side in ("old", "new"))
        change = f"{before} -> {after}" if before and after else before or after
        lines.append(f"  {marks[row['what']]} {(row['new'] or row['old'])[:12]}  {change}  {row['prompt']}")
    return "\n".join(lines)


def _state(row: dict[str, Any], side: str) -> str:
    if row[side] is None:
        return ""
    weight = row[f"{side}_weight"]
    parts = [row[f"{side}_split"] or "no split", *([] if weight == 1 else [f"weight {weight:g}"])]
    return " ".join([*parts, row[f"{side}_label"] if row["what"] == "relabeled" else ""]).strip()


def tag(argv: list[str]) -> int:
    """Entry point of `rmkit tag NAME@VERSION TAG`."""
    parser = arguments.parser(
        "tag",
        "Name a version. A tag stays where it is until it is moved on purpose; every move is remembered.",
        examples=["tag hh@v3 gold", "tag hh@v4 gold --move", "tag hh gold --remove"],
    )
    parser.add_argument("ref", metavar="NAME@VERSION", help="the version to tag (with --remove: the dataset)")
    parser.add_argument("tag", metavar="TAG")
    parser.add_argument("--move", action="store_true", help="take the tag away from the version that has it")
    parser.add_argument("--remove", action="store_true", help="take the tag away")
    options = parser.parse_args(argv)
    with open_warehouse() as connection:
        if options.remove:
            name = options.ref.partition("@")[0]
            branches.remove_tag(connection, dataset_id(connection, name), options.tag, actor=user_name())
            result: dict[str, Any] = {"dataset": name, "tag": options.tag, "version": None}
        else:
            version_id = resolve(connection, options.ref)
            branches.set_tag(connection, version_id, options.tag, actor=user_name(), move=options.move)
            version = get(connection, version_id)
            result = {"dataset": version.name, "tag": options.tag, "version": version.ref}
    stands = f"is {result['version']}" if result["version"] else "removed"
    display.emit(result, as_json=options.json, text=f"{result['dataset']}@{result['tag']} {stands}")
    return 0


def branch(argv: list[str]) -> int:
    """Entry point of `rmkit branch NAME@VERSION BRANCH`, or `rmkit branch NAME` to list."""
    parser = arguments.parser(
        "branch",
        "Start a branch at a version, or list the branches of a dataset.",
        examples=["branch hh", "branch hh@main experiment", "branch hh@v3 without-ties"],
    )
    parser.add_argument("ref", metavar="NAME@VERSION", help="where the branch starts (to list: the dataset)")
    parser.add_argument("branch", metavar="BRANCH", nargs="?", help="the new branch; without it branches are listed")
    options = parser.parse_args(argv)
    if options.branch is None:
        with open_warehouse(read_only=True) as connection:
            results = history.one_dataset(connection, options.ref.partition("@")[0])
        text = display.fields(results["branches"])
        display.emit({"dataset": results["dataset"], "branches": results["branches"]}, as_json=options.json, text=text)
        return 0
    with open_warehouse() as connection:
        version_id = resolve(connection, options.ref)
        branches.start_branch(connection, version_id, options.branch)
        version = get(connection, version_id)
    result = {"dataset": version.name, "branch": options.branch, "version": version.ref}
    display.emit(result, as_json=options.json, text=f"{version.name}@{options.branch} starts at {version.ref}")
    return 0


def merge(argv: list[str]) -> int:
    """Entry point of `rmkit merge NAME@VERSION`."""
    parser = arguments.parser(
        "merge",
        "Merge a branch or version into a branch: rows by three-way set merge, splits and weights one by one.",
        examples=["merge hh@experiment", "merge hh@experiment --into hh@main --theirs -m 'take the new labels'"],
    )
    parser.add_argument("ref", metavar="NAME@VERSION", help="what is merged (theirs)")
    parser.add_argument("--into", metavar="NAME@BRANCH", help="the branch that moves (ours; default: NAME@main)")
    side = parser.add_mutually_exclusive_group()
    side.add_argument("--ours", action="store_true", help="in a conflict the branch's word counts")
    side.add_argument("--theirs", action="store_true", help="in a conflict the merged version's word counts")
    parser.add_argument("-m", "--message", help="what the new version says about itself")
    options = parser.parse_args(argv)
    into = _branch_ref(options.into or options.ref.partition("@")[0])
    prefer: merging.Side | None = "ours" if options.ours else "theirs" if options.theirs else None
    with open_warehouse() as connection:
        before = branch_head(connection, dataset_id(connection, into[0]), into[1])
        theirs = resolve(connection, options.ref)
        version = merging.merge(
            connection, theirs, into=into, author=user_name(), message=options.message, prefer=prefer
        )
        head = resolve(connection, version.ref)
        how = "unchanged" if head == before else "fast-forward" if head == theirs else "merged"
        counts = None if before is None else compare(connection, before, head)
    result = {"branch": "@".join(into), "version": version.ref, "how": how, "n_rows": version.n_rows, "diff": counts}
    moved = "" if counts is None else f" (+{counts.added} -{counts.removed} ~{counts.relabeled} *{counts.changed})"
    display.emit(result, as_json=options.json, text=f"{result['branch']} is {version.ref}, {how}{moved}")
    return 0


def _branch_ref(ref: str) -> tuple[str, str]:
    name, _, branch_name = ref.partition("@")
    if not name:
        raise UsageError(f"{ref!r} names no branch; expected NAME@BRANCH")
    return name, branch_name or MAIN
