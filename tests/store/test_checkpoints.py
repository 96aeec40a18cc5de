"""Checkpoints in every format are read, and everything else is rejected with a specific error."""

from __future__ import annotations

import argparse
import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.store import checkpoints


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "0.weight": torch.randn(40, 30, 3, 3, generator=generator),
        "0.bias": torch.randn(40, generator=generator),
    }


def equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in expected)


def pickled(content: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


@pytest.mark.parametrize("legacy", [False, True])
def test_both_pickle_formats(file: Path, legacy: bool) -> None:
    file.write_bytes(pickled(tensors(), legacy=legacy))
    assert equal(checkpoints.read_checkpoint(file), tensors())


def test_safetensors_whatever_the_name(file: Path) -> None:
    save_file(tensors(), file, metadata={"recipe": "r"})
    assert equal(checkpoints.read_checkpoint(file), tensors())
    assert checkpoints.read_metadata(file) == {"recipe": "r"}


@pytest.mark.parametrize(
    "dress",
    [
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": torch.zeros(1)}},
        lambda state: {"model": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"_orig_mod.module.{name}": t for name, t in state.items()}},
        lambda state: {name: nn.Parameter(tensor) for name, tensor in state.items()},
        lambda state: {"0": {name.removeprefix("0."): tensor for name, tensor in state.items()}},
    ],
)
def test_wrappings_come_off(file: Path, dress: Any) -> None:
    file.write_bytes(pickled(dress(tensors())))
    state = checkpoints.read_checkpoint(file)
    assert equal(state, tensors())
    assert not any(tensor.requires_grad for tensor in state.values())


def test_a_prefix_stays_where_not_every_tensor_has_it(file: Path) -> None:
    state = {"module.weight": torch.ones(2), "other": torch.ones(1)}
    file.write_bytes(pickled(state))
    assert equal(checkpoints.read_checkpoint(file), state)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_and_never_runs(file: Path, tmp_path: Path, legacy: bool) -> None:
    victim = tmp_path / "victim"
    content = pickled({**tensors(), "bad": Malicious(victim)}, legacy=legacy)
    assert b"touch" in content
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"contains Python code \((posix|nt)\.system\).* rejected: save"):
        checkpoints.read_checkpoint(file)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "named"), [(nn.Linear(2, 2), "Linear"), ({"args": argparse.Namespace(a=1)}, "Namespace")]
)
def test_a_pickled_object_is_refused_by_its_name(file: Path, content: object, named: str) -> None:
    file.write_bytes(pickled(content))
    with pytest.raises(WeightsError, match=rf"Python code \([\w.]*{named}\)"):
        checkpoints.read_checkpoint(file)


def saved_safetensors() -> bytes:
    from safetensors.torch import save

    return save(tensors())


def other_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<w:document/>")
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/constants.pkl", b"\x80\x02).")
        archive.writestr("archive/data.pkl", b"\x80\x02).")
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def claiming() -> bytes:
    return pickled({"huge": torch.zeros(1).expand(1 << 40)})


REFUSED: dict[str, tuple[bytes, str]] = {
    "web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
    "bucket error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull"),
    "empty": (b"", "is empty"),
    "text": (b"not found", "is not a checkpoint"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(64), "is not a checkpoint"),
    "cut zip": (pickled(tensors())[:-5000], "is truncated"),
    "cut legacy pickle": (pickled(tensors(), legacy=True)[:-5000], "is truncated"),
    "cut in the pickle": (pickled(tensors(), legacy=True)[:40], "is truncated"),
    "cut safetensors": (saved_safetensors()[:-100], "is truncated"),
    "cut safetensors header": (saved_safetensors()[:50], "is truncated"),
    "mad safetensors header": (
        struct.pack("<Q", 20) + b'{"a": what is this? ' + bytes(9),
        "is not a checkpoint",
    ),
    "mad offsets": (struct.pack("<Q", 24) + b'{"a":{"data_offsets":3}}', "is not a checkpoint"),
    "a document": (other_zip(), "is a zip archive, not a checkpoint"),
    "torchscript": (script(), "no tensors"),
    "no tensors": (pickled({"epoch": 3, "name": "x"}), "contains no tensors"),
    "a list": (pickled([1, 2]), "contains no tensors"),
    "claims": (claiming(), "is far smaller"),
    "sparse": (pickled({"a": torch.eye(3).to_sparse()}), "without dense values"),
    "garbage pickle": (b"\x80\x02" + bytes(range(128)), "damaged|more than tensors"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_no_checkpoint_says_why(file: Path, case: str) -> None:
    content, sentence = REFUSED[case]
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=sentence) as caught:
        checkpoints.read_checkpoint(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth cannot be read \(No such file"):
        checkpoints.read_checkpoint(tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        checkpoints.read_checkpoint(tmp_path)


def test_every_cut_of_a_zip_or_safetensors_is_seen(file: Path) -> None:
    for content in (pickled(tensors()), saved_safetensors()):
        for end in range(100, len(content), len(content) // 20):
            file.write_bytes(content[:end])
            assert checkpoints.is_cut(file)
        file.write_bytes(content)
        assert not checkpoints.is_cut(file)


def test_a_fitting_state_is_silent() -> None:
    checkpoints.check_state({"0.weight": (40, 30, 3, 3), "0.bias": (40,)}, tensors())


def test_what_does_not_fit_is_named_and_counted() -> None:
    expected = {"0.weight": (40, 30, 1, 1), "1.bias": (4,), "2.bias": (4,)}
    with pytest.raises(WeightsError) as caught:
        checkpoints.check_state(expected, tensors(), "adain's decoder")
    assert str(caught.value) == (
        "these weights do not fit adain's decoder: 2 of 3 tensors are missing (1.bias, 2.bias); "
        "1 of 2 tensors are unexpected (0.bias); 1 of 3 tensors differ in shape "
        "(0.weight is (40, 30, 3, 3) instead of (40, 30, 1, 1)); use weights made for it"
    )


def test_features_converter_leaves_the_classifier_out() -> None:
    state = {"features.0.weight": torch.ones(1), "classifier.0.weight": torch.ones(1)}
    assert list(checkpoints.converter("features")(state)) == ["features.0.weight"]
    assert checkpoints.converter("plain")(state) == state


def test_converters_have_one_name_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_CONVERTERS", dict(checkpoints._CONVERTERS))
    checkpoints.register_converter("halves", lambda state: state)
    with pytest.raises(WeightsError, match="already a converter called 'halves'"):
        checkpoints.register_converter("halves", lambda state: state)
    with pytest.raises(WeightsError, match="did you mean 'features'"):
        checkpoints.converter("feature")
