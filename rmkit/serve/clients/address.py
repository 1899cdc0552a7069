"""Where a reward service is and how it is entered.

    http://HOST:PORT                    the default model
    http://HOST:PORT#NAME               the model served as NAME
    http://HOST:PORT/t/TOKEN            with a token, as trainers that send no headers write it
    http://USER:TOKEN@HOST:PORT         the same as a Basic password

The token always travels as `Authorization: Bearer`, never in the path: HTTP libraries log the URLs they ask.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from rmkit.errors import UsageError

_PATH_TOKEN = re.compile(r"^(?P<before>.*?)/t/(?P<token>[^/]+)(?P<after>/.*)?$")


@dataclass(frozen=True, slots=True)
class Address:
    """`url` without token, fragment and trailing slash; `model` None is the service's default."""

    url: str
    token: str | None = field(default=None, repr=False)
    model: str | None = None


def address(url: str | None = None, *, token: str | None = None, model: str | None = None) -> Address:
    """The address that a URL writes; what is None comes from RMKIT_REWARD_URL, _TOKEN, _MODEL. Raises UsageError."""
    url = url or os.environ.get("RMKIT_REWARD_URL")
    if not url:
        raise UsageError("no reward service named: pass url= or set RMKIT_REWARD_URL=http://HOST:PORT")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("a reward service's URL begins with http:// or https:// and names a host")
    match = _PATH_TOKEN.match(parts.path)
    path = (match["before"] + (match["after"] or "")) if match else parts.path
    written = unquote(match["token"]) if match else unquote(parts.password or "")
    host = parts.netloc.rpartition("@")[2]
    return Address(
        urlunsplit((parts.scheme, host, path.rstrip("/"), "", "")),
        token or written or os.environ.get("RMKIT_REWARD_TOKEN") or None,
        model or unquote(parts.fragment) or os.environ.get("RMKIT_REWARD_MODEL") or None,
    )
