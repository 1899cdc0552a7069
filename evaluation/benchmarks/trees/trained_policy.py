"""A policy that is trained here: a two-layer Llama that has read noisy solutions of planted chains, a token a step.

    3+2*3-1   ->   3+2=5 / 5*3=2 / 2-1=1 / #### 1        (modulo 13)

What it reads is wrong by a step's operation (plus 3, minus 12, times 35 percent: any other number), and it goes on from
the wrong number. So it half knows its sums, errs where it is not sure, and problems of many products are hard. With 13
numbers a wrong chain ends right by luck in one case of twelve. A step is one token, so that small models can learn
which steps are sums that are right; they still have to learn it from verdicts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.trees.planted import Chain, applied

MODULUS = 13
OPERANDS = 3  # numbers that a step adds, subtracts or multiplies by: 1 to this
LENGTH = 6
STEPS_OF_A_SOLUTION = LENGTH + 1  # the last one is the answer
ERRORS = {"+": 0.03, "-": 0.12, "*": 0.35}
SIGNS = ((0.8, 0.2, 0.0), (0.3, 0.4, 0.3), (0.1, 0.1, 0.8))  # how often + - * stand in problems of three levels
SPECIAL = ("<|pad|>", "<|end|>", "<|unk|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'user' or not loop.last %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def signed_chains(n: int, *, seed: int) -> list[Chain]:
    """Problems of the three levels in turn, each once."""
    draw = random.Random(seed)
    result: dict[str, Chain] = {}
    while len(result) < n:
        one = _chain(draw, SIGNS[len(result) % len(SIGNS)])
        result.setdefault(one.text, one)
    return list(result.values())


def tokenizer() -> Any:
    """Steps are tokens, and so are the numbers and signs of problems; decoding gives the very text."""
    import transformers
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    numbers = range(MODULUS)
    steps = [f"{v}{sign}{n}={r}\n" for v in numbers for sign in ERRORS for n in range(1, OPERANDS + 1) for r in numbers]
    words = [*SPECIAL, *map(str, numbers), *ERRORS, "####", " ", *steps]
    result = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<|unk|>"))
    split = Regex(r"\d+[-+*]\d+=\d+\n|\d+|####|[^\d]")
    result.pre_tokenizer = pre_tokenizers.Split(split, behavior="isolated")
    result.decoder = decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=result,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        unk_token="<|unk|>",
        additional_special_tokens=SPECIAL[3:],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def train_policy(folder: Path, *, seed: int, steps: int = 500, batch: int = 64, hidden: int = 64) -> Path:
    """The policy's folder: next-token loss on the solutions alone."""
    import torch
    import transformers

    words = tokenizer()
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        initializer_range=0.05,
        tie_word_embeddings=False,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
        bos_token_id=None,
    )
    model = transformers.LlamaForCausalLM(config)
    draw = random.Random(f"solutions {seed}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min(1.0, (at + 1) / 50) * (1 + math.cos(math.pi * at / steps)) / 2
    )
    for _ in range(steps):
        pairs = [_read(words, draw) for _ in range(batch)]
        ids = torch.tensor([prompt + reply for prompt, reply in pairs])  # all are as long
        labels = ids.clone()
        labels[:, : len(pairs[0][0])] = -100
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _chain(draw: random.Random, weights: Sequence[float]) -> Chain:
    rest = tuple((draw.choices("+-*", weights)[0], draw.randrange(1, OPERANDS + 1)) for _ in range(LENGTH))
    return Chain(draw.randrange(MODULUS), rest, math.nan, MODULUS)


def _read(words: Any, draw: random.Random) -> tuple[list[int], list[int]]:
    """The ids of a problem and of a noisy solution."""
    chain = _chain(draw, draw.choice(SIGNS))
    value, lines = chain.first, []
    for sign, number in chain.rest:
        right = applied(value, sign, number, MODULUS)
        wrong = draw.random() < ERRORS[sign]
        result = draw.choice([one for one in range(MODULUS) if one != right]) if wrong else right
        lines.append(f"{value}{sign}{number}={result}\n")
        value = result
    prompt = words.apply_chat_template(
        [{"role": "user", "content": chain.text}], add_generation_prompt=True, return_dict=False
    )
    reply = words("".join(lines) + f"#### {value}", add_special_tokens=False)["input_ids"]
    return prompt, [*reply, words.eos_token_id]
