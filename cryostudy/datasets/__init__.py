"""Give me data set X: the public data sets of the field, each as one `Acquisition`.

`registry.json` says what each is, where it comes from, its size and licence, what is known of it and how its files lie
below `$CRYOSTUDY_DATA/NAME/`. None of them comes with the study; `cryostudy fetch NAME` downloads one. The addresses
were collected from publications and public programs, and no file of them was at hand when the loaders were written:
those are tested on small files laid out alike, and an entry says `"verified": false` until the original was loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryostudy import data
from cryostudy.acquisition import Acquisition
from cryostudy.datasets import empiar, etomo, portal, shrec
from cryostudy.datasets.sources import fetch_files, readable, remotes
from cryostudy.datasets.volumes import Absent, Region
from cryostudy.errors import InputError
from cryostudy.simulate.registry import data_folder

__all__ = ["Absent", "about", "entry", "fetch", "folder", "get", "registry", "said_size"]

SMALL: Mapping[str, Callable[..., Acquisition]] = {
    "simulated": data.simulated,
    "microtubule": data.microtubule,
    "simulated-microtubule": data.simulated_microtubule,
}
LOADERS: Mapping[str, Callable[..., Acquisition]] = {
    "shrec2020": shrec.load,
    "shrec2021": shrec.load,
    "empiar-10045": empiar.ribosomes,
    "empiar-10164": empiar.vlps,
    "empiar-11830": empiar.chlamydomonas,
    "cryocare": etomo.cryocare,
    "imod-centriole": etomo.centriole,
    "cryoet-portal": portal.load,
}


@cache
def registry() -> Mapping[str, Mapping[str, Any]]:
    """All data sets: name -> title, kind, description, known, halves, voxel_size (Å), tilts, licence, page, cite, items
    (what can be asked for), item (the default), size (bytes, where published) or about (bytes, from its dimensions),
    loads (memory), files, layout, notes, verified."""
    return MappingProxyType(json.loads((files("cryostudy.datasets") / "registry.json").read_text(encoding="utf-8")))


def entry(name: str) -> Mapping[str, Any]:
    """The registry's entry of a data set; InputError with the known names for any other."""
    try:
        return registry()[name]
    except KeyError:
        known = ", ".join([*SMALL, *registry()])
        raise InputError(f"data set '{name}' is unknown; known are: {known}") from None


def folder(name: str) -> Path:
    """Where the files of a data set lie: `$CRYOSTUDY_DATA/NAME`."""
    return data_folder() / name


def get(
    name: str, item: str | None = None, region: Region = None, *, place: Path | None = None, **options: Any
) -> Acquisition:
    """A data set, or the part `region` of it, as an `Acquisition`.

    Args:
        name: of the registry, or "simulated", "microtubule", "simulated-microtubule", which take the parameters of
            their functions in `cryostudy.data`. item: which of its tomograms; None for the default.
        region: "z0:z1,y0:y1,x0:x1" in voxels or "centre:96", see :func:`cryostudy.datasets.volumes.box`; volumes are
            read through a memory map, so that a region needs no more memory than itself.
        place: the folder of its files, if not :func:`folder`. options: of its loader, such as `bin` and `thickness` of
            tilt series.

    Raises:
        Absent: a file is not there; the message has the data set's page, its size and the command that fetches it.
        InputError: unknown name, item or option, or files that cannot be used.
    """
    if name in SMALL:
        if item is not None or region is not None:
            raise InputError(f"{name}: has no items and no regions; give the parameters of cryostudy.data instead")
        return _call(SMALL[name], name, options)
    known = entry(name)
    item = item or str(known["item"])
    place = place or folder(name)
    try:
        return _call(LOADERS[name], name, options, name, place, item, region)
    except Absent as error:
        raise Absent(
            f"{error}; {known['title']} comes from {known['page']} ({said_size(name)}): cryostudy fetch {name} {item}"
        ) from None


def _call(make: Callable[..., Acquisition], name: str, options: Mapping[str, Any], *given: Any) -> Acquisition:
    import inspect

    unknown = [key for key in options if key not in inspect.signature(make).parameters]
    if unknown:
        raise InputError(f"{name}: no option {unknown[0]!r}; leave it out")
    return make(*given, **options)


def said_size(name: str) -> str:
    """How much there is to download for the default item: as published, else as reckoned from its dimensions."""
    known = entry(name)
    return readable(known["size"]) if known["size"] else f"about {readable(known['about'])}"


def fetch(name: str, item: str | None = None, *, yes: bool = False) -> list[Path]:
    """Download an item of a data set into :func:`folder`; what is there stays, what was cut short goes on.

    Raises:
        InputError: unknown name or item; 1 GB or more, or an unknown size, without `yes`; a failed download.
    """
    known = entry(name)
    chosen = item or str(known["item"])
    given = portal.values(chosen) if name == "cryoet-portal" else {"item": chosen}
    files = next((known[key] for key, fits in _VARIANTS.get(name, {}).items() if fits(chosen)), known.get("files", []))
    return fetch_files(remotes({**known, "files": files}, given), folder(name), yes=yes, name=name)


_VARIANTS: Mapping[str, Mapping[str, Callable[[str], bool]]] = {
    "empiar-11830": {"files_number": str.isdigit},
    "cryocare": {"files_movies": lambda item: item == "Tomo110"},
}


def about(name: str) -> str:
    """A data set in one line: what it is, its size and licence."""
    known = entry(name)
    return f"{known['title']} ({known['licence']}, {said_size(name)}, {known['page']})"
