"""What the documentation names exists, and what exists is documented."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rmkit.cli.main import COMMANDS, call, commands, usage
from rmkit.cli.verbs import Command, Verbs

ROOT = Path(__file__).parents[1]
NAMES = [name for group in COMMANDS.values() for name in group]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_documented(name: str) -> None:
    assert f"\n## rmkit {name}\n" in (ROOT / "docs" / "commands.md").read_text()


def test_every_sub_command_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert not [place for place in _places(commands()) if f"rmkit {place}" not in text]


def _places(members: Mapping[str, Command], before: str = "", default: str | None = None) -> Iterator[str]:
    """The words of each command, sub-commands after the command that has them; a default needs no words."""
    for name, command in members.items():
        if name != default:
            yield f"{before}{name}"
        if isinstance(run := command.load(), Verbs):
            yield from _places(run.verbs, f"{before}{name} ", run.default)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = call(name, ["--help"])
    except SystemExit as stopped:  # argparse's way
        status = stopped.code
    said = capsys.readouterr().out
    assert status == 0
    assert f"usage: rmkit {name}" in said
    assert re.search(rf"examples:\n  rmkit {name}", said)


def test_usage_names_every_command() -> None:
    assert all(f"  {name} " in usage() for name in NAMES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_exist(page: Path) -> None:
    blocks = re.findall(r"```(?:sh|console|bash)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    used = [shlex.split(line, comments=True)[1] for line in lines if line.startswith("rmkit ")]
    assert set(used) - {"--debug", "--help", "--version"} <= set(NAMES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]
