"""One Gatys iteration with VGG-19, against the plain float32 contiguous way, in the same run.

The reference is PyTorch's neural style tutorial, written out below: an `nn.Sequential` in float32 and
NCHW with losses as layers between. Both have the same random weights, taps, losses, zero padding, start
and optimiser (Adam), so their loss curves must agree. They take turns, one iteration each.

    python benchmarks/gatys_vgg19.py [--size 512] [--iterations 100] [--require 2.5] [--within 0.02]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
import torch.nn.functional as F
from measure import Promise, arguments, report, set_threads
from torch import Tensor, nn

from atelier import examples
from atelier.core import device as devices
from atelier.core.allocator import keep_freed_memory
from atelier.features.vgg import VGG, VGG19
from atelier.images import Picture
from atelier.maths import Descent
from atelier.methods.base import Job
from atelier.methods.optimise.gatys import Gatys, objective_at

STYLE_WEIGHT, CONTENT_WEIGHT, STEP_SIZE, BETAS = 1.0, 0.05, 0.02, (0.9, 0.99)


# The reference: nothing of atelier below but the numbers of the weights.


class Normalisation(nn.Module):
    """The first layer: pixels with ImageNet's mean and deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.tensor([0.485, 0.456, 0.406]).view(-1, 1, 1)
        self.deviation = torch.tensor([0.229, 0.224, 0.225]).view(-1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.deviation


def gram_matrix(features: Tensor) -> Tensor:
    batch, channels, height, width = features.size()
    flat = features.view(batch * channels, height * width)
    return torch.mm(flat, flat.t()).div(height * width)


class ContentLayer(nn.Module):
    """Passes features on and keeps their distance from the content's, relative to the content's size."""

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self.target, self.unit = target.detach(), target.detach().square().mean()

    def forward(self, features: Tensor) -> Tensor:
        self.loss = F.mse_loss(features, self.target) / self.unit
        return features


class StyleLayer(nn.Module):
    """Passes features on and keeps their Gram matrix's distance, relative to the style's size."""

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self.target = gram_matrix(target).detach()
        self.unit = self.target.square().mean()

    def forward(self, features: Tensor) -> Tensor:
        self.loss = F.mse_loss(gram_matrix(features), self.target) / self.unit
        return features


class Reference:
    """The tutorial's loop: build the network with its loss layers, then step after step."""

    def __init__(self, weights: Mapping[str, Tensor], content: Tensor, style: Tensor, knobs: Gatys.Knobs):
        self.network = nn.Sequential(Normalisation())
        self.styles: list[StyleLayer] = []
        self.contents: list[ContentLayer] = []
        for name in VGG19.taps():
            self.network.append(_layer(name, weights))
            if name in knobs.content_layers:
                self.contents.append(ContentLayer(self.network(content).detach()))
                self.network.append(self.contents[-1])
            if name in knobs.style_layers:
                self.styles.append(StyleLayer(self.network(style).detach()))
                self.network.append(self.styles[-1])
            if (len(self.contents), len(self.styles)) == (len(knobs.content_layers), len(knobs.style_layers)):
                break
        self.network.eval().requires_grad_(False)
        self.image = content.clone().requires_grad_(True)
        self.optimiser = torch.optim.Adam([self.image], lr=STEP_SIZE, betas=BETAS)

    def step(self) -> float:
        with torch.no_grad():
            self.image.clamp_(0, 1)
        self.optimiser.zero_grad()
        self.network(self.image)
        style = sum(layer.loss for layer in self.styles) / len(self.styles)
        content = sum(layer.loss for layer in self.contents) / len(self.contents)
        loss = STYLE_WEIGHT * style + CONTENT_WEIGHT * content
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())


def _layer(name: str, weights: Mapping[str, Tensor]) -> nn.Module:
    if name.startswith("relu"):
        return nn.ReLU(inplace=False)
    if name.startswith("pool"):
        return nn.MaxPool2d(2, 2)
    weight = weights[f"{name}.weight"].contiguous()
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    layer.load_state_dict({"weight": weight, "bias": weights[f"{name}.bias"]})
    return layer.requires_grad_(False)


# atelier's way, with the reference stepping in between.


def race(
    content: Tensor, style: Tensor, knobs: Gatys.Knobs, seed: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds and losses of every iteration, of both."""
    device = torch.device("cpu")
    job = Job(content, [style], [1.0], device, devices.compute_dtype(device))
    encoder = VGG(VGG19, padding="zeros", seed=seed)
    reference = Reference(encoder.state_dict(), content, style, knobs)
    objective = objective_at(job, knobs, encoder.prepare(device, job.dtype), content)
    seconds: dict[str, list[float]] = {"atelier": [], "reference": []}
    losses: dict[str, list[float]] = {"atelier": [], "reference": []}
    since = time.perf_counter()

    def turn(evaluation: int, terms: Mapping[str, float], picture: Callable[[], Tensor]) -> bool:
        nonlocal since
        seconds["atelier"].append(time.perf_counter() - since)
        losses["atelier"].append(sum(terms.values()))
        start = time.perf_counter()
        losses["reference"].append(reference.step())
        seconds["reference"].append(time.perf_counter() - start)
        since = time.perf_counter()
        return True

    with torch.enable_grad():
        Descent(
            objective, iterations=knobs.iterations, step_size=STEP_SIZE, average=knobs.average, report=turn
        ).run(content)
    return seconds, losses


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of both pictures in pixels")
    parser.add_argument("--iterations", type=int, default=100, help="iterations of each")
    parser.add_argument("--taps", choices=("tutorial", "published"), default="tutorial", help="whose taps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    parser.add_argument("--require", type=float, default=2.5, help="least ratio of seconds an iteration")
    parser.add_argument("--within", type=float, default=0.02, help="largest relative difference of losses")
    options = parser.parse_args()
    set_threads(options)
    keep_freed_memory()
    layers = {name: Gatys.qualities[options.taps][name] for name in ("style_layers", "content_layers")}
    knobs = Gatys.Knobs(
        **layers, style_loss="gram", style_weight=STYLE_WEIGHT, content_weight=CONTENT_WEIGHT, smoothness=0.0,
        iterations=options.iterations, padding="zeros",
    )  # fmt: skip
    content = Picture.of(examples.photo("astronaut")).resized((options.size, options.size)).tensor()
    style = Picture.of(examples.style("stained_glass", size=options.size)).tensor()
    seconds, losses = race(content, style, knobs, options.seed)
    pairs = list(zip(losses["atelier"], losses["reference"], strict=True))
    apart = max(abs(mine - theirs) / theirs for mine, theirs in pairs[len(pairs) // 2 :])
    # The first iteration warms both up.
    typical = {name: median(values[1:] or values) for name, values in seconds.items()}
    rows = [(name, typical[name], losses[name][0], losses[name][-1]) for name in ("atelier", "reference")]
    promises = [
        Promise("times faster", typical["reference"] / typical["atelier"], options.require, at_least=True),
        Promise("losses apart in the last half (relative)", apart, options.within),
    ]
    title = f"Gatys with VGG-19, {options.taps} taps, {options.size} px, {options.iterations} iterations"
    head = ("way", "seconds an iteration", "first loss", "last loss")
    return report(title, head, rows, promises, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
