"""MicroAST: two encoders of a few layers, and a decoder whose features and filters the style modulates.

The style's features give means and deviations, as in AdaIN, and a factor and a share of the input for each
channel of the decoder's convolutions (Wang et al. 2023, "DualMod"). With half a million weights and no VGG
in use, it is the fastest network here, and a picture of any style takes one pass. The losses of its training
are AdaIN's, and a contrastive one by which each result has the signals of its own style and of no other.

Differences from the paper: several styles blend their signals. The finished picture takes the style's
statistics of colour and detail, except in `--quality published`. Below full strength, the detail that the
network loses is added back in proportion, so that strength 0 returns the photo; as published, only the means
and deviations are mixed. The picture keeps its size: the published network rounds sides up to a multiple of
4; the rows and columns that this adds at the bottom and right are cropped here. In training, losses are
relative to their targets, because feature scales differ between encoders, and part of each batch uses a
painting as its own content.

The paper's training: `--loss-encoder vgg_normalised.adain --scale published --style-weight 3
--identity-share 0 --smoothness 0 --overshoot 0 --crop 256 --steps 160000`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from atelier import features
from atelier.core.errors import WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Context, Job, Method, Painter, Paper, Result, Styles
from atelier.methods.feedforward.perceptual import (
    STYLE,
    PerceptualTraining,
    contents,
    feature_terms,
    held_taps,
    pixel_terms,
)
from atelier.methods.portable import CONTENT, STYLE_PICTURE, Portable
from atelier.methods.prepared import style_job
from atelier.methods.visible import detail_statistics, key_parts, lend_statistics
from atelier.store import cache, checkpoints, weights
from atelier.store.models import kept
from atelier.store.records import File, Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.networks.microast import MicroAST, Signals

#: The published files by part of the network: sha256 and bytes.
_FILES = {
    "content_encoder": ("c8d895c0eec52507c157e102fab217c37f0c399ef3e168ef8b0b2677714660a4", 634983),
    "style_encoder": ("94f6b3fa386828692c20809a0af8bd0eba9c04e90a7d8842086976e4d223c5af", 634983),
    "modulator": ("8588055baf7d5ad8398d595d5518c6f030e3ff8dbb6007a7c1779776e11da28b", 12158),
    "decoder": ("32e04a46b953fd9f94ec9e20f351511305a5260e000c18f9aef6570d5f1e23d9", 619135),
}


def _converted(state: checkpoints.State) -> checkpoints.State:
    from atelier.networks.microast import from_published

    return from_published(state)


checkpoints.register_converter("microast", _converted)
_PAPER = "Wang et al. 2023, MicroAST: Super-Fast Ultra-Resolution Style Transfer, arXiv:2211.15313"
register(
    Record(
        name="microast.atelier",
        file="microast.safetensors",
        licence="Apache-2.0; its training pictures are for research",
        paper=_PAPER,
        bundled="microast.safetensors",
        note="Bundled with the package; trained with `atelier train microast`.",
    )
)
register(
    Record(
        name="microast.published",
        files=tuple(
            File(name=f"{part}_iter_160000.pth.tar", prefix=f"{part}.", sha256=sha256, bytes=size)
            for part, (sha256, size) in _FILES.items()
        ),
        sources=("https://raw.githubusercontent.com/EndyWon/MicroAST/{revision}/models",),
        revision="d2796c7dbf01dbc29ed35b11675d87fcc640f969",
        licence="MIT (EndyWon/MicroAST)",
        paper=_PAPER,
        converter="microast",
        note="Four files of 1.9 MB together.",
    )
)


class MicroAst(Method):
    """Modulate a tiny network's features and filters by the style: any style at video speed."""

    name = "microast"
    paper = Paper(
        "Wang et al.",
        2023,
        "MicroAST: Towards Super-Fast Ultra-Resolution Arbitrary Style Transfer",
        "https://arxiv.org/abs/2211.15313",
    )
    frames_at_once = True
    native = frozenset({"styles", "strength"})
    apart = frozenset({"colours", "bands", "restore", "half"})

    class Knobs(AnyKnobs):
        """Settings of the transfer."""

        weights: str = knob(
            "microast.atelier", "Network: a name from 'atelier weights list', or a file.", file="weights"
        )
        colours: bool = knob(
            True, "Give the finished picture the mean and covariance of the style's colours."
        )
        bands: bool = knob(True, "Give the finished picture the style's contrast of detail, band by band.")
        restore: bool = knob(
            True, "Below full strength, add back in proportion the detail that the network loses."
        )
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    qualities = {  # noqa: RUF012
        "draft": {},
        "good": {},
        "best": {},
        "published": {
            "weights": "microast.published",
            "colours": False,
            "bands": False,
            "restore": False,
            "half": False,
        },
    }

    class Training(PerceptualTraining):
        """The network's width and its losses."""

        loss_encoder: str = knob(
            "encoder.atelier", "Encoder of the losses: a name, or a file.", file="weights"
        )
        width: int = knob(
            16, "Channels at full size; half and quarter size have two and four times as many.", ge=1, le=256
        )
        contrast_weight: float = knob(3.0, "Weight of the style signal contrastive loss.", ge=0)
        learning_rate: float = knob(1e-4, "Learning rate between warm-up and cool-down.", gt=0)

    def __init__(self) -> None:
        self._encoders: dict[tuple[str, torch.device], features.VGG] = {}

    def weights(self, knobs: MicroAst.Knobs) -> Sequence[str]:
        return (knobs.weights,)

    # the transfer

    def transfer(self, job: Job, knobs: MicroAst.Knobs) -> torch.Tensor:
        return self.prepare(job.looks, knobs, job.context)(job.frame).picture

    def prepare(self, styles: Styles, knobs: MicroAst.Knobs, context: Context) -> Painter:
        job = style_job(styles, context)
        network, signals = self._look(job, knobs)
        detail = detail_statistics(job) if knobs.bands else None
        return lambda frame: Result(
            self._paint(network, signals, detail, Job.of(styles, context, frame), knobs)
        )

    def look(self, job: Job, knobs: MicroAst.Knobs) -> None:
        self._look(job, knobs)

    @staticmethod
    def _look(job: Job, knobs: MicroAst.Knobs) -> tuple[MicroAST, Signals]:
        """The network, ready, and the blended signals of the styles."""
        from atelier.networks.microast import blended

        dtype = job.dtype if knobs.half else torch.float32
        fingerprint = weights.fingerprint(knobs.weights)
        with torch.inference_mode():
            network = _loaded(knobs.weights, fingerprint, job.device, dtype)
            identity = ("microast", fingerprint, str(dtype))
            looks = zip(job.style_weights, job.styles, job.looks.seen, strict=True)
            return network, blended(
                [(share, _signals(network, identity, style, seen)) for share, style, seen in looks if share]
            )

    @staticmethod
    def _paint(
        network: MicroAST,
        signals: Signals,
        detail: Sequence[Sequence[Tensor]] | None,
        job: Job,
        knobs: MicroAst.Knobs,
    ) -> torch.Tensor:
        with torch.inference_mode():
            picture = decoded(network, signals, job, restore=knobs.restore).clamp(0, 1)
            picture = lend_statistics(job, picture, job.strength, colours=knobs.colours, detail=detail)
        job.progress.report(1, 1, stage="decoding", preview=lambda: picture)
        return picture

    def portable(self, styles: Styles, knobs: MicroAst.Knobs, context: Context) -> Portable:
        from atelier.networks import microast_plain as plain

        if styles.pictures:
            network, known = self._look(style_job(styles, context), knobs)
            seen = partial(plain.content_of, network)
            return Portable(
                [network],
                lambda content: plain.decoded(network.decoder, seen(content), known, content).clamp(0, 1),
            )
        both = _loaded(knobs.weights, weights.fingerprint(knobs.weights), context.device, torch.float32)
        return Portable(
            [both],
            lambda content, style: plain.painted(both, content, style).clamp(0, 1),
            (CONTENT, STYLE_PICTURE),
        )

    # the training

    def network(self, training: MicroAst.Training) -> torch.nn.Module:
        from atelier.networks.microast import MicroAST

        return MicroAST(training.width)

    def start(self, network: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
        from atelier.networks.microast import from_state

        network.load_state_dict(from_state(state).state_dict())

    def losses(
        self, network: torch.nn.Module, batch: Batch, training: MicroAst.Training
    ) -> dict[str, Tensor]:
        from atelier.losses.signals import SignalContrast

        encoder = self._encoder(training, batch.photos.device)
        content, same = contents(batch.photos, batch.paintings, training)
        with torch.no_grad():
            style, target = encoder(batch.paintings, STYLE), encoder(content, held_taps(training))
        height, width = content.shape[-2:]
        made = network(content, batch.paintings, signals=True)
        picture = made.picture[..., :height, :width]
        terms = feature_terms(encoder(picture, STYLE), target, style, training)
        if training.contrast_weight:
            contrast = SignalContrast([*made.wanted[0], *made.wanted[1]])
            found = contrast([*made.found[0], *made.found[1]])
            terms["contrast"] = training.contrast_weight * found
        return terms | pixel_terms(picture, content, same, training)

    def _encoder(self, training: MicroAst.Training, device: torch.device) -> features.VGG:
        key = (training.loss_encoder, device)
        if key not in self._encoders:
            encoder = features.load(training.loss_encoder, padding="replicate")
            self._encoders[key] = encoder.prepare(device, torch.float32)
        return self._encoders[key]

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.microast import MicroAST

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return {"weights": MicroAST(4).state_dict()}


def decoded(network: MicroAST, signals: Signals, job: Job, *, restore: bool = False) -> Tensor:
    """The network's picture, (1, 3, H, W) of the content's size, float32 and not clamped."""
    height, width = job.content.shape[-2:]
    paint = partial(network.paint, job.content, signals, seen=job.content_seen)
    picture = paint(strength=job.strength)[..., :height, :width]
    if job.strength < 1 and restore:
        picture = picture + (1 - job.strength) * (job.content - paint(strength=0.0)[..., :height, :width])
    return picture


@kept
def _loaded(name: str, fingerprint: str, device: Any, dtype: Any) -> MicroAST:
    """The network, ready; `fingerprint` is part of the cache key, so that changed files are reloaded."""
    from atelier.networks.microast import from_state

    with torch.inference_mode(False):  # it is kept, and a later caller may need gradients
        try:
            return from_state(weights.load(name)).prepare(device, dtype)
        except WeightsError as error:
            raise WeightsError(f"{name}: {error}") from error


def _signals(network: MicroAST, identity: tuple[str, ...], style: Tensor, seen: Tensor | None) -> Signals:
    """The signals of the visible part of a style, from the cache if they were computed before."""
    from atelier.networks.microast import Signal

    def computed() -> dict[str, Tensor]:
        found = zip(("shallow", "deep"), network.signals(style, seen), strict=True)
        return {f"{depth} {kind}": value for depth, one in found for kind, value in one._asdict().items()}

    shape = (1, 4 * network.width, 1, 1)
    layout = {f"{depth} {kind}": shape for depth in ("shallow", "deep") for kind in Signal._fields}
    entry = cache.remember(cache.key(*identity, *key_parts(style, seen)), computed, layout)
    shallow, deep = (
        Signal(*(entry[f"{depth} {kind}"].to(style.device) for kind in Signal._fields))
        for depth in ("shallow", "deep")
    )
    return shallow, deep
