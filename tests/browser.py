"""Headless Chromium for the tests of pages: the one of the system, driven by Playwright."""

import contextlib
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def opened(**settings):
    """A context of Chromium with these settings.

    The test is skipped if Chromium or Playwright is not installed.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    playwright_of = pytest.importorskip("playwright.sync_api", reason="the extra [dev] has it")
    with playwright_of.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser.new_context(**settings)
        finally:
            browser.close()


def page_at(context, address):
    """(the page at an address, a list that fills with what goes wrong on it).

    Errors of scripts, what the policy of a page forbids, and requests to other places count.
    """
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: errors.append(asked.url) if _foreign(asked.url) else None)
    page.goto(address)
    return page, errors


def _foreign(url):
    return not url.startswith(("file:", "data:", "blob:", "http://127.0.0.1"))
