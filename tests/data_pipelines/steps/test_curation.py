"""Steps that curate."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from data_pipelines.algorithms import personal_data
from data_pipelines.steps import configure
from data_pipelines.steps.curation import semantic_dedup
from rmkit.errors import ConfigError
from rmkit.ids import assistant_message
from tests.data_pipelines.frames import apply, pair
from warehouse.write.identity import unit_hash


def asked(name: str, **meta: str) -> dict[str, Any]:
    return pair(f"{name}?", f"{name} yes", f"{name} no", meta=json.dumps(meta))


def test_no_training_row_knows_the_test_periods_news() -> None:
    rows = [
        asked("old", time="2024-01-05", known="2024-01-12"),
        asked("across", time="2024-05-28", known="2024-06-03"),
        asked("new", time="2024-06-01", known="2024-06-08T12:00:00+02:00"),
        asked("dateless", time="2024-01-05"),
        asked("odd", time="2024-02-05", known="2024-02-01"),
    ]
    result = apply("time_split", rows, cut="2024-06-01")
    names = dict(zip([row["id"] for row in rows], ("old", "across", "new", "dateless", "odd"), strict=True))
    assert {names[row["id"]]: row["split"] for row in result.kept.to_dicts()} == {"old": "train", "new": "test"}
    assert {names[row["id"]]: row["reason"] for row in result.dropped.to_dicts()} == {
        "across": "known only after the cut",
        "dateless": "no date of question and outcome",
        "odd": "its outcome was known before it was asked",
    }
    dates = {row["split"]: json.loads(row["meta"]) for row in result.kept.to_dicts()}
    assert dates["train"]["known"] < dates["test"]["time"]
    with pytest.raises(ConfigError, match="cut is a date"):
        configure("time_split", {"cut": "June"}, where="test")


SECRET = "sk-proj-Zq8x2Lm4Tn7Vb1Kc9Rw3"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail jo.ann+x@mail.example.org.", "mail [EMAIL]."),
        ("not@here, @name, a@b", None),
        ("call +49 30 901820-0 or (212) 555-0187", "call [PHONE] or [PHONE]"),
        ("in 2024-05-31, 10.5281/zenodo.123456, 1 000 000", None),
        ("card 4111 1111 1111 1111!", "card [CARD]!"),
        ("card 4111 1111 1111 1112", None),  # the check digit is wrong
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN [IBAN]."),
        ("IBAN DE88 3704 0044 0532 0130 00", None),
        ("ssn 536-22-1234, 000-12-3456 and 912-34-5678", "ssn [SSN], 000-12-3456 and 912-34-5678"),
        ("from 8.8.8.8, 192.168.0.1, 127.0.0.1 and 2001:4860:4860::8888", "from [IP], 192.168.0.1, 127.0.0.1 and [IP]"),
        ("version 1.2.3.4.5 at 12:30:45, odds = l[1::2]", None),
        ("git clone https://bob:hunter2@host/x", "git clone https://[LOGIN]@host/x"),
        (f"key={SECRET}", "key=[KEY]"),
        ("sk-learn and task-force", None),
        (f"auth {JWT};", "auth [JWT];"),
        ("eyJxxxxxxxxxx.yyyyyyyyyyyy.zzzzzzzzzzzz", None),
        ("password: Tr0ub4dor&3 ok", "password: [PASSWORD] ok"),
        ("password: something", None),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[PRIVATE_KEY]"),
    ],
)
def test_what_is_masked_and_what_is_not(text: str, expected: str | None) -> None:
    spans = personal_data.hits(text)
    assert personal_data.masked(text, spans) == (expected if expected is not None else text)
    assert all(text[one.start : one.end] not in one.evidence(text) for one in spans)


def test_offsets_move_with_the_masks() -> None:
    text = "a@b.org says 8.8.8.8. Then 1.1.1.1 says no."
    spans = personal_data.hits(text)
    ends = [text.index("Then"), len(text)]
    new = personal_data.masked(text, spans)
    assert [new[: personal_data.moved(end, spans)] for end in ends] == ["[EMAIL] says [IP]. ", new]
    assert personal_data.moved(text.index("8.8") + 2, spans) == len("[EMAIL] says [IP]")  # behind the mark


def test_rows_are_masked_with_all_that_counts_by_position() -> None:
    rows = [
        pair("who is a@b.org?", "mail a@b.org", "no idea", [("x", "a"), ("y", "a")], meta='{"by": "c@d.org", "n": 7}'),
        pair("plain", "one", "two"),
    ]
    result = apply("personal_data", rows)
    assert not len(result.dropped)
    assert result.facts["hits_by_kind"] == {"email": 3}
    masked, plain = result.kept.to_dicts()
    assert plain["unit"] == rows[1]["unit"]
    texts = [json.loads(one)[0]["content"] for one in masked["responses"]]
    place = texts.index("mail [EMAIL]")
    assert json.loads(masked["prompt"])[0]["content"] == "who is [EMAIL]?"
    assert (masked["p"][place], [vote["ranks"][place] for vote in masked["votes"]]) == (1.0, [0, 0])
    assert masked["parent_order"][place] == rows[0]["responses"].index(assistant_message("mail a@b.org"))
    assert json.loads(masked["meta"]) == {"by": "[EMAIL]", "n": 7}
    assert masked["unit"] == unit_hash("pair", masked["prompt"], responses=masked["responses"])
    alone = pair("plain", "one", "two", meta='{"by": "c@d.org"}')
    (dropped,) = apply("personal_data", [*rows[:1], alone]).dropped.to_dicts()
    assert (dropped["id"], dropped["reason"]) == (alone["id"], "personal data or secrets in meta alone")
    dropped = apply("personal_data", rows, action="drop").dropped.to_dicts()
    assert [(one["id"], one["evidence"]) for one in dropped] == [
        (rows[0]["id"], "email a@... (7 characters); email c@... (7 characters)")
    ]
    counted = apply("personal_data", rows, action="count", kinds=["email"])
    assert counted.kept["unit"].to_list() == [row["unit"] for row in rows]
    with pytest.raises(ConfigError, match="did you mean 'email'"):
        configure("personal_data", {"kinds": ["emails"]}, where="test")


def test_rows_with_steps_are_masked_too() -> None:
    response = assistant_message("ask a@b.org\nthen stop")
    row = pair("x", "y", "z") | {"responses": [response], "kind": "steps", "step_ends": [[12, 21]], "p": None}
    row |= {"step_labels": [1.0, 0.0], "votes": [], "unit": "u" * 32}
    kept = apply("personal_data", [row]).kept.to_dicts()[0]
    text = json.loads(kept["responses"][0])[0]["content"]
    assert [text[:end] for end in kept["step_ends"][0]] == ["ask [EMAIL]\n", "ask [EMAIL]\nthen stop"]


def test_rows_of_other_languages_go() -> None:
    pytest.importorskip("py3langid")
    rows = [
        pair("Where is the library in this town?", "It is right behind the station.", "I do not know where it is."),
        pair("Wo ist die Bibliothek in dieser Stadt?", "Gleich hinter dem Bahnhof.", "Das weiß ich leider nicht."),
        pair("17 + 4", "21", "22"),
    ]
    result = apply("language", rows)
    assert [(one["id"], one["reason"]) for one in result.dropped.to_dicts()] == [(rows[1]["id"], "language de")]
    assert result.facts["texts_by_language"]["de"] == 3
    strict = apply("language", rows, keep=["en", "de"], keep_unknown=False)
    assert strict.dropped["id"].to_list() == [rows[2]["id"]]
    with pytest.raises(ConfigError, match="unknown language"):
        apply("language", rows, keep=["english"])


def test_rows_that_say_the_same_in_other_words_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted encoder: texts of one first word are alike (cosine .98), others are at right angles."""

    class Planted:
        def __init__(self, config: Any) -> None: ...

        def features(self, texts: list[Any]) -> np.ndarray:
            names = sorted({text.text.split()[0].strip("?") for text in texts})
            vectors = np.zeros((len(texts), 2 * len(names)))
            for row, text in zip(vectors, texts, strict=True):
                at = names.index(text.text.split()[0].strip("?"))
                own = 0.1 if text.text.endswith("?") else -0.1
                row[2 * at : 2 * at + 2] = (1 - own * own) ** 0.5, own
            return vectors

    monkeypatch.setattr(semantic_dedup, "Encoder", Planted)
    rows = [pair("cat?", "yes it", "no it"), pair("cat", "yes sir", "no sir"), pair("cat now", "maybe", "never")]
    rows.append(pair("dog", "yes it", "no it"))
    first = min(rows[:2], key=lambda row: row["id"])
    (dropped,) = apply("semantic_dedup", rows).dropped.to_dicts()
    assert dropped["evidence"] == f"kept {first['id']}, cosine 0.980"
    assert dropped["id"] in {rows[0]["id"], rows[1]["id"]} - {first["id"]}
    assert len(apply("semantic_dedup", rows, text="prompt").dropped) == 2
    assert len(apply("semantic_dedup", rows, threshold=0.99, text="prompt").dropped) == 1  # "cat" and "cat now"
