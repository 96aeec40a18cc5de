"""The calls: stylize a photo, harmonise a composite, generate a picture, replay a receipt, save a style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core.errors import UsageError, did_you_mean
from atelier.core.progress import Listener
from atelier.core.recipe import Request
from atelier.session.controls import BY_QUALITY, Controls, by_quality
from atelier.session.inputs import Anything

if TYPE_CHECKING:
    from atelier.images import Picture

__all__ = [
    "BY_QUALITY",
    "Controls",
    "by_quality",
    "generate",
    "harmonise",
    "replay",
    "run",
    "save_style",
    "stylize",
]


def stylize(
    content: Anything,
    style: Anything | Sequence[Anything] | None = None,
    *,
    text: Any = None,
    method: str | None = None,
    quality: str = "good",
    mask: Anything | None = None,
    regions: Sequence[Anything] = (),
    progress: Listener | None = None,
    **settings: Any,
) -> Picture:
    """A picture of the content in the manner of the style.

    `content`, `style`, `mask` and `regions` are paths, PIL images, arrays (H, W, 3) uint8 or float 0..1,
    tensors (3, H, W) or (1, 3, H, W) in 0..1, or Pictures. `style` may be a list: styles are weighted by
    `style_weights`, or each paints the part of the photo where its own of the `regions` is white. `text` is
    a style in words, or a list of them, for methods that read words; `PictureStyle`, `TextStyle` and
    `TrainedStyle` carry weights of their own. `quality` ("draft", "good", "best", "painterly", and what the
    method adds) sets knobs and size, and the method where none is named. `settings` are the controls
    (`Controls`: size, strength, colour, seed, ...) and the method's knobs. `progress` receives events and may
    return False to stop; the best picture so far is returned.

    The result has the content's shape at the asked size, its alpha, a `recipe` and the method's
    `artifacts`. Raises UsageError, InputError, WeightsError, OutputError or ResourceError, each with one
    sentence.

    >>> import numpy as np
    >>> photo = np.full((32, 48, 3), 0.5, dtype=np.float32)
    >>> stylize(photo, photo, strength=0).size
    (48, 32)
    """
    from atelier.session import artifacts
    from atelier.session.stylizer import Stylizer

    painter = Stylizer(style, text=text, method=method, quality=quality, **settings)
    artifacts.check_folders(painter.setup.kind.Knobs, painter.setup.knobs)
    picture = painter(content, mask=mask, regions=regions, progress=progress)
    artifacts.write(painter.setup.knobs, picture.artifacts)
    return picture


#: Width of the soft edge of a harmonised object in pixels: that of a mask would dissolve thin parts.
OBJECT_FEATHER = 2.0


def harmonise(
    composite: Anything,
    mask: Anything,
    background: Anything | None = None,
    *,
    method: str = "harmonise",
    quality: str = "good",
    progress: Listener | None = None,
    **settings: Any,
) -> Picture:
    """A painting with a pasted object, white in the `mask`, which is repainted so that it belongs there.

    `background` is the painting without the object; by default it is what surrounds the object. The size is
    the composite's, up to 1024 px unless `size` asks for more. `method` is one that requires a mask, such as
    "phdiffusion". The rest is as for `stylize`, whose errors it raises.

    >>> import numpy as np
    >>> composite = np.random.default_rng(0).random((32, 48, 3))
    >>> mask = np.zeros((32, 48))
    >>> mask[8:24, 16:32] = 1
    >>> made = harmonise(composite, mask, engine="adain")
    >>> np.abs(made.pixels - composite)[:, :10].max() < 1e-6
    np.True_
    """
    _check_harmoniser(method)
    settings = {"feather": OBJECT_FEATHER, **settings}
    return stylize(
        composite, background, method=method, quality=quality, mask=mask, progress=progress, **settings
    )


def _check_harmoniser(method: str) -> None:
    from atelier.methods import registry

    known = [kind.name for kind in registry.list_methods().values() if kind.takes.mask == "required"]
    if registry.find(method).takes.mask != "required":
        raise UsageError(f"{method} does not harmonise objects: {did_you_mean(method, known)}")


def generate(
    method: str,
    style: Anything | Sequence[Anything] | None = None,
    *,
    text: Any = None,
    size: int | tuple[int, int] | None = None,
    quality: str = "good",
    progress: Listener | None = None,
    **settings: Any,
) -> Picture:
    """A new picture by a method that needs no content: a texture from a sample, or one from words.

    `size` is the side of a square or (width, height) in pixels; else the quality's. The rest is as for
    `stylize`, whose errors it raises.

    >>> import numpy as np
    >>> sample = np.random.default_rng(0).random((32, 32, 3))
    >>> generate("texture", sample, size=(40, 32), iterations=1, coarse_iterations=1).size
    (40, 32)
    """
    from atelier.session import artifacts
    from atelier.session.stylizer import Stylizer

    painter = Stylizer(style, text=text, method=method, quality=quality, **settings)
    artifacts.check_folders(painter.setup.kind.Knobs, painter.setup.knobs)
    picture = painter.generate(size, progress=progress)
    artifacts.write(painter.setup.knobs, picture.artifacts)
    return picture


def replay(
    made: str | Path,
    *,
    content: Anything | None = None,
    style: Anything | None = None,
    mask: Anything | None = None,
    regions: Sequence[Anything] | None = None,
    files: Mapping[str, Any] | None = None,
    max_pixels: int | None = None,
    progress: Listener | None = None,
) -> Picture:
    """Make the picture `made` again from the recipe inside it; the same pixels on the same machine.

    The inputs are looked for where they were, beside `made` and in the current folder; `content`,
    `style`, `mask` and `regions` name them where they have moved, and `files` those of knobs, weights
    among them, by the knob's name. Raises InputError when one is missing
    or is not the file that the recipe names, and WeightsError when the weights are others.

    >>> import numpy as np
    >>> from atelier import images
    >>> photo = np.random.default_rng(0).random((8, 12, 3))
    >>> made = stylize(photo, photo[::-1], method="colour")
    >>> images.write(made, "made.png")
    >>> again = replay("made.png", content=photo, style=photo[::-1])
    >>> np.array_equal(again.pixels, made.pixels)
    True
    """
    from atelier.core import recipe as recipes
    from atelier.images import read_recipe

    recipe = recipes.parse(read_recipe(made), str(made))
    return run(
        recipe,
        folder=Path(made).parent,
        label=str(made),
        content=content,
        style=style,
        mask=mask,
        regions=regions,
        files=files,
        max_pixels=max_pixels,
        progress=progress,
    )


def run(
    request: Request,
    *,
    folder: str | Path = ".",
    label: str = "the request",
    content: Anything | None = None,
    style: Anything | None = None,
    mask: Anything | None = None,
    regions: Sequence[Anything] | None = None,
    files: Mapping[str, Any] | None = None,
    max_pixels: int | None = None,
    progress: Listener | None = None,
) -> Picture:
    """The picture that a request asks for, in this process or in a worker that was sent the request.

    The inputs are looked for by their names, in `folder` and the current folder, and checked by their hashes;
    the other arguments are as for `replay`, whose errors it raises. `label` is what errors call the request.

    >>> import numpy as np
    >>> from atelier import Request, Stylizer
    >>> photo = np.zeros((8, 12, 3), np.float32)
    >>> request = Stylizer(method="identity").request(photo)
    >>> run(Request.model_validate_json(request.model_dump_json(by_alias=True)), content=photo).size
    (12, 8)
    """
    from atelier.session.replay import settings_of

    settings = settings_of(
        request,
        Path(folder),
        label=label,
        content=content,
        style=style,
        mask=mask,
        regions=regions,
        files=files or {},
        max_pixels=max_pixels,
        progress=progress,
    )
    if "content" in settings:
        return stylize(**settings)
    size = settings.pop("size")
    return generate(size=tuple(size) if isinstance(size, list) else size, **settings)


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

    >>> import numpy as np
    >>> painting = np.random.default_rng(0).random((32, 32, 3))
    >>> save_style(painting, "painting.safetensors", method="adain", size=32)
    >>> stylize(painting[:16], "painting.safetensors", method="adain", size=32).size
    (32, 16)
    """
    from atelier.session.save import save

    save(style, Path(path), method=method, overwrite=overwrite, settings=settings)
