"""Johnson: a network that is trained for one style, and then paints any photo in it at once.

The network learns from photos and one style picture: the features of its picture stay near the photo's, and
their Gram matrices near the style's (Johnson, Alahi & Fei-Fei 2016, eqs. 2 to 4). Networks of PyTorch's
examples and of Engstrom's TensorFlow code load as they are.

Differences from the paper: instance normalisation in place of batch normalisation (Ulyanov et al. 2016), as
in both published forms; training losses are relative to their targets, because feature scales differ between
encoders; the style's weight rises during the training; the last layer starts near grey. The picture keeps its
size: the published networks round sides up to a multiple of 4; the rows and columns that this adds at the
bottom and right are cropped here. Hidden pixels of the photo are filled with the nearest visible colour and
are included in the instance normalisation.

The training of PyTorch's examples: `--widths 32 --widths 64 --widths 128 --encoder vgg16.imagenet --scale
published --content-weight 1e5 --style-weight 1e10 --style-warmup 0 --smoothness 0 --crop 256 --batch 4
--learning-rate 1e-3`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from atelier.core.errors import UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.feedforward.pastiche import PasticheTraining, Targets, weighted
from atelier.methods.portable import Portable
from atelier.store import weights
from atelier.store.models import kept

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.networks.johnson import Johnson as Network


class Johnson(Method):
    """Paint photos with a network that was trained for one style."""

    name = "johnson"
    paper = Paper(
        "Johnson, Alahi & Fei-Fei",
        2016,
        "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
        "https://arxiv.org/abs/1603.08155",
    )
    takes = Takes(styles=frozenset(), least=0)
    frames_at_once = True
    data = "one_style"

    class Knobs(AnyKnobs):
        """The network."""

        weights: str = knob(
            "",
            "Network of one style: a file of 'atelier train johnson', of PyTorch's examples, or of Engstrom.",
            file="weights",
        )
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    class Training(PasticheTraining):
        """The layout of the network, and the losses."""

        widths: tuple[int, int, int] = knob(
            (16, 32, 64), "Channels of the network at full, half and quarter size."
        )
        blocks: int = knob(5, "Residual blocks.", ge=1, le=32)
        content_layers: tuple[str, ...] = knob(("relu2_2",), "Taps of the content loss.")
        style_weight: float = knob(10.0, "Weight of the style's Gram matrices.", ge=0)
        style_warmup: int = knob(1500, "Steps over which the style's weight rises, from half of it.", ge=0)
        smoothness: float = knob(0.5, "Weight of total variation, which suppresses noise.", ge=0)

    def __init__(self) -> None:
        self._targets = Targets()

    def weights(self, knobs: Johnson.Knobs) -> Sequence[str]:
        return (_trained(knobs),)

    # painting

    def prepare(self, styles: Styles, knobs: Johnson.Knobs, context: Context) -> Painter:
        name = _trained(knobs)
        dtype = context.dtype if knobs.half else torch.float32
        network = _network(name, weights.fingerprint(name), context.device, dtype)

        @torch.inference_mode()
        def paint(frame: Frame) -> Result:
            picture = network(frame.content).clamp(0, 1)
            frame.progress.report(1, 1, stage="painting", preview=lambda: picture)
            return Result(picture)

        return paint

    def portable(self, styles: Styles, knobs: Johnson.Knobs, context: Context) -> Portable:
        name = _trained(knobs)
        network = _network(name, weights.fingerprint(name), context.device, torch.float32)
        return Portable([network], lambda content: network(content).clamp(0, 1))

    # training

    def network(self, training: Johnson.Training) -> nn.Module:
        from atelier.networks.johnson import Johnson as Network

        return Network(training.widths, training.blocks).near_grey()

    def start(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        from atelier.networks.johnson import from_published

        network.load_state_dict(from_published(state))

    def losses(self, network: nn.Module, batch: Batch, training: Johnson.Training) -> dict[str, Tensor]:
        photos = batch.photos
        criterion, grams = self._targets.of(
            batch["styles"], training, lambda: training.criterion(photos.device)
        )
        found = criterion(network(photos), photos, grams)
        # The full weight from the start loses the photo under hatching, and half of it paints pale pictures.
        rise = (batch.step + 1) / training.style_warmup if batch.step < training.style_warmup else 1.0
        style = training.style_weight * (1 + rise) / 2
        shares = (training.content_weight, style, training.smoothness)
        return weighted(found, criterion, shares, by_channel=grams)

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.johnson import Johnson as Network

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return {"weights": Network((8, 8, 16), 2).near_grey().state_dict()}


def _trained(knobs: Johnson.Knobs) -> str:
    """The name of the trained network. Raises UsageError where none is given."""
    if not knobs.weights:
        raise UsageError(
            "johnson needs a network of one style: train one with `atelier train johnson --style PAINTING "
            "--photos FOLDER` and give it with --weights"
        )
    return knobs.weights


# The fingerprint is part of the cache key: changed weights under the same name are reloaded.
@kept
def _network(name: str, fingerprint: str, device: torch.device, dtype: torch.dtype) -> Network:
    from atelier.networks.johnson import load_johnson

    try:
        with torch.inference_mode(False):  # it is kept, and a later caller may need gradients
            return load_johnson(weights.load(name)).prepare(device, dtype)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
