"""The code that a stored result came from, as one digest: a result of other code must not be picked up."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from importlib import metadata
from pathlib import Path

from rmkit import extras
from rmkit.ids import digest

TOOLS = ("dev", "docs")  # extras for work on rmkit itself


@functools.cache
def source_digest(*packages: str) -> str:
    """Digest of every file of these top-level packages or modules, and of the versions of the libraries rmkit uses.

    All files, not only the modules that a result's code imports: what it loads by name, its prompts and its SQL count
    too, and an import that a list forgot would bring the old result back. Takes some ten milliseconds.
    """
    return digest([*map(_files, packages), *_libraries()])


def _files(package: str) -> str:
    """Digest of the names and contents of a package's files, or of a module's one file."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [(path.relative_to(folder), path) for folder in folders for path in folder.rglob("*") if path.is_file()]
    if not folders and spec.origin is not None and Path(spec.origin).is_file():
        files = [(Path(spec.origin).relative_to(Path(spec.origin).parent), Path(spec.origin))]
    total = hashlib.sha256()
    for name, path in sorted(files):
        if "__pycache__" not in name.parts:  # its files come and go while other processes compile
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _libraries() -> list[str]:
    """ "NAME VERSION" of each installed package that rmkit or an extra of it, but those of developers, asks for."""
    names = sorted({name for extra, names in extras.distributions().items() if extra not in TOOLS for name in names})
    results = []
    for name in names:
        try:
            results.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return results
