"""A real browser for the tests of this folder. Without one they are skipped, and the reason says what to install."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.site import build

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MISSING = "no {}: for the browser tests run `make browser`, with a Chromium on the path (Debian: apt install chromium)"


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Headless Chromium, the one on the path."""
    absent = pytest.fail if request.config.getoption("--need-browser") else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent(MISSING.format("Playwright"))
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        absent(MISSING.format("Chromium"))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def site(browser: Any, made_once: Callable[..., Path]) -> Path:
    """The folder of pages; made only where there is a browser to show it."""
    return made_once("site", lambda folder: build(folder / "build")) / "build"


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Callable[..., Any]]:
    """Open a page of the site; afterwards none that was opened may have asked for anything or complained."""
    contexts, foreign, complaints = [], [], []

    def route(request: Any) -> None:
        if request.request.url.startswith(site.as_uri()):
            request.continue_()
        else:
            foreign.append(request.request.url)
            request.abort()

    def opened(name: str, *, width: int = 1100, height: int = 900, unfold: bool = False, **settings: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        context.route("**/*", route)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(f"{name}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"{name}: {error}"))
        # Everything that is loaded, but for the page itself and what it carries in itself.
        page.on("request", lambda request: request.is_navigation_request() or foreign.append(request.url[:200]))
        page.goto(f"{site.as_uri()}/{name}")
        if unfold:
            page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true })")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not foreign, "a page asked for what it does not carry"
    assert not complaints, "a page complained on the console"
