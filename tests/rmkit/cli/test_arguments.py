"""Arguments: defaults and settings in the help, one line for every error, the nearest word for one that is unknown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from rmkit.cli import arguments
from rmkit.cli import main as cli
from rmkit.cli.verbs import Command, Verbs
from rmkit.config import Option, build, options
from rmkit.errors import ConfigError, UsageError


@dataclass(frozen=True, kw_only=True)
class Brewing:
    """Tea. `minutes` is how long it draws. Water: `celsius`; `hard` says that it has lime.

    Unrelated words.
    """

    leaf: Literal["green", "black"] = "green"
    minutes: float = 3.0
    celsius: Annotated[int | None, "temperature of the water, degrees Celsius"] = None
    cups: Annotated[int, "how many"]
    hard: bool = False
    names: tuple[str, ...] = ("a", "b")
    zero: int = 0


def test_a_config_lists_its_settings() -> None:
    listed = {option.name: option for option in options(Brewing)}
    assert list(listed) == ["leaf", "minutes", "celsius", "cups", "hard", "names", "zero"]
    assert listed["leaf"] == Option("leaf", "one of green, black", "green", False, "")
    assert listed["minutes"] == Option("minutes", "number", 3.0, False, "`minutes` is how long it draws")
    assert listed["celsius"].help == "temperature of the water, degrees Celsius"
    assert (listed["celsius"].kind, listed["celsius"].default) == ("whole number", None)
    assert (listed["cups"].kind, listed["cups"].required) == ("whole number", True)
    assert listed["hard"].help == "`hard` says that it has lime"


def test_annotated_fields_are_built_as_their_type() -> None:
    assert build(Brewing, {"cups": 2, "celsius": 90}, where="tea").celsius == 90
    with pytest.raises(ConfigError, match="tea: celsius: expected int, got 'hot'"):
        build(Brewing, {"cups": 2, "celsius": "hot"}, where="tea")


def _brew(argv: list[str]) -> int:
    parser = arguments.parser("brew", "Make tea.", examples=["brew --set cups=2"])
    parser.add_limit(5)
    parser.add_split("train")
    parser.add_argument("--kind", choices=("green", "black"), help="what leaf")
    parser.add_config(Brewing, hidden=["zero"])
    given = parser.parse_args(argv)
    print(arguments.settings(Brewing, given, where="brew", named={"hard": None, "minutes": 1.0}))
    return 0


def test_help_lists_defaults_and_settings_with_their_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit) as stopped:
        _brew(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "the first so many rows (default 5)" in out
    assert "split to read, or all (default train)" in out
    assert "  leaf     one of green, black (default green)\n" in out
    assert "  celsius  temperature of the water, degrees Celsius; whole number (default none)\n" in out
    assert "  cups     how many; whole number (required)\n" in out
    assert "  names    list of text (default a, b)\n" in out
    assert "  hard     `hard` says that it has lime; true or false (default false)\n" in out
    assert "\n  zero" not in out
    assert "examples:\n  rmkit brew --set cups=2\n" in out


def test_set_stands_above_the_file_and_named_options_above_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tea.toml"
    file.write_text("cups = 3\nminutes = 9\ncelsius = 70\nhard = true\n")
    _brew(["--config", str(file), "--set", "celsius = 80", "--set", "leaf=black"])
    said = capsys.readouterr().out
    assert "leaf='black', minutes=1.0, celsius=80, cups=3, hard=True" in said


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--splt", "test"], "unknown option '--splt'; did you mean '--split'? Known: -h, "),
        (["extra"], "unexpected argument 'extra'; see: rmkit brew --help"),
        (["--limit", "0"], "argument --limit: must be 1 or more, got 0; see: rmkit brew --help"),
        (["--limit", "many"], "argument --limit: expected a whole number of at most 19 digits, got 'many'"),
        (["--kind", "blak"], "argument --kind: unknown value 'blak'; did you mean 'black'? Known: green, black"),
        (["--set", "cups"], "--set takes KEY=VALUE, got 'cups'"),
        (["--set", "cpus=2"], "brew: unknown key 'cpus'; did you mean 'cups'? Known: leaf, "),
    ],
)
def test_errors_are_one_line_with_the_nearest_word(
    argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "kitchen", {"brew": Command(_brew, "tea")})
    assert cli.main(["brew", *argv]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"rmkit: {message}")
    assert said.err.count("\n") == 1
    assert said.out == ""


KITCHEN = Verbs("kitchen", "What a kitchen does.", {"brew": Command(_brew, "tea")}, examples=["kitchen brew"])


def test_verbs_call_list_and_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert KITCHEN(["brew", "--set", "cups=2"]) == 0
    assert "cups=2" in capsys.readouterr().out
    assert KITCHEN(["--help"]) == 0
    assert KITCHEN.usage() in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"unknown verb of rmkit kitchen 'bruw'; did you mean 'brew'\? Known: brew"):
        KITCHEN(["bruw"])
    with pytest.raises(UsageError, match="rmkit kitchen takes a verb: brew"):
        KITCHEN([])


def test_a_default_verb_takes_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    kitchen = Verbs("kitchen", "", {"brew": Command(_brew, "tea")}, examples=[], default="brew")
    assert kitchen(["--set", "cups=4"]) == 0
    assert "cups=4" in capsys.readouterr().out
    with pytest.raises(UsageError):
        kitchen(["cups"])


def test_a_parser_is_collected_without_running_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    parser = arguments.parser_of(_brew)
    assert parser.prog == "rmkit brew"
    assert {"--limit", "--set", "--json"} <= {name for action in parser._actions for name in action.option_strings}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("export hh -o s33://bucket/x", "s33://bucket/x: unknown scheme 's33://'; did you mean 's3://'?"),
        ("backup s33://bucket/x", "unknown scheme"),
        ("restore s33://bucket/x", "unknown scheme"),
        ("ingest s33://bucket/x", "unknown scheme"),
        ("export hh -o https://example.org/x", "https://example.org/x can be read, not written to"),
        ("loop expert_iteration --data hh -o s3://bucket/x", "s3://bucket/x is an address, and only files and folders"),
    ],
)
def test_an_address_where_none_belongs_is_refused_and_leaves_nothing(
    command: str,
    why: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == 2
    assert why in (message := capsys.readouterr().err)
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
