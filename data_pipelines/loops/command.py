"""`rmkit loop`: run a self-improving loop on a dataset version."""

from __future__ import annotations

from collections import Counter
from typing import Any

from data_pipelines.loops.loop import Loop, read_loop, shipped
from data_pipelines.loops.page import number
from data_pipelines.loops.runner import PAGE, LoopResult, run_loop
from rmkit import paths
from rmkit.cli import arguments, display


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "loop",
        "Sample, score, select, train, again: a TOML of steps. The same command goes on where it was cut off.",
        examples=[
            "loop upo --data hh@v2 --set policy=models/policy --set reward=models/hh-frozen -o runs/upo-hh",
            "loop upo --help                     # the steps and settings of one loop",
            "loop my_loop.toml --data hh --set rounds=5 --max-usd 20",
        ],
    )
    parser.add_argument("loop", help=f"a TOML file, or one of: {', '.join(shipped())}")
    parser.add_data(help="the version to start from")
    parser.add_argument("--out", metavar="NAME", help="dataset of the rounds' versions (default: the folder's name)")
    parser.add_argument("--max-usd", type=float, metavar="USD", help="what all calls of the loop may cost together")
    parser.add_output("folder of the rounds: artifacts, and loop.md with all numbers", type=arguments.local_path)
    parser.add_config()
    if argv and not argv[0].startswith("-") and {"-h", "--help"} & set(argv):
        print(_help(read_loop(argv[0])))
        return 0
    options = parser.parse_args(argv)
    loop = read_loop(options.loop).with_settings(arguments.set_values(options))
    slug = f"{loop.name}-{options.data.replace('@', '-')}"
    folder = options.output or paths.home() / "loops" / slug
    result = run_loop(loop, options.data, folder=folder, dataset=options.out, max_usd=options.max_usd)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def _help(loop: Loop) -> str:
    counts = Counter(step.once for step in loop.steps)
    lines = [f"rmkit loop {loop.name} --data NAME[@REF] --set KEY=VALUE ...", "", loop.description, ""]
    for once, title in ((True, "before the first round:"), (False, f"each of {loop.rounds} rounds:")):
        if counts[once]:
            lines += [title] + [f"  {step.use}" for step in loop.steps if step.once is once] + [""]
    lines += ["settings, as --set KEY=VALUE or in the TOML of --config:"]
    lines += [f"  {'rounds':<22}how many (default {loop.rounds})"]
    for name, setting in loop.settings.items():
        default = "required" if setting.default is None else f"default {setting.default}"
        lines.append(f"  {name:<22}{setting.help} ({default})")
    return "\n".join(lines)


def _text(result: LoopResult) -> str:
    rows = []
    for record in result.steps:
        for step, facts in record.facts.items():
            numbers = [f"{key} {number(value)}" for key, value in facts.items() if _is_number(value)]
            rows.append((record.round or "before", step, ", ".join(numbers[:6])))
    end = [f"{name}: {value}" for name, value in result.names.items()]
    return "\n".join([display.table(("round", "step", "numbers"), rows), *end, f"all numbers: {result.folder / PAGE}"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
