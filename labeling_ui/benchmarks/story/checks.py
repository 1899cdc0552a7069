"""What must hold at the end of the story, killed or not: nothing lost, nothing twice, and the loop did its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warehouse.sql import run
from warehouse.store import open_warehouse

Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Check:
    """`seen` are the numbers behind it."""

    holds: bool
    what: str
    seen: str


def checks(home: Path, facts: Facts) -> Iterator[Check]:
    """Of a finished story and its data home."""
    planted, read = facts["votes"]["planted"], facts["votes"]["read"]
    votes, edits = _judgments(home)
    yield Check(
        holds=(read["rows"], votes) == (planted["lines"], planted["votes"]),
        what="every line of the votes file is accounted for, and each planted vote counts once",
        seen=f"{read['rows']:,} of {planted['lines']:,} lines, {votes:,} of {planted['votes']:,} votes",
    )
    people = facts["people"]["annotators"]
    measures = people["models"][1]["measures"]
    human, model = (measures[name]["percent"] for name in ("people with each other, ties left out", people["headline"]))
    yield Check(
        holds=human > model > 50,
        what="the trained model agrees with people, less often than they do with each other",
        seen=f"{model:.1f}% against {human:.1f}%, decided votes",
    )
    yield Check(
        holds=not facts["gate"]["refused"]["promoted"],
        what="the gate does not let the worse model back into production",
        seen=str(facts["gate"]["refused"]["evidence"]["why"]),
    )
    before, hacked = facts["grpo"]["before"]["right"], facts["grpo"]["after"]["right"]
    alarm = facts["alarm"]["watched"]["alarm"]
    yield Check(
        holds=hacked < before / 2 and alarm is not None and any(one["name"] == "right" for one in alarm["signs"]),
        what="the policy hacks the first model, and the alarm rings because right answers fall",
        seen=f"right answers {before:.0%} to {hacked:.0%}; step {alarm['step'] if alarm else '-'}",
    )
    yield Check(
        holds=bool(facts["alarm"]["drift"]["drifted"]),
        what="drift says so too",
        seen=str(facts["alarm"]["drift"]["drifted"][0]),
    )
    findings, project = facts["queue"]["project"]["items"], facts["answers"]["project"]
    yield Check(
        holds=project["answered"] == project["wanted"] == 2 * findings and max(edits.values()) == 1,
        what="each person answered each finding once",
        seen=f"{project['answered']} of {project['wanted']} answers on {findings} findings; "
        f"{sum(edits.values())} corrections, none twice",
    )
    compared = {name: one["comparisons"][0]["differences"] for name, one in facts["retrain"]["compared"].items()}
    overall = {name: next(one for one in some if one["measure"] == "overall") for name, some in compared.items()}
    yield Check(
        holds=all(one["low"] > 0 for one in overall.values()),
        what="the retrained model is better on held-out votes and on held-out corrections, and in production",
        seen="; ".join(
            f"{name} {d['difference']:+.1f} [{d['low']:+.1f}, {d['high']:+.1f}]" for name, d in overall.items()
        ),
    )
    signs = (facts["again"]["watched"]["alarm"] or {"signs": []})["signs"]
    trained = facts["again"]["grpo"]
    yield Check(
        holds=trained["after"]["right"] >= trained["before"]["right"] and all(one["name"] != "right" for one in signs),
        what="the same policy on the retrained model keeps its right answers",
        seen=f"{trained['before']['right']:.0%} to {trained['after']['right']:.0%}; "
        + ("alarm: " + ", ".join(one["name"] for one in signs) if signs else "no alarm"),
    )
    chain = facts["lineage"]["chain"]
    yield Check(
        holds=chain["rewarded_by"] == chain["trained"] and chain["trained_on"] == chain["version"],
        what="a correction leads back to the finding, the model that rewarded the reply, and that model's data",
        seen=f"{chain['edit']['edited_by']}; {chain['finding']['found_by']}; model {chain['trained'][:12]}; "
        f"data {chain['version'][:12]}",
    )


def _judgments(home: Path) -> tuple[int, Counter[tuple[str, str]]]:
    """Votes of the file, and valid corrections by (person, item), without items that were shown twice on purpose."""
    with open_warehouse(home / "warehouse.duckdb", read_only=True) as connection:
        ((votes,),) = run(connection, "SELECT count(*) FROM judgment WHERE source_id = 1")
        rows = run(
            connection,
            "SELECT rater.name, unit_id FROM judgment JOIN rater USING (rater_id) WHERE edit IS NOT NULL AND verdict = "
            "'ok' AND try_cast(extra ->> '$.slot' AS INTEGER) IS NOT NULL AND event_id NOT IN "
            "(SELECT supersedes FROM judgment WHERE supersedes IS NOT NULL)",
        )
    return int(votes), Counter((str(name), str(unit)) for name, unit in rows)
