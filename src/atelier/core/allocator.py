"""Memory that was freed stays with the process: a command's big tensors need not be fetched anew.

Every step of an optimisation frees and asks for the same hundreds of megabytes. glibc gives such
blocks back to the system and gets them empty again, page by page; keeping them saves 5 to 9 percent
of a step. It is for the start of a command, not of a library: a long-lived host may want its memory
back.
"""

from __future__ import annotations

import sys

# glibc's malloc.h: give the top of the heap back, extend it, blocks that get a mapping of their own.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER = 2**31 - 1
_MARGIN = 64 * 2**20


def release_freed_memory() -> None:
    """Give what is freed at this moment back to the system, where there is glibc."""
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, for the rest of the process; False where there is no glibc."""
    if sys.platform != "linux":
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    wishes = ((_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _MARGIN), (_MMAP_MAX, 0))
    return all(mallopt(option, value) == 1 for option, value in wishes)
