"""The sample that rmkit makes itself: preference pairs whose truth is known, because a rule decides it.

Every prompt carries a constraint that code can check (stay on the topic, a word limit, a number of bullet points, a
closing phrase, JSON, a polite tone); one response keeps it and the other breaks it. Five annotators of known skill
vote, three to a pair, so that about one vote in five contradicts the truth. Planted faults: exact duplicates under new
ids, near-duplicates, a few benchmark prompts that leaked into the data, and broken lines.

Texts are made of phrases written for this purpose; the same seed gives the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rmkit.cli import arguments, display
from rmkit.errors import ConfigError, DataError

TOPICS = {
    "sourdough bread": "starter flour crust oven dough proofing",
    "road bicycles": "chain saddle brakes gears tyres handlebar",
    "house plants": "soil pot sunlight roots watering leaves",
    "chess openings": "pawn bishop castling centre knight tempo",
    "home brewing": "hops malt yeast kettle bottle fermenter",
    "trail running": "shoes hills pace ankle trail breathing",
    "film photography": "shutter lens film exposure aperture darkroom",
    "bee keeping": "hive queen honey smoker frames swarm",
    "wood carving": "chisel grain knife mallet sanding timber",
    "sea kayaking": "paddle tide hull spray-deck current rescue",
    "tax returns": "receipt deduction income form deadline refund",
    "job interviews": "question answer employer example salary handshake",
    "train travel": "ticket platform carriage timetable conductor seat",
    "vegetable soup": "carrot onion stock lentils simmer pepper",
    "piano practice": "scales pedal hands metronome chords fingering",
    "winter camping": "tent stove sleeping-bag snow layers shelter",
    "bird watching": "binoculars feathers nest song hedge migration",
    "bread prices": "wheat bakery inflation harvest transport market",
    "dog training": "treat leash command recall puppy patience",
    "spanish verbs": "tense ending subjunctive irregular conjugation speaker",
    "solar panels": "roof inverter sunlight battery kilowatt installer",
    "knitting socks": "needle yarn heel stitch gauge cuff",
    "public speaking": "audience pause slides voice gesture opening",
    "rainwater tanks": "gutter filter pump barrel overflow mosquito",
    "mountain weather": "cloud front wind ridge forecast lightning",
    "secondhand cars": "mileage engine dealer rust inspection warranty",
    "sleep habits": "bedtime screen caffeine pillow alarm routine",
    "python scripts": "function loop variable module error test",
    "museum visits": "gallery guide painting ticket audio exhibit",
    "apple trees": "pruning blossom graft orchard rootstock harvest",
    "board games": "dice rules cards turn strategy players",
    "city budgets": "council revenue road library debt spending",
}

# The topic closes every opening and every constraint is short, so that two prompts on different topics share no eight
# consecutive words: a contamination check must find the planted leaks and nothing else.
OPENINGS = (
    "I would like to learn about {topic}.",
    "Tell me something useful about {topic}.",
    "A friend needs a hand with {topic}.",
    "Could you explain one thing about {topic}?",
    "I am writing a short note on {topic}.",
    "What should I know first about {topic}?",
    "Help me get started with {topic}.",
    "I keep making mistakes; any advice on {topic}?",
)
BENCHMARK_TOPICS = 4

SENTENCES = (
    "Most people begin with the {a} and only later think about the {b}.",
    "The {a} matters more than the {b}, at least at the start.",
    "If the {a} is in good order, the {b} will rarely give you trouble.",
    "Check the {a} twice before you touch the {b}.",
    "A cheap {a} is fine, but save up for a decent {b}.",
    "You can improve the {a} in a week; the {b} takes longer.",
    "Ask somebody with experience to look at the {a} and the {b}.",
    "Write down what you change about the {a}, then compare it with the {b}.",
    "When the {a} fails, the reason is usually the {b}.",
    "Give the {a} some time and keep an eye on the {b}.",
)

RUDE = (
    "Honestly, only a fool would ask this.",
    "I cannot believe I have to explain this to you.",
    "Figure it out yourself, it is not that hard.",
    "What a silly question.",
)

KIND = (
    "Happy to help with that.",
    "Good question, and a nice thing to learn.",
    "Thank you for asking; here is a short answer.",
    "Glad you are giving this a try.",
)

SKILLS = {"ann": 0.97, "bob": 0.90, "cho": 0.82, "dee": 0.74, "eli": 0.57}
VOTES_PER_PAIR = 3
CLOSING = "That is all."


class Task(NamedTuple):
    """A prompt with the response that keeps its constraint and the one that breaks it."""

    prompt: str
    good: str
    bad: str
    constraint: str


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Counts of rows. `pairs` are distinct tasks; the planted faults come on top."""

    pairs: int = 1400
    exact_duplicates: int = 60
    near_duplicates: int = 40
    leaked: int = 20
    benchmark_pairs: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        least = max(50, self.exact_duplicates, self.near_duplicates)  # each of these is drawn from another pair
        if self.pairs < least:
            raise ConfigError(f"a sample needs at least {least} pairs to be worth training on, got {self.pairs}")


def talk(rng: random.Random, topic: str, *, sentences: int) -> str:
    """That many different sentences on the topic."""
    words = TOPICS[topic].split()
    forms = rng.sample(SENTENCES, sentences)
    return " ".join(form.format(a=a, b=b) for form in forms for a, b in [rng.sample(words, 2)])


def on_topic(rng: random.Random, topic: str, ask: str) -> Task:
    other = rng.choice([name for name in TOPICS if name != topic])
    good, bad = (talk(rng, name, sentences=3) for name in (topic, other))
    return Task(f"{ask} Please stay on the subject.", good, bad, "on_topic")


def word_limit(rng: random.Random, topic: str, ask: str) -> Task:
    good, bad = talk(rng, topic, sentences=2), talk(rng, topic, sentences=rng.randint(5, 7))
    return Task(f"{ask} Use at most {len(good.split()) + rng.randint(0, 6)} words.", good, bad, "word_limit")


def bullets(rng: random.Random, topic: str, ask: str) -> Task:
    n = rng.randint(3, 5)
    right, wrong = (_bulleted(talk(rng, topic, sentences=k)) for k in (n, n + rng.choice((-2, -1, 2))))
    return Task(f"{ask} Answer with exactly {n} bullet points.", right, wrong, "bullets")


def _bulleted(text: str) -> str:
    return "\n".join(f"- {sentence}." for sentence in text.removesuffix(".").split(". "))


def closing(rng: random.Random, topic: str, ask: str) -> Task:
    good, bad = (talk(rng, topic, sentences=3) for _ in range(2))
    return Task(f'{ask} End with the words "{CLOSING}"', f"{good} {CLOSING}", bad, "closing")


def as_json(rng: random.Random, topic: str, ask: str) -> Task:
    good, bad = (talk(rng, topic, sentences=2) for _ in range(2))
    return Task(f"{ask} Reply as JSON with the key tip.", json.dumps({"tip": good}), bad, "json")


def polite(rng: random.Random, topic: str, ask: str) -> Task:
    good, bad = (talk(rng, topic, sentences=2) for _ in range(2))
    return Task(f"{ask} Be friendly.", f"{rng.choice(KIND)} {good}", f"{rng.choice(RUDE)} {bad}", "polite")


TASKS: tuple[Callable[[random.Random, str, str], Task], ...] = (on_topic, word_limit, bullets, closing, as_json, polite)


def tasks(rng: random.Random, topics: list[str], count: int) -> list[Task]:
    """That many tasks with distinct texts on these topics."""
    by_key: dict[tuple[str, str, str], Task] = {}
    while len(by_key) < count:
        topic = rng.choice(topics)
        task = rng.choice(TASKS)(rng, topic, rng.choice(OPENINGS).format(topic=topic))
        by_key.setdefault((task.prompt, task.good, task.bad), task)
    return list(by_key.values())


def row(rng: random.Random, name: str, task: Task) -> dict[str, object]:
    """A task in the annotators form: responses in random order, three votes, the truth in meta."""
    truth, false = ("a", "b") if rng.random() < 0.5 else ("b", "a")
    responses = {truth: task.good, false: task.bad}
    voters = sorted(rng.sample(list(SKILLS), VOTES_PER_PAIR))
    votes = [{"annotator": who, "preference": truth if rng.random() < SKILLS[who] else false} for who in voters]
    return {
        "id": name,
        "source": "rmkit-sample",
        "subset": task.constraint,
        "prompt": [{"role": "user", "content": task.prompt}],
        "response_a": responses["a"],
        "response_b": responses["b"],
        "labels": votes,
        "meta": {"label_type": "human", "truth": truth},
    }


def near_duplicate(original: dict[str, Any], name: str) -> dict[str, object]:
    """The same row with a word added to prompt and responses, as re-posted data has it."""
    prompt = [{"role": "user", "content": original["prompt"][0]["content"] + " Thanks!"}]
    edited = {key: original[key].replace("The ", "Now the ", 1) for key in ("response_a", "response_b")}
    return original | edited | {"id": name, "prompt": prompt}


def benchmark_row(name: str, task: Task) -> dict[str, object]:
    """A task in the pairs form, labeled by the rule itself."""
    return {
        "id": name,
        "source": "rmkit-sample-bench",
        "subset": task.constraint,
        "prompt": [{"role": "user", "content": task.prompt}],
        "chosen": task.good,
        "rejected": task.bad,
        "meta": {"label_type": "verified"},
    }


def broken_lines(good: dict[str, Any]) -> list[bytes]:
    """Lines that an importer must refuse one by one, each for another reason; the last is torn off."""
    rows: list[dict[str, Any]] = [
        good | {"id": "broken-empty-prompt", "prompt": []},
        good | {"id": "broken-empty-response", "response_a": "  "},
        good | {"id": "broken-identical", "response_b": good["response_a"]},
        {key: value for key, value in good.items() if key != "response_b"} | {"id": "broken-missing-field"},
        good | {"id": "broken-type", "response_a": 7},
        good | {"id": good["id"], "response_a": "Another text under an id that is taken."},
    ]
    torn = json.dumps(good | {"id": "broken-torn"})[:-40].encode()
    return [json.dumps(bad).encode() for bad in rows] + [b'{"id": "broken-utf8", "prompt": "\xff\xfe"}', torn]


def lines(config: SampleConfig) -> tuple[list[bytes], list[bytes]]:
    """(lines of the training file, lines of the benchmark file), without line ends."""
    rng = random.Random(config.seed)
    topics = list(TOPICS)
    bench_tasks = tasks(rng, topics[:BENCHMARK_TOPICS], config.benchmark_pairs)
    train_tasks = tasks(rng, topics[BENCHMARK_TOPICS:], config.pairs)
    rows = [row(rng, f"sample-{number:05d}", task) for number, task in enumerate(train_tasks)]
    rows += list(_planted(rng, config, rows, bench_tasks))  # a list first: it draws from rows
    rng.shuffle(rows)
    train = [json.dumps(item).encode() for item in rows]
    *broken, torn = broken_lines(rows[0])
    for bad in broken:
        train.insert(rng.randrange(1, len(train)), bad)
    return [*train, torn], [json.dumps(benchmark_row(f"bench-{n:04d}", t)).encode() for n, t in enumerate(bench_tasks)]


def _planted(
    rng: random.Random, config: SampleConfig, rows: list[dict[str, Any]], bench: list[Task]
) -> Iterator[dict[str, object]]:
    for number, original in enumerate(rng.sample(rows, config.exact_duplicates)):
        yield original | {"id": f"sample-again-{number:03d}"}
    for number, original in enumerate(rng.sample(rows, config.near_duplicates)):
        yield near_duplicate(original, f"sample-near-{number:03d}")
    for number, task in enumerate(rng.sample(bench, config.leaked)):
        yield row(rng, f"sample-leak-{number:03d}", task)


def write(folder: Path, config: SampleConfig) -> tuple[Path, Path]:
    """Write `sample.jsonl` and `sample_bench.jsonl` into the folder and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "sample.jsonl", folder / "sample_bench.jsonl"
    for path, content in zip(paths, lines(config), strict=True):
        path.write_bytes(b"\n".join(content))
    return paths


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "sample",
        "Write the built-in sample: pairs with known truth and planted faults, and a clean benchmark of the same kind.",
        examples=["sample", "sample data/ --pairs 5000 --seed 7"],
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=arguments.output_path,
        default=Path("sample"),
        help="where to write (default: sample/)",
    )
    parser.add_argument("--pairs", type=int, default=SampleConfig.pairs)
    parser.add_seed(SampleConfig.seed)
    options = parser.parse_args(argv)
    if options.folder.is_file():
        raise DataError(f"{options.folder} is a file; name a folder to write the sample into")
    data, bench = write(options.folder, SampleConfig(pairs=options.pairs, seed=options.seed))
    result = {"data": str(data), "benchmark": str(bench), "annotator_skill": SKILLS}
    text = f"{data}\n{bench}\nnext: rmkit ingest {bench} --benchmark && rmkit ingest {data}"
    display.emit(result, as_json=options.json, text=text)
    return 0
