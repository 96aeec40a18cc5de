"""DEADiff: draw from words by Stable Diffusion in the style of a reference picture, apart from its content.

Two readers turn a reference into a few tokens, one its style and the other its content, and tokens of each
stand beside the words in other layers of the UNet (Qi et al. 2024). With a photo, its content may be read,
too, and the picture starts from it with noise up to a share of the schedule (Meng et al. 2022); without one,
or with `--noise 1`, it starts from noise alone, as in the paper.

Training takes pairs that are no copies of each other: of one style for the reader of styles, of one content
for that of contents, and single pictures for both. The paper's batch is 512, for 100,000 steps; its pairs
were not published. Stable Diffusion and the vision transformers are frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import padded
from atelier.methods import latent
from atelier.methods.base import Batch, Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.store import weights
from atelier.store.models import MODELS
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.maths.ddim import Step
    from atelier.pipelines.deadiff import Deadiff as Networks
    from atelier.pipelines.deadiff import Joint, Kind
    from atelier.pipelines.stable_diffusion import StableDiffusion

#: The steps of the network's training.
_TRAINED = 1000
#: What the published program leads away from.
NEGATIVE = (
    "over-exposure, under-exposure, saturated, duplicate, out of frame, lowres, cropped, worst quality, low "
    "quality, jpeg artifacts, morbid, mutilated, out of frame, ugly, bad anatomy, bad proportions, deformed, "
    "blurry, duplicate"
)

register(
    Record(
        name="deadiff.published",
        file="deadiff_v1.ckpt",
        sources=("https://huggingface.co/qth/DEADiff/resolve/main/deadiff_v1.ckpt",),
        licence="code Apache-2.0 (bytedance/DEADiff); for research and personal use only, says its read-me",
        paper="Qi et al. 2024, DEADiff, arXiv:2403.06951",
        note="For Stable Diffusion 1.5, which the file also holds and which is installed beside it.",
    )
)


class Deadiff(Method):
    """Draw from words by Stable Diffusion in the style of a picture, or with its content, or both."""

    name = "deadiff"
    paper = Paper(
        "Qi, Fang, Wu, Xie, Liu, Chen, He & Zhang",
        2024,
        "DEADiff: An Efficient Stylization Diffusion Model with Disentangled Representations",
        "https://arxiv.org/abs/2403.06951",
    )
    takes = Takes(content="optional", styles=frozenset({"picture", "text"}))
    native = frozenset({"styles"})
    extra = latent.EXTRA
    packages = latent.PACKAGES
    data = "references"
    averaged = ()
    shared_knobs = ("pipeline",)

    class Knobs(latent.PipelineKnobs):
        """The weights, what is read, and the sampling."""

        weights: str = knob("deadiff.published", "Trained readers: a name, or a file.", file="weights")
        mode: Literal["auto", "style", "content", "both"] = knob(
            "auto",
            "What is read: the style of the style picture, the content of the photo (without one, of the "
            "style picture), or both; auto is both with a photo, else the style.",
        )
        image_weight: float = knob(1.0, "How much the references count beside the words.", ge=0, le=2)
        guidance: float = knob(8.0, "How strongly words and references lead; 1 is without.", ge=0, le=50)
        negative: str = knob("", "Words to lead away from.")
        noise: float = knob(
            0.6, "Noise to add to the photo, as a share of the schedule; more changes it more.", gt=0, le=1
        )
        steps: int = knob(50, "Steps of the whole schedule.", ge=1, le=250)

    class Training(AnyKnobs):
        """The pipeline, the networks to start from, and the loss."""

        pipeline: str = knob(
            "stable_diffusion.v1_5", "Stable Diffusion 1.x: a name, folder, or file.", file="weights"
        )
        weights: str = knob(
            "deadiff.published",
            "Networks to start from: a name, or a file of DEADiff or of BLIP-Diffusion.",
            file="weights",
        )
        dropped: float = knob(0.15, "Share of references of pairs that are left out.", ge=0, le=1)
        dropped_single: float = knob(
            0.0, "Share of references that are left out of single pictures.", ge=0, le=1
        )
        checkpointing: bool = knob(True, "Compute activations twice to save memory.")
        steps: int = knob(100_000, "Training steps.", ge=1)
        batch: int = knob(8, "Pairs per step, over all processes.", ge=1)
        crop: int = knob(512, "Side of the square crops in pixels.", ge=16, le=2048)
        learning_rate: float = knob(1e-4, "Learning rate between warm-up and cool-down.", gt=0)
        warmup: int = knob(10_000, "Steps over which the learning rate rises from zero.", ge=0)
        cooldown: float = knob(
            0.0, "Final fraction of the run, in which the learning rate falls.", ge=0, le=1
        )
        held_back: int = knob(0, "Pictures of each sub-folder that are held out for evaluation.", ge=0)

    qualities = {  # noqa: RUF012
        "draft": {"steps": 20, "negative": NEGATIVE},
        "good": {"negative": NEGATIVE},
        "best": {"steps": 100, "negative": NEGATIVE},
        "published": {"mode": "style", "noise": 1.0, "negative": NEGATIVE},
    }
    sizes = {"draft": 512, "good": 512, "best": 768, "published": 512}  # noqa: RUF012

    def __init__(self) -> None:
        self._frozen: dict[torch.device, StableDiffusion] = {}
        self._joint: Joint | None = None

    def weights(self, knobs: Deadiff.Knobs) -> Sequence[str]:
        return (knobs.pipeline, knobs.weights)

    def prepare(self, styles: Styles, knobs: Deadiff.Knobs, context: Context) -> Painter:
        return _Painting(styles, knobs, context).paint

    # training

    def network(self, training: Any) -> nn.Module:
        from atelier.pipelines import deadiff, stable_diffusion

        latent.require()
        from atelier.pipelines import stable_diffusion_layout

        parts = stable_diffusion_layout.find(training.pipeline)
        whole = stable_diffusion.load(parts, torch.device("cpu"), torch.float32, name=training.pipeline)
        self._frozen[torch.device("cpu")] = whole
        made = deadiff.read(weights.load(training.weights), whole.unet, training.weights)
        for weight in made.learnt():
            weight.requires_grad_(True)
        return made

    def optimisers(
        self, networks: Mapping[str, nn.Module], training: Any
    ) -> dict[str, torch.optim.Optimizer]:
        network: Any = networks["network"]
        return {"network": torch.optim.AdamW(network.learnt(), lr=training.learning_rate)}

    def losses(self, network: Any, batch: Batch, training: Any) -> dict[str, Tensor]:
        from atelier.maths import diffusion

        targets = batch["targets"]
        pipeline, joint = self._joined(network, targets.device, training)
        relation = batch["relation"].tolist()
        captions = [
            "" if kind == 2 else words for kind, words in zip(relation, batch["captions"], strict=True)
        ]
        with torch.no_grad():
            clean, words = pipeline.encode(targets), pipeline.words(captions)
        draws = batch.rows(torch.rand(batch.whole, generator=batch.generator)).tolist()
        seen = seen_by(relation, draws, (training.dropped, training.dropped, training.dropped_single))
        joint.tokens = {
            kind: network.tokens(kind, batch["references"]) * clean.new_tensor(seen[kind])[:, None, None]
            for kind in ("style", "content")
        }
        index = batch.rows(torch.randint(_TRAINED, (batch.whole,), generator=batch.generator))
        noise = torch.randn((batch.whole, *clean.shape[1:]), generator=batch.generator)
        index, noise = index.to(clean.device), batch.rows(noise).to(clean)
        noisy = diffusion.noised(pipeline.schedule, clean, index, noise)
        found = pipeline.unet(noisy, index, words).sample.float()
        wanted = diffusion.target_of(pipeline.schedule, pipeline.target, clean, noise, index)
        return {"error": (found - wanted).square().mean()}

    def _joined(
        self, network: Networks, device: torch.device, training: Any
    ) -> tuple[StableDiffusion, Joint]:
        """The frozen pipeline on a device, joined by the networks in training."""
        from atelier.pipelines.deadiff import Joint

        if device not in self._frozen:
            home = self._frozen.pop(torch.device("cpu"))
            for part in (home.unet, home.vae, home.text):
                part.to(device)
            home.device = device
            self._frozen[device] = home
        pipeline = self._frozen[device]
        if training.checkpointing and not pipeline.unet.is_gradient_checkpointing:
            pipeline.unet.train().enable_gradient_checkpointing()
        if self._joint is None or self._joint.network is not network:
            if self._joint is not None:
                self._joint.close()
            # It stays: checkpointing computes the layers once more in the backward pass.
            self._joint = Joint(pipeline.unet, network)
        return pipeline, self._joint

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        """For a pipeline with four cross-attentions, of 32 and 64 channels."""
        from atelier.pipelines import deadiff

        return {"weights": deadiff.tiny([(32, 64), (64, 64), (32, 64), (32, 64)])}


def seen_by(
    relation: Sequence[int], draws: Sequence[float], dropped: tuple[float, float, float]
) -> dict[Kind, list[float]]:
    """For each row, 1 where a reader's tokens are seen, and 0 where they are zero.

    References of the same style (0) are for the reader of styles, of the same content (1) for that of
    contents, the target itself (2) for both. A draw below the relation's share leaves the reference out.

    >>> seen_by([0, 1, 2], [0.5, 0.5, 0.5], (0.15, 0.15, 0.0))
    {'style': [1.0, 0.0, 1.0], 'content': [0.0, 1.0, 1.0]}
    """
    kept = [draw >= dropped[kind] for kind, draw in zip(relation, draws, strict=True)]
    return {
        "style": [float(kind != 1 and one) for kind, one in zip(relation, kept, strict=True)],
        "content": [float(kind != 0 and one) for kind, one in zip(relation, kept, strict=True)],
    }


def guided(without: Tensor, led: Tensor, guidance: float) -> Tensor:
    """The noise that is led by words and references."""
    return without + guidance * (led - without)


# the picture


class _Painting:
    """Makes pictures with some references and one prompt."""

    def __init__(self, styles: Styles, knobs: Deadiff.Knobs, context: Context) -> None:
        if not styles.pictures:
            raise UsageError(
                "deadiff needs a style picture, beside the words if there are any: give it with --style"
            )
        self.styles, self.knobs, self.seed = styles, knobs, context.seed
        self.words = " ".join(styles.texts)
        self.room = latent.Room(knobs, context)
        self.network = self._network()
        with torch.inference_mode():
            self.style = self._style()

    def _network(self) -> Networks:
        """The networks beside the pipeline, in its precision on its device."""
        from atelier.pipelines import deadiff, stable_diffusion_layout

        knobs, room = self.knobs, self.room
        unet = stable_diffusion_layout.empty("unet", room.parts.unet.settings)
        key = ("deadiff", knobs.weights, weights.fingerprint(knobs.weights), room.device, room.dtype)
        return MODELS.get(
            (*key, room.fingerprint),
            lambda: deadiff.read(weights.load(knobs.weights), unet, knobs.weights).to(
                room.device, room.dtype
            ),
        )

    def _style(self) -> Tensor:
        """The tokens of the style: the mean over the style pictures, by their weights."""
        pictures, shares = self.styles.pictures, self.styles.weights
        total = sum(shares) or 1.0
        found = [
            share / total * self.network.tokens("style", one)
            for one, share in zip(pictures, shares, strict=True)
        ]
        return torch.stack(found).sum(0)

    def _tokens(self, frame: Frame) -> Mapping[Kind, Tensor]:
        """The tokens of both kinds, after those of nothing where words lead."""
        mode = self.knobs.mode
        if mode == "auto":
            mode = "style" if frame.blank else "both"
        reference = self.styles.pictures[0] if frame.blank else frame.content
        nothing = self.network.nothing(1)
        found: dict[Kind, Tensor] = {
            "style": nothing if mode == "content" else self.style,
            "content": nothing if mode == "style" else self.network.tokens("content", reference),
        }
        if self.knobs.guidance == 1:
            return found
        return {kind: torch.cat([nothing, one]) for kind, one in found.items()}

    def paint(self, frame: Frame) -> Result:
        """The picture; the photo itself if the work is stopped before there is one."""
        from atelier.pipelines.deadiff import Joint

        height, width = frame.content.shape[-2:]
        photo = padded(frame.content, 64, 8)
        steps = latent.sampling_steps(self.knobs.steps, 1.0 if frame.blank else self.knobs.noise)
        with torch.inference_mode():
            size, batch = (photo.shape[-2], photo.shape[-1]), 1 if self.knobs.guidance == 1 else 2
            plan = self.room.planned(size, batch=batch, kept=(self._bytes(),))
            events = latent.Steps(frame.progress, len(steps))
            if not events.announce(plan):
                return Result(frame.content)
            pipeline = self.room.loaded(plan)
            weight, sliced = self.knobs.image_weight, plan.slices
            with pipeline.lock, Joint(pipeline.unet, self.network, weight=weight, sliced=sliced) as joint:
                joint.tokens = self._tokens(frame)
                start = latent.start(pipeline, photo, steps[0], self.seed, blank=frame.blank)
                made = self._sampled(pipeline, start, steps, events)
        return Result(made[..., :height, :width])

    def _sampled(
        self, pipeline: StableDiffusion, start: Tensor, steps: Sequence[Step], events: latent.Steps
    ) -> Tensor:
        from atelier.maths import ddim

        made = start
        predict, schedule, target = self._predict(pipeline), pipeline.schedule, pipeline.target
        for moved in ddim.walk(start, steps, predict, schedule=schedule, target=target):
            made = moved.after
            if not events.done("sampling", partial(pipeline.decode, moved.clean)):
                made = moved.clean
                break
        return pipeline.decode(made)

    def _predict(self, pipeline: StableDiffusion) -> Callable[[Tensor, int], Tensor]:
        """What the network predicts, led by words and references."""
        share = self.knobs.guidance
        context = pipeline.words([self.words] if share == 1 else [self.knobs.negative, self.words])

        def predict(latents: Tensor, time: int) -> Tensor:
            found = pipeline.predict(latents.expand(len(context), -1, -1, -1), time, context)
            return found if share == 1 else guided(found[:1], found[1:], share)

        return predict

    def _bytes(self) -> int:
        """The memory of the readers and the maps."""
        return sum(one.numel() for one in self.network.parameters()) * self.room.dtype.itemsize
