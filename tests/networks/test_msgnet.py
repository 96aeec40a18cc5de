"""MSG-Net: sizes, blended styles, masks of styles, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import atelier
from atelier.core.errors import WeightsError
from atelier.methods.base import Batch
from atelier.methods.feedforward.msgnet import MsgNet
from atelier.networks.msgnet import CoMatch, MSGNet, load_msgnet


def network() -> MSGNet:
    torch.manual_seed(0)
    return MSGNet(4, 2, 8).near_grey()


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (16, 16), (17, 30)])
def test_pictures_keep_their_size(size: tuple[int, int]) -> None:
    paint = network()
    with torch.no_grad():
        made = paint(torch.rand(2, 3, *size), paint.target(torch.rand(1, 3, 20, 12)))
    assert made.shape == (2, 3, *size)
    assert torch.isfinite(made).all()


def test_comatch_is_the_formula() -> None:
    """(W G)' X, for one style and for a style each."""
    layer, features = CoMatch(6), torch.rand(2, 6, 3, 5)
    grams = torch.rand(2, 6, 6)
    with torch.no_grad():
        for target in (grams[:1], grams):
            moved = (layer.weight @ target).mT.expand(2, -1, -1) @ features.flatten(2)
            torch.testing.assert_close(layer(features, target), moved.unflatten(2, (3, 5)))


def test_hidden_pixels_of_a_style_do_not_count() -> None:
    paint, style = network(), torch.rand(1, 3, 32, 32)
    seen = torch.zeros(1, 1, 32, 32)
    seen[..., :12] = 1
    other = style.clone()
    other[..., 28:] = 0  # beyond what the visible features see
    with torch.no_grad():
        whole = paint.target(style)
        assert not torch.allclose(paint.target(style, seen), whole, rtol=1e-3)
        torch.testing.assert_close(paint.target(style, torch.ones_like(seen)), whole)


def test_own_and_published_tensors_load(tmp_path: Path) -> None:
    paint, photo = network(), torch.rand(1, 3, 20, 24)
    again = load_msgnet(paint.state_dict())
    with torch.no_grad():
        target = paint.target(photo)
        torch.testing.assert_close(again(photo, target), paint(photo, target))
    with pytest.raises(WeightsError, match=r"match\.weight is missing"):
        load_msgnet({"decoder.weight": torch.zeros(3)})
    state = paint.state_dict()
    del state["blocks.1.narrow.bias"]
    with pytest.raises(WeightsError, match=r"blocks\.1\.narrow\.bias"):
        load_msgnet(state)


def test_styles_blend_their_gram_matrices(tmp_path: Path) -> None:
    """Half of one style and half of another lie between both, and one style twice is that style."""
    save_file(network().state_dict(), tmp_path / "msgnet.safetensors")
    photo, first, second = (torch.rand(24, 32, 3).numpy() for _ in range(3))

    def made(*styles: object) -> torch.Tensor:
        settings = {"weights": str(tmp_path / "msgnet.safetensors"), "half": False, "device": "cpu"}
        picture = atelier.stylize(photo, list(styles), method="msgnet", **settings)
        return torch.from_numpy(picture.pixels)

    one, other, both = made(first), made(second), made(first, second)
    torch.testing.assert_close(made(first, first), one, atol=1e-5, rtol=0)
    assert not torch.allclose(one, other, atol=1e-3)
    assert (both - one).abs().mean() < (other - one).abs().mean()


def test_a_few_steps_of_training_lower_the_loss(tiny_encoder: Path) -> None:
    # With a stem of 8, the gradient of torch 2.13 with oneDNN writes outside its memory on an AMD EPYC.
    training = MsgNet.Training(encoder=str(tiny_encoder), width=4, blocks=1, stem=16)
    torch.manual_seed(0)
    method = MsgNet()
    learner = method.network(training)
    items = {"photos": torch.rand(2, 3, 48, 48), "styles": [torch.rand(1, 3, 40, 56)]}
    optimiser = torch.optim.Adam(learner.parameters(), 1e-3)
    losses = []
    for step in range(20):
        batch = Batch(items, step, torch.Generator().manual_seed(step))
        whole = torch.stack(list(method.losses(learner, batch, training).values())).sum()
        optimiser.zero_grad()
        whole.backward()
        optimiser.step()
        losses.append(whole.item())
    assert losses[-1] < 0.85 * losses[0]
