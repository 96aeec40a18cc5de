"""Hostile and mistaken requests: each gets its sentence and its status, and the server goes on."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import Answer, Client, encoded, multipart, png

PHOTO = ("content", ("photo.png", png()))
STYLE = ("style", ("style.png", png(seed=1)))
CHEAP = ("method", "identity")
Ask = Callable[[Client], Answer]


def bomb() -> bytes:
    """A PNG of a few bytes that claims 50,000 x 50,000 pixels."""
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("photo.png", png())
    return buffer.getvalue()


def form(*fields: tuple[str, Any]) -> Ask:
    return lambda client: client.stylize(*fields)


def photo(**fields: Any) -> Ask:
    """A good request but for these fields."""
    return form(PHOTO, *([] if "method" in fields else [CHEAP]), *fields.items())


def file(name: str, data: bytes) -> Ask:
    return form(("content", (name, data)), CHEAP)


def get(path: str, **options: Any) -> Ask:
    return lambda client: client.ask(path, **options)


def body(data: bytes, kind: str | None = "multipart/form-data; boundary=frontier", **headers: str) -> Ask:
    sent = {**({} if kind is None else {"Content-Type": kind}), **headers}
    return lambda client: client.ask("/api/stylize", method="POST", body=data, headers=sent)


def raw(*pieces: bytes, pause: float = 0.0, listen: bool = True) -> Ask:
    """Bytes as they are, with pauses; without `listen`, the connection is cut after the last."""

    def ask(client: Client) -> Answer:
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
            for piece in pieces:
                with contextlib.suppress(ConnectionError):  # it has answered, and hung up
                    connection.sendall(piece)
                time.sleep(pause)
            if not listen:
                return Answer(0, {}, b"")
            data = b""
            while more := connection.recv(65536):
                data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        return Answer(int(head.split()[1]), {}, rest)

    return ask


def array(values: Any) -> bytes:
    """A .npy file; one of objects is a pickle."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


PICKLED = array(np.array([{"a": 1}], dtype=object))
START = (
    b"POST /api/stylize HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: multipart/form-data; boundary=frontier\r\n"
)
FORM = multipart([PHOTO, CHEAP])[0]
CHUNK = b"80000\r\n" + bytes(2**19) + b"\r\n"

CASES: Mapping[str, tuple[Ask, int, str]] = {
    # paths
    "a path as the photo": (form(("content", "/etc/passwd"), CHEAP), 404, "is not an id of a picture"),
    "a path upwards": (form(("content", "../../etc/passwd"), CHEAP), 404, "is not an id of a picture"),
    "a file address": (form(("content", "file:///etc/passwd"), CHEAP), 404, "is not an id"),
    "an address of the network": (form(("content", "http://localhost/a.png"), CHEAP), 404, "is not an id"),
    "an id that climbs": (form(("content", "upload:../../secret"), CHEAP), 404, "is not an id"),
    "an example that climbs": (
        form(PHOTO, ("style", "style:../../x"), ("method", "adain")),
        404,
        "no example",
    ),
    "a picture that is not kept": (form(("content", "upload:" + "0" * 64), CHEAP), 404, "send it again"),
    "a result that climbs": (form(("content", "made:..%2f..%2fx"), CHEAP), 404, "is not an id"),
    "a path of weights": (
        photo(method="adain", style="style:ink", weights="/etc/passwd"),
        422,
        "given by --weights",
    ),
    "a path to the weights folder": (
        photo(method="adain", style="style:ink", weights="../weights/mine.safetensors"),
        422,
        "weights = ",
    ),
    "weights with a pickle": (
        photo(method="adain", style="style:ink", weights="old.pth"),
        422,
        "safetensors files only",
    ),
    "a path to write to": (photo(method="strokes", svg="/tmp/hostile.svg"), 422, "give .svg"),
    "a path in a knob": (
        photo(method="analogies", style="style:ink", unfiltered="/etc/passwd"),
        422,
        "send the file itself",
    ),
    "paths in the receipt": (photo(receipt="paths"), 422, "use names or none"),
    "a limit of one's own": (photo(max_pixels="10"), 422, "a limit of its own"),
    "a gallery id that climbs": (get("/api/gallery/..%2f..%2fetc%2fpasswd"), 404, "there is nothing"),
    "a gallery file that climbs": (get("/api/gallery/....//file"), 404, "there is nothing"),
    "a job that climbs": (get("/api/jobs/..%00x"), 404, "there is no job"),
    "a thumbnail of a path": (get("/api/pictures/%2Fetc%2Fpasswd/thumbnail"), 404, "there is nothing"),
    "a training picture of a path": (
        get("/api/data/0123456789abcdef/thumbnail?name=../../passwd"),
        404,
        "there is no set of pictures",
    ),
    "weights of the user": (get("/api/networks/mine.safetensors"), 404, "there is no network"),
    # too much
    "too many bytes": (file("big.png", png() + bytes(2**20)), 413, "the limit of this studio is 1 MiB"),
    "a request too long": (body(bytes(3 * 2**20 + 1)), 413, "the limit of this studio (3 MiB)"),
    "a length of many digits": (
        body(b"x", **{"Content-Length": "9" * 17}),
        413,
        "the limit of this studio (3 MiB)",
    ),
    "a decompression bomb": (file("bomb.png", bomb()), 413, "50000 x 50000"),
    "too many pixels": (
        file("large.png", encoded(Image.new("L", (1000, 1000)))),
        413,
        "and the limit is 0.2 million",
    ),
    "a size too large": (photo(size="8000"), 413, "the limit of this studio is 256"),
    "a size of many digits": (photo(size="9" * 5000), 422, "size = "),
    "too many files": (form(PHOTO, CHEAP, *[STYLE] * 70), 413, "more than 64 files"),
    "too many fields": (form(PHOTO, CHEAP, *[("text", "a")] * 300), 413, "more than 64 files or 256 fields"),
    "a field too long": (photo(text="a" * (2**20 + 2**16)), 413, "more than 1 MiB"),
    "an address too long": (get("/api/health?" + "a" * 100_000), 414, "more than 8,192 letters"),
    "a number too large": (photo(seed=str(2**63)), 422, "seed = "),
    "a search too long": (get("/api/gallery?search=" + "a" * 300), 422, "search = "),
    "a list too long": (get("/api/gallery?limit=1000000"), 422, "limit = "),
    # cut short
    "a PNG cut short": (file("cut.png", png()[:200]), 422, "damaged, cut short"),
    "a JPEG cut short": (
        file("cut.jpg", encoded(Image.new("RGB", (64, 64)), "JPEG")[:300]),
        422,
        "cut short",
    ),
    "a TIFF cut short": (file("cut.tif", encoded(Image.new("RGB", (64, 64)), "TIFF")[:60]), 422, "cut short"),
    "an empty file": (file("empty.png", b""), 415, "'empty.png' is empty"),
    "a form cut short": (body(FORM[:150]), 422, "needs a photo"),
    "a form without parts": (body(b"--frontier--\r\n"), 422, "needs a photo"),
    "a form without a boundary": (body(FORM, "multipart/form-data"), 400, "the form cannot be read"),
    "a form of noise": (body(np.random.default_rng(0).bytes(4000)), 400, "the form cannot be read"),
    # wrong types
    "text as a picture": (file("photo.png", b"just text"), 415, "'photo.png' is not a picture"),
    "a drawing that may hold scripts": (file("a.svg", b"<svg onload='alert(1)'/>"), 415, "is not a picture"),
    "a pickle": (file("photo.jpg", pickle.dumps({"a": 1})), 415, "is not a picture"),
    "a zip file": (file("photos.zip", zipped()), 415, "is not a picture"),
    "a mask that is text": (
        form(PHOTO, CHEAP, ("mask", ("m.png", b"text"))),
        415,
        "'m.png' is not a picture",
    ),
    "JSON instead of a form": (body(b"{}", "application/json"), 415, "send a form"),
    "no type at all": (body(FORM, None), 415, "of no type"),
    "a file as the method": (form(PHOTO, ("method", ("m", b"adain"))), 422, "takes no file 'method'"),
    "two photos": (form(PHOTO, PHOTO, CHEAP), 422, "2 were sent as 'content'"),
    "a pickle as an array": (
        form(PHOTO, STYLE, ("method", "cap_vstnet"), ("label_affinity", ("a.npy", PICKLED))),
        415,
        "label_affinity' is not a .npy file of numbers",
    ),
    # knobs
    "a knob misspelt": (photo(strenght="0.5"), 422, "did you mean 'strength'?"),
    "a method misspelt": (photo(method="gatis"), 422, "did you mean 'gatys'?"),
    "a quality misspelt": (form(PHOTO, STYLE, ("quality", "bset")), 422, "did you mean 'best'?"),
    "a knob of another method": (photo(iterations="5"), 422, "identity has no knob 'iterations'"),
    "a file of no knob": (
        form(PHOTO, CHEAP, ("trousers", ("a.png", png()))),
        422,
        "takes no file 'trousers'",
    ),
    "no style": (photo(method="adain"), 422, "adain needs a style"),
    "no photo": (form(STYLE, ("method", "adain")), 422, "adain needs a photo"),
    "weights that are not here": (
        photo(method="gatys", style=("style.png", png()), encoder="vgg19.imagenet"),
        424,
        "atelier weights",
    ),
    # numbers
    "not a number": (
        photo(strength="NaN"),
        422,
        "strength = 'NaN' is not allowed: it should be a finite number",
    ),
    "infinity": (photo(strength="inf"), 422, "a finite number"),
    "not a number in JSON": (photo(settings='{"strength": NaN}'), 422, "a finite number"),
    "infinity in JSON": (photo(settings='{"strength": 1e999}'), 422, "a finite number"),
    "a strength above one": (photo(strength="2"), 422, "less than or equal to 1"),
    "a seed below zero": (photo(seed="-1"), 422, "seed = '-1'"),
    "a size of zero": (photo(size="0"), 422, "size = '0'"),
    "two strengths": (form(PHOTO, CHEAP, ("strength", "1"), ("strength", "0")), 422, "2 values were sent"),
    "settings that are no object": (photo(settings="[1]"), 422, "settings is not an object"),
    "settings cut short": (photo(settings='{"strength": 0.'), 422, "settings is not JSON"),
    "settings without end": (photo(settings="[" * 100_000), 422, "settings is not JSON"),
    "settings of many digits": (photo(settings='{"seed": ' + "9" * 5000 + "}"), 422, "settings is not JSON"),
    "half a letter in JSON": (photo(settings=json.dumps({"a\ud800": 1})), 422, "is not valid text"),
    "half a letter": (photo(text="\ud800"), 422, "does not take a style in words"),
    "a null character": (photo(strength="\0"), 422, "a null character"),
    "a wait without end": (photo(wait="inf"), 422, "it is 0 to 300 seconds"),
    "a program as the format": (photo(format="exe"), 422, "format = 'exe' is not allowed"),
    "twelve bits": (photo(bits="12"), 422, "8 or 16"),
    "sixteen bits of JPEG": (photo(bits="16", format="jpg"), 422, "for png and tif only"),
    "a limit that is no number": (get("/api/jobs?limit=NaN"), 422, "limit = 'NaN' is not allowed"),
    # addresses and origins
    "nothing there": (get("/api/secret"), 404, "there is nothing at /api/secret"),
    "a method that is not answered": (get("/api/stylize"), 405, "GET is not allowed"),
    "deleting what is not there": (
        get("/api/gallery/x", method="DELETE"),
        404,
        "no picture 'x' in the gallery",
    ),
    "another name of this machine": (get("/api/health", headers={"Host": "evil.example"}), 403, "127.0.0.1"),
    "the page of another site": (
        get("/api/gallery/x", method="DELETE", headers={"Origin": "http://evil.example"}),
        403,
        "other sites",
    ),
    # the wire
    "an upload that stops": (
        raw(START + b"Content-Length: 900\r\n\r\n", FORM[:100]),
        408,
        "longer than 0.5 s to arrive",
    ),
    "an upload that drips": (
        raw(START + b"Content-Length: 900\r\n\r\n", *[FORM[i : i + 9] for i in range(0, 72, 9)], pause=0.1),
        408,
        "longer than 0.5 s to arrive",
    ),
    "chunks without end": (
        raw(START + b"Transfer-Encoding: chunked\r\n\r\n96\r\n" + FORM[:150] + b"\r\n", *[CHUNK] * 7),
        413,
        "the limit of this studio (3 MiB)",
    ),
    "a connection that is cut": (
        raw(START + b"Content-Length: 900\r\n\r\n" + FORM[:99], listen=False),
        0,
        "",
    ),
    "a cut while it paints": (
        raw(START + b"Content-Length: %d\r\n\r\n" % len(FORM) + FORM, pause=0.01, listen=False),
        0,
        "",
    ),
    "no HTTP at all": (raw(b"\x16\x03\x01\x02\0\x01\xfc\x03\x03 hello\r\n\r\n"), 400, ""),
    "a length below zero": (raw(START + b"Content-Length: -5\r\n\r\n"), 400, ""),
    "two lengths": (raw(START + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\nhello"), 400, ""),
}


# Starlette leaves the files of an unfinished form to the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_bad_request_gets_its_sentence(client: Client, name: str, tmp_path: Path) -> None:
    ask, status, says = CASES[name]
    answer = ask(client)
    assert answer.status == status, answer.body[:300]
    if says:
        assert says in answer.error
        assert answer.error == answer.error.strip()
        assert str(client.studio.folder) not in answer.error
    alive = client.get("/api/health")
    assert alive.status == 200
    assert not Path("/tmp/hostile.svg").exists()


def test_there_are_sixty_of_them() -> None:
    assert len(CASES) >= 60


TOKENS: Mapping[str, dict[str, str]] = {
    "none": {},
    "another": {"Authorization": "Bearer open-sesam"},
    "a longer one": {"Authorization": "Bearer open-sesame1"},
    "no Bearer": {"Authorization": "Basic b3Blbi1zZXNhbWU="},
    "another cookie": {"Cookie": "atelier_token=sesame; other=open-sesame"},
    "letters outside ASCII": {"Authorization": "Bearer \xe9\xff"},
}


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("path", ["/api/health", "/api/stylize", "/api/openapi.json", "/", "/nowhere"])
def test_without_the_token_nothing_is_told(guarded: Client, name: str, path: str) -> None:
    answer = guarded.ask(path, headers=TOKENS[name])
    assert (answer.status, "asks for a token" in answer.error) == (401, True)


def test_the_token_opens_in_three_ways(guarded: Client) -> None:
    for headers in ({"Authorization": "Bearer open-sesame"}, {"Cookie": "a=b; atelier_token=open-sesame"}):
        assert guarded.ask("/api/health", headers={**headers, "Host": "studio.example"}).status == 200
    entered = guarded.ask("/page?token=open-sesame&a=1")
    assert (entered.status, entered.headers["location"]) == (303, "/page?a=1")
    assert "HttpOnly" in entered.headers["set-cookie"]
    away = guarded.ask("//evil.example/?token=open-sesame")
    assert away.headers.get("location", "/").startswith("/evil.example")  # here, not at another site
