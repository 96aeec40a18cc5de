"""How much of the way from the photo's style to the painting's a method has gone."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from atelier.metrics.base import Style, at_most, picture_style
from atelier.metrics.gram import GramDistance
from atelier.metrics.moments import MomentDistance

#: Long side in px at which pictures are compared: statistics of features depend on it.
LONG_SIDE = 384


@dataclass(frozen=True)
class RelativeStyle:
    """A distance to the painting's style over that of the untouched photo: 0 is the painting, 1 no style.

    All pictures have a long side of at most 384 px. A photo that has the painting's style already gives a
    number without meaning.
    """

    distance: GramDistance | MomentDistance
    _photos: dict[tuple[int, int], tuple[Any, Any, float]] = field(default_factory=dict, repr=False)

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        painting = picture_style(style)
        made = at_most(result, LONG_SIDE)
        return self.distance(made, made, at_most(painting, LONG_SIDE)) / self._of_photo(content, painting)

    def _of_photo(self, content: Tensor, painting: Tensor) -> float:
        """The photo's own distance, found once for each pair of tensors while both are in memory."""
        key = (id(content), id(painting))
        one, other, known = self._photos.get(key, (None, None, 0.0))
        if one is None or other is None or one() is not content or other() is not painting:
            photo = at_most(content, LONG_SIDE)
            known = max(self.distance(photo, photo, at_most(painting, LONG_SIDE)), 1e-12)
            self._photos[key] = (weakref.ref(content), weakref.ref(painting), known)
        return known
