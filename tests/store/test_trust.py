"""End to end: foreign caches and style files cannot change a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file

from atelier import api
from atelier.images import Picture, write_style
from atelier.methods.feedforward.adain import Adain
from atelier.methods.feedforward.nnst_d import NNSTD, Styles
from atelier.store import cache

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@pytest.fixture
def settings(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A tiny NNST-D, and an empty home for its cache."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    decoder = tmp_path / "decoder.safetensors"
    save_file(dict(NNSTD.tiny()["weights"]), decoder)
    machine = {"device": "cpu", "threads": 1, "size": 48}
    return {"method": "nnst_d", "encoder": str(tiny_encoder), "weights": str(decoder), **machine}


@pytest.fixture
def painting(painting: Floats) -> Bytes:
    """In 8 bits, as style files keep it."""
    return np.rint(painting * 255).astype(np.uint8)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One item for each time that the method looks at a style."""
    seen = Styles._seen
    found: list[object] = []

    def noted(*given: Any) -> Any:
        found.append(given)
        return seen(*given)

    monkeypatch.setattr(Styles, "_seen", noted)
    return found


def stored(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "home" / "cache").rglob("*.safetensors")}


def lies(entry: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An entry of the same layout with other values."""
    return {name: 3 * tensor + 1 for name, tensor in entry.items()}


def test_a_home_that_cannot_be_written_changes_no_pixel(
    settings: dict[str, Any], photo: Floats, painting: Bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = api.stylize(photo, painting, **settings).pixels
    assert stored(tmp_path)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "file"))
    assert np.array_equal(api.stylize(photo, painting, **settings).pixels, expected)


def test_entries_of_another_layout_change_no_pixel(
    settings: dict[str, Any], photo: Floats, painting: Bytes, tmp_path: Path, looks: list[object]
) -> None:
    expected = api.stylize(photo, painting, **settings).pixels
    first = len(looks)
    for path in (tmp_path / "home" / "cache").rglob("*.safetensors"):
        entry = load_file(path)
        entry["points"] = entry.pop("keys")  # as a version that called it otherwise would have written it
        save_file(entry, path)
    assert np.array_equal(api.stylize(photo, painting, **settings).pixels, expected)
    assert len(looks) == 2 * first


def test_a_style_file_answers_for_its_own_picture_alone(
    tiny_encoder: Path, photo: Floats, painting: Bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file holds one picture, and false entries under the keys of another that is used beside it."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    save_file(dict(Adain.tiny()["weights"]), tmp_path / "adain.safetensors")
    names = {"encoder": str(tiny_encoder), "weights": str(tmp_path / "adain.safetensors")}
    settings: dict[str, Any] = {"method": "adain", "device": "cpu", "threads": 1, "size": 48, **names}
    other = np.ascontiguousarray(painting[::-1])
    api.save_style(painting, tmp_path / "good.safetensors", **settings)
    entries: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(tmp_path / "good.safetensors").items():
        key, _, part = name.partition("/")
        if part:
            entries.setdefault(key, {})[part] = tensor
    assert {f"{key}.safetensors" for key in entries} == set(stored(tmp_path))  # these are the painting's keys
    write_style(Picture.of(other), tmp_path / "bad.safetensors", {key: lies(entries[key]) for key in entries})
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "another"))
    mixed = api.stylize(photo, [str(tmp_path / "bad.safetensors"), painting], **settings)
    alone = api.stylize(photo, painting, **settings)
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "clean"))
    assert np.array_equal(mixed.pixels, api.stylize(photo, [other, painting], **settings).pixels)
    assert np.array_equal(alone.pixels, api.stylize(photo, painting, **settings).pixels)


def test_a_style_files_own_entries_are_used_and_not_kept(
    settings: dict[str, Any], photo: Floats, painting: Bytes, tmp_path: Path, looks: list[object]
) -> None:
    api.save_style(painting, tmp_path / "style.safetensors", **settings)
    before = stored(tmp_path)
    for name in before:
        next((tmp_path / "home" / "cache").rglob(name)).unlink()
    looks.clear()
    api.stylize(photo, str(tmp_path / "style.safetensors"), **settings)
    assert not looks
    assert stored(tmp_path) == {}


def test_a_style_file_that_changes_after_it_was_read_does_not_count(
    settings: dict[str, Any], photo: Floats, painting: Bytes, tmp_path: Path, looks: list[object]
) -> None:
    path = tmp_path / "style.safetensors"
    api.save_style(painting, path, **settings)
    style = Picture.of(path)
    path.write_bytes(path.read_bytes() + b" ")
    looks.clear()
    with cache.recording() as entries:
        api.stylize(photo, style, **settings | {"size": 47})
    assert looks
    assert entries
