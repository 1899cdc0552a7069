"""Adopted models whose weights sit in another server: stand-ins of vLLM and SGLang, numpy as the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("fastapi")

from rmkit.errors import ModelError  # noqa: E402
from rmkit.models.adopted.adopt import adopt  # noqa: E402
from rmkit.serve.backends.model import BackendModel  # noqa: E402
from tests.rmkit.models.adopted import fakes as made  # noqa: E402
from tests.rmkit.models.adopted.test_readers import TEXTS, item  # noqa: E402
from tests.rmkit.serve.holders import Holder, Rows, hold  # noqa: E402

URL = "http://holder:8000"
KINDS = ("vllm-http", "sglang-http")
HEADS = {"scalar": "score", "beaver-cost": "score_head", "openrlhf": "score", "trl-prm": "score"}


def behind(fake: made.Fake, monkeypatch: pytest.MonkeyPatch, ids: tuple[int, ...] = ()) -> Holder:
    """The head's raw outputs at every token, or the logits of `ids`, as numpy gives them."""
    tensors = {name: one.double().numpy() for name, one in fake.tensors.items()}

    def outputs(text: list[int]) -> Rows:
        with torch.no_grad():
            states = fake.trunk(input_ids=torch.tensor([text])).last_hidden_state[0].double().numpy()
        if ids:
            return [[float(state @ tensors["lm_head.weight"][one]) for one in ids] for state in states]
        if fake.name in HEADS:
            return [made.linear(state, tensors, HEADS[fake.name]).tolist() for state in states]
        return [made.mlp(state, tensors).tolist() for state in states]

    return hold(monkeypatch, outputs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted({*HEADS, "qwen-prm", "math-shepherd", "rlhflow-prm", "nemotron"}))
def test_the_server_gives_the_oracle_s_numbers(
    fakes: dict[str, made.Fake], name: str, kind: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fakes[name]
    adoption = adopt(fake.folder, output=tmp_path / "model", **fake.adopt)
    read = adoption.profile.read
    listed = () if read.kind != "token" else tuple(read.softmax or ()) or (read.logit,)
    holder = behind(fake, monkeypatch, listed)
    if name == "qwen-prm" and kind == "vllm-http":  # vLLM answers at the tokens that mark steps alone
        holder.step_id = 8
    model = BackendModel.connect(str(adoption.path), kind, URL)
    for [score], text in zip(model.score([item(*text) for text in TEXTS]), TEXTS, strict=True):
        expected = fake.expected(*text)
        if isinstance(expected, list):
            assert list(score.steps) == pytest.approx(expected, abs=1e-5)
        else:
            assert score.value == pytest.approx(float(expected), abs=1e-5)
    right = holder.outputs
    monkeypatch.setattr(holder, "outputs", lambda ids: [[1.05 * x for x in row] for row in right(ids)])
    with pytest.raises(ModelError, match=r"golden score differs|steps"):
        BackendModel.connect(str(adoption.path), kind, URL)


@pytest.mark.slow
def test_ids_behind_the_token_read_are_not_sent(
    fakes: dict[str, made.Fake], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fakes["scalar"]
    tables: dict[str, Any] = {
        "read": {"kind": "column", "at": {"last": made.VOCABULARY["<|a|>"]}},
        "head": {"linear": "score"},
    }
    adoption = adopt(fake.folder, tables=tables, output=tmp_path / "model")
    holder = behind(fake, monkeypatch)
    model = BackendModel.connect(str(adoption.path), "vllm-http", URL)
    holder.bodies.clear()
    [[first, second]] = model.score([item("the sky is", "blue", "two plus two")])
    assert first.value == second.value  # read at the header, before either answer
    assert {ids[-1] for ids in holder.bodies[0]["input"]} == {made.VOCABULARY["<|a|>"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["armo", "pythia-mean", "pairrm"])
def test_what_no_server_gives_is_refused(
    all_fakes: dict[str, made.Fake], name: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gates and means read states, which servers keep; a pair is no single text."""
    adoption = adopt(all_fakes[name].folder, output=tmp_path / "model", **all_fakes[name].adopt)
    behind(all_fakes[name], monkeypatch)
    with pytest.raises(ModelError, match=r"is read by \w+( with a gate)?, so serve it without --backend"):
        BackendModel.connect(str(adoption.path), "vllm-http", URL)
