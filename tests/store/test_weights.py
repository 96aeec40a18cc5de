"""The weights store without a network: records, paths, adding, verifying, fingerprints."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from atelier.core.errors import OutputError, WeightsError
from atelier.store import checkpoints, installation, records, weights
from atelier.store.records import Record


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("ATELIER_HOME", str(home))
    records.records()
    monkeypatch.setattr(records, "_records", dict(records._records))
    return home


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "features.0.weight": torch.randn(8, 3, 3, 3, generator=generator),
        "classifier.0.weight": torch.randn(4, 8, generator=generator),
    }


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors(), buffer)
    return buffer.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.pth"
    path.write_bytes(checkpoint())
    return path


def known(name: str = "tiny.test", **facts: object) -> Record:
    plain: dict[str, object] = {"file": "tiny.pth", "licence": "MIT", "paper": "none"}
    return records.register(Record(name=name, **(plain | facts)))  # type: ignore[arg-type]


def test_first_records() -> None:
    names = [record.name for record in records.records()]
    assert names == sorted(names)
    assert {"encoder.atelier", "vgg16.imagenet", "vgg19.imagenet", "vgg_normalised.adain"} <= set(names)
    for name in ("vgg16.imagenet", "vgg19.imagenet"):
        # Torchvision puts the first eight digits of the hash into the file's name.
        record = records.record(name)
        assert record.sha256 is not None
        assert f"-{record.sha256[:8]}.pth" in record.file
        assert record.sources[0].endswith(record.file)


def test_every_record_is_usable() -> None:
    for record in records.records():
        assert record.licence
        assert record.paper
        # Elsewhere the note says how to come by them.
        assert record.sources or record.bundled or re.search("From |add the|atelier train", record.note)
        assert all(url.startswith("https://") for url in record.sources)
        assert record.sha256 is None or len(bytes.fromhex(record.sha256)) == 32
        checkpoints.converter(record.converter)


def test_listing_records_needs_no_torch() -> None:
    code = "import sys; from atelier.store import records; records.records(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_second_record_of_one_name_is_an_error() -> None:
    first = known()
    with pytest.raises(WeightsError, match=r"two weights records called 'tiny\.test'"):
        known(file="other.pth")
    assert records.record("tiny.test") is first


@pytest.mark.parametrize("name", ["tiny", "../x.y", "Tiny.test", "a/b.c", "", "tiny."])
def test_a_name_must_be_network_and_tag(name: str) -> None:
    with pytest.raises(WeightsError, match=r"name of the form network\.tag"):
        known(name)


def test_a_file_must_be_a_bare_name() -> None:
    with pytest.raises(WeightsError, match="bare file name"):
        known(file="../tiny.pth")


@pytest.mark.parametrize("verb", [weights.locate, weights.load, weights.pull, weights.verify, weights.where])
def test_an_unknown_name_gets_the_nearest(verb: object) -> None:
    assert callable(verb)
    with pytest.raises(
        WeightsError, match=r"no weights called 'vgg19\.imagnet': did you mean 'vgg19\.imagenet'"
    ):
        verb("vgg19.imagnet")


def test_missing_weights_name_the_command_the_path_and_the_hash(cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        weights.locate("vgg19.imagenet")
    said = str(caught.value)
    assert "`atelier weights pull vgg19.imagenet`" in said
    assert "`atelier weights add vgg19.imagenet FILE`" in said
    assert str(cache / "weights" / "vgg19.imagenet" / "vgg19-dcbb9e9d.safetensors") in said
    assert "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44" in said
    assert not cache.exists()


def test_weights_without_a_source_cannot_be_pulled() -> None:
    known(sha256_prefix="abcd")
    with pytest.raises(WeightsError) as caught:
        weights.locate("tiny.test")
    assert "pull" not in str(caught.value)
    with pytest.raises(
        WeightsError, match=r"no download address: copy tiny\.pth \(sha256 beginning with abcd\) .* add"
    ):
        weights.pull("tiny.test")


def test_home(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert installation.home() == cache
    monkeypatch.setenv("ATELIER_HOME", "~/paint")
    assert installation.home() == Path("~/paint").expanduser()
    monkeypatch.setenv("ATELIER_HOME", "")
    assert installation.home().name == "atelier"


def test_bundled_weights_lie_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(installation, "PACKAGED", package)
    known("small.atelier", file="small.safetensors", bundled="small.safetensors")
    assert weights.verify("small.atelier") == [("small.atelier", "missing")]
    assert not weights.installed("small.atelier")
    with pytest.raises(WeightsError, match="reinstall atelier, which includes them"):
        weights.locate("small.atelier")
    save_file({"a": torch.ones(3)}, package / "small.safetensors")
    assert weights.verify("small.atelier") == [("small.atelier", "unverified")]
    whole = (package / "small.safetensors").read_bytes()
    sums = {"small.safetensors": hashlib.sha256(whole).hexdigest()}
    monkeypatch.setattr(installation, "_checksums", lambda: sums)
    assert weights.locate("small.atelier") == package / "small.safetensors"
    assert weights.pull("small.atelier") == package / "small.safetensors"
    assert torch.equal(weights.load("small.atelier")["a"], torch.ones(3))
    assert weights.verify("small.atelier") == [("small.atelier", "verified")]
    assert weights.installed("small.atelier")
    with pytest.raises(WeightsError, match="is bundled with the package"):
        weights.add("small.atelier", package / "small.safetensors")
    (package / "small.safetensors").write_bytes(whole[:-2])
    assert weights.verify("small.atelier") == [("small.atelier", "damaged")]
    assert not cache.exists()


def test_every_bundled_file_is_the_one_that_was_listed() -> None:
    """A new bundled file needs a line in SHA256SUMS: run sha256sum *.safetensors there."""
    bundled = {record.bundled: record.name for record in records.records() if record.bundled}
    assert set(installation._checksums()) == set(bundled)
    assert {path.name for path in installation.PACKAGED.glob("*.safetensors")} == set(bundled)
    for name in bundled.values():
        assert weights.verify(name) == [(name, "verified")]


def test_added_weights_are_converted_and_described(file: Path, cache: Path) -> None:
    known(sha256=hashlib.sha256(checkpoint()).hexdigest(), converter="features")
    path = weights.add("tiny.test", file)
    assert path == weights.locate("tiny.test") == cache / "weights" / "tiny.test" / "tiny.safetensors"
    state = weights.load("tiny.test")
    assert list(state) == ["features.0.weight"]
    assert torch.equal(state["features.0.weight"], tensors()["features.0.weight"])
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["source"] == "added from mine.pth"
    assert facts["original_sha256"] == hashlib.sha256(checkpoint()).hexdigest()
    assert (
        facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() == weights.fingerprint("tiny.test")
    )
    assert weights.verify("tiny.test") == [("tiny.test", "verified")]
    assert file.exists()


def test_installing_twice_gives_the_same_bytes(file: Path) -> None:
    known("one.test")
    known("two.test")
    first = weights.add("one.test", file).read_bytes()
    assert weights.add("one.test", file).read_bytes() == first
    original = json.loads(weights.metadata("one.test")["atelier"])["original_sha256"]
    assert original == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_published_safetensors_file_keeps_its_bytes(tmp_path: Path) -> None:
    original = tmp_path / "net.safetensors"
    save_file(tensors(), original, metadata={"maker": "m"})
    known(file="net.safetensors")
    assert weights.add("tiny.test", original).read_bytes() == original.read_bytes()
    assert weights.metadata("tiny.test") == {"maker": "m"}


def test_the_wrong_file_is_not_added_unless_forced(file: Path, cache: Path) -> None:
    known(sha256_prefix="00000000")
    with pytest.raises(
        WeightsError, match=r"not the published tiny\.pth .* not sha256 beginning with 00000000"
    ):
        weights.add("tiny.test", file)
    assert not cache.exists()
    weights.add("tiny.test", file, force=True)
    assert weights.verify("tiny.test") == [("tiny.test", "unverified")]


def test_a_good_prefix_is_enough(file: Path) -> None:
    known(sha256_prefix=hashlib.sha256(checkpoint()).hexdigest()[:8])
    assert weights.add("tiny.test", file).is_file()


@pytest.mark.parametrize("content", [b"<html>", b"", checkpoint()[:-700]])
def test_no_checkpoint_is_added(tmp_path: Path, content: bytes) -> None:
    known()
    bad = tmp_path / "bad.pth"
    bad.write_bytes(content)
    with pytest.raises(WeightsError, match=r"bad\.pth is "):
        weights.add("tiny.test", bad)
    assert weights.verify("tiny.test") == [("tiny.test", "missing")]


def test_a_file_without_the_wanted_tensors_is_not_added(tmp_path: Path) -> None:
    known(converter="features")
    bad = tmp_path / "bad.pth"
    torch.save({"classifier.0.weight": torch.ones(2)}, bad)
    with pytest.raises(WeightsError, match=r"the file has no tensors of tiny\.test"):
        weights.add("tiny.test", bad)
    assert weights.verify("tiny.test") == [("tiny.test", "missing")]


def test_tied_and_sliced_tensors_are_stored(tmp_path: Path) -> None:
    known()
    whole = torch.arange(12.0).reshape(3, 4)
    original = tmp_path / "tied.pth"
    torch.save({"a": whole, "b": whole, "row": whole[1], "turned": whole.T}, original)
    weights.add("tiny.test", original)
    state = weights.load("tiny.test")
    assert torch.equal(state["a"], whole)
    assert torch.equal(state["b"], whole)
    assert torch.equal(state["row"], whole[1])
    assert torch.equal(state["turned"], whole.T)


def test_what_a_killed_run_left_is_swept_away(file: Path, cache: Path) -> None:
    known()
    left = cache / "weights" / "tiny.test" / ".tiny.00000000.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    weights.add("tiny.test", file)
    assert not left.exists()


def test_one_changed_bit_is_damage(file: Path) -> None:
    known()
    path = weights.add("tiny.test", file)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert dict(weights.verify())["tiny.test"] == "damaged"
    assert dict(weights.verify())["vgg19.imagenet"] == "missing"
    weights.add("tiny.test", file)
    assert weights.verify("tiny.test") == [("tiny.test", "unverified")]


@pytest.mark.parametrize("sidecar", [None, "", "[]", "{"])
def test_weights_without_a_readable_sidecar_are_in_doubt(file: Path, sidecar: str | None) -> None:
    known()
    path = weights.add("tiny.test", file).with_suffix(".json")
    path.unlink() if sidecar is None else path.write_text(sidecar)
    assert weights.verify("tiny.test") == [("tiny.test", "damaged")]
    assert weights.load("tiny.test").keys() == tensors().keys()


def test_the_users_own_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    for mine in (file, str(file), "mine.pth", "./mine.pth"):
        assert torch.equal(weights.load(mine)["features.0.weight"], tensors()["features.0.weight"])
        assert weights.fingerprint(mine) == hashlib.sha256(checkpoint()).hexdigest()
    assert weights.metadata(file) == {}


@pytest.mark.parametrize("path", ["nowhere/x", "gone.pth", Path("gone")])
def test_a_users_file_that_is_not_there(path: str | Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no weights file .*(x|gone)"):
        weights.load(path)


def test_a_fingerprint_follows_the_file(file: Path) -> None:
    before = weights.fingerprint(file)
    file.write_bytes(checkpoint() + b"more")
    assert weights.fingerprint(file) == hashlib.sha256(checkpoint() + b"more").hexdigest() != before


def test_installed_weights_are_used_from_a_cache_that_cannot_be_written(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(sha256_prefix=hashlib.sha256(checkpoint()).hexdigest()[:8])
    path = weights.add("tiny.test", file)

    def refuse(*given: object) -> None:
        raise OutputError("the folder cannot be written")

    monkeypatch.setattr(installation.Shelf, "locked", refuse)
    monkeypatch.setattr("atelier.core.atomic._beside", refuse)
    assert weights.pull("tiny.test") == path
    assert weights.load("tiny.test").keys() == tensors().keys()
    assert weights.verify("tiny.test") == [("tiny.test", "verified")]
    assert weights.fingerprint("tiny.test") == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_sidecar_of_an_earlier_version_is_understood(file: Path) -> None:
    known(sha256_prefix=hashlib.sha256(checkpoint()).hexdigest()[:8])
    path = weights.add("tiny.test", file).with_suffix(".json")
    facts = json.loads(path.read_text())
    del facts["originals"]
    path.write_text(json.dumps(facts))
    assert weights.verify("tiny.test") == [("tiny.test", "verified")]


def test_a_home_that_is_a_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known()
    monkeypatch.setenv("ATELIER_HOME", str(file))
    with pytest.raises(OutputError, match=r"cannot be written .* set ATELIER_HOME"):
        weights.add("tiny.test", file)
    with pytest.raises(WeightsError, match="are not installed"):
        weights.locate("tiny.test")
