"""Johnson et al.'s network: sizes, files, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import atelier
from atelier.core.errors import WeightsError
from atelier.methods.feedforward.johnson import Johnson as Method
from atelier.networks.johnson import Johnson, load_johnson
from atelier.store import weights


def network(tensorflow: bool = False) -> Johnson:
    torch.manual_seed(0)
    return Johnson((4, 6, 8), 2, tensorflow=tensorflow)


@pytest.mark.parametrize("tensorflow", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 20), (16, 16), (17, 30)])
def test_pictures_keep_their_size(size: tuple[int, int], tensorflow: bool) -> None:
    with torch.no_grad():
        made = network(tensorflow)(torch.rand(2, 3, *size))
    assert made.shape == (2, 3, *size)
    assert torch.isfinite(made).all()


@pytest.mark.parametrize("tensorflow", [False, True])
def test_a_batch_is_its_pictures(tensorflow: bool) -> None:
    both = torch.rand(2, 3, 16, 20)
    with torch.no_grad():
        paint = network(tensorflow)
        torch.testing.assert_close(paint(both)[1:], paint(both[1:]), atol=1e-4, rtol=1e-4)


def test_half_precision_keeps_the_steps_of_a_picture() -> None:
    paint, photo = network().near_grey(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        exact = paint(photo)
        half = paint.prepare(torch.device("cpu"), torch.bfloat16)(photo)
    assert (half - exact).abs().max() < 0.02
    assert len(half.unique()) > 2000  # bfloat16 has 128 numbers between 128 and 255


def as_manifest(folder: Path, change: dict[str, object] | None = None) -> Path:
    """A network of Engstrom's form in the files of deeplearn.js."""
    state, names = network(tensorflow=True).state_dict(), []
    for layer in ("conv1", "conv2", "conv3", "res1.1", "res1.2", "res2.1", "res2.2"):
        block, _, part = layer.partition(".")
        convolution = f"{block}.conv{part}" if part else block
        norm = f"{block}.in{part}" if part else block.replace("conv", "in")
        names += [f"{convolution}.conv2d.weight", f"{norm}.bias", f"{norm}.weight"]
    for number in (1, 2, 3):
        names += [f"deconv{number}.conv2d.weight", f"in{number + 3}.bias", f"in{number + 3}.weight"]
    manifest = {}
    for place, name in enumerate(names):
        variable = f"Variable_{place}" if place else "Variable"
        value = state[name]
        array = (value.permute(2, 3, 1, 0) if value.ndim == 4 else value).contiguous().numpy()
        array.astype("<f4").tofile(folder / variable)
        manifest[variable] = {"filename": variable, "shape": list(array.shape)}
    manifest["Variable"] |= change or {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / "manifest.json"


def test_the_files_of_deeplearn_js_load(tmp_path: Path) -> None:
    photo = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        made = load_johnson(weights.load(as_manifest(tmp_path)))(photo)
        torch.testing.assert_close(made, network(tensorflow=True)(photo), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"filename": "absent"}, "absent, which is not beside it"),
        ({"filename": "../up"}, "another folder"),
        ({"shape": [9, 9, 3, 5]}, r"does not hold the shape \(9, 9, 3, 5\)"),
        ({"shape": None}, "is damaged"),
    ],
)
def test_a_manifest_that_does_not_fit_its_files(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(WeightsError, match=sentence):
        weights.load(as_manifest(tmp_path, change))


def test_other_networks_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"conv1\.conv2d\.weight is missing"):
        load_johnson({"decoder.weight": torch.zeros(3)})
    state = network().state_dict()
    del state["res2.in1.bias"]
    with pytest.raises(WeightsError, match=r"res2\.in1\.bias"):
        load_johnson(state)


def test_the_method_says_how_to_get_a_network() -> None:
    with pytest.raises(atelier.AtelierError, match="atelier train johnson --style PAINTING"):
        atelier.stylize(np.zeros((8, 8, 3), np.float32), method="johnson")


def test_a_step_of_training_lowers_the_loss(tiny_encoder: Path) -> None:
    from atelier.methods.base import Batch

    training = Method.Training(encoder=str(tiny_encoder), widths=(4, 6, 8), blocks=1)
    torch.manual_seed(0)
    method = Method()
    learner = method.network(training)
    items = {"photos": torch.rand(2, 3, 48, 48), "styles": [torch.rand(1, 3, 40, 56)]}
    batch = Batch(items, 0, torch.Generator())
    optimiser = torch.optim.Adam(learner.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        terms = method.losses(learner, batch, training)
        assert terms.keys() == {"content", "style", "smoothness"}
        whole = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        whole.backward()
        optimiser.step()
        losses.append(whole.item())
    assert losses[-1] < 0.8 * losses[0]
