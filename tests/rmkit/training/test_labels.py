"""Training on ratings, reactions and step labels: data, losses, heads, artifacts, faults."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.chat.encode import Chat, TruncationPolicy  # noqa: E402
from rmkit.chat.steps import in_steps  # noqa: E402
from rmkit.data.example import Example  # noqa: E402
from rmkit.errors import ConfigError, DataError, ModelError  # noqa: E402
from rmkit.losses.ordinal import level_log_probs, ordered_cuts  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.transformer.rating_head import RatingHead  # noqa: E402
from rmkit.training import explicit  # noqa: E402
from rmkit.training.config import TrainingConfig, training_config  # noqa: E402
from rmkit.training.data import read_rows  # noqa: E402
from rmkit.training.objectives.binary_feedback import Reaction  # noqa: E402
from rmkit.training.objectives.objective import RunState  # noqa: E402
from rmkit.training.objectives.ordinal import Ordinal  # noqa: E402
from rmkit.training.objectives.process import Process  # noqa: E402
from rmkit.training.objectives.regression import Regression  # noqa: E402
from rmkit.training.trainer import row_losses  # noqa: E402
from rmkit.types import Candidates, Completion, Message  # noqa: E402
from tests.exports import row, write_export  # noqa: E402

Make = Callable[..., Any]
GOOD, BAD = "the Yes sky\n\nquick Yes fox is\n\nis Yes", "the Yes sky\n\nquick No fox is\n\nis Yes"
WORDS = ["the", "quick", "brown", "fox", "sky", "is", "step", "2", "+", "="]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Make, chatml: str) -> Make:
    """A small causal model, and an encoder."""
    import transformers as hf

    torch.set_num_threads(1)
    made: dict[str, str] = {}

    def make(family: str = "llama") -> str:
        if family not in made:
            torch.manual_seed(1)
            folder = tmp_path_factory.mktemp(family)
            shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
            if family == "llama":
                tokenizer = make_tokenizer(chatml, pad="<|im_end|>", adds_bos=True)
                hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
            else:
                tokenizer = make_tokenizer(None, adds_bos=True, adds_eos=True)
                hf.BertModel(hf.BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[family] = str(folder)
        return made[family]

    return make


@pytest.fixture(scope="module")
def chat(make_tokenizer: Make, chatml: str) -> Chat:
    return Chat(make_tokenizer(chatml, adds_bos=True), TruncationPolicy(max_length=200, response_reserve_tokens=120))


def settings(model: str, objective: str, **more: Any) -> TrainingConfig:
    quick = {
        "learning_rate": 1e-2,
        "num_train_epochs": 4.0,
        "global_batch_size": 8,
        "max_batch_tokens": 600,
        "max_length": 200,
    }
    kind = "process" if objective == "process" else "explicit"
    return training_config(kind, model=model, objective=objective, **{**quick, "response_reserve_tokens": 100, **more})


def scores(*triples: tuple[int, str, float | None]) -> list[dict[str, Any]]:
    return [{"response": response, "aspect": aspect, "value": value} for response, aspect, value in triples]


def example(responses: list[str], **columns: Any) -> Example:
    return Example(row("Is the sky blue?", responses, kind="list", **columns))


def sentence(draw: random.Random, word: str) -> str:
    return " ".join([*draw.choices(WORDS, k=draw.randint(1, 4)), word, *draw.choices(WORDS, k=draw.randint(0, 4))])


def rated_export(folder: Path, n: int = 90) -> Path:
    """Lists of two: "Yes" helps (5), "answer" less (3), "No" hardly (1); "blue" is clear, which is often not rated."""
    draw, rows = random.Random(0), []
    for number in range(n):
        texts, given = [], []
        for at in range(2):
            (word, help), blue = draw.choice([("Yes", 5.0), ("answer", 3.0), ("No", 1.0)]), draw.random() < 0.5
            texts.append(sentence(draw, word) + (" blue" if blue else ""))
            given.append((at, "help", help))
            if draw.random() < 0.6:
                given.append((at, "clarity", 4.0 if blue else 1.0))
        split = "train" if number % 5 else "validation"
        rows.append(row(f"Is it {number}?", texts, kind="list", scores=scores(*given), family=number, split=split))
    return write_export(folder, rows)


def stepped_export(folder: Path, n: int = 120) -> Path:
    """Solutions of one to four steps; a step that says "No" is the first error, and labels end there."""
    draw, rows = random.Random(1), []
    for number in range(n):
        steps, labels, wrong = [], [], False
        for _ in range(draw.randint(1, 4)):
            bad = not wrong and draw.random() < 0.3
            steps.append(sentence(draw, "No" if bad else "Yes"))
            labels.append(None if wrong else float(not bad))
            wrong = wrong or bad
        text, ends = "\n\n".join(steps), []
        for step in steps:
            ends.append((ends[-1] if ends else 0) + len(step) + (2 if ends else 0))
        split = "train" if number % 5 else "validation"
        rows.append(
            row(
                f"Solve {number}",
                [text],
                kind="steps",
                step_ends=[ends],
                step_labels=labels,
                family=number,
                split=split,
            )
        )
    return write_export(folder, rows)


def asked(*responses: str) -> Candidates:
    made = tuple(Completion((Message("assistant", text),)) for text in responses)
    return Candidates((Message("user", "Is it 7?"),), made)


def test_ratings_become_rows_with_missing_aspects_and_the_pairs_that_follow(chat: Chat) -> None:
    head = RatingHead(kind="regression", aspects=("a", "b"), weights=(0.75, 0.25), mean=(0, 0), std=(1, 1))
    given = scores((0, "a", 1.0), (0, "b", 4.0), (1, "a", 2.0), (1, "b", 1.0), (2, "a", 5.0), (0, "other", 9.0))
    [made], skipped = read_rows(
        [example(["the sky", "the fox", "the step"], scores=given)], chat, objective=Regression(), head=head
    )
    assert not skipped
    assert made.ratings[:2] == ((1.0, 4.0), (2.0, 1.0))
    assert made.ratings[2][0] == 5.0
    assert math.isnan(made.ratings[2][1])
    # values 0.75 + 1 = 1.75 and 1.5 + 0.25 = 1.75: a tie; the third has no b, so no value to compare
    assert [tuple(one) for one in made.preferences] == [(0, 1, 0.5, 1.0)]


def test_rows_without_the_asked_aspects_are_counted(chat: Chat) -> None:
    head = RatingHead(kind="reaction", aspects=("thumb",), weights=(1.0,))
    rows = [
        example(["the sky"], scores=scores((0, "other", 1.0))),
        example(["the sky"], scores=scores((0, "thumb", None))),
        example(["the sky"], scores=scores((0, "thumb", 1.0))),
        example(["the " * 300], scores=scores((0, "thumb", 1.0))),
    ]
    kept, skipped = read_rows(rows, chat, objective=Reaction(), head=head)
    assert len(kept) == 1
    assert skipped.pop("no rating of thumb") == 2
    [(reason, count)] = skipped.items()
    assert count == 1
    assert "response takes N tokens" in reason


def config(objective: str, **more: Any) -> TrainingConfig:
    kind = "process" if objective == "process" else "explicit"
    return training_config(kind, model="-", objective=objective, **more)


def rated(*values: float, aspect: str = "a") -> list[Example]:
    return [example(["the sky"], scores=scores((0, aspect, value))) for value in values]


def test_the_head_learns_its_scales_from_the_training_split() -> None:
    data = rated(1, 3, 5, 3) + rated(2, 4, aspect="b")
    head = Regression().head(data)
    assert head.aspects == ("a", "b")
    assert head.weights == (0.5, 0.5)
    assert head.mean == (3.0, 3.0)
    assert head.std == pytest.approx((math.sqrt(2), 1.0))
    assert head.score([1.0, -1.0]).value == pytest.approx((3 + math.sqrt(2) + 2) / 2)
    assert head.score([0.0, 0.5]).aspects == pytest.approx({"a": 3.0, "b": 3.5})
    assert head.scale == "rating"
    assert head.score([math.nan, 0.0]).unscored
    weighted = Regression(aspects=("a", "b"), aspect_weights=(3.0, 1.0)).head(data)
    assert weighted.weights == (0.75, 0.25)
    assert RatingHead.of(json.loads(json.dumps(weighted.as_json()))) == weighted


def test_ordinal_thresholds_start_at_the_shares_of_the_levels() -> None:
    data = rated(1, 1, 2, 5) + rated(0, 1, 1, 1, aspect="b")
    objective = Ordinal(aspects=("a", "b"), aspect_weights=(1.0, 0.0))
    head = objective.head(data)
    assert head.levels == ((1.0, 2.0, 5.0), (0.0, 1.0))
    raw = objective.learned(head)["raw_cuts"].detach()
    cuts = [ordered_cuts(raw[0:1])[0], ordered_cuts(raw[1:2, :1])[0]]
    zero = torch.zeros(1, 1)
    assert level_log_probs(zero, cut_AK=cuts[0][None]).exp()[0, 0].tolist() == pytest.approx([0.5, 0.25, 0.25])
    assert level_log_probs(zero, cut_AK=cuts[1][None]).exp()[0, 0].tolist() == pytest.approx([0.25, 0.75])


def test_an_expected_rating_is_the_mean_over_the_levels() -> None:
    cuts = (-1.0, 0.5)
    head = RatingHead(kind="ordinal", aspects=("a",), weights=(1.0,), levels=((1.0, 2.0, 5.0),), cuts=(cuts,))
    probabilities = level_log_probs(torch.tensor([[0.3]]), cut_AK=torch.tensor([cuts])).exp()[0, 0].tolist()
    expected = sum(p * level for p, level in zip(probabilities, (1, 2, 5), strict=True))
    assert head.score([0.3]).value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("data", "objective", "more", "message"),
    [
        (rated(3, 3), "regression", {}, "no aspect has two different ratings"),
        (rated(1, 2), "regression", {"aspects": ("b",)}, "no rating of b"),
        (rated(1, 2) + rated(4, 4, aspect="b"), "regression", {"aspects": ("a", "b")}, "every rating of b"),
        (rated(0, 1) + rated(1, 10, aspect="b"), "regression", {}, "different scales"),
        (rated(0, 1) + rated(0, 1, aspect="b"), "reaction", {}, "a reaction is one aspect"),
        (rated(0, 2), "reaction", {}, "reactions lie in"),
        (rated(*range(40)), "ordinal", {}, "40 different values"),
    ],
)
def test_ratings_that_do_not_fit_are_refused(data: Any, objective: str, more: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        config(objective, **more).objective.head(data)


@pytest.mark.parametrize(
    "more",
    [
        {"aspect_weights": (1.0,)},
        {"aspects": ("a",), "aspect_weights": (0.0,)},
        {"aspects": ("a", "b"), "aspect_weights": (1.0,)},
        {"objective": "reaction", "negatives_kept": 0.0},
        {"center_rewards_coefficient": 0.1},
        {"kind": "process", "objective": "process", "step_separator": ""},
    ],
)
def test_configs_that_make_no_sense_are_refused(more: Any) -> None:
    with pytest.raises(ConfigError):
        training_config(more.pop("kind", "explicit"), **{"model": "-", "objective": "regression", **more})


def test_row_losses_of_ratings_are_the_hand_derived_ones(chat: Chat) -> None:
    head = RatingHead(kind="regression", aspects=("a", "b"), weights=(0.5, 0.5), mean=(3, 2), std=(2, 1))
    given = scores((0, "a", 5.0), (0, "b", 2.0), (1, "a", 3.0))
    data = [example(["the sky", "the fox"], scores=given, weight=2.0)]
    rows, _ = read_rows(data, chat, objective=Regression(), head=head)
    outputs = torch.tensor([[0.0, 3.0], [0.5, 9.0]])
    # first: ((0 - 1)^2 + (3 - 0)^2) / 2 = 5; second: b is missing, (0.5 - 0)^2 = 0.25; mean 2.625, weight 2
    assert row_losses(outputs, rows, config("regression"), state=RunState(head)).tolist() == [5.25]


def test_prior_correction_shifts_the_logit(chat: Chat) -> None:
    head = RatingHead(kind="reaction", aspects=("thumb",), weights=(1.0,))
    rows, _ = read_rows(rated(1.0, 0.0, aspect="thumb"), chat, objective=Reaction(), head=head)
    found = row_losses(torch.tensor([0.2, 0.2]), rows, config("reaction", negatives_kept=0.25), state=RunState(head))
    shifted = 0.2 + math.log(4)
    assert found.tolist() == pytest.approx([math.log1p(math.exp(-shifted)), math.log1p(math.exp(shifted))])


def test_steps_are_masked_after_the_first_error_and_read_where_they_end(chat: Chat) -> None:
    text = "the sky\n\nis not\n\nblue"
    data = [example([text], step_ends=[[9, 17, 21]], step_labels=[1.0, 0.0, None])]
    [made], _ = read_rows(data, chat, objective=Process())
    ends = [chat.tokenizer.decode(made.ids[0][: at + 1]) for at in made.step_index[0]]
    assert [end.endswith(step) for end, step in zip(ends, ("the sky", "is not", "blue"), strict=True)] == [True] * 3
    logits = torch.tensor([0.5, 1.0, 77.0], requires_grad=True)
    loss = row_losses(logits, [made], config("process"))
    assert loss.item() == pytest.approx((math.log1p(math.exp(-0.5)) + math.log1p(math.exp(1.0))) / 2)
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[2] == 0
    assert logits.grad[0] < 0 < logits.grad[1]


def test_soft_step_labels_and_rows_without_any(chat: Chat) -> None:
    soft = [example(["the sky"], step_ends=[[7]], step_labels=[0.25])]
    [made], _ = read_rows(soft, chat, objective=Process())
    loss = row_losses(torch.zeros(1), [made], config("process")).item()
    assert loss == pytest.approx(math.log(2))
    nothing = [example(["the sky"]), example(["the sky", "the fox"], step_ends=[[7], [7]], step_labels=[1.0])]
    _, skipped = read_rows(nothing, chat, objective=Process())
    assert skipped == {"no step labels (kind list)": 1, "not one response with one label a step": 1}


@pytest.mark.parametrize("objective", [pytest.param("regression", marks=pytest.mark.slow), "ordinal"])
def test_ratings_train_into_an_artifact_that_reloads(
    checkpoint: Make, home: Path, objective: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    data = rated_export(tmp_path / "data")
    chosen = settings(
        checkpoint(), objective, aspects=("help", "clarity"), aspect_weights=(1.0, 0.0), num_train_epochs=6.0
    )
    result = explicit.train(str(data), chosen, output=tmp_path / "model")
    help_facts = result["validation"]["aspects"]["help"]
    assert help_facts["pearson"] > 0.6
    assert help_facts["mae"] < 0.8 * help_facts["mae_of_mean"]
    assert help_facts["n"] == 36 > result["validation"]["aspects"]["clarity"]["n"]
    assert result["validation"]["accuracy"]["value"] > 0.7
    model = load_model(result["path"])
    assert (model.info.kind, model.info.scale) == ("explicit", "rating")
    [[yes, no]] = model.score([asked("the Yes sky is", "the No sky is")])
    assert yes.aspects["help"] > no.aspects["help"] + 0.5
    assert yes.value == yes.aspects["help"]
    assert yes.aspects["clarity"] != yes.value
    assert 1 <= no.aspects["help"] <= 5 or objective == "regression"
    assert model.compare([asked("the Yes sky is", "the No sky is")])[0].p_first > 0.5
    plain, report = AutoModelForSequenceClassification.from_pretrained(result["path"], output_loading_info=True)
    assert not report["missing_keys"]
    assert plain.config.id2label == {0: "help", 1: "clarity"}
    ids = torch.tensor([model.chat.encode(asked("the Yes sky is").prompt, asked("the Yes sky is").completions[0]).ids])
    with torch.no_grad():
        outputs = plain.eval()(input_ids=ids).logits[0].tolist()
    assert model.head.score(outputs).value == pytest.approx(yes.value, abs=1e-5)


def test_reactions_train_into_a_logit(checkpoint: Make, home: Path, tmp_path: Path) -> None:
    draw, rows = random.Random(2), []
    for number in range(100):
        up = draw.random() < 0.7
        text = sentence(draw, "Yes" if up else "No")
        split = "train" if number % 5 else "validation"
        given = scores((0, "thumb", float(up)))
        rows.append(row(f"Is it {number}?", [text], kind="single", scores=given, family=number, split=split))
    data = write_export(tmp_path / "data", rows)
    result = explicit.train(str(data), settings(checkpoint(), "reaction"), output=tmp_path / "model")
    facts = result["validation"]
    assert facts["auc"] > 0.9
    assert facts["log_loss"] < 0.7 * facts["log_loss_of_rate"]
    assert "accuracy" not in facts  # no prompt has two answers
    model = load_model(result["path"])
    assert model.info.scale == "logit"
    [[yes]] = model.score([asked("the Yes sky is")])
    assert yes.aspects == {"thumb": pytest.approx(1 / (1 + math.exp(-yes.value)))}
    assert explicit._text(result).count("AUC") == 1


@pytest.fixture(scope="module")
def process_result(
    checkpoint: Make, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, Any], Any]]:
    """What training said, and the model, once for every family."""
    made: dict[str, tuple[dict[str, Any], Any]] = {}

    def make(family: str) -> tuple[dict[str, Any], Any]:
        if family not in made:
            folder = tmp_path_factory.mktemp(f"process-{family}")
            chosen = settings(checkpoint(family), "process", reduction="product", num_train_epochs=8.0)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("RMKIT_HOME", str(folder / "home"))
                result = explicit.train(str(stepped_export(folder / "data")), chosen, output=folder / "model")
            made[family] = result, load_model(result["path"])
        return made[family]

    return make


@pytest.mark.parametrize("family", ["llama", pytest.param("bert", marks=pytest.mark.slow)])
def test_a_process_model_finds_the_error(process_result: Make, family: str) -> None:
    result, model = process_result(family)
    facts = result["validation"]
    assert facts["auc"] > 0.8
    assert facts["log_loss"] < 0.9 * facts["log_loss_of_rate"]
    assert facts["solutions"] == 24 == facts["first_error"]["erroneous"] + facts["first_error"]["correct"]
    assert (result["training"]["padded_because"] is None) == (family == "llama")
    assert (model.info.kind, model.info.scale) == ("process", "probability")
    said = explicit._text(result)
    assert "first errors: F1" in said
    assert "always the base rate" in said
    assert "--suite steps" in said
    [[right, wrong, empty, short]] = model.score([asked(GOOD, BAD, "", "the Yes sky")])
    assert len(right.steps) == len(wrong.steps) == 3
    assert len(short.steps) == 1
    assert int(np.argmin(wrong.steps)) == 1
    assert right.steps[1] > wrong.steps[1] + 0.05
    assert empty.unscored == "the completion has no assistant text"
    by_hand = {
        "min": min(wrong.steps),
        "last": wrong.steps[-1],
        "product": math.prod(wrong.steps),
        "mean": sum(wrong.steps) / 3,
    }
    assert wrong.aspects == pytest.approx(by_hand)
    assert wrong.value == wrong.aspects["product"]
    for text, score in ((GOOD, right), (BAD, wrong), ("the Yes sky", short)):  # company changes nothing
        [[alone]] = model.score([asked(text)])
        assert alone.steps == pytest.approx(score.steps, abs=1e-5)
    odds = [score.value / (1 - score.value) for score in (right, wrong)]
    [found] = model.compare([asked(GOOD, BAD)])
    assert found.p_first == pytest.approx(odds[0] / sum(odds))


@pytest.mark.parametrize("family", ["llama", pytest.param("bert", marks=pytest.mark.slow)])
def test_plain_transformers_gives_the_same_step_scores(process_result: Make, family: str) -> None:
    from transformers import AutoModelForTokenClassification

    result, model = process_result(family)
    plain, report = AutoModelForTokenClassification.from_pretrained(result["path"], output_loading_info=True)
    assert not report["missing_keys"]
    marked = Completion((Message("assistant", BAD),), step_ends=(13, 30, 36))
    item = Candidates(asked(BAD).prompt, (marked,))
    [[given]], [[split]] = model.score([item]), model.score([asked(BAD)])
    assert given.steps == split.steps  # marked steps are those that the separator finds
    encoded = model.chat.encode(item.prompt, marked)
    with torch.no_grad():
        logits = plain.eval()(input_ids=torch.tensor([encoded.ids])).logits[0, list(encoded.step_index), 0]
    assert torch.sigmoid(logits).tolist() == pytest.approx(given.steps, abs=1e-5)


def test_a_causal_process_model_never_looks_ahead(process_result: Make) -> None:
    _, model = process_result("llama")
    start, rest = "the Yes sky\n\nquick No fox\n\n", "is"
    [[whole, part]] = model.score([asked(start + rest, start)])
    assert len(whole.steps) == 3
    assert whole.steps[:2] == pytest.approx(part.steps, abs=1e-5)


def test_a_process_artifact_that_was_changed_does_not_load(process_result: Make, tmp_path: Path) -> None:
    result, model = process_result("llama")
    [[long]] = model.score([asked("the Yes sky is quick\n\n" * 40)])
    assert long.unscored
    assert "response takes" in long.unscored
    folder = tmp_path / "changed"
    shutil.copytree(result["path"], folder)
    golden = folder / "golden.jsonl"
    lines = [json.loads(line) for line in golden.read_text().splitlines()]
    assert max(len(line["steps"]) for line in lines) == 3
    lines[-1]["steps"][0] += 0.01
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ModelError, match="golden step scores differ"):
        load_model(folder)
    shutil.copy(Path(result["path"]) / "golden.jsonl", golden)
    card = json.loads((folder / "reward_model.json").read_text())
    card["config"]["reduction"] = "last"
    (folder / "reward_model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"fingerprint|golden"):
        load_model(folder)


def test_steps_are_split_behind_the_separator_only_where_none_are_marked() -> None:
    made = in_steps(Completion((Message("assistant", "one\n\n\n\ntwo\n\n  "),)), separator="\n\n")
    assert made.step_ends == (5, 12)
    marked = Completion((Message("assistant", "one\n\ntwo"),), step_ends=(8,))
    assert in_steps(marked, separator="\n\n") is marked
    with pytest.raises(DataError, match="no assistant text"):
        in_steps(Completion((Message("assistant", " "),)), separator="\n\n")
