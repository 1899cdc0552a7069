"""A headless Chromium that benchmarks drive through Playwright; both are optional."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from rmkit.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

WIDE = {"width": 1400, "height": 900}

# Complete, with its last element, and nothing of it left over from the page before.
_READY = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    && (document.querySelector('[data-testid=stMain]')?.innerText.trim().length ?? 0) > 20
    && !document.querySelector('[data-testid=stMain] [data-stale=true]')
    && !document.querySelector('.rmkit-answer')?.sheet?.sent"""

_CHANGED = "before => document.querySelector('[data-testid=stMain]').innerText !== before"


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running browser. Raises MissingExtraError without Playwright, UsageError without Chromium."""
    try:
        from playwright.async_api import async_playwright
    except ImportError as error:
        raise MissingExtraError("playwright", "dev") from error
    result = shutil.which("chromium") or shutil.which("chromium-browser")
    if result is None:
        raise UsageError("no chromium here; install it (Debian: apt-get install chromium) or do without browsers")
    async with async_playwright() as started:
        browser = await started.chromium.launch(executable_path=result, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            await browser.close()


async def signed_in(browser: Any, url: str, token: str) -> Page:
    """A page of a context of its own, signed in, with its first content on the screen."""
    context = await browser.new_context(viewport=WIDE)
    page: Page = await context.new_page()
    await page.goto(f"{url}/enter?token={token}")
    await page.get_by_role("button", name="Enter").click()
    await ready(page)
    return page


async def ready(page: Any, *, timeout_s: float = 90.0) -> None:
    """Wait until the page stands there complete."""
    await page.wait_for_function(_READY, timeout=1000 * timeout_s)


async def opened(page: Any, name: str) -> float:
    """Seconds from a click on the sidebar's link to the complete page of that name; another one must be open before."""
    link = page.locator(f"[data-testid=stSidebarNavLink][href$='/{name}']")
    if not await link.count():
        link = page.locator("[data-testid=stSidebarNavLink]").first  # the default page has no path of its own
    before = await page.locator("[data-testid=stMain]").inner_text()
    begin = time.monotonic()
    await link.click()
    await page.wait_for_function(_CHANGED, arg=before, timeout=90_000)
    await ready(page)
    return time.monotonic() - begin
