"""What every method keeps, whatever it does. A new method is tested here without a line of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import atelier
from atelier.colour import rgb_to_lab
from atelier.core.errors import InputError, UsageError
from atelier.core.knobs import Knobs, parse
from atelier.core.progress import Event, Progress
from atelier.images import Picture, write
from atelier.images.regions import feather
from atelier.methods import registry
from atelier.methods.base import Method
from atelier.session.controls import UNRECORDED

Floats = npt.NDArray[np.float32]
Kind = type[Method]

FAMILIES = {"classical", "optimise", "feedforward", "gan", "text", "diffusion", "baseline"}

pytestmark = pytest.mark.parametrize("kind", registry.list_methods().values(), ids=registry.list_methods())


def takes_pictures(kind: Kind) -> bool:
    """Whether a picture can be the style; for the others, the weights are."""
    return "picture" in kind.takes.styles


def made(kind: Kind, content: Any, style: Any, settings: dict[str, Any], **more: Any) -> Picture:
    """What the method makes; without the style if its weights are its style."""
    style = style if takes_pictures(kind) else None
    return atelier.stylize(content, style, method=kind.name, **settings | more)


# what a method says of itself


def test_it_says_what_it_does(kind: Kind) -> None:
    assert re.fullmatch(r"[A-Z].{10,160}\.", kind.summary())
    assert re.fullmatch(r"[a-z][a-z0-9_]*", kind.name)
    assert kind.native <= {"strength", "styles", "regions"}


def test_its_file_says_what_differs(kind: Kind) -> None:
    module = __import__(kind.__module__, fromlist=["_"])
    assert module.__doc__
    assert len(module.__doc__.split()) > 20


def test_it_names_its_paper(kind: Kind) -> None:
    paper = kind.paper
    assert paper.authors
    assert len(paper.title) > 3
    assert 1900 < paper.year < 2100
    assert re.fullmatch(r"https://\S+", paper.url)


def test_its_family_is_its_folder(kind: Kind) -> None:
    assert kind.family() in FAMILIES
    assert kind.__module__ == f"atelier.methods.{kind.family()}.{kind.__module__.rsplit('.', 1)[1]}"


def test_its_knobs_are_declared_in_full(kind: Kind) -> None:
    assert issubclass(kind.Knobs, Knobs)
    controls = atelier.Controls.model_fields.keys() | {
        "content",
        "text",
        "style",
        "mask",
        "regions",
        "method",
        "quality",
        "progress",
    }
    assert not kind.Knobs.model_fields.keys() & controls
    for name, field in kind.Knobs.model_fields.items():
        assert not field.is_required(), name
        assert field.description, name
        assert re.fullmatch(r"[A-Z0-9'].+\.", field.description), name
    defaults = parse(kind.Knobs, {})
    assert parse(kind.Knobs, defaults.model_dump(mode="json")) == defaults


def test_its_schema_is_json(kind: Kind) -> None:
    schema = json.loads(json.dumps(kind.Knobs.model_json_schema(), allow_nan=False))
    assert set(schema["properties"]) == set(kind.Knobs.model_fields)
    assert all({"default", "description"} <= knob.keys() for knob in schema["properties"].values())


def test_its_qualities_parse(kind: Kind) -> None:
    assert {"draft", "good", "best"} <= kind.qualities.keys()
    assert {"draft", "good", "best"} <= kind.sizes.keys()
    for quality in kind.qualities:
        parse(kind.Knobs, registry.knobs_for(kind, quality, {}))


def test_a_published_network_computes_as_published(kind: Kind) -> None:
    if kind.family() == "feedforward":  # the diffusion networks were published in half precision
        for quality, preset in kind.qualities.items():
            if quality.startswith("published") and "half" in kind.Knobs.model_fields:
                assert preset["half"] is False


# the picture


@pytest.mark.parametrize("shape", [(37, 53), (40, 24), (64, 64), (9, 50)])
def test_shape_range_and_type(
    kind: Kind, tiny: dict[str, Any], painting: Floats, shape: tuple[int, int]
) -> None:
    content = np.random.default_rng(1).random((*shape, 3), dtype=np.float32)
    result = made(kind, content, painting, tiny)
    assert result.pixels.shape == content.shape
    assert result.pixels.dtype == np.float32
    assert np.isfinite(result.pixels).all()
    assert result.pixels.min() >= 0
    assert result.pixels.max() <= 1
    assert result.alpha is None
    if kind.family() != "baseline":
        assert not np.array_equal(result.pixels, content)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (3, 2)])
def test_the_smallest_pictures(
    kind: Kind, tiny: dict[str, Any], painting: Floats, shape: tuple[int, int]
) -> None:
    """They are painted, or refused in one line that names the size ("20x1 px is too small")."""
    content = np.full((*shape, 3), 0.25, np.float32)
    refused = ""
    try:
        result = made(kind, content, painting, tiny)
    except InputError as error:
        refused = str(error)
    if refused:
        assert re.fullmatch(rf".*\b{shape[1]} ?x ?{shape[0]}\b.* too small.*", refused)
        return
    assert result.pixels.shape == content.shape
    assert np.isfinite(result.pixels).all()
    assert result.pixels.min() >= 0
    assert result.pixels.max() <= 1


@pytest.mark.parametrize("size", [33, 96])
def test_size(kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats, size: int) -> None:
    width, height = made(kind, photo, painting, tiny, size=size).size
    assert width == size
    assert abs(height - size * 40 / 56) <= 0.5


def test_strength_0_is_the_photo(kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats) -> None:
    assert np.array_equal(made(kind, photo, painting, tiny, strength=0).pixels, photo)


def test_strength_leads_from_the_photo(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    """Full strength is seen: over 0.01 on average, though two iterations are few. A little is nearly none."""
    near, far = (
        np.abs(made(kind, photo, painting, tiny, strength=strength).pixels - photo).mean()
        for strength in (0.02, 1)
    )
    if kind.name == "identity":
        assert near == far == 0
        return
    assert far > 0.01
    assert 0 < near < far
    assert near < 0.03


def test_the_same_seed_gives_the_same_pixels(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    first, again = (made(kind, photo, painting, tiny, seed=5).pixels for _ in range(2))
    assert np.array_equal(first, again)


def test_inputs_and_the_world_are_left_alone(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    content, style = Picture.of(photo.copy()), Picture.of(painting.copy())
    torch.manual_seed(3)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads())
    made(kind, content, style, tiny, threads=1)
    made(kind, content, style, tiny, strength=0)
    assert np.array_equal(content.pixels, photo)
    assert np.array_equal(style.pixels, painting)
    assert content.recipe is None
    assert style.recipe is None
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.get_num_threads() == before[2]


# progress


def test_events_rise_to_their_total(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    events: list[Event] = []
    made(kind, photo, [painting, painting[::-1].copy()], tiny, progress=events.append)
    done = [event.done for event in events]
    assert done == sorted(done)
    assert len({event.total for event in events}) <= 1
    assert all(0 <= event.done <= event.total for event in events)
    for event in events:
        assert all(np.isfinite(list(event.losses.values())))
        if event.preview is not None:
            preview = event.preview()
            assert preview.ndim == 4
            assert preview.shape[1] == 3
            assert 0 <= preview.min() <= preview.max() <= 1


def test_a_stop_at_the_first_event_gives_a_picture(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    events: list[Event] = []

    def stop(event: Event) -> bool:
        events.append(event)
        return False

    result = made(kind, photo, painting, tiny, progress=stop)
    assert result.pixels.shape == photo.shape
    assert np.isfinite(result.pixels).all()
    assert len(events) <= 1
    assert result.recipe is not None
    assert result.recipe["stopped_after"] == (events[0].done if events else None)


# the shared controls


def test_black_in_the_mask_is_untouched(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    mask = np.zeros(photo.shape[:2], np.float32)
    mask[:, 40:] = 1
    result = made(kind, photo, painting, tiny, mask=mask, feather=2)
    black = feather(mask, 2) == 0
    assert black[:, :30].all()
    assert np.array_equal(result.pixels[black], photo[black])
    if kind.family() != "baseline":
        assert not np.array_equal(result.pixels[:, 50:], photo[:, 50:])


def test_the_colours_of_the_content(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    # Greyish, so that no lightness takes its chroma out of what sRGB can show.
    photo = 0.5 + 0.15 * (photo - 0.5)
    result = made(kind, photo, painting, tiny, colour="content")
    chroma, expected = (rgb_to_lab(Picture.of(one).tensor())[:, 1:] for one in (result.pixels, photo))
    inside = ((result.pixels > 0.02) & (result.pixels < 0.98)).all(axis=2)
    assert inside.mean() > 0.5
    assert (chroma - expected).abs()[:, :, torch.from_numpy(inside)].max() < 0.1


def test_alpha_is_kept(kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats) -> None:
    alpha = np.linspace(0, 1, photo[..., :1].size, dtype=np.float32).reshape(*photo.shape[:2], 1)
    for strength in (0, 1):
        result = made(kind, np.concatenate([photo, alpha], axis=2), painting, tiny, strength=strength)
        assert result.alpha is not None
        assert np.array_equal(result.alpha, alpha[..., 0])


def test_several_styles_are_weighted(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    if not takes_pictures(kind):
        pytest.skip("it takes no style picture")
    first = made(kind, photo, painting, tiny)
    both = made(kind, photo, [painting, 1 - painting], tiny, style_weights=(1, 0))
    assert np.abs(first.pixels - both.pixels).max() < 1e-4


def test_each_region_has_its_own_style(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    if not takes_pictures(kind):
        pytest.skip("it takes no style picture")
    left = np.zeros(photo.shape[:2], np.float32)
    left[:, :20] = 1
    right = np.zeros_like(left)
    right[:, 30:50] = 1
    styles, settings = [painting, 1 - painting], tiny | {"feather": 0}
    result = made(kind, photo, styles, settings, regions=[left, right]).pixels
    assert np.array_equal(result[:, 20:30], photo[:, 20:30])
    assert np.array_equal(result[:, 50:], photo[:, 50:])
    swapped = made(kind, photo, styles, settings, regions=[right, left]).pixels
    alone = made(kind, photo, styles[:1], settings, regions=[left]).pixels
    assert np.array_equal(alone[:, 20:], photo[:, 20:])
    if kind.family() != "baseline":
        assert not np.array_equal(result[:, :20], photo[:, :20])
        assert kind.takes.least == 0 or not np.array_equal(result[:, :20], swapped[:, :20])


def test_without_a_style(kind: Kind, tiny: dict[str, Any], photo: Floats) -> None:
    if kind.takes.least:
        with pytest.raises(UsageError, match="needs a style"):
            made(kind, photo, None, tiny)
    else:
        assert made(kind, photo, None, tiny).pixels.shape == photo.shape


# training


def training_of(kind: Kind, files: dict[str, Any], photo: Floats, painting: Floats, folder: Path) -> Any:
    """A task that trains the method on a handful of small pictures of the data that it declares.

    `files` are tiny weights by the name of the setting that takes them.
    """
    from atelier.training.settings import settings_of
    from atelier.training.task import MethodTask

    for name in ("a", "b"):
        (folder / name).mkdir()
        for index, one in enumerate((photo, painting, photo[::-1], painting[:, ::-1])):
            write(Picture.of(np.ascontiguousarray(one)), folder / name / f"{index}.png")
            (folder / name / f"{index}.txt").write_text(f"picture {index} of {name}")
    a, b = str(folder / "a"), str(folder / "b")
    data: dict[str, dict[str, Any]] = {
        "pairs": {"photos": (a,), "paintings": (b,)},
        "styles": {"photos": (a,), "paintings": (b,)},
        "one_style": {"photos": (a,), "style": f"{b}/1.png"},
        "painted": {"photos": (a,), "style": f"{b}/1.png", "painted_side": 32, "painted_most": 1},
        "pictures": {"pictures": (a, b)},
        "domains": {"a": (a,), "b": (b,)},
        "labelled": {"domain": (f"a={a}", f"b={b}")},
        "referenced": {"domain": (f"a={a}", f"b={b}")},
        "captioned": {"pictures": (a, b)},
        "composites": {"photos": (a,), "masks": a, "paintings": str(folder)},
        "references": {"same_style": str(folder), "same_content": str(folder)},
        "bucketed": {"pictures": (a, b)},
    }
    assert kind.Training is not None
    fields, given = kind.Training.model_fields, dict[str, Any](data[kind.data])
    given |= {"batch": 4, "crop": 32, "held_back": 1, "half": False, "device": "cpu"}
    given |= {"steps": 12, "warmup": 0, "cooldown": 0, "evaluate_every": 12}
    small = files | {"start": files.get(kind.weights_knob, ""), "text": ("red paint", "art")}
    own = ("encoder", "clip_model", "start", "text", "pipeline", "weights")
    given |= {name: small[name] for name in own if name in fields}
    given |= {name: 16 for name in ("width", "widest", "hidden") if name in fields}
    given |= {"painter": "draft"} if kind.data == "painted" else {}
    return MethodTask(kind, parse(settings_of(kind), given))


def _previewed(task: Any, networks: Any, photo: Floats, painting: Floats, path: Path) -> None:
    photo8, painting8 = ((255 * one).round().astype(np.uint8) for one in (photo, painting))
    task.sheet = [(photo8, painting8 if task.method.data in ("pairs", "styles", "references") else None)]
    task.preview(networks, path)
    height, width, _ = Picture.open(path).pixels.shape
    assert height == len(photo)
    assert width >= 2 * photo.shape[1]


def _kept(task: Any, state: Any, path: Path) -> None:
    """The checkpoint gives a new state what the old one held."""
    from atelier.training import checkpoint

    checkpoint.write(path, {name: part.state_dict() for name, part in state.items()})
    for name, part in task.state().items():
        part.load_state_dict(checkpoint.read(path)[name])
        assert part.state_dict().keys() == state[name].state_dict().keys()


def test_its_training_learns_and_what_it_writes_paints(
    kind: Kind,
    tiny: dict[str, Any],
    tiny_encoder: Path,
    tiny_clip: Path,
    photo: Floats,
    painting: Floats,
    tmp_path: Path,
) -> None:
    if kind.Training is None:
        pytest.skip("nothing to train")
    files = tiny | {"encoder": str(tiny_encoder), "clip_model": str(tiny_clip)}
    task = training_of(kind, files, photo, painting, tmp_path)
    torch.manual_seed(0)
    networks = task.networks()
    optimisers, state = task.optimisers(networks), task.state()
    place = SimpleNamespace(index=0, count=1, device=torch.device("cpu"), mean=lambda tensor: tensor)
    place.anyone = bool
    assert task.make(tmp_path, place, Progress())
    (batch,) = next(task.batches(0, place))
    course = []
    for _ in range(12):
        batch.generator.manual_seed(0)
        total = 0.0
        for update in task.updates(networks, batch, state):
            loss = torch.stack(list(update.terms.values())).sum()
            assert torch.isfinite(loss)
            names = (update.optimiser,) if isinstance(update.optimiser, str) else update.optimiser
            for name in names:
                optimisers[name].zero_grad()
            loss.backward()
            for name in names:
                optimisers[name].step()
            total += float(loss.detach())
        course.append(total)
    if len(optimisers) == 1:  # adversaries need not get better together
        assert min(course[-3:]) < course[0]
        assert task.evaluate(networks).keys() >= {"judged_loss"}
    task.export(networks, tmp_path / "trained.safetensors", {})
    _previewed(task, networks, photo, painting, tmp_path / "sheet.jpg")
    _kept(task, state, tmp_path / "state.safetensors")
    settings = tiny | {kind.weights_knob: str(tmp_path / "trained.safetensors")}
    assert made(kind, photo, painting, settings).pixels.shape == photo.shape


# the receipt


def test_its_recipe_is_complete_and_json(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    result = made(kind, photo, painting, tiny, seed=9)
    assert result.recipe is not None
    recipe = json.loads(json.dumps(result.recipe, allow_nan=False))
    assert recipe == result.recipe
    assert recipe["method"] == kind.name
    assert recipe["knobs"].keys() == kind.Knobs.model_fields.keys()
    assert recipe["controls"].keys() == atelier.Controls.model_fields.keys() - UNRECORDED
    assert (recipe["controls"]["seed"], recipe["controls"]["size"]) == (9, 56)
    assert recipe["content"]["sha256"] == Picture.of(photo).sha256
    styles = [Picture.of(painting).sha256] if takes_pictures(kind) else []
    assert [style["sha256"] for style in recipe["styles"]] == styles
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in recipe["weights"].values())
    # A receipt has the names of weights files, and not their folders.
    files = {name: value for name, value in tiny.items() if name in kind.Knobs.model_fields}
    used = kind().weights(parse(kind.Knobs, recipe["knobs"] | files))
    assert recipe["weights"].keys() == {Path(name).name for name in used}


@pytest.mark.parametrize("stop", [False, True])
def test_replay_makes_the_same_pixels(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats, tmp_path: Path, stop: bool
) -> None:
    for name, pixels in (("photo", photo), ("painting", painting), ("mask", np.ones_like(photo))):
        write(Picture.of(pixels), tmp_path / f"{name}.png")
    content, style, mask = (tmp_path / f"{name}.png" for name in ("photo", "painting", "mask"))
    listener = (lambda event: False) if stop else None
    result = made(
        kind, content, [style, content], tiny, mask=mask, seed=4, size=48, strength=0.7, progress=listener
    )
    write(result, tmp_path / "made.png")
    files = {name: value for name, value in tiny.items() if name in kind.Knobs.model_fields}
    again = atelier.replay(tmp_path / "made.png", files=files)
    assert np.array_equal(again.pixels, result.pixels)
    assert again.recipe == result.recipe
