"""Addresses as text: what is one, its parts, and how it may be shown."""

from __future__ import annotations

import re

from rmkit.errors import UsageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ACCOUNT = re.compile(r"(?<=://)[^/\s@'\"]*:[^/\s@'\"]*@")
_QUERY = re.compile(r"(://[^\s?#'\"]*)\?[\w.%-]+=[^\s'\",;)]*")


def is_address(text: str) -> bool:
    """Whether it names a place by a scheme (`s3://bucket/key`); as a path it would make a folder `s3:`."""
    return _SCHEME.match(text) is not None


def is_web(address: str) -> bool:
    """Whether it is one file of a web server, which lists nothing and takes nothing."""
    return address.lower().startswith(("http://", "https://"))


def redacted(text: str) -> str:
    """The text without what may be a secret in the addresses that it holds: accounts (`user:password@`), queries."""
    return _QUERY.sub(r"\1?***", _ACCOUNT.sub("***@", text))


def scheme_of(address: str) -> str:
    """`s3` of `s3://bucket/key`. Raises UsageError where the address carries an account of its own."""
    if _ACCOUNT.search(address):
        raise UsageError(
            f"{redacted(address)}: an address holds no account; credentials come from the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile)"
        )
    scheme = _SCHEME.match(address)
    assert scheme, address
    return scheme[1].lower()


def name_of(address: str) -> str:
    """The last part: what a file or folder fetched from there is called. Raises UsageError where there is none."""
    name = re.sub(r"\?.*=.*", "", address.partition("://")[2]).rstrip("/").rpartition("/")[2]
    if not name or name in (".", ".."):
        raise UsageError(f"{redacted(address)} names no file or folder")
    return name
