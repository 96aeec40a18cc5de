"""Deep image analogy: match positions of the photo to semantically similar ones of the painting, and copy.

From the deepest layer to the first, PatchMatch matches patches of photo and painting in both directions. The
painting's features, warped to the photo, are carried to the next finer layer by optimisation and blended with
the photo's own. The picture is the mean of the painting's patches selected by the last match.

Use it for pairs with the same subject: two portraits, two landscapes. Differences from the paper: each
picture's mean is subtracted before features are compared, because otherwise skin matches anything of its
colour; the optimisation of the next layer starts from the painting's warped features instead of noise, and so
needs tens of steps instead of hundreds. PatchMatch always runs on the CPU.

The analogy runs in both directions at once: swapping the two pictures gives B, the painting as a photo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atelier import features, maths
from atelier.core.errors import UsageError
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.maths.layout import to_array
from atelier.methods.base import Job, Paper
from atelier.methods.optimise.coarse_to_fine import EncoderKnobs, size_of
from atelier.methods.optimise.common import _Optimising

if TYPE_CHECKING:
    from atelier.patches.patchmatch import Field, Floats

    Fields = tuple[Field, Field]

# How sharply a feature's response decides whether the content's structure is kept (section 4.3).
_KAPPA, _TAU = 300.0, 0.05
# History of L-BFGS: each step stores two tensors, and first-layer features are many times a picture's size.
_HISTORY = 5
# Above this many pixels, memory matters more than time.
_LARGE = 640 * 1024
# Extra distance of hidden positions of the painting, on the scale of two unit vectors.
_FAR = 8.0
# The first step of L-BFGS, as a fraction of the features' mean magnitude.
_FIRST_STEP = 1e-2


class DeepAnalogy(_Optimising):
    """Rebuild the photo from patches of a painting with a similar subject, matched by meaning."""

    name = "deep_analogy"
    paper = Paper(
        "Liao, Yao, Yuan, Hua & Kang",
        2017,
        "Visual Attribute Transfer through Deep Image Analogy",
        "https://arxiv.org/abs/1705.01088",
    )

    class Knobs(EncoderKnobs):
        """The levels from coarse to fine, and the settings of each."""

        half: bool = knob(False, "Run the encoder in bfloat16 if the device supports it natively.")
        layers: tuple[str, ...] = knob(
            ("relu5_1", "relu4_1", "relu3_1", "relu2_1", "relu1_1"), "Taps to match at, from deep to first."
        )
        content_weights: tuple[float, ...] = knob(
            (0.8, 0.7, 0.6, 0.1),
            "How much of the content's structure each level except the deepest keeps, 0 to 1.",
        )
        patches: tuple[int, ...] = knob(
            (3, 3, 3, 5, 5), "Side of a patch at each level, in feature positions."
        )
        reaches: tuple[int, ...] = knob(
            (6, 6, 4, 4),
            "Radius of the random search at each level; the deepest is searched in full.",
        )
        centred: bool = knob(
            True, "Match features from each picture's own mean, so that its colours matter less."
        )
        search_iterations: int = knob(10, "Passes of PatchMatch at each level.", ge=1)
        rebuild_iterations: int = knob(30, "Optimiser evaluations to rebuild a level's features.", ge=1)

    qualities = {  # noqa: RUF012
        "draft": {"search_iterations": 5, "rebuild_iterations": 12},
        "good": {},
        "best": {"rebuild_iterations": 100},
        "published": {
            "encoder": "vgg19.imagenet",
            "padding": "zeros",
            "centred": False,
            "rebuild_iterations": 300,
        },
    }

    def paint(self, job: Job, knobs: DeepAnalogy.Knobs, encoder: features.VGG) -> torch.Tensor:
        from atelier.core.allocator import release_freed_memory

        _check(knobs, encoder)
        if job.content[0, 0].numel() > _LARGE:
            # Tensor sizes differ between levels, so memory that malloc keeps for one does not fit the next:
            # at 1024 px fragmentation takes two gigabytes. Releasing the memory halves the speed.
            release_freed_memory()
        styled, _ = Analogy(job, knobs, encoder).run()
        return styled


def _check(knobs: DeepAnalogy.Knobs, encoder: features.VGG) -> None:
    """Raise UsageError if the per-level knobs do not match the layers."""
    levels = len(knobs.layers)
    if not levels or len(set(knobs.layers)) != levels:
        raise UsageError("layers needs at least one tap, and none of them twice")
    encoder.smallest_side(knobs.layers)  # raises for an unknown tap
    order = [encoder.taps.index(tap) for tap in knobs.layers]
    if order != sorted(order, reverse=True):
        raise UsageError("layers must go from deep to shallow, like relu5_1, relu4_1, ..., relu1_1")
    for name, count in (("patches", levels), ("content_weights", levels - 1), ("reaches", levels - 1)):
        if len(getattr(knobs, name)) < count:
            raise UsageError(
                f"{name} has {len(getattr(knobs, name))} numbers for {levels} layers: give {count}"
            )
    if min(knobs.patches) < 1 or min(knobs.reaches, default=1) < 1:
        raise UsageError("patches and reaches must be at least 1")
    if not all(0 <= weight <= 1 for weight in knobs.content_weights):
        raise UsageError("content_weights must be from 0 to 1")


@dataclass
class AnalogyLevel:
    """Features (1, C, H, W) of one layer: given for photo A and painting B', reconstructed for A' and B."""

    tap: str
    photo: torch.Tensor
    painting: torch.Tensor
    photo_styled: torch.Tensor
    painting_plain: torch.Tensor


class Analogy:
    """The state of one run, from the deepest level to the first."""

    def __init__(self, job: Job, knobs: DeepAnalogy.Knobs, encoder: features.VGG) -> None:
        self.job, self.knobs, self.encoder = job, knobs, encoder
        levels = len(knobs.layers)
        self.total = levels * knobs.search_iterations + 2 * (levels - 1) * knobs.rebuild_iterations
        self.done = 0
        with torch.no_grad():
            self.photo, self.painting = (
                encoder(picture, knobs.layers) for picture in (job.content, job.styles[0])
            )

    def run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A', the photo as a painting, and B, the painting as a photo: (1, 3, H, W), each of its size."""
        first = self.knobs.layers[0]
        known = self.photo[first], self.painting[first]
        # At the deepest level style is assumed not to matter: A' equals A, and B equals B'.
        level, fields = AnalogyLevel(first, *known, *known), None
        for index in range(len(self.knobs.layers)):
            if index > 0:
                assert fields is not None
                level, fields = self._descend(index, level, fields)
            fields = self._match(index, level, fields)
            if self.job.progress.stopped:
                break
        assert fields is not None
        photo, painting, factor = self.job.content, self.job.styles[0], self.encoder.scale(level.tap)
        return (
            self._voted(painting, fields[0], size_of(photo), factor),
            self._voted(photo, fields[1], size_of(painting), factor),
        )

    def _match(self, index: int, level: AnalogyLevel, start: Fields | None) -> Fields:
        """The fields from A to B and back at one level; both sides of the analogy count (eq. 3)."""
        from atelier.patches.patchmatch import PatchMatch, sweep_all

        one = self._stacked(level.photo, level.photo_styled, seen=None, mean=self.job.content_seen)
        hidden = self.job.looks.seen[0]
        other = self._stacked(level.painting_plain, level.painting, seen=hidden, mean=hidden)
        # One seed for both directions, so that swapping the pictures swaps the random draws.
        options: dict[str, Any] = {
            "patch": self.knobs.patches[index],
            "radius": self.knobs.reaches[index - 1] if index else None,
        }
        options["seed"] = self.job.seed + index
        there, back = start or (None, None)
        matches = [
            PatchMatch(one, other, start=there, **options),
            PatchMatch(other, one, start=back, **options),
        ]
        unit = 4 * self.knobs.patches[index] ** 2  # two unit vectors are at most 4 apart
        for _ in range(self.knobs.search_iterations):
            if self.job.progress.stopped:
                break
            sweep_all(matches, torch.get_num_threads())
            distance = float(sum(match.distance.mean() for match in matches)) / unit
            self._report(level.tap, {"match": distance}, matches[0].field, level.tap)
        return matches[0].field, matches[1].field

    def _stacked(self, *both: torch.Tensor, seen: torch.Tensor | None, mean: torch.Tensor | None) -> Floats:
        """Features normalised at each position and concatenated, (H, W, 2C), or 2C + 1 with an alpha.

        `mean` is the alpha of the pixels included in the mean. For a painting with an alpha `seen`, an extra
        channel is 0 at visible positions and large at hidden ones, so that nothing matches there.
        """
        from torch.nn import functional

        if self.knobs.centred:
            both = tuple(some - _mean(some, mean) for some in both)
        parts = [functional.normalize(some.float(), dim=1) for some in both]
        if self.job.looks.seen[0] is not None:
            veil, visible = torch.zeros_like(parts[0][:, :1]), maths.mask_at(seen, size_of(parts[0]))
            parts.append(veil if visible is None else veil + _FAR * ~visible)
        return to_array(torch.cat(parts, 1))

    def _descend(self, index: int, above: AnalogyLevel, fields: Fields) -> tuple[AnalogyLevel, Fields]:
        """The next level: enlarge the fields, and rebuild A' and B from the matches of the level above."""
        from atelier.patches.patchmatch import enlarge

        tap = self.knobs.layers[index]
        photo, painting = self.photo[tap], self.painting[tap]
        factor = self.encoder.scale(above.tap) // self.encoder.scale(tap)
        here, there = size_of(photo), size_of(painting)
        finer = (
            enlarge(fields[0], here, there, factor),
            enlarge(fields[1], there, here, factor),
        )
        weight = self.knobs.content_weights[index - 1]
        rebuilt = [
            self._rebuild(stage, (above.tap, tap), _warped(deep, field), _warped(plain, fine), fields[0])
            for stage, deep, field, plain, fine in (
                (f"{above.tap} to {tap}", above.painting, fields[0], painting, finer[0]),
                (f"{above.tap} to {tap}, back", above.photo, fields[1], photo, finer[1]),
            )
        ]
        styled, plain = (
            blended(own, new, weight) for own, new in zip((photo, painting), rebuilt, strict=True)
        )
        return AnalogyLevel(tap, photo, painting, styled, plain), finer

    def _rebuild(
        self, stage: str, taps: tuple[str, str], target: torch.Tensor, start: torch.Tensor, field: Field
    ) -> torch.Tensor:
        """Features at the second of `taps`, from `start`, that become `target` at the first (eq. 5)."""
        from atelier.losses import ContentLoss
        from atelier.maths.free_descent import FreeDescent

        last, first = (self.encoder.taps.index(tap) for tap in taps)
        near = ContentLoss(target, relative=True)

        def objective(values: torch.Tensor) -> dict[str, torch.Tensor]:
            values = values.to(self.encoder.dtype)
            for step in self.encoder.taps[first + 1 : last + 1]:
                values = self.encoder.advance(values, step, keep=True)
            return {"rebuild": near(values)}

        before = self.done

        def report(evaluation: int, terms: Mapping[str, float], values: Any) -> bool:
            return self._report(stage, terms, field, taps[0], at=before + evaluation)

        start = start.float()
        descent = FreeDescent(
            objective,
            optimiser="lbfgs",
            iterations=self.knobs.rebuild_iterations,
            history=_HISTORY,
            first_step=_FIRST_STEP * float(start.abs().mean()) or None,
            report=report,
        )
        if not self.job.progress.stopped:
            start = descent.run(start)
        self.done = before + self.knobs.rebuild_iterations
        return start

    def _report(
        self, stage: str, terms: Mapping[str, float], field: Field, tap: str, at: int | None = None
    ) -> bool:
        self.done = self.done + 1 if at is None else at
        return self.job.progress.report(
            self.done, self.total, stage=stage, losses=terms, preview=lambda: self._preview(field, tap)
        )

    def _preview(self, field: Field, tap: str) -> torch.Tensor:
        """The painting's colours warped by the field, at the size of the layer at `tap`."""
        return _warped(resize(self.job.styles[0], size_of(self.painting[tap])), field)

    def _voted(self, picture: torch.Tensor, field: Field, size: tuple[int, int], factor: int) -> torch.Tensor:
        """The picture of `size` from averaged patches of `picture`, by the field enlarged `factor` times."""
        from atelier.patches.patchmatch import enlarge, vote

        values = vote(
            to_array(picture), enlarge(field, size, size_of(picture), factor), self.knobs.patches[-1]
        )
        return torch.from_numpy(values).permute(2, 0, 1)[None].to(picture.device)


def blended(own: torch.Tensor, rebuilt: torch.Tensor, weight: float) -> torch.Tensor:
    """Features (1, C, H, W) that keep their `own` where the layer responds strongly (eq. 6)."""
    response = own.square().sum(1, keepdim=True)
    low, high = response.amin(), response.amax()
    response = (response - low) / (high - low).clamp(min=1e-12)
    share = weight * torch.sigmoid(_KAPPA * (response - _TAU))
    return own * share + rebuilt * (1 - share)


def _mean(values: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
    """The mean (1, C, 1, 1) of features over the positions that are visible by the alpha `seen`."""
    weight = maths.weight_at(seen, size_of(values))
    if weight is None:
        return values.mean((2, 3), keepdim=True)
    return maths.channel_moments(values, weight=weight)[0].to(values.dtype)


def _warped(values: torch.Tensor, field: Field) -> torch.Tensor:
    """Features (1, C, H', W') sampled at the positions (H, W, 2) of a field."""
    rows, columns = torch.from_numpy(field).long().to(values.device).unbind(2)
    return values[:, :, rows, columns]
