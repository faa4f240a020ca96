"""Pages in a real browser."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, sync_playwright


@contextlib.contextmanager
def opened_browser() -> Iterator[Browser]:
    """Yield the Chromium of this machine; skips where there is none."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    path = next(found, None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclasses.dataclass(frozen=True)
class Visit:
    """A page that is open, and what happened while it opened.

    Attributes:
        page: the page.
        messages: what the console said, errors of the page, dialogs.
        requests: addresses of everything asked for.
    """

    page: Page
    messages: list[str]
    requests: list[str]


@contextlib.contextmanager
def visited(browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> Iterator[Visit]:
    """Open a file in a window ``width`` pixels wide, on a ``light`` or ``dark`` desktop."""
    page = browser.new_page(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    visit = Visit(page, [], [])

    def dismiss(dialog: Dialog) -> None:
        visit.messages.append(dialog.message)
        dialog.dismiss()

    page.on("console", lambda message: visit.messages.append(message.text))
    page.on("pageerror", lambda error: visit.messages.append(str(error)))
    page.on("dialog", dismiss)
    page.on("request", lambda request: visit.requests.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    # What comes late, such as a refused style, is waited for.
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
    yield visit
    page.close()
