"""The registry of downloadable files: where each comes from, its checksum, and the local copy."""

import hashlib
import json
import os
import sys
import threading
import urllib.request
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryostudy.errors import InputError

ONLINE_TIMEOUT = 3.0  # seconds; a machine without a network must not hang


@cache
def registry() -> Mapping[str, Mapping[str, Any]]:
    """All registered files: name -> url, sha256, size (bytes), licence, voxel_size (Å), folder, group, description."""
    return MappingProxyType(json.loads((files("cryostudy") / "registry.json").read_text(encoding="utf-8")))


def data_folder() -> Path:
    """The data cache: the folder named by the environment variable CRYOSTUDY_DATA, else the user's cache folder."""
    named = os.environ.get("CRYOSTUDY_DATA")
    if named:
        return Path(named).expanduser()
    import pooch

    return Path(pooch.os_cache("cryostudy"))


def entry(name: str) -> Mapping[str, Any]:
    """The registry's entry of one name; InputError with the known names for any other."""
    try:
        return registry()[name]
    except KeyError:
        single = sorted(known for known, item in registry().items() if item["group"] != "ribosomes")
        raise InputError(f"data set '{name}' is unknown; known are: {', '.join(single)}, ribosomes") from None


def local_copy(name: str) -> Path | None:
    """The file of a registered name in the data cache, or None where it is absent.

    It is looked for by file name in the cache and in the sub-folder of its entry. Raises InputError if a file
    is there but its SHA-256 differs from the registry's.
    """
    item = entry(name)
    file_name = item["url"].rsplit("/", 1)[-1]
    for path in (data_folder() / file_name, data_folder() / item["folder"] / file_name):
        if not path.is_file():
            continue
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        if found != item["sha256"]:
            raise InputError(f"{path}: checksum differs from the registry's '{name}'; delete it to download it again")
        return path
    return None


def fetch(name: str) -> Path:
    """Path of a registered file, downloaded with a progress bar unless the data cache holds it already.

    Raises InputError for an unknown name (listing the known ones), for a file with the wrong SHA-256 and for
    a failed download. A partial download never stands under the final name.
    """
    found = local_copy(name)
    if found is not None:
        return found
    import pooch

    item = entry(name)
    folder = data_folder() / item["folder"]
    try:
        path = pooch.retrieve(
            item["url"],
            known_hash=f"sha256:{item['sha256']}",
            fname=item["url"].rsplit("/", 1)[-1],
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=10),
        )
    except (
        OSError,
        ValueError,
    ) as error:  # requests' errors are OSErrors; pooch raises ValueError on a wrong hash
        reason = "wrong checksum" if isinstance(error, ValueError) else type(error).__name__
        raise InputError(
            f"{name}: download from {item['url']} failed ({reason}); put the file into {folder} or set CRYOSTUDY_DATA"
        ) from error
    return Path(path)


@cache
def online(url: str) -> bool:
    """Whether an address answers within ONLINE_TIMEOUT seconds; asked once per process.

    The question is put from a thread because looking up a host's name can block for longer than any time-out.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=ONLINE_TIMEOUT) as reply:
                answers.append(reply.status < 400)
        except (OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ONLINE_TIMEOUT + 1)
    return bool(answers and answers[0])
