"""Pulling weights from a real HTTP server with many kinds of behaviour."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from atelier.core.errors import OutputError, WeightsError
from atelier.store import download, records, weights
from atelier.store.records import File, Record


def checkpoint(seed: int = 0, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    state = {"0.weight": torch.randn(150, 1000, generator=torch.Generator().manual_seed(seed))}
    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


DATA = checkpoint()
SHA = hashlib.sha256(DATA).hexdigest()
Behaviour = Callable[["Handler", bytes], None]


class Site(ThreadingHTTPServer):
    """Serves one file after a list of behaviours, the last of which stays; counts what it sends."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.sent, self.asked = DATA, 0, list[dict[str, str]]()
        self.files: dict[str, bytes] = {}  # other data for some paths
        self.behaviours: list[Behaviour] = [whole]

    def url(self, path: str = "net.pth") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the play."""


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        number = len(self.server.asked)
        self.server.asked.append(dict(self.headers) | {"path": self.path})
        behaviours = self.server.behaviours
        behaviours[min(number, len(behaviours) - 1)](
            self, self.server.files.get(self.path.lstrip("/"), self.server.data)
        )

    def head(self, code: int = 200, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def body(self, data: bytes) -> None:
        self.server.sent += len(data)
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


def whole(request: Handler, data: bytes, *, upto: int | None = None, tag: str = '"v1"') -> None:
    """A good server: it knows ranges and compares the tag."""
    start, wanted = 0, request.headers.get("Range")
    if wanted and request.headers.get("If-Range", tag) == tag:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        request.head(206, Content_Length=len(data) - start, Content_Range=span, ETag=tag)
    else:
        request.head(Content_Length=len(data), ETag=tag)
    request.body(data[start:upto])


def cut(request: Handler, data: bytes) -> None:
    whole(request, data, upto=len(data) // 2)


def without_ranges(request: Handler, data: bytes) -> None:
    request.head(Content_Length=len(data))
    request.body(data)


def cut_without_ranges(request: Handler, data: bytes) -> None:
    request.head(Content_Length=len(data))
    request.body(data[: len(data) // 2])


def without_length(request: Handler, data: bytes) -> None:
    request.head()
    request.body(data)


def cut_without_length(request: Handler, data: bytes) -> None:
    without_length(request, data[: len(data) // 2])


def changed(request: Handler, data: bytes) -> None:
    whole(request, data, tag='"v2"')


def page(request: Handler, data: bytes) -> None:
    request.head(Content_Type="text/html; charset=utf-8")
    request.body(b"<!doctype html><title>Accept our cookies</title>" + bytes(2000))


def quiet_page(request: Handler, data: bytes) -> None:
    request.head(Content_Type="text/html")
    request.body(b"please sign in")


def pointer(request: Handler, data: bytes) -> None:
    request.head()
    request.body(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n")


def absent(request: Handler, data: bytes) -> None:
    request.send_error(404)


def busy(request: Handler, data: bytes) -> None:
    request.send_error(503)


def beyond(request: Handler, data: bytes) -> None:
    if request.headers.get("Range"):
        request.send_error(416)
    else:
        whole(request, data)


def wrong_part(request: Handler, data: bytes) -> None:
    if request.headers.get("Range"):
        request.head(206, Content_Range=f"bytes 7-{len(data) - 1}/{len(data)}", Content_Length=len(data) - 7)
        request.body(data[7:])
    else:
        whole(request, data)


def elsewhere(location: str) -> Behaviour:
    def redirect(request: Handler, data: bytes) -> None:
        if request.path == "/moved":
            whole(request, data)
        else:
            request.head(302, Location=location, Content_Length=0)

    return redirect


def slowly(request: Handler, data: bytes) -> None:
    request.head(Content_Length=len(data), ETag='"v1"')
    for start in range(0, len(data), len(data) // 8):
        request.body(data[start : start + len(data) // 8])
        time.sleep(0.15)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
    records.records()
    monkeypatch.setattr(records, "_records", dict(records._records))
    return tmp_path / "home" / "weights" / "net.test"


@contextmanager
def running() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.shutdown()
        thread.join()
        site.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with running() as served:
        yield served


def known(*sources: str, **facts: Any) -> Record:
    plain = {"file": "net.pth", "licence": "MIT", "paper": "none", "sha256": SHA, "bytes": len(DATA)}
    return records.register(Record(name="net.test", sources=sources, **(plain | facts)))


def check_installed(cache: Path, data: bytes = DATA, condition: str = "verified") -> None:
    original = torch.load(io.BytesIO(data), weights_only=True)
    assert torch.equal(weights.load("net.test")["0.weight"], original["0.weight"])
    assert weights.verify("net.test") == [("net.test", condition)]
    assert {path.name for path in cache.iterdir()} <= {"net.safetensors", "net.json", "lock"}


def check_nothing_installed(cache: Path, *, part: bool = False) -> None:
    assert weights.verify("net.test") == [("net.test", "missing")]
    kept = {"net.pth.part", "net.pth.part.json"} if part else set()
    assert {path.name for path in cache.iterdir()} - {"lock"} == kept


def refused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_plain_pull(site: Site, cache: Path) -> None:
    known(site.url())
    seen: list[tuple[int, int | None]] = []
    path = weights.pull("net.test", lambda done, total: seen.append((done, total)))
    assert path == weights.locate("net.test")
    check_installed(cache)
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert site.asked[0]["User-Agent"].startswith("atelier")
    assert "Range" not in site.asked[0]


def test_what_is_here_is_not_fetched_again_and_what_is_damaged_is(site: Site, cache: Path) -> None:
    known(site.url())
    path = weights.pull("net.test")
    weights.pull("net.test")
    assert len(site.asked) == 1
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    weights.pull("net.test")
    assert len(site.asked) == 2
    check_installed(cache)


def test_a_cut_connection_is_resumed(site: Site, cache: Path) -> None:
    site.behaviours = [cut, whole]
    known(site.url())
    weights.pull("net.test")
    check_installed(cache)
    assert [asked.get("Range") for asked in site.asked] == [None, f"bytes={len(DATA) // 2}-"]
    assert site.asked[1]["If-Range"] == '"v1"'
    assert site.sent == len(DATA)


def test_the_next_run_resumes_too(site: Site, cache: Path) -> None:
    site.behaviours = [cut, absent]
    known(site.url())
    with pytest.raises(WeightsError, match="404"):
        weights.pull("net.test")
    check_nothing_installed(cache, part=True)
    site.behaviours = [whole]
    weights.pull("net.test")
    check_installed(cache)
    assert site.sent == len(DATA)


def test_stopping_through_progress_keeps_what_came(site: Site, cache: Path) -> None:
    known(site.url())

    def stop(done: int, total: int | None) -> None:
        if done > 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.pull("net.test", stop)
    check_nothing_installed(cache, part=True)
    kept = (cache / "net.pth.part").stat().st_size
    assert kept > 300_000
    weights.pull("net.test")
    check_installed(cache)
    assert site.asked[-1]["Range"] == f"bytes={kept}-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(site: Site, cache: Path) -> None:
    site.behaviours = [cut, changed]
    known(site.url())
    weights.pull("net.test")
    check_installed(cache)
    assert site.sent == len(DATA) // 2 + len(DATA)


@pytest.mark.parametrize("second", [without_ranges, beyond, wrong_part])
def test_a_server_that_cannot_go_on_starts_anew(site: Site, cache: Path, second: Behaviour) -> None:
    site.behaviours = [cut, second]
    known(site.url())
    weights.pull("net.test")
    check_installed(cache)
    assert "Range" in site.asked[1]


def test_a_stitched_file_with_a_wrong_hash_gets_a_second_chance(site: Site, cache: Path) -> None:
    other = checkpoint(seed=1)
    assert len(other) == len(DATA)
    site.behaviours = [lambda request, _: cut(request, other), whole]
    known(site.url())
    weights.pull("net.test")
    check_installed(cache)
    assert [asked.get("Range") is None for asked in site.asked] == [True, False, True]


def test_a_server_that_always_breaks_off_is_given_up(site: Site, cache: Path) -> None:
    site.behaviours = [cut_without_ranges]
    known(site.url())
    with pytest.raises(WeightsError, match=rf"stopped sending after {len(DATA) // 2} of {len(DATA)} bytes"):
        weights.pull("net.test")
    assert 2 <= len(site.asked) <= 6
    check_nothing_installed(cache, part=True)


def test_a_busy_server_is_asked_again(site: Site, cache: Path) -> None:
    site.behaviours = [busy, busy, whole]
    known(site.url())
    weights.pull("net.test")
    check_installed(cache)


def test_a_file_without_announced_length(site: Site, cache: Path) -> None:
    site.behaviours = [without_length]
    known(site.url())
    totals: set[int | None] = set()
    weights.pull("net.test", lambda done, total: totals.add(total))
    check_installed(cache)
    assert totals == {None}


def test_a_cut_without_announced_length_is_seen_in_the_file(site: Site, cache: Path) -> None:
    site.behaviours = [cut_without_length]
    known(site.url(), sha256=None, bytes=None)
    with pytest.raises(WeightsError, match=rf"stopped sending after {len(DATA) // 2} bytes"):
        weights.pull("net.test")
    check_nothing_installed(cache, part=True)
    site.behaviours = [whole]
    weights.pull("net.test")
    check_installed(cache, condition="unverified")


@pytest.mark.parametrize("size", [None, len(checkpoint(legacy=True))])
def test_an_old_pickle_cut_without_announced_length(site: Site, cache: Path, size: int | None) -> None:
    site.data, site.behaviours = checkpoint(legacy=True), [cut_without_length]
    known(site.url(), sha256=None, sha256_prefix=None if size is None else "00", bytes=size)
    with pytest.raises(WeightsError, match="is truncated"):
        weights.pull("net.test")
    check_nothing_installed(cache)


def test_a_wrong_hash_installs_nothing(site: Site, cache: Path) -> None:
    site.data = checkpoint(seed=1)
    known(site.url())
    with pytest.raises(WeightsError) as caught:
        weights.pull("net.test")
    assert hashlib.sha256(site.data).hexdigest() in str(caught.value)
    assert SHA in str(caught.value)
    assert len(site.asked) == 1
    check_nothing_installed(cache)


def test_the_beginning_of_a_hash_is_checked(site: Site, cache: Path) -> None:
    known(site.url(), sha256=None, sha256_prefix="00000000")
    with pytest.raises(WeightsError, match="not sha256 beginning with 00000000"):
        weights.pull("net.test")
    check_nothing_installed(cache)


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (page, "sent a web page instead of the file"),
        (quiet_page, "sent a web page instead of the file"),
        (pointer, "sent a Git LFS pointer"),
        (absent, "answered 404 Not Found"),
        (lambda request, _: without_length(request, b""), "is empty"),
        (lambda request, _: without_length(request, b"no such thing"), "is not a checkpoint"),
    ],
)
def test_what_is_not_the_file_says_so(site: Site, cache: Path, behaviour: Behaviour, sentence: str) -> None:
    site.behaviours = [behaviour]
    known(site.url(), sha256=None, bytes=None)
    with pytest.raises(WeightsError, match=sentence) as caught:
        weights.pull("net.test")
    assert site.url() in str(caught.value)
    assert "\n" not in str(caught.value)
    check_nothing_installed(cache)


def test_a_login_page_does_not_cost_what_came_before(site: Site, cache: Path) -> None:
    site.behaviours = [cut, page]
    known(site.url())
    with pytest.raises(WeightsError, match="web page"):
        weights.pull("net.test")
    site.behaviours = [whole]
    weights.pull("net.test")
    check_installed(cache)
    assert site.asked[-1]["Range"] == f"bytes={len(DATA) // 2}-"


def test_the_second_source_helps_out(site: Site, cache: Path) -> None:
    site.behaviours = [absent, whole]
    known(site.url("old.pth"), site.url("new.pth"))
    weights.pull("net.test")
    check_installed(cache)
    assert [asked["path"] for asked in site.asked] == ["/old.pth", "/new.pth"]


def test_half_of_one_source_is_not_continued_at_another(site: Site, cache: Path) -> None:
    site.behaviours = [cut, absent, whole]
    known(site.url("old.pth"), site.url("new.pth"))
    weights.pull("net.test")
    check_installed(cache)
    assert [asked.get("Range") is None for asked in site.asked] == [True, False, True]


def test_servers_that_are_gone_are_all_named(cache: Path) -> None:
    urls = [f"http://127.0.0.1:{refused_port()}/net.pth" for _ in range(2)]
    known(*urls)
    with pytest.raises(WeightsError, match="Connection refused") as caught:
        weights.pull("net.test")
    for part in (*urls, "atelier weights add net.test FILE", SHA):
        assert part in str(caught.value)
    check_nothing_installed(cache)


def test_a_server_that_goes_in_the_middle(cache: Path) -> None:
    with running() as site:
        known(site.url())

        def vanish(request: Handler, data: bytes) -> None:
            site.socket.close()
            cut(request, data)

        site.behaviours = [vanish]
        with pytest.raises(WeightsError, match="cannot be reached"):
            weights.pull("net.test")
    check_nothing_installed(cache, part=True)
    assert (cache / "net.pth.part").read_bytes() == DATA[: len(DATA) // 2]


def test_a_server_that_falls_silent(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)

    def silent(request: Handler, data: bytes) -> None:
        request.head(Content_Length=len(data))
        time.sleep(0.5)

    site.behaviours = [silent]
    known(site.url())
    with pytest.raises(WeightsError, match=r"stopped sending .*timed out"):
        weights.pull("net.test")
    assert len(site.asked) == 4
    check_nothing_installed(cache)


def test_a_redirect_is_followed(site: Site, cache: Path) -> None:
    site.behaviours = [elsewhere("/moved")]
    known(site.url())
    weights.pull("net.test")
    check_installed(cache)


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/net.pth", "data:,x"])
def test_a_redirect_out_of_http_is_not_followed(site: Site, cache: Path, location: str) -> None:
    site.behaviours = [elsewhere(location)]
    known(site.url())
    with pytest.raises(WeightsError, match=r"302|unsafe"):
        weights.pull("net.test")
    check_nothing_installed(cache)


def test_a_file_address(tmp_path: Path, cache: Path) -> None:
    shared = tmp_path / "a shared folder" / "net.pth"
    shared.parent.mkdir()
    known((tmp_path / "gone.pth").as_uri(), shared.as_uri())
    with pytest.raises(WeightsError, match=r"cannot be reached .*No such file"):
        weights.pull("net.test")
    shared.write_bytes(DATA)
    weights.pull("net.test")
    check_installed(cache)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "data:,x", "net.pth"])
def test_other_addresses_are_refused(cache: Path, url: str) -> None:
    known(url)
    with pytest.raises(WeightsError, match="supported: http, https, file"):
        weights.pull("net.test")


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_a_pickle_with_code_is_not_installed(site: Site, cache: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"0.weight": torch.ones(2), "bad": Malicious(tmp_path / "victim")}, buffer)
    site.data = buffer.getvalue()
    known(site.url(), sha256=hashlib.sha256(site.data).hexdigest(), bytes=None)
    with pytest.raises(WeightsError, match=r"net\.pth contains Python code \((posix|nt)\.system\)"):
        weights.pull("net.test")
    check_nothing_installed(cache)
    assert not (tmp_path / "victim").exists()


@contextmanager
def files_limited_to(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_while_downloading(site: Site, cache: Path) -> None:
    known(site.url())
    with files_limited_to(300_000), pytest.raises(OutputError, match="no space is left for"):
        weights.pull("net.test")
    check_nothing_installed(cache)
    weights.pull("net.test")
    check_installed(cache)


def test_a_disk_that_fills_up_while_converting(site: Site, cache: Path) -> None:
    tied, buffer = torch.ones(50_000), io.BytesIO()
    torch.save({"a": tied, "b": tied}, buffer)
    site.data = buffer.getvalue()
    known(site.url(), sha256=None, bytes=None)
    with files_limited_to(300_000), pytest.raises(OutputError, match="no space is left for"):
        weights.pull("net.test")
    check_nothing_installed(cache, part=True)
    weights.pull("net.test")
    assert len(site.asked) == 1
    assert weights.verify("net.test") == [("net.test", "unverified")]


def test_a_disk_too_small_is_seen_before_the_download(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    known(site.url())
    with pytest.raises(OutputError, match=r"no space .* \(1 MB are needed and 0 MB are free"):
        weights.pull("net.test")
    assert weights.verify("net.test") == [("net.test", "missing")]
    assert not (cache / "net.pth.part").exists()


CHILD = """
import sys
from atelier.store import records, weights
url, sha = sys.argv[1:]
records.register(records.Record(
    name="net.test", file="net.safetensors", sources=(url,), sha256=sha, licence="MIT", paper="none"))
print(weights.pull("net.test", lambda done, total: print(done, flush=True)))
"""


def child(url: str, sha: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, url, sha]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_download_once(site: Site, cache: Path) -> None:
    site.data, site.behaviours = save({"a": torch.ones(1000)}), [slowly]
    sha = hashlib.sha256(site.data).hexdigest()
    both = [child(site.url(), sha) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].splitlines()[-1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == [str(cache / "net.safetensors")] * 2
    assert len(site.asked) == 1
    assert (cache / "net.safetensors").read_bytes() == site.data


def test_two_threads_at_once_download_once(site: Site, cache: Path) -> None:
    site.behaviours = [slowly]
    known(site.url())
    threads = [threading.Thread(target=weights.pull, args=("net.test",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.asked) == 1
    check_installed(cache)


def test_a_killed_run_leaves_nothing_in_the_way(site: Site, cache: Path) -> None:
    site.data, site.behaviours = save({"a": torch.ones(100_000)}), [slowly, whole]
    sha = hashlib.sha256(site.data).hexdigest()
    process = child(site.url(), sha)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    kept = (cache / "net.safetensors.part").stat().st_size
    assert 0 < kept < len(site.data)
    known(site.url(), file="net.safetensors", sha256=sha, bytes=None)
    weights.pull("net.test")
    assert weights.locate("net.test").read_bytes() == site.data
    assert site.asked[-1]["Range"] == f"bytes={kept}-"


# several files


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


PIPELINE = {
    "model_index.json": b'{"_class_name": "Test"}',
    "unet/config.json": b'{"channels": 4}',
    "unet/model.safetensors": save({"a": torch.arange(40_000.0)}),
    "vae/model.safetensors": save({"b": torch.ones(30)}),
}


def pipeline(site: Site, *, hashes: bool = True, **facts: Any) -> Record:
    site.files = {f"abc/{name}": data for name, data in PIPELINE.items()}
    files = [
        File(name=name, bytes=len(data), sha256=digest(data) if hashes else None)
        for name, data in PIPELINE.items()
    ]
    plain = {"licence": "MIT", "paper": "none", "kind": "pipeline", "revision": "abc"}
    folder = (site.url("{revision}/"),)
    return records.register(Record(name="net.test", sources=folder, files=tuple(files), **(plain | facts)))


def asked(site: Site) -> list[str]:
    return [one["path"].removeprefix("/abc/") for one in site.asked]


def check_pipeline(cache: Path, condition: str = "verified") -> None:
    folder = weights.locate("net.test")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == PIPELINE
    assert weights.verify("net.test") == [("net.test", condition)]
    assert {path.name for path in cache.iterdir()} == {"files-abc", "files-abc.json", "lock"}


def test_a_pipeline_comes_file_by_file(site: Site, cache: Path) -> None:
    pipeline(site)
    assert not weights.installed("net.test")
    seen: list[tuple[int, int | None]] = []
    folder = weights.pull("net.test", lambda done, total: seen.append((done, total)))
    assert folder == weights.locate("net.test") == weights.folder("net.test")
    check_pipeline(cache)
    assert asked(site) == list(PIPELINE)
    # One count over all files.
    size = sum(map(len, PIPELINE.values()))
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    weights.pull("net.test")
    assert len(site.asked) == 4


def test_a_pipeline_is_resumed_in_the_middle_of_a_file(site: Site, cache: Path) -> None:
    site.behaviours = [whole, whole, cut, absent]
    pipeline(site)
    with pytest.raises(WeightsError, match="404"):
        weights.pull("net.test")
    assert weights.verify("net.test") == [("net.test", "missing")]
    with pytest.raises(WeightsError, match="are not installed"):
        weights.fingerprint("net.test")
    site.behaviours = [whole]
    weights.pull("net.test")
    check_pipeline(cache)
    assert asked(site)[4:] == ["unet/model.safetensors", "vae/model.safetensors"]
    assert site.asked[4]["Range"] == f"bytes={len(PIPELINE['unet/model.safetensors']) // 2}-"
    assert site.sent == sum(map(len, PIPELINE.values()))


def test_a_damaged_file_of_a_pipeline_alone_is_fetched_again(site: Site, cache: Path) -> None:
    pipeline(site, hashes=False)
    folder = weights.pull("net.test")
    check_pipeline(cache, "unverified")
    path = folder / "unet" / "config.json"
    path.write_bytes(path.read_bytes().replace(b"4", b"5"))
    assert weights.verify("net.test") == [("net.test", "damaged")]
    weights.pull("net.test")
    check_pipeline(cache, "unverified")
    assert asked(site)[4:] == ["unet/config.json"]
    sources = json.loads((cache / "files-abc.json").read_text())["sources"]
    assert sources == {name: site.url(f"abc/{name}") for name in PIPELINE}


def test_a_wrong_file_of_a_pipeline_is_refused(site: Site, cache: Path) -> None:
    pipeline(site)
    site.files["abc/vae/model.safetensors"] = save({"b": torch.zeros(30)})
    with pytest.raises(WeightsError, match=r"vae/model\.safetensors sent a file that is not the published"):
        weights.pull("net.test")
    assert weights.verify("net.test") == [("net.test", "missing")]


@pytest.mark.parametrize("name", ["unet/config.json", "vae/model.safetensors"])
def test_a_file_of_another_form_is_refused_without_a_hash_too(site: Site, cache: Path, name: str) -> None:
    pipeline(site, hashes=False)
    site.files[f"abc/{name}"] = b"x" * len(PIPELINE[name])
    reason = r"sent an unusable file: .*(is not JSON|is a damaged safetensors)"
    with pytest.raises(WeightsError, match=reason):
        weights.pull("net.test")


def test_another_revision_is_fetched_anew(site: Site, cache: Path) -> None:
    pipeline(site, hashes=False)
    weights.pull("net.test")
    before = weights.fingerprint("net.test")
    records._records.pop("net.test")
    pipeline(site, hashes=False, revision="def")
    site.files = {f"def/{name}": data for name, data in PIPELINE.items()}
    site.files["def/vae/model.safetensors"] = save({"b": torch.zeros(30)})
    assert weights.verify("net.test") == [("net.test", "missing")]
    weights.pull("net.test")
    assert len(site.asked) == 8
    assert weights.fingerprint("net.test") != before
    assert {path.name for path in cache.iterdir()} == {"files-def", "files-def.json", "lock"}


def shards(site: Site, **facts: Any) -> dict[str, bytes]:
    site.files = {
        "one.safetensors": save({"a": torch.arange(20_000.0)}),
        "two.safetensors": save({"b": torch.ones(5)}),
    }
    files = tuple(
        File(name=name, sources=(site.url(name),), sha256=digest(data)) for name, data in site.files.items()
    )
    records.register(Record(name="net.test", files=files, licence="MIT", paper="none", **facts))
    return site.files


def test_tensors_in_several_files_become_one(site: Site, cache: Path) -> None:
    shards(site)
    path = weights.pull("net.test")
    assert path == cache / "weights.safetensors"
    state = weights.load("net.test")
    assert torch.equal(state["a"], torch.arange(20_000.0))
    assert torch.equal(state["b"], torch.ones(5))
    assert weights.verify("net.test") == [("net.test", "verified")]
    assert weights.fingerprint("net.test") == digest(path.read_bytes())
    assert {one.name for one in cache.iterdir()} == {"weights.safetensors", "weights.json", "lock"}


def test_tensors_in_several_files_are_resumed(site: Site, cache: Path) -> None:
    site.behaviours = [whole, absent]
    shards(site)
    with pytest.raises(WeightsError, match="404"):
        weights.pull("net.test")
    site.behaviours = [whole]
    weights.pull("net.test")
    assert [one["path"] for one in site.asked] == ["/one.safetensors", "/two.safetensors", "/two.safetensors"]


TWINS = {"one": torch.ones(2), "two": torch.arange(3.0)}


def test_one_tensor_in_two_files_is_an_error(site: Site, cache: Path) -> None:
    data = save({"a": torch.ones(2)})
    site.files = {"one.safetensors": data, "two.safetensors": data}
    files = tuple(File(name=name, sources=(site.url(name),)) for name in site.files)
    records.register(Record(name="net.test", files=files, licence="MIT", paper="none"))
    with pytest.raises(WeightsError, match=r"two\.safetensors holds a, which is also in another file"):
        weights.pull("net.test")
    assert weights.verify("net.test") == [("net.test", "missing")]


def test_prefixes_tell_files_with_the_same_names_apart(site: Site, cache: Path) -> None:
    site.files = {f"{name}.safetensors": save({"a": value}) for name, value in TWINS.items()}
    files = tuple(
        File(name=f"{name}.safetensors", prefix=f"{name}.", sources=(site.url(f"{name}.safetensors"),))
        for name in TWINS
    )
    records.register(Record(name="net.test", files=files, licence="MIT", paper="none"))
    weights.pull("net.test")
    state = weights.load("net.test")
    assert state.keys() == {"one.a", "two.a"}
    assert all(torch.equal(state[f"{name}.a"], value) for name, value in TWINS.items())
