"""CAP-VSTNet: encode the photo losslessly, match the covariance of its features to the style's, and invert.

A reversible network computes the features, a triangular matrix matches their mean and covariance to the
style's (Cholesky-WCT), and the inverse of the same network makes the picture (Wen, Gao & Zou 2023). The
network loses nothing, so edges and faces stay in place. It suits photographs as styles, video, and
regions with a style each.

Differences from the paper: the bundled weights are for a network with a sixth of the computation, trained
with the bundled encoder. A picture of any size keeps its size. The network runs in bfloat16 if a trial
shows no visible difference. In training, losses are relative to their targets, because feature scales differ
between encoders; the network is initialised as a colour transfer and a colour loss keeps it close to one, so
that few steps are enough. The paper's training of the photorealistic network, with photographs as paintings
too: `--body photo --encoder vgg_normalised.adain --scale published --start-gain 0 --style-weight 1
--colour-weight 0 --matting-weight 1500`; of the artistic one, with paintings: `--body art` and the same, but
`--matting-weight 1 --reconstruction-weight 1`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from atelier import features, losses, maths
from atelier.core.errors import UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images import labels
from atelier.methods.base import Batch, Context, Job, Method, Painter, Paper, Result, Styles
from atelier.methods.prepared import style_job
from atelier.methods.visible import key_parts
from atelier.store import cache, weights
from atelier.store.checkpoints import register_converter
from atelier.store.models import kept
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.maths.cholesky import Gaussian, Weighted
    from atelier.networks.reversible import Reversible

_STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
_CONTENT = "relu4_1"
_PAPER = "Wen, Gao and Zou 2023, CAP-VSTNet: Content Affinity Preserved Versatile Style Transfer, CVPR"
_SPREADS = {"photo": 2, "art": 1}
# Largest mean squared difference accepted between trial pictures in bfloat16 and float32: 1/255 squared.
_HARM = (1 / 255) ** 2

register(
    Record(
        name="cap_vstnet.atelier",
        file="cap_vstnet.safetensors",
        licence="Apache-2.0; its training pictures are for research",
        paper=_PAPER,
        bundled="cap_vstnet.safetensors",
        note="Bundled with the package: photorealistic, smaller than published; `atelier train cap-vstnet`.",
    )
)
for _kind in _SPREADS:
    for _medium, _use in (("image", "photographs"), ("video", "video")):
        register(
            Record(
                name=f"cap_vstnet.{_kind}" + ("-video" if _medium == "video" else ""),
                file=f"{_kind}_{_medium}.pt",
                licence="MIT (linfengWen98/CAP-VSTNet)",
                paper=_PAPER,
                converter=f"cap_vstnet_{_kind}",
                note=f"For {_use}. From the folder that the README of linfengWen98/CAP-VSTNet links to.",
            )
        )


def _with_spread(spread: int, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors plus a marker: the two published networks have the same shapes."""
    from atelier.networks.reversible import SPREAD, recognise

    recognise(state, spread=spread)
    return {**state, SPREAD: torch.tensor(spread)}


register_converter("cap_vstnet_photo", lambda state: _with_spread(_SPREADS["photo"], state))
register_converter("cap_vstnet_art", lambda state: _with_spread(_SPREADS["art"], state))


class CapVstnet(Method):
    """Match the covariance of lossless features: for photographs as styles, regions and stable video."""

    name = "cap_vstnet"
    paper = Paper(
        "Wen, Gao & Zou",
        2023,
        "CAP-VSTNet: Content Affinity Preserved Versatile Style Transfer",
        "https://arxiv.org/abs/2303.17867",
    )
    frames_at_once = True
    native = frozenset({"styles", "strength", "regions"})

    class Knobs(AnyKnobs):
        """Settings of the transfer."""

        weights: str = knob("cap_vstnet.atelier", "Reversible network: a name, or a file.", file="weights")
        network: Literal["auto", "photo", "art"] = knob(
            "auto", "Which published network the file holds, if it was not installed by name."
        )
        content_labels: str = knob(
            "",
            "Label map of the content: one colour per region, in a lossless format such as PNG.",
            file="data",
        )
        style_labels: tuple[str, ...] = knob(
            (),
            "Label map of each style; a region takes its style from the region of the same colour.",
            file="data",
        )
        label_affinity: str = knob(
            "",
            "Square .npy; column s lists the labels most similar to s, used where label s is missing.",
            file="array",
        )
        half: bool = knob(
            True, "Use bfloat16 if the device supports it and a trial shows no visible difference."
        )

    qualities = {  # noqa: RUF012
        "draft": {},
        "good": {},
        "best": {"half": False},
        "published": {"weights": "cap_vstnet.photo", "half": False},
        "published-art": {"weights": "cap_vstnet.art", "half": False},
    }

    class Training(AnyKnobs):
        """The layout of the network, and the losses."""

        body: Literal["slim", "photo", "art"] = knob(
            "slim", "Network: slim (for photos, a sixth of the computation) or a published one."
        )
        encoder: str = knob("encoder.atelier", "Encoder of the losses: a name, or a file.", file="weights")
        scale: Literal["relative", "published"] = knob(
            "relative", "Scale of the encoder's losses: relative to their targets, or as in the paper."
        )
        start_gain: float = knob(
            0.1,
            "Initial scale of the residuals; small values start as a colour transfer, 0 as published.",
            ge=0,
            le=1,
        )
        style_weight: float = knob(2.0, "Weight of the style's means and deviations.", ge=0)
        colour_weight: float = knob(20.0, "Weight of the mean and covariance of the style's colours.", ge=0)
        content_weight: float = knob(0.0, "Weight of the content's features.", ge=0)
        reconstruction_weight: float = knob(
            10.0, "Weight of reconstructing the content from the result.", ge=0
        )
        matting_weight: float = knob(100.0, "Weight of the matting Laplacian.", ge=0)
        temporal_weight: float = knob(60.0, "Weight of the temporal loss.", ge=0)
        temporal_from: int = knob(160_000, "Step at which the temporal loss starts.", ge=0)
        steps: int = knob(170_000, "Total optimiser steps; a resumed run can raise it.", ge=1)
        batch: int = knob(2, "Pairs per step.", ge=1)
        crop: int = knob(256, "Side of the square crops in pixels, a multiple of 4.", ge=16, le=1024)
        learning_rate: float = knob(1e-4, "Learning rate between warm-up and cool-down.", gt=0)
        clip: float = knob(5.0, "Maximum gradient norm.", gt=0)

    def __init__(self) -> None:
        self._encoders: dict[tuple[str, torch.device], features.VGG] = {}

    def weights(self, knobs: CapVstnet.Knobs) -> Sequence[str]:
        return (knobs.weights,)

    # the transfer

    def transfer(self, job: Job, knobs: CapVstnet.Knobs) -> torch.Tensor:
        return self._paint(_of(job, knobs), job, knobs)

    def prepare(self, styles: Styles, knobs: CapVstnet.Knobs, context: Context) -> Painter:
        loaded = _of(style_job(styles, context), knobs)
        if not knobs.style_labels:
            with torch.inference_mode():
                loaded = loaded.looked([(one, seen) for _, one, seen in _shares(style_job(styles, context))])
        return lambda frame: Result(self._paint(loaded, Job.of(styles, context, frame), knobs))

    @staticmethod
    def _paint(loaded: Loaded, job: Job, knobs: CapVstnet.Knobs) -> torch.Tensor:
        with torch.inference_mode():
            picture = stylised(loaded, job, _maps(job, knobs))
        if not bool(picture.isfinite().all()):
            raise WeightsError(f"the network {knobs.weights} gives non-finite values: use other weights")
        picture = picture.clamp(0, 1)
        job.progress.report(1, 1, stage="inverting", preview=lambda: picture)
        return picture

    def look(self, job: Job, knobs: CapVstnet.Knobs) -> None:
        loaded = _of(job, knobs)
        with torch.inference_mode():
            for _, style, seen in _shares(job):
                loaded.style(style, seen)

    # the training

    def network(self, training: CapVstnet.Training) -> torch.nn.Module:
        from atelier.networks.reversible import ART, PHOTO, SLIM, Reversible

        if training.crop % PHOTO.multiple:
            raise UsageError(f"crop = {training.crop} is not allowed: use a multiple of 4")
        plan = {"slim": SLIM, "photo": PHOTO, "art": ART}[training.body]
        network = Reversible(plan, seed=int(torch.randint(2**31, ())))
        return network.start_from_colours(training.start_gain) if training.start_gain else network

    def losses(
        self, network: torch.nn.Module, batch: Batch, training: CapVstnet.Training
    ) -> dict[str, Tensor]:
        from atelier.losses.matting import MattingLoss
        from atelier.losses.temporal import random_flow, second_frame

        picture, again, target = cycle(network, batch.photos, batch.paintings)
        terms = self._seen(picture, batch.photos, batch.paintings, training)
        if training.colour_weight:
            colours = losses.WassersteinLoss(batch.paintings, relative=True)(picture)
            terms["colour"] = training.colour_weight * colours
        if training.reconstruction_weight:
            terms["reconstruction"] = training.reconstruction_weight * (again - batch.photos).abs().mean()
        if training.matting_weight:
            terms["matting"] = MattingLoss(batch.photos, weight=training.matting_weight)(picture)
        if training.temporal_weight and batch.step >= training.temporal_from:
            height, width = batch.photos.shape[-2:]
            flow = random_flow((height, width), batch.generator)
            second = second_frame(batch.photos, flow, batch.generator)
            terms["temporal"] = training.temporal_weight * unsteadiness(
                network, picture, second, flow.to(picture.device), target
            )
        return terms

    def _seen(
        self, picture: Tensor, content: Tensor, style: Tensor, training: CapVstnet.Training
    ) -> dict[str, Tensor]:
        """The encoder's style and content losses; `relative` takes means over the taps, not sums."""
        encoder, relative = self._encoder(training, picture.device), training.scale == "relative"
        with torch.no_grad():
            wanted = encoder(style, _STYLE)
        found = encoder(picture, _STYLE)
        moments = [losses.MomentLoss(wanted[tap], relative=relative)(found[tap]) for tap in _STYLE]
        unit = len(_STYLE) if relative else 1
        terms = {"style": training.style_weight * torch.stack(moments).sum() / unit}
        if training.content_weight:
            with torch.no_grad():
                there = encoder(content, [_CONTENT])[_CONTENT]
            kept = losses.ContentLoss(there, relative=relative)(found[_CONTENT])
            terms["content"] = training.content_weight * kept
        return terms

    def _encoder(self, training: CapVstnet.Training, device: torch.device) -> features.VGG:
        key = (training.encoder, device)
        if key not in self._encoders:
            self._encoders[key] = features.load(training.encoder).prepare(device, torch.float32)
        return self._encoders[key]

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.reversible import TINY, Reversible

        state = Reversible(TINY, seed=0).state_dict()
        return {"weights": {name: tensor.contiguous() for name, tensor in state.items()}}


# the loaded network


@dataclass(frozen=True)
class Loaded:
    """A loaded network; `identity` is its part of the style cache key (None: no cache).

    `known` holds precomputed style statistics, by the `id` of the style tensor.
    """

    network: Reversible
    identity: tuple[str, ...] | None = None
    known: Mapping[int, Gaussian] = field(default_factory=dict)

    def looked(self, styles: Sequence[tuple[Tensor, Tensor | None]]) -> Loaded:
        """A copy with the statistics of these styles and alphas precomputed."""
        return replace(self, known={id(one): self.style(one, seen) for one, seen in styles})

    def features(self, picture: Tensor) -> Tensor:
        """The features of a picture (1, 3, H, W) of any size, padded."""
        found: Tensor = self.network(self.network.plan.padded(picture))
        return found

    def inside(self, found: Tensor, picture: Tensor) -> Tensor:
        """The features `found` without those of the padding."""
        height, width = self.network.plan.inside((picture.shape[2], picture.shape[3]))
        return found[..., :height, :width]

    def style(self, picture: Tensor, alpha: Tensor | None = None) -> Gaussian:
        """The statistics of the visible part of a style (1, 3, H, W), computed once and kept."""
        from atelier.maths.cholesky import Gaussian, gaussian

        if id(picture) in self.known:
            return self.known[id(picture)]

        def seen() -> dict[str, Tensor]:
            found = self.inside(self.features(picture), picture)
            return gaussian(found, _visible(alpha, found))._asdict()

        if self.identity is None:
            return Gaussian(**seen())
        width = self.network.plan.width
        layout = {"mean": (1, width), "root": (1, width, width)}
        key = cache.key(*self.identity, *key_parts(picture, alpha))
        return Gaussian(**cache.remember(key, seen, layout))


def _of(job: Job, knobs: CapVstnet.Knobs) -> Loaded:
    dtype = job.dtype if knobs.half else torch.float32
    return _loaded(knobs.weights, weights.fingerprint(knobs.weights), knobs.network, job.device, dtype)


@kept
def _loaded(name: str, fingerprint: str, kind: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The network of these weights; `fingerprint` is part of the cache key, so a changed file is reloaded."""
    from atelier.networks.reversible import from_state

    try:
        network = from_state(weights.load(name), spread=_SPREADS.get(kind))
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
    network.prepare(device, torch.float32)
    if dtype != torch.float32:
        half = copy.deepcopy(network).prepare(device, dtype)
        network = half if harm(network, half) <= _HARM else network
    return Loaded(network, ("cap_vstnet", fingerprint, kind, str(network.dtype)))


def harm(network: Reversible, half: Reversible) -> float:
    """Mean squared difference between `half` and `network` on a fixed trial of 64 x 64 pixels."""
    generator = torch.Generator().manual_seed(0)
    device = next(network.parameters()).device
    with torch.inference_mode():
        coarse = torch.rand((2, 3, 8, 8), generator=generator)
        pictures = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic")
        pictures = pictures + 0.05 * torch.randn(pictures.shape, generator=generator)
        content, style = torch.split(pictures.clamp(0, 1).to(device), 1)
        job = Job(content, [style], [1.0], device, torch.float32)
        exact, rounded = (stylised(Loaded(one), job).clamp(0, 1) for one in (network, half))
        return float((exact - rounded).square().mean())


# pictures


def stylised(loaded: Loaded, job: Job, maps: Sequence[Tensor] = ()) -> Tensor:
    """The job's picture, (1, 3, H, W) of the content's size, float32 and not clamped.

    `maps` are the label maps (H, W) of the content and then of each style; equal labels belong together.
    """
    from atelier.maths.cholesky import Gaussian, gaussian, interpolated, recoloured
    from atelier.maths.running import held

    found = loaded.features(job.content)
    if maps:
        moved = _by_region(loaded, job, found, maps[0], _matched(loaded, job, maps))
    elif job.regions is not None:
        # Positions outside all regions get no style.
        places = torch.where(job.regions.sum(0) > 0, job.regions.argmax(0), -1)[0]
        pairs = zip(job.styles, job.looks.seen, strict=True)
        styles = {index: [(1.0, loaded.style(style, seen))] for index, (style, seen) in enumerate(pairs)}
        moved = _by_region(loaded, job, found, places, styles)
    else:
        inside = loaded.inside(found, job.content)
        own = gaussian(inside, _visible(job.content_seen, inside))
        now = Gaussian(*(held("own", part) for part in own))
        wanted = [(share, loaded.style(style, seen)) for share, style, seen in _shares(job)]
        moved = recoloured(found, now, interpolated(wanted, now, job.strength))
    height, width = job.content.shape[-2:]
    picture: Tensor = loaded.network(moved, inverse=True)[..., :height, :width]
    return picture


def cycle(network: torch.nn.Module, content: Tensor, style: Tensor) -> tuple[Tensor, Tensor, Gaussian]:
    """The picture, the content reconstructed from it, and the style's statistics."""
    from atelier.maths.cholesky import gaussian, recoloured

    found = network(content)
    own, target = gaussian(found), gaussian(network(style))
    picture = network(recoloured(found, own, target), inverse=True)
    back = network(picture)
    again = network(recoloured(back, gaussian(back), own), inverse=True)
    return picture, again, target


def unsteadiness(
    network: torch.nn.Module, picture: Tensor, second: Tensor, flow: Tensor, target: Gaussian
) -> Tensor:
    """The temporal loss between a picture and the stylised second frame of the content."""
    from atelier.losses.temporal import TemporalLoss
    from atelier.maths.cholesky import gaussian, recoloured

    found = network(second)
    made = network(recoloured(found, gaussian(found), target), inverse=True)
    return TemporalLoss(flow)(picture, made)


def _shares(job: Job) -> list[tuple[float, Tensor, Tensor | None]]:
    """The weights, pictures and alphas of the styles with a weight above 0."""
    return [one for one in zip(job.style_weights, job.styles, job.looks.seen, strict=True) if one[0] > 0]


def _visible(seen: Tensor | None, found: Tensor) -> Tensor | None:
    """The positions of features (1, C, h, w) that are visible, (h, w)."""
    return maths.mask_at(seen, (found.shape[-2], found.shape[-1]))


# regions


def _by_region(
    loaded: Loaded, job: Job, found: Tensor, map_: Tensor, styles: Mapping[int, Weighted]
) -> Tensor:
    """The features, with the statistics of each region (`map_`, (H, W) of the content) matched to its style.

    Regions without a style are unchanged.
    """
    from atelier.maths.cholesky import recoloured_by_region

    padded = loaded.network.plan.padded(map_[None, None].float())[0, 0].long()
    inside = torch.zeros(found.shape[-2:], dtype=torch.bool, device=found.device)
    here = loaded.inside(inside, job.content)
    visible = maths.mask_at(job.content_seen, (here.shape[-2], here.shape[-1]))
    here[:] = True if visible is None else visible
    places = labels.resized(padded, found.shape[-2:])
    return recoloured_by_region(found, places, styles, strength=job.strength, inside=inside)


def _matched(loaded: Loaded, job: Job, maps: Sequence[Tensor]) -> dict[int, Weighted]:
    """Shares and statistics of the styles' regions, by the labels that occur in the content too."""
    from atelier.maths.cholesky import gaussian

    styles: dict[int, Weighted] = {}
    styled = zip(job.style_weights, job.styles, job.looks.seen, maps[1:], strict=True)
    for share, style, alpha, map_ in styled:
        seen = loaded.inside(loaded.features(style), style)
        places = labels.resized(map_, seen.shape[-2:])
        for label in labels.shared(maps[0], map_) if share else ():
            where, visible = places == label, _visible(alpha, seen)
            where = where if visible is None else where & visible
            if bool(where.any()):
                styles[label] = [*styles.get(label, ()), (share, gaussian(seen, where))]
    return styles


def _maps(job: Job, knobs: CapVstnet.Knobs) -> list[Tensor]:
    """The label maps (H, W) of the content and each style, at their sizes; empty if none are given."""
    if not knobs.content_labels and not knobs.style_labels:
        return []
    if job.regions is not None:
        raise UsageError("content_labels and style_labels cannot be combined with regions")
    if not knobs.content_labels or len(knobs.style_labels) != len(job.styles):
        raise UsageError(
            f"regions need content_labels, and style_labels for each of the {len(job.styles)} styles: "
            f"{len(knobs.style_labels)} were given"
        )
    files = (job.files["content_labels"], *job.files["style_labels"])
    pictures = (job.content, *job.styles)
    maps = [
        labels.read(file, picture.shape[-2:]).to(picture.device)
        for file, picture in zip(files, pictures, strict=True)
    ]
    if knobs.label_affinity:
        affinity = labels.read_affinity(job.files["label_affinity"])
        maps = [labels.without_slivers(one, affinity) for one in maps]
        maps[0] = labels.with_stand_ins(maps[0], torch.cat([one.flatten() for one in maps[1:]]), affinity)
    return maps
