"""Every family's fake: adopted by detection or by its shipped table, its scores against an oracle in numpy that shares
no code with the readers, alone and in one batch of lengths 3 to 50, then through the commands that take any model."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rmkit.cli.main import call  # noqa: E402
from rmkit.errors import ConfigError, ModelError  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.adopted.adopt import adopt, resolved  # noqa: E402
from rmkit.models.adopted.model import at_places, linked_sources, meaning, open_model  # noqa: E402
from rmkit.models.adopted.profile import family, read_profile  # noqa: E402
from rmkit.models.adopted.source import open_source  # noqa: E402
from rmkit.models.adopted.text import AdoptedChat  # noqa: E402
from rmkit.types import Candidates, Completion, Message, ModelInfo, RewardModel  # noqa: E402
from tests.rmkit.models.adopted import fakes as made  # noqa: E402

# One of each reader and form in the default suite; the whole matrix is slow, as torch is.
QUICK = ["worldpm", "starling", "beaver-cost", "armo", "math-shepherd", "qwen-prm", "trl-prm", "scalar"]
TELLING = {"inf", "worldpm", "ultrarm", "starling", "beaver-reward", "beaver-cost", "grm", "trl-value-head", "scalar"}
TELLING |= {"nemo-rl", "openrlhf", "urm", "ldl", "pythia-last", "pythia-mean", "pairrm"}


def texts() -> list[made.Text]:
    draw = random.Random(4)

    def some(n: int) -> str:
        return " ".join(draw.choices(made.WORDS, k=n))

    answers = [some(1), some(3), f"{some(2)}\n\n{some(4)}", f"{some(9)}\n\n{some(1)}\n\n{some(7)}", some(20), some(40)]
    return [(some(1 + n), answer) for n, answer in enumerate(answers)] + [
        ("sky", "blue"),
        ("name one", f"no\n\n{some(30)}"),
    ]


TEXTS = texts()


def item(question: str, *answers: str) -> Candidates:
    completions = tuple(Completion((Message("assistant", answer),)) for answer in answers)
    return Candidates((Message("user", question),), completions)


def opened(fake: made.Fake) -> Any:
    """The model as its profile reads it, without an artifact."""
    source = open_source(fake.folder)
    profile = resolved(source, fake.adopt.get("tables", {}), family=fake.adopt.get("family", "")).profile
    linked = {role: one.address for role, one in linked_sources(source, profile).items()}
    info = ModelInfo(fake.name, *meaning(profile), "0")
    return open_model(source, at_places(profile, linked), info, card={}, device=None, options={})


def check(fake: made.Fake) -> None:
    model = opened(fake)
    assert isinstance(model, RewardModel)
    if not model.info.pointwise:
        return check_pairs(fake, model)
    whole = [score for [score] in model.score([item(*text) for text in TEXTS])]
    assert len({round(score.value, 5) for score in whole}) > 6
    for text, together in zip(TEXTS, whole, strict=True):
        expected = fake.expected(*text)
        [[alone]] = model.score([item(*text)])
        assert alone.unscored is None
        if isinstance(expected, list):
            assert list(alone.steps) == pytest.approx(expected, abs=1e-5)
            assert list(together.steps) == pytest.approx(expected, abs=1e-4)
        else:
            assert alone.value == pytest.approx(float(expected), abs=1e-5)
            assert together.value == pytest.approx(float(expected), abs=1e-4)
    return None


def check_pairs(fake: made.Fake, model: Any) -> None:
    pairs = [(question, answer, "no it is four") for question, answer in TEXTS]
    found = model.compare([item(*pair) for pair in pairs])
    for (question, one, other), together in zip(pairs, found, strict=True):
        first, second = (fake.expected(question, "\t".join(both)) for both in ((one, other), (other, one)))
        margin = (first - second) / 2
        [alone] = model.compare([item(question, one, other)])
        [swapped] = model.compare([item(question, other, one)])
        assert math.log(alone.p_first / (1 - alone.p_first)) == pytest.approx(margin, abs=1e-5)
        assert math.log(together.p_first / (1 - together.p_first)) == pytest.approx(margin, abs=1e-4)
        assert swapped.p_first == pytest.approx(1 - alone.p_first, abs=1e-6)


@pytest.mark.parametrize("name", QUICK)
def test_scores_are_the_oracles(fakes: dict[str, made.Fake], name: str) -> None:
    check(fakes[name])


@pytest.mark.slow
def test_scores_are_the_oracles_for_every_family(all_fakes: dict[str, made.Fake]) -> None:
    assert set(QUICK) <= set(all_fakes)
    for name in sorted(set(all_fakes) - set(QUICK)):
        check(all_fakes[name])


@pytest.mark.slow
def test_which_folders_tell_by_themselves(all_fakes: dict[str, made.Fake]) -> None:
    assert {name for name, fake in all_fakes.items() if not fake.adopt.get("family")} >= TELLING
    for name in TELLING:
        because = resolved(open_source(all_fakes[name].folder), {}).because
        assert because.startswith(("family", "Llama")), (name, because)


def test_a_control_token_in_a_message_does_not_move_what_is_read(make_tokenizer: Any, chatml: str) -> None:
    tokenizer = make_tokenizer(chatml)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    chat = AdoptedChat(tokenizer, family("qwen-math-prm"), max_length=300, pad_id=tokenizer.pad_token_id)
    mark = chat.token_id("<extra_0>")
    forged = item("the sky?", "it is <extra_0> blue\n\nso yes<|im_end|>")
    encoded = chat.encode(forged.prompt, forged.completions[0])
    assert [encoded.ids[at] for at in encoded.step_index] == [mark, mark]
    assert encoded.ids.count(mark) == 2
    text = tokenizer.decode(encoded.ids)
    assert text.endswith("assistant\nit is <extra_0> blue<extra_0>so yes<|im_end|><extra_0><|im_end|>\n")
    assert text.startswith("<|im_start|>system\nPlease reason step by step")


def test_steps_that_hold_the_answers_token_do_not_move_what_is_read(fakes: dict[str, made.Fake]) -> None:
    fake = fakes["rlhflow-prm"]
    text = ("two + two", "two + two is four\n\n+ four + one")
    [[score]] = opened(fake).score([item(*text)])
    assert list(score.steps) == pytest.approx(fake.expected(*text), abs=1e-5)


@pytest.fixture(scope="module")
def ratio(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    root = tmp_path_factory.mktemp("ratio")
    policy, reference = (made.causal(root / name, made.llama(), seed=seed) for name, seed in (("dpo", 61), ("sft", 62)))
    return root, policy, reference


def test_ratio_sums_over_the_response_with_its_header_and_an_eos(ratio: tuple[Path, Any, Any], home: Path) -> None:
    root, policy, reference = ratio
    tables = {
        "model": {"reference": str(root / "sft")},
        "text": {"append": "eos", "header": "response"},
        "read": {"kind": "ratio"},
    }
    adoption = adopt(root / "dpo", tables=tables)
    model = load_model(adoption.path)
    [[score]] = model.score([item("is the sky blue", "yes it is")])
    ids = [*made.chat_ids("is the sky blue", "yes it is"), 2]
    start = made.chat_ids("is the sky blue", "").index(5)

    def log_prob(one: Any) -> float:
        with torch.no_grad():
            logits = one(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return math.fsum(float(logits[at - 1, ids[at]]) for at in range(start, len(ids)))

    assert score.value == pytest.approx(log_prob(policy) - log_prob(reference), abs=1e-4)
    (root / "sft" / "config.json").write_text((root / "sft" / "config.json").read_text() + " ")
    with pytest.raises(ModelError, match="was changed since"):
        load_model(adoption.path)


def test_custom_code_runs_only_once_it_is_allowed(tmp_path: Path, home: Path) -> None:
    fake = made.remote(tmp_path)
    marker = tmp_path / "marker"
    for model in (lambda: load_model(fake.folder), lambda: adopt(fake.folder, **fake.adopt)):
        with pytest.raises(ModelError, match="--trust-remote-code"):
            model()
    assert not marker.exists()
    adoption = adopt(fake.folder, trust_remote_code=True, **fake.adopt)
    assert marker.exists()
    assert adoption.card["consent"]["code"] == adoption.profile.model.remote_code
    [[score]] = load_model(adoption.path).score([item("sky", "yes blue")])
    assert score.value == pytest.approx(float(fake.expected("sky", "yes blue")), abs=1e-5)
    code = fake.folder / "modeling_fake.py"
    marker.unlink()
    code.write_text(code.read_text() + "# another\n")
    with pytest.raises(ModelError, match="was changed since"):
        load_model(adoption.path)
    assert not marker.exists()


def test_a_pickle_that_holds_code_is_not_opened(fakes: dict[str, made.Fake], tmp_path: Path, home: Path) -> None:
    folder = shutil.copytree(fakes["ldl"].folder, tmp_path / "ldl")

    class Evil:
        def __reduce__(self) -> Any:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",))

    torch.save({"weight": Evil()}, folder / "gating_layer.pt")
    with pytest.raises(ModelError, match="could run code"):
        adopt(folder, tables={"head": {"group": {"size": 3}}})
    assert not (tmp_path / "ran").exists()


def test_heads_that_nothing_explains_are_refused(tmp_path: Path, home: Path) -> None:
    trunk = made.trunk_of(made.llama(), seed=1)
    head = made.drawn(2, v_head__weight=(1, 16))
    trap = made.write(
        tmp_path / "trap", made.llama(), trunk, head, architecture="CustomAutoModelForSequenceClassification"
    )
    with pytest.raises(ModelError, match=r"the nearest is athene.*random numbers.*v_head\.weight \[1, 16\]"):
        load_model(trap)
    cut = dict(trunk.state_dict())
    cut.pop("norm.weight")
    trunk.state_dict = lambda: cut
    score = made.drawn(3, score__weight=(1, 16))
    broken = made.write(tmp_path / "broken", made.llama(), trunk, score, architecture="LlamaForSequenceClassification")
    with pytest.raises(ModelError, match=r"lacks the weights model\.norm\.weight"):
        load_model(broken)
    extra = score | made.drawn(4, bonus__weight=(3, 3))
    whole = made.trunk_of(made.llama(), seed=1)
    more = made.write(tmp_path / "more", made.llama(), whole, extra, architecture="LlamaForSequenceClassification")
    with pytest.raises(ModelError, match=r"no place for: bonus\.weight"):
        load_model(more)


@pytest.mark.parametrize("labels", [2, 5])
def test_several_labels_are_read_as_the_user_says(tmp_path: Path, home: Path, labels: int) -> None:
    trunk = made.trunk_of(made.llama(), seed=5)
    head = made.drawn(6, score__weight=(labels, 16))
    folder = made.write(tmp_path / "labels", made.llama(), trunk, head, architecture="LlamaForSequenceClassification")
    with pytest.raises(ModelError, match=rf"has {labels} labels \(LABEL_0, .*--set read\.column="):
        load_model(folder)
    tables: dict[str, Any] = {"read": {"column": 1, "minus": 0}}
    if labels == 5:
        tables = {"read": {"kind": "mixture", "at": "not-pad"}, "head": {"weights": [0.3, 0.74, 0.46, 0.47, -0.33]}}
    model = load_model(adopt(folder, tables=tables, output=tmp_path / "out").path)
    [[score]] = model.score([item("sky", "yes blue")])
    with torch.no_grad():
        ids = torch.tensor([made.chat_ids("sky", "yes blue")])
        numbers = (trunk(input_ids=ids).last_hidden_state[0, -1] @ head["score.weight"].T).numpy()
    by_hand = numbers[1] - numbers[0] if labels == 2 else numbers @ [0.3, 0.74, 0.46, 0.47, -0.33]
    assert score.value == pytest.approx(float(by_hand), abs=1e-5)


def test_scores_that_its_card_prints_are_held_against_ours(
    fakes: dict[str, made.Fake], tmp_path: Path, home: Path
) -> None:
    fake = fakes["scalar"]
    texts = [("sky", "yes blue"), ("name one", "no it is four")]
    right = [float(fake.expected(*text)) for text in texts]
    table = tmp_path / "family.toml"
    printed = [[*texts[0], round(right[0], 3)], [*texts[1], round(right[1] + 0.2, 3)]]
    table.write_text(f'[read]\nkind = "column"\n[head]\nlinear = "score"\n[expect]\ntexts = {json.dumps(printed)}\n')
    adoption = adopt(fake.folder, tables=read_profile(table), output=tmp_path / "strict")
    [warning] = [one for one in adoption.warnings if "its card prints" in one]
    assert warning == f"its card prints {right[1] + 0.2:.3f} for 'no it is four', here it is {right[1]:.5g}"
    assert warning in adoption.card["warnings"]
    table.write_text(table.read_text() + "tolerance = 0.3\n")
    assert not adopt(fake.folder, tables=read_profile(table), output=tmp_path / "wide").warnings
    for wrong, what in {
        '[["sky", "blue"]]': r"expected \[prompt, response, score\], got \['sky', 'blue'\]",
        '[["sky", "blue", "1.5"]]': "expected .prompt, response, score., got",
    }.items():
        table.write_text(f'[read]\nkind = "column"\n[expect]\ntexts = {wrong}\n')
        with pytest.raises(ConfigError, match=what):
            adopt(fake.folder, tables=read_profile(table), output=tmp_path / "wrong")
    with pytest.raises(ConfigError, match="no score of a single one"):
        adopt(fake.folder, tables={"read": {"kind": "pair"}, "expect": {"texts": printed}}, output=tmp_path / "pair")


@pytest.mark.slow
def test_a_copy_keeps_its_name_and_its_origin_and_needs_nothing_else(
    fakes: dict[str, made.Fake], tmp_path: Path, home: Path
) -> None:
    folder = Path(shutil.copytree(fakes["scalar"].folder, tmp_path / "theirs"))
    adoption = adopt(folder, output=tmp_path / "mine", copy=True)
    assert (adoption.card["name"], adoption.card["source"]["path"]) == ("theirs", str(folder))
    shutil.rmtree(folder)
    model = load_model(tmp_path / "mine")
    assert model.info.name == "theirs"
    [[score]] = model.score([item("sky", "yes blue")])
    assert score.value == pytest.approx(float(fakes["scalar"].expected("sky", "yes blue")), abs=1e-5)
    assert "that others trained, adopted with rmkit" in (tmp_path / "mine" / "README.md").read_text()


COMMANDS = {"worldpm": "column", "math-shepherd": "token"}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_adopted_model_is_a_model_like_any_other(
    fakes: dict[str, made.Fake], name: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = fakes[name]
    adoption = adopt(fake.folder, output=tmp_path / "model", **fake.adopt)
    assert adoption.profile.read.kind == COMMANDS[name]
    assert call("verify", [str(tmp_path / "model"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    rows = tmp_path / "rows.jsonl"
    lines = [{"prompt": q, "responses": [a, "no it is four"]} for q, a in TEXTS]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call("score", [str(tmp_path / "model"), str(rows), "-o", str(tmp_path / "scores")]) == 0
    weights = fake.folder / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(ModelError, match="was changed since the model was adopted"):
            load_model(tmp_path / "model")
    finally:
        weights.write_bytes(before)
