"""The page in a real browser, opened as a file: what it paints, and that it asks for nothing."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atelier.core.errors import InputError, ResourceError
from atelier.exports import networks, onnx, web

Settings = Callable[[str], dict[str, Any]]

# the text of the page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like onnxruntime-web."""
    package = tmp_path / "package"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text('{"version": "9.8.7"}')
    for name in web.PARTS:
        (package / "dist" / name).write_text(f"// {name} </script>")
    return package


def test_the_page_is_one_file_that_names_no_other(
    folder: Path, tmp_path: Path, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "encode", lambda exported: b"the network" * 100)
    exported = networks.load("cin", settings=tiny("cin"))
    path = tmp_path / "page.html"
    assert web.write(exported, path, web.runtime(folder), check=False) is None
    text = path.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "connect-src 'none'" in text
    assert "{{" not in text.replace("${{", "")
    packed = re.search(r'<script id="network"[^>]*>([^<]+)</script>', text)
    assert packed is not None
    assert gzip.decompress(base64.b64decode(packed[1])) == b"the network" * 100
    settings = re.search(r'<script id="settings"[^>]*>(.+?)</script>', text)
    assert settings is not None
    facts = json.loads(settings[1])
    assert [one["labels"] for one in facts["inputs"]] == [[], ["dawn", "noon", "dusk"]]
    assert "onnxruntime-web 9.8.7" in facts["facts"]["Runs on"]
    web.write(exported, tmp_path / "again.html", web.runtime(folder), check=False)
    assert (tmp_path / "again.html").read_text() == text


def test_a_folder_without_the_runtime_and_a_machine_without_npm_are_told_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "dist" / web.WASM).unlink()
    with pytest.raises(InputError, match="lacks"):
        web.runtime(folder)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ResourceError, match="install npm"):
        web.runtime()


def test_npm_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched() -> dict[str, bytes]:
        asked.append(1)
        return {name: name.encode() for name in web.PARTS}

    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    monkeypatch.setattr(web, "_fetched", fetched)
    assert web.runtime() == web.runtime()
    assert len(asked) == 1


# the page in a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)
#: Milliseconds that a step may take on a busy machine.
PATIENCE = 200_000


@dataclass
class Opened:
    """A page that is open, and what the browser complained of and asked for."""

    page: Any
    home: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def says(self, pattern: str) -> None:
        """Wait until the page says something like this."""
        self.page.locator("#status", has_text=re.compile(pattern)).wait_for(timeout=PATIENCE)

    def paint(self) -> None:
        self.page.locator("#paint:enabled").click(timeout=PATIENCE)
        self.says("Painted .* in|did not work|is the least")

    def saved(self) -> np.ndarray:
        """The picture that the page saves, (H, W, 3), 0..255."""
        with self.page.expect_download() as download:
            self.page.click("#save")
        return np.asarray(Image.open(download.value.path()).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> web.Runtime:
    """onnxruntime-web, from npm."""
    for package in ("onnxruntime", "onnxscript", "playwright"):
        pytest.importorskip(package)
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    patch = pytest.MonkeyPatch()
    patch.setenv("ATELIER_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    try:
        return web.runtime()
    except ResourceError as error:
        pytest.skip(str(error))
    finally:
        patch.undo()


@pytest.fixture(scope="module")
def browser(engine: web.Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """Chromium, and the log of its network."""
    from playwright.sync_api import sync_playwright

    log = tmp_path_factory.mktemp("log") / "net.json"
    flags = [*(f"--{flag}" for flag in _FLAGS), f"--log-net-log={log}"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running, log
        if running.is_connected():
            running.close()


@pytest.fixture(scope="module")
def made(
    engine: web.Runtime, tiny: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, bytes]]:
    """The page of a method with tiny weights, and its network; each is made once."""
    folder, kept = tmp_path_factory.mktemp("pages"), dict[str, tuple[Path, bytes]]()

    def page(name: str) -> tuple[Path, bytes]:
        if name not in kept:
            exported = networks.load(name, settings=tiny(name))
            path = folder / f"{name}.html"
            web.write(exported, path, engine)
            packed = re.search(r'<script id="network"[^>]*>([^<]+)<', path.read_text())
            assert packed is not None
            kept[name] = path, gzip.decompress(base64.b64decode(packed[1]))
        return kept[name]

    return page


@pytest.fixture
def opened(browser: tuple[Any, Path], made: Callable[[str], tuple[Path, bytes]]) -> Iterator[Any]:
    """Opens the page of a method; at the end nothing was complained of, and nothing was asked for."""
    contexts, pages = [], []

    def start(name: str, width: int = 1440) -> Opened:
        context = browser[0].new_context(viewport={"width": width, "height": 900}, accept_downloads=True)
        contexts.append(context)
        one = Opened(context.new_page(), made(name)[0].as_uri())
        pages.append(one)
        one.page.on("console", lambda said: said.type == "error" and one.complaints.append(said.text))
        one.page.on("pageerror", lambda error: one.complaints.append(str(error)))
        context.on("request", lambda request: one.strangers.append(request.url))
        one.page.goto(one.home)
        return one

    yield start
    for one in pages:
        assert not one.complaints
        assert not [url for url in one.strangers if not url.startswith((one.home, "blob:", "data:"))]
    for context in contexts:
        context.close()


def pixels(height: int, width: int, seed: int) -> np.ndarray:
    """A picture, (H, W, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    shades = np.stack([np.sin(x / 9 + seed), np.cos(y / 7), np.sin((x + y) / 11)], 2)
    return (127 + 100 * shades).astype(np.uint8)


def upload(opened: Opened, name: str, image: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    file = {"name": f"{name}.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    opened.page.set_input_files(f"#{name}-file", file)


def network(data: bytes, **inputs: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of it in Python, (H, W, 3), 0..255."""
    session = onnx._session(data)
    feeds = {name: value if value.ndim == 2 else _planes(value) for name, value in inputs.items()}
    return np.asarray(session.run(None, feeds)[0])[0].transpose(1, 2, 0) * 255


def _planes(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None]).astype(np.float32) / 255


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_paints_what_the_network_paints(opened: Any, made: Any) -> None:
    photo, style = pixels(67, 90, 0), pixels(64, 51, 2)
    here = opened("adain")
    here.says("Choose a photo and a style picture")
    upload(here, "content", photo)
    upload(here, "style", style)
    here.paint()
    wanted = network(made("adain")[1], content=photo, style=style)
    assert np.abs(here.saved() - wanted).max() <= 1.01  # what rounding to 8 bits may do, and float32
    assert np.abs(wanted - photo).max() > 10
    here.page.locator("#strength").fill("0")
    assert np.array_equal(here.saved(), photo)
    here.page.locator("#strength").fill("50")
    assert np.abs(here.saved() - (wanted + photo) / 2).max() <= 1.51


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_trained_style_is_chosen_by_name(opened: Any, made: Any) -> None:
    photo = pixels(48, 64, 1)
    here = opened("cin")
    upload(here, "content", photo)
    here.page.select_option("#first", label="noon")
    here.paint()
    wanted = network(made("cin")[1], content=photo, shares=np.eye(3, dtype=np.float32)[1:2])
    assert np.abs(here.saved() - wanted).max() <= 1.01


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_other_random_numbers_give_another_picture(opened: Any) -> None:
    here = opened("texture_nets")
    upload(here, "content", pixels(64, 64, 1))
    here.paint()
    first = here.saved()
    here.page.click("#again")
    here.says("Painted")
    here.page.locator("#paint:enabled").wait_for(timeout=PATIENCE)
    assert np.abs(here.saved() - first).max() > 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_bad_pictures_get_a_sentence(opened: Any) -> None:
    here = opened("cin")
    here.says("Choose a photo")
    here.page.set_input_files(
        "#content-file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    here.says("notes.txt is not a picture")
    upload(here, "content", pixels(12, 300, 0))
    here.paint()
    here.says("The photo is 300 × 12 here; 32 pixels is the least")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_its_window(width: int, opened: Any) -> None:
    here = opened("adain", width)
    upload(here, "content", pixels(300, 400, 0))
    upload(here, "style", pixels(64, 64, 0))
    here.page.select_option("#size", "256")
    here.paint()
    metrics = here.page.context.new_cdp_session(here.page).send("Page.getLayoutMetrics")
    assert metrics["cssContentSize"]["width"] <= width


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_browser_went_nowhere(opened: Any, browser: tuple[Any, Path]) -> None:
    """Last: the log of Chromium's network is complete only when it has ended."""
    here = opened("cin")
    here.says("Choose a photo")
    running, log = browser
    control = "http://127.0.0.1:59999/control.png"  # nobody answers; it shows that the log sees pages ask
    other = running.new_page()
    other.set_content(f'<img src="{control}">')
    other.close()
    running.close()
    # The browser's own errands, such as looking for updates, come from no page.
    asked = {
        facts["url"]
        for facts in (event.get("params", {}) for event in json.loads(log.read_text())["events"])
        if facts.get("initiator", "not an origin") != "not an origin" and "url" in facts
    }
    assert {url for url in asked if re.match("(https?|wss?):", url)} == {control}
