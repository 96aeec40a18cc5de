"""Gatys: iterate on the image until its features have the content's places and the style's statistics.

Style is the Gram matrix of an encoder's features, content the features themselves; the picture is
optimised from a start until both losses are low. It is the method that all later ones are held against.

This differs from the paper in what experience added, and `--quality published` and `--quality tutorial`
take it away again: coarse to fine, because strokes larger than the encoder's view never form at the final
size; the Wasserstein distance of Gaussians instead of Gram matrices, because it carries the whole palette
over; replicate padding, because zeros frame the picture; every layer's loss relative to the style's own
size, so that weights mean the same for every encoder; Adam with averaged iterates, because bfloat16
gradients upset the memory of L-BFGS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from atelier import features, losses, maths
from atelier.core.errors import UsageError, did_you_mean
from atelier.core.knobs import Knobs, knob
from atelier.core.lazy import torch
from atelier.core.registry import Job, Method, Paper
from atelier.images import Picture
from atelier.images.resize import resize

StyleLoss = Literal["gram", "centred-gram", "moments", "wasserstein"]
_STARTS = ("content", "noise", "style")
_TUTORIAL_LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
_PUBLISHED_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")


class Gatys(Method):
    """Optimise the picture until its features have the content's layout and the style's statistics."""

    name = "gatys"
    paper = Paper(
        "Gatys, Ecker & Bethge",
        2016,
        "Image Style Transfer Using Convolutional Neural Networks",
        "https://openaccess.thecvf.com/content_cvpr_2016/html/Gatys_Image_Style_Transfer_CVPR_2016_paper.html",
    )
    native = frozenset({"styles", "strength"})

    class Knobs(Knobs):
        """What can be changed about the optimisation."""

        encoder: str = knob("encoder.atelier", "Encoder: a name from 'atelier weights list', or a file.")
        style_layers: tuple[str, ...] = knob(
            ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "Taps whose statistics are the style."
        )
        style_layer_weights: tuple[float, ...] = knob(
            (), "Weight of each style tap; equal when none is given."
        )
        content_layers: tuple[str, ...] = knob(("relu4_1",), "Taps whose features are the content.")
        style_loss: StyleLoss = knob("wasserstein", "Statistics that are matched.")
        style_weight: float = knob(1.0, "Weight of the style's statistics.", ge=0)
        content_weight: float = knob(0.03, "Weight of the content's features.", ge=0)
        smoothness: float = knob(1.0, "Weight of total variation, against grain.", ge=0)
        scale: Literal["relative", "tutorial", "published"] = knob(
            "relative",
            "Unit of the losses: relative to their targets, or as the tutorial or the paper has them.",
        )
        start: str = knob("content", "Start from 'content', 'noise', 'style', or a picture's file.")
        smallest: int = knob(128, "Long side of the coarsest size; large means one size only.", ge=16)
        iterations: int = knob(100, "Evaluations at the final size.", ge=1)
        coarse_iterations: int = knob(150, "Evaluations at each coarser size.", ge=1)
        optimiser: Literal["adam", "lbfgs"] = knob("adam", "Optimiser of the picture.")
        step_size: float = knob(0.03, "Adam's step, in units of the pixel range.", gt=0, le=1)
        average: float = knob(
            0.9, "Decay of the average over Adam's iterates; 0 takes the best iterate.", ge=0, lt=1
        )
        padding: Literal["replicate", "zeros", "reflect"] = knob("replicate", "Border of the convolutions.")
        pooling: Literal["max", "average"] = knob("max", "Pooling of the encoder.")
        half: bool = knob(True, "Run the encoder in bfloat16 where the device multiplies it in hardware.")

    _plain = {  # noqa: RUF012 - shared by two qualities, never changed
        "encoder": "vgg19.imagenet",
        "padding": "zeros",
        "optimiser": "lbfgs",
        "smallest": 100_000,
        "smoothness": 0.0,
        "half": False,
        "style_loss": "gram",
    }
    qualities = {  # noqa: RUF012
        "draft": {"iterations": 12, "coarse_iterations": 36},
        "good": {},
        "best": {"iterations": 200, "coarse_iterations": 300},
        "tutorial": {
            **_plain,
            "style_layers": _TUTORIAL_LAYERS,
            "content_layers": ("conv2_2",),
            "scale": "tutorial",
            "style_weight": 1e6 * len(_TUTORIAL_LAYERS),
            "content_weight": 1.0,
            "iterations": 300,
        },
        "published": {
            **_plain,
            "style_layers": _PUBLISHED_LAYERS,
            "content_layers": ("conv4_2",),
            "scale": "published",
            "style_weight": 1e3,
            "content_weight": 1.0,
            "start": "noise",
            "pooling": "average",
            "iterations": 500,
        },
    }

    def weights(self, knobs: Gatys.Knobs) -> Sequence[str]:
        return (knobs.encoder,) if knobs.start in _STARTS else (knobs.encoder, knobs.start)

    def transfer(self, job: Job, knobs: Gatys.Knobs) -> torch.Tensor:
        # Tensors born in a caller's inference mode could not be differentiated through.
        with torch.inference_mode(False):
            return self._transfer(job, knobs)

    def _transfer(self, job: Job, knobs: Gatys.Knobs) -> torch.Tensor:
        encoder = features.load(knobs.encoder, padding=knobs.padding, pooling=knobs.pooling)
        encoder.prepare(job.device, job.dtype if knobs.half else torch.float32)
        height, width = job.content.shape[-2:]
        scales = maths.sizes((height, width), smallest=knobs.smallest)
        total = knobs.iterations + knobs.coarse_iterations * (len(scales) - 1)
        picture, done = _start(job, knobs, scales[0]), 0
        for size in scales:
            content = resize(job.content, size)
            descent = _descent(job, knobs, encoder, content, size, (done, total))
            picture = descent.run(resize(picture, size))
            done += descent.iterations
            if job.progress.stopped:
                break
        return picture if picture.shape[-2:] == (height, width) else resize(picture, (height, width))


def _start(job: Job, knobs: Gatys.Knobs, size: tuple[int, int]) -> torch.Tensor:
    """The first picture, (1, 3, H, W), at the coarsest size."""
    if knobs.start == "content":
        return resize(job.content, size)
    if knobs.start == "style":
        return resize(job.styles[0], size)
    if knobs.start == "noise":
        generator = torch.Generator().manual_seed(job.seed)
        return torch.rand((1, 3, *size), generator=generator).to(job.device)
    if not Path(knobs.start).suffix and not Path(knobs.start).exists():
        near = did_you_mean(knobs.start, _STARTS)
        raise UsageError(f"start = '{knobs.start}' is not a picture's file nor a name: {near}")
    return resize(Picture.open(knobs.start).tensor().to(job.device), size)


def _descent(
    job: Job,
    knobs: Gatys.Knobs,
    encoder: features.VGG,
    content: torch.Tensor,
    size: tuple[int, int],
    position: tuple[int, int],
) -> maths.Descent:
    """The optimisation at one size; `position` is (evaluations before, evaluations in all)."""
    done, total = position
    objective = Objective(job, knobs, encoder, content)
    final = size == tuple(job.content.shape[-2:])
    stage = f"{size[1]} x {size[0]}"

    def report(evaluation: int, terms: Mapping[str, float], picture: Any) -> bool:
        return job.progress.report(done + evaluation, total, stage=stage, losses=terms, preview=picture)

    return maths.Descent(
        objective,
        optimiser=knobs.optimiser,
        iterations=knobs.iterations if final else knobs.coarse_iterations,
        step_size=knobs.step_size,
        average=knobs.average,
        report=report,
    )


class Objective:
    """The weighted losses of a picture at one size, by name: style, content and smoothness."""

    def __init__(self, job: Job, knobs: Gatys.Knobs, encoder: features.VGG, content: torch.Tensor) -> None:
        if not knobs.content_layers:
            raise UsageError("content_layers needs at least one tap; content_weight 0 leaves the content out")
        self.knobs, self.encoder = knobs, encoder
        # Strength scales the style's weight; squared, its effect on the picture is about even.
        self.style_weight = knobs.style_weight * job.strength**2
        self.layer_weights = _layer_weights(knobs)
        long_side = max(content.shape[-2:])
        relative = knobs.scale == "relative"
        with torch.no_grad():
            found = encoder(content, knobs.content_layers)
            self.content = {
                tap: losses.ContentLoss(found[tap], relative=relative) for tap in knobs.content_layers
            }
            self.styles = [
                (weight, self._style_losses(_at_scale(style, long_side, job)))
                for style, weight in zip(job.styles, job.style_weights, strict=True)
            ]
        self.smooth = losses.TotalVariation("squared")
        self.taps = tuple(dict.fromkeys((*knobs.style_layers, *knobs.content_layers)))

    def _style_losses(self, style: torch.Tensor) -> dict[str, Any]:
        found = self.encoder(style, self.knobs.style_layers)
        return {tap: _style_loss(found[tap], self.knobs) for tap in self.knobs.style_layers}

    def content_unit(self, loss: losses.ContentLoss) -> float:
        """The paper sums half the squares (eq. 1); else it is the mean over positions, channels and taps."""
        return loss.target.numel() / 2 if self.knobs.scale == "published" else 1 / len(self.content)

    def __call__(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.encoder(picture, self.taps)
        style = sum(
            weight * share * loss[tap](found[tap])
            for weight, loss in self.styles
            for tap, share in self.layer_weights.items()
        )
        content = sum(loss(found[tap]) * self.content_unit(loss) for tap, loss in self.content.items())
        terms = {"style": self.style_weight * style, "content": self.knobs.content_weight * content}
        if self.knobs.smoothness:
            terms["smoothness"] = self.knobs.smoothness * self.smooth(picture)
        return terms


def _layer_weights(knobs: Gatys.Knobs) -> dict[str, float]:
    """The style taps' weights, summing to 1."""
    if not knobs.style_layers or len(set(knobs.style_layers)) != len(knobs.style_layers):
        raise UsageError("style_layers needs at least one tap, and none of them twice")
    weights = knobs.style_layer_weights or (1.0,) * len(knobs.style_layers)
    if len(weights) != len(knobs.style_layers):
        raise UsageError(
            f"style_layer_weights has {len(weights)} numbers for {len(knobs.style_layers)} style_layers: "
            "give one each, or none"
        )
    if min(weights) < 0 or sum(weights) <= 0:
        raise UsageError("style_layer_weights must not be negative, and one must be above 0")
    return {tap: weight / sum(weights) for tap, weight in zip(knobs.style_layers, weights, strict=True)}


def _style_loss(target: torch.Tensor, knobs: Gatys.Knobs) -> Any:
    """The chosen statistics of one tap's style features (1, C, H, W)."""
    relative = knobs.scale == "relative"
    if knobs.style_loss == "moments":
        return losses.MomentLoss(target, relative=relative)
    if knobs.style_loss == "wasserstein":
        return losses.WassersteinLoss(target, relative=relative)
    return losses.GramLoss(target, centred=knobs.style_loss == "centred-gram", scale=knobs.scale)


def _at_scale(style: torch.Tensor, long_side: int, job: Job) -> torch.Tensor:
    """The style, shrunk as much as the content was."""
    height, width = style.shape[-2:]
    ratio = long_side / max(job.content.shape[-2:])
    if ratio >= 1:
        return style
    return resize(style, (max(1, round(height * ratio)), max(1, round(width * ratio))))
