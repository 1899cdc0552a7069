"""A small world for judge training: words that are good or bad, a stub teacher who knows half of them, a tiny model.

A response is one word of meaning beside filler; of two, the one with the good word is better. Pairs of words are held
out, so a judge must have learned the words, not the pairs. The teacher is right about the words of one group; where it
knows nothing it names what stands first, as position-biased judges do. Asked in both orders it is never admitted there,
so the SFT set says nothing about the second group, and DPO on the SFT judge's own samples must teach it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from data_pipelines.judge.data.items import Item
from rmkit.generate import Prices, Request, Sample
from rmkit.ids import content_hash
from rmkit.types import Candidates, Completion, Message

# fmt: off
WORDS = [
    "amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heron", "ivory", "jade", "kelp", "lotus", "maple",
    "nickel", "olive", "pearl", "quartz", "raven", "slate", "thyme", "umber", "violet", "willow", "yarrow", "zinc",
    "acorn", "basil", "coral", "daisy", "elm", "fern", "garnet", "hazel", "iris", "juniper", "larch", "moss", "nettle",
    "onyx", "poppy",
]
# fmt: on
FILLER = ["near", "under", "over", "beside"]
PROMPT = (
    "{#- As short as a judge's prompt can be: a tiny model has to read it. -#}\n{%- block user -%}\n"
    "{% for response in responses %}{{ response.label }} {{ response.text }} {% endfor %}\n{%- endblock -%}\n"
)
JUDGE = """\
[judge]
name = "planted"
form = "{form}"
prompt = "prompt.jinja"
max_tokens = 4
verdict = "parse"

[generator]
model = "stub"
base_url = "http://localhost/v1"
"""
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


@dataclass(frozen=True, slots=True)
class SyntheticTask:
    """Training items, held-out items (pairs of words never seen together), and the words that the teacher knows."""

    train: tuple[Item, ...]
    held_out: tuple[Item, ...]
    known: frozenset[str]

    def knows(self, item: Item) -> bool:
        """Whether the teacher knows the pair."""
        return words_of(item.candidates) <= self.known


def made_world(seed: int, *, train: int = 400, known: float = 0.6, permuted: bool = False) -> SyntheticTask:
    """`permuted` shuffles the labels of the training items among them, so that there is nothing to learn."""
    draw = random.Random(seed)
    words = draw.sample(WORDS, len(WORDS))
    n = len(words) // 4
    good, bad = [words[:n], words[n : 2 * n]], [words[2 * n : 3 * n], words[3 * n :]]  # of the known group, the other
    seen, unseen = [], []
    for group in range(2):
        pairs = list(product(good[group], bad[group]))
        draw.shuffle(pairs)
        unseen += pairs[: len(pairs) // 4]
        seen.append(pairs[len(pairs) // 4 :])
    n_known = round(train * known)
    trained = [_item(draw, *draw.choice(seen[at >= n_known])) for at in range(train)]
    if permuted:
        labels = [item.better for item in trained]
        random.Random(f"{seed} permuted").shuffle(labels)
        trained = [replace(item, better=label) for item, label in zip(trained, labels, strict=True)]
    held_out = [_item(draw, *pair) for pair in unseen]
    return SyntheticTask(tuple(trained), tuple(held_out), frozenset(good[0] + bad[0]))


def _item(draw: random.Random, good: str, bad: str) -> Item:
    better = draw.randrange(2)
    texts = [f"{draw.choice(FILLER)} {word}" for word in ((good, bad) if better == 0 else (bad, good))]
    completions = tuple(Completion((Message("assistant", text),)) for text in texts)
    name = content_hash(f"{texts} {draw.random()}")
    return Item(name, Candidates((Message("user", "which"),), completions), better, "planted")


def words_of(candidates: Candidates) -> frozenset[str]:
    """The words of meaning that a pair holds."""
    return frozenset(word for one in candidates.completions for word in one.text.split() if word in WORDS)


class Teacher:
    """A Generator that gives the right letter for the prompts of `known`, and A for all others."""

    prices = Prices()

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: dict[str, str] = {}

    async def sample(self, request: Request) -> Sample:
        return Sample(text=f"Verdict: {self.known.get(request.prompt[-1].content, 'A')}")

    async def close(self) -> None:
        return None


def write_judge(folder: Path, *, form: str = "pairwise") -> Path:
    """The judge's TOML beside its prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompt.jinja").write_text(PROMPT)
    (folder / "judge.toml").write_text(JUDGE.format(form=form))
    return folder / "judge.toml"


def write_base(folder: Path, *, seed: int, more: tuple[str, ...] = (), hidden: int = 64, layers: int = 2) -> Path:
    """An untrained causal model of some 100k weights, one token a word (`more` besides), with its tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<|pad|>", "<|end|>", "<|unk|>", "<|system|>", "<|user|>", "<|assistant|>"]
    words = [*special, *WORDS, *FILLER, "which", "Verdict", ":", "A", "B", "response", "-", "<", ">", "</", *more]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        unk_token="<|unk|>",
        additional_special_tokens=special[3:],
        chat_template=TEMPLATE,
    )
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        initializer_range=0.05,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    folder.mkdir(parents=True, exist_ok=True)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
