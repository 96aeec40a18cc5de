"""AdaIN: match the mean and deviation of the photo's features to the style's, and decode; the fastest method.

Each channel of the encoder's features is shifted and scaled so that its mean and standard deviation over the
picture match the style's (Huang & Belongie 2017, eq. 8). A decoder, trained once for all styles, turns the
result into a picture. Several styles blend their statistics; strength mixes in the photo's own. A style in
words stands for statistics too (`features.words`).

Differences from the paper, except in `--quality published`: the decoder also receives relu3_1, relu2_1 and
relu1_1, with the style's statistics, because faces and straight edges are lost at 1/8 of the size. The
finished picture takes the style's statistics of colour and detail (`colour.lend_bands`). Padding is
replicate, because zero padding leaves a visible border. Training losses are relative to their targets,
because feature scales differ between encoders, and part of each batch uses a painting as its own content.
Below full strength, the detail that the decoder loses is added back in proportion, so that strength 0 returns
the photo.

Every quality keeps the size of the picture. The published code rounds sides up to a multiple of 8; the rows
and columns that this adds at the bottom and right are cropped here, and all other pixels are the same.

The paper's training: `--encoder vgg_normalised.adain --padding reflect --skips 0 --blocks 0 --scale
published --style-weight 10 --identity-share 0 --smoothness 0 --overshoot 0 --learning-rate 1e-4 --crop 256
--steps 160000`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from atelier import features, maths
from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods import in_words
from atelier.methods.base import Batch, Context, Job, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.feedforward.perceptual import (
    STYLE,
    PerceptualTraining,
    contents,
    feature_terms,
    held_taps,
    pixel_terms,
    restyled,
)
from atelier.methods.portable import CONTENT, STYLE_PICTURE, Portable
from atelier.methods.prepared import style_job
from atelier.methods.visible import detail_statistics, key_parts, lend_statistics
from atelier.store import cache, weights
from atelier.store.models import kept
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.features.words import Prediction
    from atelier.networks.decoder import Decoder, DecoderPlan

Padding = Literal["replicate", "reflect", "zeros"]
_PAPER = "Huang and Belongie 2017, Arbitrary Style Transfer in Real-time, arXiv:1703.06868"

register(
    Record(
        name="adain.atelier",
        file="adain.safetensors",
        licence="Apache-2.0; its training pictures are for research",
        paper=_PAPER,
        bundled="adain.safetensors",
        note="Bundled with the package; trained with `atelier train adain` on the bundled encoder.",
    )
)
register(
    Record(
        name="adain.published",
        file="decoder.pth",
        sources=("https://github.com/naoto0804/pytorch-AdaIN/releases/download/v0.0.0/decoder.pth",),
        licence="MIT (naoto0804/pytorch-AdaIN)",
        paper=_PAPER,
        note="The decoder for relu4_1 of vgg_normalised.adain.",
    )
)


class Adain(Method):
    """Match the photo's feature means and deviations to the style's and decode: fast enough for video."""

    name = "adain"
    paper = Paper(
        "Huang & Belongie",
        2017,
        "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
        "https://arxiv.org/abs/1703.06868",
    )
    frames_at_once = True
    native = frozenset({"styles", "strength"})
    takes = Takes(styles=frozenset({"picture", "text"}))
    apart = frozenset({"recolour", "colours", "bands", "restore", "words", "half"})
    before = {"bands": False}  # noqa: RUF012

    class Knobs(AnyKnobs):
        """Settings of the transfer."""

        encoder: str = knob(
            "encoder.atelier", "Encoder: a name from 'atelier weights list', or a file.", file="weights"
        )
        weights: str = knob(
            "adain.atelier", "Decoder trained for this encoder: a name, or a file.", file="weights"
        )
        padding: Padding = knob("replicate", "Padding mode of the convolutions.")
        recolour: bool = knob(False, "Give the style the photo's colours first (CORAL).")
        colours: bool = knob(
            True, "Give the finished picture the mean and covariance of the style's colours."
        )
        bands: bool = knob(True, "Give the finished picture the style's contrast of detail, band by band.")
        restore: bool = knob(
            True, "Below full strength, add back in proportion the detail that the decoder loses."
        )
        words: str = knob(in_words.DEFAULT, in_words.KNOB, file="weights")
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    qualities = {  # noqa: RUF012
        "draft": {},
        "good": {},
        "best": {},
        "published": {
            "encoder": "vgg_normalised.adain",
            "weights": "adain.published",
            "padding": "reflect",
            "colours": False,
            "bands": False,
            "restore": False,
            "half": False,
        },
    }

    shared_knobs = ("encoder", "padding")

    class Training(PerceptualTraining):
        """The layout of the decoder, and the losses."""

        encoder: str = knob(
            "encoder.atelier", "Encoder whose features are decoded: a name, or a file.", file="weights"
        )
        loss_encoder: str = knob(
            "", "Encoder of the losses: a name, or a file; by default the encoder above.", file="weights"
        )
        padding: Padding = knob("replicate", "Padding mode of the convolutions.")
        skips: int = knob(1, "Skip connections: relu3_1, then relu2_1, relu1_1.", ge=0, le=3)
        blocks: int = knob(1, "Residual blocks at the first skip connection.", ge=0, le=16)
        strength: float = knob(1.0, "Share of the style in the features.", ge=0, le=1)

    def __init__(self) -> None:
        self._encoders: dict[tuple[str, str, torch.device], features.VGG] = {}

    def weights(self, knobs: Adain.Knobs) -> Sequence[str]:
        return (knobs.encoder, knobs.weights)

    def text_weights(self, knobs: Adain.Knobs) -> Sequence[str]:
        return (knobs.words,)

    def reading(self, texts: Sequence[str], knobs: Adain.Knobs) -> str:
        return in_words.reading(texts, knobs.words)

    # the transfer

    def transfer(self, job: Job, knobs: Adain.Knobs) -> torch.Tensor:
        return self._paint(job, knobs, None)

    def prepare(self, styles: Styles, knobs: Adain.Knobs, context: Context) -> Painter:
        # Recoloured styles depend on the photo.
        seen = None if knobs.recolour else self.seen(style_job(styles, context), knobs)
        return lambda frame: Result(self._paint(Job.of(styles, context, frame), knobs, seen))

    def look(self, job: Job, knobs: Adain.Knobs) -> None:
        self.seen(job, knobs)

    @staticmethod
    def seen(job: Job, knobs: Adain.Knobs) -> Seen:
        """The networks and the styles' statistics; the job's content is not used."""
        with torch.inference_mode():
            encoder, decoder = _networks(job, knobs)
            texts = in_words.predictions(job, knobs.words, knobs.encoder)
            style = _style(job, knobs, encoder, decoder.plan.taps, texts)
            lent = [one.details(in_words.style_side(job)) for one in texts]
            detail = [*detail_statistics(job), *lent] if knobs.bands else None
            return Seen(encoder, decoder, style, detail, [one.swatch.to(job.device) for one in texts])

    def _paint(self, job: Job, knobs: Adain.Knobs, seen: Seen | None) -> torch.Tensor:
        from atelier.maths.whitening import coral

        if knobs.recolour:
            if job.texts:
                raise UsageError("recolour changes style pictures, and words have none: leave it out")
            shown = maths.visible_pixels(job.content, job.content_seen)
            pairs = zip(job.styles, job.looks.seen, strict=True)
            job = replace(job, styles=[coral(style, shown, seen=alpha) for style, alpha in pairs])
        with torch.inference_mode():
            seen = seen or self.seen(job, knobs)
            picture = self.decoded(job, knobs, seen).clamp(0, 1)
            picture = lend_statistics(
                job,
                picture,
                job.strength,
                colours=knobs.colours,
                detail=seen.detail,
                swatches=seen.swatches,
            )
        job.progress.report(1, 1, stage="decoding", preview=lambda: picture)
        return picture

    def decoded(self, job: Job, knobs: Adain.Knobs, seen: Seen | None = None) -> Tensor:
        """The decoder's picture, (1, 3, H, W) of the content's size, float32 and not clamped.

        `seen` holds the styles' precomputed statistics; without it they are computed now.
        """
        from atelier.maths.whitening import adain

        encoder, decoder, style, *_ = seen or self.seen(job, knobs)
        height, width = job.content.shape[-2:]
        photo = _photo(job.content, encoder, decoder)

        def moved(tap: str) -> Tensor:
            found = photo.seen[tap]
            return adain(found, *style[tap], strength=job.strength, weight=_weight(job.content_seen, found))

        picture: Tensor = decoder(OnDemand(moved))[..., :height, :width]
        if job.strength < 1 and knobs.restore:
            picture = picture + (1 - job.strength) * photo.lost()
        return picture

    def portable(self, styles: Styles, knobs: Adain.Knobs, context: Context) -> Portable:
        job = style_job(styles, context)
        if job.styles or job.texts:
            encoder, decoder, known, *_ = self.seen(job, knobs)
        else:
            (encoder, decoder), known = _networks(job, knobs), None

        def paint(content: Tensor, style: Tensor | None = None) -> Tensor:
            from atelier.maths.whitening import adain

            taps = decoder.plan.taps
            seen = encoder(content, taps)
            moments = known
            if style is not None:
                wanted = encoder(style, taps)
                moments = {tap: maths.channel_moments(wanted[tap], unbiased=True) for tap in taps}
            assert moments is not None
            picture: Tensor = decoder({tap: adain(seen[tap], *moments[tap]) for tap in taps})
            return picture[..., : content.shape[-2], : content.shape[-1]].clamp(0, 1)

        return Portable([encoder, decoder], paint, (CONTENT,) if known else (CONTENT, STYLE_PICTURE))

    # the training

    def network(self, training: Adain.Training) -> torch.nn.Module:
        from atelier.networks.decoder import Decoder

        return Decoder(self._plan(training, torch.device("cpu")), padding=training.padding)

    def start(self, network: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
        """A decoder can gain skip connections: they start at zero."""
        own = network.state_dict()
        missing = {name: torch.zeros_like(own[name]) for name in own if name.startswith("skip")}
        network.load_state_dict({**missing, **state})

    def losses(self, network: torch.nn.Module, batch: Batch, training: Adain.Training) -> dict[str, Tensor]:
        device = batch.photos.device
        encoder = self._encoder(training, device, training.encoder)
        loss_encoder = self._encoder(training, device, training.loss_encoder or training.encoder)
        taps = self._plan(training, device).taps
        content, same = contents(batch.photos, batch.paintings, training)
        held = held_taps(training)
        with torch.no_grad():
            style, seen = loss_encoder(batch.paintings, STYLE), loss_encoder(content, held)
            target = given = restyled(seen, style, training.strength)
            if loss_encoder is not encoder or not {*taps} <= {*held}:
                seen = encoder(content, taps)
                given = restyled(seen, encoder(batch.paintings, taps), training.strength)
        height, width = content.shape[-2:]
        picture = network({tap: given[tap] for tap in taps})[..., :height, :width]
        terms = feature_terms(loss_encoder(picture, STYLE), target, style, training)
        return terms | pixel_terms(picture, content, same, training, stride=encoder.scale(taps[0]))

    def _plan(self, training: Adain.Training, device: torch.device) -> DecoderPlan:
        from atelier.networks.decoder import DecoderPlan

        encoder = self._encoder(training, device, training.encoder).plan
        return DecoderPlan.of(encoder, 4, skips=training.skips, blocks=training.blocks)

    def _encoder(self, training: Adain.Training, device: torch.device, name: str) -> features.VGG:
        key = (name, training.padding, device)
        if key not in self._encoders:
            encoder = features.load(name, padding=training.padding)
            self._encoders[key] = encoder.prepare(device, torch.float32)
        return self._encoders[key]

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.decoder import Decoder, DecoderPlan

        with torch.random.fork_rng(devices=[]):
            network = Decoder(DecoderPlan.of(features.TINY, 4, skips=2, blocks=1))
        return {"weights": network.fill(0).state_dict()}


class Seen(NamedTuple):
    """The networks, ready; the styles' weighted means and deviations by tap, and their detail statistics.

    `swatches` are the colours of styles in words.
    """

    encoder: features.VGG
    decoder: Decoder
    style: Mapping[str, tuple[Tensor, Tensor]]
    detail: Sequence[Sequence[Tensor]] | None
    swatches: Sequence[Tensor] = ()


def _networks(job: Job, knobs: Adain.Knobs) -> tuple[features.VGG, Decoder]:
    """The encoder and its decoder, ready. Raises WeightsError if they do not match."""
    dtype = job.dtype if knobs.half else torch.float32
    return _loaded(knobs.encoder, knobs.weights, _files(knobs), knobs.padding, job.device, dtype)


def _files(knobs: Adain.Knobs) -> tuple[str, ...]:
    return tuple(weights.fingerprint(name) for name in (knobs.encoder, knobs.weights))


@kept
def _loaded(
    encoder: str, decoder: str, files: tuple[str, ...], padding: Padding, device: Any, dtype: Any
) -> tuple[features.VGG, Decoder]:
    """As `_networks`; `files` is part of the cache key, so that changed files are reloaded."""
    from atelier.networks.decoder import check_fit, from_state

    with torch.inference_mode(False):  # they are kept, and a later caller may need gradients
        loaded = features.load(encoder, padding=padding)
        mirror = from_state(weights.load(decoder), padding=padding)
        check_fit(mirror.plan, loaded)
        return loaded.prepare(device, dtype), mirror.prepare(device, dtype)


class OnDemand(dict[str, Any]):
    """Features by tap, computed when they are asked for: those at full size are larger than the rest."""

    def __init__(self, make: Callable[[str], Tensor], known: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(known or {})
        self.make = make

    def __missing__(self, tap: str) -> Tensor:
        return self.make(tap)


@dataclass
class _Photo:
    """A photo as the networks see it."""

    content: Tensor
    encoder: features.VGG
    decoder: Decoder
    seen: Mapping[str, Tensor]
    _lost: Tensor | None = None

    def lost(self) -> Tensor:
        """What the decoder loses of the photo, (1, 3, H, W)."""
        if self._lost is None:
            height, width = self.content.shape[-2:]
            self._lost = self.content - self.decoder(self.seen)[..., :height, :width]
        return self._lost


#: The small photo that was seen last: drafts of it in other styles, or at other strengths, take
#: less than half of the time without encoding it again.
_LAST: deque[_Photo] = deque(maxlen=1)
_SMALL = 512 * 512


def _photo(content: Tensor, encoder: features.VGG, decoder: Decoder) -> _Photo:
    """A photo as the networks see it, computed anew unless it is the last one."""
    small = content.shape[-2] * content.shape[-1] <= _SMALL and torch.is_inference_mode_enabled()
    for last in list(_LAST) if small else ():
        same = last.encoder is encoder and last.decoder is decoder and last.content.device == content.device
        if same and torch.equal(last.content, content):
            return last
    content = content.clone() if small else content
    shown = _large_enough(content, encoder)
    # At full size there is one layer, which is quickly computed again.
    known = encoder(shown, [tap for tap in decoder.plan.taps if encoder.scale(tap) > 1])
    seen = OnDemand(lambda tap: encoder(shown, [tap])[tap], known)
    found = _Photo(content, encoder, decoder, seen)
    if small:
        _LAST.append(found)
    return found


def _large_enough(image: Tensor, encoder: features.VGG) -> Tensor:
    """The image (1, 3, H, W), padded by repeating the last row and column to the encoder's minimum size."""
    height, width = image.shape[-2:]
    side = encoder.smallest_side(STYLE)
    more = (0, max(0, side - width), 0, max(0, side - height))
    return torch.nn.functional.pad(image, more, mode="replicate") if any(more) else image


def _style(
    job: Job,
    knobs: Adain.Knobs,
    encoder: features.VGG,
    taps: Sequence[str],
    texts: Sequence[Prediction] = (),
) -> dict[str, tuple[Tensor, Tensor]]:
    """The styles' weighted means and deviations by tap; those of texts are predicted.

    AdaIN is linear in the statistics, so this equals blending the features (section 7.2 of the paper).
    """
    found: list[tuple[float, Mapping[str, tuple[Tensor, Tensor]]]] = []
    identity = ("adain", _files(knobs), knobs.padding, str(encoder.dtype))
    layout = {
        f"{tap} {name}": (1, encoder.channels(tap), 1, 1) for tap in taps for name in ("mean", "deviation")
    }
    for style, seen, share in zip(job.styles, job.looks.seen, job.style_weights, strict=True):
        if not share:
            continue
        key = cache.key(*identity, *key_parts(style, seen))
        kept = cache.remember(key, partial(_moments, encoder, style, taps, seen), layout)
        found.append((share, {tap: (kept[f"{tap} mean"], kept[f"{tap} deviation"]) for tap in taps}))
    side = in_words.style_side(job)
    for text, share in zip(texts, job.text_weights, strict=True):
        found.append((share, {tap: text.gaussian(tap, side).deviations() for tap in taps}))
    return {tap: _weighted([(share, of[tap]) for share, of in found], job.device) for tap in taps}


def _weighted(
    moments: Sequence[tuple[float, tuple[Tensor, Tensor]]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """The weighted sums of means and of deviations, from pairs of a share and both."""
    mean, deviation = (sum(share * one[part].to(device) for share, one in moments) for part in (0, 1))
    return torch.as_tensor(mean), torch.as_tensor(deviation)


def _moments(
    encoder: features.VGG, style: Tensor, taps: Sequence[str], seen: Tensor | None = None
) -> dict[str, Tensor]:
    """The mean and deviation of the visible part of a style at each tap."""
    moments: dict[str, Tensor] = {}
    for tap, found in encoder(_large_enough(style, encoder), taps).items():
        mean, deviation = maths.channel_moments(found, unbiased=True, weight=_weight(seen, found))
        moments |= {f"{tap} mean": mean, f"{tap} deviation": deviation}
    return moments


def _weight(seen: Tensor | None, found: Tensor) -> Tensor | None:
    """The visible share of each position of features (1, C, h, w)."""
    return maths.weight_at(seen, (found.shape[-2], found.shape[-1]))
