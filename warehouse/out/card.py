"""The dataset card of an export: README.md in Hugging Face's form, written from the manifest alone.

The front matter names the license (`other` where rows differ), the size and the data files of each split; the text says
where the rows come from, how they were made and what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rmkit.cli.display import markdown
from warehouse.out.licenses import hub_license

TASKS = ("text-ranking", "text-generation")  # task categories of the Hub, where nobody names others
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card(manifest: Mapping[str, Any]) -> str:
    """README.md of an export folder."""
    parts = [_front_matter(manifest), _introduction(manifest), _rows(manifest), _sources(manifest), _making(manifest)]
    gaps = "\n".join(f"- {gap}" for gap in manifest["gaps"]) or "None known."
    return "\n\n".join([*parts, f"## Known gaps\n\n{gaps}"]) + "\n"


def _front_matter(manifest: Mapping[str, Any]) -> str:
    lines = ["---", f"pretty_name: {_quoted(manifest['dataset'])}", *_license_lines(manifest["licenses"])]
    lines += ["task_categories:", *(f"- {task}" for task in manifest.get("tasks") or TASKS)]
    lines += ["language:", *(f"- {_quoted(one)}" for one in manifest["languages"])] if manifest.get("languages") else []
    lines += ["size_categories:", f"- {size_category(manifest['n_rows'])}", "tags:", "- preference", "- reward-model"]
    lines += ["configs:", "- config_name: default", "  data_files:"] if manifest["splits"] else []
    for split, facts in manifest["splits"].items():
        lines += [f"  - split: {_quoted(split)}", "    path:", *(f"    - {_quoted(name)}" for name in facts["files"])]
    return "\n".join([*lines, "---"])


def _license_lines(licenses: Mapping[str, int]) -> list[str]:
    if len(licenses) == 1 and "unknown" not in licenses:
        name, other = hub_license(next(iter(licenses)))
    else:
        name, other = "other", " AND ".join(licenses) or "none"
    return [f"license: {name}", *([f"license_name: {_quoted(other)}"] if other else [])]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a YAML string


def size_category(n_rows: int) -> str:
    """Hugging Face's size tag."""
    return next((tag for limit, tag in _SIZES if n_rows < limit), "1M<n<10M" if n_rows < 10_000_000 else "n>10M")


def _introduction(manifest: Mapping[str, Any]) -> str:
    return (
        f"# {manifest['dataset']} v{manifest['version']}\n\n"
        f"{manifest['n_rows']} rows in {manifest['form']} form, exported by rmkit. Version digest"
        f" `{manifest['digest']}`: SHA-256 over one sorted line per row (its content hash, split and weight), whatever"
        " the file format."
        f" This folder's rows: `{manifest['rows_digest']}`. Check it with `rmkit export --verify FOLDER`."
    )


def _rows(manifest: Mapping[str, Any]) -> str:
    counts = [(split, facts["rows"]) for split, facts in manifest["splits"].items()]
    schema = [(f"`{name}`", f"`{kind}`") for name, kind in manifest["schema"].items()]
    return f"## Rows\n\n{markdown(('split', 'rows'), counts)}\n\n{markdown(('column', 'type'), schema)}"


def _sources(manifest: Mapping[str, Any]) -> str:
    rows = [
        (
            one["name"],
            one["rows"],
            one["license"],
            one.get("consent", "unknown"),
            one.get("collected", "unknown"),
            one.get("removal", "unknown"),
            one["revision"] or "",
            one["url"] or "",
            one["sha256"][:16],
        )
        for one in manifest["sources"]
    ]
    columns = ("source", "rows", "license", "consent", "collected", "removal", "revision", "url", "file sha256")
    licenses = markdown(("license", "rows"), manifest["licenses"].items())
    return (
        f"## Sources and licenses\n\n{markdown(columns, rows)}\n\nA row that several sources share counts for each of "
        f"them and carries the most restrictive license:\n\n{licenses}"
    )


def _making(manifest: Mapping[str, Any]) -> str:
    steps = []
    for one in manifest["steps"]:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in one["reasons"].items())
        steps.append((one["step"], one["n_in"], one["n_kept"], one["n_dropped"], reasons))
    result = (
        markdown(("step", "rows in", "kept", "dropped", "reasons"), steps) if steps else "No cleaning step is recorded."
    )
    parents = ", ".join(f"`{parent[:16]}`" for parent in manifest["parents"]) or "none"
    return f"## How it was made\n\n{result}\n\nParent versions: {parents}."
