"""Names of licenses, expressions of them, and what may be released; the same in Python and in SQL."""

from __future__ import annotations

import duckdb
import pytest

from warehouse.out.licenses import (
    BLOCKED,
    HUB_NAMES,
    PERMISSIVE,
    SHARE_ALIKE,
    hub_license,
    most_restrictive,
    refused,
    restriction,
    restriction_sql,
    spdx,
)

RANKS = {
    "odc-by": 0, "bsd": 0, "mit": 0, "MIT OR Apache-2.0": 0, "CC-BY-NC-4.0 OR MIT": 0, "MIT AND Apache-2.0": 0,
    "Apache-2.0 WITH LLVM-exception": 0, "MIT AND CC-BY-SA-4.0": 1, "gpl": 1, "GPL-2.0-only": 1, "gpl-3.0+": 1,
    "LGPL-3.0-or-later OR CC-BY-NC-4.0": 1, "llama3.1": 2, "openrail": 2, "unknown": 2, "": 2, "MIT AND llama3": 2,
    "apache 2": 2, "MIT OR": 2, "cc-by-nc-sa-2.0": 3, "CC-BY-NC-4.0": 3, "MIT AND CC-BY-NC-4.0": 3, "proprietary": 3,
    "CC-BY-ND-4.0 OR CC-BY-NC-3.0": 3, "MIT AND Apache-2.0 OR CC-BY-NC-4.0": 0,
}  # fmt: skip


@pytest.mark.parametrize(("license", "rank"), RANKS.items())
def test_a_license_counts_as_its_least_restrictive_alternative(license: str, rank: int) -> None:
    assert restriction(license) == rank
    [(in_sql,)] = duckdb.execute(f"SELECT {restriction_sql('x')} FROM (SELECT $1::VARCHAR AS x)", [license]).fetchall()
    assert in_sql == rank


def test_parentheses_bind_first() -> None:
    assert restriction("(MIT OR CC-BY-NC-4.0) AND CC-BY-SA-4.0") == 1
    assert restriction("MIT OR (CC-BY-NC-4.0 AND CC-BY-SA-4.0)") == 0
    assert restriction("(MIT OR Apache-2.0") == 2


def test_every_name_of_the_tables_is_an_spdx_id_of_its_rank() -> None:
    for rank, table in ((0, PERMISSIVE), (1, SHARE_ALIKE), (3, BLOCKED)):
        assert {restriction(name) for name in table} == {rank}
        assert [name for name in table if name != "proprietary" and spdx(name.lower()) != name] == []
    assert all(spdx(name) == one for name, one in HUB_NAMES.items())


def test_what_a_card_says() -> None:
    assert hub_license("ODC-By-1.0") == ("odc-by", "")
    assert hub_license("Apache-2.0") == ("apache-2.0", "")
    assert hub_license("llama3.1") == ("llama3.1", "")
    assert hub_license("mit or apache-2.0") == ("other", "MIT OR Apache-2.0")
    assert hub_license("GPL-3.0-only") == ("gpl-3.0", "")
    assert hub_license("CC-BY-NC-2.5") == ("other", "CC-BY-NC-2.5")
    assert hub_license(None) == ("unknown", "")


def test_the_most_restrictive_and_what_is_refused() -> None:
    assert most_restrictive(["MIT", "cc-by-sa-4.0", "odc-by"]) == "CC-BY-SA-4.0"
    assert most_restrictive(["apache-2.0", "MIT"]) == "Apache-2.0"
    assert most_restrictive([]) == "unknown"
    counts = {"odc-by": 3, "MIT OR GPL-3.0": 2, "CC-BY-NC-4.0": 1, "llama3": 4}
    assert refused(counts) == {"CC-BY-NC-4.0": 1, "llama3": 4}
    assert refused(counts, ["cc-by-nc-4.0", "LLAMA3"]) == {}
