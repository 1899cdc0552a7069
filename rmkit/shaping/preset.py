"""Presets: published systems as chains over the primitives, with their numbers and golden values.

`presets/*.toml` hold one table a preset. In its chain a value that begins with "=" is arithmetic over the preset's
options: `shift = "=-k * center / 2"`. Columns that begin with "_" live inside the preset only.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rmkit.config import build, read_toml
from rmkit.errors import ConfigError, unknown
from rmkit.shaping.transform import Stage

FOLDER = Path(__file__).parent / "presets"
OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Input columns and what must come out, from the publication or worked out by hand from its formula."""

    columns: dict[str, Any]
    expected: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 6e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named chain. `basis` says where the formula comes from: the authors' code, the paper, a second-hand account, or
    our own guess where neither gives one."""

    title: str
    basis: Literal["code", "paper", "note", "inferred"]
    formula: str
    stage: Stage
    chain: tuple[Any, ...]
    keeps: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    golden: tuple[Golden, ...] = ()

    def steps(self, values: Mapping[str, Any], *, where: str) -> list[Any]:
        """The chain with these options, the others at their defaults. Raises ConfigError for an unknown one."""
        for key in values:
            if key not in self.options:
                raise ConfigError(f"{where}: {unknown('option', key, list(self.options))}")
        options = {**self.options, **values}
        return [_filled(step, options, where=where) for step in self.chain]


@cache
def presets() -> dict[str, Preset]:
    """All built-in presets by name."""
    tables = {name: table for path in sorted(FOLDER.glob("*.toml")) for name, table in read_toml(path).items()}
    return {name: build(Preset, table, where=f"preset {name}") for name, table in tables.items()}


def _filled(value: Any, options: Mapping[str, Any], *, where: str) -> Any:
    if isinstance(value, Mapping):
        return {_filled(key, options, where=where): _filled(one, options, where=where) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(one, options, where=where) for one in value]
    if not isinstance(value, str) or not value.startswith("="):
        return value
    try:
        return _evaluated(ast.parse(value[1:].strip(), mode="eval").body, options)
    except (SyntaxError, TypeError, KeyError, ZeroDivisionError) as error:
        raise ConfigError(f"{where}: {value!r} cannot be worked out: {error!r}") from error


def _evaluated(node: ast.expr, options: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            return options[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluated(operand, options)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_evaluated(left, options), _evaluated(right, options))
    raise SyntaxError("only + - * / over numbers and the preset's options")
