"""Two methods on the same pairs, for a judge who does not know which is which.

    python benchmarks/rulers.py --data FOLDER --vgg16 FILE --methods nnst_d adain:draft --out made
    python benchmarks/blind.py sheets --data FOLDER --made made/nnst_d made/adain-draft --out sheets
    python benchmarks/blind.py count sheets.json answers.txt

`sheets` writes one picture a pair: the photo and the painting above, the results A and B below. The order of
the pairs and of A and B is drawn from --seed, and what they are is written to OUT.json, beside the folder. A
line of the answers is the number of a sheet and, for each question asked, A, B or =:

    1 A B B

`count` tells, for each question in turn, how often either was chosen.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from atelier import images
from atelier.images import Picture
from atelier.images.resize import fit

#: Longest side of a picture on a sheet, and the gap between two.
SIDE, GAP = 620, 20


def sheet(four: Sequence[Picture]) -> Picture:
    """Four pictures in two rows on white."""
    small = [one.resized(fit(one.shape, SIDE)).pixels for one in four]
    heights = [max(one.shape[0] for one in row) for row in (small[:2], small[2:])]
    canvas = np.ones((sum(heights) + GAP, 2 * SIDE + GAP, 3), np.float32)
    for index, one in enumerate(small):
        top, left = (index // 2) * (heights[0] + GAP), (index % 2) * (SIDE + GAP)
        canvas[top : top + one.shape[0], left : left + one.shape[1]] = one
    return Picture(canvas)


def counted(key: Mapping[str, Sequence[str]], answers: Sequence[str]) -> dict[int, Counter[str]]:
    """For each question, from 1, how often each name, or '=', was the answer."""
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for line in answers:
        number, *said = line.split()
        for question, answer in enumerate(said, 1):
            found[question][answer if answer == "=" else key[number]["AB".index(answer)]] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sheets = commands.add_parser("sheets")
    sheets.add_argument("--data", type=Path, required=True, help="folder with the pictures of the pairs")
    sheets.add_argument("--pairs", type=Path, default=Path(__file__).with_name("pairs_held_out.txt"))
    sheets.add_argument("--made", type=Path, nargs=2, required=True, help="folders of PHOTO__PAINTING.png")
    sheets.add_argument("--out", type=Path, required=True)
    sheets.add_argument("--seed", type=int, default=0)
    count = commands.add_parser("count")
    count.add_argument("key", type=Path)
    count.add_argument("answers", type=Path)
    options = parser.parse_args()
    if options.command == "count":
        key = json.loads(options.key.read_text())
        answers = [line for line in options.answers.read_text().splitlines() if line]
        for question, found in counted(key, answers).items():
            print(
                f"question {question}:", ", ".join(f"{name} {times}" for name, times in found.most_common())
            )
        return 0
    drawn, key = random.Random(options.seed), {}
    lines = [line.split() for line in options.pairs.read_text().splitlines() if line and line[0] != "#"]
    drawn.shuffle(lines)
    options.out.mkdir(parents=True)
    for number, (photo, painting) in enumerate(lines, 1):
        both = drawn.sample(options.made, 2)
        file = f"{Path(photo).stem}__{Path(painting).stem}.png"
        four = [options.data / photo, options.data / painting, *(folder / file for folder in both)]
        images.write(sheet([Picture.of(one) for one in four]), options.out / f"{number:02d}.png")
        key[str(number)] = [folder.name for folder in both]
    options.out.with_suffix(".json").write_text(json.dumps(key, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
