"""StarGAN v2: translate a photo into a domain, in one of its many looks: of a reference, or a random one.

A style is a vector: the style encoder reads it from a reference picture (`--style`), or the mapping network
makes it from random numbers, another one for each seed. The generator takes it by adaptive instance
normalisation (Choi et al. 2020, sections 2 and 3). `--domain NAME` chooses the domain, also of the reference.

Differences from the paper: the default networks are narrower, and the crop is smaller, so that they train on
a small machine. The picture keeps its size, with sides padded to what the network needs inside, but for
networks of faces: their masks, which keep the fine detail of a face, are defined at the training size, so
these paint at this size, and the picture is scaled back. Faces are not aligned. Several references are mixed
by the weights of their styles. The running average of the weights forgets its start sooner.

The paper's training: `--width 64 --widest 512 --crop 256 --steps 100000`, for animals `--diversity-weight 2`,
and for faces `--faces starganv2.faces`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atelier.core.errors import TrainingError, UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.methods.base import Batch, Context, Frame, Method, Painter, Paper, Result, Styles, Takes
from atelier.methods.gan.adversarial import AdversarialTraining, absolute, check_domain
from atelier.methods.portable import CONTENT, Input, Portable
from atelier.methods.trainable import DataInfo, Update
from atelier.store import weights
from atelier.store.models import kept
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.features.faces import Faces
    from atelier.translators.starganv2 import Masks, Networks, Plan

_PUBLISHED = {
    "celeba_hq": ("96fmei6c93o8b8t/100000_nets_ema.ckpt", "Faces: female, male; 256 px."),
    "afhq": ("etwm810v25h42sn/100000_nets_ema.ckpt", "Heads of animals: cat, dog, wild; 256 px."),
    "faces": ("tjxpypwpt38926e/wing.ckpt", "Landmarks of faces, for training on faces."),
}
for _tag, (_path, _what) in _PUBLISHED.items():
    register(
        Record(
            name=f"starganv2.{_tag}",
            file=_path.partition("/")[2],
            sources=(f"https://www.dropbox.com/s/{_path}?dl=1",),
            licence="CC BY-NC 4.0 (clovaai/stargan-v2)",
            paper="Choi et al. 2020, StarGAN v2: Diverse Image Synthesis, arXiv:1912.01865",
            input_range=(-1.0, 1.0),
            note=_what,
        )
    )

#: Random styles whose mean the truncation leads to, as published.
_MANY = 10_000
#: The networks that learn together from random styles; from references, the generator learns alone.
LEARNERS = ("generator", "mapping_network", "style_encoder")


class StarGanV2(Method):
    """Translate the photo into a domain that a network knows, in the look of a reference or a random one."""

    name = "starganv2"
    paper = Paper(
        "Choi, Uh, Yoo & Ha",
        2020,
        "StarGAN v2: Diverse Image Synthesis for Multiple Domains",
        "https://arxiv.org/abs/1912.01865",
    )
    takes = Takes(styles=frozenset({"picture"}), least=0)
    native = frozenset({"styles"})
    data = "referenced"
    averaged = LEARNERS

    class Knobs(AnyKnobs):
        """Settings of the translation."""

        weights: str = knob(
            "starganv2.afhq", "Networks: a name from 'atelier weights list', or a file.", file="weights"
        )
        domain: str = knob("", "Name of the domain; by default the first.")
        truncation: float = knob(
            1.0, "Variety of random looks: 1 for all, 0 for the mean one; 0.5 and 0.7 are published.", ge=0
        )
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    class Training(AdversarialTraining):
        """The layout of the networks, and the losses."""

        widest: int = knob(256, "Channels at most; they double each time the size is halved.", ge=1, le=2048)
        style: int = knob(64, "Numbers of a style.", ge=1, le=1024)
        latent: int = knob(16, "Random numbers that a style is made from.", ge=1, le=1024)
        hidden: int = knob(512, "Width of the mapping network.", ge=1, le=4096)
        crop: int = knob(128, "Side of the square crops in pixels, a power of 2.", ge=16, le=1024)
        cycle_weight: float = knob(1.0, "Weight of the error after there and back.", ge=0)
        style_weight: float = knob(1.0, "Weight of finding the style in the result.", ge=0)
        diversity_weight: float = knob(
            1.0, "Weight at first of the difference between two styles' results.", ge=0
        )
        diversity_steps: int = knob(100_000, "Steps over which that weight falls to zero.", ge=1)
        penalty_weight: float = knob(1.0, "Weight of the critic's gradient penalty.", ge=0)
        mapping_rate: float = knob(
            0.01, "Learning rate of the mapping network, as a fraction of the others'.", gt=0
        )
        decay: float = knob(1e-4, "Weight decay, as a penalty on the squares of the weights.", ge=0)
        faces: str = knob(
            "", "Network of face landmarks, such as starganv2.faces, for training on faces.", file="weights"
        )
        cooldown: float = knob(
            0.0, "Final fraction of the run, in which the learning rate falls to zero.", ge=0, le=1
        )
        average: float = knob(0.999, "Decay of the running average of the networks.", ge=0, lt=1)

    def weights(self, knobs: StarGanV2.Knobs) -> Sequence[str]:
        return (knobs.weights,)

    # the translation

    def prepare(self, styles: Styles, knobs: StarGanV2.Knobs, context: Context) -> Painter:
        dtype = context.dtype if knobs.half else torch.float32
        loaded = _loaded(knobs.weights, weights.fingerprint(knobs.weights), context.device, dtype)
        domains = loaded.networks.generator.domains
        style = _style(loaded.networks, styles, knobs.domain or domains[0], knobs, context)

        @torch.inference_mode()
        def paint(frame: Frame) -> Result:
            picture = loaded.paint(frame.content, style.to(dtype)).clamp(0, 1)
            frame.progress.report(1, 1, stage="painting", preview=lambda: picture)
            return Result(picture)

        return paint

    def portable(self, styles: Styles, knobs: StarGanV2.Knobs, context: Context) -> Portable:
        loaded = _loaded(knobs.weights, weights.fingerprint(knobs.weights), context.device, torch.float32)
        networks, generator = loaded.networks, loaded.networks.generator
        if loaded.faces is not None:
            raise UsageError(
                f"{knobs.weights} needs the landmarks of a face, which cannot be exported: take other weights"
            )
        known = generator.domains
        fixed = bool(styles.pictures or knobs.domain)
        names = (knobs.domain or known[0],) if fixed else known
        looks = torch.cat([_style(networks, styles, name, knobs, context) for name in names])

        def paint(content: Tensor, *shares: Tensor) -> Tensor:
            return generator.paint(content, shares[0] @ looks if shares else looks).clamp(0, 1)

        says = "how much of each domain, in its look of the seed"
        given = Input("shares", says, "shares", len(known), labels=known)
        return Portable(
            [generator],
            paint,
            (CONTENT,) if fixed else (CONTENT, given),
            smallest=max(32, generator.smallest),
            facts={"seed": str(context.seed)},
        )

    # the training

    def networks(self, training: Any, data: DataInfo) -> dict[str, torch.nn.Module]:
        from atelier.features.faces import Faces
        from atelier.translators.starganv2 import Critic, Generator, MappingNetwork, StyleEncoder, initialise

        if training.crop & (training.crop - 1):
            raise TrainingError(
                f"crop = {training.crop} is not a power of 2, as StarGAN v2 needs: use "
                f"{1 << (training.crop.bit_length() - 1)} or {1 << training.crop.bit_length()}"
            )
        plan, count = plan_of(training), len(data.domains)
        learnt = {
            "generator": Generator(data.domains, plan),
            "mapping_network": MappingNetwork(count, plan),
            "style_encoder": StyleEncoder(count, plan),
            "critic": Critic(count, plan),
        }
        found = {name: initialise(network) for name, network in learnt.items()}
        return found | ({"fan": Faces.from_state(weights.load(training.faces))} if training.faces else {})

    def optimisers(
        self, networks: Mapping[str, torch.nn.Module], training: Any
    ) -> dict[str, torch.optim.Optimizer]:
        shares = {"mapping_network": training.mapping_rate}
        return {
            name: torch.optim.Adam(
                networks[name].parameters(),
                lr=training.learning_rate * shares.get(name, 1.0),
                betas=(0.0, 0.99),
                weight_decay=training.decay,
            )
            for name in (*LEARNERS, "critic")
        }

    def updates(
        self, networks: Mapping[str, Any], batch: Batch, training: Any, state: Mapping[str, Any]
    ) -> Iterator[Update]:
        real, own, wanted = 2 * batch["pictures"] - 1, batch["domain"], batch["wanted"]
        references = [2 * batch["references"][:, index] - 1 for index in (0, 1)]
        draws = torch.randn(2, batch.whole, training.latent, generator=batch.generator)
        latents = [batch.rows(draws[index]).to(real) for index in (0, 1)]
        ways = ((LEARNERS, "mapping_network", latents), (("generator",), "style_encoder", references))
        faces = networks.get("fan")
        for _, source, given in ways:
            with torch.no_grad():
                style = networks[source](given[0], wanted)
                made = networks["generator"](real, style, masks_of(faces, real))
            yield Update("critic", critic_terms(networks["critic"], real, made, own, wanted, training))
        weight = training.diversity_weight * diversity_share(batch.step, training.diversity_steps)
        for learners, source, given in ways:
            styles = [networks[source](one, wanted) for one in given]
            terms = generator_terms(networks, real, own, wanted, styles, training, weight)
            yield Update(learners, terms)

    def judge(self, networks: Mapping[str, Any], batch: Batch, training: Any) -> dict[str, Tensor]:
        """The mean absolute error of held-out pictures after there and back, in units of 0..1."""
        real, own, wanted = 2 * batch["pictures"] - 1, batch["domain"], batch["wanted"]
        style = networks["style_encoder"](2 * batch["references"][:, 0] - 1, wanted)
        faces = networks.get("fan")
        made = networks["generator"](real, style, masks_of(faces, real))
        back = networks["generator"](made, networks["style_encoder"](real, own), masks_of(faces, made))
        return {"cycle": absolute(back, real) / 2}

    def exported(self, networks: Mapping[str, torch.nn.Module]) -> dict[str, Tensor]:
        """The averaged networks and those of faces, under the names of published files."""
        faces = networks["fan"].state_dict() if "fan" in networks else {}
        return super().exported(networks) | {f"fan.{name}": value for name, value in faces.items()}

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.translators.starganv2 import Generator, MappingNetwork, Plan, StyleEncoder

        plan = Plan(side=16, width=4, widest=8, style=4, latent=4, hidden=8)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            networks = {
                "generator": Generator(("warm", "cold"), plan),
                "mapping_network": MappingNetwork(2, plan),
                "style_encoder": StyleEncoder(2, plan),
            }
        found = {name: network.state_dict() for name, network in networks.items()}
        return {
            "weights": {f"{name}.{key}": one for name, part in found.items() for key, one in part.items()}
        }


# styles


def random_latents(count: int, size: int, seed: int) -> Tensor:
    """Random numbers (count, size), normally distributed, from which styles are made."""
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def random_style(networks: Networks, latent: Tensor, domain: Tensor, truncation: float) -> Tensor:
    """The style (1, S) of `latent` (1, L), led to the domain's mean style by what `truncation` lacks to 1."""
    style: Tensor = networks.mapping_network(latent, domain)
    if truncation == 1:
        return style
    many = random_latents(_MANY, latent.shape[1], seed=0).to(latent)
    return truncated(style, networks.mapping_network(many, domain.expand(_MANY)), truncation)


def truncated(style: Tensor, many: Tensor, truncation: float) -> Tensor:
    """Styles (B, S) of which `truncation` is kept, and the rest is the mean of `many` styles (N, S)."""
    return torch.lerp(many.mean(0, keepdim=True), style, truncation)


def _style(networks: Networks, styles: Styles, name: str, knobs: StarGanV2.Knobs, context: Context) -> Tensor:
    """The style (1, S) of the domain `name`: that of the references, or a random one without any.

    Raises UsageError for a domain that the network does not know.
    """
    domains = networks.generator.domains
    check_domain(knobs.weights, name, domains)
    domain = torch.tensor([domains.index(name)], device=context.device)
    with torch.inference_mode():
        if styles.pictures:
            return mixed_style(networks, styles, domain)
        latent = random_latents(1, networks.plan.latent, context.seed).to(context.device)
        return random_style(networks, latent, domain, knobs.truncation)


def mixed_style(networks: Networks, styles: Styles, domain: Tensor) -> Tensor:
    """The styles of the references, read at the training size, as one (1, S), mixed by their weights."""
    size = (networks.plan.side,) * 2
    found = [networks.style_encoder(2 * resize(one, size) - 1, domain) for one in styles.pictures]
    shares = torch.tensor(list(styles.weights)).to(found[0])[:, None]
    return (torch.cat(found) * shares).sum(0, keepdim=True) / shares.sum()


# the losses


def plan_of(training: Any) -> Plan:
    """The sizes of the networks that the settings ask for."""
    from atelier.translators.starganv2 import Plan

    sizes = (training.crop, training.width, training.widest)
    return Plan(*sizes, training.style, training.latent, training.hidden, edges=bool(training.faces))


def diversity_share(step: int, steps: int) -> float:
    """What is left of the weight of diversity at a step, which falls to zero over `steps`.

    >>> diversity_share(0, 4), diversity_share(3, 4), diversity_share(9, 4)
    (1.0, 0.25, 0.0)
    """
    return max(0.0, 1 - step / steps)


def masks_of(faces: Faces | None, pictures: Tensor) -> Masks | None:
    """Masks of where faces (B, 3, H, W) in -1..1 keep their detail; None without a network of faces."""
    return faces.masks((pictures + 1) / 2) if faces is not None else None


def critic_terms(
    critic: Any, real: Tensor, made: Tensor, own: Tensor, wanted: Tensor, training: Any
) -> dict[str, Tensor]:
    """The critic's losses (equation 1, with R1) for pictures in -1..1 and the index of their domains."""
    from atelier.losses.adversarial import logistic, slope_penalty

    real = real.detach().requires_grad_()
    scores = critic(real, own)
    return {
        "real": logistic(scores, 1),
        "made": logistic(critic(made, wanted), 0),
        "penalty": training.penalty_weight * slope_penalty(scores, real),
    }


def generator_terms(
    networks: Mapping[str, Any],
    real: Tensor,
    own: Tensor,
    wanted: Tensor,
    styles: Sequence[Tensor],
    training: Any,
    diversity: float,
) -> dict[str, Tensor]:
    """The generator's losses (equations 1 to 5) for pictures in -1..1 and two styles of wanted domains."""
    from atelier.losses.adversarial import logistic

    generator, encoder, faces = networks["generator"], networks["style_encoder"], networks.get("fan")
    masks = masks_of(faces, real)
    made = generator(real, styles[0], masks)
    with torch.no_grad():
        other = generator(real, styles[1], masks)
    back = generator(made, encoder(real, own), masks_of(faces, made))
    return {
        "made": logistic(networks["critic"](made, wanted), 1),
        "style": training.style_weight * absolute(encoder(made, wanted), styles[0]),
        "diversity": -diversity * absolute(made, other),
        "cycle": training.cycle_weight * absolute(back, real),
    }


# The networks of a file


@dataclass(frozen=True)
class Loaded:
    """The networks of a file, ready to paint; `faces` for those that need masks."""

    networks: Networks
    faces: Faces | None

    def paint(self, picture: Tensor, style: Tensor) -> Tensor:
        """The translated picture (1, 3, H, W) in 0..1 under a style (1, S)."""
        generator = self.networks.generator
        if self.faces is None:
            return generator.paint(picture, style)
        small = resize(picture, (self.networks.plan.side,) * 2)
        masks = [mask.to(style) for mask in self.faces.masks(small)]
        height, width = picture.shape[-2:]
        return resize(generator.paint(small, style, masks), (height, width))


# The fingerprint is part of the cache key: changed weights under the same name are reloaded.
@kept
def _loaded(name: str, fingerprint: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    from atelier.features.faces import Faces
    from atelier.translators.starganv2 import from_state

    state = weights.load(name)
    try:
        networks = from_state(state)
        own = {key.removeprefix("fan."): one for key, one in state.items() if key.startswith("fan.")}
        faces = Faces.from_state(own).to(device) if networks.plan.edges else None
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
    networks.generator.prepare(device, dtype)
    for network in (networks.mapping_network, networks.style_encoder):
        network.requires_grad_(False).eval().to(device)
    return Loaded(networks, faces)
