"""MGAN: a network that learns from slow paintings of your photos to paint in one style at once.

Some photos are first painted by `mrf`, which matches patches of the style. Then a generator learns to decode
the features of a photo (relu4_1) into its painting, against a critic that judges patches of features
(relu3_1) with a hinge (Li & Wand 2016, "Precomputed Real-Time Texture Synthesis", section 4, and the authors'
code).

Differences from the paper: the paintings are those of our `mrf`, whose patches are matched, where the authors
train a critic for each picture (MDAN). The networks are half as wide by default, and the encoder is the
bundled one. The learning rate is a tenth, and falls to zero. Crops of all sizes replace the authors' fixed
patches at several scales and rotations.

The paper's training: `--width 64 --encoder vgg19.imagenet --crop 128 --batch 64 --learning-rate 0.02
--painter published`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from atelier import features
from atelier.core.errors import TrainingError, UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob, parse
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Context, Frame, Job, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.optimise.mrf import MRF
from atelier.methods.portable import Portable
from atelier.methods.trainable import DataInfo, Update
from atelier.store import weights
from atelier.store.models import kept

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.networks.mgan import Generator

#: What the generator decodes, and what the critic judges.
DECODED, JUDGED = "relu4_1", "relu3_1"


class MGan(Method):
    """Paint photos with a network that learnt one style from slow paintings of photos."""

    name = "mgan"
    paper = Paper(
        "Li & Wand",
        2016,
        "Precomputed Real-Time Texture Synthesis with Markovian Generative Adversarial Networks",
        "https://arxiv.org/abs/1604.04382",
    )
    takes = Takes(styles=frozenset(), least=0)
    data = "painted"
    averaged = ("generator",)

    class Knobs(AnyKnobs):
        """The network."""

        weights: str = knob("", "Network of one style: a file of 'atelier train mgan'.", file="weights")
        encoder: str = knob(
            "encoder.atelier", "Encoder that the network was trained with: a name, or a file.", file="weights"
        )
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    class Training(AnyKnobs):
        """The layout of the networks, the paintings, and the losses."""

        encoder: str = knob(
            "encoder.atelier",
            "Encoder of the networks and of the paintings: a name, or a file.",
            file="weights",
        )
        painter: Literal["draft", "good", "best", "published"] = knob(
            "good", "Quality of `mrf`, which paints the photos before the training."
        )
        width: int = knob(32, "Channels of the networks, as a unit.", ge=1, le=256)
        pixel_weight: float = knob(1.0, "Weight of the squared error of the pixels.", ge=0)
        critic_weight: float = knob(0.01, "Weight of the critic's judgement.", ge=0)
        smoothness: float = knob(1e-4, "Weight of total variation, which suppresses noise.", ge=0)
        crop: int = knob(128, "Side of the square crops in pixels, a multiple of 16.", ge=32, le=1024)
        batch: int = knob(8, "Pairs per step, over all processes.", ge=2)
        learning_rate: float = knob(2e-3, "Learning rate before the cool-down.", gt=0)

    def __init__(self) -> None:
        self._seen: tuple[tuple[str, torch.device], features.VGG] | None = None

    def weights(self, knobs: MGan.Knobs) -> Sequence[str]:
        return (_trained(knobs), knobs.encoder)

    # painting

    def prepare(self, styles: Styles, knobs: MGan.Knobs, context: Context) -> Painter:
        name = _trained(knobs)
        dtype = context.dtype if knobs.half else torch.float32
        versions = (weights.fingerprint(name), weights.fingerprint(knobs.encoder))
        encoder, generator = _networks(name, knobs.encoder, versions, context.device, dtype)

        @torch.inference_mode()
        def paint(frame: Frame) -> Result:
            picture = painted(encoder, generator, frame.content).clamp(0, 1)
            frame.progress.report(1, 1, stage="painting", preview=lambda: picture)
            return Result(picture)

        return paint

    def portable(self, styles: Styles, knobs: MGan.Knobs, context: Context) -> Portable:
        name = _trained(knobs)
        versions = (weights.fingerprint(name), weights.fingerprint(knobs.encoder))
        encoder, generator = _networks(name, knobs.encoder, versions, context.device, torch.float32)
        return Portable(
            [encoder, generator], lambda content: painted(encoder, generator, content).clamp(0, 1)
        )

    # the paintings that it learns from

    def target(self, job: Job, training: Any) -> torch.Tensor:
        return MRF().picture(job, _painter_knobs(training))

    def target_key(self, training: Any) -> str:
        knobs = _painter_knobs(training)
        return f"mrf {knobs.model_dump_json()} {weights.fingerprint(knobs.encoder)}"

    # training

    def networks(self, training: Any, data: DataInfo) -> dict[str, torch.nn.Module]:
        from atelier.networks.mgan import Critic, Generator

        if training.crop % 16:
            raise TrainingError(
                f"crop = {training.crop} is not a multiple of 16, which the critic's patches need: use "
                f"{training.crop // 16 * 16}"
            )
        encoder = self._encoder(training, torch.device("cpu"))
        return {
            "generator": Generator(encoder.channels(DECODED), training.width),
            "critic": Critic(encoder.channels(JUDGED), training.width),
        }

    def optimisers(
        self, networks: Mapping[str, torch.nn.Module], training: Any
    ) -> dict[str, torch.optim.Optimizer]:
        return {
            name: torch.optim.Adam(network.parameters(), lr=training.learning_rate, betas=(0.5, 0.999))
            for name, network in networks.items()
        }

    def updates(
        self, networks: Mapping[str, Any], batch: Batch, training: Any, state: Mapping[str, Any]
    ) -> Iterator[Update]:
        from atelier.losses.adversarial import hinge
        from atelier.losses.smoothness import TotalVariation
        from atelier.networks.mgan import inner

        encoder = self._encoder(training, batch.photos.device)
        with torch.no_grad():
            seen = encoder(batch.photos, [DECODED])[DECODED].float()
            real = encoder(batch["painted"], [JUDGED])[JUDGED].float()
        made = networks["generator"](seen)
        found = encoder(made, [JUDGED])[JUDGED].float()
        critic = networks["critic"]
        terms = {
            "real": hinge(inner(critic(real)), 1),
            "made": hinge(inner(critic(found.detach())), -1),
        }
        yield Update("critic", terms)
        # The published code computes the error of pixels in -1..1.
        error = 4 * (made - batch["painted"]).square().mean()
        yield Update(
            "generator",
            {
                "pixels": training.pixel_weight * error,
                "critic": training.critic_weight * hinge(inner(critic(found)), 1),
                "smoothness": training.smoothness * TotalVariation("squared")(made),
            },
        )

    def judge(self, networks: Mapping[str, Any], batch: Batch, training: Any) -> dict[str, Tensor]:
        """The mean absolute error of held-out photos' pictures, in units of 0..1."""
        seen = self._encoder(training, batch.photos.device)(batch.photos, [DECODED])[DECODED]
        return {"pixels": (networks["generator"](seen.float()) - batch["painted"]).abs().mean()}

    def _encoder(self, training: Any, device: torch.device) -> features.VGG:
        """The frozen encoder, loaded once."""
        key = (training.encoder, device)
        if self._seen is None or self._seen[0] != key:
            self._seen = key, features.load(training.encoder).prepare(device)
        return self._seen[1]

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.features import TINY
        from atelier.networks.mgan import Generator

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return {"weights": Generator(TINY.widths[3], width=4).state_dict()}


def painted(encoder: features.VGG, generator: Generator, picture: Tensor) -> Tensor:
    """The painted picture, float32, of a picture (1, 3, H, W) in 0..1 of any size.

    Its sides are continued to multiples of 8 inside.
    """
    from torch.nn import functional

    from atelier.networks.mgan import STEP

    height, width = picture.shape[-2:]
    tall, wide = ((side + STEP - 1) // STEP * STEP for side in (height, width))
    whole = functional.pad(picture, (0, wide - width, 0, tall - height), mode="replicate")
    seen = encoder(whole, [DECODED])[DECODED]
    made: Tensor = generator(seen.to(next(generator.parameters()).dtype))
    return made[..., :height, :width]


def _painter_knobs(training: Any) -> MRF.Knobs:
    return parse(MRF.Knobs, {**MRF.qualities[training.painter], "encoder": training.encoder})


def _trained(knobs: MGan.Knobs) -> str:
    """The name of the trained network. Raises UsageError where none is given."""
    if not knobs.weights:
        raise UsageError(
            "mgan needs a network of one style: train one with `atelier train mgan --style PAINTING --photos "
            "FOLDER` and give it with --weights"
        )
    return knobs.weights


# The fingerprints are part of the cache key: changed weights under the same name are reloaded.
@kept
def _networks(
    name: str, encoder: str, versions: tuple[str, str], device: torch.device, dtype: torch.dtype
) -> tuple[features.VGG, Generator]:
    from atelier.networks.mgan import from_state

    try:
        with torch.inference_mode(False):  # they are kept, and a later caller may need gradients
            generator = from_state(weights.load(name))
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
    loaded = features.load(encoder)
    has, needs = loaded.channels(DECODED), generator.layers[0].in_channels
    if has != needs:
        raise WeightsError(
            f"{name} decodes {needs} channels, but {encoder} has {has} at {DECODED}: give the encoder that "
            "it was trained with by --encoder"
        )
    return loaded.prepare(device, dtype), generator.prepare(device, dtype)
