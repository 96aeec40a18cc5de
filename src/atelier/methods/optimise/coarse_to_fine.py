"""Coarse-to-fine optimisation: shared by all methods that optimise the picture itself.

Contains their common knobs, the loop over sizes, its events, the initial picture and the style at each size;
`Descent` optimises at one size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs, knob
from atelier.core.lazy import torch  # the knobs below are read by every `--help`
from atelier.images.resize import resize
from atelier.methods.visible import lend_visible_colours

if TYPE_CHECKING:
    from atelier.maths.descent import Objective, Report
    from atelier.methods.base import Job

#: Keywords for the initial picture, besides a file.
STARTS = ("content", "recoloured", "noise", "style")


class EncoderKnobs(Knobs):
    """The knobs of a method that uses a VGG-like encoder; the method's own knobs follow."""

    encoder: str = knob(
        "encoder.atelier", "Encoder: a name from 'atelier weights list', or a file.", file="weights"
    )
    padding: Literal["replicate", "zeros", "reflect"] = knob("replicate", "Padding mode of the convolutions.")
    pooling: Literal["max", "average"] = knob("max", "Pooling of the encoder.")
    half: bool = knob(True, "Run the encoder in bfloat16 if the device supports it natively.")

    def files(self) -> tuple[str, ...]:
        """The weights and other files that these knobs use, for the recipe."""
        return (self.encoder,)


class DescentKnobs(EncoderKnobs):
    """The knobs of a method that optimises the picture with `coarse_to_fine`."""

    start: str = knob(
        "content",
        "Start from 'content', 'recoloured' (the content in the style's colours), 'noise', 'style', or a "
        "picture file.",
        file="picture",
        words=STARTS,
    )
    smallest: int = knob(
        128, "Long side of the coarsest size in pixels; a large value gives a single size.", ge=16
    )
    iterations: int = knob(120, "Evaluations at the final size.", ge=1)
    coarse_iterations: int = knob(180, "Evaluations at each coarser size.", ge=1)
    optimiser: Literal["adam", "lbfgs"] = knob("adam", "Optimiser of the picture.")
    step_size: float = knob(0.03, "Adam's learning rate, in units of the pixel range.", gt=0, le=1)
    average: float = knob(
        0.9,
        "Decay of the running average of Adam's iterates; 0 returns the best iterate instead.",
        ge=0,
        lt=1,
    )
    cooling: float = knob(
        0.4, "Final fraction of each size over which Adam's learning rate decays.", ge=0, le=1
    )


def coarse_to_fine(
    job: Job,
    knobs: DescentKnobs,
    objective: Callable[[torch.Tensor], Objective],
    *,
    enlarge: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor] = resize,
    rescale: bool = True,
) -> torch.Tensor:
    """The picture (1, 3, H, W) after a descent at each size, from coarse to the content's own.

    `objective` builds the objective from the content at each size, and `enlarge` resizes the picture to the
    next size. `rescale` is passed to `Descent`; use False for losses on a published scale. If the job's
    listener stops the run, the best picture so far is returned at full size. A video frame with a previous
    result starts from it and is optimised only at the final size, because the large shapes are already there.
    """
    from atelier.maths import Descent, sizes

    final = size_of(job.content)
    scales = sizes(final, smallest=knobs.smallest)
    if job.previous is not None:
        scales = scales[-1:]
    picture = start_picture(job, knobs.start, scales[0])
    for stage in stages(job, knobs, scales):
        descent = Descent(
            objective(stage.content),
            optimiser=knobs.optimiser,
            cooling=knobs.cooling,
            rescale=rescale,
            **stage.options,
        )
        picture = descent.run(enlarge(picture, stage.size))
    return enlarge(picture, final)


class Steps(Protocol):
    """The optimiser knobs: evaluations at the final and at each coarser size, and how they are done."""

    @property
    def iterations(self) -> int: ...
    @property
    def coarse_iterations(self) -> int: ...
    @property
    def step_size(self) -> float: ...
    @property
    def average(self) -> float: ...


@dataclass(frozen=True)
class Stage:
    """One size of a run: the content (1, 3, H, W) at that size, and the settings of its descent."""

    size: tuple[int, int]
    final: bool
    content: torch.Tensor
    options: Mapping[str, Any]


def stages(job: Job, knobs: Steps, scales: Sequence[tuple[int, int]], *, done: int = 0) -> Iterator[Stage]:
    """A run through `scales` (height, width), from coarse to fine, until the job's listener stops it.

    Events are numbered through all descents, starting after `done` earlier evaluations.
    """
    total = done + knobs.coarse_iterations * (len(scales) - 1) + knobs.iterations
    for size in scales:
        final = size == scales[-1]
        iterations = knobs.iterations if final else knobs.coarse_iterations
        options = {
            "iterations": iterations,
            "step_size": knobs.step_size,
            "average": knobs.average,
            "report": reporter(job, size, done, total),
        }
        yield Stage(size, final, resize(job.content, size), options)
        if job.progress.stopped:
            return
        done += iterations


def reporter(job: Job, size: tuple[int, int], done: int, total: int) -> Report:
    """Report a descent's evaluations as events of the job; `done` of `total` precede it."""
    stage = f"{size[1]} x {size[0]}"

    def report(evaluation: int, terms: Mapping[str, float], picture: Any) -> bool:
        return job.progress.report(done + evaluation, total, stage=stage, losses=terms, preview=picture)

    return report


def start_picture(job: Job, start: str, size: tuple[int, int]) -> torch.Tensor:
    """The initial picture, (1, 3, H, W) of `size`: the content, the style, noise, or a picture file.

    'recoloured' is the content with the mean and covariance of the style pictures' colours, as far as the
    job's strength. In a video it is the previous frame's result, warped by the flow.
    """
    if job.previous is not None:
        return resize(followed(job.previous, job.flow, job.content), size)
    if start == "content":
        return resize(job.content, size)
    if start == "recoloured":
        return resize(lend_visible_colours(job, job.content, job.strength), size)
    if start == "style":
        if not job.styles:
            raise UsageError("start = 'style' needs a style picture: start from 'content' or 'noise'")
        return resize(job.styles[0], size)
    if start == "noise":
        generator = torch.Generator().manual_seed(job.seed)
        return torch.rand((1, 3, *size), generator=generator).to(job.device)
    return resize(job.files["start"].tensor().to(job.device), size)


def followed(previous: torch.Tensor, flow: torch.Tensor | None, content: torch.Tensor) -> torch.Tensor:
    """The previous result (1, 3, H, W), warped by the flow (1, 2, H, W).

    Pixels that were outside the previous frame are taken from the content.
    """
    if flow is None:
        return previous
    height, width = size_of(previous)
    down, right = torch.meshgrid(
        *(torch.arange(side, device=flow.device, dtype=flow.dtype) for side in (height, width)), indexing="ij"
    )
    places = torch.stack([right + flow[0, 0], down + flow[0, 1]], -1)
    sides = places.new_tensor([width, height])
    inside = ((places > -0.5) & (places < sides - 0.5)).all(-1)
    grid = ((2 * places + 1) / sides - 1)[None].to(previous.dtype)
    moved = torch.nn.functional.grid_sample(previous, grid, padding_mode="border", align_corners=False)
    return torch.where(inside, moved, content)


def size_of(picture: torch.Tensor) -> tuple[int, int]:
    """Height and width of (1, 3, H, W)."""
    height, width = picture.shape[-2:]
    return height, width


def style_at(job: Job, style: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A style (1, 3, H, W) of the job, scaled down by the same factor as the content at `size`."""
    ratio = max(size) / max(size_of(job.content))
    height, width = size_of(style)
    if ratio >= 1:
        return style
    return resize(style, (max(1, round(height * ratio)), max(1, round(width * ratio))))


def shares(
    names: Sequence[str],
    weights: Sequence[float],
    *,
    knob: str = "style_layers",
    weights_knob: str = "style_layer_weights",
    what: str = "tap",
) -> dict[str, float]:
    """The weight of each of `names`, summing to 1; equal if `weights` is empty.

    Raises UsageError if there are no names, a name is repeated, or the number of weights differs.
    """
    if not names or len(set(names)) != len(names):
        raise UsageError(f"{knob} needs at least one {what}, and none of them twice")
    weights = weights or (1.0,) * len(names)
    if len(weights) != len(names):
        raise UsageError(
            f"{weights_knob} has {len(weights)} numbers for {len(names)} {knob}: give one each, or none"
        )
    if min(weights) < 0 or sum(weights) <= 0:
        raise UsageError(f"{weights_knob} must not be negative, and one must be above 0")
    return {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}
