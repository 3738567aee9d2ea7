"""Large files over HTTP: resumed where they stopped, verified, and under their final name only when whole.

pooch, which fetches the small files of the study, begins again after a broken connection; half a day of download is too
much to lose.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from cryostudy.errors import InputError

TRIES = 6  # connections in a row that bring nothing new before giving up
TIMEOUT = 30.0  # seconds without a byte
WAIT = 1.0  # seconds before the second try; doubled with each one that brings nothing
PIECE = 1 << 20


class DownloadFailed(InputError):
    """No connection, or one that broke, after several tries."""


@dataclass(frozen=True)
class Remote:
    """One file to fetch: its `path` below the data set's folder, `url`, and what is published of it.

    `size` in bytes or None; `checksum` as "md5:..." or "sha256:...", "" where none is published; `unpack`: an archive
    whose content is wanted; `optional`: a file that some items lack.
    """

    path: str
    url: str
    size: int | None = None
    checksum: str = ""
    unpack: bool = False
    optional: bool = False


def download(remote: Remote, folder: Path) -> Path:
    """The file of `remote` below `folder`, downloaded unless it is there.

    What has arrived stands beside it as NAME.part and is taken up again by the next call (HTTP Range, guarded by
    If-Range so that halves of two versions are never joined). A server that does not know ranges starts anew.

    Raises:
        DownloadFailed: no connection after several tries.
        InputError: no such file, another size or checksum than published, a web page in place of the file, a full disk,
            or another process that downloads the same file.
    """
    target = folder / remote.path
    if target.is_file():
        return check(target, remote)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{target}: another process is downloading it; wait for that one") from None
        _receive(remote, file, part)
        file.flush()
        os.fsync(file.fileno())
    try:
        check(part, remote)
    except InputError:
        _forget(part)
        raise
    os.replace(part, target)
    _tag(part).unlink(missing_ok=True)
    return target


def check(path: Path, remote: Remote) -> Path:
    """The path itself, if its size and checksum are as published. Raises InputError otherwise."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        raise InputError(f"{path}: {size} bytes, but {remote.size} are published; delete it and fetch it again")
    kind, _, wanted = remote.checksum.partition(":")
    if kind:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != wanted:
            raise InputError(f"{path}: wrong {kind} checksum; what came is not the published file, fetch it again")
    return path


def remote_size(url: str) -> int | None:
    """What the server says of a file's size in bytes, None where it does not."""
    try:
        request = urllib.request.Request(url, method="HEAD", headers={"Accept-Encoding": "identity"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            length = reply.headers.get("Content-Length", "")
            return int(length) if length.isdigit() else None
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _receive(remote: Remote, file: IO[bytes], part: Path) -> None:
    """Append to the partial file until it is as long as the server says."""
    idle, bar = 0, tqdm(desc=remote.path, unit="B", unit_scale=True, disable=not sys.stderr.isatty(), leave=False)
    with bar:
        while True:
            before, reason, offline = file.tell(), "the connection broke", False
            try:
                if _once(remote, file, part, bar):
                    return
            except urllib.error.HTTPError as error:
                if error.code in (400, 401, 403, 404, 410):
                    _forget(part)
                    raise InputError(f"{remote.url}: the server answers {error.code} ({error.reason})") from error
                reason = f"{error.code} {error.reason}"
            except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                offline = isinstance(getattr(error, "reason", None), socket.gaierror)
            idle = 0 if file.tell() > before else idle + 1
            if idle >= TRIES or offline:
                if file.tell() == 0:
                    _forget(part)
                kept = f"; {file.tell()} bytes are kept, the same command goes on from there" if file.tell() else ""
                raise DownloadFailed(f"{remote.url}: download failed ({reason}){kept}")
            time.sleep(WAIT * 2 ** max(0, idle - 1) if idle else 0)


def _once(remote: Remote, file: IO[bytes], part: Path, bar: Any) -> bool:
    """One request, from where the partial file ends; True when the file is whole."""
    have, tag = file.tell(), _tag(part).read_text() if _tag(part).is_file() else ""
    headers = {"Accept-Encoding": "identity", "User-Agent": "cryostudy"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {})
    try:
        reply = urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if have and error.headers.get("Content-Range", "").endswith(f"/{have}"):  # nothing was missing
            return True
        _restart(file)
        return False
    with contextlib.closing(reply):
        if reply.status == 206 and not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            _restart(file)  # not the part that was asked for
            return False
        if have and reply.status != 206:  # the server knows no ranges, or the file has changed
            _restart(file)
            have = 0
        length = reply.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        _expected(remote, reply, total, part)
        # Weak tags do not promise the same bytes.
        fresh = reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
        _tag(part).write_text("" if fresh.startswith("W/") else fresh)
        bar.total, bar.n = total, have
        for piece in iter(lambda: reply.read(PIECE), b""):
            file.write(piece)
            bar.update(len(piece))
    if total is None:
        return True
    if file.tell() > total:
        _restart(file)
    return file.tell() == total


def _expected(remote: Remote, reply: Any, total: int | None, part: Path) -> None:
    """Refuse at once what cannot be the file."""
    kind = reply.headers.get_content_type()
    if kind == "text/html" and not remote.path.endswith((".html", ".htm")):
        _forget(part)
        raise InputError(f"{remote.url}: a web page came in place of the file; the address may have changed")
    if None not in (remote.size, total) and total != remote.size:
        _forget(part)
        raise InputError(f"{remote.url}: the server has {total} bytes, but {remote.size} are published")
    missing = (total or 0) - part.stat().st_size
    if missing > shutil.disk_usage(part.parent).free:
        raise InputError(f"{part.parent}: disk full; free {missing / 1e9:.1f} GB or set CRYOSTUDY_DATA to another one")


def _restart(file: IO[bytes]) -> None:
    file.truncate(0)
    file.seek(0)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def _tag(part: Path) -> Path:
    """Where the server's name of this version is kept."""
    return part.with_name(f"{part.name}.tag")


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack a .zip, .tar or .tar.gz into `folder`, each file under its name only when whole, and delete the archive.

    What is there with the right size stays. An empty file NAME.unpacked marks the archive as done. Raises InputError
    for a damaged archive and for names that point outside the folder.
    """
    import tarfile
    import zipfile

    written = []
    try:
        for name, size, stream in _zip(archive) if zipfile.is_zipfile(archive) else _tar(archive):
            target = folder / name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{archive}: the name {name!r} points outside the folder; do not trust this archive")
            if not (target.is_file() and target.stat().st_size == size):
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f"{target.name}.part")
                with part.open("wb") as file:
                    shutil.copyfileobj(stream, file, PIECE)
                if part.stat().st_size != size:
                    raise InputError(f"{archive}: truncated at {name}; delete it and fetch it again")
                os.replace(part, target)
            written.append(target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, http.client.HTTPException) as error:
        raise InputError(f"{archive}: damaged archive ({error}); delete it and fetch it again") from error
    archive.with_name(f"{archive.name}.unpacked").touch()
    archive.unlink()
    return written


def _zip(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    import zipfile

    with zipfile.ZipFile(archive) as opened:  # reading a member to its end also verifies its CRC
        for member in opened.infolist():
            if not member.is_dir():
                with opened.open(member) as stream:
                    yield member.filename, member.file_size, stream


def _tar(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    import tarfile

    with tarfile.open(archive) as opened:
        for member in opened:
            stream = opened.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield member.name, member.size, stream
