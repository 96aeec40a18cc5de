"""The official CAP-VSTNet checkpoints load under their own names and give the recorded numbers.

The photorealistic and the artistic network have the same names and shapes: the converter says which it is.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.images import labels
from atelier.losses.matting import MattingLoss
from atelier.losses.temporal import TemporalLoss, warp
from atelier.maths.cholesky import gaussian, interpolated, recoloured
from atelier.maths.matting import MattingLaplacian
from atelier.methods.base import Batch, Job
from atelier.methods.feedforward.cap_vstnet import CapVstnet, Loaded, cycle, stylised, unsteadiness
from atelier.networks.reversible import ART, PHOTO, SPREAD, Reversible, from_state, recognise
from atelier.store.checkpoints import check_state, converter

HERE = Path(__file__).parent
PLANS = {"photo": PHOTO, "art": ART}
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)


class Case:
    """A case's arrays, and the network that its official state dict becomes."""

    def __init__(self, kind: str) -> None:
        folder = HERE / f"capvstnet_{kind}"
        self.kind, self.plan = kind, PLANS[kind]
        self.layout: dict[str, Any] = json.loads((folder / "layout.json").read_text())
        self.arrays = np.load(folder / "case.npz")
        self.filled = {name: self.fill(name) for name in ("revnet", "vgg")}
        self.state = {name: torch.from_numpy(value) for name, value in self.filled["revnet"].items()}

    def fill(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = fill.fill_state_dict(self.layout, self.layout["fill_seed"], model=model)
        return found

    def network(self) -> Reversible:
        """The official tensors, through the product's converter and into its network."""
        return from_state(converter(f"cap_vstnet_{self.kind}")(self.state))

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def check(self, name: str, value: Tensor) -> None:
        fill.check(self.arrays, self.layout, name, value.detach().numpy())


@pytest.fixture(scope="module", params=list(PLANS))
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module")
def loaded(case: Case) -> Loaded:
    return Loaded(case.network().prepare("cpu", torch.float32))


@pytest.fixture(scope="module")
def encoder_file(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.numpy import save_file

    path = tmp_path_factory.mktemp("encoder") / "vgg_normalised.safetensors"
    save_file(case.filled["vgg"], path)
    return path


def job(case: Case, styles: list[str], shares: list[float], strength: float = 1.0) -> Job:
    pictures = [case.tensor(name) for name in styles]
    return Job(
        case.tensor("content"), pictures, shares, torch.device("cpu"), torch.float32, strength=strength
    )


# the layout


def test_fill_is_the_recorded_one(case: Case) -> None:
    for name, filled in case.filled.items():
        assert fill.state_dict_sha256(filled) == case.layout["models"][name]["fill_sha256"]


def test_layout_is_the_plans(case: Case) -> None:
    official = case.layout["models"]["revnet"]["official_layout"]
    assert {name: tuple(spec["shape"]) for name, spec in official.items()} == case.plan.shapes()
    check_state(case.plan.shapes(), case.state)


def test_the_converter_tells_the_two_apart(case: Case) -> None:
    state = converter(f"cap_vstnet_{case.kind}")(case.state)
    assert state.keys() - case.state.keys() == {SPREAD}
    assert recognise(state) == recognise(case.state, spread=case.plan.spread) == case.plan
    with pytest.raises(WeightsError, match="set the knob network to photo or art"):
        recognise(case.state)


def test_a_published_file_given_by_its_path(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "official.pt"
    torch.save({"state_dict": case.state}, path)
    content = case.tensor("content")
    parse = CapVstnet.Knobs(weights=str(path), network=case.kind)
    picture = CapVstnet().transfer(job(case, ["style"], [1.0]), parse)
    assert picture.shape == content.shape
    if case.kind == "photo":  # recorded in full
        assert (picture - case.tensor("stylized").clamp(0, 1)).abs().max() < 1e-3
    with pytest.raises(WeightsError, match=r"official\.pt: .*set the knob network"):
        CapVstnet().transfer(job(case, ["style"], [1.0]), CapVstnet.Knobs(weights=str(path)))


# the transfer


@torch.inference_mode()
def test_there_and_back(case: Case, loaded: Loaded) -> None:
    found = loaded.features(case.tensor("content"))
    case.check("z_content", found)
    case.check("z_style", loaded.features(case.tensor("style")))
    case.check("reconstruction", loaded.network(found, inverse=True))


@torch.inference_mode()
def test_transfer(case: Case, loaded: Loaded) -> None:
    found = loaded.features(case.tensor("content"))
    style = gaussian(loaded.features(case.tensor("style")))
    case.check("z_transfer", recoloured(found, gaussian(found), style))
    case.check("stylized", stylised(loaded, job(case, ["style"], [1.0])))


@torch.inference_mode()
def test_interpolation(case: Case, loaded: Loaded) -> None:
    case.check("stylized_alpha_c0.5", stylised(loaded, job(case, ["style"], [1.0], strength=0.5)))
    both = job(case, ["style", "style2"], [0.3, 0.7], strength=0.75)
    case.check("stylized_interp", stylised(loaded, both))
    found = loaded.features(case.tensor("content"))
    now = gaussian(found)
    styles = [(share, loaded.style(style)) for share, style in zip((0.3, 0.7), both.styles, strict=True)]
    case.check("z_interp", recoloured(found, now, interpolated(styles, now, 0.75)))


@torch.inference_mode()
def test_regions(case: Case, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [case.tensor(name)[0].long() for name in ("content_mask", "style_mask")]
    case.check("stylized_seg", stylised(loaded, job(case, ["style"], [1.0]), maps))
    # The same run, stopped before the way back.
    monkeypatch.setattr(Reversible, "_inverse", lambda self, features: features)
    case.check("z_transfer_seg", stylised(loaded, job(case, ["style"], [1.0]), maps))


def test_labels(case: Case) -> None:
    content, style = (case.tensor(name)[0].long() for name in ("content_mask", "style_mask"))
    found = content.unique()
    case.check("seg_labels", found)
    valid = torch.zeros(int(found.max()) + 1)
    valid[labels.shared(content, style)] = 1
    case.check("seg_label_valid", valid)


def test_labels_that_stand_in(case: Case) -> None:
    mapping, style = case.tensor("label_mapping"), case.tensor("seg_style")
    large = labels.without_slivers(case.tensor("seg_content"), mapping)
    case.check("seg_content_self", large)
    case.check("seg_content_cross", labels.with_stand_ins(large, style, mapping))


def test_flat_style(case: Case) -> None:
    content, style = case.tensor("flat_content_feat"), case.tensor("flat_style_feat")
    case.check("flat_transfer", recoloured(content, gaussian(content), gaussian(style)))


# the training


def test_laplacian(case: Case) -> None:
    content, style = case.tensor("content_batch")[:1], case.tensor("style_batch")[:1]
    laplacian, pixels = MattingLaplacian(content), content.shape[-2:].numel()
    vector = case.tensor("laplacian_vector").view(1, 1, *content.shape[-2:])
    case.check("laplacian_times_vector", laplacian.times(vector).flatten())
    case.check("laplacian_diagonal", diagonal(laplacian, content.shape[-2:]))
    case.check("lap_loss_of_style_image", laplacian.energy(style)[None] / pixels)
    case.check("lap_grad_of_style_image", 2 * laplacian.times(style)[0] / pixels)


def diagonal(laplacian: MattingLaplacian, size: Any) -> Tensor:
    """By combs of ones 5 pixels apart, for no window holds two of them."""
    rows, columns = torch.meshgrid(*(torch.arange(side) % 5 for side in size), indexing="ij")
    combs = torch.nn.functional.one_hot(5 * rows + columns, 25).movedim(-1, 0)[None].double()
    return (laplacian.times(combs) * combs).sum((0, 1)).flatten()


def test_pictures_of_training(case: Case) -> None:
    with torch.no_grad():
        picture, again, _ = cycle(case.network(), case.tensor("content_batch"), case.tensor("style_batch"))
    case.check("train_stylized", picture)
    case.check("train_rec", again)
    picture.requires_grad_()
    MattingLoss(case.tensor("content_batch"), weight=1500)(picture).backward()
    case.check("lap_grad_clamped", picture.grad)


def published(encoder: Path, **chosen: Any) -> CapVstnet.Training:
    weights = {"style_weight": 1.0, "colour_weight": 0.0, "matting_weight": 1500.0}
    return CapVstnet.Training(encoder=str(encoder), scale="published", **weights, **chosen)


def terms(case: Case, network: Reversible, encoder: Path, **chosen: Any) -> dict[str, Tensor]:
    training = published(encoder, **chosen)
    batch = Batch.pairs(case.tensor("content_batch"), case.tensor("style_batch"), 0, torch.Generator())
    return CapVstnet().losses(network, batch, training)


def gradients(case: Case, network: Reversible) -> Tensor:
    found = dict(network.named_parameters())
    return torch.stack([found[name].grad.norm() for name in case.layout["grad_order"]])


def test_losses_and_gradient(case: Case, encoder_file: Path) -> None:
    network = case.network()
    found = terms(case, network, encoder_file, content_weight=1)
    case.check("loss_content", found.pop("content"))
    assert found.keys() == {"style", "reconstruction", "matting"}
    case.check("loss_style", found["style"])
    case.check("loss_rec", found["reconstruction"] / 10)
    case.check("loss_lap", found["matting"] / 1500)
    torch.stack(list(found.values())).sum().backward()
    norms = gradients(case, network)
    case.check("grad_l2_image", norms)
    case.check("grad_total_l2_image", norms.norm())


def test_temporal_loss(case: Case, encoder_file: Path) -> None:
    network, content, flow = case.network(), case.tensor("content_batch"), case.tensor("flow")
    second = warp(content, flow) + case.tensor("frame2_noise")
    case.check("second_frame", second)
    case.check("loss_tmp_gt", TemporalLoss(flow)(content, second))
    picture, again, target = cycle(network, content, case.tensor("style_batch"))
    case.check("warped_stylized", warp(picture, flow))
    steadiness = unsteadiness(network, picture, second, flow, target)
    case.check("loss_tmp", steadiness)
    found = CapVstnet()._seen(
        picture,
        content,
        case.tensor("style_batch"),
        published(encoder_file),
    )
    (found["style"] + 10 * (again - content).abs().mean() + 60 * steadiness).backward()
    case.check("grad_l2_style_rec_tmp", gradients(case, network))
