"""What the explorers show, kept small: pictures as WebP text in one JSON record a grid."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryostudy import PROFILES, records
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.figures import grey_range
from cryostudy.metrics import against_truth, fsc

QUALITY = 40  # of the lossy pictures; the numbers beside them come from the volumes
NOISE_QUALITY = 10  # of noisy slices, which take most of the room and show nothing finer than the others
PUBLISHED = records.REPOSITORY / "data" / "results" / "explorer"
AWAY = 4  # voxels between the specimen and the background that noise is measured in


def record_folder(profile: str) -> Path:
    """Where the explorers' records of a profile are written: `explorer` in the folder of the chapters' records."""
    named = os.environ.get("CRYOSTUDY_RECORDS")
    return (Path(named) if named else records.build_folder() / "runs" / profile / "records") / "explorer"


def check(profile: str) -> str:
    """The profile.

    Raises:
        InputError: there is no such profile.
    """
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: unknown; use one of {', '.join(PROFILES)}")
    return profile


def find(name: str, profile: str) -> dict[str, Any] | None:
    """The record `name` of this profile's own grid, else the published one, else None."""
    for folder in (record_folder(check(profile)), PUBLISHED):
        if (path := folder / f"{name}.json").exists():
            return dict(json.loads(path.read_text()))
    return None


def read(name: str, profile: str) -> dict[str, Any]:
    """The record that :func:`find` finds.

    Raises:
        InputError: there is none.
    """
    found = find(name, profile)
    if found is None:
        raise InputError(f"{PUBLISHED / name}.json: no such record; first run: cryostudy grid --explorer")
    return found


def resume(record: records.Record, folder: Path) -> None:
    """Take over what an earlier run with the same parameters and seed left in `folder`."""
    path = folder / f"{record.name}.json"
    if path.exists():
        before = json.loads(path.read_text())
        if all(before[part] == record.content[part] for part in ("parameters", "seed", "profile")):
            record.content["metrics"] = before["metrics"]


def picture(image: NDArray[Any], low: float, high: float, quality: int = QUALITY) -> str:
    """A grey image (y, x), `low` black and `high` white, as base64 WebP; row 0 is at the bottom, as in every figure."""
    from PIL import Image

    grey = np.clip((np.asarray(image, np.float64)[::-1] - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "WEBP", quality=quality, method=6)
    return base64.b64encode(file.getvalue()).decode()


def planes(volume: NDArray[Any], like: NDArray[Any]) -> dict[str, str]:
    """The middle xy and xz slices of a volume (z, y, x) in the grey range of `like`, by the names xy and xz."""
    (low, high), (z, y, _) = grey_range(like), volume.shape
    return {"xy": picture(volume[z // 2], low, high), "xz": picture(volume[:, y // 2], low, high)}


def sheet(volume: NDArray[Any], like: NDArray[Any], count: int, quality: int = QUALITY) -> str:
    """`count` evenly spaced xy slices of a volume (z, y, x) below one another, the first on top, as base64 WebP."""
    low, high = grey_range(like)
    chosen = [volume[z] for z in slice_places(volume.shape[0], count)]
    return picture(np.concatenate(chosen[::-1]), low, high, quality)


def slice_places(depth: int, count: int) -> list[int]:
    """The z of `count` slices spread over a volume of `depth` voxels, borders left out."""
    return [round((k + 0.5) * depth / count) for k in range(count)]


def background(recording: Acquisition) -> NDArray[np.bool_]:
    """True (z, y, x) where the specimen is empty, `AWAY` voxels or more from anything in it."""
    from scipy.ndimage import binary_dilation

    assert recording.specimen is not None
    return ~binary_dilation(recording.specimen.labels > 0, iterations=AWAY)


def scores(volume: NDArray[Any], recording: Acquisition) -> dict[str, float | str]:
    """What both explorers show of a restored volume, against the clean reconstruction.

    `cc`, `psnr` (dB, after the best affine fit), `ssim`, `fsc_0.5` (Å, the side of the volume where it is
    never reached); `noise_left`: deviation from the clean volume
    in the specimen's empty :func:`background`, as a share of the noisy volume's there; `contrast`: slope of the
    restored on the clean volume, 1 where no contrast was lost; `fsc`: the curve, one value a shell, as text.
    """
    clean = recording.clean
    assert clean is not None
    empty, centred = background(recording), clean - clean.mean()
    found = against_truth(volume, clean, voxel_size=recording.voxel_size)
    found["fsc_0.5"] = min(found["fsc_0.5"], min(clean.shape) * recording.voxel_size)  # infinite where never reached
    curve = fsc(volume, clean, voxel_size=recording.voxel_size)
    return {
        **{name: round(found[name], 4) for name in ("cc", "psnr", "ssim", "fsc_0.5")},
        "noise_left": round(float((volume - clean)[empty].std() / (recording.full - clean)[empty].std()), 4),
        "contrast": round(float(np.vdot(centred, volume) / np.vdot(centred, centred)), 4),
        "fsc": " ".join(f"{value:.3f}" for value in curve.correlation),
    }
