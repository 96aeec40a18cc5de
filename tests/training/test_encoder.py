"""The encoder's training: it learns, exports the evaluated network, and the export loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from atelier import features
from atelier.core.errors import TrainingError
from atelier.core.progress import Event, Progress
from atelier.methods.base import Batch
from atelier.store.weights import metadata
from atelier.training.encoder import DEVIATION, MEAN, EncoderTask
from atelier.training.loop import Run

Settings = Callable[..., Any]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_training_learns_two_classes(settings: Settings, tmp_path: Path) -> None:
    chosen = settings(steps=60, batch=12, average=0.9, warmup=5)
    events: list[Event] = []
    run = Run(EncoderTask(chosen), chosen, tmp_path)
    assert run.go(Progress(events.append))
    losses = [event.losses["loss"] for event in events]
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    scores = run.judge()
    assert scores.keys() == {"top1_48", "top1_64", "top1_96"}
    assert max(scores.values()) >= 0.9


def test_a_batch_depends_only_on_step_and_generator(settings: Settings) -> None:
    task = EncoderTask(settings())
    first, again = (task.batch(3, generator(7)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    images, objects, styles = first
    assert images.shape[:2] == (6, 3)
    assert images.shape[2] in (16, 20)
    assert objects.shape == (6,)
    assert len(styles) == 0


def test_late_batches_are_larger(settings: Settings) -> None:
    task = EncoderTask(settings(steps=100, cooldown=0.3))
    assert task.batch(69, generator())[0].shape[-1] in (16, 20)
    assert task.batch(71, generator())[0].shape[-1] == 24
    # The rate is below 1 in the warm-up too, but that is no cool-down.
    assert task.batch(0, generator())[0].shape[-1] in (16, 20)


def test_the_style_head_gets_its_fraction_of_the_batch(
    settings: Settings, paintings: Path, shards: Path
) -> None:
    chosen = settings(paintings=str(paintings), scenes=(str(shards / "valid.npz"),), style_share=0.5)
    task = EncoderTask(chosen)
    images, objects, styles = task.batch(0, generator())
    assert (len(images), len(objects), len(styles)) == (9, 6, 3)
    network = task.build()
    batch = Batch({"images": images, "objects": objects, "styles": styles}, 0, generator())
    terms = task.losses(network, batch)
    assert terms.keys() == {"objects", "styles"}
    network.eval()
    with torch.no_grad():
        logits = network(images)[1][6:].log_softmax(1)
        # Label smoothing 0.1: a tenth of the target is spread over all classes; the head's weight is 0.3.
        smooth = -0.9 * logits.gather(1, styles[:, None]).mean() - 0.1 * logits.mean()
        assert float(task.losses(network, batch)["styles"]) == pytest.approx(0.3 * float(smooth), rel=1e-5)
    network.train()
    (terms["objects"] + terms["styles"]).backward()
    assert network.styles is not None
    assert network.styles.weight.grad is not None
    assert network.styles.weight.grad.abs().sum() > 0


def test_norms_and_biases_have_no_weight_decay(settings: Settings) -> None:
    task = EncoderTask(settings(decay=0.01))
    network = task.build()
    for group in task.optimiser(network).param_groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] == 0.01}


def test_calibration_does_not_modify_the_network(settings: Settings) -> None:
    task = EncoderTask(settings())
    network = task.build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    judged = task.calibrated(network, batches=3)
    assert not judged.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    first = judged.convs["conv1_1"].get_submodule("1")
    assert int(first.num_batches_tracked) == 3
    # A plain average of the batches' means, worked out by hand.
    convolution = judged.convs["conv1_1"].get_submodule("0")
    batches = [task.batch(7, generator(index))[0] for index in range(3)]
    means = [convolution(images).mean((0, 2, 3)) for images in batches]
    assert torch.allclose(first.running_mean, torch.stack(means).mean(0), atol=1e-5)


def test_the_export_matches_the_evaluated_network(settings: Settings, tmp_path: Path) -> None:
    chosen = settings(steps=3)
    task = EncoderTask(chosen)
    run = Run(task, chosen, tmp_path / "run")
    run.go()
    path = tmp_path / "encoder.safetensors"
    run.export(path)
    encoder = features.load(path)
    assert encoder.plan.widths == (4, 6, 8)
    assert encoder.plan.convs == (1, 1, 1)
    facts = metadata(path)
    assert facts["network"] == "encoder"
    assert json.loads(facts["scores"]).keys() == {"top1_48", "top1_64", "top1_96"}
    training = json.loads(facts["training"])
    assert training["step"] == 3
    assert training["settings"]["widths"] == [4, 6, 8]
    judged = task.calibrated(run.averages["network"].module, batches=100)
    image = torch.rand(1, 3, 24, 24, generator=generator())
    expected = judged.convs["conv1_1"]((image - MEAN) / DEVIATION)
    assert torch.allclose(encoder(image, ["relu1_1"])["relu1_1"], expected, atol=1e-2, rtol=1e-2)
    expected = judged.convs["conv2_1"](F.max_pool2d(expected, 2, ceil_mode=True))
    assert torch.allclose(encoder(image, ["relu2_1"])["relu2_1"], expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("field", ["photos", "validation"])
def test_missing_data_is_an_error(settings: Settings, tmp_path: Path, field: str) -> None:
    with pytest.raises(TrainingError, match="no training data at"):
        EncoderTask(settings(**{field: (str(tmp_path / "gone.npz"),)}))


def test_missing_paintings_are_an_error(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="must contain one subfolder"):
        EncoderTask(settings(paintings=str(tmp_path / "gone")))
