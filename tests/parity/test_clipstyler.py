"""CLIPstyler: its style network, losses, views and first updates give the numbers of the official code."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.features import views
from atelier.features.clip import normalised

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "clipstyler" / "layout.json").read_text())
CASE = np.load(HERE / "clipstyler" / "case.npz")


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Any) -> None:
    fill.check(CASE, LAYOUT, name, value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value))


def filled(model: str) -> dict[str, Tensor]:
    found = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(found) == LAYOUT["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(value) for name, value in found.items()}


class Stub:
    """The case's stand-in for CLIP: a linear map of the averages of 8 x 8 squares."""

    side = 224

    def __init__(self) -> None:
        self.weight = filled("stub_clip")["stub_clip.weight"]

    def image(self, pictures: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(normalised(pictures), 8).flatten(1) @ self.weight.T

    def text(self, prompts: Sequence[str]) -> Tensor:
        assert len(prompts) == 79
        return array(
            "train.source_embeddings" if "a photo of a a Photo." in prompts else "train.prompt_embeddings"
        )


# the views


def test_what_clip_sees() -> None:
    check("clip.embedding", Stub().image(views.fitted(array("clip.x"), 224)))


def test_perspective_coefficients() -> None:
    ends = array("aug.endpoints")
    check("aug.coefficients", torch.stack([views.perspective_coefficients(one, (32, 32)) for one in ends]))


def test_perspective() -> None:
    image, ends = array("aug.image"), array("aug.endpoints")[0]
    warped = views.perspective(image, ends)
    check("aug.perspective", warped)
    # Newer versions of torchvision fade to black at the border, by the warped picture of where it is.
    check("aug.perspective_new_torchvision", warped * views.perspective(torch.ones_like(image), ends))
    check("aug.resized_224_of_first", views.resized(warped[:1], 224))


def test_another_convention_is_far_outside() -> None:
    with pytest.raises(AssertionError, match=r"aug\.perspective"):
        check("aug.perspective", views.perspective(array("aug.image"), array("aug.endpoints")[0] + 1))
