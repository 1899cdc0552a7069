"""`rmkit models`: the artifacts at hand, what their aliases mean, and how that changes.

An alias NAME@ALIAS is what services and colleagues load; behind it the model changes through a gate
(`evaluation.registry.promotion`), and every change stays in the ledger (`rmkit.models.artifact.aliases`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.registry.promotion import MIN_PROMPTS, Evidence, judge, stored_results
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.errors import ModelError, UsageError
from rmkit.ledger import open_ledger
from rmkit.models import find_model, load_model
from rmkit.models.artifact import aliases
from rmkit.models.artifact.model_card import EVALUATION, README, write_card


def _list(argv: list[str]) -> int:
    options = arguments.parser("models list", "All reward models.", examples=["models"]).parse_args(argv)
    rows = listed()
    display.emit({"models": rows}, as_json=options.json, text=_table(rows))
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A stored model, or an alias whose model is gone (`fault`)."""

    name: str
    path: str
    model: str | None = None
    kind: str | None = None
    fingerprint: str | None = None
    data: str | None = None
    validation_accuracy: float | None = None
    validation_pairs: int | None = None
    validation_unscored: int | None = None
    aliases: list[str]
    fault: str | None = None


def listed() -> list[ModelRow]:
    """Every artifact under $RMKIT_HOME/models, and those elsewhere that an alias means."""
    with open_ledger(read_only=True) as ledger:
        tops = {alias: stack[-1] for alias, stack in aliases.stacks(ledger).items() if stack}
    folders = {folder.resolve(): folder for folder in aliases.artifacts()}
    lost = []
    means: dict[Path, list[str]] = {}
    for alias, promotion in sorted(tops.items()):
        try:
            folder = aliases.locate(promotion).resolve()
        except ModelError:
            lost.append(ModelRow(name=alias, path=promotion.path, aliases=[alias], fault="its model is gone"))
            continue
        folders.setdefault(folder, folder)
        means.setdefault(folder, []).append(alias)
    return [_row(folder, means.get(path, [])) for path, folder in folders.items()] + lost


def _row(folder: Path, meant_by: list[str]) -> ModelRow:
    card = aliases.card_of(folder)
    accuracy = (card.get("validation") or {}).get("accuracy") or {}
    return ModelRow(
        name=folder.name,
        path=str(folder),
        model=card.get("model"),
        kind=card.get("kind"),
        fingerprint=card.get("fingerprint"),
        data=(card.get("dataset") or {}).get("ref"),
        validation_accuracy=accuracy.get("value"),
        validation_pairs=accuracy.get("n"),
        validation_unscored=accuracy.get("unscored"),
        aliases=meant_by,
    )


def _table(rows: Sequence[ModelRow]) -> str:
    if not rows:
        return "no models yet; make one with: rmkit train lexical --data NAME@VERSION"
    cells, lost = [], []
    for row in rows:
        if row.fault:
            lost.append(f"{row.name}  {row.fault}: was {row.path}")
            continue
        facts = (row.model or "?", (row.fingerprint or "?")[:12], _validation(row), row.data or "-")
        cells.append((row.name, *facts, " ".join(row.aliases)))
    return "\n".join([display.table(("model", "kind", "fingerprint", "validation", "data", "aliases"), cells), *lost])


def _validation(row: ModelRow) -> str:
    unscored = f" ({row.validation_unscored} unscored)" if row.validation_unscored else ""
    pairs = "" if row.validation_pairs is None else f" of {row.validation_pairs}{unscored}"
    return "-" if row.validation_accuracy is None else f"{display.percent(row.validation_accuracy)}{pairs}"


def _promote(argv: list[str]) -> int:
    parser = arguments.parser(
        "models promote",
        "Make an alias mean this model, unless stored results show it to be worse than the current one. Status 1 then.",
        examples=["models promote models/hh-seed1 hh@prod", "models promote hh-seed1 hh@prod --suite pairs --margin 1"],
    )
    parser.add_model(help="artifact folder or name under $RMKIT_HOME/models")
    parser.add_argument("alias", help="NAME@ALIAS")
    parser.add_argument(
        "--suite", action="append", default=[], help="judge by this suite only (repeatable; default all)"
    )
    parser.add_argument("--margin", type=float, metavar="POINTS", help="must be shown to lose less than that")
    parser.add_argument(
        "--min-prompts",
        type=arguments.positive,
        default=MIN_PROMPTS,
        metavar="N",
        help="prompts that both models must have scored on each suite",
    )
    parser.add_argument("--force", metavar="REASON", help="promote whatever the gate says; the reason is recorded")
    options = parser.parse_args(argv)
    if options.margin is not None and not options.margin > 0:
        raise UsageError(f"--margin takes a positive number of points, got {options.margin}")
    if options.force is not None and not options.force.strip():
        raise UsageError("--force takes a reason, which is recorded")
    result = promote(
        options.model,
        options.alias,
        suites=options.suite,
        margin=options.margin,
        min_prompts=options.min_prompts,
        force=options.force,
    )
    display.emit(result, as_json=options.json, text=_promoted_text(result))
    return 0 if result.promoted else 1


@dataclass(frozen=True, slots=True)
class PromoteResult:
    """Whether an alias moved to a model, from which fingerprint, and why."""

    alias: str
    path: Path
    fingerprint: str
    promoted: bool
    before: str | None
    evidence: Evidence

    def as_json(self) -> dict[str, object]:
        """What `rmkit models promote --json` prints."""
        return {name: getattr(self, name) for name in self.__slots__} | {"evidence": self.evidence.as_json()}


def promote(
    model: str,
    alias: str,
    *,
    suites: Sequence[str] = (),
    margin: float | None = None,
    min_prompts: int = MIN_PROMPTS,
    force: str | None = None,
) -> PromoteResult:
    """Verify the model, ask the gate, move the alias."""
    aliases.check_alias(alias)
    if model == "length":
        raise UsageError("the length rule is no artifact; load it by its name")
    folder = find_model(model)
    fingerprint = load_model(folder).info.fingerprint  # raises unless files and golden scores are right
    with open_ledger() as ledger:
        before = aliases.current(ledger, alias)
        if before is not None and before.fingerprint == fingerprint:
            raise UsageError(f"{alias} already means {folder} ({fingerprint[:12]})")
        if before is None:
            evidence = Evidence(True, f"the first model of {alias}")
        else:
            evidence = judge(fingerprint, before.fingerprint, suites=suites, margin=margin, min_prompts=min_prompts)
        evidence = replace(evidence, forced=force)
        moved = evidence.passed or force is not None
        if moved:
            aliases.promote(ledger, alias, folder, fingerprint, evidence=evidence.as_json())
    return PromoteResult(alias, folder, fingerprint, moved, before.fingerprint if before else None, evidence)


def _promoted_text(result: PromoteResult) -> str:
    evidence = result.evidence
    if not result.promoted:
        return (
            f"refused: {evidence.why}\n{result.alias} still means {(result.before or '')[:12]}; evaluate both (rmkit "
            f"eval {result.path} {result.alias} --suite NAME), or --force REASON"
        )
    gate = "passed" if evidence.passed else "OVERRULED"
    lines = [f"{result.alias} now means {result.path} ({result.fingerprint[:12]})", f"gate {gate}: {evidence.why}"]
    return "\n".join(lines if evidence.forced is None else [*lines, f"forced: {evidence.forced}"])


def _rollback(argv: list[str]) -> int:
    parser = arguments.parser(
        "models rollback", "Take back an alias's last promotion.", examples=["models rollback hh@prod --reason drift"]
    )
    parser.add_argument("alias", help="NAME@ALIAS")
    parser.add_argument("--reason", default="", help="recorded in the history")
    options = parser.parse_args(argv)
    with open_ledger() as ledger:
        undone, again = aliases.roll_back(ledger, options.alias, reason=options.reason)
    result = {
        "alias": options.alias,
        "undone": undone.fingerprint,
        "fingerprint": again.fingerprint,
        "path": again.path,
    }
    text = f"{options.alias} means {again.path} ({again.fingerprint[:12]}) again, no longer {undone.fingerprint[:12]}"
    display.emit(result, as_json=options.json, text=text)
    return 0


def _history(argv: list[str]) -> int:
    parser = arguments.parser(
        "models history", "Every promotion and rollback, oldest first.", examples=["models history hh@prod"]
    )
    parser.add_argument("alias", nargs="?", help="NAME@ALIAS (default: all)")
    options = parser.parse_args(argv)
    with open_ledger(read_only=True) as ledger:
        rows = [
            {"time": one.event.time.isoformat(timespec="seconds"), "actor": one.event.actor, **one.event.payload}
            for one in aliases.events(ledger, options.alias)
        ]
    display.emit({"history": rows}, as_json=options.json, text=_history_text(rows))
    return 0


def _history_text(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "no alias was ever set; see: rmkit models promote --help"
    cells = []
    for row in rows:
        evidence = row.get("evidence") or {}
        why = f"forced: {evidence['forced']} ({evidence['why']})" if "forced" in evidence else evidence.get("why")
        named = (row["alias"], row["action"], row["fingerprint"][:12], row["actor"])
        cells.append((f"{row['time'][:19]}Z", *named, why or row.get("reason") or ""))
    return display.table(("time", "alias", "action", "fingerprint", "by", "why"), cells)


def _card(argv: list[str]) -> int:
    parser = arguments.parser(
        "models card",
        "Write the model card anew, with every finished suite result of this very model.",
        examples=["models card models/hh-seed1", "models card hh@prod"],
    )
    parser.add_model(help=arguments.ARTIFACT, type=arguments.local_name)
    options = parser.parse_args(argv)
    folder = find_model(options.model)
    entries = evaluations(folder)
    text = json.dumps({"results": entries}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(folder / EVALUATION, text)
    write_card(folder)
    result = {"path": str(folder / README), "results": len(entries)}
    display.emit(result, as_json=options.json, text=f"{folder / README}: {len(entries)} suite results")
    return 0


def evaluations(folder: Path) -> list[dict[str, object]]:
    """Entries of model-index: the finished suite results of the model in this folder."""
    from evaluation.registry.model_index import model_index

    fingerprint = load_model(folder).info.fingerprint
    results = [one.result for _, one in sorted(stored_results(fingerprint).items())]
    return [
        _with_data(entry, result) for result in results for entry in model_index(result)["model-index"][0]["results"]
    ]


def _with_data(entry: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, object]:
    """Suites over anyone's data are told apart by the data's name."""
    dataset = entry["dataset"]
    return {**entry, "dataset": {**dataset, "name": f"{dataset['name']} ({Path(result['data']).name})"}}


main = Verbs(
    "models",
    "Reward models, what their aliases mean, and how that changes.",
    {
        "list": Command(_list, "all models with their aliases"),
        "promote": Command(_promote, "make an alias mean a model, behind a gate"),
        "rollback": Command(_rollback, "take back an alias's last promotion"),
        "history": Command(_history, "every promotion and rollback"),
        "card": Command(_card, "write the model card anew"),
    },
    examples=[
        "models",
        "models promote models/hh-seed1 hh@prod",
        "models rollback hh@prod --reason 'rewards drifted'",
        "models history hh@prod",
        "models card models/hh-seed1",
    ],
    default="list",
)
