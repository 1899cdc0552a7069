"""`import rmkit`: lazy, complete in the stub, names and objects for models, names and rows for data."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import rmkit
from rmkit.data.example import read_examples, read_manifest
from rmkit.data.export_folder import export_folder
from rmkit.errors import DataError, UsageError
from rmkit.plugins import BUILT_IN
from tests.exports import KIND, RUDE, TOPICS, kind_rows, write_export
from tests.rmkit.serve.serving import Steered, local_client

ROOT = Path(__file__).parents[2]


def pairs(n: int = 120) -> list[dict[str, Any]]:
    """Two pairs to a prompt, whose chosen text is kind."""
    return [
        {
            "prompt": f"Tell me about {TOPICS[i // 2 % 8]} in {1000 + 7919 * (i // 2) % 9973}",
            "chosen": f"{KIND[i % 8]} {KIND[i // 3 % 8]} {i}",
            "rejected": f"{RUDE[i % 7]} {RUDE[i // 3 % 7]} {i}",
        }
        for i in range(n)
    ]


def splits(folder: Path) -> Counter[str]:
    return Counter(example.row["split"] for example in read_examples(folder))


def test_importing_rmkit_imports_nothing_heavy() -> None:
    code = (
        "import sys; import rmkit; before = set(sys.modules); rmkit.Message; rmkit.RmkitError; dir(rmkit);"
        "heavy = {'torch', 'duckdb', 'numpy', 'polars', 'pyarrow', 'sklearn', 'pydantic', 'httpx'} & set(sys.modules);"
        "print(sorted(heavy), sorted(name for name in before if name.startswith('rmkit')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[] ['rmkit']"


def test_the_stub_names_what_the_table_does_from_the_same_places() -> None:
    tree = ast.parse((ROOT / "rmkit" / "__init__.pyi").read_text())
    stub = {
        str(alias.asname): f"{node.module}:{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert stub == BUILT_IN["front_door"]


def test_an_unknown_name_is_no_attribute() -> None:
    assert {"train", "load_dataset"} <= set(dir(rmkit))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = rmkit.trian  # type: ignore[attr-defined]


def test_judge_stays_a_function_when_its_package_is_imported(tmp_path: Path) -> None:
    import rmkit.judge.model

    assert rmkit.judge.model.Judge
    with pytest.raises(rmkit.RmkitError, match="no such file"):
        rmkit.judge(tmp_path / "none.toml", "x")


def test_candidates_takes_texts_and_messages_as_mappings_or_objects() -> None:
    turns = [rmkit.Message("system", "Be brief."), {"role": "user", "content": "Why?"}]
    got = rmkit.candidates(turns, ["Because.", [{"role": "assistant", "content": [{"type": "text", "text": "So."}]}]])
    assert got.prompt == (rmkit.Message("system", "Be brief."), rmkit.Message("user", "Why?"))
    assert [completion.text for completion in got.completions] == ["Because.", "So."]
    with pytest.raises(DataError, match=r"at least one response, got 'Because\.'"):
        rmkit.candidates("Why?", "Because.")


def test_rows_of_every_kind_become_the_same_export_split_by_prompt(home: Path) -> None:
    pytest.importorskip("pandas")
    datasets = pytest.importorskip("datasets")
    rows = pairs()
    folder = export_folder(rows)
    others = (
        pl.DataFrame(rows),
        pl.DataFrame(rows).lazy(),
        pl.DataFrame(rows).to_pandas(),
        pl.DataFrame(rows).to_arrow(),
    )
    assert {export_folder(data) for data in (*others, datasets.Dataset.from_list(rows), iter(rows))} == {folder}
    assert splits(folder).total() == 120
    assert set(splits(folder)) == {"train", "validation", "test"}
    places: dict[str, set[str]] = {}
    for example in read_examples(folder):
        places.setdefault(example.row["prompt"], set()).add(example.row["split"])
    assert len(places) == 60
    assert all(len(each) == 1 for each in places.values())
    kind = [example.row["responses"][example.row["p"].index(1.0)] for example in read_examples(folder)]
    assert all(any(word in text for word in KIND) and not any(f" {word} " in text for word in RUDE) for text in kind)
    assert not home.exists()


def test_a_dataset_dict_keeps_its_splits_only_where_it_can_be_trained_on(home: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = pairs(60)
    parts = {"train": rows[:40], "validation": rows[40:50], "test": rows[50:]}
    whole = datasets.DatasetDict({name: datasets.Dataset.from_list(part) for name, part in parts.items()})
    assert splits(export_folder(whole)) == {"train": 40, "dev": 10, "test": 10}
    without = datasets.DatasetDict({name: whole[name] for name in ("train", "test")})
    assert splits(export_folder(without))["validation"] > 0


def test_unusable_rows_are_counted_and_rows_of_nothing_refused(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = export_folder([*pairs(30), {"prompt": "p", "chosen": None, "rejected": "r"}, "no row"])
    assert splits(folder).total() == 30
    assert "2 of 32 rows are not usable" in caplog.text
    with pytest.raises(DataError, match="cannot read rows from int"):
        export_folder(7)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no known format has the columns text"):
        export_folder([{"text": "only this"}])


def test_a_dataset_comes_with_messages_and_goes_back_as_data(tmp_path: Path, home: Path) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("datasets")
    source = write_export(tmp_path / "export", kind_rows(50))
    data = rmkit.load_dataset(source)
    assert (data.ref, len(data), dict(data.splits)) == ("made@v1", 50, {"train": 30, "validation": 10, "test": 10})
    first = next(iter(data))
    plain = [{"role": "user", "content": first.candidates.prompt[0].content}]
    assert data.to_polars()["prompt"].to_list()[0] == plain
    assert data.to_hf()[0]["prompt"] == plain
    assert data.to_arrow()["prompt"][0].as_py() == plain
    assert [dict(message) for message in data.to_pandas()["prompt"][0]] == plain
    texts = [completion.text for completion in first.candidates.completions]
    assert [reply[0]["content"] for reply in data.to_polars()["responses"].to_list()[0]] == texts
    trl = data.to_hf("trl")[0]
    better = first.row["p"].index(1.0)
    assert (trl["chosen"][0]["content"], trl["rejected"][0]["content"]) == (texts[better], texts[1 - better])
    test = data.split("test")
    assert {example.row["split"] for example in test} == {"test"}
    with pytest.raises(DataError, match="no rows in split 'dev'; it has: train, validation, test"):
        data.split("dev")
    for again in (data, data.to_polars(), data.to_pandas(), data.to_hf()):
        folder = export_folder(again)
        assert [example.row for example in read_examples(folder)] == [example.row for example in data]
    assert read_manifest(export_folder(data))["ref"] == "made@v1"


def test_tool_turns_survive_the_way_through_a_frame(tmp_path: Path) -> None:
    (row, *_) = kind_rows(1)
    calls = [{"type": "function", "function": {"name": "look", "arguments": {"word": "egg", "n": 2}}}]
    turns = [
        {"content": "", "role": "assistant", "tool_calls": calls},
        {"content": "4", "role": "tool", "tool_call_id": "c1"},
        {"content": "Four.", "role": "assistant"},
    ]
    row["responses"] = [json.dumps(turns, sort_keys=True, separators=(",", ":")), row["responses"][1]]
    data = rmkit.load_dataset(write_export(tmp_path / "export", [row]))
    first, plain = data.to_polars()["responses"].to_list()[0]
    assert json.loads(first[0]["tool_calls"]) == calls
    rest = dict.fromkeys(["name", "tool_calls", "reasoning"])
    assert first[1] == {"role": "tool", "content": "4", "tool_call_id": "c1"} | rest
    assert plain[0]["tool_calls"] is None
    (again,) = read_examples(export_folder(data.to_polars()))
    assert again.row["responses"] == row["responses"]


def test_ingest_and_recipes_from_rows_in_memory(home: Path) -> None:
    made = rmkit.ingest([*pairs(40), pairs(1)[0], {"prompt": 3}], name="kind", license="MIT")
    assert (made.version, made.rows, made.accepted, made.rejected) == ("kind@v1", 42, 41, 1)
    assert sum(made.reasons.values()) == 1
    assert made.as_json()["repeated_units"] == 1
    assert rmkit.ingest([*pairs(40), pairs(1)[0], {"prompt": 3}], name="kind", license="MIT").version == "kind@v1"
    cut = {"recipe": {"name": "half"}, "step": [{"use": "subset", "max_rows": 20}]}
    run = rmkit.run_recipe(cut, "kind", out="half")
    assert (run.version, run.rows_in, run.steps[0]["n_dropped"]) == ("half@v1", 40, 40 - run.rows_out)
    assert json.loads(json.dumps(run.as_json()))["digest"] == rmkit.load_dataset("half").digest
    with pytest.raises(UsageError, match="unknown role 'question'"):
        rmkit.ingest(pairs(3), columns={"question": "prompt"})
    mapped = [{"q": row["prompt"], "a": row["chosen"], "b": row["rejected"]} for row in pairs(4)]
    columns = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert rmkit.ingest(mapped, name="mapped", columns=columns).accepted == 4


def test_train_from_rows_then_load_and_score(home: Path, tmp_path: Path) -> None:
    result = rmkit.train("lexical", pairs(200), output=tmp_path / "kind", c_grid=[1.0])
    assert result.facts["training"]["c"] == 1.0
    assert result.validation["accuracy"]["value"] == 1.0
    assert json.loads(json.dumps(result.as_json()))["path"] == str(tmp_path / "kind")
    model = result.load()
    (kind, rude) = model.score([rmkit.candidates("Tell me about eggs", ["thank you, glad", "stupid nonsense"])])[0]
    assert kind.value > rude.value
    assert rmkit.load_model(model) is model
    with pytest.raises(rmkit.RmkitError, match="no_such"):
        rmkit.train("lexical", pairs(), no_such=1)
    with pytest.raises(UsageError, match="got 'lexcal'"):
        rmkit.train("lexcal", pairs())


def test_evaluate_and_compare_take_objects_and_rows(home: Path) -> None:
    rows = [row | {"chosen": "certainly " * 9 + row["chosen"]} for row in pairs(60)]
    result = rmkit.compare([Steered(name="longer"), "length"], data=rows, split="all")
    longer, length = (one.measures["overall"] for one in result.models)
    assert (longer.numerator, longer.denominator, length.percent) == (60, 60, 100.0)
    assert [one.difference for one in result.comparisons[0].differences] == [0.0, 0.0]
    assert json.loads(json.dumps(result.as_json()))["models"][0]["name"] == "longer"
    with pytest.raises(UsageError, match="the same model twice"):
        rmkit.evaluate(["length", "length"], data=rows, split="all")


def test_serve_app_takes_objects_and_names(home: Path) -> None:
    body = {"items": [{"prompt": "Hi", "completions": ["abc", "abcde"]}]}
    with local_client(rmkit.serve_app([Steered(), "length"])) as client:
        assert [row["name"] for row in client.get("/rmkit/v1/models").json()["models"]] == ["steered", "length"]
        answer = client.post("/rmkit/v1/score", json=body).json()
        assert [score["value"] for score in answer["scores"][0]] == [3.0, 5.0]
    assert not home.exists()
    with local_client(rmkit.serve_app({"one": "length"}, token="a-secret-of-the-test")) as client:
        assert client.get("/rmkit/v1/models").status_code == 401
        assert (
            client.get("/rmkit/v1/models", headers={"Authorization": "Bearer a-secret-of-the-test"}).status_code == 200
        )
    with pytest.raises(UsageError, match="two models are named 'steered'"):
        rmkit.serve_app([Steered(), Steered(offset=1)])


USER_SCRIPT = """
    import rmkit

    data: rmkit.Dataset = rmkit.load_dataset("hh@v2")
    rows: int = len(data.to_polars())
    model: rmkit.RewardModel = rmkit.train("lexical", data, output="m").load()
    item: rmkit.Candidates = rmkit.candidates("Why?", ["Because.", "So."])
    values: list[float] = [score.value for score in model.score([item])[0]]
    version: str = rmkit.run_recipe("clean", "hh").version
    percent: float = rmkit.evaluate(model, data=data).models[0].measures["overall"].percent
    points = [one.difference for one in rmkit.compare([model, "length"], data="hh@v2").comparisons[0].differences]
    verdicts = [verdict.p_first for verdict in rmkit.judge("judge.toml", "hh", dry_run=True).verdicts]
    app = rmkit.serve_app({"hh": model, "length": "length"}, token="a")
    try:
        rmkit.ingest([{"prompt": "a", "chosen": "b", "rejected": "c"}], name="x")
    except rmkit.RmkitError as error:
        print(error, rows, values, version, percent, points, verdicts, app)
"""


@pytest.mark.slow
def test_a_users_script_is_strictly_typed_against_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    build = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"]
    subprocess.run([*build, "--target", str(tmp_path / "site"), str(ROOT)], check=True)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(USER_SCRIPT))
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import rmkit\nitem: int = rmkit.candidates('a', ['b'])\nrmkit.train(3, 'hh')\n")
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-incremental"]
    environment = {"PATH": "/usr/bin:/bin", "MYPYPATH": "", "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}
    good = subprocess.run([*mypy, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (good.returncode, good.stdout.strip()) == (0, "Success: no issues found in 1 source file")
    bad = subprocess.run([*mypy, str(wrong)], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert "error: Incompatible types in assignment" in bad.stdout
    assert "wrong.py:3: error: Argument 1" in bad.stdout
