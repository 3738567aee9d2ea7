"""Supervised methods learn from specimens alone, restore what they were trained for, and are saved and applied."""

import hashlib
import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cryostudy import cli, io
from cryostudy.data import Acquisition, simulated
from cryostudy.methods import Denoiser
from cryostudy.methods.dncnn import DnCNN
from cryostudy.methods.ffdnet import FFDNet, noise_deviation, volume_deviation
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.supervised import FIRST_SEED, Supervised, spread
from cryostudy.methods.vnet import VNet, network
from cryostudy.models.dncnn import DnCNN as DnCNNNetwork
from cryostudy.models.ffdnet import FFDNet as FFDNetNetwork
from cryostudy.models.ffdnet import shuffle, unshuffle

METHODS = {"dncnn": DnCNN, "ffdnet": FFDNet, "vnet": VNet}


def small(name, **changes):
    return METHODS[name].at("smoke", **{"densities": "built-in", "steps": 3, "specimens": 2, **changes})


@pytest.fixture(scope="module")
def recording():
    return simulated((32, 36, 40), "ddw", 0.25, tilt_step=6, densities="built-in", seed=0)


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


# Networks


def test_dncnn_takes_away_what_it_predicts_and_sees_its_depth():
    torch.manual_seed(0)
    net = DnCNNNetwork(4, 3).double().eval()
    x = torch.randn(1, 1, 13, 13, 13, dtype=torch.float64, requires_grad=True)
    assert torch.equal(net(x), x - net.noise(x))
    (gradient,) = torch.autograd.grad((net(x) - x)[0, 0, 6, 6, 6], x)
    seen = gradient[0, 0].nonzero() - 6
    assert seen.abs().max() == 4 and len(seen) > 9**3 / 2  # some of the rectifiers are shut
    for method in (DnCNN(), DnCNN.at("laptop")):
        assert method.depth <= method.halo
    for method in (FFDNet(), FFDNet.at("laptop")):
        assert 2 * method.depth + 1 <= method.halo


@given(st.tuples(*[st.integers(1, 6)] * 3))
@settings(max_examples=20, deadline=None)
def test_sub_lattices_are_channels_and_back(half):
    x = torch.randn(2, 1, *(2 * side for side in half))
    parts = unshuffle(x)
    assert parts.shape == (2, 8, *half) and torch.equal(shuffle(parts), x)
    for k in range(8):
        assert torch.equal(parts[:, k], x[:, 0, k // 4 :: 2, k // 2 % 2 :: 2, k % 2 :: 2])


def test_ffdnet_is_told_the_level_of_each_volume():
    torch.manual_seed(0)
    net = FFDNetNetwork(3, 4).eval()
    x = torch.randn(1, 1, 9, 10, 7)
    one, two = net(torch.cat([x, x]), torch.tensor([0.3, 0.9]))
    assert one.shape == (1, 9, 10, 7) and not torch.allclose(one, two)
    torch.testing.assert_close(net(x, torch.tensor([0.9]))[0], two)


def test_vnet_is_monais_at_the_papers_width_without_drop_out():
    from monai.networks.nets import VNet as Published

    published, ours = Published(), network(16)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in published.parameters()]
    narrow, x = network(2).train(), torch.randn(2, 1, 32, 32, 32)
    torch.testing.assert_close(narrow(x), narrow(x))  # nothing is dropped at random
    published.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(published.eval()(x[:1]), ours.eval()(x[:1]))
    for thin, wide in zip(narrow.parameters(), published.parameters(), strict=True):
        assert (
            list(thin.shape[:2]) == [max(1, side // 8) for side in wide.shape[:2]] and thin.shape[2:] == wide.shape[2:]
        )


# The noise level


@pytest.mark.parametrize("deviation", [0.3, 1.0, 3.0])
def test_level_of_white_noise_is_its_deviation(deviation):
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.normal(size=(48, 48, 48)), 2.5)
    noisy = smooth / smooth.std() + rng.normal(0, deviation, smooth.shape)
    found = noise_deviation(torch.as_tensor(np.stack([noisy, 2 * noisy + 7])[:, None]))
    assert found.tolist() == pytest.approx([deviation, 2 * deviation], rel=0.03)


def test_level_of_a_volume_leaves_its_border_out_and_takes_its_own_unit():
    rng = np.random.default_rng(2)
    inside = (50 + rng.normal(0, 4, (70, 40, 44))).astype(np.float32)
    bordered = np.zeros((90, 90, 60), np.float32)
    bordered[10:-10, 25:-25, 8:-8] = inside
    for volume in (inside, bordered):
        assert volume_deviation(Standardised.of(volume)) == pytest.approx(1, rel=0.02)


def test_level_of_projection_noise_is_that_of_the_noise_alone(recording):
    full, clean = (torch.from_numpy(v)[None, None] for v in (recording.full, recording.clean))
    assert noise_deviation(full).item() == pytest.approx(noise_deviation(full - clean).item(), rel=0.1)


# Training pairs


@pytest.mark.parametrize(("noise", "level"), [("white", 0.5), ("ddw", 0.3), ("poisson", 0.02)])
def test_a_pair_is_a_standardised_volume_and_its_clean_twin(noise, level, recording):
    method = small("dncnn", noise=noise)
    noisy, clean = method.simulate(recording.tilt_angles, "ramp", level, 7)
    assert noisy.mean().item() == pytest.approx(0, abs=1e-5) and noisy.std().item() == pytest.approx(1, rel=1e-3)
    error = noisy - clean
    assert abs(correlation(error, clean)) < 0.1  # of one scale: nothing of the signal is left in the difference
    if noise == "white":
        assert (clean.var() / error.var()).item() == pytest.approx(level, rel=0.05)
        assert abs(correlation(error[:, :, 1:], error[:, :, :-1])) < 0.02
    elif noise == "ddw":
        _, same = method.simulate(recording.tilt_angles, "ramp", 4 * level, 7)
        louder = simulated((32,) * 3, "ddw", level, tilt_step=6, densities="built-in", seed=7)
        np.testing.assert_allclose(noisy, (louder.full - louder.full.mean()) / louder.full.std(), atol=1e-4)
        assert correlation(same, clean) == pytest.approx(1, abs=1e-6)  # the level is one of noise, not of the specimen


def test_levels_cover_their_range_evenly():
    assert spread((0.1, 1.0), 3) == pytest.approx([0.1, 10**-0.5, 1.0])
    assert spread((0.1, 0.4), 1) == pytest.approx([0.2]) and spread((0.1, 1.0), 0) == []


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of every simulated specimen; the specimens are noise."""
    calls = []

    def simulate(self, angles, filter, level, seed):
        calls.append((tuple(angles), filter, level, seed))
        return tuple(torch.randn(2, 32, 32, 32, generator=torch.Generator().manual_seed(seed)))

    monkeypatch.setattr(Supervised, "simulate", simulate)
    return calls


def test_specimens_are_others_than_the_tested_and_tilted_as_it_was(drawn, recording):
    method = small("dncnn", specimens=5, validation=0.4, levels=[0.1, 0.9])
    method.fit(recording)
    assert {call[:2] for call in drawn} == {(recording.tilt_angles, "ramp")}
    assert [call[2] for call in drawn] == pytest.approx([0.1, 0.3, 0.9, 0.1, 0.9])
    seeds = [call[3] for call in drawn]
    assert len(set(seeds)) == 5 and min(seeds) >= FIRST_SEED
    drawn.clear()
    method.fit_simulated(omit=seeds[2])
    angles, filter = drawn[0][:2]
    assert angles == tuple(range(-60, 61, 2)) and filter is None
    assert seeds[2] not in [call[3] for call in drawn] and len(drawn) == 5
    drawn.clear()
    method.fit_simulated(seed=1)
    assert not set(seeds) & {call[3] for call in drawn}
    drawn.clear()
    small("dncnn", noise="poisson").fit_simulated()
    assert [call[2] for call in drawn] == pytest.approx([0.02, 0.02])  # the middle of its own preset's range


@pytest.mark.parametrize("name", METHODS)
def test_no_grey_value_of_the_recording_is_learnt_from(name, drawn, recording):
    method, rng = small(name), torch.get_rng_state()
    other = Acquisition(full=phantom((20, 24, 28)), tilt_angles=recording.tilt_angles, filter="ramp")
    one, two, three = method.fit(recording), method.fit(other), method.fit(other, seed=1)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, two.state[key]) for key, value in one.state.items())
    assert not all(torch.equal(value, three.state[key]) for key, value in one.state.items())
    assert one.history.column("cc_clean")[0] and not two.history.column("cc_clean")[0]
    np.testing.assert_array_equal(one(other.full), two(other.full))


def phantom(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (ndimage.gaussian_filter(rng.normal(size=shape), 2) * 10 + rng.normal(size=shape)).astype(np.float32)


# Restoring


@pytest.mark.parametrize("shape", [(9, 30, 41), (20, 8, 27), (33, 34, 35)])
@pytest.mark.parametrize("name", METHODS)
def test_any_sides_and_saved_to_the_bit(name, shape, drawn, tmp_path):
    denoiser = small(name, steps=1).fit_simulated()
    volume = phantom(shape)
    restored = denoiser(volume)
    assert restored.shape == shape and np.isfinite(restored).all()
    denoiser.save(tmp_path / "d.pt")
    np.testing.assert_array_equal(Denoiser.load(tmp_path / "d.pt")(volume), restored)


@pytest.mark.parametrize("name", ["dncnn", "ffdnet"])
def test_tiles_leave_no_seam(name, drawn, monkeypatch):
    denoiser, volume = small(name).fit_simulated(), phantom((40, 70, 44))
    whole = denoiser(volume)
    monkeypatch.setattr(METHODS[name], "halo", 10)
    monkeypatch.setattr(METHODS[name], "tile", 48)
    np.testing.assert_allclose(denoiser(volume), whole, atol=1e-4 * whole.std())


@pytest.mark.parametrize("noise", ["white", "ddw"])
def test_a_short_training_on_other_specimens_restores(noise, recording):
    method = small("ffdnet", noise=noise, steps=60, patch=32, specimens=5, levels=[0.2, 0.3], channels=16)
    acquisition = simulated((32, 36, 40), noise, 0.25, tilt_step=6, specimen=recording.specimen)
    raw = correlation(acquisition.full, acquisition.clean)
    restored = method.fit(acquisition)(acquisition.full)
    assert correlation(restored, acquisition.clean) > raw + 0.15


# The command line


@pytest.fixture
def run(capsys, caplog):
    """Calls the command line in this process: (exit code, stdout, stderr)."""

    def call(*words):
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(run, tmp_path):
    """One line on stderr that holds a text, exit code 2, and nothing written."""

    def call(says, *words):
        before = sorted(tmp_path.rglob("*"))
        code, said, complaint = run(*words)
        assert code == 2 and said == "" and complaint.startswith("cryostudy: ") and complaint.count("\n") == 1
        assert says in complaint, complaint
        assert sorted(tmp_path.rglob("*")) == before

    return call


def training(out, *words, method="ffdnet"):
    quick = ("--profile", "smoke", "-p", "densities", "built-in", "-p", "steps", "4", "-p", "specimens", "2")
    return ("train", method, "--out", out, *quick, *words)


def test_train_then_restore(run, refused, tmp_path):
    out, source, restored = tmp_path / "ffdnet.pt", tmp_path / "in.mrc", tmp_path / "out.mrc"
    (tmp_path / "angles.tlt").write_text("".join(f"{a}\n" for a in range(-50, 51, 10)))
    words = training(out, "--noise", "white", "--level", "0.5", "--tilt-file", tmp_path / "angles.tlt")
    assert run(*words) == (0, f"{out}\n", "")
    assert {p.name for p in tmp_path.iterdir()} == {"ffdnet.pt", "ffdnet.pt.json", "angles.tlt"}
    denoiser = Denoiser.load(out)
    assert denoiser.method == small("ffdnet", steps=4, noise="white", levels=(0.5, 0.5))
    record = json.loads((tmp_path / "ffdnet.pt.json").read_text())
    assert record["parameters"]["noise"] == "white" and record["metrics"]["ffdnet"]["steps"] == 4
    assert list(record["inputs"]) == ["angles.tlt"]
    refused("ffdnet.pt is already there; choose another name", *words)

    volume = phantom((20, 24, 28)) + 30
    io.write_volume(source, volume, voxel_size=10.0, label="test")
    words = ("restore", source, "--denoiser", out, "--out", restored)
    assert run(*words) == (0, f"{restored}\n", "")
    np.testing.assert_allclose(io.read_volume(restored).data, denoiser(volume), atol=1e-5)
    assert not (tmp_path / "out.mrc.cryostudy").exists()
    record = json.loads((tmp_path / "out.mrc.json").read_text())
    assert record["inputs"]["ffdnet.pt"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert record["parameters"]["method"] == "ffdnet" and set(record["metrics"]["ffdnet"]) == {
        "restore_seconds", "steps", "kept_step",
    }  # fmt: skip
    refused("it is trained already; leave out --method and -p", *words, "--method", "dncnn")
    refused("it is trained already; leave out --method and -p", *words, "-p", "steps", "3")
    refused("not a denoiser", "restore", source, "--denoiser", source, "--out", restored)
    refused("no such denoiser", "restore", source, "--denoiser", tmp_path / "none.pt", "--out", restored)


@pytest.mark.parametrize("name", METHODS)
def test_restore_trains_on_the_fly(name, run, drawn, tmp_path):
    io.write_volume(tmp_path / "in.mrc", phantom((20, 24, 28)), voxel_size=10.0, label="test")
    out = tmp_path / "out.mrc"
    words = ("--profile", "smoke", "-p", "steps", "2", "-p", "specimens", "2", "--out", out)
    assert run("restore", tmp_path / "in.mrc", "--method", name, *words) == (0, f"{out}\n", "")
    metrics = json.loads((tmp_path / "out.mrc.json").read_text())["metrics"][name]
    assert set(metrics) == {"fit_seconds", "restore_seconds", "steps", "kept_step"}


def test_what_train_refuses(refused, tmp_path):
    out = tmp_path / "x.pt"
    refused("gaussian learns from the tomogram that it restores; use", *training(out, method="gaussian")[:4])
    refused("did you mean dncnn", *training(out, method="dncn"))
    refused("ends in .pt", *training(tmp_path / "x.mrc"))
    refused("does not exist or is not writable", *training(tmp_path / "nowhere" / "x.pt"))
    refused("noise 'loud' is unknown", *training(out, "--noise", "loud"))
    refused("--level 1.0 2.0 3.0: give one level", *training(out, "--level", 1, 2, 3))
    refused("levels cannot be 0", *training(out, "--level", 0))
    refused("no such file", *training(out, "--tilt-file", tmp_path / "none.tlt"))
    refused("specimens cannot be 1", *training(out, "-p", "specimens", "1"))
    refused("--seed -1", *training(out, "--seed", "-1"))
    refused("arguments are required: --out", "train", "dncnn")
    (tmp_path / "y.pt.cryostudy").touch()
    refused("choose another --out", *training(tmp_path / "y.pt"))


def test_a_training_cut_short_goes_on(run, drawn, tmp_path, monkeypatch):
    real, steps = DnCNN.loss, []

    def loss(self, network, batch):
        if network.training:
            steps.append(1)
            if len(steps) == 3:
                raise KeyboardInterrupt
        return real(self, network, batch)

    monkeypatch.setattr(DnCNN, "loss", loss)
    code, said, complaint = run(*training(tmp_path / "a.pt", method="dncnn"))
    assert code == 130 and said == "" and "the same command goes on" in complaint
    assert (tmp_path / "a.pt.cryostudy" / "checkpoint.pt").exists() and not (tmp_path / "a.pt").exists()
    assert run(*training(tmp_path / "a.pt", method="dncnn"))[0] == 0
    assert len(steps) == 3 + 2  # two were kept, the third was cut short
    assert run(*training(tmp_path / "b.pt", method="dncnn"))[0] == 0
    one, two = (Denoiser.load(tmp_path / name).state for name in ("a.pt", "b.pt"))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
