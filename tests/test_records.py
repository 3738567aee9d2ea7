"""Records name exactly the code that could have changed a result, hold plain JSON, and spare a second training."""

import json
import math
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from scipy import ndimage

from cryostudy import artefacts, records
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods import get
from cryostudy.methods.gaussian import Gaussian
from cryostudy.methods.volume_shuffle import VolumeShuffle

ROOT = records.REPOSITORY


def begin(**options):
    return records.start(
        "run", **{"parameters": {"steps": 3}, "profile": "smoke", "seed": 1, "device": "cpu", **options}
    )


# The package's hash


@pytest.fixture
def package(tmp_path):
    """A copy of the package, and its hash taken afresh each time."""
    copy = tmp_path / "cryostudy"
    shutil.copytree(records.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy, lambda: records.package_files.__wrapped__(copy)


def test_package_hash_is_that_of_the_contents(package):
    copy, taken = package
    assert taken() == records.package_files()  # neither the place nor the time matters
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "cli.cpython-311.pyc").write_bytes(b"compiled")
    (copy / "notes.txt").write_text("no code")
    (copy / "methods" / "gaussian.py").touch()
    assert taken() == records.package_files()


@pytest.mark.parametrize("name", ["methods/gaussian.py", "artefacts.py", "registry.json", "commands/restore.py"])
def test_package_hash_changes_with_code_that_makes_results(package, name):
    copy, taken = package
    before = taken()
    with (copy / name).open("a") as file:
        file.write("{}\n")
    records.sources.digest.cache_clear()
    assert taken() != before


@pytest.mark.parametrize("name", records.RESULTLESS)
def test_package_hash_ignores_what_cannot_change_a_result(package, name):
    copy, taken = package
    before = taken()
    (copy / name).write_text("# something else\n")
    assert taken() == before


def test_new_renamed_and_removed_files_change_the_hash(package):
    copy, taken = package
    seen = [taken()]
    (copy / "methods" / "another.py").write_text("")
    seen.append(taken())
    (copy / "methods" / "another.py").rename(copy / "methods" / "another_name.py")
    seen.append(taken())
    (copy / "methods" / "gaussian.py").unlink()
    seen.append(taken())
    assert len(set(map(str, seen))) == 4


def test_a_record_names_the_code_it_imported_and_no_other(tmp_path):
    code = (
        "from cryostudy import records; from cryostudy.methods import get; get('gaussian');"
        "records.start('run', parameters={}, profile='smoke', seed=0, device='cpu').finish(records.Path('.'))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    used = json.loads((tmp_path / "run.json").read_text())["modules"]
    assert {"records.py", "methods/gaussian.py", "methods/base.py", "__init__.py"} <= used.keys()
    assert not {"methods/deepdewedge.py", "cli.py", "figures.py"} & used.keys()
    assert all(records.package_files()[name] == digest for name, digest in used.items())


def test_only_a_change_of_imported_code_makes_a_record_stale(monkeypatch):
    record = begin().closed()
    assert records.changed(record) == []
    files = records.package_files() | {"methods/nobody_imports_it.py": "new"}
    monkeypatch.setattr(records, "package_files", lambda *_: files)
    assert records.changed(record) == []
    files["records.py"] = "edited"
    assert records.changed(record) == ["records.py"]
    del files["records.py"]
    assert records.changed(record) == ["records.py"]
    assert records.changed({"package_sha256": "of old"}) == ["cryostudy"]  # records from before modules were noted


def test_notes_are_kept_and_given():
    with pytest.warns(UserWarning, match="look here"), records.noting() as notes:
        warnings.warn("look here", stacklevel=1)
    assert notes == ["look here"]
    with pytest.raises(ValueError), records.noting() as notes:
        raise ValueError
    assert notes == []


# The notebook's hash


def notebook(path, *, code="x = 1", prose="Words", injected=None, outputs=(), record=False):
    cells = [new_markdown_cell(prose), new_code_cell("level = 1", metadata={"tags": ["parameters"]})]
    if record:
        cells.insert(1, new_code_cell("its record", metadata={"tags": ["record"]}))
    if injected:
        cells.append(new_code_cell(injected, metadata={"tags": ["injected-parameters"]}))
    cells.append(new_code_cell(code, outputs=list(outputs), execution_count=3 if outputs else None))
    nbformat.write(new_notebook(cells=cells), path)
    return records.code_hash(path)


def test_code_hash_is_that_of_the_code_alone(tmp_path):
    path = tmp_path / "chapter.ipynb"
    plain = notebook(path)
    output = new_output("stream", name="stdout", text="1\n")
    assert notebook(path, prose="Other words", injected="level = 7", outputs=[output], record=True) == plain
    assert notebook(path, code="x = 2") != plain
    split = json.loads(path.read_text())
    split["cells"][-1]["source"] = "x = 2"  # a text or a list of lines: both are allowed
    (tmp_path / "text.ipynb").write_text(json.dumps(split))
    split["cells"][-1]["source"] = ["x =", " 2"]
    path.write_text(json.dumps(split))
    assert records.code_hash(path) == records.code_hash(tmp_path / "text.ipynb") != plain


# What a record holds


def test_nan_has_no_place_in_a_record():
    for nan in (float("nan"), np.float32("nan"), np.float64("nan"), torch.tensor(float("nan"))):
        record = begin()
        with pytest.raises(InputError, match=r"run: raw\.cc is NaN"):
            record.add("raw", {"psnr": 1.0, "cc": nan})
        assert record.content["metrics"] == {}


def test_a_record_survives_json(tmp_path):
    record = begin(inputs=[ROOT / "pyproject.toml"])
    record.data(Acquisition(full=np.zeros((8, 8, 8)), name="white-0", description="σ = 0.1, 10 Å"))
    record.add("raw", {"cc": np.float32(0.5), "count": np.int64(3), "shells": torch.tensor(7), "note": "ok"})
    record.add("raw", {"limit": math.inf})
    path = record.finish(tmp_path / "records")
    content = json.loads(path.read_text())
    assert content == record.content and path.name == "run.json"
    assert content["metrics"] == {"raw": {"cc": 0.5, "count": 3, "shells": 7, "note": "ok", "limit": math.inf}}
    assert content["data"] == {"white-0": "σ = 0.1, 10 Å"} and content["parameters"] == {"steps": 3}
    assert content["inputs"] == {"pyproject.toml": records.file_hash(ROOT / "pyproject.toml")}
    assert content["peak_memory"]["host_mib"] > 50 and content["wall_seconds"] >= 0
    assert content["package_sha256"] == records.package_hash()
    assert sorted(p.name for p in path.parent.iterdir()) == ["run.json"]


def test_halves_of_the_same_name_are_both_kept(tmp_path):
    paths = [tmp_path / half / "tomogram.mrc" for half in ("even", "odd")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    inputs = begin(inputs=[*paths, ROOT / "Makefile"]).content["inputs"]
    assert inputs == {
        "even/tomogram.mrc": records.file_hash(paths[0]),
        "odd/tomogram.mrc": records.file_hash(paths[1]),
        "Makefile": records.file_hash(ROOT / "Makefile"),
    }


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_no_generator_takes_are_refused(seed):
    with pytest.raises(InputError, match=f"--seed {seed}: give a whole number"):
        begin(seed=seed)


def test_places_follow_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path / "build"))
    monkeypatch.delenv("CRYOSTUDY_RECORDS", raising=False)
    assert begin().finish() == tmp_path / "build" / "runs" / "smoke" / "own" / "records" / "run.json"
    monkeypatch.setenv("CRYOSTUDY_RECORDS", str(tmp_path / "here"))
    assert begin().finish() == tmp_path / "here" / "run.json"
    monkeypatch.delenv("CRYOSTUDY_BUILD")
    assert records.build_folder() == ROOT / "_build"


def test_commit_is_that_of_the_own_checkout(tmp_path, monkeypatch):
    def git(*words):
        done = subprocess.run(["git", "-C", str(tmp_path), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("config", "user.email", "a@example.org")
    git("config", "user.name", "a")
    git("commit", "--quiet", "--allow-empty", "-m", "empty")
    monkeypatch.setattr(records, "REPOSITORY", tmp_path)
    assert records.commit() == ""  # a checkout, but of something else
    (tmp_path / "cryostudy").mkdir()
    (tmp_path / "cryostudy" / "records.py").touch()
    git("add", ".")
    git("commit", "--quiet", "-m", "package")
    assert records.commit() == git("rev-parse", "HEAD")
    (tmp_path / "note.txt").touch()
    assert records.commit() == git("rev-parse", "HEAD")
    (tmp_path / "cryostudy" / "records.py").write_text("# changed")
    assert records.commit() == git("rev-parse", "HEAD") + "+changes"
    monkeypatch.setattr(records, "REPOSITORY", tmp_path / "nowhere")
    assert records.commit() == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (12.345, "12.35"), (123.45, "123"), (7, "7"), (0.0, "0"), (1e-5, "1.0e-05"),
     (math.inf, "inf"), ("ramp", "ramp"), (True, "True"), (-0.5, "-0.500")],
)  # fmt: skip
def test_numbers_as_prose_shows_them(value, text):
    assert records.readable(value) == text


# Artefacts


@pytest.fixture
def acquisition():
    clean = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(20, 22, 24)), 2)
    noisy = clean / clean.std() + np.random.default_rng(1).normal(size=clean.shape)
    return Acquisition(full=noisy.astype(np.float32), tilt_angles=(-3.0, 0.0, 3.0), voxel_size=10.0)


@pytest.fixture
def fits(monkeypatch):
    """The seeds of every call of Gaussian.fit."""
    calls = []
    fit = Gaussian.fit

    def counted(self, acquisition, **options):
        calls.append(options["seed"])
        return fit(self, acquisition, **options)

    monkeypatch.setattr(Gaussian, "fit", counted)
    return calls


def test_fitted_trains_once_and_not_again(acquisition, fits, tmp_path):
    method = Gaussian.at("smoke")
    first = artefacts.fitted(method, acquisition, folder=tmp_path)
    again = artefacts.fitted(method, replace(acquisition, full=acquisition.full.copy()), folder=tmp_path)
    assert fits == [0] and again.method == method
    assert all(torch.equal(value, again.state[name]) for name, value in first.state.items())
    artefacts.fitted(method, acquisition, seed=1, folder=tmp_path)
    artefacts.fitted(Gaussian(sigma=2.0), acquisition, folder=tmp_path)
    artefacts.fitted(method, replace(acquisition, full=acquisition.full * 2), folder=tmp_path)
    assert fits == [0, 1, 0, 0] and len(list(tmp_path.iterdir())) == 4


def test_anything_a_method_learns_from_gives_another_key(acquisition, monkeypatch):
    half = acquisition.full
    changed = half.copy()
    changed[3, 4, 5] += 1e-3
    variants = [
        acquisition,
        replace(acquisition, full=changed),
        replace(acquisition, full=half.astype(np.float64)),
        replace(acquisition, full=half.reshape(22, 20, 24)),
        replace(acquisition, halves=(half, changed)),
        replace(acquisition, halves=(changed, half)),
        replace(acquisition, tilt_series=half),
        replace(acquisition, tilt_angles=(-3.0, 0.0, 4.0)),
        replace(acquisition, voxel_size=11.0),
    ]
    keys = [artefacts.key(Gaussian(), variant, 0) for variant in variants]
    keys += [artefacts.key(Gaussian(sigma=1.0), acquisition, 0), artefacts.key(VolumeShuffle(), acquisition, 0)]
    keys.append(artefacts.key(Gaussian(), acquisition, 1))
    same = replace(acquisition, name="another", description="name", full=half.copy())
    assert artefacts.key(Gaussian(), same, 0) == keys[0]
    monkeypatch.setattr(artefacts.sources, "module_hash", lambda _: "other code")
    keys.append(artefacts.key(Gaussian(), acquisition, 0))
    assert len(set(keys)) == len(keys)


def test_restored_is_kept_beside_the_denoiser(acquisition, fits, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path))
    first = artefacts.restored(Gaussian(), acquisition)
    again = artefacts.restored(Gaussian(), acquisition)
    np.testing.assert_array_equal(first, again)
    assert fits == [0] and first.shape == acquisition.full.shape
    (place,) = (tmp_path / "artefacts").iterdir()
    assert sorted(p.name for p in place.iterdir()) == ["cost.json", "denoiser.pt", "restored.npy"]
    kept = artefacts.cost(place)
    assert kept["fit_seconds"] >= 0 and kept["restore_seconds"] >= 0


def test_a_training_run_leaves_log_and_denoiser_but_no_checkpoint(acquisition, tmp_path):
    artefacts.fitted(VolumeShuffle.at("smoke", steps=2), acquisition, folder=tmp_path)
    (place,) = tmp_path.iterdir()
    assert sorted(p.name for p in place.iterdir()) == ["cost.json", "denoiser.pt", "log.csv"]


def test_a_record_says_what_its_networks_took_whenever_they_were_trained(acquisition, tmp_path):
    """A second run, which finds them trained, states the same seconds; a filter counts as no network."""

    def run(*methods):
        record = records.start("made-up", parameters={}, profile="smoke", seed=0, device="cpu")
        for method in methods:
            for _ in range(2):
                artefacts.fitted(method, acquisition, folder=tmp_path)
        return record.closed()["trained"]

    network = VolumeShuffle.at("smoke", steps=2)
    first = run(network, Gaussian())
    assert first["networks"] == 1 and first["seconds"] > 0
    assert run(network) == first and run(Gaussian()) == {"networks": 0, "seconds": 0}


def test_several_recordings_train_one_network_which_is_kept(acquisition, tmp_path, monkeypatch):
    halves = replace(acquisition, halves=(acquisition.full, acquisition.full[::-1].copy()))
    method = get("noise2noise").at("smoke", patch=16, steps=2, validation=0.0)
    first = artefacts.fitted(method, [halves, acquisition_with(halves, 2.0)], folder=tmp_path)
    monkeypatch.setattr(type(method), "fit_all", lambda *_, **__: pytest.fail("trained again"))
    again = artefacts.fitted(method, [halves, acquisition_with(halves, 2.0)], folder=tmp_path)
    assert all(torch.equal(value, again.state[name]) for name, value in first.state.items())
    with pytest.raises(pytest.fail.Exception):
        artefacts.fitted(method, [acquisition_with(halves, 2.0), halves], folder=tmp_path)
    with pytest.raises(InputError, match="volume_shuffle learns from one recording"):
        artefacts.fitted(VolumeShuffle.at("smoke"), [halves], folder=tmp_path)


def acquisition_with(acquisition, factor):
    return replace(acquisition, full=acquisition.full * np.float32(factor))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the memory of a block")
def test_memory_of_a_block_is_what_it_needs_whatever_was_freed_before():
    blocks = [np.ones(2**15) for _ in range(500)]  # 125 MiB in pieces that the allocator keeps when they are freed
    del blocks
    with records.memory_of("cpu") as found:
        needed = [np.ones(2**15) for _ in range(400)]
    del needed
    with records.memory_of("cpu") as nothing:
        pass
    assert found[0] == pytest.approx(100, abs=10) and nothing[0] < 10
