"""`rmkit suites`: the benchmarks that ship, what each needs and whether its data is at hand."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.suites.load import data_at_hand
from evaluation.suites.suite import Suite, load_suite, names
from rmkit.cli import arguments, display
from rmkit.errors import UsageError, unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRow:
    """`files` are the names looked for in a folder, `here` those that lie in $RMKIT_BENCHMARKS, `hub` where it is read
    from where none does; `where` says what the data is."""

    name: str
    title: str
    rule: str
    form: str
    importers: tuple[str, ...]
    headline: str
    subsets: tuple[str, ...]
    license: str
    paper: str
    note: str
    files: tuple[str, ...]
    hub: str
    where: str
    here: tuple[str, ...]


def listed(suite: Suite) -> SuiteRow:
    """What there is to know of a suite before its data is read."""
    return SuiteRow(
        name=suite.name,
        title=suite.title,
        rule=suite.rule,
        form=suite.form,
        importers=suite.importers,
        headline=suite.headline.name,
        subsets=tuple(subset.name for subset in suite.subsets),
        license=suite.license,
        paper=suite.paper,
        note=suite.note,
        files=(*suite.files, *(name for group in suite.originals for name in group)),
        hub=suite.hub,
        where=suite.where,
        here=tuple(path.name for path in data_at_hand(suite)),
    )


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "suites",
        "The benchmarks that rmkit eval knows: title, rule, headline, and where the data is expected.",
        examples=["suites", "suites prmbench", "suites --json"],
    )
    parser.add_argument("names", nargs="*", metavar="SUITE", help="these alone, with everything that is known of them")
    options = parser.parse_args(argv)
    if wrong := [name for name in options.names if name not in names()]:
        raise UsageError(unknown("suite", wrong[0], names()))
    rows = [listed(load_suite(name)) for name in options.names or names()]
    if options.names:
        text = "\n\n".join(map(_details, rows))
    else:
        cells = [(row.name, row.rule, row.headline, _place(row), row.title) for row in rows]
        text = display.table(("suite", "rule", "headline", "data", "what"), cells)
        text += "\n\nrmkit eval MODEL --suite NAME [--data FILE|FOLDER]; all of one: rmkit suites NAME"
    display.emit({"suites": rows}, as_json=options.json, text=text)
    return 0


def _place(row: SuiteRow) -> str:
    if row.here:
        return "here"
    return "hub" if row.hub else "--data"


def _details(row: SuiteRow) -> str:
    facts = {
        "rule": row.rule,
        "rows": f"{row.form}, read by {', '.join(row.importers)}" if row.importers else row.form,
        "headline": row.headline,
        "subsets": ", ".join(row.subsets) or "as the data names them",
        "data": row.where or (f"{row.hub} on the hub" if row.hub else "a file of your own"),
        "files": ", ".join(row.files),
        "hub": row.hub,
        "here": ", ".join(row.here),
        "license": row.license,
        "paper": row.paper,
        "note": row.note,
    }
    lines = [f"  {name:<10}{value}" for name, value in facts.items() if value]
    return "\n".join([f"{row.name}: {row.title}", *lines])
