"""The page of a study, served on this machine: no account, no network, no names of methods in sight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from atelier.bench.study import CHECK, QUESTIONS, Study
from atelier.bench.table import Table
from atelier.core.errors import AtelierError, OutputError

PAGE = Path(__file__).parent / "site" / "study.html"
#: The largest answer that is read, in bytes.
_LONGEST = 4096


class Pictures:
    """The files that may be shown, by names that say nothing of their method."""

    def __init__(self, folder: Path) -> None:
        table = Table(folder)
        cells = table.rows("SELECT key, cells.file AS file FROM plan JOIN cells USING (key)")
        inputs = table.rows("SELECT kind, name, path, text FROM inputs")
        table.close()
        self.files = {f"/cell/{row['key']}": folder / row["file"] for row in cells}
        self.words = {row["name"]: row["text"] for row in inputs if row["text"]}
        self.addresses: dict[tuple[str, str], str] = {}
        for place, row in enumerate(row for row in inputs if row["path"]):
            address = f"/input/{place}"
            self.files[address] = Path(row["path"])
            self.addresses[row["kind"], row["name"]] = address


@contextmanager
def server(study: Study, host: str = "127.0.0.1", port: int = 0) -> Iterator[ThreadingHTTPServer]:
    """A server for a study; `serve_forever` serves it. Raises OutputError for a port that is taken."""
    pictures = Pictures(study.folder)

    class Handler(_Handler):
        pass

    Handler.study, Handler.pictures = study, pictures
    try:
        made = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise OutputError(
            f"the study cannot be served on {host}:{port} ({error.strerror}): choose another --port"
        ) from error
    made.daemon_threads = True
    try:
        yield made
    finally:
        made.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers: the page, a participant's next trial, a vote, a picture."""

    study: Study
    pictures: Pictures
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/":
            self._send(PAGE.read_bytes(), "text/html; charset=utf-8")
        elif address.path == "/trial":
            who = parse_qs(address.query).get("who", [""])[0]
            self._answer(lambda: self._trial(who))
        elif address.path in self.pictures.files:
            self._picture(self.pictures.files[address.path])
        else:
            self._send(b"there is nothing here", "text/plain", 404)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        # Another site's page can send a form, but not this type, without being asked first.
        if length > _LONGEST or self.headers.get("Content-Type") != "application/json":
            self.close_connection = True
            self._send(b"an answer is a short JSON object", "text/plain", 413)
            return
        text = self.rfile.read(length)
        if self.path == "/enter":
            self._answer(lambda: {"who": self.study.enter()})
        elif self.path == "/vote":
            self._answer(lambda: self._vote(json.loads(text)))
        else:
            self._send(b"there is nothing here", "text/plain", 404)

    def _trial(self, who: str) -> dict[str, Any]:
        trial = self.study.next(who)
        if trial is None:
            return {"done": True}
        keys = [self.study.pictures[m][trial.content, trial.style] for m in (trial.left, trial.right)]
        addresses = self.pictures.addresses
        return {
            "id": trial.id,
            "number": trial.number + 1,
            "of": self.study.trials,
            "question": QUESTIONS.get(trial.question, CHECK),
            "content": addresses.get(("content", trial.content), ""),
            "style": addresses.get(("style", trial.style), ""),
            "words": self.pictures.words.get(trial.style, ""),
            "left": f"/cell/{keys[0]}",
            "right": f"/cell/{keys[1]}",
        }

    def _vote(self, given: Any) -> dict[str, Any]:
        facts = (str(given["who"]), int(given["id"]), given["answer"], float(given["seconds"]))
        return {"kept": self.study.vote(*facts)}

    def _answer(self, make: Any) -> None:
        try:
            found = make()
        except AtelierError as error:
            self._send(json.dumps({"error": str(error)}).encode(), "application/json", 400)
        except (ValueError, KeyError, TypeError):
            self._send(b'{"error": "this answer cannot be read"}', "application/json", 400)
        else:
            self._send(json.dumps(found).encode(), "application/json")

    def _picture(self, path: Path) -> None:
        kinds = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
        try:
            self._send(path.read_bytes(), kinds.get(path.suffix.lower(), "application/octet-stream"))
        except OSError:
            self._send(b"this picture is missing", "text/plain", 404)

    def _send(self, data: bytes, kind: str, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *values: Any) -> None:  # noqa: A002 - the base class's name
        return
