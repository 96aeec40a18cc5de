"""LoRA: Stable Diffusion with a small file of weights that knows a style, from words or from a photo.

The file changes the layers of the pipeline by products of thin matrices (Hu et al. 2021). A photo gets noise
up to a share of the schedule and is finished by the changed network (SDEdit, Meng et al. 2022); without a
photo, a picture is made from noise and words alone.

The files of kohya's sd-scripts, of diffusers and of PEFT are read. The LoRA is merged into the weights when
they are loaded, which is exact and costs no time later.

Training changes the transformers of the UNet, as sd-scripts does by default, and writes a file in its layout.
The text encoder stays as it is; a word of your own (`--trigger`) in front of every caption calls the style.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import padded
from atelier.methods import latent
from atelier.methods.base import Batch, Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.store import weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.maths.ddim import Step
    from atelier.pipelines.stable_diffusion import StableDiffusion
    from atelier.pipelines.stable_diffusion_layout import Parts

#: The steps of the network's training.
_TRAINED = 1000


class Lora(Method):
    """Draw with Stable Diffusion and a LoRA file that knows a style, from words or from a photo."""

    name = "lora"
    paper = Paper(
        "Hu et al.",
        2021,
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "https://arxiv.org/abs/2106.09685",
    )
    takes = Takes(content="optional", styles=frozenset({"text"}), least=0)
    extra = latent.EXTRA
    packages = latent.PACKAGES
    data = "captioned"
    averaged = ()
    shared_knobs = ("pipeline",)

    class Knobs(latent.PipelineKnobs):
        """The file, and the sampling."""

        weights: str = knob("", "LoRA for Stable Diffusion 1.x: a file.", file="weights")
        multiplier: float = knob(1.0, "How strongly the LoRA changes the network.", ge=-2, le=4)
        guidance: float = knob(7.5, "How strongly words lead; 1 is without guidance.", ge=0, le=50)
        negative: str = knob("", "Words to lead away from.")
        noise: float = knob(
            0.6, "Noise to add to the photo, as a share of the schedule; more changes it more.", gt=0, le=1
        )
        steps: int = knob(30, "Steps of the whole schedule.", ge=1, le=250)

    class Training(AnyKnobs):
        """The pipeline to change, the size of the file, and the loss."""

        pipeline: str = knob(
            "stable_diffusion.v1_5", "Stable Diffusion 1.x: a name, folder, or file.", file="weights"
        )
        rank: int = knob(16, "Rows between the two matrices of a layer; more can learn more.", ge=1, le=512)
        alpha: float = knob(8.0, "Scale of the changes, over the rank.", gt=0)
        trigger: str = knob("", "Words in front of every caption, which call the style.")
        dropped: float = knob(0.1, "Share of captions that are left out.", ge=0, le=1)
        min_snr: float = knob(
            5.0, "Limit of the signal-to-noise ratio in the weight of each step; 0 weighs all alike.", ge=0
        )
        noise_offset: float = knob(
            0.0, "Noise that is the same all over a channel; some helps dark and bright pictures.", ge=0, le=1
        )
        checkpointing: bool = knob(True, "Compute activations twice to save memory.")
        steps: int = knob(1600, "Training steps.", ge=1)
        batch: int = knob(1, "Pictures per step, over all processes.", ge=1)
        crop: int = knob(512, "Side of the square crops in pixels.", ge=16, le=2048)
        learning_rate: float = knob(1e-4, "Learning rate between warm-up and cool-down.", gt=0)
        warmup: int = knob(0, "Steps over which the learning rate rises from zero.", ge=0)
        cooldown: float = knob(
            0.0, "Final fraction of the run, in which the learning rate falls.", ge=0, le=1
        )
        held_back: int = knob(0, "Pictures that are held out for evaluation.", ge=0)

    qualities = {"draft": {"steps": 15}, "good": {}, "best": {"steps": 60}}  # noqa: RUF012
    sizes = {"draft": 512, "good": 512, "best": 768}  # noqa: RUF012

    def __init__(self) -> None:
        self._frozen: dict[torch.device, StableDiffusion] = {}
        self._attached: Any = None
        self._handles: list[Any] = []

    def weights(self, knobs: Lora.Knobs) -> Sequence[str]:
        return (knobs.pipeline, _file(knobs))

    def prepare(self, styles: Styles, knobs: Lora.Knobs, context: Context) -> Painter:
        return _Painting(" ".join(styles.texts), knobs, context).paint

    # training

    def network(self, training: Any) -> nn.Module:
        from atelier.pipelines import lora, stable_diffusion_layout

        latent.require()
        parts = stable_diffusion_layout.find(training.pipeline)
        unet = stable_diffusion_layout.empty("unet", parts.unet.settings)
        return lora.Trained(unet, training.rank, training.alpha)

    def optimisers(
        self, networks: Mapping[str, nn.Module], training: Any
    ) -> dict[str, torch.optim.Optimizer]:
        learnt = networks["network"].parameters()
        return {"network": torch.optim.AdamW(learnt, lr=training.learning_rate)}

    def losses(self, network: Any, batch: Batch, training: Any) -> dict[str, Tensor]:
        from atelier.losses.diffusion import min_snr_weight
        from atelier.maths import diffusion

        pipeline = self._changed_by(network, batch["pictures"].device, training)
        clean, context = self._seen(pipeline, batch, training)
        whole = batch.whole
        index = batch.rows(torch.randint(_TRAINED, (whole,), generator=batch.generator)).to(clean.device)
        fresh = torch.randn((whole, *clean.shape[1:]), generator=batch.generator)
        level = torch.randn((whole, clean.shape[1], 1, 1), generator=batch.generator)
        noise = batch.rows(offset(fresh, level, training.noise_offset)).to(clean)
        noisy = diffusion.noised(pipeline.schedule, clean, index, noise)
        wanted = diffusion.target_of(pipeline.schedule, pipeline.target, clean, noise, index)
        made = pipeline.unet(noisy, index, context).sample
        error = (made.float() - wanted).square().mean((1, 2, 3))
        if training.min_snr:
            error = (
                error * min_snr_weight(pipeline.schedule, pipeline.target, index, training.min_snr).flatten()
            )
        return {"error": error.mean()}

    def exported(self, networks: Mapping[str, Any]) -> dict[str, Tensor]:
        return dict(networks["network"].exported())

    def _changed_by(self, network: Any, device: torch.device, training: Any) -> StableDiffusion:
        """The frozen pipeline on a device, changed by the adapters in training."""
        from atelier.pipelines import stable_diffusion, stable_diffusion_layout

        if device not in self._frozen:
            parts = stable_diffusion_layout.find(training.pipeline)
            made = stable_diffusion.load(parts, device, torch.float32, name=training.pipeline)
            if training.checkpointing:
                made.unet.train().enable_gradient_checkpointing()
            self._frozen[device] = made
        pipeline = self._frozen[device]
        if self._attached is not network:
            for handle in self._handles:
                handle.remove()
            # They stay: checkpointing computes the layers once more in the backward pass.
            self._handles, self._attached = network.attach(pipeline.unet), network
        return pipeline

    def _seen(self, pipeline: StableDiffusion, batch: Batch, training: Any) -> tuple[Tensor, Tensor]:
        """The latents of a batch, and the encodings of its captions."""
        drawn = batch.rows(torch.rand(batch.whole, generator=batch.generator)).tolist()
        captions = [
            "" if share < training.dropped else ", ".join(filter(None, (training.trigger, words)))
            for share, words in zip(drawn, batch["captions"], strict=True)
        ]
        with torch.no_grad():
            return pipeline.encode(batch["pictures"]), pipeline.words(captions)

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        """For a pipeline whose first level has 32 channels."""
        generator = torch.Generator().manual_seed(0)
        layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        down, up = (0.5 * torch.randn(shape, generator=generator) for shape in ((2, 32), (32, 2)))
        return {"weights": {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}}


def _file(knobs: Lora.Knobs) -> str:
    """The name of the LoRA file. Raises UsageError where none is given."""
    if not knobs.weights:
        raise UsageError("lora needs a LoRA file for Stable Diffusion 1.x: give it with --weights FILE")
    return knobs.weights


def offset(noise: Tensor, level: Tensor, share: float) -> Tensor:
    """Noise (B, C, h, w) with some (B, C, 1, 1) that is the same all over each channel (Guttenberg 2023)."""
    return noise + share * level


class _Painting:
    """Makes pictures with one LoRA and one prompt."""

    def __init__(self, words: str, knobs: Lora.Knobs, context: Context) -> None:
        self.words, self.knobs, self.seed = words, knobs, context.seed
        mark = f"{weights.fingerprint(_file(knobs))} {knobs.multiplier}"
        self.room = latent.Room(knobs, context, change=self._changed, mark=mark)

    def _changed(self, parts: Parts) -> Parts:
        from atelier.pipelines import lora

        return lora.read(self.knobs.weights, parts).changed(parts, self.knobs.multiplier)

    def paint(self, frame: Frame) -> Result:
        """The picture; the photo itself if the work is stopped before there is one."""
        height, width = frame.content.shape[-2:]
        photo = padded(frame.content, 64, 8)
        steps = latent.sampling_steps(self.knobs.steps, 1.0 if frame.blank else self.knobs.noise)
        with torch.inference_mode():
            size = (photo.shape[-2], photo.shape[-1])
            plan = self.room.planned(size, batch=1 if self.knobs.guidance == 1 else 2)
            events = latent.Steps(frame.progress, len(steps))
            if not events.announce(plan):
                return Result(frame.content)
            pipeline = self.room.loaded(plan)
            with pipeline.lock:
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
        """What the network predicts, led by the words and away from the negative ones."""
        share: Any = self.knobs.guidance
        context = pipeline.words([self.words] if share == 1 else [self.knobs.negative, self.words])

        def predict(latents: Tensor, time: int) -> Tensor:
            if share == 1:
                return pipeline.predict(latents, time, context)
            away, toward = pipeline.predict(latents.expand(2, -1, -1, -1), time, context).chunk(2)
            led: Tensor = away + share * (toward - away)
            return led

        return predict
