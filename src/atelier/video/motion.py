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
LARGEST = 1024
#: Deviation in 0..1 of a place from where it came: at this much, the last frame counts for 0.6 of its weight.
_TOLERANCE = 0.06
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
    place also looks different now. `cut` says that the frames show different scenes.
    """

    flow: Floats
    seen: Floats
    trust: Floats
    cut: bool

    @classmethod
    def between(cls, before: Pixels, now: Pixels) -> Motion:
        """From two frames (H, W, 3) of one size."""
        there, back = _flows(before, now)
        seen = _seen(there, back)
        change = (now.astype(np.float32) - moved(before.astype(np.float32), there)) / 255
        squared = _cv2().blur(np.square(change).mean(2), (_REACH, _REACH))
        trust = (seen * np.exp(-squared / (2 * _TOLERANCE**2))).astype(np.float32)
        mean = float(np.abs(change).mean())
        cut = mean > _OTHER_SCENE or (mean > _CHANGED and float(seen.mean()) < _HIDDEN)
        return cls(there, seen, trust, cut)

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The flow (1, 2, H, W) and what was seen (1, 1, H, W), as methods and metrics take them."""
        flow = torch.from_numpy(np.ascontiguousarray(self.flow.transpose(2, 0, 1)))[None]
        return flow, torch.from_numpy(self.seen)[None, None]


def moved(picture: Floats, flow: Floats) -> Floats:
    """The last frame's (H, W, C), brought to the places of this frame along `flow`; bicubic."""
    cv2 = _cv2()
    height, width = picture.shape[:2]
    columns = np.arange(width, dtype=np.float32) + flow[..., 0]
    rows = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    found: Floats = cv2.remap(picture, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return found


def _flows(before: Pixels, now: Pixels) -> tuple[Floats, Floats]:
    """The flows (H, W, 2) from this frame to the one before, and from that to this."""
    cv2 = _cv2()
    height, width = now.shape[:2]
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, now)]
    scale = max(height, width) / LARGEST
    if scale > 1:
        small = (max(16, round(width / scale)), max(16, round(height / scale)))
        greys = [cv2.resize(grey, small, interpolation=cv2.INTER_AREA) for grey in greys]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there, back = search.calc(greys[1], greys[0], None), search.calc(greys[0], greys[1], None)
    if scale > 1:
        ratio = np.array([width / there.shape[1], height / there.shape[0]], np.float32)
        there, back = (cv2.resize(one, (width, height)) * ratio for one in (there, back))
    return there, back


def _seen(there: Floats, back: Floats) -> Floats:
    from atelier.metrics.video import seen_before

    pair = (torch.from_numpy(flow.transpose(2, 0, 1).copy())[None] for flow in (there, back))
    seen: Floats = seen_before(*pair)[0, 0].numpy()
    return seen


def _cv2() -> Any:
    import cv2

    return cv2
