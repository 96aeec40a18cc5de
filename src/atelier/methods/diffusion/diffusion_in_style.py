"""Diffusion in Style: Stable Diffusion fine-tuned on a few pictures of a style, from the noise on.

The layout and the palette of a sampled picture come from its first noise. So the noise gets the style's own
mean and deviation at every place of the latent, in the training and in the sampling (Everaert et al. 2023),
and a thousand steps on a small folder of captioned pictures suffice. Pictures are made from words, or from a
photo to which such noise is added.

PATENT: the authors have applied for a patent on this method (PCT/EP2023/065063, published as US 2026/0187866
A1; licences by Largo.ai). Without a licence, use it only where the law lets you, for instance for research.
All of it is in this file: to remove the method, delete the file.

There is no official code. What the paper leaves open is chosen so: the deviation divides by N - 1, latents
are the most likely ones, the fine-tuning is AdamW at 1e-5 with batches of 4, and a tenth of the captions is
left out, because guidance needs the network's answer to no words in the same noise. Samplers that draw noise
in each step are derived from the same marginals (`ddim`, `ancestral`). Statistics are resampled for pictures
of other sizes; the paper has one size. Transfer from a photo, by noise up to a share of the schedule, is as
in SDEdit (Meng et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from atelier.core.errors import TrainingError, UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import padded
from atelier.methods import latent
from atelier.methods.base import Batch, Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.store import weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.pipelines.stable_diffusion import StableDiffusion

#: The steps of the network's training.
_TRAINED = 1000
_UNET = "unet."


class DiffusionInStyle(Method):
    """Draw in a style learnt from a few captioned pictures, from the noise on; a patent is applied for."""

    name = "diffusion_in_style"
    paper = Paper(
        "Everaert, Bocchio, Arpa, Süsstrunk & Achanta",
        2023,
        "Diffusion in Style",
        "https://openaccess.thecvf.com/content/ICCV2023/html/Everaert_Diffusion_in_Style_ICCV_2023_paper.html",
    )
    takes = Takes(content="optional", styles=frozenset({"text"}), least=0)
    extra = latent.EXTRA
    packages = latent.PACKAGES
    data = "captioned"
    averaged = ()
    shared_knobs = ("pipeline",)

    class Knobs(latent.PipelineKnobs):
        """The weights and the sampling."""

        weights: str = knob(
            "", "Style trained with 'atelier train diffusion-in-style': a file.", file="weights"
        )
        guidance: float = knob(7.5, "How strongly words lead; 1 is without guidance.", ge=0, le=50)
        noise: float = knob(
            0.6, "Noise to add to the photo, as a share of the schedule; more changes it more.", gt=0, le=1
        )
        steps: int = knob(50, "Steps of the whole schedule.", ge=1, le=250)
        sampler: Literal["ddim", "plms", "ancestral"] = knob("ddim", "Sampler; ancestral draws noise.")
        eta: float = knob(0.0, "Randomness of the ddim sampler.", ge=0, le=1)

    class Training(AnyKnobs):
        """The pipeline to start from, and the fine-tuning."""

        pipeline: str = knob(
            "stable_diffusion.v1_5",
            "Stable Diffusion 1.x to start from: a name, folder, or file.",
            file="weights",
        )
        dropped: float = knob(0.1, "Share of captions that are left out.", ge=0, le=1)
        checkpointing: bool = knob(True, "Compute activations twice to save memory.")
        steps: int = knob(1000, "Training steps.", ge=1)
        batch: int = knob(4, "Pictures per step, over all processes.", ge=1)
        crop: int = knob(512, "Side of the square pictures in pixels.", ge=16, le=2048)
        learning_rate: float = knob(1e-5, "Learning rate.", gt=0)
        warmup: int = knob(0, "Steps over which the learning rate rises from zero.", ge=0)
        cooldown: float = knob(
            0.0, "Final fraction of the run, in which the learning rate falls.", ge=0, le=1
        )
        held_back: int = knob(0, "Pictures that are held out for evaluation.", ge=0)

    qualities = {"draft": {"steps": 20}, "good": {}, "best": {}}  # noqa: RUF012
    sizes = {"draft": 512, "good": 512, "best": 512}  # noqa: RUF012

    def __init__(self) -> None:
        self._frozen: dict[torch.device, StableDiffusion] = {}

    def weights(self, knobs: DiffusionInStyle.Knobs) -> Sequence[str]:
        return (knobs.pipeline, _trained(knobs))

    # painting

    def prepare(self, styles: Styles, knobs: DiffusionInStyle.Knobs, context: Context) -> Painter:
        _trained(knobs)
        return _Painting(styles, knobs, context).paint

    # training

    def network(self, training: Any) -> nn.Module:
        from atelier.pipelines import stable_diffusion, stable_diffusion_layout

        parts = stable_diffusion_layout.find(training.pipeline)
        if parts.target != "eps":
            raise TrainingError("diffusion_in_style trains networks that predict noise, as those of 1.x do")
        whole = stable_diffusion.load(parts, torch.device("cpu"), torch.float32, name=training.pipeline)
        noise = StyleNoise.of(torch.cat(list(_latents(whole, training))))
        self._frozen[torch.device("cpu")] = whole
        if training.checkpointing:
            whole.unet.enable_gradient_checkpointing()
        return styled_unet(whole.unet, noise)

    def optimisers(
        self, networks: Mapping[str, nn.Module], training: Any
    ) -> dict[str, torch.optim.Optimizer]:
        learnt = networks["network"].parameters()
        return {"network": torch.optim.AdamW(learnt, lr=training.learning_rate)}

    def losses(self, network: Any, batch: Batch, training: Any) -> dict[str, Tensor]:
        pictures: Tensor = batch["pictures"]
        frozen = self._on(pictures.device)
        with torch.no_grad():
            clean = frozen.encode(pictures)
            drawn = batch.rows(torch.rand(batch.whole, generator=batch.generator))
            captions = [
                "" if share < training.dropped else words
                for share, words in zip(drawn.tolist(), batch["captions"], strict=True)
            ]
            context = frozen.words(captions)
        times = batch.rows(torch.randint(_TRAINED, (batch.whole,), generator=batch.generator))
        shape = (batch.whole, *clean.shape[1:])
        fresh = batch.rows(torch.randn(shape, generator=batch.generator)).to(clean)
        noise = StyleNoise(network.mu, network.sigma).drawn(fresh)
        noisy = noised(clean, noise, times)
        found = network.unet(noisy, times.to(clean.device), context).sample
        return {"error": (found.float() - noise).square().mean()}

    def _on(self, device: torch.device) -> StableDiffusion:
        """The frozen networks on a device."""
        if device not in self._frozen:
            home = self._frozen[torch.device("cpu")]
            for part in (home.vae, home.text):
                part.to(device)
            home.device = device
            self._frozen[device] = home
        return self._frozen[device]

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        mu = 0.3 * torch.randn((4, 8, 8), generator=generator)
        return {"weights": {"mu": mu, "sigma": 1 + 0.2 * mu}}


# the noise


@dataclass(frozen=True)
class StyleNoise:
    """The distribution of a style's noise: mean and deviation (4, h, w) of each element of the latent."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, latents: Tensor, *, unbiased: bool = True) -> StyleNoise:
        """The statistics of scaled latents (N, 4, h, w). Raises TrainingError for fewer than two."""
        if len(latents) < 2:
            raise TrainingError(f"a style's noise needs at least 2 pictures, and {len(latents)} was given")
        return cls(latents.mean(0), latents.std(0, correction=int(unbiased)))

    def drawn(self, normal: Tensor) -> Tensor:
        """The style's noise, from normal noise (B, 4, h, w)."""
        return self.mean.to(normal) + self.deviation.to(normal) * normal

    def at(self, size: tuple[int, int]) -> StyleNoise:
        """The noise at another size of latents, (height, width)."""
        from atelier.images.resize import resize

        mean, deviation = (resize(one[None].float(), size)[0] for one in (self.mean, self.deviation))
        return StyleNoise(mean, deviation)


def noised(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Latents with the style's noise at steps (B,) of the training."""
    from atelier.maths import diffusion, schedules

    return diffusion.noised(schedules.scaled_linear(), clean, times.to(clean.device), noise)


def guided(without: Tensor, with_words: Tensor, guidance: float) -> Tensor:
    """The noise that is led by words."""
    return without + guidance * (with_words - without)


# the sampling


class Leg(NamedTuple):
    """A step back from time `at` to time `to`."""

    at: int
    to: int


def legs(count: int, noise: float = 1.0) -> list[Leg]:
    """The steps from the most noise, a share of the schedule, to none; `count` for the whole schedule."""
    stride = _TRAINED // count
    found = [Leg(at, max(0, at - stride)) for at in range(1 + (count - 1) * stride, 0, -stride)]
    return [leg for leg in found if leg.at <= noise * _TRAINED] or found[-1:]


class Sampled(NamedTuple):
    """The latent after a step, and the clean latent that was predicted."""

    latent: Tensor
    clean: Tensor


#: The network's noise (B, 4, h, w) for a latent at a time.
Predict = Callable[["Tensor", int], "Tensor"]
#: Normal noise of the shape of a tensor.
Normal = Callable[["Tensor"], "Tensor"]


def ddim(
    start: Tensor, steps: Sequence[Leg], predict: Predict, style: StyleNoise, normal: Normal, eta: float = 0.0
) -> Iterator[Sampled]:
    """DDIM; with `eta` above 0 a part of the noise is drawn anew, round the style's mean."""
    for leg in steps:
        found = predict(start, leg.at)
        clean, left, onward = _clean(start, found, leg)
        variance = eta**2 * (1 - onward) / (1 - left) * (1 - left / onward)
        mean = style.mean.to(found)
        toward = math.sqrt(1 - onward) * mean + math.sqrt(1 - onward - variance) * (found - mean)
        start = math.sqrt(onward) * clean + toward
        if variance:
            start = start + math.sqrt(variance) * style.deviation.to(found) * normal(start)
        yield Sampled(start, clean)


def ancestral(
    start: Tensor, steps: Sequence[Leg], predict: Predict, style: StyleNoise, normal: Normal
) -> Iterator[Sampled]:
    """Each step from its distribution (Ho et al. 2020, eq. 7), for noise that is not centred."""
    for leg in steps:
        found = predict(start, leg.at)
        clean, left, onward = _clean(start, found, leg)
        kept, beta = left / onward, 1 - left / onward
        mean = style.mean.to(found)
        centred = start - math.sqrt(1 - left) * mean
        start = math.sqrt(onward) * beta / (1 - left) * clean + math.sqrt(1 - onward) * mean
        start = start + math.sqrt(kept) * (1 - onward) / (1 - left) * centred
        spread = math.sqrt((1 - onward) / (1 - left) * beta)
        start = start + spread * style.deviation.to(found) * normal(start)
        yield Sampled(start, clean)


def plms(
    start: Tensor, steps: Sequence[Leg], predict: Predict, style: StyleNoise, normal: Normal
) -> Iterator[Sampled]:
    """Steps along the mean of the last noises; the first is made twice, as it has none before it."""
    from atelier.maths.ddim import ADAMS

    history: list[Tensor] = []
    for number, leg in enumerate(steps):
        history = [predict(start, leg.at), *history][:4]
        noise = sum(share * one for share, one in zip(ADAMS[len(history) - 1], history, strict=True))
        moved, clean = _moved(start, noise, leg)
        if number == 0 and len(steps) > 1:
            yield Sampled(moved, clean)
            noise = (predict(moved, steps[1].at) + history[0]) / 2
            moved, clean = _moved(start, noise, leg)
        start = moved
        yield Sampled(start, clean)


def _clean(noisy: Tensor, noise: Tensor, leg: Leg) -> tuple[Tensor, float, float]:
    """The clean latent, and the share of it that is left before and after the step."""
    from atelier.maths import schedules

    table = schedules.scaled_linear().alphas_cumprod
    left, onward = float(table[leg.at]), float(table[leg.to])
    return (noisy - math.sqrt(1 - left) * noise) / math.sqrt(left), left, onward


def _moved(noisy: Tensor, noise: Any, leg: Leg) -> tuple[Tensor, Tensor]:
    clean, _, onward = _clean(noisy, noise, leg)
    return math.sqrt(onward) * clean + math.sqrt(1 - onward) * noise, clean


# the weights


def styled_unet(unet: nn.Module, noise: StyleNoise) -> nn.Module:
    """The UNet to train, with the style's noise beside it in its state: `mu`, `sigma` and `unet.*`."""
    made = torch.nn.Module()
    made.unet = unet.requires_grad_(True)
    made.register_buffer("mu", noise.mean.clone())
    made.register_buffer("sigma", noise.deviation.clone())
    return made


def _trained(knobs: DiffusionInStyle.Knobs) -> str:
    """The name of the trained style. Raises UsageError where none is given."""
    if not knobs.weights:
        raise UsageError(
            "diffusion_in_style needs a style: train one with `atelier train diffusion-in-style --pictures "
            "FOLDER` and give it with --weights"
        )
    return knobs.weights


def _latents(pipeline: StableDiffusion, training: Any) -> Iterator[Tensor]:
    """The latents (1, 4, h, w) of the middle squares of all pictures of the training."""
    from atelier.images import Picture

    for path in _files(training.pictures):
        picture = Picture.open(path).tensor()
        side = min(picture.shape[-2:])
        top, left = ((length - side) // 2 for length in picture.shape[-2:])
        square = picture[..., top : top + side, left : left + side]
        with torch.no_grad():
            yield pipeline.encode(_sized(square, training.crop))


def _sized(square: Tensor, side: int) -> Tensor:
    from atelier.images.resize import resize

    return padded(resize(square, (side, side)), 8, 8)


def _files(sources: Sequence[str]) -> list[Path]:
    """The picture files of folders and files."""
    from atelier.images import READABLE

    found: list[Path] = []
    for source in map(Path, sources):
        inside = sorted(source.iterdir()) if source.is_dir() else [source]
        found += [path for path in inside if path.suffix.lower() in READABLE]
    return found


# the picture


class _Painting:
    """Makes pictures in one trained style with one prompt."""

    def __init__(self, styles: Styles, knobs: DiffusionInStyle.Knobs, context: Context) -> None:
        self.words, self.knobs, self.seed = " ".join(styles.texts), knobs, context.seed
        self.noise, tuned = read(knobs.weights)
        mark = weights.fingerprint(knobs.weights)
        self.room = latent.Room(knobs, context, change=partial(_with_unet, tuned), mark=mark)

    def paint(self, frame: Frame) -> Result:
        """The picture; the photo itself if the work is stopped before there is one."""
        height, width = frame.content.shape[-2:]
        photo = padded(frame.content, 64, 8)
        size = (photo.shape[-2], photo.shape[-1])
        steps = legs(self.knobs.steps, 1.0 if frame.blank else self.knobs.noise)
        calls = len(steps) + (self.knobs.sampler == "plms" and len(steps) > 1)
        with torch.inference_mode():
            plan = self.room.planned(size, batch=1 if self.knobs.guidance == 1 else 2)
            events = latent.Steps(frame.progress, calls)
            if not events.announce(plan):
                return Result(frame.content)
            pipeline = self.room.loaded(plan)
            made = self._sampled(pipeline, photo, steps, events, blank=frame.blank)
        return Result(made[..., :height, :width])

    def _sampled(
        self,
        pipeline: StableDiffusion,
        photo: Tensor,
        steps: Sequence[Leg],
        events: latent.Steps,
        *,
        blank: bool,
    ) -> Tensor:
        from atelier.maths import samplers

        normal = samplers.seeded(self.seed)
        clean = pipeline.encode(photo)
        style = self.noise.at((clean.shape[-2], clean.shape[-1]))
        first = style.drawn(normal(clean))
        start = first if blank else noised(clean, first, torch.tensor([steps[0].at]))
        sampler: Any = {"ddim": partial(ddim, eta=self.knobs.eta), "plms": plms, "ancestral": ancestral}
        walk = sampler[self.knobs.sampler](start, steps, self._predict(pipeline), style, normal)
        made = photo
        for found in walk:
            made = found.latent
            if not events.done("sampling", partial(pipeline.decode, found.clean)):
                made = found.clean
                break
        return pipeline.decode(made)

    def _predict(self, pipeline: StableDiffusion) -> Predict:
        """The network's noise, led by the words."""
        share = self.knobs.guidance
        context = pipeline.words([self.words] if share == 1 else ["", self.words])

        def predict(latents: Tensor, time: int) -> Tensor:
            if share == 1:
                return pipeline.predict(latents, time, context)
            both = pipeline.predict(latents.expand(2, -1, -1, -1), time, context)
            return guided(both[:1], both[1:], share)

        return predict


def _with_unet(tuned: dict[str, Tensor] | None, parts: Any) -> Any:
    """The parts of a pipeline with a trained UNet."""
    if tuned is None:
        return parts
    return replace(parts, unet=parts.unet._replace(read=lambda: tuned))


def read(name: str) -> tuple[StyleNoise, dict[str, Tensor] | None]:
    """The noise of a trained style, and the tensors of its UNet; None for a file of statistics alone.

    Raises WeightsError for other files.
    """
    state = weights.load(name)
    if not {"mu", "sigma"} <= state.keys() or state["mu"].shape != state["sigma"].shape:
        raise WeightsError(f"{name} holds no style: use a file that `atelier train diffusion-in-style` wrote")
    noise = StyleNoise(state["mu"].float(), state["sigma"].float())
    tensors = {key.removeprefix(_UNET): one for key, one in state.items() if key.startswith(_UNET)}
    return noise, tensors or None
