"""The classifier: folding batch norm preserves outputs, and the default layout is the bundled encoder's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from atelier.features.vgg import from_official, recognise
from atelier.networks.classifier import Classifier, fold

WIDTHS, DEPTHS = (4, 6, 8, 8), (2, 1, 2, 1)
MEAN = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
DEVIATION = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)


@pytest.fixture
def network() -> Classifier:
    """A tiny classifier whose batch norm has statistics and weights of its own."""
    torch.manual_seed(0)
    made = Classifier(widths=WIDTHS, depths=DEPTHS, objects=5, styles=3)
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(values, mean=0.2, std=0.5)
            nn.init.uniform_(norm.running_var, 0.3, 2.0)
    return made.eval()


@pytest.mark.parametrize("shape", [(32, 32), (19, 27), (1, 1)])
def test_folded_features_match_the_network(network: Classifier, shape: tuple[int, int]) -> None:
    state = fold(network)
    encoder = from_official(recognise(state), state)
    assert encoder.plan.widths == WIDTHS
    assert encoder.plan.convs == DEPTHS
    image = torch.rand(2, 3, *shape)
    found = encoder(image, [tap for tap in encoder.taps if tap.startswith("relu")])
    with torch.no_grad():
        features = (image - MEAN) / DEVIATION
        for number in range(1, len(WIDTHS) + 1):
            if number > 1:
                features = F.max_pool2d(features, 2, ceil_mode=True)
            for index, convolution in enumerate(network.stage(number), start=1):
                features = convolution(features)
                assert (found[f"relu{number}_{index}"] - features).abs().max() < 1e-5


def test_folded_tensors_are_float32_and_detached(network: Classifier) -> None:
    state = fold(network)
    assert len(state) == 2 * sum(DEPTHS)
    for value in state.values():
        assert value.dtype == torch.float32
        assert not value.requires_grad
        assert value.is_contiguous()


@pytest.mark.parametrize("shape", [(1, 1), (17, 5), (64, 64)])
def test_both_heads_at_any_size(network: Classifier, shape: tuple[int, int]) -> None:
    objects, styles = network(torch.rand(2, 3, *shape))
    assert objects.shape == (2, 5)
    assert styles is not None
    assert styles.shape == (2, 3)
    assert torch.isfinite(objects).all()
    assert torch.isfinite(styles).all()


def test_network_without_a_style_head() -> None:
    network = Classifier(widths=(4, 4), depths=(1, 1), objects=7)
    objects, styles = network(torch.rand(2, 3, 16, 16))
    assert objects.shape == (2, 7)
    assert styles is None


def test_flat_pictures_have_finite_gradients(network: Classifier) -> None:
    # The style head reads a deviation, whose root has no slope at 0.
    network.train()
    _, styles = network(torch.zeros(4, 3, 16, 16))
    assert styles is not None
    styles.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_default_layout_matches_the_bundled_encoder() -> None:
    network = Classifier()
    plan = recognise({name: value for name, value in fold(network).items() if name[:7] != "conv5_2"})
    assert plan.name == "encoder"
    assert plan.widths == (32, 64, 128, 256, 256)
    assert plan.convs == (2, 2, 3, 3, 1)


def test_the_seed_determines_the_weights() -> None:
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(Classifier(widths=(4,), depths=(1,), objects=2).state_dict()["convs.conv1_1.0.weight"])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
