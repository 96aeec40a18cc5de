"""Black, grey and flat styles: their pictures are black, grey and flat."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import atelier

Floats = npt.NDArray[np.float32]

GRAIN = np.random.default_rng(0).normal(0.5, 0.12, (40, 40, 1)).clip(0, 1).astype(np.float32)
STYLES = {
    "black": np.zeros((40, 40, 3), np.float32),
    "white": np.ones((40, 40, 3), np.float32),
    "flat grey": np.full((40, 40, 3), 0.5, np.float32),
    "flat red": np.zeros((40, 40, 3), np.float32) + np.float32([0.8, 0.2, 0.1]),
    "grey": np.repeat(GRAIN, 3, axis=2),
}
TRANSFERS = ("monge-kantorovich", "reinhard", "pca", "coral", "histogram", "sliced")
RUNS: list[tuple[str, dict[str, Any]]] = [
    *(("colour", {"transfer": name}) for name in TRANSFERS),
    *(("colour", {"transfer": name, "space": "lab"}) for name in TRANSFERS),
    ("texture", {"iterations": 8, "coarse_iterations": 8, "smallest": 32}),
    ("texture", {"iterations": 8, "coarse_iterations": 8, "smallest": 32, "style_loss": "gram"}),
    ("quilting", {"passes": 2}),
    ("efros_leung", {}),
    ("analogies", {}),
    ("elad_milanfar", {"iterations": 1}),
    ("adain", {}),
    ("nnst_d", {}),
]


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize(("method", "knobs"), RUNS, ids=lambda value: str(value))
def test_a_picture_has_the_colours_of_its_style(
    method: str, knobs: dict[str, Any], name: str, photo: Floats
) -> None:
    style = STYLES[name]
    made = atelier.stylize(photo, style, method=method, device="cpu", **knobs).pixels
    np.testing.assert_allclose(made.mean((0, 1)), style.mean((0, 1)), atol=0.04)
    if name == "grey":
        assert np.ptp(made, axis=2).max() < 2 / 255
    else:
        np.testing.assert_allclose(made, np.broadcast_to(style[0, 0], made.shape), atol=2 / 255)
