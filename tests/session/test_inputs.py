"""Inputs of a run: names in receipts, style weights, and files of knobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import atelier
from atelier.images import Picture, write
from atelier.session.inputs import named

Floats = npt.NDArray[np.float32]


@pytest.mark.parametrize(
    ("path", "naming", "expected"),
    [
        ("me.jpg", "names", "me.jpg"),
        ("photos/me.jpg", "names", "photos/me.jpg"),
        ("/home/ann/photos/me.jpg", "names", "me.jpg"),
        ("../ann/me.jpg", "names", "me.jpg"),
        ("/home/ann/photos/me.jpg", "paths", "/home/ann/photos/me.jpg"),
        ("", "paths", ""),
    ],
)
def test_a_receipt_names_files_without_their_folders(path: str, naming: str, expected: str) -> None:
    assert named(path, naming) == expected


def test_a_file_below_the_current_folder_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named(str(tmp_path / "photos" / "me.jpg"), "names") == "photos/me.jpg"


@pytest.fixture
def photo_file(photo: Floats, tmp_path: Path) -> Path:
    write(Picture.of(photo), tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_receipt_can_hold_full_paths_or_be_left_out(photo_file: Path, painting: Floats) -> None:
    made = atelier.stylize(photo_file, painting, method="colour", device="cpu", receipt="paths")
    assert made.recipe is not None
    assert made.recipe["content"]["name"] == str(photo_file)
    bare = atelier.stylize(photo_file, painting, method="colour", device="cpu", receipt="none")
    assert bare.recipe is None
    assert np.array_equal(bare.pixels, made.pixels)


def test_how_a_receipt_is_written_is_no_part_of_the_request(photo_file: Path, painting: Floats) -> None:
    keys = {
        atelier.Stylizer(painting, method="colour", device="cpu", receipt=how).request(photo_file).key
        for how in ("names", "none")
    }
    assert len(keys) == 1


def test_inputs_larger_than_max_pixels_are_refused_in_stylize_and_replay(
    photo_file: Path, painting: Floats, tmp_path: Path
) -> None:
    few = 40 * 56 - 1
    with pytest.raises(atelier.InputError, match="pixels"):
        atelier.stylize(photo_file, painting, method="colour", max_pixels=few)
    write(
        atelier.stylize(photo_file, painting, method="colour", max_pixels=few + 1, device="cpu"),
        tmp_path / "made.png",
    )
    with pytest.raises(atelier.InputError, match="pixels"):
        atelier.replay(tmp_path / "made.png", style=painting, max_pixels=few)
    again = atelier.replay(tmp_path / "made.png", style=painting)
    assert again.recipe is not None
    assert again.recipe["controls"]["max_pixels"] == few + 1


def test_hidden_colours_of_a_style_are_not_seen() -> None:
    alpha = np.ones((16, 16), np.float32)
    alpha[:, 8:] = 0
    pictures = []
    for hidden in (0.0, 1.0):
        pixels = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
        pixels[:, 8:] = hidden
        pictures.append(Picture(pixels, alpha))
    grey = np.full((16, 16, 3), 0.5, np.float32)
    made = [atelier.stylize(grey, one, method="style_copy", device="cpu").pixels for one in pictures]
    assert np.array_equal(*made)


def test_other_weights_of_the_same_name_are_another_request(
    photo: Floats, painting: Floats, tiny_encoder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    changed = {name: value + 1 for name, value in load_file(tiny_encoder).items()}
    save_file(changed, tmp_path / tiny_encoder.name)
    requests = [
        atelier.Stylizer(painting, method="gatys", encoder=str(path), device="cpu").request(photo)
        for path in (tiny_encoder, tmp_path / tiny_encoder.name)
    ]
    assert requests[0].knobs == requests[1].knobs
    assert requests[0].key != requests[1].key
    with pytest.raises(atelier.WeightsError, match="hash differs"):
        atelier.run(
            requests[0],
            content=photo,
            style=painting,
            files={"encoder": tmp_path / tiny_encoder.name},
        )
