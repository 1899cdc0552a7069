"""`rmkit noise`: a new dataset version with a known number of wrong labels, and what became of them later.

The version is made by the recipe step `noise`; the flipped rows are recorded, so every denoising method can be judged
on a user's own data: `rmkit noise --judge NAME@REF` tells for a version made from a noisy one how many wrong labels are
left and how well the dropped rows were chosen.
"""

from __future__ import annotations

from typing import Any

from data_pipelines.recipes.recipe import Recipe, run_recipe
from data_pipelines.steps import configure
from data_pipelines.steps.noise import KINDS
from rmkit.cli import arguments, display
from rmkit.errors import DataError, UsageError
from warehouse.lineage import reliability_audit
from warehouse.store import open_warehouse
from warehouse.versions.versions import resolve


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "noise",
        "Turn an exact share of labels around and remember which, to judge denoising on your own data.",
        examples=[
            "noise hh --rate 0.4 --out hh-noisy",
            "noise hh@v2 --kind length --rate 0.2 --seed 3 --out hh-noisy",
            "noise --judge hh-noisy@v3           # how many wrong labels a later recipe found",
        ],
    )
    parser.add_argument("data", nargs="?", metavar="NAME[@REF]", help="the version whose labels are turned around")
    parser.add_argument("--kind", choices=KINDS, default="symmetric")
    parser.add_argument("--rate", type=float, default=0.2, help="share of the pairs with a winner")
    parser.add_argument("--strength", type=float, default=1.5, help="how uneven annotator and prompt noise is")
    parser.add_argument("--splits", default="train,validation,dev", help="splits to touch; rows without one count too")
    parser.add_seed()
    parser.add_argument("--out", metavar="NAME", help="dataset that the noisy version belongs to (default: the same)")
    parser.add_argument("--judge", metavar="NAME[@REF]", help="count right and wrong labels of a later version instead")
    options = parser.parse_args(argv)
    if (options.judge is None) == (options.data is None):
        raise UsageError("give the data to make noisy, or --judge NAME@REF; exactly one of them")
    if options.judge:
        result = judge(options.judge)
        display.emit(result, as_json=options.json, text=_judged_text(result))
        return 0
    settings = {name: getattr(options, name) for name in ("kind", "rate", "strength", "seed")}
    result = inject(options.data, settings | {"splits": options.splits.split(",")}, out=options.out)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def inject(data: str, settings: dict[str, Any], *, out: str | None = None) -> dict[str, object]:
    """The noisy version and the step's facts; `settings` are those of the step. Raises ConfigError, DataError."""
    config = configure("noise", settings, where="rmkit noise")
    name = f"noise-{config.kind}-{config.rate:g}-seed{config.seed}"
    recipe = Recipe(name=name, description="labels turned around on purpose", steps=(("noise", config),))
    result = run_recipe(recipe, data, out=out)
    facts = result["steps"][0]["facts"]
    return {**{key: result[key] for key in ("data", "version", "digest", "run", "changed")}, **facts}


def judge(ref: str) -> dict[str, object]:
    """Rows, flips, precision and recall of what later steps dropped. Raises DataError where no noise is known."""
    with open_warehouse(read_only=True) as connection:
        by_key: dict[str, Any] | None = reliability_audit.judge(connection, resolve(connection, ref))
    if by_key is None:
        raise DataError(f"{ref} comes from no version with injected noise; make one with: rmkit noise NAME --rate 0.2")
    return {"version": ref, **by_key}


def _text(result: dict[str, Any]) -> str:
    by_split = ", ".join(f"{count} {split or 'without split'}" for split, count in result["flipped_by_split"].items())
    output = f"{result['version']} ({result['digest'][:12]})"
    text = f"{result['note']}: {by_split or 'none'}"
    return f"{output if result['changed'] else f'nothing changed: {output}'}\n{text}"


def _judged_text(result: dict[str, Any]) -> str:
    rates = {key: display.percent(result[key]) for key in ("kept_precision", "dropped_precision", "dropped_recall")}
    return "\n".join(
        [
            f"{result['version']}: {result['kept']} of {result['rows']} rows kept, {result['dropped']} dropped",
            f"wrong labels left   {result['kept_flipped']} of {result['flipped']}",
            f"kept and right      {rates['kept_precision']}",
            f"dropped, wrong   {rates['dropped_precision']} of the dropped, {rates['dropped_recall']} of all wrong",
        ]
    )
