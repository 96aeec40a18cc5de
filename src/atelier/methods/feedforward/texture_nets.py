"""Texture Networks: a network turns noise into a texture, or noise and a photo into a picture, in one pass.

A network learns one texture from its sample, or with photos one style (Ulyanov et al. 2016). Textures have
any size and another look for each seed. The 2017 improvements are in: instance normalisation, and a diversity
term, without which a network paints the same whatever its noise is (Ulyanov et al. 2017).

Differences from the papers: losses are relative to their targets, because feature scales differ between
encoders. Sides are multiples of 2^(scales - 1) inside; the photo is continued to the right and bottom, and
what this adds is cropped. Textures tile if the size is such a multiple. A photo given to a texture network
sets the size alone.

The published training: `--encoder vgg19.imagenet --scale published --style-layers relu1_1 --style-layers
relu2_1 --style-layers relu3_1 --style-layers relu4_1 --style-layers relu5_1 --content-layers relu4_2
--smoothness 0 --norm batch --diversity 0`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from atelier.core.errors import TrainingError, UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.feedforward.pastiche import PasticheTraining, Targets, weighted
from atelier.methods.portable import CONTENT, Portable, noise
from atelier.store import weights
from atelier.store.models import kept

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.networks.texture_nets import TextureNet


class TextureNets(Method):
    """Make a texture of any size, or paint photos in one style, by a network that was trained for it."""

    name = "texture_nets"
    paper = Paper(
        "Ulyanov et al.",
        2016,
        "Texture Networks: Feed-forward Synthesis of Textures and Stylized Images",
        "https://arxiv.org/abs/1603.03417",
    )
    takes = Takes(content="optional", styles=frozenset(), least=0)
    data = "one_style"

    class Knobs(AnyKnobs):
        """The network."""

        weights: str = knob(
            "", "Network of one texture or style: a file of 'atelier train texture-nets'.", file="weights"
        )

    class Training(PasticheTraining):
        """The layout of the network, and the losses."""

        photos: tuple[str, ...] = knob(
            (), "Photos, for a style network; without them, the network learns a texture."
        )
        held_back: int = knob(0, "Photos that are held out for evaluation.", ge=0)
        scales: int = knob(5, "Scales of noise, each half as large as the one before.", ge=1, le=8)
        width: int = knob(8, "Channels of each scale.", ge=1, le=64)
        norm: Literal["affine", "plain", "batch"] = knob(
            "affine", "Normalisation: by instance, with or without learned parameters, or by batch."
        )
        crop: int = knob(256, "Side of the pictures in pixels.", ge=16, le=2048)
        diversity: float = knob(0.3, "Weight of the difference between the pictures of a batch.", ge=0)

    def __init__(self) -> None:
        self._targets = Targets()

    def weights(self, knobs: TextureNets.Knobs) -> Sequence[str]:
        return (_trained(knobs),)

    # painting

    def prepare(self, styles: Styles, knobs: TextureNets.Knobs, context: Context) -> Painter:
        name = _trained(knobs)
        network = _network(name, weights.fingerprint(name), context.device)

        @torch.inference_mode()
        def paint(frame: Frame) -> Result:
            picture = network.paint(frame.content, context.seed).clamp(0, 1)
            frame.progress.report(1, 1, stage="painting", preview=lambda: picture)
            return Result(picture)

        return paint

    def portable(self, styles: Styles, knobs: TextureNets.Knobs, context: Context) -> Portable:
        name = _trained(knobs)
        network = _network(name, weights.fingerprint(name), context.device)
        given = noise(network.channels)
        if network.plan.photo:
            paint = lambda content, drawn: network.painted(content, drawn).clamp(0, 1)  # noqa: E731
            return Portable([network], paint, (CONTENT, given), smallest=network.smallest)
        return Portable(
            [network],
            lambda drawn: network.painted(drawn[:, :3], drawn).clamp(0, 1),
            (given,),
            smallest=network.smallest,
        )

    # training

    def network(self, training: TextureNets.Training) -> nn.Module:
        from atelier.networks.texture_nets import Plan, TextureNet

        network = TextureNet(Plan(training.scales, training.width, bool(training.photos), training.norm))
        if training.crop % network.step or training.crop < network.smallest:
            raise TrainingError(
                f"crop = {training.crop} does not fit {training.scales} scales: use a multiple of "
                f"{network.step}, {network.smallest} at least"
            )
        return network

    def start(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        network.load_state_dict(dict(state))

    def losses(self, network: TextureNet, batch: Batch, training: TextureNets.Training) -> dict[str, Tensor]:
        from atelier.losses.diversity import diversity
        from atelier.networks.texture_nets import noise

        photos = batch.photos if training.photos else None
        style = batch["styles"][0]
        criterion, grams = self._targets.of(
            batch["styles"], training, lambda: training.criterion(style.device)
        )
        drawn = noise(training.scales, (training.crop,) * 2, batch.whole, batch.generator)
        made = network([batch.rows(one).to(style.device) for one in drawn], photos)
        found = criterion(made, made.detach() if photos is None else photos, grams)
        content = training.content_weight if photos is not None else 0.0
        shares = (content, training.style_weight, training.smoothness)
        terms = weighted(found, criterion, shares, by_channel=grams)
        terms["overshoot"] = 5 * (made - made.clamp(0, 1)).square().mean()
        if training.diversity:
            terms["diversity"] = training.diversity * diversity(made)
        return terms if photos is not None else {name: terms[name] for name in terms if name != "content"}

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.texture_nets import Plan, TextureNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return {"weights": TextureNet(Plan(3, 4, photo=True)).state_dict()}


def _trained(knobs: TextureNets.Knobs) -> str:
    """The name of the trained network. Raises UsageError where none is given."""
    if not knobs.weights:
        raise UsageError(
            "texture_nets needs a network of one texture or style: train one with `atelier train "
            "texture-nets --style SAMPLE` and give it with --weights"
        )
    return knobs.weights


# The fingerprint is part of the cache key: changed weights under the same name are reloaded.
@kept
def _network(name: str, fingerprint: str, device: torch.device) -> TextureNet:
    from atelier.networks.texture_nets import load_texture_net

    try:
        with torch.inference_mode(False):  # it is kept, and a later caller may need gradients
            return load_texture_net(weights.load(name)).prepare(device)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
