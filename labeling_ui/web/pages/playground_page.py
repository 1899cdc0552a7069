"""Playground: a prompt and replies, pasted or picked, before models, verifiers and a signal; for leads."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from labeling_ui.playground import Column, Played, interval, judges, play
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import add_queued, projects
from labeling_ui.web import studio
from labeling_ui.web.forms import NAMES
from labeling_ui.web.texts import harmless, show_conversation
from rmkit.errors import ConfigError, RmkitError
from rmkit.ledger.annotation_queue import enqueue, queue_item
from rmkit.types import Candidates, Completion, Conversation, Message

MOST = 8  # replies
SHOWN = 200  # spans a reply


def page() -> None:
    """Run on every interaction; for leads."""
    person: Person = st.session_state["person"]
    st.header("Playground", anchor=False)
    _pick()
    case = _case()
    names = st.multiselect("Judges: models and verifiers", judges(), key="play-judges")
    with st.expander("Signal: weights and a chain", icon=":material/function:"):
        mix = st.text_input(
            "Weights (empty: the first judge alone)", placeholder="my-model=1, exact_match=0.5", key="play-mix"
        )
        chain = st.text_input("Chain of transforms", placeholder="z_score", key="play-chain", help="a preset, or JSON")
    if st.button("Score them", type="primary", disabled=case is None or not names):
        assert case is not None
        _play(case, names, mix, chain)
    played = st.session_state.get("played")
    if played is not None and played[0] == case:
        _show(played[1])
    if case is not None:
        _send(person, case, played[1] if played is not None and played[0] == case else None)


def _pick() -> None:
    """Fill the fields from an item of a project."""
    here = studio.current()
    names = [one.name for one in projects(here.ledger)]
    if not names:
        return
    with st.expander("Pick a case of a project", icon=":material/search:"):
        name = st.selectbox("Project", names, key="play-project")
        items = here.desk(name).items
        number = int(st.number_input("Item", min_value=0, max_value=len(items) - 1, step=1, key="play-item"))

        def fill() -> None:
            item = items[number]
            st.session_state["play-before"] = item.prompt[:-1]
            st.session_state["play-prompt"] = item.prompt[-1].content if item.prompt else ""
            st.session_state["play-n"] = min(max(len(item.responses), 1), MOST)
            for at, response in enumerate(item.responses[:MOST]):
                texts = [turn.content for turn in response if turn.role == "assistant"]
                st.session_state[f"play-reply-{at}"] = "\n\n".join(texts)

        st.button("Take it", on_click=fill)


def _case() -> Candidates | None:
    """What stands in the fields; None while a text is missing."""
    before: Conversation = st.session_state.get("play-before", ())
    if before:
        with st.expander(f"Earlier turns: {len(before)}"):
            show_conversation(before, key="play-before")
            if st.button("Leave them out"):
                st.session_state["play-before"] = ()
                st.rerun()
    prompt = st.text_area("Prompt", key="play-prompt", height=110)
    n = int(st.number_input("Replies", min_value=1, max_value=MOST, value=2, step=1, key="play-n", width=160))
    replies = []
    for start in range(0, n, 2):
        for at, cell in zip(range(start, min(start + 2, n)), st.columns(2), strict=False):
            replies.append(cell.text_area(f"Reply {NAMES[at]}", key=f"play-reply-{at}", height=160))
    reference = st.text_input("Right answer, for verifiers", key="play-reference")
    if not prompt.strip() or not all(reply.strip() for reply in replies):
        return None
    completions = tuple(Completion((Message("assistant", reply),)) for reply in replies)
    return Candidates((*before, Message("user", prompt)), completions, reference=reference or None)


def _play(case: Candidates, names: list[str], mix: str, chain: str) -> None:
    try:
        with st.spinner("Scoring"):
            played = play(case, names, weights=_weights(mix), transforms=_chain(chain))
    except RmkitError as error:
        st.error(harmless(str(error)))
        return
    st.session_state["played"] = (case, played)


def _weights(text: str) -> dict[str, float]:
    weights = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, _, value = part.rpartition("=")
        try:
            weights[name.strip()] = float(value)
        except ValueError as error:
            raise ConfigError(f"weights are NAME=NUMBER with commas between, got {part!r}") from error
    return weights


def _chain(text: str) -> Any:
    try:
        return json.loads(text) if text.lstrip().startswith(("[", "{")) else text.strip() or ()
    except json.JSONDecodeError as error:
        raise ConfigError(f"the chain is no JSON: {error}") from error


def _show(played: Played) -> None:
    rows = []
    for at, (mix, shaped) in enumerate(zip(played.mix, played.shaped, strict=True)):
        row: dict[str, str] = {"reply": NAMES[at]}
        row |= {one.name: _spelled(one, at) for one in played.columns}
        row["mix"] = mix.missing or f"{mix.reward:.4g}"
        row["shaped"] = (
            shaped if isinstance(shaped, str) else f"{shaped:.4g}" if isinstance(shaped, float) else str(shaped)
        )
        rows.append(row)
    st.dataframe(rows, hide_index=True)
    st.caption("A score stands with its 95% interval where the model says how sure it is.")
    for name, why in played.failed.items():
        st.error(harmless(f"{name}: {why}"))
    _aspects(played)
    for column in played.columns:
        _parts(column)


def _spelled(column: Column, at: int) -> str:
    score = column.scores[at]
    if score.unscored is not None:
        return f"unscored: {score.unscored}"
    bounds = interval(score)
    more = f" [{bounds[0]:.3g}, {bounds[1]:.3g}]" if bounds else ""
    more += f", normalized {score.normalized:.3g}" if score.normalized is not None else ""
    return f"{score.value:.4g}{more}" + (", cut to the model's limit" if score.truncated else "")


def _aspects(played: Played) -> None:
    rows = [
        {"judge": column.name, "reply": NAMES[at], "aspect": aspect, "value": value}
        for column in played.columns
        for at, score in enumerate(column.scores)
        for aspect, value in score.aspects.items()
    ]
    if rows:
        st.subheader("Aspects", anchor=False)
        st.dataframe(rows, hide_index=True)


def _parts(column: Column) -> None:
    """Rewards of steps or tokens, each with the text that it is of."""
    texts = st.session_state["played"][0].completions
    rows = [
        {"reply": NAMES[at], "text": texts[at].text[span.start : span.end], "reward": span.value}
        for at, spans in enumerate(column.spans)
        for span in spans[:SHOWN]
    ]
    if rows:
        st.subheader(f"Steps and tokens: {harmless(column.name)}", anchor=False)
        st.dataframe(rows, hide_index=True, height=min(36 * len(rows) + 40, 400))


def _send(person: Person, case: Candidates, played: Played | None) -> None:
    ledger = studio.current().ledger
    known = {one.name: one for one in projects(ledger)}
    if not known:
        return
    with st.form("send-case"):
        name = st.selectbox("Send the case to", list(known))
        why = st.text_input("Why")
        if not st.form_submit_button("Send it", icon=":material/send:"):
            return
    person.require("lead", "send cases to a project")
    evidence = (
        {one.name: [None if s.unscored else s.value for s in one.scores] for one in played.columns} if played else {}
    )
    event = queue_item(
        case,
        project=name,
        found_by="playground",
        reason=why or f"sent by {person.name}",
        priority=1.0,
        evidence=evidence,
    )
    if not enqueue(ledger, [event]):
        st.info("This case was sent there before.")
        return
    added = add_queued(ledger, known[name])
    left_out = "; ".join(added.left_out) if not added.items else ""
    if left_out:
        st.error(harmless(f"{name} cannot show it: {left_out}"))
    else:
        st.success(f"{harmless(name)} has it as a new item.")
