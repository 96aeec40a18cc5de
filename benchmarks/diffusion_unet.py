"""The UNet of the published 256 px network: a forward and a backward pass, prepared and in the plain form.

Both have the same random weights. The plain form is float32 and NCHW; the prepared form is what `zecon` runs:
bfloat16 where the processor has it, and channels-last. Each runs in a process of its own, so that its peak of
memory is its own; they take turns.

    python benchmarks/diffusion_unet.py [--size 256] [--repetitions 2]
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

from measure import GIB, RSS_UNIT, Promise, arguments, report

FORMS = ("plain", "prepared")


def one_pass(form: str, size: int, threads: int | None) -> None:
    """Print the seconds of a forward and a backward pass to the picture, and the peak in GiB, as JSON."""
    import resource
    import time

    import torch

    from atelier.core.device import compute_dtype
    from atelier.networks.unet import UNet, UNetPlan

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    plan = UNetPlan(256, (1, 1, 2, 2, 4, 4), blocks=2, attention=(8, 16, 32), out=6)
    network = UNet(plan).requires_grad_(False).eval()
    if form == "prepared":
        dtype = compute_dtype(torch.device("cpu"))
        network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        network.layout = torch.contiguous_format
    picture = torch.randn(1, 3, size, size, requires_grad=True)
    start = time.perf_counter()
    network(picture, torch.tensor([500.0])).square().mean().backward()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / GIB
    print(json.dumps([seconds, peak]))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--form", choices=FORMS, help="one pass of this form, for the benchmark itself")
    options = parser.parse_args()
    if options.form:
        one_pass(options.form, options.size, options.threads)
        return 0
    found: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for _ in range(options.repetitions):
        for form in FORMS:
            command = [sys.executable, __file__, "--form", form, "--size", str(options.size)]
            command += ["--threads", str(options.threads)] if options.threads else []
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[form].append(tuple(json.loads(printed)))
    seconds = {form: median(one for one, _ in some) for form, some in found.items()}
    peaks = {form: max(one for _, one in some) for form, some in found.items()}
    ratio = seconds["plain"] / seconds["prepared"]
    return report(
        f"The diffusion UNet of {options.size} px, forward and backward",
        ("form", "seconds", "GiB"),
        [(form, f"{seconds[form]:.1f}", f"{peaks[form]:.2f}") for form in FORMS],
        [
            Promise("times faster than the plain form", ratio, 1.5, at_least=True),
            Promise("GiB of the prepared form", peaks["prepared"], 12),
        ],
        as_json=options.json,
    )


if __name__ == "__main__":
    sys.exit(main())
