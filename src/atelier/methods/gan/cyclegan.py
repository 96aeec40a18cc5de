"""CycleGAN: translate pictures of one folder into those of another, learnt without pairs.

Two generators translate between the domains A and B, and two critics judge patches of what they make. A
picture that goes there and back must come back as it was, and one of the right domain must stay as it is
(Zhu et al. 2017, equations 1 to 3 and section 5.2). No style picture is needed: a network knows one style.

Differences from the paper: the default network is narrower and has 6 blocks, so that it trains on a small
machine. The learning rate decays in each step instead of each epoch. Training crops differ more in size. A
running average of the generators can be kept (`average`). The picture keeps its size: sides are padded to
multiples of 4 inside. The network sees the whole picture at once: its normalisation uses statistics of all
of it.

Networks of pix2pix, which learnt from pairs (Isola et al. 2017), load as well. They paint without dropout,
and sides are padded to multiples of 256 inside.

The paper's training: `--width 64 --blocks 9 --crop 256 --zoom 0.9 --steps 200000` for a thousand pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.errors import UsageError, WeightsError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Batch, Context, Job, Method, Paper, Styles, Takes
from atelier.methods.gan.adversarial import AdversarialTraining, absolute, check_crop
from atelier.methods.portable import Portable
from atelier.methods.trainable import DataInfo, ImagePool, Stateful, Update
from atelier.store import checkpoints, weights
from atelier.store.models import kept
from atelier.store.records import Record, register

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.translators.translator import Translator

_FOLDERS = {
    "cyclegan": "https://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models",
    "pix2pix": "https://efrosgans.eecs.berkeley.edu/pix2pix/models-pytorch",
}
_PUBLISHED = {
    "style_monet": "Photographs become paintings by Monet.",
    "style_vangogh": "Photographs become paintings by Van Gogh.",
    "style_ukiyoe": "Photographs become ukiyo-e prints.",
    "style_cezanne": "Photographs become paintings by Cezanne.",
    "monet2photo": "Paintings by Monet become photographs.",
    "horse2zebra": "Horses become zebras.",
    "zebra2horse": "Zebras become horses.",
    "apple2orange": "Apples become oranges.",
    "orange2apple": "Oranges become apples.",
    "summer2winter_yosemite": "Summer landscapes become winter.",
    "winter2summer_yosemite": "Winter landscapes become summer.",
    "iphone2dslr_flower": "Photographs of flowers get a shallow depth of field.",
    "pix2pix.facades_label2photo": "Labelled fronts of houses become photographs; 256 px.",
    "pix2pix.edges2shoes": "Outlines become shoes; 256 px.",
    "pix2pix.map2sat": "Maps become pictures from above; 256 px.",
    "pix2pix.sat2map": "Pictures from above become maps; 256 px.",
    "pix2pix.day2night": "Days become nights; 256 px.",
}

Direction = Literal["a_to_b", "b_to_a"]
GENERATORS: tuple[Direction, Direction] = ("a_to_b", "b_to_a")


def _converted(state: checkpoints.State) -> checkpoints.State:
    from atelier.translators.cyclegan import from_state

    return dict(from_state(state).state_dict())


checkpoints.register_converter("cyclegan", _converted)
_PAPERS = {
    "cyclegan": "Zhu et al. 2017, Unpaired Image-to-Image Translation, arXiv:1703.10593",
    "pix2pix": "Isola et al. 2017, Image-to-Image Translation with Conditional GANs, arXiv:1611.07004",
}
for _name, _what in _PUBLISHED.items():
    _kind, _, _tag = _name.rpartition(".")
    _kind = _kind or "cyclegan"
    register(
        Record(
            name=f"{_kind}.{_tag}",
            file=f"{_tag}.pth",
            sources=(f"{_FOLDERS[_kind]}/{_tag}.pth",),
            licence="BSD-2-Clause (junyanz/pytorch-CycleGAN-and-pix2pix)",
            paper=_PAPERS[_kind],
            input_range=(-1.0, 1.0),
            converter="cyclegan",
            note=_what,
        )
    )


class CycleGan(Method):
    """Translate the photo into another kind of picture, as learnt from two folders without pairs."""

    name = "cyclegan"
    paper = Paper(
        "Zhu, Park, Isola & Efros",
        2017,
        "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
        "https://arxiv.org/abs/1703.10593",
    )
    takes = Takes(styles=frozenset(), least=0)
    data = "domains"
    averaged = GENERATORS

    class Knobs(AnyKnobs):
        """Settings of the translation."""

        weights: str = knob(
            "cyclegan.style_monet", "Network: a name from 'atelier weights list', or a file.", file="weights"
        )
        direction: Direction = knob(
            "a_to_b", "Direction, for files with both; published files hold one, which is a_to_b."
        )
        half: bool = knob(True, "Use bfloat16 if the device supports it natively.")

    class Training(AdversarialTraining):
        """The layout of the networks, and the losses."""

        blocks: int = knob(6, "Residual blocks of the generators.", ge=1, le=32)
        identity_weight: float = knob(
            0.5, "Weight of leaving pictures of the right domain alone, relative to the cycle's.", ge=0
        )
        pool: int = knob(50, "Earlier results that each critic also judges; 0 for none.", ge=0)
        batch: int = knob(1, "Pictures of each domain per step, over all processes.", ge=1)
        crop: int = knob(128, "Side of the square crops in pixels, a multiple of 4.", ge=24, le=2048)
        steps: int = knob(60_000, "Total training steps; a resumed run can use a higher value.", ge=1)
        learning_rate: float = knob(2e-4, "Learning rate before the cool-down.", gt=0)

    def weights(self, knobs: CycleGan.Knobs) -> Sequence[str]:
        return (knobs.weights,)

    # the translation

    def transfer(self, job: Job, knobs: CycleGan.Knobs) -> torch.Tensor:
        dtype = job.dtype if knobs.half else torch.float32
        fingerprint = weights.fingerprint(knobs.weights)
        network = _network(knobs.weights, fingerprint, knobs.direction, job.device, dtype)
        with torch.inference_mode():
            picture = network.paint(job.content).clamp(0, 1)
        job.progress.report(1, 1, stage="painting", preview=lambda: picture)
        return picture

    def portable(self, styles: Styles, knobs: CycleGan.Knobs, context: Context) -> Portable:
        fingerprint = weights.fingerprint(knobs.weights)
        network = _network(knobs.weights, fingerprint, knobs.direction, context.device, torch.float32)
        return Portable(
            [network],
            lambda content: network.paint(content).clamp(0, 1),
            smallest=max(32, network.smallest),
        )

    # the training

    def networks(self, training: Any, data: DataInfo) -> dict[str, torch.nn.Module]:
        from atelier.translators.cyclegan import Generator, PatchCritic

        check_crop(training.crop, Generator.multiple, "so the cycle would change the size")
        generators = {name: Generator(training.width, training.blocks) for name in GENERATORS}
        return generators | {name: PatchCritic(training.width) for name in ("critic_a", "critic_b")}

    def optimisers(
        self, networks: Mapping[str, torch.nn.Module], training: Any
    ) -> dict[str, torch.optim.Optimizer]:
        groups = {"generators": GENERATORS, "critics": ("critic_a", "critic_b")}
        return {
            group: torch.optim.Adam(
                [weight for name in names for weight in networks[name].parameters()],
                lr=training.learning_rate,
                betas=(0.5, 0.999),
            )
            for group, names in groups.items()
        }

    def state(self, training: CycleGan.Training) -> dict[str, Stateful]:
        return {name: ImagePool(training.pool) for name in ("pool_a", "pool_b")}

    def updates(
        self, networks: Mapping[str, Any], batch: Batch, training: Any, state: Mapping[str, Any]
    ) -> Iterator[Update]:
        from atelier.losses.adversarial import least_squares

        real = {name: 2 * batch[name] - 1 for name in ("a", "b")}
        made = {"a": networks["b_to_a"](real["b"]), "b": networks["a_to_b"](real["a"])}
        critics = {name: networks[f"critic_{name}"] for name in real}
        terms = {f"real_{name}": least_squares(critics[name](made[name]), 1) for name in ("b", "a")}
        yield Update("generators", terms | self._kept(networks, real, made, training))
        old = {name: state[f"pool_{name}"].exchange(made[name], batch.generator) for name in ("b", "a")}
        yield Update(
            "critics",
            {
                f"critic_{name}": 0.5
                * (least_squares(critic(real[name]), 1) + least_squares(critic(old[name]), 0))
                for name, critic in critics.items()
            },
        )

    @staticmethod
    def _kept(
        networks: Mapping[str, Any], real: Mapping[str, Tensor], made: Mapping[str, Tensor], training: Any
    ) -> dict[str, Tensor]:
        """What the generators must keep: pictures that go there and back, and those of their own domain."""
        to = {"a": networks["b_to_a"], "b": networks["a_to_b"]}
        cycle = training.cycle_weight
        other = {"a": "b", "b": "a"}
        terms = {f"cycle_{name}": cycle * absolute(to[name](made[other[name]]), real[name]) for name in real}
        if identity := cycle * training.identity_weight:
            terms |= {f"same_{name}": identity * absolute(to[name](real[name]), real[name]) for name in real}
        return terms

    def judge(self, networks: Mapping[str, Any], batch: Batch, training: Any) -> dict[str, Tensor]:
        """The mean absolute errors of held-out pictures after there and back, in units of 0..1."""
        there, back = networks["a_to_b"], networks["b_to_a"]
        return {
            "cycle_a": absolute(back.paint(there.paint(batch["a"])), batch["a"]),
            "cycle_b": absolute(there.paint(back.paint(batch["b"])), batch["b"]),
        }

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, Tensor]]:
        from atelier.translators.cyclegan import Generator

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = Generator(4, blocks=2)
            for weight in network.parameters():
                torch.nn.init.normal_(weight, std=0.2)
        return {"weights": network.state_dict()}


# The fingerprint is part of the cache key: changed weights under the same name are reloaded.
@kept
def _network(
    name: str, fingerprint: str, direction: Direction, device: torch.device, dtype: torch.dtype
) -> Translator:
    from atelier.translators.cyclegan import from_state

    try:
        return from_state(_one_way(name, direction)).prepare(device, dtype)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error


def _one_way(name: str, direction: Direction) -> dict[str, Tensor]:
    """The tensors of one direction, from a file with both or with one. Raises UsageError if it is absent."""
    state = weights.load(name)
    prefix = f"{direction}."
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if found:
        return found
    if direction != GENERATORS[0]:
        raise UsageError(f"{name} holds one direction only: leave out --direction {direction}")
    return dict(state)
