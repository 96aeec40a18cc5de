"""Steadiness: each frame is painted in the light of the one before.

A method paints every frame anew, and where its choices change from frame to frame the picture flickers. Here
the last result is moved along the flow, and counts as much as the place still looks the same (Ruder et al.,
"Artistic style transfer for videos", 2016, use the same flow and visibility as a loss). Averaging paint that
does not lie in the same place loses contrast, so fine detail is brought back towards the contrast of the
frame as painted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from atelier.images import Picture
from atelier.video.motion import Floats, Motion, mean_square, moved
from atelier.video.source import Pixels

if TYPE_CHECKING:
    import torch

    from atelier.core.progress import Listener

#: Radius in pixels of fine detail, the share of its contrast that is kept, and the most that it is amplified
#: in a frame. To keep all would amplify what flickers.
_FINE, _KEPT, _MOST = 1.0, 0.85, 1.25
#: Side in pixels of a neighbourhood, and the change of its mean in 0..1 at which paint counts for half.
_NEAR, _OTHER = 15, 0.14


@dataclass(frozen=True)
class Flicker:
    """Sums of the warping errors (Lai et al. 2018, eq. 5) of the result and of the clip itself."""

    result: float = 0.0
    content: float = 0.0
    pairs: int = 0

    def plus(self, result: float, content: float) -> Flicker:
        """With one more pair of frames."""
        return Flicker(self.result + result, self.content + content, self.pairs + 1)

    @property
    def facts(self) -> dict[str, float]:
        """The means over all pairs of frames: of the result, of the clip, and their ratio."""
        count = max(self.pairs, 1)
        ratio = self.result / self.content if self.content else 1.0
        return {"flicker": self.result / count, "of_the_clip": self.content / count, "ratio": ratio}


@dataclass(frozen=True)
class State:
    """What the next frame needs of the last one: its result, the method's memory, and the sums so far."""

    result: Pixels
    memory: Mapping[str, torch.Tensor] = field(default_factory=dict)
    flicker: Flicker = Flicker()
    scenes: int = 1


class Painter:
    """Paints the frames of a clip in their order, all of one size.

    `stylize` paints a picture as a `Stylizer` does. `steady`, 0..1, is the weight of the last result where
    the place still looks the same; at 0 each frame is painted alone.
    """

    def __init__(self, stylize: Callable[..., Picture], steady: float) -> None:
        self.stylize, self.steady = stylize, steady

    def paint(
        self, now: Pixels, last: tuple[State, Motion] | None, progress: Listener | None
    ) -> tuple[Picture, State]:
        """The frame `now` as painted, and its state; `last` is the state before, and the motion since."""
        if last is None or last[1].cut:
            memory: dict[str, torch.Tensor] = {}
            picture = self.start(now, None, memory, progress)
        else:
            memory = dict(last[0].memory)
            picture = self.start(now, last[1], memory, progress, last[0])
        return self.finish(picture, memory, last)

    def start(
        self,
        now: Pixels,
        motion: Motion | None,
        memory: MutableMapping[str, torch.Tensor],
        progress: Listener | None = None,
        last: State | None = None,
    ) -> Picture:
        """The frame as the method paints it. In a scene's first frame, `motion` is None.

        Without the state of the frame before, the method does not see its result.
        """
        context: dict[str, Any] = {}
        if self.steady:
            context["memory"] = memory
            if motion is not None:
                context["flow"], context["known"] = motion.tensors
            if last is not None:
                context["previous"] = Picture(_floats(last.result), sha256="-")
        content = Picture(_floats(now), sha256="-")  # frames need no hash of their own
        return self.stylize(content, progress=progress, **context)

    def finish(
        self, picture: Picture, memory: Mapping[str, torch.Tensor], last: tuple[State, Motion] | None
    ) -> tuple[Picture, State]:
        """The painted frame, held to the result before, and its state."""
        if last is None:
            return picture, State(_integers(picture.pixels), memory)
        before, motion = last
        if motion.cut:
            return picture, State(_integers(picture.pixels), memory, before.flicker, before.scenes + 1)
        if self.steady:
            held = steadied(picture.pixels, _floats(before.result), motion, self.steady)
            picture = replace(picture, pixels=held)
        result = _integers(picture.pixels)
        errors = motion.warping_error(before.result, result), motion.error
        return picture, State(result, memory, before.flicker.plus(*errors), before.scenes)


def steadied(painted: Floats, last: Floats, motion: Motion, steady: float) -> Floats:
    """A painted frame (H, W, 3), held to the last result by the weight `steady`; clipped to 0..1."""
    change = moved(last, motion.flow) - painted
    share = (steady * motion.trust * _alike(change))[..., None]
    mixed = painted + share * change
    detail, wanted = _detail(mixed), _detail(painted)
    gain = float(np.clip(_KEPT * _deviation(wanted) / max(_deviation(detail), 1e-6), 1, _MOST))
    result: Floats = np.clip(mixed + np.float32(gain - 1) * detail, 0, 1, dtype=np.float32)
    return result


def _alike(change: Floats) -> Floats:
    """How far the paint (H, W) is still meant to be the same, 0..1: strokes may lie elsewhere, but where the
    mean of a neighbourhood changes, something was uncovered that only looks like what was there.
    """
    import cv2

    mean: Floats = cv2.blur(change, (_NEAR, _NEAR))  # type: ignore[assignment]
    squared = mean_square(mean)
    found: Floats = 1 / (1 + np.square(squared * np.float32(1 / _OTHER**2)))
    return found


def _detail(picture: Floats) -> Floats:
    import cv2

    found: Floats = picture - cv2.GaussianBlur(picture, (0, 0), _FINE)
    return found


def _deviation(picture: Floats) -> float:
    """The root mean square of detail, whose mean is 0."""
    import cv2

    return float(cv2.norm(picture.reshape(len(picture), -1)) / picture.size**0.5)


def _floats(pixels: Pixels) -> Floats:
    return pixels.astype(np.float32) / np.float32(255)


def _integers(pixels: Floats) -> Pixels:
    import cv2

    # It rounds, as rint does.
    found: Pixels = cv2.convertScaleAbs(pixels.clip(0, 1), alpha=255)  # type: ignore[assignment]
    return found
