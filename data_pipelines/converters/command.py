"""`rmkit convert NAME`: a dataset version into one of another kind of units."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from data_pipelines.converters import converter
from data_pipelines.converters.runner import convert
from rmkit import plugins
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs


def _summary(name: str) -> str:
    """The first sentence of the converter's own text."""
    return " ".join((inspect.getdoc(converter(name)) or name).partition("\n\n")[0].split()).rstrip(".")


def _run(name: str, argv: list[str]) -> int:
    module = converter(name)
    example = f"convert {name} --data corrections --out {name}-of-corrections"
    parser = arguments.parser(f"convert {name}", _summary(name), examples=[example])
    parser.add_data(help="the version to convert")
    parser.add_argument("--out", metavar="NAME", required=True, help="dataset that the new version belongs to")
    parser.add_config(module.Config)
    options = parser.parse_args(argv)
    config = arguments.settings(module.Config, options, where=f"converter {name}")
    result = convert(name, options.data, options.out, config)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def _text(result: dict[str, Any]) -> str:
    (step,) = result["steps"]
    united = (
        f" ({step['facts']['equal_units_united']} equal ones united)" if step["facts"]["equal_units_united"] else ""
    )
    lines = [
        f"{result['data']}: {step['n_kept']} of {step['n_in']} rows gave {step['facts']['units']} units{united}",
        *(f"  {n} rows gave none: {reason}" for reason, n in step["reasons"].items()),
        f"{result['version']} ({result['digest'][:12]})" + ("" if result["changed"] else ": nothing changed"),
    ]
    return "\n".join(lines)


main = Verbs(
    "convert",
    "Make units of another kind out of a dataset version; an example that gives none is recorded with the reason.",
    {name: Command(partial(_run, name), _summary(name)) for name in plugins.names("converters")},
    examples=["convert edits --data jfleg --out jfleg-pairs", "convert demonstrations --data jfleg --out jfleg-sft"],
    word="CONVERTER",
)
