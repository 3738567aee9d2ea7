"""Downloads against a server of our own that behaves badly: they end with the right file, or with none."""

import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from cryostudy import cli, datasets
from cryostudy.datasets import download as module
from cryostudy.datasets import sources
from cryostudy.datasets.download import DownloadFailed, Remote, download, unpack
from cryostudy.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """What it does is set on its server: `files`, `ranges`, `drop` (bytes after which a reply breaks off), `tag`."""

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send):
        at = self.server
        name = self.path.lstrip("/")
        given = self.headers.get("Range")
        if send:
            at.asked.append(given)
        if at.status:
            self.send_error(at.status.pop(0))
            return
        if name not in at.files:
            self.send_error(404)
            return
        content = at.files[name]
        start = int(given[6:-1]) if given and at.ranges and self.headers.get("If-Range", at.tag) == at.tag else 0
        if start >= len(content) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = at.lie if given and at.lie is not None else start
        self.send_response(206 if (given and start) or at.lie is not None else 200)
        if start or at.lie is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", at.kind)
        if at.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", at.tag)
        self.end_headers()
        if send:
            part = content[start:]
            self.wfile.write(part if at.drop is None else part[: at.drop])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "WAIT", 0.0)
    monkeypatch.setattr(module, "PIECE", 10_000)
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files, made.ranges, made.drop, made.tag = {"a.mrc": CONTENT}, True, None, '"v1"'
    made.kind, made.length, made.asked, made.status, made.lie = "application/octet-stream", True, [], [], None
    made.url = f"http://127.0.0.1:{made.server_address[1]}"
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def remote(server, **more):
    return Remote(**{"path": "sub/a.mrc", "url": f"{server.url}/a.mrc"} | more)


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("drop", [None, 70_000, 100_000])
def test_a_broken_connection_is_taken_up_where_it_was(server, tmp_path, drop):
    server.drop = drop
    path = download(remote(server, checksum=MD5, size=len(CONTENT)), tmp_path)
    assert path.read_bytes() == CONTENT and left(tmp_path) == ["a.mrc"]
    expected = {None: [None], 70_000: [None, *(f"bytes={k * 70_000}-" for k in range(1, 5))]}.get(drop)
    assert expected is None or server.asked == expected


def test_a_process_that_died_is_taken_up_by_the_next(server, tmp_path):
    server.drop, server.files = 120_000, {"a.mrc": CONTENT}
    stopped = KeyboardInterrupt()

    class Bar(module.tqdm):
        def update(self, n=1):
            if self.n >= 100_000:
                raise stopped
            return super().update(n) if not self.disable else setattr(self, "n", self.n + n)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "tqdm", Bar)
        download(remote(server), tmp_path)
    assert left(tmp_path) == ["a.mrc.part", "a.mrc.part.tag"]
    kept = (tmp_path / "sub/a.mrc.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    server.drop = None
    server.asked.clear()
    assert download(remote(server, checksum=MD5), tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={kept}-"] and left(tmp_path) == ["a.mrc"]


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.mrc.part").write_bytes(b"x" * 50_000)
    server.ranges = False
    assert download(remote(server, checksum=MD5), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=50000-"]


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(server, tmp_path):
    server.ranges, server.drop = False, 90_000
    with pytest.raises(InputError, match="90000 bytes are kept"):
        download(remote(server), tmp_path)
    assert len(server.asked) == module.TRIES + 1 and "a.mrc" not in left(tmp_path)


def test_halves_of_two_versions_are_never_joined(server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.mrc.part").write_bytes(b"old" * 20_000)
    (tmp_path / "sub/a.mrc.part.tag").write_text('"v0"')
    assert download(remote(server), tmp_path).read_bytes() == CONTENT


def test_a_part_that_was_not_asked_for_is_not_taken(server, tmp_path):
    server.lie = 7
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.mrc.part").write_bytes(CONTENT[:1000])
    assert download(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-", None]


def test_a_whole_partial_file_needs_nothing_more(server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.mrc.part").write_bytes(CONTENT)
    assert download(remote(server, checksum=MD5), tmp_path).read_bytes() == CONTENT
    (tmp_path / "sub/a.mrc").unlink()
    (tmp_path / "sub/a.mrc.part").write_bytes(CONTENT + b"more")  # longer than the file: begun anew
    assert download(remote(server, checksum=MD5), tmp_path).read_bytes() == CONTENT


def test_wrong_content_leaves_nothing(server, tmp_path):
    server.files["a.mrc"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(InputError, match="wrong md5 checksum"):
        download(remote(server, checksum=MD5), tmp_path)
    assert left(tmp_path) == []
    with pytest.raises(InputError, match="300000 bytes, but 5 are published"):
        download(remote(server, size=5), tmp_path)
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(InputError, match="web page"):
        download(remote(server), tmp_path)
    with pytest.raises(InputError, match="404"):
        download(remote(server, url=f"{server.url}/none"), tmp_path)
    assert left(tmp_path) == []


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.status = [503, 429, 500]
    assert download(remote(server, checksum=MD5), tmp_path).read_bytes() == CONTENT
    server.status = [503] * 99
    with pytest.raises(InputError, match="503"):
        download(remote(server, path="b"), tmp_path)
    assert left(tmp_path) == ["a.mrc"]


def test_a_server_that_does_not_say_how_long_a_file_is(server, tmp_path):
    server.length = False
    assert download(remote(server, checksum=MD5), tmp_path).read_bytes() == CONTENT


def test_what_is_there_is_verified_and_not_fetched_again(server, tmp_path):
    path = download(remote(server), tmp_path)
    server.asked.clear()
    assert download(remote(server, checksum=MD5), tmp_path) == path and server.asked == []
    path.write_bytes(b"other")
    with pytest.raises(InputError, match="fetch it again"):
        download(remote(server, checksum=MD5), tmp_path)


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and type("U", (), {"free": 1000})
    )
    with pytest.raises(InputError, match="disk full"):
        download(remote(server), tmp_path)
    assert "a.mrc" not in left(tmp_path)


def test_two_processes_do_not_write_one_file(server, tmp_path):
    import fcntl

    (tmp_path / "sub").mkdir()
    with (tmp_path / "sub/a.mrc.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            download(remote(server), tmp_path)


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAIT", 0.0)
    with pytest.raises(DownloadFailed, match="download failed"):
        download(Remote("a.mrc", "http://127.0.0.1:9/a.mrc"), tmp_path)
    with pytest.raises(InputError, match="the same command tries again, or put the files where `cryostudy fetch cells"):
        sources.fetch_files([Remote("a.mrc", "http://127.0.0.1:9/a.mrc")], tmp_path, yes=True, name="cells")
    assert left(tmp_path) == []


# Archives


def packed(kind, names):
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in names.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, content in names.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives_are_unpacked_once_and_deleted(server, tmp_path, kind):
    server.files["a.mrc"] = packed(kind, {"model_0/x.mrc": CONTENT, "model_0/y.txt": b"1 2 3"})
    files = [remote(server, path=f"set.{kind}", unpack=True)]
    sources.fetch_files(files, tmp_path, yes=False, name="set")
    assert left(tmp_path) == [f"set.{kind}.unpacked", "x.mrc", "y.txt"]
    assert (tmp_path / "model_0/x.mrc").read_bytes() == CONTENT
    server.asked.clear()
    sources.fetch_files(files, tmp_path, yes=False, name="set")
    assert server.asked == []


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives_that_are_damaged_or_reach_outside_are_refused(tmp_path, kind):
    path = tmp_path / "d" / f"a.{kind}"
    path.parent.mkdir()
    path.write_bytes(packed(kind, {"../escaped.txt": b"x"}))
    with pytest.raises(InputError, match="outside"):
        unpack(path, path.parent)
    whole = bytearray(packed(kind, {"x.mrc": CONTENT}))
    whole[150_000] ^= 255
    path.write_bytes(whole if kind == "zip" else whole[:150_000])
    with pytest.raises(InputError, match="damaged"):
        unpack(path, path.parent)
    assert not (tmp_path / "escaped.txt").exists() and "x.mrc" not in left(tmp_path)


# Lists of repositories, and the command


def dataverse(server):
    file = {"id": 7, "filename": "shrec21_full_dataset.zip", "filesize": len(CONTENT), "md5": MD5[4:]}
    other = {"id": 8, "filename": "readme.txt", "filesize": 3, "md5": "0"}
    files = [{"dataFile": file}, {"dataFile": other, "directoryLabel": "docs"}]
    server.files["api/datasets"] = json.dumps({"data": {"latestVersion": {"files": files}}}).encode()
    return {"kind": "dataverse", "api": f"{server.url}/api/datasets", "wanted": "*full_dataset*"}


def test_a_repository_says_size_and_checksum(server):
    (file,) = sources.listed(dataverse(server), {})
    assert file == Remote(
        "shrec21_full_dataset.zip", f"{server.url}/api/access/datafile/7", len(CONTENT), MD5, unpack=True
    )
    files = [{"key": "a.mrc", "size": 3, "checksum": "md5:1", "links": {"self": "u"}}]
    server.files["zenodo"] = json.dumps({"files": files}).encode()
    assert sources.listed({"kind": "zenodo", "api": f"{server.url}/zenodo"}, {}) == [Remote("a.mrc", "u", 3, "md5:1")]


def test_without_the_list_the_fixed_address_serves(server):
    entry = {"repository": {"kind": "dataverse", "api": f"{server.url}/gone"}, "page": "https://page"}
    with pytest.raises(InputError, match="by hand from https://page"):
        sources.remotes(entry, {})
    files = [{"path": "{item}.mrc", "url": "u/{item}"}]
    assert sources.remotes(entry | {"files": files}, {"item": "5"}) == [Remote("5.mrc", "u/5")]


def test_large_or_unknown_sizes_are_told_first_and_need_a_yes(server, tmp_path):
    with pytest.raises(InputError, match=r"2 GB to download into .* --yes"):
        sources.fetch_files([remote(server, size=2_000_000_000)], tmp_path, yes=False, name="set")
    server.length = False
    with pytest.raises(InputError, match="unknown size"):
        sources.fetch_files([remote(server)], tmp_path, yes=False, name="set")
    assert server.asked == [] and left(tmp_path) == []
    assert sources.fetch_files([remote(server)], tmp_path, yes=True, name="set")[0].read_bytes() == CONTENT
    assert sources.fetch_files([remote(server)], tmp_path, yes=False, name="set")  # what is there needs no yes


def test_optional_files_may_be_missing(server, tmp_path):
    files = [remote(server), remote(server, path="b", url=f"{server.url}/none", optional=True)]
    assert [path.name for path in sources.fetch_files(files, tmp_path, yes=False, name="set")] == ["a.mrc"]
    with pytest.raises(InputError, match="404"):
        sources.fetch_files([files[1].__class__("b", files[1].url, 5)], tmp_path, yes=False, name="set")


@pytest.mark.parametrize(("size", "text"), [(None, "unknown size"), (5, "0.005 kB"), (2_150_000_000, "2.15 GB")])
def test_sizes_in_words(size, text):
    assert sources.readable(size) == text


def test_the_command_downloads_below_the_data_folder(server, tmp_path, monkeypatch, capsys):
    known = dict(datasets.registry())
    known["imod-centriole"] = dict(known["imod-centriole"], files=[{"path": "{item}.st", "url": f"{server.url}/a.mrc"}])
    monkeypatch.setattr(datasets, "registry", lambda: known)
    monkeypatch.setenv("CRYOSTUDY_DATA", str(tmp_path))
    assert cli.main(["fetch", "imod-centriole", "BBb"]) == 0
    path = tmp_path / "imod-centriole" / "BBb.st"
    assert capsys.readouterr().out.strip() == str(path) and path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "item", "ends"),
    [
        ("empiar-10045", "09", ["Tomograms/09/IS002_291013_009.mrcs", "Tomograms/09/IS002_291013_009.tlt"]),
        ("empiar-11830", "16", ["data/ctf3d_bin4/16.rec"]),
        ("empiar-11830", "P_8", ["P_8.st", "P_8_EVN.st", "P_8_ODD.st", "P_8_dose-filt.tlt", "P_8_dose-filt.xf"]),
        ("cryocare", "Tomo110", ["Tomo110.zip"]),
        ("cryoet-portal", "10000/TS_026/13.48", ["Reconstructions/VoxelSpacing13.480/Tomograms/100/TS_026.mrc",
         "100/tomogram_metadata.json", "TiltSeries/100/TS_026.rawtlt", "tiltseries_metadata.json"]),
    ],
)  # fmt: skip
def test_items_become_addresses(monkeypatch, name, item, ends):
    asked = []
    monkeypatch.setattr(datasets, "fetch_files", lambda files, *_, **__: asked.extend(files) or [])
    datasets.fetch(name, item)
    assert len(asked) == len(ends)
    for file, end in zip(asked, ends, strict=True):
        assert file.path.endswith(end.rpartition("/")[2]) and (file.url.endswith(end) or name == "cryocare")
        assert "{" not in file.url + file.path
