"""One call: the same for every kind of input, and one sentence for everything that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from imagecodecs import cms_profile
from PIL import Image

import atelier
from atelier import InputError, Picture, ResourceError, UsageError
from atelier.images import write
from atelier.images.metadata import SOURCE_TYPES, Metadata
from atelier.images.receipts import exif
from atelier.methods import registry
from atelier.methods.base import Job

Floats = npt.NDArray[np.float32]

SHIFT = '''
"""A method that needs nothing: the photo's colours move towards the painting's mean."""

from atelier.core.knobs import Knobs, knob
from atelier.methods.base import Job, Method, Paper


class Shift(Method):
    """Move the photo's colours towards the painting's mean."""

    name = "shift"
    paper = Paper("Nobody", 2024, "Shifts", "https://example.org")
    sizes = {"draft": 24, "good": 48, "best": 96}

    class Knobs(Knobs):
        grain: float = knob(0.0, "Noise that the seed decides.", ge=0)

    def transfer(self, job, knobs):
        import torch

        mean = job.styles[0].mean((2, 3), keepdim=True)
        noise = torch.rand(job.content.shape, generator=torch.Generator().manual_seed(job.seed))
        picture = 0.5 * (job.content + mean) + knobs.grain * noise.to(job.content)
        for done in (1, 2, 3):
            if not job.progress.report(done, 3, preview=lambda: picture):
                return picture + 0.1 * done
        return picture
'''


@pytest.fixture(autouse=True)
def _shift(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("methods")
    (folder / "shift.py").write_text(SHIFT, encoding="utf-8")
    monkeypatch.setenv("ATELIER_METHODS", str(folder))
    registry.list_methods.cache_clear()
    yield
    registry.list_methods.cache_clear()


def shift(content: Any, style: Any, **settings: Any) -> Picture:
    return atelier.stylize(content, style, method="shift", **{"device": "cpu"} | settings)


def eight_bits(pixels: Floats) -> npt.NDArray[np.uint8]:
    return np.rint(pixels * 255).astype(np.uint8)


# inputs


def as_file(pixels: npt.NDArray[np.uint8], folder: Path) -> Any:
    path = folder / f"{pixels.sum()}.png"
    Image.fromarray(pixels).save(path)
    return path


DRESSES: dict[str, Callable[[npt.NDArray[np.uint8], Path], Any]] = {
    "path": as_file,
    "text": lambda pixels, folder: str(as_file(pixels, folder)),
    "pil": lambda pixels, folder: Image.fromarray(pixels),
    "bytes": lambda pixels, folder: pixels,
    "floats": lambda pixels, folder: pixels.astype(np.float32) / np.float32(255),
    "tensor": lambda pixels, folder: torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).permute(
        2, 0, 1
    ),
    "batch": lambda pixels, folder: torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None],
    "picture": lambda pixels, folder: Picture.of(pixels),
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_every_kind_of_input_gives_the_same_picture(
    dress: Callable[..., Any], photo: Floats, painting: Floats, tmp_path: Path
) -> None:
    photo_8, painting_8 = eight_bits(photo), eight_bits(painting)
    mask = np.zeros(photo.shape, np.uint8)
    mask[:, 20:] = 255
    expected = shift(photo_8, painting_8, mask=mask, size=40)
    made = shift(dress(photo_8, tmp_path), dress(painting_8, tmp_path), mask=dress(mask, tmp_path), size=40)
    assert np.array_equal(made.pixels, expected.pixels)


def test_names_and_hashes_are_those_of_the_files(photo: Floats, painting: Floats, tmp_path: Path) -> None:
    import hashlib

    path = as_file(eight_bits(photo), tmp_path)
    recipe = shift(path, painting).recipe
    assert recipe is not None
    assert recipe["content"] == {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert recipe["styles"][0]["name"] == ""
    assert recipe["mask"] is None


def test_an_input_picture_is_not_the_result(photo: Floats, painting: Floats) -> None:
    content = Picture.of(photo)
    made = shift(content, painting, strength=0, size=56)
    assert made is not content
    assert made.recipe is not None
    assert content.recipe is None
    made.pixels[:] = 0
    assert np.array_equal(content.pixels, photo)


# sizes


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (48, 34)),
        ({"quality": "draft"}, (24, 17)),
        ({"quality": "best"}, (56, 40)),
        ({"size": 112}, (112, 80)),
        ({"size": 1}, (1, 1)),
        ({"quality": "draft", "size": 30}, (30, 21)),
    ],
)
def test_sizes(photo: Floats, painting: Floats, settings: dict[str, Any], size: tuple[int, int]) -> None:
    made = shift(photo, painting, **settings)
    assert made.size == size
    assert made.recipe is not None
    assert made.recipe["controls"]["size"] == max(size)


def test_style_scale_is_the_size_of_the_style(photo: Floats, painting: Floats, monkeypatch: Any) -> None:
    seen: list[tuple[int, ...]] = []
    transfer = registry.find("shift").transfer

    def spy(self: Any, job: Job, knobs: Any) -> torch.Tensor:
        seen.append(tuple(job.styles[0].shape[-2:]))
        return transfer(self, job, knobs)

    monkeypatch.setattr(registry.find("shift"), "transfer", spy)
    for scale in (1.0, 0.5, 2.0):
        shift(photo, painting, style_scale=scale)
    assert seen == [(48, 36), (24, 18), (96, 72)]


# controls that the method knows nothing of


def test_strength_is_linear(photo: Floats, painting: Floats) -> None:
    full, part = shift(photo, painting, size=56).pixels, shift(photo, painting, size=56, strength=0.3).pixels
    assert np.allclose(part, photo + 0.3 * (full - photo), atol=1e-6)


def test_styles_are_mixed_by_their_weights(photo: Floats, painting: Floats) -> None:
    one, other = shift(photo, painting).pixels, shift(photo, 1 - painting).pixels
    mixed = shift(photo, [painting, 1 - painting], style_weights=(3, 1)).pixels
    assert np.allclose(mixed, 0.75 * one + 0.25 * other, atol=1e-6)
    even = shift(photo, (painting, 1 - painting)).pixels
    assert np.allclose(even, 0.5 * one + 0.5 * other, atol=1e-6)


def test_the_seed_decides_what_is_random(photo: Floats, painting: Floats) -> None:
    made = [shift(photo, painting, grain=0.1, seed=seed).pixels for seed in (0, 0, 1)]
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_threads_come_back(photo: Floats, painting: Floats) -> None:
    before = torch.get_num_threads()
    recipe = shift(photo, painting, threads=1).recipe
    assert recipe is not None
    assert recipe["machine"]["threads"] == 1
    with pytest.raises(UsageError):
        shift(photo, painting, threads=1, seed=-1)
    assert torch.get_num_threads() == before


# what is wrong, in one sentence


@pytest.mark.parametrize(
    ("settings", "kind", "sentence"),
    [
        ({"method": "shfit"}, UsageError, "there is no method 'shfit': did you mean 'shift'?"),
        ({"quality": "goods"}, UsageError, "shift has no quality 'goods': did you mean 'good'?"),
        ({"strenght": 1}, UsageError, "shift has no knob 'strenght': did you mean 'strength'?"),
        ({"grian": 1}, UsageError, "shift has no knob 'grian': did you mean 'grain'?"),
        ({"grain": -1}, UsageError, "grain = -1 is not allowed: it should be greater than or equal to 0"),
        (
            {"strength": 1.5},
            UsageError,
            "strength = 1.5 is not allowed: it should be less than or equal to 1",
        ),
        (
            {"strength": float("nan")},
            UsageError,
            "strength = nan is not allowed: it should be a finite number",
        ),
        ({"size": 0}, UsageError, "size = 0 is not allowed"),
        ({"size": 10**9}, UsageError, "size = 1000000000 is not allowed"),
        (
            {"colour": "photo"},
            UsageError,
            "colour = 'photo' is not allowed: it should be 'style' or 'content'",
        ),
        ({"device": "gpu"}, UsageError, "there is no device 'gpu'"),
        ({"device": "cuda:77"}, ResourceError, "the device 'cuda:77' does not work"),
        ({"style_weights": (1, 2)}, UsageError, "2 style weights were given for 1 styles"),
        ({"style_weights": (-1,)}, UsageError, "style weights must not be negative"),
        ({"style_weights": (0,)}, UsageError, "at least one must be above 0"),
        ({"mask": np.zeros((4, 4))}, InputError, "the mask the picture is black everywhere"),
        ({"content": "gone.jpg"}, InputError, "gone.jpg"),
        ({"content": 7}, InputError, "a picture cannot be made from int"),
        ({"style": None}, UsageError, "needs a style"),
        ({"style": []}, UsageError, "needs a style"),
        ({"style": ["gone.png"]}, InputError, "gone.png"),
    ],
)
def test_sentences(
    photo: Floats, painting: Floats, settings: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    given = {"content": photo, "style": painting, "method": "shift"} | settings
    with pytest.raises(kind) as caught:
        atelier.stylize(given.pop("content"), given.pop("style"), **given)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_that_fails_gives_no_picture(photo: Floats, painting: Floats, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        registry.find("shift"), "transfer", lambda self, job, knobs: job.content * float("nan")
    )
    with pytest.raises(InputError, match="not finite"):
        shift(photo, painting)


# progress


def test_a_stop_is_in_the_recipe(photo: Floats, painting: Floats) -> None:
    made = shift(photo, painting, progress=lambda event: event.done < 2)
    assert made.recipe is not None
    assert made.recipe["stopped_after"] == 2
    assert shift(photo, painting, progress=lambda event: None).recipe["stopped_after"] is None  # type: ignore[index]


# receipts


@pytest.fixture
def made(photo: Floats, painting: Floats, tmp_path: Path) -> Path:
    """A picture in a file, made from two files beside it."""
    for name, pixels in (("photo", photo), ("painting", painting)):
        write(Picture.of(pixels), tmp_path / f"{name}.png")
    result = shift(tmp_path / "photo.png", str(tmp_path / "painting.png"), grain=0.1, seed=3)
    write(result, tmp_path / "made.png")
    return tmp_path / "made.png"


def test_replay(made: Path) -> None:
    assert np.array_equal(eight_bits(atelier.replay(made).pixels), eight_bits(Picture.open(made).pixels))


def test_replay_of_a_stopped_run_stops_there(photo: Floats, painting: Floats, tmp_path: Path) -> None:
    stopped = shift(photo, [painting, photo], progress=lambda event: event.done < 5)
    write(stopped, tmp_path / "made.png")
    seen: list[int] = []
    again = atelier.replay(
        tmp_path / "made.png",
        content=photo,
        style=[painting, photo],
        progress=lambda event: seen.append(event.done),
    )
    assert np.array_equal(again.pixels, stopped.pixels)
    assert seen == [1, 2, 3, 4, 5]
    assert again.recipe == stopped.recipe


def test_replay_finds_what_moved_along(made: Path, tmp_path: Path) -> None:
    expected = atelier.replay(made).pixels
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("photo", "painting", "made"):
        (tmp_path / f"{name}.png").rename(folder / f"{name}.png")
    assert np.array_equal(atelier.replay(folder / "made.png").pixels, expected)
    (folder / "photo.png").rename(folder / "other.png")
    with pytest.raises(InputError, match=r"photo\.png' is missing: specify it with --content"):
        atelier.replay(folder / "made.png")
    again = atelier.replay(folder / "made.png", content=folder / "other.png")
    assert np.array_equal(again.pixels, expected)


def test_replay_refuses_another_picture(made: Path, photo: Floats) -> None:
    with pytest.raises(InputError, match=r"photo\.png' is not the picture that was used"):
        atelier.replay(made, content=photo[::-1].copy())
    with pytest.raises(UsageError, match="has 1 style, and 2 were given"):
        atelier.replay(made, style=[photo, photo])


def test_replay_needs_inputs_from_memory_again(photo: Floats, painting: Floats, tmp_path: Path) -> None:
    result = shift(photo, painting)
    write(result, tmp_path / "made.png")
    with pytest.raises(InputError, match="was not a file: pass it again"):
        atelier.replay(tmp_path / "made.png")
    with pytest.raises(InputError, match="the value passed for an input that was not a file is not"):
        atelier.replay(tmp_path / "made.png", content=painting, style=painting)
    assert np.array_equal(
        atelier.replay(tmp_path / "made.png", content=photo, style=painting).pixels, result.pixels
    )


def test_replay_needs_a_recipe(tmp_path: Path, photo: Floats) -> None:
    write(Picture.of(photo), tmp_path / "plain.png")
    with pytest.raises(InputError, match="carries no atelier recipe"):
        atelier.replay(tmp_path / "plain.png")
    with pytest.raises(InputError, match="gone"):
        atelier.replay(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "unknown"}, "there is no method 'unknown'"),
        ({"method": 3}, "cannot be read (method: "),
        ({"knobs": {"method": "gatys"}}, "'method' in the wrong place"),
        ({"knobs": {"content": "/etc/passwd"}}, "'content' in the wrong place"),
        ({"knobs": {"seed": 1}}, "'seed' in the wrong place"),
        ({"controls": {"progress": 1}}, "'progress' in the wrong place"),
        ({"controls": {"size": "big"}}, "size = 'big' is not allowed"),
        ({"knobs": {"surprise": 1}}, "has no knob 'surprise'"),
        ({"content": {"name": "x" * 5000, "sha256": ""}}, "is missing"),
        ({"content": {"name": "a\0b", "sha256": ""}}, "is missing"),
        ({"styles": []}, "needs a style"),
    ],
)
def test_hostile_recipes_are_one_sentence(made: Path, change: dict[str, Any], sentence: str) -> None:
    recipe = Picture.open(made).recipe
    assert recipe is not None
    with Image.open(made) as picture:
        picture.save(made.with_name("hostile.png"), exif=exif(recipe | change))
    with pytest.raises(atelier.AtelierError) as caught:
        atelier.replay(made.with_name("hostile.png"))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


# the package


def test_public_names_are_frozen() -> None:
    frozen = (Path(__file__).parent / "public_names.txt").read_text().split()
    assert sorted([*atelier.__all__, "__version__"]) == frozen
    for name in frozen:
        assert getattr(atelier, name) is not None


def test_list_methods_finds_what_the_registry_finds() -> None:
    import atelier.methods.optimise.gatys as module

    assert atelier.list_methods()["gatys"] is module.Gatys
    assert atelier.list_methods().keys() == registry.list_methods().keys()


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import atelier", ["torch", "numpy", "PIL", "pydantic", "scipy"]),
        (
            "import atelier; atelier.list_methods(); atelier.Controls; atelier.stylize",
            ["torch", "scipy", "cv2"],
        ),
        ("import atelier; atelier.Picture; atelier.Event; atelier.UsageError", ["torch", "scipy", "cv2"]),
    ],
)
def test_importing_is_light(code: str, heavy: list[str]) -> None:
    code = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not set(heavy) & set(json.loads(found))


# metadata


def photo_file(folder: Path, photo: Floats, source_type: str = "") -> Path:
    """A photo that was made by atelier itself, with a receipt, rights and an origin."""
    picture = Picture.of(photo)
    picture.metadata = Metadata(dpi=(300.0, 300.0), copyright="(c) Ada", source_type=source_type)
    picture.recipe = {"method": "secret"}
    write(picture, folder / "made.png")
    return folder / "made.png"


@pytest.mark.parametrize("receipt", ["names", "none"])
def test_rights_survive_and_the_mark_of_origin_needs_no_receipt(
    photo: Floats, painting: Floats, tmp_path: Path, receipt: str
) -> None:
    made = shift(photo_file(tmp_path, photo), painting, size=40, receipt=receipt)
    write(made, tmp_path / "out.jpg")
    again = Picture.open(tmp_path / "out.jpg")
    assert (again.metadata.dpi, again.metadata.copyright) == ((300.0, 300.0), "(c) Ada")
    assert again.metadata.source_type == SOURCE_TYPES + "algorithmicallyEnhanced"
    assert (again.recipe is None) == (receipt == "none")
    assert b"secret" not in (tmp_path / "out.jpg").read_bytes()


def test_a_picture_of_words_stays_one(photo: Floats, painting: Floats, tmp_path: Path) -> None:
    origin = SOURCE_TYPES + "trainedAlgorithmicMedia"
    made = shift(photo_file(tmp_path, photo, origin), painting, size=40)
    assert made.metadata.source_type == origin


def test_a_mask_with_a_profile_is_read_as_numbers(photo: Floats, painting: Floats, tmp_path: Path) -> None:
    mask = np.full(photo.shape[:2], 100, np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png", icc_profile=cms_profile("gray", gamma=1.0))
    expected = shift(photo, painting, mask=mask, size=40)
    made = shift(photo, painting, mask=tmp_path / "mask.png", size=40)
    assert np.array_equal(made.pixels, expected.pixels)
    write(made, tmp_path / "out.png")
    replayed = atelier.replay(tmp_path / "out.png", content=photo, style=painting)
    assert np.array_equal(replayed.pixels, made.pixels)
