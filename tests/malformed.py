"""Reads malformed files through every reader of `cryostudy.io`; run in a process of its own by test_faults.py.

    python tests/malformed.py FOLDER COUNT

Prints one JSON object: how many files of each kind were refused and read, and what went wrong.
"""

import bz2
import contextlib
import gzip
import itertools
import json
import re
import resource
import signal
import struct
import sys
import traceback
import warnings
from io import StringIO
from pathlib import Path

import mrcfile
import numpy as np

from cryostudy import data, io
from cryostudy.errors import InputError
from cryostudy.io.star import read_star

MEMORY = 2**29  # bytes beyond what the process has when it starts
SECONDS = 20  # for one file
# Offsets of the header's fields (MRC2014).
FIELDS = {"nx": 0, "ny": 4, "nz": 8, "mode": 12, "nxstart": 16, "mx": 28, "my": 32, "mz": 36, "mapc": 64, "mapr": 68,
          "maps": 72, "ispg": 88, "nsymbt": 92, "imod": 152, "imod flags": 156, "nlabl": 220}  # fmt: skip
FLOATS = {"cella": 40, "cellb": 52, "dmin": 76, "dmax": 80, "dmean": 84, "origin": 196, "rms": 216}
WHOLE = (0, 1, -1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 101, 255, 401, 630, 1000, 2**15, 2**24, 2**31 - 1, -(2**31))
REAL = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-45, 3e38, -3e38)
TEXTS = (".tlt", ".rawtlt", ".txt", ".csv", ".mdoc", ".star", ".st", ".mrc", ".rec.gz")
WORDS = (b"data_", b"loop_", b"_rlnTomoName #1", b"[ZValue = 0]", b"[ZValue = 99999999999]", b"TiltAngle = ",
         b"TiltAngle = nan", b"12.5", b"-60", b"1e999", b"#", b"\n", b"\r", b" ", b"\0", b"\xff\xfe", b"'a b'",
         b"_x 1 2", b"TiltAngle = 1e5", b"[")  # fmt: skip


def sound(rng):
    """A small file that is as it should be."""
    sides = tuple(int(n) for n in rng.integers(8, 13, 3))
    dtype = rng.choice(["i1", "i2", "f4", "u2", "f2"])
    values = rng.normal(100, 20, sides).astype(dtype)
    header = np.zeros((), mrcfile.dtypes.HEADER_DTYPE)
    extended = rng.bytes(int(rng.choice([0, 0, 80, 1024])))
    for axis, n in zip("zyx", sides, strict=True):
        header["n" + axis] = header["m" + axis] = n
        header["cella"][axis] = 10 * n
    header["mode"] = {"i1": 0, "i2": 1, "f4": 2, "u2": 6, "f2": 12}[str(dtype)]
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"], header["nsymbt"], header["map"], header["nversion"] = 1, len(extended), b"MAP ", 20141
    header["machst"] = (0x44, 0x44, 0, 0)
    header["exttyp"] = b"SERI" if extended else b""
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = values.min(), values.max(), values.mean(), 1
    raw = header.tobytes() + extended + values.tobytes()
    if rng.random() < 0.2:  # the other byte order
        header, values = header.astype(header.dtype.newbyteorder(">")), values.astype(values.dtype.newbyteorder(">"))
        header["machst"] = (0x11, 0x11, 0, 0)
        raw = header.tobytes() + extended + values.tobytes()
    return bytearray(raw)


def spoilt(rng, number):
    """(kind, suffix, content) of one malformed file; sometimes it is still a file that can be used."""
    raw = sound(rng)
    kind = ("noise", "field", "fields", "cut", "stamp", "axes", "bytes", "packed", "text", "extended")[number % 10]
    suffix = str(rng.choice([".mrc", ".rec", ".st", ".map"]))
    if kind == "noise":  # random bytes all over the header
        raw[:1024] = rng.bytes(1024)
        if rng.random() < 0.5:
            raw[208:212] = b"MAP "
    elif kind in ("field", "fields"):
        for _ in range(1 if kind == "field" else int(rng.integers(2, 6))):
            if rng.random() < 0.7:
                place, value = rng.choice(list(FIELDS.values())), struct.pack("<i", int(rng.choice(WHOLE)))
            else:
                place = rng.choice(list(FLOATS.values())) + 4 * int(rng.integers(0, 3))
                value = struct.pack("<f", float(rng.choice(REAL)))
            raw[place : place + 4] = value
    elif kind == "cut":
        del raw[int(rng.integers(0, len(raw))) :]
    elif kind == "stamp":  # machine stamp, map identifier
        place = int(rng.choice([208, 212]))
        raw[place : place + 4] = rng.bytes(4)
    elif kind == "axes":
        raw[64:76] = struct.pack("<3i", *rng.integers(-1, 5, 3).tolist())
    elif kind == "bytes":
        for place in rng.integers(0, 256, int(rng.integers(1, 12))):
            raw[place] = rng.integers(256)
    elif kind == "extended":
        raw[92:96] = struct.pack("<i", int(rng.integers(-(2**31), 2**31)))
    elif kind == "text":
        few = rng.choice(len(WORDS), int(rng.integers(1, 5)))  # so that some are as they should be
        words = [WORDS[k] if rng.random() < 0.95 else rng.bytes(9) for k in rng.choice(few, int(rng.integers(20)))]
        raw, suffix = bytearray(bytes(rng.choice([10, 32]).tobytes()[:1]).join(words)), str(rng.choice(TEXTS))
    else:
        raw, suffix = packed(rng, raw, number), str(rng.choice([".mrc.gz", ".mrc.bz2", ".mrc"]))
    return kind, suffix, bytes(raw)


def packed(rng, raw, number):
    """A compressed file that is cut, damaged or holds something else."""
    pack = gzip.compress if number % 20 < 10 else bz2.compress
    what = number // 20 % 10
    if what < 5:
        raw[: 4 * int(rng.integers(1, 20))] = b""
    found = bytearray(pack(bytes(raw)))
    if what % 2:
        del found[int(rng.integers(0, len(found))) :]
    for place in rng.integers(0, max(1, len(found)), int(rng.integers(0, 4))):
        found[place : place + 1] = rng.bytes(1)
    return found


def bombs(rng):
    """(kind, suffix, content) of compressed files that unpack to 8 GB, the first two behind a usable volume."""
    for pack, suffix in ((gzip.compress, ".mrc.gz"), (bz2.compress, ".mrc.bz2")):
        raw, zeros = sound(rng), pack(bytes(2**24)) * 480
        yield "bomb behind", suffix, pack(bytes(raw)) + zeros
        raw[:16] = struct.pack("<4i", 2000, 1000, 1000, 2)
        yield "bomb", suffix, pack(bytes(raw)) + zeros
    raw = sound(rng)
    raw[92:96] = struct.pack("<i", 2**31 - 1)
    yield "bomb", ".mrc.gz", gzip.compress(bytes(raw)) + gzip.compress(bytes(2**24)) * 480


class Hang(BaseException):
    """The alarm."""


def ring(*_):
    raise Hang


def readers(path, good):
    """Name -> call of every reader, and of what stands above them."""
    yield "read_volume", lambda: io.read_volume(path)
    yield "read_volume, mapped", lambda: io.read_volume(path, mmap=True)
    yield "read_stack", lambda: io.read_stack(path)
    yield "read_stack, mapped", lambda: io.read_stack(path, mmap=True)
    yield "read_tilt_angles", lambda: io.read_tilt_angles(path)
    yield "read_star", lambda: read_star(path)
    yield "from_files", lambda: data.from_files(path)
    yield "from_files, half", lambda: data.from_files(even=good, odd=path)
    yield "from_files, angles", lambda: data.from_files(good, tilt_angles=path)
    yield "from_files, stack", lambda: from_stack(path)


def from_stack(path):
    """A reconstruction, with as many tilt angles as there are images."""
    angles = np.linspace(-40, 40, len(io.read_stack(path, mmap=True).data)).tolist()
    return data.from_files(tilt_series=path, tilt_angles=angles, thickness=8)


def same_as_mrcfile(volume, path):
    """Whether mrcfile, permissive, finds the same shape and values; True where it finds none to compare."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with mrcfile.open(path, permissive=True) as other:
                if other.data is None or other.header.machst[0] not in (0x44, 0x11):  # it guesses the byte order
                    return True
                found, mode = np.asarray(other.data), int(other.header.mode)
        except (ValueError, OSError, EOFError, MemoryError, RuntimeError, OverflowError):
            return True
    header, order = volume.header, (0, 1, 2)
    stored = [int(header[key]) for key in ("maps", "mapr", "mapc")]
    if sorted(stored) == [1, 2, 3]:
        order = tuple(stored.index(code) for code in (3, 2, 1))
    found = found.reshape((-1, *found.shape[-2:])).transpose(order)
    if found.shape != volume.data.shape:
        return False
    if mode == 0:  # signed or not: the same bytes
        return bool(((found.astype(int) - volume.data.astype(int)) % 256 == 0).all())
    return bool(np.array_equal(found, volume.data, equal_nan=True))


def sane(found, path, folder):
    """What is wrong with a successful reading, or None."""
    if isinstance(found, io.Volume):
        if not (np.isfinite(found.voxel_size) and found.voxel_size >= 0 and np.isfinite(found.origin).all()):
            return f"voxel size {found.voxel_size}, origin {found.origin}"
        if "bomb" not in path.name and not same_as_mrcfile(found, path):  # mrcfile unpacks a bomb to its end
            return "other data than mrcfile"
        if found.data.dtype.kind in "iuf":  # its header must do for an output
            written = folder / "again.mrc"
            io.write_volume(written, found.data, like=found, label="again")
            again = io.read_stack(written)
            if not np.array_equal(again.data, np.asarray(found.data, np.float32), equal_nan=True):
                return "written and read again it differs"
            complaints = StringIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mrcfile.validate(written, print_file=complaints)
            # The type of the extended header is copied, whatever it is; extreme values are beyond its statistics.
            told = [line for line in complaints.getvalue().splitlines()[1:] if "Extended header type" not in line]
            if told != ["File appears to be valid."] and (np.abs(again.data) < 1e15).all() and told:
                return f"what is written like it is no valid MRC file: {told}"
    elif isinstance(found, list):
        if not found or not (np.abs(found) <= 90).all():
            return f"tilt angles {found[:9]}"
    elif isinstance(found, data.Acquisition):
        if not np.isfinite(found.full).all() or found.full.dtype != np.float32 or found.full.ndim != 3:
            return "an unusable volume"
    elif any(len({len(values) for values in block.values()}) > 1 for block in found.blocks.values()):
        return "columns of unequal length"
    return None


def attempt(call, path, folder):
    """("read" or "refused", None), or (None, what is wrong)."""
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = call()
            wrong = sane(found, path, folder)
        wrong = wrong or next((str(w.message) for w in caught if w.category is not UserWarning), None)
        return ("read", None) if wrong is None else (None, wrong)
    except InputError as error:
        text = str(error)
        good = "\n" not in text and path.name in text and len(text) < 1000 and text.isprintable()
        return ("refused", None) if good else (None, f"message {text!r}")
    except Hang:
        return None, f"no end after {SECONDS} s"
    except BaseException:
        return None, traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)


def main(folder, count):
    rng = np.random.default_rng(7)
    good = folder / "good.mrc"
    io.write_volume(good, rng.normal(size=(10, 10, 10)).astype(np.float32), voxel_size=10.0, label="good")
    data.from_files(good)  # imports what it needs
    signal.signal(signal.SIGALRM, ring)
    start = int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (start + MEMORY, resource.RLIM_INFINITY))
    outcomes, wrong = {}, []
    files = itertools.chain((spoilt(rng, number) for number in range(count)), bombs(rng))
    for number, (kind, suffix, content) in enumerate(files):
        path = folder / f"{kind.replace(' ', '_')}{number}{suffix}"
        path.write_bytes(content)
        for name, call in itertools.islice(readers(path, good), 1 if kind == "bomb" else None):
            outcome, fault = attempt(call, path, folder)
            if fault:
                wrong.append({"file": path.name, "kind": kind, "reader": name, "fault": fault})
            else:
                found = outcomes.setdefault(kind, {"read": 0, "refused": 0})
                found[outcome] += 1
        if not any(one["file"] == path.name for one in wrong):
            path.unlink()
    with contextlib.suppress(FileNotFoundError):
        (folder / "again.mrc").unlink()
    print(json.dumps({"outcomes": outcomes, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
