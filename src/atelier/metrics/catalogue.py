"""Every metric by name: what it measures, on which features, at which size, and which end is good.

A published metric has its published name only with its published features. The same formula on the encoder
that comes with atelier has another name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor

from atelier.core.errors import AtelierError, UsageError, did_you_mean
from atelier.metrics.base import Metric, SetMetric, Style
from atelier.metrics.blotch import Blotch
from atelier.metrics.classifier import ClassifierContent, ClassifierRecall
from atelier.metrics.clip import DirectionLikeness, ImageLikeness, WordLikeness
from atelier.metrics.content import ContentDistance, SelfSimilarityDivergence
from atelier.metrics.frechet import ArtFrechetDistance, FrechetDistance, KernelDistance
from atelier.metrics.gram import GramDistance, GramError
from atelier.metrics.histogram import HistogramDistance
from atelier.metrics.light import LightSimilarity
from atelier.metrics.lpips import LPIPS
from atelier.metrics.moments import MomentDistance
from atelier.metrics.networks import (
    ART_INCEPTION,
    BUNDLED,
    CLASSIFIER,
    CLIP,
    INCEPTION,
    LPIPS_WEIGHTS,
    VGG16,
    VGG19,
    Networks,
)
from atelier.metrics.psnr import PSNR
from atelier.metrics.ssim import SSIM, MultiscaleSSIM
from atelier.metrics.structure import StructureSimilarity, StyleLeakage
from atelier.metrics.vgg_style import RelativeStyle

#: Resize rules.
FULL = "none"
ALIKE = "result to the content's size"
AT_MOST = "long side at most {} px"
SQUARE = "{0}x{0} px, antialiased bicubic"


@dataclass(frozen=True)
class Declared:
    """A metric as tables name it. `weights` are the records of the networks that it looks with."""

    name: str
    sentence: str
    about: Literal["content", "style", "both"]
    better: Literal["higher", "lower"]
    resize: str
    make: Callable[[Networks], Metric | SetMetric]
    weights: tuple[str, ...] = ()
    of_sets: bool = False


@dataclass(frozen=True)
class Measurement:
    """A number with what it rests on: pictures, resize rule, and the sha256 of each network's weights."""

    metric: str
    value: float
    count: int
    resize: str
    features: dict[str, str]


def _perceptual(networks: Networks) -> LPIPS:
    from atelier.features.lpips_trunks import VGGTrunk

    return LPIPS(VGGTrunk(networks.encoder(), ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_1")))


def _art(networks: Networks) -> ArtFrechetDistance:
    return ArtFrechetDistance(_perceptual(networks), FrechetDistance(networks.embedded))


def _artfid(name: str, sentence: str, resize: str, short_side: int | None) -> Declared:
    """ArtFID as published, with its style pictures as often as they have results."""

    def make(networks: Networks) -> ArtFrechetDistance:
        lpips = LPIPS(networks.trunk("alex"), networks.heads("alex"))
        frechet = FrechetDistance(networks.art_inception(), infinite=True, once=False)
        return ArtFrechetDistance(lpips, frechet, short_side)

    features = (ART_INCEPTION, *LPIPS_WEIGHTS["alex"])
    return Declared(name, sentence, "both", "lower", resize, make, features, of_sets=True)


def _lpips(kind: str) -> Declared:
    return Declared(
        f"lpips_{kind}",
        f"LPIPS 0.1 of result and content, trunk {kind}.",
        "content",
        "lower",
        ALIKE,
        lambda networks: LPIPS(networks.trunk(kind), networks.heads(kind)),
        LPIPS_WEIGHTS[kind],
    )


_384, _512 = AT_MOST.format(384), AT_MOST.format(512)
_299, _224 = SQUARE.format(299), SQUARE.format(224)

_ALL = (
    # content, without a network
    Declared("psnr", "Signal-to-noise ratio, dB.", "content", "higher", ALIKE, lambda _: PSNR()),
    Declared("psnr_luma", "The same of luminance.", "content", "higher", ALIKE, lambda _: PSNR(luma=True)),
    Declared("ssim", "Structural similarity.", "content", "higher", ALIKE, lambda _: SSIM()),
    Declared("ssim_luma", "The same of luminance.", "content", "higher", ALIKE, lambda _: SSIM(luma=True)),
    Declared("ms_ssim", "SSIM at five scales.", "content", "higher", ALIKE, lambda _: MultiscaleSSIM()),
    Declared(
        "light",
        "SSIM of lightness at a quarter of the size.",
        "content",
        "higher",
        "a quarter of the content's size",
        lambda _: LightSimilarity(),
    ),
    Declared(
        "blotch", "Stains in flat parts of the photo, percent.", "content", "lower", _384, lambda _: Blotch()
    ),
    # content, as a network sees it
    Declared(
        "structure",
        "Correlation of self-similarities at relu4_1.",
        "content",
        "higher",
        _384,
        lambda networks: StructureSimilarity(networks.encoder()),
        (BUNDLED,),
    ),
    Declared(
        "content",
        "Relative distance of features at relu4_1.",
        "content",
        "lower",
        ALIKE,
        lambda networks: ContentDistance(networks.encoder()),
        (BUNDLED,),
    ),
    Declared(
        "cfsd",
        "StyleID's structural distance, VGG-19 relu3_1.",
        "content",
        "lower",
        _512,
        lambda networks: SelfSimilarityDivergence(networks.vgg(VGG19)),
        (VGG19,),
    ),
    Declared(
        "divergence",
        "The formula of cfsd on the bundled encoder.",
        "content",
        "lower",
        _512,
        lambda networks: SelfSimilarityDivergence(networks.encoder()),
        (BUNDLED,),
    ),
    *(_lpips(kind) for kind in LPIPS_WEIGHTS),
    Declared(
        "perceptual",
        "The formula of LPIPS without heads on the bundled encoder.",
        "content",
        "lower",
        ALIKE,
        _perceptual,
        (BUNDLED,),
    ),
    Declared(
        "classifier_content",
        "Cosine of EfficientNet-Lite0's features of photo and result.",
        "content",
        "higher",
        SQUARE.format(256),
        lambda networks: ClassifierContent(networks.classifier()),
        (CLASSIFIER,),
    ),
    Declared(
        "classifier_top5",
        "The photo's first class is among the result's first five.",
        "content",
        "higher",
        SQUARE.format(256),
        lambda networks: ClassifierRecall(networks.classifier()),
        (CLASSIFIER,),
    ),
    # style
    Declared(
        "gram",
        "Relative distance of Gram matrices, bundled encoder.",
        "style",
        "lower",
        FULL,
        lambda networks: GramDistance(networks.encoder()),
        (BUNDLED,),
    ),
    Declared(
        "moments",
        "Relative distance of means and deviations, bundled encoder.",
        "style",
        "lower",
        FULL,
        lambda networks: MomentDistance(networks.encoder()),
        (BUNDLED,),
    ),
    Declared(
        "gram_vgg19",
        "Mean squared error of Gram matrices, VGG-19 relu1_1 to relu5_1.",
        "style",
        "lower",
        FULL,
        lambda networks: GramError(networks.vgg(VGG19)),
        (VGG19,),
    ),
    Declared(
        "moments_vgg19",
        "Relative distance of means and deviations, VGG-19.",
        "style",
        "lower",
        FULL,
        lambda networks: MomentDistance(networks.vgg(VGG19)),
        (VGG19,),
    ),
    Declared(
        "vgg_style",
        "Gram distance over that of the photo, VGG-16: 1 is no style.",
        "style",
        "lower",
        _384,
        lambda networks: RelativeStyle(GramDistance(networks.vgg(VGG16))),
        (VGG16,),
    ),
    Declared(
        "vgg_moments",
        "Distance of means and deviations over the photo's, VGG-16.",
        "style",
        "lower",
        _384,
        lambda networks: RelativeStyle(MomentDistance(networks.vgg(VGG16))),
        (VGG16,),
    ),
    Declared(
        "histogram",
        "Hellinger distance of RGB-uv histograms.",
        "style",
        "lower",
        "256x256 px where a side is longer",
        lambda _: HistogramDistance(),
    ),
    Declared(
        "leakage",
        "Layout of the style picture that shows in the result.",
        "style",
        "lower",
        _384,
        lambda networks: StyleLeakage(networks.encoder()),
        (BUNDLED,),
    ),
    Declared(
        "likeness",
        "Cosine of the bundled encoder's means and deviations.",
        "style",
        "higher",
        "short side 224 px, centre",
        lambda networks: ImageLikeness(networks.pooled()),
        (BUNDLED,),
    ),
    Declared(
        "clip_image",
        "Cosine of CLIP's encodings of result and style.",
        "style",
        "higher",
        "short side 224 px, centre",
        lambda networks: ImageLikeness(networks.clip()),
        (CLIP,),
    ),
    Declared(
        "clip_text",
        "Cosine of CLIP's encodings of result and words.",
        "style",
        "higher",
        "short side 224 px, centre",
        lambda networks: WordLikeness(networks.clip()),
        (CLIP,),
    ),
    Declared(
        "clip_direction",
        "Cosine of the change of the picture and that of the words, by CLIP.",
        "style",
        "higher",
        "short side 224 px, centre",
        lambda networks: DirectionLikeness(networks.clip()),
        (CLIP,),
    ),
    # sets
    Declared(
        "fid",
        "Fréchet distance of results and styles, Inception-v3.",
        "style",
        "lower",
        _299,
        lambda networks: FrechetDistance(networks.inception()),
        (INCEPTION,),
        of_sets=True,
    ),
    Declared(
        "fid_infinity",
        "FID for infinitely many results, by a line through subsets.",
        "style",
        "lower",
        _299,
        lambda networks: FrechetDistance(networks.inception(), infinite=True),
        (INCEPTION,),
        of_sets=True,
    ),
    Declared(
        "kid",
        "Kernel distance of results and styles, Inception-v3.",
        "style",
        "lower",
        _299,
        lambda networks: KernelDistance(networks.inception()),
        (INCEPTION,),
        of_sets=True,
    ),
    Declared(
        "frechet",
        "The formula of fid on the bundled encoder.",
        "style",
        "lower",
        _224,
        lambda networks: FrechetDistance(networks.embedded),
        (BUNDLED,),
        of_sets=True,
    ),
    Declared(
        "kernel",
        "The formula of kid on the bundled encoder.",
        "style",
        "lower",
        _224,
        lambda networks: KernelDistance(networks.embedded),
        (BUNDLED,),
        of_sets=True,
    ),
    _artfid("artfid", "ArtFID (infinity), as its authors compute it.", "none: pictures at full size", None),
    _artfid(
        "artfid_512",
        "ArtFID as StyleID computes it.",
        "short side 512 px, antialiased bilinear, for Inception and LPIPS",
        512,
    ),
    Declared(
        "art_frechet",
        "(1 + perceptual) (1 + frechet), the formula of ArtFID.",
        "both",
        "lower",
        f"perceptual: {ALIKE}; frechet: {_224}",
        _art,
        (BUNDLED,),
        of_sets=True,
    ),
)

METRICS = {one.name: one for one in _ALL}


def find(name: str) -> Declared:
    """The metric called `name`. Raises UsageError, with the nearest name, if there is none."""
    if name not in METRICS:
        raise UsageError(f"there is no metric '{name}': {did_you_mean(name, METRICS)}")
    return METRICS[name]


def missing(names: Sequence[str], networks: Networks) -> dict[str, str]:
    """The metrics of these that cannot be computed here, with the reason and the remedy."""
    problems = {}
    for name in names:
        try:
            for weights in find(name).weights:
                networks.path(weights)
        except AtelierError as error:
            problems[name] = str(error)
    return problems


def measure(
    name: str,
    results: Sequence[Tensor],
    contents: Sequence[Tensor],
    styles: Sequence[Style],
    networks: Networks | None = None,
) -> Measurement:
    """A metric of results (1, 3, H, W), with their contents and styles: the mean over pairs, or of the set.

    Pairs for which a metric is not a number do not count. Raises UsageError for an unknown name, WeightsError
    or ResourceError for missing features, and InputError for pictures that cannot be measured.

    >>> import torch
    >>> photo = torch.rand(1, 3, 16, 16)
    >>> found = measure("psnr_luma", [photo * 0.5], [photo], [photo])
    >>> found.count, found.resize, found.features
    (1, "result to the content's size", {})
    """
    declared, eyes = find(name), networks or Networks()
    made = declared.make(eyes)
    features = {weights: eyes.hash(weights) for weights in declared.weights}
    if declared.of_sets:
        value = cast("SetMetric", made)(results, contents, styles)
        return Measurement(name, value, len(results), declared.resize, features)
    single = cast("Metric", made)
    values = [single(*three) for three in zip(results, contents, styles, strict=True)]
    numbers = [value for value in values if not math.isnan(value)]
    mean = sum(numbers) / len(numbers) if numbers else math.nan
    return Measurement(name, mean, len(numbers), declared.resize, features)
