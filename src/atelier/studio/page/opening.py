"""The page's address: a small start page of our own at once, and Gradio's page as soon as it stands.

Importing Gradio takes four seconds, so it happens while the server already answers. The start page takes a
photo and styles, looks at `/api/health`, and goes over by itself with what was chosen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio

from atelier.core.errors import AtelierError
from atelier.core.privacy import keep_private
from atelier.studio.jobs import as_error

if TYPE_CHECKING:
    from fastapi import FastAPI

    from atelier.studio.service import Studio

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("base", "form", "pickers", "viewer", "mask", "place", "dataset")
_FIRST = ("base", "pickers", "viewer", "start")

_log = logging.getLogger(__name__)


class Opening:
    """An ASGI application for the root of a server, whose `lifespan` brings the full page.

    `state` is "opening", "ready" or "failed"; `build` makes the full page in a thread of its own.
    """

    def __init__(self, studio: Studio, build: Callable[[Studio], FastAPI] | None = None) -> None:
        self.studio, self._build = studio, build or full_page
        self.state: Literal["opening", "ready", "failed"] = "opening"
        self.error = ""
        self._app: FastAPI | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer by the full page where it stands, else by the start page."""
        from starlette.responses import HTMLResponse, JSONResponse, Response

        if self._app is not None:
            first = scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET"
            await (_arriving(self._app, scope, receive, send) if first else self._app(scope, receive, send))
            return
        answer: Response
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            answer = HTMLResponse(start_page(self.studio), headers={"Cache-Control": "no-store"})
        else:
            text = self.error or "the page is not there yet: ask again in some seconds"
            answer = JSONResponse({"error": text}, 503, headers={"Retry-After": "2"})
        await answer(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Make the full page while the server answers, and end it with the server."""
        ended = asyncio.Event()
        task = asyncio.create_task(self._open(ended))
        yield
        ended.set()
        if self.state == "opening":
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _open(self, ended: asyncio.Event) -> None:
        try:
            app = await anyio.to_thread.run_sync(self._build, self.studio, abandon_on_cancel=True)
        except Exception as error:  # the last place where it can become a sentence
            _log.error("the page cannot be opened", exc_info=error)
            self.state, self.error = "failed", _sentence(error)
            return
        async with app.router.lifespan_context(app):
            self._app, self.state = app, "ready"
            self.studio.warm()
            await ended.wait()


def _sentence(error: Exception) -> str:
    if isinstance(error, AtelierError):
        return str(as_error(error))
    return (
        f"the page cannot be opened ({type(error).__name__}), but the HTTP interface works: "
        "pip install 'atelier[studio]' --force-reinstall"
    )


def full_page(studio: Studio) -> FastAPI:
    """The page of `studio`, made with Gradio, as an application of its own."""
    keep_private()
    import gradio as gr
    from fastapi import FastAPI

    from atelier.studio.page import inputs, shell

    os.environ["GRADIO_TEMP_DIR"] = str(inputs.incoming(studio))
    shutil.rmtree(inputs.incoming(studio), ignore_errors=True)  # what an earlier page did not take in
    app: FastAPI = gr.mount_gradio_app(
        FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
        shell.build(studio),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=studio.limits.upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=shell.theme(),
        css=style_sheet(),
        head=scripts(),
    )
    return app


async def _arriving(app: FastAPI, scope: Message, receive: Receive, send: Send) -> None:
    """Gradio's document with `arrive.js` in its head; what Gradio itself adds there runs too late."""
    plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    head: Message = {}
    body = bytearray()

    async def changed(message: Message) -> None:
        if message["type"] == "http.response.start":
            head.update(message)
            return
        body.extend(message.get("body", b""))
        if not message.get("more_body", False):
            script = f"<script>{_asset('arrive.js')}</script>".encode()
            whole = bytes(body).replace(b"</head>", script + b"</head>", 1)
            kept = [(name, value) for name, value in head["headers"] if name.lower() != b"content-length"]
            await send({**head, "headers": [*kept, (b"content-length", str(len(whole)).encode())]})
            await send({"type": "http.response.body", "body": whole})

    await app({**scope, "headers": plain}, receive, changed)


def scripts(names: tuple[str, ...] = _SCRIPTS) -> str:
    """The code of components, for the head of a page."""
    return "".join(f"<script>{_asset(f'{name}.js')}</script>" for name in names)


def style_sheet() -> str:
    """The page's style sheet."""
    return _asset("studio.css")


def start_page(studio: Studio) -> str:
    """The page until Gradio's stands: a photo and styles can be chosen already."""
    facts = {
        "samples": [{"id": one.id, "title": one.sentence} for one in studio.pictures.photos()],
        "styles": [
            {"id": one.id, "name": Path(one.name).stem if one.own else one.name, "title": one.sentence}
            for one in studio.pictures.shelf()
        ],
    }
    # An own style may have any name, so no name may end the script.
    return (
        _asset("start.html")
        .replace("{{style}}", style_sheet())
        .replace("{{facts}}", json.dumps(facts).replace("<", "\\u003c"))
        .replace("{{scripts}}", scripts(_FIRST))
    )


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
