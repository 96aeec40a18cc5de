"""The classical methods at 1024 px: seconds of each look and manner, peak of memory; a sheet to look at.

    python benchmarks/classical_time.py [--size 1024] [--methods filters strokes quilting ...]
    python benchmarks/classical_time.py --photos a.jpg b.jpg --style painting.jpg --size 512 --sheet sheet.png

Each work runs once before it is timed, so that what numba compiles is compiled.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from measure import GIB, RSS_UNIT, Promise, arguments, report, set_threads
from pairs import sheet

from atelier import api, examples
from atelier.images import Picture, write
from atelier.methods import registry

#: The most seconds at 1024 px on two cores, by method.
SECONDS = {"filters": 2.0, "strokes": 6.0, "quilting": 20.0, "analogies": 30.0, "elad_milanfar": 90.0}
#: Efros and Leung's growing: from a sample of 64 px to 128 px.
GROWING = 15.0
MEMORY = 2.0
#: Whose words are each a work of their own, by method.
KINDS = {"filters": "look", "strokes": "manner"}


def works(methods: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, method and knobs of everything that is timed."""
    for method in methods:
        if method not in KINDS:
            yield method, method, {}
            continue
        field = registry.find(method).Knobs.model_fields[KINDS[method]]
        for word in get_args(field.annotation):
            yield f"{method} {word}", method, {KINDS[method]: word}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=1024, help="long side in pixels")
    parser.add_argument("--methods", nargs="+", default=list(SECONDS), choices=list(SECONDS))
    parser.add_argument("--photos", type=Path, nargs="+", help="photos instead of the bundled one")
    parser.add_argument("--style", type=Path, help="a painting instead of a drawn style")
    parser.add_argument("--sheet", type=Path, help="a picture to look at: the photos, then each work")
    options = parser.parse_args()
    set_threads(options)
    photos = [Picture.of(path) for path in options.photos or [examples.photo("astronaut")]]
    style = Picture.of(options.style or examples.style("stained_glass", size=options.size))
    columns, rows, promises = [photos], [], []
    for name, method, knobs in works(options.methods):
        made, seconds = [], []
        for photo in [photos[0], *photos]:
            start = time.perf_counter()
            made.append(api.stylize(photo, style, method=method, size=options.size, **knobs))
            seconds.append(time.perf_counter() - start)
        columns.append(made[1:])
        rows.append((name, min(seconds[1:]), max(seconds[1:])))
        promises.append(Promise(f"seconds of {name}", min(seconds[1:]), SECONDS[method]))
    sample = Picture.of(examples.style("stained_glass", size=64))
    start = time.perf_counter()
    api.stylize(Picture.of(examples.photo("astronaut")), sample, method="efros_leung", size=128, grown=128)
    rows.append(("efros_leung to 128 px", time.perf_counter() - start, time.perf_counter() - start))
    promises.append(Promise("seconds of efros_leung to 128 px", rows[-1][1], GROWING))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / GIB
    promises.append(Promise("GiB of them all", memory, MEMORY))
    if options.sheet:
        write(sheet(columns), options.sheet, overwrite=True)
    head = ("work", "least s", "most s")
    return report(f"classical methods at {options.size} px", head, rows, promises, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
