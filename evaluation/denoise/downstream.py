"""`rmkit denoise downstream`: does denoising the training labels change a benchmark?

Every method trains on a version's train split with labels turned around, and is scored on RM-Bench's comparisons
(right reply against wrong one, nine a prompt). Credits are averaged over seeds and compared with standard training on
the same flips, prompt by prompt, by the paired tests of `rmkit compare` (randomization over prompts, Holm's correction
over all tests of the table). The domains' totals are RM-Bench's own: means of hard, normal and easy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from data_pipelines.algorithms.weighing import judged_pairs
from evaluation.denoise import grid as denoise_grid
from evaluation.denoise.data import bench_data, noise_of, version_frame
from evaluation.denoise.grid import BenchData, Cell, Result
from evaluation.denoise.summary import FLOOR
from evaluation.scoring.paired import Difference, differences, with_holm
from evaluation.scoring.rmbench import STYLES, difficulty
from evaluation.suites.items import Credit, Item
from evaluation.suites.load import load_items
from evaluation.suites.suite import Suite, load_suite
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.data.pairs import Pair
from rmkit.errors import UsageError
from rmkit.features.encoder import EncoderConfig
from rmkit.heads.stacked_training import HeadConfig
from rmkit.ids import messages_json
from rmkit.reliability.label_weights import check_enough
from rmkit.revision import versions_text

SUITE = "rm-bench"
MEASURES = ("chat", "code", "safety")


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "denoise downstream",
        "RM-Bench with and without each denoising method on training labels of which a share was turned around.",
        examples=["denoise downstream hh@v2 --suite-data bench_rmbench.jsonl.gz --seeds 3 -o downstream.md"],
    )
    parser.add_data("data", metavar="NAME[@REF]", help="the version whose train split is learned from")
    parser.add_argument("--suite-data", required=True, help="RM-Bench's file, or a folder that holds it")
    parser.add_argument("--rates", default="0,0.2,0.4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="peer,self,cross_fit,upo_mean_p,robust,label_smoothing,ensemble")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_encoder()
    parser.add_workers()
    parser.add_argument("--allow-changed", action="store_true", help="take data that the suite does not declare")
    parser.add_output("write the table: .md")
    options = parser.parse_args(argv)
    if options.output and options.output.suffix != ".md":
        raise UsageError(f"the table is written as .md, got {options.output.name!r}")
    methods = denoise_grid.check_methods(options.methods.split(","))
    rates = [float(rate) for rate in options.rates.split(",")]
    cells = denoise_grid.parse_cells(["symmetric"], rates, options.seeds)
    suite = load_suite(SUITE)
    loaded = load_items(suite, options.suite_data, allow_changed=options.allow_changed)
    encoder = EncoderConfig(encoder=options.encoder)
    data, items = downstream_data(options.data, loaded.items, encoder=encoder)
    results = denoise_grid.run_grid(
        data, cells, methods, head=HeadConfig(epochs=options.epochs), workers=options.workers
    )
    result = {
        "data": data.name,
        "digest": data.digest,
        "facts": dict(data.facts),
        "seeds": options.seeds,
        "command": arguments.command_line("denoise downstream", argv),
        "lines": compared(suite, results, items),
    }
    if options.output:
        write_text(options.output, markdown(result) + "\n")
    display.emit(result, as_json=options.json, text=markdown(result))
    return 0


def downstream_data(
    ref: str, items: Sequence[Item], *, encoder: EncoderConfig | None = None
) -> tuple[BenchData, list[Item]]:
    """Train pairs of the version; as test the items' nine comparisons each, in the order of the items."""
    frame, name, version_digest = version_frame(ref)
    train = judged_pairs(frame.filter(pl.col("split") == "train"), ("train",))
    check_enough(len(train), what="train pairs with a winner")
    usable = [item for item in items if item.candidates is not None]
    prompts = {cluster: at for at, cluster in enumerate(sorted({item.cluster for item in usable}))}
    test = [pair for item in usable for pair in _comparisons(item, prompts[item.cluster])]
    content = f"{version_digest} {SUITE} {len(usable)}"
    result = bench_data(name, content, train, test, noise=noise_of(frame, train), encoder=encoder)
    facts = {"train_pairs": len(train), "prompts": len(prompts), "comparisons": len(test)}
    return replace(result, facts=facts), usable


def _comparisons(item: Item, family: int) -> list[Pair]:
    """Right reply i against wrong reply j, i before j, the right one first."""
    assert item.candidates is not None
    texts = [messages_json(completion.messages) for completion in item.candidates.completions]
    prompt = messages_json(item.candidates.prompt)
    return [
        Pair(
            example=f"{item.id}:{i}{j}",
            i=0,
            j=1,
            prompt=prompt,
            first=texts[i],
            second=texts[STYLES + j],
            p=1.0,
            share=1.0,
            weight=1.0,
            family=family,
            subset=item.subset,
        )
        for i in range(STYLES)
        for j in range(STYLES)
    ]


def compared(suite: Suite, results: Sequence[Result], items: Sequence[Item]) -> list[dict[str, object]]:
    """One line per rate, method and domain: percent, and the difference to standard training with its tests."""
    mean: dict[tuple[float, str], np.ndarray[Any, Any]] = {}
    cells: dict[tuple[float, str], list[Cell]] = {}
    for result in results:
        key = (result.cell.rate, result.method)
        mean[key] = mean.get(key, np.zeros(len(result.credit))) + (result.credit == 1)  # RM-Bench: a tie is a loss
        cells.setdefault(key, []).append(result.cell)
    credits = {key: _credits(items, total / len(cells[key])) for key, total in mean.items()}
    matches: list[tuple[float, str, Difference]] = []
    for (rate, method), mine in credits.items():
        if method != FLOOR:
            summary = differences(suite, mine, credits[rate, FLOOR], measures=MEASURES)
            matches += [(rate, method, one) for one in summary]
    corrected = with_holm([one for _, _, one in matches])
    return [
        {"rate": rate, "method": method} | one.as_json()
        for (rate, method, _), one in zip(matches, corrected, strict=True)
    ]


def _credits(items: Sequence[Item], earned: np.ndarray[Any, Any]) -> list[Credit]:
    places = [(i, j) for i in range(STYLES) for j in range(STYLES)]
    return [
        Credit(item.id, item.cluster, f"{item.subset}/{difficulty(i, j)}", float(earned[9 * at + number]))
        for at, item in enumerate(items)
        for number, (i, j) in enumerate(places)
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """A table per domain."""
    facts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in result["facts"].items())
    lines = [
        f"Trained on {result['data']} (digest {result['digest'][:12]}): {facts}; {result['seeds']} seeds. "
        f"Command: `{result['command']}`, {versions_text()}",
        "",
        "| domain | labels turned around | method | standard % | with it % | difference, 95% interval | p (Holm) |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for measure in MEASURES:
        for line in (one for one in result["lines"] if one["measure"] == measure):
            shown = f"{line['difference']:+.1f} ({line['low']:+.1f} to {line['high']:+.1f})"
            cells = [measure, f"{line['rate']:.0%}", line["method"], f"{line['second']:.1f}", f"{line['first']:.1f}"]
            lines.append("| " + " | ".join([*cells, shown, f"{line['p_holm']:.2g}"]) + " |")
    return "\n".join(lines)
