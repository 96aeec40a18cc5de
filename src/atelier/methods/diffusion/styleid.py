"""StyleID: Stable Diffusion draws the photo again, with keys and values of attention from the painting.

Photo and painting are taken back to noise by DDIM inversion, which remembers the network's self-attention at
every step. The picture is then sampled from the photo's noise with the painting's statistics; the decoder's
attention looks up the painting's keys and values, with queries that are in part the photo's (Chung et al.
2024). Nothing is trained.

Differences from the paper, which `--quality published` undoes: the share of the photo's queries falls from
0.75 to half of it during the sampling, along a cosine, which Kulkarni 2026 (arXiv:2605.26538) found to be
better; latents are the most likely ones instead of a draw; and the pipeline is version 1.5. The authors
published two programs that ask the network at other steps: `--quality diffusers` is the second. Pictures keep
their shape, where the published code cuts squares of 512 px. Features are not stored on disk; where memory is
short, they are computed again at each step instead (`--features`), with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import padded
from atelier.methods import latent
from atelier.methods.base import Context, Frame, Method, Painter, Paper, Result, Styles
from atelier.methods.prepared import style_job
from atelier.methods.visible import visible_part

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.maths.ddim import Moved, Step
    from atelier.pipelines.self_attention import Features, Opened
    from atelier.pipelines.stable_diffusion import StableDiffusion

Program = Literal["ldm", "diffusers"]
Shape = Literal["constant", "linear", "cosine", "sqrt"]

#: The steps of the networks' training, and the highest one.
_TRAINED = 1000
_HIGHEST = _TRAINED - 1


class Styleid(Method):
    """Draw the photo anew by Stable Diffusion, whose attention sees the painting. No training."""

    name = "styleid"
    paper = Paper(
        "Chung, Hyun & Heo",
        2024,
        "Style Injection in Diffusion: A Training-free Approach for Adapting Large-scale Diffusion Models "
        "for Style Transfer",
        "https://arxiv.org/abs/2312.09008",
    )
    extra = latent.EXTRA
    packages = latent.PACKAGES

    class Knobs(latent.PipelineKnobs):
        """The pipeline, the steps, and what is injected."""

        steps: int = knob(50, "Steps of the inversion and of the sampling.", ge=2, le=250)
        gamma: float = knob(
            0.75, "Share of the photo's queries at the start; more keeps more of it.", ge=0, le=1
        )
        gamma_end: float = knob(0.375, "Share of the photo's queries at the end.", ge=0, le=1)
        gamma_shape: Shape = knob("cosine", "How the share goes from the start to the end.")
        temperature: float = knob(
            1.5, "Sharpness of attention to the painting; 1 leaves it as it is.", gt=0, le=10
        )
        blocks: tuple[int, ...] = knob(
            (6, 7, 8, 9, 10, 11), "Decoder blocks that see the painting, of 3 to 11; later ones are finer."
        )
        start: Literal["adain", "content"] = knob(
            "adain", "Noise to start from: the photo's with the painting's statistics, or as it is."
        )
        program: Program = knob("ldm", "Which of the authors' two programs sets the steps.")
        posterior: Literal["mode", "sample"] = knob("mode", "Latents of pictures: the most likely, or drawn.")
        features: Literal["auto", "keep", "recompute"] = knob(
            "auto",
            "Keep features of all steps in memory, or compute them again, which takes 5/3 of the time.",
        )

        def shares(self, count: int) -> list[float]:
            """The share of the photo's queries at each of `count` steps."""
            shape = _SHAPES[self.gamma_shape]
            parts = [index / max(1, count - 1) for index in range(count)]
            return [self.gamma + (self.gamma_end - self.gamma) * shape(part) for part in parts]

    qualities = {  # noqa: RUF012
        "draft": {"steps": 20},
        "good": {},
        "best": {"steps": 100},
        "published": {
            "pipeline": "stable_diffusion.v1_4",
            "gamma_shape": "constant",
            "posterior": "sample",
        },
        "diffusers": {
            "steps": 20,
            "gamma_shape": "constant",
            "blocks": (7, 8, 9, 10, 11),
            "program": "diffusers",
        },
    }
    sizes = {"draft": 512, "good": 512, "best": 768, "published": 512, "diffusers": 512}  # noqa: RUF012

    def weights(self, knobs: Styleid.Knobs) -> Sequence[str]:
        return (knobs.pipeline,)

    def prepare(self, styles: Styles, knobs: Styleid.Knobs, context: Context) -> Painter:
        style = visible_part(style_job(styles, context))
        return _Painting(_whole(style), knobs, context, latent.Room(knobs, context)).paint


#: How far the share has gone from its start to its end, by the part of the steps that is done.
_SHAPES: Mapping[Shape, Callable[[float], float]] = {
    "constant": lambda part: 0.0,
    "linear": lambda part: part,
    "cosine": lambda part: (1 - math.cos(math.pi * part)) / 2,
    "sqrt": math.sqrt,
}


# the steps


def inversion_steps(program: Program, count: int) -> list[Step]:
    """The steps from the picture to its noise.

    The LDM program asks the network where the latent is, and ends at the highest step; that on diffusers asks
    it where the latent is going.
    """
    from atelier.maths.ddim import Step

    stride, times = _times(count)
    if program == "ldm":
        return [Step(at, at, to) for at, to in zip(times, [*times[1:], _HIGHEST], strict=True)]
    return [Step(to, max(0, to - stride), to) for to in times]


def sampling_steps(program: Program, count: int) -> list[Step]:
    """The steps from noise to the picture. The LDM program leaves out the first: its start is at 999."""
    from atelier.maths.ddim import Step

    stride, times = _times(count)
    steps = [Step(at, at, max(0, at - stride)) for at in reversed(times)]
    return steps[1:] if program == "ldm" else steps


def _times(count: int) -> tuple[int, list[int]]:
    stride = _TRAINED // count
    return stride, [1 + index * stride for index in range(count)]


# the start


def start_latent(content: Tensor, style: Tensor, program: Program) -> Tensor:
    """The content's latent (B, C, H, W) with the style's mean and deviation in each channel (eq. 8).

    The LDM program takes them over the whole batch; that on diffusers adds 1e-4 to the content's deviation.
    """
    places = (0, 2, 3) if program == "ldm" else (2, 3)
    mean, deviation = _moments(content, places)
    wanted, spread = _moments(style, places)
    deviation = deviation.clamp(min=1e-8) if program == "ldm" else deviation + 1e-4
    return (content - mean) / deviation * spread + wanted


def _moments(latent: Tensor, places: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    count = math.prod(latent.shape[place] for place in places)
    deviation = latent.std(places, keepdim=True, correction=min(1, count - 1))
    return latent.mean(places, keepdim=True), deviation


# the inversion


@dataclass
class Inverted:
    """A picture on its way to noise: the latent (1, 4, h, w) before the step that asks at each time.

    `features` are those of attention by time and block, for times that are kept.
    """

    latents: dict[int, Tensor] = field(default_factory=dict)
    features: dict[int, dict[int, Features]] = field(default_factory=dict)
    last: Any = None


class Way:
    """The inversion of pictures and the sampling, by one pipeline with its attention opened."""

    def __init__(
        self, pipeline: StableDiffusion, opened: Opened, context: Tensor, knobs: Styleid.Knobs
    ) -> None:
        self.pipeline, self.opened, self.context, self.knobs = pipeline, opened, context, knobs
        self.sampled = sampling_steps(knobs.program, knobs.steps)

    def walk(self, latents: Tensor, steps: Sequence[Step]) -> Iterator[Moved]:
        """The steps from these latents."""
        from atelier.maths import ddim

        schedule, target = self.pipeline.schedule, self.pipeline.target
        return ddim.walk(latents, steps, self._predict, schedule=schedule, target=target)

    def _predict(self, latents: Tensor, time: int) -> Tensor:
        return self.pipeline.predict(latents, time, self.context)

    def invert(self, latents: Tensor, found: Inverted, *, keep: str) -> Iterator[Moved]:
        """Fill `found` step by step; `keep` names the kinds of features that are kept: "q", "kv" or none."""
        wanted = {step.time for step in self.sampled}
        for moved in self.walk(latents, inversion_steps(self.knobs.program, self.knobs.steps)):
            time = moved.step.time
            if time in wanted:
                found.latents[time] = moved.before
                if keep:
                    found.features[time] = {
                        block: _only(one, keep) for block, one in self.opened.read.items()
                    }
            found.last = moved.after
            yield moved

    def features(self, inverted: Inverted, time: int) -> Mapping[int, Features]:
        """The features of an inverted picture at a time, kept or computed again."""
        if time in inverted.features:
            return inverted.features[time]
        self._predict(inverted.latents[time], time)
        return dict(self.opened.read)

    def sample(self, start: Tensor, content: Inverted, style: Inverted) -> Iterator[Moved]:
        """The picture from its first latent, with queries of the content and keys and values of the style."""
        for step, share in zip(self.sampled, self.knobs.shares(len(self.sampled)), strict=True):
            given = self._injections(content, style, step.time, share)
            self.opened.given = given
            (moved,) = self.walk(start, [step])
            self.opened.given = {}
            start = moved.after
            yield moved

    def _injections(self, content: Inverted, style: Inverted, time: int, share: float) -> Mapping[int, Any]:
        from atelier.pipelines.self_attention import Injection

        seen, painted = self.features(content, time), self.features(style, time)
        sharp = self.knobs.temperature
        return {
            block: Injection(seen[block].query, painted[block].key, painted[block].value, share, sharp)
            for block in self.knobs.blocks
        }


def _only(features: Features, kinds: str) -> Features:
    """The features of these kinds; the memory of the others is freed."""
    nothing = features.query.new_empty(0)
    if kinds == "q":
        return features._replace(key=nothing, value=nothing)
    return features._replace(query=nothing)


# the picture


class _Painting:
    """Paints photos in one style, which is inverted for the first of them."""

    def __init__(self, style: Tensor, knobs: Styleid.Knobs, context: Context, room: latent.Room) -> None:
        self.style, self.knobs, self.room, self.seed = style, knobs, room, context.seed
        self.inverted: Inverted | None = None

    def paint(self, frame: Frame) -> Result:
        """The picture; the photo itself if the work is stopped before there is one."""
        from atelier.pipelines.self_attention import Opened

        height, width = _size(frame.content)
        photo = _whole(frame.content)
        with torch.inference_mode():
            plan = self.room.planned(_size(photo), kept=self._kept(photo))
            steps = latent.Steps(frame.progress, self._count())
            if not steps.announce(plan):
                return Result(frame.content)
            pipeline = self.room.loaded(plan)
            with pipeline.lock, Opened(pipeline.unet, self.knobs.blocks, sliced=plan.slices) as opened:
                way = Way(pipeline, opened, pipeline.words([""]), self.knobs)
                made = self._painted(way, photo, steps, keep=plan.kept > 0)
        return Result(made[..., :height, :width])

    def _painted(self, way: Way, photo: Tensor, steps: latent.Steps, *, keep: bool) -> Tensor:
        style, content = self.inverted or Inverted(), Inverted()
        if self.inverted is None:
            for _ in way.invert(self._encoded(way, self.style), style, keep="kv" if keep else ""):
                if not steps.done("inverting the style"):
                    return photo
            self.inverted = style
        for _ in way.invert(self._encoded(way, photo), content, keep="q" if keep else ""):
            if not steps.done("inverting the photo"):
                return photo
        start = content.last
        if self.knobs.start == "adain":
            start = start_latent(start, style.last, self.knobs.program)
        return self._sampled(way, way.sample(start, content, style), steps)

    def _sampled(self, way: Way, walk: Iterator[Moved], steps: latent.Steps) -> Tensor:
        """The last picture; the one that was predicted, where the work is stopped."""
        decode = way.pipeline.decode
        for moved in walk:
            if not steps.done("sampling", partial(decode, moved.clean)):
                return decode(moved.clean)
        # The LDM program shows the latent after the last step, that on diffusers the predicted picture.
        return decode(moved.after if self.knobs.program == "ldm" else moved.clean)

    def _encoded(self, way: Way, picture: Tensor) -> Tensor:
        drawn = torch.Generator().manual_seed(self.seed) if self.knobs.posterior == "sample" else None
        return way.pipeline.encode(picture, generator=drawn)

    def _count(self) -> int:
        """The number of all steps."""
        inversions = 1 if self.inverted is not None else 2
        return inversions * self.knobs.steps + len(sampling_steps(self.knobs.program, self.knobs.steps))

    def _kept(self, photo: Tensor) -> Sequence[int]:
        """The bytes of all features that are kept, in order of preference."""
        from atelier.pipelines.self_attention import feature_bytes

        settings = self.room.parts.unet.settings
        sides = [tuple(-(-side // 8) for side in _size(one)) for one in (photo, self.style)]
        queries, keys = (
            feature_bytes(settings, self.knobs.blocks, (height, width), self.room.dtype.itemsize)
            for height, width in sides
        )
        every = len(sampling_steps(self.knobs.program, self.knobs.steps)) * (queries + 2 * keys)
        return {"auto": (every, 0), "keep": (every,), "recompute": (0,)}[self.knobs.features]


def _whole(picture: Tensor) -> Tensor:
    """The picture with sides that the networks take: multiples of 8, and room for their coarsest level."""
    return padded(picture, 64, 8)


def _size(picture: Tensor) -> tuple[int, int]:
    return picture.shape[-2], picture.shape[-1]
