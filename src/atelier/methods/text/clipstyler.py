"""CLIPstyler: train a small network on one photo until CLIP sees the photo become what the words say.

The network's picture should differ from the photo in the direction in which the words differ from "a Photo",
as a whole and in random patches seen in perspective, while an encoder's features hold the content. Several
texts and style pictures are directions with weights: a picture's leads from the photo to it.

Differences from the published code: the photo keeps its proportions and gets no 512-pixel square, so a patch
is a quarter of the longer side; by default the content is held by the bundled encoder's features in place of
VGG-19's, in its taps nearest to the published ones, relative to their magnitude; CLIP runs in bfloat16 where
the device does, as the published code runs it in half precision on a GPU. `--quality published` undoes the
last two. Style pictures are an addition; none of their patches is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from atelier.core.errors import ResourceError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import padded
from atelier.methods import guided
from atelier.methods.base import Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.prepared import style_job
from atelier.methods.visible import visible_part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.features.vgg import VGG
    from atelier.features.views import Patches
    from atelier.losses.guidance import Guidance

#: The iterations after which the learning rate is halved.
_HALVED = 100


class Clipstyler(Method):
    """Train a small network on one photo until CLIP sees it become what the words say."""

    name = "clipstyler"
    paper = Paper(
        "Kwon & Ye",
        2022,
        "CLIPstyler: Image Style Transfer with a Single Text Condition",
        "https://arxiv.org/abs/2112.00374",
    )
    native = frozenset({"styles"})
    takes = Takes(styles=frozenset({"text", "picture"}))
    extra = "text"
    packages = ("transformers",)

    class Knobs(AnyKnobs):
        """The networks, the losses and the training."""

        clip: str = knob(
            "clip_vit_b32.openai",
            "CLIP: a name from 'atelier weights list', a folder, or a file.",
            file="weights",
        )
        encoder: str = knob(
            "encoder.atelier", "Encoder of the content loss: a name, or a file.", file="weights"
        )
        content_layers: tuple[str, ...] = knob(("relu4_2", "relu5_1"), "Taps of the content loss.")
        patch_weight: float = knob(9000.0, "Weight of the direction of the patches.", ge=0)
        direction_weight: float = knob(500.0, "Weight of the direction of the whole picture.", ge=0)
        content_weight: float = knob(400.0, "Weight of the content's features.", ge=0)
        scale: Literal["relative", "published"] = knob(
            "relative", "Scale of the content loss: relative to the content's features, or as published."
        )
        smoothness: float = knob(0.002, "Weight of total variation, which suppresses grain.", ge=0)
        source: str = knob(guided.PHOTO, "What the words depart from.")
        patches: int = knob(64, "Patches at each iteration.", ge=1)
        patch_size: float = knob(0.25, "Side of a patch relative to the longer side.", gt=0, le=1)
        distortion: float = knob(0.5, "Distortion of the patches' perspective.", ge=0, le=0.9)
        threshold: float = knob(0.7, "Distance to words below which a patch is left alone.", ge=0, le=2)
        iterations: int = knob(201, "Training steps.", ge=1)
        learning_rate: float = knob(5e-4, "Learning rate, halved every 100 steps.", gt=0)
        contrast: float = knob(1.5, "Contrast of the finished picture; 1 keeps that of the network.", ge=0)
        stretch: bool = knob(True, "Stretch the finished picture to the full range, from black to white.")
        batch: int = knob(16, "Patches encoded at once; fewer need less memory.", ge=1)
        half: bool = knob(True, "Run CLIP and the encoder in bfloat16 if the device supports it natively.")

        def sight(self) -> guided.Sight:
            """How the patches are seen."""
            return guided.Sight(self.patches, self.patch_size, self.distortion, self.threshold, self.batch)

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 60, "patches": 16, "learning_rate": 1e-3},
        "good": {},
        "best": {},
        "published": {
            "encoder": "vgg19.imagenet",
            "content_layers": ("relu4_2", "relu5_2"),
            "content_weight": 150.0,
            "scale": "published",
            "half": False,
        },
    }
    sizes = {"draft": 384, "good": 512, "best": 768, "published": 512}  # noqa: RUF012

    def weights(self, knobs: Clipstyler.Knobs) -> Sequence[str]:
        return (knobs.clip, knobs.encoder)

    def prepare(self, styles: Styles, knobs: Clipstyler.Knobs, context: Context) -> Painter:
        dtype = context.dtype if knobs.half else torch.float32
        # Tensors created in a caller's inference mode do not support autograd.
        with torch.inference_mode(False), torch.no_grad():
            tower = guided.tower_of(knobs.clip, context.device, dtype)
            encoder = guided.encoder_of(knobs.encoder, context.device, dtype=dtype)
            goals = guided.text_goals(tower, styles, knobs.source)
            job = style_job(styles, context)
            shown = [visible_part(job, index).clone() for index in range(len(styles.pictures))]
            large = [padded(one, guided.SMALLEST) for one in shown]
            goals += guided.picture_goals(tower, large, styles.weights, knobs.sight(), context.seed)

        from atelier.networks.clipstyler import MULTIPLE

        @torch.inference_mode(False)
        def paint(frame: Frame) -> Result:
            height, width = frame.content.shape[-2:]
            content = padded(frame.content.clone(), 2 * MULTIPLE, MULTIPLE)
            led = guided.guidance(tower, content, goals, knobs.sight())
            objective = Objective(knobs, led, encoder, content, context.seed)
            picture = trained(style_network(context.seed, context.device), content, objective, knobs, frame)
            return Result(finished(picture, knobs)[..., :height, :width])

        return paint


class Objective:
    """The losses of a picture (1, 3, H, W), with random patches at each call."""

    def __init__(
        self, knobs: Clipstyler.Knobs, guidance: Guidance, encoder: VGG, content: Tensor, seed: int
    ) -> None:
        from atelier.losses import ContentLoss

        self.knobs, self.guidance, self.encoder = knobs, guidance, encoder
        self.generator = torch.Generator().manual_seed(seed)
        self.kept = {}
        if knobs.content_weight:
            with torch.no_grad():
                found = encoder(content, knobs.content_layers)
            relative = knobs.scale == "relative"
            self.kept = {tap: ContentLoss(features, relative=relative) for tap, features in found.items()}

    def __call__(self, picture: Tensor) -> dict[str, Tensor]:
        return self.terms(picture, self.knobs.sight().patches(picture, self.generator))

    def terms(self, picture: Tensor, patches: Patches) -> dict[str, Tensor]:
        """The weighted terms by name, for these patches."""
        from atelier.losses.smoothness import NeighbourNorm

        knobs = self.knobs
        terms = {
            "patches": knobs.patch_weight * self.guidance.of_patches(picture, patches),
            "direction": knobs.direction_weight * self.guidance.of_whole(picture),
            "smoothness": knobs.smoothness * NeighbourNorm()(picture),
        }
        if self.kept:
            found = self.encoder(picture, list(self.kept))
            apart = torch.stack([loss(found[tap]) for tap, loss in self.kept.items()])
            terms["content"] = knobs.content_weight * apart.sum()
        return terms


def style_network(seed: int, device: torch.device) -> nn.Module:
    """The network with random weights from the seed."""
    from atelier.networks.clipstyler import StyleUNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StyleUNet().to(device)


def rates(knobs: Clipstyler.Knobs) -> Iterator[float]:
    """The learning rate of each iteration; it is first halved at iteration 99, as the published code does."""
    for iteration in range(knobs.iterations):
        yield knobs.learning_rate * 0.5 ** ((iteration + 1) // _HALVED)


def trained(
    network: nn.Module,
    content: Tensor,
    objective: Callable[[Tensor], Mapping[str, Tensor]],
    knobs: Clipstyler.Knobs,
    frame: Frame,
) -> Tensor:
    """The network's last picture of the content (1, 3, H, W).

    The last, because with random patches the lowest loss is only a lucky draw. Where the losses are no longer
    finite, training ends with the picture before. Raises ResourceError if they never are.
    """
    optimiser, picture = torch.optim.Adam(network.parameters()), content
    for iteration, rate in enumerate(rates(knobs), 1):
        optimiser.param_groups[0]["lr"] = rate
        with torch.enable_grad():
            made = network(content)
            shown = made.detach().requires_grad_()
            terms = objective(shown)
            total = torch.stack(list(terms.values())).sum()
            (slope,) = torch.autograd.grad(total, shown)
        if not bool(torch.isfinite(total) & torch.isfinite(slope).all()):
            if iteration == 1:
                raise ResourceError(_not_finite(terms))
            break
        picture = shown.detach()
        if not _report(frame, iteration, terms, picture, knobs):
            break
        optimiser.zero_grad()
        made.backward(slope)
        optimiser.step()
    return picture


def _not_finite(terms: Mapping[str, Tensor]) -> str:
    wrong = [name for name, term in terms.items() if not bool(torch.isfinite(term))]
    return (
        f"the loss of the {wrong[0] if wrong else 'picture'} is not finite from the start: check the "
        "weights, or compute in full precision with half = False"
    )


def _report(
    frame: Frame, iteration: int, terms: Mapping[str, Tensor], picture: Tensor, knobs: Clipstyler.Knobs
) -> bool:
    height, width = frame.content.shape[-2:]
    losses = {name: float(term.detach()) for name, term in terms.items()}
    return frame.progress.report(
        iteration,
        knobs.iterations,
        stage="training",
        losses=losses,
        preview=lambda: finished(picture, knobs)[..., :height, :width],
    )


def finished(picture: Tensor, knobs: Clipstyler.Knobs) -> Tensor:
    """The network's picture (1, 3, H, W) with its contrast raised and its range stretched, in 0..1."""
    picture = contrasted(picture.clamp(0, 1), knobs.contrast)
    return stretched(picture) if knobs.stretch else picture


def contrasted(picture: Tensor, factor: float) -> Tensor:
    """A picture (1, 3, H, W) blended with its mean grey; a factor above 1 leads away from it. Clamped."""
    grey = (picture * picture.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1).mean()
    return torch.lerp(grey.expand_as(picture), picture, factor).clamp(0, 1)


def stretched(picture: Tensor) -> Tensor:
    """A picture whose lowest value becomes 0 and whose highest becomes 1."""
    low, high = picture.aminmax()
    return (picture - low) / (high - low + 1e-5)
