"""The networks and styles of NNST-D: the candidates at each size and their decoder values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from atelier import features, maths
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.methods.feedforward.nnst_d_colour import cell_tones
from atelier.methods.visible import key_parts
from atelier.store import cache

if TYPE_CHECKING:
    from atelier.methods.base import Job

Found = Mapping[str, Any]
#: Format of cached styles; raise the number when it changes.
_KIND = "nnst_d 4"
#: Hypercolumns sampled, over all styles, to find the directions of largest variance.
_SAMPLE = 2048


class StyleKnobs(Protocol):
    """The knobs that affect a style's features."""

    @property
    def turned(self) -> str: ...
    @property
    def dims(self) -> int: ...
    @property
    def stroke_size(self) -> int: ...


@dataclass(frozen=True)
class Networks:
    """The encoder, its hypercolumns and the decoder, ready on a device."""

    columns: features.Hypercolumns
    decoder: Any
    dtype: torch.dtype
    files: tuple[str, ...]

    def see(self, image: torch.Tensor) -> Found:
        """The encoder's features of images (B, 3, H, W), at the hypercolumn's taps."""
        found: Found = self.columns.encoder(image, self.columns.taps)
        return found

    def strides(self, taps: Sequence[str]) -> dict[str, int]:
        """Pixels of the picture per position of each tap."""
        return {tap: self.columns.encoder.scale(tap) for tap in taps}

    def projection(self, rows: torch.Tensor) -> torch.Tensor:
        """`rows` (P, D) for hypercolumns whose taps are not yet divided by their scale."""
        widths = torch.tensor(self.columns.widths, device=rows.device)
        scale = torch.repeat_interleave(self.decoder.scale, widths)
        return (rows.float() / scale).to(self.dtype)

    def split(self, found: Found, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hypercolumns projected on the basis (P, h, w), and their decoder values (V, h, w)."""
        value = self.decoder.value
        rows = self.projection(torch.cat([basis, value.weight[..., 0, 0].to(basis.dtype)]))
        both, kept = self.columns.project(found, rows)[0], len(basis)
        return both[:kept], (both[kept:] + value.bias[:, None, None]).to(self.dtype)


@dataclass(frozen=True)
class StyleLevel:
    """The candidates of all styles at one size, their decoder values (M, V) and tones (M, 4)."""

    candidates: maths.Candidates
    values: torch.Tensor
    tones: torch.Tensor

    def entry(self) -> dict[str, torch.Tensor]:
        """As tensors, for the cache."""
        some = self.candidates
        layout = torch.tensor([(*grid, group) for grid, group in zip(some.grids, some.groups, strict=True)])
        hidden = {} if some.visible is None else {"visible": some.visible}
        return {
            "keys": some.keys,
            "basis": some.basis,
            "layout": layout,
            "values": self.values,
            "tones": self.tones,
            **hidden,
        }

    @staticmethod
    def layout(channels: int, values: int, *, hidden: bool) -> cache.Layout:
        """The shapes of an entry, for these numbers of channels of hypercolumns and values."""
        return {
            "keys": ("candidates", "directions"),
            "basis": ("directions", channels),
            "layout": ("grids", 3),
            "values": ("candidates", values),
            "tones": ("candidates", 4),
            **({"visible": ("candidates",)} if hidden else {}),
        }

    @classmethod
    def of(cls, entry: Mapping[str, torch.Tensor], device: torch.device) -> StyleLevel:
        """Restore a level from `entry`."""
        rows = entry["layout"].tolist()
        names = ("keys", "basis", "values", "tones")
        keys, basis, values, tones = (entry[name].to(device) for name in names)
        grids, groups = tuple((row[0], row[1]) for row in rows), tuple(row[2] for row in rows)
        visible = entry["visible"].to(device) if "visible" in entry else None
        return cls(maths.Candidates(keys, basis, grids, groups, visible), values, tones)


class Styles:
    """The styles at each requested size, computed once.

    Holds one size in memory at a time; with `keep`, all sizes.
    """

    def __init__(self, networks: Networks, job: Job, knobs: StyleKnobs, *, keep: bool = False) -> None:
        self.networks, self.job, self.knobs = networks, job, knobs
        self.keep = keep
        #: The long side of a content for which the styles have their size (`Method.style_side`).
        self.final = min(max(job.content.shape[-2:]), knobs.stroke_size)
        self.levels: dict[float, StyleLevel] = {}
        styles = zip(job.styles, job.looks.seen, job.style_weights, strict=True)
        #: The styles that have a weight, with their alphas.
        self.used = [(style, seen) for style, seen, weight in styles if weight]
        parts = (key_parts(style, seen) for style, seen in self.used)
        pictures = cache.key(*itertools.chain(*parts))
        self.identity = (_KIND, networks.files, str(networks.dtype), knobs.turned, knobs.dims, pictures)

    def pictures(self, long_side: int) -> list[torch.Tensor]:
        """All styles (1, 3, H, W), those without a weight too, at the size used for such a content."""
        ratio = min(long_side, self.final) / self.final
        return [shrunk(style, ratio) for style in self.job.styles]

    def at(self, long_side: int) -> StyleLevel:
        """The style level for a content with that long side."""
        ratio = min(long_side, self.final) / self.final
        if ratio not in self.levels:
            self.levels = {**(self.levels if self.keep else {}), ratio: self._look(ratio)}
        return self.levels[ratio]

    def _look(self, ratio: float) -> StyleLevel:
        found = cache.remember(
            cache.key(*self.identity, ratio),
            lambda: self._seen(ratio).entry(),
            StyleLevel.layout(
                self.networks.columns.channels,
                self.networks.decoder.value.out_channels,
                hidden=any(seen is not None and bool((seen > 0).any()) for _, seen in self.used),
            ),
        )
        return StyleLevel.of(found, self.job.device)

    def _seen(self, ratio: float) -> StyleLevel:
        networks = self.networks
        small = [shrunk(style, ratio) for style, _ in self.used]
        first = [networks.see(style) for style in small]
        basis = self._basis(first)
        maps, groups, values, masks, tones = [], [], [], [], []
        for group, style in enumerate(small):
            alphas = turned_alphas(self.used[group][1], self.knobs.turned)
            pictures = turned_copies(style, self.knobs.turned)
            for index, (picture, seen) in enumerate(zip(pictures, alphas, strict=True)):
                keys, value = networks.split(networks.see(picture) if index else first[group], basis)
                maps.append(keys)
                groups.append(group)
                values.append(value.flatten(1).T.contiguous())
                masks.append(maths.mask_at(seen, (keys.shape[1], keys.shape[2])))
                tones.append(cell_tones(picture, features.CELL).flatten(1).T.contiguous())
        found = maths.projected(maps, groups, basis, visible=masks)
        return StyleLevel(found, torch.cat(values), torch.cat(tones))

    def _basis(self, found: Sequence[Found]) -> torch.Tensor:
        """The principal directions (P, D) of the hypercolumns at visible positions."""
        count = _SAMPLE // len(found)
        rows = [self._sample(one, seen, count) for one, (_, seen) in zip(found, self.used, strict=True)]
        return maths.basis(
            torch.cat([one - one.mean(0) for one in rows]).to(self.networks.dtype), self.knobs.dims
        )

    def _sample(self, found: Found, seen: torch.Tensor | None, count: int) -> torch.Tensor:
        """About `count` hypercolumns (N, D) of the visible part of one style."""
        columns, scale = self.networks.columns, self.networks.decoder.scale
        if seen is None:
            return columns.sample(found, scale, count)
        maps = columns.join(found, scale)[0]
        mask = maths.mask_at(seen, (maps.shape[1], maps.shape[2]))
        rows = maps.flatten(1).T.float() if mask is None else maps[:, mask].T.float()
        return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long().to(rows.device)]


def shrunk(picture: torch.Tensor, ratio: float) -> torch.Tensor:
    """A picture (1, 3, H, W) with its sides multiplied by `ratio`."""
    if ratio == 1:
        return picture
    height, width = (max(1, round(side * ratio)) for side in picture.shape[-2:])
    return resize(picture, (height, width))


def turned_copies(picture: torch.Tensor, how: str) -> Iterator[torch.Tensor]:
    """The picture, its mirror image, and both turned by quarters."""
    for mirrored in (False, True)[: 1 if how == "no" else 2]:
        for quarters in range(4 if how == "all" else 1):
            yield torch.rot90(picture.flip(-1) if mirrored else picture, quarters, (-2, -1))


def turned_alphas(seen: torch.Tensor | None, how: str) -> Iterator[torch.Tensor | None]:
    """The alphas of `turned_copies`."""
    plain = torch.zeros(1, 1, 1, 1) if seen is None else seen
    return (None if seen is None else one for one in turned_copies(plain, how))
