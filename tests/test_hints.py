"""Every command, sub-command and option that a message or a page tells people to use exists."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from rmkit.cli.main import COMMANDS, call
from rmkit.errors import UsageError

ROOT = Path(__file__).parents[1]
ROOMS = ("rmkit", "rubrics", "warehouse", "data_pipelines", "evaluation", "labeling_ui")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [name for group in COMMANDS.values() for name in group]
HOLE = "\N{REPLACEMENT CHARACTER}"  # what an f-string fills in
# After a colon, a bracket or "with" it is a command; elsewhere it may be a sentence about rmkit.
HINT = re.compile(
    r"(?m)(?P<named>^\s*(?:\$ )?|[:`(] ?|\bwith |\brun |\bsee )?\brmkit (?P<rest>[a-z][^\n;,()`\"'|\[\]]*)"
)


def texts_of(path: Path) -> Iterator[str]:
    """The strings of a source file, f-strings with holes, without docstrings; of a page what stands as code."""
    text = path.read_text()
    if path.suffix == ".md":
        for block, inline in re.findall(r"(?s)```(?:sh|console|bash)\n(.*?)```|`(rmkit [^`]+)`", text):
            yield block or inline
        return
    if not re.search(r"rmkit (?!import )[a-z\"']", text):
        return
    nodes = list(ast.walk(ast.parse(text)))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    prose = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | prose:
            yield node.value


def hints(path: Path) -> set[tuple[str, ...]]:
    """(command, its first words where they may be verbs, options ...) of each hint."""
    found = set()
    for text in texts_of(path):
        for line in HINT.finditer(text.replace("\\\n", " ")):
            words = re.split(r"\s{2,}|[.:]\s|\s#", line["rest"] + " ")[0].split()
            verbs = list(itertools.takewhile(re.compile(r"[a-z][a-z_-]*$").match, words[1:3]))
            options = [option for word in words if (option := re.match(r"--[a-z][a-z-]*", word))]
            name = words[0].rstrip(".:")
            if name in NAMES or line["named"]:
                found.add((name, " ".join(verbs), *sorted(option[0] for option in options)))
    return found


@functools.cache
def help_of(name: str, *words: str) -> str:
    """What `rmkit NAME WORDS --help` prints; empty where there is no such verb."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            status = call(name, [*words, "--help"])
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else 0
        except UsageError:
            status = 2
    return "" if status else out.getvalue()


def test_what_is_named_exists() -> None:
    for path in (*SOURCES, *PAGES):
        for name, verb, *options in hints(path):
            assert name in NAMES, f"{path}: rmkit {name}: no such command"
            first, _, second = verb.partition(" ")
            told = help_of(name, *filter(None, [first]))
            deeper = help_of(name, first, second) if second else ""
            if f"rmkit {name} {verb}" in deeper:  # where the second word is a verb and no argument
                told = deeper
            assert told, f"{path}: rmkit {name} {verb}: no such verb"
            missing = {option for option in options if option not in told} - {"--json", "--help", "--debug"}
            assert not missing, f"{path}: rmkit {name} {verb} has no {missing}"


def test_a_hint_that_is_wrong_would_be_seen(tmp_path: Path) -> None:
    source = tmp_path / "hints.py"
    source.write_text(
        'a = f"{1}; open it with: rmkit label --project {2} (or: rmkit labels list, or rmkit train froze)"\n'
    )
    assert hints(source) == {("label", "", "--project"), ("labels", "list"), ("train", "froze")}
    assert "--project" not in help_of("label")
    assert help_of("train", "froze") == help_of("label", "lists") == ""
