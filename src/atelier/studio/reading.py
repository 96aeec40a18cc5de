"""Reads forms: the fields and files of a request become inputs and settings."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Any, get_origin

from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from atelier.core.errors import UsageError, did_you_mean
from atelier.studio.gallery import FORMATS
from atelier.studio.guard import SlowError, UnreadableError
from atelier.studio.limits import Limits, TooLargeError, WrongKindError, display_name
from atelier.studio.pictures import Upload
from atelier.studio.requests import Inputs, Settings

_FILES, _FIELDS = 64, 256
#: The longest that a request may wait for its picture, and how long it waits unless it says so.
LONGEST_WAIT, _WAIT = 300.0, 10.0


@dataclass(frozen=True)
class Asked:
    """What a form asks for: the picture, and how to send it."""

    inputs: Inputs
    settings: Settings
    format: str = "png"
    bits: int | None = None
    wait: float = _WAIT


async def asked_for(request: Request, limits: Limits) -> Asked:
    """The request in a form. Raises an AtelierError for what cannot be read or is not allowed."""
    form = await _form(request, limits)
    try:
        return await _asked(form, limits)
    finally:
        await form.close()


async def uploaded(request: Request, limits: Limits) -> Upload:
    """The one file in a form, its field called `file`."""
    form = await _form(request, limits)
    try:
        found = [value for name, value in form.multi_items() if name == "file"]
        if len(found) != 1 or not isinstance(found[0], UploadFile):
            raise UsageError("send one file, in the field 'file'")
        return await _file(found[0], limits)
    finally:
        await form.close()


async def _form(request: Request, limits: Limits) -> FormData:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise WrongKindError(f"the request is {kind[:60] or 'of no type'}: send a form (multipart/form-data)")
    try:
        async with asyncio.timeout(limits.upload_seconds):
            return await request.form(max_files=_FILES, max_fields=_FIELDS)
    except TimeoutError:
        raise SlowError(
            f"the request took longer than {limits.upload_seconds:g} s to arrive: send smaller files"
        ) from None
    except HTTPException as error:
        if "Too many" in str(error.detail):
            raise TooLargeError(
                f"the form has more than {_FILES} files or {_FIELDS} fields: send fewer at a time"
            ) from None
        if "exceeded maximum size" in str(error.detail):
            raise TooLargeError(
                "a field of text has more than 1 MiB: send what is longer as a file"
            ) from None
        raise UnreadableError(f"the form cannot be read: {error.detail}") from None
    except (UnicodeError, ValueError, KeyError, AssertionError) as error:
        raise UnreadableError("the form cannot be read: it is not what its headers say") from error


async def _file(file: UploadFile, limits: Limits) -> Upload:
    name = display_name(file.filename)
    limits.check_bytes(file.size or 0, name)
    return Upload(name, await file.read())


async def _asked(form: FormData, limits: Limits) -> Asked:
    pictures: dict[str, list[Any]] = {}
    words: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            pictures.setdefault(name, []).append(await _file(value, limits))
        else:
            words.setdefault(name, []).append(_text(name, value))
    method = _one(words, "method") or None
    plain: dict[str, Any] = {"format": _one(words, "format", "png"), "bits": _bits(_one(words, "bits"))}
    if plain["format"] not in FORMATS:
        hint = did_you_mean(plain["format"][:40], FORMATS)
        raise UsageError(f"format = '{plain['format'][:40]}' is not allowed: {hint}")
    if plain["bits"] == 16 and plain["format"] not in ("png", "tif"):
        raise UsageError("bits = 16 is for png and tif only")
    wait = _seconds(_one(words, "wait"))
    quality, values = _one(words, "quality", "good"), _values(_one(words, "settings"))
    inputs = _inputs(method, pictures, words)
    for name, several in words.items():
        values[name] = _value(method, name, several)
    return Asked(inputs, Settings(method, quality, values), wait=wait, **plain)


def _inputs(method: str | None, pictures: dict[str, list[Any]], words: dict[str, list[str]]) -> Inputs:
    """The inputs, taken out of the form: files, and ids in fields of text; other files are of knobs."""

    def taken(name: str) -> list[Any]:
        return [*pictures.pop(name, []), *(one for one in words.pop(name, []) if one)]

    def single(name: str) -> Any:
        found = taken(name)
        if len(found) > 1:
            raise UsageError(f"{len(found)} were sent as '{name}': send one")
        return found[0] if found else None

    content, styles, mask = single("content"), taken("style"), single("mask")
    regions, texts, trained = taken("region"), words.pop("text", []), words.pop("trained", [])
    files = {name: taken(name) if _takes_several(method, name) else single(name) for name in list(pictures)}
    return Inputs(content, styles, texts, trained, mask, regions, files)


def _takes_several(method: str | None, name: str) -> bool:
    """Whether a control or a knob of this name takes several values."""
    from atelier.methods import registry
    from atelier.session.controls import Controls

    kinds: list[type[BaseModel]] = [Controls] if method is None else [Controls, registry.find(method).Knobs]
    field = next((kind.model_fields[name] for kind in kinds if name in kind.model_fields), None)
    return field is not None and get_origin(field.annotation) is tuple


def _value(method: str | None, name: str, several: list[str]) -> Any:
    """A field's value as the method declares it: a list for several values, else text, to be parsed there."""
    if _takes_several(method, name):
        return tuple(several)
    if len(several) > 1:
        raise UsageError(f"{len(several)} values were sent as '{name[:40]}': send one")
    if name == "size" and "x" in several[0]:
        sides = several[0].split("x")
        if len(sides) == 2 and all(side.isdecimal() and len(side) < 7 for side in sides):
            return [int(side) for side in sides]
    return several[0]


def _values(text: str) -> dict[str, Any]:
    """The field `settings`: controls and knobs as a JSON object."""
    if not text:
        return {}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError('settings is not JSON: send an object such as {"strength": 0.8}') from error
    if not isinstance(values, dict):
        raise UsageError('settings is not an object: send one such as {"strength": 0.8}')
    for name in values:
        _text("settings", name)
    _text("settings", json.dumps(values, ensure_ascii=False))
    return values


def _text(name: str, value: str) -> str:
    """A value that can be written: no halves of surrogate pairs, no null characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{display_name(name)} is not valid text: send it as UTF-8") from None
    if "\0" in value:
        raise UsageError(f"{display_name(name)} holds a null character: leave it out")
    return value


def _one(words: dict[str, list[str]], name: str, default: str = "") -> str:
    several = words.pop(name, [])
    if len(several) > 1:
        raise UsageError(f"{len(several)} values were sent as '{name}': send one")
    return several[0] if several else default


def _bits(text: str) -> int | None:
    if text not in ("", "8", "16"):
        raise UsageError(f"bits = '{text[:20]}' is not allowed: 8 or 16")
    return int(text) if text else None


def _seconds(text: str) -> float:
    try:
        seconds = float(text) if text else _WAIT
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_WAIT:
        raise UsageError(f"wait = '{text[:20]}' is not allowed: it is 0 to {LONGEST_WAIT:g} seconds")
    return seconds
