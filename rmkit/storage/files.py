"""One file system behind an address, its errors in one line, its passing faults tried again.

Credentials and endpoints are fsspec's and boto's own: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE,
AWS_ENDPOINT_URL, FSSPEC_S3_ANON ...
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import tenacity

from rmkit.errors import DataError, MissingExtraError, RmkitError, StoreError, UsageError, one_line, unknown
from rmkit.extras import extra_of
from rmkit.storage.address import is_web, redacted, scheme_of

ATTEMPTS = 6  # on top of those that s3fs and botocore make of each part
FIRST_ATTEMPTS = 2  # where nothing listens: a wrong endpoint should be told before work begins, and soon
LONGEST_WAIT_S = 8.0
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "s3": {"max_concurrency": 2},  # so many parts of 50 MB of each file are in memory while it is uploaded
    "file": {"auto_mkdir": True},
}
_COMMON = ("s3", "gs", "az", "https", "hf")
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime")  # what changes when an object does
# Errors that come again however often the call is repeated; of botocore's only names, as it may not be installed.
_LASTING = (FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError, ValueError)
_LASTING_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError"}

Result = TypeVar("Result")


class FileSystem(Protocol):
    """What is used of fsspec's file systems."""

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes: ...
    def get_file(self, rpath: str, lpath: str) -> None: ...
    def put_file(self, lpath: str, rpath: str) -> None: ...
    def pipe_file(self, path: str, value: bytes) -> None: ...
    def rm_file(self, path: str) -> None: ...
    def find(self, path: str, *, detail: bool) -> dict[str, dict[str, Any]]: ...
    def info(self, path: str) -> dict[str, Any]: ...
    def glob(self, path: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Remote:
    """One object: its path in the file system, its size in bytes (None where unknown), and what changes with it."""

    path: str
    size: int | None
    mark: str


@dataclass(frozen=True, slots=True)
class Place:
    """A file system and the path in it that an address means."""

    address: str
    files: FileSystem
    path: str

    def call(self, action: Callable[[], Result], *, first: bool = False) -> Result:
        """What the action gives, tried again while its fault may pass; seldom where the `first` call reaches nobody.

        Raises DataError where nothing is there, StoreError for everything else that the storage answers.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=lambda state: state.attempt_number >= (FIRST_ATTEMPTS if first and _is_deaf(state) else ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_WAIT_S),
            reraise=True,
        )
        with self.faults():
            return retrying(action)

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Within it what the storage raises becomes an error of one line without secrets."""
        where = redacted(self.address)
        try:
            yield
        except RmkitError:
            raise
        except FileNotFoundError as error:
            raise DataError(f"{where}: nothing is there, or its bucket does not exist") from error
        except PermissionError as error:
            raise StoreError(f"{where}: access denied ({_said(error)}); check the credentials") from error
        except Exception as error:  # whatever a provider's library raises, it is the storage that failed
            if type(error).__name__ in _LASTING_NAMES:
                raise StoreError(f"{where}: {_said(error)}; set AWS_ACCESS_KEY_ID or AWS_PROFILE") from error
            raise StoreError(f"{where}: {_said(error)}; run the same command again") from error

    def objects(self, *, first: bool = False) -> dict[str, Remote]:
        """The objects at the address, by name under it: all that lie below a folder, or "" alone for one object."""

        def listing() -> dict[str, dict[str, Any]]:
            if is_web(self.address):  # a listing would be links read out of the content
                return {self.path: self.files.info(self.path)}
            return self.files.find(self.path, detail=True)

        listed = self.call(listing, first=first)
        result = {}
        for path, facts in sorted(listed.items()):
            name = path[len(self.path) :].strip("/")
            if facts.get("type") == "directory" or path.endswith("/"):
                continue
            if posixpath.normpath(f"./{name}") != (name or ".") or "\\" in name or "\0" in name:
                raise DataError(f"{redacted(self.address)} holds an object outside of any folder: {name[:60]!r}")
            result[name] = Remote(path, facts.get("size"), _mark(facts))
        return result

    def below(self, name: str) -> str:
        """The path of an object under the address, "" for the address itself."""
        return f"{self.path}/{name}" if name else self.path


def open_place(address: str) -> Place:
    """Raises UsageError for a scheme that nothing opens, MissingExtraError where its package is not installed."""
    scheme = scheme_of(address)
    try:
        import fsspec
        from fsspec.registry import known_implementations
    except ImportError as error:
        raise MissingExtraError("fsspec", "cloud") from error
    try:
        cls = fsspec.get_filesystem_class(scheme)
    except ValueError as error:
        message = unknown("scheme", f"{scheme}://", [f"{name}://" for name in _COMMON])
        raise UsageError(f"{redacted(address)}: {message}") from error
    except ImportError as error:
        package = known_implementations.get(scheme, {}).get("class", scheme).partition(".")[0]
        if package == "fsspec":
            package = getattr(error.__cause__, "name", None) or scheme
        raise MissingExtraError(package, extra_of(package, prefer="cloud")) from error
    options = {"use_listings_cache": False} | dict(_OPTIONS.get(scheme, {}))
    place = Place(address, cls(**options), "")
    with place.faults():
        path = cls._strip_protocol(address)
    return Place(address, place.files, path.rstrip("/"))


def _mark(facts: Mapping[str, Any]) -> str:
    return next((str(facts[key]) for key in _MARKS if facts.get(key)), "").strip('"')


def _is_deaf(state: tenacity.RetryCallState) -> bool:
    """Whether the last attempt found nobody who listens."""
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, ConnectionError) or type(error).__name__ == "EndpointConnectionError"


def _may_pass(error: BaseException) -> bool:
    return (
        isinstance(error, Exception)
        and not isinstance(error, (*_LASTING, RmkitError))
        and type(error).__name__ not in _LASTING_NAMES
    )


def _said(error: BaseException) -> str:
    return redacted(one_line(str(error)))[:300] or type(error).__name__
