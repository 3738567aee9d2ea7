"""Paper 004's Figure 5 as a grid: seeds, resuming, and particle resolutions with known answers."""

import json

import numpy as np
import pytest
import torch

from cryostudy import paired
from cryostudy.errors import InputError
from cryostudy.metrics.particles import inside_wedge, particle_fsc
from cryostudy.tomography import wedge_mask

ANGLES = tuple(np.arange(-60.0, 61.0, 2.0).tolist())


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path))
    monkeypatch.delenv("CRYOSTUDY_RECORDS", raising=False)
    return tmp_path


def field(seed, shape=(40, 48, 44)):
    return np.random.default_rng(seed).standard_normal(shape)


def test_particles_alike_correlate_and_others_do_not():
    positions = [(5.0, 20.0, 20.0), (30.0, 47.0, 0.0), (20.0, 24.0, 22.0)]
    assert np.allclose(particle_fsc(field(0), field(0), positions, side=24).correlation, 1)
    assert np.abs(particle_fsc(field(0), field(1), positions, side=24).correlation).mean() < 0.1


def test_only_what_lies_at_the_particles_counts():
    truth, estimate = field(0), field(1)
    estimate[8:24, 8:24, 8:24] = truth[8:24, 8:24, 8:24]
    at = particle_fsc(estimate, truth, [(16, 16, 16)], side=16)
    elsewhere = particle_fsc(estimate, truth, [(32, 36, 36)], side=16)
    assert np.allclose(at.correlation, 1) and np.abs(elsewhere.correlation).mean() < 0.4


def test_resolution_of_a_particle_is_where_its_noise_begins():
    truth = field(0, (64, 64, 64))
    spectrum = np.fft.rfftn(truth)
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(64)] * 2, np.fft.rfftfreq(64), indexing="ij")))
    estimate = np.fft.irfftn(np.where(radius < 0.25, spectrum, np.fft.rfftn(field(1, (64, 64, 64)))), s=(64, 64, 64))
    found = particle_fsc(estimate, truth, [(32, 32, 32)], side=48, voxel_size=10.0).resolution(0.143)
    assert found == pytest.approx(40.0, rel=0.1)


def test_inside_and_outside_make_the_volume():
    volume = field(2)
    inside = inside_wedge(volume, ANGLES)
    kept = torch.fft.rfftn(torch.from_numpy(volume - inside))
    measured = wedge_mask(volume.shape, ANGLES, rfft=True)
    assert kept[~measured].abs().max() < 1e-9
    assert np.allclose(inside_wedge(inside, ANGLES), inside)


def test_a_run_has_every_seed_and_goes_on_where_it_was(monkeypatch):
    monkeypatch.setattr(paired, "SEEDS", 2)
    (path,) = paired.run("smoke", ["paired-4"], ["recorrupted_wedge"], progress=False)
    record = json.loads(path.read_text())
    assert set(record["metrics"]) == {
        f"{name}.seed{k}" for name in ("noisy", "clean", "gaussian_oracle", "recorrupted_wedge") for k in (0, 1)
    }
    mean, low, high = paired.summary(record, "cc")["recorrupted_wedge"]
    assert low <= mean <= high and low < high

    monkeypatch.setattr(paired.artefacts, "restored", lambda *_, **__: pytest.fail("run again"))
    paired.run("smoke", ["paired-4"], ["recorrupted_wedge"], progress=False)
    assert json.loads(path.read_text())["metrics"] == record["metrics"]
    assert paired.collect("smoke")["paired-4"]["metrics"] == record["metrics"]


def test_refusals():
    with pytest.raises(InputError, match=r"--condition paired-3: unknown; use one of paired-2"):
        paired.run("smoke", ["paired-3"])
    with pytest.raises(InputError, match=r"--profile huge: unknown"):
        paired.run("huge")
