"""`rmkit coverage DATA`: a map of what its prompts are about, alone or beside another dataset."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.coverage.topics import Topic, TopicMap, topic_map
from evaluation.reports.charts import COLORS, axes_of
from rmkit.cli import arguments, display
from rmkit.data.export_folder import Data, dataset_of, examples_of, export_folder
from rmkit.errors import DataError
from rmkit.features.encoder import Encoder, EncoderConfig, Text
from rmkit.ids import parse_messages

THIN = 0.25  # of the other dataset's share, below which a topic counts as thin
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Topics of {title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ overflow-x: auto; font-size: 13px }} svg {{ max-width: 100% }}
</style>
<h1>Topics of {title}</h1>
{chart}
<pre>{table}</pre>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageResult:
    """`thin` names topics of which the dataset has less than a quarter of the other one's share."""

    dataset: str
    against: str | None
    prompts: int
    topics: tuple[Topic, ...]
    thin: tuple[str, ...]


def main(argv: list[str]) -> int:
    """Status 0."""
    parser = arguments.parser(
        "coverage",
        "A map of what a dataset's prompts are about: topics of the frozen encoder's features, with their words, rows "
        "and an example; with --against, which topics of another dataset are thin here.",
        examples=["coverage hh@v2 --page topics.html", "coverage hh@v2 --against prod-prompts --topics 30"],
    )
    parser.add_data("data")
    parser.add_argument("--against", metavar="DATA", help="another dataset, whose topics should be covered")
    parser.add_split()
    parser.add_argument("--topics", type=arguments.positive, default=20, help="how many")
    parser.add_encoder()
    parser.add_seed()
    parser.add_page(help="write the page with the map (HTML)")
    options = parser.parse_args(argv)
    result, topics, other = coverage(
        options.data,
        against=options.against,
        split=options.split,
        topics=options.topics,
        encoder=options.encoder,
        seed=options.seed,
    )
    table = _text(result)
    if options.page:
        page = PAGE.format(
            title=html.escape(result.dataset), chart=_chart(topics, other, result), table=html.escape(table)
        )
        options.page.write_text(page, encoding="utf-8")
    display.emit(result, as_json=options.json, text=table)
    return 0


def coverage(
    data: Data,
    *,
    against: Data | None = None,
    split: str = "all",
    topics: int = 20,
    encoder: str = "minilm",
    seed: int = 0,
) -> tuple[CoverageResult, TopicMap, list[bool]]:
    """Topics of the distinct prompts, and to which dataset each prompt on the map belongs (True: the other one).

    A prompt that both have is on the map twice. Raises DataError for fewer prompts than topics.
    """
    folders = [export_folder(one) for one in (data, against) if one is not None]
    sides = [
        list(dict.fromkeys(_prompt(example.row["prompt"]) for example in examples_of(one, split))) for one in folders
    ]
    texts = [text for side in sides for text in side]
    other = [bool(number) for number, side in enumerate(sides) for _ in side]
    if not texts:
        raise DataError(f"{folders[0]} has no row in split {split!r}")
    with display.progress("encoding prompts", len(texts)) as advance:
        prompts = [Text(text, "end") for text in texts]
        vectors = Encoder(EncoderConfig(encoder=encoder)).features(prompts, advance=advance)
    topics_of_both = topic_map(vectors, texts, other, k=topics, seed=seed)
    names = [dataset_of(folder)["ref"] or str(folder) for folder in folders]
    thin = [one for one in topics_of_both.topics if one.other and one.share < THIN * one.other_share]
    result = CoverageResult(
        dataset=names[0],
        against=names[1] if against is not None else None,
        prompts=len(sides[0]),
        topics=topics_of_both.topics,
        thin=tuple(", ".join(one.words) for one in thin),
    )
    return result, topics_of_both, other


def _prompt(prompt: str) -> str:
    messages = parse_messages(prompt)
    turns = [message.content for message in messages if message.role == "user"]
    return turns[-1] if turns else messages[-1].content


def _chart(topics: TopicMap, other: Sequence[bool], result: CoverageResult) -> str:
    svg: list[str] = []
    sides = np.asarray(other, bool)
    with axes_of(8.4, 6.0, svg) as axes:
        for side, name, color in ((False, result.dataset, COLORS[0]), (True, result.against, COLORS[1])):
            at = topics.place[sides == side]
            if len(at):
                axes.scatter(
                    at[:, 0], at[:, 1], s=6, color=color, alpha=0.4, linewidths=0, label=f"{name} ({len(at):,})"
                )
        for number, topic in enumerate(topics.topics):
            x, y = topics.place[topics.topic == number].mean(axis=0)
            axes.annotate(" ".join(topic.words[:2]), (x, y), ha="center", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend()
    return svg[0]


def _text(result: CoverageResult) -> str:
    columns = ["topic", "rows", "share", *(["other", "its share"] if result.against else []), "example"]
    rows: list[list[object]] = []
    for one in result.topics:
        row: list[object] = [", ".join(one.words), one.rows, display.percent(one.share)]
        row += [one.other, display.percent(one.other_share)] if result.against else []
        rows.append([*row, one.example[:60]])
    beside = f" beside {result.against}" if result.against else ""
    lines = [f"{result.dataset}: {result.prompts:,} distinct prompts{beside}", display.table(columns, rows)]
    if result.against:
        lines += ["", "thin here: " + ("; ".join(result.thin) or "nothing")]
    return "\n".join(lines)
