"""From components to requests and back: photos, the shelf, forms, settings of pictures made before."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError, InputError
from atelier.methods import registry
from atelier.session.controls import BY_QUALITY, BY_QUALITY_IN_WORDS, Controls
from atelier.studio.page import controls, parts, running
from atelier.studio.requests import Settings

if TYPE_CHECKING:
    from atelier.methods.base import Method
    from atelier.studio.service import Studio

#: Controls in the order in which artists use them; the others are left to the command line.
MAIN = ("strength", "colour", "style_scale", "size", "seed")
MORE = ("finish", "feather")
#: The knob that takes what `atelier train METHOD` writes.
TRAINED = "weights"
#: How the families of methods are told apart by those who only paint.
_FAMILIES = {
    "feedforward": "quick network", "optimise": "step by step, slow", "classical": "without a network",
    "diffusion": "diffusion", "gan": "from one kind to another", "text": "by words",
}  # fmt: skip
#: Seconds after which an upload may be removed.
_STALE = 6 * 3600.0


def incoming(studio: Studio) -> Path:
    """The folder of files that the browser has uploaded and the studio has not taken in yet."""
    return studio.folder / "incoming"


def received(studio: Studio, sent: Mapping[str, Any]) -> tuple[bytes, str]:
    """The bytes and the name of an uploaded file. Raises InputError for any other path.

    The file stays for a while, because the same one may be asked for again: the browser's uploads of equal
    bytes are one file.
    """
    folder, path = incoming(studio).resolve(), Path(str(sent.get("path", ""))).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise InputError("that file was not uploaded to the studio, or long ago: choose it again")
    name = str(sent.get("name") or path.name)
    studio.limits.check_bytes(path.stat().st_size, name)
    return path.read_bytes(), name


def sweep(studio: Studio) -> None:
    """Remove uploads that nobody has asked for within `_STALE` seconds."""
    for path in list(incoming(studio).rglob("*")):
        with contextlib.suppress(OSError):
            if path.is_file() and time.time() - path.stat().st_mtime > _STALE:
                path.unlink()


def take(studio: Studio, sent: Mapping[str, Any]) -> str:
    """The id of an uploaded picture, which is decoded once to see that it is one. Raises AtelierError."""
    id = studio.pictures.add(*received(studio, sent))
    studio.pictures.open(id)
    return id


def photo(studio: Studio, value: Any) -> Any:
    """What a photo component shows after the user has dropped, chosen or removed something."""
    if not value:
        return gr.skip()  # it is empty already, and this answer could come after that to the next photo
    try:
        return shown(studio, value["sample"] if "sample" in value else take(studio, value))
    except AtelierError as error:
        return {"error": str(error)}


def shown(studio: Studio, id: str) -> dict[str, Any]:
    """A picture of the studio as the value of a photo component."""
    width, height = studio.pictures.open(id).size
    name = studio.pictures.name(id)
    return {
        "id": id, "url": running.thumbnail(id, 1600), "name": name, "note": f"{width} × {height}",
        "width": width, "height": height,
    }  # fmt: skip


def samples(studio: Studio) -> list[dict[str, str]]:
    """The example photos, for a photo component."""
    return [
        {"id": one.id, "title": one.sentence, "url": running.thumbnail(one.id)}
        for one in studio.pictures.photos()
    ]


def photo_part(studio: Studio, elem_id: str, prompt: str, *, sampled: bool = True) -> gr.HTML:
    """A photo component that takes its files in by itself."""
    made = parts.part(
        "photo", elem_id, None, prompt=prompt, paste=True, samples=samples(studio) if sampled else []
    )
    made.input(lambda value: photo(studio, value), made, made, show_progress="hidden", queue=False)
    return made


def shelf(studio: Studio, chosen: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The shelf as its component takes it."""
    items = [
        {
            "id": one.id, "name": Path(one.name).stem if one.own else one.name,
            "title": one.sentence or one.name, "url": running.thumbnail(one.id), "own": one.own,
        }
        for one in studio.pictures.shelf()
    ]  # fmt: skip
    known = {one["id"] for one in items}
    kept = [dict(one) for one in chosen if one["id"] in known]
    return {"items": items, "chosen": kept}


def on_shelf(studio: Studio, value: Mapping[str, Any]) -> Any:
    """The shelf after the user has added or removed a style; nothing to do where one was only chosen."""
    chosen = list(value.get("chosen", ()))
    if added := value.get("added"):
        try:
            kept = [studio.pictures.keep(studio.pictures.add(*received(studio, one))) for one in added]
        except AtelierError as error:
            gr.Warning(str(error))
            return shelf(studio, chosen)
        return shelf(studio, [{"id": one.id, "weight": 1} for one in kept])
    if removed := value.get("removed"):
        studio.pictures.drop(str(removed))
        return shelf(
            studio, [one for one in chosen if one["id"] != removed] or [{"id": "style:nocturne", "weight": 1}]
        )
    return gr.skip()


def shelf_part(
    studio: Studio, elem_id: str, *, single: bool = False, chosen: str = "style:nocturne"
) -> gr.HTML:
    """A shelf component that keeps and drops styles by itself."""
    made = parts.part("shelf", elem_id, shelf(studio, [{"id": chosen, "weight": 1}]), single=single)
    made.input(lambda value: on_shelf(studio, value), made, made, show_progress="hidden", queue=False)
    return made


# methods and their knobs


def kind_of(method: str, quality: str, *, words: bool = False) -> type[Method]:
    """The method that is asked for, or that of the quality."""
    usual = usual_methods(words)
    return registry.find(method or usual.get(quality, usual["good"]))


def usual_methods(words: bool) -> Mapping[str, str]:
    """The methods of the qualities for style pictures, or for a style in words."""
    return BY_QUALITY_IN_WORDS if words else BY_QUALITY


def main_form(
    method: str = "", quality: str = "good", values: Mapping[str, Any] | None = None, *, words: bool = False
) -> dict[str, Any]:
    """The form of quality and shared controls."""
    options = list(kind_of(method, quality).qualities if method else usual_methods(words))
    return form_of([quality_field(options), *controls.fields(Controls, only=MAIN)], values or {})


def form_of(made: list[dict[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """A form with those of the values that it has fields for and that are not the defaults."""
    usual = {field["name"]: field["default"] for field in made}
    texts = {n: ", ".join(map(str, v)) if isinstance(v, list | tuple) else v for n, v in values.items()}
    return {"fields": made, "values": {n: v for n, v in texts.items() if n in usual and v != usual[n]}}


def since(form: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """The form as an answer to one that was `seen`: what was changed meanwhile in the browser stays."""
    return {**form, "basis": dict(seen.get("values", {}))}


def quality_field(options: Sequence[str]) -> dict[str, Any]:
    """The field that chooses a quality."""
    return {
        "name": "quality", "label": "Quality", "kind": "row" if len(options) <= 4 else "list",
        "options": list(options), "default": "good",
        "help": "Draft takes a second or two, good some seconds, best longer. Painterly: strong strokes.",
    }  # fmt: skip


def knob_form(
    studio: Studio, method: str, quality: str, values: Mapping[str, Any] | None = None, *, words: bool = False
) -> dict[str, Any]:
    """The form of the remaining controls and the method's knobs, with the defaults of the quality."""
    kind = kind_of(method, quality, words=words)
    usual = kind.qualities.get(quality, {})
    made = [
        *controls.fields(Controls, only=MORE),
        *controls.fields(kind.Knobs, usual, choices=_known_weights(studio, kind)),
    ]
    named = _named(kind, usual)
    for field in made:
        if field["name"] == TRAINED and kind.Training is not None:
            field |= {"offers": list(studio.trainings.networks(kind.name)), "offered": "Trained here"}
        elif field["name"] in named:
            field |= {"offers": list(named[field["name"]]), "offered": "Of the usual network"}
    return form_of(made, values or {})


def _named(kind: type[Method], usual: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """What the method's usual network knows by name."""
    from atelier.core import knobs as knob_rules

    try:
        return kind().named(knob_rules.parse(kind.Knobs, dict(usual)))
    except AtelierError:  # it has required knobs, or its weights are not here
        return {}


def _known_weights(studio: Studio, kind: type[Method]) -> dict[str, list[str]]:
    """What a knob for weights may name: records of the kind of its default, and the user's own files."""
    from atelier.core import knobs as knob_rules
    from atelier.store import records

    names = [record.name for record in records.records()]
    found = {}
    for knob, holds in knob_rules.files_of(kind.Knobs).items():
        stem = str(kind.Knobs.model_fields[knob].get_default()).partition(".")[0].partition("_")[0]
        if holds == "weights":
            known = [name for name in names if stem and name.startswith(stem)]
            found[knob] = [*known, *studio.weights.names()]
    return found


def about(method: str, quality: str, *, words: bool = False) -> str:
    """A sentence on the method, for below its name."""
    kind = kind_of(method, quality, words=words)
    text = kind.summary()
    if not method:
        text = f"For this quality: {kind.name}. {text}"
    if not words and "picture" not in kind.takes.styles:
        text += " It takes no style picture."
    return parts.sentence(f"{text} ({kind.paper.authors} {kind.paper.year})")


def method_choices(*, words: bool = False, trained: bool = False) -> list[tuple[str, str]]:
    """The methods of a list: all that take pictures, or those that take words, or those that are trained."""
    found = registry.list_methods().items()
    if trained:
        return [(name, name) for name, kind in found if kind.Training is not None]
    usual = ("Automatic, by quality", "")
    fits = [
        (f"{name} · {_FAMILIES.get(kind.family(), kind.family())}", name)
        for name, kind in found
        if ("text" in kind.takes.styles if words else kind.takes.mask != "required")
    ]
    return [usual, *fits]


def settings(
    studio: Studio, method: str, form: Mapping[str, Any], knobs: Mapping[str, Any], *, words: bool = False
) -> tuple[Settings, dict[str, Any]]:
    """The settings in two forms, and the ids of files that knobs name. Raises UsageError and InputError."""
    chosen = dict(form.get("values", {}))
    quality = str(chosen.pop("quality", "good"))
    kind = kind_of(method, quality, words=words)
    files: dict[str, Any] = {}
    for name, value in knobs.get("values", {}).items():
        if name not in kind.Knobs.model_fields and name not in MORE:
            continue
        if isinstance(value, Mapping):
            files[name] = value.get("id") or take_file(studio, value)
        else:
            chosen[name] = value
    own = controls.values(kind.Knobs, chosen)
    return Settings(kind.name, quality, {n: v for n, v in own.items() if v is not None}), files


def take_file(studio: Studio, sent: Mapping[str, Any]) -> str:
    """The id of an uploaded file of a knob, which may be an array."""
    return studio.pictures.add(*received(studio, sent))


def styles(value: Mapping[str, Any] | None) -> tuple[list[str], tuple[float, ...]]:
    """The ids and weights of the chosen styles; no weights for one style."""
    chosen = list((value or {}).get("chosen", ()))
    weights = tuple(float(one["weight"]) for one in chosen)
    return [str(one["id"]) for one in chosen], weights if len(chosen) > 1 else ()
