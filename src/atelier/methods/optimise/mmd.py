"""MMD: iterate on the image until its features are distributed like the style's, as a kernel sees it.

Style transfer as domain adaptation: each position of a layer is one sample, and the maximum mean
discrepancy between the picture's samples and the style's is minimised, with the content loss of Gatys et al.
Kernels: linear (means), polynomial (of degree 2, which is Gram matching), Gaussian (the whole distribution),
and the matching of batch-norm statistics (means and deviations); several can be fused.

This differs from the paper as `gatys` does: coarse to fine, replicate padding, losses relative to the
style's own size, Adam with averaged iterates; `--quality published` takes that away. The Gaussian kernel is
estimated from all pairs of a thousand positions, drawn anew at each evaluation: at the same time the linear
estimate of the paper (`--estimator linear`) is several times noisier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from atelier import features, losses
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.core.registry import Job, Method, Paper
from atelier.maths.coarse_to_fine import DescentKnobs, coarse_to_fine, shares, style_at

if TYPE_CHECKING:
    from atelier.losses.objective import Objective

Kernel = Literal["linear", "polynomial", "gaussian", "moments"]


class MMD(Method):
    """Optimise the picture until a kernel cannot tell its features from the style's."""

    name = "mmd"
    paper = Paper(
        "Li, Wang, Liu & Hou", 2017, "Demystifying Neural Style Transfer", "https://arxiv.org/abs/1701.01036"
    )
    native = frozenset({"styles", "strength"})

    class Knobs(DescentKnobs):
        """The kernels and what they look at."""

        kernels: tuple[Kernel, ...] = knob(
            ("gaussian", "moments"), "Kernels to match by: linear, polynomial, gaussian, moments."
        )
        kernel_weights: tuple[float, ...] = knob((), "Weight of each kernel; equal when none is given.")
        offset: float = knob(0.0, "Offset c of the polynomial kernel (x.y + c)^2.", ge=0)
        bandwidth: float = knob(
            1.0, "Square of the Gaussian's width, relative to the style's mean squared distance.", gt=0
        )
        estimator: Literal["full", "linear"] = knob("full", "Pairs that estimate the Gaussian kernel.")
        samples: int = knob(1024, "Positions drawn for the Gaussian kernel at each evaluation.", ge=2)
        style_layers: tuple[str, ...] = knob(
            ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "Taps whose distribution is the style."
        )
        style_layer_weights: tuple[float, ...] = knob(
            (), "Weight of each style tap; equal when none is given."
        )
        content_layers: tuple[str, ...] = knob(("relu4_1",), "Taps whose features are the content.")
        style_weight: float = knob(1.0, "Weight of the style's distribution.", ge=0)
        content_weight: float = knob(0.03, "Weight of the content's features.", ge=0)
        smoothness: float = knob(1.0, "Weight of total variation, against grain.", ge=0)

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 12, "coarse_iterations": 36},
        "good": {},
        "best": {"iterations": 200, "coarse_iterations": 300},
        "published": {
            "encoder": "vgg19.imagenet",
            "padding": "zeros",
            "half": False,
            "start": "noise",
            "smallest": 100_000,
            "iterations": 1000,
            "optimiser": "lbfgs",
            "kernels": ("gaussian",),
            "estimator": "linear",
            "samples": 100_000,
            "style_layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
            "content_layers": ("relu4_2",),
            "smoothness": 0.0,
        },
    }

    def weights(self, knobs: MMD.Knobs) -> Sequence[str]:
        return knobs.files()

    def transfer(self, job: Job, knobs: MMD.Knobs) -> torch.Tensor:
        # Tensors born in a caller's inference mode could not be differentiated through.
        with torch.inference_mode(False):
            encoder = features.load(knobs.encoder, padding=knobs.padding, pooling=knobs.pooling)
            encoder.prepare(job.device, job.dtype if knobs.half else torch.float32)
            return coarse_to_fine(job, knobs, lambda content: _objective(job, knobs, encoder, content))


def _objective(job: Job, knobs: MMD.Knobs, encoder: features.VGG, content: torch.Tensor) -> Objective:
    """The objective at the content's size: style, content and smoothness."""
    from atelier.losses.objective import Objective, Term, content_terms

    height, width = content.shape[-2:]
    # Strength scales the style's weight; squared, its effect on the picture is about even.
    strength = knobs.style_weight * job.strength**2
    with torch.no_grad():
        style = [
            Term(tap, strength * weight * share, loss)
            for weight, picture in zip(job.style_weights, job.styles, strict=True)
            if weight
            for tap, share, loss in _style_losses(
                job, knobs, encoder, style_at(job, picture, (height, width))
            )
        ]
        kept = content_terms(encoder, content, knobs.content_layers, knobs.content_weight)
    return Objective(encoder, {"style": style, "content": kept}, smoothness=knobs.smoothness)


def _style_losses(
    job: Job, knobs: MMD.Knobs, encoder: features.VGG, style: torch.Tensor
) -> Iterator[tuple[str, float, Any]]:
    """Tap, share and loss of every kernel at every style tap."""
    taps = shares(knobs.style_layers, knobs.style_layer_weights)
    named = {"knob": "kernels", "weights_knob": "kernel_weights", "what": "kernel"}
    kernels = shares(knobs.kernels, knobs.kernel_weights, **named)
    found = encoder(style, list(taps))
    for tap, of_tap in taps.items():
        for kernel, of_kernel in kernels.items():
            yield tap, of_tap * of_kernel, _style_loss(job, knobs, kernel, found[tap])


def _style_loss(job: Job, knobs: MMD.Knobs, kernel: str, target: torch.Tensor) -> Any:
    from atelier.losses.kernels import GaussianKernelLoss, LinearKernelLoss, PolynomialKernelLoss

    if kernel == "linear":
        return LinearKernelLoss(target, relative=True)
    if kernel == "polynomial":
        return PolynomialKernelLoss(target, offset=knobs.offset, relative=True)
    if kernel == "moments":
        return losses.MomentLoss(target, relative=True)
    return GaussianKernelLoss(
        target,
        estimator=knobs.estimator,
        samples=knobs.samples,
        bandwidth=knobs.bandwidth,
        relative=True,
        # The memory of L-BFGS needs one and the same function.
        fresh=knobs.optimiser == "adam",
        seed=job.seed,
    )
