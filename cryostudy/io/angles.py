"""Read tilt angles from .tlt, .rawtlt, .txt, .csv and .mdoc files."""

import re
from collections.abc import Sequence
from pathlib import Path

from cryostudy.errors import InputError

_COLUMN = (".tlt", ".rawtlt", ".txt", ".csv")
_MAX_BYTES = 1 << 24
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SECTION = re.compile(r"\[\s*ZValue\s*=\s*(\d{1,9})\s*\]", re.ASCII)
_TILT = re.compile(r"TiltAngle\s*=(.*)")


def read_tilt_angles(path: str | Path) -> list[float]:
    """Tilt angles in degrees, in the order of the stack's images.

    ``.tlt``, ``.rawtlt``, ``.txt`` and ``.csv`` hold one angle a line; blank lines and what follows a ``#``
    are ignored. Of an ``.mdoc`` (SerialEM, Tomo5) the TiltAngle of each ``[ZValue = n]`` section is taken, in
    the order of n.

    Raises InputError, with the line's number, for what is not a number or beyond ±90°, and for a file that is
    missing, empty, or of another kind.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (*_COLUMN, ".mdoc"):
        raise InputError(f"{path}: unknown kind of tilt-angle file; use {', '.join(_COLUMN)} or .mdoc")
    lines = _lines(path)
    angles = _from_mdoc(lines, path) if kind == ".mdoc" else _from_column(lines, path)
    if not angles:
        wanted = "no [ZValue = n] section with a TiltAngle" if kind == ".mdoc" else "no tilt angle"
        raise InputError(f"{path}: {wanted} in it; give the tilt-angle file of the stack")
    return angles


def check_angles(angles: Sequence[float], n_tilts: int, path: str | Path) -> None:
    """Raise InputError unless ``angles``, read from ``path``, are one for each of ``n_tilts`` images."""
    if len(angles) != n_tilts:
        raise InputError(
            f"{path}: {len(angles)} tilt angles, but the stack has {n_tilts} images; "
            "give the angle file that belongs to this stack"
        )


def _lines(path: Path) -> list[str]:
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file; check the path")
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: not a tilt-angle file; give a text file of angles")
        return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _from_column(lines: list[str], path: Path) -> list[float]:
    texts = [(number, line.split("#")[0].strip()) for number, line in enumerate(lines, start=1)]
    return [_angle(text, number, path) for number, text in texts if text]


def _from_mdoc(lines: list[str], path: Path) -> list[float]:
    found: dict[int, float | None] = {}
    section: int | None = None
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line.startswith("["):
            match = _SECTION.fullmatch(line)
            section = int(match[1]) if match else None
            if section in found:
                raise InputError(f"{path}, line {number}: ZValue {section} occurs twice; remove one section")
            if section is not None:
                found[section] = None
        elif section is not None and (match := _TILT.fullmatch(line)):
            found[section] = _angle(match[1].strip(), number, path)
    angles = []
    for section, angle in sorted(found.items()):
        if angle is None:
            raise InputError(f"{path}: section [ZValue = {section}] has no TiltAngle; use a .tlt file")
        angles.append(angle)
    return angles


def _angle(text: str, number: int, path: Path) -> float:
    if not _NUMBER.fullmatch(text):
        raise InputError(
            f"{path}, line {number}: {text[:40]!r} is not a tilt angle; write one number in degrees a line"
        )
    angle = float(text)
    if abs(angle) > 90:
        raise InputError(f"{path}, line {number}: tilt angle {angle:g}° is beyond ±90°; correct it")
    return angle
