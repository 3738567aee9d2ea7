"""What goes wrong on real machines: killed processes, full disks, damaged files, cells that crash, two at once."""

import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from scipy import ndimage

from cryostudy import ablation, artefacts, cli, grid, io, paired, verdict
from cryostudy.commands import chapter
from cryostudy.datasets.download import Remote, download
from cryostudy.errors import CryostudyError, InputError
from cryostudy.explore import compare, weights
from cryostudy.io.aside import alone, neighbour
from cryostudy.same import compared

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which only Linux has")


@pytest.fixture
def tomogram(tmp_path):
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(20, 24, 26)), 2)
    noisy = (smooth / smooth.std() + rng.normal(size=smooth.shape)).astype(np.float32)
    io.write_volume(tmp_path / "tomogram.mrc", noisy, voxel_size=10.0, label="made for a test")
    return tmp_path / "tomogram.mrc"


@pytest.fixture
def run(capsys):
    """Calls the command line in this process: (exit code, stdout, stderr)."""

    def call(*words):
        capsys.readouterr()
        return cli.main([str(word) for word in words]), *capsys.readouterr()

    return call


# Commands in processes of their own, slow enough to be disturbed.
SLOW = """
    import sys, time
    import cryostudy.methods.learned as learned, cryostudy.training as training
    from cryostudy.cli import main
    training.CHECKPOINT_SECONDS = 0.0
    crop = learned.random_crop
    def slow(*arguments, **options):
        time.sleep(0.1)
        return crop(*arguments, **options)
    learned.random_crop = slow
    sys.exit(main(sys.argv[1:]))
"""


def start(script, *words, **options):
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, words)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def wait_for(condition, child, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        assert child is None or child.poll() is None, child.communicate()
        time.sleep(0.02)


def kill(child):
    child.send_signal(signal.SIGKILL)
    child.communicate()


def steps_logged(folder):
    return max((len(log.read_text().splitlines()) - 1 for log in folder.rglob("log.csv")), default=0)


def apart(one, other):
    """Where two records differ, but for times and memory."""
    return list(compared(*(json.loads(path.read_text()) for path in (one, other))))


def hidden(folder):
    return [path.name for path in folder.rglob(".*")]


# Malformed files


@linux
def test_a_thousand_malformed_files(tmp_path):
    """Refused in one line that names the file, or read as mrcfile reads them; in bounded memory and time."""
    program = Path(__file__).with_name("malformed.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), "1000"], capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    outcomes = found["outcomes"]
    assert sum(sum(kind.values()) for kind in outcomes.values()) > 9000
    assert outcomes["noise"]["read"] == outcomes["cut"]["read"] == outcomes["bomb"]["read"] == 0
    assert all(outcomes[kind]["read"] > 100 for kind in ("field", "fields", "stamp", "axes", "bytes"))  # of 1000 each
    assert {path.name for path in tmp_path.iterdir()} == {"good.mrc"}


# Downloads


class Slow(http.server.BaseHTTPRequestHandler):
    """Sends its server's `content` in pieces, with a pause after each while `pause` is set; counts bytes in `sent`, by
    where they begin."""

    def do_GET(self):
        at, given = self.server, self.headers.get("Range")
        first = int(given[6:-1]) if given else 0
        at.asked.append(given)
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(at.content) - 1}/{len(at.content)}")
        self.send_header("Content-Length", str(len(at.content) - first))
        self.send_header("ETag", '"v1"')
        self.end_headers()
        for place in range(first, len(at.content), 50_000):
            piece = at.content[place : place + 50_000]
            try:
                self.wfile.write(piece)
            except OSError:  # killed
                return
            at.sent[first] = at.sent.get(first, 0) + len(piece)
            if at.pause:
                time.sleep(0.05)

    def log_message(self, *_):
        pass


def test_a_killed_download_goes_on_where_it_was(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.content, server.asked, server.sent, server.pause = np.random.default_rng(0).bytes(4_000_000), [], {}, True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    remote = Remote("sub/a.mrc", f"http://127.0.0.1:{server.server_address[1]}/a.mrc", len(server.content),
                    "sha256:" + hashlib.sha256(server.content).hexdigest())  # fmt: skip
    child = start(f"""
        from pathlib import Path
        from cryostudy.datasets import download
        download.PIECE = 20_000
        download.download(download.{remote}, Path({str(tmp_path)!r}))
    """)
    part = tmp_path / "sub" / "a.mrc.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 500_000, child)
    with pytest.raises(InputError, match="another process is downloading it"):
        download(remote, tmp_path)
    kill(child)
    kept = part.stat().st_size
    assert 500_000 < kept < len(server.content) and not part.with_suffix("").exists()
    server.pause = False
    server.asked.clear()
    path = download(remote, tmp_path)
    assert path.read_bytes() == server.content and server.asked == [f"bytes={kept}-"]
    assert server.sent[kept] == len(server.content) - kept
    assert [p.name for p in path.parent.iterdir()] == ["a.mrc"]
    server.shutdown()
    server.server_close()


# Chapters

CHAPTER = """
from cryostudy import artefacts, comparison, data, records
from cryostudy.methods import get
import cryostudy.methods.learned as learned, cryostudy.training as training, time
training.CHECKPOINT_SECONDS = 0.0
crop = learned.random_crop
def slow(*arguments, **options):
    time.sleep(pause)
    return crop(*arguments, **options)
learned.random_crop = slow
recording = data.simulated((32, 32, 32), "white", 0.25, seed=0, densities="built-in")
method = get("recorrupted").at(profile, steps=30, source="background")
"""
ENDING = """
record = records.start("09_trains", profile=profile, seed=0, device="cpu", parameters={"level": level})
record.data(recording)
comparison.run(record, "recorrupted", method, recording, device="cpu", profile=profile)
record.finish();
"""


@linux
def test_a_killed_chapter_ends_as_if_undisturbed(tmp_path, monkeypatch, run):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cells = [
        new_markdown_cell("# A chapter"),
        new_code_cell('profile = "laptop"\nlevel = 1\npause = 0.0', metadata={"tags": ["parameters"]}),
        new_code_cell(CHAPTER), new_code_cell(ENDING),
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "09_trains.ipynb")
    script = f"""
        import sys
        from pathlib import Path
        from cryostudy.commands import chapter
        from cryostudy.cli import main
        chapter.NOTEBOOKS = Path({str(folder)!r})
        sys.exit(main(["chapter", "09_trains", "--profile", "smoke", *sys.argv[1:]]))
    """

    monkeypatch.setattr(chapter, "NOTEBOOKS", folder)

    def ended(place):
        monkeypatch.setenv("CRYOSTUDY_BUILD", str(place / "build"))
        assert run("chapter", "09_trains", "--profile", "smoke", "--out", place / "09_trains.ipynb")[0] == 0
        return place / "09_trains.ipynb", place / "records" / "09_trains.json"

    place, other = tmp_path / "one", tmp_path / "other"
    place.mkdir()
    other.mkdir()
    kept = [path.write_text(text) and path for path, text in ((place / "09_trains.ipynb", "an earlier run"),)]
    (place / "records").mkdir()
    kept.append(place / "records" / "09_trains.json")
    kept[1].write_text("its record")
    child = start(script, "--out", kept[0], "-p", "pause", "0.1", env={"CRYOSTUDY_BUILD": str(place / "build")})
    wait_for(lambda: steps_logged(place) >= 4, child)
    code, said, complaint = run("chapter", "09_trains", "--profile", "smoke", "--out", kept[0])
    assert (code, said) == (2, "") and "another process is at work there" in complaint
    found = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    kernels = [pid for pid in found if "ipykernel" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(kernels) == 1
    kill(child)
    assert [path.read_text() for path in kept] == ["an earlier run", "its record"]

    def gone():  # a zombie, where nobody reaps orphans, is gone too
        status = Path(f"/proc/{kernels[0]}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"

    wait_for(gone, None, 30)
    done = steps_logged(place)
    assert 4 <= done < 30
    notebook, record = ended(place)
    undisturbed = ended(other)
    assert apart(record, undisturbed[1]) == []
    assert [cell.source for cell in nbformat.read(notebook, 4).cells[2:]] == [
        cell.source for cell in nbformat.read(undisturbed[0], 4).cells[2:]
    ]
    assert steps_logged(place) == 30 and hidden(place) == []
    assert {p.name for p in place.iterdir()} == {"09_trains.ipynb", "records", "build"}
    assert {p.name for p in (place / "records").iterdir()} == {"09_trains.json"}


# Grids


def test_a_killed_grid_ends_as_if_undisturbed(tmp_path, monkeypatch, run):
    monkeypatch.delenv("CRYOSTUDY_RECORDS", raising=False)
    words = ["grid", "--profile", "smoke", "--condition", "built-in-awgn-0.1", "--method", "gaussian", "noise2void"]
    folder = Path("runs/smoke/records/grid/built-in-awgn-0.1.json")
    child = start(SLOW, *words, env={"CRYOSTUDY_BUILD": str(tmp_path / "one")})
    wait_for(lambda: steps_logged(tmp_path) >= 3, child)
    kill(child)
    before = json.loads((tmp_path / "one" / folder).read_text())["metrics"]
    assert before["gaussian"]["cc"] > 0 and "noise2void" not in before
    for name in ("one", "other"):
        monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path / name))
        assert run(*words)[0] == 0
    assert apart(tmp_path / "one" / folder, tmp_path / "other" / folder) == []
    assert json.loads((tmp_path / "one" / folder).read_text())["metrics"]["noise2void"]["cc"] > 0
    assert hidden(tmp_path / "one") == []


def crashing(method, error):
    """In place of `artefacts.restored`: quick, but for one method, which fails."""

    def restored(chosen, recording, **_):
        if chosen.name == method or method in str(getattr(chosen, "weights", "")):
            raise error
        return np.float32(0.5) * recording.full

    return restored


ERRORS = [RuntimeError("shapes differ\nand more"), MemoryError(), CryostudyError("it cannot"), OSError(5, "I/O error")]
SAID = ["RuntimeError: shapes differ", "MemoryError", "it cannot", "OSError: [Errno 5] I/O error"]


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path))
    monkeypatch.delenv("CRYOSTUDY_RECORDS", raising=False)
    return tmp_path


@pytest.mark.parametrize(("error", "says"), list(zip(ERRORS, SAID, strict=True)))
def test_a_cell_that_crashes_stops_no_other(error, says, build, monkeypatch, run):
    cell, crash = grid.cell, [True]

    def crashes(record, method, *rest, **options):
        if crash and method.name == "lowpass":
            raise error
        cell(record, method, *rest, **options)

    monkeypatch.setattr(grid, "cell", crashes)
    words = "grid", "--profile", "smoke", "--condition", "built-in-awgn-0.1", "--method", "lowpass", "gaussian"
    code, said, complaint = run(*words)
    last = complaint.splitlines()[-1]
    assert code == 2 and said == "" and last.startswith("cryostudy: 1 of 2 cells failed, the others are recorded")
    assert last.endswith(f"built-in-awgn-0.1, lowpass: {says}")
    assert ("Traceback" in complaint) == (not isinstance(error, CryostudyError))  # a defect is not hidden
    path = build / "runs/smoke/records/grid/built-in-awgn-0.1.json"
    found = json.loads(path.read_text())["metrics"]
    assert found["lowpass"]["failed"] == says and found["gaussian"]["cc"] > 0
    crash.clear()
    assert run(*words)[0] == 0
    again = json.loads(path.read_text())["metrics"]
    assert "failed" not in again["lowpass"] and again["lowpass"]["cc"] > 0 and again["gaussian"] == found["gaussian"]


def test_a_specimen_that_cannot_be_had_stops_no_other_condition(build, monkeypatch, run):
    acquisition = grid.acquisition

    def without(condition, *rest):
        if condition.specimen == "shrec":
            raise InputError("no network")
        return acquisition(condition, *rest)

    monkeypatch.setattr(grid, "acquisition", without)
    code, _, complaint = run(
        "grid", "--profile", "smoke", "--condition", "shrec-poisson", "built-in-awgn-0.1", "--method", "lowpass"
    )
    assert code == 2 and complaint.endswith("shrec-poisson: no network\n")
    assert [path.name for path in (build / "runs").rglob("*.json")] == ["built-in-awgn-0.1.json"]


@pytest.mark.filterwarnings("ignore:using built-in particles")
def test_a_crash_in_the_other_grids(build, monkeypatch, capsys):
    """The cell is named in the notes of its record and in the error at the end; it is tried again by the next call."""
    monkeypatch.setattr(paired, "SEEDS", 1)
    monkeypatch.setattr(verdict, "searches", lambda *_: {"a": None})
    monkeypatch.setattr(verdict, "scores", lambda volume, *_, **__: {"ap": float(volume.std())})
    monkeypatch.setattr(ablation, "FOLDER", build)
    (build / "test.yml").write_text(
        textwrap.dedent("""
        {about: a test, method: volume_shuffle, noise: {white: {noise: white, level: 0.25}},
         fixed: {steps: 1, channels: 2, blocks: 1, batch: 1}, variants: {bad: {levels: 1}, plain: {levels: 0}},
         profiles: {smoke: {side: 27, seeds: 1}}}
    """)
    )
    measure, crash = ablation.measure, [True]

    def measured(cell, *rest):
        if crash and cell.variant == "bad":
            raise RuntimeError("boom")
        return measure(cell, *rest) if crash else {}

    monkeypatch.setattr(ablation, "measure", measured)
    monkeypatch.setattr(weights, "settings", lambda: [(0.8, 0.0, 0.0, 0.0), (0.6, 0.0, 0.0, 0.0)])
    monkeypatch.setattr(compare, "CONDITIONS", {"built-in-white": ("built-in", "white")})
    quiet = {"device": "cpu", "progress": False}
    calls = {
        "isonet.seed0": lambda: paired.run("smoke", ["paired-4"], ["isonet", "recorrupted"], **quiet),
        "isonet": lambda: verdict.run("smoke", ["isonet", "recorrupted"], seeds=[0], **quiet),
        "white.bad": lambda: ablation.run("test", "smoke", **quiet),
        "bm4d": lambda: compare.run("smoke", **quiet),
        "0.6 0 0 0": lambda: [weights.run("smoke", **quiet)],
    }
    restored = artefacts.restored
    for name, call in calls.items():
        bad = {"0.6 0 0 0": "(0.6,"}.get(name, name.partition(".")[0])
        monkeypatch.setattr(artefacts, "restored", restored if bad == "white" else crashing(bad, RuntimeError("boom")))
        with pytest.raises(CryostudyError, match=rf"^1 of \d+ cells failed, .*, {name}: RuntimeError: boom$"):
            call()
        assert "Traceback" in capsys.readouterr().err
        newest = max((build / "runs").rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        record = json.loads(newest.read_text())
        assert record["notes"] == [f"{record['name']}, {name} failed: RuntimeError: boom"]
        assert name not in record["metrics"] and len(record["metrics"]) >= 3
        monkeypatch.setattr(artefacts, "restored", crashing("nothing", None))
        if bad == "white":
            crash.clear()
        (path,) = call()
        again = json.loads(path.read_text())
        assert again["notes"] == [] and name in again["metrics"]


# Full disks


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1.5 MB, and a function that leaves so many kB of it free."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")

    def leave(kilobytes):
        (place / "filler").unlink(missing_ok=True)
        free = shutil.disk_usage(place).free
        (place / "filler").write_bytes(bytes(max(0, free - 1000 * kilobytes)))

    yield place, leave
    subprocess.run(["umount", "-l", str(place)], check=True)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(outcome, place):
    code, said, complaint = outcome
    assert (code, said) == (2, "") and complaint.count("\n") == 1, complaint
    assert f"{place}" in complaint and "disk full; free" in complaint
    assert hidden(place) == []


def test_training_on_a_full_disk_goes_on_when_there_is_room(small_disk, run, tmp_path, monkeypatch):
    place, leave = small_disk
    words = "train", "dncnn", "--profile", "smoke", "-p", "steps", 4, "-p", "densities", "built-in"  # nothing to note
    monkeypatch.setattr("cryostudy.training.CHECKPOINT_SECONDS", 0.0)
    leave(30)
    refused(run(*words, "-p", "channels", 16, "--out", place / "a.pt"), place)
    assert files(place) == ["filler"]  # not even the first checkpoint had room
    leave(400)  # enough for a checkpoint, not for a second beside it
    refused(run(*words, "-p", "channels", 16, "--out", place / "a.pt"), place)
    kept = place / "a.pt.cryostudy" / "checkpoint.pt"
    assert 0 < torch.load(kept, weights_only=True)["history"]["step"] < 4
    leave(1400)
    code, said, complaint = run(*words, "-p", "channels", 16, "--out", place / "a.pt")
    assert code == 0 and "goes on from the checkpoint" in complaint and said == f"{place / 'a.pt'}\n"
    assert run(*words, "-p", "channels", 16, "--out", tmp_path / "b.pt")[0] == 0
    one, other = (torch.load(path, weights_only=True)["state"] for path in (place / "a.pt", tmp_path / "b.pt"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_restoring_and_matching_on_a_full_disk(small_disk, run, tomogram, tmp_path):
    place, leave = small_disk
    words = "restore", tomogram, "--profile", "smoke", "-p", "steps", 3, "--out"
    leave(40)
    for name in ("out.mrc", "out.mrc.gz"):
        refused(run(*words, place / name), place)
        assert files(place) == ["filler"]
    z, y, x = np.mgrid[:9, :9, :9] - 4
    io.write_volume(tmp_path / "t.mrc", np.exp(-(z**2 + 2 * y**2 + 3 * x**2) / 12), voxel_size=10.0, label="particle")
    refused(run("match", tomogram, tmp_path / "t.mrc", "--angles-step", 90, "--out", place / "found"), place)
    refused(run("simulate", "--out", place / "s", "--shape", 24, 24, 24, "--densities", "built-in"), place)
    assert files(place) == ["filler"]
    leave(1400)
    assert run(*words, place / "out.mrc")[0] == run(*words, tmp_path / "out.mrc")[0] == 0
    assert (place / "out.mrc").read_bytes() == (tmp_path / "out.mrc").read_bytes()


def test_a_grid_and_a_download_on_a_full_disk(small_disk, run, tmp_path, monkeypatch):
    place, leave = small_disk
    monkeypatch.delenv("CRYOSTUDY_RECORDS", raising=False)
    words = "grid", "--profile", "smoke", "--condition", "built-in-awgn-0.1", "--method", "lowpass", "gaussian"
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(place / "build"))
    leave(50)
    refused(run(*words), place)  # at once: no other cell could be kept either
    assert not (place / "build" / "runs").exists() or not files(place / "build" / "runs")
    leave(1400)
    assert run(*words)[0] == 0
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path / "build"))
    assert run(*words)[0] == 0
    name = "build/runs/smoke/records/grid/built-in-awgn-0.1.json"
    assert apart(place / name, tmp_path / name) == []


def test_what_torch_and_numpy_hide_is_named(small_disk):
    place, leave = small_disk
    leave(100)
    for write in (lambda f: torch.save(torch.zeros(10**6), f), lambda f: np.save(f, np.zeros(10**6)),
                  lambda f: np.savez(f, a=np.zeros(10**6)), lambda f: f.write(bytes(10**7))):  # fmt: skip

        def aside(path, write=write):
            with path.open("wb") as file:
                write(file)

        with pytest.raises(OSError, match="No space left on device") as caught:
            io.aside.write_aside(place / "kept", aside)
        assert caught.value.filename == str(place / "kept") and files(place) == ["filler"]


def test_a_limit_on_the_size_of_files(tomogram, tmp_path):
    script = """
        import resource, sys
        from cryostudy.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        sys.exit(main(sys.argv[1:]))
    """
    child = start(script, "restore", tomogram, "--method", "lowpass", "--out", tmp_path / "out.mrc")
    said, complaint = child.communicate(timeout=120)
    assert (child.returncode, said) == (2, "") and complaint.count("\n") == 1 and "too large" in complaint.lower()
    assert not (tmp_path / "out.mrc").exists() and hidden(tmp_path) == []


# Two at once, and other ends


def test_two_restorations_into_one_output_and_sigterm(tomogram, tmp_path, run, monkeypatch):
    out = tmp_path / "out.mrc"
    words = "restore", tomogram, "--profile", "smoke", "-p", "steps", "30", "-p", "patience", "null", "--out"
    child = start(SLOW, *words, out)
    wait_for(lambda: steps_logged(tmp_path) >= 3, child)
    code, said, complaint = run(*words, out)
    assert (code, said) == (2, "")
    assert complaint == (
        f"cryostudy: {out}.cryostudy: another process is at work there; wait for it, or choose another output\n"
    )
    child.terminate()
    said, complaint = child.communicate(timeout=60)
    assert (child.returncode, said) == (143, "")
    assert complaint == "cryostudy: stopped; the same command goes on from the last checkpoint, where there is one\n"
    (kept,) = tmp_path.rglob("checkpoint.pt")
    done = torch.load(kept, weights_only=True)["history"]["step"]
    assert done == steps_logged(tmp_path) < 30
    import cryostudy.methods.learned as module

    drawn, crop = [], module.random_crop
    monkeypatch.setattr(module, "random_crop", lambda *a, **b: drawn.append(1) or crop(*a, **b))
    assert run(*words, out)[0] == 0 and len(drawn) == 30 - done
    assert run(*words, tmp_path / "again.mrc")[0] == 0
    assert io.read_volume(out).data.tobytes() == io.read_volume(tmp_path / "again.mrc").data.tobytes()


def test_sigterm_keeps_the_last_step_even_between_checkpoints(tomogram, tmp_path):
    """As Ctrl-C does: a batch system sends it before it kills."""
    script = SLOW.replace("CHECKPOINT_SECONDS = 0.0", "CHECKPOINT_SECONDS = 1e9").replace(
        "    def slow", "    drawn = []\n    def slow"
    ).replace("time.sleep(0.1)", "time.sleep(0.1); drawn.append(1); print(len(drawn), flush=True)")  # fmt: skip
    child = start(script, "restore", tomogram, "--profile", "smoke", "-p", "steps", "60", "--out", tmp_path / "o.mrc")
    while int(child.stdout.readline()) < 4:
        pass
    assert not list(tmp_path.rglob("checkpoint.pt"))
    child.terminate()
    assert child.communicate(timeout=60) and child.returncode == 143
    (kept,) = tmp_path.rglob("checkpoint.pt")
    assert torch.load(kept, weights_only=True)["history"]["step"] >= 3


def test_two_trainings_into_one_folder(tmp_path, run):
    child = start(SLOW.replace("learned.random_crop = slow", """
    import cryostudy.methods.supervised as supervised
    fit = supervised.Supervised.fit_simulated
    def slowly(self, *a, **b):
        (b["folder"] / "begun").touch()
        time.sleep(60)
    supervised.Supervised.fit_simulated = slowly
    """), "train", "dncnn", "--profile", "smoke", "--out", tmp_path / "a.pt")  # fmt: skip
    wait_for((tmp_path / "a.pt.cryostudy" / "begun").exists, child)
    code, _, complaint = run("train", "dncnn", "--profile", "smoke", "--out", tmp_path / "a.pt")
    assert code == 2 and "a.pt.cryostudy: another process is at work there" in complaint
    kill(child)  # what is killed holds no lock
    assert run("train", "dncnn", "--profile", "smoke", "--out", tmp_path / "a.pt")[0] == 0


def test_a_lock_leaves_no_trace(tmp_path):
    with alone(tmp_path / "work"), pytest.raises(InputError, match="another process"), alone(tmp_path / "work"):
        pass
    assert list(tmp_path.iterdir()) == []
    with alone(tmp_path / "work"):
        (tmp_path / "work" / "kept").touch()
    assert (tmp_path / "work" / "kept").exists()


def test_what_a_killed_process_left_half_written_goes(tmp_path):
    child = start("""
        import sys, time
        from pathlib import Path
        import numpy as np
        from cryostudy import io
        with io.create_volume(sys.argv[1], (8, 8, 8), label="x") as data:
            Path(sys.argv[1] + ".begun").touch()
            time.sleep(60)
    """, tmp_path / "a.mrc")  # fmt: skip
    wait_for((tmp_path / "a.mrc.begun").exists, child)
    (left,) = hidden(tmp_path)
    other = tmp_path / f"{left}0"  # by its name of another process
    neighbour(tmp_path / "a.mrc")
    assert hidden(tmp_path) == [left]  # it is still at work
    kill(child)
    io.write_volume(tmp_path / "b.mrc", np.ones((8, 8, 8)), label="x")
    assert hidden(tmp_path) == [left] and not other.exists()
    io.write_volume(tmp_path / "a.mrc", np.ones((8, 8, 8)), label="x")
    assert hidden(tmp_path) == []


def test_a_killed_run_between_volume_and_record_is_no_foreign_file(tomogram, tmp_path, run):
    words = "restore", tomogram, "--profile", "smoke", "-p", "steps", 3, "--out", tmp_path / "out.mrc"
    assert run(*words)[0] == 0
    before = (tmp_path / "out.mrc").read_bytes()
    (tmp_path / "out.mrc.json").unlink()
    assert run(*words)[0] == 0 and (tmp_path / "out.mrc").read_bytes() == before
    (tmp_path / "out.mrc.json").unlink()
    code, _, complaint = run(*words[:2], "--method", "gaussian", *words[2:4], "--out", tmp_path / "out.mrc")
    assert code == 2 and "no earlier output of this command" in complaint


def test_a_match_killed_before_its_record_goes_on(tomogram, tmp_path, run, monkeypatch):
    z, y, x = np.mgrid[:9, :9, :9] - 4
    io.write_volume(tmp_path / "t.mrc", np.exp(-(z**2 + 2 * y**2 + 3 * x**2) / 12), voxel_size=10.0, label="particle")
    monkeypatch.setattr("cryostudy.matching.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("cryostudy.matching.checkpoint.SHARE", 1e9)
    words = "match", tomogram, tmp_path / "t.mrc", "--angles-step", 60, "--out"
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("cryostudy.commands.match.write_particles", lambda *_, **__: 1 / 0)
        run(*words, tmp_path / "one")
    (tmp_path / "one" / ".scores.mrc.elsewhere-1").touch()  # half written by a killed process of another machine
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["cryostudy.matching.search"], "search_part", lambda *_: pytest.fail("searched again"))
        assert run(*words, tmp_path / "one")[0] == 0
    assert run(*words, tmp_path / "other")[0] == 0
    assert apart(tmp_path / "one" / "record.json", tmp_path / "other" / "record.json") == []
    assert not (tmp_path / "one" / "search.npz").exists()


@pytest.mark.parametrize("words", [["methods"], ["grid", "--help"], ["methods", "deepdewedge"]])
def test_a_reader_that_has_seen_enough(words):
    """`cryostudy methods | head -1`"""
    child = start("import sys; from cryostudy.cli import main; sys.exit(main(sys.argv[1:]))", *words)
    child.stdout.close()
    assert child.stderr.read() == "" and child.wait(60) in (0, 120)
    child.stderr.close()


def test_a_folder_in_place_of_the_output(tomogram, tmp_path, run):
    (tmp_path / "out.mrc").mkdir()
    for words in (("restore", tomogram, "--out", tmp_path / "out.mrc"),
                  ("train", "dncnn", "--out", tmp_path / "missing" / "a.pt"),
                  ("chapter", "02_volume_shuffle", "--out", tmp_path / "out.mrc")):  # fmt: skip
        code, said, complaint = run(*words, "--profile", "smoke")
        assert (code, said, complaint.count("\n")) == (2, "", 1) and str(tmp_path) in complaint
    assert not any((tmp_path / "out.mrc").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_that_cannot_be_written(tomogram, tmp_path, run, monkeypatch):
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path / "locked" / "build"))
    for words in (("restore", tomogram, "--out", tmp_path / "locked" / "o.mrc"),
                  ("train", "dncnn", "--out", tmp_path / "locked" / "a.pt"),
                  ("grid", "--condition", "built-in-awgn-0.1", "--method", "lowpass")):  # fmt: skip
        code, said, complaint = run(*words, "--profile", "smoke")
        assert (code, said, complaint.count("\n")) == (2, "", 1) and "locked" in complaint
