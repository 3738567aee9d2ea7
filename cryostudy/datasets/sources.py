"""Where the files of a data set are: fixed addresses, or what a Dataverse or Zenodo repository lists."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cryostudy.datasets.download import TIMEOUT, DownloadFailed, Remote, download, remote_size, unpack
from cryostudy.errors import InputError

ASK = 1_000_000_000  # bytes from which on a download has to be confirmed
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")


def remotes(entry: Mapping[str, Any], values: Mapping[str, str]) -> list[Remote]:
    """The files of one item of a data set. `values` fill the braces in addresses and paths, e.g. {item}.

    Where a repository can be asked, its list comes first, for it has sizes and checksums; where it does not answer, the
    fixed addresses serve. Raises InputError where there are neither.
    """
    fixed = [
        Remote(**file | {"path": file["path"].format(**values), "url": file["url"].format(**values)})
        for file in entry.get("files", [])
    ]
    if "repository" not in entry:
        return fixed
    try:
        return listed(entry["repository"], values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if fixed:
            return fixed
        raise InputError(
            f"{entry['repository']['api']}: the list of files cannot be had ({type(error).__name__}); download them by "
            f"hand from {entry['page']}"
        ) from error


def listed(repository: Mapping[str, str], values: Mapping[str, str]) -> list[Remote]:
    """Files that a repository lists, whose names match its pattern `wanted`.

    `kind` is "dataverse" (native API: data.latestVersion.files[].dataFile) or "zenodo" (REST API: files[]).
    """
    with urllib.request.urlopen(repository["api"], timeout=TIMEOUT) as reply:
        found = json.load(reply)
    if repository["kind"] == "dataverse":
        server = repository["api"].partition("/api/")[0]
        files = []
        for file in found["data"]["latestVersion"]["files"]:
            data = file["dataFile"]
            path = "/".join(part for part in (file.get("directoryLabel"), data["filename"]) if part)
            url = f"{server}/api/access/datafile/{data['id']}"
            files.append((path, url, int(data["filesize"]), f"md5:{data['md5']}" if data.get("md5") else ""))
    else:
        files = [(f["key"], f["links"]["self"], int(f["size"]), f["checksum"]) for f in found["files"]]
    pattern = repository.get("wanted", "*").format(**values)
    chosen = [
        Remote(path, url, size, checksum, path.endswith(ARCHIVES))
        for path, url, size, checksum in files
        if fnmatch(path.lower(), pattern.lower())
    ]
    if not chosen:
        raise ValueError(f"no file {pattern} in it")
    return chosen


def readable(size: int | None) -> str:
    """A size as one says it."""
    if size is None:
        return "unknown size"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


def fetch_files(files: list[Remote], folder: Path, *, yes: bool, name: str) -> list[Path]:
    """Download and unpack files into `folder`. Raises InputError for what is large or of unknown size without `yes`."""
    needed = [file for file in files if not (_done(file, folder) or (folder / file.path).is_file())]
    sizes = [file.size if file.size is not None else remote_size(file.url) for file in needed if not file.optional]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    if not yes and (total is None or total >= ASK):
        raise InputError(
            f"{name}: {readable(total)} to download into {folder}; say --yes to begin (it can be interrupted)"
        )
    found = []
    for file in files:
        try:
            if _done(file, folder):
                found.append(folder / file.path)
                continue
            path = download(file, folder)
        except InputError as error:
            if file.optional:
                continue
            if isinstance(error, DownloadFailed):
                remedy = f"tries again, or put the files where `cryostudy fetch {name} --about` says"
                raise InputError(f"{error}; the same command {remedy}") from None
            raise
        found += unpack(path, folder) if file.unpack else [path]
    return found


def _done(file: Remote, folder: Path) -> bool:
    return file.unpack and (folder / f"{file.path}.unpacked").is_file()
