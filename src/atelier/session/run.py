"""One run: apply the shared controls around a method's own work, and write the receipt.

Strength, several styles, regions, colour and mask are handled here for every method. A method that handles
one of them better itself declares it in `Method.native` and receives the control instead.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import colour, images, maths
from atelier.core import device as devices
from atelier.core import knobs as knob_rules
from atelier.core import recipe as recipes
from atelier.core.allocator import make_room
from atelier.core.progress import Progress
from atelier.images import Picture
from atelier.methods.base import Context, Frame, Job, Method, Painter, Result, Styles
from atelier.session import inputs as given
from atelier.session.controls import UNRECORDED, Controls
from atelier.session.inputs import Inputs
from atelier.store import cache, weights

if TYPE_CHECKING:
    import torch

#: The network that finishes a picture.
FINISHER = "ddpm.atelier"

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@dataclass(frozen=True)
class Setup:
    """A method with its settings, on its device."""

    kind: type[Method]
    method: Method
    controls: Controls
    knobs: knob_rules.Knobs
    device: torch.device

    def prepare(self, inputs: Inputs, side: int) -> Painter:
        """A painter for pictures with a long side of `side` pixels in these styles."""
        context = Context(
            device=self.device,
            dtype=devices.compute_dtype(self.device) if self.kind.half else _float32(),
            seed=self.controls.seed,
            size=side,
            files=inputs.files,
        )
        used = self.method.style_side(self.knobs, side)
        styles = style_tensors(inputs, used, self.controls.style_scale, self.device)
        native = "regions" if inputs.regions else "styles"
        offers = [
            (tensor, images.style_entries(Path(style.name), style.sha256))
            for tensor, style in zip(styles.pictures, inputs.styles, strict=True)
        ]
        with cache.offered(offers):
            if native in self.kind.native or inputs.count <= 1:
                return _offered(self.method.prepare(styles, self.knobs, context), offers)
            painters = [self.method.prepare(one, self.knobs, context) for one in _singly(styles)]
        shares = [*styles.weights, *styles.text_weights, *styles.trained_weights]
        return _offered(mixed(painters, shares), offers)

    def frame(self, inputs: Inputs, size: tuple[int, int], progress: Progress) -> Frame:
        """The painter's frame: content, regions and mask resized to `size`, (height, width)."""
        blank = inputs.content is None or self.kind.takes.content == "none"
        if inputs.content is None or blank:
            content, seen = _canvas(size, self.device), None
        else:
            content, seen = seen_tensor(inputs.content.resized(size), self.device)
        mask = None if inputs.mask is None else self._soft(inputs.mask, size)
        return Frame(
            content=content,
            seen=seen,
            strength=self.controls.strength if "strength" in self.kind.native else 1.0,
            progress=progress,
            regions=_regions([self._soft(region, size) for region in inputs.regions], self.device),
            mask=None if mask is None else _tensor(mask, self.device),
            blank=blank,
        )

    def _soft(self, mask: Picture, size: tuple[int, int]) -> images.Floats:
        """A mask at `size` with a soft edge, (H, W) in 0..1."""
        return images.feather(images.read_mask(mask, size), self.controls.feather)

    def make(self, frame: Frame, painter: Callable[[], Painter], content: Picture | None) -> Result:
        """Paint a frame and apply the shared controls."""
        make_room(frame.content.shape[-2:])
        if content is not None and self.controls.strength == 0:
            return Result(frame.content)
        required = self.kind.takes.mask == "required"
        inner = frame if required else dataclasses.replace(frame, mask=None)
        prepared, paint = painter(), self._finished if self.controls.finish else self._painted
        with maths.remembering(frame.memory):
            made = paint(prepared, inner)
        if content is None:
            return made
        picture, original = made.picture, frame.content
        if frame.regions is not None:
            picture = images.blend(original, picture, frame.regions.sum(0)[0])
        if self.controls.colour == "content":
            picture = colour.keep_colour(picture, original)
        if "strength" not in self.kind.native:
            picture = original + self.controls.strength * (picture - original)
        if frame.mask is not None and not required:
            picture = images.blend(original, picture, frame.mask[0, 0])
        return dataclasses.replace(made, picture=picture)

    def _painted(self, painter: Painter, frame: Frame) -> Result:
        return padded(painter, frame, self.kind.multiple)

    def _finished(self, painter: Painter, frame: Frame) -> Result:
        """The method's picture, with its surface painted again by the diffusion network."""
        from atelier.methods.diffusion import ddpm, model

        parts = [dataclasses.replace(frame, progress=frame.progress.part(index, 2)) for index in (0, 1)]
        made = self._painted(painter, parts[0])
        if frame.progress.stopped:
            return made
        dtype = devices.compute_dtype(self.device)
        denoiser = model.load(FINISHER, self.device, dtype)
        last = dataclasses.replace(parts[1], content=made.picture, blank=False)
        job = Job.of(Styles(), Context(self.device, dtype, self.controls.seed), last)
        noise = self.controls.finish * frame.strength
        # More and smaller steps leave more noise in the paint.
        knobs = ddpm.DdpmKnobs(noise=noise, steps=math.ceil(40 * noise), sampler="ancestral")
        picture = ddpm.edited(denoiser, job, knobs)
        return dataclasses.replace(made, picture=picture)

    def request(self, inputs: Inputs, size: tuple[int, int], threads: int) -> recipes.Request:
        """The run as data: its inputs and settings."""
        naming = self.controls.receipt
        settled = self.controls.model_dump(exclude=set(UNRECORDED))
        side = {"size": max(size)} if inputs.content is not None else {"size": [size[1], size[0]]}
        knobs = self.knobs.model_dump(mode="json")
        for name, holds in knob_rules.files_of(self.kind.Knobs).items():
            if holds == "weights":
                knobs[name] = _named_weights(knobs[name], naming)
            else:
                knobs[name] = _named(self.kind.Knobs, name, knobs[name], naming)
        for name in knob_rules.artifacts_of(self.kind.Knobs):
            knobs[name] = given.named(knobs[name], naming)
        return recipes.Request(
            method=self.kind.name,
            knobs=knobs,
            controls=settled | side | {"device": str(self.device), "threads": threads},
            weights={
                given.named(name, naming) if weights.is_path(name) else name: weights.fingerprint(name)
                for name in self._weights(inputs)
            },
            **given.sources(inputs, naming),
        )

    def _weights(self, inputs: Inputs) -> Sequence[str]:
        """The weights that the run uses; none if the photo stays as it is."""
        idle = inputs.content is not None and self.controls.strength == 0
        if idle:
            return ()
        readers = self.method.text_weights(self.knobs) if inputs.texts else ()
        finisher = [FINISHER] if self.controls.finish else []
        return [*(str(name) for name in (*self.method.weights(self.knobs), *readers)), *finisher]

    def receipt(self, request: recipes.Request, inputs: Inputs, progress: Progress) -> dict[str, Any]:
        """The request plus the facts recorded during the run."""
        idle = inputs.content is not None and self.controls.strength == 0
        return recipes.Recipe(
            **request.model_dump(),
            versions=recipes.versions(),
            machine={name: request.controls[name] for name in ("device", "threads")},
            stopped_after=progress.done if progress.stopped else None,
            source_type="" if idle else _SOURCE_TYPES + source_type(self.kind, request.weights),
            reading="" if idle else self.method.reading([one.text for one in inputs.texts], self.knobs),
        ).model_dump(mode="json", by_alias=True)


def source_type(kind: type[Method], used: Collection[str]) -> str:
    """The IPTC term for how a picture was made (NewsCodes, digital source type)."""
    if not used:
        return "algorithmicMedia" if kind.takes.content == "none" else "algorithmicallyEnhanced"
    if kind.takes.content == "none":
        return "trainedAlgorithmicMedia"
    return "compositeWithTrainedAlgorithmicMedia"


def _offered(painter: Painter, offers: Sequence[tuple[torch.Tensor, Mapping[str, cache.Entry]]]) -> Painter:
    """The painter, with the cached entries of its style files available."""

    def paint(frame: Frame) -> Result:
        with cache.offered(offers):
            return painter(frame)

    return paint if any(entries for _, entries in offers) else painter


def mixed(painters: Sequence[Painter], shares: Sequence[float]) -> Painter:
    """Combine one painter per style: average their pictures by weight, or by region."""

    def paint(frame: Frame) -> Result:
        weights: Any = shares if frame.regions is None else _everywhere(frame.regions)
        picture, artifacts = frame.content.new_zeros(()), dict[str, bytes]()
        for index, (painter, share) in enumerate(zip(painters, weights, strict=True)):
            progress = frame.progress.part(index, len(painters))
            made = painter(dataclasses.replace(frame, progress=progress, regions=None))
            picture = picture + share * made.picture
            artifacts |= made.artifacts
        return Result(picture, artifacts)

    return paint


def padded(painter: Painter, frame: Frame, multiple: int) -> Result:
    """Pad the frame to multiples of `multiple`, paint it, and crop the result to the original size."""
    height, width = frame.content.shape[-2:]
    more = (0, -width % multiple, 0, -height % multiple)
    if not any(more):
        return painter(frame)
    import torch.nn.functional as F

    larger: dict[str, Any] = {
        name: F.pad(value, more, mode="replicate")
        for name in ("content", "seen", "regions", "mask", "previous", "flow", "known")
        if (value := getattr(frame, name)) is not None
    }
    made = painter(dataclasses.replace(frame, **larger))
    return dataclasses.replace(made, picture=made.picture[..., :height, :width])


def style_tensors(inputs: Inputs, side: int, scale: float, device: torch.device) -> Styles:
    """The styles; pictures get a long side of `side * scale`."""
    long_side = max(1, round(side * scale))
    resized = (style.resized(images.fit(style.shape, long_side)) for style in inputs.styles)
    seen = [seen_tensor(style, device) for style in resized]
    return Styles(
        pictures=[picture for picture, _ in seen],
        weights=list(inputs.weights),
        seen=[alpha for _, alpha in seen],
        texts=[one.text for one in inputs.texts],
        text_weights=[one.weight for one in inputs.texts],
        trained=[one.name for one in inputs.trained],
        trained_weights=[one.weight for one in inputs.trained],
        scale=scale,
    )


def seen_tensor(picture: Picture, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A picture (1, 3, H, W) with hidden pixels filled, and its alpha (1, 1, H, W) or None if opaque."""
    if picture.alpha is None or picture.alpha.min() >= 1:
        return picture.tensor(device, share=True), None
    filled = images.fill_hidden(picture.pixels, picture.alpha)
    return Picture(filled).tensor(device, share=True), _tensor(picture.alpha, device)


def _singly(styles: Styles) -> list[Styles]:
    """One `Styles` for each style."""
    seen = styles.seen or [None] * len(styles.pictures)
    return [
        *(
            Styles(pictures=[one], weights=[1.0], seen=[a])
            for one, a in zip(styles.pictures, seen, strict=True)
        ),
        *(Styles(texts=[one], text_weights=[1.0], scale=styles.scale) for one in styles.texts),
        *(Styles(trained=[one], trained_weights=[1.0]) for one in styles.trained),
    ]


def _named_weights(value: Any, naming: str) -> Any:
    """Names of weights, with paths as the receipt stores them."""
    if isinstance(value, list):
        return [_named_weights(one, naming) for one in value]
    return given.named(value, naming) if isinstance(value, str) and weights.is_path(value) else value


def _named(kind: type[knob_rules.Knobs], name: str, value: Any, naming: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [given.named(one, naming) for one in value]
    return given.named(value, naming) if knob_rules.is_file(kind, name, value) else value


def _regions(masks: Sequence[images.Floats], device: torch.device) -> torch.Tensor | None:
    """Each style's share of every pixel, (K, 1, H, W), summing to at most 1; overlapping masks share."""
    if not masks:
        return None
    import torch

    shares = torch.stack([torch.as_tensor(mask) for mask in masks])[:, None].to(device)
    return shares / shares.sum(0).clamp(min=1)


def _everywhere(regions: torch.Tensor) -> torch.Tensor:
    """Shares (K, 1, H, W) normalised to sum to 1; outside all regions the photo is restored afterwards."""
    return regions / regions.sum(0).clamp(min=1e-6)


def _tensor(plane: images.Floats, device: torch.device) -> torch.Tensor:
    import torch

    return torch.as_tensor(plane)[None, None].to(device)


def _canvas(size: tuple[int, int], device: torch.device) -> torch.Tensor:
    import torch

    return torch.full((1, 3, *size), 0.5, device=device)


def _float32() -> torch.dtype:
    import torch

    return torch.float32


class threads:  # noqa: N801 - reads as a statement
    """Set the number of CPU threads that torch uses, in this Python thread and inside the block.

    torch (OpenMP) keeps a separate count for each Python thread, so parallel jobs do not interfere.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count

    def __enter__(self) -> int:
        import torch

        self.before = torch.get_num_threads()
        if self.count is not None:
            torch.set_num_threads(self.count)
        return self.count or self.before

    def __exit__(self, *error: object) -> None:
        import torch

        if self.count is not None:
            torch.set_num_threads(self.before)


def picture_of(result: Result, content: Picture | None, size: tuple[int, int]) -> Picture:
    """The result as a Picture with its artifacts and the content's alpha and metadata."""
    alpha = None if content is None or content.alpha is None else content.resized(size).alpha
    picture = Picture.from_tensor(result.picture, alpha=alpha)
    picture.artifacts = result.artifacts
    if content is not None:
        picture.metadata = content.metadata
    return picture
