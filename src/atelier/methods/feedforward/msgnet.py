"""MSG-Net: one network for many styles, each known by the Gram matrix of its picture.

The CoMatch layer moves the photo's features by the Gram matrix of the style's features (Zhang & Dana 2017,
eq. 8). The network is trained with a set of styles; it takes other pictures as well, which come out the
better the more they resemble the trained ones. The size of the style picture sets the size of the strokes
(`--style-scale`). Several styles blend their Gram matrices.

Differences from the paper: training losses are relative to their targets, because feature scales differ
between encoders, and include a small total variation term against grain; the last layer starts near grey. The
picture keeps its size: the published network rounds sides up to a multiple of 4; the rows and columns that
this adds at the bottom and right are cropped here. Hidden pixels of the photo are filled with the nearest
visible colour and are included in the instance normalisation.

The published training: `--width 128 --stem 64 --encoder vgg16.imagenet --scale published --content-layers
relu2_2 --content-weight 1 --style-weight 5 --smoothness 0 --crop 256 --batch 4 --style-side 512
--learning-rate 1e-3`. Its VGG-16 is the one of Caffe, whose scale differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from atelier.core.errors import WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Context, Frame, Job, Method, Painter, Paper, Result, Styles
from atelier.methods.feedforward.pastiche import PasticheTraining, Targets, weighted
from atelier.methods.portable import CONTENT, STYLE_PICTURE, Portable
from atelier.methods.visible import key_parts
from atelier.store import cache, checkpoints, weights
from atelier.store.models import kept
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.networks.msgnet import MSGNet


def _converted(state: checkpoints.State) -> checkpoints.State:
    from atelier.networks.msgnet import from_published, load_msgnet

    load_msgnet(state)  # raises an error that names anything missing
    return from_published(state)


checkpoints.register_converter("msgnet", _converted)
register(
    Record(
        name="msgnet.published",
        file="21styles.model",
        sources=("https://www.dropbox.com/s/2iz8orqqubrfrpo/21styles.model?dl=1",),
        licence="MIT (PyTorch-Multi-Style-Transfer)",
        paper="Zhang & Dana 2017, Multi-style Generative Network for Real-time Transfer, arXiv:1703.06953",
        converter="msgnet",
        note="21 styles.",
    )
)


class MsgNet(Method):
    """Paint with one network for many styles, by the Gram matrix of the style picture's features."""

    name = "msgnet"
    paper = Paper(
        "Zhang & Dana",
        2017,
        "Multi-style Generative Network for Real-time Transfer",
        "https://arxiv.org/abs/1703.06953",
    )
    frames_at_once = True
    native = frozenset({"styles"})
    data = "styles"

    class Knobs(AnyKnobs):
        """The network."""

        weights: str = knob(
            "msgnet.published", "Network: a name from 'atelier weights list', or a file.", file="weights"
        )
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    class Training(PasticheTraining):
        """The layout of the network, and the losses."""

        width: int = knob(32, "Channels of the 3x3 convolutions at a quarter of the size.", ge=1, le=512)
        blocks: int = knob(6, "Residual blocks.", ge=1, le=32)
        stem: int = knob(32, "Channels at full size, a multiple of 4.", ge=4, le=256)

    def __init__(self) -> None:
        self._targets = Targets()

    def weights(self, knobs: MsgNet.Knobs) -> Sequence[str]:
        return (knobs.weights,)

    # the transfer

    def prepare(self, styles: Styles, knobs: MsgNet.Knobs, context: Context) -> Painter:
        network, target = _look(styles, knobs, context)

        @torch.inference_mode()
        def paint(frame: Frame) -> Result:
            picture = network(frame.content, target).clamp(0, 1)
            frame.progress.report(1, 1, stage="painting", preview=lambda: picture)
            return Result(picture)

        return paint

    def look(self, job: Job, knobs: MsgNet.Knobs) -> None:
        _look(job.looks, knobs, job.context)

    def portable(self, styles: Styles, knobs: MsgNet.Knobs, context: Context) -> Portable:
        if styles.pictures:
            network, target = _look(styles, knobs, context)
            return Portable([network], lambda content: network(content, target).clamp(0, 1))
        fingerprint = weights.fingerprint(knobs.weights)
        both = _network(knobs.weights, fingerprint, context.device, torch.float32)
        return Portable(
            [both],
            lambda content, style: both(content, both.target(style)).clamp(0, 1),
            (CONTENT, STYLE_PICTURE),
        )

    # the training

    def network(self, training: MsgNet.Training) -> nn.Module:
        from atelier.networks.msgnet import MSGNet

        return MSGNet(training.width, training.blocks, training.stem).near_grey()

    def start(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        from atelier.networks.msgnet import from_published

        network.load_state_dict(from_published(state))

    def losses(self, network: Any, batch: Batch, training: MsgNet.Training) -> dict[str, Tensor]:
        """One style for the whole batch, drawn for each step."""
        photos, styles = batch.photos, batch["styles"]
        criterion, grams = self._targets.of(styles, training, lambda: training.criterion(photos.device))
        chosen = int(torch.randint(len(styles), (1,), generator=batch.generator))
        painted = network(photos, network.target(styles[chosen]))
        found = criterion(painted, photos, {tap: gram[chosen : chosen + 1] for tap, gram in grams.items()})
        shares = (training.content_weight, training.style_weight, training.smoothness)
        return weighted(found, criterion, shares, by_channel=grams)

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.msgnet import MSGNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return {"weights": MSGNet(4, 2, 8).near_grey().state_dict()}


def _look(styles: Styles, knobs: MsgNet.Knobs, context: Context) -> tuple[MSGNet, Tensor]:
    """The network, ready, and the weighted sum (1, C, C) of the styles' Gram matrices."""
    dtype = context.dtype if knobs.half else torch.float32
    fingerprint = weights.fingerprint(knobs.weights)
    network = _network(knobs.weights, fingerprint, context.device, dtype)
    channels = network.match.weight.shape[-1]
    layout = {"gram": (1, channels, channels)}
    seen = styles.seen or [None] * len(styles.pictures)
    found = []
    with torch.inference_mode():
        for share, style, alpha in zip(styles.weights, styles.pictures, seen, strict=True):
            key = cache.key("msgnet", fingerprint, str(dtype), *key_parts(style, alpha))
            kept = cache.remember(key, partial(_gram, network, style, alpha), layout)
            found.append(share * kept["gram"].to(context.device))
        return network, torch.stack(found).sum(0)


def _gram(network: MSGNet, style: Tensor, seen: Tensor | None) -> dict[str, Tensor]:
    return {"gram": network.target(style, seen)}


# The fingerprint is part of the cache key: changed weights under the same name are reloaded.
@kept
def _network(name: str, fingerprint: str, device: torch.device, dtype: torch.dtype) -> MSGNet:
    from atelier.networks.msgnet import load_msgnet

    try:
        with torch.inference_mode(False):  # it is kept, and a later caller may need gradients
            return load_msgnet(weights.load(name)).prepare(device, dtype)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
