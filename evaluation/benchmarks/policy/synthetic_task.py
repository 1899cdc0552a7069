"""A small world with a known preference: a vocabulary, noisy judgments, a policy and its tokenizer.

Replies are words. People in this world like the ones of COURTEOUS and dislike those of RUDE; of two replies they choose
the first with probability sigmoid(s_1 - s_2), where s is courteous minus rude words. The policy is a two-layer Llama
with random weights over the same words, so that before training it writes each about equally often.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.types import sigmoid

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

COURTEOUS = ("please", "thanks", "gladly", "certainly", "kindly", "welcome", "happy", "sure")
RUDE = ("whatever", "nonsense", "stupid", "boring", "silly", "useless", "never", "hardly")
_PLAIN_TEXT = (
    "the a of to in it is that on with as at by from this which one about there when more time people way water day "
    "part word place work number sound year line house road field stone river letter table garden window morning"
)
PLAIN = tuple(_PLAIN_TEXT.split())
REPLY_WORDS = 12
_WORDS = (*PLAIN, *COURTEOUS, *RUDE)
_PROMPT = ("Tell", "me", "and")
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} {{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def liking(reply: str) -> int:
    """What the world's people go by: courteous minus rude words."""
    words = reply.split()
    return sum(word in COURTEOUS for word in words) - sum(word in RUDE for word in words)


def prompts(count: int, *, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [f"Tell me about {rng.choice(PLAIN)} and {rng.choice(PLAIN)}" for _ in range(count)]


def write_pairs(path: Path, count: int, *, seed: int) -> None:
    """Preference pairs as JSON lines; each prompt with a number of its own, so that it is a family of its own."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number, prompt in enumerate(prompts(count, seed=seed)):
            first, second = (" ".join(rng.choices(_WORDS, k=rng.randint(6, 14))) for _ in range(2))
            if rng.random() > sigmoid(liking(first) - liking(second)):
                first, second = second, first
            row = {"prompt": f"{prompt} number {number}", "chosen": first, "rejected": second}
            file.write(json.dumps(row) + "\n")


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the world."""
    return word_tokenizer((*_PROMPT, *_WORDS))


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token for each of these words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ("<|pad|>", "<|unk|>", "<|im_start|>", "<|im_end|>")
    known = dict.fromkeys([*special, "user", "assistant", *words])
    result = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<|unk|>"))
    result.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=result,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=_TEMPLATE,
        padding_side="left",
    )


def policy(words: Any, *, seed: int) -> LlamaForCausalLM:
    """A Llama of 64 dimensions and two layers with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def reply_of(completion: str | Sequence[dict[str, str]]) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]
