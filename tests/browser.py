"""A real browser for the tests that look at pages: Chromium, through Playwright, or a skip where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium for a while; skip the test where none is installed."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser to look at the page with: none of {', '.join(NAMES)} is installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Any, path: Path, width: int = 1280, height: int = 900, scheme: str = "light", refuses: bool = False
) -> Iterator[Any]:
    """Open a page for a while, and fail if it says anything in the console or asks anybody for anything.

    With `refuses` it must say that its policy refused something.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.absolute().as_uri())
    page.wait_for_selector("#nav li")  # its last act
    yield page
    own = path.absolute().as_uri()
    assert bool(said) == refuses and all("Content Security Policy" in line for line in said), said
    assert [url for url in asked if url != own and not url.startswith("data:")] == []
    context.close()


def scroll_through(page: Any) -> None:
    """Come by every part of the page, so that all of its charts are drawn."""
    page.evaluate("""async () => {
        for (let y = 0; y < document.body.scrollHeight; y += 500) {
            scrollTo({top: y, behavior: "instant"}); await new Promise((done) => setTimeout(done, 60));
        }
        scrollTo({top: 0, behavior: "instant"});
    }""")
