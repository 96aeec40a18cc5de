"""The protocols that come with atelier: all can be read, and `check` says what each of them lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier.apps import bench
from atelier.bench import protocol
from atelier.bench import sweep as sweeps
from atelier.core.errors import AtelierError
from atelier.methods import registry
from atelier.methods.base import Method
from atelier.store.records import record

#: Those whose pictures are described by their hashes, with the number of pictures and of cells of a method.
DESCRIBED = {
    "seed-8000": (420, 8000),
    "styleid-800": (60, 800),
    "photo-4k": (16, 8),
    "harmonise-100": (20, 10),
}
OTHERS = ("smoke", "speed", "gallery", "peers", "words", "ablation-zecon")


def cells(found: protocol.Protocol) -> int:
    """Cells of one method."""
    contents, styles = len(found.contents), len(found.styles)
    return contents if found.pairs == "zip" else contents * styles


def test_every_protocol_of_the_manual_is_shipped() -> None:
    assert set(protocol.shipped()) == {*DESCRIBED, *OTHERS}
    assert set(sweeps.shipped()) == {"drawbench-style"}
    manual = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    for name, path in protocol.shipped().items():
        found = protocol.read(path)
        assert found.name == name
        assert found.sentence
        assert f"| `{name}` | {cells(found):,} |" in manual, name
        assert {one.label for one in protocol.BASELINES} <= {one.label for one in found.methods}


def test_the_gallery_has_every_method_that_needs_no_download() -> None:
    def comes_along(kind: type[Method]) -> bool:
        try:
            files = kind().weights(kind.Knobs())
        except AtelierError:  # it needs a file of the user's
            return False
        return kind.takes.mask != "required" and all(record(name).bundled for name in files)

    wanted = {kind.name for kind in map(registry.find, registry.list_methods()) if comes_along(kind)}
    painted = {entry.method for entry in protocol.read(protocol.find("gallery")).methods}
    assert painted == wanted


@pytest.mark.parametrize("name", DESCRIBED)
def test_check_names_every_picture_that_is_not_there(name: str, tmp_path: Path) -> None:
    pictures, count = DESCRIBED[name]
    found = protocol.read(protocol.shipped()[name])
    assert cells(found) == count
    entries = [*found.contents, *found.styles]
    assert len(entries) == pictures
    assert all(one.sha256 for one in entries)
    text, whole = bench.check(name, tmp_path / "out", tmp_path)
    assert not whole
    assert text.count("missing: there is no file") == pictures
    for metric in found.metrics:
        if "fid" in metric or "clip" in metric:
            assert f"missing: the metric {metric}: the weights" in text


def test_check_finds_nothing_missing_and_another_program_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.check("smoke", tmp_path / "out", None)[1]
    monkeypatch.setenv("PATH", str(tmp_path))
    text, whole = bench.check("peers", tmp_path / "out", None)
    assert "missing: the program 'gmic' of G'MIC: install it, or its cells will fail" in text
    assert not whole
