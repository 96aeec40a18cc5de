"""Methods on the same pairs, measured by networks that the project did not train, and by blotches.

    pip install 'atelier[bench]'
    python benchmarks/rulers.py --data FOLDER --vgg16 FILE --methods identity style_copy adain nnst_d

FOLDER holds the pictures that benchmarks/pairs.txt names (or --pairs, one "photo painting" a line), and FILE
a VGG-16 of ImageNet. A method may be followed by a quality, as in nnst_d:best; `NAME=FOLDER` measures
pictures that another program made, PHOTO__PAINTING.png by stems. --out keeps the pictures.

gram      distance to the painting's Gram matrices at relu1_1 to relu4_1, over the photo's own: 1 is no style
same      cosine of a classifier's pooled features of photo and result: 1 is the photo
top5      share of the pairs whose photo's first class is among the result's first five
blotch    where the photo is flat: deviation of the result's soft colours that no map of the photo's tones
          explains, in percent of the range
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from measure import arguments, report, set_threads
from torch import Tensor

from atelier import api, images
from atelier.images import Picture
from atelier.images.resize import fit
from atelier.metrics import METRICS, Metric, Networks

#: Long side at which pictures are measured.
SIDE = 384
#: The metrics of the table, in the order of its columns.
RULERS = {"gram": "vgg_style", "same": "classifier_content", "top5": "classifier_top5", "blotch": "blotch"}


def small(picture: Picture) -> Picture:
    return picture.resized(fit(picture.shape, SIDE))


def pictures(
    pairs: Sequence[tuple[Path, Path]], kind: str, size: int, out: Path | None
) -> Iterator[tuple[Picture, float]]:
    """Each pair's picture and seconds: by `NAME` or `NAME:QUALITY` of a method, or from `NAME=FOLDER`."""
    name, _, folder = kind.partition("=")
    method, _, quality = name.partition(":")
    for photo, painting in pairs:
        file = f"{photo.stem}__{painting.stem}.png"
        start = time.perf_counter()
        if folder:
            made = Picture.of(Path(folder) / file)
        else:
            made = api.stylize(photo, painting, method=method, quality=quality or "good", size=size)
        yield made, time.perf_counter() - start
        if out is not None and not folder:
            (out / name.replace(":", "-")).mkdir(parents=True, exist_ok=True)
            images.write(made, out / name.replace(":", "-") / file, overwrite=True)


def measured(
    pairs: Sequence[tuple[Tensor, Tensor]], made: Iterator[tuple[Picture, float]], metrics: Sequence[Metric]
) -> list[float]:
    """The means over the pairs, in the order of the table's columns."""
    rows = []
    for (photo, painting), (picture, seconds) in zip(pairs, made, strict=True):
        result = small(picture).tensor()
        rows.append((*(metric(result, photo, painting) for metric in metrics), seconds))
    return [float(one) for one in np.nanmean(np.array(rows), 0)]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the pictures of the pairs")
    parser.add_argument("--vgg16", type=Path, required=True, help="weights of VGG-16 (torchvision's names)")
    parser.add_argument("--pairs", type=Path, default=Path(__file__).with_name("pairs.txt"))
    parser.add_argument("--every", type=int, default=1, help="take only each Nth pair of the file")
    parser.add_argument("--methods", nargs="+", default=["identity", "style_copy", "adain", "nnst_d"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    set_threads(options)
    lines = [line.split() for line in options.pairs.read_text().splitlines() if line and line[0] != "#"]
    pairs = [(options.data / photo, options.data / painting) for photo, painting in lines[:: options.every]]
    networks = Networks({"vgg16.imagenet": options.vgg16})
    metrics = [cast(Metric, METRICS[name].make(networks)) for name in RULERS.values()]
    small_pairs = [(small(Picture.of(a)).tensor(), small(Picture.of(b)).tensor()) for a, b in pairs]
    paint = partial(pictures, pairs, size=options.size, out=options.out)
    rows = [(kind, *measured(small_pairs, paint(kind), metrics)) for kind in options.methods]
    head = ("method", *RULERS, "seconds")
    return report(f"{len(pairs)} pairs, {options.size} px", head, rows, [], as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
