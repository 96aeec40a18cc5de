"""Published networks at their own size, prepared by atelier, against the plain float32 contiguous form.

Both have the same random weights (from a seed), no style kept, and take turns. The plain form is the same
network as its authors run it: float32, NCHW, one operation after the other; for WCT with the
singular value decompositions of its published code.

    python benchmarks/published_networks.py [--size 512] [--networks adain wct photo art] [--repetitions 3]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from measure import Promise, arguments, in_turns, report, set_threads
from torch import Tensor

from atelier.apps.doctor import convolution_rate
from atelier.core import device as devices
from atelier.core.allocator import keep_freed_memory
from atelier.features.vgg import VGG, VGG_NORMALISED
from atelier.maths.cholesky import gaussian, recoloured
from atelier.maths.moments import channel_moments
from atelier.maths.whitening import adain, colouring, whiten_and_colour
from atelier.networks.decoder import DecoderPlan, Decoders
from atelier.networks.reversible import ART, PHOTO, Reversible

Work = Callable[[], Tensor]
#: How many times faster than the plain form.
FASTER = {"adain": 2.0, "wct": 3.0, "photo": 2.0, "art": 2.0}
LEVELS = (5, 4, 3, 2, 1)


def networks(levels: tuple[int, ...]) -> tuple[VGG, Decoders]:
    """The published encoder and its decoders, in the plain form."""
    plans = [DecoderPlan.of(VGG_NORMALISED, level) for level in levels]
    eyes = VGG(VGG_NORMALISED, padding="reflect", seed=0).requires_grad_(False)
    return eyes, Decoders(plans, padding="reflect").fill(1).requires_grad_(False)


def adain_pair(content: Tensor, style: Tensor, dtype: torch.dtype) -> tuple[Work, Work]:
    """AdaIN as it is published, prepared and plain."""

    def work(eyes: VGG, decoders: Decoders) -> Tensor:
        found, wanted = (eyes(one, ["relu4_1"])["relu4_1"] for one in (content, style))
        mean, deviation = channel_moments(wanted, unbiased=True)
        picture: Tensor = decoders.level(4)({"relu4_1": adain(found, mean, deviation)})
        return picture

    plain, (eyes, decoders) = networks((4,)), networks((4,))
    ready = eyes.prepare("cpu", dtype), decoders.prepare("cpu", dtype)
    return lambda: work(*ready), lambda: work(*plain)


def svd_wct(content: Tensor, style: Tensor) -> Tensor:
    """Whitening and colouring by singular values, as WCT's published PyTorch code does it."""
    flat, wanted = (one[0].flatten(1).double() for one in (content, style))
    mean, target = flat.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    flat, wanted = flat - mean, wanted - target
    own = flat @ flat.T / (flat.shape[1] - 1) + torch.eye(len(flat)).double()
    _, values, vectors = torch.linalg.svd(own, full_matrices=False)
    keep = values > 1e-5
    basis = vectors[keep].T
    white = basis @ torch.diag(values[keep] ** -0.5) @ basis.T @ flat
    _, values, vectors = torch.linalg.svd(wanted @ wanted.T / (wanted.shape[1] - 1), full_matrices=False)
    keep = values > 1e-5
    basis = vectors[keep].T
    moved = basis @ torch.diag(values[keep] ** 0.5) @ basis.T @ white + target
    return moved.view(content.shape[1:])[None].float()


def wct_pair(content: Tensor, style: Tensor, dtype: torch.dtype) -> tuple[Work, Work]:
    """All five levels of WCT, prepared and plain."""
    (plain_eyes, plain_decoders), (eyes, decoders) = networks(LEVELS), networks(LEVELS)
    eyes.prepare("cpu", dtype)
    decoders.prepare("cpu", dtype)

    def ready() -> Tensor:
        taps = [f"relu{level}_1" for level in LEVELS]
        picture, wanted = content, eyes(style, taps)
        for level, tap in zip(LEVELS, taps, strict=True):
            found = whiten_and_colour(eyes(picture, [tap])[tap], colouring(wanted[tap]))
            picture = decoders.level(level)({tap: found})
        return picture

    def plain() -> Tensor:
        picture = content
        for level in LEVELS:
            tap = f"relu{level}_1"
            found, wanted = (plain_eyes(one, [tap])[tap] for one in (picture, style))
            picture = plain_decoders.level(level)({tap: svd_wct(found, wanted)})
        return picture

    return ready, plain


def reversible_pair(kind: str, content: Tensor, style: Tensor, dtype: torch.dtype) -> tuple[Work, Work]:
    """CAP-VSTNet, prepared and plain."""

    def work(network: Reversible) -> Tensor:
        found, wanted = network(content), gaussian(network(style))
        picture: Tensor = network(recoloured(found, gaussian(found), wanted), inverse=True)
        return picture

    plan = {"photo": PHOTO, "art": ART}[kind]
    plain = Reversible(plan, seed=0).requires_grad_(False).to(memory_format=torch.contiguous_format)
    ready = Reversible(plan, seed=0).prepare("cpu", dtype)
    return lambda: work(ready), lambda: work(plain)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the square pictures in pixels")
    parser.add_argument("--networks", nargs="+", default=list(FASTER), choices=list(FASTER))
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    set_threads(options)
    keep_freed_memory()
    dtype = devices.compute_dtype(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((2, 3, 32, 32), generator=generator)
    larger = F.interpolate(coarse, (options.size, options.size), mode="bicubic").clamp(0, 1)
    content, style = larger.split(1)
    rows, promises = [], []
    with torch.inference_mode():
        for name in options.networks:
            make = {"adain": adain_pair, "wct": wct_pair}.get(name)
            pair = make(content, style, dtype) if make else reversible_pair(name, content, style, dtype)
            seconds = in_turns(dict(zip(("ready", "plain"), pair, strict=True)), options.repetitions)
            ready, plain = median(seconds["ready"]), median(seconds["plain"])
            rows.append((name, ready, plain, plain / ready))
            promises.append(Promise(f"{name}, times faster", plain / ready, FASTER[name], at_least=True))
    fast, slow = (convolution_rate(torch.device("cpu"), one) / 1e12 for one in (dtype, torch.float32))
    title = (
        f"published networks at {options.size} px; a convolution reaches {fast:.2f} TFLOP/s in {dtype}, "
        f"{slow:.2f} in float32"
    )
    head = ("network", "atelier s", "plain s", "times faster")
    return report(title, head, rows, promises, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
