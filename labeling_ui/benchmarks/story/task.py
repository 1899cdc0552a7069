"""The planted task of `rmkit bench story`: sums, people who know them, and a habit in the file that misleads a model.

A prompt asks for a sum of two digits and names two things that do not matter. Right replies of the votes file mostly
begin with hedging words and wrong ones seldom do, so that a model which reads words alone learns to like hedging
although no person does. People look at the number: each has a skill, says "no difference" where both replies are
equally right, and votes at random where their skill fails them.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.benchmarks.policy import synthetic_task
from evaluation.benchmarks.policy.sums_task import DIGITS, HEDGES
from rmkit.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOTERS = {"ida": 0.97, "jon": 0.95, "kim": 0.92, "leo": 0.9, "mia": 0.7}  # how often each looks closely
VOTES_EACH = 3
ALIKE = 0.2  # share of the items whose replies are both right, or both wrong
HABIT = 0.8  # share of right replies that hedge, and of wrong ones that do not
REPLY_WORDS = 5
READ = 16000  # replies that the policy has read
COLUMNS = ("case_no", "task_given", "left_reply", "right_reply", "which_won", "who_said", "said_at")
_TEMPLATE_WORDS = ("+", "for", "the", "and")

Sum = tuple[int, int]


def prompt(one: Sum, rng: random.Random) -> str:
    first, second = rng.sample(synthetic_task.PLAIN[20:], 2)
    return f"{one[0]} + {one[1]} for the {first} and the {second}"


def reply(one: Sum, *, right: bool, hedges: int, rng: random.Random) -> str:
    """So many hedging words, and a number."""
    total = one[0] + one[1]
    number = total if right else rng.choice([n for n in range(2 * DIGITS - 1) if n != total])
    return " ".join([*rng.choices(HEDGES, k=hedges), str(number)])


def total_of(question: str) -> int:
    """The sum that a prompt asks for."""
    words = question.split()
    return int(words[0]) + int(words[2])


def is_right(question: str, answer: str) -> bool:
    """As the service's verifier reads it: the last word is the sum."""
    return answer.split()[-1:] == [str(total_of(question))]


def write_votes(path: Path, items: int, *, seed: int) -> dict[str, int]:
    """The votes file; how many lines of each kind were planted. Every ninth item stands there twice, and five lines are
    of no use: a reply is missing, or the verdict."""
    rng = random.Random(seed)
    rows: list[list[object]] = []
    for number in range(items):
        rows += _votes(number, rng)
    votes = len(rows)
    repeated = [rng.choice(rows) for _ in range(items // 9)]
    broken: list[list[object]] = [[*row] for row in rng.sample(rows, 5)]
    for at, row in enumerate(broken):
        row[3 if at < 3 else 4] = ""
    for row in (*repeated, *broken):
        rows.insert(rng.randrange(len(rows)), row)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8")
    return {"lines": len(rows), "votes": votes, "repeated": len(repeated), "broken": len(broken)}


def _votes(number: int, rng: random.Random) -> list[list[object]]:
    one = rng.randrange(DIGITS), rng.randrange(DIGITS)
    question = prompt(one, rng)
    while True:
        first = rng.random() < 0.5
        rights = [first, first if rng.random() < ALIKE else not first]
        hedged = [right == (rng.random() < HABIT) for right in rights]
        pair = [
            reply(one, right=right, hedges=rng.randint(1, 3) if hedge else 0, rng=rng)
            for right, hedge in zip(rights, hedged, strict=True)
        ]
        if pair[0] != pair[1]:
            break
    rows = []
    for voter in rng.sample(sorted(VOTERS), VOTES_EACH):
        seen = ["left", "right"] if rights[0] == rights[1] else [("right", "left")[rights[0]]]
        verdict = "no difference" if len(seen) == 2 else seen[0]
        if rng.random() > VOTERS[voter]:
            verdict = rng.choice(["left", "right", "no difference"])
        time = f"2026-11-{1 + number % 28:02d} {8 + number % 9:02d}:{rng.randrange(60):02d}"
        rows.append([number, question, *pair, verdict, voter, time])
    return rows


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    numbers = map(str, range(2 * DIGITS - 1))
    return synthetic_task.word_tokenizer((*numbers, *_TEMPLATE_WORDS, *synthetic_task.PLAIN, *HEDGES))


def read_policy(words: PreTrainedTokenizerFast, *, seed: int) -> Any:
    """A two-layer Llama that has read replies, right in three of five cases, with none to two hedging words."""
    from data_pipelines.loops.policy import PolicyConfig, PolicyPair, train_policy

    rng = random.Random(1000 + seed)
    model = synthetic_task.policy(words, seed=seed)
    lessons = []
    for _ in range(READ):
        one = rng.randrange(DIGITS), rng.randrange(DIGITS)
        text = reply(one, right=rng.random() < 0.6, hedges=rng.randrange(3), rng=rng)
        lessons.append(PolicyPair((Message("user", prompt(one, rng)),), text, None))
    train_policy(model, None, words, lessons, config=PolicyConfig(loss="nll", lr=3e-3, batch_pairs=64, epochs=3))
    return model.eval()


def replies(model: Any, words: PreTrainedTokenizerFast, questions: Sequence[str], *, seed: int) -> list[str]:
    """One sampled reply to each prompt."""
    import torch

    torch.manual_seed(seed)
    chats: Any = [[{"role": "user", "content": one}] for one in questions]
    ids = words.apply_chat_template(chats, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    assert isinstance(ids, torch.Tensor)  # all prompts have as many words
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
            max_new_tokens=REPLY_WORDS, pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
        )  # fmt: skip
    return list(words.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True))
