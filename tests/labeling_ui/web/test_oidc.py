"""Signing in by the team's own login: a real OpenID Connect provider on loopback, and a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labeling_ui.benchmarks.process import Server
from labeling_ui.projects.demo import make_demo
from labeling_ui.projects.people import add_person
from rmkit.ledger import open_ledger

playwright = pytest.importorskip("playwright.sync_api")
oidc = pytest.importorskip("oidc_provider_mock")
pytest.importorskip("authlib")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]

SECRETS = ("client-secret-9d1f", "cookie-secret-77aa31")
PEOPLE = {
    "anna@team.example": {"email_verified": True},
    "lea@team.example": {"email_verified": "true"},
    "new@team.example": {"email_verified": True},
    "eve@team.example": {"email_verified": False},
    "mel@team.example": {},
}


@pytest.fixture
def provider() -> Iterator[str]:
    """Its address. `eve` and `mel` claim addresses of accounts that need not be theirs: none has been verified."""
    claims = [
        oidc.User(sub=address.partition("@")[0], claims={"email": address, **more}) for address, more in PEOPLE.items()
    ]
    with oidc.run_server_in_thread(user_claims=claims) as running:
        yield f"http://127.0.0.1:{running.server_port}"


@pytest.fixture
def server(home: Path, tmp_path: Path, provider: str) -> Iterator[Server]:
    """The demo project; anna annotates, lea is a lead, eve's and mel's addresses have accounts too."""
    with open_ledger() as ledger:
        make_demo(ledger)
        for name, role in (("anna", "annotator"), ("lea", "lead"), ("eve", "admin"), ("mel", "admin")):
            add_person(ledger, f"{name}@team.example", role=role)
    running = Server(home, folder=tmp_path)
    settings = tmp_path / ".streamlit" / "secrets.toml"
    settings.parent.mkdir()
    settings.write_text(
        f"""
        [auth]
        redirect_uri = "{running.url}/oauth2callback"
        cookie_secret = "{SECRETS[1]}"
        client_id = "rmkit"
        client_secret = "{SECRETS[0]}"
        server_metadata_url = "{provider}/.well-known/openid-configuration"
        """
    )
    running.start()
    yield running
    running.kill()


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


def _signed_in(browser: Any, server: Server, subject: str) -> Any:
    page = browser.new_context().new_page()
    page.set_default_timeout(60_000)
    page.goto(server.url)
    page.get_by_role("button", name="Sign in").click()
    page.locator("input[name=sub]").fill(subject)
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{server.url}/**")
    return page


def _signed_out(page: Any) -> None:
    """The provider asks once more; then the studio asks who it is."""
    page.locator("button[type=submit]").first.click()
    page.get_by_role("button", name="Sign in").wait_for()


def test_the_account_of_the_address_says_what_a_person_may_do(
    browser: Any, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    anna = _signed_in(browser, server, "anna")
    anna.get_by_role("button", name=re.compile("B much better")).wait_for()
    links = anna.locator("[data-testid=stSidebarNavLink]")
    assert [text.split("\n")[-1] for text in links.all_inner_texts()] == ["Annotate", "My work"]
    for name in ("project", "data", "datasets", "models", "rubrics", "settings"):
        anna.goto(f"{server.url}/{name}")
        anna.get_by_text("Page not found").wait_for()
    anna.goto(server.url)
    lea = _signed_in(browser, server, "lea")
    lea.get_by_text("Leaderboard").or_(lea.get_by_role("link", name="Project")).first.wait_for()
    assert lea.get_by_role("link", name="Settings").count() == 0

    new = _signed_in(browser, server, "new")
    new.get_by_text("no account for 'new@team.example'").wait_for()
    assert new.locator("[data-testid=stSidebarNavLink]").count() == 0
    for name in ("eve", "mel"):
        unsure = _signed_in(browser, server, name)
        unsure.get_by_text("no verified email address").wait_for()

    anna.get_by_role("button", name="Sign out").click()
    _signed_out(anna)
    assert anna.locator("[data-testid=stSidebarNavLink]").count() == 0
    new.get_by_role("button", name="Sign out and use another account").click()
    _signed_out(new)
    told = "".join(capfd.readouterr())
    assert not [secret for secret in SECRETS if secret in told]


def test_a_token_is_another_way_in_and_can_be_left_again(browser: Any, server: Server, home: Path) -> None:
    with open_ledger() as ledger:
        token = add_person(ledger, "ben", role="annotator")
    page = browser.new_context().new_page()
    page.set_default_timeout(60_000)
    page.goto(server.url)
    page.get_by_role("link", name="Enter a token").click()
    page.locator("#token").fill(token)
    page.get_by_role("button", name="Enter").click()
    page.get_by_text("ben, annotator").wait_for()
    page.get_by_role("link", name="Sign out").click()
    page.get_by_role("button", name="Sign in").wait_for()
    assert not [cookie for cookie in page.context.cookies() if cookie["value"] == token]
