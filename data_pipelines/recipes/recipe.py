"""A recipe: a TOML list of cleaning steps that turns one dataset version into the next.

    [recipe]
    name = "clean"
    description = "..."

    [[step]]
    use = "near_dedup"
    threshold = 0.7

`rmkit run RECIPE --data NAME[@REF]` reads the version, runs the steps without holding the warehouse (see runner), and
in one short transaction stores the result as a new version together with everything that each step kept, dropped and
measured (see record). The same recipe on the same version gives the same digest, and changes nothing the second time.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from data_pipelines.recipes.parts import write_parts
from data_pipelines.recipes.record import record
from data_pipelines.recipes.runner import Engine, StepRun, forget, one_by_one, run_steps
from data_pipelines.steps import Context, as_frame, configure
from rmkit.atomic import draft_folder
from rmkit.cli import arguments, display
from rmkit.config import build, read_toml
from rmkit.errors import ConfigError, DataError, unknown
from rmkit.paths import home
from warehouse.lineage.runs import run_config
from warehouse.sql import run
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.stream import stream
from warehouse.versions.versions import get, resolve


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`steps` are (name, resolved config) in order."""

    name: str
    description: str
    steps: tuple[tuple[str, Any], ...]

    def resolved(self) -> dict[str, object]:
        """The recipe with every default spelled out, JSON-ready."""
        steps = [{"use": name, **asdict(config)} for name, config in self.steps]
        return {"recipe": {"name": self.name, "description": self.description}, "step": steps}


@dataclass(frozen=True, kw_only=True)
class _Head:
    name: str
    description: str = ""


def shipped() -> dict[str, Path]:
    """The recipes that come with rmkit, by name."""
    folder = Path(str(resources.files("data_pipelines.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_recipe(name_or_path: str) -> Recipe:
    """A shipped recipe by name, or a TOML file. Raises ConfigError naming what is wrong and what is known."""
    known = shipped()
    path = known.get(name_or_path, Path(name_or_path))
    if not path.suffix and not path.exists():
        raise ConfigError(f"{unknown('recipe', name_or_path, known)}; or give the path of a TOML file")
    return parse_recipe(read_toml(path), where=str(path))


def parse_recipe(table: dict[str, Any], *, where: str) -> Recipe:
    """The recipe in a TOML table. Raises ConfigError."""
    extra = sorted(set(table) - {"recipe", "step"})
    steps = table.get("step")
    if extra or not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        got = f"unknown table {extra[0]!r}" if extra else "no [[step]]"
        raise ConfigError(f"{where}: {got}; a recipe has one [recipe] with a name and a list of [[step]] with `use`")
    head = build(_Head, table.get("recipe", {}), where=f"{where}: recipe")
    results = []
    for number, step in enumerate(steps, 1):
        options = dict(step)
        if not isinstance(name := options.pop("use", None), str):
            raise ConfigError(f'{where}: step {number} does not say which; add: use = "NAME"')
        results.append((name, configure(name, options, where=f"{where}: step {number}")))
    return Recipe(name=head.name, description=head.description, steps=tuple(results))


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "run",
        "Run a recipe of cleaning steps on a dataset version, making a new version.",
        examples=[
            "run clean --data hh",
            "run clean --data hh@v1 --out hh-clean",
            "run my_recipe.toml --data hh --json",
            "run clean --data hh --engine ray --workers 2",
        ],
    )
    parser.add_argument("recipe", help=f"a TOML file, or one of: {', '.join(shipped())}")
    parser.add_data(help="the version to start from")
    parser.add_argument("--out", metavar="NAME", help="dataset that the new version belongs to (default: the same)")
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="where steps that go row by row run: in this process, or on Ray's actors (extra ray); same result",
    )
    parser.add_argument(
        "--workers", type=arguments.positive, default=os.cpu_count() or 1, metavar="N", help="actors of --engine ray"
    )
    options = parser.parse_args(argv)
    recipe = read_recipe(options.recipe)
    if options.engine == "ray":
        from data_pipelines.recipes.ray_engine import ray_engine

        with ray_engine(options.workers) as engine:
            result = run_recipe(recipe, options.data, out=options.out, engine=engine)
    else:
        result = run_recipe(recipe, options.data, out=options.out)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def run_recipe(recipe: Recipe, data: str, *, out: str | None = None, engine: Engine = one_by_one) -> dict[str, Any]:
    """What was kept, dropped and measured by each step, and the version made.

    Raises VersionError for unknown data, DataError where no row is left. A killed run continues where it stopped.
    """
    with draft_folder(home() / "runs" / "input") as folder:
        with open_warehouse(read_only=True) as connection:
            version_id = resolve(connection, data)
            version = get(connection, version_id)
            gold = sorted({ref for _, config in recipe.steps if (ref := getattr(config, "gold", ""))})
            frames = {ref: as_frame(checkout(connection, resolve(connection, ref))) for ref in gold}
            context = Context(gold=frames)
            if any(name == "contamination" for name, _ in recipe.steps):
                context = replace(context, benchmarks=_benchmarks(connection))
            config = run_config(recipe.resolved() | {"data": version.digest})
            recorded = {row[0] for row in run(connection, _RECORDED)}
            pieces = map(as_frame, stream(connection, version_id, votes=True))
            if (first := next(pieces, None)) is None:
                raise DataError(f"{version.ref} has no rows to run {recipe.name} on")
            inputs = write_parts(folder, itertools.chain([first], pieces))
        forget(recorded - {config})
        cleaned, done = run_steps(
            inputs, recipe.steps, context=context, input_digest=version.digest, run=config, engine=engine
        )
        if not cleaned.n_rows:
            raise DataError(
                f"recipe {recipe.name} dropped all {inputs.n_rows} rows ({_worst(done)}); no version was made"
            )
        result = record(recipe.name, recipe.resolved(), cleaned, done=done, version_id=version_id, out=out)
    forget({config}, done)
    return result


_RECORDED = "SELECT config FROM run WHERE kind = 'recipe' AND status = 'done'"


def _benchmarks(connection: Any) -> pl.DataFrame:
    """Context.benchmarks: every unit that came from a source marked as a benchmark, in the order of its text's hash."""
    rows = connection.sql(
        "SELECT DISTINCT ON (source.name, unit_id) source.name, coalesce(source_row, 'line ' || line) AS source_row, "
        "prompt.messages AS prompt, resp_ids, prompt.h FROM source JOIN unit_source USING (source_id) "
        "JOIN unit USING (unit_id) JOIN prompt USING (prompt_id) WHERE is_benchmark AND prompt.messages IS NOT NULL "
        "ORDER BY source.name, unit_id, line"
    ).pl()
    texts = dict(run(connection, _BENCHMARK_RESPONSES))
    responses = [[texts[each] for each in ids if texts.get(each)] for ids in rows["resp_ids"]]
    result: pl.DataFrame = rows.with_columns(responses=pl.Series(responses, dtype=pl.List(pl.String))).sort(
        "name", "h", "source_row"
    )
    return result.select(*Context().benchmarks.columns)


_BENCHMARK_RESPONSES = """
SELECT resp_id, messages FROM response SEMI JOIN (
    SELECT unnest(resp_ids) AS resp_id FROM unit JOIN unit_source USING (unit_id) JOIN source USING (source_id)
    WHERE is_benchmark
) used USING (resp_id)
"""


def _worst(done: list[StepRun]) -> str:
    step = max(done, key=lambda each: len(each.dropped))
    return f"{step.name} alone {len(step.dropped)}"


def _text(result: dict[str, Any]) -> str:
    """A table of the steps, then what was made."""
    rows = []
    for step in result["steps"]:
        reasons = sorted(step["reasons"].items(), key=lambda item: -item[1])[:3]
        why = ", ".join(f"{count} {reason}" for reason, count in reasons)
        seconds = "reused" if step["reused"] else f"{step['wall_s']:.1f}"
        rows.append((step["step"], step["n_in"], step["n_kept"], step["n_dropped"], seconds, why))
    table = display.table(("step", "in", "kept", "dropped", "s", "why"), rows)
    summary = [(step["step"], step["facts"]) for step in result["steps"]]
    notes = [f"{name}: {facts[key]}" for name, facts in summary for key in ("note", "warning") if key in facts]
    output = f"{result['version']} ({result['digest'][:12]}): {result['rows_out']} of {result['rows_in']} rows"
    return "\n".join([table, *notes, output if result["changed"] else f"nothing changed: {output}"])
