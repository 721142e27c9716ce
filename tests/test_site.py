"""The site as it is built: strictly, and looked at in a browser, wide and narrow, light and dark."""

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("index", "coming-from/index", "coming-from/ray-tune", "spaces", "faults", "commands", "api", "cluster")
pytestmark = pytest.mark.long


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[str]:
    """The address of the site, built and served on loopback."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    found = next((path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(path).exists()), None)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[(1280, "light"), (400, "light"), (400, "dark")], ids=lambda each: f"{each[0]}-{each[1]}")
def page(request, browser) -> Iterator[Page]:
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    opened.wrong = []
    opened.on("console", lambda message: opened.wrong.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: opened.wrong.append(str(error)))
    opened.on("request", lambda asked: opened.wrong.append(asked.url) if is_elsewhere(asked.url) else None)
    yield opened
    context.close()


def is_elsewhere(url: str) -> bool:
    return urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).hostname != "127.0.0.1"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole(name, page, site):
    answer = page.goto(f"{site}/{name}.html")
    page.wait_for_load_state("networkidle")
    assert answer.ok and not page.wrong
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    too_wide = """width => [...document.querySelectorAll('.md-content *')].filter(e => {
        const box = e.getBoundingClientRect(), inside = e.closest('.md-typeset__scrollwrap, pre, .highlight')
        return !inside && box.width && box.right > width + 1 }).map(e => e.outerHTML.slice(0, 100))"""
    assert page.evaluate(too_wide, width) == []
    found = Axe().run(page, context={"include": [[".md-content"]]}).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []


def test_a_word_is_found(page, site):
    page.goto(f"{site}/index.html?q=loguniform")
    page.locator(".md-search-result__item").first.wait_for(state="attached")
    assert not page.wrong
