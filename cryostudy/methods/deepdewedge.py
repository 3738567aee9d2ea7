"""DeepDeWedge (Wiedemann and Heckel 2024): denoise and fill the missing wedge, from two half-tomograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from cryostudy.data import Acquisition
from cryostudy.io.aside import write_aside
from cryostudy.methods.recorrupted import flip
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.wedge_filling import Part, WedgeFilling
from cryostudy.rotation import sharpened, turned
from cryostudy.training import Batch


@dataclass(frozen=True)
class DeepDeWedge(WedgeFilling):
    """The masked loss below on two half-tomograms (`wiedemann2024`, Section 2.1).

    Either half is input or target, at random. The network restores the full tomogram (Step 3 of the paper).

    `update_every`: after so many steps, each time, the missing wedges of the halves that become input are filled with
    what the network makes of them, so that inputs lack one wedge, as the tomogram does, and not two. None: never.
    """

    name: ClassVar[str] = "deepdewedge"
    summary: ClassVar[str] = "denoises and fills the missing wedge, from two halves"
    paper: ClassVar[str] = "Wiedemann and Heckel 2024"
    cost: ClassVar[str] = "trains minutes"
    needs: ClassVar[tuple[str, ...]] = ("halves", "tilt_angles")

    limits: ClassVar[dict[str, tuple[float, float]]] = {**WedgeFilling.limits, "update_every": (1, 10**9)}

    update_every: int | None = None

    def volumes(self, acquisition: Acquisition, whole: Standardised, region: tuple[slice, ...], seed: int) -> Tensor:
        assert acquisition.halves is not None
        return torch.stack([torch.from_numpy(replace(whole, volume=half)[region]) for half in acquisition.halves])

    def pair(self, part: Part, centres: Tensor, rotations: Tensor, generator: Generator) -> Batch:
        given, target = (0, 1) if flip(generator) else (1, 0)
        return (
            turned(part.inputs[given : given + 1], centres, rotations, self.patch),
            turned(part.volumes[target : target + 1], centres, rotations, self.patch),
        )

    def refresh(self, parts: Sequence[Part], network: nn.Module, step: int, folder: Path | None) -> None:
        """Fill the wedges of the inputs where it is due; what was filled is kept in `folder` for a resumed run."""
        if self.update_every is None or step < self.update_every:
            return
        due = step // self.update_every
        for k, part in enumerate(parts):
            if part.updates == due:
                continue
            kept = folder / f"inputs-{k}-{due}.pt" if folder else None
            if kept and kept.exists():
                part.inputs = torch.load(kept, weights_only=True, map_location=part.raw.device)
            else:
                part.inputs = sharpened(torch.stack([self.filled(network, half, part.angles) for half in part.raw]))
                if kept:
                    write_aside(kept, partial(save, part.inputs))
            part.updates = due


def save(tensor: Tensor, path: Path) -> None:
    """Write a tensor; given a path, torch would report a full disk as a RuntimeError."""
    with path.open("wb") as file:
        torch.save(tensor.cpu(), file)
