"""Ghiasi: predict a style vector from the painting and condition a network on it; any style in one pass.

A predictor maps a painting to a vector of a hundred numbers, and two linear layers map the vector to the
shift and scale of each instance normalisation of a transformer network (Ghiasi et al. 2017). Several styles
average their vectors, lower strength moves the vector towards the photo's own, and a vector can be saved
(`save_vector`) and used without the painting (`style_vector`).

Differences from the paper, in training: the predictor can use the encoder's statistics instead of Inception,
and the transformer is narrower, so that both train on a small machine. Losses are relative to their targets,
because feature scales differ between encoders. Part of each batch uses the photo as its own style, because
lower strength moves in that direction. Below full strength, the detail that the photo loses in its own style
is added back in proportion, so that strength 0 returns the photo. The picture keeps its size: the published
network rounds sides up to a multiple of 4; the rows and columns that this adds at the bottom and right are
cropped here.

Hidden pixels of a style are excluded from its vector. Those of the photo are filled with the nearest visible
colour and are included in the transformer's instance normalisation.

The paper's training: `--predictor inception --widths 32 --widths 64 --widths 128 --encoder vgg16.slim
--pooling average --scale published --style-weight 5e-4 --smoothness 1e4 --identity-share 0 --crop 256
--learning-rate 1e-5`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from atelier import features, images, maths
from atelier.core.errors import UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Context, Job, Method, Painter, Paper, Result, Styles
from atelier.methods.portable import CONTENT, STYLE_PICTURE, Portable
from atelier.methods.visible import key_parts
from atelier.store import cache, checkpoints, weights
from atelier.store.models import kept
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.losses.pastiche import Pastiche
    from atelier.networks.conditional import Arbitrary

_TENSOR = "style_vector"


def _converted(state: checkpoints.State) -> checkpoints.State:
    from atelier.networks.conditional import arbitrary_from_tensorflow, load_arbitrary

    load_arbitrary(state)  # raises an error that names anything missing
    return arbitrary_from_tensorflow(state)


def _slim_vgg(state: checkpoints.State) -> checkpoints.State:
    from atelier.networks.tensorflow import vgg_from_slim

    return vgg_from_slim(state)


checkpoints.register_converter("ghiasi", _converted)
checkpoints.register_converter("vgg16_slim", _slim_vgg)
register(
    Record(
        name="ghiasi.published",
        file="arbitrary_style_transfer.tar.gz",
        sources=(
            "https://storage.googleapis.com/download.magenta.tensorflow.org/models/"
            "arbitrary_style_transfer.tar.gz",
        ),
        licence="Apache-2.0 (magenta/magenta)",
        paper="Ghiasi et al. 2017, Exploring the structure of a stylization network, arXiv:1705.06830",
        converter="ghiasi",
        note="A TensorFlow checkpoint of 606 MB; its training state is not stored.",
    )
)
register(
    Record(
        name="vgg16.slim",
        file="vgg_16_2016_08_28.tar.gz",
        sources=("https://storage.googleapis.com/download.tensorflow.org/models/vgg_16_2016_08_28.tar.gz",),
        licence="Apache-2.0 (tensorflow/models), converted from the authors' (CC-BY-4.0)",
        paper="Simonyan and Zisserman 2015, Very Deep Convolutional Networks, arXiv:1409.1556",
        normalisation=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        converter="vgg16_slim",
        note="The encoder of the published losses of ghiasi and cin; their weights assume its scale.",
    )
)


class Ghiasi(Method):
    """Predict a style vector from the painting and paint the photo with it, in one pass for any style."""

    name = "ghiasi"
    paper = Paper(
        "Ghiasi, Lee, Kudlur, Dumoulin & Shlens",
        2017,
        "Exploring the structure of a real-time, arbitrary neural artistic stylization network",
        "https://arxiv.org/abs/1705.06830",
    )
    frames_at_once = True
    native = frozenset({"styles", "strength"})
    apart = frozenset({"restore", "half"})

    class Knobs(AnyKnobs):
        """Settings of the transfer."""

        weights: str = knob(
            "ghiasi.published", "Network: a name from 'atelier weights list', or a file.", file="weights"
        )
        encoder: str = knob(
            "encoder.atelier",
            "Encoder that the network was trained with, if it does not use Inception.",
            file="weights",
        )
        style_vector: str = knob(
            "", "File with a style vector to use instead of the style pictures.", file="weights"
        )
        restore: bool = knob(
            True, "Below full strength, add back in proportion the detail that the network loses."
        )
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    class Training(AnyKnobs):
        """The layout of the network, and the losses."""

        encoder: str = knob(
            "encoder.atelier", "Encoder of the losses and of the statistics: a name, or a file."
        )
        pooling: Literal["max", "average"] = knob(
            "max", "Pooling of the encoder; the statistics predictor needs max."
        )
        predictor: Literal["statistics", "inception"] = knob(
            "statistics",
            "Predictor of the style vector: from the encoder's statistics, or an Inception network.",
        )
        vector: int = knob(100, "Length of the style vector.", ge=1, le=4096)
        widths: tuple[int, int, int] = knob(
            (24, 48, 96), "Channels of the transformer at full, half and quarter size."
        )
        blocks: int = knob(5, "Residual blocks.", ge=1, le=32)
        weights: str = knob(
            "",
            "Weights to start from, which set the network's shape; empty for new ones.",
            file="weights",
        )
        scale: Literal["relative", "published"] = knob(
            "relative", "Scale of the losses: relative to their targets, or as in the paper."
        )
        content_weight: float = knob(1.0, "Weight of the content's features.", ge=0)
        style_weight: float = knob(2.0, "Weight of the style's Gram matrices.", ge=0)
        smoothness: float = knob(1.0, "Weight of total variation, which suppresses noise.", ge=0)
        identity_share: float = knob(
            0.125, "Fraction of the batch that uses the photo as its own style.", ge=0, le=1
        )

    def __init__(self) -> None:
        self._criteria: dict[tuple[Any, ...], Pastiche] = {}

    def weights(self, knobs: Ghiasi.Knobs) -> Sequence[str]:
        used = [knobs.weights]
        if _needs_encoder(knobs.weights, weights.fingerprint(knobs.weights)):
            used.append(knobs.encoder)
        return [*used, knobs.style_vector] if knobs.style_vector else used

    # the transfer

    def transfer(self, job: Job, knobs: Ghiasi.Knobs) -> torch.Tensor:
        return self.prepare(job.looks, knobs, job.context)(job.frame).picture

    def prepare(self, styles: Styles, knobs: Ghiasi.Knobs, context: Context) -> Painter:
        network, vector = self._look(styles, knobs, context)
        return lambda frame: Result(self._paint(network, vector, Job.of(styles, context, frame), knobs))

    def look(self, job: Job, knobs: Ghiasi.Knobs) -> None:
        self._look(job.looks, knobs, job.context)

    @staticmethod
    def _look(styles: Styles, knobs: Ghiasi.Knobs, context: Context) -> tuple[StyleNetwork, Tensor]:
        """The network and the styles' vector."""
        with torch.inference_mode():
            network = StyleNetwork(knobs, context.device, context.dtype)
            return network, network.style(styles.pictures, styles.weights, styles.seen)

    @staticmethod
    def _paint(style_network: StyleNetwork, vector: Tensor, job: Job, knobs: Ghiasi.Knobs) -> Tensor:
        network = style_network.network
        with torch.inference_mode():
            if job.strength == 1:
                picture = network.paint(job.content, vector)
            else:
                own = style_network.vector(job.content, job.content_seen)
                picture = network.paint(job.content, torch.lerp(own, vector, job.strength))
                if knobs.restore:
                    lost = job.content - network.paint(job.content, own)
                    picture = (picture + (1 - job.strength) * lost).clamp(0, 1)
        job.progress.report(1, 1, stage="painting", preview=lambda: picture)
        return picture

    def portable(self, styles: Styles, knobs: Ghiasi.Knobs, context: Context) -> Portable:
        if styles.pictures or knobs.style_vector:
            styled, vector = self._look(styles, knobs, context)
            network = styled.network
            return Portable([network], lambda content: network.paint(content, vector))
        from atelier.networks import inception

        whole = StyleNetwork(knobs, context.device, torch.float32)
        parts = [whole.network] if whole.encoder is None else [whole.network, whole.encoder]
        return Portable(
            parts,
            lambda content, style: whole.network.paint(content, whole.vector(style)),
            (CONTENT, STYLE_PICTURE),
            smallest=32 if whole.encoder is not None else inception.SMALLEST,
        )

    # the training

    def network(self, training: Ghiasi.Training) -> torch.nn.Module:
        from atelier.networks.conditional import Arbitrary, Statistics, load_arbitrary
        from atelier.networks.inception import Trunk

        if training.weights:
            return load_arbitrary(weights.load(training.weights))
        predictor: Trunk | Statistics = Trunk()
        if training.predictor == "statistics" and training.pooling != "max":
            raise UsageError("pooling = 'average' needs predictor = 'inception': statistics need max pooling")
        if training.predictor == "statistics":
            criterion = self._criterion(training, torch.device("cpu"))
            predictor = Statistics(2 * sum(criterion.encoder.channels(tap) for tap in criterion.style))
        return Arbitrary(predictor, vector=training.vector, widths=training.widths, blocks=training.blocks)

    def losses(self, network: torch.nn.Module, batch: Batch, training: Ghiasi.Training) -> dict[str, Tensor]:
        criterion = self._criterion(training, batch.photos.device)
        own = batch.rows(torch.rand(batch.whole, generator=batch.generator)) < training.identity_share
        chosen = own.to(batch.photos.device)[:, None, None, None]
        paintings = torch.where(chosen, batch.photos, batch.paintings)
        seen = criterion.see(paintings)
        style = statistics(seen) if _has_statistics(network) else paintings
        found = criterion(network(batch.photos, style), batch.photos, criterion.grams(seen))
        taps = torch.stack([found[tap] for tap in criterion.style])
        return {
            "content": training.content_weight * found["content"],
            "style": training.style_weight * (taps.mean() if criterion.relative else taps.sum()),
            "smoothness": training.smoothness * found["smoothness"],
        }

    def _criterion(self, training: Ghiasi.Training, device: torch.device) -> Pastiche:
        """The losses, with their frozen encoder."""
        from atelier.losses.pastiche import Pastiche

        key = (training.encoder, training.pooling, training.scale, device)
        if key not in self._criteria:
            encoder = features.load(training.encoder, pooling=training.pooling).prepare(device)
            self._criteria[key] = Pastiche(encoder, relative=training.scale == "relative")
        return self._criteria[key]

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.losses.pastiche import STYLE
        from atelier.networks.conditional import Arbitrary, Statistics

        encoder = features.VGG(features.TINY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            predictor = Statistics(2 * sum(encoder.channels(tap) for tap in STYLE), 16)
            return {"weights": Arbitrary(predictor, vector=8, widths=(8, 8, 16), blocks=2).state_dict()}


class StyleNetwork:
    """The loaded network on a device, with the encoder of its style predictor, if any."""

    def __init__(self, knobs: Ghiasi.Knobs, device: torch.device, dtype: torch.dtype) -> None:
        dtype = dtype if knobs.half else torch.float32
        fingerprint = weights.fingerprint(knobs.weights)
        self.weights, self.style_vector = knobs.weights, knobs.style_vector
        self.network = _network(knobs.weights, fingerprint, device, dtype)
        self.encoder: features.VGG | None = None
        #: Everything that a style vector depends on besides the style.
        self.identity: tuple[Any, ...] = (Ghiasi.name, fingerprint, str(device), str(dtype))
        if _has_statistics(self.network):
            fingerprint = weights.fingerprint(knobs.encoder)
            self.encoder = _encoder(knobs.encoder, fingerprint, device, dtype)
            self.identity += (fingerprint,)
            self._check_encoder(knobs)

    def style(
        self,
        styles: Sequence[Tensor],
        shares: Sequence[float],
        seen: Sequence[Tensor | None] = (),
    ) -> Tensor:
        """The vector (1, V) of the weighted styles, each (1, 3, H, W), or the one in `style_vector`.

        `seen` are the styles' alphas (1, 1, H, W); empty if all are opaque.
        """
        if self.style_vector:
            return self._kept()
        alphas = seen or [None] * len(styles)
        parts = [
            share * self._remembered(style, alpha)
            for style, alpha, share in zip(styles, alphas, shares, strict=True)
            if share
        ]
        return torch.stack(parts).sum(0)

    def _remembered(self, style: Tensor, seen: Tensor | None) -> Tensor:
        """The style's vector, from the cache if it was computed before."""
        layout = {_TENSOR: (1, self.network.bottleneck.out_features)}
        key = cache.key(*self.identity, *key_parts(style, seen))
        return cache.remember(key, lambda: {_TENSOR: self.vector(style, seen)}, layout)[_TENSOR].to(
            style.device
        )

    def vector(self, picture: Tensor, seen: Tensor | None = None) -> Tensor:
        """The style vector (1, V) of the visible part of a picture (1, 3, H, W), RGB in 0..1, of any size."""
        from atelier.losses.pastiche import STYLE
        from atelier.networks import inception

        if self.encoder is None:
            return self.network.vector(
                _at_least(picture, inception.SMALLEST), _tiled(seen, inception.SMALLEST)
            )
        side = self.encoder.smallest_side(STYLE)
        found = self.encoder(_at_least(picture, side), STYLE)
        return self.network.vector(statistics(found, _tiled(seen, side)))

    def _kept(self) -> Tensor:
        """The vector in the `style_vector` file. Raises WeightsError if it belongs to another network."""
        path = self.style_vector
        found, length = weights.load(path).get(_TENSOR), self.network.bottleneck.out_features
        if found is None or found.shape != (1, length):
            raise WeightsError(
                f"{path} has no style vector of {length} numbers: make one with "
                "atelier.methods.feedforward.ghiasi.save_vector and these weights"
            )
        maker = weights.metadata(path).get("weights")
        if maker is not None and maker != weights.fingerprint(self.weights):
            raise WeightsError(
                f"{path} was made with a different network than {self.weights}: "
                "make it again with these weights"
            )
        return found.float().to(self.network.bottleneck.weight.device)

    def _check_encoder(self, knobs: Ghiasi.Knobs) -> None:
        from atelier.losses.pastiche import STYLE

        assert self.encoder is not None
        needed = self.network.get_parameter("predictor.hidden.weight").shape[1]
        given = 2 * sum(self.encoder.channels(tap) for tap in STYLE)
        if needed != given:
            raise WeightsError(
                f"{knobs.weights} needs an encoder with {needed} statistics, but "
                f"{knobs.encoder} has {given}: use the encoder that it was trained with"
            )


def save_vector(
    styles: Any,
    path: str | Path,
    *,
    style_weights: Sequence[float] = (),
    size: int = 512,
    **knobs: Any,
) -> None:
    """Write the vector of a style, or of a weighted mixture, for the knob `style_vector`.

    `styles` is a style as `stylize` takes it, or a list of styles. `size` is the long side of the style
    pictures, ideally equal to that of the results. `knobs` are the method's knobs (`weights`, ...). Raises
    what `stylize` raises.
    """
    from safetensors.torch import save_file

    from atelier.core.atomic import atomic
    from atelier.core.knobs import parse

    several = [images.Picture.of(one) for one in (styles if isinstance(styles, (list, tuple)) else [styles])]
    shares = list(style_weights) or [1.0] * len(several)
    if len(shares) != len(several) or min(shares) < 0 or sum(shares) <= 0:
        raise UsageError(
            f"style_weights must have one weight for each of the {len(several)} styles, none negative and at "
            "least one above 0"
        )
    network = StyleNetwork(parse(Ghiasi.Knobs, knobs), torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        seen = [one.resized(images.fit(one.shape, size)).tensor() for one in several]
        vector = network.style(seen, [share / sum(shares) for share in shares])
    facts = {"network": Ghiasi.name, "weights": weights.fingerprint(network.weights)}
    with atomic(Path(path)) as temporary:
        save_file({_TENSOR: vector.clone()}, temporary, metadata=facts)


def statistics(found: Mapping[str, Tensor], seen: Tensor | None = None) -> Tensor:
    """The input of `networks.conditional.Statistics`: means and deviations (B, 2 N) of features by tap.

    `seen` is the picture's alpha (1, 1, H, W): hidden pixels are ignored.
    """
    moments = [
        part.flatten(1)
        for tap in found.values()
        for part in maths.channel_moments(tap, weight=maths.weight_at(seen, (tap.shape[-2], tap.shape[-1])))
    ]
    return torch.cat(moments, 1).float()


def _tiled(seen: Tensor | None, side: int) -> Tensor | None:
    """An alpha enlarged in the same way as its picture."""
    return None if seen is None else _at_least(seen, side)


def _at_least(picture: Tensor, side: int) -> Tensor:
    """A picture (1, 3, H, W) of at least `side` pixels a side; smaller ones are tiled by mirroring."""
    for dim in (2, 3):
        length = picture.shape[dim]
        if length < side:
            turn = torch.arange(side, device=picture.device) % (2 * length)
            picture = picture.index_select(dim, torch.minimum(turn, 2 * length - 1 - turn))
    return picture


def _has_statistics(network: torch.nn.Module) -> bool:
    return any("predictor.hidden" in name for name, _ in network.named_parameters())


# The fingerprint is part of the cache key: changed weights under the same name are reloaded.


@kept
def _needs_encoder(name: str, fingerprint: str) -> bool:
    return "predictor.hidden.weight" in weights.load(name)


@kept
def _network(name: str, fingerprint: str, device: torch.device, dtype: torch.dtype) -> Arbitrary:
    from atelier.networks.conditional import load_arbitrary

    try:
        return load_arbitrary(weights.load(name)).prepare(device, dtype)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error


@kept
def _encoder(name: str, fingerprint: str, device: torch.device, dtype: torch.dtype) -> features.VGG:
    return features.load(name).prepare(device, dtype)
