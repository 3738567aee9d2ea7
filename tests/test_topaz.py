"""Topaz: its network as described, trained on halves, and the pretrained model asked for only where it is wanted."""

import importlib.util
import textwrap

import numpy as np
import pytest
import torch

from cryostudy.data import Acquisition, simulated
from cryostudy.errors import InputError
from cryostudy.methods import Denoiser, get
from cryostudy.models.topaz import TopazUNet

Topaz = get("topaz")


@pytest.fixture(scope="module")
def recording():
    return simulated((32, 40, 40), "ddw", 0.5, tilt_step=4.0, densities="built-in")


def test_the_network_has_the_described_parts():
    network = TopazUNet()
    kernels = [layer.kernel_size for layer in network.modules() if isinstance(layer, torch.nn.Conv3d)]
    assert kernels[0] == (7, 7, 7) and set(kernels[1:]) == {(3, 3, 3)}
    # One at the start, one a level, the bottom, two a level on the way up, the last.
    assert len(kernels) == 1 + 5 + 1 + 2 * 5 + 1
    outputs = [layer.out_channels for layer in network.modules() if isinstance(layer, torch.nn.Conv3d)]
    assert outputs == [48] * 7 + [96] * 8 + [64, 32, 1]


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("sides", [(8, 8, 8), (9, 14, 17)])
def test_any_sides_come_back(levels, sides):
    torch.manual_seed(0)
    x = torch.randn(2, 1, *sides)
    y = TopazUNet(3, levels)(x)
    assert y.shape == x.shape and torch.isfinite(y).all() and y.std() > 0


def test_it_is_trained_like_noise2noise(recording):
    """Fewer steps than any result needs, and yet nearer to the truth than the tomogram."""
    restored = Topaz.at("smoke", steps=40).fit(recording, seed=1, progress=False).restore(recording, progress=False)
    short = [Topaz.at("smoke", steps=2).fit(recording, seed=seed, progress=False).state for seed in (1, 1, 2)]
    assert all(torch.equal(short[0][name], short[1][name]) for name in short[0])
    assert not torch.equal(short[0]["last.weight"], short[2]["last.weight"])
    errors = [np.corrcoef(v.ravel(), recording.clean.ravel())[0, 1] for v in (recording.full, restored)]
    assert errors[1] > errors[0]
    with pytest.raises(InputError, match="topaz needs halves"):
        Topaz().check(Acquisition(full=recording.full))


def test_the_pretrained_model_needs_the_package_and_no_halves(recording, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install topaz-em \(GPL\)") as told:
        Topaz(pretrained=True).fit(Acquisition(full=recording.full))
    assert "\n" not in str(told.value)


def test_the_command_of_the_package_is_called(recording, monkeypatch, tmp_path):
    """With a stand-in that says what it was asked and halves the volume."""
    package = tmp_path / "topaz"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "main.py").write_text(
        textwrap.dedent("""
        import sys
        from pathlib import Path
        import mrcfile
        def main():
            words = sys.argv[1:]
            assert words[:5] == ["denoise3d", "--model", "unet-3d", "--device", "-1"], words
            with mrcfile.open(words[-1]) as source:
                assert abs(source.data.std() - 1) < 0.01
                mrcfile.write(Path(words[6]) / Path(words[-1]).name, source.data / 2)
    """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    alone = Acquisition(full=recording.full * 3 + 7)
    denoiser = Topaz(pretrained=True).fit(alone)
    assert denoiser.state == {} and denoiser.history is None
    restored = denoiser.restore(alone, device="cpu", progress=False)
    mean = alone.full.mean(dtype=np.float64)
    np.testing.assert_allclose(restored - mean, (alone.full - mean) / 2, atol=1e-4)
    denoiser.save(tmp_path / "topaz.pt")
    np.testing.assert_array_equal(Denoiser.load(tmp_path / "topaz.pt")(alone.full, device="cpu"), restored)
    (package / "main.py").write_text("def main():\n    raise SystemExit('no such model')\n")
    with pytest.raises(InputError, match="topaz denoise3d failed: no such model"):
        denoiser.restore(alone, device="cpu", progress=False)


def test_the_real_package(recording):
    pytest.importorskip("topaz", reason="topaz-em (GPL) is the user's to install")
    alone = Acquisition(full=recording.full)
    restored = Topaz(pretrained=True).fit(alone).restore(alone, device="cpu", progress=False)
    assert restored.shape == recording.full.shape and 0 < restored.std() < recording.full.std()
