"""What is known of a source beside its license: consent, when it was collected, how its rows can be taken back, whether
they were.

    consent     given (people agreed), license (published to be used), robots (crawled where robots.txt allows),
                refused, unknown
    collected   ISO date or month or year, or unknown
    removal     where to ask for removal, or unknown
    removed     the source was taken back: its rows leave in no export any more

The facts stand in the ledger under the file's SHA-256, so that they hold in every warehouse that read the file.
"unknown" is a value: nothing here is ever null.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

from rmkit.errors import ConfigError
from rmkit.ledger import Ledger

KIND = "source_facts"
UNKNOWN = "unknown"
Consent = Literal["given", "license", "robots", "refused", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    consent: Consent = "unknown"
    collected: str = UNKNOWN
    removal: str = UNKNOWN
    removed: bool = False

    def __post_init__(self) -> None:
        if self.consent not in get_args(Consent):
            raise ConfigError(f"consent is one of {', '.join(get_args(Consent))}, got {self.consent!r}")
        if self.collected != UNKNOWN and not re.fullmatch(r"\d{4}(-\d{2}(-\d{2})?)?", self.collected):
            raise ConfigError(f"collected is a year, a month or a day such as 2024-05-31, got {self.collected!r}")


def read_facts(ledger: Ledger) -> dict[str, SourceFacts]:
    """By the SHA-256 of the source's file; a file that is not here has none."""
    names = {field.name for field in fields(SourceFacts)}
    return {
        record.key: SourceFacts(**{name: value for name, value in record.value.items() if name in names})
        for record in ledger.records(KIND)
    }


def state_facts(ledger: Ledger, sha256: str, changes: Mapping[str, object], *, by: str) -> SourceFacts:
    """The facts of a file after `changes`, recorded with who stated them; what is not named stays."""
    known = ledger.record(KIND, sha256)
    values = {name: value for name, value in (known.value if known else {}).items() if name != "by"}
    facts = SourceFacts(**(values | dict(changes)))
    ledger.put(KIND, sha256, asdict(facts) | {"by": by}, expect=known.version if known else 0)
    return facts
