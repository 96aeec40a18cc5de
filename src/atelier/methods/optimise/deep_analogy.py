"""Deep image analogy: find for each place of the photo the painting's place that means the same, and copy it.

From the deepest layer to the first, patches of photo and painting are matched both ways by PatchMatch. The
painting's features, taken to the photo's places, become features of the layer below by optimisation, and are
blended with the photo's own; the picture is the mean of the painting's patches that the last match names.

It is for pairs with the same things in them: two portraits, two landscapes. This differs from the paper:
features are compared from each picture's own mean, because else skin finds whatever has its colour; those of
the layer below begin with the painting's, taken to the same places, and not with noise, so that the
optimisation needs tens of steps and not hundreds. PatchMatch runs on the CPU, whatever the device.

The analogy goes both ways at once: B, the painting as a photo of it would be, is what the method gives when
the two pictures change places.
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
# Steps that L-BFGS remembers: features of the first layer are many times a picture, and each step is two.
_HISTORY = 5
# Pixels above which memory counts for more than time.
_LARGE = 640 * 1024
# How far, beside two unit vectors, a hidden place of the painting is from any other.
_FAR = 8.0
# Its first step, as a part of the features' mean size.
_FIRST_STEP = 1e-2


class DeepAnalogy(_Optimising):
    """Rebuild the photo from patches of a painting of similar things, matched by what they mean."""

    name = "deep_analogy"
    paper = Paper(
        "Liao, Yao, Yuan, Hua & Kang",
        2017,
        "Visual Attribute Transfer through Deep Image Analogy",
        "https://arxiv.org/abs/1705.01088",
    )

    class Knobs(EncoderKnobs):
        """The levels from coarse to fine, and what is done at each."""

        half: bool = knob(False, "Run the encoder in bfloat16 if the device supports it natively.")
        layers: tuple[str, ...] = knob(
            ("relu5_1", "relu4_1", "relu3_1", "relu2_1", "relu1_1"), "Taps to match at, from deep to first."
        )
        content_weights: tuple[float, ...] = knob(
            (0.8, 0.7, 0.6, 0.1),
            "How much of the content's structure each level but the deepest keeps, 0 to 1.",
        )
        patches: tuple[int, ...] = knob((3, 3, 3, 5, 5), "Positions along a patch's side at each level.")
        reaches: tuple[int, ...] = knob(
            (6, 6, 4, 4),
            "Radius of the random search at each level; the deepest is searched in full.",
        )
        centred: bool = knob(
            True, "Match features from each picture's own mean, so that its colours count for less."
        )
        search_iterations: int = knob(10, "Passes of PatchMatch at each level.", ge=1)
        rebuild_iterations: int = knob(30, "Evaluations that rebuild a level's features.", ge=1)

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
            # Every level's tensors have other sizes: what malloc keeps of one leaves gaps that fit no other.
            # At 1024 px the gaps were two gigabytes; giving them back makes the work half as fast.
            release_freed_memory()
        styled, _ = Analogy(job, knobs, encoder).run()
        return styled


def _check(knobs: DeepAnalogy.Knobs, encoder: features.VGG) -> None:
    """Raises UsageError where the levels' numbers do not fit their layers."""
    levels = len(knobs.layers)
    if not levels or len(set(knobs.layers)) != levels:
        raise UsageError("layers needs at least one tap, and none of them twice")
    encoder.smallest_side(knobs.layers)  # raises for a tap that is not there
    order = [encoder.taps.index(tap) for tap in knobs.layers]
    if order != sorted(order, reverse=True):
        raise UsageError("layers go from deep to first, like relu5_1, relu4_1, ..., relu1_1")
    for name, count in (("patches", levels), ("content_weights", levels - 1), ("reaches", levels - 1)):
        if len(getattr(knobs, name)) < count:
            raise UsageError(
                f"{name} has {len(getattr(knobs, name))} numbers for {levels} layers: give {count}"
            )
    if min(knobs.patches) < 1 or min(knobs.reaches, default=1) < 1:
        raise UsageError("patches and reaches are at least 1")
    if not all(0 <= weight <= 1 for weight in knobs.content_weights):
        raise UsageError("content_weights are from 0 to 1")


@dataclass
class Level:
    """Features (1, C, H, W) of one layer: photo A and painting B' as they are, A' and B as they would be."""

    tap: str
    photo: torch.Tensor
    painting: torch.Tensor
    photo_styled: torch.Tensor
    painting_plain: torch.Tensor


class Analogy:
    """The work on one pair, from the deepest level to the first."""

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
        # At the deepest level style is no matter: A' is like A, and B like B'.
        level, fields = Level(first, *known, *known), None
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

    def _match(self, index: int, level: Level, start: Fields | None) -> Fields:
        """The fields from A to B and back at one level; both sides of the analogy count (eq. 3)."""
        from atelier.patches.patchmatch import PatchMatch, sweep_all

        one = self._stacked(level.photo, level.photo_styled, seen=None, mean=self.job.content_seen)
        hidden = self.job.looks.seen[0]
        other = self._stacked(level.painting_plain, level.painting, seen=hidden, mean=hidden)
        # One seed for both ways: with the pictures exchanged, each draws what the other drew.
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
        """Features at unit length at each place, side by side, (H, W, 2C), or one more with an alpha.

        `mean` is the alpha of what counts in the mean. Where a painting has an alpha `seen`, one more channel
        is 0 where there is something to see and large where there is not, so that nothing matches there.
        """
        from torch.nn import functional

        if self.knobs.centred:
            both = tuple(some - _mean(some, mean) for some in both)
        parts = [functional.normalize(some.float(), dim=1) for some in both]
        if self.job.looks.seen[0] is not None:
            veil, visible = torch.zeros_like(parts[0][:, :1]), maths.mask_at(seen, size_of(parts[0]))
            parts.append(veil if visible is None else veil + _FAR * ~visible)
        return to_array(torch.cat(parts, 1))

    def _descend(self, index: int, above: Level, fields: Fields) -> tuple[Level, Fields]:
        """The next level: fields enlarged, A' and B rebuilt from what the level above matched."""
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
        return Level(tap, photo, painting, styled, plain), finer

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
        """The painting's colours where the field puts them, at the size of the layer at `tap`."""
        return _warped(resize(self.job.styles[0], size_of(self.painting[tap])), field)

    def _voted(self, picture: torch.Tensor, field: Field, size: tuple[int, int], factor: int) -> torch.Tensor:
        """The mean of the patches of `picture` that the field, `factor` times finer, names: of `size`."""
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
    """Features (1, C, H', W') at the places (H, W, 2) that a field names."""
    rows, columns = torch.from_numpy(field).long().to(values.device).unbind(2)
    return values[:, :, rows, columns]
