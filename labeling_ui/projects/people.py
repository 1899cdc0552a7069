"""Who may do what. Checked where things are written, whatever page or request asked for it.

Accounts are ledger records of kind `principal`, so that every process and host of a team sees the same ones. A token is
shown once and kept only as its SHA-256; comparing takes the same time whatever was sent. A person may have more tokens
beside the one that they sign in with (`add_key`): for programs, one each, so that each can be ended alone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rmkit.errors import RmkitError, UsageError, unknown
from rmkit.ledger import Ledger

Role = Literal["annotator", "lead", "admin"]
Right = Literal["annotate", "lead", "admin"]

KIND, KEYS = "principal", "principal_key"
_PREFIX = "label/"
_RIGHTS: dict[str, tuple[Right, ...]] = {
    "annotator": ("annotate",),
    "lead": ("annotate", "lead"),
    "admin": ("annotate", "lead", "admin"),
}


class ForbiddenError(RmkitError):
    """The person's role does not cover this, or there is no such person."""


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with an account; `name` is the rater of their judgments."""

    name: str
    role: Role

    def may(self, right: Right) -> bool:
        return right in _RIGHTS[self.role]

    def require(self, right: Right, what: str) -> None:
        """Raises ForbiddenError unless the person has the right."""
        if not self.may(right):
            raise ForbiddenError(f"{self.name} is {self.role} and may not {what}; ask an admin for another role")


def add_person(ledger: Ledger, name: str, *, role: Role) -> str:
    """The new person's token, shown this once. An existing name gets the new role and a new token."""
    if role not in _RIGHTS:
        raise UsageError(unknown("role", role, _RIGHTS))
    if not name.strip() or "/" in name or not name.isprintable():
        raise UsageError(f"a name must not be empty and has no slash and no control characters, got {name!r}")
    token = secrets.token_urlsafe(24)
    ledger.put(KIND, _PREFIX + name, {"role": role, "sha256": _digest(token), "active": True})
    return token


def invite(ledger: Ledger, lead: Person, name: str) -> str:
    """The token of a new annotator. Raises ForbiddenError for an annotator, UsageError where the name is taken: a new
    token for somebody else's account would be a way to work as them."""
    lead.require("lead", "invite people")
    if ledger.record(KIND, _PREFIX + name) is not None:
        raise UsageError(f"{name} has an account already, or had one; an admin gives new tokens")
    return add_person(ledger, name, role="annotator")


def remove_person(ledger: Ledger, name: str) -> None:
    """End an account with all its tokens; what the person judged stays. Raises UsageError for an unknown name."""
    record = ledger.record(KIND, _PREFIX + name)
    if record is None:
        raise UsageError(f"no account {name!r}")
    ledger.put(KIND, _PREFIX + name, {**record.value, "active": False, "sha256": ""}, expect=record.version)
    gone = Person(name, record.value["role"])
    for label in keys(ledger, gone):
        remove_key(ledger, gone, label)


def people(ledger: Ledger) -> Iterator[Person]:
    """Everyone with an active account, by name."""
    for record in ledger.records(KIND, prefix=_PREFIX):
        if record.value["active"]:
            yield Person(record.key.removeprefix(_PREFIX), record.value["role"])


def by_token(ledger: Ledger, token: str) -> Person:
    """The person whose token it is. Raises ForbiddenError, naming nobody."""
    target, result = _digest(token), None
    for record in ledger.records(KIND, prefix=_PREFIX):
        if hmac.compare_digest(record.value["sha256"], target) and record.value["active"]:
            result = Person(record.key.removeprefix(_PREFIX), record.value["role"])
    for record in () if result else ledger.records(KEYS):
        if hmac.compare_digest(record.value["sha256"], target) and record.value["active"]:
            return by_name(ledger, record.key.partition("/")[0])
    if result is None:
        raise ForbiddenError("this token opens nothing; ask an admin for a new one: rmkit label people add NAME")
    return result


def add_key(ledger: Ledger, person: Person, label: str) -> str:
    """A further token of this person, shown this once; one under the same label is replaced."""
    if not label.strip() or "/" in label or not label.isprintable():
        raise UsageError(f"a token's label must not be empty and has no slash and no control characters, got {label!r}")
    token = secrets.token_urlsafe(24)
    ledger.put(KEYS, f"{person.name}/{label}", {"sha256": _digest(token), "active": True})
    return token


def remove_key(ledger: Ledger, person: Person, label: str) -> None:
    """End a further token. Raises UsageError where there is none of that label."""
    if label not in keys(ledger, person):
        raise UsageError(f"{person.name} has no token {label!r}")
    ledger.put(KEYS, f"{person.name}/{label}", {"sha256": "", "active": False})


def keys(ledger: Ledger, person: Person) -> list[str]:
    """Labels of the person's further tokens."""
    records = ledger.records(KEYS, prefix=f"{person.name}/")
    return [record.key.partition("/")[2] for record in records if record.value["active"]]


def by_name(ledger: Ledger, name: str) -> Person:
    """The person of that name, for logins that were checked elsewhere (OIDC). Raises ForbiddenError."""
    record = ledger.record(KIND, _PREFIX + name)
    if record is None or not record.value["active"]:
        raise ForbiddenError(f"no account for {name!r}; ask an admin: rmkit label people add {name}")
    return Person(name, record.value["role"])


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
