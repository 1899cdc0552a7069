"""Every error that rmkit raises on purpose.

    RmkitError
    |-- UsageError      the request makes no sense: unknown name, option or combination
    |-- ConfigError     a TOML or a config value is wrong
    |-- DataError       input that cannot be used: a file, a row, a format, too few rows
    |-- StoreError      the ledger or warehouse cannot be read or written
    |   `-- BusyError   another process holds it; the same call may succeed later
    |-- ConflictError   a record was changed by someone else since it was read
    |-- VersionError    an unknown, erased, diverged or conflicting dataset version
    |-- ModelError      an artifact that cannot be trusted: missing head, wrong hash, fingerprint mismatch
    |-- BudgetError     the next call may cost more than is left of what was allowed
    |-- EndpointError   a model endpoint answers no request: unreachable, wrong key, unknown model
    `-- MissingExtraError    an optional dependency is not installed

A message says what happened, what was got, what was expected and what to do next, in one line. The command line prints
that line and exits 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Collection

from rmkit.extras import extra_of, install_line


class RmkitError(Exception):
    """The root: catch this to catch every error that rmkit raises on purpose."""


class UsageError(RmkitError):
    """The request makes no sense: an unknown name, option or combination."""


class ConfigError(RmkitError):
    """A TOML file or a config value is wrong."""


class DataError(RmkitError):
    """Input that cannot be used."""


class StoreError(RmkitError):
    """The ledger or the warehouse cannot be read or written."""


class BusyError(StoreError):
    """Another process holds the store; the same call may succeed later."""


class ConflictError(RmkitError):
    """A record of the ledger was changed by someone else since it was read."""


class VersionError(RmkitError):
    """An unknown, erased, diverged or conflicting dataset version."""


class ModelError(RmkitError):
    """A model artifact that cannot be trusted."""


class BudgetError(RmkitError):
    """The next call may cost more than is left of what was allowed; what was answered is kept."""


class EndpointError(RmkitError):
    """A model endpoint that answers no request: unreachable, a wrong key, an unknown model."""


class MissingExtraError(RmkitError):
    """An optional dependency is not installed; `extra` is None where no extra of rmkit's brings it."""

    def __init__(self, package: str, extra: str | None) -> None:
        command = f"pip install {package}" if extra is None else install_line(extra)
        super().__init__(f"{package} is not installed; run: {command}")


def require(*modules: str, extra: str) -> None:
    """Raises MissingExtraError for the first of these modules that is not installed; none of them is imported."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module.replace("_", "-"), extra)


def missing_extra(error: ImportError, *, prefer: str = "") -> MissingExtraError | None:
    """The error for a module that an extra brings, `prefer` where several do; None where none does."""
    extra = extra_of(error.name or "", prefer=prefer)
    return None if extra is None else MissingExtraError((error.name or "").partition(".")[0], extra)


def one_line(message: str) -> str:
    """The message without line breaks, which others' messages may hold."""
    return " ".join(message.split())


def unknown(what: str, name: object, known: Collection[str]) -> str:
    """The message for a name that nothing has: the nearest one first, then all of them."""
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(known) or 'none'}"


# What libraries say, in classes of their own, where a write failed: safetensors, torch.save, pyarrow.
_DISK_SIGNS = ("No space left on device", "os error 28", "Disk quota exceeded", "PytorchStreamWriter failed writing")


def machine_fault(error: BaseException) -> str | None:
    """One line for what the machine or the input's sheer size is to blame for, None for anything else."""
    text = str(error)
    if any(sign in text for sign in _DISK_SIGNS):
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return f"the disk is full{where}: {text}; free space, then run the same command again"
    match error:
        case OSError():
            return f"{error.filename or 'the system'}: {error.strerror or error}; check the path, permissions and disk"
        case MemoryError():
            return f"out of memory ({text or 'no more to be had'}); give it less at once or use a larger machine"
        case RecursionError():
            return "the input is nested too deeply to be read"
    return None
