"""The tiled pass: same answer as one pass, no seams, bounded tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostudy.errors import InputError
from cryostudy.filters import gaussian_filter
from cryostudy.inference import axis_tiles, tiled


@given(
    n=st.integers(1, 300),
    tile=st.integers(8, 64),
    halo=st.integers(0, 3),
    blend=st.integers(0, 5),
    multiple=st.sampled_from([1, 3]),
)
@settings(max_examples=200, deadline=None)
def test_weights_sum_to_one_everywhere(n, tile, halo, blend, multiple):
    if tile - 2 * halo - blend < multiple or tile < 2 * halo + 3 * blend:
        return
    total = np.zeros(n)
    for where, weight in axis_tiles(n, tile, halo, blend, multiple):
        assert where.stop - where.start <= tile and where.start % multiple == 0
        total[where] += weight
    assert np.allclose(total, 1.0, atol=1e-6)


def test_a_local_function_gives_what_one_pass_gives():
    volume = np.random.default_rng(0).normal(size=(20, 50, 37)).astype(np.float32)
    whole = gaussian_filter(torch.from_numpy(volume), 1.0).numpy()
    parts = tiled(lambda x: gaussian_filter(x, 1.0), volume, tile=18, halo=3, blend=4)
    assert np.allclose(parts, whole, atol=1e-5)


def test_the_identity_is_exact_and_out_is_overwritten():
    volume = np.random.default_rng(1).normal(size=(30, 31, 32)).astype(np.float32)
    out = np.full(volume.shape, 7.0, np.float32)
    result = tiled(lambda x: x, volume, out=out, tile=14, halo=2, blend=3)
    assert result is out and np.allclose(out, volume, atol=1e-6)


def test_tiles_that_disagree_fade_into_each_other():
    """Each tile returns its own constant: the worst case for seams. No step may exceed one blending step."""
    values = iter(range(1000))
    out = tiled(
        lambda x: torch.full_like(x, float(next(values) % 2)),
        np.ones((8, 8, 100), np.float32),
        tile=30,
        halo=0,
        blend=10,
    )
    assert np.abs(np.diff(out, axis=2)).max() <= 0.1 + 1e-6


def test_memory_maps_and_integers_go_in(tmp_path):
    source = np.memmap(tmp_path / "in", np.int16, "w+", shape=(20, 20, 20))
    source[:] = np.arange(20, dtype=np.int16)
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=(20, 20, 20))
    tiled(lambda x: 2 * x, source, out=out, tile=12, halo=1, blend=2)
    assert np.allclose(out, 2.0 * np.arange(20))


def test_no_tile_is_larger_than_asked():
    seen = []
    tiled(lambda x: (seen.append(x.shape), x)[1], np.zeros((10, 40, 40), np.float32), tile=16, halo=2, blend=2)
    assert max(max(s) for s in seen) <= 16


def test_a_tile_smaller_than_its_overlap_is_refused():
    with pytest.raises(InputError, match="overlap"):
        tiled(lambda x: x, np.zeros((9, 9, 9), np.float32), tile=20, halo=9, blend=9)
