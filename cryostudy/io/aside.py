"""Writing small files whole or not at all."""

from __future__ import annotations

import csv
import errno
import fcntl
import glob
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryostudy.errors import InputError


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary neighbour and rename, so that `path` is never half written.

    An OSError of the writing that names no file, as a full disk does, names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = neighbour(path)
    try:
        write(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save hides it behind one of its own
        if not isinstance(cause, OSError):
            raise
        if cause.errno is None and "requested" in str(cause):  # numpy's words for a write cut short
            cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if cause.filename is None:
            cause.filename = str(path)
        raise cause from None
    finally:
        temporary.unlink(missing_ok=True)


def neighbour(path: Path) -> Path:
    """A name for the unfinished `path`, of this process; what killed processes of this machine left of it goes."""
    start = f".{path.name}.{socket.gethostname()}-"
    for old in path.parent.glob(f"{glob.escape(start)}*"):
        owner = old.name.removeprefix(start)
        if owner.isdecimal() and (int(owner) == os.getpid() or not runs(int(owner))):
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}")


def runs(process: int) -> bool:
    """Whether a process of this number is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes that ask the same out of a folder during the block; it is made, and removed if left empty.

    A killed process leaves nothing locked. Where the file system knows no locks nobody is kept out.

    Raises:
        InputError: another process is in it.
    """
    folder.mkdir(exist_ok=True)
    with locked(folder, os.O_RDONLY):
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def locked(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[None]:
    """The lock of :func:`alone` on a file, likewise made, and removed if left empty."""
    handle = os.open(path, flags, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path}: another process is at work there; wait for it, or choose another output"
            ) from None
        except OSError:  # no locks here
            pass
        try:
            yield
        finally:
            if path.is_file() and not path.stat().st_size:
                path.unlink()
    finally:
        os.close(handle)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """One line a row; the columns of the first row, unless they are given."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0] if rows else ()))
        writer.writeheader()
        writer.writerows(rows)
