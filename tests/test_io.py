"""MRC and tilt-angle files: what survives a round trip, what is refused, and that nothing is ever lost."""

import bz2
import errno
import gzip
import os
import re
import shutil
import tempfile
import tracemalloc
import warnings
from io import StringIO
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostudy import io
from cryostudy.errors import InputError

RNG = np.random.default_rng(7)
BLOCK = RNG.normal(3, 2, (9, 10, 11)).astype(np.float32)


@pytest.fixture(autouse=True)
def quiet(capfd):
    """No function of this module may warn or print."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert capfd.readouterr() == ("", "")


def make(path: Path, data: np.ndarray = BLOCK, **fields) -> Path:
    """An MRC file made by mrcfile, independent of the code under test."""
    with mrcfile.new(path) as mrc:
        mrc.set_data(data)
        mrc.voxel_size = (10.5, 10.5, 12.0)
        mrc.header.origin = (100.0, -50.0, 25.0)
        mrc.header.nxstart, mrc.header.nystart, mrc.header.nzstart = -3, 4, 5
        mrc.header.label[0] = b"first label"
        mrc.add_label("second label")
        for name, value in fields.items():
            mrc.header[name] = value
    return path


def refusal(path: Path, read=io.read_volume) -> str:
    messages = set()
    for mmap in (False, True):
        with pytest.raises(InputError) as caught:
            read(path, mmap=mmap)
        messages.add(str(caught.value))
    assert len(messages) == 1
    return one_line(messages.pop(), path)


def one_line(message: str, path: Path) -> str:
    assert message.startswith(str(path)) and "\n" not in message
    return message


def assert_valid(path: Path) -> None:
    report = StringIO()
    assert mrcfile.validate(path, report), report.getvalue()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# Round trips


@pytest.mark.parametrize("mmap", [False, True])
def test_header_survives(tmp_path, mmap):
    volume = io.read_volume(make(tmp_path / "in.mrc"), mmap=mmap)
    assert volume.voxel_size == 10.5
    assert volume.origin == (100.0, -50.0, 25.0)
    assert volume.labels[1] == "second label"
    io.write_volume(tmp_path / "out.mrc", volume.data * 2, like=volume, voxel_size=10.5, label="restored")
    assert_valid(tmp_path / "out.mrc")
    with mrcfile.open(tmp_path / "in.mrc") as old, mrcfile.open(tmp_path / "out.mrc") as new:
        assert np.array_equal(new.data, BLOCK * 2)
        assert new.voxel_size == old.voxel_size and new.voxel_size.z == 12
        assert new.header.origin == old.header.origin and new.nstart == old.nstart
        assert new.header.cella == old.header.cella
        assert new.get_labels() == [*old.get_labels(), "restored"]
        assert new.header.dmax == new.data.max() and np.isclose(new.header.rms, new.data.std())


def test_explicit_voxel_size_replaces_that_of_the_input(tmp_path):
    volume = io.read_volume(make(tmp_path / "in.mrc"))
    io.write_volume(tmp_path / "out.mrc", BLOCK, like=volume, voxel_size=8.0, label="x")
    with mrcfile.open(tmp_path / "out.mrc") as mrc:
        assert mrc.voxel_size.tolist() == (8.0, 8.0, 8.0)


def test_other_shape_keeps_the_voxel_size(tmp_path):
    volume = io.read_volume(make(tmp_path / "in.mrc"))
    io.write_volume(tmp_path / "out.mrc", BLOCK[:8, :7], like=volume, label="cropped")
    with mrcfile.open(tmp_path / "out.mrc") as mrc:
        assert mrc.voxel_size.tolist() == (10.5, 10.5, 12.0)
        assert mrc.header.mz == 8 and mrc.header.origin.x == 100


def test_without_a_pattern(tmp_path):
    io.write_volume(tmp_path / "out.mrc", BLOCK.astype(float), voxel_size=13.48, label="née\nµ" + 90 * "x")
    volume = io.read_volume(tmp_path / "out.mrc")
    assert volume.voxel_size == 13.48 and volume.data.dtype == np.float32
    assert volume.labels == ("n?e ?" + 75 * "x",)
    io.write_volume(tmp_path / "unknown.mrc", BLOCK, label="x")
    assert io.read_volume(tmp_path / "unknown.mrc").voxel_size == 0.0
    assert_valid(tmp_path / "unknown.mrc")


def test_labels_never_exceed_ten(tmp_path):
    path = tmp_path / "0.mrc"
    io.write_volume(path, BLOCK, label="run 0")
    for run in range(1, 13):
        volume = io.read_volume(path)
        path = tmp_path / f"{run}.mrc"
        io.write_volume(path, BLOCK, like=volume, label=f"run {run}")
    assert io.read_volume(path).labels == (*(f"run {run}" for run in range(9)), "run 12")


def test_stack_keeps_its_kind_and_extended_header(tmp_path):
    with mrcfile.new(tmp_path / "in.st") as mrc:
        mrc.set_data(BLOCK)
        mrc.set_image_stack()
        mrc.voxel_size = 2.5
        mrc.set_extended_header(np.frombuffer(bytes(range(160)), "V1"))
        mrc.header.exttyp = b"SERI"
    stack = io.read_stack(tmp_path / "in.st", mmap=True)
    io.write_volume(tmp_path / "out.st", stack.data, like=stack, label="x")
    io.write_volume(tmp_path / "tomogram.mrc", BLOCK[:8], like=stack, label="x")
    with mrcfile.open(tmp_path / "out.st") as mrc:
        assert mrc.is_image_stack() and mrc.voxel_size.x == 2.5
        assert mrc.extended_header.tobytes() == bytes(range(160)) and mrc.header.exttyp == b"SERI"
        assert np.array_equal(mrc.data, BLOCK)
    with mrcfile.open(tmp_path / "tomogram.mrc") as mrc:
        assert mrc.is_volume() and mrc.header.nsymbt == 0 and mrc.voxel_size.x == 2.5


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    dtype=st.sampled_from(["i1", "i2", "u2", "f2", "f4"]),
    order=st.sampled_from("<>"),
    suffix=st.sampled_from([".mrc", ".rec", ".map", ".st", ".ali", ".mrc.gz", ".rec.bz2"]),
    mmap=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_shape_and_type_survives(shape, dtype, order, suffix, mmap, seed):
    # A signed-byte file whose range only fits unsigned bytes cannot occur: its statistics are exact.
    data = np.random.default_rng(seed).normal(0, 40, shape).astype(dtype)
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "in.mrc"), Path(name, "out" + suffix)
        with mrcfile.new(source) as mrc:
            mrc.set_data(data.astype(data.dtype.newbyteorder(order)))
            mrc.set_volume()
        volume = io.read_stack(source, mmap=mmap)
        assert volume.data.dtype == dtype or volume.data.dtype.newbyteorder() == dtype
        assert np.array_equal(volume.data, data)
        io.write_volume(target, volume.data, like=volume, label="x")
        assert np.array_equal(io.read_stack(target, mmap=mmap).data, data.astype(np.float32))
        del volume


@pytest.mark.parametrize("pack", [gzip, bz2])
@pytest.mark.parametrize("suffix", [".mrc", ".mrc.packed"])
def test_compressed_input_is_known_by_its_content(tmp_path, pack, suffix):
    packed = tmp_path / f"in{suffix}"
    packed.write_bytes(pack.compress(make(tmp_path / "plain.mrc").read_bytes()))
    volume = io.read_volume(packed, mmap=True)
    assert np.array_equal(volume.data, BLOCK) and volume.origin == (100.0, -50.0, 25.0)


def test_memory_map_is_read_only(tmp_path):
    volume = io.read_volume(make(tmp_path / "in.mrc"), mmap=True)
    assert isinstance(volume.data, np.memmap) or isinstance(volume.data.base, np.memmap)
    with pytest.raises(ValueError):
        volume.data[0, 0, 0] = 1


def test_real_tomogram(tmp_path, shared):
    path = shared / "data" / "real" / "microtubule_13pf.mrc"
    volume = io.read_volume(path)
    assert volume.data.shape == (36, 206, 94) and volume.data.dtype == np.int16
    assert volume.voxel_size == 10.52 and volume.origin == (100.0, -50.0, 25.0)
    assert "13-protofilament" in volume.labels[1]
    io.write_volume(tmp_path / "out.mrc", volume.data, like=volume, label="copy", protect=[path])
    assert_valid(tmp_path / "out.mrc")
    with mrcfile.open(path) as old, mrcfile.open(tmp_path / "out.mrc") as new:
        assert new.voxel_size == old.voxel_size and new.header.origin == old.header.origin
        assert new.get_labels() == [*old.get_labels(), "copy"]


def test_real_stack_of_half_floats(shared):
    path = sorted((shared / "data" / "real" / "ribosome_tilts").glob("Unt*.mrcs"))[0]
    stack = io.read_stack(path)
    assert stack.data.shape == (37, 32, 32) and stack.data.dtype == np.float16 and stack.voxel_size == 12.0


# Odd headers that are usable


@pytest.mark.parametrize("order", "<>")
def test_file_from_before_the_map_identifier(tmp_path, order):
    raw = bytearray(make(tmp_path / "in.mrc").read_bytes())
    header = (
        np.frombuffer(raw[:1024], mrcfile.dtypes.HEADER_DTYPE)
        .copy()
        .astype(mrcfile.dtypes.HEADER_DTYPE.newbyteorder(order))
    )
    old = bytearray(header.tobytes())
    old[196:208] = bytes(12)
    old[208:220] = np.array([25.0, 100.0, -50.0], order + "f4").tobytes()  # IMOD's order: z, x, y
    (tmp_path / "old.mrc").write_bytes(old + BLOCK.astype(order + "f4").tobytes())
    for mmap in (False, True):
        volume = io.read_volume(tmp_path / "old.mrc", mmap=mmap)
        assert np.array_equal(volume.data, BLOCK)
        assert volume.voxel_size == 10.5 and volume.origin == (100.0, -50.0, 25.0)
    io.write_volume(tmp_path / "new.mrc", volume.data, like=volume, label="x")
    assert_valid(tmp_path / "new.mrc")
    assert io.read_volume(tmp_path / "new.mrc").origin == volume.origin


@pytest.mark.parametrize("stamp", [(0, 0, 0, 0), (17, 17, 0, 0), (68, 0, 0, 0)])
def test_wrong_machine_stamp(tmp_path, stamp):
    volume = io.read_volume(make(tmp_path / "in.mrc", machst=stamp))
    assert np.array_equal(volume.data, BLOCK)


@pytest.mark.parametrize(("flags", "expected"), [(0, 200), (1, -56)])
def test_imod_bytes(tmp_path, flags, expected):
    """IMOD's flag decides whether mode 0 is signed; mrcfile always reads signed bytes."""
    make(tmp_path / "in.mrc", np.full((8, 8, 8), -56, np.int8))
    raw = bytearray((tmp_path / "in.mrc").read_bytes())
    raw[152:160] = b"IMOD" + bytes([flags, 0, 0, 0])
    (tmp_path / "in.mrc").write_bytes(raw)
    assert (io.read_volume(tmp_path / "in.mrc").data == expected).all()


def test_unsigned_bytes_known_by_their_range(tmp_path):
    make(tmp_path / "in.mrc", np.full((8, 8, 8), -56, np.int8), dmin=3, dmax=250)
    assert (io.read_volume(tmp_path / "in.mrc").data == 200).all()


def test_axes_in_another_order(tmp_path):
    """Columns along z, rows along y, sections along x."""
    volume = io.read_volume(make(tmp_path / "in.mrc", mapc=3, mapr=2, maps=1))
    assert np.array_equal(volume.data, BLOCK.transpose(2, 1, 0))
    io.write_volume(tmp_path / "out.mrc", volume.data, like=volume, label="x")
    with mrcfile.open(tmp_path / "out.mrc") as mrc:
        assert np.array_equal(mrc.data, volume.data)
        assert mrc.nstart.tolist() == (5, 4, -3)  # start indices are stored for columns, rows, sections


def test_trailing_bytes_and_blank_fields_do_no_harm(tmp_path):
    path = make(tmp_path / "in.mrc", mapc=0, mapr=0, maps=0, nlabl=-1, mx=0, nversion=0)
    path.write_bytes(path.read_bytes() + b"rest")
    volume = io.read_volume(path)
    assert np.array_equal(volume.data, BLOCK) and volume.voxel_size == 0.0


# Files that are refused


def test_missing_empty_and_foreign_files(tmp_path):
    assert "no such file" in refusal(tmp_path / "no.mrc")
    assert "not a file" in refusal(tmp_path)
    foreign = {
        "empty.mrc": (b"", "empty"),
        "short.mrc": (make(tmp_path / "in.mrc").read_bytes()[:500], "too short"),
        "noise.mrc": (RNG.bytes(5000), "not an MRC file"),
        "zeros.mrc": (bytes(5000), "not an MRC file"),
        "text.mrc": (b"a tomogram\n" * 500, "not an MRC file"),
        "picture.mrc": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + RNG.bytes(5000), "not an MRC file"),
        "packed.mrc": (gzip.compress(RNG.bytes(5000)), "not an MRC file"),
        "damaged.mrc": (b"\x1f\x8b" + RNG.bytes(5000), "cannot be read"),
    }
    for name, (content, reason) in foreign.items():
        (tmp_path / name).write_bytes(content)
        assert reason in refusal(tmp_path / name)
        assert reason in refusal(tmp_path / name, io.read_stack)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_truncated_file(tmp_path, pack):
    whole = make(tmp_path / "in.mrc").read_bytes()
    (tmp_path / "cut.mrc").write_bytes(pack(whole[:-1]))
    assert "truncated" in refusal(tmp_path / "cut.mrc")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_truncated_archive(tmp_path, pack):
    (tmp_path / "cut.mrc").write_bytes(pack(make(tmp_path / "in.mrc").read_bytes())[:-9])
    refusal(tmp_path / "cut.mrc")


def test_complex_2d_and_unknown_modes(tmp_path):
    make(tmp_path / "fourier.mrc", BLOCK.astype(np.complex64))
    assert "complex" in refusal(tmp_path / "fourier.mrc")
    assert "complex" in refusal(make(tmp_path / "mode3.mrc", mode=3))
    assert "mode 101" in refusal(make(tmp_path / "mode101.mrc", mode=101))
    make(tmp_path / "image.mrc", BLOCK[0])
    assert "2-D" in refusal(tmp_path / "image.mrc")
    assert io.read_stack(tmp_path / "image.mrc").data.shape == (1, 10, 11)
    assert "stack of" in refusal(make(tmp_path / "volumes.mrc", ispg=401, mz=3))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_a_giant_size_in_the_header_reserves_no_memory(tmp_path, pack):
    raw = make(tmp_path / "in.mrc", nx=2**31 - 1, ny=2**31 - 1, nz=2**31 - 1).read_bytes()
    (tmp_path / "giant.mrc").write_bytes(pack(raw))
    tracemalloc.start()
    assert "truncated" in refusal(tmp_path / "giant.mrc")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_malformed_headers(tmp_path, pack):
    """Whatever the header says: a usable volume or one clear line, in bounded memory."""
    whole = make(tmp_path / "in.mrc").read_bytes()
    rng = np.random.default_rng(3)
    path, n_read = tmp_path / "bad.mrc", 0
    tracemalloc.start()
    for _ in range(200):
        raw = bytearray(whole)
        # The first 256 bytes hold the numbers, the rest is labels.
        for position in rng.integers(0, rng.choice([96, 256, 1024]), rng.integers(1, 12)):
            raw[position] = rng.choice([0, 1, 2, 127, 128, 255, rng.integers(256)])
        path.write_bytes(pack(bytes(raw[: rng.choice([len(raw), len(raw), rng.integers(len(raw))])])))
        for mmap in (False, True):
            try:
                volume = io.read_stack(path, mmap=mmap)
            except InputError as error:
                one_line(str(error), path)
                continue
            n_read += 1
            assert volume.data.size <= BLOCK.size * 4 and volume.voxel_size >= 0
            io.write_volume(tmp_path / "out.mrc", np.zeros(volume.data.shape), like=volume, label="x")
            assert io.read_stack(tmp_path / "out.mrc").voxel_size == pytest.approx(volume.voxel_size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 40 < n_read < 360 and peak < 40e6


# Writing: all or nothing


def test_the_input_is_never_overwritten(tmp_path):
    source = make(tmp_path / "in.mrc")
    (tmp_path / "soft.mrc").symlink_to(source)
    (tmp_path / "hard.mrc").hardlink_to(source)
    (tmp_path / "folder").symlink_to(tmp_path)
    before = source.read_bytes()
    for name in ("in.mrc", "soft.mrc", "hard.mrc", "folder/in.mrc", f"../{tmp_path.name}/in.mrc"):
        output = Path(f"{tmp_path}/{name}")
        with pytest.raises(InputError, match="the output is the input"):
            io.check_output(output, [tmp_path / "other.mrc", source])
        with pytest.raises(InputError, match="the output is the input"):
            io.write_volume(output, BLOCK, label="x", protect=[source])
        with (
            pytest.raises(InputError, match="the output is the input"),
            io.create_volume(output, BLOCK.shape, label="x", protect=[source]),
        ):
            pass
    assert source.read_bytes() == before


def test_outputs_that_are_refused(tmp_path, monkeypatch):
    (tmp_path / "folder.mrc").mkdir()
    (tmp_path / "file").write_text("x")
    for name, reason in {
        "out.tif": "unknown output format",
        "out.mrcs": "unknown output format",
        "out": "unknown output format",
        "out.gz": "unknown output format",
        "folder.mrc": "is a folder",
        "missing/out.mrc": "does not exist",
        "file/out.mrc": "does not exist",
        f"{300 * 'x'}.mrc": "cannot be written",
    }.items():
        with pytest.raises(InputError, match=reason) as caught:
            io.check_output(tmp_path / name)
        one_line(str(caught.value), tmp_path / name)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(InputError, match="not writable"):
        io.check_output(tmp_path / "out.mrc")
    assert names(tmp_path) == ["file", "folder.mrc"]


def test_accepted_outputs(tmp_path):
    for name in ("a.mrc", "a.REC", "a.map", "a.st", "a.ali", "a.b.mrc.gz", "a.rec.bz2"):
        assert io.check_output(str(tmp_path / name), [tmp_path / "in.mrc"]) == tmp_path / name
    assert names(tmp_path) == []


def test_wrong_data_is_refused(tmp_path):
    path = tmp_path / "out.mrc"
    for data in (BLOCK[0], BLOCK.astype(complex), np.empty((0, 4, 4)), BLOCK.astype(str)):
        with pytest.raises(InputError, match="cannot be written"):
            io.write_volume(path, data, label="x")
    with pytest.raises(InputError, match="voxel size"):
        io.write_volume(path, BLOCK, label="x", voxel_size=float("nan"))
    io.write_volume(path, BLOCK, label="x")
    with pytest.raises(InputError, match="exists already"):
        io.write_volume(path, BLOCK, label="y", overwrite=False)
    assert io.read_volume(path).labels == ("x",)


def test_a_symbolic_link_to_another_file_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    make(tmp_path / "disk" / "real.mrc", BLOCK[:8])
    (tmp_path / "out.mrc").symlink_to(tmp_path / "disk" / "real.mrc")
    io.write_volume(tmp_path / "out.mrc", BLOCK, label="x")
    assert (tmp_path / "out.mrc").is_symlink()
    assert np.array_equal(io.read_volume(tmp_path / "disk" / "real.mrc").data, BLOCK)
    assert names(tmp_path / "disk") == ["real.mrc"]


def fill_block(path: Path) -> None:
    with io.create_volume(path, BLOCK.shape, label="new") as data:
        data[:] = BLOCK


def write_block(path: Path) -> None:
    io.write_volume(path, BLOCK, label="new")


def fail(error: BaseException):
    def failing(*_):
        raise error

    return failing


WRITERS = pytest.mark.parametrize(
    ("write", "name"), [(write_block, "out.mrc"), (write_block, "out.mrc.gz"), (fill_block, "out.mrc")]
)


@WRITERS
@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_leaves_everything_as_it_was(tmp_path, monkeypatch, write, name, function, code):
    (tmp_path / name).write_bytes(b"old content")
    monkeypatch.setattr(os, function, fail(OSError(code, "full")))
    with pytest.raises(InputError, match=r"disk full; free 0\.1 MB") as caught:
        write(tmp_path / name)
    one_line(str(caught.value), tmp_path / name)
    assert names(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"old content"


@pytest.mark.parametrize("write", [write_block, fill_block])
def test_free_space_is_checked_before_writing(tmp_path, monkeypatch, write):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(Path, "open", fail(AssertionError("nothing may be opened")))
    with pytest.raises(InputError, match="disk full"):
        write(tmp_path / "out.mrc")
    assert names(tmp_path) == []


@WRITERS
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "broken disk")])
def test_interrupted_writing(tmp_path, monkeypatch, write, name, error):
    (tmp_path / name).write_bytes(b"old content")
    monkeypatch.setattr(os, "fsync", fail(error))
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else InputError):
        write(tmp_path / name)
    assert names(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"old content"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, InputError])
def test_an_error_in_the_block_leaves_nothing(tmp_path, error):
    """And it reaches the caller as it was: an OSError there need not be one of this file."""
    with (
        pytest.raises(error, match="mine"),
        io.create_volume(tmp_path / "out.mrc", BLOCK.shape, label="x") as data,
    ):
        data[0] = 1
        raise error("mine")
    assert names(tmp_path) == []


def test_created_volume_equals_a_written_one(tmp_path):
    like = io.read_volume(make(tmp_path / "in.mrc"))
    io.write_volume(tmp_path / "written.mrc", BLOCK, like=like, label="x")
    with io.create_volume(tmp_path / "created.mrc", BLOCK.shape, like=like, label="x") as data:
        assert data.dtype == np.float32 and not data.any() and data.flags.writeable
        for z in range(len(BLOCK)):
            data[z] = BLOCK[z]
        assert not (tmp_path / "created.mrc").exists()
    assert (tmp_path / "created.mrc").read_bytes() == (tmp_path / "written.mrc").read_bytes()
    with (
        pytest.raises(InputError, match="cannot be compressed"),
        io.create_volume(tmp_path / "out.mrc.gz", BLOCK.shape, label="x"),
    ):
        pass


# Checks and statistics


@pytest.mark.parametrize("slab", [1, 1 << 22])
def test_bad_voxels_are_counted_and_located(monkeypatch, slab):
    monkeypatch.setattr("cryostudy.io.checks._SLAB_VOXELS", slab)
    data = BLOCK.astype(np.float64)
    io.check_volume(data, "t.mrc")
    data[8, 9, 10] = np.nan
    one = "t.mrc: 1 voxel is NaN or infinite, the first at (z, y, x) = (8, 9, 10)"
    with pytest.raises(InputError, match=re.escape(one)):
        io.check_volume(data, "t.mrc")
    data[2, 3, 4] = data[2, 3, 5] = -np.inf
    three = "t.mrc: 3 voxels are NaN or infinite, the first at (z, y, x) = (2, 3, 4)"
    with pytest.raises(InputError, match=re.escape(three)):
        io.check_volume(data, "t.mrc")


def test_unfit_volumes():
    for data, reason in [
        (np.full((9, 9, 9), 7, np.int16), "constant, every voxel is 7"),
        (np.zeros((9, 9, 9)), "constant"),
        (BLOCK[0], "2-D"),
        (BLOCK[None], "4-D"),
        (BLOCK.astype(np.complex64), "complex"),
        (BLOCK > 0, "type bool"),
        (BLOCK[:7], r"too small \(7 x 10 x 11 .* at least 8"),
        (BLOCK[:0], "too small"),
    ]:
        with pytest.raises(InputError, match=reason):
            io.check_volume(data, "t.mrc")


@settings(max_examples=50, deadline=None)
@given(
    offset=st.sampled_from([0.0, 1e4, -1e6]),
    margins=st.tuples(*[st.integers(0, 3)] * 6),
    dtype=st.sampled_from([np.float32, np.int16]),
    seed=st.integers(0, 99),
)
def test_statistics_ignore_the_zero_border(offset, margins, dtype, seed):
    inner = np.random.default_rng(seed).normal(offset, 30, (5, 8, 9))
    inner = np.clip(inner, -30000, 30000).astype(dtype) if dtype == np.int16 else inner.astype(dtype)
    inner[:, [0, -1]], inner[:, :, [0, -1]] = 5, 5  # the content's edge itself is not zero
    data = np.pad(inner, np.reshape(margins, (3, 2)))
    mean, deviation = io.statistics(data)
    assert mean == pytest.approx(inner.mean(dtype=float), rel=1e-9, abs=1e-9)
    assert deviation == pytest.approx(inner.std(dtype=float), rel=1e-6)
    assert np.array_equal(io.valid_mask(data), np.pad(np.ones_like(inner, bool), np.reshape(margins, (3, 2))))


def test_padded_corners_of_a_rotated_volume():
    y, x = np.mgrid[-30:31, -30:31]
    inside = np.abs(x + 0.4 * y) + np.abs(y - 0.4 * x) < 30
    data = np.where(inside, RNG.normal(100, 10, (4, 61, 61)), 0).astype(np.float32)
    data[:, 30, 30] = 0  # a dead pixel inside is content
    assert np.array_equal(io.valid_mask(data), np.broadcast_to(inside, data.shape))


def test_integer_zeros_are_content():
    """Counting data is full of zeros; taking them for border would shift its mean."""
    data = RNG.poisson(1.0, (20, 64, 64)).astype(np.int16)
    mean, deviation = io.statistics(data)
    assert mean == pytest.approx(data.mean(), rel=2e-3)
    assert deviation == pytest.approx(data.std(), rel=2e-3)


def test_statistics_are_the_same_in_one_slab_or_many(monkeypatch):
    data = BLOCK.astype(np.float16)
    whole = io.statistics(data)
    monkeypatch.setattr("cryostudy.io.checks._SLAB_VOXELS", 1)
    assert io.statistics(data) == pytest.approx(whole, rel=1e-12)
    assert whole == pytest.approx((data.mean(dtype=float), data.std(dtype=float)), rel=1e-12)
    assert io.statistics(np.zeros((9, 9, 9))) == (0.0, 0.0)


def test_large_volumes_take_little_memory(tmp_path):
    shape = (120, 512, 512)  # 126 MB
    tracemalloc.start()
    with io.create_volume(tmp_path / "large.mrc", shape, label="x") as data:
        data[60, 100:200, 100:200] = 1
    volume = io.read_volume(tmp_path / "large.mrc", mmap=True)
    io.check_volume(volume.data, "large.mrc")
    assert io.statistics(volume.data) == (1.0, 0.0)
    io.write_volume(tmp_path / "copy.mrc", volume.data, like=volume, label="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Address space of the two memory maps is counted as well.
    assert peak < 100e6


# Tilt angles

MDOC = """PixelSpacing = 2.93
TiltAngle = 99

[T = SerialEM: Tilt axis angle = 84.5]

[ZValue = 2]
TiltAngle = -54.0
TiltAxisAngle = 84

[ZValue = 0]\r
TiltAngle = -60.01\r
[ZValue = 1]
StagePosition = 1 2
TiltAngle=3
[MontSection = 0]
TiltAngle = 12
"""


@pytest.mark.parametrize("suffix", [".tlt", ".rawtlt", ".txt", ".csv", ".TLT"])
def test_column_of_angles(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes("\ufeff# tilts\r\n -60.00\r\n\r\n+1.5e1 # zero loss\n.5\n60.".encode())
    angles = io.read_tilt_angles(path)
    assert angles == [-60.0, 15.0, 0.5, 60.0]
    io.check_angles(angles, 4, path)
    with pytest.raises(InputError, match="4 tilt angles, but the stack has 5 images"):
        io.check_angles(angles, 5, path)


def test_mdoc(tmp_path):
    (tmp_path / "a.mrc.mdoc").write_text(MDOC, newline="")
    assert io.read_tilt_angles(tmp_path / "a.mrc.mdoc") == [-60.01, 3.0, -54.0]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.tlt", "1\n\nnan\n", "line 3: 'nan' is not"),
        ("a.tlt", "1\n90.5\n", "line 2: tilt angle 90.5° is beyond"),
        ("a.tlt", "1e999\n", "line 1: tilt angle inf° is beyond"),
        ("a.tlt", "1 2\n", "line 1"),
        ("a.csv", "tilt\n2\n", "line 1: 'tilt'"),
        ("a.txt", "1_0\n", "line 1"),
        ("a.tlt", "٣\n", "line 1"),
        ("a.tlt", "# nothing\n\n", "no tilt angle"),
        ("a.tlt", "", "no tilt angle"),
        ("a.tlt", "\x00\x01\x9f" * 100, "line 1"),
        ("a.dat", "1\n", "unknown kind"),
        ("a.mdoc", "[FrameSet = 0]\nTiltAngle = 3\n", r"no \[ZValue = n\]"),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = 3\n[ZValue = 1]\n", "ZValue = 1. has no TiltAngle"),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = x\n", "line 2: 'x' is not"),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = 3\n[ZValue = 0]\n", "line 3: ZValue 0 occurs twice"),
        ("a.mdoc", "[ZValue = 0]\nTiltAngle = -91\n", "line 2: tilt angle -91"),
    ],
)
def test_bad_angle_files(tmp_path, name, content, reason):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=reason) as caught:
        io.read_tilt_angles(tmp_path / name)
    one_line(str(caught.value), tmp_path / name)


def test_missing_and_huge_angle_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        io.read_tilt_angles(tmp_path / "no.tlt")
    (tmp_path / "folder.tlt").mkdir()
    with (tmp_path / "big.tlt").open("wb") as file:
        file.truncate(1 << 30)
    for name in ("folder.tlt", "big.tlt"):
        with pytest.raises(InputError, match="not a tilt-angle file"):
            io.read_tilt_angles(tmp_path / name)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60) | st.text("0123456789.-+e#\n [ZValue=TiltAngle]", max_size=80))
@pytest.mark.parametrize("name", ["a.tlt", "a.mdoc"])
def test_any_bytes_as_angle_file(name, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            angles = io.read_tilt_angles(path)
        except InputError as error:
            one_line(str(error), path)
        else:
            assert angles and all(-90 <= angle <= 90 for angle in angles)
