"""The training losses of NNST-D's decoder: terms of another encoder, fine guidance, and learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from atelier import features
from atelier.core.knobs import parse
from atelier.features.vgg import TINY, VGG
from atelier.losses import ContentLoss, MomentLoss
from atelier.maths import channel_moments
from atelier.maths.whitening import adain
from atelier.methods.base import Batch
from atelier.methods.feedforward import nnst_d_losses
from atelier.methods.feedforward.nnst_d import NNSTD
from atelier.methods.feedforward.nnst_d_losses import DecoderLosses
from atelier.training.settings import settings_of


@pytest.fixture
def other(tmp_path: Path) -> str:
    """An encoder of losses that is not the method's own."""
    path = tmp_path / "other.safetensors"
    state = VGG(TINY, seed=11).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return str(path)


def settings(encoder: Path, **more: Any) -> Any:
    given = {"encoder": str(encoder), "half": False, "photos": ["-"], "paintings": ["-"]}
    return parse(settings_of(NNSTD), given | more)


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    photos, paintings = (torch.rand((4, 3, 32, 40), generator=generator) for _ in range(2))
    return Batch.pairs(photos, paintings, 0, generator)


def network(training: Any) -> Any:
    torch.manual_seed(0)
    return NNSTD().network(training)


def test_the_loss_encoder_adds_content_and_style_and_changes_nothing_else(
    tiny_encoder: Path, other: str
) -> None:
    chosen = settings(tiny_encoder, loss_encoder=other)
    decoder = network(chosen)
    plain = NNSTD().losses(decoder, batch(), settings(tiny_encoder))
    losses = DecoderLosses(decoder, batch(), chosen)
    pictures: list[torch.Tensor] = []
    perceived = losses._perceived
    losses._perceived = lambda picture: pictures.append(picture) or perceived(picture)  # type: ignore[method-assign]
    found = losses.terms()
    assert found.keys() - plain.keys() == {"seen content", "seen style"}
    for name, term in plain.items():
        torch.testing.assert_close(found[name], term, rtol=1e-4, atol=1e-5)
    # By hand: AdaIN's losses (Huang & Belongie 2017, eqs. 12 and 13), relative to their targets.
    eye = features.load(other, padding="replicate")
    taps = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    with torch.no_grad():
        style, seen, made = (eye(one, taps) for one in (losses.styles, losses.contents, pictures[0]))
        moments = [MomentLoss(style[tap], relative=True)(made[tap]) for tap in taps]
        contents = [
            ContentLoss(adain(seen[tap], *channel_moments(style[tap], unbiased=True)), relative=True)(
                made[tap]
            )
            for tap in taps[2:]
        ]
    by_hand = {
        "seen style": chosen.seen_style_weight * torch.stack(moments).mean(),
        "seen content": chosen.seen_content_weight * torch.stack(contents).mean(),
    }
    for name, term in by_hand.items():
        torch.testing.assert_close(found[name].detach(), term, rtol=1e-4, atol=1e-6)


def test_a_decoder_without_fine_guidance_gains_it_and_starts_as_it_was(tiny_encoder: Path) -> None:
    coarse, fine = (settings(tiny_encoder, fine=fine) for fine in (False, True))
    plain, gained = network(coarse), network(fine)
    first = NNSTD().losses(plain, batch(), coarse)
    NNSTD().start(gained, plain.state_dict())
    assert gained.fine_guides == ("relu2_1", "relu1_1")
    second = NNSTD().losses(gained, batch(), fine)
    for name, term in first.items():
        torch.testing.assert_close(second[name], term)
    torch.stack(list(second.values())).sum().backward()
    assert all(float(layer.weight.grad.abs().sum()) > 0 for layer in gained.fine)
    with pytest.raises(RuntimeError, match="fine"):
        NNSTD().start(network(coarse), gained.state_dict())


def test_training_with_all_of_it_lowers_the_loss(tiny_encoder: Path, other: str) -> None:
    training = settings(tiny_encoder, loss_encoder=other)
    decoder = network(training)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=2e-3)
    course = []
    for _ in range(20):
        terms = NNSTD().losses(decoder, batch(), training)
        loss = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.append(float(loss.detach()))
    assert sum(course[-3:]) < 0.8 * sum(course[:3])
    assert nnst_d_losses._encoder.cache_info().currsize == 1
