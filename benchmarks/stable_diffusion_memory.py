"""The memory plan of Stable Diffusion against the memory that a process takes.

Networks of the full size are filled with one number, so that no weights are needed. Each runs in a process of
its own, whose largest resident memory is compared with the plan: the weights, the largest step, and what a
process takes besides.

    python benchmarks/stable_diffusion_memory.py --size 512
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import torch

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


def planned(kind: str, latent: tuple[int, int]) -> int:
    """The bytes that the plan expects for one network in float32."""
    key = memory._key(SETTINGS[kind])
    if kind == "unet":
        step = memory._unet_peak(key, latent, 1, 768, True, torch.float32)
    else:
        step = memory._vae_peak(key, latent, True, torch.float32)
    return 4 * memory._count(key, kind) + step + memory._BESIDES["cpu"]


@torch.no_grad()
def run(kind: str, latent: tuple[int, int]) -> None:
    """One pass of a network."""
    network = layout.empty(kind, SETTINGS[kind]).to_empty(device="cpu")
    for weight in network.parameters():
        weight.fill_(1e-3)
    if kind == "unet":
        network(torch.zeros(1, 4, *latent), torch.zeros(1), torch.zeros(1, 77, 768))
    else:
        network.decode(torch.zeros(1, 4, *latent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--run", choices=SETTINGS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    latent = (options.size // 8, options.size // 8)
    if options.run:
        run(options.run, latent)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    for kind in SETTINGS:
        command = [sys.executable, __file__, "--size", str(options.size), "--run", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken, expected = int(done.stdout.split()[-1]), planned(kind, latent)
        print(
            f"{kind}: {taken / 2**30:.2f} GiB taken, {expected / 2**30:.2f} planned, {taken / expected:.3f}"
        )


if __name__ == "__main__":
    main()
