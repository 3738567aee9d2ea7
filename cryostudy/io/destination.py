"""Where an output goes: never over an input, complete under its name or not there at all."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cryostudy.errors import InputError
from cryostudy.io.aside import neighbour

PACKED = (".gz", ".bz2")
SPARE = 2**20  # bytes on the disk beside a volume: header, record, a small denoiser
FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk, or a user's share of it
_KINDS = (".mrc", ".rec", ".map", ".st", ".ali")


def check_output(path: str | Path, inputs: Sequence[str | Path] = ()) -> Path:
    """Check, before any work starts, that ``path`` can be written and is none of the ``inputs``.

    Raises InputError if it is the same file as an input (also through a symbolic or hard link), has another
    extension than .mrc, .rec, .map, .st or .ali (.gz or .bz2 may follow), lies in a missing or unwritable
    folder, or is a folder or a write-protected file.
    """
    path = Path(path)
    try:
        for source in map(Path, inputs):
            if _same_file(path, source):
                raise InputError(f"{path}: the output is the input {source}; choose another output name")
        if kind(path) not in _KINDS:
            known = ", ".join(_KINDS)
            raise InputError(f"{path}: unknown output format; use {known} (.gz or .bz2 may follow)")
        target = path.resolve()
        if target.is_dir():
            raise InputError(f"{path}: the output is a folder; add a file name")
        if not target.parent.is_dir():
            raise InputError(f"{path}: the folder {target.parent} does not exist; create it first")
        if target.exists() and not target.is_file():
            raise InputError(f"{path}: not an ordinary file; choose another output name")
        if target.exists() and not os.access(target, os.W_OK):
            raise InputError(f"{path}: the existing file is write-protected; choose another output name")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise InputError(f"{path}: the folder {target.parent} is not writable; choose another one")
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of symbolic links
        raise InputError(f"{path}: cannot be written ({error}); choose another output name") from error
    return path


def kind(path: Path) -> str:
    """Extension in lower case, without that of a compression."""
    plain = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return plain.suffix.lower()


@contextmanager
def partial_file(target: Path) -> Iterator[Path]:
    """A name beside ``target`` for the unfinished file, which is removed on every way out, by the next call after
    kill -9."""
    partial = neighbour(target)
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: str | Path, needed: int) -> Iterator[None]:
    """Turn an OSError in the block into an InputError that names ``path`` and, on a full disk, the need."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            size = f"{needed / 1e9:.1f} GB" if needed >= 1e9 else f"{max(needed / 1e6, 0.1):.1f} MB"
            raise InputError(f"{path}: disk full; free {size} there or choose another disk") from error
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be written ({reason}); choose another place") from error


def check_space(target: Path, needed: int) -> None:
    """Raise OSError (ENOSPC) if the disk of ``target`` has less than ``needed`` bytes free."""
    if shutil.disk_usage(target.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def reserve_space(file: IO[bytes], n_bytes: int) -> None:
    """Claim the disk space now: on a full disk, a write through a memory map would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
        return
    zeros = bytes(1 << 20)
    for start in range(0, n_bytes, len(zeros)):
        file.write(zeros[: n_bytes - start])


def _same_file(path: Path, source: Path) -> bool:
    if path.resolve() == source.resolve():
        return True
    return path.exists() and source.exists() and path.samefile(source)
