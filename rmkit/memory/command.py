"""`rmkit memory`: what was learned in words, kept in a file of JSON lines."""

from __future__ import annotations

import json
import math

from rmkit.atomic import draft_file
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.data.example import Example
from rmkit.data.export_folder import examples_of, export_folder
from rmkit.errors import DataError
from rmkit.ids import parse_messages
from rmkit.memory.experience import operations_in, revised
from rmkit.memory.memory import Embed, Entry, encoder, hashed_words, load_memory
from rmkit.types import Completion


def _add(argv: list[str]) -> int:
    """The rows' replies as entries of a memory."""
    parser = arguments.parser(
        "memory add",
        "Add the replies of a dataset version to a memory: each holds in the context that its request names (rmkit "
        "convert requests), else in its own prompt, with the rating that says what came of it.",
        examples=["memory add preferences.jsonl answered", "memory add cases.jsonl rollouts --aspect correct"],
    )
    parser.add_argument(
        "memory", type=arguments.local_path, help="the memory, a file of JSON lines; made where it is not there"
    )
    parser.add_data("data")
    parser.add_split()
    parser.add_argument("--aspect", default="correct", help="the rating that is the outcome of a case")
    options = parser.parse_args(argv)
    memory = load_memory(options.memory, hashed_words)
    known = {(one.context, one.text) for one in memory.entries}
    entries = [
        entry
        for example in examples_of(export_folder(options.data), options.split)
        for entry in _entries(example, options.aspect)
    ]
    new = list({(one.context, one.text): one for one in entries if (one.context, one.text) not in known}.values())
    memory.add(*new)
    memory.save(options.memory)
    display.emit(
        {"memory": str(options.memory), "added": len(new), "entries": len(memory.entries)}, as_json=options.json
    )
    return 0


def _entries(example: Example, aspect: str) -> list[Entry]:
    row = example.row
    meta = json.loads(row["meta"] or "{}")
    context = meta.get("context") or "\n\n".join(message.content for message in parse_messages(row["prompt"]))
    outcome = {one["response"]: one["value"] for one in row["scores"] or () if one["aspect"] == aspect}
    texts = [Completion(parse_messages(text)).text.strip() for text in row["responses"] or ()]
    return [
        Entry(context=context, text=text, value=outcome.get(at), source=example.id)
        for at, text in enumerate(texts)
        if text
    ]


def _search(argv: list[str]) -> int:
    """The entries whose contexts are nearest."""
    parser = arguments.parser(
        "memory search",
        "The entries of a memory whose contexts are nearest to a text.",
        examples=['memory search preferences.jsonl "write a mail to the landlord" -k 3'],
    )
    parser.add_argument("memory", type=arguments.local_path, help="the memory, a file of JSON lines")
    parser.add_argument("text", help="the context")
    parser.add_argument("-k", type=arguments.positive, default=3, help="entries")
    parser.add_argument("--encoder", default="", help="frozen encoder: minilm or a folder; words are counted without")
    options = parser.parse_args(argv)
    if not options.memory.exists():
        raise DataError(f"{options.memory} is not there; make it with: rmkit memory add {options.memory} DATA")
    near = load_memory(options.memory, _embed(options.encoder)).nearest(options.text, options.k)
    rows = [{"similarity": round(one.similarity, 4), "value": one.entry.value, "text": one.entry.text} for one in near]
    cells = [[f"{one.similarity:.3f}", _value(one.entry.value), one.entry.text] for one in near]
    text = display.table(("similarity", "value", "text"), cells) if cells else "the memory is empty"
    display.emit({"entries": rows}, as_json=options.json, text=text)
    return 0


def _embed(name: str) -> Embed:
    return encoder(name) if name else hashed_words


def _value(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:g}"


def _lessons(argv: list[str]) -> int:
    """Lessons after the operations in a version's replies."""
    parser = arguments.parser(
        "memory lessons",
        "Apply the operations in the replies of a dataset version (requests with ask = lesson) to a list of lessons.",
        examples=["memory lessons lessons.json answered"],
    )
    parser.add_argument(
        "lessons", type=arguments.local_path, help="a JSON object of lessons by id; made where it is not there"
    )
    parser.add_data("data")
    parser.add_split()
    options = parser.parse_args(argv)
    lessons: dict[str, str] = json.loads(options.lessons.read_text()) if options.lessons.exists() else {}
    n_before, unread = len(lessons), 0
    for example in examples_of(export_folder(options.data), options.split):
        for text in example.row["responses"] or ():
            try:
                lessons = revised(lessons, operations_in(Completion(parse_messages(text)).text))
            except DataError:
                unread += 1
    with draft_file(options.lessons) as draft:
        draft.write_text(json.dumps(lessons, ensure_ascii=False, indent=1) + "\n")
    facts = {"lessons": str(options.lessons), "before": n_before, "now": len(lessons), "unread_replies": unread}
    display.emit(facts, as_json=options.json)
    return 0


main = Verbs(
    "memory",
    "What was learned in words: preferences, cases and lessons, found again for a prompt.",
    {
        "add": Command(_add, "the replies of a dataset version as entries"),
        "search": Command(_search, "the entries nearest to a text"),
        "lessons": Command(_lessons, "lessons from groups with right and wrong answers"),
    },
    examples=["memory add preferences.jsonl answered", 'memory search preferences.jsonl "a mail to the landlord"'],
)
