"""`rmkit push` against a server on this machine that answers as the Hub does: a model and a dataset, their cards, what
may not be published, tokens, an upload that breaks off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.registry.publishing import Origins, push_data, push_model
from rmkit.cli.main import call
from rmkit.errors import DataError, ModelError, StoreError, UsageError
from rmkit.models import load_model
from tests.rmkit.models.adopted.conftest import fakes as fakes  # the fixture
from tests.rmkit.models.adopted.hub_server import READ_ONLY, WRITE, WRONG, Hub
from warehouse.out.manifest import verify_export

pytestmark = pytest.mark.slow

yaml = pytest.importorskip("yaml")
hub_client = pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "nothing").mkdir()
    hub = Hub(tmp_path / "nothing")
    hub.use(monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("HF_TOKEN", WRITE)
    yield hub
    hub.close()


@pytest.fixture
def apples(home: Path, tmp_path: Path) -> Path:
    """apples@v2, 120 pairs under odc-by from a dataset of the Hub; and a model trained on it."""
    path = tmp_path / "apples.jsonl"
    rows = [{"prompt": f"Apples, {n}?", "chosen": f"Many, {n} of them", "rejected": f"no {n}"} for n in range(120)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    url = "https://huggingface.co/datasets/orchard/apples"
    assert call("ingest", [str(path), "--license", "odc-by", "--url", url]) == 0
    assert call("run", ["clean", "--data", "apples"]) == 0
    model = home / "models" / "taster"
    assert call("train", ["lexical", "--data", "apples", "-o", str(model), "--set", "hash_bits=8"]) == 0
    return model


def front(content: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = yaml.safe_load(content.decode().split("---\n", 2)[1])
    return facts


def test_a_model_goes_up_with_its_card_and_comes_back_the_same(
    hub: Hub, apples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("eval", ["taster", "--data", "apples", "--json"]) == 0
    capsys.readouterr()
    assert call("push", ["model", "taster", "lab/taster", "--dry-run", "--language", "en", "--json"]) == 0
    dry = json.loads(capsys.readouterr().out)
    assert (dry["private"], dry["dry_run"], dry["license"]) == (True, True, "ODC-By-1.0")
    assert hub.requests == []
    assert call("push", ["model", "taster", "lab/taster", "--language", "en", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["files"] == dry["files"]
    pushed = hub.repositories["models/lab/taster"]
    assert pushed.private is True
    assert set(pushed.files) == set(dry["files"]) >= {"README.md", "weights.npz", "golden.jsonl", "evaluation.json"}
    facts = front(pushed.files["README.md"])
    assert facts["license"] == "odc-by"
    assert facts["datasets"] == ["orchard/apples"]
    assert facts["language"] == ["en"]
    assert {one["dataset"]["name"] for one in facts["model-index"][0]["results"]} >= {"apples@v2"}
    assert len(facts["model-index"][0]["results"]) == 2  # validation, and the suite that ran
    card = hub_client.ModelCard(pushed.files["README.md"].decode())
    assert card.data.license == "odc-by"
    assert "- 120 rows of apples@v2: odc-by" in card.text
    again = tmp_path / "downloaded"
    again.mkdir()
    for name, content in pushed.files.items():
        (again / name).write_bytes(content)
    assert load_model(again).info.fingerprint == load_model(apples).info.fingerprint
    assert str(tmp_path).encode() not in b"".join(pushed.files.values())


def test_what_a_license_forbids_does_not_leave(hub: Hub, apples: Path) -> None:
    with pytest.raises(DataError, match=r"may not be published: llama3\.1 \(base model\).*--allow-license llama3\.1"):
        push_model("taster", "lab/taster", base_model="meta/llama", base_license="llama3.1")
    with pytest.raises(DataError, match=r"unknown \(base model\).*--base-license"):
        push_model("taster", "lab/taster", base_model="meta/llama", dry_run=True)
    with pytest.raises(DataError, match=r"--license MIT is less restrictive than CC-BY-SA-4\.0"):
        push_model("taster", "lab/taster", base_model="a/b", base_license="cc-by-sa-4.0", license="MIT", dry_run=True)
    assert not hub.repositories
    told = push_model("taster", "lab/t", base_model="a/b", base_license="cc-by-sa-4.0", dry_run=True)
    assert (told.license, told.metadata["license"], told.metadata["base_model"]) == (
        "CC-BY-SA-4.0",
        "cc-by-sa-4.0",
        "a/b",
    )
    allowed = {"base_model": "meta/llama", "base_license": "llama3.1", "allow_licenses": ["llama3.1"]}
    assert push_model("taster", "lab/t", dry_run=True, **allowed).metadata["license"] == "llama3.1"
    assert Origins("a/b", "", "x@v1", {"MIT": 3}).licenses() == {"unknown": 0, "MIT": 3}


def test_a_dataset_goes_up_and_can_be_checked_there(hub: Hub, apples: Path, tmp_path: Path) -> None:
    result = push_data("apples@v2", "lab/apples", languages=["en"], tasks=["text-ranking"])
    pushed = hub.repositories["datasets/lab/apples"]
    assert pushed.private is True
    assert result.commit
    facts = front(pushed.files["README.md"])
    assert (facts["license"], facts["language"], facts["task_categories"]) == ("odc-by", ["en"], ["text-ranking"])
    assert {entry["split"] for entry in facts["configs"][0]["data_files"]} == {"train", "validation", "test"}
    again = tmp_path / "downloaded"
    again.mkdir()
    for name, content in pushed.files.items():
        (again / name).write_bytes(content)
    assert verify_export(again)["ref"] == "apples@v2"
    other = tmp_path / "own.jsonl"
    other.write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"}) + "\n")
    assert call("ingest", [str(other), "--license", "cc-by-nc-4.0"]) == 0
    with pytest.raises(DataError, match=r"may not be released: cc-by-nc-4\.0 \(1 rows\)"):
        push_data("own", "lab/own")
    assert "datasets/lab/own" not in hub.repositories


def test_tokens_and_repositories_that_are_refused(
    hub: Hub, apples: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = []
    for token, what in {WRONG: "refuses the token", READ_ONLY: "may not write there"}.items():
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(StoreError, match=what) as refused:
            push_model("taster", "lab/taster")
        said.append(str(refused.value))
    monkeypatch.setenv("HF_TOKEN", WRITE)
    push_data("apples", "lab/open", public=True)
    assert hub.repositories["datasets/lab/open"].private is False
    with pytest.raises(UsageError, match="is public already; push there with --public"):
        push_data("apples", "lab/open")
    with pytest.raises(UsageError, match="ORG/NAME, got 'mine'"):
        push_data("apples", "mine")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="lab/taster: ") as refused:
        push_model("taster", "lab/taster")
    said.append(str(refused.value))
    seen = capfd.readouterr()
    everything = " ".join([*said, seen.out, seen.err])
    assert not [token for token in (WRONG, READ_ONLY, WRITE) if token in everything]


def test_an_upload_that_breaks_off_goes_on(hub: Hub, apples: Path) -> None:
    hub.cut = "any"
    push_data("apples", "lab/apples")  # the client tries the broken file once more
    assert hub.breaks == 1
    files = dict(hub.repositories["datasets/lab/apples"].files)
    sent = len([one for one in hub.requests if one.startswith("PUT /lfs/")])
    push_data("apples", "lab/apples")  # again: large files that are there are not sent
    assert len([one for one in hub.requests if one.startswith("PUT /lfs/")]) == sent
    assert hub.repositories["datasets/lab/apples"].files == files


def test_an_adopted_model_is_published_with_its_weights_or_not_at_all(
    hub: Hub, home: Path, fakes: Any, tmp_path: Path
) -> None:
    from rmkit.models.adopted.adopt import adopt

    theirs = Path(shutil.copytree(fakes["scalar"].folder, tmp_path / "theirs"))
    (theirs / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: lab/base\n---\n# Theirs\n")
    adopt(theirs, output=home / "models" / "linked")
    with pytest.raises(ModelError, match="adopt them with --copy"):
        push_model("linked", "lab/linked", dry_run=True)
    adopt(theirs, output=home / "models" / "whole", copy=True)
    push_model("whole", "lab/whole")
    pushed = hub.repositories["models/lab/whole"].files
    facts = front(pushed["README.md"])
    assert (facts["license"], facts["base_model"]) == ("apache-2.0", "lab/base")
    assert str(tmp_path).encode() not in b"".join(pushed.values())
    again = tmp_path / "downloaded"
    for name, content in pushed.items():
        (again / name).parent.mkdir(parents=True, exist_ok=True)
        (again / name).write_bytes(content)
    assert load_model(again).info.fingerprint == load_model("whole").info.fingerprint
