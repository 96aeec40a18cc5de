"""What the OpenAPI document says: the shapes of answers, forms and errors."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, Field

Format = Literal["png", "jpg", "tif", "webp"]
Bits = Literal[8, 16]


class Error(BaseModel):
    """What is wrong, what is allowed, and the nearest remedy, in one sentence."""

    error: str


class Id(BaseModel):
    """The id of a picture that is here."""

    id: str


class Made(BaseModel):
    """What a job made of one input: an id in the gallery, or an error."""

    label: str
    id: str = ""
    error: str = ""
    seconds: float = 0.0
    memory: float | None = Field(None, description="The most memory in MiB, where it was measured.")
    size: tuple[int, int] | None = Field(None, description="(width, height) in pixels.")


class Job(BaseModel, extra="allow"):
    """A job and its newest event; trainings add what they were asked for."""

    id: str
    kind: str
    title: str
    created: float
    number: int = Field(description="The number of the newest event.")
    state: Literal["waiting", "running", "paused", "done", "stopped", "failed"]
    stage: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    left: float | None = Field(None, description="Seconds to the end, as estimated.")
    item: int = 0
    items: int = 1
    preview: int = Field(0, description="The number of previews so far.")
    text: str = ""
    error: str = ""
    results: list[str] = Field([], description="Ids in the gallery.")
    made: list[Made] = []


class Jobs(BaseModel):
    """Jobs, newest first."""

    jobs: list[Job]


class Entry(BaseModel):
    """A picture in the gallery."""

    id: str
    created: float
    title: str
    method: str
    quality: str
    size: tuple[int, int]
    seconds: float
    stopped: bool
    inputs: dict[str, Any]
    settings: dict[str, Any]
    artifacts: dict[str, str]


class Entries(BaseModel):
    """A page of the gallery."""

    pictures: list[Entry]


class Style(BaseModel):
    """A style or photo that is here."""

    id: str
    name: str
    sentence: str
    own: bool


class Shelf(BaseModel):
    """The styles and photos that are here."""

    styles: list[Style]
    photos: list[Style]


class Health(BaseModel):
    """The state of the server."""

    version: str
    page: Literal["none", "opening", "ready", "failed"] = Field(
        description="Whether the full page is there; it takes some seconds after the start."
    )
    waiting: int
    weights: list[str] = Field(description="Files of the weights folder, for knobs that take weights.")


_SAYS = {
    400: "The request cannot be read.",
    401: "The token is missing or wrong.",
    403: "The request comes from another site or to another name.",
    404: "There is nothing with this id or at this address.",
    405: "The address does not answer this method.",
    408: "The request took too long to arrive.",
    409: "The job was cancelled.",
    413: "Too many bytes, pixels or files.",
    414: "The address is too long.",
    415: "The file is of a type that is not accepted.",
    422: "A field, knob or file is not allowed, or damaged.",
    424: "Weights or a package are not installed.",
    429: "The queue is full.",
    507: "The disk is full.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text} for status, text in _SAYS.items()
}


def _binary(*media: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media}
    return {200: {"description": "The file.", "content": content}}


JPEG, ZIP, FILE = _binary("image/jpeg"), _binary("application/zip"), _binary("application/octet-stream")
PICTURE = _binary("image/png", "image/jpeg", "image/tiff", "image/webp")
_EVENT = {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "event", "data")}}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The events.", "content": {"text/event-stream": {"schema": _EVENT}}}
}
PICTURE_OR_JOB: dict[int | str, dict[str, Any]] = {
    **PICTURE,
    202: {"model": Job, "description": "It takes longer: the job, to be asked for or listened to."},
}

_TEXT: dict[str, Any] = {"type": "string"}
_FILE: dict[str, Any] = {"type": "string", "format": "binary"}


def _form(properties: dict[str, Any], *, more: bool, required: list[str] | None = None) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": more}
    if required:
        schema["required"] = required
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


UPLOAD = _form({"file": _FILE}, more=False, required=["file"])
STYLIZE = _form(
    {
        "content": {**_FILE, "description": "The photo: a file, or an id."},
        "style": {"type": "array", "items": _FILE, "description": "Style pictures: files, or ids."},
        "text": {"type": "array", "items": _TEXT, "description": "Styles in words."},
        "trained": {"type": "array", "items": _TEXT, "description": "Names of trained styles."},
        "mask": {**_FILE, "description": "White where the style applies."},
        "region": {"type": "array", "items": _FILE, "description": "One mask for each style."},
        "method": {**_TEXT, "description": "The method; by default that of the quality."},
        "quality": {**_TEXT, "default": "good", "description": "draft, good, best, painterly, or another."},
        "settings": {**_TEXT, "description": "Controls and knobs as one JSON object."},
        "size": {**_TEXT, "description": "Long side in pixels, or WxH for a picture without a photo."},
        "format": {**_TEXT, "enum": ["png", "jpg", "tif", "webp"], "default": "png"},
        "bits": {**_TEXT, "enum": ["8", "16"]},
        "wait": {"type": "number", "minimum": 0, "maximum": 300, "default": 10},
    },
    more=True,
)


@cache
def methods() -> dict[str, Any]:
    """All methods and controls as data."""
    from atelier.methods import registry
    from atelier.methods.facts import facts
    from atelier.session.controls import BY_QUALITY, BY_QUALITY_IN_WORDS, Controls

    return {
        "methods": [facts(kind) for kind in registry.list_methods().values()],
        "controls": Controls.model_json_schema(),
        "qualities": BY_QUALITY,
        "qualities_in_words": BY_QUALITY_IN_WORDS,
    }
