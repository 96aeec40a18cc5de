"""A studio with its page in this process, and a real headless Chromium that looks at it.

Whatever the browser does is watched: a message in its console, or a request that would leave the machine,
fails the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = [
    f"--{flag}"
    for flag in (
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
    )
]
_NEEDED = {"gradio": "pip install 'atelier[studio]'", "playwright": "pip install playwright"}
#: Milliseconds that a step may take on a busy machine.
PATIENCE = 100_000


@dataclass
class Served:
    """A studio that was started by its command, and its address."""

    url: str
    process: subprocess.Popen[str]
    folder: Path

    def get(self, path: str) -> Any:
        """The JSON at an address of the HTTP interface."""
        with urllib.request.urlopen(f"{self.url}/api/{path}") as answer:
            return json.load(answer)

    def end(self) -> None:
        """End the server, as Ctrl-C does, and the trainings, which would go on."""
        for facts in self.folder.glob("trainings/*/studio.json"):
            with contextlib.suppress(OSError, KeyError):
                os.kill(json.loads(facts.read_text())["pid"], signal.SIGKILL)
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0
        assert self.process.stderr is not None
        self.process.stderr.close()


def start(folder: Path) -> Served:
    """Start `atelier studio` in a folder, at a free port."""
    command = [sys.executable, "-m", "atelier", "studio", "--port", "0", "--folder", str(folder)]
    mine = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=mine)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://[\d.:]+", line)
    assert found, line + process.stderr.read()
    return Served(found[0], process, folder)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One studio for all tests of the page."""
    for package, remedy in _NEEDED.items():
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: {remedy}")
    running = start(tmp_path_factory.mktemp("studio"))
    yield running
    running.end()


@pytest.fixture(scope="session")
def browser(served: Served) -> Iterator[Any]:
    """Chromium; the tests are skipped where it is not installed."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield running
        running.close()


@dataclass
class Watch:
    """What the browser complained of, and where it wanted to go."""

    home: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def attach(self, page: Any) -> None:
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))

    def _said(self, kind: str, text: str) -> None:
        if kind == "error":
            self.complaints.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.home, "data:", "blob:")):
            self.strangers.append(url)


@dataclass
class Hand:
    """A user at one window: what tests do on the page, by the ids of its parts."""

    page: Any

    def go_to(self, name: str) -> None:
        """Open a tab, from the overflow menu where the window is narrow."""
        tab = self.page.get_by_role("tab", name=name, exact=True).first
        if tab.is_visible():
            tab.click()
        else:
            menu = self.page.locator(".overflow-menu").first  # that of the tabs inside a tab comes later
            menu.locator("> button").click()
            menu.locator(".overflow-dropdown button", has_text=name).click()

    def give_photo(self, part: str, path: Path) -> None:
        """Choose a file in a photo component, and wait until it is taken in."""
        self.page.locator(f"#{part} input[type=file]").set_input_files(str(path))
        self.page.wait_for_selector(f"#{part} .at-photo")

    def set_number(self, form: str, name: str, value: float) -> None:
        """Type a number into a field of a form."""
        box = self.page.locator(f"#{form} [data-name={name}] input[type=number]")
        box.fill(str(value))
        box.press("Tab")

    def choose(self, form: str, name: str, option: str) -> None:
        """Choose an option of a field that has its options in a row."""
        self.page.locator(f"#{form} [data-name={name}] .at-segments label", has_text=option).click()

    def choose_method(self, tab: str, name: str) -> None:
        """Open the panel of the methods, and choose one."""
        self.page.locator(".label-wrap:visible", has_text="Method and its knobs").click()
        self.page.locator(f"#{tab}-method input").click()
        self.page.locator(f"#{tab}-method [role=option]", has_text=f"{name} ·").first.click()

    def source(self, selector: str) -> str:
        """The address of a picture on the page."""
        return str(self.page.locator(selector).get_attribute("src"))

    def download(self, selector: str, folder: Path) -> Path:
        """Click on a link or button, and keep the file that comes."""
        with self.page.expect_download() as waiting:
            self.page.locator(selector).click()
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    def wait_for(self, check: Callable[[], Any]) -> Any:
        """The first true answer of `check`."""
        end = time.monotonic() + PATIENCE / 1000
        while not (found := check()):
            assert time.monotonic() < end, "it did not happen in time"
            self.page.wait_for_timeout(100)
        return found


@pytest.fixture
def just_started(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The page of a studio of its own, opened in the moment in which the studio answers."""
    running = start(tmp_path / "fresh")
    context, watch = browser.new_context(), Watch(running.url)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    watch.attach(page)
    page.goto(running.url)
    yield page
    context.close()
    running.end()
    assert not watch.complaints
    assert not watch.strangers


@pytest.fixture
def opened(served: Served, browser: Any) -> Iterator[Callable[..., Hand]]:
    """Opens the page in a window of its own: `opened(width=390, color_scheme="dark")`."""
    contexts, watch = [], Watch(served.url)

    def open_page(width: int = 1280, height: int = 800, **options: Any) -> Hand:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        watch.attach(page)
        page.goto(served.url)
        page.wait_for_selector("#paint-shelf .at-tile")
        return Hand(page)

    yield open_page
    for context in contexts:
        context.close()
    assert not watch.complaints
    assert not watch.strangers


@pytest.fixture
def hand(opened: Callable[..., Hand]) -> Hand:
    """The page in a usual window."""
    return opened()


@pytest.fixture(scope="session")
def small_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture file, 96 x 72: a red disc on a blue ground with grain."""
    from PIL import Image

    y, x = np.mgrid[0:72, 0:96]
    picture = np.full((72, 96, 3), (40.0, 70.0, 150.0))
    picture[(x - 48) ** 2 + (y - 36) ** 2 < 20**2] = (200, 50, 40)
    picture += np.random.default_rng(1).normal(0, 6, picture.shape)
    path = tmp_path_factory.mktemp("photos") / "disc.png"
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)
    return path
