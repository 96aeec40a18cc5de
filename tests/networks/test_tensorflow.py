"""TensorFlow's conventions: padding against plain loops, folded batch norm, and converted names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from atelier.core.errors import WeightsError
from atelier.features.vgg import VGG16
from atelier.networks.tensorflow import BatchNorm, Convolution, fold, translate, vgg_from_slim


def slow(image: np.ndarray, kernel: np.ndarray, stride: int, mode: str | None) -> np.ndarray:
    """(C, H, W) by (O, C, h, w), with NumPy's padding of half a kernel, one product at a time."""
    height, width = kernel.shape[2:]
    if mode:
        around = ((0, 0), (height // 2,) * 2, (width // 2,) * 2)
        image = np.pad(image, around, mode=mode)
    rows = range(0, image.shape[1] - height + 1, stride)
    columns = range(0, image.shape[2] - width + 1, stride)
    return np.array(
        [
            [[(image[:, y : y + height, x : x + width] * one).sum() for x in columns] for y in rows]
            for one in kernel
        ]
    )


@pytest.mark.parametrize(
    ("padding", "mode", "stride", "kernel"),
    [
        ("reflect", "reflect", 1, (3, 3)),
        ("reflect", "reflect", 2, (3, 3)),
        ("reflect", "reflect", 1, (5, 5)),
        ("same", "constant", 1, (1, 7)),
        ("same", "constant", 1, (3, 3)),
        ("valid", None, 2, (3, 3)),
    ],
)
def test_convolution_padding_modes(
    padding: Any, mode: str | None, stride: int, kernel: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = Convolution(2, 3, kernel, stride=stride, padding=padding).double()
    image = torch.rand(1, 2, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        found = layer(image)[0].numpy()
    assert np.allclose(found, slow(image[0].numpy(), layer.weight.detach().numpy(), stride, mode))


def test_batch_norm_has_no_scale() -> None:
    norm = BatchNorm(2)
    assert norm.state_dict().keys() == {"bias", "running_mean", "running_var"}
    norm.running_mean += torch.tensor([1.0, 2.0])
    norm.running_var *= torch.tensor([4.0, 9.0])
    nn.init.constant_(norm.bias, 0.5)
    found = norm.eval()(torch.full((1, 2, 1, 1), 3.0)).flatten().tolist()
    assert found == pytest.approx([2 / (4 + 1e-3) ** 0.5 + 0.5, 1 / (9 + 1e-3) ** 0.5 + 0.5])


def test_batch_norm_updates_running_moments() -> None:
    norm, batch = BatchNorm(3).train(), torch.rand(4, 3, 8, 8) + 5
    for _ in range(800):
        made = norm(batch)
    assert norm.running_mean.tolist() == pytest.approx(batch.mean((0, 2, 3)).tolist(), rel=1e-2)
    assert made.mean((0, 2, 3)).abs().max() < 1e-4


def test_folding_preserves_the_output() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Convolution(3, 4, (3, 3), norm=True), Convolution(4, 2, (3, 3)))
    for part in network.modules():
        if isinstance(part, BatchNorm):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.bias)
    image = torch.rand(2, 3, 6, 5)
    with torch.no_grad():
        before = network.eval()(image)
        fold(network, torch.float32)
        after = network(image)
    assert (before - after).abs().max() < 1e-5
    assert network.state_dict().keys() == {"0.weight", "0.bias", "1.weight"}
    fold(network, torch.bfloat16)
    assert {value.dtype for value in network.state_dict().values()} == {torch.bfloat16}
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_translate_converts_names_and_kernels() -> None:
    kernel = torch.arange(24.0).view(2, 3, 4, 1)
    found = translate(
        {
            "a/b/weights": kernel,
            "a/b/biases": torch.ones(1),
            "a/b/BatchNorm/beta": torch.ones(2),
            "a/b/BatchNorm/moving_mean": torch.ones(3),
            "a/b/BatchNorm/moving_variance": torch.ones(4),
            "a/step": torch.ones(()),
        }
    )
    assert {name: value.numel() for name, value in found.items()} == {
        "a.b.weight": 24,
        "a.b.bias": 1,
        "a.b.norm.bias": 2,
        "a.b.norm.running_mean": 3,
        "a.b.norm.running_var": 4,
        "a.step": 1,
    }
    assert found["a.b.weight"].shape == (1, 4, 2, 3)
    assert found["a.b.weight"][0, 2, 1, 0] == kernel[1, 0, 2, 0]


def test_vgg_from_slim_gives_the_same_features() -> None:
    """255 times the picture less a mean, through the kernel as stored, away from the border."""
    torch.manual_seed(0)
    kernel, bias = torch.randn(3, 3, 3, 4), torch.randn(4)
    found = vgg_from_slim({"vgg_16/conv1/conv1_1/weights": kernel, "vgg_16/conv1/conv1_1/biases": bias})
    picture = torch.rand(1, 3, 9, 9)
    seen = 255 * picture - torch.tensor((123.68, 116.779, 103.939)).view(1, 3, 1, 1)
    expected = nn.functional.conv2d(seen, kernel.permute(3, 2, 0, 1), bias)
    mean, deviation = (torch.tensor(part).view(1, 3, 1, 1) for part in (VGG16.mean, VGG16.std))
    made = nn.functional.conv2d((picture - mean) / deviation, found["conv1_1.weight"], found["conv1_1.bias"])
    assert (made - expected).abs().max() < 1e-3


def test_other_weights_than_vgg_are_an_error() -> None:
    with pytest.raises(
        WeightsError, match=r"these 1 tensors are not those of TF-slim's VGG-16: conv1_1\.bias"
    ):
        vgg_from_slim({"vgg_19/conv1/conv1_1/weights": torch.ones(3, 3, 3, 4)})
