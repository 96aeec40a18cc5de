"""PHDiffusion: what it changes in a composite, its training from files to a picture, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file

import atelier
from atelier.apps.cli.root import main
from atelier.core import memory
from atelier.core.errors import ResourceError, TrainingError, UsageError, WeightsError
from atelier.core.progress import Event
from atelier.images import Picture, write
from atelier.images.regions import feather
from atelier.training import datasets, streams
from atelier.training.settings import DATA, settings_of

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

from atelier.core.knobs import parse  # noqa: E402
from atelier.methods.diffusion.phdiffusion import Phdiffusion, _Painting  # noqa: E402
from atelier.methods.diffusion.phdiffusion_losses import Box, Losses, moments, projection  # noqa: E402
from atelier.pipelines import phdiffusion as networks  # noqa: E402

Floats = npt.NDArray[np.float32]


@pytest.fixture
def mask() -> Floats:
    mask = np.zeros((40, 56), np.float32)
    mask[8:32, 16:40] = 1
    return mask


@pytest.fixture
def settings(tiny_pipeline: Path, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "weights.safetensors"
    save_file({name: one.contiguous() for name, one in Phdiffusion.tiny()["weights"].items()}, file)
    return {"weights": str(file), "pipeline": str(tiny_pipeline), "steps": 4, "device": "cpu"}


def test_only_the_object_is_drawn_anew(settings: dict[str, Any], photo: Floats, mask: Floats) -> None:
    events: list[Event] = []
    made = atelier.harmonise(photo, mask, method="phdiffusion", progress=events.append, **settings).pixels
    outside = feather(mask, 2) == 0
    assert np.array_equal(made[outside], photo[outside])
    assert np.abs(made - photo)[mask > 0].mean() > 0.02
    assert events[0].note.startswith("memory: ")
    # Three of the four steps, and the doubled one.
    assert [event.done for event in events] == [0, 1, 2, 3, 4]
    whole = atelier.harmonise(
        photo, mask, method="phdiffusion", **settings, quality="published", keep_background=False
    ).pixels
    assert not np.array_equal(whole[outside], photo[outside])


def test_the_plan_counts_the_encoder_and_its_features() -> None:
    network = networks.PhDiffusion(networks.Shape((32, 64), 1))
    picture = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        kept = [*network.parameters(), *network.encoder(picture, picture[:, :1])]
    room: Any = SimpleNamespace(dtype=torch.float32)
    counted = _Painting._bytes(SimpleNamespace(network=network, room=room), picture)  # type: ignore[arg-type]
    assert counted == sum(one.nbytes for one in kept)


def test_a_given_painting_is_under_the_soft_edge(
    settings: dict[str, Any], photo: Floats, mask: Floats
) -> None:
    painting = 1 - photo
    made = atelier.harmonise(photo, mask, painting, method="phdiffusion", feather=6, **settings).pixels
    alone = atelier.harmonise(photo, mask, method="phdiffusion", feather=6, **settings).pixels
    edge = (feather(mask, 6) > 0) & (feather(mask, 6) < 1) & (mask > 0)
    assert np.abs(made - alone)[edge].max() > 0.05


def test_what_cannot_be_done_is_one_sentence(
    settings: dict[str, Any], photo: Floats, mask: Floats, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def harmonised(**more: Any) -> None:
        atelier.harmonise(photo, mask, method="phdiffusion", **settings | more)

    with pytest.raises(WeightsError, match=r"`atelier weights pull phdiffusion\.published`"):
        harmonised(weights="phdiffusion.published")
    other = tmp_path / "other.safetensors"
    wide = networks.PhDiffusion(networks.Shape((64, 64), 1)).state_dict()
    save_file({name: one.contiguous() for name, one in wide.items()}, other)
    with pytest.raises(WeightsError, match="made for another base model: its levels have 64, 64 channels"):
        harmonised(weights=str(other))
    monkeypatch.setattr(memory, "available", lambda device: 1 << 20)
    with pytest.raises(ResourceError, match=r"needs at least .* GiB of memory on cpu"):
        harmonised()
    with pytest.raises(UsageError, match="nnst does not harmonise objects"):
        atelier.harmonise(photo, mask, method="nnst")


# training


@pytest.fixture
def folders(tmp_path: Path, photo: Floats, painting: Floats) -> dict[str, str]:
    """Two photos with masks of two objects each, and two styles of two paintings."""
    shades = np.zeros((40, 56, 3), np.float32)
    shades[4:36, 4:28], shades[4:36, 32:52] = 50 / 255, 100 / 255
    for name in ("photos", "masks", "paintings/first", "paintings/second"):
        (tmp_path / name).mkdir(parents=True)
    for index in range(2):
        write(Picture.of(photo), tmp_path / "photos" / f"{index}.jpg")
        write(Picture.of(shades), tmp_path / "masks" / f"{index}.png")
        write(Picture.of(painting), tmp_path / "paintings" / "first" / f"{index}.png")
        write(Picture.of(1 - painting), tmp_path / "paintings" / "second" / f"{index}.png")
    return {name: str(tmp_path / name) for name in ("photos", "masks", "paintings")}


def composites(folders: dict[str, str], **more: Any) -> datasets.DataSet:
    given = {**folders, "photos": (folders["photos"],), "held_back": 0, "crop": 56}
    return datasets.read("composites", DATA["composites"](**given | more))


def test_composites_show_one_object_and_three_other_paintings(folders: dict[str, str]) -> None:
    data = composites(folders)
    assert str(data) == "2 photos, 4 paintings"
    draws = streams.Draws(data.learn, 56, 0, streams.Decoder(2**20))
    drawn = streams.stacked([draws[0, row] for row in range(16)])
    assert drawn["photos"].shape == drawn["paintings"].shape == (16, 3, 56, 56)
    assert drawn["others"].shape == (16, 3, 3, 56, 56)
    assert set(drawn["masks"].unique().tolist()) == {0, 255}
    # Each mask is one of the two objects, and both are drawn.
    places = {tuple((one[0].any(0)).nonzero().flatten().tolist()) for one in drawn["masks"]}
    assert places == {tuple(range(4, 28)), tuple(range(32, 52))}
    # The other paintings are of the other style, whose grey is the complement.
    sums = drawn["paintings"].float().mean((1, 2, 3)) + drawn["others"].float().mean((1, 2, 3, 4))
    assert (sums - 255).abs().max() < 3


def test_composites_that_cannot_be_made_are_one_sentence(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"there is no mask .*0\.png: each photo needs"):
        composites(folders, masks=folders["paintings"])
    with pytest.raises(TrainingError, match="must contain sub-folders of pictures"):
        composites(folders, paintings=folders["photos"])
    (tmp_path / "one" / "style").mkdir(parents=True)
    write(Picture.of(np.zeros((8, 8, 3), np.float32)), tmp_path / "one" / "style" / "0.png")
    with pytest.raises(TrainingError, match="has one style"):
        composites(folders, paintings=str(tmp_path / "one"))
    for index in range(2):
        write(
            Picture.of(np.zeros((40, 56, 3), np.float32)),
            Path(folders["masks"]) / f"{index}.png",
            overwrite=True,
        )
    draws = streams.Draws(composites(folders).learn, 56, 0, streams.Decoder(2**20))
    with pytest.raises(TrainingError, match="is black: paint each object in a shade of grey"):
        draws[0, 0]


def test_from_folders_to_a_picture(
    settings: dict[str, Any],
    folders: dict[str, str],
    tiny_pipeline: Path,
    tiny_encoder: Path,
    tmp_path: Path,
) -> None:
    """A resumed run writes the file of a whole one, and the command harmonises with it."""
    line = f"train phdiffusion --photos {folders['photos']} --masks {folders['masks']}"
    line += f" --paintings {folders['paintings']} --pipeline {tiny_pipeline} --encoder {tiny_encoder}"
    for out, steps in (("whole", 2), ("parts", 1), ("parts", 2)):
        more = ["--out", str(tmp_path / out), "--steps", str(steps), "--crop", "64", "--save-every", "1"]
        assert main([*line.split(), *more, "--device", "cpu", "--no-half"]) == 0
    files = [tmp_path / out / "phdiffusion.safetensors" for out in ("whole", "parts")]
    whole, parts = (load_file(file) for file in files)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not any(name.startswith("projection") for name in whole)
    photo, mask = f"{folders['photos']}/0.jpg", f"{folders['masks']}/0.png"
    write(Picture.of((Picture.open(mask).pixels > 0.1).astype(np.float32)), tmp_path / "mask.png")
    words = ["harmonise", photo, "--mask", str(tmp_path / "mask.png"), "--method", "phdiffusion"]
    words += ["--weights", str(files[0]), "--pipeline", str(tiny_pipeline), "--steps", "2"]
    assert main([*words, "-o", str(tmp_path / "made.png"), "--device", "cpu"]) == 0
    made = Picture.open(tmp_path / "made.png").pixels
    before = Picture.open(photo).pixels
    assert np.abs(made - before)[8:30, 8:24].mean() > 0.02


def training(**given: Any) -> Any:
    base = {"photos": ("p",), "masks": "m", "paintings": "q"}
    return parse(settings_of(Phdiffusion), base | given)


@pytest.mark.parametrize("variant", ["v1", "v2", "v3", "v4", "v5", "v6"])
def test_ablations_leave_out_what_they_say(
    variant: Any, tiny_pipeline: Path, tiny_encoder: Path, photo: Floats
) -> None:
    chosen = training(
        variant=variant,
        pipeline=str(tiny_pipeline),
        encoder=str(tiny_encoder),
        form="published",
        checkpointing=False,
    )
    method = Phdiffusion()
    network = method.network(chosen)
    picture = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    items = {"photos": picture, "paintings": 1 - picture, "masks": mask, "others": picture[None]}
    batch = atelier.methods.base.Batch(items, 0, torch.Generator().manual_seed(0))
    terms = method.losses(network, batch, chosen)
    absent = {"v1": "style", "v2": "contrast", "v3": "content"}.get(variant)
    assert terms.keys() == {"error", "style", "contrast", "content"} - {absent}
    branches = {"v4": {"unet"}, "v5": {"encoder"}}.get(variant, {"unet", "encoder"})
    assert set(network.model.fusions[0].attentions) == branches
    # A file says itself which branches it has.
    again = networks.read(method.exported({"network": network}), (32, 64), "it")
    assert set(again.shape.branches) == branches
    # The published program never trains the projection.
    (group,) = method.optimisers({"network": network}, chosen)["network"].param_groups
    trained = {id(weight) for weight in group["params"]}
    assert not any(id(weight) in trained for weight in network.projection.parameters())
    if variant == "v6":
        sum(terms.values()).backward()
        assert all(weight.grad is not None for weight in network.model.parameters())


# losses


def test_moments_of_an_object_are_those_of_its_pixels() -> None:
    features = torch.randn((2, 5, 6, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 6, 7)
    mask[:, :, 1:4, 2:6] = 1
    mean, deviation = moments(features, mask)
    pixels = features[:, :, 1:4, 2:6].flatten(2)
    torch.testing.assert_close(mean, pixels.mean(2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(deviation, pixels.std(2, correction=0), atol=1e-4, rtol=1e-4)


def test_the_correct_contrast_sees_the_object_and_not_its_size() -> None:
    """The published box is that of the transposed mask; the correct one is the object's own."""
    torch.manual_seed(0)
    losses = Losses(None, projection(3), "correct")  # type: ignore[arg-type]
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 0:2, 4:8] = 1
    box = Box.of(mask[0, 0])
    assert box == (0, 1, 4, 7)
    assert box.swapped() == (4, 7, 0, 1)
    assert losses.most(box, (8, 8)) == (4, 6)
    features = torch.rand(1, 3, 8, 8)
    others, draws = torch.rand(1, 2, 3, 8, 8), torch.zeros(1, 2)
    found = losses.contrast(features, features, others, mask, draws)
    changed = features.clone()
    changed[..., 4:, :] = 9  # outside of the object, and of the painting's crop at the top
    torch.testing.assert_close(losses.contrast(changed, features, others, mask, draws), found)
    published = Losses(None, losses.projection, "published")  # type: ignore[arg-type]
    before, after = (published.contrast(one, features, others, mask, draws) for one in (features, changed))
    assert not torch.allclose(before, after)
    assert float(losses.contrast(features, features, others, torch.zeros_like(mask), draws)) == 0
