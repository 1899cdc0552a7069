"""For whom an export is: no row of a source that was taken back anywhere, none that the target may not have."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.benchmarks.data.versions import fill_pairs
from rmkit.cli import main as cli
from rmkit.data.example import read_examples, read_manifest
from rmkit.errors import ConfigError, DataError
from rmkit.ids import file_sha256
from rmkit.ledger import open_ledger
from tests.warehouse.states import forget
from warehouse.lineage.source_facts import KIND, SourceFacts, read_facts, state_facts
from warehouse.migrate import migrate
from warehouse.out.export import export_version
from warehouse.out.targets import TARGETS, Target, refused_licenses
from warehouse.versions.versions import commit

FILES = ("a" * 64, "b" * 64)


def eight_pairs() -> duckdb.DuckDBPyConnection:
    """Eight pairs of file A, of which the first four stand in file B, too."""
    made = duckdb.connect()
    migrate(made, Path(":memory:"))
    fill_pairs(made, 8)
    made.execute("INSERT INTO source SELECT * REPLACE (2 AS source_id) FROM source").fetchall()
    made.execute("UPDATE source SET file_sha256 = list_value(?, ?)[source_id]", list(FILES)).fetchall()
    made.execute(
        "INSERT INTO unit_source SELECT * REPLACE (2 AS source_id) FROM unit_source WHERE unit_id < 4"
    ).fetchall()
    return made


EIGHT = eight_pairs()


@pytest.mark.parametrize(
    ("name", "research", "release"),
    [
        ("MIT", True, True),
        ("cc-by-nc-4.0", True, False),
        ("CC-BY-NC-SA-4.0", True, False),
        ("CC-BY-NC-ND-4.0", False, False),
        ("CC-BY-ND-4.0", False, False),
        ("unknown", False, False),
        ("proprietary", False, False),
    ],
)
def test_licenses_by_target(name: str, research: bool, release: bool) -> None:
    passes = {target: not refused_licenses({name: 3}, target) for target in TARGETS}
    assert passes == {"local": True, "research": research, "release": release}
    assert refused_licenses({name: 3}, "release", [name]) == {}


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    consents=st.lists(st.sampled_from(["given", "unknown", "refused"]), min_size=2, max_size=2),
    removed=st.lists(st.booleans(), min_size=2, max_size=2),
    licenses=st.lists(st.sampled_from(["MIT", "CC-BY-NC-4.0", "unknown"]), min_size=2, max_size=2),
    target=st.sampled_from(TARGETS),
)
def test_an_export_never_holds_a_blocked_or_removed_source(
    consents: list[str], removed: list[bool], licenses: list[str], target: Target
) -> None:
    forget(EIGHT)
    EIGHT.execute("UPDATE unit_source SET license = list_value(?, ?)[source_id]", licenses).fetchall()
    commit(EIGHT, "d", "(SELECT example_id, 'train' AS split, 1.0 AS weight FROM example)", message="", author="")
    sources = {unit: {0, 1} if unit < 4 else {0} for unit in range(8)}
    left = {unit for unit, own in sources.items() if not any(removed[at] for at in own)}
    used = {at for unit in left for at in sources[unit]}
    allowed = {"local": {"MIT", "CC-BY-NC-4.0", "unknown"}, "research": {"MIT", "CC-BY-NC-4.0"}, "release": {"MIT"}}[
        target
    ]
    free = all(licenses[at] in allowed and (target == "local" or consents[at] != "refused") for at in used)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", folder)
        patch.delenv("RMKIT_LEDGER", raising=False)
        with open_ledger() as ledger:
            for sha256, consent, gone in zip(FILES, consents, removed, strict=True):
                state_facts(ledger, sha256, {"consent": consent, "removed": gone}, by="ann")
        try:
            out = export_version(EIGHT, 1, Path(folder) / "out", target=target)
        except DataError:
            assert not free
            return
        rows = {int(json.loads(row.row["prompt"])[0]["content"].split()[0]) for row in read_examples(out)}
        manifest = read_manifest(out)
    assert free
    assert rows == left
    assert manifest["removed_rows"] == 8 - len(left)
    assert {one["sha256"]: one["consent"] for one in manifest["sources"]} == {FILES[at]: consents[at] for at in used}


def test_facts_are_stated_bit_by_bit(home: Path) -> None:
    with open_ledger() as ledger:
        assert state_facts(ledger, FILES[0], {"consent": "given"}, by="ann") == SourceFacts(consent="given")
        both = state_facts(ledger, FILES[0], {"collected": "2024-05", "removal": "x@y.org"}, by="bob")
        assert both == SourceFacts(consent="given", collected="2024-05", removal="x@y.org")
        assert read_facts(ledger) == {FILES[0]: both}
        record = ledger.record(KIND, FILES[0])
        assert record is not None
        assert (record.value["by"], record.version) == ("bob", 2)
        with pytest.raises(ConfigError, match="consent is one of"):
            state_facts(ledger, FILES[0], {"consent": "perhaps"}, by="ann")
        with pytest.raises(ConfigError, match="a year, a month or a day"):
            state_facts(ledger, FILES[0], {"collected": "May"}, by="ann")


def test_a_source_is_taken_back(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "yes", "rejected": "no"} for n in range(3)]
    for name, part in (("one", rows[:2]), ("two", rows[1:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        assert cli.main(["ingest", str(tmp_path / f"{name}.jsonl")]) == 0
    state = ["provenance", "state", "two"]
    facts = ["--consent", "robots", "--collected", "2024-05-31", "--removal", "x@y.org"]
    assert cli.main([*state, "--source", file_sha256(tmp_path / "two.jsonl")[:12], *facts, "--removed"]) == 0
    for name, expected in (
        ("one", ("unknown", "unknown", "unknown", False)),
        ("two", ("robots", "2024-05-31", "x@y.org", True)),
    ):
        capsys.readouterr()
        assert cli.main(["provenance", "show", name, "--json"]) == 0
        (source,) = json.loads(capsys.readouterr().out)["sources"]
        assert (source["consent"], source["collected"], source["removal"], source["removed"]) == expected
        assert (source["license"], source["url"], source["raters"]) == ("unknown", "unknown", "unknown 1")
    out = tmp_path / "out"
    assert cli.main(["export", "one", "-o", str(out)]) == 0  # q1 stands in the file that was taken back, too
    assert "1 rows left out: their source was taken back" in capsys.readouterr().out
    assert [json.loads(row.row["prompt"])[0]["content"] for row in read_examples(out)] == ["q0"]
    assert cli.main(["export", "--verify", str(out)]) == 0
    croissant = json.loads((out / "croissant.json").read_text())
    (file,) = croissant["distribution"]
    assert file["sha256"] == read_manifest(out)["files"][file["contentUrl"]]["sha256"]
    fields = {one["name"]: one for one in croissant["recordSet"][0]["field"]}
    assert fields["rows/prompt"]["source"] == {"fileObject": {"@id": file["@id"]}, "extract": {"column": "prompt"}}
    assert (fields["rows/p"]["dataType"], fields["rows/p"]["repeated"]) == ("sc:Float", True)
    assert "rows/scores" not in fields
    assert cli.main([*state, "--restored", "--consent", "refused"]) == 0
    research = ["export", "one", "-o", str(tmp_path / "research"), "--target", "research"]
    for changes, message in (
        (["--consent", "refused"], "consent was refused for the source of 1 rows"),
        (["--consent", "given"], "unknown (2 rows)"),
    ):
        assert cli.main([*state, *changes]) == 0
        capsys.readouterr()
        assert cli.main(research) == 2
        assert message in capsys.readouterr().err
    assert cli.main([*research, "--allow-license", "unknown"]) == 0
    assert len(list(read_examples(tmp_path / "research"))) == 2
    assert cli.main(state) == 2
    assert cli.main([*state, "--source", "three", "--removed"]) == 2
