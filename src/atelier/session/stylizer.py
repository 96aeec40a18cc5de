"""A prepared method: read the styles and load the networks once, then paint any number of pictures."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atelier import images
from atelier.core import device as devices
from atelier.core import extras
from atelier.core.errors import UsageError
from atelier.core.knobs import parse
from atelier.core.progress import Listener, Progress
from atelier.core.recipe import Request
from atelier.images import Picture
from atelier.methods import registry
from atelier.methods.base import Painter
from atelier.session import artifacts
from atelier.session import inputs as given
from atelier.session.controls import Controls, by_quality, settle
from atelier.session.inputs import Anything, Inputs
from atelier.session.run import LARGE, Setup, picture_of, threads

if TYPE_CHECKING:
    import torch

#: Number of sizes for which prepared styles are kept.
_SIZES = 4

#: Controls that are applied to the finished picture, so that prepared styles serve any of their values.
ADJUSTABLE = ("strength", "colour", "feather", "finish")


class Stylizer:
    """A method with its settings and styles, ready to paint many pictures.

    Takes the arguments of `stylize` except the content. Work that depends only on the styles is done once
    per long side. Batches, web pages, servers and video use this class. Raises what `stylize` raises.

    >>> import numpy as np
    >>> paint = Stylizer(method="identity")
    >>> [paint(np.zeros((8, side, 3))).size for side in (8, 12)]
    [(8, 8), (12, 8)]
    """

    def __init__(
        self,
        style: Anything | Sequence[Anything] | None = None,
        *,
        method: str | None = None,
        quality: str = "good",
        text: Any = None,
        **settings: Any,
    ) -> None:
        kind = registry.find(method or by_quality(quality, words=given.in_words(style, text)))
        controls, knobs, memory = settle(kind, quality, settings)
        for package in kind.packages:
            extras.require(package, kind.extra, f"the method {kind.name}")
        artifacts.check(kind.Knobs, knobs)
        self.quality = quality
        self.setup = Setup(kind, kind(), controls, knobs, devices.choose(controls.device))
        self._given = {"style": style, "text": text, "files": memory}
        self._inputs: Inputs | None = None
        self._painters: OrderedDict[int, Painter] = OrderedDict()

    def __call__(
        self,
        content: Anything,
        *,
        mask: Anything | None = None,
        regions: Sequence[Anything] = (),
        progress: Listener | None = None,
        previous: Anything | None = None,
        flow: torch.Tensor | None = None,
    ) -> Picture:
        """The stylised content, with a `recipe`.

        In a video, `previous` is the result of the previous frame. `flow` (1, 2, H, W) gives, for each pixel
        of this frame, the offset in pixels (right, down) of its position in `previous`.
        """
        if self.setup.kind.takes.content == "none":
            raise UsageError(f"{self.setup.kind.name} makes pictures without a photo: use generate")
        inputs = self._read(content, mask, regions)
        return self._paint(inputs, self._size(inputs), Progress(progress), previous, flow)

    def adjusted(self, **controls: Any) -> Stylizer:
        """The same prepared styles with another strength, colour, feather or finish, or their defaults.

        Raises UsageError for other controls, and for values that are not allowed.

        >>> import numpy as np
        >>> paint = Stylizer(method="style_copy", style=np.ones((8, 8, 3)))
        >>> half = paint.adjusted(strength=0.5)
        >>> float(half(np.zeros((8, 8, 3))).pixels.max())
        0.5
        """
        for name in controls.keys() - set(ADJUSTABLE):
            raise UsageError(f"{name} is read when styles are prepared: make another Stylizer")
        other = copy.copy(self)
        kept = self.setup.controls.model_dump(exclude=set(ADJUSTABLE))
        chosen = parse(Controls, {**kept, **controls}, what="control")
        other.setup = dataclasses.replace(self.setup, controls=chosen)
        return other

    def request(
        self,
        content: Anything | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        mask: Anything | None = None,
        regions: Sequence[Anything] = (),
    ) -> Request:
        """Describe a call with these inputs without running it: hashable, and run by `atelier.run`.

        `size` applies to pictures generated without a content, as in `generate`.
        """
        inputs = self._read(content, mask, regions)
        with threads(self.setup.controls.threads) as count:
            return self.setup.request(inputs, self._size(inputs, size), count)

    def generate(
        self, size: int | tuple[int, int] | None = None, *, progress: Listener | None = None
    ) -> Picture:
        """A picture from a method that needs no content. `size` is the side, or (width, height)."""
        takes = self.setup.kind.takes
        if takes.content == "required":
            raise UsageError(f"{self.setup.kind.name} needs a photo: use stylize")
        if self.setup.controls.colour == "content":
            raise UsageError("there is no content to take colours from: leave out colour='content'")
        inputs = self._read(None, None, ())
        return self._paint(inputs, self._size(inputs, size), Progress(progress))

    def _size(self, inputs: Inputs, size: int | tuple[int, int] | None = None) -> tuple[int, int]:
        """(height, width) of the result. Raises UsageError for a size that cannot be made."""
        usual = given.long_side(inputs, self.setup.kind, self.setup.controls, self.quality)
        if inputs.content is not None:
            return images.fit(inputs.content.shape, usual)
        side = size or usual
        width, height = (side, side) if isinstance(side, int) else side
        if min(width, height) < 1 or max(width, height) > 32768:
            raise UsageError(f"a picture of {width} x {height} pixels cannot be made: sides are 1 to 32768")
        return height, width

    def _read(self, content: Anything | None, mask: Anything | None, regions: Sequence[Anything]) -> Inputs:
        """The inputs of one picture; styles and files are opened for the first one only."""
        setup = self.setup
        if self._inputs is None or regions or self._inputs.regions:
            self._painters.clear()
            self._inputs = given.read(
                setup.kind,
                setup.controls,
                setup.knobs,
                content=content,
                mask=mask,
                regions=regions,
                **self._given,
            )
            return self._inputs
        return given.with_content(self._inputs, setup.kind, setup.controls, content, mask)

    def _paint(
        self,
        inputs: Inputs,
        size: tuple[int, int],
        progress: Progress,
        previous: Anything | None = None,
        flow: torch.Tensor | None = None,
    ) -> Picture:
        setup = self.setup
        with threads(setup.controls.threads) as count:
            frame = setup.frame(inputs, size, progress)
            if previous is not None:
                frame.previous = Picture.of(previous).resized(size).tensor(setup.device)
            frame.flow = None if flow is None else flow.to(setup.device)
            result = setup.make(frame, lambda: self._painter(inputs, max(size)), inputs.content)
            del frame  # free its memory for the copies below
            if size[0] * size[1] > LARGE:
                self._painters.clear()
            request = setup.request(inputs, size, count)
            picture = picture_of(result, inputs.content, size)
        recipe = setup.receipt(request, inputs, progress)
        picture.metadata = picture.metadata.marked(recipe["source_type"])
        if setup.controls.receipt != "none":
            picture.recipe = recipe
        return picture

    def _painter(self, inputs: Inputs, side: int) -> Painter:
        if side not in self._painters:
            self._painters[side] = self.setup.prepare(inputs, side)
        self._painters.move_to_end(side)
        while len(self._painters) > _SIZES:
            self._painters.popitem(last=False)
        return self._painters[side]
