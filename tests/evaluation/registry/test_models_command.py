"""`rmkit models`: aliases as events, the evaluation gate, rollback, history, and the card in Hugging Face's format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluation.registry import command as models_command
from evaluation.suites.items import Answer, Item
from evaluation.suites.journal import write_result
from evaluation.suites.load import Loaded
from evaluation.suites.results import evaluated, suite_facts
from evaluation.suites.suite import load_suite
from rmkit.errors import ModelError, UsageError
from rmkit.ledger import open_ledger
from rmkit.models import find_model, load_model
from rmkit.models.artifact import aliases
from rmkit.training import command as train
from rmkit.types import ModelInfo
from tests.exports import kind_rows, write_export


def finished(home: Path, fingerprint: str, right: int, *, of: int = 40, digest: str = "d", name: str = "pairs") -> None:
    """A stored result on `of` pairs with one prompt each, the first `right` of them right."""
    suite = load_suite(name)
    items = [Item(f"all/{n}", "all", f"all/{n}") for n in range(of)]
    answers = {item.id: Answer(item.id, (float(n < right), 0.5)) for n, item in enumerate(items)}
    facts = suite_facts(suite, Loaded(tuple(items), "hh@v2:test", {"all": digest}, (), ()), limit=None)
    facts |= {"command": "rmkit eval"}
    info = ModelInfo("model", "explicit", "logit", True, fingerprint)
    made = evaluated(suite, items, answers, info, resamples=20)
    folder = home / "runs" / "eval" / f"{name}-{digest}-{fingerprint}"
    folder.mkdir(parents=True)
    write_result(folder, facts | {"models": [made.as_json()]}, made.credits)


@pytest.fixture
def models(home: Path, tmp_path: Path) -> dict[str, str]:
    """Three models under $RMKIT_HOME/models, by name their fingerprints."""
    data = write_export(tmp_path / "data", kind_rows(120))
    found = {}
    for number, bits in enumerate((8, 9, 10)):
        name = f"m{number}"
        values = {"hash_bits": bits, "c_grid": [0.1]}
        made = train.train("lexical", str(data), output=home / "models" / name, values=values)
        found[name] = made["fingerprint"]
    return found


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = models_command.main([*argv, "--json"])
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_an_alias_is_loaded_listed_and_rolled_back(
    models: dict[str, str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fingerprint in models.values():
        finished(home, fingerprint, 30)
    for name in models:
        status, told = said(capsys, "promote", name, "hh@prod")
        assert (status, told["promoted"], told["fingerprint"]) == (0, True, models[name])
    assert load_model("hh@prod").info.fingerprint == models["m2"]
    _, listed = said(capsys)
    assert {row["name"]: row["aliases"] for row in listed["models"]} == {"m0": [], "m1": [], "m2": ["hh@prod"]}
    assert said(capsys, "rollback", "hh@prod", "--reason", "drift")[1]["fingerprint"] == models["m1"]
    assert load_model("hh@prod").info.fingerprint == models["m1"]
    assert said(capsys, "rollback", "hh@prod")[1]["fingerprint"] == models["m0"]
    assert find_model("hh@prod") == home / "models" / "m0"
    with pytest.raises(UsageError, match="no model to go back to"):
        models_command.main(["rollback", "hh@prod"])
    _, told = said(capsys, "history", "hh@prod")
    assert [row["action"] for row in told["history"]] == ["promote"] * 3 + ["rollback"] * 2
    assert told["history"][3]["reason"] == "drift"
    with open_ledger() as ledger:
        recorded = aliases.events(ledger)
    assert recorded[3].event.supersedes == recorded[2].event.id  # what a rollback undoes
    assert recorded[4].event.supersedes == recorded[1].event.id


def test_the_gate_refuses_what_is_worse(models: dict[str, str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(home, models["m0"], 36)
    assert said(capsys, "promote", "m0", "hh@prod")[0] == 0
    status, told = said(capsys, "promote", "m1", "hh@prod")
    assert (status, told["promoted"]) == (1, False)
    assert "no stored result on pairs" in told["evidence"]["why"]
    finished(home, models["m1"], 26)
    status, told = said(capsys, "promote", "m1", "hh@prod")
    [one] = told["evidence"]["comparisons"]
    assert status == 1
    assert one["difference"] == pytest.approx(100 * (26 - 36) / 40)
    assert one["p"] == pytest.approx(2 / 2**10)  # ten prompts differ, all one way
    assert "worse on pairs" in told["evidence"]["why"]
    assert load_model("hh@prod").info.fingerprint == models["m0"]

    finished(home, models["m2"], 35)  # one prompt worse: not shown to be worse, nor to be within a point
    status, told = said(capsys, "promote", "m2", "hh@prod", "--margin", "1")
    assert status == 1
    assert "not shown to be within 1 points" in told["evidence"]["why"]
    assert said(capsys, "promote", "m2", "hh@prod", "--margin", "20")[0] == 0
    assert load_model("hh@prod").info.fingerprint == models["m2"]

    status, told = said(capsys, "promote", "m1", "hh@prod", "--force", "m2 leaks memory")
    assert (status, told["promoted"], told["evidence"]["passed"]) == (0, True, False)
    _, history = said(capsys, "history", "hh@prod")
    assert history["history"][-1]["evidence"]["forced"] == "m2 leaks memory"
    assert "worse on pairs" in history["history"][-1]["evidence"]["why"]
    models_command.main(["history"])
    assert "forced: m2 leaks memory" in capsys.readouterr().out


def test_other_data_does_not_count_and_suites_cannot_be_chosen_afterwards(
    models: dict[str, str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "promote", "m0", "hh@prod")[0] == 0
    finished(home, models["m1"], 40)
    assert "nothing shows" in said(capsys, "promote", "m1", "hh@prod")[1]["evidence"]["why"]
    finished(home, models["m0"], 10, digest="other")
    assert "no stored result on pairs" in said(capsys, "promote", "m1", "hh@prod")[1]["evidence"]["why"]
    finished(home, models["m0"], 10)
    assert said(capsys, "promote", "m1", "hh@prod")[0] == 1  # still none on the other data
    finished(home, models["m1"], 12, digest="other")
    assert said(capsys, "promote", "m1", "hh@prod")[0] == 0


def test_an_alias_binds_a_fingerprint_not_a_path(
    models: dict[str, str], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "promote", "m0", "hh@prod")[0] == 0
    with pytest.raises(UsageError, match="already means"):
        models_command.main(["promote", "m0", "hh@prod"])
    (home / "models" / "m0").rename(home / "models" / "renamed")
    assert find_model("hh@prod") == home / "models" / "renamed"
    shutil.rmtree(home / "models" / "renamed")
    shutil.copytree(home / "models" / "m1", home / "models" / "m0")  # another model at its old place
    with pytest.raises(ModelError, match="no longer there"):
        load_model("hh@prod")
    models_command.main([])
    assert "its model is gone" in capsys.readouterr().out


def test_a_damaged_model_is_not_promoted(models: dict[str, str], home: Path) -> None:
    golden = home / "models" / "m0" / "golden.jsonl"
    rows = [json.loads(line) for line in golden.read_text().splitlines()]
    rows[0]["score"] += 1
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ModelError, match="golden score differs"):
        models_command.main(["promote", "m0", "hh@prod"])
    with pytest.raises(ModelError, match="nothing is promoted"):
        load_model("hh@prod")
    with pytest.raises(UsageError, match="NAME@ALIAS"):
        models_command.main(["promote", "m1", "prod"])
    with pytest.raises(ModelError, match="no model nowhere"):
        load_model("nowhere")


def test_rolling_back_to_a_model_that_is_gone_changes_nothing(
    models: dict[str, str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fingerprint in models.values():
        finished(home, fingerprint, 30)
    for name in ("m0", "m1"):
        said(capsys, "promote", name, "hh@prod")
    shutil.rmtree(home / "models" / "m0")
    with pytest.raises(ModelError, match="no longer there"):
        models_command.main(["rollback", "hh@prod"])
    assert load_model("hh@prod").info.fingerprint == models["m1"]


def test_the_card_is_one_that_the_hub_reads(
    models: dict[str, str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    finished(home, models["m0"], 30)
    status, told = said(capsys, "card", "m0")
    assert (status, told["results"]) == (0, 1)
    card = hub.ModelCard.load(home / "models" / "m0" / "README.md")
    results = card.data.eval_results
    assert card.data.model_name == "m0"
    assert {one.dataset_name for one in results} == {"made@v1", "Pairs of your own (hh@v2:test)"}
    [overall] = [one for one in results if one.metric_name == "overall"]
    assert overall.metric_value == 75.0
    assert overall.metric_args["numerator"] == 30
    [validation] = [one for one in results if one.dataset_name == "made@v1"]
    stored = json.loads((home / "models" / "m0" / "reward_model.json").read_text())["validation"]["accuracy"]
    assert validation.metric_value == pytest.approx(100 * stored["value"], abs=1e-3)
    assert "| Pairs of your own (hh@v2:test) | overall | 75.00 |" in card.text
    load_model("m0")  # the card is not bound by the fingerprint
