"""The table of plug-ins: built-in names lead somewhere, unknown ones are one clear error, imports need trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmkit import plugins
from rmkit.errors import UsageError
from rmkit.models import load_model
from rmkit.types import Candidates, Completion, Message


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, table in plugins.BUILT_IN.items() for n in table])
def test_every_built_in_name_leads_to_an_object(group: str, name: str) -> None:
    assert plugins.resolve(group, name) is not None


def test_an_unknown_name_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="unknown step 'near_dedub'; did you mean 'near_dedup'"):
        plugins.resolve("steps", "near_dedub")


def test_module_and_object_are_taken_from_trusted_names_only() -> None:
    assert plugins.resolve("steps", "data_pipelines.steps.split:step", trusted=True).__name__ == "step"
    with pytest.raises(UsageError, match="unknown step"):
        plugins.resolve("steps", "data_pipelines.steps.split:step")


@pytest.mark.parametrize("target", ["no_such_module:x", "rmkit.types:NoSuchName"])
def test_what_cannot_be_imported_says_why(target: str) -> None:
    with pytest.raises(UsageError, match="cannot be loaded"):
        plugins.resolve("models", target, trusted=True)


def test_a_model_needs_no_folder_where_its_loader_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "from rmkit.models.small.length import LengthModel\n\n\ndef load(folder=None, *, check=True):\n"
        "    return LengthModel()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    item = Candidates((Message("user", "hi"),), (Completion((Message("assistant", "abc"),)),))
    assert load_model("my_models:load").score([item]) == load_model("length").score([item])
    model = load_model("length")
    assert load_model(model) is model
