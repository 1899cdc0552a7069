"""Judges that others trained: each shipped profile asks what it says, and reads replies as its authors do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, UsageError
from rmkit.generate import Engine, Sample, TokenLogprobs
from rmkit.generate.endpoint import EndpointGenerator
from rmkit.judge.config import judge_config
from rmkit.judge.model import Judge
from rmkit.judge.profile import detected, open_profile, profiles, source_text
from rmkit.judge.reply_reader import read_reply
from rmkit.models import load_model
from rmkit.types import Candidates, Completion, Message

NO = "no verdict in the form of this judge"
# Of each profile: replies with what they are worth (a pair: P(first is better)), or why they are unread.
PAIRS: dict[str, dict[str, Any]] = {
    "prometheus2-pairwise": {
        "Feedback: the first is exact. [RESULT] A": 1.0,
        "[RESULT] A was my first thought. Feedback: no. [RESULT] Response B.": 0.0,
        "Feedback: A said it. (RESULT: B)": NO,
        "Feedback: x [RESULT] A or B, who knows": NO,
    },
    "auto-j-pairwise": {
        "1. one\n2. two\nSo the final decision is Response 1.": 1.0,
        "One might say the final decision is Response 1, but the final decision is Response 2": 0.0,
        "Thus, the final decision is Tie.": 0.5,
        "Response 1 is better.": NO,
    },
    "pandalm": {
        "1\n\n### Reason: clear\n\n### Reference: 2": 1.0,
        "2\n### Reason: the other says 1": 0.0,
        "Tie\n### Reason: same": 0.5,
        "Response 1 is better": NO,
    },
    "judgelm": {
        "8 3\nThe first is right.": 1.0,
        "2.5, 7\n10 1 would be wrong": 0.0,
        "6 6\nequal": 0.5,
        "11 3\nx": "a number outside 0 to 10",
        "The scores are 8 3": NO,
    },
    "skywork-critic": {
        "The first is exact. [[A]]": 1.0,
        "Assistant A wrote '[[A]]', yet [[B]]": 0.0,
        "A": NO,
    },
    "self-taught-evaluator": {
        "Step 1 ... therefore [[A]]": 1.0,
        "[[B]]": 0.0,
        "[[C]]": NO,
    },
    "compassjudger-1": {
        "My final verdict is: [[A>>B]]": 1.0,
        "[[A>B]] at first sight; my verdict is [[B>A]]": 0.0,
        "[[A=B]]": 0.5,
        "[[A]]": NO,
    },
    "compassjudger-2": {
        '{"Choice": "Model A"}': 1.0,
        'At first {"Choice": "Model A"}, but\n```json\n{"Why": {"Choice": "Model A"}, "Choice": "Model B"}\n```': 0.0,
        '{"Choice": "both"}': "a label that is none of Model A, Model B",
        '{"choice": "Model A"}': "a JSON object without 'Choice'",
        "Model A": "no JSON object",
    },
    "con-j": {
        '{"原因": "第一个更准确", "更好的回答": "1"}': 1.0,
        '{"原因": "...", "更好的回答": 2}': 0.0,
        "回答1更好": "no JSON object",
    },
    "rise-judge": {"分析……因此 [[A]]": 1.0, "[[A]] 不对，[[B]]": 0.0, "助手A": NO},
    "rm-r1": {
        "<type>Chat</type><eval>x</eval><answer>[[A]]</answer>": 1.0,
        "<eval>[[A]]</eval>\n<answer>[[B]]</answer>": 0.0,
        "<eval>[[A]]</eval>": NO,
    },
    "rm-r1-distilled": {
        "long thoughts <answer>[[B]]</answer></think> So <answer>[[A]]</answer>": 1.0,
        "<answer>[[B]]</answer>": 0.0,
        "<think> <answer>[[A]]</answer>": "nothing but thoughts",
    },
    "offsetbias": {"Output (a)": 1.0, "Not Output (a) but Output (b).": 0.0, "a": NO},
    "atla-selene": {
        "**Reasoning:** B is wrong\n\n**Result:** A": 1.0,
        "**Result:** A\n**Result:** B": 0.0,
        "Result: A": NO,
    },
    "nemotron-genrm": {
        '{"score_1": 4, "score_2": 2, "ranking": 6}': 1.0,
        '{"a": 1} {"overall": {"score_1": 3, "score_2": 3, "ranking": 5}}': 0.0,
        '{"score_1": 3, "score_2": 3, "ranking": 3}': 1.0,
        '{"score_1": 3, "score_2": 3}': 0.5,
        '{"score_1": 3, "score_2": 9, "ranking": 2}': "a number outside 1 to 5",
        '{"score_1": 3, "ranking": 2}': "a JSON object without a number 'score_2'",
        '{"score_1": 3': "no JSON object",
    },
}
SINGLE: dict[str, dict[str, Any]] = {
    "prometheus2-absolute": {
        "Feedback: good [RESULT] 4": (4.0,),
        "[RESULT] 1 would be harsh. [RESULT] (5)": (5.0,),
        "[RESULT] 7": NO,
        "[RESULT] 4 of 5 points": NO,
    },
    "auto-j-single": {
        "Rating: [[7]]": (7.0,),
        "Rating: [[3]] no, Rating: [[8.5]]": (8.5,),
        "Rating: [[11]]": "a number outside 1 to 10",
        "Rating: 7": NO,
    },
    "genrm-verifier": {
        "Is the answer correct (Yes/No)? Yes": (1.0,),
        "Is the answer correct? Yes, it seems. Step 2 fails.\nIs the answer correct (Yes/No)? No": (0.0,),
        "Yes": NO,
    },
    "deepseek-grm": {
        r"... \boxed{8, 4.5, 8}": (8.0, 4.5, 8.0),
        r"\boxed{1, 2, 3} or rather \boxed{[9, 2, 3]}": (9.0, 2.0, 3.0),
        r"\boxed{8, 4}": "another count of numbers than of responses (2, 3)",
        r"\boxed{8, 4, 12}": "a number outside 1 to 10",
        "8, 4, 2": NO,
    },
}
CASES = [
    (name, reply, worth) for table in (PAIRS, SINGLE) for name, rows in table.items() for reply, worth in rows.items()
]


def read(name: str, sample: Sample) -> Any:
    profile = open_profile(name)
    config, _ = judge_config({"name": "j", "profile": name}, where="test")
    n = {"pairwise": 2, "listwise": 3}.get(profile.form, 1)
    limits = (float(config.lowest), float(config.highest))
    return read_reply(
        sample, profile.read, form=profile.form, n=n, default_range=limits, use_logprobs=config.verdict == "auto"
    )


def test_every_profile_is_tried() -> None:
    assert set(PAIRS) | set(SINGLE) == set(profiles())


@pytest.mark.parametrize(("name", "reply", "worth"), CASES)
def test_replies_are_read_as_their_authors_do(name: str, reply: str, worth: Any) -> None:
    verdict = read(name, Sample(text=reply))
    if isinstance(worth, str):
        assert (verdict.values, verdict.unread) == ((), worth)
    else:
        assert verdict.values == (worth if isinstance(worth, tuple) else (worth, 1 - worth))
    if "</think>" in reply or reply.startswith("<think>"):
        return
    # A verdict that is only thought of does not count, whichever it is: the one behind the thoughts does.
    other = next(one for one, its in (PAIRS | SINGLE)[name].items() if its != worth and not isinstance(its, str))
    assert read(name, Sample(text=f"<think>{other}</think>\n{reply}")) == verdict
    assert read(name, Sample(text=f"<think>{reply}")).unread == "nothing but thoughts"
    assert "raise max_tokens" in str(read(name, Sample(text=reply, finish="length")).unread)


def test_a_verifier_gives_the_probability_of_yes_at_its_verdict() -> None:
    text = "Is it? Yes: no.\nIs the answer correct (Yes/No)? Yes"
    spelled = ["Is it? ", "Yes", ": no.\nIs the answer correct (", "Yes", "/No)?", " Yes"]
    assert "".join(spelled) == text
    top = {1: ((" No", -0.1),), 3: ((" No", -0.1),), 5: ((" No", -1.6094379), ("no", -2.9957323))}
    tokens = tuple(TokenLogprobs(one, -0.3566749, top.get(at, ())) for at, one in enumerate(spelled))
    verdict = read("genrm-verifier", Sample(text=text, logprobs=tokens))
    assert verdict.values == (pytest.approx(0.7 / 0.9, abs=1e-6),)  # 0.7 of Yes, 0.2 of No; "no" is another label
    assert verdict.mass == pytest.approx(0.9, abs=1e-6)


@pytest.mark.slow
def test_no_reply_takes_long_or_breaks_the_reader() -> None:
    for text in ("{" * 50_000, '{"a":' * 20_000, "[[" * 50_000, "\\boxed{" * 20_000, "1 " * 50_000):
        for name in profiles():
            assert read(name, Sample(text=text)).unread


SEA = Candidates(
    (Message("user", "Name a sea. <|im_end|>"),),
    tuple(Completion((Message("assistant", text),)) for text in ("Baltic", "Aral")),
)


def judge_of(endpoint: ScriptedEndpoint, **values: Any) -> Judge:
    config, profile = judge_config({"name": "j", **values}, where="test")
    return Judge(config, Engine(EndpointGenerator(base_url=endpoint.base_url, model="m")), profile=profile)


@pytest.mark.parametrize("name", list(profiles()))
def test_what_a_profile_shows(name: str) -> None:
    """Every text once, whole, the first answer first; nothing of rmkit's own tags."""
    profile = open_profile(name)
    with ScriptedEndpoint(lambda asked: Reply(text="x")) as endpoint:
        judge = judge_of(endpoint, profile=name, rubric="Is it salty?" if profile.needs_rubric else "")
        request = judge.requests(SEA)[0][1]
        judge.engine.close()
    text = "\n".join(message.content for message in request.prompt)
    assert text.count("Name a sea. < |im_end|>") == 1
    assert "Baltic" in text
    assert "<response" not in text
    if profile.form in ("pairwise", "listwise"):
        assert text.index("Baltic") < text.index("Aral")
    assert ("Is it salty?" in text) == profile.needs_rubric
    if name == "nemotron-genrm":
        assert [message.role for message in request.prompt] == ["user", "response_1", "response_2"]


@pytest.mark.parametrize("name", list(PAIRS))
def test_a_pair_over_http_in_both_orders(name: str) -> None:
    """The better answer wins from either place, by the reply that its family gives."""
    replies = {worth: reply for reply, worth in reversed(PAIRS[name].items()) if worth in (0.0, 1.0)}

    def script(asked: dict[str, Any]) -> Reply:
        text = "".join(turn["content"] for turn in asked["messages"])
        return Reply(text=replies[float(text.index("Baltic") < text.index("Aral"))])

    with ScriptedEndpoint(script) as endpoint:
        judge = judge_of(endpoint, profile=name, rubric="Is it salty?")
        answers = judge.compare([SEA, SEA.of(*SEA.completions[::-1])])
        assert [(one.p_first, one.swap_gap) for one in answers] == [(1.0, 0.0), (0.0, 0.0)]
        judge.engine.close()


def test_what_is_only_thought_and_what_lacks_its_rubric() -> None:
    def script(asked: dict[str, Any]) -> Reply:
        text = asked["messages"][-1]["content"]
        first = text.index("Baltic") < text.index("Aral")
        return Reply(text=f"<think>surely [[{'BA'[first]}]]</think> It is [[{'AB'[not first]}]]")

    with ScriptedEndpoint(script) as endpoint:
        judge = judge_of(endpoint, profile="skywork-critic")
        [answer] = judge.compare([SEA])
        assert (answer.p_first, answer.swap_gap) == (1.0, 0.0)
        judge.engine.close()
        needy = judge_of(endpoint, profile="prometheus2-pairwise")
        [answer] = needy.compare([SEA])
        assert "judges by a rubric; neither the item nor the judge brings one" in str(answer.unscored)
        needy.engine.close()


def test_a_file_of_ones_own_is_a_profile(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(source_text("skywork-critic").replace("[skywork-critic]", "[mine]"))
    (tmp_path / "judge.toml").write_text(
        '[judge]\nname = "j"\nprofile = "mine.toml"\nmax_tokens = 5\n'
        '[generator]\nmodel = "m"\nbase_url = "http://127.0.0.1:9/v1"\n'
    )
    judge: Any = load_model(tmp_path / "judge.toml")
    shipped, _ = judge_config({"name": "j", "profile": "skywork-critic"}, where="test")
    assert judge.profile.read == open_profile("skywork-critic").read
    assert (judge.config.max_tokens, judge.config.verdict, shipped.max_tokens) == (5, "parse", 1024)
    judge.close()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            '[a]\nform = "pairwise"\nuser = "x"\nread = { kind = "choice", pattern = "A|B", labels = { A = 1 } }',
            "one group",
        ),
        ('[a]\nform = "pairwise"\nuser = "x"\nread = { kind = "choice", pattern = "(A|B" }', "no regular expression"),
        (
            '[a]\nform = "pairwise"\nuser = "x"\nread = { kind = "choice", pattern = "(A|B)" }',
            "what each label is worth",
        ),
        (
            '[a]\nform = "scale"\nuser = "x"\nread = { kind = "choice", pattern = "(A)", labels = { A = 1 } }',
            "takes numbers",
        ),
        ('[a]\nform = "pairwise"\nread = { kind = "numbers", pattern = "(A|B)" }', "either user"),
        ('form = "pairwise"', "outside a table"),
        ('[a]\nform = "pairwise"\nusr = "x"\nread = { kind = "json", key = "a" }', "usr"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=what):
        open_profile("mine.toml", folder=tmp_path)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown profile 'skywork-critc'.*skywork-critic"):
        judge_config({"name": "j", "profile": "skywork-critc"}, where="judge")
    with pytest.raises(ConfigError, match="brings its own prompt, of the form pairwise"):
        judge_config({"name": "j", "profile": "skywork-critic", "form": "scale"}, where="judge")


def test_models_are_known_by_id_by_folder_and_by_template(tmp_path: Path) -> None:
    def name(hub: str, folder: str) -> str | None:
        profile = detected(hub=hub, folder=tmp_path / folder)
        return profile.name if profile else None

    assert name("Skywork/Skywork-Critic-Llama-3.1-8B", "x") == "skywork-critic"
    assert name("", "Con-J-Qwen2-7B") == "con-j"
    assert name("mine/Con-J-Qwen2-7B", "snapshot") is None
    (tmp_path / "genrm").mkdir()
    (tmp_path / "genrm" / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "{% if m.role == 'response_1' %}"})
    )
    assert name("", "genrm") == "nemotron-genrm"


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call("judge", ["profiles", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["profiles"]
    assert [one["profile"] for one in listed] == list(profiles())
    assert cli.call("judge", ["profiles", "con-j"]) == 0
    assert "更好的回答" in capsys.readouterr().out
