"""Recipes: complete, JSON, and one sentence for anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atelier.core.errors import InputError
from atelier.core.recipe import Recipe, Source, changes, parse, versions


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        method="gatys",
        knobs={"iterations": 3, "style_layers": ["relu1_1"]},
        controls={"size": 64, "seed": 1},
        content=Source(name="a photo.jpg", sha256="0" * 64),
        styles=(Source(name="", sha256="1" * 64),),
        weights={"encoder.atelier": "2" * 64},
        versions={"python": "3.11.0", "torch": "2.6.0"},
        machine={"device": "cpu", "threads": 2},
    )


def test_round_trip_through_json(recipe: Recipe) -> None:
    assert parse(json.loads(json.dumps(recipe.model_dump(mode="json"))), "here") == recipe


def test_no_recipe() -> None:
    with pytest.raises(InputError, match=r"'a\.png' carries no atelier recipe"):
        parse(None, "'a.png'")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"method": None}, "method"),
        ({"styles": "none"}, "styles"),
        ({"content": {"name": "x"}}, "content.sha256"),
        ({"surprise": 1}, "surprise"),
        ({"controls": []}, "controls"),
    ],
)
def test_damaged_recipes(recipe: Recipe, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=rf"the recipe in a\.png cannot be read \({field}: ") as caught:
        parse(recipe.model_dump() | change, "a.png")
    assert "\n" not in str(caught.value)


def test_changes_are_named(recipe: Recipe) -> None:
    now = {"python": "3.11.0", "torch": "2.7.0", "numpy": "2.0"}
    assert changes(recipe, now) == ["torch 2.6.0 → 2.7.0"]
    assert changes(recipe, now, ["numpy"]) == ["numpy None → 2.0"]
    assert changes(recipe, recipe.versions) == []


def test_versions_of_what_can_change_a_pixel() -> None:
    import torch

    found = versions()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "atelier", "numpy", "pillow"} <= found.keys()
