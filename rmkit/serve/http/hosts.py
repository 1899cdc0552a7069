"""Whose requests a service without tokens answers: those that name this machine, not a page's that only leads here.

A page of another site can make a browser ask this machine: through a name of its own that it lets point to 127.0.0.1
(DNS rebinding; the Host header tells), or by sending a form or a fetch here (the Origin header tells).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def foreign(headers: Iterable[tuple[bytes, bytes]], *, hosts: Collection[str] = ()) -> str | None:
    """The Host or Origin header that is neither loopback nor one of `hosts`, ready to be shown; None where all are.

    A request without either comes from no browser.
    """
    for name, value in headers:
        if name not in (b"host", b"origin"):
            continue
        text = value.decode("latin-1")
        host = _host(text if name == b"origin" else f"//{text}")
        if not (is_loopback(host) or host in hosts):
            return f"{name.decode().title()} {text[:200]!r}"
    return None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
