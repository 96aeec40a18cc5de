"""StarGAN: translate a photo into one of several domains, by name, with one network for all of them.

The generator gets the domain as extra planes beside the picture. A critic judges patches and names the
domain of a picture, and a picture translated to a domain and back must come back as it was (Choi et al. 2018,
section 3).
No style picture is needed: `--domain NAME` chooses.

Differences from the paper: the default network is narrower, so that it trains on a small machine, and one
picture has one domain (a folder a domain). The published networks know attributes that can go together, of
which several can be named; attributes that are not named are off, where the published test keeps the photo's.
The learning rate falls to zero in the second half, as in the paper; the published code hardly lowers it,
which is `--cooldown 0`. Sides are padded to multiples of 4 inside.

The paper's training: `--width 64 --blocks 6 --depth 6 --crop 128 --batch 16 --steps 200000`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atelier.core.errors import WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Context, Job, Method, Paper, Styles, Takes
from atelier.methods.gan.adversarial import AdversarialTraining, absolute, check_crop, check_domain
from atelier.methods.portable import CONTENT, Input, Portable
from atelier.methods.trainable import DataInfo, Update
from atelier.store import checkpoints, weights
from atelier.store.models import kept
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.translators.stargan import Generator


def _converted(state: checkpoints.State) -> checkpoints.State:
    from atelier.translators.stargan import from_state

    return dict(from_state(state).state_dict())


checkpoints.register_converter("stargan", _converted)
register(
    Record(
        name="stargan.celeba",
        file="200000-G.ckpt",
        licence="MIT (yunjey/stargan)",
        paper="Choi et al. 2018, StarGAN: Unified Generative Adversarial Networks, arXiv:1711.09020",
        input_range=(-1.0, 1.0),
        converter="stargan",
        note="Faces: hair colour, male, young. Published in a zip archive: unpack it and add the file.",
    )
)


class StarGan(Method):
    """Translate the photo into one of the domains that a network knows, chosen by name."""

    name = "stargan"
    paper = Paper(
        "Choi, Choi, Kim, Ha, Kim & Choo",
        2018,
        "StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation",
        "https://arxiv.org/abs/1711.09020",
    )
    takes = Takes(styles=frozenset(), least=0)
    data = "labelled"
    averaged = ("generator",)

    class Knobs(AnyKnobs):
        """Settings of the translation."""

        weights: str = knob(
            "stargan.celeba", "Network: a name from 'atelier weights list', or a file.", file="weights"
        )
        domain: tuple[str, ...] = knob(
            (),
            "Name of the domain; several for a network of attributes that go together; by default the first.",
        )
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    class Training(AdversarialTraining):
        """The layout of the networks, and the losses."""

        blocks: int = knob(6, "Residual blocks of the generator.", ge=1, le=32)
        depth: int = knob(5, "Layers of the critic that halve the size.", ge=1, le=8)
        class_weight: float = knob(1.0, "Weight of the domain's classification.", ge=0)
        penalty_weight: float = knob(10.0, "Weight of the critic's gradient penalty.", ge=0)
        critic_steps: int = knob(5, "Steps of the critic for each of the generator.", ge=1)

    def weights(self, knobs: StarGan.Knobs) -> Sequence[str]:
        return (knobs.weights,)

    # the translation

    def transfer(self, job: Job, knobs: StarGan.Knobs) -> torch.Tensor:
        dtype = job.dtype if knobs.half else torch.float32
        network = _network(knobs.weights, weights.fingerprint(knobs.weights), job.device, dtype)
        for name in knobs.domain:
            check_domain(knobs.weights, name, network.domains)
        label = network.label(knobs.domain or network.domains[:1]).to(job.device)
        with torch.inference_mode():
            picture = network.paint(job.content, label).clamp(0, 1)
        job.progress.report(1, 1, stage="painting", preview=lambda: picture)
        return picture

    def portable(self, styles: Styles, knobs: StarGan.Knobs, context: Context) -> Portable:
        network = _network(knobs.weights, weights.fingerprint(knobs.weights), context.device, torch.float32)
        if knobs.domain:
            for name in knobs.domain:
                check_domain(knobs.weights, name, network.domains)
            label = network.label(knobs.domain)
            return Portable([network], lambda content: network.paint(content, label).clamp(0, 1))
        given = Input(
            "shares", "how much of each domain", "shares", len(network.domains), labels=network.domains
        )
        return Portable(
            [network], lambda content, label: network.paint(content, label).clamp(0, 1), (CONTENT, given)
        )

    # the training

    def networks(self, training: Any, data: DataInfo) -> dict[str, torch.nn.Module]:
        from atelier.translators.stargan import Critic, Generator

        why = f"which a critic of depth {training.depth} needs"
        check_crop(training.crop, 1 << max(2, training.depth), why)
        critic = Critic(len(data.domains), training.crop, training.width, training.depth)
        return {"generator": Generator(data.domains, training.width, training.blocks), "critic": critic}

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
        generator, critic = networks["generator"], networks["critic"]
        real, own = 2 * batch["pictures"] - 1, batch["domain"]
        draws = torch.randint(len(generator.domains), (batch.whole,), generator=batch.generator)
        wanted = batch.rows(draws).to(own)
        shares = batch.rows(torch.rand(batch.whole, generator=batch.generator)).to(real)
        one_hot = torch.eye(len(generator.domains), device=real.device)
        made = generator(real, one_hot[wanted])
        yield Update("critic", critic_terms(critic, real, made.detach(), own, shares, training))
        if (batch.step + 1) % training.critic_steps == 0:
            back = generator(made, one_hot[own])
            yield Update("generator", generator_terms(critic, real, made, back, wanted, training))

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.translators.stargan import Generator

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return {"weights": Generator(("warm", "cold"), width=4, blocks=1).state_dict()}


def critic_terms(
    critic: Any, real: Tensor, made: Tensor, own: Tensor, shares: Tensor, training: Any
) -> dict[str, Tensor]:
    """The critic's losses (equations 1, 2 and 8) for pictures in -1..1 and the index of their domains.

    `shares` (B,) of the real picture and the rest of the made one are where its gradient is penalised.
    """
    from atelier.losses.adversarial import distance_penalty

    scores, logits = critic(real)
    between = torch.lerp(made, real, shares[:, None, None, None])
    return {
        "real": -scores.mean(),
        "made": critic(made)[0].mean(),
        "domain": training.class_weight * torch.nn.functional.cross_entropy(logits, own),
        "penalty": training.penalty_weight * distance_penalty(lambda pictures: critic(pictures)[0], between),
    }


def generator_terms(
    critic: Any, real: Tensor, made: Tensor, back: Tensor, wanted: Tensor, training: Any
) -> dict[str, Tensor]:
    """The generator's losses (equations 3, 4 and 8) for pictures in -1..1 and the index of the domains."""
    scores, logits = critic(made)
    return {
        "made": -scores.mean(),
        "domain": training.class_weight * torch.nn.functional.cross_entropy(logits, wanted),
        "cycle": training.cycle_weight * absolute(back, real),
    }


# The fingerprint is part of the cache key: changed weights under the same name are reloaded.
@kept
def _network(name: str, fingerprint: str, device: torch.device, dtype: torch.dtype) -> Generator:
    from atelier.translators.stargan import from_state

    try:
        return from_state(weights.load(name)).prepare(device, dtype)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
