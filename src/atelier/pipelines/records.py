"""Weights records of the pipelines that several methods use."""

from __future__ import annotations

from atelier.store.records import File, Record, register

_PARTS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)


def _pipeline(name: str, repository: str, revision: str, note: str) -> Record:
    return Record(
        name=name,
        kind="pipeline",
        files=tuple(File(name=part) for part in _PARTS),
        revision=revision,
        sources=(f"https://huggingface.co/{repository}/resolve/{{revision}}",),
        licence="CreativeML OpenRAIL-M",
        paper="Rombach et al. 2022, High-Resolution Image Synthesis with Latent Diffusion, arXiv:2112.10752",
        note=note,
    )


register(
    _pipeline(
        "stable_diffusion.v1_5",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        "Stable Diffusion 1.5, 4.3 GB.",
    )
)
register(
    _pipeline(
        "stable_diffusion.v1_4",
        "CompVis/stable-diffusion-v1-4",
        "133a221b8aa7292a167afc5127cb63fb5005638b",
        "Stable Diffusion 1.4, with which StyleID was published, 4.3 GB.",
    )
)
