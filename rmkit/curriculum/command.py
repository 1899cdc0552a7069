"""`rmkit prompts show|propose|export|new|hints`: the prompt book on the command line."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.curriculum.book import BANDITS, PromptBook
from rmkit.curriculum.flags import FLAGS
from rmkit.curriculum.record import BookSettings, PromptRecord
from rmkit.curriculum.utilities import UTILITIES
from rmkit.errors import DataError, UsageError
from rmkit.ledger import open_ledger

COLUMNS = ("prompt", "category", "pass_rate", "n", "groups", "unscored", "bucket", "flags")


def _show(argv: list[str]) -> int:
    parser = _parser("show", "What is known of prompts, hardest first, and of categories.", ["prompts show --limit 20"])
    parser.add_argument("prompt", nargs="*", help="prompts to show (default: all)")
    parser.add_limit(50, help="the first so many prompts")
    options = parser.parse_args(argv)
    with open_ledger(read_only=True) as ledger:
        book = PromptBook(ledger, options.book, read_only=True)
        book.refresh()
        known = book.prompts()
        if missing := [name for name in options.prompt if name not in known]:
            raise UsageError(f"the book {options.book!r} does not know {missing[0]!r}; it knows {len(known)} prompts")
        chosen = options.prompt or sorted(known, key=lambda name: (known[name].pass_rate, name))
        rows = [_row(name, known[name], book) for name in chosen]
        arms = {name: {"value": arm.value, "rollouts": arm.n} for name, arm in sorted(book.arms().items())}
    counts: dict[str, int] = {"prompts": len(known), "tried": sum(one.n > 0 for one in known.values())}
    for flag in FLAGS:
        counts[flag] = sum(flag in one.flags(book.settings) for one in known.values())
    lines = [", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())]
    if rows:
        header = [name.replace("_", " ") for name in COLUMNS]
        lines += ["", display.table(header, [[row[name] for name in COLUMNS] for row in rows[: options.limit]])]
    if arms:
        table = [[name or "(none)", one["value"], one["rollouts"]] for name, one in arms.items()]
        lines += ["", display.table(("category", "value", "rollouts"), table)]
    result = {"counts": counts, "prompts": rows[: options.limit], "categories": arms}
    display.emit(result, as_json=options.json, text="\n".join(lines))
    return 0


def _propose(argv: list[str]) -> int:
    parser = _parser(
        "propose",
        "Prompts to train on next, best first, one a line.",
        ["prompts propose -n 64", "prompts propose -n 64 --utility variance --skip all_fail --among prompts.txt"],
    )
    parser.add_argument("-n", type=arguments.positive, default=32, metavar="N", help="how many")
    parser.add_argument("--utility", choices=UTILITIES, default="half", help="what makes a prompt worth training on")
    parser.add_argument("--bandit", choices=BANDITS[1:], help="draw categories first: sec or dump")
    parser.add_argument("--skip", action="append", default=[], choices=FLAGS, help="leave out prompts with this flag")
    parser.add_argument("--among", type=Path, metavar="FILE", help="one prompt a line (default: all that are known)")
    parser.add_seed(None, help="of the draw (default: another each time)")
    options = parser.parse_args(argv)
    among = None if options.among is None else [line for line in _lines(options.among) if line]
    with open_ledger(read_only=True) as ledger:
        proposals = PromptBook(ledger, options.book, read_only=True).propose(
            options.n,
            utility=options.utility,
            among=among,
            bandit=options.bandit or "",
            seed=options.seed,
            skip=options.skip,
        )
    text = "\n".join(one.prompt for one in proposals) or "the book knows no prompt; observe some first"
    display.emit({"proposals": [asdict(one) for one in proposals]}, as_json=options.json, text=text)
    return 0


def _export(argv: list[str]) -> int:
    parser = _parser("export", "The whole book as JSON lines, one prompt each.", ["prompts export -o book.jsonl"])
    parser.add_output("file to write (default: standard output)")
    options = parser.parse_args(argv)
    with open_ledger(read_only=True) as ledger:
        book = PromptBook(ledger, options.book, read_only=True)
        book.refresh()
        known = sorted(book.prompts().items())
        rows = [_row(name, one, book) | {"wins": [list(win) for win in one.wins]} for name, one in known]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if options.output is None:
        sys.stdout.write(text)
        return 0
    write_text(options.output, text)
    result = {"prompts": len(rows), "path": str(options.output)}
    display.emit(result, as_json=options.json, text=f"{len(rows)} prompts in {options.output}")
    return 0


def _hints(argv: list[str]) -> int:
    parser = _parser(
        "hints",
        'Store hints for prompts from JSON lines {"prompt": ..., "hints": [weakest, ..., strongest]}.',
        ["prompts hints hints.jsonl"],
    )
    parser.add_argument("file", type=Path, help="JSON lines")
    options = parser.parse_args(argv)
    rows = [_hint_row(line, number, options.file) for number, line in enumerate(_lines(options.file), 1) if line]
    with open_ledger() as ledger:
        book = PromptBook(ledger, options.book)
        for prompt, hints in rows:
            book.set_hints(prompt, hints)
    display.emit({"prompts": len(rows)}, as_json=options.json, text=f"hints of {len(rows)} prompts stored")
    return 0


def _new(argv: list[str]) -> int:
    parser = arguments.parser(
        "prompts new", "Begin a book that counts in its own way.", examples=["prompts new run-7 --set decay=0.9"]
    )
    parser.add_argument("book", help="its name")
    parser.add_config(BookSettings)
    options = parser.parse_args(argv)
    settings = arguments.settings(BookSettings, options, where="prompts new")
    with open_ledger() as ledger:
        PromptBook(ledger, options.book, settings=settings)
    display.emit(
        {"book": options.book, **asdict(settings)}, as_json=options.json, text=f"the book {options.book} is begun"
    )
    return 0


def _parser(verb: str, summary: str, examples: list[str]) -> arguments.Parser:
    parser = arguments.parser(f"prompts {verb}", summary, examples=examples)
    parser.add_argument("--book", default="default", metavar="NAME", help="which book")
    return parser


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error


def _hint_row(line: str, number: int, path: Path) -> tuple[str, list[str]]:
    try:
        row = json.loads(line)
        prompt, hints = row["prompt"], row["hints"]
        if isinstance(prompt, str) and isinstance(hints, list) and all(isinstance(hint, str) for hint in hints):
            return prompt, hints
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f'{path}, line {number}: expected {{"prompt": "...", "hints": ["...", ...]}}, got {line[:80]!r}')


def _row(name: str, one: PromptRecord, book: PromptBook) -> dict[str, Any]:
    return {
        "prompt": name,
        "category": one.category,
        "parent": one.parent,
        "pass_rate": one.pass_rate if one.n else None,
        "baseline": one.average.baseline,
        "n": one.n,
        "groups": one.groups,
        "unscored": one.unscored,
        "advantage": one.advantage,
        "bucket": one.bucket,
        "flags": list(one.flags(book.settings)),
        "tier": one.tier,
        "stage": one.stage,
    }


main = Verbs(
    "prompts",
    "The prompt book: what is known of a run's prompts, and which to train on next.",
    {
        "show": Command(_show, "pass rates, flags, buckets; categories"),
        "propose": Command(_propose, "prompts to train on next"),
        "export": Command(_export, "the whole book as JSON lines"),
        "new": Command(_new, "begin a book with settings of its own"),
        "hints": Command(_hints, "store hints, weakest first"),
    },
    examples=["prompts show", "prompts propose -n 64 --utility half", "prompts export -o book.jsonl"],
)
