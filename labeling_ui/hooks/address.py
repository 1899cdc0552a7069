"""Where the studio may send something that a lead named: only to the internet, unless whoever starts it says otherwise.

A lead who could name any address would reach what only this machine reaches: its own services, the private network, a
cloud's metadata. The name is resolved here and the connection goes to that very address, so that it cannot change in
between; nothing is followed to another place.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Mapping
from urllib.parse import SplitResult, urlsplit

import httpx

from rmkit.errors import DataError

TIMEOUT_S = 10.0
HOW = "rmkit label serve --allow-webhook HOST"
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address inside of an IPv6 one


def check_url(url: str, *, allowed: Collection[str]) -> None:
    """Raises DataError where nothing may be sent to this URL."""
    _address(_parts(url, allowed), allowed)


def post(url: str, body: bytes, headers: Mapping[str, str], *, allowed: Collection[str]) -> int:
    """The status that answers. Raises DataError where nothing may be sent, httpx.HTTPError where nobody answers."""
    parts = _parts(url, allowed)
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    address = _address(parts, allowed)
    target = parts._replace(netloc=f"[{address}]:{port}" if ":" in address else f"{address}:{port}").geturl()
    with (
        httpx.Client(trust_env=False, timeout=TIMEOUT_S) as client,
        client.stream(
            "POST",
            target,
            content=body,
            headers={**headers, "host": parts.netloc},
            extensions={"sni_hostname": host},  # the certificate must be the name's
        ) as response,
    ):
        return response.status_code


def _parts(url: str, allowed: Collection[str]) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("http", "https") or parts.username or parts.fragment or not url.isascii():
        raise DataError("a webhook's address is https://HOST/PATH, without a user, a password and a fragment")
    if parts.scheme == "http" and parts.hostname not in allowed:
        raise DataError(f"a webhook's address begins with https://; http only to hosts allowed with: {HOW}")
    return parts


def _address(parts: SplitResult, allowed: Collection[str]) -> str:
    """The address to connect to."""
    host = str(parts.hostname)
    try:
        answers = socket.getaddrinfo(host, parts.port or parts.scheme, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DataError(f"{host} cannot be resolved to an address") from error
    addresses = [str(one[4][0]) for one in answers]
    if host not in allowed and not all(_is_public(one) for one in addresses):
        raise DataError(f"{host} is not on the internet but in a private network; allow it with: {HOW}")
    return addresses[0]


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if inner := address.ipv4_mapped or address.sixtofour:
            return _is_public(str(inner))
        if address in _TRANSLATED or address.teredo:
            return False
    return address.is_global and not address.is_multicast
