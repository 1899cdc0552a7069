"""How a load is to be read: everything that the user says about the bytes and the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from data_pipelines.sources.form import check_role
from data_pipelines.sources.reading.lines import Layout
from data_pipelines.sources.reading.streams import MAX_LINE_BYTES
from data_pipelines.sources.recognize import Hints
from data_pipelines.sources.verdicts import parse_values
from rmkit.errors import UsageError
from warehouse.write.units import RATER_KINDS


@dataclass(frozen=True, kw_only=True)
class Reading:
    """`roles` are those of --map, `items` files that hold the texts, joined by the columns `on`.

    `rater` ("NAME:KIND") stands for a label whose source does not say who gave it.
    """

    format: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    values: str | None = None
    wide: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    on: str | None = None
    rater: str | None = None
    rater_kind: str | None = None
    split_text: str | None = None
    saved_map: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    header_rows: int | None = None
    records: str | None = None
    sheet: str | None = None
    member: str | None = None
    union: bool = False
    keep_going: bool = False
    limit: int | None = None
    max_line_bytes: int = MAX_LINE_BYTES

    def __post_init__(self) -> None:
        if self.roles and self.format not in (None, "generic"):
            raise UsageError(f"--map belongs to the generic format, not to {self.format!r}")
        for role in self.roles:
            check_role(role)
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit takes a number of rows of at least 1, got {self.limit}")
        if self.header_rows is not None and not 1 <= self.header_rows <= 10:
            raise UsageError(f"--header-rows takes a number from 1 to 10, got {self.header_rows}")
        if self.rater and self.rater.rpartition(":")[2] not in RATER_KINDS:
            raise UsageError(f"--rater takes NAME:KIND with KIND of {', '.join(RATER_KINDS)}; got {self.rater!r}")
        if self.on and not self.items:
            raise UsageError("--on names the columns that join --items; give --items FILE too")

    @property
    def hints(self) -> Hints:
        return Hints(
            format=self.format,
            roles=self.roles,
            values=parse_values(self.values) if self.values else None,
            wide=self.wide,
            rater_kind=self.rater_kind,
            split_text=self.split_text,
        )

    @property
    def layout(self) -> Layout:
        names = ("encoding", "delimiter", "header_rows", "records", "sheet", "member", "max_line_bytes")
        return Layout(**{name: getattr(self, name) for name in names})

    def label(self, name: str) -> str:
        """The format as it is recorded: with whatever changes what the same bytes mean."""
        roles = ",".join(sorted(f"{role}={path}" for role, path in self.roles.items()))
        settings = {
            key: value
            for key, value in asdict(self).items()
            if value not in (None, (), False)
            and key not in ("format", "roles", "max_line_bytes", "keep_going", "saved_map")
        }
        spelled = {key: ",".join(value) if isinstance(value, tuple) else str(value) for key, value in settings.items()}
        return " ".join([name, *filter(None, [roles]), *(f"{key}={value}" for key, value in spelled.items())])
