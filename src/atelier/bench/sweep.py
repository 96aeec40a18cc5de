"""Sweeps: pictures from prompts over the values of one knob, and two metrics of all pictures of a value.

A sweep is a TOML file. Its pictures are kept under names that hold everything their pixels depend on, so that
a sweep that was stopped goes on where it was.
"""

from __future__ import annotations

import csv
import io
import tomllib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from atelier import images
from atelier.bench.names import slug
from atelier.bench.sets import Lazy, opened
from atelier.core.atomic import atomic
from atelier.core.errors import AtelierError, InputError, UsageError, did_you_mean, first_line
from atelier.core.knobs import files_of
from atelier.core.progress import Progress
from atelier.images import READABLE
from atelier.methods import registry
from atelier.metrics import Networks, measure
from atelier.metrics.catalogue import find as metric
from atelier.metrics.catalogue import missing
from atelier.metrics.frechet import SmallSetWarning
from atelier.session.stylizer import Stylizer
from atelier.store import weights

#: The sweeps that come with atelier.
SHIPPED = Path(__file__).parent / "sweeps"


class Sweep(BaseModel):
    """A knob and its values, and how the pictures are made and measured.

    `prompts` is a file with one prompt a line, `style` a folder of pictures; both are below the data folder,
    as are the files that `knobs` name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w-]+$")
    sentence: str = ""
    method: str
    quality: str = "good"
    knob: str
    values: tuple[float, ...] = Field(min_length=2)
    knobs: dict[str, Any] = {}
    prompts: str
    style: str
    images: int = Field(1, ge=1)
    size: int = Field(512, ge=16, le=8192)
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1)
    device: str = "auto"
    metrics: tuple[str, str]
    features: dict[str, str] = {}


@dataclass(frozen=True)
class Point:
    """The metrics of all pictures of one value, and what is to be said about them."""

    value: float
    numbers: tuple[float, float]
    count: int
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a run has measured; `points` is empty where it was stopped."""

    metrics: tuple[str, str]
    points: Sequence[Point]
    made: int
    before: int
    stopped: bool


# reading


def shipped() -> dict[str, Path]:
    """The sweeps that come with atelier, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def is_sweep(name: str) -> bool:
    """Whether a name or a TOML file is that of a sweep: only sweeps have a `knob`."""
    try:
        return name in shipped() or "knob" in tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False


def find(name: str) -> Path:
    """The file of a sweep: a path, or the name of one that comes with atelier. Raises UsageError."""
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return path
    known = shipped()
    if name not in known:
        raise UsageError(f"there is no sweep '{name}': {did_you_mean(name, known)}, or a .toml file")
    return known[name]


def read(path: Path) -> Sweep:
    """The sweep in a file. Raises InputError or UsageError with one sentence."""
    try:
        found = Sweep.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"the sweep '{path}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the sweep '{path}' is not TOML: {first_line(error)}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"the sweep '{path}' has a wrong entry '{place}': {first['msg'].lower()}") from None
    fields = registry.find(found.method).Knobs.model_fields
    if found.knob not in fields:
        raise UsageError(f"{found.method} has no knob '{found.knob}': {did_you_mean(found.knob, fields)}")
    for name in found.metrics:
        metric(name)
    return found


def prompts_of(sweep: Sweep, data: Path) -> list[str]:
    """The prompts. Raises InputError where there is no file, or none in it."""
    path = data / sweep.prompts
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompts '{path}' cannot be read: write one prompt a line into it") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"the prompts '{path}' are empty: write one prompt a line into it")
    return found


def pictures_of(sweep: Sweep, data: Path) -> list[Path]:
    """The pictures of the style. Raises InputError for fewer than two."""
    folder = data / sweep.style
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in inside if path.suffix.lower() in READABLE]
    if len(found) < 2:
        raise InputError(f"the folder '{folder}' must hold at least two pictures of the style")
    return found


def lacking(sweep: Sweep, data: Path) -> list[str]:
    """What the sweep needs and does not find, a sentence each: prompts, pictures, features, weights."""

    def ready() -> None:
        knobs = knobs_of(sweep, data)
        _painter(sweep, knobs, "a picture", sweep.values[0], 0).request(size=sweep.size)

    found = []
    for check in (lambda: prompts_of(sweep, data), lambda: pictures_of(sweep, data), ready):
        try:
            check()
        except AtelierError as error:
            found.append(str(error))
    for name in files_of(registry.find(sweep.method).Knobs):
        file = str(sweep.knobs.get(name, ""))
        if weights.is_path(file) and not (data / file).exists():
            found.append(f"there is no file '{file}' in '{data}' for {name}; --data names the folder")
    problems = missing(sweep.metrics, Networks(sweep.features))
    return [*found, *(f"the metric {name}: {reason}" for name, reason in problems.items())]


# running


def knobs_of(sweep: Sweep, data: Path) -> dict[str, Any]:
    """The knobs, with the paths of files that are in the data folder."""
    return sweep.knobs | {
        name: str(data / sweep.knobs[name])
        for name in files_of(registry.find(sweep.method).Knobs)
        if name in sweep.knobs and (data / str(sweep.knobs[name])).exists()
    }


def _painter(sweep: Sweep, knobs: dict[str, Any], prompt: str, value: float, number: int) -> Stylizer:
    """The method for the image of this number, with a value of the knob."""
    return Stylizer(
        text=prompt,
        method=sweep.method,
        quality=sweep.quality,
        seed=sweep.seed + number,
        device=sweep.device,
        threads=sweep.threads,
        **knobs | {sweep.knob: _like(value)},
    )


def run(sweep: Sweep, data: Path, folder: Path, progress: Progress | None = None) -> Outcome:
    """Make the pictures that are missing, measure all, and write sweep.csv and sweep.svg into the folder.

    Raises InputError for missing data, and UsageError for missing weights of the metrics, before any work.
    """
    progress = progress or Progress()
    prompts, style = prompts_of(sweep, data), pictures_of(sweep, data)
    networks = Networks(sweep.features)
    if problems := missing(sweep.metrics, networks):
        raise UsageError(next(iter(problems.values())))
    maker = _Maker(sweep, data, folder, prompts, progress)
    made = {value: maker.pictures(value) for value in sweep.values}
    if progress.stopped:
        return Outcome(sweep.metrics, (), maker.made, maker.before, stopped=True)
    paintings = [opened(path, sweep.size) for path in style]
    words = [prompt for prompt in prompts for _ in range(sweep.images)]
    points = [_point(sweep, value, paths, paintings, words, networks) for value, paths in made.items()]
    _write(sweep, points, folder)
    return Outcome(sweep.metrics, points, maker.made, maker.before, stopped=False)


class _Maker:
    """Makes pictures, and counts those that it made and those that were there before."""

    def __init__(
        self, sweep: Sweep, data: Path, folder: Path, prompts: Sequence[str], progress: Progress
    ) -> None:
        self.sweep, self.folder, self.prompts, self.progress = sweep, folder, prompts, progress
        self.knobs = knobs_of(sweep, data)
        self.made = self.before = 0
        #: The one before is kept until the next has painted, and with it the networks that both use.
        self._painter: Stylizer | None = None

    def pictures(self, value: float) -> list[Path]:
        """The pictures of a value: all images of the first prompt, then of the next."""
        return [
            self._picture(value, number, prompt, image)
            for number, prompt in enumerate(self.prompts)
            for image in range(self.sweep.images)
            if not self.progress.stopped
        ]

    def _picture(self, value: float, number: int, prompt: str, image: int) -> Path:
        sweep = self.sweep
        painter = _painter(sweep, self.knobs, prompt, value, number * sweep.images + image)
        key = painter.request(size=sweep.size).key[:16]
        path = self.folder / "pictures" / slug(f"{value:g}") / f"{number:04d}-{image}-{key}.png"
        if path.exists():
            self.before += 1
        else:
            picture = painter.generate(sweep.size)
            path.parent.mkdir(parents=True, exist_ok=True)
            images.write(picture, path)
            self.made += 1
        self._painter = painter
        total = len(sweep.values) * len(self.prompts) * sweep.images
        self.progress.report(self.made + self.before, total, stage=f"{sweep.knob} {value:g}")
        return path


def _like(value: float) -> float | int:
    """Whole numbers as such, for knobs that take no others."""
    return int(value) if value == int(value) else value


def _point(
    sweep: Sweep,
    value: float,
    paths: Sequence[Path],
    paintings: Sequence[Tensor],
    words: Sequence[str],
    networks: Networks,
) -> Point:
    results = Lazy(paths, opened)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SmallSetWarning)
        numbers = [
            measure(name, results, results, paintings if metric(name).of_sets else words, networks).value
            for name in sweep.metrics
        ]
    note = "; ".join(str(one.message) for one in said if one.category is SmallSetWarning)
    return Point(value, (numbers[0], numbers[1]), len(paths), note)


# what is written


def _write(sweep: Sweep, points: Sequence[Point], folder: Path) -> None:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow((sweep.knob, *sweep.metrics, "pictures", "note"))
    rows.writerows((f"{one.value:g}", *one.numbers, one.count, one.note) for one in points)
    for name, content in (("sweep.csv", text.getvalue()), ("sweep.svg", plot(sweep, points))):
        with atomic(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 440, 80, 30, 640, 370
_COLOURS = ("#1f5fa8", "#b4501e")


def plot(sweep: Sweep, points: Sequence[Point]) -> str:
    """An SVG of both metrics over the values, the first by the axis at the left, the second at the right."""
    values = [one.value for one in points]
    across = _Scale(min(values), max(values), _LEFT, _RIGHT)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="white"/>',
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_RIGHT - _LEFT}" height="{_BOTTOM - _TOP}" fill="none" '
        'stroke="#999"/>',
        _text((_LEFT + _RIGHT) / 2, _HEIGHT - 20, f"{sweep.knob} of {sweep.method}"),
    ]
    for value in across.ticks():
        parts += [_line(across(value), _BOTTOM, across(value), _BOTTOM + 5)]
        parts += [_text(across(value), _BOTTOM + 20, f"{value:g}")]
    for side in (0, 1):
        parts += _curve(sweep, points, across, side)
    return "\n".join([*parts, "</svg>", ""])


def _curve(sweep: Sweep, points: Sequence[Point], across: _Scale, side: int) -> list[str]:
    """One metric with its axis: at the left for side 0, at the right for side 1."""
    numbers = [one.numbers[side] for one in points]
    margin = 0.08 * (max(numbers) - min(numbers)) or 1.0
    up = _Scale(min(numbers) - margin, max(numbers) + margin, _BOTTOM, _TOP)
    edge, outward, colour = (_LEFT, -1, _COLOURS[0]) if side == 0 else (_RIGHT, 1, _COLOURS[1])
    parts = []
    for value in up.ticks():
        parts.append(_line(edge, up(value), edge + 5 * outward, up(value)))
        anchor = "end" if side == 0 else "start"
        parts.append(_text(edge + 9 * outward, up(value) + 4, f"{value:g}", colour, anchor))
    better = "higher is better" if metric(sweep.metrics[side]).better == "higher" else "lower is better"
    middle, place = (_TOP + _BOTTOM) / 2, edge + 62 * outward
    turned = f' transform="rotate(-90 {place} {middle})"'
    parts.append(_text(place, middle, f"{sweep.metrics[side]} ({better})", colour, more=turned))
    dots = [(across(one.value), up(one.numbers[side])) for one in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    dash = "" if side == 0 else ' stroke-dasharray="6 4"'
    parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
    return parts + [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in dots]


@dataclass(frozen=True)
class _Scale:
    """Numbers from `low` to `high` as places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers inside, at most eleven: steps of 1, 2 or 5 times a power of ten."""
        span = self.high - self.low
        power = 10.0 ** int(f"{span:e}".split("e")[1])
        step = next(one for one in (power / 10, power / 5, power / 2, power, 2 * power) if span / one <= 10)
        first = int(self.low / step) - 1
        found = [round(index * step, 10) for index in range(first, first + 14)]
        return [value for value in found if self.low <= value <= self.high]


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="#999"/>'


def _text(
    x: float, y: float, words: str, colour: str = "#333", anchor: str = "middle", more: str = ""
) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{more}>{words}</text>'
