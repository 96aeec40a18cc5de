from __future__ import annotations

import inspect
from typing import Any, Literal

import pytest
import typer
from pydantic import Field

from atelier.apps.flags import default_of, flag, given, kind_of, parameters, with_parameters
from atelier.core.knobs import Knobs, knob


class Brush(Knobs):
    width: int = knob(12, "Width in pixels.", ge=1, le=200)
    share: float = knob(0.5, "Share of the picture.", gt=0, lt=1)
    tip: Literal["round", "flat"] = knob("round", "Form of the tip.")
    layers: tuple[str, ...] = knob(("wet", "dry"), "Layers, from below.")
    weights: tuple[float, ...] = knob((), "Weight of each.")
    size: int | None = Field(None, ge=1, description="Long side.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed.")
    varnish: bool = knob(True, "A last coat.")
    paper: str = Field(..., description="What is painted on.")
    sample: str = knob("noise", "Where it starts.", file="picture", words=("noise", "style"))
    network: str = knob("a.b", "Network.", file="weights")
    film: str = knob("", "Film.", writes=(".gif", ".webp"))


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("width", "integer ≥1 ≤200", "12"),
        ("share", "number >0 <1", "0.5"),
        ("tip", "round|flat", "round"),
        ("layers", "text", "wet dry"),
        ("weights", "number", "none"),
        ("size", "integer ≥1", "none"),
        ("seed", "integer ≥0 <2^63", "0"),
        ("varnish", "yes/no", "yes"),
        ("paper", "text", "required"),
        ("sample", "noise|style|picture file", "noise"),
        ("network", "name or file", "a.b"),
        ("film", ".gif|.webp file", "none"),
    ],
)
def test_fields_in_words(name: str, kind: str, default: str) -> None:
    field = Brush.model_fields[name]
    assert kind_of(field) == kind
    assert default_of(field) == default


def test_what_was_given() -> None:
    assert flag("style_layer_weights") == "--style-layer-weights"
    values = {"a": None, "b": [], "c": ["x", "y"], "d": "1", "e": False}
    assert given(values) == {"c": ("x", "y"), "d": "1", "e": False}


def paint(photo: str, **settings: Any) -> dict[str, Any]:
    """Paint it."""
    return {"photo": photo, **settings}


def test_settings_become_parameters() -> None:
    painting = with_parameters(paint, parameters(Brush, "Brush", skip=("seed",)))
    names = list(inspect.signature(painting).parameters)
    assert names == ["photo", *(name for name in Brush.model_fields if name != "seed")]
    assert painting(photo="a", width=3) == {"photo": "a", "width": 3}
    assert painting.__name__ == "paint"


def test_typer_makes_flags_of_them() -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(with_parameters(paint, parameters(Brush, "Brush")))
    line = "sky.png --width 3 --layers wet --layers dry --no-varnish"
    values = typer.main.get_command(app)(line.split(), standalone_mode=False)
    assert given(values) == {"photo": "sky.png", "width": "3", "layers": ("wet", "dry"), "varnish": False}


def test_help_of_a_flag() -> None:
    flags = {one.name: one.annotation.__metadata__[0] for one in parameters(Brush, "Brush")}
    repeated = "Repeat the flag for several values."
    assert flags["layers"].help == f"Layers, from below. {repeated} [default: wet dry]"
    assert flags["size"].help == "Long side."
    assert flags["paper"].help == "What is painted on. [required]"
    assert flags["width"].metavar == "integer ≥1 ≤200"
    assert {one.rich_help_panel for one in flags.values()} == {"Brush"}
