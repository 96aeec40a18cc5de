"""The training losses of NNST-D's decoder.

The paper also trains its network on pairs (Kolkin et al. 2022, section 4), but with other losses.
`--loss-encoder` adds content and style as AdaIN's decoder learns them, seen by another encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from atelier import features, losses, maths
from atelier.core.lazy import torch
from atelier.methods.base import Batch
from atelier.methods.feedforward.nnst_d_colour import colour_distances
from atelier.methods.feedforward.perceptual import (
    STYLE,
    PerceptualTraining,
    feature_terms,
    held_taps,
    restyled,
)

Found = Mapping[str, Any]
#: Added to the variance of the guidance, in training and in use.
NORM_EPS = 1e-5


class DecoderLosses:
    """The losses of one batch: photo features are replaced by painting features, decoded, and compared.

    A quarter of the batch is paintings, and an eighth photos, decoded from their own features: the target is
    the picture itself. In half of the steps the decoded picture is encoded and decoded once more, as at
    inference from the second level on.
    """

    def __init__(self, network: Any, batch: Batch, training: Any) -> None:
        self.network, self.batch, self.training = network, batch, training
        device = batch.photos.device
        self.columns = _columns(training.encoder, device, training.half)
        count = len(batch.photos)
        whole, part = max(1, count // 4), count // 8
        self.copies = whole + part
        self.contents, self.styles = batch.photos.clone(), batch.paintings.clone()
        self.contents[:whole] = self.styles[:whole]
        self.styles[whole : self.copies] = self.contents[whole : self.copies]

    def terms(self) -> dict[str, torch.Tensor]:
        """The weighted losses by name."""
        with torch.no_grad():
            seen, style = self._see(self.contents), self._see(self.styles)
            if not bool(self.network.scale.any()):  # the first step sets the scale of each tap
                norms = (self.columns.norms(seen) + self.columns.norms(style)) / 2
                self.network.scale.copy_(self.batch.across(norms))
            content, wanted = self._columns(seen), self._columns(style)
            guide, fine = self._guide(seen), [self._normal(seen[tap]) for tap in self.network.fine_guides]
            penalty = self._penalty()
        target = self._swapped(content, wanted, penalty)
        picture = self.network(self.network.value(target), guide, fine)
        if float(torch.rand((), generator=self.batch.generator)) < 0.5:
            keep = 0.25 + 0.5 * float(torch.rand((), generator=self.batch.generator))
            with torch.no_grad():
                painted = self._columns(self._see(picture.clamp(0, 1)))
            target = self._swapped(keep * content + (1 - keep) * painted, wanted, penalty)
            picture = self.network(self.network.value(target), guide, fine)
        return self._perceived(picture) | self._compared(
            picture, losses.NeighbourLoss(target, wanted), style, guide
        )

    def _see(self, images: torch.Tensor) -> Found:
        found: Found = self.columns.encoder(images, self.columns.taps)
        return found

    def _guide(self, found: Found) -> torch.Tensor:
        """The guidance (B, G, h, w), with mean 0 and deviation 1 over its positions."""
        return self._normal(self.columns.join(found, taps=self.network.guides))

    @staticmethod
    def _normal(maps: torch.Tensor) -> torch.Tensor:
        mean, deviation = maths.channel_moments(maps, eps=NORM_EPS)
        return ((maps - mean) / deviation).to(maps.dtype)

    def _columns(self, found: Found) -> torch.Tensor:
        return self.columns.join(found, self.network.scale)

    def _penalty(self) -> torch.Tensor | None:
        """What a candidate's colour takes from its score, (B, P, M), as in the search."""
        tone = self.training.tone
        return tone * colour_distances(self.contents, self.styles, features.CELL) if tone else None

    def _swapped(
        self, queries: torch.Tensor, wanted: torch.Tensor, penalty: torch.Tensor | None
    ) -> torch.Tensor:
        """The nearest hypercolumn of the style for each query; copies keep their own."""
        swapped = losses.swap(queries, wanted, penalty)
        swapped[: self.copies] = wanted[: self.copies]
        return swapped

    def _perceived(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        """Content and style as AdaIN's decoder learns them, by the encoder of these losses."""
        chosen = self.training
        if not chosen.loss_encoder:
            return {}
        encoder = _encoder(chosen.loss_encoder, picture.device)
        weights = PerceptualTraining(
            content_weight=chosen.seen_content_weight, style_weight=chosen.seen_style_weight
        )
        with torch.no_grad():
            style, seen = encoder(self.styles, STYLE), encoder(self.contents, held_taps(weights))
            target = restyled(seen, style)
        terms = feature_terms(encoder(picture, STYLE), target, style, weights)
        return {f"seen {name}": term for name, term in terms.items()}

    def _compared(
        self, picture: torch.Tensor, loss: losses.NeighbourLoss, style: Found, guide: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        chosen, found = self.training, self._see(picture)
        painted = loss.towards(self._columns(found))
        moments = [losses.MomentLoss(style[tap], relative=True)(found[tap]) for tap in STYLE]
        own = self._guide(found)
        return {
            "match": chosen.match_weight * loss.match(painted),
            "near": chosen.near_weight * loss.near(painted),
            "moments": chosen.moment_weight * torch.stack(moments).mean(),
            "copy": chosen.copy_weight * (picture - self.contents)[: self.copies].abs().mean(),
            "content": chosen.content_weight * (own - guide).float().square().mean(),
            "range": chosen.range_weight * (picture - picture.clamp(0, 1)).abs().mean(),
            "lattice": chosen.lattice_weight * losses.LatticeLoss()(picture),
        }


@lru_cache(maxsize=1)
def _encoder(name: str, device: Any) -> features.VGG:
    return features.load(name, padding="replicate").prepare(device, torch.float32)


@lru_cache(maxsize=1)
def _columns(encoder: str, device: Any, half: bool) -> features.Hypercolumns:
    loaded = features.load(encoder, padding="replicate")
    return features.Hypercolumns(loaded.prepare(device, torch.bfloat16 if half else torch.float32))
