"""Ablations: a grid from a file, run once, resumed, refused with a clear line; and what its variants see."""

import json
import math

import pytest
import torch
import yaml

from cryostudy import ablation, artefacts, cli, figures
from cryostudy.errors import InputError
from cryostudy.methods import get
from cryostudy.metrics import leak
from cryostudy.metrics.sight import sight
from cryostudy.models import UNet, VolumeShuffleBSN
from cryostudy.models.shuffle_variants import HoledConv, ShuffleVariant, apart, multiple, together

GRID = {
    "about": "a test",
    "method": "volume_shuffle",
    "noise": {"white": {"noise": "white", "level": 0.25}},
    "fixed": {"attention": "none", "channels": 2, "blocks": 1, "patch": 27, "batch": 1},
    "variants": {"plain": {}, "flat": {"levels": 0}},
    "grid": {"steps": [1, 2], "hole": [1, 3]},
    "profiles": {
        "smoke": {"side": 27, "seeds": 1, "fixed": {"steps": 1}},
        "laptop": {"side": 54, "seeds": 3, "grid": {"steps": [5]}, "variants": {}},
    },
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a grid with changes as `test.yml`; what is run goes to a folder of the test's own."""
    monkeypatch.setattr(ablation, "FOLDER", tmp_path / "grids")
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path / "build"))
    monkeypatch.delenv("CRYOSTUDY_RECORDS", raising=False)
    (tmp_path / "grids").mkdir()

    def one(text=None, **changes):
        content = text or yaml.safe_dump({k: v for k, v in (GRID | changes).items() if v is not None}, sort_keys=False)
        (tmp_path / "grids" / "test.yml").write_text(content)

    one()
    return one


def test_a_grid_is_its_variants_and_the_product_of_its_lists(write):
    found = ablation.read("test", "smoke")
    assert [cell.name for cell in found.cells] == [
        "white.plain", "white.flat", "white.steps=1,hole=1", "white.steps=1,hole=3", "white.steps=2,hole=1",
        "white.steps=2,hole=3",
    ]  # fmt: skip
    assert [(c.method.steps, c.method.hole, c.method.levels) for c in found.cells[1:4]] == [
        (1, 3, 0),
        (1, 1, 2),
        (1, 3, 2),
    ]
    assert all(c.method.attention == "none" and c.method.channels == 2 for c in found.cells)
    assert (found.side, found.seeds, found.noise) == (27, 1, {"white": ("white", 0.25)})


def test_a_profile_has_its_own_lists_and_changes_reach_what_is_not_varied(write):
    (cell,) = ablation.read("test", "laptop").cells
    assert cell.name == "white.steps=5" and cell.method.steps == 5
    cells = ablation.read("test", "smoke", steps=7, channels=3).cells
    assert [c.method.steps for c in cells] == [7, 7, 1, 1, 2, 2] and {c.method.channels for c in cells} == {3}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"text": "about: [1"}, "test.yml: not readable as YAML"),
        ({"text": "- 1"}, "test.yml must be a mapping with about, method"),
        ({"method": None}, "test.yml: method is missing"),
        ({"vary": {}}, "test.yml: vary is unknown; use about, method"),
        ({"about": 3}, "test.yml: about cannot be 3; give a text"),
        ({"method": "volume_shufle"}, "test.yml: variants.plain: method volume_shufle: unknown; did you mean"),
        ({"variants": {"a": {"hol": 1}}}, "test.yml: variants.a: volume_shuffle has no parameter 'hol'"),
        ({"variants": {"a": {"block": "x"}}}, "test.yml: variants.a: volume_shuffle: block 'x' is unknown; use dca"),
        ({"variants": {"noisy": {}}}, "test.yml: variants.noisy needs a name without dots"),
        ({"variants": {"a": 3}}, "test.yml: variants.a needs"),
        ({"variants": {}, "grid": None}, "test.yml: variants or grid must name at least one"),
        ({"grid": {"steps": 3}}, "test.yml: grid.steps cannot be 3; give a list"),
        ({"noise": {"w": {"noise": "wite", "level": 1}}}, "test.yml: noise.w: noise 'wite' is unknown"),
        ({"noise": {"w": {"noise": "white"}}}, "test.yml: noise.w: level is missing"),
        ({"noise": {}}, "test.yml: noise must name at least one"),
        ({"profiles": {"laptop": GRID["profiles"]["laptop"]}}, "test.yml: profiles.smoke is missing"),
        ({"profiles": {"big": {}}}, "test.yml: profiles.big is unknown; use smoke, laptop, gpu"),
        ({"profiles": {"smoke": {"side": 27}}}, "test.yml: profiles.smoke: seeds is missing"),
        ({"profiles": {"smoke": {"side": 9, "seeds": 1}}}, "test.yml: profiles.smoke.side cannot be 9"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line_that_names_file_and_key(changes, says, write):
    write(**changes)
    with pytest.raises(InputError) as error:
        ablation.read("test", "smoke")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_the_command_line_runs_it_and_refuses_what_does_not_fit(write, capsys, tmp_path):
    write(variants={"plain": {}}, grid=None)
    assert cli.main(["grid", "--ablation", "test", "--profile", "smoke"]) == 0
    path = tmp_path / "build" / "runs" / "smoke" / "records" / "grid" / "ablation-test-0.json"
    assert capsys.readouterr().out == f"{path}\n"
    for words, says in (
        (["--ablation", "tes"], "ablation tes: unknown; there are test"),
        (["--ablation", "test", "--paired"], "leave all but one out"),
        (["--ablation", "test", "--method", "tv"], "this grid has its own; leave it out"),
    ):
        assert cli.main(["grid", *words]) == 2
        assert says in capsys.readouterr().err


def test_a_grid_is_resumed_and_what_changed_is_run_again(write, monkeypatch):
    write(variants={"plain": {}, "flat": {"levels": 0}}, grid=None)
    ran = []
    measure = ablation.measure

    def counted(cell, *rest):
        ran.append(cell.name)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return measure(cell, *rest)

    monkeypatch.setattr(ablation, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        ablation.run("test", "smoke", progress=False)
    (path,) = ablation.run("test", "smoke", progress=False)
    assert ran == ["white.plain", "white.flat", "white.flat"]  # the first was kept
    found = json.loads(path.read_text())["metrics"]
    assert set(found) == {"white.noisy", "white.gaussian_oracle", "white.plain", "white.flat"}
    assert found["white.flat"]["levels"] == 0 and found["white.flat"]["seen"] == 27**3
    assert found["white.plain"]["weights"] > found["white.flat"]["weights"]
    assert found["white.plain"]["leak"] == found["white.flat"]["leak"] == 0
    ablation.run("test", "smoke", progress=False)
    assert len(ran) == 3
    ablation.run("test", "smoke", progress=False, learning_rate=1e-3)
    assert ran[3:] == ["white.plain", "white.flat"]


def test_a_summary_has_mean_and_range_and_differences_seed_by_seed():
    found = [
        {"metrics": {"w.a": {"cc": 0.5}, "w.b": {"cc": 0.7}, "v.a": {"cc": 0.1}}},
        {"metrics": {"w.a": {"cc": 0.9}, "w.b": {"cc": 1.0}, "v.a": {"cc": 0.3}}},
    ]
    assert ablation.summary(found, "cc")["w.a"] == pytest.approx((0.7, 0.5, 0.9))
    assert ablation.summary(found, "cc", "a")["w.b"] == pytest.approx((0.15, 0.1, 0.2))
    assert ablation.summary(found, "cc", "a")["v.a"] == (0, 0, 0)
    assert ablation.summary(found, "psnr") == {}


def test_the_studys_own_files_are_sound_at_every_profile():
    assert ablation.names() == ["40_loss_terms", "41_blocks", "42_receptive_field", "43_budget"]
    for name in ablation.names():
        assert {p: len(ablation.read(name, p).cells) > 0 for p in ("smoke", "laptop", "gpu")}
        assert set(ablation.read(name).noise) == {"white", "projection"}  # both kinds, always


def test_with_the_papers_choices_the_variant_is_the_network_itself():
    torch.manual_seed(0)
    ours, variant = VolumeShuffleBSN(4, 1).double(), ShuffleVariant(4, 1).double()
    variant.load_state_dict(ours.state_dict())
    x = torch.randn(1, 1, 20, 27, 31, dtype=torch.float64)
    assert torch.allclose(ours(x), variant(x), atol=1e-12)
    method = get("volume_shuffle")
    assert isinstance(method.at("smoke").network(), VolumeShuffleBSN) and method.at("smoke").multiple == 27
    assert isinstance(method.at("smoke", hole=1).network(), ShuffleVariant)
    assert isinstance(method.at("smoke", block="unet").network(), UNet)


X = torch.randn(1, 1, 27, 27, 27, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
VOXELS = [(13, 13, 13), (12, 12, 12), (0, 13, 26), (10, 17, 15)]


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"block": "dbsn"}, {"sampling": "pool_sublattice"}, {"levels": 0}, {"levels": 1}, {"hole": 1}, {"hole": 5},
        {"hole": 7, "levels": 0}, {"v": 2, "dilation": 2, "hole": 1}, {"v": 4, "dilation": 4, "levels": 1},
    ],
)  # fmt: skip
def test_blind_variants_are_exactly_blind(changes):
    torch.manual_seed(0)
    assert leak(ShuffleVariant(2, 1, "sublattice", **changes).double(), X, VOXELS) == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": "ordinary"},
        {"sampling": "pool"},
        {"dilation": 1},
        {"v": 2, "levels": 1},
        {"dilation": 2, "levels": 1},
    ],
)
def test_variants_that_mix_sublattices_leak(changes):
    torch.manual_seed(0)
    assert leak(ShuffleVariant(2, 1, "none", **changes).double(), X, VOXELS) > 1e-3


def test_a_plain_unet_returns_the_noise_and_a_blind_network_does_not(write):
    fields = {"channels": 4, "patch": 27, "batch": 1, "attention": "none", "weights": [1.0, 0.0, 0.0, 0.0], "steps": 60,
              "learning_rate": 1e-2, "validation": 0.0}  # fmt: skip
    variants = {"unet": {"block": "unet", "levels": 1}, "blind": {"levels": 0}}
    write(variants=variants, grid=None, profiles={"smoke": {"side": 27, "seeds": 1, "fixed": fields}})
    plan = ablation.read("test", "smoke")
    recording = ablation.recordings(plan)["white"]
    noise, kept = recording.full - recording.clean, {}
    for cell in plan.cells:
        error = artefacts.restored(cell.method, recording, progress=False) - recording.clean
        kept[cell.variant] = float((error * noise).mean() / (noise * noise).mean())
    assert kept["unet"] > 0.5 and abs(kept["blind"]) < 3 / math.sqrt(noise.size)


def test_the_hole_hides_itself_and_all_multiples_of_the_dilation():
    mask = HoledConv(1, 5, 3).mask[0, 0]
    assert mask.shape == (7, 7, 7) and not mask[1:6, 1:6, 1:6].any() and not mask[::3, ::3, ::3].any()
    assert HoledConv(1, 3, 3).mask.sum() == 125 - 27 and HoledConv(1, 1, 3).mask.sum() == 124
    assert HoledConv(1, 1, 2).mask.shape[2:] == (3, 3, 3)  # 2 d - 1, as in D-BSN


def test_sublattices_are_taken_apart_and_put_together():
    x = torch.arange(2 * 8 * 4 * 12 * 3.0).reshape(2, 8, 4, 12, 3)
    assert torch.equal(together(apart(x, 4), 4), x)
    assert torch.equal(apart(x, 2)[:, 5], x[:, 1::2, 0::2, 1::2])  # 5 = (1, 0, 1) in base 2


def test_a_tile_starts_on_whole_sublattices():
    assert multiple(2, 3, 3) == 27 and multiple(1, 2, 3) == 12 and multiple(0, 3, 3) == 3
    with pytest.raises(InputError, match="hole 2"):
        ShuffleVariant(2, 1, hole=2)


def test_sight_of_known_functions():
    x = torch.randn(1, 1, 15, 15, 15, dtype=torch.float64)
    assert sight(lambda v: 3 * v, x, (7, 7, 7)) == (0.0, 0.0)
    assert sight(lambda v: v.roll(2, 3), x, (7, 7, 7)) == (2.0, 2.0)
    near, reach = sight(lambda v: v.roll((1, 1), (2, 3)) + 0.001 * v, x, (7, 7, 7))  # a trace is not sight
    assert near == reach == pytest.approx(math.sqrt(2))


def test_spreads_are_shown_with_their_range():
    text = figures.spread_table(
        {"CC": {"a": (0.5, 0.4, 0.6), "b": (0.25, 0.25, 0.25)}}, {"A": "a", "B": "b", "C": "c"}, signed=True
    ).data
    assert "| A | +0.500 (+0.400 to +0.600) |" in text and "| B | +0.250 |" in text and "| C | – |" in text
