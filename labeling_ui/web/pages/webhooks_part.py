"""The webhooks of a project: their addresses, how their deliveries are, a new one."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from labeling_ui.hooks.webhooks import (
    EVENTS,
    State,
    Webhook,
    remove_webhook,
    resume_webhook,
    state_of,
    webhooks,
)
from labeling_ui.projects.people import Person
from labeling_ui.web import studio
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError


def show_webhooks(project: str, person: Person) -> None:
    """For leads. A failure stands there unfolded."""
    ledger = studio.current().ledger
    known = [(hook, state_of(ledger, hook)[0]) for hook in webhooks(ledger, project)]
    fails = any(state.error for _, state in known)
    with st.expander(f"Webhooks: {len(known)}", icon=":material/webhook:", expanded=fails):
        for hook, state in known:
            _one(hook, state, person)
        with st.form("webhook", clear_on_submit=True):
            url = st.text_input("Address", placeholder="https://example.org/hook")
            events = st.multiselect("Of what it is told", EVENTS, EVENTS)
            sent = st.form_submit_button("Add a webhook", icon=":material/add:")
        if sent:
            try:
                _, secret = studio.current().add_webhook(person, project, url.strip(), events)
            except RmkitError as error:
                st.error(harmless(str(error)))
                return
            st.caption("The secret of its signatures; it is shown this once. How to check them: docs/labeling.md")
            st.code(secret, language=None)


def _one(hook: Webhook, state: State, person: Person) -> None:
    ledger = studio.current().ledger
    with st.container(border=True):
        st.text(hook.url)
        st.caption(harmless(f"{', '.join(hook.events)}. {state.delivered} delivered."))
        if state.error:
            word = "stopped" if state.is_stopped else "tried again by itself"
            st.warning(harmless(f"{state.error}; {state.tries} tries in a row, {word}. Nothing is lost meanwhile."))
        with st.container(horizontal=True):
            if state.error and st.button("Try again now", key=f"resume-{hook.id}"):
                _done(lambda: resume_webhook(ledger, person, hook.project, hook.id))
            if st.button("Remove", key=f"remove-{hook.id}", type="tertiary"):
                _done(lambda: remove_webhook(ledger, person, hook.project, hook.id))


def _done(act: Callable[[], None]) -> None:
    try:
        act()
    except RmkitError as error:
        st.error(harmless(str(error)))
        return
    st.rerun()
