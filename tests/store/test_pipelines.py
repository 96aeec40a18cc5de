"""Records with several files and the user's own folders: declared, added, fingerprinted, measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atelier.core import memory
from atelier.core.errors import ResourceError, WeightsError
from atelier.store import records, weights
from atelier.store.records import File, Record

NAMES = ("model_index.json", "unet/config.json", "unet/model.safetensors", "text/merges.txt")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    records.records()
    monkeypatch.setattr(records, "_records", dict(records._records))
    return tmp_path / "home" / "weights" / "pipe.test"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline as diffusers saves it, with 1000 floats of 4 bytes and 10 whole numbers of 8."""
    folder = tmp_path / "mine"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    save_file({"a": torch.ones(10, 100), "n": torch.arange(10)}, folder / "unet" / "model.safetensors")
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def known(*files: File, **facts: object) -> Record:
    plain = {"name": "pipe.test", "licence": "MIT", "paper": "none", "kind": "pipeline"}
    return records.register(Record(files=files, **(plain | facts)))  # type: ignore[arg-type]


# records


def test_one_file_is_a_record_of_one_part() -> None:
    record = Record(
        name="a.b", file="x.pth", sources=("https://h/x.pth",), sha256="ab", bytes=3, licence="l", paper="p"
    )
    assert record.parts == (File(name="x.pth", sources=("https://h/x.pth",), sha256="ab", bytes=3),)
    assert (record.size, record.what) == (3, "x.pth")


def test_addresses_come_from_the_folder_and_the_revision() -> None:
    own = File(name="b.json", sources=("https://other/{revision}/b.json",))
    record = known(File(name="u/a.json", bytes=1), own, sources=("https://h/{revision}/",), revision="r1")
    assert [part.sources for part in record.parts] == [
        ("https://h/r1/u/a.json",),
        ("https://other/r1/b.json",),
    ]
    assert record.size is None


@pytest.mark.parametrize(
    "name",
    ["../a.json", "/a.json", "a//b.json", "u/../a.json", "u\\a.json", ".a.json", "u/.a.json", "", "u/"],
)
def test_names_stay_inside_the_folder(name: str) -> None:
    with pytest.raises(WeightsError, match="unique relative paths"):
        known(File(name=name))


@pytest.mark.parametrize("name", ["run.py", "model.bin", "model.ckpt", "model.pt"])
def test_a_pipeline_has_no_files_with_code(name: str) -> None:
    with pytest.raises(WeightsError, match=r"in a pipeline with the extensions \.safetensors"):
        known(File(name=name))


@pytest.mark.parametrize(
    "facts",
    [
        {"file": "x.pth"},
        {"files": ()},
        {"converter": "features"},
        {"revision": "../x"},
        {"files": (File(name="a.json"), File(name="a.json"))},
    ],
)
def test_a_record_that_contradicts_itself(facts: dict[str, object]) -> None:
    plain: dict[str, object] = {"name": "a.b", "licence": "l", "paper": "p", "kind": "pipeline"}
    with pytest.raises(WeightsError, match=r"the weights record a\.b"):
        Record(**({"files": (File(name="a.json"),)} | plain | facts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"sha256": "abcd"}, "verified"),
        ({"sha256_prefix": "ab"}, "verified"),
        ({"sha256": "abce"}, "wrong"),
        ({"sha256_prefix": "b"}, "wrong"),
        ({}, "unverified"),
    ],
)
def test_an_unknown_hash_is_no_match(facts: dict[str, str], verdict: str) -> None:
    assert File(name="x", **facts).check("abcd") == verdict


# adding


def test_a_folder_is_added(folder: Path, cache: Path) -> None:
    known(*(File(name=name, sha256=digest(folder / name)) for name in NAMES))
    (folder / "notes.md").write_text("left where it is")
    path = weights.add("pipe.test", folder)
    assert path == weights.locate("pipe.test") == cache / "files"
    assert {str(one.relative_to(path)) for one in path.rglob("*") if one.is_file()} == set(NAMES)
    assert weights.verify("pipe.test") == [("pipe.test", "verified")]
    assert weights.fingerprint("pipe.test") == weights.fingerprint(folder)
    (path / "unet" / "config.json").unlink()
    assert weights.verify("pipe.test") == [("pipe.test", "missing")]
    assert not weights.installed("pipe.test")


def test_a_folder_that_lacks_a_file(folder: Path) -> None:
    known(*(File(name=name) for name in (*NAMES, "vae/config.json")))
    with pytest.raises(WeightsError, match=r"lacks 1 of the 5 files of pipe\.test \(vae/config\.json\)"):
        weights.add("pipe.test", folder)
    with pytest.raises(WeightsError, match=r"is not a folder: pipe\.test has 5 files"):
        weights.add("pipe.test", folder / "model_index.json")


def test_a_folder_with_another_file_is_added_by_force_and_stays_unverified(folder: Path) -> None:
    known(*(File(name=name, sha256="00" * 32) for name in NAMES))
    with pytest.raises(WeightsError, match=r"is not the published model_index\.json of pipe\.test"):
        weights.add("pipe.test", folder)
    weights.add("pipe.test", folder, force=True)
    assert weights.verify("pipe.test") == [("pipe.test", "unverified")]


def test_missing_folders_name_the_command() -> None:
    known(File(name="model_index.json"))
    with pytest.raises(
        WeightsError, match=r"copy the folder with its 1 file to this machine and run `atelier weights add"
    ):
        weights.locate("pipe.test")


# the user's own folder


def test_the_users_own_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for given in (folder, str(folder), "mine", "./mine"):
        assert weights.folder(given).resolve() == folder
        assert weights.fingerprint(given) == weights.fingerprint(folder)


def test_a_folder_of_something_else(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(WeightsError, match=r"neither model_index\.json nor config\.json"):
        weights.folder(tmp_path / "pictures")
    (folder / "unet" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"holds no \.safetensors files"):
        weights.folder(folder)


def test_file_and_folder_are_not_taken_for_each_other(folder: Path) -> None:
    with pytest.raises(WeightsError, match="is a folder: use a single file of weights"):
        weights.load(folder)
    with pytest.raises(WeightsError, match="is a file: use a folder of weights"):
        weights.folder(folder / "unet" / "model.safetensors")


def test_a_folders_fingerprint_is_that_of_its_names_and_hashes(folder: Path) -> None:
    lines = "".join(f"{digest(folder / name)}  {name}\n" for name in sorted(NAMES))
    before = weights.fingerprint(folder)
    assert before == hashlib.sha256(lines.encode()).hexdigest()
    for harmless in ("README.md", ".cache/x.json", "unet/model.bin"):
        (folder / harmless).parent.mkdir(exist_ok=True)
        (folder / harmless).write_text("not read")
    assert weights.fingerprint(folder) == before
    (folder / "unet" / "config.json").rename(folder / "unet" / "other.json")
    assert weights.fingerprint(folder) != before


# memory


def test_memory_is_that_of_the_tensors(folder: Path, tmp_path: Path) -> None:
    assert weights.memory(folder) == weights.memory(folder / "unet" / "model.safetensors") == 4000 + 80
    assert weights.memory(folder, float_bytes=2) == 2000 + 80
    # A variant counts only where there is no plain file.
    save_file({"a": torch.ones(1000).half()}, folder / "unet" / "model.fp16.safetensors")
    (folder / "vae").mkdir()
    save_file({"a": torch.ones(500).half()}, folder / "vae" / "model.fp16.safetensors")
    assert weights.memory(folder) == 4080 + 1000
    pickled = tmp_path / "x.pth"
    torch.save({"a": torch.ones(1000)}, pickled)
    assert weights.memory(pickled) == pickled.stat().st_size


def test_weights_larger_than_the_memory_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "unet" / "model.safetensors"
    monkeypatch.setattr(memory, "available", lambda device=None: 4080)
    assert weights.load(path)["a"].shape == (10, 100)
    weights.check_memory(folder)
    monkeypatch.setattr(memory, "available", lambda device=None: 4079)
    with pytest.raises(ResourceError, match=r"Loading .*mine would need"):
        weights.check_memory(folder)
    weights.check_memory(folder, float_bytes=2)
    with pytest.raises(
        ResourceError, match=r"^Loading .*model\.safetensors would need .* available: close other"
    ):
        weights.load(path)
