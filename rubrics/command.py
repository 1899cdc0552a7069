"""`rmkit rubrics`: write rubrics that explain preferences, keep those that reproduce them; run hard rules on a version.

generate  rubrics.jsonl   the rubrics that were kept, with their requests: `rmkit ingest` reads them
          audit.jsonl     every instance: rubric, verdicts, accuracy, why it was dropped
          writer.jsonl    request -> rubric, for training a writer
          judge.jsonl     request, responses, rubric -> rationale and verdict, balanced, for training a judge
attach    a version in which the pairs of `generate` have the rubrics that were kept
check     how often the responses of a version keep each hard rule of a rubric file
calibrate a threshold for each clause, from people's labels (calibrate_command)
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rmkit.atomic import draft_folder, put
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.data.example import Example
from rmkit.data.export_folder import dataset_of, examples_of, export_folder
from rmkit.errors import DataError, StoreError
from rmkit.generate import Budget, Engine
from rmkit.generate.estimate import CHARACTERS_PER_TOKEN, estimate
from rmkit.generate.tally import spent
from rmkit.ids import message_mapping
from rmkit.judge import Context, Judge, judging_lines, load_judge
from rmkit.judge.prompt_file import PromptFile
from rmkit.ledger import Ledger, open_ledger
from rmkit.plugins import upper
from rubrics.contrastive import ContrastConfig, Instance, Outcome, contrast, contrast_request
from rubrics.criteria import criterion_object
from rubrics.rubric_file import read_rubric, use
from rubrics.rubric_rm import WRITER_PROMPT, open_writer
from rubrics.rule_text import checked
from rubrics.training_sets import balanced, judge_rows, writer_rows

if TYPE_CHECKING:
    from rmkit.judge.judged import Judged


def _parser(verb: str, summary: str, example: str) -> arguments.Parser:
    parser = arguments.parser(f"rubrics {verb}", summary, examples=[f"rubrics {verb} {example}"])
    word, text = ("judge", "TOML with [judge] (pairwise), [generator] and [writer]")
    if verb == "check":
        word, text = ("rubric", "a rubric file (TOML)")
    parser.add_argument(word, type=Path, help=text)
    parser.add_data("data")
    parser.add_split()
    parser.add_limit()
    return parser


def _generate_main(argv: list[str]) -> int:
    """Status 1 where no rubric was kept."""
    summary = "Contrastive rubrics from preferences, kept where a judge under them agrees."
    parser = _parser("generate", summary, "judge.toml uf@v2 -o rubrics/uf --limit 200 --max-usd 5")
    parser.add_output("a new folder", required=True)
    parser.add_argument("--tau", type=float, default=0.5, help="share of pairs that must come out right")
    parser.add_argument("--rewrites", type=int, default=0, help="further attempts at a dropped rubric")
    parser.add_paid_calls()
    options = parser.parse_args(argv)
    result = _generate(options)
    display.emit(result, as_json=options.json, text=_generated_text(result))
    return int(result.get("kept") == 0)


def _check_main(argv: list[str]) -> int:
    parser = _parser("check", "How often responses keep each hard rule.", "helpful.toml uf@v2 --split test")
    options = parser.parse_args(argv)
    result = _check(options)
    display.emit(result, as_json=options.json, text=_rules_text(result))
    return 0


def _attach_main(argv: list[str]) -> int:
    summary = "The kept rubrics on the rows they were drawn from, as a version: judging these rows uses them."
    parser = arguments.parser("rubrics attach", summary, examples=["rubrics attach rubrics/uf uf@v2 --out uf-rubrics"])
    parser.add_argument("folder", type=Path, help="what `rmkit rubrics generate` wrote")
    parser.add_data("data")
    parser.add_argument("--only", action="store_true", help="drop rows without a kept rubric")
    parser.add_argument("--out", metavar="NAME", help="dataset that the new version belongs to (default: the same)")
    options = parser.parse_args(argv)
    result = upper("attach_rubrics")(options.data, options.folder, options.out, only=options.only)
    attached = result["steps"][0]["facts"]["attached"]
    text = f"{result['version']}: {attached} of {result['rows_out']} rows have their rubric"
    display.emit(result, as_json=options.json, text=text)
    return 0


def _generate(options: argparse.Namespace) -> dict[str, object]:
    if options.output.exists():
        raise StoreError(f"{options.output} exists already; name a new folder")
    folder = export_folder(options.data)
    instances = instances_of(examples_of(folder, options.split)[: options.limit])
    dataset = dataset_of(folder)["ref"] or str(folder)
    config = ContrastConfig(tau=options.tau, rewrites=options.rewrites)
    limits = {"max_usd": options.max_usd, "max_tokens": options.max_tokens}
    with open_ledger() as ledger, open_writer(options.judge, ledger=ledger, budget=Budget(**limits)) as writer:
        judge = load_judge(options.judge, ledger=ledger, **limits)
        with judge.engine:
            if options.dry_run:
                return {"dataset": dataset} | _estimated(writer, judge, instances, config, ledger)
            outcomes = contrast(writer, judge, instances, config=config)
            costs = {"writing": spent([writer.tally]), "judging": judge.report()}
            if any(result["budget_spent"] for result in costs.values()):
                return {"dataset": dataset, "instances": len(outcomes), "kept": 0} | costs  # the same command goes on
            teacher = balanced(judge_rows(judge, _outermost(judge, outcomes)))[0]
        names = {"dataset": dataset, "writer": writer.generator.name, "judge": judge.info.fingerprint}
    _write(options.output, outcomes, teacher, names)
    return {"dataset": dataset} | _counted(outcomes) | costs | {"folder": str(options.output)}


def _estimated(
    writer: Engine, judge: Judge, instances: Sequence[Instance], config: ContrastConfig, ledger: Ledger
) -> dict[str, object]:
    """What writer and judge would cost; the judge as if every rubric were valid and as long as allowed."""
    longest = Context(rubric="?" * CHARACTERS_PER_TOKEN * config.max_tokens)
    pairs = (
        result.of(*pair) for result in (i.candidates for i in instances) for pair in combinations(result.completions, 2)
    )
    return {
        "instances": len(instances),
        "writing": estimate((contrast_request(i, config=config) for i in instances), writer.generator, ledger),
        "judging": estimate(
            (r for pair in pairs for _, r in judge.requests(pair, longest)), judge.engine.generator, ledger
        ),
    }


def _counted(outcomes: Sequence[Outcome]) -> dict[str, object]:
    accepted = [outcome for outcome in outcomes if outcome.dropped is None]
    judged = [outcome.accuracy for outcome in outcomes if outcome.accuracy is not None]
    return {
        "instances": len(outcomes),
        "kept": len(accepted),
        "dropped": dict(Counter(outcome.dropped for outcome in outcomes if outcome.dropped).most_common()),
        "consistency": fmean(judged) if judged else None,
        "judged": len(judged),
        "criteria_per_rubric": fmean(len(outcome.criteria) for outcome in accepted) if accepted else None,
    }


def instances_of(examples: Sequence[Example]) -> list[Instance]:
    """Rows whose responses have an order without ties, best first."""
    results = []
    for example in examples:
        ranks = example.row["ranks"] or [None]
        if example.row["p"] and len(example.row["p"]) == 2 and None in ranks:
            ranks = [int(p < 0.5) for p in example.row["p"]] if 0.5 not in example.row["p"] else [None]
        if None in ranks or len(set(ranks)) < len(ranks) or len(ranks) < 2 or not example.row["responses"]:
            continue
        candidates = example.candidates
        order = sorted(range(len(ranks)), key=lambda i: ranks[i])
        ordered = candidates.of(*(candidates.completions[i] for i in order))
        results.append(Instance(id=example.id, candidates=ordered))
    if not results:
        raise DataError("no row has responses in a clear order (ranks without ties, or a preference)")
    return results


def _outermost(judge: Judge, outcomes: Iterable[Outcome]) -> Iterable[tuple[str, Judged, str]]:
    """Best against worst under every kept rubric, as judged: found in the ledger, so it costs nothing again."""
    accepted = [outcome for outcome in outcomes if outcome.dropped is None]
    pairs = [
        (result.of(result.completions[0], result.completions[-1]), Context(rubric=outcome.text))
        for outcome in accepted
        for result in (outcome.instance.candidates,)
    ]
    for outcome, judged in zip(accepted, judge.judged_under(pairs), strict=True):
        yield outcome.instance.id, judged, outcome.text


def _write(folder: Path, outcomes: Sequence[Outcome], teacher: Sequence[Mapping[str, Any]], names: Any) -> None:
    """All files, or no folder."""
    rows: dict[str, Iterable[Mapping[str, Any]]] = {
        "rubrics.jsonl": [_rubric_row(outcome, names) for outcome in outcomes if outcome.dropped is None],
        "audit.jsonl": [_outcome_row(outcome) | names for outcome in outcomes],
        "writer.jsonl": writer_rows(outcomes, PromptFile(WRITER_PROMPT)),
        "judge.jsonl": teacher,
    }
    with draft_folder(folder) as draft:
        for name, result in rows.items():
            (draft / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result))
        put(draft, folder)


def _rubric_row(outcome: Outcome, names: Mapping[str, str]) -> dict[str, object]:
    """A kept rubric in the form that `rmkit ingest` reads."""
    prompt = [message_mapping(message) for message in outcome.instance.candidates.prompt]
    meta = {"instance": outcome.instance.id, "accuracy": outcome.accuracy, **names}
    rubric = [criterion_object(criterion) for criterion in outcome.criteria]
    return {"id": outcome.instance.id, "source": "rmkit rubrics", "prompt": prompt, "rubric": rubric, "meta": meta}


def _outcome_row(outcome: Outcome) -> dict[str, object]:
    return {
        "id": outcome.instance.id,
        "rubric": [criterion_object(criterion) for criterion in outcome.criteria],
        "accuracy": outcome.accuracy,
        "attempts": outcome.attempts,
        "dropped": outcome.dropped,
        "verdicts": [
            {
                "p_better": None if comparison.unscored else comparison.p_first,
                "swap_gap": comparison.swap_gap,
                "unscored": comparison.unscored,
                "rationale": comparison.rationale,
            }
            for comparison in outcome.comparisons
        ],
    }


def _generated_text(result: Mapping[str, Any]) -> str:
    """Aligned lines; the judge's report in the words that all commands share, the writer's bill as counts."""
    lines = [f"{name.replace('_', ' '):<21}{value}" for name, value in result.items() if not isinstance(value, dict)]
    lines += [f"dropped {count:>4}         {reason}" for reason, count in result.get("dropped", {}).items()]
    for who in ("writing", "judging"):
        if "parse_rate" not in result[who]:
            counts = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in result[who].items() if value)
            lines.append(f"  {who}: {counts}")
    return "\n".join([*lines, *(judging_lines(result) if "parse_rate" in result["judging"] else [])])


def _check(options: argparse.Namespace) -> dict[str, object]:
    rubric = read_rubric(options.rubric)
    rules = [criterion for criterion in rubric.criteria if criterion.check]
    if not rules:
        raise DataError(f"{options.rubric} has no criterion with a check; see rmkit/verifiers/rules.py for the rules")
    folder = export_folder(options.data)
    examples = [e for e in examples_of(folder, options.split) if e.row["responses"]][: options.limit]
    with open_ledger() as ledger:
        use(rubric, ledger)
    texts = [completion.text for example in examples for completion in example.candidates.completions]
    result = checked(rules, texts)
    return {
        "rubric": rubric.ref,
        "dataset": dataset_of(folder)["ref"] or str(folder),
        "responses": len(texts),
        "rules": [
            {
                "criterion": rule.criterion,
                "kept": sum(row[i] is True for row in result),
                "broken": sum(row[i] is False for row in result),
                "unclear": sum(row[i] is None for row in result),
            }
            for i, rule in enumerate(rules)
        ],
    }


def _rules_text(result: Mapping[str, Any]) -> str:
    columns = ("kept", "broken", "unclear", "criterion")
    rows = [[rule[name] for name in columns] for rule in result["rules"]]
    return f"{result['rubric']} on {result['responses']} responses of {result['dataset']}\n\n" + display.table(
        columns, rows
    )


main = Verbs(
    "rubrics",
    "Write rubrics from preferences, or run a rubric file's hard rules on a version.",
    {
        "generate": Command(_generate_main, "contrastive rubrics, kept where a judge under them agrees"),
        "attach": Command(_attach_main, "the kept rubrics on the rows they were drawn from, as a version"),
        "check": Command(_check_main, "how often the responses keep each hard rule"),
        "calibrate": Command("rubrics.calibrate_command:main", "a threshold and AUROC for each clause, from labels"),
    },
    examples=[
        "rubrics generate judge.toml uf@v2 -o rubrics/uf --limit 200 --max-usd 5",
        "rubrics attach rubrics/uf uf@v2 --out uf-rubrics",
        "rubrics check helpful.toml uf@v2 --split test",
    ],
)
