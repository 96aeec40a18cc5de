"""Atomic writes: a file appears whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atelier.core.errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which replaces `path` when the block succeeds and is removed otherwise.

    Raises `OutputError` if the folder is missing or cannot be written, or the disk is full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic(Path(folder) / "out.txt") as beside:
    ...         _ = beside.write_text("whole")
    ...     [file.name for file in Path(folder).iterdir()]
    ['out.txt']
    """
    # Links are followed, as in a plain write; a rename would replace the link itself.
    path = Path(os.path.realpath(path))
    temporary = _beside(path)
    # Some writers replace the temporary file with their own, which only the owner can read.
    mode = (path if path.exists() else temporary).stat().st_mode & 0o777
    try:
        yield temporary
        _put(temporary, path, mode)
    except Exception as error:
        if is_full(error):
            raise OutputError(full_sentence(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def is_full(error: BaseException) -> bool:
    """Whether `error` comes from a full disk, an exhausted quota or a limit on file sizes.

    Libraries written in Rust or C++ raise their own errors, with the number in the text.
    """
    if isinstance(error, OSError):
        return error.errno in _FULL
    found = re.search(r"\(os error (\d+)\)", str(error))
    if found is not None:
        return int(found[1]) in _FULL
    return re.search("PytorchStreamWriter failed|inline_container.*unexpected pos", str(error)) is not None


def full_sentence(path: Path) -> str:
    """The error sentence for a full disk."""
    return f"no space is left for {path}: free some space on that disk or choose another folder"


def _beside(path: Path) -> Path:
    # Writers choose the format by the suffix, so it is kept; the stem is cut because names are limited.
    temporary = path.with_name(f".{path.stem[:40]}.{os.urandom(4).hex()}{path.suffix}")
    try:
        # Follows the umask; files from `tempfile` are readable by their owner only.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(_unwritable(path, error)) from error
    return temporary


def _put(temporary: Path, path: Path, mode: int) -> None:
    try:
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(_unwritable(path, error)) from error


def _unwritable(path: Path, error: OSError) -> str:
    if error.errno in _FULL:
        return full_sentence(path)
    if not path.parent.exists():
        return f"{path} cannot be written: its folder does not exist; create {path.parent} first"
    return f"{path} cannot be written ({error.strerror}): choose another place or change its permissions"
