"""Settings of glibc's malloc for the command's own process: keep freed memory, or return it.

Each step of an optimisation frees and allocates the same hundreds of megabytes. glibc returns such blocks to
the system and later gets them back empty, page by page; keeping them saves 5 to 9 percent of a step. malloc
belongs to the process, so only the command may configure it: it calls `keep_freed_memory` when it starts. In
a process that has not called it, `release_freed_memory` does nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

# From glibc's malloc.h: when to trim the heap, how much to extend it, which blocks get their own mapping.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_NEVER = 2**31 - 1
_MARGIN = 64 * 2**20

#: Above this many pixels, painting takes longer than allocating its memory again.
LARGE = 4096 * 4096

# Whether this process called `keep_freed_memory`. Global, because malloc is global to the process.
_asked = False


def keep_freed_memory() -> bool:
    """Makes malloc keep freed memory for the rest of the process; returns False without glibc.

    Call it when a command starts. It also enables `release_freed_memory`.
    """
    global _asked
    _asked = _set((_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _MARGIN), (_MMAP_MAX, 0))
    return _asked


def release_freed_memory() -> bool:
    """Undoes `keep_freed_memory` and returns the memory that it kept to the system.

    For pictures so large that the blocks of one stage leave gaps that do not fit those of the next. Does
    nothing and returns False if `keep_freed_memory` was not called or had no effect.
    """
    if not _asked:
        return False
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


def make_room(size: Sequence[int]) -> None:
    """`release_freed_memory` between the stages of a large picture, of this (height, width)."""
    if size[0] * size[1] > LARGE:
        release_freed_memory()


def _set(*wishes: tuple[int, int]) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return all(mallopt(option, value) == 1 for option, value in wishes)
