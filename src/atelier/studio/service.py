"""`Studio`: everything that the page and the HTTP interface do, without either.

    studio = Studio(Path("studio"))
    photo = studio.pictures.add(data, "harbour.jpg")             # an id; send the bytes of the file once
    job = studio.paint(Inputs(content=photo, styles=["style:woodcut"]), Settings(quality="good"))
    job.wait()
    studio.gallery.file(job.made[0].id, "png")

Work that depends on the style alone is done once and kept (`Limits.prepared` styles), so that a draft of
another photo or at another strength takes a fraction of a second.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from atelier.core import recipe as recipes
from atelier.core.errors import AtelierError, OutputError, UsageError
from atelier.core.progress import Listener
from atelier.studio.ahead import Ahead
from atelier.studio.gallery import Gallery
from atelier.studio.jobs import Job, Made, Queue, as_error
from atelier.studio.limits import Limits, WeightsFolder, display_name, own_folder
from atelier.studio.pictures import Pictures, Source
from atelier.studio.presets import Presets
from atelier.studio.requests import Inputs, Order, Settings, order
from atelier.studio.training import Trainings

if TYPE_CHECKING:
    from atelier.images import Picture
    from atelier.session.stylizer import Stylizer

#: Long side of a preview in pixels.
PREVIEW = 512


class Studio:
    """A warm server in a folder of its own: pictures, jobs, gallery, trainings.

    Only `folder` is ever read or written, and `weights`, whose safetensors files requests may name. Methods
    raise AtelierError (one sentence) for a bad request before anything is queued; what goes wrong later is
    the job's `error`. All methods may be called from any thread.
    """

    def __init__(
        self, folder: str | Path, *, weights: str | Path | None = None, limits: Limits | None = None
    ) -> None:
        self.weights = WeightsFolder(None if weights is None else Path(weights).absolute(), self._networks)
        self.folder = own_folder(Path(folder).absolute())
        self._lock = _locked(self.folder)
        self.limits = limits or Limits()
        shutil.rmtree(self.folder / "zips", ignore_errors=True)  # those of an earlier run
        self.gallery = Gallery(own_folder(self.folder / "gallery"))
        self.pictures = Pictures(self.folder, self.limits, self._result)
        self.queue = Queue(self.limits)
        self.presets = Presets(own_folder(self.folder / "presets"))
        self.networks = own_folder(self.folder / "networks")
        self.trainings = Trainings(self.folder, self.pictures, self.weights)
        self._prepared = Prepared(self.limits.prepared)
        self._ahead = Ahead(self.pictures)

    # work

    def paint(
        self, inputs: Inputs, settings: Settings, *, keep: bool = True, preview: bool = False, group: str = ""
    ) -> Job:
        """Paint one picture, in the queue.

        The result is `job.made[0]`: with `keep` the id of a picture in the gallery, else its `picture`.
        `preview=True` is for live previews: the photo is shrunk to 512 px, nothing is kept, and the job runs
        at once beside the queue. `group` is any word for one page: a new job replaces unfinished ones of its
        group. Methods that need no photo paint without `content`; "harmonise" takes the composite as
        content, the object's mask, and optionally the background as style.
        """
        if preview:
            side = min(PREVIEW, self.limits.side)
            keep, inputs, settings = False, self._small(inputs, side), _small(settings, inputs, side)
        asked = self._order(inputs, settings, keep)
        job = Job("paint", asked.title, lambda job: self._paint_one(job, asked, keep), group=group)
        return self.queue.put(job, light=preview)

    def folder_of(self, contents: Sequence[Source], inputs: Inputs, settings: Settings) -> Job:
        """Paint many photos by one setting; `inputs` has everything but the content.

        `job.made` has a row for each photo, in order: its `label` (the file's name), and its `id` in the
        gallery or its `error`. Use `Upload(name, data)` or ids as `contents`. `zip` packs the results.
        """
        self.limits.check_count(len(contents), "photos")
        if not contents:
            raise UsageError("no photos were sent: send at least one")
        rows = [self._row(source) for source in contents]
        self._check_folder(inputs, settings, [id for _, id, _ in rows if id])
        shared = inputs.kept(self.pictures)
        title = f"{len(rows)} photos · {settings.method or settings.quality}"
        return self.queue.put(Job("folder", title, lambda job: self._paint_many(job, rows, shared, settings)))

    def compare(self, inputs: Inputs, variants: Sequence[Settings]) -> Job:
        """Paint the same inputs by several settings; `job.made` has a cell for each, in order.

        Each cell has its label (method, quality and what differs), gallery id or error, seconds, and the most
        memory in MiB that the server used meanwhile.
        """
        self.limits.check_count(len(variants), "settings")
        if not variants:
            raise UsageError("nothing to compare: send at least one setting")
        kept = inputs.kept(self.pictures)
        if kept.content is not None:
            self.pictures.open(kept.content)
        labels = labels_of(variants)
        title = f"{len(variants)} settings compared"
        return self.queue.put(Job("compare", title, lambda job: self._compare(job, kept, variants, labels)))

    def train(self, method: str, settings: dict[str, Any], *, name: str = "") -> Any:
        """Start a training in a process of its own; see `training.Trainings.start`."""
        return self.trainings.start(method, settings, name=name)

    # what is there

    @property
    def jobs(self) -> list[Any]:
        """All jobs and trainings, newest first."""
        return sorted([*self.queue.all(), *self.trainings.all()], key=lambda one: one.created, reverse=True)

    def job(self, id: str) -> Any:
        """The job or training with this id. Raises NotHereError."""
        return self.trainings.find(id) or self.queue.get(id)

    def cancel(self, id: str) -> None:
        """Stop a job and keep the best so far, or end a training. Raises NotHereError."""
        self.job(id).cancel()

    def request_of(self, id: str) -> tuple[Inputs, Settings]:
        """The request that made a picture of the gallery, for "open in Paint". Raises NotHereError."""
        entry = self.gallery.get(id)
        return Inputs.of(entry.inputs), Settings(**entry.settings)

    def request_in(self, data: bytes, name: str = "picture") -> tuple[Inputs, Settings, list[str]]:
        """The request in the receipt of a dropped picture, and the names of inputs that are not here.

        Inputs are found by their hashes among everything that was sent or kept. Raises InputError for a
        picture without a receipt.
        """
        from atelier.images.decode import decode_recipe

        shown = display_name(name)
        self.limits.check_bytes(len(data), shown)
        return _request(recipes.parse(decode_recipe(data, shown), f"'{shown}'"), self.pictures)

    def zip(self, job: Job, *, format: str = "png") -> Path:
        """The results of a job as a zip file in the studio's folder, with `errors.txt` where some failed."""
        from atelier.studio.packing import pack

        return pack(job, self.gallery, own_folder(self.folder / "zips") / f"{job.id}.zip", format)

    def warm(self, after: float = 0.0) -> None:
        """Load torch and the draft's networks, then draw the shelf's styles, in the background.

        So the first preview is quick, in any style. `after` seconds leave the processor to the first answer.
        """
        timer = threading.Timer(after, self._warm)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Stop all jobs. Trainings go on, and are found again by the next studio in this folder."""
        self.queue.close()
        self._ahead.close()
        self.trainings.close()
        self._lock.release()

    # how

    def _order(self, inputs: Inputs, settings: Settings, keep: bool) -> Order:
        kept = inputs.kept(self.pictures) if keep else inputs
        return order(kept, settings, self.pictures, self.weights, self.limits)

    def _small(self, inputs: Inputs, side: int) -> Inputs:
        """The inputs for a preview: a small photo."""
        if inputs.content is None:
            return inputs
        return replace(inputs, content=self.pictures.open(inputs.content, side=side))

    def _paint_one(self, job: Job, asked: Order, keep: bool) -> None:
        job.add(self._made(job, asked, asked.label, job.listener(), keep))

    def _made(self, job: Job, asked: Order, label: str, progress: Listener, keep: bool) -> Made:
        """Paint an order, and put the picture into the gallery."""
        started = time.monotonic()
        picture, extensions = self._painted(asked, progress)
        seconds = round(time.monotonic() - started, 3)
        if not keep:
            return Made(label, seconds=seconds, size=picture.size, picture=picture)
        entry = self.gallery.add(
            picture,
            title=asked.title,
            method=asked.kind.name,
            quality=asked.settings.quality,
            seconds=seconds,
            stopped=job.asked_to_stop,
            inputs=asked.inputs.facts(),
            settings=asked.settings.facts(),
            artifacts=extensions,
        )
        return Made(label, id=entry.id, seconds=seconds, size=picture.size)

    def _painted(self, asked: Order, progress: Listener | None) -> tuple[Picture, dict[str, str]]:
        from atelier.session.artifacts import extension

        with self._prepared.borrowed(asked, lambda: asked.stylizer(self.pictures)) as stylizer:
            mine, open_ = asked.inputs, self.pictures.open
            if mine.content is None:
                picture = stylizer.generate(asked.size, progress=progress)
            else:
                picture = stylizer(
                    open_(mine.content),
                    mask=None if mine.mask is None else open_(mine.mask, data=True),
                    regions=[open_(region, data=True) for region in mine.regions],
                    progress=progress,
                )
            knobs = stylizer.setup.knobs
            return picture, {name: extension(str(getattr(knobs, name))) for name in picture.artifacts}

    def _networks(self) -> dict[str, Path]:
        """The networks that were made here, by the names that requests use."""
        merged = {path.name: path for path in sorted(self.networks.iterdir()) if path.name[0] != "."}
        return {**merged, **self.trainings.networks()}

    def _result(self, id: str) -> bytes:
        return self.gallery.file(id, "tif")

    def _row(self, source: Source) -> tuple[str, str, str]:
        """(label, id, error) of a photo of a folder."""
        label = self.pictures.name(source) if isinstance(source, str) else getattr(source, "name", "picture")
        try:
            return display_name(label), self.pictures.id_of(source), ""
        except AtelierError as error:
            return display_name(label), "", str(as_error(error))

    def _check_folder(self, inputs: Inputs, settings: Settings, ids: Sequence[str]) -> None:
        """Check the setting with the first photo that can be read, so that a wrong knob is told at once."""
        for id in ids:
            with contextlib.suppress(AtelierError):
                self.pictures.open(id)
                break
        else:
            return
        self._order(replace(inputs, content=id), settings, keep=True)

    def _paint_many(
        self, job: Job, rows: Sequence[tuple[str, str, str]], inputs: Inputs, settings: Settings
    ) -> None:
        for number, (label, id, error) in enumerate(rows):
            if job.asked_to_stop:
                break
            progress = job.listener(number, len(rows), label)
            if error:
                job.add(Made(label, error=error))
                continue
            job.add(self._tried(job, replace(inputs, content=id), settings, label, progress))

    def _tried(self, job: Job, inputs: Inputs, settings: Settings, label: str, progress: Listener) -> Made:
        try:
            return self._made(job, self._order(inputs, settings, keep=True), label, progress, keep=True)
        except (AtelierError, MemoryError, RuntimeError) as error:
            return Made(label, error=str(as_error(error)))

    def _compare(self, job: Job, inputs: Inputs, variants: Sequence[Settings], labels: Sequence[str]) -> None:
        from atelier.bench import memory

        for number, (settings, label) in enumerate(zip(variants, labels, strict=True)):
            if job.asked_to_stop:
                break
            counted = memory.reset_peak()
            made = self._tried(job, inputs, settings, label, job.listener(number, len(variants), label))
            made.memory = round(memory.peak(), 1) if counted else None
            job.add(made)

    def _warm(self) -> None:
        """A draft of a tiny picture (imports, networks, the first allocation), and then the shelf."""
        import numpy as np

        grey = np.full((64, 64, 3), 0.5, np.float32)
        with contextlib.suppress(AtelierError):  # weights that are missing are told when they are needed
            self._painted(self._order(Inputs(grey, [grey]), Settings(quality="draft"), keep=False), None)
        self._ahead.start()


def _locked(folder: Path) -> FileLock:
    """The lock of a folder: two studios would not see what the other does. Raises OutputError."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(
            f"another studio uses the folder '{folder}': end it, or choose another --folder"
        ) from None
    return lock


class Prepared:
    """The stylizers that were used last, by what they depend on. One is used by one job at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: OrderedDict[tuple[Any, ...], Stylizer] = OrderedDict()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def borrowed(self, asked: Order, make: Callable[[], Stylizer]) -> Iterator[Stylizer]:
        """The stylizer for an order; it is kept again when the work went well."""
        key = asked.key()
        with self._lock:
            found = None if key is None else self._kept.pop(key, None)
        stylizer = asked.adjusted(found or make())
        yield stylizer
        if key is not None:
            with self._lock:
                self._kept[key] = stylizer
                while len(self._kept) > self.size:
                    self._kept.popitem(last=False)


def labels_of(variants: Sequence[Settings]) -> list[str]:
    """A label for each setting: the method and quality, and the values in which they differ.

    >>> labels_of([Settings("adain", values={"strength": 0.5}), Settings("adain", values={"strength": 1})])
    ['adain good, strength 0.5', 'adain good, strength 1']
    """
    names = dict.fromkeys(name for one in variants for name in one.values)
    differ = [n for n in names if len({repr(one.values.get(n)) for one in variants}) > 1]
    return [
        ", ".join(
            [
                f"{one.method} {one.quality}" if one.method else one.quality,
                *(f"{name} {one.values[name]}" for name in differ if name in one.values),
            ]
        )
        for one in variants
    ]


def _small(settings: Settings, inputs: Inputs, most: int) -> Settings:
    """The settings for a preview: at most `most` pixels."""
    size = settings.values.get("size")
    if isinstance(size, int) and size <= most:
        return settings
    if isinstance(size, list | tuple) and inputs.content is None and all(isinstance(n, int) for n in size):
        scale = min(1.0, most / max(1, *size))
        return settings.with_values(size=[max(1, round(side * scale)) for side in size])
    return settings.with_values(size=most)


def _request(recipe: recipes.Recipe, pictures: Pictures) -> tuple[Inputs, Settings, list[str]]:
    missing: list[str] = []

    def found(source: recipes.Source | None) -> str | None:
        if source is None:
            return None
        id = pictures.by_hash(source.sha256)
        if id is None:
            missing.append(source.name or "an input that was not a file")
        return id

    values = {**recipe.controls, **recipe.knobs}
    for name in ("device", "threads", "max_pixels", "receipt", *recipe.files):
        values.pop(name, None)
    inputs = Inputs(
        content=found(recipe.content),
        styles=tuple(id for id in map(found, recipe.styles) if id),
        texts=tuple(text.text for text in recipe.texts),
        trained=recipe.trained,
        mask=found(recipe.mask),
        regions=tuple(id for id in map(found, recipe.regions) if id),
        files={name: id for name, sources in recipe.files.items() for id in map(found, sources) if id},
    )
    return inputs, Settings(recipe.method, "good", values), missing
