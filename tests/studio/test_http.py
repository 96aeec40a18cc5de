"""The HTTP interface: pictures, jobs and their events, the gallery, the document, many at once."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

import atelier
from atelier.core.errors import UsageError
from atelier.images.decode import decode_recipe
from atelier.studio.jobs import Job
from atelier.studio.serving import bound, token_for

from .conftest import Client, encoded, multipart, png

PHOTO, STYLE = ("content", ("harbour.png", png())), ("style", ("waves.png", png(seed=1)))


def test_one_request_makes_a_picture(client: Client) -> None:
    answer = client.stylize(PHOTO, STYLE, ("method", "colour"), ("strength", "0.5"))
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    recipe = decode_recipe(answer.body, "made")
    assert recipe is not None
    assert (recipe["method"], recipe["controls"]["strength"]) == ("colour", 0.5)
    assert [recipe["content"]["name"], recipe["styles"][0]["name"]] == ["harbour.png", "waves.png"]
    photo, style = (np.asarray(Image.open(io.BytesIO(data))) for data in (png(), png(seed=1)))
    expected = atelier.stylize(photo, style, method="colour", strength=0.5).pixels
    made = np.asarray(Image.open(io.BytesIO(answer.body)), np.float32) / 255
    assert np.abs(made - expected).max() <= 0.51 / 255


def test_settings_may_be_json_and_the_format_is_chosen(client: Client) -> None:
    settings = json.dumps({"size": 12, "style_weights": [1, 3]})
    fields = [PHOTO, STYLE, STYLE, ("method", "style_copy")]
    answer = client.stylize(*fields, ("settings", settings), ("format", "tif"), ("bits", "16"))
    assert (answer.status, answer.headers["content-type"]) == (200, "image/tiff")
    recipe = decode_recipe(answer.body, "made") or {}
    assert recipe["controls"]["style_weights"] == [1, 3]
    weights = [("style_weights", "1"), ("style_weights", "3")]
    as_fields = client.stylize(*fields, ("size", "12"), *weights)
    assert (decode_recipe(as_fields.body, "made") or {})["controls"] == recipe["controls"]


def test_a_knob_that_names_files_takes_the_files(client: Client) -> None:
    labels = encoded(Image.new("RGB", (24, 16), (0, 0, 0)))
    fields = [PHOTO, STYLE, ("method", "cap_vstnet"), ("quality", "draft"), ("size", "24")]
    files = [("content_labels", ("labels.png", labels)), ("style_labels", ("labels.png", labels))]
    answer = client.stylize(*fields, *files, ("wait", "60"))
    assert answer.status == 200, answer.body
    recipe = decode_recipe(answer.body, "made") or {}
    assert {name: len(sources) for name, sources in recipe["files"].items()} == {
        "content_labels": 1,
        "style_labels": 1,
    }


def test_a_picture_is_sent_once_and_named_by_its_id(client: Client) -> None:
    added = client.post("/api/pictures", [("file", ("../../harbour.png", png()))])
    assert added.status == 201
    id = added.json["id"]  # noqa: A001
    answer = client.stylize(("content", id), ("method", "identity"), ("size", "12"))
    assert Image.open(io.BytesIO(answer.body)).size == (12, 8)
    entry = client.get(f"/api/gallery/{answer.headers['x-atelier-picture']}").json
    assert (entry["title"], entry["inputs"]["content"]) == ("harbour · identity", id)
    thumbnail = client.get(f"/api/pictures/{id}/thumbnail")
    assert Image.open(io.BytesIO(thumbnail.body)).size == (24, 16)
    assert client.post("/api/pictures", [("file", ("a.png", b"text"))]).status == 415


def test_long_work_is_a_job_with_events(client: Client, dim: str) -> None:
    fields = [PHOTO, ("method", dim), ("steps", "60"), ("wait", "0")]
    answer = client.stylize(*fields)
    assert (answer.status, answer.headers["location"]) == (202, f"/api/jobs/{answer.json['id']}")
    told = client.get(f"{answer.headers['location']}/events")
    assert told.headers["content-type"].startswith("text/event-stream")
    parts = told.body.decode().split("\n\n")[:-1]
    events = [dict(line.split(": ", 1) for line in part.splitlines()) for part in parts]
    assert [int(event["id"]) for event in events] == list(range(len(events)))
    assert (events[0]["event"], events[-1]["event"]) == ("waiting", "done")
    done = [json.loads(event["data"])["done"] for event in events]
    assert done == sorted(done)
    assert len(set(done)) > 3
    missed = client.ask(f"{answer.headers['location']}/events", headers={"Last-Event-ID": events[-3]["id"]})
    assert missed.body.count(b"event: ") == 2
    job = client.get(answer.headers["location"]).json
    assert (job["state"], job["results"]) == ("done", [job["made"][0]["id"]])
    preview = client.get(f"{answer.headers['location']}/preview")
    assert Image.open(io.BytesIO(preview.body)).format == "JPEG"
    with zipfile.ZipFile(io.BytesIO(client.get(f"{answer.headers['location']}/zip").body)) as packed:
        assert packed.namelist() == ["harbour.png"]


def test_a_job_is_cancelled_and_keeps_what_it_has(client: Client, dim: str) -> None:
    job = client.stylize(PHOTO, ("method", dim), ("steps", "100000"), ("wait", "0.3")).json
    stopped = client.ask(f"/api/jobs/{job['id']}/cancel", method="POST")
    assert stopped.status == 200
    client.studio.job(job["id"]).wait(10)
    after = client.get(f"/api/jobs/{job['id']}").json
    assert (after["state"], len(after["results"])) == ("stopped", 1)


def test_who_hangs_up_needs_no_picture(client: Client, dim: str) -> None:
    body, kind = multipart([PHOTO, ("method", dim), ("steps", "99999"), ("wait", "60")])
    head = "POST /api/stylize HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Length: {len(body)}\r\nContent-Type: {kind}"
    before = len(client.studio.jobs)
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        while len(client.studio.jobs) == before:
            time.sleep(0.01)
    assert client.studio.jobs[0].wait(10)
    assert client.studio.jobs[0].state == "stopped"


def test_the_gallery_answers(client: Client) -> None:
    made = client.stylize(PHOTO, ("method", "identity"), ("seed", "77")).headers["x-atelier-picture"]
    newest = client.get("/api/gallery", limit=1).json["pictures"]
    assert [one["id"] for one in newest] == [made]
    assert client.get("/api/gallery", search="nowhere").json == {"pictures": []}
    assert client.get(f"/api/gallery/{made}/receipt").json["controls"]["seed"] == 77
    for kind, media in (("png", "image/png"), ("jpg", "image/jpeg"), ("webp", "image/webp")):
        got = client.get(f"/api/gallery/{made}/file", format=kind)
        assert (got.status, got.headers["content-type"]) == (200, media)
        assert (decode_recipe(got.body, "made") or {})["controls"]["seed"] == 77
    assert client.ask(f"/api/gallery/{made}", method="DELETE").status == 204
    assert client.get(f"/api/gallery/{made}").status == 404


def test_an_extra_output_is_a_download(client: Client) -> None:
    answer = client.stylize(PHOTO, ("method", "strokes"), ("svg", ".svg"), ("size", "16"))
    assert answer.status == 200
    extra = client.get(f"/api/gallery/{answer.headers['x-atelier-picture']}/extra/svg")
    assert extra.headers["content-type"] == "image/svg+xml"
    assert extra.headers["content-disposition"].startswith("attachment")


def test_the_methods_are_told_with_all_their_knobs(client: Client) -> None:
    told = client.get("/api/methods").json
    methods = {one["name"]: one for one in told["methods"]}
    assert methods.keys() == atelier.list_methods().keys()
    for name, kind in atelier.list_methods().items():
        assert methods[name]["knobs"]["properties"].keys() == kind.Knobs.model_fields.keys()
    assert told["controls"]["properties"]["strength"]["maximum"] == 1
    assert told["qualities"]["draft"] == "adain"
    shelf = client.get("/api/shelf").json
    assert "style:woodcut" in [one["id"] for one in shelf["styles"]]
    assert "photo:coffee" in [one["id"] for one in shelf["photos"]]


def test_the_document_describes_every_address_and_every_error(client: Client) -> None:
    document = client.get("/api/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert len(document["paths"]) == 21
    form = document["paths"]["/api/stylize"]["post"]["requestBody"]["content"]["multipart/form-data"][
        "schema"
    ]
    assert {"content", "style", "text", "mask", "method", "quality", "wait"} <= form["properties"].keys()
    for path in document["paths"].values():
        for operation in path.values():
            assert {"401", "404", "413", "422", "429"} <= operation["responses"].keys()
            assert operation.get("summary")
    for page in ("/docs", "/redoc"):  # they would load scripts from another server
        assert client.get(page).status == 404


def test_nothing_can_be_framed_or_guessed(client: Client) -> None:
    assert client.get("/api/health").headers["x-content-type-options"] == "nosniff"


def test_fifty_uploads_at_once_lose_nothing(client: Client) -> None:
    together = threading.Barrier(50)

    def one(number: int) -> Any:
        side = 10 + number
        together.wait(30)
        photo = encoded(Image.new("RGB", (side, 8), (number, 2 * number, 3 * number)))
        return number, client.stylize(
            ("content", (f"{number}.png", photo)), ("method", "identity"), ("wait", "60")
        )

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(one, range(50)))
    for number, answer in answers:
        assert answer.status == 200
        picture = Image.open(io.BytesIO(answer.body))
        assert (picture.size, picture.getpixel((0, 0))) == (
            (10 + number, 8),
            (number, 2 * number, 3 * number),
        )


def test_two_hundred_jobs_are_answered_in_order(client: Client, dim: str) -> None:
    """They wait behind a long one, run in the order in which they came, and each has its own picture."""
    first = client.stylize(PHOTO, ("method", dim), ("steps", "100000"), ("wait", "0")).json["id"]
    ids = []
    for number in range(200):
        photo = encoded(Image.new("RGB", (4 + number, 4)))
        fields = ("content", (f"{number}.png", photo)), ("method", "identity"), ("wait", "0")
        ids.append(client.stylize(*fields).json["id"])
    assert client.get("/api/health").json["waiting"] == 200
    client.ask(f"/api/jobs/{first}/cancel", method="POST")
    jobs = [client.studio.job(id) for id in ids]  # noqa: A001
    assert all(job.wait(60) for job in jobs)
    made = [job.made[0] for job in jobs]
    assert [one.size for one in made] == [(4 + number, 4) for number in range(200)]
    assert [one.id for one in made] == sorted(one.id for one in made)
    kept = client.get("/api/gallery", limit=200).json["pictures"]
    assert [one["id"] for one in reversed(kept)] == [one.id for one in made]


def test_a_full_queue_says_so(client: Client) -> None:
    gate = threading.Event()
    first = client.studio.queue.put(Job("test", "long", lambda _: gate.wait(30)))
    first.wait(5, after=0)
    jobs = [client.studio.queue.put(Job("test", "waiting", lambda _: None)) for _ in range(250)]
    answer = client.stylize(PHOTO, ("method", "identity"))
    assert (answer.status, answer.headers["retry-after"]) == (429, "5")
    assert "250 jobs are waiting, which is the limit" in answer.error
    gate.set()
    assert all(job.wait(10) for job in jobs)
    assert client.stylize(PHOTO, ("method", "identity")).status == 200


def test_a_taken_port_and_a_short_token_are_refused() -> None:
    taken = r"cannot listen at 127.0.0.1:\d+ .* choose another --host or --port"
    with bound("127.0.0.1", 0) as listening, pytest.raises(atelier.OutputError, match=taken):
        bound("127.0.0.1", listening.getsockname()[1])
    assert token_for("192.168.0.2", "") == ""
    assert len({token_for("0.0.0.0", None) for _ in range(3)}) == 3
    for bad in ("short", "with spaces in it", "line\nbreaks-in-it", "häuschen-123"):
        with pytest.raises(UsageError, match="8 letters"):
            token_for("0.0.0.0", bad)
