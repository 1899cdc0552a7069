"""A Hub id as a model: revision resolved in full, gated and absent repositories, a cut download, no connection at all;
against a server on this machine that answers as the Hub does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from rmkit.errors import ModelError  # noqa: E402
from rmkit.models import find_model, load_model  # noqa: E402
from rmkit.models.artifact.folder import open_artifact  # noqa: E402
from tests.rmkit.models.adopted import fakes as made  # noqa: E402
from tests.rmkit.models.adopted.hub_server import COMMIT, WRONG, Hub  # noqa: E402
from tests.rmkit.models.adopted.test_readers import item  # noqa: E402


@pytest.fixture
def hub(fakes: dict[str, made.Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = Path(shutil.copytree(fakes["scalar"].folder, tmp_path / "repository"))
    card = "---\nlicense: apache-2.0\nbase_model: lab/base\ntags: [reward-model]\n---\n# A model\n"
    (folder / "README.md").write_text(card)
    hub = Hub(folder)
    hub.use(monkeypatch, tmp_path / "cache")
    yield hub
    hub.close()


def test_an_id_is_resolved_downloaded_and_adopted_once(
    hub: Hub, fakes: dict[str, made.Fake], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut = "model.safetensors"
    model = load_model("lab/rm")
    assert hub.breaks == 1
    [[score]] = model.score([item("sky", "yes blue")])
    assert score.value == pytest.approx(float(fakes["scalar"].expected("sky", "yes blue")), abs=1e-5)
    folder = find_model("lab/rm@v1")
    source = open_artifact(folder).card["source"]
    assert (source["hub"], source["revision"]) == ("lab/rm", COMMIT)
    assert (source["license"], source["base"]) == ("apache-2.0", "lab/base")
    assert find_model(f"lab/rm@{COMMIT}") == folder
    for name, what in {
        "lab/gated": "is gated: accept its terms",
        "lab/none": "no model lab/none: not a folder, not a stored name; the Hub has no lab/none",
        "lab/rm@v7": "has no revision 'v7'",
    }.items():
        with pytest.raises(ModelError, match=what):
            load_model(name)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    assert load_model(folder).info.fingerprint == model.info.fingerprint  # a resolved revision opens without the Hub
    with pytest.raises(ModelError, match="not in the cache and cannot be downloaded"):
        load_model("lab/other")


def test_a_token_that_the_hub_refuses_is_named_and_never_printed(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRONG)
    with pytest.raises(ModelError, match=r"refuses the token.*HF_TOKEN") as refused:
        load_model("lab/rm")
    seen = capfd.readouterr()
    assert WRONG not in f"{refused.value}{seen.out}{seen.err}"
    monkeypatch.delenv("HF_TOKEN")
    assert load_model("lab/rm").info.name == "rm"
    monkeypatch.setenv("HF_TOKEN", WRONG)  # what is in the cache needs no token, once its revision is named in full
    assert load_model(f"lab/rm@{COMMIT}").info.name == "rm"
