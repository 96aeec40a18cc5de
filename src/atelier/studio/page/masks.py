"""The mask component: what its clicks, files and buttons do, for Regions and Harmonise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError, InputError
from atelier.studio.limits import read_picture
from atelier.studio.page import inputs, selection

if TYPE_CHECKING:
    from atelier.studio.service import Studio


def fresh(photo: Mapping[str, Any] | None, names: list[str]) -> dict[str, Any] | None:
    """The component's value for a photo whose masks are empty."""
    if not (photo or {}).get("id"):
        return None
    assert photo is not None
    return {
        "photo": photo["url"], "width": photo["width"], "height": photo["height"], "active": 0,
        "layers": [{"name": name, "mask": None} for name in names],
    }  # fmt: skip


def answered(studio: Studio, selector: selection.Selector, photo: Any, value: Mapping[str, Any]) -> Any:
    """The value after a click, a cut or a file; nothing to do after strokes of the brush."""
    if not (photo or {}).get("id") or not any(name in value for name in ("click", "edges", "file")):
        return gr.skip()
    layers, active = [dict(one) for one in value["layers"]], int(value["active"])
    note = ""
    try:
        layers[active]["mask"] = _changed(studio, selector, str(photo["id"]), layers[active]["mask"], value)
    except AtelierError as error:
        note = str(error)
    kept = {name: value[name] for name in ("photo", "width", "height")}
    return {**kept, "active": active, "layers": layers, "note": note}


def _changed(
    studio: Studio, selector: selection.Selector, id: str, mask: str | None, value: Mapping[str, Any]
) -> str:
    """The active layer's mask, as its address."""
    if sent := value.get("file"):
        data, name = inputs.received(studio, sent)
        return loaded(studio, data, name, id)
    segments = selector.of(id)
    now = selection.read_mask(mask, segments.labels.shape)
    if value.get("edges"):
        return selection.mask_address(segments.snapped(now))
    click = value["click"]
    part = segments.at(float(click["x"]), float(click["y"]))
    return selection.mask_address(now | part if click.get("add", True) else now & ~part)


def loaded(studio: Studio, data: bytes, name: str, id: str) -> str:
    """A mask file, at the size of the photo's masks. Raises InputError."""
    from atelier.images import read_mask

    photo = studio.pictures.open(id, side=selection.SIDE)
    picture = read_picture(data, name, studio.limits, as_data=True)
    return selection.mask_address(read_mask(picture, photo.shape))


def coverage(studio: Studio, value: Mapping[str, Any], index: int, shape: tuple[int, int]) -> Any:
    """A layer's mask at `shape`, (H, W) in 0..1."""
    from atelier.images import read_mask

    address = str(value["layers"][index]["mask"])
    return read_mask(read_picture(selection.mask_bytes(address), "mask", studio.limits, as_data=True), shape)


def kept(studio: Studio, value: Mapping[str, Any], index: int) -> str:
    """The id of a layer's mask. Raises InputError where it is empty."""
    address = value["layers"][index].get("mask")
    if not address:
        raise InputError(f"'{value['layers'][index]['name']}' has no mask: paint the part on the photo")
    return studio.pictures.add(selection.mask_bytes(address), f"region-{index + 1}.png")
