"""Motion between two frames of a clip: optical flow, what was visible before, and cuts.

Flow is that of OpenCV's dense inverse search (Kroeger, Timofte, Dai & Van Gool, "Fast optical flow using
dense inverse search", 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atelier.core.lazy import torch
from atelier.video.source import Pixels

Floats = npt.NDArray[np.float32]

#: Long side above which the flow is computed on smaller frames.
_LARGEST = 1024
#: The flow back only tells what was visible: it is computed at half size, unless the long side is this small.
_SMALLEST = 256
#: Deviation in 0..1 of a place from where it came: at this much, the last frame counts for 0.6 of its weight.
_TOLERANCE = 0.09
#: Side in pixels of the window over which that deviation is taken.
_REACH = 5
#: A frame is a cut if it differs so much from the one before, moved, in the mean in 0..1; or less, where so
#: small a share of it was visible before.
_OTHER_SCENE, _CHANGED, _HIDDEN = 0.12, 0.03, 0.35


@dataclass(frozen=True)
class Motion:
    """How a frame came from the one before.

    `flow` (H, W, 2) leads from each pixel of this frame to its place in the last one, in pixels (right,
    down). `seen` (H, W) is 1 where that place was visible there. `trust` (H, W), 0..1, is lower where the
    place also looks different now. `cut` says that the frames show different scenes. `error` is the clip's
    own warping error between the two.
    """

    flow: Floats
    seen: Floats
    trust: Floats
    cut: bool
    error: float = 0.0

    @classmethod
    def between(cls, before: Pixels, now: Pixels) -> Motion:
        """From two frames (H, W, 3) of one size."""
        cv2 = _cv2()
        flow, seen = _flow(before, now)
        change = _change(before, now, flow)
        squared = cv2.blur(mean_square(change), (_REACH, _REACH))
        trust = seen * cv2.exp(squared * np.float32(-0.5 / _TOLERANCE**2))
        mean = sum(cv2.mean(cv2.absdiff(change, 0))[:3]) / 3
        cut = mean > _OTHER_SCENE or (mean > _CHANGED and float(seen.mean()) < _HIDDEN)
        return cls(flow, seen, trust, cut, _root(change, seen))

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The flow (1, 2, H, W) and what was seen (1, 1, H, W), as methods and metrics take them."""
        flow = torch.from_numpy(np.ascontiguousarray(self.flow.transpose(2, 0, 1)))[None]
        return flow, torch.from_numpy(self.seen)[None, None]

    def warping_error(self, before: Pixels, now: Pixels) -> float:
        """That of two results (H, W, 3), as `metrics.warping_error` gives it; 0..1."""
        return _root(_change(before, now, self.flow), self.seen)


def moved(picture: Floats, flow: Floats, *, smooth: bool = True) -> Floats:
    """The last frame's (H, W, C), brought to the places of this frame along `flow`; bicubic if `smooth`."""
    cv2 = _cv2()
    height, width = picture.shape[:2]
    columns = np.arange(width, dtype=np.float32) + flow[..., 0]
    rows = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    how = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    found: Floats = cv2.remap(picture, columns, rows, how, borderMode=cv2.BORDER_REPLICATE)
    return found


def _flow(before: Pixels, now: Pixels) -> tuple[Floats, Floats]:
    """The flow (H, W, 2) from this frame to the one before, and where its place was visible (H, W)."""
    from atelier.metrics.video import seen_before

    cv2 = _cv2()
    size = now.shape[:2]
    large = [_at_most(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), _LARGEST) for frame in (before, now)]
    small = [_at_most(grey, max(_SMALLEST, max(grey.shape) // 2)) for grey in large]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    back = search.calc(*small, None)
    search.setPatchStride(4)  # a quarter faster, and hardly less exact
    there = search.calc(large[1], large[0], None)
    pair = (
        torch.from_numpy(_resized(one, back.shape[:2]).transpose(2, 0, 1).copy()) for one in (there, back)
    )
    seen = seen_before(*(one[None] for one in pair))[0, 0].numpy()
    return _resized(there, size), cv2.resize(seen, size[::-1], interpolation=cv2.INTER_NEAREST)


def _resized(flow: Floats, size: tuple[int, int]) -> Floats:
    """A flow (h, w, 2) for a picture of another size (height, width)."""
    height, width = flow.shape[:2]
    if (height, width) == size:
        return flow
    cv2 = _cv2()
    how = cv2.INTER_AREA if size[0] < height else cv2.INTER_LINEAR
    ratio = np.array([size[1] / width, size[0] / height], np.float32)
    return cv2.resize(flow, size[::-1], interpolation=how) * ratio  # type: ignore[no-any-return]


def _at_most(grey: Pixels, side: int) -> Pixels:
    """A plane with a long side of at most `side` pixels."""
    scale = side / max(grey.shape)
    if scale >= 1:
        return grey
    height, width = (max(16, round(one * scale)) for one in grey.shape)
    return _cv2().resize(grey, (width, height), interpolation=_cv2().INTER_AREA)  # type: ignore[no-any-return]


def _change(before: Pixels, now: Pixels, flow: Floats) -> Floats:
    """What of a frame (H, W, 3) differs from the one before, moved bilinearly, in -1..1."""
    level = np.float32(1 / 255)
    shown = moved(before.astype(np.float32) * level, flow, smooth=False)
    return _cv2().subtract(now.astype(np.float32) * level, shown)  # type: ignore[no-any-return]


def mean_square(change: Floats) -> Floats:
    """The mean over colours (H, W) of squares."""
    cv2 = _cv2()
    found: Floats = cv2.transform(cv2.multiply(change, change), np.full((1, 3), 1 / 3, np.float32))
    return found


def _root(change: Floats, seen: Floats) -> float:
    """The root of the mean square of a change where it was seen."""
    total = float(seen.sum())
    return float(np.sqrt(float((mean_square(change) * seen).sum()) / max(total, 1.0)))


def _cv2() -> Any:
    import cv2

    return cv2
