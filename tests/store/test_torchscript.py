"""TorchScript archives: their tensors are read, and nothing in them is run."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from atelier.core.errors import WeightsError
from atelier.store.checkpoints import read_checkpoint


class Small(nn.Module):
    """A network with a half-precision part, a shared tensor, a view, a list and a fact."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2).half()
        self.tied = self.first
        self.register_buffer("corner", torch.arange(12.0).view(3, 4)[1:, 1:])
        self.register_buffer("input_resolution", torch.tensor(224))
        self.sizes = torch.jit.Attribute([1, 2], list[int])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.first(values) * self.sizes[0]  # type: ignore[index]


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    network = Small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; published files stay
        torch.jit.script(network).save(tmp_path / "small.pt")
    return tmp_path / "small.pt", network.state_dict()


def test_every_tensor_is_read(archive: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, state = archive
    found = read_checkpoint(path)
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name
    found["first.weight"].zero_()
    assert torch.equal(found["tied.weight"], state["tied.weight"])


def rebuilt(path: Path, change: Any) -> Path:
    """The archive with its pickle or a storage changed; a change to None leaves an entry out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(path.with_name("new.pt"), "w") as new:
        for entry in old.infolist():
            how, data = change(entry.filename, old.read(entry))
            if data is not None:
                new.writestr(entry.filename, data, how)
    return path.with_name("new.pt")


class Bomb:
    """Code that a pickle runs where classes are not refused."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return print, ("it ran",)


def test_code_is_refused(
    archive: tuple[Path, dict[str, torch.Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = io.BytesIO()
    pickle.dump(OrderedDict(a=Bomb()), hostile, protocol=2)

    def change(name: str, data: bytes) -> tuple[int, bytes]:
        return zipfile.ZIP_STORED, hostile.getvalue() if name.endswith("/data.pkl") else data

    with pytest.raises(WeightsError, match="which could run anything when loaded, so it is rejected"):
        read_checkpoint(rebuilt(archive[0], change))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["short", "absent", "compressed"])
def test_a_damaged_storage_is_one_sentence(archive: tuple[Path, dict[str, torch.Tensor]], kind: str) -> None:
    def change(name: str, data: bytes) -> tuple[int, bytes | None]:
        if "/data/" not in name:
            return zipfile.ZIP_STORED, data
        if kind == "compressed":
            return zipfile.ZIP_DEFLATED, data
        return zipfile.ZIP_STORED, None if kind == "absent" else data[:4]

    with pytest.raises(WeightsError, match=r"new\.pt is (truncated|damaged)"):
        read_checkpoint(rebuilt(archive[0], change))
