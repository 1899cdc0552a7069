"""Every trap between a conversation and its ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmkit.chat.encode import Chat, TruncationPolicy, ensure_pad
from rmkit.chat.template import PINNED_DATE, pin_dates
from rmkit.errors import ConfigError, DataError, ModelError
from rmkit.ids import canonical_json
from rmkit.types import Candidates, Completion, Message

Make = Callable[..., Any]

QUESTION = (Message("user", "Is the sky blue?"),)


def answer(text: str, *ends: int) -> Completion:
    return Completion((Message("assistant", text),), step_ends=ends)


def test_ids_are_the_tokenizers_own_and_reward_is_the_last(make_tokenizer: Make, chatml: str) -> None:
    tokenizer = make_tokenizer(chatml)
    encoded = Chat(tokenizer).encode(QUESTION, answer("Yes, it is."))
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Is the sky blue?"}, {"role": "assistant", "content": "Yes, it is."}],
        return_dict=False,
    )
    assert list(encoded.ids) == expected
    assert encoded.reward_index == len(expected) - 1
    assert tokenizer.decode(encoded.ids[: encoded.prompt_tokens]).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(encoded.ids[encoded.prompt_tokens :]) == "Yes, it is.<|im_end|>\n"
    assert not encoded.prompt_truncated
    assert not encoded.response_truncated


@pytest.mark.parametrize("in_template", [True, False])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_bos_is_there_once_or_as_the_tokenizer_says(
    make_tokenizer: Make, chatml: str, in_template: bool, adds_bos: bool
) -> None:
    template = "{{ bos_token }}" + chatml if in_template else chatml
    tokenizer = make_tokenizer(template, adds_bos=adds_bos)
    encoded = Chat(tokenizer).encode(QUESTION, answer("Yes"))
    wanted = 1 if in_template or adds_bos else 0
    assert encoded.ids.count(tokenizer.bos_token_id) == wanted
    assert (encoded.ids[0] == tokenizer.bos_token_id) == bool(wanted)


def test_bos_shifts_the_prompt_boundary_and_the_steps_with_it(make_tokenizer: Make, chatml: str) -> None:
    without = Chat(make_tokenizer(chatml)).encode(QUESTION, answer("first step\nsecond step", 10, 22))
    having = Chat(make_tokenizer(chatml, adds_bos=True)).encode(QUESTION, answer("first step\nsecond step", 10, 22))
    assert having.prompt_tokens == without.prompt_tokens + 1
    assert having.step_index == tuple(index + 1 for index in without.step_index)


def test_eos_added_by_the_tokenizer_is_not_doubled(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(None, adds_bos=True, adds_eos=True)
    encoded = Chat(tokenizer).encode(QUESTION, answer("Yes"))
    assert encoded.ids[-1] == tokenizer.eos_token_id
    assert encoded.ids.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize(("adds_bos", "adds_eos"), [(True, True), (False, True), (True, False), (False, False)])
def test_the_saved_fallback_template_and_tokenizer_give_the_same_ids_anywhere(
    make_tokenizer: Make, tmp_path: Path, adds_bos: bool, adds_eos: bool
) -> None:
    """RoBERTa's tokenizer ends every text with EOS, others leave it to the template: a server sees it once."""
    from transformers import AutoTokenizer

    chat = Chat(make_tokenizer(None, adds_bos=adds_bos, adds_eos=adds_eos))
    chat.save(tmp_path)
    server = AutoTokenizer.from_pretrained(tmp_path)
    turns = [{"role": "user", "content": "Is the sky blue?"}, {"role": "assistant", "content": "Yes"}]
    text = server.apply_chat_template(turns, tokenize=False)
    assert tuple(server(text)["input_ids"]) == chat.encode(QUESTION, answer("Yes")).ids
    assert Chat(server).fingerprint == chat.fingerprint


def test_pad_equal_to_eos_or_missing_is_refused_until_ensured(make_tokenizer: Make, chatml: str) -> None:
    for pad in ("<|im_end|>", None):
        tokenizer = make_tokenizer(chatml, pad=pad)
        with pytest.raises(ModelError, match="pad token must differ"):
            Chat(tokenizer)
        size = len(tokenizer)
        assert ensure_pad(tokenizer)
        assert tokenizer.pad_token == "<|pad|>"
        assert tokenizer.pad_token_id == size
        assert not ensure_pad(tokenizer)
        Chat(tokenizer)


def test_a_pad_name_already_in_the_vocabulary_is_used(make_tokenizer: Make, chatml: str) -> None:
    tokenizer = make_tokenizer(chatml)
    tokenizer.pad_token = tokenizer.eos_token
    assert not ensure_pad(tokenizer)
    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_padding_side_does_not_matter(make_tokenizer: Make, chatml: str) -> None:
    tokenizer = make_tokenizer(chatml)
    made = []
    for side in ("left", "right"):
        tokenizer.padding_side = side
        made.append(Chat(tokenizer).encode(QUESTION, answer("Yes")))
    assert made[0] == made[1]


def test_a_text_ending_in_the_pad_token_is_refused(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("{%- for m in messages -%}{{ m['content'] }}{{ pad_token }}{%- endfor -%}")
    with pytest.raises(DataError, match="pad token"):
        Chat(tokenizer).encode(QUESTION, answer("Yes"))


DATED = "Today is {{ strftime_now('%d %b %Y') }}.{{ strftime_now(\"%Y\") }} "
LLAMA_DATE = (
    "{%- if not date_string is defined -%}{%- set date_string = strftime_now('%d %b %Y') -%}{%- endif -%}"
    "Today Date: {{ date_string }} "
)
INDIRECT = "{%- set form = '%d %b %Y' -%}{{ strftime_now(form) }} "


@pytest.mark.parametrize(
    ("head", "date"), [(DATED, "26 Jul 2024.2024"), (LLAMA_DATE, "26 Jul 2024"), (INDIRECT, "2024-07-26")]
)
def test_rendering_does_not_depend_on_the_day(
    make_tokenizer: Make, chatml: str, head: str, date: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import chat_template_utils

    texts = []
    for day in (datetime(2025, 1, 2), datetime(2031, 12, 30)):

        class Clock(datetime):
            today = day

            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return cls.today

        chat_template_utils._compile_jinja_template.cache_clear()
        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        texts.append(Chat(make_tokenizer(head + chatml)).render(QUESTION))
    chat_template_utils._compile_jinja_template.cache_clear()
    assert texts[0] == texts[1]
    assert date in texts[0]


def test_the_saved_template_carries_no_clock(make_tokenizer: Make, chatml: str, tmp_path: Any) -> None:
    from transformers import AutoTokenizer

    chat = Chat(make_tokenizer(DATED + chatml))
    chat.save(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    assert "strftime_now" not in reloaded.chat_template
    plain = reloaded.apply_chat_template([{"role": "user", "content": "Is the sky blue?"}], tokenize=False)
    assert plain == chat.render(QUESTION)
    assert Chat(reloaded).fingerprint == chat.fingerprint


def test_pin_dates_keeps_the_rest_and_is_idempotent() -> None:
    assert pin_dates(pin_dates(INDIRECT)) == pin_dates(INDIRECT)
    assert pin_dates("a {{ strftime_now( '%Y-%m' ) }} b") == f"a {{{{ {PINNED_DATE:'%Y-%m'} }}}} b"


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_system_turn_is_none(make_tokenizer: Make, chatml: str, empty: str) -> None:
    chat = Chat(make_tokenizer(chatml))
    assert chat.encode((Message("system", empty), *QUESTION), answer("Yes")) == chat.encode(QUESTION, answer("Yes"))


def test_tool_turns_are_rendered(make_tokenizer: Make, chatml: str) -> None:
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"what": "sky"}}}
    completion = Completion(
        (
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "blue indeed", name="look_up", tool_call_id="1"),
            Message("assistant", "Yes."),
        )
    )
    for template in (chatml, None):
        chat = Chat(make_tokenizer(template))
        encoded = chat.encode(QUESTION, completion)
        behind = chat.tokenizer.decode(encoded.ids[encoded.prompt_tokens :])
        assert "look_up" in behind
        assert "blue indeed" in behind
        assert behind.index("look_up") < behind.index("blue indeed") < behind.index("Yes.")


def test_a_template_that_drops_a_turn_is_refused(make_tokenizer: Make) -> None:
    users_only = (
        "{%- for m in messages -%}{%- if m['role'] in ('user', 'assistant') -%}{{ m['content'] }}{%- endif -%}"
        "{%- endfor -%}"
    )
    chat = Chat(make_tokenizer(users_only))
    with pytest.raises(DataError, match="drops or rewrites the system turn"):
        chat.encode((Message("system", "Be brief"), *QUESTION), answer("Yes"))
    with pytest.raises(DataError, match="drops tool calls"):
        chat.encode(QUESTION, Completion((Message("assistant", "Hm", tool_calls=({"name": "look_up"},)),)))


def test_a_template_that_raises_is_a_data_error(make_tokenizer: Make) -> None:
    chat = Chat(make_tokenizer("{{ raise_exception('System role not supported') }}"))
    with pytest.raises(DataError, match="System role not supported"):
        chat.encode(QUESTION, answer("Yes"))


def test_without_a_template_the_fallback_ends_in_eos_once(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(None)
    chat = Chat(tokenizer)
    encoded = chat.encode((Message("system", "Be brief"), *QUESTION), answer("Yes"))
    assert tokenizer.decode(encoded.ids) == "System: Be brief\n\nUser: Is the sky blue?\n\nAssistant: Yes<|im_end|>"
    assert encoded.ids[encoded.reward_index] == tokenizer.eos_token_id


def policy(total: int, reserve: int, **more: Any) -> TruncationPolicy:
    return TruncationPolicy(max_length=total, response_reserve_tokens=reserve, **more)


LONG = (
    Message("system", "Be brief"),
    Message("user", "the quick brown fox " * 30),
    Message("assistant", "jumps over"),
    Message("user", "the lazy dog " * 5 + "so what?"),
)


def test_an_over_long_prompt_keeps_the_system_turn_and_the_end(make_tokenizer: Make, chatml: str) -> None:
    chat = Chat(make_tokenizer(chatml, adds_bos=True), policy(80, 30))
    whole = Chat(make_tokenizer(chatml, adds_bos=True)).encode(LONG, answer("Yes, it is."))
    encoded = chat.encode(LONG, answer("Yes, it is."))
    text = chat.tokenizer.decode(encoded.ids)
    assert encoded.prompt_truncated
    assert not encoded.response_truncated
    assert encoded.prompt_tokens == 50
    assert text.startswith("<s><|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("so what?<|im_end|>\n<|im_start|>assistant\nYes, it is.<|im_end|>\n")
    assert whole.ids[whole.prompt_tokens :] == encoded.ids[encoded.prompt_tokens :]


def test_the_kept_prompt_does_not_depend_on_the_response(make_tokenizer: Make, chatml: str) -> None:
    chat = Chat(make_tokenizer(chatml), policy(80, 30))
    short, long = (chat.encode(LONG, answer(text)) for text in ("No", "the quick brown fox"))
    assert short.ids[: short.prompt_tokens] == long.ids[: long.prompt_tokens]


def test_an_over_long_response_is_refused_or_flagged(make_tokenizer: Make, chatml: str) -> None:
    tokenizer = make_tokenizer(chatml)
    item = Candidates(QUESTION, (answer("quick brown fox " * 40), answer("No")))
    refused, kept = Chat(tokenizer, policy(60, 30)).encode_candidates(item)
    assert isinstance(refused, DataError)
    assert "the response takes" in str(refused)
    assert not isinstance(kept, DataError)
    flagged, unflagged = Chat(tokenizer, policy(60, 30, long_response="flag")).encode_candidates(item)
    assert not isinstance(flagged, DataError)
    assert flagged.response_truncated
    assert not flagged.prompt_truncated
    assert len(flagged.ids) == 60
    assert unflagged == kept


def test_a_response_may_use_what_a_short_prompt_leaves(make_tokenizer: Make, chatml: str) -> None:
    tokenizer = make_tokenizer(chatml)
    free = Chat(tokenizer).encode(QUESTION, answer("quick brown fox " * 9))
    assert Chat(tokenizer, policy(len(free.ids), 5)).encode(QUESTION, answer("quick brown fox " * 9)) == free
    with pytest.raises(DataError, match="response takes"):
        Chat(tokenizer, policy(len(free.ids) - 1, 5)).encode(QUESTION, answer("quick brown fox " * 9))


def test_a_system_turn_over_the_budget_is_refused(make_tokenizer: Make, chatml: str) -> None:
    chat = Chat(make_tokenizer(chatml), policy(40, 20))
    with pytest.raises(DataError, match="system turn takes"):
        chat.encode((Message("system", "helpful harmless " * 20), *QUESTION), answer("Yes"))


def test_step_ends_fall_on_the_steps_last_visible_token(make_tokenizer: Make, chatml: str) -> None:
    text = "first: 2 + 2 = 4\n\nsecond: so what\n\nthird — élan"
    ends = (18, 34, len(text))
    chat = Chat(make_tokenizer(chatml, adds_bos=True))
    encoded = chat.encode(QUESTION, answer(text, *ends))
    decode = chat.tokenizer.decode
    behind = [decode(encoded.ids[encoded.prompt_tokens : index + 1]) for index in encoded.step_index]
    assert behind == ["first: 2 + 2 = 4", "first: 2 + 2 = 4\n\nsecond: so what", text]


def test_steps_over_several_turns_and_stripped_content(make_tokenizer: Make, chatml: str) -> None:
    trimming = chatml.replace("message['content'] }}", "message['content'] | trim }}")
    completion = Completion(
        (Message("assistant", "  first step "), Message("tool", "first step"), Message("assistant", "second")),
        step_ends=(13, 21),
    )
    assert completion.text == "  first step \n\nsecond"
    chat = Chat(make_tokenizer(trimming))
    encoded = chat.encode(QUESTION, completion)
    first, second = (chat.tokenizer.decode(encoded.ids[: index + 1]) for index in encoded.step_index)
    assert first.endswith("<|im_start|>assistant\nfirst step")
    assert second.endswith("tool\nfirst step<|im_end|>\n<|im_start|>assistant\nsecond")


def test_a_turn_that_only_calls_a_tool_moves_no_step(make_tokenizer: Make, chatml: str) -> None:
    """Turns of an agent as steps: the wordless one has joints in the text, and no token of its own."""
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": {}}}
    turns = (
        Message("assistant", "I look.", tool_calls=(call,)),
        Message("tool", "Done: 14.", tool_call_id="c"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "Done: 14.", tool_call_id="c"),
        Message("assistant", "Done: 14."),
    )
    encoded = Chat(make_tokenizer(chatml)).encode(QUESTION, Completion(turns, step_ends=(7, 20)))
    decode = Chat(make_tokenizer(chatml)).tokenizer.decode
    first, last = (decode(encoded.ids[: index + 1]) for index in encoded.step_index)
    assert first.endswith("<|im_start|>assistant\nI look.")
    assert last.endswith("<|im_start|>assistant\nDone: 14.")


def test_a_step_without_visible_text_is_refused(make_tokenizer: Make, chatml: str) -> None:
    with pytest.raises(DataError, match="no visible character"):
        Chat(make_tokenizer(chatml)).encode(QUESTION, answer("one\n\n", 3, 5))


def test_steps_move_with_a_cut_prompt(make_tokenizer: Make, chatml: str) -> None:
    tokenizer = make_tokenizer(chatml)
    encoded = Chat(tokenizer, policy(80, 30)).encode(LONG, answer("first\nsecond", 6, 12))
    texts = [tokenizer.decode(encoded.ids[encoded.prompt_tokens : index + 1]) for index in encoded.step_index]
    assert texts == ["first", "first\nsecond"]


def test_an_empty_completion_is_refused_without_its_turn(make_tokenizer: Make, chatml: str) -> None:
    with pytest.raises(DataError, match="no message"):
        Chat(make_tokenizer(chatml)).encode(QUESTION, Completion(()))


def test_the_fingerprint_covers_template_tokenizer_and_truncation(make_tokenizer: Make, chatml: str) -> None:
    base = Chat(make_tokenizer(chatml)).fingerprint
    others = [
        Chat(make_tokenizer(chatml + " ")).fingerprint,
        Chat(make_tokenizer(None)).fingerprint,
        Chat(make_tokenizer(chatml, adds_bos=True)).fingerprint,
        Chat(make_tokenizer(chatml), policy(80, 30)).fingerprint,
    ]
    assert base == Chat(make_tokenizer(chatml)).fingerprint
    assert len({base, *others}) == 5


def test_the_fingerprint_ignores_how_the_tokenizer_was_last_called(make_tokenizer: Make, chatml: str) -> None:
    tokenizer = make_tokenizer(chatml)
    tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=2)
    assert Chat(tokenizer).fingerprint == Chat(make_tokenizer(chatml)).fingerprint
    assert len(Chat(tokenizer).encode(QUESTION, answer("quick brown fox")).ids) > 2


def test_the_reserve_follows_the_limit() -> None:
    limits = (8192, 2048, 1024, 1023, 100, 2)
    assert [TruncationPolicy(max_length=n).response_reserve_tokens for n in limits] == [1024, 1024, 512, 511, 50, 1]
    assert TruncationPolicy(max_length=4096) == TruncationPolicy(max_length=4096, response_reserve_tokens=1024)
    with pytest.raises(ConfigError, match="response_reserve_tokens"):
        TruncationPolicy(max_length=1)


def test_a_senseless_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="response_reserve_tokens"):
        TruncationPolicy(max_length=10, response_reserve_tokens=10)


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Co", "Cc")), max_size=60)


@settings(max_examples=60, deadline=None)
@given(question=texts, reply=texts)
def test_any_text_splits_into_prompt_and_response(make_tokenizer: Make, chatml: str, question: str, reply: str) -> None:
    chat = Chat(make_tokenizer(chatml))
    encoded = chat.encode((Message("user", question),), answer(reply))
    decode = chat.tokenizer.decode
    assert (
        decode(encoded.ids[: encoded.prompt_tokens])
        == f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert decode(encoded.ids[encoded.prompt_tokens :]) == f"{reply}<|im_end|>\n"


@settings(max_examples=60, deadline=None)
@given(question=texts, reply=texts, total=st.integers(24, 90))
def test_no_policy_yields_more_than_its_maximum(
    make_tokenizer: Make, chatml: str, question: str, reply: str, total: int
) -> None:
    chat = Chat(make_tokenizer(chatml), policy(total, total // 3, long_response="flag"))
    encoded = chat.encode((Message("user", question),), answer(reply))
    assert encoded.prompt_tokens <= chat.truncation.max_prompt_tokens
    assert encoded.prompt_tokens < len(encoded.ids) <= total


def test_the_fingerprint_is_made_of_the_names_that_stored_ones_were_made_with(
    make_tokenizer: Make, chatml: str
) -> None:
    chat = Chat(make_tokenizer(chatml), TruncationPolicy(max_length=60, response_reserve_tokens=20))
    backend = json.loads(chat.tokenizer.backend_tokenizer.to_str())
    parts = {
        "template": chat.template,
        "tokenizer": {name: part for name, part in backend.items() if name not in ("padding", "truncation")},
        "special": {name: str(token) for name, token in chat.tokenizer.special_tokens_map.items()},
        "truncation": {"max_tokens": 60, "response_reserve_tokens": 20, "long_response": "refuse"},
    }
    assert chat.fingerprint == hashlib.sha256(canonical_json(parts).encode()).hexdigest()
