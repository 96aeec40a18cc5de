"""Style files: the painting and what was seen of it, whole or refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atelier import InputError, OutputError, UsageError
from atelier.images import Picture, style_entries, write_style


def painting() -> Picture:
    return Picture.of(np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8))


def test_painting_and_entries_come_back(tmp_path: Path) -> None:
    entries = {"k1": {"a": torch.randn(3, 4), "b": torch.arange(5)}, "k2": {"a": torch.ones(1).bfloat16()}}
    path = tmp_path / "style.safetensors"
    write_style(painting(), path, entries)
    again = Picture.of(path)
    assert np.array_equal(again.pixels, painting().pixels)
    assert again.name == str(path)
    found = style_entries(path, again.sha256)
    assert found.keys() == entries.keys()
    assert all(torch.equal(found[k][n], entries[k][n]) for k in entries for n in entries[k])


def test_other_safetensors_are_no_style(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"conv.weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match="atelier style save"):
        Picture.of(path)
    save_file({"picture": torch.ones(2)}, path)
    with pytest.raises(InputError, match="not a style file"):
        Picture.of(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a style file"):
        Picture.of(path)
    with pytest.raises(InputError, match="there is no style file"):
        Picture.of(tmp_path / "none.safetensors")


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"extension must be \.safetensors"):
        write_style(painting(), tmp_path / "style.png", {})
    path = tmp_path / "style.safetensors"
    write_style(painting(), path, {})
    with pytest.raises(OutputError, match="exists"):
        write_style(painting(), path, {})
    write_style(painting(), path, {}, overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        write_style(painting(), tmp_path / "none" / "style.safetensors", {})


def test_alpha_is_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.float32) / 255
    alpha = np.random.default_rng(1).integers(0, 256, (6, 5)).astype(np.float32) / 255
    write_style(Picture(pixels, alpha), tmp_path / "style.safetensors", {})
    found = Picture.open(tmp_path / "style.safetensors")
    assert np.array_equal(found.pixels, pixels)
    assert found.alpha is not None
    assert np.array_equal(found.alpha, alpha)


def test_style_files_of_before_alpha_was_kept_still_load(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (9, 13, 3), dtype=torch.uint8)
    save_file({"picture": pixels, "k/a": torch.ones(2)}, tmp_path / "old.safetensors")
    found = Picture.open(tmp_path / "old.safetensors")
    assert found.alpha is None
    assert np.array_equal(np.asarray(found.pil()), pixels.numpy())
    assert style_entries(tmp_path / "old.safetensors", found.sha256).keys() == {"k"}


@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 2), (9, 13, 5), (0, 13, 3)])
def test_paintings_of_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save_file({"picture": torch.zeros(shape, dtype=torch.uint8)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError) as caught:
        Picture.open(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)
