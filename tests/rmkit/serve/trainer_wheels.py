"""The trainers' own code, unpacked from their wheels and imported without the rest of their dependencies.

`pip download --no-deps` fetches a wheel once (a few megabytes) into $RMKIT_TRAINER_WHEELS or the temporary folder; a
test that needs one is skipped only where no index answers. Packages are imported file by file: their `__init__` files,
which pull in clusters and GPUs, are not run, and modules of packages that are not needed here are empty.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import os
import subprocess
import sys
import sysconfig
import tempfile
import types
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rmkit.ids import digest

CACHE = Path(os.environ.get("RMKIT_TRAINER_WHEELS") or Path(tempfile.gettempdir()) / "rmkit-trainer-wheels")

_DOWNLOAD = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]


def wheel(name: str, version: str, *options: str) -> Path:
    """The folder of an unpacked wheel from the package index; skipped where the index cannot be reached."""
    folder = CACHE / f"{name}-{version}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as made:
            fetched = subprocess.run(
                [*_DOWNLOAD, "--dest", made, *options, f"{name}=={version}"],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if fetched.returncode:
                if "from versions: none" in fetched.stderr or "No module named pip" in fetched.stderr:
                    pytest.skip(f"no package index gives {name}=={version}")
                raise AssertionError(fetched.stderr)
            unpacked = Path(made) / "unpacked"
            with zipfile.ZipFile(next(Path(made).glob("*.whl"))) as file:
                file.extractall(unpacked)
            with contextlib.suppress(OSError):  # another process was faster
                unpacked.rename(folder)
    return next(folder.glob("*.data/purelib"), folder)


def environment(name: str, packages: Sequence[str], *, alone: bool = False) -> Path:
    """The Python of an environment of its own with these packages, made once; skipped where no index answers.

    They are installed without dependencies above this environment's packages (torch, transformers), or `alone` with all
    of theirs.
    """
    folder = CACHE / f"environment-{name}-{digest([*packages, sys.version, str(alone)])[:12]}"
    python = folder / "bin" / "python"
    if (folder / "complete").is_file():
        return python
    CACHE.mkdir(parents=True, exist_ok=True)
    venv.create(folder, clear=True, with_pip=False)
    if not alone:
        [site] = folder.glob("lib/python*/site-packages")
        (site / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run(
        [*install, *([] if alone else ["--no-deps"]), *packages],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        if "from versions: none" in done.stderr or "No module named pip" in done.stderr:
            pytest.skip(f"no package index gives {packages[0]}")
        raise AssertionError(done.stderr[-3000:])
    (folder / "complete").touch()
    return python


class Nothing:
    """Stands for anything that an empty module is asked for: a base class, a decorator, a type."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, decorated: Any = None, *_: Any, **__: Any) -> Any:
        return decorated

    def __class_getitem__(cls, _: Any) -> type[Nothing]:
        return cls


class _Empty(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Nothing,), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = set(roots)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        empty = any(name == root or name.startswith(root + ".") for root in self.roots)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if empty else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


@contextlib.contextmanager
def imported_from(root: Path, packages: Sequence[str], *, empty: Sequence[str] = (), **given: Any) -> Iterator[None]:
    """Import from an unpacked wheel: `packages` without their `__init__`, `empty` ones as empty modules.

    `given` are attributes of the first package. Everything imported meanwhile is forgotten at the end.
    """
    before = dict(sys.modules)
    roots = {name.split(".")[0] for name in [*packages, *empty]}
    for name in [name for name in sys.modules if name.split(".")[0] in roots]:
        del sys.modules[name]
    finder = _Finder(empty)
    sys.meta_path.insert(0, finder)
    try:
        for name in packages:
            module = types.ModuleType(name)
            module.__path__ = [str(root.joinpath(*name.split(".")))]
            sys.modules[name] = module
        vars(sys.modules[packages[0]]).update(given)
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in roots:
                del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if name.split(".")[0] in roots})
