"""Who is at the other end of a page: a token's cookie, or an account of the team's own login (OIDC, by `st.login`).

The login is set up in `.streamlit/secrets.toml` and says who someone is; what they may do is still the account of that
email address in the ledger. An address of which the provider does not say that it is verified opens nothing.
"""

from __future__ import annotations

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from labeling_ui.projects.people import ForbiddenError, Person, by_name, by_token
from labeling_ui.web.api import COOKIE
from labeling_ui.web.texts import harmless
from rmkit.ledger import Ledger


def person(ledger: Ledger) -> Person | None:
    """Who is signed in with an account; draws the way in for everyone else."""
    token = st.context.cookies.get(COOKIE)
    try:
        if token:
            return by_token(ledger, token)
        if st.user.get("is_logged_in"):
            return by_name(ledger, _address())
    except ForbiddenError as error:
        st.error(harmless(str(error)))
    _way_in()
    return None


def way_out(person: Person) -> None:
    """In the sidebar: who is signed in, and how to leave."""
    with st.sidebar.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{harmless(person.name)}, {person.role}")
        if st.context.cookies.get(COOKIE):
            st.html('<a href="/leave" target="_self">Sign out</a>')
        else:
            st.button("Sign out", on_click=st.logout, type="tertiary")


def _address() -> str:
    address, verified = st.user.get("email"), st.user.get("email_verified")
    if not address or str(verified).lower() != "true":  # some providers write it as text
        raise ForbiddenError("your login gives no verified email address, which is what accounts are named by")
    return str(address)


def _way_in() -> None:
    st.title("rmkit studio", anchor=False)
    if st.user.get("is_logged_in"):
        st.button("Sign out and use another account", on_click=st.logout)
    elif _has_login():
        st.button("Sign in", on_click=st.login, type="primary", icon=":material/login:")
    st.write("Your lead gives you a link, or a token to enter here.")
    st.html('<a href="/enter" target="_self">Enter a token</a>')


def _has_login() -> bool:
    try:
        return "auth" in st.secrets
    except StreamlitSecretNotFoundError:
        return False
