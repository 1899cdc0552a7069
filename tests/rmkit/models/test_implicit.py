"""Implicit reward models: log-probabilities, losses beside TRL's, training, token rewards, contrast, faults."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.cli import main as cli  # noqa: E402
from rmkit.data.example import EXAMPLE_SCHEMA  # noqa: E402
from rmkit.errors import ConfigError, ModelError  # noqa: E402
from rmkit.ids import assistant_message, user_message  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.transformer.implicit import ImplicitRewardModel, causal  # noqa: E402
from rmkit.models.transformer.policy import PolicyModule  # noqa: E402
from rmkit.models.transformer.token_rewards import token_rewards  # noqa: E402
from rmkit.training import explicit  # noqa: E402
from rmkit.training.config import ExplicitConfig, ImplicitConfig, TrainingConfig, training_config  # noqa: E402
from rmkit.training.contrastive import contrastive  # noqa: E402
from rmkit.training.kinds import implicit  # noqa: E402
from rmkit.training.objectives.bradley_terry import DPO  # noqa: E402
from rmkit.training.objectives.label_noise import ConservativeDPO  # noqa: E402
from rmkit.training.objectives.rankings import PRO  # noqa: E402
from rmkit.training.rows import (  # noqa: E402
    Preference,
    TrainingRow,
)
from rmkit.training.trainer import row_losses  # noqa: E402
from rmkit.types import Candidates, Completion, Message  # noqa: E402

Make = Callable[..., Any]
WORDS = ["the", "quick", "brown", "fox", "sky", "is", "not", "step", "2", "+", "="]


def rows(n: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs in which the answer that says yes is the better one."""
    draw, made = random.Random(seed), []
    for number in range(n):
        texts = [
            " ".join([*draw.choices(WORDS, k=draw.randint(1, 4)), word, *draw.choices(WORDS, k=draw.randint(0, 4))])
            for word in ("Yes", "No")
        ]
        first = draw.random() < 0.5
        row: dict[str, Any] = dict.fromkeys(EXAMPLE_SCHEMA.names)
        row |= {"id": f"row{number:04d}", "unit": f"u{number}", "kind": "pair", "source": "test", "family": number % 40}
        row |= {"prompt": user_message(f"Is the sky blue {number}?"), "split": "test" if number % 15 == 1 else "train"}
        row |= {} if number % 5 else {"split": "validation"}
        row |= {"responses": [assistant_message(text) for text in (texts if first else texts[::-1])]}
        made.append(row | {"p": [float(first), float(not first)]})
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "yes"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows(150), schema=EXAMPLE_SCHEMA), folder / "rows.parquet")
    manifest = {"files": {"rows.parquet": {}}, "ref": "yes@v1", "digest": "d" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Make, chatml: str) -> Callable[..., str]:
    """Folder of a tiny language model: `base("llama")`, other weights with another seed."""
    import transformers as hf

    torch.set_num_threads(1)

    def make(family: str = "llama", *, seed: int = 1, template: str = chatml, **more: Any) -> str:
        folder = tmp_path_factory.mktemp(f"{family}{seed}")
        tokenizer = make_tokenizer(template, pad="<|im_end|>", adds_bos=True)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        shape |= {"num_key_value_heads": 2}
        torch.manual_seed(seed)
        if family == "gpt2":
            size = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 400}
            config = hf.GPT2Config(vocab_size=len(tokenizer) + 1, **size)
        else:
            config = {"llama": hf.LlamaConfig, "gemma2": hf.Gemma2Config, "qwen2": hf.Qwen2Config}[family](
                vocab_size=len(tokenizer) + 1, **shape, **more
            )
        hf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture(scope="module")
def model_folder(base: Make) -> str:
    return str(base())


def settings(model: str, **more: Any) -> TrainingConfig:
    quick = {
        "learning_rate": 3e-3,
        "num_train_epochs": 3.0,
        "global_batch_size": 16,
        "max_batch_tokens": 900,
        "max_length": 200,
    }
    return training_config("implicit", model=model, **{**quick, "response_reserve_tokens": 100, **more})


@pytest.fixture(scope="module")
def trained(model_folder: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", str(home))
        explicit.train(str(data), settings(model_folder), output=home / "models" / "dpo")
    return home / "models" / "dpo"


def item(*texts: str, prompt: str = "Is the sky blue 7?") -> Candidates:
    completions = tuple(Completion((Message("assistant", text),)) for text in texts)
    return Candidates((Message("user", prompt),), completions)


def plain_log_prob(model: Any, ids: tuple[int, ...], start: int) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logits[at - 1, ids[at]]) for at in range(start, len(ids)))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2"])
@pytest.mark.parametrize("max_batch_tokens", [30, 10_000])
def test_log_probabilities_are_those_of_the_plain_model(base: Make, family: str, max_batch_tokens: int) -> None:
    folder = base(family, **({"tie_word_embeddings": True} if family == "qwen2" else {}))
    draw, model = random.Random(3), causal(folder)
    prompts = [tuple(draw.choices(range(5, 200), k=draw.randint(1, 9))) for _ in range(6)]
    made = [[p + tuple(draw.choices(range(5, 200), k=draw.randint(1, 12))) for _ in range(3)] for p in prompts]
    made[0][1] = (*made[0][0][: len(prompts[0]) + 1], 9)  # these begin alike
    starts = [[len(p)] * 3 for p in prompts]
    found = PolicyModule(model).eval().token_log_probs(made, starts, max_batch_tokens=max_batch_tokens)
    plain = causal(folder)
    for row, begin, given in zip(made, starts, found, strict=True):
        for ids, at, tokens in zip(row, begin, given, strict=True):
            assert len(tokens) == len(ids) - at
            assert math.isclose(sum(tokens), plain_log_prob(plain, ids, at), abs_tol=1e-4)


@pytest.mark.parametrize(
    ("objective", "more", "loss_type", "smoothing"),
    [
        ("dpo", {}, "sigmoid", 0.0),
        ("dpo", {"per_token": True, "beta": 2.0}, "sigmoid_norm", 0.0),
        ("ipo", {}, "ipo", 0.0),
        ("rdpo", {"label_noise": 0.2}, "robust", 0.2),
    ],
)
def test_loss_and_gradients_are_those_of_trl(
    base: Make, tmp_path: Path, objective: str, more: dict[str, Any], loss_type: str, smoothing: float
) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    from transformers import AutoTokenizer

    start, ahead = base(seed=1), base(seed=2)
    config = training_config("implicit", model=start, objective=objective, **more)
    pairs = [("the sky is", " blue and quick", " not"), ("2 + 2", " = 4", " = 5 or the brown fox"), ("a", "b c", "d")]
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.pad_token = "<s>"
    ids = [[tokenizer(text, add_special_tokens=False)["input_ids"] for text in pair] for pair in pairs]
    columns = {name: [row[at] for row in ids] for at, name in enumerate(("prompt_ids", "chosen_ids", "rejected_ids"))}
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path),
        beta=config.beta,
        loss_type=[loss_type],
        label_smoothing=smoothing,
        report_to="none",
        use_cpu=True,
        per_device_train_batch_size=len(pairs),
        gradient_checkpointing=False,
        bf16=False,
    )
    texts = {name: [pair[at] for pair in pairs] for at, name in enumerate(("prompt", "chosen", "rejected"))}
    theirs = trl.DPOTrainer(
        causal(ahead),
        causal(start),
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(texts),
        processing_class=tokenizer,
    )
    batch = theirs.data_collator([{name: column[at] for name, column in columns.items()} for at in range(len(pairs))])
    theirs_loss = theirs.compute_loss(theirs.model, batch)
    theirs_loss.backward()

    rows = [
        TrainingRow(
            id=str(at),
            ids=(tuple(p + c), tuple(p + r)),
            tokens=(len(c), len(r)),
            preferences=(Preference(0, 1, 1.0, 1.0),),
            ranks=(),
            margin=0.0,
            weight=1.0,
            family=at,
        )
        for at, (p, c, r) in enumerate(ids)
    ]
    ours = implicit.ImplicitModule(causal(ahead), beta=config.beta, per_token=config.divides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", str(tmp_path))
        implicit.prepare({"train": rows}, config, ours)
    loss: Any = row_losses(ours(ours.collate([row.ids for row in rows])), rows, config).mean()
    loss.backward()
    assert math.isclose(loss.item(), theirs_loss.item(), rel_tol=1e-5)
    expected = {
        name.split("model.", 1)[-1]: p.grad for name, p in theirs.model.named_parameters() if p.grad is not None
    }
    checked = 0
    for name, parameter in ours.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name.split("model.", 1)[-1]], rtol=1e-3, atol=1e-5)
        checked += 1
    assert checked == len(expected)


def test_conservative_dpo_by_hand() -> None:
    row = TrainingRow("a", ((1,), (2,)), (1, 1), (Preference(0, 1, 1.0, 1.0),), (), 0.0, 1.0, 0)
    config = ImplicitConfig(model="x", objective=ConservativeDPO(label_noise=0.1))
    loss = float(row_losses(torch.tensor([2.0, 0.5]), [row], config)[0])
    assert math.isclose(loss, 0.9 * math.log1p(math.exp(-1.5)) + 0.1 * math.log1p(math.exp(1.5)), rel_tol=1e-6)


@pytest.mark.parametrize("per_token", [False, True])
def test_likelihood_of_the_best_response_is_that_of_the_plain_model(base: Make, per_token: bool) -> None:
    folder, ids = base(seed=2), ((3, 4, 5, 6, 7), (3, 4, 8), (3, 4, 9, 10))
    row = TrainingRow("a", ids, (3, 1, 2), (), (2, 0, 1), 0.0, 1.0, 0)
    better = replace(row, ranks=(), preferences=(Preference(0, 2, 0.2, 0.5), Preference(2, 1, 1.0, 0.5)))
    module, plain = implicit.ImplicitModule(causal(folder), beta=0.3, per_token=per_token), causal(folder)
    module.known = {one: (2, -1.5 * len(one)) for one in ids}
    config = ImplicitConfig(model="x", objective=PRO(), nll_weight=0.5)
    reward_K = module(module.collate([row.ids]))
    expected = plain_log_prob(plain, ids[1], 2), plain_log_prob(plain, ids[2], 2) / 2
    found = module.best_log_probs(torch.cat([reward_K, reward_K]), [row, better])
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    alone, both = (
        row_losses(reward_K, [row], one, module=module)[0] for one in (replace(config, nll_weight=0.0), config)
    )
    assert float(both - alone) == pytest.approx(-0.5 * expected[0], abs=1e-5)


def test_learns_a_planted_preference_and_reloads_verified(trained: Path) -> None:
    card = json.loads((trained / "reward_model.json").read_text())
    assert card["validation"]["accuracy"]["value"] > 0.9
    assert card["training"]["loss"][0] == pytest.approx(math.log(2), abs=1e-6)  # at the reference all rewards are 0
    model = load_model(trained)
    assert isinstance(model, ImplicitRewardModel)
    assert (model.info.kind, model.info.scale, model.info.pointwise) == ("implicit", "log_ratio", True)
    fresh = [item(f"the {a} Yes {b}", f"the {a} No {b}") for a in WORDS for b in WORDS]
    assert sum(comparison.p_first > 0.5 for comparison in model.compare(fresh)) > 0.9 * len(fresh)
    assert cli.main(["verify", str(trained)]) == 0


def test_score_is_beta_times_the_log_ratio_whatever_the_company(trained: Path) -> None:
    model = load_model(trained)
    assert isinstance(model, ImplicitRewardModel)
    items = [item("Yes", "No, it is not"), item("the sky is blue"), item("fox " * 20, "Yes", prompt="Why?")]
    together = model.score(items)
    model.max_batch_tokens = 1
    policy, reference = causal(trained), causal(trained / "reference")
    for row, one in zip(together, items, strict=True):
        for score, completion in zip(row, one.completions, strict=True):
            [[alone]] = model.score([Candidates(one.prompt, (completion,))])
            encoded = model.chat.encode(one.prompt, completion)
            parts = [plain_log_prob(m, encoded.ids, encoded.prompt_tokens) for m in (policy, reference)]
            assert score.value == pytest.approx(0.1 * (parts[0] - parts[1]), abs=1e-4)
            assert alone.value == pytest.approx(score.value, abs=1e-4)
            assert score.aspects["policy"] == pytest.approx(parts[0], abs=1e-3)
            assert score.aspects["per_token"] == pytest.approx(score.value / score.aspects["tokens"])


def test_token_rewards_add_up_and_lie_where_the_text_is(trained: Path) -> None:
    model = load_model(trained)
    assert isinstance(model, ImplicitRewardModel)
    one = item("the quick  Yes fox\n", "sky No", "   ")
    [[good, bad, empty]] = token_rewards(model, [one])
    [scores] = model.score([one])
    assert empty == scores[2].unscored == "the completion has no assistant text"
    for found, score, completion in zip((good, bad), scores, one.completions, strict=False):
        assert not isinstance(found, str)
        assert math.fsum(token.reward for token in found) == pytest.approx(score.aspects["sum"], abs=1e-5)
        assert len(found) == score.aspects["tokens"]
        assert all(completion.text[token.start : token.end] == token.text for token in found)
        assert "".join(token.text for token in found).replace(" ", "") == "".join(completion.text.split())
    assert not isinstance(good, str)
    assert not isinstance(bad, str)
    assert max(good, key=lambda token: token.reward).text in "Yes"
    assert min(bad, key=lambda token: token.reward).text in "No"


def test_what_cannot_be_scored_says_why(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(trained)
    assert isinstance(model, ImplicitRewardModel)
    long = item("quick " * 300, "Yes")
    shortened = item("Yes", prompt="the sky " * 300)
    found = model.score([long, shortened, item("", "Yes")])
    assert "may take" in str(found[0][0].unscored)
    assert found[0][1].unscored is None
    assert str(found[1][0].unscored).startswith("truncated")
    assert found[2][0].unscored == "the completion has no assistant text"
    assert model.compare([item("", "Yes")])[0].unscored
    with torch.no_grad():
        model.policy.classifier.get_output_embeddings().weight[:] = math.inf
    [[broken]] = model.score([item("Yes")])
    assert broken.unscored == "the policy's log-probability is nan, not a finite number"


@pytest.mark.slow
def test_reference_is_computed_once(
    model_folder: str, base: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path))
    asked: list[int] = []
    original = implicit.FeatureCache.write

    def counted(cache: Any, keys: Any, values: Any) -> None:
        asked.append(len(keys))
        original(cache, keys, values)

    monkeypatch.setattr(implicit.FeatureCache, "write", counted)
    for objective in ("dpo", "ipo"):
        config = settings(model_folder, objective=objective, num_train_epochs=0.2)
        first = explicit.train(str(data), config, output=tmp_path / objective)
    assert asked == [220, 60]  # train, validation
    assert first["training"]["loss"][0] == pytest.approx(25.0, abs=1e-3)  # (0 - 1 / (2 beta))^2
    explicit.train(
        str(data), settings(model_folder, reference=base(seed=5), num_train_epochs=0.2), output=tmp_path / "other"
    )
    assert asked == [220, 60, 220, 60]


@pytest.mark.parametrize(
    "more",
    [
        {"objective": "pro", "nll_weight": 0.1},
        pytest.param({"per_token": True, "beta": 1.0}, marks=pytest.mark.slow),
        pytest.param({"lora_rank": 8}, marks=pytest.mark.slow),
    ],
)
def test_other_forms_learn_too(
    base: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path))
    tied = base("qwen2", tie_word_embeddings=True)
    found = explicit.train(str(data), settings(tied, learning_rate=1e-2, **more), output=tmp_path / "m")
    assert found["validation"]["accuracy"]["value"] > 0.85
    assert load_model(tmp_path / "m").info.kind == "implicit"


@pytest.mark.slow
def test_contrast_is_the_difference_of_the_implicit_rewards(
    model_folder: str, base: Make, trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path))
    explicit.train(str(data), settings(model_folder, reverse=True), output=tmp_path / "reverse")
    command_line = ["train", "contrastive", "--normal", str(trained), "--reverse", str(tmp_path / "reverse")]
    assert cli.main([*command_line, "-o", str(tmp_path / "both")]) == 0
    pair = [item("the sky Yes", "the sky No")]
    normal, reverse, both = (load_model(f).score(pair)[0] for f in (trained, tmp_path / "reverse", tmp_path / "both"))
    assert normal[0].value > normal[1].value
    assert reverse[0].value < reverse[1].value
    for n, r, b in zip(normal, reverse, both, strict=True):
        assert b.value == pytest.approx(n.value - r.value, abs=1e-4)
    other = settings(model_folder, reverse=True, reference=base(seed=5), num_train_epochs=0.2)
    explicit.train(str(data), other, output=tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="different references"):
        contrastive(str(trained), str(tmp_path / "elsewhere"), output=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_mismatched_references_are_refused(
    model_folder: str, base: Make, trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path))
    other = base(template="{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}")
    with pytest.raises(ModelError, match="another tokenizer or chat template"):
        explicit.train(str(data), settings(model_folder, reference=other), output=tmp_path / "m")
    model = load_model(trained)
    assert isinstance(model, ImplicitRewardModel)
    small = PolicyModule(causal(base()))
    small.classifier.resize_token_embeddings(100)
    with pytest.raises(ModelError, match="vocabularies of"):
        ImplicitRewardModel(model.policy, small, model.chat, model.info, beta=0.1)
    changed = tmp_path / "changed"
    shutil.copytree(trained, changed)
    shutil.copy(Path(base(seed=9)) / "model.safetensors", changed / "reference")
    with pytest.raises(ModelError, match=r"reference/model.safetensors was changed"):
        load_model(changed)


def test_the_shift_study_takes_it_beside_an_explicit_model(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path))
    cells = ["--cell", f"id={data}", "--cell", f"prompt={data}"]
    assert cli.main(["probe", "shift", "length", str(trained), *cells, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["second"]["kind"] == "implicit"
    for name in ("id", "prompt"):
        second = found["cells"][name]["second"]
        assert second["percent"] >= 90
        assert 50 < second["per_token"]["percent"] <= 100
        assert found["cells"][name]["difference"]["high"] < 0  # length knows nothing here


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "focal"}, "implicit models learn by soft_label, .*dpo"),
        ({"beta": 0.0}, "beta must be positive"),
        ({"quantization": "nf4", "lora_rank": 4}, "4 bits"),
        ({"objective": "rdpo", "label_noise": 0.5}, "flip rate"),
        ({"center_rewards_coefficient": 0.1}, "center_rewards_coefficient"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        training_config("implicit", model="x", **values)


def test_dpo_is_no_objective_of_explicit_models() -> None:
    with pytest.raises(ConfigError, match="rmkit train implicit"):
        ExplicitConfig(model="x", objective=DPO())
