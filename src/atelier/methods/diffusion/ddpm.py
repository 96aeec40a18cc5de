"""DDPM: add noise to the photo, and remove it step by step with a network that knows only paintings.

The network is trained to remove noise from pictures of one kind (Ho et al. 2020). A photo with noise added is
finished as such a picture (SDEdit, Meng et al. 2022): little noise gives the surface of paint, more noise
changes shapes as well. Without a photo, a picture is made from noise alone.

Differences from the papers: networks may predict v (Salimans & Ho 2022) and be trained with min-SNR weights
(Hang et al. 2023). Steps are spread evenly over the part of the schedule in use. The bundled network is
trained on the lower half of the schedule only; it normalises each pixel by itself and has no attention, so
that it works at any size, in tiles.

The paper's training on 256 px pictures: `--width 128 --multiples 1 --multiples 1 --multiples 2 --multiples 2
--multiples 4 --multiples 4 --blocks 2 --attention 16 --groups 32 --patch 1 --target eps --min-snr 0
--crop 256 --batch 64 --learning-rate 2e-5 --warmup 5000 --cooldown 0 --average 0.9999`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Job, Method, Paper, Takes
from atelier.methods.diffusion import model
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.maths.samplers import Sampler
    from atelier.networks.unet import UNet

_PAPER = "Dhariwal and Nichol 2021, Diffusion Models Beat GANs on Image Synthesis, arXiv:2105.05233"

register(
    Record(
        name="ddpm.atelier",
        file="ddpm.safetensors",
        licence="Apache-2.0; its training pictures are for research",
        paper="Ho et al. 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239",
        bundled="ddpm.safetensors",
        note="Bundled with the package; trained with `atelier train ddpm` on the lower half of the noise.",
    )
)
register(
    Record(
        name="ddpm.openai",
        file="256x256_diffusion_uncond.pt",
        sources=(
            "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt",
        ),
        licence="MIT (openai/guided-diffusion)",
        paper=_PAPER,
        note="553 million weights, trained on ImageNet; made for 256 x 256 pixels.",
    )
)


class DdpmKnobs(AnyKnobs):
    """The noise, and the way back."""

    weights: str = knob(
        "ddpm.atelier", "Network: a name from 'atelier weights list', or a file.", file="weights"
    )
    noise: float = knob(
        0.3, "Noise to add to the photo, as a fraction of the network's schedule.", gt=0, le=1
    )
    steps: int = knob(20, "Steps in which the noise is removed.", ge=1, le=1000)
    sampler: Literal["ancestral", "ddim", "dpm-solver++"] = knob(
        "ancestral",
        "Sampler: ancestral draws noise in each step, which gives the smoothest paint; ddim and dpm-solver++ "
        "(with atelier[diffusion]) only at the start.",
    )
    half: bool = knob(True, "Use bfloat16 if the device supports it natively.")


class Ddpm(Method):
    """Add noise to the photo and let a network that knows paintings remove it."""

    name = "ddpm"
    paper = Paper(
        "Ho et al.",
        2020,
        "Denoising Diffusion Probabilistic Models",
        "https://arxiv.org/abs/2006.11239",
    )
    takes = Takes(content="optional", styles=frozenset(), least=0)
    data = "pictures"
    shared_knobs = ()
    Knobs = DdpmKnobs

    qualities = {  # noqa: RUF012
        "draft": {"steps": 8},
        "good": {},
        "best": {"steps": 50},
    }

    class Training(model.NetworkSettings):
        """The network and its loss."""

        min_snr: float = knob(
            5.0, "Limit of the signal-to-noise ratio in the weight of each step; 0 weighs all alike.", ge=0
        )
        crop: int = knob(64, "Side of the square crops in pixels.", ge=16, le=2048)
        batch: int = knob(32, "Pictures per step, over all processes.", ge=1)
        learning_rate: float = knob(4e-4, "Learning rate between warm-up and cool-down.", gt=0)

    def weights(self, knobs: DdpmKnobs) -> Sequence[str]:
        return (knobs.weights,)

    # the transfer

    def transfer(self, job: Job, knobs: DdpmKnobs) -> Tensor:
        dtype = job.dtype if knobs.half else torch.float32
        return edited(model.load(knobs.weights, job.device, dtype), job, knobs)

    # the training

    def network(self, training: Ddpm.Training) -> UNet:
        from atelier.networks.unet import UNet

        return UNet(training.plan)

    def losses(self, network: UNet, batch: Batch, training: Ddpm.Training) -> dict[str, Tensor]:
        from atelier.losses import diffusion as losses
        from atelier.maths import diffusion

        denoiser = model.in_training(network, training)
        schedule, pictures = denoiser.schedule, 2 * batch["pictures"] - 1
        highest = round(training.highest * len(schedule))
        drawn = torch.randint(highest, (batch.whole,), generator=batch.generator)
        index = batch.rows(drawn).to(pictures.device)
        shape = (batch.whole, *pictures.shape[1:])
        noise = batch.rows(torch.randn(shape, generator=batch.generator)).to(pictures.device)
        noisy = diffusion.noised(schedule, pictures, index, noise)
        output = network(noisy, index)
        wanted = diffusion.target_of(schedule, training.target, pictures, noise, index)
        error = losses.squared_error(output[:, :3], wanted)
        if training.min_snr:
            error = (
                error * losses.min_snr_weight(schedule, training.target, index, training.min_snr).flatten()
            )
        terms = {"error": error.mean()}
        if training.learned:
            process = denoiser.process(schedule)
            bound = losses.variational_bound(process, pictures, noisy, output, index)
            # The scale of the official RESCALED_MSE.
            terms["bound"] = len(schedule) / 1000 * bound.mean()
        return terms

    def painter(
        self, networks: Mapping[str, Any], training: Ddpm.Training, folder: Path
    ) -> Callable[[Job], Tensor]:
        denoiser = model.in_training(networks["network"], training)
        return partial(edited, denoiser, knobs=DdpmKnobs(noise=min(0.3, training.highest)))

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.networks.unet import UNet, UNetPlan

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return {"weights": UNet(UNetPlan(32, (1,))).state_dict()}


def edited(denoiser: model.Denoiser, job: Job, knobs: DdpmKnobs) -> Tensor:
    """The job's picture (1, 3, H, W) with noise added and removed; from noise alone without a photo."""
    from atelier.maths import samplers
    from atelier.maths.diffusion import noised

    noise = samplers.seeded(job.seed)
    schedule = denoiser.within(1.0 if job.blank else knobs.noise, knobs.steps)
    last = torch.tensor([len(schedule) - 1], device=job.device)
    with torch.inference_mode():
        content = 2 * job.content - 1
        fresh = noise(content)
        start = fresh if job.blank else noised(schedule, content, last, fresh)
        sampler: Sampler = samplers.SAMPLERS[knobs.sampler]
        picture = job.content
        for state in sampler(denoiser.process(schedule), start, noise=noise):
            picture = ((state.x0 + 1) / 2).clamp(0, 1)
            done = len(schedule) - state.step
            if not job.progress.report(
                done, len(schedule), stage="removing noise", preview=partial(_same, picture)
            ):
                break
    return picture


def _same(picture: Tensor) -> Tensor:
    return picture
