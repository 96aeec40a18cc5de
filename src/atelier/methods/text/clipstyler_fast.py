"""CLIPstyler, fast variant: a decoder trained once for some words, which then paints any photo at once.

The features of the photo are decoded by AdaIN's decoder, trained on from there until CLIP sees the photos
become what the words say: as wholes, and in views in random perspective. Several texts are directions with
weights.

Differences from the published code: the decoder is the bundled one of AdaIN, which also receives relu3_1,
and so is the encoder; the learning rate keeps its first value, as over 200 steps the published one loses only
a hundredth. The published training: `--encoder vgg_normalised.adain --start adain.published --padding
reflect --content-layers relu4_2 --content-layers relu5_2 --content-encoder vgg19.imagenet --average 0`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from atelier import features
from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods import guided
from atelier.methods.base import Batch, Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.portable import Portable
from atelier.store import weights
from atelier.store.models import kept

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.features.clip import Tower
    from atelier.networks.decoder import Decoder

Padding = Literal["replicate", "reflect", "zeros"]


class ClipstylerFast(Method):
    """Paint photos with a decoder that CLIP has taught some words, at the speed of one network."""

    name = "clipstyler_fast"
    paper = Paper(
        "Kwon & Ye",
        2022,
        "CLIPstyler: Image Style Transfer with a Single Text Condition",
        "https://arxiv.org/abs/2112.00374",
    )
    takes = Takes(styles=frozenset(), least=0)
    data = "pictures"
    shared_knobs = ("encoder", "padding")

    class Knobs(AnyKnobs):
        """The networks."""

        weights: str = knob(
            "", "Decoder trained for some words with 'atelier train clipstyler-fast': a file.", file="weights"
        )
        encoder: str = knob(
            "encoder.atelier", "Encoder that the decoder was trained for: a name, or a file.", file="weights"
        )
        padding: Padding = knob("replicate", "Padding mode of the convolutions.")
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    class Training(AnyKnobs):
        """The words, the networks and the losses."""

        text: tuple[str, ...] = knob(..., "The style in words; repeat for several.")
        text_weights: tuple[float, ...] = knob((), "Weight of each text; equal by default.")
        source: str = knob(guided.PHOTO, "What the words depart from.")
        # In training, `clip` is the limit of the gradient.
        clip_model: str = knob("clip_vit_b32.openai", "CLIP: a name, a folder, or a file.", file="weights")
        encoder: str = knob(
            "encoder.atelier", "Encoder whose features are decoded: a name, or a file.", file="weights"
        )
        content_encoder: str = knob(
            "", "Encoder of the content loss; by default the encoder above.", file="weights"
        )
        content_layers: tuple[str, ...] = knob(("relu4_2", "relu5_1"), "Taps of the content loss.")
        padding: Padding = knob("replicate", "Padding mode of the convolutions.")
        start: str = knob("adain.atelier", "Decoder to start from: a name, or a file.", file="weights")
        patch_weight: float = knob(10.0, "Weight of the direction of the views.", ge=0)
        direction_weight: float = knob(1.0, "Weight of the direction of the whole picture.", ge=0)
        content_weight: float = knob(1.0, "Weight of the content's features.", ge=0)
        smoothness: float = knob(1e-4, "Weight of total variation, which suppresses grain.", ge=0)
        views: int = knob(16, "Views of each picture, in random perspective.", ge=1)
        distortion: float = knob(0.5, "Distortion of their perspective.", ge=0, le=0.9)
        threshold: float = knob(0.7, "Distance below which a view is left alone.", ge=0, le=2)
        views_at_once: int = knob(16, "Views encoded at once; fewer need less memory.", ge=1)
        steps: int = knob(200, "Training steps.", ge=1)
        batch: int = knob(4, "Pictures per step.", ge=1)
        crop: int = knob(224, "Side of the square crops in pixels.", ge=16, le=2048)
        learning_rate: float = knob(1e-4, "Learning rate between warm-up and cool-down.", gt=0)
        warmup: int = knob(0, "Steps over which the learning rate rises from zero.", ge=0)
        cooldown: float = knob(
            0.0, "Final fraction of the run, in which the learning rate falls.", ge=0, le=1
        )
        zoom: float = knob(0.5, "Smallest crop, as a fraction of a picture's short side.", gt=0, le=1)
        average: float = knob(0.9, "Decay of the running average of the weights.", ge=0, lt=1)
        evaluate_every: int = knob(100, "Steps between evaluations.", ge=1)

    def __init__(self) -> None:
        self._goals: dict[torch.device, Sequence[guided.Goal]] = {}

    def weights(self, knobs: ClipstylerFast.Knobs) -> Sequence[str]:
        return (knobs.encoder, _trained(knobs))

    # painting

    def prepare(self, styles: Styles, knobs: ClipstylerFast.Knobs, context: Context) -> Painter:
        dtype = context.dtype if knobs.half else torch.float32
        trained = _trained(knobs)
        files = tuple(weights.fingerprint(name) for name in (knobs.encoder, trained))
        encoder, decoder = _networks(knobs.encoder, trained, files, knobs.padding, context.device, dtype)

        @torch.inference_mode()
        def paint(frame: Frame) -> Result:
            picture = _decoded(encoder, decoder, frame.content).clamp(0, 1)
            frame.progress.report(1, 1, stage="decoding", preview=lambda: picture)
            return Result(picture)

        return paint

    def portable(self, styles: Styles, knobs: ClipstylerFast.Knobs, context: Context) -> Portable:
        trained = _trained(knobs)
        files = tuple(weights.fingerprint(name) for name in (knobs.encoder, trained))
        both = _networks(knobs.encoder, trained, files, knobs.padding, context.device, torch.float32)
        return Portable(both, lambda content: _decoded(*both, content).clamp(0, 1))

    # training

    def network(self, training: ClipstylerFast.Training) -> nn.Module:
        from atelier.networks.decoder import Decoder, DecoderPlan, check_fit, recognise

        encoder = guided.encoder_of(training.encoder, torch.device("cpu"), training.padding)
        plan = DecoderPlan.of(encoder.plan, 4)
        if training.start:
            plan = recognise(weights.load(training.start))
            check_fit(plan, encoder)
        return Decoder(plan, padding=training.padding)

    def start(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        from atelier.networks.decoder import from_state

        network.load_state_dict(from_state(state).state_dict())

    def losses(
        self, network: nn.Module, batch: Batch, training: ClipstylerFast.Training
    ) -> dict[str, Tensor]:
        from atelier.losses.smoothness import NeighbourNorm

        photos: Tensor = batch["pictures"]
        encoder = guided.encoder_of(training.encoder, photos.device, training.padding)
        picture = _decoded(encoder, network, photos)
        terms = self._guidance(picture, photos, batch.generator, training)
        terms["smoothness"] = training.smoothness * NeighbourNorm()(picture)
        if training.content_weight:
            terms["content"] = training.content_weight * _content(picture, photos, training)
        return terms

    def _guidance(
        self, pictures: Tensor, photos: Tensor, generator: torch.Generator, training: ClipstylerFast.Training
    ) -> dict[str, Tensor]:
        """The directional losses of the pictures (B, 3, H, W), as wholes and in views."""
        from atelier.features.views import perspective, random_corners, resized

        tower = guided.tower_of(training.clip_model, photos.device)
        sight = guided.Sight(threshold=training.threshold, batch=training.views_at_once)
        goals, size = self._texts(tower, training, photos.device), (photos.shape[-2], photos.shape[-1])
        whole, patch = [], []
        for picture, photo in zip(pictures[:, None], photos[:, None], strict=True):
            led = guided.guidance(tower, photo, goals, sight)
            ends = random_corners(training.views, size, generator, distortion=training.distortion)
            whole.append(led.of_whole(picture))
            patch.append(led.of_views(resized(perspective(picture, ends), tower.side)))
        return {
            "patches": training.patch_weight * torch.stack(patch).mean(),
            "direction": training.direction_weight * torch.stack(whole).mean(),
        }

    def _texts(
        self, tower: Tower, training: ClipstylerFast.Training, device: torch.device
    ) -> Sequence[guided.Goal]:
        """The texts as goals, read once for each device."""
        if device not in self._goals:
            shares = training.text_weights or (1.0,) * len(training.text)
            if len(shares) != len(training.text) or min(shares) < 0 or sum(shares) <= 0:
                raise UsageError("text_weights needs a number for each text, and one above 0")
            styles = Styles(texts=training.text, text_weights=[one / sum(shares) for one in shares])
            self._goals[device] = guided.text_goals(tower, styles, training.source)
        return self._goals[device]

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.decoder import Decoder, DecoderPlan

        with torch.random.fork_rng(devices=[]):
            network = Decoder(DecoderPlan.of(features.TINY, 4, skips=1, blocks=1))
        return {"weights": network.fill(0).state_dict()}


def _trained(knobs: ClipstylerFast.Knobs) -> str:
    """The name of the trained decoder. Raises UsageError where none is given."""
    if not knobs.weights:
        raise UsageError(
            "clipstyler_fast needs a decoder for some words: train one with `atelier train clipstyler-fast "
            "--text WORDS --pictures PHOTOS` and give it with --weights, or use clipstyler"
        )
    return knobs.weights


def _decoded(encoder: features.VGG, decoder: Any, photos: Tensor) -> Tensor:
    """The decoder's pictures (B, 3, H, W), not clamped, of the photos' size."""
    height, width = photos.shape[-2:]
    taps = decoder.plan.taps
    side = encoder.smallest_side(taps)
    more = (0, max(0, side - width), 0, max(0, side - height))
    whole = torch.nn.functional.pad(photos, more, mode="replicate") if any(more) else photos
    picture: Tensor = decoder(encoder(whole, taps))[..., :height, :width]
    return picture


def _content(picture: Tensor, photos: Tensor, training: ClipstylerFast.Training) -> Tensor:
    """The content loss: the sum over the taps of the mean squared difference."""
    from atelier.losses import ContentLoss

    name = training.content_encoder or training.encoder
    encoder = guided.encoder_of(name, photos.device, training.padding)
    with torch.no_grad():
        held = encoder(photos, training.content_layers)
    found = encoder(picture, training.content_layers)
    return torch.stack([ContentLoss(held[tap])(found[tap]) for tap in held]).sum()


@kept
def _networks(
    encoder: str, decoder: str, files: tuple[str, ...], padding: Padding, device: Any, dtype: Any
) -> tuple[features.VGG, Decoder]:
    """The encoder and the decoder trained for it; `files` is part of the cache's key."""
    from atelier.networks.decoder import check_fit, from_state

    with torch.inference_mode(False):  # they are kept, and a later caller may need gradients
        loaded = features.load(encoder, padding=padding)
        mirror = from_state(weights.load(decoder), padding=padding)
        check_fit(mirror.plan, loaded)
        return loaded.prepare(device, dtype), mirror.prepare(device, dtype)
