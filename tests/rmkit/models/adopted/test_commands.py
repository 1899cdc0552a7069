"""An adopted model behind every command that takes a model, one of each reader."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import rmkit  # noqa: E402
from rmkit.cli.main import call  # noqa: E402
from rmkit.errors import UsageError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.adopted.adopt import adopt  # noqa: E402
from rmkit.models.adopted.profile import merged  # noqa: E402
from tests.data_pipelines.frames import apply, frame, pair  # noqa: E402
from tests.exports import row, write_export  # noqa: E402
from tests.rmkit.models.adopted import fakes as made  # noqa: E402
from tests.rmkit.models.adopted.test_readers import TEXTS, item  # noqa: E402
from tests.rmkit.serve.serving import local_client  # noqa: E402

READERS = {
    "column": "worldpm",
    "mixture": "armo",
    "token": "math-shepherd",
    "pair": "pairrm",
    "ratio": "ratio",
    "remote": "remote",
}


@pytest.fixture(scope="module")
def built(all_fakes: dict[str, made.Fake], tmp_path_factory: pytest.TempPathFactory) -> dict[str, made.Fake]:
    root = tmp_path_factory.mktemp("more")
    made.causal(root / "dpo", made.llama(), seed=61)
    made.causal(root / "sft", made.llama(), seed=62)
    tables = {"model": {"reference": str(root / "sft")}, "read": {"kind": "ratio"}}
    ratio = replace(all_fakes["scalar"], name="ratio", folder=root / "dpo", adopt={"tables": tables})
    return all_fakes | {"ratio": ratio, "remote": made.remote(root)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of random words, the longer one better, so that no score is told apart by chance alone."""
    draw = random.Random(3)
    rows = []
    for number in range(130):
        first, second = (" ".join(draw.choices(made.WORDS, k=n)) for n in (6 + number % 5, 3))
        split = "validation" if number < 70 else "test" if number < 90 else "train"
        prompt = f"{' '.join(draw.choices(made.WORDS, k=4))} {number}"
        rows.append(row(prompt, [first, second], p=[1.0, 0.0], family=number, split=split, subset="s"))
    return write_export(tmp_path_factory.mktemp("data") / "pairs", rows)


def all_commands(built: dict[str, made.Fake], reader: str, data: Path, folder: Path, capsys: Any) -> None:
    fake = built[READERS[reader]]
    trusted = {"trust_remote_code": True} if reader == "remote" else {}
    adoption = adopt(fake.folder, output=folder / "model", **trusted, **fake.adopt)
    name = str(adoption.path)
    assert adoption.profile.read.kind == reader
    model = load_model(name)

    def output(command: str, *arguments: str) -> Any:
        capsys.readouterr()
        assert call(command, [*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert output("verify", name)["same"] is True
    result = output("eval", name, "--data", str(data), "--split", "test")
    overall = result["models"][0]["measures"]["overall"]
    assert overall["denominator"] > 10
    direct = model.compare([item("the sky is", "blue yes", "no")])[0].p_first
    with local_client(rmkit.serve_app(name)) as client:
        body = {"prompt": "the sky is", "completions": ["blue yes", "no"]}
        served = client.post("/rmkit/v1/compare", json={"items": [body]}).json()["comparisons"][0]
        assert served["p_first"] == pytest.approx(direct, abs=1e-5)
    call("score", [name, str(data), "-o", str(folder / "scores.jsonl"), "--split", "test"])
    lines = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    assert len(lines) == 20
    assert all(len(line["scores"]) == 2 and None not in line["scores"] for line in lines), lines[0]
    frame_of = frame([pair(q, a, "no it is four", p=(1.0, 0.0)) for q, a in TEXTS])
    scored = apply("score", frame_of, model=name).kept.to_dicts()
    assert len(scored) == len(TEXTS)
    if not model.info.pointwise:
        with pytest.raises(UsageError, match="relative to each other"):
            call("calibrate", [name, "--data", str(data)])
        return
    fitted = output("calibrate", name, "--data", str(data))
    assert fitted["fingerprint"] == adoption.fingerprint
    twin = {**fake.adopt, "tables": merged(fake.adopt.get("tables", {}), {"scale": {"sign": -1, "aggregate": "mean"}})}
    other = adopt(fake.folder, output=folder / "twin", **trusted, **twin)
    settings = {"output": folder / "both", "members": [name, str(other.path)]}
    both = rmkit.train("ensemble", data, **settings).load()
    [[joint]] = both.score([item("the sky is", "blue yes")])
    assert joint.unscored is None


@pytest.mark.slow
@pytest.mark.parametrize("reader", sorted(READERS))
def test_every_command_takes_every_reader(
    built: dict[str, made.Fake], reader: str, data: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    all_commands(built, reader, data, tmp_path, capsys)
