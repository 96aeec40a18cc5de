"""What takes minutes: the start of the command, memory over many pictures, and a fuzzer at the document."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from atelier.studio.limits import Limits
from atelier.studio.requests import Inputs, Settings
from atelier.studio.service import Studio

from .conftest import multipart, png

pytestmark = pytest.mark.slow

#: Schemathesis in an environment of its own; `make test-studio` installs it.
_FOUND = os.environ.get("ATELIER_SCHEMATHESIS") or shutil.which("schemathesis")
SCHEMATHESIS = Path(_FOUND).absolute() if _FOUND else None


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, float]]:
    """The command's address, and the seconds of computing to its first answer.

    Not those of the clock, which other work on the machine makes longer; nothing is waited for.
    """
    command = [sys.executable, "-m", "atelier", "studio", "--no-page", "--port", "0", "--folder", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = process.stderr.readline().split()[0].rstrip("/")
        while True:
            try:
                with urllib.request.urlopen(f"{address}/api/health", timeout=5) as answer:
                    assert json.load(answer)["waiting"] == 0
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.02)
        used = psutil.Process(process.pid).cpu_times()
        yield address, used.user + used.system
    finally:
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Traceback" not in said


def test_the_first_answer_comes_within_four_seconds(tmp_path: Path) -> None:
    with served(tmp_path / "studio") as (_, seconds):
        pass
    assert seconds < 4


def test_who_waits_when_the_server_ends_gets_the_best_so_far(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool, served(tmp_path / "studio") as (address, _):
        fields = [("content", "photo:coffee"), ("method", "gatys"), ("style", ("a.png", png(64, 64)))]
        body, kind = multipart([*fields, ("iterations", "5000"), ("size", "64"), ("wait", "200")])
        request = urllib.request.Request(f"{address}/api/stylize", body, {"Content-Type": kind})
        waiting = pool.submit(lambda: urllib.request.urlopen(request, timeout=200).read())
        job: dict[str, Any] = {"done": 0}
        while job["done"] < 2:
            jobs = json.load(urllib.request.urlopen(f"{address}/api/jobs"))["jobs"]
            job = jobs[0] if jobs else job
            time.sleep(0.2)
        events = pool.submit(lambda: urllib.request.urlopen(f"{address}/api/jobs/{job['id']}/events").read())
        time.sleep(1)
    # The server has ended, without a traceback; both connections were answered to their end.
    assert waiting.result(10).startswith(b"\x89PNG")
    assert b"event: stopped" in events.result(10)


def test_a_draft_preview_takes_less_than_a_second_in_a_warm_server(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "studio")
    photo = studio.pictures.add(png(1600, 1200), "photo.png")
    seconds = []
    for strength in (1.0, 0.9, 0.8, 0.7):
        started = time.process_time()
        asked = Settings(quality="draft", values={"strength": strength})
        assert studio.paint(Inputs(photo, ["style:ink"]), asked, preview=True).wait(60)
        seconds.append(time.process_time() - started)
    studio.close()
    assert max(seconds[1:]) < 1, seconds


def test_memory_is_flat_over_two_hundred_pictures(tmp_path: Path) -> None:
    """Photos and styles of changing sizes, twice as many styles as are kept prepared."""
    studio = Studio(tmp_path / "studio", limits=Limits(prepared=2, remembered=20))
    process, used = psutil.Process(), []
    styles = [studio.pictures.add(png(160, 120, seed), f"{seed}.png") for seed in range(4)]
    for number in range(200):
        photo = studio.pictures.add(png(150 + number % 5, 110, 100 + number), f"{number}.png")
        asked = Settings("adain", values={"size": 128 + 16 * (number % 3)})
        job = studio.paint(Inputs(photo, [styles[number % 4]]), asked)
        assert job.wait(60)
        assert job.state == "done", job.error
        used.append(process.memory_info().rss / 2**20)
    studio.close()
    assert len(studio.gallery.list(limit=1000)) == 200
    assert max(used[150:]) - max(used[50:100]) < 40, [round(one) for one in used[::20]]


@pytest.mark.timeout(900)
@pytest.mark.skipif(SCHEMATHESIS is None, reason="schemathesis is not installed: run make test-studio")
def test_a_fuzzer_finds_no_server_error(tmp_path: Path) -> None:
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    assert SCHEMATHESIS is not None
    with served(tmp_path / "studio") as (address, _):
        document = tmp_path / "openapi.json"
        document.write_bytes(urllib.request.urlopen(f"{address}/api/openapi.json").read())
        python = SCHEMATHESIS.with_name("python")
        valid = "import json, sys, openapi_spec_validator as v; v.validate(json.load(open(sys.argv[1])))"
        subprocess.run([python, "-c", valid, str(document)], check=True)
        command = [str(SCHEMATHESIS), "run", str(document), "--url", address, "--checks", checks]
        done = subprocess.run(
            [*command, "--request-timeout", "60", "--max-examples", "25", "--seed", "1"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=800,
        )
    assert done.returncode == 0, done.stdout[-4000:]
