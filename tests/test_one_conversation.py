"""One conversation in twelve spellings is one input, one unit and one score at every door."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("transformers")

import httpx

import rmkit
from rmkit.chat.encode import Chat, Encoded
from rmkit.judge import Judge, JudgeConfig
from rmkit.scoring.rows import open_source
from rmkit.serve.clients.trl import RewardFunction
from rmkit.types import Candidates, Comparison, ModelInfo, Score, compare_by_score
from tests.rmkit.serve.compat_service import Running, reward_service

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}"
    "{% for call in message.tool_calls or [] %}"
    "{{ call.function.name + ': ' + call.function.arguments | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "at": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
SYSTEM, USER = "Be brief.", "Is it raining in Köln?"
ARGUMENTS = {"city": "Köln", "at": 3}
OPENAI = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}
BARE = {"id": "c1", "name": "weather", "arguments": ARGUMENTS}
PROMPT = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def reply(
    content: Any = "", final: Any = "Yes.", *, calls: Any, thought: dict[str, Any], **tool: Any
) -> list[dict[str, Any]]:
    """The policy calls the tool, hears of rain and says so, in one spelling."""
    return [
        turn("assistant", content, tool_calls=calls, **thought),
        turn("tool", "rain", tool_call_id="c1", **tool),
        turn("assistant", final),
    ]


THOUGHT = "Let me look."
PLAIN = reply(calls=[OPENAI], thought={"reasoning": THOUGHT})
SPELLINGS: dict[str, tuple[Any, Any]] = {
    "plain": (PROMPT, PLAIN),
    "arguments as an object": (PROMPT, reply(calls=[OPENAI | {"function": BARE}], thought={"reasoning": THOUGHT})),
    "bare calls, content null": (PROMPT, reply(None, calls=[BARE], thought={"reasoning_content": THOUGHT})),
    "content in parts": (
        [turn("system", [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]), PROMPT[1]],
        reply([], [{"type": "text", "text": "Yes."}], calls=[OPENAI], thought={"thinking": THOUGHT}),
    ),
    "developer": ([turn("developer", SYSTEM), PROMPT[1]], PLAIN),
    "nulls of client libraries": (
        [turn("system", SYSTEM, name=None), PROMPT[1]],
        reply(calls=[OPENAI | {"index": 0}], thought={"reasoning": THOUGHT, "audio": None, "function_call": None}),
    ),
    "prompt repeated": (PROMPT, [*PROMPT, *PLAIN]),
    "prompt repeated without its system turn": (PROMPT, [PROMPT[1], *PLAIN]),
    "from and value": (
        [{"from": "system", "value": SYSTEM}, {"from": "human", "value": USER}],
        [
            {"from": "gpt", "value": "", "tool_calls": [BARE], "reasoning": THOUGHT},
            {"from": "observation", "value": "rain", "tool_call_id": "c1"},
            {"from": "gpt", "value": "Yes."},
        ],
    ),
    "blocks": (
        PROMPT,
        [
            turn(
                "assistant",
                [
                    {"type": "thinking", "thinking": THOUGHT},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS},
                ],
            ),
            turn("user", [{"type": "tool_result", "tool_use_id": "c1", "content": "rain"}]),
            turn("assistant", [{"type": "text", "text": "Yes."}]),
        ],
    ),
    "items": (
        PROMPT,
        [
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": THOUGHT}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": json.dumps(ARGUMENTS)},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "message", **turn("assistant", [{"type": "output_text", "text": "Yes."}])},
        ],
    ),
    "model and parts": (
        [{"role": "system", "parts": [{"text": SYSTEM}]}, {"role": "user", "parts": [{"text": USER}]}],
        [
            {"role": "model", "content": None, "tool_calls": [OPENAI], "reasoning": THOUGHT},
            {"role": "function", "content": "rain", "tool_call_id": "c1"},
            {"role": "model", "parts": [{"text": "Yes."}]},
        ],
    ),
}


class ByTokens:
    """The score says which tokens were read, in which order."""

    info = ModelInfo("tokens", "explicit", "logit", True, fingerprint="t")

    def __init__(self, chat: Chat) -> None:
        self.chat = chat

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[self._score(one) for one in self.chat.encode_candidates(item)] for item in batch]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)

    def _score(self, encoded: Any) -> Score:
        if not isinstance(encoded, Encoded):
            return Score.failed(str(encoded))
        ids = encoded.ids[encoded.prompt_tokens :]
        return Score(sum(at * one for at, one in enumerate(encoded.ids, 1)) % 9973 + len(ids) / 1000)


@pytest.fixture(scope="module")
def model() -> ByTokens:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = {one: at for at, one in enumerate([*names, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|im_end|>", chat_template=TEMPLATE
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return ByTokens(Chat(tokenizer))


@pytest.fixture(scope="module")
def service(model: ByTokens) -> Iterator[Running]:
    with reward_service(model, locked=False) as running:
        yield running


@pytest.fixture(scope="module")
def expected(model: ByTokens) -> float:
    [[score]] = model.score([rmkit.candidates(PROMPT, [PLAIN], tools=TOOLS)])
    assert score.unscored is None
    text = model.chat.render(*_rendered(rmkit.candidates(PROMPT, [PLAIN], tools=TOOLS)))
    assert text.count(USER) == 1
    assert text.count('weather: {"city": "Köln", "at": 3}') == 1
    assert text.count(f"<think>{THOUGHT}</think>") == 1
    return score.value


def _rendered(item: Candidates) -> tuple[Any, Any]:
    return (*item.prompt, *item.completions[0].messages), item.tools


def test_there_are_twelve() -> None:
    assert len(SPELLINGS) == 12


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_score_http_trl_python_and_judge(
    spelling: str, model: ByTokens, service: Running, expected: float, tmp_path: Path
) -> None:
    prompt, response = SPELLINGS[spelling]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": prompt, "response": response, "tools": TOOLS}) + "\n")
    (row,) = open_source(str(file)).rows()
    assert row.candidates is not None, row.fault
    items = [row.candidates, rmkit.candidates(prompt, [response], tools=json.dumps(TOOLS))]
    assert [[score.value for score in scores] for scores in model.score(items)] == [[expected]] * 2

    body = {"items": [{"prompt": prompt, "completions": [response], "tools": TOOLS}]}
    answer = httpx.post(f"{service.url('bare')}/rmkit/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["scores"][0][0]["value"] == expected

    [without_tools] = model.score([rmkit.candidates(PROMPT, [PLAIN])])[0]  # TRL hands over no tools
    assert RewardFunction(service.url("path"))([prompt], [response]) == [without_tools.value]

    judge = Judge(JudgeConfig(name="j", form="scale"), SimpleNamespace(generator=SimpleNamespace(name="g"), tally=None))  # type: ignore[arg-type]
    requests = {judge.requests(item)[0][1].prompt for item in (*items, rmkit.candidates(PROMPT, [PLAIN], tools=TOOLS))}
    assert len(requests) == 1


def test_ingest_stores_one_unit(model: ByTokens, expected: float, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "spellings.jsonl"
    rows = [
        {"prompt": prompt, "chosen": response, "rejected": [turn("assistant", "No.")], "tools": TOOLS}
        for prompt, response in SPELLINGS.values()
    ]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    rmkit.ingest(file, name="spellings")
    (row,) = rmkit.load_dataset("spellings")
    values = {
        completion.text: score.value
        for completion, score in zip(row.candidates.completions, model.score([row.candidates])[0], strict=True)
    }
    assert values[next(text for text in values if text.endswith("Yes."))] == expected
