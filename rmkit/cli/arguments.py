"""The parser of a command: arguments that commands share, settings of a config class, errors of one line.

A command is a function of its arguments that begins with

    parser = arguments.parser("score", "Score prompts with their responses.", examples=["score MODEL FILE -o scores"])
    parser.add_model()
    options = parser.parse_args(argv)
"""

from __future__ import annotations

import argparse
import contextvars
import math
import os
import shlex
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from rmkit import config
from rmkit.devices import DEVICE, chosen
from rmkit.errors import UsageError, unknown
from rmkit.storage.address import is_address, redacted
from rmkit.storage.fetch import fetch
from rmkit.storage.staged import staged

MODEL = (
    "artifact folder (here or at s3://BUCKET/KEY), judge's TOML or judge:FOLDER?prompt=pairwise, stored name, "
    "NAME@ALIAS, a kind without a folder (`length`), a service's URL, or somebody else's model: a Hub id "
    "ORG/NAME[@REVISION] or its folder"
)
ARTIFACT = "artifact folder, name under $RMKIT_HOME/models, NAME@ALIAS, or somebody else's model (Hub id, folder)"
DATA = "dataset version NAME@VERSION, or an export folder, here or at s3://BUCKET/KEY"

Config = TypeVar("Config")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Defaults stand behind the help of their options."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        plain = isinstance(action.default, str | int | float) and not isinstance(action.default, bool)
        if plain and action.default not in ("", argparse.SUPPRESS) and "default" not in text:
            return f"{text} (default %(default)s)".lstrip()
        return action.help


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors, with a method for each argument that commands share."""

    def add_model(self, name: str = "model", *, help: str = MODEL, **options: Any) -> None:
        self.add_argument(name, help=help, **options)

    def add_models(self, name: str = "models", *, nargs: str = "+", help: str = MODEL, **options: Any) -> None:
        self.add_argument(name, metavar=options.pop("metavar", "MODEL"), nargs=nargs, help=help, **options)

    def add_data(self, name: str = "--data", *, help: str = DATA, **options: Any) -> None:
        """`--data`, required unless `required` says otherwise; or a positional `data`."""
        if name.startswith("-"):
            options = {"required": True, "metavar": "DATA"} | options
        self.add_argument(name, help=help, **options)

    def add_split(self, default: str = "all", *, help: str = "split to read, or all") -> None:
        self.add_argument("--split", default=default, help=help)

    def add_suite(self, *, help: str = "a suite's name, or the path of a .toml", **options: Any) -> None:
        """`--suite`, required unless `required` says otherwise, with --data and --allow-changed for where its data
        lies."""
        self.add_argument("--suite", required=options.pop("required", True), help=help, **options)
        self.add_argument(
            "--data", help="file, folder or NAME@VERSION[:SPLIT] (default $RMKIT_BENCHMARKS, else the hub)"
        )
        self.add_argument("--allow-changed", action="store_true", help="accept other counts or contents than declared")

    def add_output(self, help: str, *, type: Callable[[str], Path | _Address] | None = None, **options: Any) -> None:
        """`-o PATH`, a file or a folder that is written once; what is gone on with wants type=local_path."""
        self.add_argument("-o", "--output", type=type or output_path, metavar="PATH", help=help, **options)

    def add_page(self, *, help: str = "write the results page (Markdown)") -> None:
        self.add_argument("--page", type=output_path, metavar="PATH", help=help)

    def add_seed(self, default: int | None = 0, *, help: str = "of everything random") -> None:
        self.add_argument("--seed", type=int, default=default, metavar="N", help=help)

    def add_limit(self, default: int | None = None, *, help: str = "the first so many rows") -> None:
        self.add_argument("--limit", type=positive, default=default, metavar="N", help=help)

    def add_device(self) -> None:
        self.add_argument(
            "--device",
            type=device,
            metavar="NAME",
            help="that models compute on: cpu, cuda, cuda:1, mps (default: $RMKIT_DEVICE, else a GPU if there is one)",
        )

    def add_workers(self) -> None:
        self.add_argument("--workers", type=positive, metavar="N", help="processes (default: one a core)")

    def add_encoder(self, *, help: str = "frozen encoder: minilm or a folder") -> None:
        self.add_argument("--encoder", default="minilm", help=help)

    def add_resume(self) -> None:
        """--resume [auto] and --restart of training that keeps checkpoints."""
        self.add_argument(
            "--resume",
            nargs="?",
            const=True,
            default=False,
            choices=("auto",),
            metavar="auto",
            help="go on from the last checkpoint of an interrupted run; auto: begin where there is none, and give back "
            "what is finished, so that one command can be repeated",
        )
        self.add_argument("--restart", action="store_true", help="throw an interrupted run away and begin anew")

    def add_allow_benchmark(self) -> None:
        self.add_argument("--allow-benchmark", action="store_true", help="although the data holds benchmark rows")

    def add_paid_calls(self) -> None:
        """--dry-run, --max-usd and --max-tokens of commands that ask a paid model."""
        self.add_argument("--dry-run", action="store_true", help="count calls and estimate the cost; call nobody")
        self.add_argument("--max-usd", type=float, metavar="USD", help="stop before the calls could cost more")
        self.add_argument("--max-tokens", type=positive, metavar="N", help="stop before the calls could use more")

    def add_config(self, *classes: type[Any], hidden: Iterable[str] = ()) -> None:
        """--config TOML and --set KEY=VALUE; --help lists the settings but for `hidden` ones."""
        self.add_argument("--config", type=Path, metavar="TOML", help="a file of settings")
        self.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, over the file (repeatable)"
        )
        title = "settings, as --set KEY=VALUE or as KEY = VALUE in the file of --config"
        self.epilog = f"{title}:\n{settings_text(*classes, hidden=hidden)}\n\n{self.epilog or ''}"

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """The options. Raises UsageError: an unknown option gets the nearest one."""
        if (collect := _COLLECT.get()) is not None:
            collect(self)
        options: argparse.Namespace
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(self._unexpected(rest[0]))
        resumes = getattr(options, "resume", False) == "auto"
        for name, value in vars(options).items():  # after all else was found right: this asks the storage
            if isinstance(value, _Address):
                setattr(options, name, value.path(resumes=resumes))
            elif isinstance(value, list):
                setattr(options, name, [one.path() if isinstance(one, _Address) else one for one in value])
        return options

    def words(self) -> tuple[list[str], dict[str, list[str]]]:
        """What may be typed: the long options (and what a positional argument may be), and the choices of options."""
        names: list[str] = []
        choices: dict[str, list[str]] = {}
        for action in self._actions:
            among = list(map(str, action.choices or ()))
            long = [name for name in action.option_strings if name.startswith("--")]
            names += long or among
            choices |= {name: among for name in action.option_strings if among}
        return names, choices

    def _unexpected(self, argument: str) -> str:
        if not argument.startswith("-"):
            return f"unexpected argument {argument!r}"
        names = [name for action in self._actions for name in action.option_strings if action.help != argparse.SUPPRESS]
        return unknown("option", argument.partition("=")[0], names)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, unknown("value", str(value), list(map(str, action.choices))))

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see: {self.prog} --help")


_COLLECT: contextvars.ContextVar[Callable[[Parser], NoReturn] | None] = contextvars.ContextVar("collect", default=None)


class _Collected(Exception):  # noqa: N818 - not an error
    def __init__(self, parser: Parser) -> None:
        self.parser = parser


def parser_of(command: Callable[[list[str]], int]) -> Parser:
    """The parser that a command would parse its arguments with; the command itself does not run."""

    def collect(parser: Parser) -> NoReturn:
        raise _Collected(parser)

    token = _COLLECT.set(collect)
    try:
        command([])
    except _Collected as stopped:
        return stopped.parser
    finally:
        _COLLECT.reset(token)
    raise TypeError(f"{command} parses no arguments")


def parser(name: str, summary: str, *, examples: Sequence[str]) -> Parser:
    """An argument parser for `rmkit NAME` with --json, and the examples (without "rmkit") under its --help."""
    result = Parser(
        prog=f"rmkit {name}",
        description=summary,
        epilog="examples:\n" + "\n".join(f"  rmkit {example}" for example in examples),
        formatter_class=_Help,
    )
    result.register("type", int, whole_number)  # for every option with type=int or float, of every command
    result.register("type", float, finite_number)
    result.register("type", Path, input_path)
    result.add_argument("--json", action="store_true", help="print the result as one JSON object, for programs")
    return result


def set_values(options: Any) -> dict[str, object]:
    """What --config and --set say, the latter above the former."""
    return (config.read_toml(options.config) if options.config else {}) | config.assignments(options.set)


def settings(cls: type[Config], options: Any, *, where: str, named: Mapping[str, Any] | None = None) -> Config:
    """The config: defaults, under the TOML of --config, under --set, under what is `named` and not None.

    Raises UsageError for an assignment without a value, ConfigError for unknown keys or values out of range.
    """
    values = set_values(options) | {key: value for key, value in (named or {}).items() if value is not None}
    return config.build(cls, values, where=where)


def settings_text(*classes: type[Any], hidden: Iterable[str] = ()) -> str:
    """One entry a setting: name, default, meaning; wrapped for the terminal."""
    shown = [option for cls in classes for option in config.options(cls) if option.name not in set(hidden)]
    width = max((len(option.name) for option in shown), default=0)
    columns = max(60, min(shutil.get_terminal_size().columns, 120))
    wrap = textwrap.TextWrapper(columns, subsequent_indent=" " * (width + 4), break_on_hyphens=False)
    lines = []
    for option in shown:
        default = "required" if option.required else f"default {config.value_text(option.default)}"
        meaning = f"{option.help}; {option.kind}" if option.help else option.kind
        wrap.initial_indent = f"  {option.name:<{width}}  "
        lines.append(wrap.fill(f"{meaning} ({default})"))
    return "\n".join(lines) or "  (none)"


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if (number := whole_number(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text[:40]}")
    return number


def whole_number(text: str) -> int:
    """An option's number, as large as stores and arrays can hold."""
    try:
        number = int(text)
    except ValueError:
        number = 2**63
    if not -(2**63) <= number < 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number of at most 19 digits, got {text[:40]!r}")
    return number


@dataclass(frozen=True, slots=True)
class _Address:
    """What an option names by an address, until `parse_args` gives it a path on this machine."""

    address: str
    is_output: bool = False
    is_repeatable: bool = False

    def path(self, *, resumes: bool = False) -> Path:
        if self.is_output:
            return staged(self.address, again=self.is_repeatable, resumes=resumes)
        return fetch(self.address)


def input_path(text: str) -> Path | _Address:
    """A file or folder that is read. What lies at an address (s3://bucket/key) is fetched."""
    return _Address(text) if is_address(text) else Path(text)


def output_path(text: str) -> Path | _Address:
    """A file or folder that is written. For an address it is made here, and published at the end of the command."""
    return _Address(text, is_output=True) if is_address(text) else Path(text)


def repeatable_output_path(text: str) -> Path | _Address:
    """The same where writing again gives the same folder: one that is there is refused only if it is another one."""
    return _Address(text, is_output=True, is_repeatable=True) if is_address(text) else Path(text)


def device(text: str) -> str:
    """The device of all models of this command, which `call` forgets at its end. Raises UsageError for one that is not
    here."""
    os.environ[DEVICE] = chosen(text)
    return os.environ[DEVICE]


def local_path(text: str) -> Path:
    """A file or folder that a command works in. Addresses are refused."""
    return Path(local_name(text))


def local_name(text: str) -> str:
    """The same for a model that a command writes beside."""
    if is_address(text):
        raise argparse.ArgumentTypeError(
            f"{redacted(text)[:80]} is an address, and only files and folders of this machine do here"
        )
    return text


def command_line(name: str, argv: Sequence[str]) -> str:
    """The command as results record it, without what may be a secret in the addresses that it names."""
    return redacted(f"rmkit {name} {shlex.join(argv)}".rstrip())


def finite_number(text: str) -> float:
    """An option's number, which is neither infinite nor NaN."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text[:40]!r}")
    return number


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [finite_number(part) for part in text.split(",")]
