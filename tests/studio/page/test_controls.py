"""Forms are made from declarations, selections from pixels, and nothing but an upload is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier.core.errors import InputError, UsageError
from atelier.core.knobs import Knobs, knob
from atelier.methods import registry
from atelier.methods.base import Method
from atelier.session.controls import Controls
from atelier.studio.page import controls, selection

METHODS = registry.list_methods()
DISC = (np.hypot(*np.mgrid[-60:60, -80:80]) < 34).astype(bool)


@pytest.mark.parametrize("name", METHODS)
def test_every_knob_of_a_method_has_a_field_with_its_help_range_and_default(name: str) -> None:
    kind: type[Method] = METHODS[name]
    fields = {field["name"]: field for field in controls.fields(kind.Knobs, kind.qualities["draft"])}
    assert list(fields) == list(kind.Knobs.model_fields)
    properties = kind.Knobs.model_json_schema()["properties"]
    for knob_name, field in fields.items():
        assert field["help"] == properties[knob_name]["description"]
        if field["kind"] == "range":
            assert field["minimum"] <= field["default"] <= field["maximum"]
            assert 0 < field["step"] <= field["maximum"] - field["minimum"]
        if field["kind"] in ("row", "list"):
            assert field["default"] in field["options"]
    for knob_name, value in kind.qualities["draft"].items():
        shown = fields[knob_name]["default"]
        assert shown == (", ".join(map(str, value)) if isinstance(value, list | tuple) else value)


def test_an_excluded_end_of_a_range_is_not_offered() -> None:
    [field] = controls.fields(Controls, only=("style_scale",))
    assert field["minimum"] == field["step"] > 0


def test_lists_come_as_text() -> None:
    class Made(Knobs):
        sizes: tuple[int, ...] = knob((3, 2), "Sizes.")
        names: tuple[str, ...] = knob((), "Names.")

    assert controls.fields(Made)[0]["default"] == "3, 2"
    assert controls.values(Made, {"sizes": "5, 7", "names": "a,b"}) == {"sizes": (5, 7), "names": ("a", "b")}
    with pytest.raises(UsageError, match="numbers with commas"):
        controls.values(Made, {"sizes": "five"})


def _disc() -> Any:
    pixels = np.where(DISC[..., None], (200, 60, 40), (40, 80, 150)).astype(float)
    return (pixels + np.random.default_rng(0).normal(0, 5, pixels.shape)).clip(0, 255).astype(np.uint8)


def _overlap(one: Any, other: Any) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_a_click_selects_the_object_and_not_the_ground() -> None:
    segments = selection.Segments(_disc())
    assert _overlap(segments.at(0.5, 0.5), DISC) > 0.9
    assert _overlap(segments.at(0.02, 0.02), ~DISC) > 0.9


def test_a_rough_mask_snaps_to_the_edges() -> None:
    segments = selection.Segments(_disc())
    rough = np.zeros_like(DISC)
    rough[28:92, 48:112] = True
    assert _overlap(rough, DISC) < 0.85
    assert _overlap(segments.snapped(rough), DISC) > 0.95
    with pytest.raises(InputError, match="no border"):
        segments.snapped(np.zeros_like(DISC))


def test_masks_go_to_the_browser_and_back() -> None:
    assert np.array_equal(selection.read_mask(selection.mask_address(DISC), DISC.shape), DISC)
    assert not selection.read_mask(None, (4, 5)).any()
    for wrong in ("data:text/html,x", "data:image/png;base64,%%", "data:image/png;base64,aGVsbG8="):
        with pytest.raises(InputError, match="paint it again"):
            selection.read_mask(wrong, DISC.shape)


def test_only_uploads_are_read(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra 'studio' is not installed")
    from atelier.studio.page import inputs
    from atelier.studio.service import Studio

    studio = Studio(tmp_path / "studio")
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    incoming = inputs.incoming(studio)
    incoming.mkdir()
    (incoming / "sent.png").write_bytes(b"sent")
    (incoming / "link.png").symlink_to(secret)
    assert inputs.received(studio, {"path": str(incoming / "sent.png"), "name": "x.png"}) == (
        b"sent",
        "x.png",
    )
    for path in (str(secret), f"{incoming}/../../secret.png", f"{incoming}/link.png", "", str(incoming)):
        with pytest.raises(InputError, match="was not uploaded"):
            inputs.received(studio, {"path": path})
    studio.close()
