"""A page in a real Chromium, without a network, with everything noted that went wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_PATIENCE_MS = 120_000


@dataclass
class Opened:
    """A page that is open. `problems` are errors, messages on the console and violations of its security policy."""

    page: Any
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Addresses that it asked for, besides itself."""

    def evaluate(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def until(self, condition: str, argument: Any = None) -> None:
        """Waits until the JavaScript expression is true; in it, `argument` is what was given.

        Not `page.wait_for_function`: it looks again with eval(), which the page's own security policy refuses,
        so that it fails wherever the first look comes too early.
        """
        self.evaluate(
            "(argument) => new Promise((resolve) => { const look = () => "
            f"({condition}) ? resolve() : requestAnimationFrame(look); look(); }})",
            argument,
        )

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.evaluate("document.documentElement.scrollWidth - innerWidth"))


class Chromium:
    """Opens pages, each in a context of its own: nothing is kept from one to the next."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    def open(
        self,
        path: Path,
        *,
        width: int = 1280,
        dark: bool = False,
        script: bool = True,
        before: str = "",
        fragment: str = "",
    ) -> Opened:
        """`script`: whether JavaScript is on. `before` is run before the page's own scripts."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
            offline=True,
        )
        page = context.new_page()
        page.set_default_timeout(_PATIENCE_MS)
        opened = Opened(page)
        address = path.resolve().as_uri()

        def requested(request: Any) -> None:
            if request.url.partition("#")[0] != address and not request.url.startswith("data:"):
                opened.requests.append(request.url)

        page.on("request", requested)
        page.on("console", lambda message: opened.problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: opened.problems.append(f"error: {error}"))
        if script:
            page.add_init_script(
                "window.violations = []; addEventListener('securitypolicyviolation',"
                " (e) => violations.push(e.violatedDirective + ' ' + e.blockedURI));" + before
            )
        page.goto(address + fragment)
        return opened


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """Skips where there is no Chromium: python -m tests installs it where it may.

    Of a module, not of a session: while it is there an event loop runs in this thread, and other tests have their own.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"], timeout=_PATIENCE_MS)
        yield Chromium(browser)
        browser.close()
