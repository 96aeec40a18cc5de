"""Pictures to begin with: photographs out of scikit-image's own files and styles painted by code.

Nothing is downloaded and nothing is cached. Pictures are float32 sRGB 0..1 arrays `(H, W, 3)`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import io
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from atelier.core.errors import OutputError, ResourceError, UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PHOTOS", "STYLES", "photo", "photos", "style", "styles", "write"]

PHOTOS: Mapping[str, str] = MappingProxyType(
    {
        "astronaut": "Eileen Collins before a flag and a shuttle: skin, cloth and glass (NASA).",
        "chelsea": "A tabby cat looks up: fur, whiskers and eyes (Stéfan van der Walt).",
        "coffee": "A cup of espresso on a wooden table: smooth forms and warm light (Rachel Michetti).",
        "rocket": "A rocket on its pad at dusk: sky, smoke and hard lights (SpaceX).",
    }
)

STYLES: Mapping[str, str] = MappingProxyType(
    {
        "abstraction": "Circles, wedges and lines in worn, glowing colour on a warm ground.",
        "cubist": "A guitar, a bottle and a newspaper broken into shaded facets of ochre and grey.",
        "etching": "A still life in needle lines that follow the forms, every shadow a net of hatching.",
        "fauve": "A harbour at noon in long strokes of unmixed colour, contoured in blue.",
        "garden": "A riverside in thousands of dots of pure and complementary colour.",
        "ink": "Mountains in mist in wet washes of ink, with a dry-brushed pine before them.",
        "mosaic": "A fish in stones that follow its outline, bedded in sandy grout.",
        "nocturne": "Thick oil strokes that swirl round the moon and stars over a sleeping village.",
        "stained_glass": "Leaded panes of streaky glass round a sun, lit from behind.",
        "watercolour": "Poppies wet in wet, with pooled edges, blooms and granulation on rough paper.",
        "woodblock": "A snow mountain and cherry blossom in flat colour with gradations and a fine outline.",
        "woodcut": "A breaking wave in bold carved lines, indigo on cream.",
    }
)

# the module that paints each style in the function of its name
_STUDIOS = {
    "abstraction": "modern",
    "cubist": "modern",
    "etching": "etching",
    "fauve": "sunlight",
    "garden": "sunlight",
    "ink": "inks",
    "mosaic": "glass",
    "nocturne": "oils",
    "stained_glass": "glass",
    "watercolour": "inks",
    "woodblock": "woodblock",
    "woodcut": "prints",
}
_FILES = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
}
_SMALLEST, _LARGEST = 64, 4096


def photo(name: str) -> NDArray[np.float32]:
    """A bundled photograph, float32 `(H, W, 3)` sRGB 0..1.

    Raises UsageError for a name that does not exist and ResourceError where scikit-image lacks the file.

    >>> photo("astronaut").shape
    (512, 512, 3)
    """
    import numpy as np
    from PIL import Image

    if name not in PHOTOS:
        raise UsageError(f"there is no example photo '{name}': {did_you_mean(name, PHOTOS)}")
    try:
        # not skimage.data.<name>(): that may look for, and fill, a download cache in the home folder
        data = importlib.resources.files("skimage.data").joinpath(_FILES[name]).read_bytes()
    except (OSError, ImportError) as problem:
        raise ResourceError(
            f"scikit-image lacks its picture '{_FILES[name]}': reinstall scikit-image 0.25 or later."
        ) from problem
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"), np.float32) / np.float32(255)


def style(name: str, *, size: int = 640, seed: int = 0) -> NDArray[np.float32]:
    """An example style painted for the asking, float32 `(size, size, 3)` sRGB 0..1.

    The same seed gives the same picture to the bit; another seed another picture of the same kind.
    Raises UsageError for an unknown name, a size outside 64..4096 or a negative seed.

    >>> style("ink", size=64).shape
    (64, 64, 3)
    """
    import numpy as np

    if name not in STYLES:
        raise UsageError(f"there is no example style '{name}': {did_you_mean(name, STYLES)}")
    _check_size(size)
    if seed < 0:
        raise UsageError(f"the seed {seed} is negative: use 0 or more")
    paint = getattr(importlib.import_module(f"atelier.examples.{_STUDIOS[name]}"), name)
    return cast("NDArray[np.float32]", paint(np.random.default_rng([seed, zlib.crc32(name.encode())]), size))


def photos() -> dict[str, Callable[[], NDArray[np.float32]]]:
    """Every photograph's name and the call that loads it."""
    return {name: functools.partial(photo, name) for name in PHOTOS}


def styles() -> dict[str, Callable[..., NDArray[np.float32]]]:
    """Every style's name and the call that paints it, with `size` and `seed` as keywords."""
    return {name: functools.partial(style, name) for name in STYLES}


def write(folder: str | os.PathLike[str], *, size: int = 640, overwrite: bool = False) -> list[Path]:
    """Write all examples as `photos/NAME.png` and `styles/NAME.png`; returns the paths.

    `size` is the side of the styles in pixels; photos keep theirs. Raises OutputError, before anything
    is written, when one of the files exists and `overwrite` is not given, and when writing fails.
    """
    from atelier.images import Picture, files

    _check_size(size)
    root = Path(folder)
    plan = {root / "photos" / f"{name}.png": load for name, load in photos().items()}
    for name in STYLES:
        plan[root / "styles" / f"{name}.png"] = functools.partial(style, name, size=size)
    taken = [path for path in plan if path.exists()]
    if taken and not overwrite:
        raise OutputError(f"'{taken[0]}' exists already: choose another folder or give --overwrite.")
    for path, load in plan.items():
        _folder(path.parent)
        files.write(Picture(load()), path, overwrite=overwrite)
    return list(plan)


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        reason = problem.strerror or problem
        raise OutputError(f"the folder '{path}' cannot be made ({reason}): choose another place") from problem


def _check_size(size: int) -> None:
    if not _SMALLEST <= size <= _LARGEST:
        raise UsageError(f"the size {size} is not allowed: choose {_SMALLEST} to {_LARGEST} pixels")
