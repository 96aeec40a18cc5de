"""Regions: masks painted or selected on a photo, a style for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError, UsageError
from atelier.session.controls import Controls
from atelier.studio.page import controls, inputs, masks, paint, parts, selection
from atelier.studio.requests import Inputs

if TYPE_CHECKING:
    from atelier.studio.service import Studio

_EMPTY = "Choose a photo. Then paint the parts that get a style, or select them by clicks."
_FIRST = (
    "style:nocturne",
    "style:woodcut",
    "style:watercolour",
    "style:mosaic",
    "style:etching",
    "style:fauve",
)


def tab(studio: Studio) -> None:
    """Build the tab."""
    selector = selection.Selector(studio)
    job_id, chosen = gr.State(""), gr.State([_FIRST[0]])
    with gr.Row(elem_classes="at-work"):
        with gr.Column(elem_classes="at-rail"):
            with gr.Column(elem_classes="at-card"):
                parts.title("Photo")
                photo = inputs.photo_part(studio, "regions-photo", "Your photo")
            with gr.Column(elem_classes="at-card"):
                parts.title("Style of this region", "What no region covers stays as it is.")
                shelf = inputs.shelf_part(studio, "regions-shelf", single=True)
            with gr.Column(elem_classes="at-card"):
                form = parts.part("form", "regions-form", _form())
        with gr.Column(elem_classes="at-main"):
            mask = parts.part("mask", "regions-mask", None, empty=_EMPTY, several=True)
            with gr.Row(elem_classes="at-do"):
                go = gr.Button("Paint the regions", variant="primary", elem_id="regions-go")
                stop = gr.Button("Stop", elem_id="regions-stop", elem_classes="at-stop")
                note = parts.note("regions-note")
            viewer = parts.part("viewer", "regions-viewer", None)
            links = parts.note("regions-links")

    def begun(photo: Any, chosen: list[str]) -> Any:
        return masks.fresh(photo, _names(studio, chosen))

    def edited(photo: Any, value: Any, chosen: list[str]) -> Any:
        return changed(studio, selector, photo, value, chosen)

    def styled(shelf: Any, value: Any, chosen: list[str]) -> Any:
        return restyled(studio, shelf, value, chosen)

    def painted(photo: Any, value: Any, chosen: list[str], form: Any) -> Iterator[tuple[Any, ...]]:
        yield from run(studio, photo, value, chosen, form)

    photo.change(begun, [photo, chosen], mask, show_progress="hidden")
    mask.input(edited, [photo, mask, chosen], [mask, shelf, chosen], show_progress="hidden")
    shelf.input(styled, [shelf, mask, chosen], [mask, chosen], show_progress="hidden")
    go.click(painted, [photo, mask, chosen, form], [viewer, note, links, job_id], show_progress="hidden")
    stop.click(lambda job: paint.stopped(studio, job), job_id, None, queue=False)


def _form() -> dict[str, Any]:
    own = controls.fields(Controls, only=("strength", "feather", "size", "seed"))
    return {"fields": [inputs.quality_field(["draft", "good", "best"]), *own], "values": {}}


def _names(studio: Studio, chosen: list[str]) -> list[str]:
    return [
        f"{number + 1} · {studio.pictures.name(id).partition('.')[0]}" for number, id in enumerate(chosen)
    ]


def changed(
    studio: Studio, selector: selection.Selector, photo: Any, value: Mapping[str, Any], chosen: list[str]
) -> tuple[Any, Any, Any]:
    """(mask, shelf, styles) after something was done on the photo."""
    layers, active, now = [dict(one) for one in value["layers"]], int(value["active"]), list(chosen)
    base = {name: value[name] for name in ("photo", "width", "height")}
    if value.get("added"):
        now.append(next((one for one in _FIRST if one not in now), _FIRST[0]))
        layers.append({"name": "", "mask": None})
        active = len(layers) - 1
    elif "removed" in value:
        index = int(value["removed"])
        del now[index], layers[index]
        active = max(0, index - 1)
    else:
        answer = masks.answered(studio, selector, photo, value)
        same = now[active : active + 1]
        return answer, inputs.shelf(studio, [{"id": same[0], "weight": 1}]) if same else gr.skip(), now
    named = [{**layer, "name": name} for layer, name in zip(layers, _names(studio, now), strict=True)]
    shelf = inputs.shelf(studio, [{"id": now[active], "weight": 1}])
    return {**base, "active": active, "layers": named}, shelf, now


def restyled(studio: Studio, shelf: Mapping[str, Any], value: Any, chosen: list[str]) -> tuple[Any, Any]:
    """(mask, styles) after another style was chosen for the active region."""
    ids = inputs.styles(shelf)[0]
    active = int((value or {}).get("active", 0))
    if not ids or active >= len(chosen) or ids[0] == chosen[active]:
        return gr.skip(), gr.skip()
    now = [*chosen[:active], ids[0], *chosen[active + 1 :]]
    if not value:
        return gr.skip(), now
    layers = [{**one, "name": name} for one, name in zip(value["layers"], _names(studio, now), strict=True)]
    return {**{n: value[n] for n in ("photo", "width", "height", "active")}, "layers": layers}, now


def run(
    studio: Studio, photo: Any, value: Any, chosen: list[str], form: Mapping[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Updates of (viewer, note, links, job id) while the regions are painted."""
    try:
        if not (photo or {}).get("id") or not value:
            raise UsageError("choose a photo first")
        regions = [masks.kept(studio, value, index) for index in range(len(chosen))]
        settings, _ = inputs.settings(studio, "", form, {})
        what = Inputs(content=photo["id"], styles=tuple(chosen), regions=tuple(regions))
        job = studio.paint(what, settings)
    except AtelierError as error:
        yield gr.skip(), parts.error(str(error)), "", ""
        return
    yield from paint.told(studio, job, photo)
