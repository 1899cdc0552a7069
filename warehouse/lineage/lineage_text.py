"""The facts of `warehouse.lineage.provenance` as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rmkit.cli.display import printable
from rmkit.ids import parse_messages
from rmkit.types import Completion
from warehouse.lineage.preview import label_text, shorten, transcript

_SHORT = 300


def matches_text(result: Mapping[str, Any], at_most: int) -> str:
    """The list shown for a name that fits several rows."""
    matches = result["matches"]
    several = f"more than {at_most}" if len(matches) > at_most else str(len(matches))
    lines = [f"{result['row']} fits {several}; ask for one of these units, or give more digits:"]
    lines += [f"  {m['part']:<10}  {m['id']}  unit {m['unit']}  {m['prompt']}" for m in matches[:at_most]]
    return "\n".join(printable(line, lines=False) for line in lines)


def row_text(facts: Mapping[str, Any], *, full: bool = False) -> str:
    """The whole answer, section by section; empty sections are left out, missing facts are named."""
    units = facts["units"]
    sections = [
        *(("", _texts(unit, full)) for unit in units),
        ("sources", (line for source in facts["sources"] for line in _source(source, full))),
        ("judgments", (line for unit in units for line in _judgments(unit, len(units) > 1, full))),
        ("labels", (line for unit in units for line in _labels(unit))),
        ("runs", _runs(facts["runs"])),
        ("versions", _versions(facts["versions"])),
        ("erased", map(_tombstone, facts["erased"])),
        ("scores", map(_score, facts["scores"])),
        ("benchmarks", map(_benchmark, facts["benchmarks"])),
    ]
    blocks = []
    for title, lines in sections:
        if listed := [printable(line, lines=False) for line in lines]:  # a stored name cannot make lines of its own
            blocks.append("\n".join([title, *(f"  {line}" for line in listed)] if title else listed))
    if not facts["versions"]:
        blocks.append("in no dataset version")
    return "\n\n".join(blocks)


def _texts(unit: Mapping[str, Any], full: bool) -> Iterator[str]:
    how = f"rewritten from {unit['rewritten_from'][:12]}" if unit["rewritten_from"] else "as ingested"
    yield f"{unit['kind']} {unit['unit']}  {how}, family {unit['family']}"
    yield f"  prompt {unit['prompt_hash']}"
    yield from _indented(transcript(unit["prompt"]), full)
    for response in unit["responses"]:
        yield f"  response {response['number']} {response['id']}, {_writers(response['writers'])}"
        yield from _indented(transcript(response["messages"]), full)
    for name in ("rubric", "tools", "reference"):
        if unit[name]:
            yield f"  {name}"
            yield from _indented(unit[name], full)


def _indented(text: str, full: bool) -> Iterator[str]:
    lines = text.splitlines() if full else [shorten(text, _SHORT)]
    yield from (f"    {line}" for line in lines)


def _writers(writers: Sequence[Mapping[str, Any]]) -> str:
    if not writers:
        return "written by: not recorded"
    terms = "; ".join(
        f"{one['model']}" + (f" (output terms {one['output_terms']})" if one["output_terms"] != "unknown" else "")
        for one in writers
    )
    return f"written by {terms}"


def _source(source: Mapping[str, Any], full: bool) -> Iterator[str]:
    parts = [f"{source['source']} line {source['line']}", f"row {source['row']}" if source["row"] else "no row id"]
    parts += [f"{key} {source[key]}" for key in ("subset", "split", "revision", "url") if source[key]]
    parts += [f"license {source['license']}", f"file sha256 {source['sha256'][:12]}"]
    parts += [_scale(scale) for scale in source["scales"]]
    yield ", ".join([*parts, *(["benchmark: never train on it"] if source["is_benchmark"] else [])])
    if source["meta"] not in (None, "{}"):
        yield from _indented(f"with {source['meta']}", full)


def _scale(scale: Mapping[str, Any]) -> str:
    ends = [scale[end] for end in (("low", "high") if scale["higher_is_better"] else ("high", "low"))]
    worst, best = ("open" if end is None else f"{end:g}" for end in ends)
    levels = f" ({', '.join(scale['levels'])})" if scale["levels"] else ""
    return f"{scale['aspect'] or 'strength'} from {worst} to {best}{levels}"


def _judgments(unit: Mapping[str, Any], several: bool, full: bool) -> Iterator[str]:
    about = f"on {unit['unit'][:12]}: " if several else ""
    for one in unit["judgments"]:
        when = "time unknown" if one["time"] is None else f"{one['time']:%Y-%m-%d %H:%M:%S}"
        parts = [when, f"{one['rater']} ({one['rater_kind']})", verdict(one)]
        parts += [f"shown in order {_joined(one['shown_order'])}" if one["shown_order"] else "screen order unknown"]
        parts += [f"{key} {one[key]:g}" for key in ("strength", "confidence", "propensity") if one[key] is not None]
        parts += [f"in {' and '.join(one['sources'])}"] if one["sources"] else []
        parts += ["saw a suggestion"] if one["suggestion_seen"] else []
        parts += [f"after {one['active_ms'] / 1000:.1f} s"] if one["active_ms"] is not None else []
        yield about + ", ".join(parts)
        if one["superseded_by"] is not None:
            yield f"    superseded by {one['superseded_by']}: does not count any more"
        if one["rationale"]:
            yield from _indented(f"because: {one['rationale']}", full)
        if one["edit"]:
            yield from _indented(f"corrected to: {transcript(one['edit'])}", full)


def verdict(judgment: Mapping[str, Any]) -> str:
    """What a judgment says: 1 > 2 = 3 by ranks, else its ratings or steps; skip and bad_item as they are."""
    if judgment["verdict"] != "ok":
        return str(judgment["verdict"])
    answers = [ranking(judgment["ranks"])] if judgment["ranks"] else []
    answers += [f"{_which(s)}{s['aspect']}={s['value']:g}" for s in judgment["scores"] or () if s["value"] is not None]
    if judgment["step_labels"]:
        answers.append(f"steps {_steps(judgment['step_labels'])}")
    return " ".join(answers) or "no opinion"


def _which(score: Mapping[str, Any]) -> str:
    return "" if score["response"] is None else f"{score['response']}:"


def ranking(ranks: Sequence[int | None]) -> str:
    """[0, 1, 1, null] -> "1 > 2 = 3 (4 unranked)"; numbers are the responses'."""
    levels = sorted({rank for rank in ranks if rank is not None})
    groups = [" = ".join(str(i + 1) for i, rank in enumerate(ranks) if rank == level) for level in levels]
    unranked = [i + 1 for i, rank in enumerate(ranks) if rank is None]
    return " > ".join(groups) + (f" ({_joined(unranked)} unranked)" if unranked else "")


def _joined(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _labels(unit: Mapping[str, Any]) -> Iterator[str]:
    for label in unit["labels"]:
        yield _label(label)
        if steps := label["step_labels"]:
            yield f"    steps {_steps(steps)}"
            yield from _first_wrong(unit, steps)


def _steps(labels: Sequence[float | None]) -> str:
    return " ".join("?" if label is None else f"{label:g}" for label in labels)


def _first_wrong(unit: Mapping[str, Any], labels: Sequence[float | None]) -> Iterator[str]:
    """The first step that is more wrong than right, in its own words; nothing where labels are no probabilities."""
    known = [label for label in labels if label is not None]
    if any(not 0 <= label <= 1 for label in known):
        return
    at = next((at for at, label in enumerate(labels) if label is not None and label < 0.5), None)
    stepped = [(one, own) for one, own in zip(unit["responses"], unit["step_ends"] or (), strict=False) if own]
    if at is None or len(stepped) != 1 or stepped[0][0]["messages"] is None or at >= len(stepped[0][1]):
        return
    [(response, ends)] = stepped
    text = Completion(parse_messages(response["messages"])).text[ends[at - 1] if at else 0 : ends[at]]
    yield f"    first wrong step {at + 1} of {len(ends)}: {shorten(text.strip(), 160)}"


def _label(label: Mapping[str, Any]) -> str:
    margin = "" if label["margin"] is None else f", margin {label['margin']:g}"
    ranks = f", ranks {ranking(label['ranks'])}" if label["ranks"] else ""
    votes = f"{label['n_votes']} judgment{'' if label['n_votes'] == 1 else 's'}"
    return f"example {label['id']}  {label_text(label['p'], None, label['method'])}{ranks}{margin}, from {votes}"


def _runs(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in runs:
        verdicts = [drop for step in one["steps"] for drop in step["dropped"]]
        outcome = "kept it" if one["kept"] else "dropped it" if verdicts else "saw it"
        outcome = "kept one label, dropped another" if one["kept"] and verdicts else outcome
        yield f"{one['kind']} {one['name']} ({str(one['run_id'])[:8]}, {one['started_at']:%Y-%m-%d %H:%M}): {outcome}"
        last = max((step["step_no"] for step in one["steps"] if one["kept"] or step["dropped"]), default=0)
        for step in one["steps"]:
            for drop in step["dropped"]:
                evidence = f" [{shorten(drop['evidence'], 120)}]" if drop["evidence"] else ""
                reason = f"dropped example {drop['example'][:12]}: {drop['reason']}{evidence}"
                yield f"    {step['step_no']}. {step['step']}: {reason}"
            if not step["dropped"] and step["step_no"] < last + one["kept"]:
                yield f"    {step['step_no']}. {step['step']}: kept"


def _versions(versions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in versions:
        names = [*(f"branch {name}" for name in one["branches"]), *(f"tag {name}" for name in one["tags"])]
        where = f"{one['ref']}  {one['digest'][:8]}  example {one['example'][:12]}  {one['split'] or 'no split'}"
        yield "  ".join([where, f"weight {one['weight']:g}", ", ".join(names)]).rstrip()


def _tombstone(one: Mapping[str, Any]) -> str:
    return f"{one['part']} {one['id'][:12]} by {one['actor']} on {one['time']:%Y-%m-%d %H:%M}: {one['reason']}"


def _score(one: Mapping[str, Any]) -> str:
    value = f"unscored: {one['unscored']}" if one["unscored"] else f"{one['value']:.4g}"
    spread = "" if one["std"] is None else f" ± {one['std']:.2g}"
    return f"response {one['response']}: {value}{spread}  model {one['fingerprint'][:12]}  {one['run'] or ''}".rstrip()


def _benchmark(one: Mapping[str, Any]) -> str:
    p = "" if one["p_first"] is None else f" p(first) {one['p_first']:.3f}"
    values = one["unscored"] or ", ".join(f"{value:.4g}" for value in one["scores"] or ())
    return f"{one['suite']} item {one['item']}: {values}{p}  model {one['fingerprint'][:12]}"
