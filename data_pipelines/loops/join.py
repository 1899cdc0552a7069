"""Step of loops: the version with a share of another one's rows, UPO's 40% of the labeled pairs say.

Rows are drawn by SHA-256(seed, row), so that a larger share holds a smaller one; families are not kept together.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Annotated

import pyarrow as pa

from data_pipelines.loops.records import Left, Place
from rmkit.errors import ConfigError
from rmkit.user import user_name
from warehouse.sql import registered, run
from warehouse.store import open_warehouse, transaction
from warehouse.versions.versions import commit, get, members_sql, resolve


@dataclass(frozen=True, kw_only=True)
class Config:
    other: Annotated[str, "the version whose rows come in"]
    share: Annotated[float, "how much of it"] = 1.0
    split: Annotated[str, "of these rows of it alone; empty: of all"] = "train"
    seed: Annotated[int, "of the draw"] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"join: share lies in [0, 1], got {self.share}")


def act(config: Config, place: Place) -> Left:
    """The new version; a row that both hold stays once, as it is in the version that was there."""
    with open_warehouse() as connection, transaction(connection):
        here, there = resolve(connection, place.version), resolve(connection, config.other)
        rows = run(connection, members_sql(connection, here))
        known = {row[0] for row in rows}
        hashes = dict(run(connection, "SELECT example_id, h::VARCHAR FROM example"))
        pool = [row for row in run(connection, members_sql(connection, there)) if config.split in ("", row[1] or "")]
        pool.sort(key=lambda row: hashlib.sha256(f"join {config.seed} {hashes[row[0]]}".encode()).hexdigest())
        drawn = pool[: round(config.share * len(pool))]
        rows += [row for row in drawn if row[0] not in known]
        names = ("example_id", "split", "weight")
        table = pa.table({name: pa.array([row[at] for row in rows]) for at, name in enumerate(names)})
        with registered(connection, "drawn", table):
            run(connection, "CREATE OR REPLACE TEMP TABLE joined_rows AS SELECT * FROM drawn")
        version = commit(
            connection,
            place.dataset,
            "joined_rows",
            message=f"join of {get(connection, here).ref} with {config.share:g} of {get(connection, there).ref}",
            author=user_name(),
            parents=[here, there],
            recipe=json.dumps({"join": asdict(config)}, sort_keys=True),
        )
    return Left({"rows": len(rows), "of_other": len(drawn)}, version=version.ref)
