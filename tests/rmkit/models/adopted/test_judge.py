"""A generative judge as an adopted model: a tiny language model whose verdict follows from what it was shown."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("aiohttp")

import rmkit  # noqa: E402
from rmkit.cli.main import call  # noqa: E402
from rmkit.errors import ConfigError, ModelError  # noqa: E402
from rmkit.judge import Context  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.models.adopted.adopt import adopt  # noqa: E402
from rmkit.models.adopted.profile import merged  # noqa: E402
from tests.data_pipelines.frames import apply, frame, pair  # noqa: E402
from tests.exports import row, write_export  # noqa: E402
from tests.rmkit.models.adopted import fakes as made  # noqa: E402
from tests.rmkit.models.adopted.test_readers import item  # noqa: E402
from tests.rmkit.serve.serving import local_client  # noqa: E402

GOOD, BAD = ("yes", "right", "blue"), ("no", "wrong", "dog")
SPOKEN = ["[RESULT]", "5", "2", "[[A]]"]


def judge_folder(folder: Path, *, says: str = "[RESULT]") -> Path:
    """A model that answers `says`, then 5 where the prompt holds more good than bad words, else 2, then ends.

    Attention is uniform, so that one channel holds the mean goodness of what was read; all else is the last token.
    """
    import transformers
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    vocabulary = {**made.VOCABULARY, **{word: len(made.VOCABULARY) + at for at, word in enumerate(SPOKEN)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(Regex(" +"), "removed")]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        chat_template=made.TEMPLATE, model_max_length=2048,
    )  # fmt: skip
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for norm in (model.model.norm, model.model.layers[0].input_layernorm):
            norm.weight.fill_(1.0)
        table, head = model.model.embed_tokens.weight, model.lm_head.weight
        table[:, 1] = 1.0
        for words_of, worth in ((GOOD, 1.0), (BAD, -1.0)):
            for word in words_of:
                table[vocabulary[word], 0] = worth
        for channel, names in ((2, ["<|a|>"]), (5, ["[RESULT]"]), (3, ["5", "2", "[[A]]"])):
            for name in names:
                table[vocabulary[name], channel] = 4.0
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight[4, 0] = 1.0
        attention.o_proj.weight[4, 4] = 50.0
        head[vocabulary[says], 2] = 9.0
        head[vocabulary["</s>"], 3] = 900.0
        for name, sign in (("5", 1.0), ("2", -1.0)):
            head[vocabulary[name], 5], head[vocabulary[name], 4] = 9.0, sign
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


ABSOLUTE = {
    "read": {
        "kind": "judge", "profile": "prometheus2-absolute", "settings": {"rubric": "Is it true?", "max_tokens": 8}
    }
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge_folder(tmp_path_factory.mktemp("judges") / "lm")


@pytest.mark.slow
def test_a_judge_rates_and_keeps_its_calls(folder: Path, home: Path, tmp_path: Path, capsys: Any) -> None:
    adoption = adopt(folder, tables=ABSOLUTE, output=tmp_path / "judge")
    card = json.loads((tmp_path / "judge" / "reward_model.json").read_text())
    assert (card["kind"], card["scale"], card["pointwise"]) == ("generative", "rating", True)
    assert card["config"]["profile"]["read"]["judge"]["read"]["where"] == "end"  # the whole profile is in the artifact
    assert any("form unverified here" in one for one in adoption.warnings)
    model: Any = load_model(tmp_path / "judge")
    shown = item("the sky is", "blue yes it is right", "no dog")
    [[true, false]] = model.score([shown])
    assert (true.value, false.value) == (5.0, 2.0)
    assert model.compare([shown])[0].p_first == 1.0
    report = model.report()
    assert (report["paid_calls"], report["found_in_ledger"], report["parse_rate"]) == (2, 2, 1.0)
    # Golden scores by the plainest code: one forward pass over prompt and reply.
    [[golden]] = model.golden_scores([item("the sky is", "blue yes")])
    request = model.judge.requests(item("the sky is", "blue yes"), Context(rubric="Is the response helpful?"))[0][1]
    assert golden.value == pytest.approx(likelihood(folder, request.prompt[-1].content, request.prompt[0].content))
    model.close()

    def output(command: str, *arguments: str) -> Any:
        capsys.readouterr()
        assert call(command, [*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    name = str(tmp_path / "judge")
    assert output("verify", name)["same"] is True
    rows = [
        row(f"the sky is {at}", ["blue yes", "no it is" if at % 4 else "yes it is right"], p=[1.0, 0.0], family=at,
            split="test", subset="s")
        for at in range(12)
    ]  # fmt: skip
    data = write_export(tmp_path / "pairs", rows)
    result = output("eval", name, "--data", str(data), "--split", "test")
    assert result["models"][0]["measures"]["overall"]["percent"] == pytest.approx(100 * 9 / 12)  # three ties
    assert result["models"][0]["judging"]["parse_rate"] == 1.0
    with local_client(rmkit.serve_app(name)) as client:
        body = {"items": [{"prompt": "the sky is", "completions": ["blue yes it is right", "no dog"]}]}
        [[first, second]] = client.post("/rmkit/v1/score", json=body).json()["scores"]
    assert (first["value"], second["value"]) == (5.0, 2.0)
    (tmp_path / "answers.jsonl").write_text(json.dumps({"prompt": "the sky is", "response": "no dog"}) + "\n")
    output("score", name, str(tmp_path / "answers.jsonl"), "-o", str(tmp_path / "scores.jsonl"))
    assert json.loads((tmp_path / "scores.jsonl").read_text())["scores"][0]["value"] == 2.0


@pytest.mark.slow
def test_a_judge_is_calibrated_and_a_member_and_a_step(folder: Path, home: Path, tmp_path: Path, capsys: Any) -> None:
    first, second = (
        adopt(folder, tables=merged(ABSOLUTE, {"read": {"settings": {"rubric": rubric}}}), output=tmp_path / rubric)
        for rubric in ("yes", "no")
    )
    draw = random.Random(3)
    rows = []
    for at in range(150):
        better = " ".join(draw.choices([*GOOD, "sky", "dog"], k=4))
        worse = " ".join(draw.choices([*BAD, "sky", "yes"], k=4))
        split = "validation" if at < 100 else "train"
        rows.append(row(f"it is {at}", [better, worse], p=[1.0, 0.0], family=at, split=split, subset="s"))
    data = write_export(tmp_path / "pairs", rows)
    capsys.readouterr()
    assert call("calibrate", [str(first.path), "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == first.fingerprint
    members = [str(first.path), str(second.path)]
    both = rmkit.train("ensemble", data, output=tmp_path / "both", members=members).load()
    [[good, bad]] = both.score([item("the sky is", "blue yes it is right", "no dog")])
    assert good.value > bad.value
    kept = apply("score", frame([pair("the sky is", "blue yes", "no dog", p=(1.0, 0.0))]), model=str(first.path)).kept
    assert len(kept) == 1


def likelihood(folder: Path, user: str, system: str) -> float:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    prompt, said = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, "The second response is better.")
    )
    total = 0.0
    with torch.no_grad():
        for at, token in enumerate(said):
            step = model(torch.tensor([[*prompt, *said[:at]]])).logits[0, -1]
            total += float(torch.log_softmax(step, -1)[token])
    return total / len(said) / 1000


@pytest.mark.slow
def test_a_folder_by_its_name_is_a_judge_of_pairs(home: Path, tmp_path: Path) -> None:
    folder = judge_folder(tmp_path / "Skywork-Critic-Llama-3.1-8B", says="[[A]]")
    model: Any = load_model(folder)
    [answer] = model.compare([item("the sky is", "blue yes", "no")])
    assert (answer.p_first, answer.swap_gap) == (0.5, 1.0)  # it always says [[A]]
    assert (model.info.scale, model.info.pointwise, model.info.name) == ("win_logit", False, folder.name)
    line: Any = load_model(f"judge:{folder}")
    assert line.profile.name == "skywork-critic"
    assert line.requests(item("q", "yes", "no"))[0][1] == model.judge.requests(item("q", "yes", "no"))[0][1]
    line.close()
    model.close()
    (folder / "generation_config.json").write_text("{}")
    twin = adopt(folder, output=tmp_path / "twin", copy=True)
    weights = tmp_path / "twin" / "weights" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ModelError, match="was changed since the model was adopted"):
        load_model(twin.path)


def test_what_a_judge_needs_is_said(folder: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"read\.kind=judge --set read\.profile=pairwise"):
        adopt(folder, output=tmp_path / "x")
    with pytest.raises(ConfigError, match=r"unknown read\.profile ''.*pairwise.*skywork-critic"):
        adopt(folder, tables={"read": {"kind": "judge"}}, output=tmp_path / "x")
    wrong = {"read": {"kind": "judge", "profile": "con-j", "settings": {"vote": 3}}}
    with pytest.raises(ConfigError, match=r"read\.settings.*vote"):
        adopt(folder, tables=wrong, output=tmp_path / "x")
    with pytest.raises(ConfigError, match=r"\[scale\] means nothing to the reader judge"):
        adopt(folder, tables={**ABSOLUTE, "scale": {"sign": -1}}, output=tmp_path / "x")
    assert math.isnan(load_model(f"judge:{folder}?profile=prometheus2-absolute").score([item("q", "a")])[0][0].value)
