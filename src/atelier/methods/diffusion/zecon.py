"""ZeCon: a diffusion network draws the photo again, pulled at every step towards a style and its own content.

The photo is taken back to noise and denoised (Yang, Hwang & Ye 2023). At each step the gradient of a loss
moves the picture: words, or a style picture as in "Image-Guided Image Style Transfer with Diffusion model"
(NTOU 2023), pull towards the style; pixels, features of an encoder, and a contrastive loss on the network's
own features keep the content. A style picture pulls by the similarity of encodings of many views, and by
Gram matrices, which bring its colours.

Differences from the published code, except in `--quality published`: the network, the encoder and, in place
of CLIP, the pooled features of the encoder are those bundled with atelier; losses over the encoder are
relative to their targets, because feature scales differ between encoders; the picture gets the style's
colours, because a small network moves a palette little in 25 steps. The picture keeps its shape, where the
published code makes a square of 256 px. The network runs once a step instead of twice, with the same result.
The report on style pictures gives neither weights nor layers: the Gram term is the mean square difference, as
its text says, and not the product in its formula. Words need CLIP (`--clip`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods import guided
from atelier.methods.base import Job, Method, Paper, Takes
from atelier.methods.diffusion import model
from atelier.methods.visible import lend_visible_colours, visible_part

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.features.clip import ImageTower, Tower
    from atelier.features.vgg import VGG
    from atelier.losses.diffusion_guidance import Guidance, Term, Views
    from atelier.maths.diffusion import Process

#: Where the published contrastive loss reads the network.
_PUBLISHED_BLOCKS = (0, 2, 5, 8, 11)
#: The taps of the published losses: of the content, and of the Gram matrices.
_CONTENT = ("relu1_1", "relu2_1")
_GRAM = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class ZeconKnobs(AnyKnobs):
    """The networks, the way to noise and back, and the weight of every term."""

    weights: str = knob(
        "ddpm.atelier", "Diffusion network: a name from 'atelier weights list', or a file.", file="weights"
    )
    encoder: str = knob("encoder.atelier", "Encoder: a name, or a file.", file="weights")
    clip: str = knob(
        "",
        "CLIP for words and for the similarity to the style: a name, file or folder; else the encoder's "
        "pooled features.",
        file="weights",
    )
    scale: Literal["relative", "published"] = knob(
        "relative", "Scale of the losses over the encoder: relative to their targets, or as published."
    )
    colours: bool = knob(True, "Give the picture the mean and covariance of the style pictures' colours.")
    steps: int = knob(50, "Steps of the whole schedule.", ge=2, le=1000)
    skip: int = knob(25, "Steps to skip, from the most noise on; fewer change the photo more.", ge=0, le=999)
    forward: Literal["ddim", "ddpm"] = knob(
        "ddim", "How the photo becomes noise: by inversion, or with random noise."
    )
    backward: Literal["ddpm", "ddim"] = knob("ddpm", "Sampler: ddpm draws noise in each step.")
    eta: float = knob(0.0, "Randomness of the ddim sampler; 1 is as random as ddpm.", ge=0, le=1)
    similarity: float = knob(1000.0, "Weight of the similarity of patches to the style picture.", ge=0)
    gram: float = knob(2000.0, "Weight of the style picture's Gram matrices.", ge=0)
    text_whole: float = knob(0.0, "Weight of the similarity of the whole picture to the words.", ge=0)
    text_patches: float = knob(10_000.0, "Weight of the similarity of patches to the words.", ge=0)
    text_direction: float = knob(0.0, "Weight of the direction from the photo to the words.", ge=0)
    text_patch_direction: float = knob(
        20_000.0, "Weight of the direction from the photo to the words, for patches.", ge=0
    )
    source_text: str = knob("Photo", "What the photo is in words, where directions start.")
    contrast: float = knob(1000.0, "Weight of the contrastive loss on the network's features.", ge=0)
    pixels: float = knob(4000.0, "Weight of the pixels of the photo.", ge=0)
    features: float = knob(4000.0, "Weight of the photo's features.", ge=0)
    range: float = knob(50.0, "Weight of values outside the range of colours.", ge=0)
    contrast_blocks: tuple[int, ...] = knob(
        (), "Input blocks of the network for the contrastive loss; by default one for each level."
    )
    places: int = knob(256, "Places of each block that the contrastive loss compares.", ge=2, le=4096)
    views: int = knob(16, "Views of the picture for each similarity.", ge=1, le=256)
    smallest_patch: float = knob(0.01, "Smallest area of a patch, as a share of the picture.", gt=0, le=1)
    largest_patch: float = knob(0.3, "Largest area of a patch, as a share of the picture.", gt=0, le=1)
    augment: float = knob(
        1.0, "Probability with which a view is turned, and with which it is shown in perspective.", ge=0, le=1
    )
    view_side: int = knob(
        112, "Side of a view for the pooled features in pixels; CLIP has its own.", ge=16, le=1024
    )
    batch: int = knob(8, "Views to encode at once; fewer take less memory.", ge=1, le=256)
    half: bool = knob(True, "Use bfloat16 if the device supports it natively.")


class Zecon(Method):
    """Draw the photo again by diffusion, guided towards a style picture or words."""

    name = "zecon"
    paper = Paper(
        "Yang et al.",
        2023,
        "Zero-Shot Contrastive Loss for Text-Guided Diffusion Image Style Transfer",
        "https://arxiv.org/abs/2303.08622",
    )
    takes = Takes(styles=frozenset({"picture", "text"}))
    native = frozenset({"styles"})
    before = {"colours": False}  # noqa: RUF012
    Knobs = ZeconKnobs

    qualities = {  # noqa: RUF012
        "draft": {"steps": 30, "skip": 15, "views": 8},
        "good": {},
        "best": {"steps": 100, "skip": 50, "views": 32},
        "published": {
            "weights": "ddpm.openai",
            "encoder": "vgg19.imagenet",
            "clip": "clip_vit_b16.openai",
            "scale": "published",
            "colours": False,
            "similarity": 10_000.0,
            "gram": 200_000.0,
            "contrast": 500.0,
            "features": 100.0,
            "pixels": 5000.0,
            "views": 32,
            "half": False,
        },
    }
    sizes = {"draft": 192, "good": 256, "best": 384}  # noqa: RUF012

    def weights(self, knobs: ZeconKnobs) -> Sequence[str]:
        return (knobs.weights, knobs.encoder, *([knobs.clip] if knobs.clip else []))

    def transfer(self, job: Job, knobs: ZeconKnobs) -> Tensor:
        _check(job, knobs)
        # Tensors created in a caller's inference mode do not support autograd.
        with torch.inference_mode(False), torch.enable_grad():
            return _Run(job, knobs).picture()

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.methods.diffusion.ddpm import Ddpm

        return Ddpm.tiny()


def _check(job: Job, knobs: ZeconKnobs) -> None:
    if job.texts and not knobs.clip:
        raise UsageError(
            "zecon reads words with CLIP: give --clip clip_vit_b16.openai, a file or a folder, or use a "
            "style picture"
        )
    if knobs.skip >= knobs.steps:
        raise UsageError(f"skip = {knobs.skip} leaves none of the {knobs.steps} steps: skip fewer")


class _Run:
    """One picture: its networks, and the way to noise and back."""

    def __init__(self, job: Job, knobs: ZeconKnobs) -> None:
        from atelier.maths import samplers, schedules

        self.job, self.knobs = job, knobs
        dtype = job.dtype if knobs.half else torch.float32
        self.denoiser = model.load(knobs.weights, job.device, dtype)
        padding = "zeros" if knobs.scale == "published" else "replicate"
        self.encoder = guided.encoder_of(knobs.encoder, job.device, padding, dtype)
        self.tower = _tower(knobs, self.encoder, job.device, dtype)
        self.content = 2 * job.content.clone() - 1
        self.schedule = schedules.respaced(self.denoiser.schedule, str(knobs.steps))
        self.first = knobs.steps - knobs.skip - 1
        self.denoiser.check(float(self.schedule.steps[self.first]) / self.schedule.trained)
        self.generator = torch.Generator().manual_seed(job.seed)
        self.noise = samplers.drawn_from(self.generator)

    def picture(self) -> Tensor:
        """The picture (1, 3, H, W) in 0..1: the clean picture of the last step."""
        from atelier.losses.diffusion_guidance import TermNotFiniteError

        process = self.denoiser.process(self.schedule, clip=False)
        guidance = guidance_of(self)
        start = self._inverted(process)
        clean, done = self.job.content, self._inverting
        total = done + self.first + 1
        try:
            for state in self._sampled(process, start, guidance):
                clean, done = self._shown(state.x0), done + 1
                if not self._report(done, total, "guiding", clean, guidance.values):
                    break
        except TermNotFiniteError as error:
            # The last clean picture is still good.
            self._report(done, total, f"stopped: {error}", clean, guidance.values)
            self.job.progress.stopped = True
        return clean

    def _shown(self, clean: Tensor) -> Tensor:
        """A clean picture of a step as it is seen: in 0..1, and in the style's colours."""
        picture = ((clean + 1) / 2).clamp(0, 1)
        return lend_visible_colours(self.job, picture) if self.knobs.colours else picture

    @property
    def _inverting(self) -> int:
        """The steps of the inversion."""
        return self.first + 1 if self.knobs.forward == "ddim" else 0

    def _inverted(self, process: Process) -> Tensor:
        """The photo as noise."""
        from atelier.maths import samplers

        if self.knobs.forward == "ddpm":
            return self.noise(self.content)
        latent, total = self.content, 2 * self._inverting
        for state in samplers.ddim_inversion(process, self.content, stop=self._inverting):
            latent = state.picture
            if not self._report(state.step + 1, total, "inverting", self.job.content, {}):
                break
        return latent

    def _sampled(self, process: Process, latent: Tensor, guidance: Guidance) -> Any:
        """The states of the way back. With ddpm the inverted picture counts as noise, as published."""
        from atelier.maths import samplers
        from atelier.maths.diffusion import noised

        if self.job.progress.stopped:
            return iter(())
        shared: dict[str, Any] = {"noise": self.noise, "start": self.first, "guide": guidance}
        if self.knobs.backward == "ddpm":
            start = noised(self.schedule, self.content, self._step(self.first), latent)
            return samplers.ancestral(process, start, **shared)
        if self.knobs.forward == "ddpm":
            # One step more than the first, as published.
            last = min(self.first + 1, len(self.schedule) - 1)
            latent = noised(self.schedule, self.content, self._step(last), latent)
        return samplers.ddim(process, latent, **shared, eta=self.knobs.eta)

    def _step(self, index: int) -> Tensor:
        return torch.full((1,), index, device=self.content.device)

    def _report(self, done: int, total: int, stage: str, clean: Tensor, losses: Mapping[str, float]) -> bool:
        return self.job.progress.report(done, total, stage=stage, losses=losses, preview=lambda: clean)


def guidance_of(run: _Run) -> Guidance:
    """The terms of a run, in the order in which the published code draws their random numbers."""
    from atelier.losses.diffusion_guidance import Guidance, Views

    knobs = run.knobs
    views = Views(
        run.tower,
        run.generator,
        count=knobs.views,
        area=(knobs.smallest_patch, max(knobs.smallest_patch, knobs.largest_patch)),
        chance=knobs.augment,
        batch=knobs.batch,
    )
    terms = _text_terms(run, views) | _style_terms(run, views) | _content_terms(run)
    return Guidance(
        run.schedule,
        run.content,
        {name: (weight, term) for name, (weight, term) in terms.items() if weight},
        run.noise,
        knobs.range,
    )


def _text_terms(run: _Run, views: Views) -> dict[str, tuple[float, Term]]:
    from atelier.losses import diffusion_guidance as guide

    knobs, job = run.knobs, run.job
    terms: dict[str, tuple[float, Term]] = {}
    if not job.texts:
        return terms
    tower: Tower = run.tower  # type: ignore[assignment]  # words were refused without CLIP
    source = tower.text([knobs.source_text])
    several = len(job.texts) > 1
    for number, (text, share) in enumerate(zip(job.texts, job.text_weights, strict=True), 1):
        target = tower.text([text])
        kinds = {
            "text": (knobs.text_whole, guide.similarity(views.copies, target, views.count)),
            "text patches": (knobs.text_patches, guide.similarity(views.patches, target, views.count)),
            "direction": (knobs.text_direction, guide.direction(views, target - source)),
            "patch direction": (
                knobs.text_patch_direction,
                guide.patch_direction(views, target - source),
            ),
        }
        for name, (weight, term) in kinds.items():
            terms[f"{name} {number}" if several else name] = (share * weight, term)
    return terms


def _style_terms(run: _Run, views: Views) -> dict[str, tuple[float, Term]]:
    from atelier.losses import diffusion_guidance as guide

    knobs, job = run.knobs, run.job
    terms: dict[str, tuple[float, Term]] = {}
    several = len(job.styles) > 1
    for number, share in enumerate(job.style_weights, 1):
        style = visible_part(job, number - 1).clone()
        with torch.no_grad():
            target = views.whole(2 * style - 1)
            grams = gram_loss(run.encoder, style, relative=knobs.scale == "relative")
        kinds = {
            "similarity": (knobs.similarity, guide.similarity(views.patches, target, views.count)),
            "gram": (knobs.gram, guide.whole_loss(grams)),
        }
        for name, (weight, term) in kinds.items():
            terms[f"{name} {number}" if several else name] = (share * weight, term)
    return terms


def gram_loss(encoder: VGG, style: Tensor, *, relative: bool) -> Callable[[Tensor], Tensor]:
    """The loss of pictures (1, 3, H, W) in -1..1: differences of Gram matrices, summed over the taps."""
    from atelier.losses import GramLoss

    scale: Literal["relative", "tutorial"] = "relative" if relative else "tutorial"
    losses = {tap: GramLoss(found, scale=scale) for tap, found in encoder(style, _GRAM).items()}

    def loss(picture: Tensor) -> Tensor:
        found = encoder((picture + 1) / 2, _GRAM)
        return torch.stack([losses[tap](found[tap]) for tap in _GRAM]).sum()

    return loss


def _content_terms(run: _Run) -> dict[str, tuple[float, Term]]:
    from atelier.losses import diffusion_guidance as guide

    knobs, relative = run.knobs, run.knobs.scale == "relative"
    blocks = knobs.contrast_blocks or default_blocks(len(run.denoiser.network.input_blocks))
    if max(blocks) >= len(run.denoiser.network.input_blocks):
        raise UsageError(
            f"contrast_blocks = {max(blocks)}: this network has the input blocks 0 to "
            f"{len(run.denoiser.network.input_blocks) - 1}"
        )
    maps = partial(network_maps, run.denoiser, sorted(set(blocks)))
    places = guide.any_places(knobs.places, run.generator)
    taps = partial(encoder_maps, run.encoder, relative=relative)
    return {
        "contrast": (knobs.contrast, guide.contrast(maps, places)),
        "pixels": (knobs.pixels, guide.squared_difference(lambda picture: [picture])),
        "features": (knobs.features, guide.squared_difference(taps, relative=relative)),
    }


def default_blocks(count: int) -> tuple[int, ...]:
    """The published blocks, or every second one of a smaller network."""
    if count > max(_PUBLISHED_BLOCKS):
        return _PUBLISHED_BLOCKS
    return tuple(range(1, count, 2))


def network_maps(denoiser: model.Denoiser, blocks: Sequence[int], picture: Tensor) -> list[Tensor]:
    """The features of a picture (1, 3, H, W) in -1..1 in the network's input blocks, at time step 0."""
    found = denoiser.network.features(
        denoiser.padded(picture),
        torch.zeros(len(picture), device=picture.device),
        blocks,
    )
    return [found[block] for block in blocks]


def encoder_maps(encoder: VGG, picture: Tensor, *, relative: bool) -> list[Tensor]:
    """The features of a picture (1, 3, H, W) in -1..1; as published, the encoder takes it as if in 0..1."""
    found = encoder((picture + 1) / 2 if relative else picture, _CONTENT)
    return [found[tap] for tap in _CONTENT]


def _tower(knobs: ZeconKnobs, encoder: VGG, device: Any, dtype: Any) -> ImageTower:
    from atelier.features.pooled import PooledEncoder

    if not knobs.clip:
        return PooledEncoder(encoder, side=knobs.view_side)
    return guided.tower_of(knobs.clip, device, dtype)
