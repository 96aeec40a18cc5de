"""Errors: an exit code each, and the nearest name."""

from __future__ import annotations

import pytest

from atelier.core import errors
from atelier.core.errors import AtelierError, did_you_mean

KINDS = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AtelierError)
]


def test_every_kind_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes) == 8
    assert all(0 < code < 256 for code in codes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_when_it_is_raised(kind: type[AtelierError]) -> None:
    assert kind.__doc__
    assert str(kind("one sentence")) == "one sentence"


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("relu3_2", "did you mean 'relu3_1'?"),
        ("Relu3_1", "did you mean 'relu3_1'?"),
        ("nothing like it", "allowed: conv1_1, relu3_1"),
        ("", "allowed: conv1_1, relu3_1"),
    ],
)
def test_did_you_mean(name: str, tail: str) -> None:
    assert did_you_mean(name, ["relu3_1", "conv1_1"]) == tail


def test_nothing_is_allowed() -> None:
    assert did_you_mean("x", []) == "allowed: "
