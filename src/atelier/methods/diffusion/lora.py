"""LoRA: Stable Diffusion with a small file of weights that knows a style, from words or from a photo.

The file changes the layers of the pipeline by products of thin matrices (Hu et al. 2021). A photo gets noise
up to a share of the schedule and is finished by the changed network (SDEdit, Meng et al. 2022); without a
photo, a picture is made from noise and words alone.

The files of kohya's sd-scripts, of diffusers and of PEFT are read. One or several are merged into the weights
when these are loaded, which is exact and costs no time later.

Training changes the transformers of the UNet and the text encoder, as sd-scripts does by default, and writes
a file in its layout, metadata included. The frozen networks compute in bfloat16, which is as small as float16
and needs no scaled loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import padded
from atelier.methods import latent
from atelier.methods.base import Batch, Context, Frame, Job, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.trainable import DataInfo
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
    data = "bucketed"
    averaged = ()
    shared_knobs = ("pipeline",)

    class Knobs(latent.PipelineKnobs):
        """The file, and the sampling."""

        weights: str = knob("", "LoRA for Stable Diffusion 1.x: a file.", file="weights")
        multiplier: float = knob(1.0, "How strongly the LoRA changes the network.", ge=-2, le=4)
        more: tuple[str, ...] = knob((), "Another LoRA on top of the first.", file="weights")
        more_multipliers: tuple[float, ...] = knob(
            (), "How strongly each of --more changes the network; 1 where none is given."
        )
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
        text_learning_rate: float = knob(
            5e-5, "Learning rate of the text encoder; 0 leaves it as it is.", ge=0
        )
        min_snr: float = knob(
            5.0, "Limit of the signal-to-noise ratio in the weight of each step; 0 weighs all alike.", ge=0
        )
        debiased: bool = knob(False, "Weigh steps by the root of their noise-to-signal ratio.")
        v_like_noise: bool = knob(False, "Weigh a network that predicts v as if it predicted noise.")
        noise_offset: float = knob(
            0.0, "Noise that is the same all over a channel; some helps dark and bright pictures.", ge=0, le=1
        )
        adaptive_offset: float = knob(
            0.0, "More of that noise for pictures whose channels are far from zero.", ge=-1, le=1
        )
        largest_norm: float = knob(0.0, "Limit of the norm of each layer's change; 0 is without.", ge=0)
        cache_latents: bool = knob(True, "Encode each picture once, and keep its latent in main memory.")
        checkpointing: bool = knob(True, "Compute activations twice to save memory.")
        steps: int = knob(1600, "Training steps.", ge=1)
        batch: int = knob(1, "Pictures per step, over all processes.", ge=1)
        crop: int = knob(512, "Side of the square whose area the buckets have, in pixels.", ge=16, le=2048)
        learning_rate: float = knob(1e-4, "Learning rate of the UNet, at its highest.", gt=0)
        warmup: int = knob(0, "Steps over which the learning rate rises from zero.", ge=0)
        cooldown: float = knob(
            0.0, "Final fraction of the run, in which the learning rate falls.", ge=0, le=1
        )
        held_back: int = knob(0, "Pictures that are held out for evaluation.", ge=0)

    qualities = {"draft": {"steps": 15}, "good": {}, "best": {"steps": 60}}  # noqa: RUF012
    sizes = {"draft": 512, "good": 512, "best": 768}  # noqa: RUF012

    def __init__(self) -> None:
        self._frozen: dict[torch.device, StableDiffusion] = {}
        self._latents: dict[str, tuple[Tensor, Tensor]] = {}
        self._attached: Any = None
        self._handles: list[Any] = []

    def weights(self, knobs: Lora.Knobs) -> Sequence[str]:
        return (knobs.pipeline, *(name for name, _ in _files(knobs)))

    def prepare(self, styles: Styles, knobs: Lora.Knobs, context: Context) -> Painter:
        return _Painting(" ".join(styles.texts), knobs, context).paint

    # training

    def plan(self, training: Any, data: DataInfo, device: torch.device) -> str:
        from atelier.pipelines import stable_diffusion_layout, training_memory

        latent.require()
        sizes = [one["resolution"] for one in data.facts["buckets"].values()]
        width, height = max(sizes, key=lambda size: size[0] * size[1])
        run = training_memory.Run(
            (height, width),
            training.batch,
            training.rank,
            training.text_learning_rate > 0,
            training.checkpointing,
            bool(training.samples or training.sheet),
            training.steps,
        )
        parts = stable_diffusion_layout.find(training.pipeline)
        return str(training_memory.plan(parts, run, device, _precision(training)))

    def network(self, training: Any) -> nn.Module:
        from atelier.pipelines import lora_training, stable_diffusion_layout

        latent.require()
        parts = stable_diffusion_layout.find(training.pipeline)
        networks: dict[Any, Any] = {"unet": stable_diffusion_layout.empty("unet", parts.unet.settings)}
        if training.text_learning_rate:
            networks["text"] = stable_diffusion_layout.empty("text", parts.text.settings)
        return lora_training.Trained(networks, training.rank, training.alpha, training.largest_norm)

    def start(self, network: Any, state: Mapping[str, Tensor]) -> None:
        network.load(dict(state))

    def optimisers(self, networks: Mapping[str, Any], training: Any) -> dict[str, torch.optim.Optimizer]:
        learnt = networks["network"]
        groups = [{"params": learnt.of("unet"), "lr": training.learning_rate}]
        if words := learnt.of("text"):
            groups.append({"params": words, "lr": training.text_learning_rate})
        return {"network": torch.optim.AdamW(groups)}

    def losses(self, network: Any, batch: Batch, training: Any) -> dict[str, Tensor]:
        pipeline = self._changed_by(network, batch["pictures"].device, training)
        network.limit()
        # The networks have their own precision, which is planned for; the loop would choose another.
        with torch.autocast(pipeline.device.type, enabled=False):
            error = self._error(pipeline, batch, training)
        return {"error": error.mean()}

    def _error(self, pipeline: StableDiffusion, batch: Batch, training: Any) -> Tensor:
        """The weighted error of each picture, (B,)."""
        from atelier.maths import diffusion

        clean = self._encoded(pipeline, batch, training)
        index = batch.rows(torch.randint(_TRAINED, (batch.whole,), generator=batch.generator)).to(
            clean.device
        )
        noise = offset(
            _normal(batch, clean),
            _normal(batch, clean[..., :1, :1]),
            training.noise_offset,
            training.adaptive_offset * clean.mean((2, 3), keepdim=True).abs(),
        )
        noisy = diffusion.noised(pipeline.schedule, clean, index, noise)
        wanted = diffusion.target_of(pipeline.schedule, pipeline.target, clean, noise, index)
        context = pipeline.words(batch["captions"], cut=True)
        made = pipeline.unet(noisy.to(pipeline.dtype), index, context).sample
        error = (made.float() - wanted).square().mean((1, 2, 3))
        weighted: Tensor = error * _weight(pipeline, index, training)
        return weighted

    def _encoded(self, pipeline: StableDiffusion, batch: Batch, training: Any) -> Tensor:
        """Draws from the latents of a batch, whose means and deviations may be in the cache."""
        found = []
        for name, picture in zip(batch["names"], batch["pictures"], strict=True):
            if name not in self._latents:
                with torch.no_grad():
                    # One at a time, so that a batch rounds as the cache does.
                    fresh = pipeline.posterior(picture[None])
                if training.cache_latents:
                    self._latents[name] = fresh[0].cpu(), fresh[1].cpu()
            else:
                fresh = self._latents[name]
            found.append(fresh)
        device = batch["pictures"].device
        mean, deviation = (torch.cat(parts).to(device) for parts in zip(*found, strict=True))
        return mean + deviation * _normal(batch, mean)

    def exported(self, networks: Mapping[str, Any]) -> dict[str, Tensor]:
        return dict(networks["network"].lora().state())

    def described(
        self, state: Mapping[str, Tensor], training: Any, data: DataInfo, facts: Mapping[str, Any]
    ) -> dict[str, str]:
        from atelier.pipelines import lora_metadata

        return lora_metadata.of_training(state, training, data.facts, facts, time.time())

    def painter(self, networks: Mapping[str, Any], training: Any, folder: Path) -> Callable[[Any], Tensor]:
        """Paints with the pipeline in training, which is loaded already."""
        network = networks["network"]
        device = next(network.parameters()).device
        knobs = Lora.Knobs(pipeline=training.pipeline, weights="in training", steps=20)

        def paint(job: Job) -> Tensor:
            pipeline = self._changed_by(network, device, training)
            words = " ".join(job.texts) or training.trigger
            events = latent.Steps(job.progress, knobs.steps)
            with torch.no_grad(), pipeline.lock:
                return _drawn(pipeline, job.frame, words, knobs, training.seed, events)

        return paint

    def _changed_by(self, network: Any, device: torch.device, training: Any) -> StableDiffusion:
        """The frozen pipeline on a device, changed by the adapters in training."""
        from atelier.pipelines import stable_diffusion, stable_diffusion_layout

        if device not in self._frozen:
            parts = stable_diffusion_layout.find(training.pipeline)
            made = stable_diffusion.load(
                parts, device, _precision(training), name=training.pipeline, vae=torch.float32
            )
            if training.checkpointing:
                made.unet.train().enable_gradient_checkpointing()
            self._frozen[device] = made
        pipeline = self._frozen[device]
        if self._attached is not network:
            for handle in self._handles:
                handle.remove()
            # They stay: checkpointing computes the layers once more in the backward pass.
            self._handles = network.attach({"unet": pipeline.unet, "text": pipeline.text})
            self._attached = network
        return pipeline

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        """For a pipeline whose first level has 32 channels."""
        generator = torch.Generator().manual_seed(0)
        layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        down, up = (0.5 * torch.randn(shape, generator=generator) for shape in ((2, 32), (32, 2)))
        return {"weights": {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}}


def _files(knobs: Lora.Knobs) -> list[tuple[str, float]]:
    """The LoRA files with their multipliers. Raises UsageError where none is given, or the numbers differ."""
    if not knobs.weights:
        raise UsageError("lora needs a LoRA file for Stable Diffusion 1.x: give it with --weights FILE")
    shares = knobs.more_multipliers or (1.0,) * len(knobs.more)
    if len(shares) != len(knobs.more):
        raise UsageError(
            f"{len(knobs.more)} files and {len(shares)} multipliers were given: repeat --more-multipliers "
            "once for each --more"
        )
    return [(knobs.weights, knobs.multiplier), *zip(knobs.more, shares, strict=True)]


def _precision(training: Any) -> torch.dtype:
    """The precision of the frozen networks in training."""
    return torch.bfloat16 if training.half else torch.float32


def offset(noise: Tensor, level: Tensor, share: float, more: float | Tensor = 0.0) -> Tensor:
    """Noise (B, C, h, w) with some (B, C, 1, 1) that is the same all over each channel (Guttenberg 2023).

    `more` is added to its share, which does not fall below zero.
    """
    return noise + torch.as_tensor(share + more).clamp(min=0).to(noise) * level


def _normal(batch: Batch, like: Tensor) -> Tensor:
    """Noise of a shape, drawn for the whole batch and cut to this process's rows."""
    whole = torch.randn((batch.whole, *like.shape[1:]), generator=batch.generator)
    return batch.rows(whole).to(like)


def _weight(pipeline: StableDiffusion, index: Tensor, training: Any) -> Tensor:
    """The weight of the error at each step, (B,)."""
    from atelier.losses import diffusion

    found = torch.ones(len(index), device=index.device)
    if training.min_snr:
        found = diffusion.min_snr_weight(
            pipeline.schedule, pipeline.target, index, training.min_snr
        ).flatten()
    if training.v_like_noise and pipeline.target == "v":
        found = found * diffusion.noise_weight(pipeline.schedule, index).flatten()
    if training.debiased:
        found = found * diffusion.debiased_weight(pipeline.schedule, pipeline.target, index).flatten()
    return found


class _Painting:
    """Makes pictures with LoRA files and one prompt."""

    def __init__(self, words: str, knobs: Lora.Knobs, context: Context) -> None:
        self.words, self.knobs, self.seed = words, knobs, context.seed
        self.files = _files(knobs)
        mark = " ".join(f"{weights.fingerprint(name)} {share}" for name, share in self.files)
        self.room = latent.Room(knobs, context, change=self._changed, mark=mark)

    def _changed(self, parts: Parts) -> Parts:
        from atelier.pipelines import lora

        found = [(lora.read(name, parts), share) for name, share in self.files]
        for one, share in found:
            parts = one.changed(parts, share)
        return parts

    def paint(self, frame: Frame) -> Result:
        """The picture; the photo itself if the work is stopped before there is one."""
        with torch.inference_mode():
            photo = padded(frame.content, 64, 8)
            size = (photo.shape[-2], photo.shape[-1])
            plan = self.room.planned(size, batch=1 if self.knobs.guidance == 1 else 2)
            events = latent.Steps(frame.progress, len(_steps(self.knobs, frame)))
            if not events.announce(plan):
                return Result(frame.content)
            pipeline = self.room.loaded(plan)
            with pipeline.lock:
                return Result(_drawn(pipeline, frame, self.words, self.knobs, self.seed, events))


def _steps(knobs: Lora.Knobs, frame: Frame) -> list[Step]:
    return latent.sampling_steps(knobs.steps, 1.0 if frame.blank else knobs.noise)


def _drawn(
    pipeline: StableDiffusion, frame: Frame, words: str, knobs: Any, seed: int, events: latent.Steps
) -> Tensor:
    """The picture of these words, from the photo or from noise."""
    from atelier.maths import ddim

    height, width = frame.content.shape[-2:]
    steps = _steps(knobs, frame)
    made = latent.start(pipeline, padded(frame.content, 64, 8), steps[0], seed, blank=frame.blank)
    predict, schedule, target = _led(pipeline, words, knobs), pipeline.schedule, pipeline.target
    for moved in ddim.walk(made, steps, predict, schedule=schedule, target=target):
        made = moved.after
        if not events.done("sampling", partial(pipeline.decode, moved.clean)):
            made = moved.clean
            break
    return pipeline.decode(made)[..., :height, :width]


def _led(pipeline: StableDiffusion, words: str, knobs: Any) -> Callable[[Tensor, int], Tensor]:
    """What the network predicts, led by the words and away from the negative ones."""
    share = knobs.guidance
    context = pipeline.words([words] if share == 1 else [knobs.negative, words])

    def predict(latents: Tensor, time: int) -> Tensor:
        if share == 1:
            return pipeline.predict(latents, time, context)
        away, toward = pipeline.predict(latents.expand(2, -1, -1, -1), time, context).chunk(2)
        led: Tensor = away + share * (toward - away)
        return led

    return predict
