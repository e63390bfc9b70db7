"""A headless browser for tests of pages, where there is one."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """The system's Chromium, driven by Playwright; nothing is downloaded."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    place = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if place is None:
        pytest.skip("no chromium or google-chrome on this machine")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=place, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def opened(browser) -> Iterator[Callable]:
    """`opened(path, width=1280, colours="light")` is a page in the browser; at the end it must not have complained."""
    contexts, complaints, requests = [], [], []

    def open_page(path: Path, *, width: int = 1280, height: int = 900, colours: str = "light", hash: str = ""):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=colours)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri() + hash)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:image/"))] == []
