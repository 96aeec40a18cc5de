"""Download of one file over HTTP, resumed after a broken connection.

Partial content is in `<file>.part`, and `<file>.part.json` records its URL and version, so that a later run
can also resume. The caller verifies the content.

Existing libraries do not cover this: pooch (1.9) restarts a broken download from the first byte, and
huggingface_hub (2.4) downloads by URL only from its own hub. Neither compares the version before resuming,
tries several URLs, or rejects a login page before it overwrites partial content.
"""

from __future__ import annotations

import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atelier.core.atomic import full_sentence, is_full
from atelier.core.errors import OutputError
from atelier.store import checkpoints

Progress = Callable[[int, int | None], object]

TIMEOUT = 30.0  # seconds without any data
PAUSES = (0.5, 1.0, 2.0)  # seconds before each retry after an attempt without new data
_CHUNK = 1 << 18
_SCHEMES = ("http", "https", "file")
_WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)


class SourceError(Exception):
    """The source does not provide the file. The message gives the reason, to follow the URL in a sentence."""


class CutError(SourceError):
    """The connection was interrupted; a retry may succeed."""


@dataclass(frozen=True)
class _Mark:
    """The URL and version of the file that a `.part` file is the beginning of."""

    url: str
    validator: str | None = None
    total: int | None = None


def download(url: str, part: Path, progress: Progress | None = None) -> bool:
    """Download the file at `url` to `part`; True if it was assembled from several responses.

    Raises `SourceError` if the source fails, and keeps partial content for the next attempt. Raises
    `OutputError` if the disk is full.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise SourceError(f"is not a supported address; supported: {', '.join(_SCHEMES)}")
    best, idle, joined = -1, 0, False
    while True:
        have = _size(part)
        try:
            return _attempt(url, part, progress) or joined
        except CutError:
            idle = 0 if _size(part) > max(best, have) else idle + 1
            if idle > len(PAUSES):
                raise
            best, joined = max(best, _size(part)), True
            time.sleep(PAUSES[max(idle - 1, 0)])


def discard(part: Path) -> None:
    """Delete the partial content in `part`."""
    part.unlink(missing_ok=True)
    _mark_path(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path, progress: Progress | None) -> bool:
    mark = _read_mark(part)
    have = _size(part) if mark is not None and mark.url == url else 0
    if mark is not None and have and mark.total == have:
        return True
    try:
        with _open(url, have, mark) as response:
            _receive(url, response, part, progress, have, mark.total if have and mark else None)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            raise _start_anew(part) from error
        raise _http_failure(error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _failure(error, part) from error
    return have > 0


def _open(url: str, have: int, mark: _Mark | None) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": _agent(), "Accept-Encoding": "identity"})
    if have and mark is not None:
        request.add_header("Range", f"bytes={have}-")
        if mark.validator is not None:
            request.add_header("If-Range", mark.validator)
    return urllib.request.build_opener(_CarefulRedirects).open(request, timeout=TIMEOUT)


def _receive(
    url: str, response: Any, part: Path, progress: Progress | None, have: int, expected: int | None
) -> None:
    start, total = _position(response)
    if start not in (0, have) or (start and expected not in (None, total)):
        raise _start_anew(part)
    first = response.read1(_CHUNK)
    if start == 0:
        # Before the old part is overwritten: a login page must not replace partial content.
        _refuse_page(response, first)
        _write_mark(part, _Mark(url, _validator(response), total))
    _check_room(part, start, total)
    done = start
    with part.open("ab" if start else "wb") as file:
        chunk = first
        while chunk:
            file.write(chunk)
            file.flush()
            done += len(chunk)
            if progress is not None:
                progress(done, total)
            chunk = response.read1(_CHUNK)
    if total is not None and done < total:
        raise CutError(f"stopped sending after {done} of {total} bytes")
    if total is None and checkpoints.is_cut(part):
        raise CutError(f"stopped sending after {done} bytes")


def _position(response: Any) -> tuple[int, int | None]:
    """The offset of the response in the file, and the size of the file."""
    length = response.headers.get("Content-Length", "")
    if getattr(response, "status", None) != 206:
        return 0, int(length) if length.isdigit() else None
    span, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    return int(first) if first.isdigit() else -1, int(whole) if whole.isdigit() else None


def _start_anew(part: Path) -> CutError:
    """Discard partial content that does not belong to the source's current file, to restart the download."""
    discard(part)
    return CutError("does not resume where the download stopped")


def _refuse_page(response: Any, first: bytes) -> None:
    kind = checkpoints.sniff(first[: checkpoints.HEAD])
    declared = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if kind == "html" or (kind == "unknown" and declared in ("text/html", "application/xhtml+xml")):
        raise SourceError("sent a web page instead of the file (a login, consent or error page)")
    if kind == "lfs":
        raise SourceError("sent a Git LFS pointer instead of the file behind it")


def _check_room(part: Path, start: int, total: int | None) -> None:
    """Raise `OutputError` before the download starts if there is not enough disk space."""
    if total is None:
        return
    free = shutil.disk_usage(part.parent).free
    need = total - start
    if need > free:
        raise OutputError(
            f"{full_sentence(part)} ({need / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free)"
        )


def _failure(error: OSError | http.client.HTTPException, part: Path) -> Exception:
    if is_full(error):
        discard(part)
        return OutputError(full_sentence(part))
    if isinstance(error, http.client.HTTPException):
        return CutError(f"stopped sending ({type(error).__name__})")
    if isinstance(error, urllib.error.URLError):
        reason = error.reason
        text = getattr(reason, "strerror", None) or str(reason)
        # After partial content, the server may come back. If it has never answered, try the next source.
        failure = CutError if _size(part) or isinstance(reason, TimeoutError) else SourceError
        return failure(f"cannot be reached ({text})")
    if getattr(error, "filename", None):
        return OutputError(f"{error.filename} cannot be written ({error.strerror}): check its permissions")
    return CutError(f"stopped sending ({error.strerror or str(error) or type(error).__name__})")


def _http_failure(error: urllib.error.HTTPError) -> SourceError:
    failure = CutError if error.code in _WORTH_RETRYING else SourceError
    return failure(f"answered {error.code} {error.reason}".rstrip())


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            raise SourceError(f"redirects to an unsafe address ({newurl})")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(response: Any) -> str | None:
    tag = response.headers.get("ETag")
    # A weak ETag guarantees equivalent content, not identical bytes.
    chosen = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    return str(chosen) if chosen else None


def _mark_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_mark(part: Path) -> _Mark | None:
    try:
        return _Mark(**json.loads(_mark_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write_mark(part: Path, mark: _Mark) -> None:
    # Delete the part first: a new mark must never describe old bytes.
    part.unlink(missing_ok=True)
    _mark_path(part).write_text(json.dumps(asdict(mark)), encoding="utf-8")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _agent() -> str:
    try:
        return f"atelier/{version('atelier')}"
    except PackageNotFoundError:
        return "atelier"
