"""One cell: paint it, measure it, and say how long it took and how much memory it needed."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from atelier import images
from atelier.bench import external
from atelier.bench.making import stylizer
from atelier.bench.memory import peak, reset_peak
from atelier.bench.pictures import Input
from atelier.bench.plan import Cell
from atelier.bench.protocol import ExternalEntry, MethodEntry, Protocol
from atelier.core.errors import AtelierError, first_line
from atelier.images import Picture
from atelier.images.picture import to_integers
from atelier.images.resize import fit
from atelier.metrics import METRICS, Metric, Networks
from atelier.session.stylizer import Stylizer

#: Bytes of contents and styles that a worker keeps in memory.
KEPT = 256 << 20


@dataclass(frozen=True)
class Work:
    """A cell to do: to paint and measure, or only to measure where its picture is there already."""

    cell: Cell
    metrics: tuple[str, ...]
    paint: bool = True


@dataclass
class Row:
    """What is known of a cell afterwards. `warm` says that its style had been looked at before.

    `seconds` are the method's alone, by the clock, and `cpu` by the processor; `whole` adds reading, writing
    and measuring. `peak` is in MiB. `values` are the metrics' numbers, None where one could not be had, with
    the reason in `reasons`.
    """

    key: str
    state: str = "done"
    error: str = ""
    seconds: float | None = None
    cpu: float | None = None
    whole: float = 0.0
    warm: bool = False
    peak: float | None = None
    sha256: str = ""
    recipe: dict[str, Any] | None = None
    values: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    painted: bool = True


class Studio:
    """What a worker keeps from cell to cell: the method with its style, pictures, networks of metrics."""

    def __init__(
        self, protocol: Protocol, entries: Mapping[str, MethodEntry | ExternalEntry], folder: Path
    ) -> None:
        self.protocol, self.entries, self.folder = protocol, entries, folder
        self._method: tuple[tuple[str, str], Stylizer] | None = None
        self._pictures: OrderedDict[str, tuple[Picture, Tensor]] = OrderedDict()
        self._networks = Networks(protocol.features)
        self._metrics: dict[str, Metric] = {}

    def do(self, work: Work) -> Row:
        """Do a cell. Whatever goes wrong is in the row."""
        row, start = Row(work.cell.key, painted=work.paint), time.perf_counter()
        try:
            made = self._painted(work.cell, row) if work.paint else self._stored(work.cell)
        except Exception as error:
            row.state, row.error = "failed", _sentence(error)
        else:
            for name in work.metrics:
                row.values[name], row.reasons[name] = self._measured(name, made, work.cell)
        row.whole = time.perf_counter() - start
        return row

    def _painted(self, cell: Cell, row: Row) -> Tensor:
        """Paint a cell, write its picture, and return it with 8 bits per channel, as it was written."""
        entry = self.entries[cell.method]
        content = self._picture(cell.content)[0]
        torch.manual_seed(self.protocol.seed)
        if isinstance(entry, ExternalEntry):
            pair = [self._at_size(one) for one in (content, self._picture(cell.style)[0])]
            made = external.run(entry, pair[0], pair[1], self.protocol.size)
            row.seconds, row.cpu, row.peak = made.seconds, made.cpu, made.peak
            picture = made.picture
        else:
            picture = self._by_method(entry, cell, content, row)
        levels = to_integers(Picture(picture.pixels), bits=8)
        path = self.folder / cell.file
        path.parent.mkdir(parents=True, exist_ok=True)
        images.write(picture, path, overwrite=True, quick=True)
        row.sha256 = hashlib.sha256(levels.tobytes()).hexdigest()
        row.recipe = picture.recipe
        return _tensor(levels)

    def _by_method(self, entry: MethodEntry, cell: Cell, content: Picture, row: Row) -> Picture:
        key = (cell.method, cell.style.name)
        row.warm = self._method is not None and self._method[0] == key
        reset_peak()
        start, cpu = time.perf_counter(), time.process_time()
        if self._method is None or self._method[0] != key:
            self._method = None  # frees the memory of the method before
            self._method = key, stylizer(self.protocol, entry, cell.style)
        picture = self._method[1](content, mask=cell.content.mask or None)
        row.seconds, row.cpu = time.perf_counter() - start, time.process_time() - cpu
        row.peak = peak()
        return picture

    def _stored(self, cell: Cell) -> Tensor:
        return _tensor(to_integers(Picture.open(self.folder / cell.file), bits=8)[..., :3])

    def _measured(self, name: str, made: Tensor, cell: Cell) -> tuple[float | None, str]:
        """A metric's number, or None and the reason."""
        try:
            if name not in self._metrics:
                self._metrics[name] = cast("Metric", METRICS[name].make(self._networks))
            content = self._picture(cell.content)[1]
            style = cell.style.text or self._picture(cell.style)[1]
            value = self._metrics[name](made, content, style)
        except AtelierError as error:
            return None, str(error)
        return (None, "not a number for this picture") if math.isnan(value) else (value, "")

    def _picture(self, given: Input) -> tuple[Picture, Tensor]:
        """A content or style as it is, and at the protocol's size with 8 bits, as results are measured."""
        if given.path not in self._pictures:
            whole = Picture.open(given.path)
            levels = to_integers(Picture(self._at_size(whole).pixels), bits=8)
            self._pictures[given.path] = (whole, _tensor(levels))
        self._pictures.move_to_end(given.path)
        while sum(one.pixels.nbytes for one, _ in self._pictures.values()) > KEPT and len(self._pictures) > 2:
            self._pictures.popitem(last=False)
        return self._pictures[given.path]

    def _at_size(self, picture: Picture) -> Picture:
        return picture.resized(fit(picture.shape, self.protocol.size))


def _tensor(levels: Any) -> Tensor:
    """A picture of 8 bits (H, W, 3) as (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1)))[None].float() / 255


def _sentence(error: Exception) -> str:
    known = isinstance(error, AtelierError)
    return first_line(error) if known else f"{type(error).__name__}: {first_line(error)}"
