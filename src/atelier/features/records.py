"""Weights records of the known encoders: the published ones, and the one bundled with the package."""

from __future__ import annotations

from atelier.store.records import Record, register

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_VGG_PAPER = "Simonyan and Zisserman 2015, Very Deep Convolutional Networks, arXiv:1409.1556"
_TORCHVISION = "BSD-3-Clause (torchvision), trained on ImageNet"

register(
    Record(
        name="encoder.atelier",
        file="encoder.safetensors",
        licence="Apache-2.0; its training pictures are for research",
        paper="VGG-style classifier trained with `atelier train encoder`; see its model card",
        normalisation=_IMAGENET,
        bundled="encoder.safetensors",
        note="Bundled with the package; 3x3 convolutions with batch norm folded in, taps up to relu5_1.",
    )
)

register(
    Record(
        name="words.atelier",
        file="words.safetensors",
        licence="Apache-2.0; its training pictures are for research",
        paper="Closed vocabulary fitted with `atelier train words`; see its model card",
        bundled="words.safetensors",
        note="Bundled with the package; words to style statistics of encoder.atelier, see 'atelier words'.",
    )
)

register(
    Record(
        name="vgg16.imagenet",
        file="vgg16-397923af.pth",
        sources=("https://download.pytorch.org/models/vgg16-397923af.pth",),
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        bytes=553_433_881,
        licence=_TORCHVISION,
        paper=_VGG_PAPER,
        normalisation=_IMAGENET,
        converter="features",
        note="The classifier (nine tenths of the file) is not stored.",
    )
)

register(
    Record(
        name="vgg19.imagenet",
        file="vgg19-dcbb9e9d.pth",
        sources=("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",),
        sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        bytes=574_673_361,
        licence=_TORCHVISION,
        paper=_VGG_PAPER,
        normalisation=_IMAGENET,
        converter="features",
        note="The classifier (nine tenths of the file) is not stored.",
    )
)

register(
    Record(
        name="vgg_normalised.adain",
        file="vgg_normalised.pth",
        sources=("https://github.com/naoto0804/pytorch-AdaIN/releases/download/v0.0.0/vgg_normalised.pth",),
        sha256="804ca2835ecf7539f0cd2a7ac3c18ce81e6f8468969ae7117ac0c148d286bb4a",
        bytes=80_102_481,
        licence="MIT (naoto0804/pytorch-AdaIN)",
        paper="Huang and Belongie 2017, Arbitrary Style Transfer in Real-time, arXiv:1703.06868",
        note="VGG-19 with normalised activations; its first 1x1 convolution replaces mean and std.",
    )
)
