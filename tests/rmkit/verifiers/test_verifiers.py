"""Each verifier's values worked out by hand, and what it must leave unscored."""

from __future__ import annotations

import json
import math
import time

import httpx
import pytest

from rmkit.errors import ConfigError, DataError, UsageError
from rmkit.models import load_model
from rmkit.verifiers.answer_text import final_answer, last_boxed, same_answer
from rmkit.verifiers.rules import compiled, from_ifeval
from rmkit.verifiers.verifier import VerifierModel, load_verifier
from tests.rmkit.serve.serving import item
from tests.rmkit.verifiers.verified import scores, value


@pytest.mark.parametrize(
    ("text", "reference", "equal"),
    [
        (r"so \boxed{\frac{1}{2}}", "0.5", True),
        (r"\boxed{\frac12}", "1/2", True),
        ("<think>\\boxed{3}</think><answer> 72 </answer>", "72", True),
        ("x = 1000", "1,000", True),
        ("The answer is (B).", "B", True),
        ("(b)", "B", True),
        ("I took 3 and got\n#### 72", "long solution\n#### 72", True),
        ("The answer is 4. Not 5.", "4", True),
        ("The answer is 3.14", "3.14", True),
        (r"\boxed{(1, 2)}", "(1,2)", True),
        (r"\boxed{[0,1]}", "(0,1)", False),
        (r"\boxed{\text{Yes}}", "yes", True),
        ("50%", "1/2", True),
        ("5 apples", "5", False),
        ("12345678901234567", "12345678901234568", False),
        ("1, 234", "1234", False),
        ("1/0", "2", False),
        ("72 and later 71", "72", False),
        ("The answer is 42.", "42", True),
        ("so 6 * 7\n#### 42", "42.0", True),
        (r"thus \boxed{\frac{1}{2}} and \boxed{1,000}", "1000", True),
        ("Answer: Paris!", "paris", True),
        ("  Paris  ", "paris", True),
        ("The answer is 42, not 43", "43", False),
        ("42 and 43", "42", False),
        ("", "42", False),
        ("0.10", "0.1", True),
        ("answer = -3", "-3", True),
        ("1234567", "1234568", False),  # six digits are not all
        ("0.30000001", "0.3", False),
        ("-0", "0", True),
    ],
)
def test_exact_match_reads_answers_however_they_are_written(text: str, reference: str, *, equal: bool) -> None:
    assert value("exact_match", reference, text) == float(equal)


def test_final_answers_are_cut_out() -> None:
    assert last_boxed(r"\boxed{a} then \boxed{\frac{1}{\sqrt{2}}} end") == r"\frac{1}{\sqrt{2}}"
    assert last_boxed(r"\boxed{never closed") is None
    assert final_answer("<think>the answer is 3</think> it is four") == "it is four"
    assert same_answer("1e3", "1000")


@pytest.mark.parametrize("use", ["exact_match", "choice", "number", "constraints", "citations", "abstention", "sql"])
def test_without_a_reference_nothing_is_wrong(use: str) -> None:
    for reference in (None, "  "):
        assert value(use, reference, "72") == "there is no reference answer to verify against"


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        ("B", "B", True),
        ("(c) because", "C", True),
        ("The answer is (D).", "d", True),
        (r"\boxed{\text{A}}", "A", True),
        ("I weigh A and B, and settle on\nB", "B", True),
        ("Answer: A, C", "C, A", True),
        ("Answer: A", "A, C", False),
        ("E", "A", False),
        ("no letter here", "A", False),
        ("A man walked.", "A", False),
        ("A", "A", True),
        ("B) a dog", "B", True),
        ("I would say **C**", "C", True),
    ],
)
def test_choice(text: str, reference: str, *, right: bool) -> None:
    assert value("choice", reference, text) == float(right)


def test_choice_refuses_what_is_no_option() -> None:
    assert value("choice", "F", "A") == "the reference 'F' names no option in A ... D"
    assert value("choice", "2", "C", numbered=True) == 1
    assert "no number of an option" in str(value("choice", "4", "C", numbered=True))


def test_number_has_a_tolerance_and_partial_credit() -> None:
    assert value("number", "200", "about 198 km", relative=0.01) == 1
    assert value("number", "200", "about 197.9 km", relative=0.01) == 0
    assert value("number", "200", "so \\boxed{150}", scale=0.5, absolute=0) == pytest.approx(0.5)  # 1 - 50 / 100
    assert value("number", "200", "I cannot say") == 0
    assert value("number", "many", "7") == "the reference holds no number"
    assert value("number", "1,250", "it is 1,250 in all") == 1


SCHEMA = json.dumps(
    {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}, "s": {"pattern": "^(a+)+$"}}}
)


def test_json_schema_and_a_pattern_that_stalls_others() -> None:
    assert value("json_schema", SCHEMA, 'so:\n```json\n{"n": 3}\n```') == 1
    [wrong] = scores("json_schema", SCHEMA, '{"n": "3"}')
    assert (wrong.value, "integer" in str(wrong.rationale)) == (0, True)
    assert value("json_schema", SCHEMA, "no json") == 0
    assert "cannot be read" in str(value("json_schema", '{"type": "nonsense"}', "{}"))
    assert "cannot be read" in str(value("json_schema", '{"$ref": "http://example.org/x"}', "{}"))
    since = time.process_time()
    value("json_schema", SCHEMA, json.dumps({"n": 1, "s": 34 * "a" + "!"}))
    assert time.process_time() - since < 5  # Python's re takes minutes for it


TABLE = "CREATE TABLE t(a INTEGER, b TEXT); INSERT INTO t VALUES (1,'x'),(2,'y'),(2,'y'),(3,NULL)"


@pytest.mark.parametrize("engine", ["sqlite", "duckdb"])
def test_sql_compares_rows_and_lets_nothing_out(engine: str) -> None:
    def ran(reference: str, query: str) -> float | str:
        return value("sql", reference, f"```sql\n{query}\n```", engine=engine, setup=TABLE, timeout_s=0.5)

    assert ran("SELECT a, b FROM t", "SELECT a, b FROM t ORDER BY a DESC;") == 1
    assert ran("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC") == 0
    assert ran("SELECT a FROM t", "SELECT DISTINCT a FROM t") == 0  # a multiset
    assert ran("SELECT avg(a) FROM t", "SELECT sum(a) / 4.0 FROM t") == 1
    assert ran("SELECT a FROM nowhere", "SELECT 1") == "the reference query cannot be run: " + (
        "OperationalError" if engine == "sqlite" else "CatalogException"
    )
    for hostile in (
        "DROP TABLE t",
        "DELETE FROM t",
        "ATTACH '/tmp/leak.db' AS leak",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_text('/etc/passwd')",
        "PRAGMA writable_schema = 1",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    ):
        assert ran("SELECT a FROM t", hostile) == 0, hostile
    assert ran(json.dumps({"query": "SELECT * FROM u", "setup": "CREATE TABLE u AS SELECT 7 AS n"}), "SELECT 7") == 1


def test_constraints_are_a_share_or_all() -> None:
    rules = json.dumps(
        [{"rule": "max_words", "value": 3}, {"rule": "no_commas"}, {"rule": "includes", "values": ["sea"]}]
    )
    [score] = scores("constraints", rules, "the sea, calm")
    assert (score.value, score.rationale) == (pytest.approx(2 / 3), "broken: 2 no_commas")
    assert value("constraints", rules, "the sea, calm", score="all") == 0
    assert value("constraints", rules, "the sea calm", score="all") == 1
    assert "unknown rule" in str(value("constraints", '[{"rule": "nonsense"}]', "x"))
    assert value("constraints", '[{"rule": "begins_with", "value": "Yes"}]', "Sure:\nYes", loose=True) == 1
    assert value("constraints", None, "a b", rules=['{"rule": "words", "value": 2}']) == 1
    with pytest.raises(ConfigError, match="unknown rule"):
        load_verifier("constraints", {"rules": ['{"rule": "nonsense"}']})


IFEVAL = [  # instruction, arguments, a text that follows it, one that does not
    ("keywords:existence", {"keywords": ["sea", "sky"]}, "Sea and sky", "sea"),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "at least"}, "sea sea", "sea"),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "less than"}, "sea", "sea sea"),
    ("keywords:forbidden_words", {"forbidden_words": ["bad"]}, "badge", "bad"),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "at least"}, "jazz", "zoo"),
    ("language:response_language", {"language": "fr"}, "Le chat est dans la maison", "The cat is in the house"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "One.", "One. Two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a b c", "a b"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "but"},
        "a b\n\nBut, c",
        "but a\n\nb",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "x\nP.S. y", "x P.S."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a b* and **c**", "*a b* c"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1 a Section 2 b",
        "a",
    ),
    ("detectable_format:json_format", {}, '{"a": 1}', "a"),
    ("detectable_format:title", {}, "<<Sea>> b", "<< >> b"),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi"}, "say hi. hi", "hi"),
    ("startend:end_checker", {"end_phrase": "Any more?"}, "a. any more? ", "any more? a"),
    ("startend:quotation", {}, '"a"', '"a" b'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "SO IT is",
        "SO it",
    ),
    ("change_case:english_capital", {}, "ALL", "All"),
    ("change_case:english_lowercase", {}, "all", "All"),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]


@pytest.mark.parametrize(("name", "values", "kept", "broken"), IFEVAL, ids=[one[0] for one in IFEVAL])
def test_ifeval_instructions(name: str, values: dict[str, object], kept: str, broken: str) -> None:
    check = compiled(from_ifeval(name, values))
    assert (check(kept), check(broken)) == (True, False)
    row = json.dumps({"instruction_id_list": [name], "kwargs": [values]})
    assert [value("constraints", row, kept), value("constraints", row, broken)] == [1, 0]


def test_an_instruction_that_ifeval_does_not_have() -> None:
    with pytest.raises(DataError, match="IFEval has no instruction"):
        from_ifeval("keywords:colour", {})


def test_tags() -> None:
    good = "<think>a</think>\n<answer>b</answer>"
    assert value("tags", None, good) == 1
    for bad in (
        "x" + good,
        good + "x",
        good + good,
        "<answer>b</answer><think>a</think>",
        "<think>a<answer>b</answer></think>",
    ):
        assert value("tags", None, bad) == 0, bad
    assert value("tags", None, "<think>a</think> <answer>b", rule="share") == 0.5


def test_confidence_by_brier_and_by_sign() -> None:
    assert value("confidence", "72", "<answer>72</answer> <confidence>0.8</confidence>") == pytest.approx(0.96)
    assert value("confidence", "71", "<answer>72</answer> I am 80% sure") == pytest.approx(0.36)
    assert value("confidence", "71", "#### 72\nConfidence: 80%", rule="signed") == pytest.approx(-0.8)
    assert value("confidence", None, "Confidence: .25", rule="value") == 0.25
    assert value("confidence", "72", "72") == "the completion states no confidence"
    assert value("confidence", "72", "72", absent=-1.0) == -1


def test_length() -> None:
    assert value("length", None, 12 * "x", max=10, slack=4) == 0.5
    assert value("length", None, "a b", unit="words", min=2) == 1
    assert value("length", None, 9 * "x", unit="tokens", count=True) == 3
    with pytest.raises(ConfigError, match="takes no min or max"):
        load_verifier("length", {"count": True, "max": 3})


def test_language_of_a_completion() -> None:
    text = "Der Hund ist in dem Haus und die Katze auch"
    assert value("language", "de", text) == 1
    assert value("language", "The answer is in the house and on the table", text) == 0
    assert value("language", "de", "xyzzy") == "the completion's language cannot be told"
    assert "expected language" in str(value("language", "xx", text))


def test_abstention_has_three_values() -> None:
    texts = ("The answer is 72", "The answer is 71", "I don't know.", "I'm not sure, but the answer is 72")
    assert [one.value for one in scores("abstention", "72", *texts, wrong=-2.0)] == [1, -2, 0, 1]
    assert value("abstention", "unanswerable", "It cannot be determined.") == 1
    late = "6 times 9?\n\nI tried.\nI don't know."
    assert value("abstention", "54", late, slope=1.0, center=1.0) == pytest.approx(math.tanh(1.0))  # three lines
    assert value("abstention", "54", "I don't know.", slope=1.0, center=4.0) == pytest.approx(math.tanh(-1.5))


def test_citations_stand_word_for_word() -> None:
    sources = json.dumps(["The sea is calm today.", "Boats left the harbor at dawn."])
    text = 'It says "the sea is calm" [1], and "boats left the harbor" [1], so "a storm is near" [2].'
    assert value("citations", sources, text) == pytest.approx(1 / 3)
    assert value("citations", sources, 'Only "boats left the harbor".', least=2) == 0.5
    assert value("citations", sources, "nothing", least=0) == 1
    assert "sources are" in str(value("citations", "[1]", text))


def test_a_command_is_a_verifier(tmp_path: object) -> None:
    program = (
        "import json,sys\n"
        "for line in sys.stdin:\n"
        "    row = json.loads(line)\n"
        "    n = len(row['completion'])\n"
        "    print(json.dumps({'value': None, 'unscored': 'too short'} if n < 2 else n))\n"
    )
    import shlex
    import sys

    command = shlex.join([sys.executable, "-c", program])
    rows = scores("external", "r", "four", "x", command=command)
    assert (rows[0].value, rows[1].unscored) == (4, "too short")
    assert "1 answers to 2" in str(scores("external", "r", "a", "b", command="echo 1")[0].unscored)
    assert "no result within 0.2 s" in str(value("external", "r", "a", command="sleep 30", timeout_s=0.2))
    assert "status 1" in str(value("external", "r", "a", command="false"))
    with pytest.raises(ConfigError, match="either command or url"):
        load_verifier("external", {})


def test_a_url_is_a_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        rows = json.loads(request.content)
        return httpx.Response(200, json=[float(row["reference"]) + len(row["completion"]) for row in rows])

    real = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: real(transport=httpx.MockTransport(answer)))
    assert value("external", "10", "abc", url="http://localhost/verify") == 13


def test_a_verifier_is_a_reward_model() -> None:
    model = load_model("exact_match")
    assert isinstance(model, VerifierModel)
    assert model.info.pointwise
    pair = item("q", "4", "5")
    [comparison] = model.compare([pair.__class__(pair.prompt, pair.completions, reference="5")])
    assert comparison.p_first == 0
    assert load_verifier("number").info.fingerprint != load_verifier("number", {"relative": 0.1}).info.fingerprint
    assert load_verifier("number").info.fingerprint == load_verifier("number", {"relative": 0.0}).info.fingerprint
    with pytest.raises(UsageError, match="did you mean 'answer'"):
        load_verifier("anwser")
    with pytest.raises(ConfigError, match="verifier number: unknown key 'tolerance'"):
        load_verifier("number", {"tolerance": 1})
