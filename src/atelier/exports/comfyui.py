"""Nodes for ComfyUI, generated from the registry: each method is a node, and its knobs are its widgets.

ComfyUI's interface is a class with `INPUT_TYPES`, `RETURN_TYPES`, `FUNCTION` and `CATEGORY`. Its pictures are
float tensors (B, H, W, C) in 0..1, and its masks (B, H, W). The folder integrations/comfyui is all that it
needs besides this package.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from atelier.core import knobs as knob_rules
from atelier.methods import registry
from atelier.methods.base import Method
from atelier.session.controls import Controls

if TYPE_CHECKING:
    import torch
    from pydantic.fields import FieldInfo

    from atelier.core.progress import Event

#: The controls that a node offers; the rest concerns files and the machine.
CONTROLS = ("size", "strength", "colour", "style_weights", "style_scale", "finish", "feather", "seed")
#: Numbers beyond this are not exact in JavaScript, in which ComfyUI's page is written.
_EXACT = 2**53 - 1
#: ComfyUI's limit of numbers without a range, and the step of their arrows.
_FAR, _STEP = 1e9, 0.01
#: Families that are yardsticks for comparisons.
_NO_NODES = ("baseline",)

Widget = tuple[Any, dict[str, Any]]


def nodes() -> tuple[dict[str, type], dict[str, str]]:
    """`NODE_CLASS_MAPPINGS` and `NODE_DISPLAY_NAME_MAPPINGS`: a node for each method.

    >>> classes, names = nodes()
    >>> names["AtelierAdain"], classes["AtelierAdain"].CATEGORY
    ('adain (atelier)', 'atelier/feedforward')
    """
    kinds = [kind for kind in registry.list_methods().values() if kind.family() not in _NO_NODES]
    classes = {_identifier(kind): node(kind) for kind in kinds}
    return classes, {_identifier(kind): f"{kind.name.replace('_', ' ')} (atelier)" for kind in kinds}


def node(kind: type[Method]) -> type:
    """The node of a method."""

    def paint(self: object, **values: Any) -> tuple[torch.Tensor, str]:
        return painted(kind, values)

    def inputs(cls: type) -> dict[str, dict[str, Widget]]:
        return input_types(kind)

    members: dict[str, Any] = {
        "INPUT_TYPES": classmethod(inputs),
        "RETURN_TYPES": ("IMAGE", "STRING"),
        "RETURN_NAMES": ("picture", "receipt"),
        "OUTPUT_TOOLTIPS": ("The painted picture.", "How it was made, as JSON; a line for each picture."),
        "FUNCTION": "paint",
        "CATEGORY": f"atelier/{kind.family()}",
        "DESCRIPTION": f"{kind.summary()} {kind.paper.authors} {kind.paper.year}: {kind.paper.title}.",
        "paint": paint,
    }
    return type(_identifier(kind), (), members)


def input_types(kind: type[Method]) -> dict[str, dict[str, Widget]]:
    """What `INPUT_TYPES` returns: pictures, masks and words, then the controls and the knobs as widgets."""
    takes = kind.takes
    required: dict[str, Widget] = {}
    optional: dict[str, Widget] = {}
    if takes.content != "none":
        place = required if takes.content == "required" else optional
        place["content"] = _socket("IMAGE", "The photo. Each picture of a batch is painted.")
    if "picture" in takes.styles:
        place = required if takes.least and "text" not in takes.styles else optional
        place["style"] = _socket("IMAGE", "The style picture. The pictures of a batch are mixed.")
    if "text" in takes.styles:
        says = {"default": "", "multiline": True, "tooltip": "A style in words; a line for each of several."}
        optional["text"] = ("STRING", says)
    place = required if takes.mask == "required" else optional
    place["mask"] = _socket("MASK", "Paint only where this is white.")
    qualities = {"default": "good", "tooltip": "Sets the size, and knobs that are left at their defaults."}
    required["quality"] = (list(kind.qualities), qualities)
    fields = {name: Controls.model_fields[name] for name in CONTROLS}
    for name, field in (fields | dict(kind.Knobs.model_fields)).items():
        made = _of_file(kind, name, field) if name in kind.Knobs.model_fields else widget(field)
        if made is not None:
            (optional if made[0] in ("IMAGE", "MASK") else required)[name] = made
    return {"required": required, "optional": optional}


def widget(field: FieldInfo) -> Widget:
    """The widget of a field: its type, default, range and help."""
    annotation, default = _inner(field.annotation), field.default
    says: dict[str, Any] = {"tooltip": field.description or ""}
    if get_origin(annotation) is Literal:
        return list(get_args(annotation)), {"default": default, **says}
    if annotation is bool:
        return "BOOLEAN", {"default": bool(default), **says}
    if annotation in (int, float):
        whole = annotation is int
        low, high = _range(field, whole=whole)
        if default is None:  # ComfyUI has no empty numbers
            low, default = 0, 0
            says["tooltip"] += " 0 for the default."
        step = {"step": 1} if whole else {"step": _STEP, "round": False}
        return "INT" if whole else "FLOAT", {"default": default, "min": low, "max": high, **step, **says}
    if get_origin(annotation) is tuple:
        says["tooltip"] += " Several with commas between them."
        return "STRING", {"default": ", ".join(map(str, default or ())), **says}
    return "STRING", {"default": "" if default is None or field.is_required() else str(default), **says}


def painted(kind: type[Method], values: Mapping[str, Any]) -> tuple[torch.Tensor, str]:
    """What a node returns for its inputs: pictures (B, H, W, 3) and their receipts."""
    import torch

    from atelier.session.stylizer import Stylizer

    settings, given = settings_of(kind, values)
    styles = _pictures(given.get("style"))
    texts = [line for line in str(given.get("text") or "").splitlines() if line.strip()]
    painter = Stylizer(
        styles or None, text=texts or None, method=kind.name, quality=values["quality"], **settings
    )
    contents, masks = _pictures(given.get("content")), _masks(given.get("mask"))
    if contents:
        made = [
            painter(one, mask=masks[index % len(masks)] if masks else None, progress=_listener())
            for index, one in enumerate(contents)
        ]
    else:
        made = [painter.generate(progress=_listener())]
    receipts = "\n".join(json.dumps(one.recipe) for one in made)
    return torch.cat([one.tensor().movedim(1, -1) for one in made]).contiguous(), receipts


def settings_of(kind: type[Method], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that differ from their defaults, and what comes in through sockets.

    A knob that is left at its default is not passed on, so that the quality can set it.
    """
    types_ = input_types(kind)
    sockets = {name: values[name] for name in ("content", "style", "text", "mask") if name in values}
    settings: dict[str, Any] = {}
    for name, (shown, facts) in {**types_["required"], **types_["optional"]}.items():
        if name in ("content", "style", "text", "mask", "quality") or name not in values:
            continue
        value = values[name]
        if shown == "IMAGE":
            pictures = _pictures(value)
            fields = kind.Knobs.model_fields
            settings[name] = pictures if get_origin(_inner(fields[name].annotation)) is tuple else pictures[0]
        elif value != facts.get("default"):
            settings[name] = _parsed(kind, name, value)
    return settings, sockets


def _parsed(kind: type[Method], name: str, value: Any) -> Any:
    """A widget's value as the knob takes it: lists are written with commas."""
    field = kind.Knobs.model_fields.get(name) or Controls.model_fields[name]
    if get_origin(_inner(field.annotation)) is tuple:
        return tuple(part.strip() for part in str(value).split(",") if part.strip())
    return value


def _of_file(kind: type[Method], name: str, field: FieldInfo) -> Widget | None:
    """The widget of a knob; pictures come through sockets, and files to write are left out."""
    holds = knob_rules.files_of(kind.Knobs).get(name)
    if name in knob_rules.artifacts_of(kind.Knobs) or holds == "array":
        return None
    words = knob_rules.words_of(kind.Knobs).get(name)
    if words:
        return list(words), {"default": field.default, "tooltip": field.description or ""}
    if holds in ("picture", "data"):
        return _socket("IMAGE", field.description or "")
    return widget(field)


def _socket(shown: str, tooltip: str) -> Widget:
    return shown, {"tooltip": tooltip}


def _inner(annotation: Any) -> Any:
    """The type behind `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _range(field: FieldInfo, *, whole: bool) -> tuple[float, float]:
    """The smallest and the largest value of a number."""
    from annotated_types import Ge, Gt, Le, Lt

    low, high = (-_EXACT, _EXACT) if whole else (-_FAR, _FAR)
    for rule in field.metadata:
        match rule:
            case Ge(ge=bound):
                low = bound  # type: ignore[assignment]
            case Gt(gt=bound):
                low = bound + 1 if whole else bound + _STEP / 1e4  # type: ignore[operator]
            case Le(le=bound):
                high = bound  # type: ignore[assignment]
            case Lt(lt=bound):
                high = bound - 1 if whole else bound - _STEP / 1e4  # type: ignore[operator]
    return (max(low, -_EXACT), min(high, _EXACT)) if whole else (low, high)


def _pictures(batch: torch.Tensor | None) -> list[Any]:
    """The pictures of a batch (B, H, W, 3 or 4); a fourth channel is alpha."""
    from atelier.images import Picture

    if batch is None:
        return []
    arrays = batch.detach().float().cpu().clamp(0, 1).numpy()
    return [
        Picture(one[..., :3].copy(), one[..., 3].copy() if one.shape[-1] == 4 else None) for one in arrays
    ]


def _masks(batch: torch.Tensor | None) -> Sequence[Any]:
    """The masks of a batch (B, H, W) or one (H, W), as grey pictures."""
    from atelier.images import Picture

    if batch is None:
        return []
    several = batch.detach().float().cpu().clamp(0, 1).reshape(-1, *batch.shape[-2:]).numpy()
    return [Picture(one[..., None].repeat(3, -1)) for one in several]


def _listener() -> Callable[[Event], bool]:
    """Shows the progress on the node, and stops when ComfyUI's user asks for it.

    Outside ComfyUI, as in tests, it does nothing.
    """
    try:
        from comfy import model_management, utils
    except ImportError:
        return lambda event: True
    bars: dict[int, Any] = {}

    def heard(event: Event) -> bool:
        model_management.throw_exception_if_processing_interrupted()
        if event.total not in bars:
            bars[event.total] = utils.ProgressBar(event.total)
        bars[event.total].update_absolute(event.done, event.total)
        return True

    return heard


def _identifier(kind: type[Method]) -> str:
    return "Atelier" + "".join(part.capitalize() for part in kind.name.split("_"))
