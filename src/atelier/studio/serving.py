"""The server: binds its port first, so that a taken one is told in a sentence, and answers until Ctrl-C."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.core import extras
from atelier.core.errors import OutputError, UsageError
from atelier.core.privacy import keep_private
from atelier.studio.guard import is_loopback
from atelier.studio.limits import Limits
from atelier.studio.service import Studio

if TYPE_CHECKING:
    from fastapi import FastAPI

    from atelier.studio.http import Page


def token_for(host: str, token: str | None) -> str:
    """The token that requests need: the one given, a new one where others can reach the server, or none.

    >>> token_for("127.0.0.1", None)
    ''
    >>> len(token_for("0.0.0.0", None)), token_for("0.0.0.0", "")
    (22, '')
    """
    if token is not None:
        if token and (
            len(token) < 8 or not token.isascii() or not all(c.isalnum() or c in "-_" for c in token)
        ):
            raise UsageError("the token needs 8 letters, digits, - or _, or more; '' lets everyone in")
        return token
    return "" if is_loopback(host) else secrets.token_urlsafe(16)


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    weights: Path | None = None,
    token: str | None = None,
    page: Callable[[Studio], Page] | None = None,
    limits: Limits | None = None,
) -> Iterator[str]:
    """Serve a studio until Ctrl-C, with the `page` that is made for it; yields what to say.

    Raises ResourceError where the extra `studio` is not installed, and OutputError for an address or a port
    that cannot be used, or a folder that another studio uses.
    """
    keep_private()
    for package in ("fastapi", "python_multipart", "uvicorn"):
        extras.require(package, "studio", "the studio")
    from atelier.studio.http import application

    word = token_for(host, token)
    with bound(host, port) as listening:
        studio = Studio(folder, weights=weights, limits=limits)
        try:
            opening = page(studio) if page else None
            app = application(studio, token=word, host=host, page=opening)
            if opening is None:
                studio.warm(after=1.0)
            yield from _welcome(studio, host, listening.getsockname()[1], given=token, word=word)
            _run(app, studio, listening)
        except KeyboardInterrupt:  # uvicorn raises it again after it has closed
            yield "stopped; trainings go on"
        finally:
            studio.close()


def _run(app: FastAPI, studio: Studio, listening: socket.socket) -> None:
    """Answer until a signal ends it."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            studio.queue.end()  # whoever waits for a picture gets the best so far
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # an open page is no error
            await super().shutdown(sockets)

    settings = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        ws="none",
    )
    Server(settings).run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OutputError."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(2048)
    except OSError as error:
        made.close()
        raise OutputError(
            f"the studio cannot listen at {host}:{port} ({error.strerror}): choose another --host or --port"
        ) from error
    return made


def _welcome(studio: Studio, host: str, port: int, *, given: str | None, word: str) -> Iterator[str]:
    shown = f"[{host}]" if ":" in host else host
    secret = f"?token={word}" if word and not given else ""
    yield f"http://{shown}:{port}/{secret}  (Ctrl-C ends it; pictures are kept in {studio.folder})"
    if not is_loopback(host) and not word:
        yield (
            "note: there is no token, so everyone who can reach this address can use the studio and see and "
            "delete its pictures"
        )
    running = [run.title for run in studio.trainings.all() if not run.finished]
    if running:
        yield f"trainings that were found again: {', '.join(running)}"
