"""Transparency: hidden colours change nothing, and a canvas round a style does not count as style."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import atelier
from atelier.core import knobs as knob_rules
from atelier.images import fill_hidden
from atelier.methods import registry
from atelier.methods.base import Job, Method

Floats = npt.NDArray[np.float32]
Kind = type[Method]

pytestmark = pytest.mark.parametrize("kind", registry.list_methods().values(), ids=registry.list_methods())

#: Methods whose result says nothing about a transparent canvas round the style, and why.
NO_CANVAS_TEST = {
    "cin": "the style picture only chooses among learnt styles",
    "deep_analogy": "the choice among alike places is chaotic: its own test shows that none is on the canvas",
    "ghiasi": "untrained, it takes logarithms of features near 0: its own test compares the statistics",
    "style_copy": "it lays the whole style over the photo: that is what it is for",
}


def style_of(kind: Kind, pixels: Floats) -> Floats | None:
    """The style picture, for a method that takes one."""
    return pixels if "picture" in kind.takes.styles else None


def with_hidden(pixels: Floats, alpha: Floats, seed: int) -> Floats:
    """(H, W, 4), other colours where nothing is visible for every seed."""
    noise = np.random.default_rng(seed).random(pixels.shape, dtype=np.float32)
    hidden = np.where(alpha[..., None] > 0, pixels, noise)
    return np.concatenate([hidden, alpha[..., None]], 2)


def a_hole(shape: tuple[int, ...]) -> Floats:
    """An alpha with a hole, a soft edge round it, and a corner that is missing."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(y - shape[0] / 2, x - shape[1] / 3)
    alpha = ((distance - 6) / 4).clip(0, 1)
    alpha[: shape[0] // 4, shape[1] // 2 :] = 0
    return alpha.astype(np.float32)


def test_hidden_colours_change_nothing(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    holes = a_hole(photo.shape), a_hole(painting.shape[1::-1]).T
    made = [
        atelier.stylize(
            with_hidden(photo, holes[0], seed),
            style_of(kind, with_hidden(painting, holes[1], seed + 1)),
            method=kind.name,
            **tiny,
        )
        for seed in (1, 3)
    ]
    visible = holes[0] > 0
    assert np.isfinite(made[0].pixels[visible]).all()
    assert np.array_equal(made[0].pixels[visible], made[1].pixels[visible])


def test_a_picture_that_is_hidden_altogether_is_still_painted(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    nothing = np.zeros(painting.shape[:2], np.float32)
    style = style_of(kind, with_hidden(painting, nothing, 1))
    made = atelier.stylize(photo, style, method=kind.name, **tiny)
    assert np.isfinite(made.pixels).all()
    hidden = with_hidden(photo, np.zeros(photo.shape[:2], np.float32), 1)
    assert np.isfinite(
        atelier.stylize(hidden, style_of(kind, painting), method=kind.name, **tiny).pixels
    ).all()


def framed(seed: int = 0) -> Floats:
    """A colourful picture 96 x 128 px with a black border, which a fill would spread."""
    coarse = torch.rand((1, 3, 12, 16), generator=torch.Generator().manual_seed(seed))
    picture = torch.nn.functional.interpolate(coarse, (96, 128), mode="bicubic").clamp(0.2, 1)
    picture[..., :2, :] = picture[..., -2:, :] = picture[..., :2] = picture[..., -2:] = 0
    return np.ascontiguousarray(picture[0].permute(1, 2, 0).numpy())


def tensor(pixels: Floats) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def test_a_canvas_round_a_style_does_not_count(kind: Kind, tiny: dict[str, Any], photo: Floats) -> None:
    """The result's colours are as with the visible part alone, or at least twice as near as without alpha.

    Colours are means and deviations of the channels. They cannot be the same to the bit: at the edge of the
    visible part the encoder sees the fill, where alone it has its own padding, positions of deep layers lie
    half on the canvas, and one other match changes all that follow.
    """
    if kind.name in NO_CANVAS_TEST or not kind.takes.least:
        pytest.skip(NO_CANVAS_TEST.get(kind.name, "it takes no style"))
    style = framed()
    canvas, alpha = np.zeros((192, 256, 3), np.float32), np.zeros((192, 256), np.float32)
    canvas[64:160, 96:224], alpha[64:160, 96:224] = style, 1
    knobs = {name: value for name, value in tiny.items() if name in kind.Knobs.model_fields}
    chosen = knob_rules.parse(kind.Knobs, registry.knobs_for(kind, "good", knobs))
    job = Job(tensor(photo), [tensor(style)], [1.0], torch.device("cpu"), torch.float32)
    filled = [tensor(fill_hidden(canvas, alpha))]
    seen = [torch.from_numpy(alpha)[None, None]]

    def colours(**changes: Any) -> Tensor:
        made = kind().picture(dataclasses.replace(job, **changes), chosen).clamp(0, 1)
        return torch.cat([made.mean((2, 3)), made.std((2, 3))])

    alone = colours()
    apart = (colours(styles=filled, styles_seen=seen) - alone).abs().max()
    without = (colours(styles=filled) - alone).abs().max()
    assert apart < max(0.02, without / 2), f"{apart:.4f} from the visible part, {without:.4f} without alpha"
