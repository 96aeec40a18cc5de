"""The encoder's forward pass, as a share of what this machine's convolutions can do.

The peak is measured in the same run: the best of several 3x3 convolutions, channels-last, in the
encoder's dtype. They and the encoder take turns; medians count. Multiply-adds come from the plan.

    python benchmarks/encoder_peak.py [--size 512] [--tap relu4_1] [--require 0.6]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from measure import Promise, arguments, in_turns, report, set_threads
from torch import Tensor, nn

from atelier import features
from atelier.apps.doctor import convolution_rate
from atelier.core import device as devices
from atelier.core.allocator import keep_freed_memory
from atelier.core.errors import WeightsError
from atelier.features.vgg import ENCODER, VGG, Plan

#: Channels and side of the layers that may show the peak: where it lies differs between processors.
SHAPES = ((64, 256), (128, 128), (128, 64), (256, 64), (512, 32))


def multiply_adds(plan: Plan, tap: str, size: int) -> int:
    """Of all convolutions up to `tap`, for a square picture of `size` pixels."""
    stage, position = (int(number) for number in re.findall(r"\d+", tap))
    total = 0
    for name, before, after in plan.layers():
        at = tuple(int(number) for number in re.findall(r"\d+", name))
        if at > (stage, position):
            break
        side = size
        for _ in range(at[0] - 1):
            side = (side + plan.ceil_pool) // 2
        total += 9 * before * after * side**2
    return total


def convolution(channels: int, side: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """One convolution of the peak's measurement, ready to run."""
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(dtype=dtype, memory_format=torch.channels_last)
    image = torch.randn(1, channels, side, side).to(dtype).contiguous(memory_format=torch.channels_last)
    return partial(layer, image)


def bundled(padding: str) -> VGG:
    """The encoder of the package, or its plan with random weights where it is not there yet."""
    try:
        return features.load(padding=padding)  # type: ignore[arg-type]
    except WeightsError:
        return VGG(ENCODER, padding=padding, seed=0)  # type: ignore[arg-type]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the picture in pixels")
    parser.add_argument("--tap", default="relu4_1", help="the deepest tap")
    parser.add_argument("--padding", choices=("replicate", "zeros", "reflect"), default="replicate")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--require", type=float, default=0.6, help="least share of the peak")
    options = parser.parse_args()
    set_threads(options)
    keep_freed_memory()
    device = torch.device("cpu")
    dtype = devices.compute_dtype(device)
    encoder = bundled(options.padding).prepare(device, dtype)
    image = torch.rand(1, 3, options.size, options.size)
    works: dict[str, Callable[[], object]] = {"encoder": lambda: encoder(image, [options.tap])}
    operations = {"encoder": 2 * multiply_adds(encoder.plan, options.tap, options.size)}
    for channels, side in SHAPES:
        name = f"{channels} to {channels} at {side} px"
        works[name] = convolution(channels, side, dtype)
        operations[name] = 2 * 9 * channels**2 * side**2
    with torch.inference_mode():
        seconds = in_turns(works, options.repetitions, warm=2)
    rates = {name: operations[name] / median(times) / 1e9 for name, times in seconds.items()}
    rows = [(name, operations[name] / 1e9, 1e3 * median(seconds[name]), rates[name]) for name in works]
    # The doctor's figure is a best, not a median, and stands here for comparison only.
    doctor = convolution_rate(device, dtype) / 1e9
    rows.append(("what 'atelier doctor' says", 2 * 9 * 128**4 / 1e9, 2 * 9 * 128**4 / doctor / 1e6, doctor))
    peak = max(rate for name, rate in rates.items() if name != "encoder")
    share = Promise("share of the convolution peak", rates["encoder"] / peak, options.require, at_least=True)
    title = f"{encoder.plan.name} to {options.tap}, {options.size} px, {options.padding} padding, {dtype}"
    head = ("work", "GFLOP", "milliseconds", "GFLOP/s")
    return report(title, head, rows, [share], as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
