"""A page that paints in the browser: one file with the network and onnxruntime-web inside.

It works from a folder, without a server. Its content security policy forbids every connection. The runtime
is the package onnxruntime-web: given as a folder, or fetched once from npm, whose client checks its hash.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from atelier.core.atomic import atomic
from atelier.core.caches import Cache
from atelier.core.errors import InputError, ResourceError, UsageError, first_line
from atelier.exports import onnx
from atelier.exports.networks import Exported

#: The version of onnxruntime-web that pages are made and tested with.
VERSION = "1.30.0"
#: What a page needs of it: the library, the loader of its WebAssembly, and the WebAssembly.
LIBRARY, GLUE, WASM = PARTS = (
    "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
_PACKAGE = "onnxruntime-web"
_CACHE = Cache(_PACKAGE, VERSION, 512 * 2**20)
_PATIENCE = 600  # seconds that npm may take


@dataclass(frozen=True)
class Runtime:
    """The files of onnxruntime-web that a page holds, by name, and its version."""

    files: Mapping[str, bytes]
    version: str


def runtime(folder: Path | None = None) -> Runtime:
    """onnxruntime-web from a `folder`, from the cache, or from npm.

    Raises InputError if the folder lacks a file, ResourceError if npm is missing or cannot fetch it.
    """
    if folder is not None:
        return _in_folder(folder)
    kept = [_CACHE.find(name) for name in PARTS]
    if all(kept):
        return Runtime({path.name: path.read_bytes() for path in kept if path is not None}, VERSION)
    files = _fetched()
    for name, data in files.items():
        _CACHE.keep(name, len(data), lambda path, data=data: path.write_bytes(data))  # type: ignore[misc]
    return Runtime(files, VERSION)


def write(exported: Exported, path: Path, engine: Runtime, *, check: bool = True) -> onnx.Checked | None:
    """Write the page; with `check`, only if the network agrees with torch.

    Raises UsageError for a network that takes no photo, and what `onnx.write` raises.
    """
    inputs = exported.portable.inputs
    if inputs[0].name != "content" or any(one.kind == "features" for one in inputs):
        raise UsageError(
            f"a page paints photos, and {exported.kind.name} takes none here: write an .onnx file"
        )
    data = onnx.encode(exported)
    checked = onnx.compare(data, exported.portable) if check else None
    text = _page(exported, data, engine)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return checked


def _page(exported: Exported, data: bytes, engine: Runtime) -> str:
    """The page's text."""
    folder = resources("atelier.exports") / "page"
    read = {
        name: (folder / name).read_text(encoding="utf-8") for name in ("app.js", "style.css", "worker.js")
    }
    library = engine.files[LIBRARY].decode("utf-8")
    values = {
        "title": html.escape(_title(exported)),
        "summary": html.escape(exported.kind.summary()),
        "style": read["style.css"],
        # "</" would end the script that holds the text.
        "settings": json.dumps(_settings(exported, engine)).replace("</", "<\\/"),
        "network": _packed(data),
        "wasm": _packed(engine.files[WASM]),
        "glue": _packed(engine.files[GLUE]),
        "worker": _packed(f"{library}\n{read['worker.js']}".encode()),
        "app": read["app.js"],
    }
    text = (folder / "index.html").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def _title(exported: Exported) -> str:
    styles = ", ".join(Path(one.name).stem for one in exported.styles if one.name)
    return f"Paint with {exported.kind.name}: {styles}" if styles else f"Paint with {exported.kind.name}"


def _settings(exported: Exported, engine: Runtime) -> dict[str, Any]:
    """What the page has to know."""
    facts = exported.facts()
    shown = {
        "Method": facts["atelier.paper"],
        "Weights": facts.get("atelier.weights", ""),
        "Licence of the weights": facts.get("atelier.licence", ""),
        "Styles": facts.get("atelier.styles", ""),
        "Made by": f"atelier {facts['atelier.version']}",
        "Runs on": f"onnxruntime-web {engine.version} (MIT, Microsoft)",
    }
    return {
        "method": exported.kind.name,
        "smallest": exported.portable.smallest,
        "inputs": [
            {"name": one.name, "kind": one.kind, "channels": one.channels, "labels": list(one.labels)}
            for one in exported.portable.inputs
        ],
        "facts": {name: value for name, value in shown.items() if value},
    }


def _packed(data: bytes) -> str:
    """Data as text: gzip in base64; without a time, so that the same page has the same bytes."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def _in_folder(folder: Path) -> Runtime:
    """The package in a folder: its own, or the `dist` inside it."""
    if not folder.is_dir():
        raise InputError(f"there is no folder '{folder}': give the folder of the package {_PACKAGE}")
    for place in (folder, folder / "dist", folder / "node_modules" / _PACKAGE / "dist"):
        if all((place / name).is_file() for name in PARTS):
            settings = next((one for one in (place, place.parent) if (one / "package.json").is_file()), None)
            version = "" if settings is None else _version((settings / "package.json").read_text())
            return Runtime({name: (place / name).read_bytes() for name in PARTS}, version)
    raise InputError(f"'{folder}' lacks {PARTS[0]} or another file of {_PACKAGE}: give the package's folder")


def _version(text: str) -> str:
    try:
        return str(json.loads(text).get("version", ""))
    except (ValueError, AttributeError):
        return ""


def _fetched() -> dict[str, bytes]:
    """The files from npm."""
    client = shutil.which("npm")
    if client is None:
        raise ResourceError(
            f"a page needs {_PACKAGE}, which npm fetches: install npm (it comes with Node.js), or give "
            "the package's folder with --runtime"
        )
    with tempfile.TemporaryDirectory() as place:
        command = [client, "pack", f"{_PACKAGE}@{VERSION}", "--silent", "--pack-destination", place]
        try:
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ResourceError(_no_package(first_line(error))) from error
        archive = next(Path(place).glob("*.tgz"), None)
        if done.returncode or archive is None:
            raise ResourceError(_no_package((done.stderr.strip() or "no answer").splitlines()[0]))
        return _unpacked(archive)


def _unpacked(archive: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive) as inside:
        for name in PARTS:
            member = inside.extractfile(f"package/dist/{name}")
            assert member is not None
            found[name] = member.read()
    return found


def _no_package(reason: str) -> str:
    return (
        f"npm could not fetch {_PACKAGE} {VERSION} ({reason}): connect to the network once, or give the "
        "package's folder with --runtime"
    )
