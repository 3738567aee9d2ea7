"""Tilt series and tomograms of EMPIAR entries, below the paths that the archive gives them (data/...)."""

from __future__ import annotations

from pathlib import Path

from cryostudy.acquisition import Acquisition
from cryostudy.datasets.stacks import of_stack, read_transforms, recording
from cryostudy.datasets.volumes import Region, box, cut, find, need, shape_of, voxel_size
from cryostudy.errors import InputError
from cryostudy.io import read_tilt_angles, read_volume

RIBOSOME_PIXEL, RIBOSOME_STEP = 2.17, 3  # Å, degrees from -60 to 60
VLP_VOXEL, VLP_STEP = 10.0, 3
CHLAMYDOMONAS_PIXEL, CHLAMYDOMONAS_BIN = 1.96, 4


def ribosomes(name: str, folder: Path, item: str, region: Region, bin: int = 6, thickness: int = 200) -> Acquisition:
    """EMPIAR-10045: `item` "05" is data/ribosomes/Tomograms/05/IS002_291013_005.mrcs, an aligned tilt series.

    Tomograms that others reconstructed from it are not read, for they have no halves. Angles come from the .tlt or
    .rawtlt beside the stack; without one they are -60 to 60° in steps of 3°, if there are 41 images. `thickness` in
    binned voxels.

    Raises:
        InputError: no such stack, or angles that do not fit it.
    """
    tag = f"IS002_291013_{int(item):03d}" if item.isdigit() else item
    where = (f"data/ribosomes/Tomograms/{item}", f"data/ribosomes/AnticipatedResults/Tomograms/{item}", item, ".")
    stack = need(folder, *(f"{place}/{tag}{end}" for place in where for end in (".mrcs", ".st", ".ali")))
    angles = find(stack.parent, f"{tag}.tlt", f"{tag}.rawtlt")
    images, opened = of_stack(stack)
    regular = [float(a) for a in range(-60, 61, RIBOSOME_STEP)]
    if angles is None and len(images) != len(regular):
        raise InputError(
            f"{stack.with_suffix('.tlt')}: no such file, and {len(images)} images are not the 41 from -60° to 60°"
        )
    size, remark = voxel_size(opened.voxel_size, RIBOSOME_PIXEL)
    return recording(
        images,
        regular if angles is None else read_tilt_angles(angles),
        factor=bin,
        thickness=thickness,
        pixel=size,
        region=region,
        name=f"{name}-{item}",
        description=f"EMPIAR-10045, 80S ribosomes of S. cerevisiae, {stack.name}{remark}",
    )


def vlps(name: str, folder: Path, item: str, region: Region) -> Acquisition:
    """EMPIAR-10164: `item` "01" is the tomogram 01_10.00Apx.mrc (Zenodo) of tilt series TS_01; no halves.

    Angles come from data/mdoc-files/TS_01.mrc.mdoc where it is there; else -60 to 60° in steps of 3°.

    Raises:
        InputError: no such tomogram, or one that cannot be used.
    """
    path = need(folder, f"{item}_10.00Apx.mrc", f"TS_{item}_10.00Apx.mrc", f"TS_{item}.mrc", f"TS_{item}.rec")
    listed = find(folder, f"data/mdoc-files/TS_{item}.mrc.mdoc", f"TS_{item}.mrc.mdoc", f"TS_{item}.tlt")
    angles = read_tilt_angles(listed) if listed else [float(a) for a in range(-60, 61, VLP_STEP)]
    size, remark = voxel_size(read_volume(path, mmap=True).voxel_size, VLP_VOXEL)
    return Acquisition(
        full=cut(path, box(region, shape_of(path))),
        tilt_angles=tuple(sorted(angles)),
        voxel_size=size,
        name=f"{name}-{item}",
        description=f"EMPIAR-10164, HIV-1 virus-like particles, {path.name}{remark}",
    )


def chlamydomonas(
    name: str, folder: Path, item: str, region: Region, bin: int = 4, thickness: int = 512
) -> Acquisition:
    """EMPIAR-11830: `item` is a number or the name of a tilt series.

    A number: the tomogram data/ctf3d_bin4/NUMBER.rec, without halves. A name: data/chlamy_visual_proteomics/NAME/ with
    the stacks NAME.st, NAME_EVN.st and NAME_ODD.st (even and odd frames) and AreTomo's NAME_dose-filt.tlt and .xf in
    AreTomo/; reconstructed here, without CTF correction. `bin` and `thickness` (binned voxels) are for these.

    Raises:
        InputError: a file is missing or cannot be used.
    """
    if item.isdigit():
        path = need(folder, f"data/ctf3d_bin4/{item}.rec", f"ctf3d_bin4/{item}.rec", f"data/ctf3d_bin4/{item}.mrc")
        size, remark = voxel_size(read_volume(path, mmap=True).voxel_size, CHLAMYDOMONAS_PIXEL * CHLAMYDOMONAS_BIN)
        return Acquisition(
            full=cut(path, box(region, shape_of(path))),
            voxel_size=size,
            name=f"{name}-{item}",
            description=f"EMPIAR-11830, C. reinhardtii, {path.name}, with 3-D CTF correction{remark}",
        )
    place = f"data/chlamy_visual_proteomics/{item}"
    stack, angles, transforms = (
        need(folder, f"{place}/{file}", f"{item}/{file}")
        for file in (f"{item}.st", f"AreTomo/{item}_dose-filt.tlt", f"AreTomo/{item}_dose-filt.xf")
    )
    images, opened = of_stack(stack)
    pair = [find(stack.parent, f"{item}_{half}.st") for half in ("EVN", "ODD")]
    size, remark = voxel_size(opened.voxel_size, CHLAMYDOMONAS_PIXEL)
    return recording(
        images,
        read_tilt_angles(angles),
        halves=None if pair[0] is None or pair[1] is None else (of_stack(pair[0])[0], of_stack(pair[1])[0]),
        transforms=read_transforms(transforms),
        factor=bin,
        thickness=thickness,
        pixel=size,
        region=region,
        name=f"{name}-{item}",
        description=f"EMPIAR-11830, C. reinhardtii, {stack.name} aligned with AreTomo, no CTF correction{remark}",
    )
