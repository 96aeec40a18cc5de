"""The HTTP interface: one request makes a picture; long work becomes a job with events.

    curl -F content=@harbour.jpg -F style=@waves.jpg http://127.0.0.1:7860/api/stylize > out.png

`/api/openapi.json` describes everything. An error is JSON, `{"error": "one sentence"}`, with a status of its
own (`status_of`). Requests pass `guard.Guard` first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar

import anyio
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from atelier import __version__
from atelier.core.errors import AtelierError, UsageError
from atelier.studio import schema
from atelier.studio.gallery import FORMATS, MEDIA
from atelier.studio.guard import Guard, status_of
from atelier.studio.jobs import as_error
from atelier.studio.limits import NotHereError
from atelier.studio.pictures import jpeg
from atelier.studio.reading import asked_for, uploaded
from atelier.studio.service import Studio

#: Seconds between two looks at a job, and between two signs of life of an event stream.
_POLL, _ALIVE = 0.05, 15.0
T = TypeVar("T")
#: Statuses of requests that may not have been read to their end.
_CUT = (400, 408, 413, 415)


class Page(Protocol):
    """An ASGI application for every address that is not of the interface."""

    state: Literal["opening", "ready", "failed"]

    def lifespan(self, app: FastAPI) -> contextlib.AbstractAsyncContextManager[None]:
        """What goes on beside the server, from its start to its end."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""


class Answer(JSONResponse):
    """JSON in ASCII, because names and words may hold what UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        """The bytes of an answer."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def application(
    studio: Studio, *, token: str = "", host: str = "127.0.0.1", page: Page | None = None
) -> FastAPI:
    """The interface of `studio`, and its `page` at every other address.

    With a `token`, every request needs it; `host` is where the server listens.
    """
    app = FastAPI(
        title="atelier studio",
        version=__version__,
        description="Image style transfer by every method of atelier.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
        default_response_class=Answer,
        responses=schema.ERRORS,
        lifespan=page.lifespan if page else None,
    )
    app.add_middleware(Guard, limits=studio.limits, token=token, host=host)
    _explain_errors(app)
    _painting(app, studio)
    _jobs(app, studio)
    _gallery(app, studio)
    _lists(app, studio, page)
    if page is not None:
        app.mount("/", page)
    return app


def _explain_errors(app: FastAPI) -> None:
    async def of_ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, AtelierError)
        return refused(status_of(error), str(as_error(error)))

    async def of_values(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = str(first["loc"][-1]) if first["loc"] else "the request"
        reason = str(first["msg"]).replace("Input should", "it should").removeprefix("Value error, ")
        return refused(422, f"{name} = {str(first.get('input'))[:80]!r} is not allowed: {reason}")

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        says = {
            404: f"there is nothing at {request.url.path[:80]}: see /api/openapi.json",
            405: f"{request.method[:10]} is not allowed at {request.url.path[:80]}: see /api/openapi.json",
        }
        text = says.get(error.status_code, f"the request cannot be read ({error.detail})")
        return refused(error.status_code, text, error.headers)

    async def cut(_: Request, error: Exception) -> Response:
        return refused(400, "the connection was closed before the request was complete")

    async def other(_: Request, error: Exception) -> Response:
        return refused(500, str(as_error(error)))

    app.add_exception_handler(AtelierError, of_ours)
    app.add_exception_handler(RequestValidationError, of_values)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(ClientDisconnect, cut)
    app.add_exception_handler(Exception, other)


def refused(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as an answer. Where the rest of a request may still come, the connection ends with it."""
    more = {429: {"Retry-After": "5"}}.get(status, {"Connection": "close"} if status in _CUT else {})
    return Answer({"error": text}, status, headers={**more, **(headers or {})})


def _painting(app: FastAPI, studio: Studio) -> None:
    one_by_one = anyio.CapacityLimiter(1)  # jobs enter the queue in the order in which requests are complete

    async def in_turn(work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=one_by_one)

    @app.post("/api/stylize", tags=["paint"], openapi_extra=schema.STYLIZE, responses=schema.PICTURE_OR_JOB)
    async def stylize(request: Request) -> Response:
        """Paint a picture.

        The answer is the picture if it is finished within `wait` seconds (10 unless the form says
        otherwise), else the job, status 202. Pictures are files, or ids of pictures that are here. Any
        control (size, strength, colour, seed, ...) and any knob of the method is a field of its name; see
        /api/methods. A knob that names a file takes the file.
        """
        asked = await asked_for(request, studio.limits)
        job = await in_turn(lambda: studio.paint(asked.inputs, asked.settings))
        try:
            await _finished(job, asked.wait, request)
        except ClientDisconnect:
            job.cancel()
            raise
        if not job.finished:
            headers = {"Location": f"/api/jobs/{job.id}"}
            return Answer(job.facts(), 202, headers=headers)
        return await anyio.to_thread.run_sync(lambda: _picture(studio, job, asked.format, asked.bits))

    @app.post("/api/pictures", tags=["paint"], status_code=201, openapi_extra=schema.UPLOAD)
    async def add(request: Request) -> schema.Id:
        """Send a picture once, and use its id in many requests."""
        name, data = await uploaded(request, studio.limits)

        def kept() -> str:
            id = studio.pictures.add(data, name)
            studio.pictures.open(id)
            return id

        return schema.Id(id=await in_turn(kept))

    @app.get("/api/pictures/{id}/thumbnail", tags=["paint"], responses=schema.JPEG, response_class=Response)
    def thumbnail(id: str, side: int = Query(256, ge=16, le=2048)) -> Response:
        """A small JPEG of a picture, an example or a style of the shelf, at most `side` pixels long."""
        kept = {"Cache-Control": "private, max-age=86400"}  # an id never stands for another picture
        return Response(studio.pictures.thumbnail(id, side), media_type="image/jpeg", headers=kept)


async def _finished(job: Any, seconds: float, request: Request) -> None:
    """Wait for a job. Raises ClientDisconnect when nobody waits for the answer any more."""
    end = time.monotonic() + seconds
    while not job.finished and time.monotonic() < end:
        await asyncio.sleep(_POLL)
        if await request.is_disconnected():
            raise ClientDisconnect


def _picture(studio: Studio, job: Any, format: str, bits: int | None) -> Response:
    """The picture of a finished job. Raises the error that the job ended with."""
    if job.failure is not None:
        raise job.failure
    if not job.made:
        raise UsageError("the job was cancelled before there was a picture")
    made = job.made[0]
    headers = {
        "X-Atelier-Job": job.id,
        "X-Atelier-Picture": made.id,
        "X-Atelier-Seconds": str(made.seconds),
        "Content-Disposition": f'inline; filename="{made.id}.{format}"',
    }
    data = studio.gallery.file(made.id, format, bits=bits)
    return Response(data, media_type=FORMATS[format], headers=headers)


def _jobs(app: FastAPI, studio: Studio) -> None:
    @app.get("/api/jobs", tags=["jobs"])
    def jobs(limit: int = Query(100, ge=1, le=1000)) -> schema.Jobs:
        """The jobs and trainings, newest first."""
        return schema.Jobs(jobs=[schema.Job(**one.facts()) for one in studio.jobs[:limit]])

    @app.get("/api/jobs/{id}", tags=["jobs"])
    def job(id: str) -> schema.Job:
        """A job: its state, its progress, its results."""
        return schema.Job(**studio.job(id).facts())

    @app.post("/api/jobs/{id}/cancel", tags=["jobs"])
    def cancel(id: str) -> schema.Job:
        """Stop a job and keep the best picture so far; a training writes its network."""
        studio.cancel(id)
        return schema.Job(**studio.job(id).facts())

    @app.get("/api/jobs/{id}/preview", tags=["jobs"], responses=schema.JPEG, response_class=Response)
    def preview(id: str) -> Response:
        """The latest preview of a job, or the latest sample of a training, as JPEG."""
        return Response(_preview(studio.job(id)), media_type="image/jpeg")

    @app.get("/api/jobs/{id}/zip", tags=["jobs"], responses=schema.ZIP, response_class=Response)
    def packed(id: str, format: schema.Format = "png") -> Response:
        """All pictures of a job in one zip file."""
        return FileResponse(studio.zip(studio.job(id), format=format), media_type="application/zip")

    @app.get("/api/jobs/{id}/network", tags=["jobs"], responses=schema.FILE, response_class=Response)
    def network(id: str) -> Response:
        """The network of a training that is finished (safetensors)."""
        found = studio.trainings.find(id)
        if found is None or found.result is None:
            raise NotHereError("there is no network of this job: it is written when a training ends")
        return FileResponse(found.result, media_type="application/octet-stream")

    @app.get("/api/jobs/{id}/events", tags=["jobs"], responses=schema.EVENTS, response_class=Response)
    async def events(id: str, request: Request) -> Response:
        """The events of a job as they come (server-sent events), to its end.

        Each has the number of the event as its id and the job's state as JSON; a client that comes back with
        `Last-Event-ID` gets what it missed.
        """
        found, last = studio.job(id), request.headers.get("last-event-id", "")
        after = int(last) if last.isdecimal() and len(last) < 10 else -1
        return StreamingResponse(_told(studio, found, after), media_type="text/event-stream")


def _preview(job: Any) -> bytes:
    from atelier.images import Picture

    if job.kind == "train" and job.samples():
        data: bytes = job.sample(job.samples()[-1])
        return data
    if job.kind == "train" or job.preview is None:
        raise NotHereError("there is no preview of this job yet")
    return jpeg(Picture.of(job.preview))


async def _told(studio: Studio, job: Any, after: int) -> AsyncIterator[str]:
    spoke = time.monotonic()
    while True:
        # Before the notes are read, so that the last one is among them. A training may outlive the server.
        finished = job.finished or (job.kind == "train" and studio.queue.ended)
        for note in job.notes(after):
            after, spoke = note.number, time.monotonic()
            facts = json.dumps(vars(note), allow_nan=False)
            yield f"id: {note.number}\nevent: {note.state}\ndata: {facts}\n\n"
        if finished:
            return
        if time.monotonic() - spoke > _ALIVE:
            spoke = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(2 * _POLL if job.kind != "train" else 1.0)


def _gallery(app: FastAPI, studio: Studio) -> None:
    gallery = studio.gallery

    @app.get("/api/gallery", tags=["gallery"])
    def entries(
        search: str = Query("", max_length=200),
        limit: int = Query(100, ge=1, le=1000),
        before: str = Query("", max_length=40),
    ) -> schema.Entries:
        """What was made, newest first. `before` is the id of the last entry of the page before."""
        found = gallery.list(search=search, limit=limit, before=before)
        return schema.Entries(pictures=[schema.Entry(**one.facts()) for one in found])

    @app.get("/api/gallery/{id}", tags=["gallery"])
    def entry(id: str) -> schema.Entry:
        """One picture: when, how long, and the request that made it."""
        return schema.Entry(**gallery.get(id).facts())

    @app.get("/api/gallery/{id}/receipt", tags=["gallery"])
    def receipt(id: str) -> dict[str, Any]:
        """The recipe in the picture, from which `atelier replay` makes it again."""
        return gallery.receipt(id) or {}

    @app.get("/api/gallery/{id}/file", tags=["gallery"], responses=schema.PICTURE, response_class=Response)
    def file(
        id: str,
        format: schema.Format = "png",
        bits: schema.Bits | None = None,
        quality: int = Query(95, ge=1, le=100),
    ) -> Response:
        """The picture as a file with its receipt inside."""
        data = gallery.file(id, format, bits=bits, quality=quality)
        name = {"Content-Disposition": f'attachment; filename="{id}.{format}"'}
        return Response(data, media_type=FORMATS[format], headers=name)

    @app.get("/api/gallery/{id}/thumbnail", tags=["gallery"], responses=schema.JPEG, response_class=Response)
    def thumbnail(id: str) -> Response:
        """A small JPEG of the picture."""
        return Response(gallery.thumbnail(id), media_type="image/jpeg")

    @app.get(
        "/api/gallery/{id}/extra/{knob}", tags=["gallery"], responses=schema.FILE, response_class=Response
    )
    def extra(id: str, knob: str) -> Response:
        """An extra output of the picture, such as strokes as SVG."""
        data, suffix = gallery.artifact(id, knob)
        # As a download: an SVG that a browser shows could run scripts here.
        name = {"Content-Disposition": f'attachment; filename="{id}{suffix}"'}
        return Response(data, media_type=MEDIA.get(suffix, "application/octet-stream"), headers=name)

    @app.delete("/api/gallery/{id}", tags=["gallery"], status_code=204)
    def delete(id: str) -> None:
        """Delete a picture for good."""
        gallery.delete(id)


def _lists(app: FastAPI, studio: Studio, page: Page | None) -> None:
    @app.get("/api/methods", tags=["lists"])
    def methods() -> dict[str, Any]:
        """Every method with the JSON schema of its knobs, the controls, and the methods of the qualities."""
        return schema.methods()

    @app.get("/api/shelf", tags=["lists"])
    def shelf() -> schema.Shelf:
        """The styles and photos that are here, by id: drawn examples, and own styles."""
        pictures = studio.pictures
        return schema.Shelf(
            styles=[schema.Style(**vars(one)) for one in pictures.shelf()],
            photos=[schema.Style(**vars(one)) for one in pictures.photos()],
        )

    @app.get("/api/data/{id}/thumbnail", tags=["lists"], responses=schema.JPEG, response_class=Response)
    def data(id: str, name: str = Query(max_length=200)) -> Response:
        """A small JPEG of a picture to train on."""
        return Response(studio.trainings.data.thumbnail(id, name), media_type="image/jpeg")

    @app.get("/api/networks/{name}", tags=["lists"], responses=schema.FILE, response_class=Response)
    def network(name: str) -> Response:
        """A network that was made here, by training, merging or extracting (safetensors)."""
        made = studio.weights.made()
        if name not in made:
            raise NotHereError(f"there is no network '{name[:40]}' that was made here")
        if made[name].is_dir():
            raise UsageError(f"'{name}' is a pipeline of several files: see networks in the studio's folder")
        return FileResponse(made[name], media_type="application/octet-stream", filename=name)

    @app.get("/api/health", tags=["lists"])
    def health() -> schema.Health:
        """That the server is alive, its version, whether its page is there, and how much is waiting."""
        waiting = sum(one.state == "waiting" for one in studio.queue.all())
        return schema.Health(
            version=__version__,
            page=page.state if page else "none",
            waiting=waiting,
            weights=studio.weights.names(),
        )
