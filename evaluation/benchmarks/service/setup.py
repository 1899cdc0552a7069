"""What `rmkit bench service` serves: a small explicit model of random weights, and requests of mixed lengths."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.types import Candidates, Completion, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

N = 8  # completions of a prompt, as a GRPO group has
PROMPT_TOKENS, COMPLETION_TOKENS, SIGMA = 160, 80, 0.6  # log-normal: mean tokens and sigma
WORDS = 3000
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)


def words(seed: int = 0) -> list[str]:
    """Made-up words; the tokenizer knows each as one token."""
    draw = random.Random(seed)
    parts = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    return sorted({"".join(draw.choices(parts, k=draw.choice((2, 3)))) for _ in range(2 * WORDS)})[:WORDS]


def make_items(prompts: int, *, seed: int = 0) -> list[dict[str, object]]:
    """Prompts with N completions each, as JSON of the native route; lengths are log-normal."""
    draw, vocabulary = random.Random(seed), words()

    def text(mean: int) -> str:
        length = max(4, round(mean * draw.lognormvariate(-(SIGMA**2) / 2, SIGMA)))
        return " ".join(draw.choices(vocabulary, k=min(length, 8 * mean)))

    return [
        {"prompt": text(PROMPT_TOKENS), "completions": [text(COMPLETION_TOKENS) for _ in range(N)]}
        for _ in range(prompts)
    ]


def candidates(item: dict[str, Any]) -> Candidates:
    replies = tuple(Completion((Message("assistant", text),)) for text in item["completions"])
    return Candidates((Message("user", item["prompt"]),), replies)


def write_model(folder: Path, *, layers: int, hidden: int) -> Path:
    """An artifact of an untrained Qwen3-shaped classifier with a word tokenizer and a ChatML template."""
    import torch
    from transformers import AutoModelForSequenceClassification, Qwen3Config

    from rmkit.chat.encode import Chat, TruncationPolicy
    from rmkit.models.transformer import explicit

    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        head_dim=32,
        max_position_embeddings=4096,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        model.score.weight.mul_(20)  # scores that differ visibly
    folder.mkdir(parents=True)
    chat = Chat(tokenizer, TruncationPolicy(max_length=4096, response_reserve_tokens=2048))
    explicit.save(folder, model=model, chat=chat, facts={"name": "service-benchmark"})
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|im_start|>", "<|im_end|>", "[UNK]"]
    vocabulary = {word: number for number, word in enumerate([*special, "user", "assistant", *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        unk_token="[UNK]",
        chat_template=TEMPLATE,
    )


def write_requests(path: Path, items: list[dict[str, Any]], expected: list[list[float]], *, mode: str) -> None:
    """One line per request: its item, the rendered texts for a plain server, and the right answers.

    `groups` sends a prompt's completions in one request, `samples` each in its own, one after the other.
    """
    lines = []
    for item, values in zip(items, expected, strict=True):
        parts = [(item["completions"], values)]
        if mode == "samples":
            parts = [([text], [value]) for text, value in zip(item["completions"], values, strict=True)]
        for texts, right in parts:
            lines.append(json.dumps({"prompt": item["prompt"], "completions": texts, "expected": right}))
    path.write_text("\n".join(lines) + "\n")


def rendered(prompt: str, completion: str) -> str:
    """The text that the artifact's template makes: what a client of a plain server sends."""
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{completion}<|im_end|>\n"
