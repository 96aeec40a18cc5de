"""MMD: optimise the image until a kernel cannot distinguish its feature distribution from the style's.

Style transfer as domain adaptation: each position of a layer is one sample, and the maximum mean
discrepancy between the picture's samples and the style's is minimised, with the content loss of Gatys et al.
Kernels: linear (means), polynomial (of degree 2, which is Gram matching), Gaussian (the whole distribution),
and batch-norm statistics (means and deviations); several can be combined.

Differences from the paper, as in `gatys`: coarse to fine, replicate padding, Adam with averaged iterates;
`--quality published` undoes these (with L-BFGS instead of gradient descent with momentum). Each loss is
relative to the style's magnitude instead of divided by the paper's Z, which the paper does not specify. The
Gaussian kernel is estimated from all pairs of a thousand positions, redrawn at each evaluation; the paper's
linear estimate (`--estimator linear`) is several times noisier at the same cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from atelier import features, losses, maths
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Job, Paper
from atelier.methods.optimise.coarse_to_fine import coarse_to_fine, shares, size_of
from atelier.methods.optimise.common import EFFORTS, PLAIN, ContentKnobs, _Optimising, style_and_content

if TYPE_CHECKING:
    from atelier.losses.objective import Objective, Term

Kernel = Literal["linear", "polynomial", "gaussian", "moments"]


class MMD(_Optimising):
    """Optimise the picture until a kernel cannot tell its features from the style's."""

    name = "mmd"
    paper = Paper(
        "Li, Wang, Liu & Hou", 2017, "Demystifying Neural Style Transfer", "https://arxiv.org/abs/1701.01036"
    )
    native = frozenset({"styles", "strength"})

    class Knobs(ContentKnobs):
        """The kernels, and the estimator of the Gaussian one."""

        kernels: tuple[Kernel, ...] = knob(
            ("gaussian", "moments"), "Kernels to match with: linear, polynomial, gaussian, moments."
        )
        kernel_weights: tuple[float, ...] = knob((), "Weight of each kernel; equal by default.")
        offset: float = knob(0.0, "Offset c of the polynomial kernel (x.y + c)^2.", ge=0)
        bandwidth: float = knob(
            1.0, "Squared width of the Gaussian, relative to the style's mean squared distance.", gt=0
        )
        estimator: Literal["full", "linear"] = knob(
            "full", "Pairs of positions used to estimate the Gaussian kernel."
        )
        samples: int = knob(1024, "Positions sampled for the Gaussian kernel at each evaluation.", ge=2)

    qualities = {  # noqa: RUF012
        **EFFORTS,
        # So few steps leave much of the colours that the picture starts with.
        "draft": {**EFFORTS["draft"], "start": "recoloured"},
        "published": {
            **PLAIN,
            "start": "noise",
            "iterations": 1000,
            "kernels": ("gaussian",),
            "estimator": "linear",
            "samples": 100_000,
            "style_layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
            "content_layers": ("relu4_2",),
        },
    }

    def paint(self, job: Job, knobs: MMD.Knobs, encoder: features.VGG) -> torch.Tensor:
        return coarse_to_fine(job, knobs, partial(objective_at, job, knobs, encoder))


def objective_at(job: Job, knobs: MMD.Knobs, encoder: features.VGG, content: torch.Tensor) -> Objective:
    """The objective at the content's size: the kernels at every style tap, the content, smoothness."""
    return style_and_content(job, knobs, encoder, content, partial(_kernel_terms, job, knobs, encoder))


def _kernel_terms(
    job: Job, knobs: MMD.Knobs, encoder: features.VGG, style: torch.Tensor, seen: torch.Tensor | None
) -> Iterator[Term]:
    """The loss of every kernel at every style tap; all weights sum to 1."""
    from atelier.losses.objective import Term

    taps = knobs.style_shares()
    kernels = shares(
        knobs.kernels, knobs.kernel_weights, knob="kernels", weights_knob="kernel_weights", what="kernel"
    )
    found = encoder(style, list(taps))
    for tap, of_tap in taps.items():
        for kernel, of_kernel in kernels.items():
            loss = _kernel_loss(job, knobs, kernel, found[tap], seen)
            yield Term(tap, of_tap * of_kernel, loss, statistic=True)


def _kernel_loss(
    job: Job, knobs: MMD.Knobs, kernel: str, target: torch.Tensor, seen: torch.Tensor | None
) -> Any:
    """The loss of one kernel against one tap's style features (1, C, H, W); `seen` is the style's alpha."""
    from atelier.losses.kernels import GaussianKernelLoss, LinearKernelLoss, PolynomialKernelLoss

    weight = maths.weight_at(seen, size_of(target))
    if kernel == "linear":
        return LinearKernelLoss(target, relative=True, weight=weight)
    if kernel == "polynomial":
        return PolynomialKernelLoss(target, offset=knobs.offset, relative=True, weight=weight)
    if kernel == "moments":
        return losses.MomentLoss(target, relative=True, weight=weight)
    return GaussianKernelLoss(
        target,
        estimator=knobs.estimator,
        samples=knobs.samples,
        bandwidth=knobs.bandwidth,
        relative=True,
        # The history of L-BFGS needs a fixed objective.
        fresh=knobs.optimiser == "adam",
        seed=job.seed,
        weight=weight,
    )
