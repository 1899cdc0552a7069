"""Configs are frozen keyword-only dataclasses beside their users; TOML in, unknown keys rejected.

A config class checks its own values in `__post_init__` (raising ConfigError); this file only turns a mapping into one.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rmkit.errors import ConfigError, RmkitError, UsageError, unknown

Config = TypeVar("Config")

# Keys as files of former days spell them; what is written anew has today's.
FORMER_NAMES = {
    "normalisation": "normalization",
    "normalisation_facts": "normalization_facts",
    "max_tokens": "max_length",
    "epochs": "num_train_epochs",
}


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML file's table. Raises ConfigError where it is absent or malformed."""
    try:
        return tomllib.loads(_regular(path).read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"no such file: {path}") from error
    except (OSError, ValueError, RecursionError) as error:  # ValueError: bad UTF-8, bad TOML, a number of 5,000 digits
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error


def read_object(
    path: Path, *, raises: type[RmkitError], hint: str, keys: Mapping[str, type | tuple[type, ...]] | None = None
) -> dict[str, Any]:
    """The JSON file's object, whose `keys` are there and of these types.

    Raises `raises` otherwise: path, what is wrong, and `hint`, which says what to do.
    """
    try:
        document = json.loads(_regular(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: a hundred thousand brackets
        why = error.strerror if isinstance(error, OSError) else error
        raise raises(f"{path} cannot be read as JSON: {why}; {hint}") from error
    if not isinstance(document, dict):
        raise raises(f"{path}: expected a JSON object, got {_short(document)}; {hint}")
    for key, kind in (keys or {}).items():
        if key not in document:
            raise raises(f"{path}: no {key!r} in it; {hint}")
        if not isinstance(document[key], kind):
            names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            expected = names.replace("NoneType", "null")
            raise raises(f"{path}: {key}: expected {expected}, got {_short(document[key])}; {hint}")
    return document


def _regular(path: Path) -> Path:
    """The path; OSError for a pipe or a device, which may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def file_in(folder: Path, name: str, *, raises: type[RmkitError]) -> Path:
    """The file that a manifest in `folder` names. Raises `raises` for a name that leads out of the folder."""
    if not name or "\0" in name or os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir:
        raise raises(f"{folder} lists a file outside itself: {_short(name)}; do not use this folder")
    return folder / name


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) else f"a {type(value).__name__} of {len(value)}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def build(cls: type[Config], values: Mapping[str, Any], *, where: str) -> Config:
    """`cls(**values)` with unknown keys, missing keys and wrong types refused by name. `where` begins each message."""
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls} is not a dataclass")
    split(values, cls, where=where)
    hints = typing.get_type_hints(cls)  # of Annotated[type, "help"] the type
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    checked = {key: _checked(value, hints[key], where=f"{where}: {key}") for key, value in values.items()}
    seed = checked.get("seed")
    if isinstance(seed, int) and seed < 0:  # no generator takes one
        raise ConfigError(f"{where}: seed: expected at least 0, got {seed}")
    missing = [name for name, field in fields.items() if _required(field) and name not in checked]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
    return typing.cast(Config, cls(**checked))


def build_stored(cls: type[Config], values: Mapping[str, Any], *, where: str) -> Config:
    """`build` for values that rmkit itself wrote into an artifact, perhaps under a name that the field had before."""
    return build(cls, current_names(cls, values), where=where)


def current_names(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with former names of the fields of `cls` replaced by today's."""
    fields = {field.name for field in dataclasses.fields(cls)}

    def current(key: str) -> str:
        renamed = FORMER_NAMES.get(key)
        return renamed if key not in fields and renamed in fields and renamed not in values else key

    return {current(key): value for key, value in values.items()}


def split(values: Mapping[str, Any], *classes: type[Any], where: str) -> list[dict[str, object]]:
    """The values of each class, by the names of its fields; a key that none of them has is refused by name."""
    names = [[field.name for field in dataclasses.fields(cls) if field.init] for cls in classes]
    known = [name for of in names for name in of]
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: {unknown('key', key, known)}")
    return [{name: values[name] for name in of if name in values} for of in names]


def assignments(inputs: Iterable[str]) -> dict[str, object]:
    """KEY=VALUE of the command line as values; a VALUE that is no TOML is a plain string, so words need no quotes."""
    values = {}
    for one in inputs:
        key, equals, text = one.partition("=")
        if not equals:
            raise UsageError(f"--set takes KEY=VALUE, got {one!r}")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text.strip()}")["value"]
        except (ValueError, RecursionError):
            values[key.strip()] = text.strip()
    return values


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """A setting of a config class. `kind` names its type, or its choices; `default` is None where it is `required`."""

    name: str
    kind: str
    default: Any
    required: bool
    help: str


def options(cls: type[Any]) -> list[Option]:
    """The settings of a config class: `Annotated[type, "help"]`, else what its docstring says of `name`."""
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls} is not a dataclass")
    hints = typing.get_type_hints(cls, include_extras=True)
    sentences = re.split(r"(?<=[.;])\s+", " ".join((cls.__doc__ or "").split()))
    results = []
    for field in (field for field in dataclasses.fields(cls) if field.init):
        hint = hints[field.name]
        texts = [text for text in getattr(hint, "__metadata__", ()) if isinstance(text, str)]
        texts = texts or [one.rstrip(".;") for one in sentences if f"`{field.name}`" in one]
        required, default = _required(field), None
        if not required:
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        results.append(Option(field.name, _kind_text(hint), default, required, "; ".join(texts)))
    return results


def value_text(value: Any) -> str:
    """A value as one would write it on the command line; none for no value, or an empty one."""
    if isinstance(value, tuple | list):
        value = ", ".join(map(value_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value in (None, "") else repr(value).strip("'")


def _kind_text(hint: Any) -> str:
    """The words for a type: whole number, number, text, a list of them, or the choices."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _kind_text(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind_text(one) for one in arguments if one is not type(None))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(value_text, arguments))
    if origin is tuple:
        return f"list of {_kind_text(arguments[0])}"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
    return words.get(hint) or ("table" if dataclasses.is_dataclass(hint) or origin is dict else str(hint))


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _finite(value: float, *, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # a whole number of 400 digits
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{where}: expected a finite number, got {_short(value)}")
    return number


def _checked(value: Any, hint: Any, *, where: str) -> object:
    """The value as the hint wants it: int for float, list for tuple, table for config; ConfigError otherwise."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _checked(value, inner, where=where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: expected one of {', '.join(map(repr, arguments))}, got {value!r}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_checked(item, arguments[0], where=where) for item in value)
    kind = origin or hint
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, where=where)
    if kind is Any or (isinstance(value, kind) and not (kind is not bool and isinstance(value, bool))):
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return build(kind, value, where=where)
    raise ConfigError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}")
