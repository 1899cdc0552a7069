"""A home that an earlier revision wrote (data/make_home.py) opens, migrates, and says what it said then."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from labeling_ui.projects.project import open_project
from rmkit.cli.main import call
from rmkit.data.example import EXAMPLE_SCHEMA, read_examples
from rmkit.ledger import open_ledger
from rmkit.models import load_model
from rmkit.models.artifact.aliases import resolve as resolve_alias
from rmkit.scoring.rows import open_source
from rmkit.types import Candidates, Completion, Message
from warehouse.lineage.why import why
from warehouse.out.export import export_version
from warehouse.out.manifest import verify_export
from warehouse.safety.backup import backup
from warehouse.safety.restore import restore
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import get, resolve

DATA = Path(__file__).parent / "data"
FACTS: dict[str, Any] = json.loads((DATA / "former_home.json").read_text())
NAMES = ("id", "unit", "kind", "n_votes", "p", "ranks", "step_labels", "split", "weight")


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("former")
    with tarfile.open(DATA / "former_home.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "home"


@pytest.fixture
def former(home: Path, unpacked: Path) -> Path:
    return Path(shutil.copytree(unpacked, home))


def rows_of(ref: str) -> list[dict[str, Any]]:
    with open_warehouse(read_only=True) as connection:
        return checkout(connection, resolve(connection, ref), votes=True).to_pylist()


@pytest.mark.usefixtures("former")
def test_a_reader_migrates_it_and_every_version_has_its_digest_and_rows() -> None:
    with open_warehouse(read_only=True) as connection:
        assert connection.execute("SELECT max(number) FROM schema_migration").fetchall() == [(4,)]
        assert connection.execute("SELECT count(*) FROM judgment").fetchall() == [(FACTS["n_judgments"],)]
        for ref, facts in FACTS["versions"].items():
            version_id = resolve(connection, ref)
            version = get(connection, version_id)
            assert {"digest": version.digest, "n_rows": version.n_rows} == facts
            rows = checkout(connection, version_id).to_pylist()
            values = json.dumps([[row[name] for name in NAMES] for row in rows])
            assert (ref, hashlib.sha256(values.encode()).hexdigest()) == (ref, FACTS["rows"][ref])
            ends = {row["id"]: row["step_ends"] for row in rows if row["step_ends"]}
            assert ends == {row["id"]: [FACTS["steps"][row["id"]]] for row in rows if row["id"] in FACTS["steps"]}


def test_its_exports_are_read_and_a_new_one_has_the_same_rows(former: Path, tmp_path: Path) -> None:
    old = former / "exports" / FACTS["exports"]["steps"]
    assert pq.read_schema(old / "rows-00000.parquet").field("step_ends").type != EXAMPLE_SCHEMA.field("step_ends").type
    assert verify_export(old)["digest"] == FACTS["versions"]["steps@v1"]["digest"]
    with open_warehouse(read_only=True) as connection:
        new = export_version(connection, resolve(connection, "steps"), tmp_path / "new")
    assert [one.row for one in read_examples(old)] == [one.row for one in read_examples(new)]
    assert [one.candidates for one in read_examples(old)] == [one.candidates for one in read_examples(new)]
    assert [one.steps for one in read_examples(new)] == [tuple(FACTS["steps"][one.id]) for one in read_examples(new)]
    assert verify_export(new)["rows_digest"] == FACTS["versions"]["steps@v1"]["digest"]
    scored = [row.candidates for row in open_source(str(old)).rows()]
    assert scored == [one.candidates for one in read_examples(new)]
    with open_warehouse(read_only=True) as connection:  # the place of the old export is taken by the new form of it
        again = export_version(connection, resolve(connection, "steps"))
    assert (again, [one.row for one in read_examples(again)]) == (old, [one.row for one in read_examples(new)])


@pytest.mark.usefixtures("former")
def test_its_model_gives_its_scores_under_its_alias() -> None:
    model = load_model("tiny@prod")
    assert model.info.fingerprint == FACTS["fingerprint"]
    batch = [
        Candidates((Message("user", prompt),), tuple(Completion((Message("assistant", text),)) for text in texts))
        for prompt, *texts in FACTS["texts"]
    ]
    scores = model.score(batch)
    for name, expected in (("value", "scores"), ("normalized", "normalized")):
        flat = [getattr(score, name) for row in scores for score in row]
        assert flat == pytest.approx([value for row in FACTS[expected] for value in row], abs=1e-9)
    assert [one.p_first for one in model.compare(batch)] == pytest.approx(FACTS["p_first"], abs=1e-9)
    assert resolve_alias("tiny@prod").name == "tiny"


@pytest.mark.usefixtures("former")
def test_two_datasets_with_opposite_labels_keep_them_apart_and_why_shows_both() -> None:
    pairs, twisted = rows_of("pairs@v1"), rows_of("twisted@v1")
    assert [row["unit"] for row in sorted(pairs, key=lambda row: row["unit"])] == sorted(row["unit"] for row in twisted)
    for ref, rows in (("pairs", pairs), ("twisted", twisted)):
        for row in rows:
            votes = [vote for vote in row["votes"] if vote["rater"] != "ana"]
            assert [vote["ranks"] for vote in votes] == [row["ranks"]], (ref, row["id"])
    with open_warehouse(read_only=True) as connection:
        judged = why(connection, pairs[0]["unit"])["units"][0]["judgments"]
    assert {tuple(one["sources"]) for one in judged if one["sources"]} == {("pairs",), ("twisted",)}


@pytest.mark.usefixtures("former")
def test_a_recipe_labels_each_of_two_contrary_datasets_by_its_own_votes(tmp_path: Path) -> None:
    assert [row["p"] for row in rows_of("twisted@v2")] == [[0.5, 0.5]] * 12  # as stored then: the other's votes counted
    recipe = tmp_path / "majority.toml"
    recipe.write_text('[recipe]\nname = "majority"\n[[step]]\nuse = "aggregate"\nmethod = "majority"\n')
    call("run", [str(recipe), "--data", "twisted@v1", "--out", "untwisted"])
    own = {row["unit"]: [float(rank == 0) for rank in row["ranks"]] for row in rows_of("twisted@v1")}
    rows = [row for row in rows_of("untwisted") if len(row["votes"]) == 1]  # the others were judged again by ana
    assert {row["unit"]: row["p"] for row in rows} == {row["unit"]: own[row["unit"]] for row in rows}
    assert len(rows) == 6


@pytest.mark.usefixtures("former")
def test_its_labeling_project_goes_on() -> None:
    with open_ledger() as ledger:
        progress = open_project(ledger, "study").desk(ledger).progress()
    assert progress["answered"] == FACTS["answered"]


def test_its_backup_comes_back_and_a_new_one_does_too(former: Path, tmp_path: Path) -> None:
    with open_warehouse():
        pass  # migrated: what is restored is older than what is there
    restore(former / "backups" / "first", force=True)
    with open_warehouse(read_only=True) as connection:
        digest = get(connection, resolve(connection, "votes@golden")).digest
    assert digest == FACTS["versions"]["votes@v2"]["digest"]
    backup(tmp_path / "second")
    restore(tmp_path / "second", force=True)
    assert len(rows_of("twisted@v2")) == FACTS["versions"]["twisted@v2"]["n_rows"]
