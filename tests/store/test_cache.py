"""The cache: what it keeps is what was made, and no trouble of its own stops the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from atelier.store import cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "cache"


def made(value: float, count: int = 4) -> dict[str, torch.Tensor]:
    return {"a": torch.full((count,), float(value)), "b": torch.arange(3)}


def never() -> dict[str, torch.Tensor]:
    raise AssertionError("it was made although it was there")


def test_what_was_made_comes_back_to_the_bit() -> None:
    first = {"x": torch.randn(5, 7), "half": torch.randn(3).bfloat16()}
    cache.remember("one", lambda: first)
    again = cache.remember("one", never)
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert again["half"].dtype == torch.bfloat16


def test_keys_tell_content_shape_and_order_apart() -> None:
    one = torch.arange(6.0)
    keys = {
        cache.key(one),
        cache.key(one.view(2, 3)),
        cache.key(one.view(3, 2)),
        cache.key(one + 1),
        cache.key(one, 1),
        cache.key(1, one),
        cache.key("1", one),
        cache.key(one.double()),
    }
    assert len(keys) == 8
    assert cache.key(one, "a") == cache.key(one.clone(), "a")
    assert cache.key(one.view(2, 3).T) == cache.key(one.view(2, 3).T.contiguous())


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_entry_is_made_anew(folder: Path, damage: bytes | None) -> None:
    cache.remember("one", lambda: made(1))
    path = folder / "one.safetensors"
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    assert float(cache.remember("one", lambda: made(2))["a"][0]) == 2
    assert float(cache.remember("one", never)["a"][0]) == 2


def test_a_folder_that_cannot_be_made_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "file"))
    assert float(cache.remember("one", lambda: made(1))["a"][0]) == 1


def test_the_longest_unused_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 12_000)
    for index, name in enumerate(("old", "used", "new")):
        cache.remember(name, lambda: made(1, 700))
        os.utime(folder / f"{name}.safetensors", (index, index))
    cache.remember("used", never)  # now it is the newest
    cache.remember("more", lambda: made(1, 700))
    cache.remember("most", lambda: made(1, 700))
    left = {path.stem for path in folder.iterdir()}
    assert "old" not in left
    assert {"used", "most"} <= left
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_500


def test_what_is_too_large_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 1000)
    cache.remember("large", lambda: made(1, 1000))
    assert not list(folder.glob("*")) if folder.exists() else True


def test_a_recording_can_be_adopted(folder: Path) -> None:
    cache.remember("before", lambda: made(0))
    with cache.recording() as entries:
        cache.remember("one", lambda: made(1))
        cache.remember("before", never)
    cache.remember("after", lambda: made(2))
    assert entries.keys() == {"one", "before"}
    for path in folder.iterdir():
        path.unlink()
    cache.adopt(entries)
    assert float(cache.remember("one", never)["a"][0]) == 1
