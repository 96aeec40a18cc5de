"""Harmonise: an object is cut out of a photo, placed on a painting, and repainted to belong there."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from atelier.core.errors import AtelierError, UsageError
from atelier.methods import registry
from atelier.session.controls import Controls
from atelier.studio.page import controls, inputs, masks, paint, parts, selection
from atelier.studio.requests import Inputs, Settings

if TYPE_CHECKING:
    from PIL import Image

    from atelier.images import Picture
    from atelier.studio.service import Studio

Floats = npt.NDArray[np.float32]

#: The longest composite in pixels, as `atelier harmonise` makes them.
_SIDE = 1024
#: The knobs that are shown first.
_FIRST = ("own_colours",)
_MASK = (
    "Choose a photo of the object. Paint over the object, or select it by clicks; "
    "a cut-out with a transparent ground needs no mask."
)
_PLACE = "Choose a painting, and the object's photo with its mask. Then place the object by dragging it."


def tab(studio: Studio) -> None:
    """Build the tab."""
    selector = selection.Selector(studio)
    job_id = gr.State("")
    with gr.Row(elem_classes="at-work"):
        with gr.Column(elem_classes="at-rail"):
            with gr.Column(elem_classes="at-card"):
                parts.title("Painting")
                painting = inputs.photo_part(studio, "harmonise-painting", "The painting", sampled=False)
                shelf = inputs.shelf_part(studio, "harmonise-shelf", single=True, chosen="")
            with gr.Column(elem_classes="at-card"):
                parts.title("Object")
                photo = inputs.photo_part(studio, "harmonise-photo", "A photo of the object")
            with gr.Column(elem_classes="at-card"):
                form = parts.part("form", "harmonise-form", _form("good", {}, engine=False))
            with gr.Accordion("Method and its knobs", open=False, elem_classes="at-card"):
                knobs = parts.part("form", "harmonise-knobs", _form("good", {}, engine=True))
        with gr.Column(elem_classes="at-main"):
            parts.title("1 · Mask", "What of the photo is the object?")
            mask = parts.part("mask", "harmonise-mask", None, empty=_MASK)
            parts.title("2 · Place", "Drag the object; drag its corner to scale it.")
            place = parts.part("place", "harmonise-place", None, empty=_PLACE)
            with gr.Row(elem_classes="at-do"):
                go = gr.Button("Harmonise", variant="primary", elem_id="harmonise-go")
                stop = gr.Button("Stop", elem_id="harmonise-stop", elem_classes="at-stop")
                note = parts.note("harmonise-note")
            viewer = parts.part("viewer", "harmonise-viewer", None)
            links = parts.note("harmonise-links")

    def edited(photo: Any, value: Any) -> Any:
        return masks.answered(studio, selector, photo, value)

    def placed(photo: Any, painting: Any, mask: Any, place: Any) -> Any:
        return placing(studio, photo, painting, mask, place)

    def hung(shelf: Any) -> Any:
        return inputs.shown(studio, inputs.styles(shelf)[0][0]) if inputs.styles(shelf)[0] else gr.skip()

    def painted(*values: Any) -> Iterator[tuple[Any, ...]]:
        yield from run(studio, *values)

    quality = gr.State("good")

    def follow(form: Any, knobs: Any, last: str) -> tuple[Any, str]:
        now = str(form.get("values", {}).get("quality", "good"))
        if now == last:
            return gr.skip(), now
        return inputs.since(_form(now, knobs.get("values", {}), engine=True), knobs), now

    form.input(follow, [form, knobs, quality], [knobs, quality], show_progress="hidden")
    fresh = photo.change(lambda photo: masks.fresh(photo, ["object"]), photo, mask, show_progress="hidden")
    cut = mask.input(edited, [photo, mask], mask, show_progress="hidden")
    shelf.input(hung, shelf, painting, show_progress="hidden")
    for event in (fresh.then, cut.then, painting.change):
        event(placed, [photo, painting, mask, place], place, show_progress="hidden")
    go.click(
        painted, [photo, painting, mask, place, form, knobs], [viewer, note, links, job_id],
        show_progress="hidden",
    )  # fmt: skip
    stop.click(lambda job: paint.stopped(studio, job), job_id, None, queue=False)


def _form(quality: str, values: Mapping[str, Any], *, engine: bool) -> dict[str, Any]:
    """What everyone sets, or what chooses the method that paints, which the quality does by itself."""
    kind = registry.find("harmonise")
    if engine:
        made = controls.fields(kind.Knobs, kind.qualities.get(quality, {}), skip=_FIRST)
        return inputs.form_of(made, values)
    own = controls.fields(Controls, only=("strength", "seed"))
    first = controls.fields(kind.Knobs, only=_FIRST)
    return {"fields": [inputs.quality_field(["draft", "good", "best"]), *first, *own], "values": values}


def placing(studio: Studio, photo: Any, painting: Any, mask: Any, place: Any) -> Any:
    """What the placing shows: the painting, and the object as far as it is cut out."""
    if not (photo or {}).get("id") or not (painting or {}).get("id"):
        return None
    try:
        pixels, alpha = cut_out(studio, str(photo["id"]), mask)
    except AtelierError:
        return None
    height, width = alpha.shape
    kept = place if place and place.get("painting") == painting["url"] else {}
    return {
        "painting": painting["url"], "object": _address(pixels, alpha), "ratio": height / width,
        "width": painting["width"], "height": painting["height"],
        "x": kept.get("x", 0.5), "y": kept.get("y", 0.6), "scale": kept.get("scale", 0.35),
    }  # fmt: skip


def cut_out(studio: Studio, id: str, mask: Any) -> tuple[Floats, Floats]:
    """The object's pixels (H, W, 3) and coverage (H, W), cropped to what is covered.

    Raises InputError where nothing is covered.
    """
    from atelier import images

    picture = studio.pictures.open(id, side=selection.SIDE)
    if mask and mask["layers"][0].get("mask"):
        plane = masks.coverage(studio, mask, 0, picture.shape)
    elif picture.alpha is not None and picture.alpha.min() < 1:
        plane = picture.alpha
    else:
        raise UsageError("the object has no mask: paint over it, or select it by clicks")
    rows, columns = np.flatnonzero(plane.max(axis=1) > 0.5), np.flatnonzero(plane.max(axis=0) > 0.5)
    if not len(rows) or not len(columns):
        raise UsageError("the object's mask is empty: paint over the object, or select it by clicks")
    crop = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return picture.pixels[crop], images.feather(plane, 1.5)[crop]


def composite(
    painting: Picture, pixels: Floats, alpha: Floats, place: Mapping[str, Any]
) -> tuple[Floats, Floats]:
    """The painting with the object pasted at its place, (H, W, 3), and the object's mask (H, W)."""
    import cv2

    height, width = painting.shape
    wide = max(4, round(float(place["scale"]) * width))
    tall = max(4, round(wide * alpha.shape[0] / alpha.shape[1]))
    way = cv2.INTER_AREA if wide < alpha.shape[1] else cv2.INTER_CUBIC
    small, plane = (cv2.resize(one, (wide, tall), interpolation=way).clip(0, 1) for one in (pixels, alpha))
    left, top = round(float(place["x"]) * width - wide / 2), round(float(place["y"]) * height - tall / 2)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + wide), min(height, top + tall)
    if x1 <= x0 or y1 <= y0:
        raise UsageError("the object lies outside the painting: drag it in")
    mask = np.zeros((height, width), np.float32)
    whole = painting.pixels.copy()
    inner = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    mask[y0:y1, x0:x1] = plane[inner]
    share = plane[inner][..., None]
    whole[y0:y1, x0:x1] = whole[y0:y1, x0:x1] * (1 - share) + small[inner] * share
    return whole, mask


def run(
    studio: Studio, photo: Any, painting: Any, mask: Any, place: Any, form: Any, knobs: Any
) -> Iterator[tuple[Any, ...]]:
    """Updates of (viewer, note, links, job id) while the object is repainted."""
    try:
        if not (photo or {}).get("id") or not (painting or {}).get("id") or not place:
            raise UsageError("choose a painting and an object first, and say what of its photo is the object")
        ground = studio.pictures.open(str(painting["id"]), side=_SIDE)
        whole, plane = composite(ground, *cut_out(studio, str(photo["id"]), mask), place)
        settings, _ = inputs.settings(studio, "harmonise", form, knobs)
        asked = Settings("harmonise", settings.quality, settings.values)
        names = [Path(studio.pictures.name(str(one["id"]))).stem for one in (photo, painting)]
        content = studio.pictures.id_of(whole, f"{' on '.join(names)}.png")
        plane_id = studio.pictures.id_of(_grey(plane), "object.png")
        what = Inputs(content=content, styles=(str(painting["id"]),), mask=plane_id)
        job = studio.paint(what, asked)
    except AtelierError as error:
        yield gr.skip(), parts.error(str(error)), "", ""
        return
    yield from paint.told(studio, job, inputs.shown(studio, content))


def _grey(plane: Floats) -> Floats:
    return np.repeat(plane[..., None], 3, axis=2)


def _address(pixels: Floats, alpha: Floats) -> str:
    """The cut-out for the browser."""
    from PIL import Image

    both = np.dstack([pixels, alpha]).clip(0, 1)
    picture: Image.Image = Image.fromarray((both * 255).round().astype(np.uint8), "RGBA")
    picture.thumbnail((640, 640))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
