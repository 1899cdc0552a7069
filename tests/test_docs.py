"""What the documentation names exists, and what exists is documented."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from rmkit.cli import arguments
from rmkit.cli.arguments import parser_of
from rmkit.cli.main import COMMANDS, call, commands, usage
from rmkit.cli.verbs import Command, Run, Verbs

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


def _parsed(line: str) -> None:
    """The line as its command would parse it, without running it. Raises UsageError for what it does not take."""
    words = [word for word in shlex.split(line, comments=True) if word not in ("\\", "&")]
    for end in (">", "|", ">>", "&&", ";"):
        words = words[: words.index(end)] if end in words else words
    run: Run | None = None
    members, rest = commands(), [word for word in words[1:] if word != "--debug"]
    while rest and not rest[0].startswith("-"):
        run = members[rest[0]].load()
        rest = rest[1:]
        if not isinstance(run, Verbs):
            break
        members = run.verbs
        if run.default and (not rest or rest[0].startswith("-")):
            rest = [run.default, *rest]
    if isinstance(run, Verbs) or run is None or "--help" in rest:
        return
    parser_of(run).parse_args(rest)


def _lines(text: str) -> list[str]:
    return re.sub(r"\$\(.*?\)", "WORD", re.sub(r"\\\n\s*", " ", text)).splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_are_taken_by_their_parsers(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "fetch", Path)
    monkeypatch.setattr(arguments, "staged", lambda address, **_: Path(address))
    blocks = re.findall(r"```(?:sh|console|bash)\n(.*?)```", page.read_text(), re.DOTALL)
    for line in (line.removeprefix("$ ") for block in blocks for line in _lines(block)):
        if line.startswith("rmkit "):
            _parsed(line)


@pytest.mark.parametrize("place", sorted(_places(commands())))
def test_examples_of_a_command_are_taken_by_its_parser(place: str) -> None:
    first, *more = place.split()
    run = commands()[first].load()
    for name in more:
        run = run.verbs[name].load()
    text = run.usage() if isinstance(run, Verbs) else parser_of(run).epilog
    for line in _lines(text.partition("examples:\n")[2]):
        _parsed(line.strip())


def _containers(node: object) -> Iterator[Mapping[str, object]]:
    """Every table below that names an image of rmkit, of compose's services and of Kubernetes' pods alike."""
    if isinstance(node, Mapping):
        if str(node.get("image", "")).startswith("rmkit") and ("args" in node or "command" in node):
            yield node
        for below in node.values():
            yield from _containers(below)
    elif isinstance(node, list):
        for below in node:
            yield from _containers(below)


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_commands_of_the_deployments_are_taken_by_their_parsers(name: str) -> None:
    containers = list(_containers(list(yaml.safe_load_all((ROOT / "docs" / "deploy" / name).read_text()))))
    for container in containers:
        _parsed(shlex.join(["rmkit", *(container.get("args") or container["command"])]))
    assert len(containers) == 3
