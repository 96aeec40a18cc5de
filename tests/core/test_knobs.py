"""Knobs: one sentence for each thing that can be wrong with a setting."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field

from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs, knob, parse


class Brush(Knobs):
    width: int = knob(12, "Width of the brush in pixels.", ge=1, le=200)
    angle: float = knob(0.0, "Angle in degrees.", gt=-180, lt=180)
    tip: Literal["round", "flat"] = knob("round", "Form of the tip.")
    colours: tuple[str, ...] = knob((), "Colours by name.")


class Canvas(Knobs):
    path: str = Field(..., description="Where it hangs.")


def test_defaults_and_given_values() -> None:
    assert parse(Brush, {}).model_dump() == {"width": 12, "angle": 0.0, "tip": "round", "colours": ()}
    assert parse(Brush, {"width": "20", "colours": ["red"]}) == Brush(width=20, colours=("red",))


@pytest.mark.parametrize("values", [{"width": 1}, {"width": 200}, {"angle": 179.9}])
def test_ends_of_a_range(values: dict[str, Any]) -> None:
    assert parse(Brush, values).model_dump() == Brush().model_dump() | values


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"widht": 3}, "there is no knob 'widht': did you mean 'width'?"),
        ({"zzz": 3}, "there is no knob 'zzz': allowed: angle, colours, tip, width"),
        ({"width": 0}, "width = 0 is not allowed: it should be greater than or equal to 1"),
        ({"width": 201}, "width = 201 is not allowed: it should be less than or equal to 200"),
        ({"angle": 180}, "angle = 180 is not allowed: it should be less than 180"),
        ({"angle": float("nan")}, "angle = nan is not allowed: it should be a finite number"),
        ({"width": "wide"}, "width = 'wide' is not allowed: it should be a valid integer"),
        ({"tip": "sharp"}, "tip = 'sharp' is not allowed: it should be 'round' or 'flat'"),
        ({"colours": ["red", 3]}, "colours = 3 is not allowed: it should be a valid string"),
    ],
)
def test_sentences(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(Brush, values)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_what_is_named_in_the_sentence() -> None:
    with pytest.raises(UsageError, match="there is no control 'sise'"):
        parse(Brush, {"sise": 3}, what="control")


def test_one_that_is_needed() -> None:
    with pytest.raises(UsageError, match="the setting 'path' is required but was not given"):
        parse(Canvas, {}, what="setting")


def test_knobs_cannot_be_changed() -> None:
    brush = Brush()
    with pytest.raises(ValueError, match="frozen"):
        brush.width = 3  # type: ignore[misc]


def test_schema_carries_range_and_sentence() -> None:
    width = Brush.model_json_schema()["properties"]["width"]
    assert (width["minimum"], width["maximum"], width["default"]) == (1, 200, 12)
    assert width["description"] == "Width of the brush in pixels."
