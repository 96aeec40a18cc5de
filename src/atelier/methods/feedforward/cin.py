"""CIN: one network trained on several styles, with a row of shifts and scales for each, and mixtures of them.

Each instance normalisation of a transformer network has a shift and a scale per style; all other weights are
shared (Dumoulin et al. 2017). `style_name` chooses trained styles, and `shares` mixes them. Without names, a
style picture selects the trained style most similar to it in colours and grain; several pictures mix their
styles. The published networks store neither names nor what their style pictures look like, so they need
`numbers`. With names or numbers **the style picture is ignored**; with nothing at all, the first style is
used.

The styles of the bundled network are `blue-horses`, `composition-viii`, `etching`, `goldfish`,
`grande-jatte`, `great-wave`, `impression-sunrise`, `mont-sainte-victoire`, `mosaic`, `phlox`, `scream`,
`senecio`, `stained-glass`, `starry-night`, `the-kiss` and `water-lilies`.

Differences from the paper: training losses are relative to their targets, because feature scales differ
between encoders, and include a small total variation term against grain; the shifts and scales have a
learning rate of their own (`style_rate`). The transformer is narrower by default. The picture keeps its size:
the published network rounds sides up to a multiple of 4; the rows and columns that this adds at the bottom
and right are cropped here. Hidden pixels of the photo are filled with the nearest visible colour and are
included in the instance normalisation.

The paper's training: `--widths 32 --widths 64 --widths 128 --encoder vgg16.slim --pooling average --scale
published --style-weight 1e-4 --smoothness 0 --style-rate 1 --crop 256 --batch 16`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from atelier import features, images
from atelier.core.errors import UsageError, WeightsError, did_you_mean
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.methods.base import Batch, Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.feedforward.pastiche import Targets, weighted
from atelier.methods.portable import CONTENT, Input, Portable
from atelier.methods.trainable import DataInfo
from atelier.store import checkpoints, weights
from atelier.store.models import kept
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.losses.pastiche import Pastiche as Losses
    from atelier.networks.conditional import Pastiche

_TRAITS = 9
_LOOK_SIDE = 96
_PAPER = "Dumoulin et al. 2017, A Learned Representation for Artistic Style, arXiv:1610.07629"
_FOLDER = "https://storage.googleapis.com/download.magenta.tensorflow.org/models/"


def _converted(state: checkpoints.State) -> checkpoints.State:
    from atelier.networks.conditional import load_pastiche, pastiche_from_tensorflow

    load_pastiche(state)  # raises an error that names anything missing
    return pastiche_from_tensorflow(state)


checkpoints.register_converter("cin", _converted)
register(
    Record(
        name="cin.atelier",
        file="cin.safetensors",
        licence="Apache-2.0; its training photos are for research",
        paper=_PAPER,
        bundled="cin.safetensors",
        note="Bundled with the package: 16 styles by name, smaller than published; `atelier train cin`.",
    )
)
for _tag, _what in (("varied", "32 styles of many painters."), ("monet", "Ten paintings by Monet.")):
    register(
        Record(
            name=f"cin.{_tag}",
            file=f"multistyle-pastiche-generator-{_tag}.ckpt",
            sources=(f"{_FOLDER}multistyle-pastiche-generator-{_tag}.ckpt",),
            licence="Apache-2.0 (magenta/magenta)",
            paper=_PAPER,
            converter="cin",
            note=_what,
        )
    )


class Cin(Method):
    """Paint in a trained style that is chosen by name or by a similar picture, or in a mixture of several."""

    name = "cin"
    paper = Paper(
        "Dumoulin, Shlens & Kudlur",
        2017,
        "A Learned Representation for Artistic Style",
        "https://arxiv.org/abs/1610.07629",
    )
    takes = Takes(least=0)
    frames_at_once = True
    native = frozenset({"styles"})
    data = "styles"

    class Knobs(AnyKnobs):
        """Settings of the transfer."""

        weights: str = knob(
            "cin.atelier", "Network: a name from 'atelier weights list', or a file.", file="weights"
        )
        style_name: tuple[str, ...] = knob(
            (), "Styles of the network by name; several are mixed; if none, the picture selects."
        )
        numbers: tuple[int, ...] = knob((), "Styles of the network by number, from 0, instead of names.")
        shares: tuple[float, ...] = knob((), "Share of each of these styles; equal by default.")
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    class Training(AnyKnobs):
        """The layout of the network, and the losses."""

        encoder: str = knob("encoder.atelier", "Encoder of the losses: a name, or a file.", file="weights")
        pooling: Literal["max", "average"] = knob("max", "Pooling of the encoder.")
        widths: tuple[int, int, int] = knob(
            (24, 48, 96), "Channels of the transformer at full, half and quarter size."
        )
        blocks: int = knob(5, "Residual blocks.", ge=1, le=32)
        weights: str = knob(
            "", "Weights whose transformer is reused for the new styles; empty for a new one.", file="weights"
        )
        scale: Literal["relative", "published"] = knob(
            "relative", "Scale of the losses: relative to their targets, or as in the paper."
        )
        content_weight: float = knob(1.0, "Weight of the content's features.", ge=0)
        style_weight: float = knob(5.0, "Weight of the style's Gram matrices.", ge=0)
        smoothness: float = knob(1.0, "Weight of total variation, which suppresses noise.", ge=0)
        style_rate: float = knob(
            10.0, "Learning rate of the styles' own shifts and scales, over that of the other weights.", gt=0
        )

    def __init__(self) -> None:
        self._targets = Targets()

    def weights(self, knobs: Cin.Knobs) -> Sequence[str]:
        return (knobs.weights,)

    def named(self, knobs: Cin.Knobs) -> Mapping[str, Sequence[str]]:
        device = torch.device("cpu")
        network = _network(knobs.weights, weights.fingerprint(knobs.weights), device, torch.float32)
        return {"style_name": network.names}

    # the transfer

    def prepare(self, styles: Styles, knobs: Cin.Knobs, context: Context) -> Painter:
        dtype = context.dtype if knobs.half else torch.float32
        network = _network(knobs.weights, weights.fingerprint(knobs.weights), context.device, dtype)
        shares = _shares(styles, knobs, network).to(context.device)

        @torch.inference_mode()
        def paint(frame: Frame) -> Result:
            picture: Tensor = network(frame.content, shares)
            frame.progress.report(1, 1, stage="painting", preview=lambda: picture)
            return Result(picture)

        return paint

    def portable(self, styles: Styles, knobs: Cin.Knobs, context: Context) -> Portable:
        network = _network(knobs.weights, weights.fingerprint(knobs.weights), context.device, torch.float32)
        if styles.pictures or knobs.style_name or knobs.numbers:
            shares = _shares(styles, knobs, network)
            return Portable([network], lambda content: network(content, shares))
        labels = network.names or tuple(f"style {number}" for number in range(network.styles))
        says = "the weight of each trained style; they sum to 1"
        return Portable(
            [network], network, (CONTENT, Input("shares", says, "shares", network.styles, labels=labels))
        )

    # the training

    def networks(self, training: Any, data: DataInfo) -> dict[str, torch.nn.Module]:
        from atelier.networks.conditional import Pastiche, load_pastiche

        looks = torch.stack([look_of(picture) for picture in data.styles])
        if training.weights:
            network = load_pastiche(weights.load(training.weights))
        else:
            network = Pastiche(len(looks), training.widths, training.blocks)
        network.learn(looks, data.style_names)
        return {"network": network}

    def start(self, network: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
        own = {name: network.get_buffer(name) for name in ("looks", "labels")}  # those of this run's pictures
        network.load_state_dict(dict(state) | own)

    def optimisers(
        self, networks: Mapping[str, torch.nn.Module], training: Any
    ) -> dict[str, torch.optim.Optimizer]:
        own = [networks["network"].get_parameter(name) for name in ("shift", "scale")]
        shared = list(networks["network"].get_submodule("transformer").parameters())
        # A style's own numbers learn only from the few pictures of a batch that have this style.
        groups = [
            {"params": shared, "lr": training.learning_rate},
            {"params": own, "lr": training.style_rate * training.learning_rate},
        ]
        return {"network": torch.optim.Adam(groups, betas=(0.9, 0.99))}

    def losses(self, network: torch.nn.Module, batch: Batch, training: Cin.Training) -> dict[str, Tensor]:
        criterion, grams = self._targets.of(
            batch["styles"], training, lambda: _criterion(training, batch.photos.device)
        )
        styles = len(batch["styles"])
        chosen = batch.rows(torch.randint(styles, (batch.whole,), generator=batch.generator))
        chosen = chosen.to(batch.photos.device)
        shares = torch.nn.functional.one_hot(chosen, styles).to(batch.photos.dtype)
        target = {tap: gram[chosen] for tap, gram in grams.items()}
        found = criterion(network(batch.photos, shares), batch.photos, target)
        return weighted(
            found, criterion, (training.content_weight, training.style_weight, training.smoothness)
        )

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.conditional import Pastiche

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = Pastiche(3, (8, 8, 16), 2)
            looks = 0.25 + 0.1 * torch.arange(3.0)[:, None].expand(3, _TRAITS)
            network.learn(looks, ("dawn", "noon", "dusk"))
            torch.nn.init.normal_(network.shift)
            return {"weights": network.state_dict()}


def look_of(picture: Tensor) -> Tensor:
    """A descriptor (9,) of a picture (1, 3, H, W) of any size: colour means, deviations, and grain."""
    height, width = picture.shape[-2:]
    small = resize(picture, images.fit((height, width), _LOOK_SIDE))
    grain = []
    for step in (2, 4, 8):
        coarse = resize(small, images.fit((height, width), _LOOK_SIDE // step))
        back = resize(coarse, (small.shape[-2], small.shape[-1]))
        grain.append((small - back).square().mean().sqrt())
    pixels = small.flatten(2)[0]
    return torch.cat([pixels.mean(1), pixels.std(1, correction=0), torch.stack(grain)])


def _criterion(training: Cin.Training, device: torch.device) -> Losses:
    from atelier.losses.pastiche import Pastiche

    encoder = features.load(training.encoder, pooling=training.pooling).prepare(device)
    return Pastiche(encoder, relative=training.scale == "relative")


def _shares(styles: Styles, knobs: Cin.Knobs, network: Pastiche) -> Tensor:
    """The shares (1, styles) of the trained styles, by what was named, else by the pictures."""
    if knobs.style_name or knobs.numbers or not styles.pictures:
        return _chosen(knobs, network)
    return _by_look(styles, knobs, network)


def _by_look(styles: Styles, knobs: Cin.Knobs, network: Pastiche) -> Tensor:
    """The shares (1, styles) of the trained styles most similar to the pictures, mixed by weight."""
    if knobs.shares:
        raise UsageError(
            "shares need names or numbers: give those too, or give style weights for the pictures"
        )
    if network.looks.shape[1] != _TRAITS:
        raise UsageError(
            f"{knobs.weights} does not store what its styles look like: choose by number, for example "
            f"--numbers 0 (valid numbers are 0 to {network.styles - 1})"
        )
    found = [network.nearest(look_of(style)) for style in styles.pictures]
    return torch.stack([share * one for share, one in zip(styles.weights, found, strict=True)]).sum(0)


def _chosen(knobs: Cin.Knobs, network: Pastiche) -> Tensor:
    """The shares (1, styles) of the styles chosen by name or number, normalised to sum to 1."""
    numbers = _numbers(knobs, network)
    shares = knobs.shares or (1.0,) * len(numbers)
    if len(shares) != len(numbers):
        raise UsageError(f"{len(shares)} shares were given for {len(numbers)} styles: give one each, or none")
    if min(shares) < 0 or sum(shares) <= 0:
        raise UsageError("shares must not be negative, and at least one must be above 0")
    row = torch.zeros(1, network.styles)
    for number, share in zip(numbers, shares, strict=True):
        row[0, number] += share / sum(shares)
    return row


def _numbers(knobs: Cin.Knobs, network: Pastiche) -> Sequence[int]:
    """The numbers of the chosen styles. Raises UsageError if the network has no such style."""
    if knobs.style_name and knobs.numbers:
        raise UsageError("styles were given by name and by number: use one of the two")
    if knobs.style_name and not network.names:
        raise UsageError(f"{knobs.weights} does not store the names of its styles: give --numbers")
    if unknown := [name for name in knobs.style_name if name not in network.names]:
        raise UsageError(
            f"{knobs.weights} has no style '{unknown[0]}': {did_you_mean(unknown[0], network.names)}"
        )
    if wrong := [number for number in knobs.numbers if not 0 <= number < network.styles]:
        raise UsageError(f"{knobs.weights} has no style number {wrong[0]}: use 0 to {network.styles - 1}")
    return knobs.numbers or [network.names.index(name) for name in knobs.style_name] or [0]


# The fingerprint is part of the cache key: changed weights under the same name are reloaded.
@kept
def _network(name: str, fingerprint: str, device: torch.device, dtype: torch.dtype) -> Pastiche:
    from atelier.networks.conditional import load_pastiche

    try:
        return load_pastiche(weights.load(name)).prepare(device, dtype)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
