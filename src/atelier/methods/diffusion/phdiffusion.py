"""PHDiffusion: an object that was pasted into a painting is drawn anew by Stable Diffusion, in its style.

A trained encoder of composite and mask steers a frozen Stable Diffusion (Lu et al. 2023). The composite gets
noise up to a share of the schedule and is sampled back; before each step the background is set to the
painting with fresh noise of that step, so that only the object is free.

Differences from the paper, which `--quality published` undoes: the authors' sampler, cut out of a longer one,
asks the network one step too early from the third call on, and is mended here; the untouched painting is put
back round the object, because the VAE alone changes it; the pipeline is version 1.5. Pictures keep their
shape, where the published code takes squares of 512 px. Training has two forms, too (`phdiffusion_losses`),
and the ablations of the paper as `--variant`: without each loss, without each attention, and whole, in an
order of ours. Foregrounds of the published training are objects of COCO that cover 5 to 30% of a photo, in
paintings of WikiArt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from atelier.core.errors import TrainingError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import padded
from atelier.methods import latent
from atelier.methods.base import Batch, Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.composite import without_object
from atelier.methods.diffusion.phdiffusion_losses import CONTRAST, Losses, content, nearest, projection, style
from atelier.store import weights
from atelier.store.models import MODELS
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.pipelines.phdiffusion import Injection, PhDiffusion
    from atelier.pipelines.stable_diffusion import StableDiffusion

Form = Literal["published", "correct"]
Variant = Literal["v1", "v2", "v3", "v4", "v5", "v6"]

#: The steps of the network's training.
_TRAINED = 1000
_DROPBOX = "https://www.dropbox.com/scl/fi"


def _record(tag: str, file: str, source: str, note: str) -> Record:
    return Record(
        name=f"phdiffusion.{tag}",
        file=file,
        sources=(source,),
        licence="Apache-2.0 (bcmi/PHDiffusion)",
        paper="Lu et al. 2023, Painterly Image Harmonization using Diffusion Model, arXiv:2308.02228",
        note=note,
    )


register(
    _record(
        "published",
        "PHDiffusionWithRes.pth",
        f"{_DROPBOX}/g7qierlm6ir2vvuza9taa/PHDiffusionWithRes.pth?rlkey=b0ovcjdcslr25gflkelmkxos1&dl=1",
        "For Stable Diffusion 1.4, with residual blocks, which keep more of the object.",
    )
)
register(
    _record(
        "no_residual",
        "PHDiffusion.pth",
        f"{_DROPBOX}/3euq10guebsjrne8fb7rx/PHDiffusion.pth?rlkey=7eo6ciki29tx35mf3a2fzn709&dl=1",
        "For Stable Diffusion 1.4, without residual blocks (--no-residual); stronger in dense textures.",
    )
)


class Phdiffusion(Method):
    """Draw an object that was pasted into a painting anew by Stable Diffusion, in the painting's style."""

    name = "phdiffusion"
    paper = Paper(
        "Lu, Li, Cao, Niu & Zhang",
        2023,
        "Painterly Image Harmonization using Diffusion Model",
        "https://arxiv.org/abs/2308.02228",
    )
    takes = Takes(styles=frozenset({"picture"}), least=0, mask="required")
    extra = latent.EXTRA
    packages = latent.PACKAGES
    data = "composites"
    averaged = ()
    shared_knobs = ("pipeline", "residual")

    class Knobs(latent.PipelineKnobs):
        """The weights and the sampling."""

        weights: str = knob(
            "phdiffusion.published", "Trained encoder and fusion: a name, or a file.", file="weights"
        )
        residual: bool = knob(True, "Whether the encoder has residual blocks; its file does not say it.")
        noise: float = knob(
            0.7, "Noise to add, as a share of the schedule; more changes the object more.", gt=0, le=1
        )
        steps: int = knob(50, "Steps of the whole schedule.", ge=1, le=250)
        sampling: Form = knob("correct", "Steps of the sampler: mended, or as published.")
        keep_background: bool = knob(True, "Put the untouched painting back round the object.")

    class Training(AnyKnobs):
        """The pipeline that is steered, the parts of the networks, and the losses."""

        pipeline: str = knob(
            "stable_diffusion.v1_4", "Stable Diffusion 1.x: a name, folder, or file.", file="weights"
        )
        encoder: str = knob(
            "vgg_normalised.adain", "Network of the losses: a name, or a file.", file="weights"
        )
        residual: bool = knob(True, "Give the encoder residual blocks.")
        form: Form = knob("correct", "Style losses: as in the paper, or with the program's four mistakes.")
        variant: Variant = knob(
            "v6",
            "Ablation: v1, v2, v3 without the AdaIN, contrastive, content loss; v4, v5 without the attention "
            "of the encoder, of the UNet; v6 has all.",
        )
        noise_weight: float = knob(60.0, "Weight of the noise's error.", ge=0)
        style_weight: float = knob(1.0, "Weight of the AdaIN loss.", ge=0)
        contrast_weight: float = knob(5.0, "Weight of the contrastive loss.", ge=0)
        content_weight: float = knob(1.0, "Weight of the content loss.", ge=0)
        checkpointing: bool = knob(True, "Compute activations twice to save memory.")
        steps: int = knob(190_000, "Training steps.", ge=1)
        batch: int = knob(2, "Composites per step, over all processes.", ge=1)
        crop: int = knob(512, "Side of the square composites in pixels.", ge=16, le=2048)
        learning_rate: float = knob(2e-4, "Learning rate between warm-up and cool-down.", gt=0)
        warmup: int = knob(0, "Steps over which the learning rate rises from zero.", ge=0)
        cooldown: float = knob(
            0.0, "Final fraction of the run, in which the learning rate falls.", ge=0, le=1
        )
        held_back: int = knob(0, "Photos, and paintings of each style, held out for evaluation.", ge=0)

    qualities = {  # noqa: RUF012
        "draft": {"steps": 20},
        "good": {},
        "best": {"steps": 100},
        "published": {
            "pipeline": "stable_diffusion.v1_4",
            "sampling": "published",
            "keep_background": False,
        },
    }
    sizes = {"draft": 512, "good": 512, "best": 768, "published": 512}  # noqa: RUF012

    def __init__(self) -> None:
        self._frozen: dict[torch.device, StableDiffusion] = {}
        self._attached: Injection | None = None
        self._encoder: Any = None

    def weights(self, knobs: Phdiffusion.Knobs) -> Sequence[str]:
        return (knobs.pipeline, knobs.weights)

    def prepare(self, styles: Styles, knobs: Phdiffusion.Knobs, context: Context) -> Painter:
        return _Painting(styles, knobs, context).paint

    # training

    def network(self, training: Any) -> nn.Module:
        from atelier import features
        from atelier.pipelines import stable_diffusion_layout
        from atelier.pipelines.phdiffusion import PhDiffusion, Shape

        latent.require()
        parts = stable_diffusion_layout.find(training.pipeline)
        if parts.target != "eps":
            raise TrainingError("phdiffusion trains beside networks that predict noise, as those of 1.x do")
        widths = tuple(parts.unet.settings["block_out_channels"])
        made = torch.nn.Module()
        made.model = PhDiffusion(
            Shape(widths, max(1, len(widths) // 2), _branches(training.variant), training.residual)
        )
        self._encoder = features.load(training.encoder)
        made.projection = projection(self._encoder.channels(CONTRAST))
        made.projection.requires_grad_(training.form == "correct")
        return made

    def optimisers(
        self, networks: Mapping[str, nn.Module], training: Any
    ) -> dict[str, torch.optim.Optimizer]:
        learnt = [weight for weight in networks["network"].parameters() if weight.requires_grad]
        return {"network": torch.optim.AdamW(learnt, lr=training.learning_rate)}

    def losses(self, network: Any, batch: Batch, training: Any) -> dict[str, Tensor]:
        from atelier.maths import diffusion

        painting, mask = batch["paintings"], (batch["masks"] >= 0.5).to(batch["paintings"])
        composite = batch["photos"] * mask + painting * (1 - mask)
        pipeline, injection = self._steered(network.model, composite.device, training)
        with torch.no_grad():
            clean, words = pipeline.encode(composite), pipeline.words([""]).expand(len(mask), -1, -1)
        times, noise = self._drawn(batch, clean)
        noisy = diffusion.noised(pipeline.schedule, clean, times, noise)
        injection.see(2 * composite - 1, mask)
        found = pipeline.unet(noisy, times, words).sample.float()
        terms = {"error": training.noise_weight * (found - noise).square().mean()}
        predicted = diffusion.clean_of(pipeline.schedule, "eps", noisy, found, times)
        made = 2 * pipeline.decode(predicted, clamp=False) - 1
        seen = Losses(self._encoder.prepare(made.device), network.projection, training.form)
        return terms | self._seen(seen, made, composite, batch, mask, training)

    def _seen(
        self, losses: Losses, made: Tensor, composite: Tensor, batch: Batch, mask: Tensor, training: Any
    ) -> dict[str, Tensor]:
        """The terms of what is seen by the VGG, weighted; those of weight 0 are left out."""
        share = _weights(training)
        found = losses.features(made)
        with torch.no_grad():
            painting = losses.features(2 * batch["paintings"] - 1)
        terms = {}
        if share["style"]:
            terms["style"] = share["style"] * style(found, painting, mask)
        if share["content"]:
            with torch.no_grad():
                kept = losses.features(2 * composite - 1)
            terms["content"] = share["content"] * content(found, kept)
        if share["contrast"]:
            draws = batch.rows(torch.rand((batch.whole, 2), generator=batch.generator))
            with torch.no_grad():
                others = losses.features(2 * batch["others"].flatten(0, 1) - 1)[CONTRAST]
                rest = others.view(*batch["others"].shape[:2], *others.shape[1:])
            apart = losses.contrast(found[CONTRAST], painting[CONTRAST], rest, mask, draws)
            terms["contrast"] = share["contrast"] * apart
        return terms

    def exported(self, networks: Mapping[str, Any]) -> dict[str, Tensor]:
        return dict(networks["network"].model.state_dict())

    def _drawn(self, batch: Batch, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The steps (B,) of the schedule, and the noise."""
        times = batch.rows(torch.randint(_TRAINED, (batch.whole,), generator=batch.generator))
        noise = torch.randn((batch.whole, *clean.shape[1:]), generator=batch.generator)
        return times.to(clean.device), batch.rows(noise).to(clean)

    def _steered(
        self, network: PhDiffusion, device: torch.device, training: Any
    ) -> tuple[StableDiffusion, Injection]:
        """The frozen pipeline on a device, steered by the networks in training."""
        from atelier.pipelines import stable_diffusion, stable_diffusion_layout
        from atelier.pipelines.phdiffusion import Injection

        if device not in self._frozen:
            parts = stable_diffusion_layout.find(training.pipeline)
            made = stable_diffusion.load(parts, device, torch.float32, name=training.pipeline)
            if training.checkpointing:
                for part in (made.unet, made.vae):
                    part.train().enable_gradient_checkpointing()
            self._frozen[device] = made
        if self._attached is None or self._attached.network is not network:
            if self._attached is not None:
                self._attached.remove()
            self._attached = Injection(self._frozen[device].unet, network)
        return self._frozen[device], self._attached

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        """For a pipeline whose levels have 32 and 64 channels."""
        from atelier.pipelines.phdiffusion import PhDiffusion, Shape

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return {"weights": PhDiffusion(Shape((32, 64), 1)).state_dict()}


def _branches(variant: Variant) -> Any:
    """The features that look up the background, in an ablation."""
    return {"v4": ("unet",), "v5": ("encoder",)}.get(variant, ("encoder", "unet"))


def _weights(training: Any) -> dict[str, float]:
    """The weights of the losses that the VGG sees, in an ablation."""
    without = {"v1": "style", "v2": "contrast", "v3": "content"}.get(training.variant)
    names = ("style", "contrast", "content")
    return {name: getattr(training, f"{name}_weight") * (name != without) for name in names}


# the sampling


class Call(NamedTuple):
    """A call of the network: the step that it is asked at, and the move of the latent that follows."""

    time: int
    at: int
    to: int


def calls(count: int, noise: float, form: Form = "correct") -> list[Call]:
    """The calls from a share of the schedule of `count` steps to the picture.

    The sampler makes its first move twice, the second time along the mean of two noises. The program cuts the
    list of a whole schedule, in which the second step stands twice, and so loses one call: its noise is from
    then on asked for one step below the latent's.
    """
    stride = _TRAINED // count
    times = [1 + index * stride for index in reversed(range(count))]
    skipped = count - max(1, int(count * noise))
    if form == "published":
        times = [*times[:2], *times[1:]][skipped:]
    else:
        first = times[max(0, skipped - 1)]
        times = [time for time in times if time <= first]
        times = [*times[:2], *times[1:]]
    ends = [Call(time, time, max(0, time - stride)) for time in times]
    return [
        Call(one.time, one.time + stride, one.time) if number == 1 else one for number, one in enumerate(ends)
    ]


class Sampled(NamedTuple):
    """The latent after a call, and the clean latent that was predicted."""

    latent: Tensor
    clean: Tensor


def plms(
    start: Tensor,
    steps: Sequence[Call],
    predict: Callable[[Tensor, int], Tensor],
    hold: Callable[[Tensor, int], Tensor],
) -> Iterator[Sampled]:
    """Sample from the latent `start` (B, 4, h, w); `hold` sets the background before each call."""
    from atelier.maths import schedules
    from atelier.maths.ddim import ADAMS

    table = schedules.scaled_linear().alphas_cumprod
    history: list[Tensor] = []
    latents = first = start
    for number, call in enumerate(steps):
        latents = hold(latents, call.time)
        found = predict(latents, call.time)
        if number == 1:
            noise, latents = (found + history[0]) / 2, first
        else:
            history = [found, *history][:4]
            shares = ADAMS[len(history) - 1]
            noise = torch.stack([share * one for share, one in zip(shares, history, strict=True)]).sum(0)
        if number == 0:
            first = latents
        left, onward = float(table[call.at]), float(table[call.to])
        clean = (latents - math.sqrt(1 - left) * noise) / math.sqrt(left)
        latents = math.sqrt(onward) * clean + math.sqrt(1 - onward) * noise
        yield Sampled(latents, clean)


class Held:
    """Sets the background of latents to that of a composite, with fresh noise of the step."""

    def __init__(self, clean: Tensor, mask: Tensor, normal: Callable[[Tensor], Tensor]) -> None:
        self.clean, self.normal = clean, normal
        self.mask = nearest(mask, clean)

    def start(self, time: int) -> Tensor:
        """The whole composite with noise."""
        return self._noised(time)

    def __call__(self, latents: Tensor, time: int) -> Tensor:
        return self.mask * latents + (1 - self.mask) * self._noised(time)

    def _noised(self, time: int) -> Tensor:
        from atelier.maths import diffusion, schedules

        index = torch.tensor([time], device=self.clean.device)
        return diffusion.noised(schedules.scaled_linear(), self.clean, index, self.normal(self.clean))


# the picture


class _Painting:
    """Paints objects into composites."""

    def __init__(self, styles: Styles, knobs: Phdiffusion.Knobs, context: Context) -> None:
        self.styles, self.knobs, self.seed = styles, knobs, context.seed
        self.room = latent.Room(knobs, context)
        self.network = self._network()

    def _network(self) -> PhDiffusion:
        """The networks beside the pipeline, in its precision on its device."""
        from atelier.pipelines import phdiffusion

        knobs, room = self.knobs, self.room
        widths = tuple(room.parts.unet.settings["block_out_channels"])
        mark = weights.fingerprint(knobs.weights)
        key = ("phdiffusion", knobs.weights, mark, knobs.residual, widths, room.device, room.dtype)
        return MODELS.get(
            key,
            lambda: phdiffusion.read(
                weights.load(knobs.weights), widths, knobs.weights, residual=knobs.residual
            ).to(room.device, room.dtype),
        )

    def paint(self, frame: Frame) -> Result:
        """The picture; the composite itself if the work is stopped before there is one."""
        mask = torch.ones_like(frame.content[:, :1]) if frame.mask is None else frame.mask
        inside = (mask >= 0.5).to(mask)
        height, width = frame.content.shape[-2:]
        # A multiple for every level of the encoder.
        multiple = 8 * 2 ** (len(self.network.shape.channels) - 1)
        whole, shown = (padded(one, 64, multiple) for one in (frame.content, inside))
        steps = calls(self.knobs.steps, self.knobs.noise, self.knobs.sampling)
        with torch.inference_mode():
            plan = self.room.planned((whole.shape[-2], whole.shape[-1]), kept=(self._bytes(whole),))
            events = latent.Steps(frame.progress, len(steps))
            if not events.announce(plan):
                return Result(frame.content)
            pipeline = self.room.loaded(plan)
            with pipeline.lock, _steering(pipeline, self.network, whole, shown):
                made = self._sampled(pipeline, whole, shown, steps, events)[..., :height, :width]
        return Result(self._composed(frame, made, mask, inside))

    def _sampled(
        self,
        pipeline: StableDiffusion,
        picture: Tensor,
        mask: Tensor,
        steps: Sequence[Call],
        events: latent.Steps,
    ) -> Tensor:
        from atelier.maths import ddim, samplers

        clean = pipeline.encode(picture)
        held = Held(clean, mask.to(clean), samplers.seeded(self.seed))
        words = pipeline.words([""])
        made = clean

        def predict(latents: Tensor, time: int) -> Tensor:
            """The noise, whatever the network predicts."""
            output, left = pipeline.predict(latents, time, words), pipeline.schedule.alphas_cumprod[time]
            return ddim.parted(latents, output, float(left), pipeline.target)[1]

        for found in plms(held.start(steps[0].time), steps, predict, held):
            made = found.latent
            if not events.done("sampling", partial(pipeline.decode, found.clean)):
                made = found.clean
                break
        return pipeline.decode(made)

    def _composed(self, frame: Frame, made: Tensor, mask: Tensor, inside: Tensor) -> Tensor:
        from atelier.images.regions import blend

        if not self.knobs.keep_background:
            return made
        painting = self.styles.pictures[0] if self.styles.pictures else None
        return blend(without_object(frame.content, inside, painting), made.to(mask), mask[0, 0])

    def _bytes(self, picture: Tensor) -> int:
        """The memory of the encoder, the fusion, and the features of a composite."""
        weight = sum(one.numel() for one in self.network.parameters())
        places = picture.shape[-2] * picture.shape[-1] // 64
        channels = self.network.shape.channels
        features = sum(width * places // 4**level for level, width in enumerate(channels))
        return int(weight + features) * self.room.dtype.itemsize


@contextmanager
def _steering(
    pipeline: StableDiffusion, network: PhDiffusion, picture: Tensor, mask: Tensor
) -> Iterator[None]:
    """The UNet of a pipeline with the features of a composite (1, 3, H, W) in 0..1."""
    from atelier.pipelines.phdiffusion import Injection

    injection = Injection(pipeline.unet, network)
    try:
        injection.see((2 * picture - 1).to(pipeline.dtype), mask.to(pipeline.dtype))
        yield
    finally:
        injection.remove()
