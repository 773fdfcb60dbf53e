"""A real Chromium for the tests of pages."""

import shutil
import time
from contextlib import contextmanager
from functools import partial

import pytest

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSIDE = ("file:", "data:", "blob:")


def _wait_for(page, expression, *, timeout=30_000):
    """As Playwright's, which evaluates texts inside the page, as the page's policy forbids."""
    until = time.monotonic() + timeout / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < until, f"not in {timeout} ms: {expression}"
        page.wait_for_timeout(50)


@contextmanager
def opened_page(path, *, width=1200, height=900):
    """A page opened from disk: (Playwright's page, its console errors, the requests that left the file).

    Skips the test where there is no Chromium.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = next((found for name in CHROMIUMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium or Chrome")
    errors, requests = [], []
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
                 "--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader"]  # fmt: skip
        browser = driver.chromium.launch(executable_path=program, args=flags)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda e: errors.append(str(e)))
            page.on(
                "request",
                lambda r: requests.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None,
            )
            page.wait_for_function = partial(_wait_for, page)
            page.goto(path.resolve().as_uri())
            yield page, errors, requests
        finally:
            browser.close()
