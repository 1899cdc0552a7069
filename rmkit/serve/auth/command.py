"""`rmkit token create|list|revoke`: who may use a service. A token is shown once, at its creation."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta

from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.errors import UsageError
from rmkit.ledger import open_ledger
from rmkit.serve.auth import tokens as principals
from rmkit.serve.auth.tokens import SCOPES, ApiToken

_SPAN = re.compile(r"(\d+)([hdw])")
COLUMNS = ("name", "state", "scopes", "requests_per_minute", "expires")
_NAME = re.compile(r"[\w.-]{1,64}")


def _create(argv: list[str]) -> int:
    parser = arguments.parser(
        "token create",
        "A new token, hashed at rest; it is shown this once.",
        examples=["token create trainer", "token create metrics --scope metrics", "token create ci --expires 7d"],
    )
    parser.add_argument("name", type=_name, help="whose token it is; rewards are logged under this name")
    parser.add_argument("--scope", action="append", choices=SCOPES, help="what it may do (default score; repeatable)")
    parser.add_argument("--rate", type=float, metavar="N", help="requests a minute (default: no limit)")
    parser.add_argument("--expires", metavar="SPAN", help="end after 12h, 7d, 4w (default: never)")
    options = parser.parse_args(argv)
    if options.rate is not None and options.rate <= 0:
        raise UsageError(f"--rate must be positive, got {options.rate}")
    with open_ledger() as ledger:
        token = principals.create(
            ledger,
            options.name,
            scopes=options.scope or ("score",),
            requests_per_minute=options.rate,
            expires=_end(options.expires),
        )
    text = f"{token}\nIt is shown this once only. Send it as: Authorization: Bearer TOKEN"
    display.emit({"name": options.name, "token": token}, as_json=options.json, text=text)
    return 0


def _list(argv: list[str]) -> int:
    options = arguments.parser("token list", "All tokens.", examples=["token list --json"]).parse_args(argv)
    with open_ledger(read_only=True) as ledger:
        tokens = [_public(one) for one in principals.stored(ledger)]
    rows = [[one[name] for name in COLUMNS] for one in tokens]
    text = display.table(COLUMNS, rows) if rows else "no tokens; a first one: rmkit token create NAME"
    display.emit({"tokens": tokens}, as_json=options.json, text=text.replace("_", " "))
    return 0


def _revoke(argv: list[str]) -> int:
    parser = arguments.parser("token revoke", "End a token now.", examples=["token revoke trainer"])
    parser.add_argument("name", type=_name, help="whose token it is")
    options = parser.parse_args(argv)
    with open_ledger() as ledger:
        revoked = principals.revoke(ledger, options.name)
    text = f"{revoked.name} is revoked; running services refuse it within {principals.REFRESH_S:g} s"
    display.emit(_public(revoked), as_json=options.json, text=text)
    return 0


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ArgumentTypeError(f"takes letters, digits, '.', '-' and '_', got {text!r}")
    return text


def _end(span: str | None) -> datetime | None:
    if span is None:
        return None
    if not (match := _SPAN.fullmatch(span)):
        raise UsageError(f"--expires takes a number with h, d or w (12h, 7d, 4w), got {span!r}")
    hours = {"h": 1, "d": 24, "w": 168}[match[2]]
    return datetime.now(UTC) + timedelta(hours=hours * int(match[1]))


def _public(one: ApiToken) -> dict[str, object]:
    """Everything but the hash."""
    return {
        "name": one.name,
        "state": one.refused or "valid",
        "scopes": list(one.scopes),
        "requests_per_minute": one.requests_per_minute,
        "created": one.created,
        "expires": one.expires,
    }


main = Verbs(
    "token",
    "Tokens of the reward service: hashed at rest, with scopes, a rate and an end.",
    {
        "create": Command(_create, "a new token, shown once"),
        "list": Command(_list, "all tokens with scopes, rate and end"),
        "revoke": Command(_revoke, "end a token now"),
    },
    examples=["token create trainer", "token create ci --expires 7d --rate 600", "token list", "token revoke trainer"],
)
