"""A studio in a temporary folder, and a server of it on a free port, asked by plain HTTP."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from atelier.methods import registry
from atelier.studio.http import application
from atelier.studio.limits import Limits
from atelier.studio.service import Studio
from atelier.studio.serving import bound

LIMITS = Limits(
    upload_bytes=2**20, request_bytes=3 * 2**20, pixels=200_000, side=256, upload_seconds=0.5, queue=250
)


def png(width: int = 24, height: int = 16, seed: int = 0) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return encoded(Image.fromarray(pixels))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def multipart(fields: Sequence[tuple[str, Any]]) -> tuple[bytes, str]:
    """A form: values are texts, or (file name, bytes)."""
    parts = []
    for name, value in fields:
        head = f'Content-Disposition: form-data; name="{name}"'
        if isinstance(value, tuple):
            head += f'; filename="{value[0]}"\r\nContent-Type: application/octet-stream'
        data = value[1] if isinstance(value, tuple) else str(value).encode("utf-8", "surrogatepass")
        parts.append(f"--frontier\r\n{head}\r\n\r\n".encode() + data + b"\r\n")
    return b"".join(parts) + b"--frontier--\r\n", "multipart/form-data; boundary=frontier"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class Client:
    """Asks a server; each request has a connection of its own."""

    def __init__(self, port: int, studio: Studio) -> None:
        self.port, self.studio = port, studio

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            got = connection.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            connection.close()

    def post(self, path: str, fields: Sequence[tuple[str, Any]], **headers: str) -> Answer:
        body, kind = multipart(fields)
        return self.ask(path, method="POST", body=body, headers={"Content-Type": kind, **headers})

    def stylize(self, *fields: tuple[str, Any]) -> Answer:
        """Ask for a picture, and wait for it as long as a busy machine needs unless told otherwise."""
        waits = any(name == "wait" for name, _ in fields)
        return self.post("/api/stylize", fields if waits else [*fields, ("wait", "60")])

    def get(self, path: str, **query: Any) -> Answer:
        return self.ask(f"{path}?{urllib.parse.urlencode(query)}" if query else path)


def serving(studio: Studio, **options: Any) -> Iterator[Client]:
    with bound("127.0.0.1", 0) as listening:
        app = application(studio, **options)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Client(listening.getsockname()[1], studio)
        finally:
            server.should_exit = True
            thread.join(10)
            studio.close()


@pytest.fixture
def server() -> Callable[..., contextlib.AbstractContextManager[Client]]:
    """Serves a studio: `with server(studio, page=...) as client`."""
    return contextlib.contextmanager(serving)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = Studio(tmp_path / "studio", limits=LIMITS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "weights").mkdir()
    (folder / "weights" / "mine.safetensors").write_bytes(b"no weights")
    (folder / "weights" / "old.pth").write_bytes(b"a pickle")
    yield from serving(Studio(folder / "studio", weights=folder / "weights", limits=LIMITS))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that asks for a token."""
    studio = Studio(tmp_path_factory.mktemp("guarded"), limits=LIMITS)
    yield from serving(studio, token="open-sesame", host="0.0.0.0")


#: A method that takes as long as a test wants, and is darker with each step.
SLOW = '''
"""Dims the photo step by step."""
from __future__ import annotations

import time
from pathlib import Path

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.methods.base import Method, Paper, Takes


class Dim(Method):
    """Dims the photo step by step."""

    name = "dim"
    paper = Paper("Nobody", 2026, "Dimming", "https://example.org")
    takes = Takes(styles=("picture",), least=0, most=1)

    class Knobs(AnyKnobs):
        steps: int = knob(100, "Steps.", ge=1)
        pause: float = knob(0.01, "Seconds for each step.", ge=0)

    def transfer(self, job, knobs):
        picture = job.content
        for step in range(knobs.steps):
            time.sleep(knobs.pause)
            picture = 0.99 * picture
            if not job.progress.report(step + 1, knobs.steps, stage="dimming", preview=lambda: picture):
                break
        return picture
'''


@pytest.fixture
def dim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of that method."""
    folder = tmp_path / "baseline"
    folder.mkdir()
    (folder / "dim.py").write_text(SLOW)
    monkeypatch.setenv("ATELIER_METHODS", str(folder))
    registry.list_methods.cache_clear()
    yield "dim"
    registry.list_methods.cache_clear()
