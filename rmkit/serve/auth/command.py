"""`rmkit token create|list|revoke`: who may use a service. A token is shown once, at its creation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rmkit.cli.display import emit, parser
from rmkit.errors import UsageError
from rmkit.ledger import open_ledger
from rmkit.serve.auth import tokens as principals
from rmkit.serve.auth.tokens import SCOPES, ApiToken

_SPAN = re.compile(r"(\d+)([hdw])")
_NAME = re.compile(r"[\w.-]{1,64}")


def main(argv: list[str]) -> int:
    argument_parser = parser(
        "token",
        "Tokens of the reward service: hashed at rest, with scopes, a rate and an end.",
        examples=[
            "token create trainer",
            "token create prometheus --scope metrics",
            "token create ci --expires 7d --rate 600",
            "token list",
            "token revoke trainer",
        ],
    )
    argument_parser.add_argument("action", choices=("create", "list", "revoke"))
    argument_parser.add_argument("name", nargs="?", help="whose token it is; rewards are logged under this name")
    argument_parser.add_argument(
        "--scope", action="append", choices=SCOPES, help="what it may do (default score); may be repeated"
    )
    argument_parser.add_argument("--rate", type=float, metavar="N", help="requests a minute (default: no limit)")
    argument_parser.add_argument("--expires", metavar="SPAN", help="end after 12h, 7d, 4w (default: never)")
    options = argument_parser.parse_args(argv)
    if options.action != "list" and not _NAME.fullmatch(options.name or ""):
        raise UsageError(f"rmkit token {options.action} NAME: letters, digits, '.', '-' and '_', got {options.name!r}")
    if options.rate is not None and options.rate <= 0:
        raise UsageError(f"--rate must be positive, got {options.rate}")
    with open_ledger(read_only=options.action == "list") as ledger:
        match options.action:
            case "create":
                token = principals.create(
                    ledger,
                    options.name,
                    scopes=options.scope or ("score",),
                    requests_per_minute=options.rate,
                    expires=_end(options.expires),
                )
                text = f"{token}\nIt is shown this once only. Send it as: Authorization: Bearer TOKEN"
                emit({"name": options.name, "token": token}, as_json=options.json, text=text)
            case "list":
                result = principals.stored(ledger)
                emit({"tokens": [_told(one) for one in result]}, as_json=options.json, text=_table(result))
            case "revoke":
                revoked = principals.revoke(ledger, options.name)
                text = f"{revoked.name} is revoked; running services refuse it within {principals.REFRESH_S:g} s"
                emit(_told(revoked), as_json=options.json, text=text)
    return 0


def _end(span: str | None) -> datetime | None:
    if span is None:
        return None
    if not (match := _SPAN.fullmatch(span)):
        raise UsageError(f"--expires takes a number with h, d or w (12h, 7d, 4w), got {span!r}")
    hours = {"h": 1, "d": 24, "w": 168}[match[2]]
    return datetime.now(UTC) + timedelta(hours=hours * int(match[1]))


def _told(one: ApiToken) -> dict[str, object]:
    """Everything but the hash."""
    return {
        "name": one.name,
        "scopes": list(one.scopes),
        "requests_per_minute": one.requests_per_minute,
        "created": one.created,
        "expires": one.expires,
        "state": one.refused or "valid",
    }


def _table(result: Sequence[ApiToken]) -> str:
    if not result:
        return "no tokens; a first one: rmkit token create NAME"
    width = max(len(one.name) for one in result)
    return "\n".join(
        f"{one.name:<{width}}  {one.refused or 'valid':<22}  {','.join(one.scopes):<20}  "
        f"{f'{one.requests_per_minute:g}/min' if one.requests_per_minute else 'no limit':<10}  "
        f"{'until ' + one.expires if one.expires else 'no end'}"
        for one in result
    )
