"""The page's address from the first moment: a start page, then the full page, or why there is none."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from PIL import Image

from atelier import examples
from atelier.core.errors import ResourceError
from atelier.studio.page.opening import Opening
from atelier.studio.pictures import READY
from atelier.studio.service import Studio

told: list[str] = []


def full() -> FastAPI:
    """A page that tells when it starts and ends."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        told.append("started")
        yield
        told.append("ended")

    app = FastAPI(lifespan=lifespan)

    @app.get("/", response_class=HTMLResponse)
    def first() -> str:
        return "<html><head><title>full</title></head></html>"

    return app


Opened = Callable[[Callable[[Studio], FastAPI]], contextlib.AbstractContextManager[Any]]


@pytest.fixture
def opened(server: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Serves a studio with a page that is built so."""
    monkeypatch.setattr(studio, "warm", lambda: told.append("warm"))
    told.clear()
    return lambda build: server(studio, page=Opening(studio, build))


def until(client: Any, state: str) -> None:
    for _ in range(500):
        if client.get("/api/health").json["page"] == state:
            return
        threading.Event().wait(0.02)
    raise AssertionError(state)


def test_the_start_page_answers_until_the_full_page_stands(opened: Opened) -> None:
    may_end = threading.Event()

    def build(_: Studio) -> FastAPI:
        may_end.wait(30)
        return full()

    with opened(build) as client:
        first = client.get("/")
        assert first.status == 200
        assert all(name in first.body.decode() for name in ("start-photo", *examples.STYLES))
        assert client.get("/api/health").json["page"] == "opening"
        early = client.get("/config")
        assert (early.status, early.headers["retry-after"]) == (503, "2")
        assert client.get("/api/shelf").status == 200
        may_end.set()
        until(client, "ready")
        stands = client.get("/").body.decode()
        assert stands.startswith("<html><head><title>full</title><script>")
        assert "start-photo" not in stands
        assert told == ["started", "warm"]
    assert told[-1] == "ended"


def test_a_page_that_cannot_be_made_says_why_and_the_interface_works(opened: Opened) -> None:
    def build(_: Studio) -> FastAPI:
        raise ResourceError("gradio is broken: install it again")

    with opened(build) as client:
        until(client, "failed")
        assert client.get("/page").error == "gradio is broken: install it again"
        assert client.get("/").status == 200
        assert client.get("/api/shelf").status == 200


def test_names_of_own_styles_cannot_leave_the_data_of_the_start_page(opened: Opened) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    with opened(lambda _: full()) as client:
        client.studio.pictures.keep(buffer.getvalue(), "</script><script>alert(1)<!--.png")
        from atelier.studio.page.opening import start_page

        assert "alert(1)" in start_page(client.studio)
        assert "<script>alert" not in start_page(client.studio)


@pytest.mark.parametrize("kind", ["style", "photo"])
def test_every_example_has_its_small_picture_at_hand(kind: str, studio: Studio) -> None:
    for name in examples.STYLES if kind == "style" else examples.PHOTOS:
        ready = Image.open(io.BytesIO(studio.pictures.thumbnail(f"{kind}:{name}", READY)))
        assert max(ready.size) == READY, name
    assert not list((studio.folder / "thumbnails").iterdir())


@pytest.mark.slow
def test_the_small_pictures_are_those_of_the_styles(studio: Studio) -> None:
    """Where an example changes on purpose, save it 384 px wide, reduced to 160, into studio/shelf."""
    import numpy as np

    for name in (f"style:{name}" for name in examples.STYLES):
        small = [
            np.asarray(Image.open(io.BytesIO(studio.pictures.thumbnail(name, side))).resize((64, 64)), float)
            for side in (READY, READY + 1)
        ]
        assert np.abs(small[0] - small[1]).mean() < 24, name
