"""A prepared method serves other values of the controls that are applied to the finished picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atelier import Stylizer, UsageError
from atelier.session.run import Setup
from atelier.session.stylizer import ADJUSTABLE

OTHERS: dict[str, Any] = {"strength": 0.3, "colour": "content", "feather": 1.0, "finish": 0.1}


@pytest.mark.parametrize("name", sorted(ADJUSTABLE))
def test_an_adjusted_stylizer_paints_what_a_new_one_paints(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    prepare = Setup.prepare
    monkeypatch.setattr(Setup, "prepare", lambda self, *a: looks.append(1) or prepare(self, *a))
    random = np.random.default_rng(0)
    photo, style = random.random((2, 24, 32, 3), np.float32)
    mask = np.zeros((24, 32), np.float32)
    mask[:, :16] = 1
    first = Stylizer(style, method="style_copy")
    before = first(photo, mask=mask)
    made = first.adjusted(**{name: OTHERS[name]})(photo, mask=mask)
    assert looks == [1]
    new = Stylizer(style, method="style_copy", **{name: OTHERS[name]})(photo, mask=mask)
    np.testing.assert_array_equal(made.pixels, new.pixels)
    assert np.abs(made.pixels - before.pixels).max() > 0.01
    assert (made.recipe or {})["controls"] == (new.recipe or {})["controls"]


def test_only_these_controls_can_be_adjusted() -> None:
    with pytest.raises(UsageError, match="strength = 2 is not allowed"):
        Stylizer(method="identity").adjusted(strength=2)
    with pytest.raises(UsageError, match="size is read when styles are prepared"):
        Stylizer(method="identity").adjusted(size=8)
