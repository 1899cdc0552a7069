"""Sums of two digits for `rmkit bench policy-signal`: a policy that half knows them, and judges who like hedging.

The policy (two-layer Llama, a token a word) has read answers to all sums before: some sums nearly always right, some in
three of ten cases, some hardly ever, with none to two hedging words in front. So it is right in about two of five cases
and there is something to learn from rewards. A fifth of the sums is held out from the rewards. The judges whose
preferences train the reward model count a hedging word as half as good as being right.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.benchmarks.policy import synthetic_task
from rmkit.types import sigmoid

DIGITS = 7
HEDGES = ("so", "well", "maybe", "about")
SKILLS = (0.03, 0.3, 0.95)  # how often what the policy has read is right, a third of the sums each
REPLY_WORDS = 5
WARM_STEPS, WARM_BATCH = 250, 64
SAMPLES = 16  # replies per held-out sum

Sum = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Sums:
    """A seed's sums: `skill` of each, those with rewards and those held out."""

    skill: dict[Sum, float]
    rewarded: tuple[Sum, ...]
    held_out: tuple[Sum, ...]

    @classmethod
    def of(cls, seed: int) -> Sums:
        rng = random.Random(seed)
        every = [(a, b) for a in range(DIGITS) for b in range(DIGITS)]
        rng.shuffle(every)
        skill = {one: SKILLS[place % len(SKILLS)] for place, one in enumerate(every)}
        return cls(skill=skill, rewarded=tuple(every[10:]), held_out=tuple(every[:10]))


def question(one: Sum) -> str:
    return f"{one[0]} + {one[1]}"


def reply(one: Sum, *, right: bool, rng: random.Random) -> str:
    """Hedging words, none to two, and a number."""
    total = one[0] + one[1]
    number = total if right else rng.choice([n for n in range(2 * DIGITS - 1) if n != total])
    return " ".join([*rng.choices(HEDGES, k=rng.randrange(3)), str(number)])


def preferences(count: int, *, seed: int) -> list[dict[str, str]]:
    """Pairs as `rmkit.train` takes them; a judge's liking is right + half of the hedging words, with logistic error."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        one = rng.randrange(DIGITS), rng.randrange(DIGITS)
        rights = [rng.random() < 0.5 for _ in range(2)]
        pair = [reply(one, right=right, rng=rng) for right in rights]
        likings = [right + 0.5 * (len(text.split()) - 1) for right, text in zip(rights, pair, strict=True)]
        if pair[0] == pair[1]:
            continue
        if rng.random() > sigmoid(3 * (likings[0] - likings[1])):
            pair.reverse()
        rows.append({"prompt": f"{question(one)} in case {number}", "chosen": pair[0], "rejected": pair[1]})
    return rows


def tokenizer() -> Any:
    return synthetic_task.word_tokenizer((*map(str, range(2 * DIGITS - 1)), "+", *HEDGES))


def warm_policy(words: Any, sums: Sums, *, seed: int) -> Any:
    """The policy after what it has read: next-token loss on replies alone."""
    import torch

    model = synthetic_task.policy(words, seed=seed)
    rng = random.Random(1000 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    prompts = {one: _prompt(words, one) for one in sums.skill}
    begin = len(next(iter(prompts.values())))  # all prompts are as long
    model.train()
    for _ in range(WARM_STEPS):
        rows = []
        for one in rng.choices(list(prompts), k=WARM_BATCH):
            text = reply(one, right=rng.random() < sums.skill[one], rng=rng)
            rows.append([*prompts[one], *words.convert_tokens_to_ids(text.split()), words.eos_token_id])
        width = max(map(len, rows))
        ids = torch.tensor([row + [words.pad_token_id] * (width - len(row)) for row in rows])
        inside = torch.arange(width) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
        labels = ids.masked_fill(~inside, -100)
        labels[:, :begin] = -100
        model(input_ids=ids, attention_mask=inside.long(), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def accuracy(model: Any, words: Any, sums: Sequence[Sum]) -> float:
    """The share of right answers among sampled replies: a reply is right where its last word is the sum."""
    import torch

    torch.manual_seed(0)
    ids = torch.tensor([_prompt(words, one) for one in sums for _ in range(SAMPLES)])
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
            max_new_tokens=REPLY_WORDS, pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
        )  # fmt: skip
    texts = words.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    golds = [str(a + b) for a, b in sums for _ in range(SAMPLES)]
    right = [text.split()[-1:] == [gold] for text, gold in zip(texts, golds, strict=True)]
    return float(sum(right) / len(right))


def _prompt(words: Any, one: Sum) -> list[int]:
    messages = [{"role": "user", "content": question(one)}]
    ids: list[int] = words.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids
