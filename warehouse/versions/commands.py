"""The commands about versions: `rmkit datasets | diff | tag | branch | merge`."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import Any

import duckdb

from rmkit.cli.display import emit, parser
from rmkit.errors import UsageError
from warehouse.lineage.preview import excerpts
from warehouse.store import open_warehouse
from warehouse.versions import branches, history
from warehouse.versions import merge as merging
from warehouse.versions.diff import diff as compare
from warehouse.versions.diff import diff_rows
from warehouse.versions.versions import MAIN, branch_head, dataset_id, get, resolve


def datasets(argv: list[str]) -> int:
    """Entry point of `rmkit datasets [NAME]`."""
    options = parser(
        "datasets",
        "All datasets, or the history of one: versions with what they added and removed, branches and tags.",
        examples=["datasets", "datasets hh", "datasets hh --json"],
    )
    options.add_argument("name", metavar="NAME", nargs="?", help="a dataset; all without it")
    arguments = options.parse_args(argv)
    with open_warehouse(read_only=True) as connection:
        if arguments.name is None:
            result = {"datasets": history.all_datasets(connection)}
            text = history.datasets_text(result["datasets"])
        else:
            result = history.one_dataset(connection, arguments.name)
            text = history.dataset_text(result)
    emit(result, as_json=arguments.json, text=text)
    return 0


def diff(argv: list[str]) -> int:
    """Entry point of `rmkit diff OLD NEW`."""
    options = parser(
        "diff",
        "Rows added, removed, relabeled (same unit, other label) and changed (split or weight) between two versions.",
        examples=["diff hh@v1 hh@v2", "diff hh@v1 hh --rows 10", "diff hh@gold hh@experiment --rows 100 --json"],
    )
    options.add_argument("old", metavar="OLD", help="NAME@VERSION")
    options.add_argument("new", metavar="NEW", help="NAME@VERSION")
    options.add_argument("--rows", type=int, default=0, metavar="N", help="show up to N rows of each kind of change")
    arguments = options.parse_args(argv)
    with open_warehouse(read_only=True) as connection:
        old, new = resolve(connection, arguments.old), resolve(connection, arguments.new)
        counts = compare(connection, old, new)
        rows = _diff_rows(connection, old, new, arguments.rows) if arguments.rows else []
        refs = [get(connection, version_id).ref for version_id in (old, new)]
    kinds = ("added", "removed", "relabeled", "changed")
    result = {"old": refs[0], "new": refs[1]} | {kind: getattr(counts, kind) for kind in kinds} | {"rows": rows}
    emit(result, as_json=arguments.json, text=_diff_text(result, kinds))
    return 0


def _diff_rows(connection: duckdb.DuckDBPyConnection, old: int, new: int, n: int) -> list[dict[str, Any]]:
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
    options = parser(
        "tag",
        "Name a version. A tag stays where it is until it is moved on purpose; every move is remembered.",
        examples=["tag hh@v3 gold", "tag hh@v4 gold --move", "tag hh gold --remove"],
    )
    options.add_argument("ref", metavar="NAME@VERSION", help="the version to tag (with --remove: the dataset)")
    options.add_argument("tag", metavar="TAG")
    options.add_argument("--move", action="store_true", help="take the tag away from the version that has it")
    options.add_argument("--remove", action="store_true", help="take the tag away")
    arguments = options.parse_args(argv)
    with open_warehouse() as connection:
        if arguments.remove:
            name = arguments.ref.partition("@")[0]
            branches.remove_tag(connection, dataset_id(connection, name), arguments.tag, actor=user())
            result: dict[str, Any] = {"dataset": name, "tag": arguments.tag, "version": None}
        else:
            version_id = resolve(connection, arguments.ref)
            branches.set_tag(connection, version_id, arguments.tag, actor=user(), move=arguments.move)
            version = get(connection, version_id)
            result = {"dataset": version.name, "tag": arguments.tag, "version": version.ref}
    stands = f"is {result['version']}" if result["version"] else "removed"
    emit(result, as_json=arguments.json, text=f"{result['dataset']}@{result['tag']} {stands}")
    return 0


def branch(argv: list[str]) -> int:
    """Entry point of `rmkit branch NAME@VERSION BRANCH`, or `rmkit branch NAME` to list."""
    options = parser(
        "branch",
        "Start a branch at a version, or list the branches of a dataset.",
        examples=["branch hh", "branch hh@main experiment", "branch hh@v3 without-ties"],
    )
    options.add_argument("ref", metavar="NAME@VERSION", help="where the branch starts (to list: the dataset)")
    options.add_argument("branch", metavar="BRANCH", nargs="?", help="the new branch; without it branches are listed")
    arguments = options.parse_args(argv)
    if arguments.branch is None:
        with open_warehouse(read_only=True) as connection:
            results = history.one_dataset(connection, arguments.ref.partition("@")[0])
        text = "\n".join(f"{name}  {ref}" for name, ref in results["branches"].items())
        emit({"dataset": results["dataset"], "branches": results["branches"]}, as_json=arguments.json, text=text)
        return 0
    with open_warehouse() as connection:
        version_id = resolve(connection, arguments.ref)
        branches.start_branch(connection, version_id, arguments.branch)
        version = get(connection, version_id)
    result = {"dataset": version.name, "branch": arguments.branch, "version": version.ref}
    emit(result, as_json=arguments.json, text=f"{version.name}@{arguments.branch} starts at {version.ref}")
    return 0


def merge(argv: list[str]) -> int:
    """Entry point of `rmkit merge NAME@VERSION`."""
    options = parser(
        "merge",
        "Merge a branch or version into a branch: rows by three-way set merge, splits and weights one by one.",
        examples=["merge hh@experiment", "merge hh@experiment --into hh@main --theirs -m 'take the new labels'"],
    )
    options.add_argument("ref", metavar="NAME@VERSION", help="what is merged (theirs)")
    options.add_argument("--into", metavar="NAME@BRANCH", help="the branch that moves (ours; default: NAME@main)")
    side = options.add_mutually_exclusive_group()
    side.add_argument("--ours", action="store_true", help="in a conflict the branch's word counts")
    side.add_argument("--theirs", action="store_true", help="in a conflict the merged version's word counts")
    options.add_argument("-m", "--message", help="what the new version says about itself")
    arguments = options.parse_args(argv)
    into = _branch_ref(arguments.into or arguments.ref.partition("@")[0])
    prefer: merging.Side | None = "ours" if arguments.ours else "theirs" if arguments.theirs else None
    with open_warehouse() as connection:
        before = branch_head(connection, dataset_id(connection, into[0]), into[1])
        theirs = resolve(connection, arguments.ref)
        version = merging.merge(connection, theirs, into=into, author=user(), message=arguments.message, prefer=prefer)
        head = resolve(connection, version.ref)
        how = "unchanged" if head == before else "fast-forward" if head == theirs else "merged"
        counts = None if before is None else compare(connection, before, head)
    result = {"branch": "@".join(into), "version": version.ref, "how": how, "n_rows": version.n_rows, "diff": counts}
    moved = "" if counts is None else f" (+{counts.added} -{counts.removed} ~{counts.relabeled} *{counts.changed})"
    emit(result, as_json=arguments.json, text=f"{result['branch']} is {version.ref}, {how}{moved}")
    return 0


def _branch_ref(ref: str) -> tuple[str, str]:
    name, _, branch_name = ref.partition("@")
    if not name:
        raise UsageError(f"{ref!r} names no branch; expected NAME@BRANCH")
    return name, branch_name or MAIN


def user() -> str:
    """The login name, for authors and actors; 'unknown' where the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
