"""Weights records of the known encoders: the published ones, and the one bundled with the package."""

from __future__ import annotations

from typing import Any

from atelier.store.records import File, Record, register

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

_CLIP_PAPER = (
    "Radford et al. 2021, Learning Transferable Visual Models From Natural Language, arXiv:2103.00020"
)
_OPENCLIP_PAPER = f"Schuhmann et al. 2022, LAION-5B, arXiv:2210.08402; {_CLIP_PAPER}"
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HUB = "https://huggingface.co"
#: Half of the vocabulary, the same for all of them.
_MERGES = File(
    name="merges.txt",
    sha256="9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
    bytes=524_619,
)


def _openclip(name: str, repository: str, revision: str, file: File, **facts: Any) -> Record:
    """A CLIP in OpenCLIP's layout on the Hugging Face hub, with its settings and vocabulary."""
    return Record(
        name=name,
        kind="pipeline",
        files=(
            File(name="config.json"),
            File(name="open_clip_config.json"),
            File(name="vocab.json"),
            _MERGES,
            file,
        ),
        revision=revision,
        sources=(f"{_HUB}/{repository}/resolve/{{revision}}",),
        **facts,
    )


register(
    _openclip(
        "clip_vit_b32.openai",
        "timm/vit_base_patch32_clip_224.openai",
        "a6f597a30f7b82c51704746581f9a4e41421e878",
        File(
            name="open_clip_model.safetensors",
            sha256="e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
            bytes=605_143_284,
        ),
        licence="MIT (openai/CLIP)",
        paper=_CLIP_PAPER,
        normalisation=_CLIP,
        note="ViT-B/32 of OpenAI, which CLIPstyler uses.",
    )
)

register(
    _openclip(
        "clip_vit_b16.openai",
        "timm/vit_base_patch16_clip_224.openai",
        "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
        File(name="open_clip_model.safetensors"),
        licence="MIT (openai/CLIP)",
        paper=_CLIP_PAPER,
        normalisation=_CLIP,
        note="ViT-B/16 of OpenAI, which ZeCon uses.",
    )
)

register(
    Record(
        name="clip_vit_l14.openai",
        kind="pipeline",
        files=(
            File(
                name="config.json",
                sha256="8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a",
                bytes=4519,
            ),
            File(
                name="vocab.json",
                sha256="3f0c4f7d2086b61b38487075278ea9ed04edb53a03cbb045b86c27190fa8fb69",
                bytes=961_143,
            ),
            _MERGES,
            File(
                name="model.safetensors",
                sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
                bytes=1_710_540_580,
            ),
        ),
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        sources=(f"{_HUB}/openai/clip-vit-large-patch14/resolve/{{revision}}",),
        licence="MIT (openai/CLIP)",
        paper=_CLIP_PAPER,
        normalisation=_CLIP,
        note="ViT-L/14 of OpenAI.",
    )
)

register(
    _openclip(
        "clip_vit_b32.laion2b",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "1a25a446712ba5ee05982a381eed697ef9b435cf",
        File(
            name="open_clip_model.safetensors",
            sha256="ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6",
            bytes=605_143_316,
        ),
        licence="MIT (LAION)",
        paper=_OPENCLIP_PAPER,
        normalisation=_CLIP,
        note="ViT-B/32 of OpenCLIP.",
    )
)

register(
    _openclip(
        "clip_vit_l14.laion2b",
        "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
        "1627032197142fbe2a7cfec626f4ced3ae60d07a",
        File(
            name="open_clip_pytorch_model.safetensors",
            sha256="7d129ed747e0ed53e82dfcc140382b51be66b56e6a9bdc3258afd2846e3bb019",
            bytes=1_710_517_748,
        ),
        licence="MIT (LAION)",
        paper=_OPENCLIP_PAPER,
        normalisation=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        note="ViT-L/14 of OpenCLIP.",
    )
)
