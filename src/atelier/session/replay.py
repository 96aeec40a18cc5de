"""Run a request: find the inputs that it names and check their hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atelier.core import knobs as knob_rules
from atelier.core import recipe as recipes
from atelier.core.errors import InputError, UsageError, WeightsError
from atelier.core.progress import Listener
from atelier.images import MAX_PIXELS, Picture
from atelier.methods import registry
from atelier.session.inputs import Anything, TextStyle, TrainedStyle
from atelier.store import records, weights

#: Arguments that a recipe stores outside its controls and knobs.
_NAMED = {"content", "style", "text", "method", "quality", "mask", "regions", "progress"}


def settings_of(
    request: recipes.Request,
    folder: Path,
    *,
    label: str = "the request",
    content: Anything | None,
    style: Anything | None,
    mask: Anything | None,
    regions: Sequence[Anything] | None,
    progress: Listener | None,
    max_pixels: int | None,
    files: Mapping[str, Any],
) -> dict[str, Any]:
    """The arguments that make `stylize` or `generate` repeat a request or a receipt.

    `folder` is also searched for inputs; `label` names the request in error messages.
    """
    _check_names(request, label)
    most = max_pixels or request.controls.get("max_pixels")
    finder = Finder(folder, most)
    styles = finder.several(request.styles, style, "styles", label)
    places = finder.several(request.regions, regions, "regions", label, data=True)
    knobs = _knobs(request, finder, files)
    texts = [TextStyle(one.text, one.weight) for one in request.texts]
    trained = [TrainedStyle(name) for name in request.trained]
    settings: dict[str, Any] = {
        "style": [*styles, *trained],
        "text": texts,
        "method": request.method,
        "progress": _until(getattr(request, "stopped_after", None), progress),
        **request.controls,
        **knobs,
    }
    if most:
        settings["max_pixels"] = most
    if request.content is None:
        return settings
    return settings | {
        "content": finder.one(request.content, content),
        "mask": None if request.mask is None else finder.one(request.mask, mask, data=True),
        "regions": places,
    }


def _check_names(recipe: recipes.Request, label: str) -> None:
    names = recipe.controls.keys() | recipe.knobs.keys()
    if clash := names & _NAMED or recipe.controls.keys() & recipe.knobs:
        raise InputError(
            f"the recipe in {label} has '{min(clash)}' in the wrong place: it was not written by atelier"
        )


def _knobs(recipe: recipes.Request, finder: Finder, given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's knobs, with their files located and their weights checked."""
    method = registry.find(recipe.method)
    kind, knobs = method.Knobs, {**method.before, **recipe.knobs}
    used = recipe.weights
    weights_at: dict[str, str] = {}
    for name, holds in knob_rules.files_of(kind).items():
        if name not in knobs:
            continue
        if holds == "weights" and isinstance(knobs[name], str):
            found = str(given.get(name) or finder.weights(knobs[name], used))
            weights_at[knobs[name]] = knobs[name] = found
        elif holds == "weights" and isinstance(knobs[name], (list, tuple)):
            places = given.get(name) or [finder.weights(one, used) for one in knobs[name]]
            weights_at |= dict(zip(knobs[name], places, strict=True))
            knobs[name] = tuple(places)
        elif name in given:
            knobs[name] = given[name]
        elif name in recipe.files:
            knobs[name] = finder.files(recipe.files[name], knobs[name], holds)
    for name, sha256 in used.items():
        if weights.fingerprint(weights_at.get(name, name)) != sha256:
            raise WeightsError(f"'{name}' has changed since this picture was made: its hash differs")
    return knobs


class Finder:
    """Finds a picture's inputs: at their original path, beside the picture, or in the current folder."""

    def __init__(self, beside: Path, max_pixels: int | None) -> None:
        self.beside, self.max_pixels = beside, max_pixels or MAX_PIXELS

    def places(self, name: str, *, folders: bool = False) -> list[Path]:
        """The files (and `folders`) that a name in a recipe may refer to, without duplicates."""
        options = (Path(name), self.beside / name, self.beside / Path(name).name, Path(Path(name).name))
        return list(dict.fromkeys(path for path in options if _exists(path, folders=folders)))

    def several(
        self, sources: Sequence[recipes.Source], given: Any, what: str, label: str, *, data: bool = False
    ) -> list[Picture]:
        """The pictures of a recipe's styles or regions."""
        named = given if isinstance(given, (list, tuple)) else [given] * len(sources)
        if len(named) != len(sources):
            noun = what.removesuffix("s") if len(sources) == 1 else what
            raise UsageError(f"{label} has {len(sources)} {noun}, and {len(named)} were given")
        return [self.one(source, one, data=data) for source, one in zip(sources, named, strict=True)]

    def one(self, source: recipes.Source, given: Anything | None = None, *, data: bool = False) -> Picture:
        """The input that a recipe names, checked against its hash."""
        if given is not None:
            places: Sequence[Any] = [given]
        elif source.name:
            places = self.places(source.name)
        else:
            raise InputError(
                "an input of this picture was not a file: pass it again (content=, style=, mask=)"
            )
        pictures = [Picture.of(place, max_pixels=self.max_pixels, data=data) for place in places]
        for picture in pictures:
            if picture.sha256 == source.sha256:
                return picture
        if not pictures:
            raise InputError(
                f"the input '{source.name}' is missing: specify it with --content, --style or --mask"
            )
        label = f"'{source.name}'" if source.name else "the value passed for an input that was not a file"
        raise InputError(f"{label} is not the picture that was used (its hash differs): use the original")

    def files(self, sources: Sequence[recipes.Source], value: Any, holds: str) -> Any:
        """The files of a file knob: one path or picture, or a tuple of them."""
        found: list[Any] = []
        for source in sources:
            if holds == "array":
                places = self.places(source.name)
                if not places:
                    raise InputError(f"the file '{source.name}' used for this picture is missing")
                found.append(places[0])
            else:
                found.append(self.one(source, data=holds == "data"))
        return tuple(found) if isinstance(value, (list, tuple)) else found[0]

    def weights(self, name: str, used: Mapping[str, str]) -> str:
        """The path or record that a weights knob of the recipe names; a path may be that of a folder."""
        if name not in used or name in (known.name for known in records.records()):
            return name
        places = self.places(name, folders=True)
        same = [path for path in places if _has_fingerprint(path, used[name])]
        return str(next(iter(same or places), name))


def _has_fingerprint(path: Path, wanted: str) -> bool:
    try:
        return weights.fingerprint(path) == wanted
    except WeightsError:  # an unrelated folder of the same name
        return False


def _exists(path: Path, *, folders: bool) -> bool:
    try:
        return path.is_file() or (folders and path.is_dir())
    except (OSError, ValueError):  # an overlong or invalid name in a forged recipe
        return False


def _until(stop: int | None, listener: Listener | None) -> Listener | None:
    """A listener that stops at the step where the recorded run was stopped."""
    if stop is None:
        return listener

    def listen(event: Any) -> bool | None:
        answer = listener(event) if listener is not None else None
        return False if event.done >= stop else answer

    return listen
