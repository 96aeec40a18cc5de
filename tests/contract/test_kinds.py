"""Throw-away methods of the kinds that no packaged method is yet: the interface holds for each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import atelier
from atelier.apps import cli
from atelier.images import Picture, write

Floats = npt.NDArray[np.float32]
Add = Callable[[str], None]

WORDS = """
class Words(Method):
    \"\"\"Tint a photo by the number of letters in some words.\"\"\"

    name = "words"
    paper = PAPER
    takes = Takes(styles=frozenset({"text"}), most=2)
    native = frozenset({"styles"})

    class Knobs(AnyKnobs):
        pass

    def transfer(self, job, knobs):
        tint = sum(share * len(text) / 100 for text, share in zip(job.texts, job.text_weights))
        return torch.full_like(job.content, tint)
"""

BOTH = """
class Both(Method):
    \"\"\"Mix the words' tint and the painting's mean colour by their weights.\"\"\"

    name = "both"
    paper = PAPER
    takes = Takes(styles=frozenset({"picture", "text"}))

    class Knobs(AnyKnobs):
        pass

    def transfer(self, job, knobs):
        if job.texts:
            return torch.full_like(job.content, len(job.texts[0]) / 100)
        return job.styles[0].mean((2, 3), keepdim=True).expand_as(job.content)
"""

NOISE = """
class Noise(Method):
    \"\"\"Make noise from a seed, with neither a photo nor a style.\"\"\"

    name = "noise"
    paper = PAPER
    takes = Takes(content="none", styles=frozenset(), least=0)

    class Knobs(AnyKnobs):
        scale: float = knob(1.0, "Brightness of the noise.", ge=0, le=1)

    def transfer(self, job, knobs):
        generator = torch.Generator().manual_seed(job.seed)
        return knobs.scale * torch.rand(job.content.shape, generator=generator)
"""

TRAINED = """
class Trained(Method):
    \"\"\"Paint in a style of which only the name is known.\"\"\"

    name = "trained"
    paper = PAPER
    takes = Takes(styles=frozenset({"trained"}), most=1)

    class Knobs(AnyKnobs):
        pass

    def transfer(self, job, knobs):
        return torch.full_like(job.content, {"dark": 0.1, "light": 0.9}[job.trained[0]])
"""

ABSENT = """
class Absent(Method):
    \"\"\"Ask for a package that nobody has installed here.\"\"\"

    name = "absent"
    paper = PAPER
    extra = "diffusion"
    packages = ("a_package_that_is_not_there",)

    class Knobs(AnyKnobs):
        pass

    def transfer(self, job, knobs):
        return job.content
"""

FILES = """
class Files(Method):
    \"\"\"Add a picture that a knob names, and return its size beside the result.\"\"\"

    name = "files"
    paper = PAPER
    takes = Takes(least=0)

    class Knobs(AnyKnobs):
        other: str = knob("", "A picture.", file="picture")
        note: str = knob("", "File for a note, .txt.", writes=(".txt",))

    def transfer(self, job, knobs):
        other = job.files["other"]
        made = {"note": f"{other.size}".encode()} if knobs.note else {}
        return Result(job.content * 0 + float(other.pixels.mean()), made)
"""

FILM = """
class Film(Method):
    \"\"\"Follow the frame before, at sizes that are multiples of eight.\"\"\"

    name = "film"
    paper = PAPER
    multiple = 8
    prepared = []

    class Knobs(AnyKnobs):
        pass

    def prepare(self, styles, knobs, context):
        self.prepared.append(context.size)

        def paint(frame):
            assert not any(side % 8 for side in frame.content.shape[-2:])
            return Result(frame.content if frame.previous is None else frame.previous + frame.flow.mean())

        return paint
"""

MASKED = """
class Masked(Method):
    \"\"\"Fill the part that the mask marks with the style's mean colour.\"\"\"

    name = "masked"
    paper = PAPER
    takes = Takes(mask="required")

    class Knobs(AnyKnobs):
        pass

    def transfer(self, job, knobs):
        mean = job.styles[0].mean((2, 3), keepdim=True)
        return job.content * (1 - job.mask) + mean * job.mask
"""


def test_a_method_that_reads_words(add: Add, photo: Floats) -> None:
    add(WORDS)
    made = atelier.stylize(photo, text=["ten letter", "twenty letters, see!"], method="words", device="cpu")
    np.testing.assert_allclose(made.pixels, 0.15, atol=1e-6)
    weighted = atelier.stylize(
        photo,
        [atelier.TextStyle("ten letter", 3), atelier.TextStyle("twenty letters, see!", 1)],
        method="words",
        device="cpu",
    )
    np.testing.assert_allclose(weighted.pixels, 0.125, atol=1e-6)
    assert weighted.recipe is not None
    assert weighted.recipe["texts"][0] == {"text": "ten letter", "weight": 0.75}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "words needs a style: give --text WORDS"),
        ({"style": np.zeros((4, 4, 3))}, "words does not take a style picture: it takes a style in words"),
        ({"text": ["a", "b", "c"]}, "words takes at most 2 styles, but 3 were given"),
        ({"text": " "}, "a style in words is empty"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    add: Add, photo: Floats, settings: dict[str, object], sentence: str
) -> None:
    add(WORDS)
    with pytest.raises(atelier.UsageError, match=sentence):
        atelier.stylize(photo, method="words", **settings)  # type: ignore[arg-type]


def test_words_and_a_painting_come_together(add: Add, photo: Floats) -> None:
    add(BOTH)
    style = np.full((8, 8, 3), 0.8, np.float32)
    made = atelier.stylize(photo, style, text="ten letter", method="both", style_weights=(1, 3), device="cpu")
    np.testing.assert_allclose(made.pixels, 0.25 * 0.8 + 0.75 * 0.1, atol=1e-6)


def test_words_are_a_flag_and_replay(add: Add, photo: Floats, tmp_path: Path) -> None:
    add(WORDS)
    from atelier.images import write

    write(atelier.Picture.of(photo), tmp_path / "photo.png")
    out = tmp_path / "out.png"
    command = f"stylize {tmp_path}/photo.png --text twelve --method words --device cpu -o {out}".split()
    assert cli.main(command) == 0
    np.testing.assert_allclose(atelier.replay(out).pixels, 0.06, atol=1e-6)


def test_a_method_without_content_generates(add: Add, tmp_path: Path) -> None:
    add(NOISE)
    made = atelier.generate("noise", size=(40, 24), seed=3, scale=0.5, device="cpu")
    assert made.size == (40, 24)
    assert 0.2 < made.pixels.mean() < 0.3
    out = tmp_path / "noise.png"
    assert cli.main(f"generate noise --size 40x24 --seed 3 --scale 0.5 --device cpu -o {out}".split()) == 0
    np.testing.assert_allclose(atelier.Picture.open(out).pixels, made.pixels, atol=0.5 / 255)
    again = atelier.replay(out)
    assert np.array_equal(again.pixels, made.pixels)
    assert again.recipe is not None
    assert again.recipe["content"] is None


def test_a_texture_is_generated_from_its_sample(tiny_encoder: Path, painting: Floats) -> None:
    small = {"encoder": str(tiny_encoder), "iterations": 2, "coarse_iterations": 2, "device": "cpu"}
    made = atelier.generate("texture", painting, size=(48, 40), **small)
    assert made.size == (48, 40)


#: Settings without blending, so that each pixel is one of the sample's.
HARD = {"quilting": {"softness": 0}, "efros_leung": {"guidance": 0}}


@pytest.mark.parametrize("method", ["quilting", "efros_leung"])
def test_methods_that_copy_a_sample_also_grow_it_without_a_photo(method: str, tmp_path: Path) -> None:
    """Every colour comes from the sample, and none from the grey canvas."""
    sample = np.zeros((40, 40, 3), np.float32)
    sample[::2, :, 0], sample[1::2, :, 2] = 1, 1  # rows of pure red and pure blue
    made = atelier.generate(method, sample, size=(40, 24), seed=1, device="cpu", **HARD[method])
    assert made.size == (40, 24)
    colours = np.unique(made.pixels.reshape(-1, 3).round(3), axis=0)
    assert colours.tolist() == [[0, 0, 1], [1, 0, 0]]
    again = atelier.generate(method, sample, size=(40, 24), seed=1, device="cpu", **HARD[method])
    assert np.array_equal(made.pixels, again.pixels)
    out = tmp_path / "grown.png"
    write(Picture(sample), tmp_path / "sample.png")
    command = f"generate {method} --style {tmp_path / 'sample.png'} --size 40x24 --device cpu -o {out}"
    assert cli.main(command.split()) == 0
    assert Picture.open(out).size == (40, 24)


def test_a_method_for_photos_does_not_generate(painting: Floats, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(atelier.UsageError, match="colour needs a photo: use stylize"):
        atelier.generate("colour", painting)
    assert cli.main(["generate", "texture", "--size", "12y"]) == 2
    assert "size 12y is not a size" in capsys.readouterr().err


def test_trained_styles_are_named(add: Add, photo: Floats) -> None:
    add(TRAINED)
    made = atelier.stylize(photo, "light", method="trained", device="cpu")
    np.testing.assert_allclose(made.pixels, 0.9, atol=1e-6)
    assert made.recipe is not None
    assert made.recipe["trained"] == ["light"]


def test_an_absent_extra_is_one_sentence_and_listing_needs_none(
    add: Add, photo: Floats, painting: Floats, capsys: pytest.CaptureFixture[str]
) -> None:
    add(ABSENT)
    assert cli.main(["methods", "absent"]) == 0
    assert "atelier[diffusion]" in capsys.readouterr().out
    with pytest.raises(atelier.AtelierError, match=r"pip install 'atelier\[diffusion\]'"):
        atelier.stylize(photo, painting, method="absent")


def test_file_knobs_are_opened_and_artifacts_returned(add: Add, photo: Floats, tmp_path: Path) -> None:
    add(FILES)
    from atelier.images import write

    write(atelier.Picture.of(np.full((4, 6, 3), 0.4, np.float32)), tmp_path / "other.png")
    note = tmp_path / "note.txt"
    made = atelier.stylize(photo, method="files", other=tmp_path / "other.png", note=str(note), device="cpu")
    np.testing.assert_allclose(made.pixels, 0.4, atol=1e-6)
    assert note.read_text() == "(6, 4)"
    assert made.artifacts == {"note": b"(6, 4)"}
    assert made.recipe is not None
    assert made.recipe["files"]["other"][0]["name"] == "other.png"
    assert str(tmp_path) not in json.dumps(made.recipe)
    # The same from memory, with nothing written.
    again = atelier.stylize(
        photo, method="files", other=np.full((4, 6, 3), 102, np.uint8), note=".txt", device="cpu"
    )
    assert np.array_equal(again.pixels, made.pixels)
    assert again.artifacts == made.artifacts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["methods", "note.txt", "other.png"]


def test_an_artifact_is_refused_before_the_work(add: Add, photo: Floats, tmp_path: Path) -> None:
    add(FILES)
    settings = {"method": "files", "other": np.zeros((4, 4, 3))}
    with pytest.raises(atelier.UsageError, match=r"note = 'note\.doc' does not have a supported extension"):
        atelier.stylize(photo, note="note.doc", **settings)
    with pytest.raises(atelier.OutputError, match="does not exist: create it"):
        atelier.stylize(photo, note=str(tmp_path / "none" / "note.txt"), **settings)


def test_a_prepared_method_paints_frame_after_frame(add: Add, photo: Floats, painting: Floats) -> None:
    import torch

    add(FILM)
    painter = atelier.Stylizer(painting, method="film", device="cpu", size=50)
    first = painter(photo)
    assert first.size == (50, 36)
    second = painter(photo, previous=first, flow=torch.full((1, 2, 36, 50), 0.01))
    np.testing.assert_allclose(second.pixels, (first.pixels + 0.01).clip(0, 1), atol=1e-6)
    assert painter.setup.method.prepared == [50]  # type: ignore[attr-defined]


def test_a_required_mask_reaches_the_method(add: Add, photo: Floats) -> None:
    add(MASKED)
    style, mask = np.full((8, 8, 3), 0.8, np.float32), np.zeros(photo.shape[:2], np.float32)
    mask[:10] = 1
    with pytest.raises(atelier.UsageError, match="masked needs a mask"):
        atelier.stylize(photo, style, method="masked")
    made = atelier.stylize(photo, style, method="masked", mask=mask, feather=0, device="cpu")
    np.testing.assert_allclose(made.pixels[:10], 0.8, atol=1e-6)
    assert np.array_equal(made.pixels[10:], photo[10:])


def test_a_request_crosses_processes(photo: Floats, painting: Floats) -> None:
    made = atelier.stylize(photo, painting, method="colour", device="cpu", seed=5)
    assert made.recipe is not None
    recipe = atelier.Recipe.model_validate(made.recipe)
    request = atelier.Request(**recipe.model_dump(include=set(atelier.Request.model_fields)))
    code = "import sys, atelier; print(atelier.Request.model_validate_json(sys.stdin.read()).key)"
    text = request.model_dump_json(by_alias=True)
    found = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == request.key == recipe.key
    assert len({request, atelier.Request.model_validate_json(text)}) == 1
    assert request.key != request.model_copy(update={"method": "gatys"}).key


def test_two_jobs_in_one_process_keep_their_threads(photo: Floats, painting: Floats) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    import torch

    meet, before = Barrier(2, timeout=60), torch.get_num_threads()
    seen: dict[int, list[int]] = {1: [], 2: []}

    def job(count: int) -> None:
        def listen(event: object) -> None:
            meet.wait()
            seen[count].append(torch.get_num_threads())
            meet.wait()

        atelier.stylize(photo, painting, method="colour", threads=count, device="cpu", progress=listen)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(job, (1, 2)))
    assert set(seen[1]) == {1}
    assert set(seen[2]) == {2}
    assert torch.get_num_threads() == before
