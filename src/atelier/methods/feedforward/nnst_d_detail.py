"""Fine detail for NNST-D: the bands below about four pixels come in part from AdaIN's decoder and the photo.

NNST-D chooses on a grid of four pixels, where eyes, windows and rigging are lost. AdaIN's decoder sees the
photo's own features, with the style's statistics, and keeps them. It reads the same encoder, so its features
are already there. What is coarser than a few pixels, which is where brush strokes are, stays NNST-D's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from atelier import colour, maths
from atelier.core.errors import WeightsError
from atelier.core.lazy import torch
from atelier.methods.feedforward.adain import Adain, OnDemand

if TYPE_CHECKING:
    from atelier.methods.base import Job
    from atelier.networks.decoder import Decoder

    #: Mean and variance of each channel, (C,), by tap.
    TapMoments = Mapping[str, tuple[torch.Tensor, torch.Tensor]]

#: Bands of the Laplacian pyramid, from the finest, whose detail is replaced: about 1, 2 and 4 pixels.
BANDS = 3
#: Side in pixels of the window in which a place's detail is measured.
_REACH = 17
#: Deviation of detail at which half of it is replaced: four shades of 255.
_PLAIN = 4 / 255


class DetailKnobs(Protocol):
    """The knobs that affect fine detail."""

    @property
    def encoder(self) -> str: ...
    @property
    def detail_weights(self) -> str: ...
    @property
    def detail(self) -> float: ...
    @property
    def photo_detail(self) -> float: ...
    @property
    def half(self) -> bool: ...


def decoder_of(knobs: DetailKnobs) -> str:
    """The name of the weights of AdaIN's decoder; empty if none is used."""
    if not knobs.detail:
        return ""
    return knobs.detail_weights or ("adain.atelier" if knobs.encoder == "encoder.atelier" else "")


@dataclass(frozen=True)
class Detail:
    """AdaIN's decoder and the styles' statistics, and how much of a picture's fine detail is replaced."""

    decoder: Decoder | None
    style: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    share: float
    photo: float

    @classmethod
    def of(cls, job: Job, styles: Sequence[torch.Tensor], knobs: DetailKnobs) -> Detail | None:
        """For these styles (1, 3, H, W), at the size at which they are used; None if nothing is replaced."""
        decoder = decoder_of(knobs)
        if not decoder:
            return cls(None, {}, 0.0, knobs.photo_detail) if knobs.photo_detail else None
        fast = Adain.Knobs(encoder=knobs.encoder, weights=decoder, half=knobs.half, bands=False)
        try:
            seen = Adain.seen(replace(job, styles=styles), fast)
        except WeightsError as error:
            raise WeightsError(f"{error}, or set 'detail' to 0") from error
        return cls(seen.decoder, seen.style, knobs.detail, knobs.photo_detail)

    @property
    def taps(self) -> tuple[str, ...]:
        """The encoder's taps that the decoder reads."""
        return () if self.decoder is None else self.decoder.plan.taps

    def added(
        self,
        made: torch.Tensor,
        content: torch.Tensor,
        found: Mapping[str, torch.Tensor],
        moments: TapMoments,
        strength: float,
    ) -> torch.Tensor:
        """`made` (1, 3, H, W) with fine detail replaced; `found` are the content's features at `taps`."""
        fine = made
        if self.decoder is not None:
            decoded = self._decoded(content, found, moments, strength)
            fine = torch.lerp(made, decoded, self.share * busy(content))
        if self.photo:
            fine = torch.lerp(fine, content, self.photo)
        coarse, detail = colour.split_bands(made), colour.split_bands(fine)
        height, width = made.shape[-2:]
        return maths.merge([*detail[:BANDS], *coarse[BANDS:]])[..., :height, :width]

    def _decoded(
        self,
        content: torch.Tensor,
        found: Mapping[str, torch.Tensor],
        moments: TapMoments,
        strength: float,
    ) -> torch.Tensor:
        """AdaIN's picture (1, 3, H, W) of a tile, as in `Adain.decoded`, with the whole content's moments."""
        assert self.decoder is not None
        height, width = content.shape[-2:]

        def moved(tap: str) -> torch.Tensor:
            return _moved(found[tap], *moments[tap], *self.style[tap], strength)

        made: torch.Tensor = self.decoder(OnDemand(moved))[..., :height, :width]
        if strength < 1:
            lost = content - self.decoder({tap: found[tap] for tap in self.taps})[..., :height, :width]
            made = made + (1 - strength) * lost
        return made


def busy(content: torch.Tensor) -> torch.Tensor:
    """How much fine detail there is round each pixel of (1, 3, H, W): (1, 1, H, W), from 0 to 1.

    In flat places there is nothing to keep, and a decoder's own grid would show.
    """
    height, width = content.shape[-2:]
    bands = colour.split_bands(content)
    detail = maths.merge([*bands[:BANDS], *(torch.zeros_like(band) for band in bands[BANDS:])])
    energy = detail[..., :height, :width].square().mean(1, keepdim=True)
    energy = torch.nn.functional.avg_pool2d(energy, _REACH, 1, _REACH // 2, count_include_pad=False)
    return energy / (energy + _PLAIN**2)


def _moved(
    found: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    style_mean: torch.Tensor,
    style_deviation: torch.Tensor,
    strength: float,
) -> torch.Tensor:
    """Features (1, C, h, w) of given mean and variance (C,) with the style's (1, C, 1, 1) (AdaIN, eq. 8)."""
    shape = (1, -1, 1, 1)
    # Variation that is only rounding is not amplified: flat pictures stay flat.
    rounding = (torch.finfo(found.dtype).eps * mean).square()
    own = (variance + 1e-5 + rounding).sqrt().view(shape)
    centre = mean.view(shape).to(found.dtype)
    gain = torch.lerp(own, style_deviation.to(own), strength) / own
    shift = torch.lerp(centre.to(own), style_mean.to(own), strength)
    # `centre` is rounded to the features' precision, and so subtracts without a further error.
    return torch.addcmul(shift.to(found.dtype), found - centre, gain.to(found.dtype))
