"""The cache of loaded networks: shared, bounded, and filled once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch

from atelier.store.models import Models, kept, size_of


def test_two_threads_make_an_entry_once() -> None:
    models, made, go = Models(), list[int](), Event()

    def make() -> object:
        go.wait(10)
        made.append(1)
        return object()

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(models.get, "key", make) for _ in range(2)]
        go.set()
    assert found[0].result() is found[1].result()
    assert made == [1]


def test_what_was_used_longest_ago_goes_first() -> None:
    models = Models(most=2)
    for key in "abac":
        models.get(key, lambda key=key: key.upper())  # type: ignore[misc]
    made: list[str] = []
    for key in "acb":
        models.get(key, lambda key=key: made.append(key) or key)  # type: ignore[misc]
    assert made == ["b"]


def test_the_bytes_of_networks_are_bounded() -> None:
    models = Models(limit=1000)
    large, small = torch.nn.Linear(100, 10), torch.nn.Linear(10, 10)
    assert size_of(large) == 4 * (1000 + 10)
    assert models.get("large", lambda: large) is large
    assert models.get("large", lambda: small) is small  # too large to be kept, so made again


def test_a_failure_is_not_kept() -> None:
    models = Models()
    with pytest.raises(ZeroDivisionError):
        models.get("key", lambda: 1 // 0)
    assert models.get("key", lambda: 1) == 1


def test_a_loading_function_is_kept_by_its_arguments() -> None:
    made: list[tuple[str, int]] = []

    @kept
    def load(name: str, size: int = 1) -> object:
        made.append((name, size))
        return object()

    assert load("a") is load("a")
    assert load("a", size=2) is not load("a")
    assert made == [("a", 1), ("a", 2)]
