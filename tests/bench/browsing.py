"""A page from disk in a headless Chromium, with what it said and what it asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Page:
    """A tab, its console messages and errors, and the addresses of its requests."""

    tab: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def column(self, number: int = 1) -> list[str]:
        """The texts of a column of the table of means."""
        found = self.tab.locator(f"#means tbody td:nth-child({number})")
        return [text.partition("\n")[0] for text in found.all_inner_texts()]


@contextmanager
def opened(address: str) -> Iterator[Page]:
    """The page at an address. Skips without playwright or Chromium; nothing may be said on the console."""
    api = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("there is no chromium")
    with api.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = Page(browser.new_page(viewport={"width": 1300, "height": 900}))
        page.tab.on("console", lambda message: page.said.append(message.text))
        page.tab.on("pageerror", lambda error: page.said.append(str(error)))
        page.tab.on("request", lambda request: page.asked.append(request.url))
        page.tab.goto(address)
        yield page
        browser.close()
    assert not page.said
    assert all(url.startswith("file:") for url in page.asked)
