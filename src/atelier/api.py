"""One call: choose the method, prepare the pictures, apply the controls, write the recipe.

The controls belong to no method. Strength, several styles, regions, colour and mask are done here for
every method; one that declares a better way (`Method.native`) gets the control instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from atelier import colour, images  # loads nothing yet: `--help` reads the controls below
from atelier.core import device as devices
from atelier.core import knobs as knob_rules
from atelier.core import recipe as recipes
from atelier.core.allocator import release_freed_memory
from atelier.core.errors import InputError, UsageError, WeightsError, did_you_mean
from atelier.core.progress import Listener, Progress
from atelier.methods import registry
from atelier.methods.base import Job, Method
from atelier.store import cache, weights

if TYPE_CHECKING:
    import torch

    from atelier.images import Picture

Anything = Any  # a path, a PIL image, a NumPy array, a torch tensor or a Picture

#: The method that a quality stands for when none is named.
BY_QUALITY = {"draft": "adain", "good": "nnst_d", "best": "nnst"}


#: Pixels from which on it takes longer to paint a picture than to get memory anew.
_LARGE = 4096 * 4096


class Controls(knob_rules.Knobs):
    """What every method takes; words mean the same everywhere."""

    size: int | None = Field(
        None,
        ge=1,
        le=32768,
        description="Long side of the result in pixels; else the quality's, never enlarging.",
    )
    strength: float = Field(
        1.0, ge=0, le=1, description="0 leaves the photo untouched, 1 is the method in full."
    )
    colour: Literal["style", "content"] = Field("style", description="Whose colours the result has.")
    style_weights: tuple[float, ...] = Field(
        (), description="Weight of each style; equal when none is given."
    )
    style_scale: float = Field(
        1.0,
        gt=0,
        le=8,
        description="Size of the style picture relative to the content's: larger, larger strokes.",
    )
    feather: float = Field(8.0, ge=0, description="Softness of the mask's edge in pixels.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of everything random.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads; else as many as there are cores."
    )


def stylize(
    content: Anything,
    style: Anything | Sequence[Anything] | None = None,
    *,
    method: str | None = None,
    quality: str = "good",
    mask: Anything | None = None,
    regions: Sequence[Anything] = (),
    progress: Listener | None = None,
    **settings: Any,
) -> Picture:
    """A picture of the content in the manner of the style.

    `content`, `style`, `mask` and `regions` are paths, PIL images, arrays (H, W, 3) uint8 or float 0..1,
    tensors (3, H, W) or (1, 3, H, W) in 0..1, or Pictures; `style` may be a list of them, weighted by
    `style_weights`, or each painting the part of the photo where its own of the `regions` is white.
    `quality` ("draft", "good", "best", and what the method adds) sets knobs and size, and the method where
    none is named.
    `settings` are the controls (`Controls`: size, strength, colour, seed, ...) and the method's knobs.
    `progress` gets events and may return False to stop; the best picture so far is returned.

    The result has the content's shape at the asked size, its alpha, and a `recipe`. Raises UsageError,
    InputError, WeightsError or ResourceError, each with one sentence.

    >>> import numpy as np
    >>> photo = np.full((32, 48, 3), 0.5, dtype=np.float32)
    >>> stylize(photo, photo, strength=0).size
    (48, 32)
    """
    kind = registry.find(method or by_quality(quality))
    controls, knobs = _settings(kind, quality, settings)
    device = devices.choose(controls.device)
    pictures = Inputs.read(content, style, mask, regions, controls)
    if kind.needs_style and not pictures.styles:
        raise UsageError("a style is needed: give a picture of the style (--style PAINTING)")
    size = controls.size or min(kind.sizes.get(quality, kind.sizes["good"]), max(pictures.content.size))
    tracker = Progress(progress)
    with _threads(controls.threads) as threads:
        result = _make(kind(), knobs, controls, pictures, images.fit(pictures.content, size), device, tracker)
    result.recipe = _recipe(kind(), knobs, controls, pictures, result, str(device), threads, tracker)
    return result


def by_quality(quality: str) -> str:
    """The method that a quality stands for. Raises UsageError for one that some method alone has."""
    if quality not in BY_QUALITY:
        raise UsageError(
            f"'{quality}' is no quality that every method has ({did_you_mean(quality, BY_QUALITY)}): for one "
            "of a method's own, name the method as well"
        )
    return BY_QUALITY[quality]


@dataclass(frozen=True)
class Inputs:
    """The pictures as they came, before any resizing."""

    content: Picture
    styles: Sequence[Picture]
    weights: Sequence[float]
    mask: Picture | None
    regions: Sequence[Picture]

    @classmethod
    def read(
        cls,
        content: Anything,
        style: Anything,
        mask: Anything | None,
        regions: Sequence[Anything],
        controls: Controls,
    ) -> Inputs:
        """Open everything. Raises InputError for a picture that is missing or damaged."""
        several = style if isinstance(style, (list, tuple)) else [] if style is None else [style]
        styles = [_style(one) for one in several]
        given = controls.style_weights or (1.0,) * len(styles)
        if len(given) != len(styles):
            raise UsageError(
                f"{len(given)} style weights were given for {len(styles)} styles: give one each, or none"
            )
        if styles and (min(given) < 0 or sum(given) <= 0):
            raise UsageError("style weights must not be negative, and at least one must be above 0")
        if regions and controls.style_weights:
            raise UsageError(
                "regions say where each style goes, so style weights cannot: leave out one of them"
            )
        if regions and len(regions) != len(styles):
            raise UsageError(f"{len(regions)} regions were given for {len(styles)} styles: give one each")
        return cls(
            content=images.Picture.of(content),
            styles=styles,
            weights=[one / sum(given) for one in given],
            mask=None if mask is None else images.Picture.of(mask),
            regions=[images.Picture.of(region) for region in regions],
        )


def _style(source: Anything) -> Picture:
    """A style picture; what a style file has kept of it goes into the cache."""
    picture = images.Picture.of(source)
    if picture.name.lower().endswith(".safetensors"):
        cache.adopt(images.style_entries(Path(picture.name)))
    return picture


def save_style(
    style: Anything,
    path: str | Path,
    *,
    method: str | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> None:
    """Keep a painting and what `method` sees in it, to be used as a style of pictures of one `size`.

    `path` ends in .safetensors; give it wherever a style picture is taken. For pictures of another size it
    is the painting alone. Raises UsageError, InputError, WeightsError or OutputError with one sentence.
    """
    target = Path(path)
    images.check_style_writable(target, overwrite=overwrite)
    kind = registry.find(method or by_quality("good"))
    controls, knobs = _settings(kind, "good", settings)
    device = devices.choose(controls.device)
    picture = images.Picture.of(style)
    long_side = controls.size or kind.sizes["good"]
    import torch

    content = torch.zeros((1, 3, long_side, long_side), device=device)
    job = Job(
        content=content,
        styles=[_style_tensor(picture, (long_side, long_side), controls.style_scale, device)],
        style_weights=[1.0],
        device=device,
        dtype=devices.compute_dtype(device),
    )
    with _threads(controls.threads), cache.recording() as entries:
        kind().look(job, knobs)
    images.write_style(picture, target, entries, overwrite=overwrite)


def _settings(
    kind: type[Method], quality: str, settings: dict[str, Any]
) -> tuple[Controls, knob_rules.Knobs]:
    """The controls and the method's knobs, checked."""
    mine = {name: value for name, value in settings.items() if name in Controls.model_fields}
    chosen = {name: value for name, value in settings.items() if name not in mine}
    known = [*Controls.model_fields, *kind.Knobs.model_fields]
    for name in chosen:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"{kind.name} has no knob '{name}': {hint}")
    controls = knob_rules.parse(Controls, mine, what="control")
    return controls, knob_rules.parse(kind.Knobs, registry.knobs_for(kind, quality, chosen))


def _make(
    method: Method,
    knobs: knob_rules.Knobs,
    controls: Controls,
    inputs: Inputs,
    size: tuple[int, int],
    device: torch.device,
    progress: Progress,
) -> Picture:
    """The picture: the method's own work, with the shared controls round it."""
    content = inputs.content.resized(size)
    mask = None if inputs.mask is None else _soft(inputs.mask, size, controls)
    regions = _regions([_soft(region, size, controls) for region in inputs.regions], device)
    if controls.strength == 0:
        return images.Picture(content.pixels.copy(), content.alpha)
    styles = [_style_tensor(style, size, controls.style_scale, device) for style in inputs.styles]
    job = Job(
        content=content.tensor(device, share=True),
        styles=styles,
        style_weights=inputs.weights,
        device=device,
        dtype=devices.compute_dtype(device),
        seed=controls.seed,
        strength=controls.strength if "strength" in method.native else 1.0,
        progress=progress,
        regions=regions,
    )
    if size[0] * size[1] > _LARGE:
        release_freed_memory()
    result = _transfer(method, job, knobs)
    if regions is not None:
        result = images.blend(job.content, result, regions.sum(0)[0])
    if controls.colour == "content":
        result = colour.keep_colour(result, job.content)
    if "strength" not in method.native:
        result = job.content + controls.strength * (result - job.content)
    if mask is not None:
        result = images.blend(job.content, result, mask)
    alpha = content.alpha
    del job, styles, content  # what is not needed any more makes room for what is copied now
    if size[0] * size[1] > _LARGE:
        release_freed_memory()
    return images.Picture.from_tensor(result, alpha=alpha)


def _style_tensor(style: Picture, size: tuple[int, int], scale: float, device: torch.device) -> torch.Tensor:
    """The style as (1, 3, H, W) with the content's long side, times `scale`."""
    long_side = max(1, round(max(size) * scale))
    return style.resized(images.fit(style, long_side)).tensor(device, share=True)


def _soft(mask: Picture, size: tuple[int, int], controls: Controls) -> images.Floats:
    """A mask at `size` with a soft edge, (H, W) in 0..1."""
    return images.feather(images.read_mask(mask, size), controls.feather)


def _regions(masks: Sequence[images.Floats], device: torch.device) -> torch.Tensor | None:
    """Each style's share of every pixel, (K, 1, H, W), in sum at most 1; where masks overlap, they share."""
    if not masks:
        return None
    import torch

    shares = torch.stack([torch.as_tensor(mask) for mask in masks])[:, None].to(device)
    return shares / shares.sum(0).clamp(min=1)


def _transfer(method: Method, job: Job, knobs: knob_rules.Knobs) -> torch.Tensor:
    """One run of the method, or one for each style and their mean by weights or regions."""
    import dataclasses

    native = "styles" if job.regions is None else "regions"
    if native in method.native or len(job.styles) == 1:
        return method.transfer(job, knobs)
    shares: Any = job.style_weights if job.regions is None else _everywhere(job.regions)
    mixed = job.content.new_zeros(())
    for index, (style, share) in enumerate(zip(job.styles, shares, strict=True)):
        progress = job.progress.part(index, len(job.styles))
        one = dataclasses.replace(job, styles=[style], style_weights=[1.0], progress=progress, regions=None)
        mixed = mixed + share * method.transfer(one, knobs)
    return mixed


def _everywhere(regions: torch.Tensor) -> torch.Tensor:
    """Shares (K, 1, H, W) that sum to 1; where no region is, the photo comes back over them anyway."""
    return regions / regions.sum(0).clamp(min=1e-6)


class _threads:  # noqa: N801 - reads as a statement
    """The number of CPU threads inside the block; the old number comes back."""

    def __init__(self, count: int | None) -> None:
        self.count = count

    def __enter__(self) -> int:
        import torch

        self.before = torch.get_num_threads()
        if self.count is not None:
            torch.set_num_threads(self.count)
        return self.count or self.before

    def __exit__(self, *error: object) -> None:
        import torch

        torch.set_num_threads(self.before)


def _source(picture: Picture) -> recipes.Source:
    return recipes.Source(name=picture.name, sha256=picture.sha256)


def _recipe(
    method: Method,
    knobs: knob_rules.Knobs,
    controls: Controls,
    inputs: Inputs,
    result: Picture,
    device: str,
    threads: int,
    progress: Progress,
) -> dict[str, Any]:
    settled = controls.model_dump() | {"size": max(result.size), "device": device, "threads": threads}
    used = method.weights(knobs) if controls.strength else ()
    return recipes.Recipe(
        method=method.name,
        knobs=knobs.model_dump(mode="json"),
        controls=settled,
        content=_source(inputs.content),
        styles=tuple(_source(style) for style in inputs.styles),
        mask=None if inputs.mask is None else _source(inputs.mask),
        regions=tuple(_source(region) for region in inputs.regions),
        weights={str(name): weights.fingerprint(name) for name in used},
        versions=recipes.versions(),
        machine={"device": device, "threads": threads},
        stopped_after=progress.done if progress.stopped else None,
    ).model_dump(mode="json")


def replay(
    made: str | Path,
    *,
    content: Anything | None = None,
    style: Anything | None = None,
    mask: Anything | None = None,
    regions: Sequence[Anything] | None = None,
    progress: Listener | None = None,
) -> Picture:
    """Make the picture `made` again from the recipe inside it; the same pixels on the same machine.

    The inputs are looked for where they were, beside `made` and in the current folder; `content`,
    `style`, `mask` and `regions` name them where they have moved. Raises InputError when one is missing
    or is not the file that the recipe names, and WeightsError when the weights are others.
    """
    recipe = recipes.parse(images.read_recipe(Path(made)), str(made))
    given = style if isinstance(style, (list, tuple)) else [style] * len(recipe.styles)
    places = regions or [None] * len(recipe.regions)
    for what, named, used in (("styles", given, recipe.styles), ("regions", places, recipe.regions)):
        if len(named) != len(used):
            raise UsageError(f"{made} was made with {len(used)} {what}, and {len(named)} were given")
    if (
        clash := (recipe.controls.keys() | recipe.knobs.keys()) & _NAMED
        or recipe.controls.keys() & recipe.knobs
    ):
        raise InputError(
            f"the recipe in {made} has '{min(clash)}' in a wrong place: it was not written by atelier"
        )
    _check_files(recipe.weights)
    where = Path(made).parent
    listener = _until(recipe.stopped_after, progress)
    return stylize(
        _found(recipe.content, content, where),
        [_found(source, one, where) for source, one in zip(recipe.styles, given, strict=True)],
        method=recipe.method,
        mask=None if recipe.mask is None else _found(recipe.mask, mask, where),
        regions=[_found(source, one, where) for source, one in zip(recipe.regions, places, strict=True)],
        progress=listener,
        **recipe.controls,
        **recipe.knobs,
    )


#: What a recipe names outside its controls and knobs.
_NAMED = {"content", "style", "method", "quality", "mask", "regions", "progress"}


def _until(stop: int | None, listener: Listener | None) -> Listener | None:
    """A listener that stops where the recorded run was stopped."""
    if stop is None:
        return listener

    def listen(event: Any) -> bool | None:
        answer = listener(event) if listener is not None else None
        return False if event.done >= stop else answer

    return listen


def _check_files(used: Mapping[str, str]) -> None:
    """Weights and other files must be those that the recipe names."""
    for name, sha256 in used.items():
        if weights.fingerprint(name) != sha256:
            raise WeightsError(f"'{name}' is not what it was when this picture was made (its hash differs)")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, in a recipe that somebody made up
        return False


def _found(source: recipes.Source, given: Anything | None, beside: Path) -> Picture:
    """The input that a recipe names, checked by its hash."""
    if given is not None:
        places = [given]
    elif source.name:
        places = [path for path in (Path(source.name), beside / Path(source.name).name) if _is_file(path)]
    else:
        raise InputError("an input of this picture came from memory: give it again (content=, style=, mask=)")
    pictures = [images.Picture.of(place) for place in places]
    for picture in pictures:
        if picture.sha256 == source.sha256:
            return picture
    if not pictures:
        raise InputError(
            f"the input '{source.name}' is not there any more: name it with --content, --style or --mask"
        )
    label = f"'{source.name}'" if source.name else "what was given for an input from memory"
    raise InputError(f"{label} is not the picture that was used (its hash differs): find the original")
