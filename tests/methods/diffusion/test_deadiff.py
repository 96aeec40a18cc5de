"""DEADiff: what each mode reads, its training from files to a picture, and what it refuses."""

from __future__ import annotations

from pathlib import Path
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
from atelier.methods.base import Batch, Context, Frame, Styles
from atelier.training import datasets, streams
from atelier.training.settings import DATA

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

from atelier.methods.diffusion.deadiff import Deadiff, _Painting, seen_by  # noqa: E402
from atelier.pipelines import deadiff as networks  # noqa: E402

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deadiff") / "weights.safetensors"
    save_file({name: one.contiguous() for name, one in Deadiff.tiny()["weights"].items()}, path)
    return path


@pytest.fixture
def settings(tiny_pipeline: Path, file: Path) -> dict[str, Any]:
    given = {"weights": str(file), "pipeline": str(tiny_pipeline), "steps": 3, "negative": ""}
    return given | {"method": "deadiff", "device": "cpu"}


@pytest.mark.parametrize("blank", [False, True])
def test_each_mode_reads_what_it_says(settings: dict[str, Any], blank: bool) -> None:
    """The content is that of the photo, or of the style picture where there is no photo."""
    photo, style = torch.rand((2, 1, 3, 40, 56), generator=torch.Generator().manual_seed(0))
    wanted = {"auto": {"style"} if blank else {"style", "content"}, "both": {"style", "content"}}
    for mode in ("auto", "style", "content", "both"):
        chosen = Deadiff.Knobs(weights=settings["weights"], pipeline=settings["pipeline"], mode=mode)
        context = Context(torch.device("cpu"), torch.float32)
        painting = _Painting(Styles((style,), (1.0,), (None,)), chosen, context)
        with torch.inference_mode():
            tokens = painting._tokens(Frame(photo, blank=blank))
            seen = {"style": style, "content": style if blank else photo}
            for kind, (without, found) in tokens.items():
                read = kind in wanted.get(mode, {mode})
                expected = painting.network.tokens(kind, seen[kind])[0]
                assert torch.equal(found, expected if read else torch.zeros_like(found))
                assert not without.any()  # beside the words that are led away from


def test_without_weight_a_reference_is_as_good_as_none(settings: dict[str, Any], painting: Floats) -> None:
    first, second, seen = (
        atelier.generate("deadiff", style, size=64, image_weight=weight, **without(settings)).pixels
        for style, weight in ((painting, 0.0), (1 - painting, 0.0), (painting, 1.0))
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, seen)


def test_a_picture_from_words_and_a_style(settings: dict[str, Any], painting: Floats) -> None:
    events: list[Event] = []
    made = atelier.generate(
        "deadiff", painting, text="red paint", size=64, progress=events.append, **without(settings)
    )
    assert made.pixels.shape == (64, 64, 3)
    assert events[0].note.startswith("memory: ")
    assert [event.done for event in events] == [0, 1, 2, 3]
    content = atelier.generate(
        "deadiff", painting, text="red paint", size=64, mode="content", **without(settings)
    )
    assert not np.array_equal(made.pixels, content.pixels)


def without(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "method"}


def test_styles_are_mixed_by_their_weights(settings: dict[str, Any], photo: Floats, painting: Floats) -> None:
    styles = [painting, 1 - painting]

    def made(*weights: float) -> Floats:
        return atelier.stylize(photo, styles, style_weights=weights, mode="style", **settings).pixels

    first, half, second = made(1, 0), made(1, 1), made(0, 1)
    assert np.array_equal(first, atelier.stylize(photo, painting, mode="style", **settings).pixels)
    assert not np.array_equal(half, first)
    assert not np.array_equal(half, second)


def test_what_cannot_be_done_is_one_sentence(
    settings: dict[str, Any], photo: Floats, painting: Floats, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="deadiff needs a style picture, beside the words"):
        atelier.stylize(photo, text="art", **settings)
    with pytest.raises(WeightsError, match=r"`atelier weights pull deadiff\.published`"):
        atelier.stylize(photo, painting, **settings | {"weights": "deadiff.published"})
    other = tmp_path / "other.safetensors"
    save_file(networks.tiny([(32, 64)] * 3), other)
    with pytest.raises(WeightsError, match="another base model: it joins 3 attentions of up to 32 channels"):
        atelier.stylize(photo, painting, **settings | {"weights": str(other)})
    monkeypatch.setattr(memory, "available", lambda device: 1 << 20)
    with pytest.raises(ResourceError, match=r"needs at least .* GiB of memory on cpu"):
        atelier.stylize(photo, painting, **settings)


# training


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Two styles and two contents, three captioned pictures each; the grey of a picture tells which it is."""
    for group, first in (("same_style", 20), ("same_content", 140)):
        for folder in range(2):
            place = tmp_path / group / f"{folder}"
            place.mkdir(parents=True)
            for index in range(3):
                grey = first + 50 * folder + 10 * index
                write(Picture.of(np.full((24, 24, 3), grey / 255, np.float32)), place / f"{index}.png")
                (place / f"{index}.txt").write_text(f"red {grey}")
    return {name: str(tmp_path / name) for name in ("same_style", "same_content")}


def references(folders: dict[str, str], **more: Any) -> datasets.DataSet:
    return datasets.read("references", DATA["references"](**{**folders, "held_back": 0, "crop": 16} | more))


def test_pairs_are_of_one_folder_and_single_pictures_of_one_file(folders: dict[str, str]) -> None:
    data = references(folders)
    assert str(data) == "12 targets"
    draws = streams.Draws(data.learn, 16, 0, streams.Decoder(2**20))
    drawn = streams.stacked([draws[0, row] for row in range(300)])
    targets, others = (drawn[name].float().mean((1, 2, 3)) for name in ("targets", "references"))
    assert [f"red {round(float(grey))}" for grey in targets] == drawn["captions"]
    # A third of 300 is 100 with a deviation of 8.
    assert all(70 < count < 130 for count in drawn["relation"].bincount(minlength=3).tolist())
    for kind, low, high in ((0, 20, 90), (1, 140, 210)):
        mine = drawn["relation"] == kind
        assert targets[mine].min() >= low
        assert targets[mine].max() <= high
        apart = (targets - others)[mine].abs().round()
        assert set(apart.tolist()) == {10, 20}  # of the same folder, and never the same picture
    single = drawn["relation"] == 2
    assert torch.equal(drawn["targets"][single], drawn["references"][single])
    only = references(folders, shares=(0, 1, 0))
    draws = streams.Draws(only.learn, 16, 0, streams.Decoder(2**20))
    assert {draws[0, row]["relation"] for row in range(20)} == {1}


def test_references_that_cannot_be_paired_are_one_sentence(folders: dict[str, str]) -> None:
    with pytest.raises(TrainingError, match="the shares must not be negative"):
        references(folders, shares=(0, 0, 0))
    with pytest.raises(TrainingError, match="must contain sub-folders of pictures"):
        references(folders, same_style=f"{folders['same_style']}/0")
    (Path(folders["same_style"]) / "0" / "0.txt").unlink()
    with pytest.raises(TrainingError, match=r"needs a caption in 0\.txt"):
        references(folders)
    for index in range(2):
        (Path(folders["same_content"]) / "1" / f"{index}.png").unlink()
    with pytest.raises(TrainingError, match="has one picture: a pair needs two"):
        references(folders)


def test_who_sees_a_reference() -> None:
    """Below its share a draw leaves the reference out, for both readers."""
    dropped = (0.15, 0.15, 0.0)
    assert seen_by([0, 1, 2], [0.1, 0.1, 0.1], dropped) == {"style": [0, 0, 1], "content": [0, 0, 1]}
    assert seen_by([0, 0, 1], [0.15, 0.14, 0.9], dropped) == {"style": [1, 0, 0], "content": [0, 0, 1]}


def test_only_readers_and_maps_learn(tiny_pipeline: Path, file: Path) -> None:
    """Style pairs teach the reader of styles and maps of its layers, and nothing else."""
    from atelier.core.knobs import parse
    from atelier.training.settings import settings_of

    chosen = parse(
        settings_of(Deadiff),
        {"same_style": "a", "same_content": "b", "pipeline": str(tiny_pipeline), "weights": str(file)},
    )
    method = Deadiff()
    network = method.network(chosen)
    picture = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    items = {
        "targets": picture,
        "references": 1 - picture,
        "captions": ["art"],
        "relation": torch.tensor([0]),
    }
    generator = torch.Generator().manual_seed(0)
    (term,) = method.losses(network, Batch(items, 0, generator), chosen).values()
    term.backward()
    moved = {
        name
        for name, weight in network.named_parameters()
        if weight.grad is not None and weight.grad.abs().max() > 0
    }
    inside = networks.content_layers(len(network.maps))
    expected = {f"maps.{index}." for index in range(len(network.maps)) if index not in inside}
    assert {name[:7] for name in moved if name.startswith("maps")} == expected
    assert {name.split(".")[1] for name in moved if name.startswith("readers")} == {"style"}
    assert not any(name.startswith("visions") for name in moved)


def test_from_folders_to_a_picture(
    folders: dict[str, str], tiny_pipeline: Path, file: Path, tmp_path: Path, painting: Floats
) -> None:
    """A resumed run writes the file of a whole one, and the command draws with it."""
    line = f"train deadiff --same-style {folders['same_style']} --same-content {folders['same_content']}"
    line += f" --pipeline {tiny_pipeline} --weights {file} --warmup 0"
    for out, steps in (("whole", 2), ("parts", 1), ("parts", 2)):
        more = ["--out", str(tmp_path / out), "--steps", str(steps), "--crop", "32", "--batch", "2"]
        assert main([*line.split(), *more, "--save-every", "1", "--device", "cpu", "--no-half"]) == 0
    files = [tmp_path / out / "deadiff.safetensors" for out in ("whole", "parts")]
    whole, parts = (load_file(one) for one in files)
    before = load_file(file)
    assert whole.keys() == before.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not torch.equal(
        whole["readers.style.queries"].float(), before["readers.style.queries"].half().float()
    )
    write(Picture.of(painting), tmp_path / "painting.png")
    words = ["generate", "deadiff", "--style", str(tmp_path / "painting.png"), "--text", "red paint"]
    words += ["--weights", str(files[0]), "--pipeline", str(tiny_pipeline), "--steps", "2", "--size", "64"]
    assert main([*words, "--negative", "", "-o", str(tmp_path / "made.png"), "--device", "cpu"]) == 0
    assert Picture.open(tmp_path / "made.png").pixels.std() > 0.01
