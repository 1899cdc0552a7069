"""`rmkit adopt`: somebody else's model becomes a reward model of one's own, its weights left where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmkit import config
from rmkit.cli import arguments, display
from rmkit.errors import UsageError
from rmkit.models.adopted.adopt import Adoption, adopt
from rmkit.models.adopted.profile import (
    ExpectTable,
    HeadTable,
    ReadTable,
    ScaleTable,
    SourceTable,
    TextTable,
    families,
    merged,
    read_profile,
)

TABLES = {
    "model": SourceTable,
    "text": TextTable,
    "head": HeadTable,
    "read": ReadTable,
    "scale": ScaleTable,
    "expect": ExpectTable,
}


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "adopt",
        "Make a reward model of a Hub id or a folder that somebody else trained. How its number is read is told from "
        "its files, else by --family, --config or --set. Any command takes a Hub id or such a folder without this, "
        "where the files tell all.",
        examples=[
            "adopt Skywork/Skywork-Reward-V2-Qwen3-0.6B",
            "adopt ./outputs/checkpoint-500 -o models/mine",
            "adopt ./classifier --set read.column=1 --set read.minus=0",
            "adopt PKU-Alignment/beaver-7b-v1.0-cost --family beaver-cost",
            "adopt --config my_model.toml",
            "adopt --families",
        ],
    )
    parser.add_model(nargs="?", default="", help="Hub id ORG/NAME[@REVISION], or a folder; may stand in --config")
    parser.add_argument("--family", default="", metavar="NAME", help="read it as this family; see --families")
    parser.add_argument("--config", type=Path, metavar="TOML", help="an adoption file; see docs/adopted.md")
    parser.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="one setting, over the file (repeatable)"
    )
    parser.add_output("artifact folder (default $RMKIT_HOME/models/NAME)")
    parser.add_argument("--copy", action="store_true", help="copy the weights into the artifact")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run the folder's own Python code; its hash is recorded"
    )
    parser.add_device()
    parser.add_argument("--families", action="store_true", help="list the families that rmkit knows")
    tables = "\n".join(f"[{name}]\n{arguments.settings_text(cls)}" for name, cls in TABLES.items())
    parser.epilog = f"settings, in the tables of --config or as --set TABLE.KEY=VALUE:\n{tables}\n\n{parser.epilog}"
    options = parser.parse_args(argv)
    if options.families:
        listed = [{"family": one.family, "reader": one.read.kind, "title": one.title} for one in families().values()]
        rows = [[one["family"], one["reader"], one["title"]] for one in listed]
        text = display.table(("family", "reader", "models"), rows)
        display.emit({"families": listed}, as_json=options.json, text=text)
        return 0
    named = merged(read_profile(options.config) if options.config else {}, _dotted(options.set))
    if not options.model and not named.get("model", {}).get("source"):
        raise UsageError("name a model: rmkit adopt ORG/NAME, a folder, or a --config with model.source")
    result = adopt(
        options.model,
        tables=named,
        family=options.family,
        output=options.output,
        trust_remote_code=options.trust_remote_code,
        copy=options.copy,
        device=options.device,
    )
    display.emit(result.as_json(), as_json=options.json, text=_text(result))
    return 0


def _dotted(assignments: list[str]) -> dict[str, Any]:
    """TABLE.KEY=VALUE as tables. Raises UsageError for a key without a table."""
    tables: dict[str, Any] = {}
    for key, value in config.assignments(assignments).items():
        first, *rest = key.split(".")
        if not rest:
            raise UsageError(f"--set takes TABLE.KEY=VALUE, got {key!r}; tables are {', '.join(TABLES)}")
        for part in reversed(rest):
            value = {part: value}
        tables = merged(tables, {first: value})
    return tables


def _text(result: Adoption) -> str:
    card = result.card
    source, check = card["source"], card.get("self_check")
    lines = [
        f"{source['hub'] or source['path']} is now {result.path}",
        f"  read as    {result.because}; reader {result.profile.read.kind}",
        f"  number     {card['kind']}, scale {card['scale']}, fingerprint {result.fingerprint}",
        f"  license    {source['license'] or 'not stated'}; made from {source['base'] or 'not stated'}",
    ]
    if source["revision"]:
        lines.append(f"  revision   {source['revision']}")
    if loading := card.get("loading"):
        aside = f", left aside: {', '.join(loading['left_aside'])}" if loading["left_aside"] else ""
        lines.append(f"  weights    {loading['tensors']} tensors, {loading['bytes'] / 1e6:.1f} MB{aside}")
    if check:
        lines.append(
            f"  check      against transformers on {check['n']} texts: alone {check['alone']:.1e}, padded right "
            f"{check['padded_right']:.1e}, left {check['padded_left']:.1e}"
        )
    lines += [f"  note       {one}" for one in result.warnings]
    return "\n".join(lines)
