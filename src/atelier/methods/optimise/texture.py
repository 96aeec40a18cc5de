"""Texture: make a new texture of any size that has the statistics of a sample, tileable if wanted.

Gatys et al. start from noise and optimise it until the features of an encoder have the sample's statistics;
there is no content. Of the content picture only the size is used (and with strength below 1 it shows
through): give the sample itself twice and say `--size`; `--style-scale` sets how large the sample counts
against the result, 0.5 for a result of twice its sides.

This differs from the paper as `gatys` does: coarse to fine, because structure larger than the encoder's view
does not form from noise at the final size; Wasserstein statistics; replicate padding; Adam with averaged
iterates. `--quality published` takes that away. With `seamless`, every convolution goes on at the opposite
border, so that no seam is seen where copies meet; sides that are multiples of 16 make that exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from atelier import features
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.core.registry import Job, Method, Paper
from atelier.images.resize import resize
from atelier.maths.coarse_to_fine import DescentKnobs, coarse_to_fine, shares, style_at

if TYPE_CHECKING:
    from atelier.losses.objective import Objective


class Texture(Method):
    """Make a new texture with the statistics of a sample, of the content's size, tileable if wanted."""

    name = "texture"
    paper = Paper(
        "Gatys, Ecker & Bethge",
        2015,
        "Texture Synthesis Using Convolutional Neural Networks",
        "https://arxiv.org/abs/1505.07376",
    )
    native = frozenset({"styles"})

    class Knobs(DescentKnobs):
        """What is matched, and whether the result can be tiled."""

        start: str = knob("noise", "Start from 'noise', 'content', 'style', or a picture's file.")
        seamless: bool = knob(False, "Make a texture whose copies can be laid side by side.")
        style_layers: tuple[str, ...] = knob(
            ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "Taps whose statistics are the texture."
        )
        style_layer_weights: tuple[float, ...] = knob(
            (), "Weight of each style tap; equal when none is given."
        )
        style_loss: Literal["gram", "centred-gram", "moments", "wasserstein"] = knob(
            "wasserstein", "Statistics that are matched."
        )
        smoothness: float = knob(0.1, "Weight of total variation, against grain.", ge=0)

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 20, "coarse_iterations": 60},
        "good": {},
        "best": {"iterations": 200, "coarse_iterations": 300},
        "published": {
            "encoder": "vgg19.imagenet",
            "padding": "zeros",
            "pooling": "average",
            "half": False,
            "smallest": 100_000,
            "iterations": 1000,
            "optimiser": "lbfgs",
            "style_layers": ("conv1_1", "pool1", "pool2", "pool3", "pool4"),
            "style_loss": "gram",
            "smoothness": 0.0,
        },
    }

    def weights(self, knobs: Texture.Knobs) -> Sequence[str]:
        return knobs.files()

    def transfer(self, job: Job, knobs: Texture.Knobs) -> torch.Tensor:
        # Tensors born in a caller's inference mode could not be differentiated through.
        with torch.inference_mode(False):
            encoder = features.load(knobs.encoder, padding=knobs.padding, pooling=knobs.pooling)
            encoder.prepare(job.device, job.dtype if knobs.half else torch.float32)
            enlarge = _wrapped_resize if knobs.seamless else resize
            return coarse_to_fine(
                job, knobs, lambda content: _objective(job, knobs, encoder, content), enlarge=enlarge
            )


def _objective(job: Job, knobs: Texture.Knobs, encoder: features.VGG, content: torch.Tensor) -> Objective:
    """The objective at the content's size: the sample's statistics and smoothness."""
    from atelier.losses.objective import Objective, Term, statistics_loss

    height, width = content.shape[-2:]
    taps = shares(knobs.style_layers, knobs.style_layer_weights)
    terms = []
    # The sample has borders, whether or not the texture will have any.
    encoder.padding = knobs.padding
    for weight, picture in zip(job.style_weights, job.styles, strict=True):
        if weight:
            with torch.no_grad():
                found = encoder(style_at(job, picture, (height, width)), list(taps))
                terms += [
                    Term(tap, weight * share, statistics_loss(knobs.style_loss, found[tap]))
                    for tap, share in taps.items()
                ]
    if knobs.seamless:
        encoder.padding = "circular"
    return Objective(encoder, {"style": terms}, smoothness=knobs.smoothness, wrap=knobs.seamless)


def _wrapped_resize(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A tileable picture (1, 3, H, W) at `size`, still tileable: the middle one of nine copies."""
    height, width = size
    if picture.shape[-2:] == (height, width):
        return picture
    nine = resize(picture.repeat(1, 1, 3, 3), (3 * height, 3 * width))
    return nine[..., height : 2 * height, width : 2 * width].contiguous()
