"""The bundled networks: a picture in its own style is reproduced, and style and content are balanced."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import atelier
from atelier import examples, features
from atelier.api import BY_QUALITY
from atelier.core.errors import UsageError
from atelier.images import Picture
from atelier.methods import registry
from atelier.metrics import GramDistance, LightSimilarity, MomentDistance
from atelier.store import records, weights

#: The largest mean error of a picture in its own style; the most of the style's distance (moments, Gram
#: matrices) that is left; the least likeness of light and dark to the photo.
BOUNDS = {
    "nnst_d": (0.08, (0.6, 0.8), 0.2),
    "adain": (0.1, (0.8, 0.8), 0.4),
    "microast": (0.2, (0.85, 0.85), 0.3),
    "wct": (0.2, (0.8, 0.8), 0.2),
    "cap_vstnet": (0.03, (0.9, 0.9), 0.6),
}


@pytest.mark.parametrize("method", BOUNDS)
def test_bundled_weights_are_half_precision_with_training_facts(method: str) -> None:
    state = weights.load(f"{method}.atelier")
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float16}
    assert sum(tensor.numel() for tensor in state.values()) < 5e6
    assert '"steps": ' in weights.metadata(f"{method}.atelier")["training"]


@pytest.mark.parametrize("method", BOUNDS)
def test_a_picture_in_its_own_style_is_reproduced(method: str) -> None:
    photo = Picture.of(examples.photo("astronaut")).resized(192)
    made = atelier.stylize(photo, photo, method=method, device="cpu")
    assert np.abs(made.pixels - photo.pixels).mean() < BOUNDS[method][0]


@pytest.mark.parametrize(("photo", "style"), [("chelsea", "stained_glass"), ("coffee", "cubist")])
@pytest.mark.parametrize("method", BOUNDS)
def test_style_is_transferred_and_content_is_preserved(method: str, photo: str, style: str) -> None:
    content = Picture.of(examples.photo(photo)).resized(256)
    painting = Picture.of(examples.style(style, size=256))
    made = atelier.stylize(content, painting, method=method, device="cpu")
    encoder = features.load(padding="replicate")
    result, before, style = (one.tensor() for one in (made, content, painting))
    _, left, light = BOUNDS[method]
    for metric, most in zip((MomentDistance(encoder), GramDistance(encoder)), left, strict=True):
        assert metric(result, before, style) < most * metric(before, before, style)
    assert LightSimilarity()(result, before, style) > light


def test_painterly_keeps_less_of_the_photos_detail_than_best() -> None:
    content = Picture.of(examples.photo("chelsea")).resized(192)
    painting = Picture.of(examples.style("nocturne", size=192))

    def detail(picture: Picture) -> torch.Tensor:
        light = picture.tensor().mean(1, keepdim=True)
        return (light - torch.nn.functional.avg_pool2d(light, 5, 1, 2)).flatten()

    def likeness(quality: str) -> float:
        made = atelier.stylize(content, painting, quality=quality, size=192, device="cpu")
        assert made.recipe is not None
        assert made.recipe["method"] == "nnst"
        return float(torch.corrcoef(torch.stack([detail(made), detail(content)]))[0, 1])

    assert likeness("painterly") < likeness("best") - 0.1


def test_painterly_is_for_style_pictures() -> None:
    with pytest.raises(UsageError, match="'painterly' needs a style picture, not words"):
        atelier.stylize(np.zeros((32, 32, 3), np.uint8), text="van gogh", quality="painterly")


def test_cap_vstnet_is_lossless() -> None:
    photo = Picture.of(examples.photo("astronaut")).resized(192)
    made = atelier.stylize(photo, photo, method="cap_vstnet", device="cpu", half=False)
    assert np.abs(made.pixels - photo.pixels).max() < 1e-3


@pytest.mark.parametrize("quality", BY_QUALITY)
def test_every_quality_needs_nothing_but_the_package(quality: str) -> None:
    kind = registry.find(BY_QUALITY[quality])
    used = kind().weights(kind.Knobs(**kind.qualities[quality]))
    assert used
    assert all(records.record(name).bundled for name in used)


def test_bundled_files_are_small() -> None:
    folder = weights.locate("nnst_d.atelier").parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25e6
