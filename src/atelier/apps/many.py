"""Many photos in one run: folders and patterns, a picture for each, and a list of what failed."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core.errors import AtelierError, InputError, OutputError, ResourceError, UsageError
from atelier.images import MAX_PIXELS, READABLE, WRITABLE, Picture, check_writable, read_recipe, write

if TYPE_CHECKING:
    from atelier.apps.show import Watch
    from atelier.core.progress import Event
    from atelier.session.stylizer import Stylizer

#: Formats of the results.
FORMATS = ("png", "jpg", "tif", "webp")
#: What of a receipt must agree with the run for a finished picture to be kept.
_SETTINGS = ("method", "knobs", "controls", "styles", "texts", "trained", "weights")
#: Controls that differ between pictures or machines without meaning another picture.
_IDLE = {"size", "device", "threads"}
_UNITS = 100


def is_many(photos: Sequence[Path], *, each: bool) -> bool:
    """Whether a line asks for many pictures: several photos, a folder, a pattern, or `each` style alone."""
    return each or len(photos) > 1 or photos[0].is_dir() or _is_pattern(photos[0])


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) and not path.exists()


# photos and their results


def photos_of(given: Sequence[Path], outside: Path) -> list[tuple[Path, Path]]:
    """Each photo, and its result's path in the output folder without extension, in the order of names.

    Folders are searched with their subfolders, except the output folder `outside`; hidden files are left
    out. Photos of one folder that differ only in their extension keep it: a-jpg, a-png. Raises InputError if
    there are none.
    """
    found: dict[Path, Path] = {}
    for path in given:
        for photo, below in _below(path):
            if outside.resolve() not in photo.resolve().parents:
                found.setdefault(photo, below)
    if not found:
        raise InputError(f"there is no picture in {', '.join(map(repr, map(str, given)))}")
    names = Counter(below.with_suffix("") for below in found.values())
    return [
        (photo, plain if names[plain := below.with_suffix("")] == 1 else _with_kind(below))
        for photo, below in found.items()
    ]


def _with_kind(below: Path) -> Path:
    return below.with_name(f"{below.stem}-{below.suffix[1:]}")


def _below(path: Path) -> Iterator[tuple[Path, Path]]:
    """The photos that a word of the line means, and their paths below the folder that it names."""
    if path.is_dir():
        for photo in sorted(path.rglob("*")):
            below = photo.relative_to(path)
            hidden = any(part.startswith(".") for part in below.parts)
            if photo.suffix.lower() in READABLE and photo.is_file() and not hidden:
                yield photo, below
    elif _is_pattern(path):
        for photo in sorted(map(Path, glob.glob(str(path), recursive=True))):  # noqa: PTH207
            if photo.suffix.lower() in READABLE and photo.is_file():
                yield photo, Path(photo.name)
    else:
        yield path, Path(path.name)


# the run


@dataclass
class Report:
    """What became of the photos: numbers, and the sentence of each that failed."""

    folder: Path
    total: int
    written: int = 0
    kept: int = 0
    failed: dict[str, AtelierError] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """That of the first failure; 0 without one."""
        return next((error.exit_code for error in self.failed.values()), 0)


@dataclass(frozen=True)
class Job:
    """One picture to make."""

    photo: Path
    target: Path


class Run:
    """Paints photos one after another with one stylizer; the next is read while one is painted.

    `options` are those of `images.write`.
    """

    def __init__(
        self, make: partial[Stylizer], report: Report, watch: Watch, options: dict[str, Any], **inputs: Any
    ) -> None:
        self.stylizer, self.report, self.watch = make(), report, watch
        self.options, self.inputs = options, inputs
        self.settings = _settings(self.stylizer)

    def paint(self, jobs: Sequence[Job], done: int) -> None:
        """Make the pictures of these jobs; `done` others of the report were before them."""
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            following = reader.submit(self._read, jobs[0]) if jobs else None
            written: list[tuple[Job, Future[None]]] = []
            for place, job in enumerate(jobs):
                assert following is not None
                photo = following
                following = reader.submit(self._read, jobs[place + 1]) if place + 1 < len(jobs) else None
                with self._failing(job):
                    if (content := photo.result()) is not None:
                        picture = self._painted(content, done + place)
                        if self.watch.interrupted:
                            self.report.interrupted = True
                            break
                        written.append((job, writer.submit(self._write, picture, job)))
                self._collect(written, wait=len(written) > 1)
            self._collect(written, wait=True)

    def _read(self, job: Job) -> Picture | None:
        """The photo; None if its picture is there already."""
        overwrite = self.options["overwrite"]
        if not overwrite and job.target.exists():
            self._check_same(job.target)
            self.report.kept += 1
            return None
        job.target.parent.mkdir(parents=True, exist_ok=True)
        check_writable(job.target, overwrite=overwrite, bits=self.options["bits"])
        most = self.stylizer.setup.controls.max_pixels or MAX_PIXELS
        return Picture.open(job.photo, max_pixels=most)

    def _check_same(self, target: Path) -> None:
        recipe = read_recipe(target)
        if recipe is not None and _comparable(recipe) != self.settings:
            raise OutputError(
                f"'{target}' exists, and was made with other settings: give --overwrite, or another folder"
            )

    def _painted(self, content: Picture, place: int) -> Picture:
        total = self.report.total * _UNITS

        def listen(event: Event) -> bool:
            share = event.done / max(event.total, 1)
            stage = f"{place + 1} of {self.report.total}"
            step = replace(event, done=round((place + share) * _UNITS), total=total, stage=stage, losses={})
            return self.watch(step)

        return self.stylizer(content, progress=listen, **self.inputs)

    def _write(self, picture: Picture, job: Job) -> None:
        write(picture, job.target, **self.options)

    def _collect(self, written: list[tuple[Job, Future[None]]], *, wait: bool) -> None:
        """Count the pictures that are written; the newest may go on unless `wait`."""
        while written and (wait or written[0][1].done()):
            job, future = written.pop(0)
            with self._failing(job):
                future.result()
                self.report.written += 1

    def _failing(self, job: Job) -> _Failing:
        return _Failing(self.report, str(job.photo))


class _Failing:
    """A block whose errors of one photo are noted, so that the others go on."""

    def __init__(self, report: Report, name: str) -> None:
        self.report, self.name = report, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
            error = ResourceError(f"there is not enough memory for '{self.name}': use a smaller size")
        if not isinstance(error, AtelierError) or isinstance(error, UsageError):
            return False
        self.report.failed[self.name] = error
        return True


def _settings(stylizer: Stylizer) -> dict[str, Any]:
    import numpy as np

    request = stylizer.request(Picture(np.zeros((8, 8, 3), np.float32), sha256="-"))
    return _comparable(request.model_dump(mode="json", by_alias=True))


def _comparable(recipe: dict[str, Any]) -> dict[str, Any]:
    found = {name: recipe.get(name) for name in _SETTINGS}
    controls = dict(found["controls"] or {})
    return {**found, "controls": {name: value for name, value in controls.items() if name not in _IDLE}}


def folder_name(photo: Path, style: str) -> Path:
    """The default output folder: named after the photos' folder and the style."""
    return Path(f"{photo.name if photo.is_dir() else 'photos'}-{style}")


def style_names(styles: Sequence[str]) -> list[str]:
    """A folder name for each style; those of the same name are numbered. Raises UsageError without styles."""
    if not styles:
        raise UsageError("--each needs styles: give --style PAINTING, several times")
    stems = [Path(style).stem for style in styles]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{stems[: place + 1].count(stem)}"
        for place, stem in enumerate(stems)
    ]


def run(
    photos: Sequence[Path],
    folder: Path,
    stylizers: Sequence[tuple[str, partial[Stylizer]]],
    watch: Watch,
    *,
    kind: str,
    options: dict[str, Any],
    runs: Callable[..., Run] = Run,
    **inputs: Any,
) -> Report:
    """Paint all photos by each of the stylizers, each into its subfolder where that has a name.

    `runs` is what paints them, in this process by default.
    """
    if kind not in FORMATS:
        raise UsageError(f"file_format = '{kind}' is not a format: allowed: {', '.join(FORMATS)}")
    if not folder.is_dir() and (folder.exists() or folder.suffix.lower() in WRITABLE):
        raise UsageError(f"'{folder}' is a file: several pictures need a folder")
    pairs = photos_of(photos, folder)
    report = Report(folder, len(pairs) * len(stylizers))
    for number, (name, make) in enumerate(stylizers):
        place = folder / name
        jobs = [Job(photo, place / below.with_name(f"{below.name}.{kind}")) for photo, below in pairs]
        runs(make, report, watch, options, **inputs).paint(jobs, number * len(pairs))
        if report.interrupted:
            break
    return report


def tell(report: Report, seconds: float, *, as_json: bool) -> None:
    """Say what was written, and what failed with its reason."""
    from atelier.apps.failures import one_line
    from atelier.apps.show import emit, say

    if as_json:
        failed = {name: str(error) for name, error in report.failed.items()}
        numbers = {"total": report.total, "written": report.written, "kept": report.kept}
        facts = {"output": str(report.folder), **numbers, "seconds": seconds, "failed": failed}
        emit({**facts, "interrupted": report.interrupted})
        return
    kept = f", {report.kept} already there" if report.kept else ""
    lost = f", {len(report.failed)} failed" if report.failed else ""
    say(f"{report.folder}  {report.written} of {report.total} pictures{kept}{lost}  {seconds:.1f} s")
    for error in report.failed.values():
        say(f"failed: {one_line(str(error))}")
    if report.interrupted:
        say("stopped: the same command goes on with the rest")
