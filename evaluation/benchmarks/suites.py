"""`rmkit bench suites`: a benchmark run through the evaluator, beside the plain loop of the usual benchmark scripts.

The same random weights, tokenizer, precision (fp32) and truncation in every arm, from texts to scores on RM-Bench:

    rows      the usual script over a file of pairs: chosen and rejected of every row in file order, padded to the
              longest of a batch of `--batch`; RM-Bench's nine rows a prompt are 18 conversations
    replies   the same loop over the six distinct replies of every prompt, one style after the other, as RM-Bench's own
              script goes: nothing is scored twice
    rmkit     the evaluator: groups that share a prompt, every reply once, longest first

Arms run in turn and the ratios are taken within a round; the ratio of one arm's runs to each other (A/A) tells how much
of it is noise. CPU seconds are of this process, all threads: on a busy machine their ratio is the steadier one.
`overhead` is the evaluator's own share of the CPU seconds of a run: everything but the model's `score`.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.suites.evaluator import run, select
from evaluation.suites.items import Answer, Item
from evaluation.suites.journal import open_journal
from evaluation.suites.load import load_items
from evaluation.suites.results import evaluated
from evaluation.suites.suite import Suite, load_suite
from rmkit.cli import arguments, display
from rmkit.types import Candidates, Comparison, Completion, Conversation, ModelInfo, Score, compare_by_score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from rmkit.chat.encode import Chat
    from rmkit.models.transformer.explicit import ExplicitRewardModel

CHATML = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>{{ '\\n' }}"
    "{%- endfor -%}"
)
HIDDEN, LAYERS, HEADS, VOCABULARY, MAX_TOKENS = 256, 4, 4, 8000, 2048


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench suites",
        "Seconds to score RM-Bench through the evaluator and by a plain padded loop, same weights, same scores.",
        examples=["bench suites --data bench_rmbench.jsonl.gz", "bench suites --data FILE --prompts 335 --plain 0"],
    )
    parser.add_data(help="RM-Bench's file, or a folder that holds it")
    parser.add_argument("--prompts", type=int, default=24, help="how many prompts (six replies, nine pairs each)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="batch size of the plain loop")
    parser.add_argument("--plain", type=int, default=1, choices=(0, 1), help="0: measure the evaluator alone")
    inputs = parser.parse_args(argv)
    import transformers  # noqa: F401  (missing, it is named before anything is measured)

    suite = load_suite("rm-bench")
    items = select(load_items(suite, inputs.data, allow_changed=True).items, inputs.prompts)
    rounds = inputs.rounds if inputs.plain else 1
    arms = {
        kind: _measure(kind, suite, items, rounds=rounds, batch=inputs.batch, plain=bool(inputs.plain))
        for kind in KINDS
    }
    result = {"prompts": len(items), "pairs": 9 * len(items), "replies": 6 * len(items), "models": arms}
    display.emit(result, as_json=inputs.json, text=_text(result))
    return 0


KINDS = ("causal", "encoder")


class Timed:
    """A reward model that adds up the wall and CPU seconds spent in `score`."""

    def __init__(self, model: Any) -> None:
        self.model, self.wall_s, self.cpu_s = model, 0.0, 0.0

    @property
    def info(self) -> ModelInfo:
        info: ModelInfo = self.model.info
        return info

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        wall, cpu = time.perf_counter(), time.process_time()
        scores: list[list[Score]] = self.model.score(batch)
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        return scores

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)


def _measure(
    kind: str, suite: Suite, items: Sequence[Item], *, rounds: int, batch: int, plain: bool
) -> dict[str, object]:
    chat, classifier, model = _models(kind, items)
    loops: dict[str, list[Seconds]] = {"rows": [], "replies": []} if plain else {}
    ours, difference = [], 0.0
    with display.progress(f"bench suites, {kind}", rounds) as advance:
        for _ in range(rounds):
            result = _through_evaluator(suite, items, model)
            ours.append(result)
            for name, taken in loops.items():
                seconds, scores = _plain_loop(chat, classifier, _conversations(items, name), batch=batch)
                taken.append(seconds)
                difference = max(difference, _largest_difference(items, result["answers"], scores, name))
            advance(1)
    own_percent = [100 * one["own_cpu_s"] / one["seconds"].cpu for one in ours]
    facts: dict[str, Any] = {
        "rmkit": [one["seconds"]._asdict() for one in ours],
        "overhead_percent_of_cpu": round(statistics.median(own_percent), 3),
        "own_cpu_s": round(statistics.median(one["own_cpu_s"] for one in ours), 3),
        "measures_and_probes_cpu_s": round(statistics.median(one["report_cpu_s"] for one in ours), 3),
    }
    for name, taken in loops.items():
        facts[name] = _against(taken, [one["seconds"] for one in ours])
    return facts | ({"largest_score_difference": difference} if plain else {})


class Seconds(NamedTuple):
    wall: float
    cpu: float


def _now() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())


def _since(start: Seconds) -> Seconds:
    now = _now()
    return Seconds(round(now.wall - start.wall, 3), round(now.cpu - start.cpu, 3))


def _against(plain: Sequence[Seconds], ours: Sequence[Seconds]) -> dict[str, Any]:
    """Ratios within rounds and their medians, and the same arm against itself from round to round."""
    by_key: dict[str, Any] = {"seconds": [one._asdict() for one in plain]}
    for clock in ("wall", "cpu"):
        mine, other = ([getattr(one, clock) for one in arm] for arm in (plain, ours))
        ratios = [x / y for x, y in zip(mine, other, strict=True)]
        by_key[f"speedup_{clock}"] = round(statistics.median(ratios), 2)
        by_key[f"speedups_{clock}"] = [round(ratio, 2) for ratio in ratios]
        by_key[f"a_to_a_{clock}"] = [round(x / y, 2) for x, y in zip(mine[1:], mine, strict=False)]
    return by_key


def _through_evaluator(suite: Suite, items: Sequence[Item], model: Any) -> dict[str, Any]:
    timed = Timed(model)
    with tempfile.TemporaryDirectory() as folder, open_journal(Path(folder), {}) as journal:
        start = _now()
        run(timed, suite, items, journal)
        seconds = _since(start)
        answers = dict(journal.answers)
    begun = time.process_time()
    evaluated(suite, items, answers, timed.info)
    report_cpu_s = time.process_time() - begun
    own = seconds.cpu - timed.cpu_s
    return {"seconds": seconds, "own_cpu_s": own, "report_cpu_s": report_cpu_s, "answers": answers}


def _order(items: Sequence[Item], name: str) -> list[tuple[int, int]]:
    """(item, reply) in the order in which the plain loop goes."""
    numbers = range(len(items))
    if name == "replies":
        return [(number, reply) for reply in range(6) for number in numbers]
    rows = [(number, i, 3 + j) for number in numbers for i in range(3) for j in range(3)]
    return [(number, i) for number, i, _ in rows] + [(number, j) for number, _, j in rows]


def _conversations(items: Sequence[Item], name: str) -> list[tuple[Conversation, Completion]]:
    result = [(items[number].candidates, reply) for number, reply in _order(items, name)]
    return [(requests.prompt, requests.completions[reply]) for requests, reply in result if requests is not None]


def _plain_loop(
    chat: Any, classifier: Any, conversations: Sequence[tuple[Conversation, Completion]], *, batch: int
) -> tuple[Seconds, list[float]]:
    import torch

    begun, pad = _now(), chat.tokenizer.pad_token_id
    scores: list[float] = []
    for start in range(0, len(conversations), batch):
        ids = [chat.encode(*one).ids for one in conversations[start : start + batch]]
        longest = max(map(len, ids))
        tokens = torch.tensor([[*one, *[pad] * (longest - len(one))] for one in ids])
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
        with torch.inference_mode():
            scores += classifier(input_ids=tokens, attention_mask=mask).logits[:, 0].tolist()
    return _since(begun), scores


def _largest_difference(items: Sequence[Item], answers: dict[str, Answer], plain: Sequence[float], name: str) -> float:
    pairs = zip(_order(items, name), plain, strict=True)
    return max(abs(answers[items[number].id].scores[reply] - score) for (number, reply), score in pairs)


def _models(kind: str, items: Sequence[Item]) -> tuple[Chat, PreTrainedModel, ExplicitRewardModel]:
    """Chat, the bare classifier, and rmkit's model around the same weights."""
    import torch
    import transformers as hf

    from rmkit.chat.encode import Chat, TruncationPolicy
    from rmkit.models.transformer.explicit import ExplicitRewardModel
    from rmkit.models.transformer.reward_module import RewardModule

    torch.manual_seed(0)
    chat = Chat(
        _tokenizer(items),
        TruncationPolicy(max_length=MAX_TOKENS, response_reserve_tokens=MAX_TOKENS // 2, long_response="flag"),
    )
    shape = {
        "vocab_size": len(chat.tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 4 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": MAX_TOKENS,
        "pad_token_id": chat.tokenizer.pad_token_id,
        "num_labels": 1,
    }
    config = hf.LlamaConfig(**shape) if kind == "causal" else hf.BertConfig(**shape)
    classifier = hf.AutoModelForSequenceClassification.from_config(config).eval()
    info = ModelInfo(f"random-{kind}", "explicit", "logit", True, f"random-{kind}")
    module = RewardModule(copy.deepcopy(classifier))  # it puts its own attention into the classifier that it gets
    return chat, classifier, ExplicitRewardModel(module, chat, info)


def _tokenizer(items: Sequence[Item]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the benchmark's own texts, so that token counts are like a real one's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (completion.text for item in items if item.candidates for completion in item.candidates.completions)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=CHATML
    )


def _text(result: dict[str, Any]) -> str:
    lines = [f"RM-Bench, {result['prompts']} prompts, {result['replies']} replies, {result['pairs']} pairs; fp32, CPU"]
    for kind, one in result["models"].items():
        lines += ["", f"{kind}: evaluator, CPU seconds by round {[seconds['cpu'] for seconds in one['rmkit']]}"]
        for name in ("rows", "replies"):
            if name in one:
                loop = one[name]
                lines.append(
                    f"  against the plain loop over {name}: {loop['speedup_cpu']}x by CPU {loop['speedups_cpu']}, "
                    f"{loop['speedup_wall']}x by wall clock {loop['speedups_wall']}; A/A {loop['a_to_a_cpu']} by CPU, "
                    f"{loop['a_to_a_wall']} by wall clock"
                )
        if "largest_score_difference" in one:
            lines.append(f"  largest difference of a score {one['largest_score_difference']:.1e}")
        lines.append(
            f"  evaluator's own CPU {one['own_cpu_s']} s = {one['overhead_percent_of_cpu']}% of the run; "
            f"measures, intervals and probes {one['measures_and_probes_cpu_s']} s"
        )
    return "\n".join(lines)
