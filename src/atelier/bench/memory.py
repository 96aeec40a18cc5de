"""The peak of memory of one piece of work in this process."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MIB = 2**20


def reset_peak() -> bool:
    """Start to count the peak anew; False where the system cannot, and the peak is that of the process."""
    _reset_cuda()
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def peak() -> float:
    """The most memory in MiB that this process has used since `reset_peak`, on the CPU and on CUDA devices.

    It includes Python and torch themselves, about 300 MiB.
    """
    return _resident() + _cuda()


def peak_of(process: int) -> float:
    """The most memory in MiB that another process has used so far; 0 where that is not known."""
    return _high(Path(f"/proc/{process}/status")) or 0.0


def _resident() -> float:
    found = _high(_STATUS)
    if found is None:
        import resource

        unit = MIB if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return found


def _high(status: Path) -> float | None:
    """The peak in a process's status file; None if there is none."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def _cuda() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else 0.0


def _reset_cuda() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
