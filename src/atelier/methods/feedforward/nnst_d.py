"""NNST-D: replace the photo's features with their nearest neighbours in the painting, and decode them.

The content's hypercolumns are replaced with their nearest neighbours among the style's, and a small network
decodes the result into a picture, coarse to fine; each level's picture joins the query of the next level
(Kolkin et al. 2022, the decoding variant; feature swapping is from Chen & Schmidt 2016).

The authors did not publish this variant's network, so this one is our own. It differs where that preserves
more of the photo or saves time: most of each query is the photo (`keep`); the decoder also receives its
normalised features, those at half and full size too; the search uses the principal directions of the style's
features, and at fine levels only the neighbourhood of the coarser level's matches. Colour and local contrast
count in the search, because features say little in flat places (`tone`, `flatness`), and neighbours prefer
connected pieces of the style (`coherence`). Fine detail comes in part from AdaIN's decoder and the photo
(`detail`, `photo_detail`), and the finished picture takes the style's statistics of colour and detail, with
less detail where the photo is flat (`colour.lend_bands`, `calm`). Above `stroke_size` the style is not
enlarged further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from atelier import features, maths
from atelier import networks as decoders
from atelier.core.allocator import make_room
from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.methods import base
from atelier.methods.base import Batch, Context, Job, Method, Paper, Result
from atelier.methods.feedforward.adain import Adain
from atelier.methods.feedforward.nnst_d_detail import Detail, decoder_of
from atelier.methods.feedforward.nnst_d_level import Level, shares
from atelier.methods.feedforward.nnst_d_losses import DecoderLosses
from atelier.methods.feedforward.nnst_d_moving import Moving, remember
from atelier.methods.feedforward.nnst_d_style import Networks, Styles
from atelier.methods.portable import Input, Portable
from atelier.methods.prepared import style_job
from atelier.methods.visible import detail_statistics, lend_statistics
from atelier.store.models import kept
from atelier.store.records import Record, register
from atelier.store.weights import fingerprint, load

register(
    Record(
        name="nnst_d.atelier",
        file="nnst_d.safetensors",
        licence="Apache-2.0; its training pictures are for research",
        paper="Kolkin et al. 2022, Neural Neighbor Style Transfer, arXiv:2203.13215",
        bundled="nnst_d.safetensors",
        note="Comes with the package; trained with `atelier train nnst-d` on the bundled encoder.",
    )
)


class NNSTD(Method):
    """Replace each of the photo's features with the painting's most similar feature, and decode them."""

    name = "nnst_d"
    paper = Paper(
        "Kolkin, Kucera, Paris, Sykora, Shechtman & Shakhnarovich",
        2022,
        "Neural Neighbor Style Transfer",
        "https://arxiv.org/abs/2203.13215",
    )
    frames_at_once = True
    native = frozenset({"strength", "styles", "regions"})
    before = {  # noqa: RUF012
        "tone": 0.0,
        "flatness": 0.0,
        "coherence": 0.0,
        "detail": 0.0,
        "photo_detail": 0.0,
        "calm": 0.0,
        "bands": False,
    }
    qualities = {"draft": {}, "good": {}, "best": {}}  # noqa: RUF012
    sizes = {"draft": 384, "good": 768, "best": 1536}  # noqa: RUF012

    class Knobs(AnyKnobs):
        """Settings of the search."""

        encoder: str = knob(
            "encoder.atelier", "Encoder: a name from 'atelier weights list', or a file.", file="weights"
        )
        weights: str = knob(
            "nnst_d.atelier", "Decoder: a name from 'atelier weights list', or a file.", file="weights"
        )
        keep: float = knob(
            0.75,
            "Weight of the photo itself in the search, except at the first and last sizes.",
            ge=0,
            le=1,
        )
        tone: float = knob(
            1.0, "Weight of colour in the search. At 0, flat areas of the photo become blotchy.", ge=0
        )
        flatness: float = knob(
            0.1,
            "Weight of local contrast in the search, relative to colour: flat parts of the photo take flat "
            "parts of the style.",
            ge=0,
        )
        coherence: float = knob(
            0.2,
            "Preference for copying connected pieces of the style. At 0, each place is matched on its own.",
            ge=0,
        )
        detail: float = knob(
            1.0, "Share of fine detail (below about 4 pixels) taken from AdaIN's decoder.", ge=0, le=1
        )
        detail_weights: str = knob(
            "",
            "AdaIN's decoder for this encoder: a name, or a file; empty for the bundled encoder's.",
            file="weights",
        )
        photo_detail: float = knob(
            0.05, "Share of fine detail taken from the photo itself; faces and lettering gain.", ge=0, le=1
        )
        coarsest: int = knob(
            64, "Long side of the first level in pixels; larger values keep larger shapes.", ge=16
        )
        stroke_size: int = knob(
            512, "Long side above which the style is not enlarged, so that strokes keep their size.", ge=16
        )
        turned: Literal["no", "mirrored", "all"] = knob(
            "no", "Mirrored or rotated copies of the style to search as well."
        )
        dims: int = knob(96, "Number of feature directions to compare.", ge=8, le=2048)
        calm: float = knob(
            0.3,
            "How far detail recedes where the photo is flat, so that skies are calm; needs `bands`.",
            ge=0,
            le=1,
        )
        colours: bool = knob(
            True, "Give the finished picture the mean and covariance of the style's colours."
        )
        bands: bool = knob(True, "Give the finished picture the style's contrast of detail, band by band.")
        half: bool = knob(True, "Run the networks in bfloat16 if the device supports it natively.")

    apart = frozenset(Knobs.model_fields) - {"encoder", "weights"}

    class Training(AnyKnobs):
        """Loss weights, and run defaults that suit this network."""

        encoder: str = knob(
            "encoder.atelier", "Encoder: a name from 'atelier weights list', or a file.", file="weights"
        )
        loss_encoder: str = knob(
            "",
            "Encoder of two more losses, AdaIN's content and style: a name, or a file; none by default.",
            file="weights",
        )
        crop: int = knob(128, "Side of the square crops in pixels.", ge=16, le=1024)
        fine: bool = knob(True, "Guide the decoder by the photo at half and full size too.")
        tone: float = knob(1.0, "Weight of colour in the search, as in use.", ge=0)
        seen_content_weight: float = knob(1.0, "Weight of the content by the encoder of losses.", ge=0)
        seen_style_weight: float = knob(20.0, "Weight of the style by the encoder of losses.", ge=0)
        match_weight: float = knob(1.0, "Weight of the distance to the matched features.", ge=0)
        near_weight: float = knob(0.5, "Weight of the distance to the nearest features of the style.", ge=0)
        moment_weight: float = knob(2.0, "Weight of the features' means and deviations.", ge=0)
        copy_weight: float = knob(2.0, "Weight of reconstructing a picture from its own features.", ge=0)
        content_weight: float = knob(0.1, "Weight of the content's normalised features.", ge=0)
        range_weight: float = knob(5.0, "Penalty for values outside 0..1.", ge=0)
        lattice_weight: float = knob(5.0, "Weight of the checkerboard penalty.", ge=0)

    def weights(self, knobs: NNSTD.Knobs) -> Sequence[str]:
        return (knobs.encoder, knobs.weights, *(name for name in (decoder_of(knobs),) if name))

    def transfer(self, job: Job, knobs: NNSTD.Knobs) -> torch.Tensor:
        with torch.inference_mode():
            networks = _networks(knobs.encoder, knobs.weights, job, knobs.half)
            styles = Styles(networks, job, knobs)
            return self._paint(networks, styles, Finish.of(job, styles, knobs), job, knobs)

    def prepare(self, styles: base.Styles, knobs: NNSTD.Knobs, context: Context) -> base.Painter:
        job = style_job(styles, context)
        networks = _networks(knobs.encoder, knobs.weights, job, knobs.half)
        seen = Styles(networks, job, knobs, keep=True)
        with torch.inference_mode():
            finish = Finish.of(job, seen, knobs)

        def paint(frame: base.Frame) -> Result:
            with torch.inference_mode():
                return Result(self._paint(networks, seen, finish, Job.of(styles, context, frame), knobs))

        return paint

    def _paint(
        self, networks: Networks, styles: Styles, finish: Finish, job: Job, knobs: NNSTD.Knobs
    ) -> torch.Tensor:
        final = (int(job.content.shape[-2]), int(job.content.shape[-1]))
        # A weak style starts at a finer level, where only small details can change.
        coarsest = round(knobs.coarsest**job.strength * max(final) ** (1 - job.strength))
        scales = maths.sizes(final, smallest=max(knobs.coarsest, coarsest))
        scales = [scales[0], *scales]  # the first level runs twice: on the photo, then on its own result
        first = maths.sizes(final, smallest=knobs.coarsest)[0]
        bias = shares(networks, job, styles, first, knobs.tone, knobs.flatness)
        seen = job.content_seen
        picture, chosen = job.content, None
        for index, size in enumerate(scales):
            make_room(final)
            level = Level(networks, resize(job.content, size), styles.at(max(size)), job.strength, seen)
            # Only the photo at the first level and, for detail, at the last; more of it for a weak style.
            level.keep = 1 - job.strength * (1 - knobs.keep) if 0 < index < len(scales) - 1 else 1.0
            level.confine(job.regions, bias)
            level.compare_tones(knobs.tone, knobs.flatness)
            level.coherence = knobs.coherence
            if index == len(scales) - 1:
                level.detail = finish.detail
            before = picture if level.keep == 1 else resize(picture, size)
            level.moving = Moving.of(job, index, level.cells, level.choices.grids)
            picture, chosen = level.paint(before, chosen)
            remember(job, index, chosen.index, chosen.grids, level.moving)
            stage, show = f"{size[1]} x {size[0]}", partial(torch.clone, picture)
            if not job.progress.report(index + 1, len(scales), stage=stage, preview=show):
                break
        picture = resize(picture, final)
        make_room(final)
        return lend_statistics(
            *(job, picture, job.strength),
            colours=knobs.colours,
            detail=finish.statistics,
            calm=knobs.calm,
            out=picture,
        )

    def portable(self, styles: base.Styles, knobs: NNSTD.Knobs, context: Context) -> Portable:
        """The decoder alone: the search is no network."""
        if styles.pictures:
            raise UsageError("nnst_d exports its decoder alone, which takes no style: leave it out")
        networks = _networks(knobs.encoder, knobs.weights, style_job(styles, context), False)
        decoder, columns = networks.decoder, networks.columns
        scale = torch.repeat_interleave(decoder.scale, torch.tensor(columns.widths))[None, :, None, None]
        channels = columns.encoder.channels
        says = "features of the photo, each channel normalised: {}"
        inputs = [
            Input(
                "columns",
                f"hypercolumns of the chosen features, at a quarter of the size: {', '.join(columns.taps)}",
                "features",
                columns.channels,
            ),
            Input(
                "guidance",
                says.format(", ".join(decoder.guides)),
                "features",
                sum(map(channels, decoder.guides)),
            ),
        ]
        for tap in decoder.fine_guides:
            finer = features.CELL // columns.encoder.scale(tap)
            inputs.append(Input(tap, says.format(tap), "features", channels(tap), finer=finer))

        def paint(found: torch.Tensor, guidance: torch.Tensor, *fine: torch.Tensor) -> torch.Tensor:
            picture: torch.Tensor = decoder(decoder.value(found / scale), guidance, fine)
            return picture.clamp(0, 1)

        return Portable([decoder], paint, inputs, smallest=8, scale=features.CELL)

    def style_side(self, knobs: NNSTD.Knobs, side: int) -> int:
        return min(side, knobs.stroke_size)

    def look(self, job: Job, knobs: NNSTD.Knobs) -> None:
        with torch.inference_mode():
            styles = Styles(_networks(knobs.encoder, knobs.weights, job, knobs.half), job, knobs)
            final = (int(job.content.shape[-2]), int(job.content.shape[-1]))
            for size in maths.sizes(final, smallest=knobs.coarsest):
                styles.at(max(size))
            Finish.of(job, styles, knobs)

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, torch.Tensor]]:
        columns = features.Hypercolumns(features.VGG(features.TINY))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = _decoder(columns, fine=True, width=16, guide_width=8, blocks=1)
            for layer in network.fine.parameters():
                torch.nn.init.normal_(layer, std=0.02)
        network.scale.fill_(1.0)
        state = network.state_dict()
        state["last.bias"].fill_(0.5)  # a picture with contrast instead of black
        state["last.weight"].mul_(40)
        return {"weights": state, "detail_weights": Adain.tiny()["weights"]}

    # training

    def network(self, training: Any) -> torch.nn.Module:
        columns = features.Hypercolumns(features.load(training.encoder))
        return _decoder(columns, fine=training.fine)

    def start(self, network: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """A decoder without fine guidance can gain it: those layers start at zero."""
        own = network.state_dict()
        missing = {name: own[name] for name in own if name.startswith("fine.")}
        network.load_state_dict({**missing, **state})

    def losses(self, network: Any, batch: Batch, training: Any) -> dict[str, torch.Tensor]:
        """Distances to the style's features and statistics, and reconstruction losses."""
        return DecoderLosses(network, batch, training).terms()


class Finish(NamedTuple):
    """What the last level and the finished picture need of the styles."""

    detail: Detail | None
    statistics: Sequence[Sequence[torch.Tensor]] | None

    @classmethod
    def of(cls, job: Job, styles: Styles, knobs: NNSTD.Knobs) -> Finish:
        pictures = styles.pictures(styles.final)
        return cls(Detail.of(job, pictures, knobs), detail_statistics(job, pictures) if knobs.bands else None)


# the networks


def _decoder(columns: features.Hypercolumns, *, fine: bool, **sizes: int) -> decoders.HypercolumnDecoder:
    """A new decoder for these hypercolumns, with fine guidance or without."""
    made, channels = decoders.HypercolumnDecoder, columns.encoder.channels
    return made(
        columns.channels,
        sum(map(channels, made.guides)),
        len(columns.taps),
        fine=[channels(tap) for tap in made.FINE] if fine else (),
        **sizes,
    )


def _networks(encoder: str, weights: str, job: Job, half: bool) -> Networks:
    files = tuple(fingerprint(name) for name in (encoder, weights))
    return _loaded(encoder, weights, files, job.device, job.dtype if half else torch.float32)


@kept
def _loaded(encoder: str, weights: str, files: tuple[str, ...], device: Any, dtype: Any) -> Networks:
    loaded = features.load(encoder, padding="replicate").prepare(device, dtype)
    with torch.inference_mode(False):  # it is kept, and a later caller may need gradients
        decoder = decoders.HypercolumnDecoder.of(load(weights)).requires_grad_(False).eval()
    scale = decoder.scale.clone()
    decoder.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decoder.scale = scale.to(device)  # a divisor must not be rounded
    return Networks(features.Hypercolumns(loaded), decoder, dtype, files)
