"""WCT: whiten the photo's features, colour them with the style's covariance, and decode, level by level.

At each of up to five levels of an encoder, the photo's features are whitened and given the style's
covariance in closed form (Li et al. 2017, eqs. 2 and 3). A decoder, trained only to reconstruct pictures,
makes the picture that the next level encodes.

Differences from the published code: pooling keeps the last row and column of an odd side, which the published
pooling drops. Below full strength, the detail that the decoders lose is added back in proportion, so that
strength 0 returns the photo. The ridge of the whitening is relative to the features' variance, because
feature scales differ between encoders. Half of the photo's own features stay (`alpha`), which keeps faces and
walls in place, and the finished picture takes the style's statistics of colour and detail. `--quality
published` undoes all of this: it reproduces the published picture, whose sides are multiples of 16 at level
5, and fills the up to 15 rows and columns that the published code drops by repeating the last one.

The encoder and decoders must match: the bundled decoders, of levels 4 to 1, fit the bundled encoder;
`--quality published` needs both published networks (wct.published).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from atelier import features, losses, maths
from atelier.core.errors import UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Context, Job, Method, Painter, Paper, Result, Styles
from atelier.methods.prepared import style_job
from atelier.methods.visible import detail_statistics, lend_statistics
from atelier.store import weights
from atelier.store.checkpoints import register_converter
from atelier.store.models import kept
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.maths.whitening import Colouring
    from atelier.networks.decoder import Decoders

Padding = Literal["replicate", "reflect", "zeros"]
_PAPER = "Li et al. 2017, Universal Style Transfer via Feature Transforms, arXiv:1705.08086"
_OWN = "wct.atelier"

register(
    Record(
        name=_OWN,
        file="wct.safetensors",
        licence="Apache-2.0; its training pictures are for research",
        paper=_PAPER,
        bundled="wct.safetensors",
        note="Bundled with the package: decoders of levels 4 to 1 of encoder.atelier, trained with "
        "`atelier train wct`.",
    )
)
register(
    Record(
        name="wct.published",
        file="wct.pth",
        licence="for academic use (Li et al.); code MIT (sunshineatnoon/PytorchWCT)",
        paper=_PAPER,
        converter="wct",
        note="Encoders and decoders of the five levels. They were published as ten Lua files (.t7); add "
        "the state dict of PytorchWCT's class WCT (e1.conv1.weight to d5.conv27.bias).",
    )
)


class WCT(Method):
    """Match the mean and covariance of the photo's features to the style's, coarse to fine."""

    name = "wct"
    paper = Paper(
        "Li et al.",
        2017,
        "Universal Style Transfer via Feature Transforms",
        "https://arxiv.org/abs/1705.08086",
    )
    frames_at_once = True
    native = frozenset({"styles", "strength"})
    before = {"alpha": 1.0, "colours": False, "bands": False}  # noqa: RUF012

    class Knobs(AnyKnobs):
        """Settings of the transfer."""

        encoder: str = knob(
            "encoder.atelier", "Encoder: a name from 'atelier weights list', or a file.", file="weights"
        )
        weights: str = knob(
            _OWN,
            "Decoders trained for this encoder ('atelier train wct'): a name, or a file.",
            file="weights",
        )
        levels: tuple[int, ...] = knob(
            (),
            "Levels of the encoder, in the order in which they run; by default all that there are decoders "
            "for, from the deepest.",
        )
        alpha: float = knob(
            0.5,
            "Share of the coloured features in the mix with the photo's, at strength 1 (alpha of the paper).",
            ge=0,
            le=1,
        )
        ridge: float = knob(
            0.5, "Variance added to the photo's before whitening, to limit noise in weak directions.", ge=0
        )
        scale: Literal["relative", "published"] = knob(
            "relative", "Unit of the ridge: the features' mean variance, or 1 as published."
        )
        padding: Padding = knob("replicate", "Padding mode of the convolutions.")
        colours: bool = knob(
            True, "Give the finished picture the mean and covariance of the style's colours."
        )
        bands: bool = knob(True, "Give the finished picture the style's contrast of detail, band by band.")
        restore: bool = knob(
            True, "Below full strength, add back in proportion the detail that the decoders lose."
        )
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    qualities = {  # noqa: RUF012
        "draft": {"levels": (4, 3, 2, 1)},
        "good": {},
        "best": {},
        "published": {
            "encoder": "wct.published",
            "weights": "wct.published",
            "ridge": 1.0,
            "scale": "published",
            "padding": "reflect",
            "alpha": 1.0,
            "colours": False,
            "bands": False,
            "restore": False,
            "half": False,
        },
    }

    shared_knobs = ("encoder", "padding", "levels")

    class Training(AnyKnobs):
        """Decoders that reconstruct pictures, photos and paintings alike."""

        encoder: str = knob(
            "encoder.atelier", "Encoder whose features are decoded: a name, or a file.", file="weights"
        )
        levels: tuple[int, ...] = knob((5, 4, 3, 2, 1), "Levels of the encoder to train a decoder for.")
        convs: tuple[int, ...] = knob(
            (),
            "Convolutions in each stage of the decoders, from full size on; by default as in the encoder.",
        )
        padding: Padding = knob("replicate", "Padding mode of the convolutions.")
        scale: Literal["relative", "published"] = knob(
            "relative", "Scale of the losses: relative to their targets, or as in the paper."
        )
        pixel_weight: float = knob(1.0, "Weight of the squared error of the pixels.", ge=0)
        feature_weight: float = knob(1.0, "Weight of the squared error of the features.", ge=0)
        batch: int = knob(4, "Photos per step, and as many paintings.", ge=1)

    def __init__(self) -> None:
        self._encoders: dict[tuple[str, str, torch.device], features.VGG] = {}

    def weights(self, knobs: WCT.Knobs) -> Sequence[str]:
        return tuple(dict.fromkeys((knobs.encoder, knobs.weights)))

    # the transfer

    def transfer(self, job: Job, knobs: WCT.Knobs) -> torch.Tensor:
        return self.prepare(job.looks, knobs, job.context)(job.frame).picture

    def prepare(self, styles: Styles, knobs: WCT.Knobs, context: Context) -> Painter:
        job = style_job(styles, context)
        with torch.inference_mode():
            levels = Levels(job, knobs)
        detail = detail_statistics(job) if knobs.bands else None
        return lambda frame: Result(self._paint(levels, detail, Job.of(styles, context, frame), knobs))

    @staticmethod
    def _paint(
        levels: Levels, detail: Sequence[Sequence[Tensor]] | None, job: Job, knobs: WCT.Knobs
    ) -> torch.Tensor:
        with torch.inference_mode():
            picture = plain = job.content
            for done, level in enumerate(levels.order, start=1):
                picture = levels.step(picture, level, knobs.alpha * job.strength, job.content_seen)
                shown = picture
                if job.strength < 1 and knobs.restore:
                    plain = levels.step(plain, level, 0.0, job.content_seen)
                    height, width = plain.shape[-2:]
                    shown = picture + (1 - job.strength) * (job.content[..., :height, :width] - plain)
                result = _filled(shown.clamp(0, 1), job.content)
                if not _report(job, done, len(levels.order), level, result):
                    break
            return lend_statistics(job, result, job.strength, colours=knobs.colours, detail=detail)

    # the training

    def network(self, training: WCT.Training) -> torch.nn.Module:
        from atelier.networks.decoder import DecoderPlan, Decoders

        encoder = self._encoder(training, torch.device("cpu")).plan
        levels = _distinct(training.levels)
        plans = [DecoderPlan.of(encoder, level, convs=training.convs) for level in levels]
        return Decoders(plans, padding=training.padding)

    def losses(self, network: torch.nn.Module, batch: Batch, training: WCT.Training) -> dict[str, Tensor]:
        encoder = self._encoder(training, batch.photos.device)
        pictures = torch.cat([batch.photos, batch.paintings])
        height, width = pictures.shape[-2:]
        relative = training.scale == "relative"
        with torch.no_grad():
            seen = encoder(pictures, [f"relu{level}_1" for level in training.levels])
        pixels, found = [], []
        for level, picture in network(seen).items():
            picture, tap = picture[..., :height, :width], f"relu{level}_1"
            pixels.append(losses.ContentLoss(pictures)(picture))
            # The paper adds sums of squares; here both terms are divided by the number of pixels.
            unit = 1.0 if relative else seen[tap].numel() / pictures.numel()
            loss = losses.ContentLoss(seen[tap], relative=relative)
            found.append(unit * loss(encoder(picture, [tap])[tap]))
        return {
            "pixels": training.pixel_weight * torch.stack(pixels).sum(),
            "features": training.feature_weight * torch.stack(found).sum(),
        }

    def _encoder(self, training: WCT.Training, device: torch.device) -> features.VGG:
        key = (training.encoder, training.padding, device)
        if key not in self._encoders:
            encoder = _encoder(training.encoder, training.padding)
            self._encoders[key] = encoder.prepare(device, torch.float32)
        return self._encoders[key]

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.decoder import DecoderPlan, Decoders

        with torch.random.fork_rng(devices=[]):
            network = Decoders([DecoderPlan.of(features.TINY, level) for level in (5, 4, 3, 2, 1)])
        return {"weights": network.fill(0).state_dict()}


class Levels:
    """The encoder, the decoders and the style statistics at every level of a job."""

    def __init__(self, job: Job, knobs: WCT.Knobs) -> None:
        from atelier.maths.whitening import blend, colouring
        from atelier.networks.decoder import check_fit

        dtype = job.dtype if knobs.half else torch.float32
        versions = tuple(weights.fingerprint(name) for name in (knobs.encoder, knobs.weights))
        options = (knobs.padding, versions, job.device, dtype)
        self.knobs = knobs
        self.encoder, self.decoders = _networks(knobs.encoder, knobs.weights, *options)
        self.order = _distinct(knobs.levels or self.decoders.levels)
        for level in self.order:
            if level not in self.decoders.levels:
                known = ", ".join(map(str, sorted(self.decoders.levels)))
                raise UsageError(f"{knobs.weights} has no decoder of level {level}: use {known}")
            check_fit(self.decoders.level(level).plan, self.encoder)
        taps = [f"relu{level}_1" for level in self.order]
        seen = [self._look(style, taps) for style in job.styles]
        self.style: dict[int, Colouring] = {
            level: blend(
                [
                    colouring(one[tap], weight=_weight(alpha, one[tap]))
                    for one, alpha in zip(seen, job.looks.seen, strict=True)
                ],
                job.style_weights,
            )
            for level, tap in zip(self.order, taps, strict=True)
        }

    def step(self, picture: Tensor, level: int, strength: float, seen: Tensor | None = None) -> Tensor:
        """The picture (1, 3, H, W), with alpha `seen`, after one level, not clamped."""
        found = self.look(picture, level)
        return self.paint(self.transformed(found, level, strength, seen), level, picture)

    def look(self, picture: Tensor, level: int) -> Tensor:
        """The features (1, C, h, w) of the picture at a level."""
        return self._look(picture, [f"relu{level}_1"])[f"relu{level}_1"]

    def transformed(self, found: Tensor, level: int, strength: float, seen: Tensor | None = None) -> Tensor:
        """The features with the style's mean and covariance, blended by `strength`."""
        from atelier.maths.whitening import whiten_and_colour

        if strength == 0:
            return found
        relative = self.knobs.scale == "relative"
        style = self.style[level]
        return whiten_and_colour(
            found,
            style,
            strength=strength,
            ridge=self.knobs.ridge,
            relative=relative,
            weight=_weight(seen, found),
        )

    def paint(self, found: Tensor, level: int, like: Tensor) -> Tensor:
        """The picture of a level's features, of the size of `like`, or smaller if pooling rounds down."""
        picture: Tensor = self.decoders.level(level)({f"relu{level}_1": found})
        return picture[..., : like.shape[-2], : like.shape[-1]]

    def _look(self, picture: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """The features at `taps`; a picture too small for them repeats its last row and column."""
        height, width = picture.shape[-2:]
        side = self.encoder.smallest_side(taps)
        more = (0, max(0, side - width), 0, max(0, side - height))
        if any(more):
            picture = torch.nn.functional.pad(picture, more, mode="replicate")
        seen: dict[str, Tensor] = self.encoder(picture, taps)
        return seen


def _filled(picture: Tensor, like: Tensor) -> Tensor:
    """The picture, padded to the size of `like` by repeating its last row and column."""
    more = (0, like.shape[-1] - picture.shape[-1], 0, like.shape[-2] - picture.shape[-2])
    return torch.nn.functional.pad(picture, more, mode="replicate") if any(more) else picture


def _weight(seen: Tensor | None, found: Tensor) -> Tensor | None:
    """The visible share of each position of features (1, C, h, w)."""
    return maths.weight_at(seen, (found.shape[-2], found.shape[-1]))


def _report(job: Job, done: int, total: int, level: int, picture: Tensor) -> bool:
    return job.progress.report(done, total, stage=f"level {level}", preview=lambda: picture)


def _distinct(levels: Sequence[int]) -> Sequence[int]:
    if not levels or len(set(levels)) != len(levels):
        raise UsageError("levels needs at least one of 1 to 5, each at most once")
    return levels


@kept
def _networks(
    encoder: str,
    decoders: str,
    padding: Padding,
    versions: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[features.VGG, Decoders]:
    """The encoder and decoders; `versions`, their fingerprints, are part of the cache key."""
    with torch.inference_mode(False):  # they are kept, and a later caller may need gradients
        networks = _encoder(encoder, padding), _decoders(decoders, padding)
        return networks[0].prepare(device, dtype), networks[1].prepare(device, dtype)


def _encoder(name: str, padding: Padding) -> features.VGG:
    """The encoder called `name`, or the one inside WCT's published file."""
    state = own_names(weights.load(name))
    # The published file holds encoders and decoders; its encoders round down in pooling.
    inside = {key.removeprefix("encoder."): part for key, part in state.items() if key.startswith("encoder.")}
    if not inside:
        return features.load(name, padding=padding)
    plan = replace(features.recognise(inside), ceil_pool=False)
    return features.from_official(plan, inside, padding=padding)


def _decoders(name: str, padding: Padding) -> Decoders:
    from atelier.networks.decoder import levels_from_state

    state = own_names(weights.load(name))
    kept = {key: part for key, part in state.items() if not key.startswith("encoder.")}
    return levels_from_state(kept, padding=padding)


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors under atelier's names, the encoder once; other tensors keep their names.

    Raises WeightsError if the levels' encoders differ: they are one network, cut at five layers.
    """
    official = dict(_official_names())
    named: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = official.get(key, key)
        if name in named and not torch.equal(named[name], tensor):
            raise WeightsError(f"{key} differs between levels: use files that belong together")
        named[name] = tensor
    return named


def _official_names() -> Iterator[tuple[str, str]]:
    """PytorchWCT's names: each level numbers its convolutions through the encoder and on into the decoder."""
    from atelier.networks.decoder import DecoderPlan

    layers = ["colour", *(name for name, _, _ in features.VGG_NORMALISED.layers())]
    for level in range(1, 6):
        seen = layers[: layers.index(f"conv{level}_1") + 1]
        undone = DecoderPlan.of(features.VGG_NORMALISED, level).layers()
        ours = [
            *((f"e{level}", f"encoder.{name}") for name in seen),
            *((f"d{level}", f"level{level}.conv{stage}_{number}") for stage, number, _, _ in undone),
        ]
        for index, (side, name) in enumerate(ours, start=1):
            for part in ("weight", "bias"):
                yield f"{side}.conv{index}.{part}", f"{name}.{part}"


register_converter("wct", own_names)
