"""One identity everywhere: pinned digests, and the same bytes from Python and from DuckDB."""

from __future__ import annotations

import hashlib
import json

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmkit.errors import DataError
from rmkit.ids import assistant_message, canonical_json, content_hash, messages_json, parse_messages, user_message
from rmkit.types import Message

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def test_the_hash_is_pinned() -> None:
    text = '[{"content":"hé\\n","role":"user"}]'
    assert user_message("hé\n") == text
    assert content_hash(text) == hashlib.sha256(text.encode()).hexdigest()[:32] == "7fe73dd40c6a619a7a101d1185e46dbc"


def test_keys_are_sorted_and_absent_fields_left_out() -> None:
    call = {"id": "1", "function": {"name": "f"}}
    turns = (Message("assistant", "", tool_calls=(call,)), Message("tool", "3", name="f", tool_call_id="1"))
    assert messages_json(turns) == (
        '[{"content":"","role":"assistant","tool_calls":[{"function":{"name":"f"},"id":"1"}]},'
        '{"content":"3","name":"f","role":"tool","tool_call_id":"1"}]'
    )
    assert parse_messages(messages_json(turns)) == turns


def test_reasoning_is_kept_and_a_turn_without_it_keeps_its_hash() -> None:
    turns = (Message("assistant", "4", reasoning="2 + 2"), Message("assistant", "4", reasoning=""))
    assert messages_json(turns) == (
        '[{"content":"4","reasoning":"2 + 2","role":"assistant"},{"content":"4","role":"assistant"}]'
    )
    assert [turn.reasoning for turn in parse_messages(messages_json(turns))] == ["2 + 2", None]


def test_escaped_backslashes_are_not_taken_for_escapes() -> None:
    assert canonical_json("\x1f \\u001f") == '"\\u001F \\\\u001f"'


@given(TEXTS)
def test_python_and_duckdb_write_the_same_bytes(text: str) -> None:
    ours = assistant_message(text)
    query = "SELECT to_json([{content: $1, role: 'assistant'}])::VARCHAR, left(sha256($2), 32)"
    ((theirs, digest),) = CONNECTION.execute(query, [text, ours]).fetchall()
    assert ours == theirs
    assert content_hash(ours) == digest


CONNECTION = duckdb.connect()


@given(TEXTS)
def test_canonical_json_is_json(text: str) -> None:
    assert json.loads(canonical_json({"b": text, "a": 1})) == {"a": 1, "b": text}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", object()])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="canonical JSON"):
        canonical_json(value)


@pytest.mark.parametrize("text", ["", "{", '{"role": "user"}', '["hi"]', '[{"role": "user"}]'])
def test_what_is_no_conversation_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="list of messages"):
        parse_messages(text)
