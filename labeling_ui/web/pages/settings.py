"""Settings: who has an account, with which role; for admins."""

from __future__ import annotations

from typing import get_args
from urllib.parse import urlsplit

import streamlit as st

from labeling_ui.projects.people import Person, Role, add_person, people, remove_person
from labeling_ui.web import studio
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError


def page() -> None:
    """Run on every interaction."""
    person: Person = st.session_state["person"]
    ledger = studio.current().ledger
    st.header("Settings", anchor=False)
    st.subheader("People", anchor=False)
    known = list(people(ledger))
    st.dataframe([{"name": one.name, "role": one.role} for one in known], hide_index=True)
    with st.form("add", clear_on_submit=True):
        name = st.text_input("Name")
        role = st.segmented_control("Role", list(get_args(Role)), default="annotator", required=True)
        if st.form_submit_button("Add, or give a new token", icon=":material/person_add:"):
            _add(person, name, role)
    with st.form("remove"):
        gone = st.selectbox("Remove", [one.name for one in known if one.name != person.name], index=None)
        if st.form_submit_button("Remove", icon=":material/person_remove:") and gone:
            person.require("admin", "remove a person")
            remove_person(ledger, gone)
            st.rerun()


def _add(person: Person, name: str, role: Role | None) -> None:
    try:
        person.require("admin", "add a person")
        token = add_person(studio.current().ledger, name.strip(), role=role or "annotator")
    except RmkitError as error:
        st.error(harmless(str(error)))
        return
    st.success(f"{harmless(name)} is {role}. The link below opens the studio for them; it is shown this once.")
    st.code(f"{_address()}/enter?token={token}", language=None)


def _address() -> str:
    """Where this studio is, as the admin's browser knows it."""
    summary = urlsplit(st.context.url or "")
    return f"{summary.scheme}://{summary.netloc}" if summary.netloc else ""
