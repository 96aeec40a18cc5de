"""The memory plan of Stable Diffusion against the memory that a process takes.

Networks of the full size are filled with one number, so that no weights are needed. Each runs in a process of
its own, whose largest resident memory is compared with the plan: the weights, the largest step, and what a
process takes besides. `phdiffusion` and `deadiff` are the UNet with the networks of these methods beside it,
and `training` is a step that trains a LoRA of rank 16 for UNet and text encoder, with gradient checkpointing.

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

from atelier.pipelines import deadiff, phdiffusion, training_memory
from atelier.pipelines import stable_diffusion_layout as layout
from atelier.pipelines import stable_diffusion_memory as memory
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
#: The pictures that the UNet sees at once.
BATCH = {"unet": 1, "phdiffusion": 1, "deadiff": 2}
KINDS = ("vae", *BATCH, "training")


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


def planned(kind: str, latent: tuple[int, int], dtype: torch.dtype) -> int:
    """The bytes that the plan expects for a network in float32, for one with a method's, or for training."""
    if kind == "training":
        return planned_training(latent, dtype)
    own, base = beside(kind), kind if kind == "vae" else "unet"
    key = memory.key_of(SETTINGS[base])
    if base == "unet":
        step = memory._unet_peak(key, latent, BATCH[kind], 768, True, torch.float32)
    else:
        step = memory.vae_peak(key, latent, True, torch.float32)
    more = 0 if own is None else sum(one.numel() for one in own.parameters())
    return 4 * (memory._count(key, base) + more) + step + memory.BESIDES["cpu"]


def planned_training(latent: tuple[int, int], dtype: torch.dtype) -> int:
    parts = layout.Parts(*(layout.Part(one, dict) for one in (*SETTINGS.values(), TEXT)), Path())
    size = (8 * latent[0], 8 * latent[1])
    run = training_memory.Run(size, 1, RANK, text=True, checkpointing=True, drawing=False, steps=1)
    plan = training_memory.plan(parts, run, torch.device("cpu"), dtype)
    print(plan, flush=True)
    # The VAE and its pass are not part of what is measured.
    step = training_memory.step_bytes(parts, run, dtype)
    return plan.total - plan.working + step - 4 * memory.weights_of(parts)[1]


def train(latent: tuple[int, int], dtype: torch.dtype) -> None:
    """Two steps of training a LoRA."""
    unet = filled(layout.empty("unet", SETTINGS["unet"]), dtype)
    text = filled(layout.empty("text", TEXT), dtype)
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


def filled(network: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The network on the CPU, all weights alike."""
    network = network.to(dtype).to_empty(device="cpu").requires_grad_(False).eval()
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
