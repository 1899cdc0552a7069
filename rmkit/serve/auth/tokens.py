"""Who may use a service: bearer tokens, hashed at rest, with scopes, rates and an end.

A token is `rmk_` and 256 random bits, so plain SHA-256 hides it. The ledger keeps a record of kind `principal` under
`token/NAME`; the token itself is shown once and stored nowhere. A presented token's hash is compared with every known
one in constant time each, without stopping at a match.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rmkit.errors import ConflictError, RmkitError, UsageError
from rmkit.ledger import Ledger
from rmkit.serve.http.problems import HttpError

log = logging.getLogger(__name__)

KIND, PREFIX = "principal", "token/"
SCOPES = ("score", "metrics", "admin")
REFRESH_S = 2.0  # a revoked token is refused after this at the latest


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token's owner. `sha256` is the hex hash of the token; `expires` and `revoked` are ISO 8601 in UTC."""

    name: str
    sha256: str
    scopes: tuple[str, ...]
    requests_per_minute: float | None = None
    created: str | None = None
    expires: str | None = None
    revoked: str | None = None

    @property
    def refused(self) -> str | None:
        """Why this principal may not come in any more, None where it may."""
        if self.revoked:
            return "the token was revoked"
        if self.expires and datetime.fromisoformat(self.expires) <= datetime.now(UTC):
            return "the token has expired"
        return None


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def create(
    ledger: Ledger,
    name: str,
    *,
    scopes: Iterable[str] = ("score",),
    requests_per_minute: float | None = None,
    expires: datetime | None = None,
) -> str:
    """The new token, which is stored as its hash only. Raises UsageError for a taken name or an unknown scope."""
    if unknown := set(scopes) - set(SCOPES):
        raise UsageError(f"no scope {', '.join(sorted(unknown))}; scopes are {', '.join(SCOPES)}")
    token = "rmk_" + secrets.token_urlsafe(32)
    result = ApiToken(
        name=name,
        sha256=sha256(token),
        scopes=tuple(sorted(set(scopes))),
        requests_per_minute=requests_per_minute,
        created=_now(),
        expires=expires.astimezone(UTC).isoformat(timespec="seconds") if expires else None,
    )
    try:
        ledger.put(KIND, PREFIX + name, asdict(result), expect=0)
    except ConflictError as error:
        raise UsageError(f"a token named {name!r} is there already; revoked names are not used again") from error
    return token


def revoke(ledger: Ledger, name: str) -> ApiToken:
    """The principal, from now on refused. Raises UsageError where there is none of that name."""
    record = ledger.record(KIND, PREFIX + name)
    if record is None:
        raise UsageError(f"no token named {name!r}; see: rmkit token list")
    value = {**record.value, "revoked": record.value.get("revoked") or _now()}
    ledger.put(KIND, PREFIX + name, value, expect=record.version)
    return _principal(value)


def stored(ledger: Ledger) -> list[ApiToken]:
    """Every principal that owns a token, in the order of names."""
    return [_principal(record.value) for record in ledger.records(KIND, prefix=PREFIX)]


def operator_token(token: str, *, name: str = "given") -> ApiToken:
    """A principal with all scopes for a token that the operator hands in (a file, a Kubernetes secret)."""
    return ApiToken(name=name, sha256=sha256(token), scopes=SCOPES)


def _principal(value: Mapping[str, Any]) -> ApiToken:
    known = {key: value[key] for key in ApiToken.__dataclass_fields__ if key in value}
    return ApiToken(**{**known, "scopes": tuple(known["scopes"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Keyring:
    """Admission by token and rate. `load` gives all principals and is called again every REFRESH_S, off the loop."""

    def __init__(self, load: Callable[[], list[ApiToken]], *, share: float = 1.0) -> None:
        self._load = load
        self._principals = load()
        self._loaded = time.monotonic()
        self._refreshing = asyncio.Lock()
        self._share = share  # of each rate: one over the number of processes
        self._spent: dict[str, tuple[float, float]] = {}

    async def admit(self, token: str | None, scope: str) -> ApiToken:
        """The principal behind a token. Raises HttpError: 401 unknown or over, 403 without scope, 429 too often."""
        await self._refresh()
        if not token:
            raise HttpError(401, "a token is needed: Authorization: Bearer TOKEN, a Basic password, or /t/TOKEN/...")
        principal = self._find(sha256(token))
        if principal is None:
            raise HttpError(401, "the token is not known here")
        if reason := principal.refused:
            raise HttpError(401, reason)
        if scope not in principal.scopes:
            raise HttpError(403, f"the token has no scope {scope!r}")
        self._charge(principal)
        return principal

    def _find(self, digest: str) -> ApiToken | None:
        result = None
        for principal in self._principals:
            if hmac.compare_digest(principal.sha256, digest):
                result = principal
        return result

    def _charge(self, principal: ApiToken) -> None:
        """A bucket of ten seconds' worth (at least one request) that fills up at the principal's rate."""
        if principal.requests_per_minute is None:
            return
        per_s = principal.requests_per_minute * self._share / 60
        size, now = max(1.0, 10 * per_s), time.monotonic()
        left, at = self._spent.get(principal.name, (size, now))
        left = min(size, left + (now - at) * per_s)
        if left < 1:
            self._spent[principal.name] = (left, now)
            raise HttpError(
                429,
                f"more than {principal.requests_per_minute:g} requests a minute",
                retry_after_s=(1 - left) / per_s,
            )
        self._spent[principal.name] = (left - 1, now)

    async def _refresh(self) -> None:
        if time.monotonic() - self._loaded < REFRESH_S or self._refreshing.locked():
            return
        async with self._refreshing:
            try:
                self._principals = await asyncio.to_thread(self._load)
            except RmkitError as error:
                log.warning("tokens could not be read again, the known ones go on: %s", error)
            self._loaded = time.monotonic()
