"""Memory that was freed stays with the process: a command's big tensors need not be fetched anew.

Every step of an optimisation frees and asks for the same hundreds of megabytes. glibc gives such
blocks back to the system and gets them empty again, page by page; keeping them saves 5 to 9 percent
of a step. It is for the start of a command, not of a library: a long-lived host may want its memory
back.
"""

from __future__ import annotations

import sys

# glibc's malloc.h: give the top of the heap back, extend it, blocks that get a mapping of their own.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_NEVER = 2**31 - 1
_MARGIN = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, for the rest of the process; False where there is no glibc."""
    return _set((_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _MARGIN), (_MMAP_MAX, 0))


def release_freed_memory() -> bool:
    """Undo `keep_freed_memory`, and give back what is kept; False where there is no glibc.

    For pictures so large that their pieces leave gaps that nothing fits into again.
    """
    defaults = (
        (_TRIM_THRESHOLD, 1 << 17),
        (_TOP_PAD, 1 << 17),
        (_MMAP_MAX, 1 << 16),
        (_MMAP_THRESHOLD, 1 << 17),
    )
    done = _set(*defaults)
    if done:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    return done


def _set(*wishes: tuple[int, int]) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return all(mallopt(option, value) == 1 for option, value in wishes)
