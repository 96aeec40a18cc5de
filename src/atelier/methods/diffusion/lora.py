"""LoRA: Stable Diffusion with a small file of weights that knows a style, from words or from a photo.

The file changes the layers of the pipeline by products of thin matrices (Hu et al. 2021). A photo gets noise
up to a share of the schedule and is finished by the changed network (SDEdit, Meng et al. 2022); without a
photo, a picture is made from noise and words alone.

The files of kohya's sd-scripts, of diffusers and of PEFT are read. The LoRA is merged into the weights when
they are loaded, which is exact and costs no time later. Training LoRAs is not part of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from atelier.core.errors import UsageError
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import padded
from atelier.methods import latent
from atelier.methods.base import Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.store import weights

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.maths.ddim import Step
    from atelier.networks.stable_diffusion import StableDiffusion
    from atelier.networks.stable_diffusion_layout import Parts

#: The steps of the network's training.
_TRAINED = 1000


class Lora(Method):
    """Draw with Stable Diffusion and a LoRA file that knows a style, from words or from a photo."""

    name = "lora"
    paper = Paper(
        "Hu et al.",
        2021,
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "https://arxiv.org/abs/2106.09685",
    )
    takes = Takes(content="optional", styles=frozenset({"text"}), least=0)
    extra = latent.EXTRA
    packages = latent.PACKAGES

    class Knobs(latent.PipelineKnobs):
        """The file, and the sampling."""

        weights: str = knob("", "LoRA for Stable Diffusion 1.x: a file.", file="weights")
        multiplier: float = knob(1.0, "How strongly the LoRA changes the network.", ge=-2, le=4)
        guidance: float = knob(7.5, "How strongly words lead; 1 is without guidance.", ge=0, le=50)
        negative: str = knob("", "Words to lead away from.")
        noise: float = knob(
            0.6, "Noise to add to the photo, as a share of the schedule; more changes it more.", gt=0, le=1
        )
        steps: int = knob(30, "Steps of the whole schedule.", ge=1, le=250)

    qualities = {"draft": {"steps": 15}, "good": {}, "best": {"steps": 60}}  # noqa: RUF012
    sizes = {"draft": 512, "good": 512, "best": 768}  # noqa: RUF012

    def weights(self, knobs: Lora.Knobs) -> Sequence[str]:
        return (knobs.pipeline, _file(knobs))

    def prepare(self, styles: Styles, knobs: Lora.Knobs, context: Context) -> Painter:
        return _Painting(" ".join(styles.texts), knobs, context).paint

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        """For a pipeline whose first level has 32 channels."""
        generator = torch.Generator().manual_seed(0)
        layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        down, up = (0.5 * torch.randn(shape, generator=generator) for shape in ((2, 32), (32, 2)))
        return {"weights": {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}}


def _file(knobs: Lora.Knobs) -> str:
    """The name of the LoRA file. Raises UsageError where none is given."""
    if not knobs.weights:
        raise UsageError("lora needs a LoRA file for Stable Diffusion 1.x: give it with --weights FILE")
    return knobs.weights


def sampling_steps(count: int, noise: float = 1.0) -> list[Step]:
    """The steps from a share of the schedule to the picture; `count` for the whole of it."""
    from atelier.maths.ddim import Step

    stride = _TRAINED // count
    times = [1 + index * stride for index in range(count)]
    within = [time for time in times if time <= noise * _TRAINED] or times[:1]
    return [Step(time, time, max(0, time - stride)) for time in reversed(within)]


class _Painting:
    """Makes pictures with one LoRA and one prompt."""

    def __init__(self, words: str, knobs: Lora.Knobs, context: Context) -> None:
        self.words, self.knobs, self.seed = words, knobs, context.seed
        mark = f"{weights.fingerprint(_file(knobs))} {knobs.multiplier}"
        self.room = latent.Room(knobs, context, change=self._changed, mark=mark)

    def _changed(self, parts: Parts) -> Parts:
        from atelier.networks import lora

        return lora.read(self.knobs.weights, parts).changed(parts, self.knobs.multiplier)

    def paint(self, frame: Frame) -> Result:
        """The picture; the photo itself if the work is stopped before there is one."""
        height, width = frame.content.shape[-2:]
        photo = padded(frame.content, 64, 8)
        steps = sampling_steps(self.knobs.steps, 1.0 if frame.blank else self.knobs.noise)
        with torch.inference_mode():
            size = (photo.shape[-2], photo.shape[-1])
            plan = self.room.planned(size, batch=1 if self.knobs.guidance == 1 else 2)
            events = latent.Steps(frame.progress, len(steps))
            if not events.announce(plan):
                return Result(frame.content)
            pipeline = self.room.loaded(plan)
            with pipeline.lock:
                start = self._start(pipeline, photo, steps[0], blank=frame.blank)
                made = self._sampled(pipeline, start, steps, events)
        return Result(made[..., :height, :width])

    def _start(self, pipeline: StableDiffusion, photo: Tensor, first: Step, *, blank: bool) -> Tensor:
        """The latent of the photo with noise, or noise alone."""
        from atelier.maths import diffusion, samplers

        clean = pipeline.encode(photo)
        noise = samplers.seeded(self.seed)(clean)
        if blank:
            return noise
        return diffusion.noised(
            pipeline.schedule, clean, torch.tensor([first.at], device=clean.device), noise
        )

    def _sampled(
        self, pipeline: StableDiffusion, start: Tensor, steps: Sequence[Step], events: latent.Steps
    ) -> Tensor:
        from atelier.maths import ddim

        made = start
        predict, schedule, target = self._predict(pipeline), pipeline.schedule, pipeline.target
        for moved in ddim.walk(start, steps, predict, schedule=schedule, target=target):
            made = moved.after
            if not events.done("sampling", partial(pipeline.decode, moved.clean)):
                made = moved.clean
                break
        return pipeline.decode(made)

    def _predict(self, pipeline: StableDiffusion) -> Callable[[Tensor, int], Tensor]:
        """What the network predicts, led by the words and away from the negative ones."""
        share: Any = self.knobs.guidance
        context = pipeline.words([self.words] if share == 1 else [self.knobs.negative, self.words])

        def predict(latents: Tensor, time: int) -> Tensor:
            if share == 1:
                return pipeline.predict(latents, time, context)
            away, toward = pipeline.predict(latents.expand(2, -1, -1, -1), time, context).chunk(2)
            led: Tensor = away + share * (toward - away)
            return led

        return predict
