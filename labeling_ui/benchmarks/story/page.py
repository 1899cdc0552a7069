"""The page of the story: of every stage a picture, what happened in a sentence with its numbers, and the commands."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evaluation.benchmarks.policy.sums_task import HEDGES
from evaluation.reports.charts import COLORS, axes_of, forest
from labeling_ui.benchmarks.story.checks import Check

Facts = Mapping[str, Any]
AllFacts = Mapping[str, Facts]

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .2rem .7rem .2rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid var(--line); }
pre { background: var(--soft); padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }
.killed { border-left: 4px solid #d55e00; padding-left: .7rem; }
"""


def page(
    records: Mapping[str, Mapping[str, Any]], held: Sequence[Check], *, killed: Sequence[str], seconds: float
) -> str:
    """Self-contained HTML; it loads nothing."""
    facts = {name: record["facts"] for name, record in records.items()}
    sections = []
    for number, (name, record) in enumerate(records.items(), start=1):
        title, tell = SECTIONS[name]
        mark = (
            "<p class=killed>Killed in here (SIGKILL, with all its processes) and gone on.</p>"
            if name in killed
            else ""
        )
        commands = html.escape("\n".join(record["commands"]))
        sections.append(
            f"<h2 id={name}>{number}. {html.escape(title)}</h2>{mark}{tell(facts)}"
            f"<details><summary>{record['seconds']:.0f} s; the commands</summary><pre>{commands}</pre></details>"
        )
    rows = "".join(
        f"<tr><td>{'yes' if one.holds else '<b>NO</b>'}</td><td>{html.escape(one.what)}</td>"
        f"<td>{html.escape(one.seen)}</td></tr>"
        for one in held
    )
    how = f"It was killed {len(killed)} times on the way." if killed else "It ran through unbroken."
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>The whole loop</title><style>{STYLE}</style>"
        f"<h1>From a votes file to a retrained reward model</h1>"
        f"<p>One loop on a planted task (sums of two digits), by rmkit's own commands; {seconds:.0f} s. {how}</p>"
        f"<table><tr><th>holds<th>what must hold at the end<th>seen</tr>{rows}</table>{''.join(sections)}</html>\n"
    )


def _votes(facts: AllFacts) -> str:
    one = facts["votes"]
    read, reading = one["read"], one["read"]["reading"]
    columns = _table(
        ("column", "became", "for example"), [(c["column"], c["role"], c["sample"]) for c in reading["columns"]]
    )
    labels = read["labels"]
    picture = _bars({"left": labels["a"], "right": labels["b"], "no difference": labels["tie"]}, xlabel="votes")
    return (
        f"<p>No form knows these columns, and rmkit says so: it names each with its values and asks which is which.</p>"
        f"<pre>{html.escape(one['refused'])}</pre>{columns}{picture}"
        f"<p>{read['rows']:,} lines: {read['accepted']:,} accepted, {read['rejected']} rejected "
        f"({html.escape(', '.join(f'{n} {why}' for why, n in read['reasons'].items()))}), {read['without_opinion']} "
        f"without a verdict; {read['units']:,} pairs, {sum(read['raters'].values())} people.</p>"
    )


def _version(facts: AllFacts) -> str:
    one = facts["version"]
    steps = {step["step"]: step for step in one["steps"]}
    splits = steps["split"]["facts"]["rows_by_split"]
    agreement = steps["agreement"]["facts"]
    alpha = next((value for key, value in agreement.items() if "alpha" in key and isinstance(value, int | float)), None)
    note = f" Krippendorff's alpha of the votes is {alpha:.2f}." if alpha is not None else ""
    return (
        f"<p>{one['version']}, digest {one['digest'][:12]}: {one['rows_out']:,} of {one['rows_in']:,} rows kept; votes "
        f"became labels, prompt families went to one split each.{note}</p>"
        + _bars({name: splits[name] for name in ("train", "validation", "test")}, xlabel="rows")
    )


def _models(facts: AllFacts) -> str:
    one = facts["models"]
    adopted, trained = one["adopted"], one["trained"]
    rows = [_estimate(model, "overall", index) for index, model in enumerate(facts["gate"]["pairs"]["models"])]
    return (
        f"<p>A classifier that somebody trained with TRL was adopted ({html.escape(adopted['because'])}; it differs "
        f"from transformers' own forward by {adopted['self_check']['alone']:.0e} at most). A lexical model was trained "
        f"here on {trained['training']['pairs']['train']:,} pairs.</p>"
        + forest(rows, xlabel="right on held-out pairs, percent", reference=50)
    )


def _people(facts: AllFacts) -> str:
    result = facts["people"]["annotators"]
    ceiling = _estimate(result["models"][0], "people with each other, ties left out", 2) | {"label": "people"}
    rows = [ceiling, *(_estimate(model, result["headline"], 0) for model in result["models"])]
    return "<p>How often a model chooses as a person did, beside how often two people choose alike.</p>" + forest(
        rows, xlabel="same choice, percent of the votes that are no tie"
    )


def _gate(facts: AllFacts) -> str:
    one = facts["gate"]
    rows = [_difference(diff, diff["suite"]) for diff in one["refused"]["evidence"]["comparisons"]]
    moved = [[event["action"], event["path"].rsplit("/", 1)[-1], event["evidence"]["why"]] for event in one["history"]]
    return (
        _table(("", "model", "why"), moved)
        + f"<p>The adopted model is refused: {html.escape(one['refused']['evidence']['why'])}.</p>"
        + forest(rows, xlabel="adopted minus current, points", reference=0)
    )


def _grpo(facts: AllFacts) -> str:
    return _run(facts["grpo"], "lexical model") + _replies(facts["grpo"])


def _alarm(facts: AllFacts) -> str:
    one = facts["alarm"]
    alarm, drift = one["watched"]["alarm"], one["drift"]
    fields = {name: field["psi"] for name, field in drift["whole"]["fields"].items() if field}
    fields = {"score": drift["whole"]["scores"]["psi"], "length": drift["whole"]["lengths"]["psi"], **fields}
    signs = ", ".join(f"{s['name']} {s['start']:.2f} to {s['now']:.2f}" for s in alarm["signs"]) if alarm else ""
    note = f"The alarm rings at step {alarm['step']}: the reward rises while {signs}." if alarm else "No alarm."
    return (
        f"<p>{html.escape(note)}</p>{_curves(facts['grpo'], mark=alarm['step'] if alarm else None)}"
        + _bars(fields, xlabel="population stability index, later steps against earlier ones")
        + f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in drift['drifted'])}</ul>"
    )


def _queue(facts: AllFacts) -> str:
    project, seen = facts["queue"]["project"], facts["answers"]["seen"]
    hedged = [sum(word in HEDGES for word in reply.split()) for _, reply, _ in seen]
    labels = {question[:28]: count for (question, _, _), count in zip(seen, hedged, strict=True)}
    return (
        f"<p>{project['items']} replies whose rewards are odd wait for people, {project['wanted']} answers are wanted. "
        f"The first ones, by their hedging words:</p>{_bars(labels, xlabel='hedging words')}"
    )


def _answers(facts: AllFacts) -> str:
    one = facts["answers"]
    corrected = {f"{name}: {what}": count for name, counts in one["people"].items() for what, count in counts.items()}
    return (
        "<p>Through the studio's REST API. What a person is shown twice to measure them is among these, and does not "
        f"count.</p>{_bars(corrected, xlabel='answers since the last kill')}"
        + _table(("asked", "the policy's reply", "corrected to"), one["seen"])
        + f"<p>{one['committed']['version']}: {one['committed']['rows']} pairs, the correction over the reply.</p>"
    )


def _retrain(facts: AllFacts) -> str:
    one = facts["retrain"]
    rows = [
        _difference(next(d for d in result["comparisons"][0]["differences"] if d["measure"] == "overall"), name)
        for name, result in one["compared"].items()
    ]
    last = one["history"][-1]
    return (
        f"<p>{one['data']} holds votes and corrections; a transformer learned from it. In production now: "
        f"{last['path'].rsplit('/', 1)[-1]}, because it is {html.escape(last['evidence']['why'])}.</p>"
        + forest(rows, xlabel="retrained minus the model in production, points", reference=0)
    )


def _again(facts: AllFacts) -> str:
    one = facts["again"]
    alarm = one["watched"]["alarm"]
    note = "The alarm is silent."
    if alarm:
        names = ", ".join(sign["name"] for sign in alarm["signs"])
        note = (
            f"The alarm rings at step {alarm['step']} for {names} alone: the policy hedges more, and is as often right."
        )
    return (
        _run(one["grpo"], "retrained model")
        + f"<p>{html.escape(note)}</p>"
        + _bars(
            {
                "before": 100 * facts["grpo"]["before"]["right"],
                "after the lexical model": 100 * facts["grpo"]["after"]["right"],
                "after the retrained model": 100 * one["grpo"]["after"]["right"],
            },
            xlabel="right answers to held-out prompts, percent",
        )
        + _replies(one["grpo"])
    )


def _lineage(facts: AllFacts) -> str:
    one = facts["lineage"]
    chain = one["chain"]
    boxes = [
        ("votes.csv", f"{facts['votes']['read']['rows']:,} lines"),
        (facts["version"]["version"], chain["version"][:12]),
        ("words", chain["trained"][:12]),
        ("odd reply", one["rows"]["finding"][:12]),
        (f"correction, {chain['edit']['edited_by']}", one["rows"]["corrected"][:12]),
        (facts["retrain"]["data"], facts["retrain"]["trained"]["dataset"]["digest"][:12]),
        ("sums", facts["retrain"]["trained"]["fingerprint"][:12]),
    ]
    arrows = ["read", "learned", "rewarded", "queued by drift", "merged", "learned"]
    texts = "".join(
        f"<details><summary>rmkit why {one['rows'][name]} ({name})</summary><pre>{html.escape(text)}</pre></details>"
        for name, text in one["texts"].items()
    )
    intro = "<p>Each arrow can be walked back from the right: every box names the one before.</p>"
    return intro + _chain(boxes, arrows) + texts


SECTIONS: dict[str, tuple[str, Callable[[AllFacts], str]]] = {
    "votes": ("A votes file of unknown columns", _votes),
    "version": ("A dataset version", _version),
    "models": ("A model adopted, a model trained", _models),
    "people": ("Agreement with people", _people),
    "gate": ("The promotion gate", _gate),
    "grpo": ("A served signal, and a policy that learns from it", _grpo),
    "alarm": ("The hacking alarm and the drift report", _alarm),
    "queue": ("The queue of the studio", _queue),
    "answers": ("Answers through the REST API", _answers),
    "retrain": ("A retrained model, promoted", _retrain),
    "again": ("The same policy on the retrained model", _again),
    "lineage": ("All of it by rmkit why", _lineage),
}


def _run(result: Facts, what: str) -> str:
    before, after = result["before"], result["after"]
    resumed = f" A killed run went on from step {result['resumed_at']}." if result["resumed_at"] else ""
    return (
        f"<p>TRL's GRPO on the {what}: right answers to held-out prompts {before['right']:.0%} to "
        f"{after['right']:.0%}, "
        f"hedging words a reply {before['hedges']:.1f} to {after['hedges']:.1f}.{resumed}</p>{_curves(result)}"
    )


def _curves(result: Facts, mark: int | None = None) -> str:
    """What the policy is rewarded for, and how often it is right, by step."""
    steps = sorted(result["steps"].items(), key=lambda item: int(item[0]))
    x = [int(number) for number, _ in steps]
    svg: list[str] = []
    with axes_of(8.4, 3.2, svg) as axes:
        for index, (name, label) in enumerate(
            (("proxy", "reward of the model"), ("hedges", "hedging words a reply"), ("right", "share of right answers"))
        ):
            axes.plot(x, [one[name] for _, one in steps], color=COLORS[index], label=label, linewidth=2)
        if mark is not None:
            axes.axvline(mark, color="#888888", linestyle="--", linewidth=1)
            axes.annotate("alarm", (mark, axes.get_ylim()[1]), (4, -12), textcoords="offset points")
        axes.set_xlabel("step of the trainer")
        axes.legend(loc="upper left")
    return svg[0]


def _replies(result: Facts) -> str:
    rows = [
        (question, before, after)
        for (question, before), (_, after) in zip(result["before"]["replies"], result["after"]["replies"], strict=True)
    ]
    return _table(("asked", "before", "after"), rows)


def _bars(values: Mapping[str, float], *, xlabel: str) -> str:
    svg: list[str] = []
    with axes_of(8.4, 0.7 + 0.34 * len(values), svg) as axes:
        names = list(values)[::-1]
        drawn = axes.barh(names, [values[name] for name in names], color=COLORS[0], height=0.6)
        axes.bar_label(drawn, fmt="%.4g", padding=4)
        axes.margins(x=0.12)
        axes.set_xlabel(xlabel)
        axes.grid(visible=False, axis="y")
    return svg[0]


def _estimate(model: Facts, measure: str, color: int) -> dict[str, Any]:
    one = model["measures"][measure]
    return {"label": model["name"], "value": one["percent"], "low": one["low"], "high": one["high"], "color": color}


def _difference(one: Facts, label: str) -> dict[str, Any]:
    return {"label": label, "value": one["difference"], "low": one["low"], "high": one["high"]}


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>{body}</table>"


def _chain(boxes: Sequence[tuple[str, str]], arrows: Sequence[str]) -> str:
    """Boxes in two rows with arrows between them, as SVG."""
    width, height, gap, columns = 170, 54, 66, 4
    parts = []
    for at, (title, digest) in enumerate(boxes):
        x, y = (at % columns) * (width + gap), (at // columns) * (height + 70)
        parts.append(
            f"<rect x='{x + 1}' y='{y + 1}' width='{width}' height='{height}' rx='6' fill='none' "
            "stroke='currentColor'/>"
            f"<text x='{x + width / 2}' y='{y + 23}' text-anchor='middle' font-weight='600'>{html.escape(title)}</text>"
            f"<text x='{x + width / 2}' y='{y + 43}' text-anchor='middle' font-size='12'>{html.escape(digest)}</text>"
        )
        if at + 1 == len(boxes):
            break
        word = f"font-size='11' text-anchor='middle'>{html.escape(arrows[at])}</text>"
        if (at + 1) % columns:
            middle = y + height / 2
            parts.append(
                f"<path d='M{x + width + 4} {middle} H{x + width + gap - 4}' stroke='currentColor' "
                "marker-end='url(#tip)'/>"
                f"<text x='{x + width + gap / 2}' y='{middle - 8}' {word}"
            )
        else:
            low = y + height + 35
            parts.append(
                f"<path d='M{x + width / 2} {y + height + 4} V{low} H{width / 2} V{y + height + 66}' fill='none' "
                f"stroke='currentColor' marker-end='url(#tip)'/><text x='{x / 2 + width / 2}' y='{low - 6}' {word}"
            )
    full, rows = columns * (width + gap) - gap + 4, -(-len(boxes) // columns)
    return (
        f"<svg viewBox='0 0 {full} {rows * (height + 70)}' width='{full}' fill='currentColor' font-family='system-ui, "
        "sans-serif' font-size='14'><defs><marker id='tip' markerWidth='8' markerHeight='8' refX='6' refY='3' "
        f"orient='auto'><path d='M0 0 L6 3 L0 6 Z'/></marker></defs>{''.join(parts)}</svg>"
    )
