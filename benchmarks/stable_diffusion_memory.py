"""The memory plan of Stable Diffusion against the memory that a process takes.

Networks of the full size are filled with one number, so that no weights are needed. Each runs in a process of
its own, whose largest resident memory is compared with the plan: the weights, the largest step, and what a
process takes besides. `training` is a step that trains a LoRA of rank 16 for UNet and text encoder, with
gradient checkpointing.

    python benchmarks/stable_diffusion_memory.py --size 512
    python benchmarks/stable_diffusion_memory.py --size 512 --only training --half
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch

from atelier.pipelines import stable_diffusion_layout as layout
from atelier.pipelines import stable_diffusion_memory as memory
from atelier.pipelines import training_memory
from atelier.pipelines.lora_training import Trained

SETTINGS = {
    "unet": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
RANK = 16
KINDS = (*SETTINGS, "training")


def planned(kind: str, latent: tuple[int, int], dtype: torch.dtype) -> int:
    """The bytes that the plan expects for one network in float32, or for training."""
    if kind == "training":
        parts = layout.Parts(*(layout.Part(one, dict) for one in (*SETTINGS.values(), TEXT)), Path())
        size = (8 * latent[0], 8 * latent[1])
        run = training_memory.Run(size, 1, RANK, text=True, checkpointing=True, drawing=False, steps=1)
        plan = training_memory.plan(parts, run, torch.device("cpu"), dtype)
        print(plan, flush=True)
        # The VAE and its pass are not part of what is measured.
        step = training_memory.step_bytes(parts, run, dtype)
        return plan.total - plan.working + step - 4 * memory.weights_of(parts)[1]
    key = memory.key_of(SETTINGS[kind])
    if kind == "unet":
        step = memory._unet_peak(key, latent, 1, 768, True, torch.float32)
    else:
        step = memory.vae_peak(key, latent, True, torch.float32)
    return 4 * memory._count(key, kind) + step + memory.BESIDES["cpu"]


def train(latent: tuple[int, int], dtype: torch.dtype) -> None:
    """Two steps of training a LoRA."""
    unet, text = filled("unet", SETTINGS["unet"], dtype), filled("text", TEXT, dtype)
    text.embeddings.position_ids = torch.arange(77)[None]
    networks = {"unet": unet, "text": text}
    learnt = Trained(networks, RANK, 1.0)
    learnt.attach(networks)
    unet.train().enable_gradient_checkpointing()
    optimiser = torch.optim.AdamW(learnt.parameters())
    for _ in range(2):
        words = text(torch.zeros(1, 77, dtype=torch.long)).last_hidden_state
        made = unet(torch.zeros(1, 4, *latent, dtype=dtype), torch.zeros(1), words).sample
        made.float().square().mean().backward(inputs=list(learnt.parameters()))
        optimiser.step()
        optimiser.zero_grad()


def filled(kind: str, settings: dict, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A network whose weights are all one number."""
    network = layout.empty(kind, settings).to(dtype).to_empty(device="cpu").requires_grad_(False)
    for weight in network.parameters():
        weight.fill_(1e-3)
    return network


@torch.no_grad()
def run(kind: str, latent: tuple[int, int]) -> None:
    """One pass of a network."""
    network = filled(kind, SETTINGS[kind])
    if kind == "unet":
        network(torch.zeros(1, 4, *latent), torch.zeros(1), torch.zeros(1, 77, 768))
    else:
        network.decode(torch.zeros(1, 4, *latent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--only", choices=KINDS, help="one of them")
    parser.add_argument("--half", action="store_true", help="train in bfloat16")
    parser.add_argument("--run", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    latent = (options.size // 8, options.size // 8)
    dtype = torch.bfloat16 if options.half else torch.float32
    if options.run:
        train(latent, dtype) if options.run == "training" else run(options.run, latent)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    for kind in [options.only] if options.only else KINDS:
        command = [sys.executable, __file__, "--size", str(options.size), "--run", kind]
        command += ["--half"] if options.half else []
        # Freed memory goes back at once; otherwise the allocator would keep blocks that other steps left.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        taken, expected = int(done.stdout.split()[-1]), planned(kind, latent, dtype)
        print(
            f"{kind}: {taken / 2**30:.2f} GiB taken, {expected / 2**30:.2f} planned, {taken / expected:.3f}"
        )


if __name__ == "__main__":
    main()
