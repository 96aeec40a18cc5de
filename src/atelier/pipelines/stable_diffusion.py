"""Stable Diffusion 1.x (Rombach et al. 2022, arXiv:2112.10752): its networks, loaded and ready.

The architectures are those of diffusers and transformers (extra `diffusion`). Files are read here and not by
their `from_pretrained`, so that nothing is downloaded, no code in a file runs, and a wrong file is one
sentence. Latents are (B, 4, H / 8, W / 8) in float32, whatever the precision of the networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atelier.core import extras
from atelier.core.errors import UsageError, WeightsError
from atelier.features.clip import tokenizer
from atelier.maths import schedules
from atelier.maths.diffusion import Target
from atelier.pipelines.stable_diffusion_layout import PAD, REMEDY, SCALING, Part, Parts, empty
from atelier.store import checkpoints

if TYPE_CHECKING:
    from atelier.pipelines.stable_diffusion_memory import MemoryPlan

#: The extra and the packages that it needs.
EXTRA, PACKAGES = "diffusion", ("diffusers", "transformers")


@dataclass
class StableDiffusion:
    """The networks of one pipeline, frozen. `plan` says how they save memory; None is without any saving.

    Callers that change a network for a while, such as its attention, hold `lock` meanwhile: loaded networks
    are shared.
    """

    unet: Any
    vae: Any
    text: Any
    tokens: Any
    device: torch.device
    target: Target = "eps"
    pad: str = PAD
    plan: MemoryPlan | None = None
    lock: Any = field(default_factory=RLock)

    @property
    def schedule(self) -> schedules.Schedule:
        """The noise schedule of the training, of 1000 steps."""
        return schedules.scaled_linear()

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the networks."""
        found: torch.dtype = next(self.unet.parameters()).dtype
        return found

    @property
    def factor(self) -> int:
        """Pixels for each position of a latent, along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def encode(self, pictures: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The latents of pictures (B, 3, H, W) in 0..1 whose sides are multiples of 8.

        They are the most likely ones, or a draw from the posterior by the `generator`.
        """
        mean, deviation = self.posterior(pictures)
        if generator is not None:
            mean = mean + deviation * torch.randn(mean.shape, generator=generator).to(mean)
        return mean

    def posterior(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the deviation of the latents of pictures, as for `encode`."""
        with self._on_device(self.vae), self._tiles():
            found = self.vae.encode((2 * pictures - 1).to(self.device, self._vae_dtype)).latent_dist
        return self._scaling * found.mean.float(), self._scaling * found.std.float()

    def decode(self, latents: Tensor, *, clamp: bool = True) -> Tensor:
        """The pictures (B, 3, H, W) of latents, in 0..1; without `clamp`, some values lie outside."""
        with self._on_device(self.vae), self._tiles():
            scaled = (latents / self._scaling).to(self.device, self._vae_dtype)
            made: Tensor = self.vae.decode(scaled).sample
        pictures = (made.float() + 1) / 2
        return pictures.clamp(0, 1) if clamp else pictures

    def words(self, prompts: Sequence[str], *, cut: bool = False) -> Tensor:
        """The encodings (B, 77, D) of prompts. The empty prompt needs no vocabulary.

        Raises UsageError for a prompt that is too long, unless it may be `cut`, and WeightsError without a
        vocabulary.
        """
        numbers = torch.tensor([self._numbers(one, cut) for one in prompts])
        with self._on_device(self.text):
            found: Tensor = self.text(numbers.to(self.device)).last_hidden_state
        return found

    def predict(self, latents: Tensor, time: int | Tensor, context: Tensor) -> Tensor:
        """What the UNet predicts (`target`) for latents at a step of training, 0..999."""
        times = torch.as_tensor(time, device=self.device)
        with self._on_device(self.unet):
            made: Tensor = self.unet(
                latents.to(self.device, self.dtype), times, context.to(self.dtype)
            ).sample
        return made.float()

    @property
    def _vae_dtype(self) -> torch.dtype:
        found: torch.dtype = next(self.vae.parameters()).dtype
        return found

    @property
    def _scaling(self) -> float:
        return float(getattr(self.vae.config, "scaling_factor", SCALING))

    def _numbers(self, prompt: str, cut: bool) -> list[int]:
        """The tokens of a prompt, padded to the length that the text encoder takes."""
        settings = self.text.config
        # The settings of published files name other numbers than those of the start and the end.
        most, last = settings.max_position_embeddings, settings.vocab_size - 1
        if not prompt.strip():
            found = [last - 1, last]
        elif self.tokens is None:
            raise WeightsError(
                "there is no vocabulary for words: put CLIP's vocab.json and merges.txt beside the weights"
            )
        else:
            found = list(self.tokens([prompt])["input_ids"][0])
        if cut and len(found) > most:
            found = [*found[: most - 1], last]
        if len(found) > most:
            raise UsageError(f"the words have {len(found) - 2} tokens, and {most - 2} are read: shorten them")
        # The series 2.x fills up with "!", the first token.
        return found + [last if self.pad == PAD else 0] * (most - len(found))

    @contextmanager
    def _on_device(self, network: Any) -> Iterator[None]:
        """The network on the device; with offload it waits in main memory before and after."""
        if self.plan is None or not self.plan.offload:
            yield
            return
        network.to(self.device)
        try:
            yield
        finally:
            network.to("cpu")

    @contextmanager
    def _tiles(self) -> Iterator[None]:
        self.vae.use_tiling = self.plan is not None and self.plan.tiles
        try:
            yield
        finally:
            self.vae.use_tiling = False


def load(
    parts: Parts,
    device: torch.device,
    dtype: torch.dtype,
    *,
    name: str = "",
    offload: bool = False,
    slices: bool = False,
    vae: torch.dtype | None = None,
) -> StableDiffusion:
    """The pipeline of these parts in `dtype` for `device`. Raises WeightsError if tensors do not fit.

    With `offload` the networks wait in main memory; with `slices` attention computes its heads one by one.
    `vae` is the precision of the VAE, where it is another one.
    """
    for package in PACKAGES:
        extras.require(package, EXTRA, "Stable Diffusion")
    place = torch.device("cpu") if offload else device
    networks = {
        kind: _network(kind, part, place, (vae or dtype) if kind == "vae" else dtype, name)
        for kind, part in (("unet", parts.unet), ("vae", parts.vae), ("text", parts.text))
    }
    if slices:
        networks["unet"].set_attention_slice("max")
    tokens = tokenizer(parts.vocabulary)
    return StableDiffusion(**networks, tokens=tokens, device=device, target=parts.target, pad=parts.pad)


def _network(kind: str, part: Part, device: torch.device, dtype: torch.dtype, name: str) -> Any:
    """A network with its tensors, converted one by one."""
    network = empty(kind, part.settings)
    # The caller may be in inference mode, and the networks are kept for training as well.
    with torch.inference_mode(False):
        state = part.read()
        checkpoints.check_state(
            {key: one.shape for key, one in network.state_dict().items()},
            state,
            f"the {kind} of {name or REMEDY}",
        )
        network.load_state_dict({key: one.to(dtype) for key, one in state.items()}, assign=True)
        if kind == "text":
            embeddings = network.embeddings
            embeddings.position_ids = torch.arange(embeddings.position_ids.shape[1])[None]
        return network.requires_grad_(False).to(device).eval()
