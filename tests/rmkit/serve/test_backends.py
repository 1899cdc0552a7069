"""Weights in another server: the same scores as here, and what would make them others is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("fastapi")

from rmkit.chat.encode import Chat, TruncationPolicy  # noqa: E402
from rmkit.errors import ModelError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.transformer import explicit, process  # noqa: E402
from rmkit.models.transformer.rating_head import RatingHead  # noqa: E402
from rmkit.serve.backends import model as backend  # noqa: E402
from rmkit.serve.backends.model import BackendModel  # noqa: E402
from rmkit.training import command as train  # noqa: E402
from tests.exports import kind_rows, write_export  # noqa: E402
from tests.rmkit.serve.holders import Holder, hold  # noqa: E402
from tests.rmkit.serve.serving import item  # noqa: E402

URL = "http://holder:8000"
KINDS = ("vllm-http", "sglang-http")
ITEMS = [
    item("the sky is", "blue", "quick brown fox\n\njumps over\n\nthe lazy dog"),
    item("yes or no " * 8, "no", "yes\n\nyes", "dog " * 30),
]


@pytest.fixture(scope="module", params=["explicit", "process"])
def artifact(
    request: Any, tiny_model: Callable[..., Any], make_tokenizer: Callable[..., Any], chatml: str, tmp_path_factory: Any
) -> Path:
    """An artifact of each kind with random weights."""
    from transformers import AutoModelForTokenClassification

    tokenizer = make_tokenizer(chatml)
    folder: Path = tmp_path_factory.mktemp("backend") / request.param
    folder.mkdir()
    chat = Chat(tokenizer, TruncationPolicy(max_length=200, response_reserve_tokens=100))
    model = tiny_model("qwen3", vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    if request.param == "explicit":
        explicit.save(folder, model=model, chat=chat, facts={"name": "tiny"})
    else:
        steps = AutoModelForTokenClassification.from_config(model.config)
        steps.model, steps.score = model.model, torch.nn.Linear(model.config.hidden_size, 1)
        process.save(
            folder, model=steps.eval(), chat=chat, facts={"name": "tiny"}, reduction="min", step_separator="\n\n"
        )
    return folder


@pytest.fixture
def holder(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Holder:
    local: Any = load_model(artifact)
    holder = hold(monkeypatch, lambda ids: rows_of(local, ids))
    holder.local = local  # type: ignore[attr-defined]
    return holder


def rows_of(model: Any, ids: list[int], *, precision: str = "fp32") -> list[list[float]]:
    """[T][1] the model's numbers at all tokens."""
    places = tuple(range(len(ids)))
    [[values]] = model.module.outputs([[tuple(ids)]], reads=[[places]], max_batch_tokens=8192, precision=precision)
    return [[value] for value in values]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_steps_are_those_of_the_model_itself(artifact: Path, holder: Holder, kind: str) -> None:
    model = BackendModel.connect(str(artifact), kind, URL + "/")
    own_scores = load_model(artifact).score(ITEMS)
    for row, expected in zip(model.score(ITEMS), own_scores, strict=True):
        for got, one in zip(row, expected, strict=True):
            assert got.value == pytest.approx(one.value, abs=1e-5)
            assert got.steps == pytest.approx(one.steps, abs=1e-5)
            assert (got.truncated, got.unscored) == (one.truncated, None)
    assert model.info == load_model(artifact).info
    [mine], [own] = model.compare(ITEMS[:1]), load_model(artifact).compare(ITEMS[:1])
    assert mine.p_first == pytest.approx(own.p_first, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_are_refused(artifact: Path, holder: Holder, kind: str) -> None:
    with torch.no_grad():
        holder.local.module.classifier.score.weight.mul_(1.05)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"golden score differs|steps"):
        BackendModel.connect(str(artifact), kind, URL)


def test_squashed_numbers_are_refused(artifact: Path, holder: Holder) -> None:
    holder.squash = True
    with pytest.raises(ModelError, match=r"golden score differs|steps"):
        BackendModel.connect(str(artifact), "vllm-http", URL)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_bf16_agree_with_the_golden_scores_of_bf16_alone(
    artifact: Path, holder: Holder, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = holder.local  # type: ignore[attr-defined]
    monkeypatch.setattr(holder, "outputs", lambda ids: rows_of(local, ids, precision="bf16"))
    with pytest.raises(ModelError, match="golden score differs"):
        BackendModel.connect(str(artifact), kind, URL)
    model = BackendModel.connect(str(artifact), kind, URL, precision="bf16")
    assert all(score.unscored is None for row in model.score(ITEMS) for score in row)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_fails_leaves_its_items_unscored(artifact: Path, holder: Holder, kind: str) -> None:
    model = BackendModel.connect(str(artifact), kind, URL)
    holder.status = 500
    [[score]] = model.score([item("p", "yes")])
    assert score.unscored == "the model's server gave no scores (HTTPStatusError)"
    holder.status, holder.outputs = 200, lambda ids: [[0.5]] * (len(ids) + 1)
    if model.info.kind == "process" and kind == "vllm-http":  # rows of another text
        [[score]] = model.score([item("p", "yes\n\nno")])
        assert score.unscored == "the model's server gave no scores (ValueError)"


def test_steps_are_asked_of_sglang_only_where_it_counts_tokens_from_the_start(artifact: Path, holder: Holder) -> None:
    holder.info = {"disable_radix_cache": False, "chunked_prefill_size": 8192}
    if load_model(artifact).info.kind == "explicit":
        BackendModel.connect(str(artifact), "sglang-http", URL)
    else:
        with pytest.raises(ModelError, match=r"with --disable-radix-cache and with --chunked-prefill-size -1"):
            BackendModel.connect(str(artifact), "sglang-http", URL)
    holder.info = {"disable_radix_cache": True, "chunked_prefill_size": -1, "allow_auto_truncate": True}
    with pytest.raises(ModelError, match="without --allow-auto-truncate"):
        BackendModel.connect(str(artifact), "sglang-http", URL)


def test_long_batches_go_in_requests_of_bounded_size(
    artifact: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BackendModel.connect(str(artifact), "vllm-http", URL)
    whole = model.score(ITEMS)
    monkeypatch.setattr(backend, "MAX_TOKENS", 100)
    holder.bodies.clear()
    assert model.score(ITEMS) == whole
    sizes = [[len(ids) for ids in body["input"]] for body in holder.bodies]
    assert len(sizes) > 1
    assert sum(map(len, sizes)) == 5
    assert all(len(one) == 1 or sum(one) <= 100 for one in sizes)


def test_ratings_of_several_aspects_come_whole(
    tiny_model: Callable[..., Any],
    make_tokenizer: Callable[..., Any],
    chatml: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = make_tokenizer(chatml)
    model = tiny_model("qwen3", vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=2)
    head = RatingHead(
        kind="regression", aspects=("help", "honesty"), weights=(0.7, 0.3), mean=(2.0, 3.0), std=(1.0, 0.5)
    )
    explicit.save(
        tmp_path, model=model, chat=Chat(tokenizer, TruncationPolicy(max_length=200)), facts={"name": "r"}, head=head
    )
    local: Any = load_model(tmp_path)
    hold(monkeypatch, lambda ids: [local.module.outputs([[tuple(ids)]], max_batch_tokens=8192)[0][0][0]])
    served = BackendModel.connect(str(tmp_path), "vllm-http", URL)
    for row, expected in zip(served.score(ITEMS), local.score(ITEMS), strict=True):
        for got, one in zip(row, expected, strict=True):
            assert got.aspects == pytest.approx(one.aspects, abs=1e-5)


def test_a_model_without_a_head_to_ask_for_is_refused(tmp_path: Path) -> None:
    data = write_export(tmp_path / "data", kind_rows(200))
    train.train("lexical", str(data), output=tmp_path / "lexical", values={"hash_bits": 10})
    with pytest.raises(ModelError, match="of the kind lexical, whose weights no other server can hold"):
        BackendModel.connect(str(tmp_path / "lexical"), "vllm-http", URL)
