"""The memory plan of Stable Diffusion against the memory that a process takes.

Networks of the full size are filled with one number, so that no weights are needed. Each runs in a process of
its own, whose largest resident memory is compared with the plan: the weights, the largest step, and what a
process takes besides. `phdiffusion` and `deadiff` are the UNet with the networks of these methods beside it.

    python benchmarks/stable_diffusion_memory.py --size 512
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import torch

from atelier.pipelines import deadiff, phdiffusion
from atelier.pipelines import stable_diffusion_layout as layout
from atelier.pipelines import stable_diffusion_memory as memory

SETTINGS = {
    "unet": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
}
#: The pictures that the UNet sees at once.
BATCH = {"unet": 1, "phdiffusion": 1, "deadiff": 2}


def beside(kind: str) -> torch.nn.Module | None:
    """The networks of a method beside the UNet, without weights."""
    with torch.device("meta"):
        if kind == "phdiffusion":
            return phdiffusion.PhDiffusion(phdiffusion.Shape((320, 640, 1280, 1280)))
        if kind == "deadiff":
            vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
            vision |= {"num_attention_heads": 16, "patch_size": 14, "image_size": 224}
            qformer = {"vocab_size": 30523, "encoder_hidden_size": 1024, "cross_attention_frequency": 1}
            channels = (320, 320, 640, 640, *[1280] * 6, 640, 640, 640, 320, 320, 320)
            layers = tuple((width, 768) for width in channels)
            qformer |= {"hidden_size": 768}
            return deadiff.Deadiff(deadiff.Sizes(vision, qformer, 16, 3072, layers, shared=True))
    return None


def planned(kind: str, latent: tuple[int, int]) -> int:
    """The bytes that the plan expects for one network in float32, or for the UNet with those of a method."""
    own, base = beside(kind), kind if kind == "vae" else "unet"
    key = memory._key(SETTINGS[base])
    if base == "unet":
        step = memory._unet_peak(key, latent, BATCH[kind], 768, True, torch.float32)
    else:
        step = memory._vae_peak(key, latent, True, torch.float32)
    more = 0 if own is None else sum(one.numel() for one in own.parameters())
    return 4 * (memory._count(key, base) + more) + step + memory._BESIDES["cpu"]


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """The network on the CPU, all weights alike."""
    network = network.to_empty(device="cpu").requires_grad_(False).eval()
    for weight in network.parameters():
        weight.fill_(1e-3)
    return network


@torch.no_grad()
def run(kind: str, latent: tuple[int, int]) -> None:
    """One pass of a network; the networks of a method read a picture before."""
    network = filled(layout.empty(kind if kind == "vae" else "unet", SETTINGS.get(kind, SETTINGS["unet"])))
    if kind == "vae":
        network.decode(torch.zeros(1, 4, *latent))
        return
    own, picture = beside(kind), torch.zeros(1, 3, 8 * latent[0], 8 * latent[1])
    if kind == "phdiffusion":
        phdiffusion.Injection(network, filled(own)).see(picture, picture[:, :1])
    if kind == "deadiff":
        own = filled(own)
        for part in (own.visions["style"].tower, *(one.qformer for one in own.readers.values())):
            part.embeddings.position_ids = torch.arange(part.embeddings.position_ids.shape[1])[None]
        joint = deadiff.Joint(network, own)
        joint.tokens = {one: own.tokens(one, picture).expand(2, -1, -1) for one in deadiff.KINDS}
    count = BATCH[kind]
    network(torch.zeros(count, 4, *latent), torch.zeros(1), torch.zeros(count, 77, 768))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--run", choices=("vae", *BATCH), help=argparse.SUPPRESS)
    options = parser.parse_args()
    latent = (options.size // 8, options.size // 8)
    if options.run:
        run(options.run, latent)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    for kind in ("vae", *BATCH):
        command = [sys.executable, __file__, "--size", str(options.size), "--run", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken, expected = int(done.stdout.split()[-1]), planned(kind, latent)
        print(
            f"{kind}: {taken / 2**30:.2f} GiB taken, {expected / 2**30:.2f} planned, {taken / expected:.3f}"
        )


if __name__ == "__main__":
    main()
