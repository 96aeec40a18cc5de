"""The cache of styles: entries equal what was computed, and cache failures never stop a run."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atelier.core import atomic
from atelier.store import cache

LAYOUT: cache.Layout = {"a": ("count",), "b": (3,)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "cache" / "styles" / cache._version()


def made(value: float, count: int = 4) -> dict[str, torch.Tensor]:
    return {"a": torch.full((count,), float(value)), "b": torch.arange(3)}


def never() -> dict[str, torch.Tensor]:
    raise AssertionError("it was made although it was there")


def remember(name: str, make: Callable[[], cache.Entry]) -> float:
    """The value of the entry called `name`."""
    return float(cache.remember(cache.key(name), make, LAYOUT)["a"][0])


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{cache.key(name)}.safetensors"


def test_what_was_made_comes_back_to_the_bit() -> None:
    first = {"x": torch.randn(5, 7), "half": torch.randn(3).bfloat16()}
    layout: cache.Layout = {"x": (5, 7), "half": (3,)}
    cache.remember(cache.key("one"), lambda: first, layout)
    again = cache.remember(cache.key("one"), never, layout)
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
    assert cache.key(torch.tensor(1.0)) != cache.key(torch.tensor([1.0]))
    assert cache.key(one.bfloat16()) != cache.key(one.half())


def test_keys_know_their_tensors() -> None:
    one, two = torch.arange(6.0), torch.ones(2)
    assert cache.key(1, "a").tensors == frozenset()
    assert cache.key(one, 1).tensors == cache.key(one, 2).tensors
    assert cache.key("a", cache.key(one), ("b", cache.key(two))).tensors == cache.key(one, two).tensors
    assert len(cache.key(one, two).tensors) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_entry_is_made_anew(folder: Path, damage: bytes | None) -> None:
    remember("one", lambda: made(1))
    path = path_of(folder, "one")
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    assert remember("one", lambda: made(2)) == 2
    assert remember("one", never) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.ones(4)},
        {"a": torch.ones(4), "b": torch.ones(3), "c": torch.ones(1)},
        {"a": torch.ones(4), "other": torch.ones(3)},
        {"a": torch.ones(4), "b": torch.ones(5)},
        {"a": torch.ones(4, 1), "b": torch.ones(3)},
    ],
    ids=["missing", "too many", "another name", "another size", "another rank"],
)
def test_an_entry_of_another_layout_is_made_anew(folder: Path, other: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(other, path_of(folder, "one"))
    assert remember("one", lambda: made(2)) == 2
    assert remember("one", never) == 2


def test_sizes_of_one_name_agree() -> None:
    layout: cache.Layout = {"keys": ("rows", "width"), "values": ("rows", 2)}
    assert cache.fits({"keys": torch.ones(5, 3), "values": torch.ones(5, 2)}, layout)
    assert not cache.fits({"keys": torch.ones(5, 3), "values": torch.ones(4, 2)}, layout)


def test_an_entry_of_other_packages_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    remember("one", lambda: made(1))
    monkeypatch.setattr(cache, "_version", lambda: "another")
    assert remember("one", lambda: made(2)) == 2


def test_a_folder_that_cannot_be_made_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "file"))
    assert remember("one", lambda: made(1)) == 1


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_is_still_read(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    remember("before", lambda: made(1))

    def refuse(*given: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, "open", refuse)
    monkeypatch.setattr("os.utime", refuse)
    assert remember("one", lambda: made(2)) == 2
    assert remember("before", never) == 1


def test_a_disk_that_fills_up(folder: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert remember("one", lambda: made(1, 5000)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == []


def test_the_longest_unused_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 12_000)
    for index, name in enumerate(("old", "used", "new")):
        remember(name, lambda: made(1, 700))
        os.utime(path_of(folder, name), (index, index))
    remember("used", never)  # now it is the newest
    remember("more", lambda: made(1, 700))
    remember("most", lambda: made(1, 700))
    assert not path_of(folder, "old").exists()
    assert path_of(folder, "used").exists()
    assert path_of(folder, "most").exists()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_500


def test_what_is_too_large_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 1000)
    remember("large", lambda: made(1, 1000))
    assert not folder.exists()


def test_a_recording_has_what_was_asked_for_inside() -> None:
    remember("before", lambda: made(0))
    with cache.recording() as entries:
        remember("one", lambda: made(1))
        with cache.recording() as inner:
            remember("before", never)
    remember("after", lambda: made(2))
    assert entries.keys() == {cache.key("one"), cache.key("before")}
    assert inner.keys() == {cache.key("before")}


# style files


def ask(style: torch.Tensor, make: Callable[[], cache.Entry], *more: torch.Tensor) -> float:
    return float(cache.remember(cache.key("method", style, *more), make, LAYOUT)["a"][0])


def test_a_style_file_answers_for_its_own_style_during_the_call(folder: Path) -> None:
    style = torch.rand(1, 3, 4, 5)
    entries = {str(cache.key("method", style)): made(7)}
    with cache.offered([(style, entries)]):
        assert ask(style.clone(), never) == 7
    assert not folder.exists()  # a file's word is never written down
    assert ask(style, lambda: made(1)) == 1


def test_a_style_file_cannot_answer_for_another_style(folder: Path) -> None:
    mine, other = torch.rand(1, 3, 4, 5), torch.rand(1, 3, 4, 5)
    poison = {str(cache.key("method", other)): made(666), str(cache.key("method", other, mine)): made(666)}
    with cache.offered([(mine, poison)]):
        assert ask(other, lambda: made(1)) == 1
        assert ask(other, lambda: made(2), mine) == 2
    assert ask(other, never) == 1
    assert {path.name for path in folder.iterdir()} == {
        f"{cache.key('method', other)}.safetensors",
        f"{cache.key('method', other, mine)}.safetensors",
    }


def test_an_offer_of_another_layout_is_passed_over() -> None:
    style = torch.rand(1, 3, 4, 5)
    entries = {str(cache.key("method", style)): {"a": torch.ones(4)}}
    with cache.offered([(style, entries)]):
        assert ask(style, lambda: made(3)) == 3


def test_an_offer_counts_for_a_recording() -> None:
    style = torch.rand(1, 3, 4, 5)
    name = cache.key("method", style)
    with cache.offered([(style, {str(name): made(7)})]), cache.recording() as entries:
        ask(style, never)
    assert float(entries[name]["a"][0]) == 7


def test_two_threads_do_not_mix() -> None:
    """Each has its own recording and its own style file, though both run at the same time."""
    together, style = threading.Barrier(2, timeout=20), torch.rand(1, 3, 4, 5)
    name = str(cache.key("method", style))
    seen: dict[int, tuple[float, set[str]]] = {}

    def job(number: int) -> None:
        with cache.offered([(style, {name: made(number)})]), cache.recording() as entries:
            together.wait()
            found = ask(style, never)
            remember(f"only {number}", lambda: made(0))
            together.wait()
            seen[number] = found, set(entries)

    threads = [threading.Thread(target=job, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {number: (number, {name, str(cache.key(f"only {number}"))}) for number in (1, 2)}
