"""A page for every data set: what it is, where it comes from, what is known of it, and which runs used it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cryostudy import datasets
from cryostudy.pages import public_data
from cryostudy.pages.facts import Site
from cryostudy.simulate.registry import registry

FOLDER = "book/data"


@dataclass(frozen=True)
class DataSet:
    """A data set as its page tells it.

    Fields: key: of the page. kind: real or simulated. what, truth, get, offline: prose. groups: of the registry whose
    files it needs. uses: whether a recording of this name and description in a record is one of this data set.
    size, licence, rows: of a public data set, whose files are not in the registry of small ones.
    """

    key: str
    title: str
    kind: str
    what: str
    truth: str
    get: str
    offline: str
    groups: tuple[str, ...]
    uses: Callable[[str, str], bool]
    size: str = ""
    licence: str = ""
    rows: tuple[tuple[str, str], ...] = ()


CACHE = (
    "Files are kept in the folder that `CRYOSTUDY_DATA` names, by default in your cache folder, and checked by SHA-256."
)
SETS = (
    DataSet(
        "simulated-cells",
        "Simulated cells",
        "simulated",
        "A crowded specimen: density maps of real complexes at random places and orientations, membranes, gold beads. "
        "It is projected at the tilt angles, noise is added as each run says, and the tomogram is reconstructed, with "
        "halves from even and odd tilts. The maps were computed from PDB models of the structures of the SHREC "
        "challenges {cite}`gubins2020`.",
        "Everything: density, position and orientation of every particle, membranes, the reconstruction without noise.",
        "Any chapter makes its own. `cryostudy simulate --out sample` writes one to files, and "
        "`cryostudy.data.simulated` returns one in Python.",
        "Without a network and without the maps, particles built in code take their place, and the run says so "
        "([](built-in.md)).",
        ("shrec",),
        lambda name, text: "SHREC structures" in text,
    ),
    DataSet(
        "built-in",
        "Built-in specimen",
        "simulated",
        "The same as the [simulated cells](simulated-cells.md), with particles built in code: no real proteins.",
        "Everything, as of the simulated cells.",
        'In Python: `cryostudy.data.simulated(densities="built-in")`.',
        "Needs nothing.",
        (),
        lambda name, text: "built-in particles" in text,
    ),
    DataSet(
        "densities",
        "Further density maps",
        "computed from models",
        "Maps of more complexes, computed from PDB models like those of the [simulated cells](simulated-cells.md): "
        "templates to match, and specimens to build.",
        "The maps are the truth.",
        "`cryostudy fetch NAME` for each of them.",
        "`cryostudy fetch` needs a network once.",
        ("polnet",),
        lambda name, text: False,
    ),
    DataSet(
        "microtubule",
        "A real microtubule",
        "real",
        "A part of a real tomogram with one microtubule, from the test data of cylindra. There are no tilt series, "
        "no halves and no angles with it: what many a user has. Smoothed and projected again, it also serves as the "
        "specimen of simulated recordings, as {cite}`yang2021` make theirs.",
        "None, but for the lattice: protofilaments and the axial repeat of tubulin are known. Of the projected one, "
        "the smoothed tomogram, whose missing wedge stays empty.",
        "`cryostudy fetch microtubule`, or `cryostudy.data.microtubule` in Python.",
        "Chapters take a [microtubule built in code](simulated-microtubule.md), and say so.",
        ("real",),
        lambda name, text: name == "microtubule" or name.startswith(("microtubule-reprojected", "microtubule_")),
    ),
    DataSet(
        "simulated-microtubule",
        "Microtubule built in code",
        "simulated",
        "A microtubule, or the same tube without its axial repeat, recorded like the [real one](microtubule.md). The "
        "smooth tube is the negative control: a restoration must not show a lattice in it.",
        "Everything.",
        "In Python: `cryostudy.data.simulated_microtubule`.",
        "Needs nothing.",
        (),
        lambda name, text: name.startswith(("simulated-tube", "simulated-microtubule")),
    ),
    DataSet(
        "ribosomes",
        "Real ribosomes",
        "real",
        "Tilt images of single ribosomes in several tilt series, with the pose of each, and an average supplied with "
        "them: test data of tomoDRGN {cite}`powell2024`. Even and odd tilt images give two sub-tomograms with "
        "independent noise.",
        "None, but for the average, which many particles agree on.",
        "`cryostudy fetch ribosomes`, or `cryostudy.particles.ribosomes` in Python.",
        "Chapters take particles built in code, recorded alike, and say so.",
        ("ribosomes",),
        lambda name, text: name in ("ribosomes", "particles"),
    ),
    *(DataSet(**public_data.fields(name)) for name in datasets.registry()),
)


def overview(site: Site) -> str:
    """The page that lists the data sets."""
    rows = []
    for data in SETS:
        files = _files(data)
        size = f"{_count(files)}, {_megabytes(files)}" if files else data.size or "made in code"
        rows.append(
            f"| [{data.title}]({data.key}.md) | {data.kind} | {size} | {_licences(files) or data.licence or '–'} |"
        )
    return "\n".join([
        "# Data sets", "",
        "What the chapters run on. Nothing large is part of the study: files are fetched once from where their authors "
        f"keep them, at a fixed version. {CACHE} `cryostudy fetch` lists them. How to run on your own tomogram: "
        f"{site.chapter('90_your_tomogram')}; on one of the public data sets: {site.chapter('91_real_data')}.", "",
        "| | kind | files | licence |", "|---|---|---|---|", *rows, "",
    ])  # fmt: skip


def page(data: DataSet, site: Site) -> str:
    """The page of one data set."""
    text = [f"# {data.title}", "", data.what, "", f"| kind | {data.kind} |", "|---|---|"]
    files = _files(data)
    text += [f"| known | {data.truth} |", f"| to get it | {data.get} |"]
    text += [f"| without a network | {data.offline} |"]
    text += [f"| {key} | {value} |" for key, value in data.rows]
    if files:
        sizes = sorted({f"{item['voxel_size']:g} Å" for item in files.values()})
        text += [f"| files | {_count(files)}, {_megabytes(files)} |", f"| voxels or pixels | {', '.join(sizes)} |"]
        text += [f"| licence | {_licences(files)} |", f"| source | {_sources(files)} |"]
    text += ["", *_listed(files), "## Which runs used it", "", *_runs(data, site), ""]
    return "\n".join(text)


def _files(data: DataSet) -> dict[str, Mapping[str, Any]]:
    return {name: item for name, item in registry().items() if item["group"] in data.groups}


def _count(files: Mapping[str, Mapping[str, Any]]) -> str:
    return f"{len(files)} file{'s' * (len(files) > 1)}"


def _megabytes(files: Mapping[str, Mapping[str, Any]]) -> str:
    return f"{sum(item['size'] for item in files.values()) / 1e6:.1f} MB"


def _licences(files: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(sorted({item["licence"] for item in files.values()}))


def _sources(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The repositories that files come from, each with its commit."""
    found = dict.fromkeys(tuple(item["url"].split("/")[3:6]) for item in files.values())
    return ", ".join(
        f"[{owner}/{name}](https://github.com/{owner}/{name}) at `{commit[:7]}`" for owner, name, commit in found
    )


def _listed(files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of the files, folded where it is long."""
    if not files:
        return []
    rows = [f"| `{name}` | {item['description']} | {item['size'] / 1e3:.0f}\u00a0kB |" for name, item in files.items()]
    return [":::{dropdown} Its files", "| name | what it is | size |", "|---|---|---|", *rows, ":::", ""]


def _runs(data: DataSet, site: Site) -> list[str]:
    """Every recording of the data set that a record names, with the chapters and grids that used it."""
    users: dict[str, list[str]] = {}
    for name, record in sorted(site.records.items()):
        recordings = record["data"] or dict.fromkeys(record["inputs"], "")
        for key, text in recordings.items():
            if data.uses(key, text):
                link = site.record(name) if name.startswith("grid/") else site.numbered(name)
                users.setdefault(text or key, []).append(link)
    return [f"- {what[0].upper()}{what[1:]}: {', '.join(links)}" for what, links in users.items()] or [
        "No published run."
    ]


PAGES: dict[str, Callable[[Site], str]] = {f"{FOLDER}/{data.key}": partial(page, data) for data in SETS}
PAGES[f"{FOLDER}/overview"] = overview
