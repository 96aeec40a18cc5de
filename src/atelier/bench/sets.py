"""Metrics of sets, such as FID: one number for all pictures of a method."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast, overload

from torch import Tensor

from atelier.bench.plan import Cell, Plan
from atelier.bench.table import Table
from atelier.core.errors import AtelierError
from atelier.images import Picture
from atelier.images.resize import fit
from atelier.metrics import METRICS, Networks, SetMetric, Style
from atelier.metrics.frechet import SmallSetWarning


def measure_sets(plan: Plan, table: Table, folder: Path) -> None:
    """Measure each method's pictures, unless the same pictures have been measured before."""
    names = [name for name in plan.protocol.metrics if METRICS[name].of_sets]
    if not names:
        return
    networks, done = Networks(plan.protocol.features), table.done()
    known = {(r["method"], r["metric"]): r["digest"] for r in table.rows("SELECT * FROM sets")}
    made = {name: cast("SetMetric", METRICS[name].make(networks)) for name in names}
    styles = _styles(plan)
    for method in plan.entries:
        cells = [c for c in plan.cells if c.method == method and done.get(c.key, ("",))[0] == "done"]
        digest = hashlib.sha256("".join(cell.key for cell in cells).encode()).hexdigest()
        for name in names:
            if known.get((method, name)) != digest:
                value, reason = _measured(made[name], cells, styles, plan, folder)
                table.keep_set((method, name, value, len(cells), reason, digest))


def _measured(
    metric: SetMetric, cells: Sequence[Cell], styles: dict[str, Style], plan: Plan, folder: Path
) -> tuple[float | None, str]:
    """The number, or None, and a reason or a warning."""
    results = Lazy([folder / cell.file for cell in cells], opened)
    size = plan.protocol.size
    contents = Lazy([Path(cell.content.path) for cell in cells], lambda path: opened(path, size))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SmallSetWarning)
        try:
            value = metric(results, contents, [styles[cell.style.name] for cell in cells])
        except AtelierError as error:
            return None, str(error)
    return value, "; ".join(str(one.message) for one in said if one.category is SmallSetWarning)


def _styles(plan: Plan) -> dict[str, Style]:
    """The styles by name; a style is one object, by which a metric knows that it is the same."""
    return {one.name: one.text or opened(Path(one.path), plan.protocol.size) for one in plan.styles}


def opened(path: Path, size: int | None = None) -> Tensor:
    """A picture (1, 3, H, W), whose long side is `size` if that is given."""
    picture = Picture.open(path)
    return (picture if size is None else picture.resized(fit(picture.shape, size))).tensor()


class Lazy(Sequence[Tensor]):
    """Pictures that are read when they are looked at: thousands would not fit into memory."""

    def __init__(self, paths: Sequence[Path], read: Callable[[Path], Tensor]) -> None:
        self._paths, self._read = paths, read

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, place: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(place, slice):
            return Lazy(self._paths[place], self._read)
        return self._read(self._paths[place])
