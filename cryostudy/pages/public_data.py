"""What the pages of the public data sets say, from their registry."""

from __future__ import annotations

from typing import Any

from cryostudy import datasets


def fields(name: str) -> dict[str, Any]:
    """The fields of a `cryostudy.pages.data_sets.DataSet` for an entry of `cryostudy.datasets.registry`."""
    known = datasets.entry(name)
    cited = ",".join(known["cite"])
    address = known["page"]
    size = f"{datasets.said_size(name)} for {known['item']}"
    large = " --yes" if not known["size"] or known["size"] > 1e9 else ""
    rows = {
        "halves": known["halves"] or "None.",
        "tilts": known["tilts"],
        "voxels": f"{known['voxel_size']:g} Å, as loaded",
        "to download": size if known["size"] else f"{size}, reckoned from its dimensions",
        "memory": known["loads"],
        "items": known["items"],
        "licence": known["licence"],
        "source": f"<{address}>",
        "files": f"below `$CRYOSTUDY_DATA/{name}/`: " + ", ".join(f"`{path}`" for path in known["layout"]),
        "note": known["notes"],
        "tested": "" if known["verified"] else "Its loader, on small files laid out like the original; addresses and "
        "layout come from publications and public programs and await a check on the original.",
    }  # fmt: skip
    return {
        "key": name,
        "title": known["title"],
        "kind": known["kind"],
        "what": f"{known['description']} {{cite}}`{cited}`",
        "truth": known["known"],
        "get": f'`cryostudy fetch {name} {known["item"]}{large}`, then `cryostudy.datasets.get("{name}")` in Python, '
        f"or `cryostudy chapter 91_real_data -p dataset {name}`. A download cut short goes on where it was.",
        "offline": "The chapter takes a stand-in, simulated and laid out like the original, and says so.",
        "groups": (),
        "uses": lambda recording, text: recording.removeprefix("stand-in-").startswith(name),
        "size": datasets.said_size(name).replace(" ", "\u00a0"),
        "licence": known["licence"],
        "rows": tuple((key, text) for key, text in rows.items() if text),
    }
