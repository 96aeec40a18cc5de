"""The losses of one-pass networks: zero at their targets, per-picture means, closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atelier.features.vgg import TINY, VGG
from atelier.losses.pastiche import STYLE, Pastiche, variation


@pytest.fixture(scope="module")
def encoder() -> VGG:
    return VGG(TINY, seed=1)


@pytest.fixture(scope="module", params=[True, False], ids=["relative", "published"])
def judge(request: pytest.FixtureRequest, encoder: VGG) -> Pastiche:
    return Pastiche(encoder, relative=request.param)


def test_loss_is_zero_at_the_targets(judge: Pastiche) -> None:
    picture = torch.rand(2, 3, 24, 24)
    terms = judge(picture, picture, judge.grams(judge.see(picture)))
    assert terms.keys() == {"content", *STYLE, "smoothness"}
    for name in ("content", *STYLE):
        assert float(terms[name]) == pytest.approx(0, abs=1e-6)
    assert float(terms["smoothness"]) > 0


def test_batch_loss_is_the_mean_over_pictures(encoder: VGG) -> None:
    torch.manual_seed(0)
    judge = Pastiche(encoder)
    painted, photos, styles = (
        torch.rand(2, 3, 16, 16) * torch.tensor([1.0, 0.3]).view(2, 1, 1, 1) for _ in "abc"
    )
    whole = judge(painted, photos, judge.grams(judge.see(styles)))
    each = [
        judge(painted[i : i + 1], photos[i : i + 1], judge.grams(judge.see(styles[i : i + 1])))
        for i in (0, 1)
    ]
    for name, value in whole.items():
        assert float(value) == pytest.approx(float(each[0][name] + each[1][name]) / 2, rel=1e-4), name


def test_relative_loss_is_one_for_zero_features() -> None:
    class Blind(VGG):
        def forward(self, image: torch.Tensor, taps: object) -> dict[str, torch.Tensor]:
            found = super().forward(image, taps)  # type: ignore[arg-type]
            return {name: value * image.amax() for name, value in found.items()}

    judge = Pastiche(Blind(TINY, seed=1))
    photos = torch.rand(2, 3, 16, 16)
    terms = judge(torch.zeros(2, 3, 16, 16), photos, judge.grams(judge.see(photos)))
    for name in ("content", *STYLE):
        assert float(terms[name]) == pytest.approx(1, rel=1e-5)


def test_a_black_style_does_not_dominate_the_batch(encoder: VGG) -> None:
    judge = Pastiche(encoder)
    painted = torch.rand(4, 3, 16, 16)
    styles = torch.cat([torch.rand(3, 3, 16, 16), torch.full((1, 3, 16, 16), 1e-4)])
    found = judge(painted, painted, judge.grams(judge.see(styles)))
    assert all(torch.isfinite(value) for value in found.values())
    assert float(found["relu1_2"]) < 1e3 * 4


def test_one_style_is_broadcast_over_the_batch(encoder: VGG) -> None:
    judge = Pastiche(encoder)
    painted, style = torch.rand(2, 3, 16, 16), torch.rand(1, 3, 16, 16)
    grams = judge.grams(judge.see(style))
    twice = {tap: value.expand(2, -1, -1) for tap, value in grams.items()}
    one, two = judge(painted, painted, grams), judge(painted, painted, twice)
    assert all(float(one[name]) == pytest.approx(float(two[name]), rel=1e-5) for name in one)


def test_variation_by_hand() -> None:
    image = np.random.default_rng(0).random((2, 3, 5, 7))
    down = np.square(np.diff(image, axis=2)).sum() / 2 / (4 * 7 * 3) / 2
    right = np.square(np.diff(image, axis=3)).sum() / 2 / (5 * 6 * 3) / 2
    assert float(variation(torch.from_numpy(image))) == pytest.approx(down + right)
    assert float(variation(torch.rand(1, 3, 1, 1))) == 0


def test_gradients_reach_only_the_painting(judge: Pastiche) -> None:
    painted = torch.rand(1, 3, 16, 16).requires_grad_()
    photos = torch.rand(1, 3, 16, 16).requires_grad_()
    terms = judge(painted, photos, judge.grams(judge.see(photos)))
    torch.stack(list(terms.values())).sum().backward()
    assert photos.grad is None
    assert painted.grad is not None
    assert torch.isfinite(painted.grad).all()
