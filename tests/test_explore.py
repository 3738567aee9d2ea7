"""The explorers: what is stored, how it is linked, and the live one driven in a real kernel as a notebook drives it."""

import base64
import io
import queue
import time
from pathlib import Path

import ipywidgets
import nbformat
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from PIL import Image

from cryostudy import artefacts, records
from cryostudy.cli import main
from cryostudy.data import simulated
from cryostudy.errors import InputError
from cryostudy.explore import compare, live, page, store, weights

CHAPTER = records.REPOSITORY / "notebooks" / "50_explorer.ipynb"


def decoded(picture: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))


@pytest.fixture(scope="module")
def noisy():
    return simulated((36, 36, 36), "white", 0.25, seed=0, densities="built-in")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Records and artefacts of a test go to a folder of its own."""
    monkeypatch.setenv("CRYOSTUDY_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path / "build"))
    return tmp_path


def scored(value: float) -> dict:
    scores = dict.fromkeys(("cc", "psnr", "ssim", "noise_left", "contrast", "fsc_0.5"), value)
    return scores | {"fsc": "1 0.5 0", "xy": f"xy{value:g}", "xz": f"xz{value:g}", "sheet": f"sheet{value:g}"}


def weights_record() -> dict:
    metrics = {weights.key(setting): scored(k) for k, setting in enumerate(weights.settings())}
    metrics |= {"noisy": scored(-1), "clean": scored(-2), "fsc": {"frequency": "0.01 0.02 0.05"}}
    return {"metrics": metrics, "parameters": {"side": 36, "levels": weights.LEVELS}}


def shown(widget: ipywidgets.Widget) -> ipywidgets.Widget:
    """The leaf that nested stacks show."""
    while isinstance(widget, ipywidgets.Stack):
        widget = widget.children[widget.selected_index]
    return widget


def test_the_grid_holds_the_papers_weights_and_every_ablation_of_them():
    settings = weights.settings()
    assert len(settings) == len(set(settings)) >= 4**3
    assert {tuple(w * (k != absent) for k, w in enumerate(weights.PAPER)) for absent in range(-1, 4)} <= set(settings)
    assert all(r > 0 or g > 0 for r, g, _, _ in settings)
    for name, levels in weights.LEVELS.items():
        assert weights.PAPER[weights.TERMS.index(name)] in levels and 0 in levels


def test_pictures_keep_the_grey_range_and_stand_upright():
    image = np.zeros((40, 40))
    image[:20], image[20:] = -1, 3  # rows count from the bottom, as in every figure
    grey = decoded(store.picture(image, 0, 2))
    assert grey.shape == (40, 40) and grey[:15].min() > 245 and grey[25:].max() < 10


def test_a_sheet_holds_the_slices_in_order(noisy):
    volume = np.broadcast_to(np.arange(36.0)[:, None, None], (36, 36, 36))
    strip = decoded(store.sheet(volume, np.linspace(0, 36, 36**3), 4))
    levels = strip.reshape(4, 36, 36).mean((1, 2)) / 255 * 36
    assert np.allclose(levels, store.slice_places(36, 4), atol=1.5)


def test_scores_of_known_volumes(noisy):
    perfect, raw = store.scores(noisy.clean, noisy), store.scores(noisy.full, noisy)
    assert perfect["cc"] == 1 and perfect["noise_left"] == 0 and perfect["contrast"] == 1
    assert raw["noise_left"] == 1 and raw["cc"] < 0.6
    assert store.scores(noisy.clean / 2, noisy)["contrast"] == 0.5
    assert 0.05 < store.background(noisy).mean() < 0.9
    assert not store.background(noisy)[noisy.specimen.labels > 0].any()


def test_sliders_choose_the_card_of_their_setting():
    record = weights_record()
    explorer = page.loss_weights(record)
    sliders, stack = explorer.children[1].children, explorer.children[2]
    assert f",xy{weights.settings().index(weights.PAPER)}'" in shown(stack).value
    rng = np.random.default_rng(0)
    for _ in range(8):
        for slider in sliders:
            slider.index = int(rng.integers(len(slider.options)))
        follow(sliders, stack)
        values = tuple(slider.value for slider in sliders)
        one = record["metrics"].get(weights.key(values))
        assert f",{one['xy']}'" in shown(stack).value if one else "not trained" in shown(stack).value


def follow(sliders, stack):
    """What the links do: each slider's index goes to the stacks of its depth."""
    level = [stack]
    for slider in sliders:
        for one in level:
            one.selected_index = slider.index
        level = [child for one in level for child in one.children if isinstance(child, ipywidgets.Stack)]


def test_every_stack_is_linked_to_its_slider(monkeypatch):
    links = []
    monkeypatch.setattr(page.w, "jslink", lambda source, target: links.append((source, target)))
    explorer = page.loss_weights(weights_record())
    sliders, level = explorer.children[1].children, [explorer.children[2]]
    for slider in sliders:
        linked = [target[0] for source, target in links if source == (slider, "index")]
        assert sorted(map(id, linked)) == sorted(map(id, level))
        level = [child for one in level for child in one.children if isinstance(child, ipywidgets.Stack)]


def test_both_sides_of_the_method_explorer_show_one_copy_of_each_picture():
    names = ("noisy", "clean", *compare.METHODS)
    found = {
        condition: {
            "metrics": {name: scored(10 * c + k) for k, name in enumerate(names)},
            "parameters": {"slices": 12, "side": 60},
        }
        for c, condition in enumerate(compare.CONDITIONS)
    }
    explorer = page.methods(found)
    left, right = (box.children[0] for box in explorer.children[2].children[:2])
    assert shown(left) is not shown(right)
    leaves = [[leaf for noise in side.children for methods in noise.children for leaf in methods.children]
              for side in (left, right)]  # fmt: skip
    assert leaves[0] == leaves[1] and len(leaves[0]) == len(compare.CONDITIONS) * len(names)
    assert "noisy" in shown(left).value and "volume shuffle" in shown(right).value
    only = page.methods({c: one for c, one in found.items() if c.startswith("built-in")})  # SHREC was out of reach
    assert len(only.children[0].children[0].options) == 1


def test_a_grid_goes_on_where_it_was_cut_short(here, monkeypatch):
    trained = []

    def restored(method, noisy, *, seed, **_):
        trained.append((method.weights, seed))
        if len(trained) == 8:
            raise KeyboardInterrupt
        return noisy.full * (0.5 if seed else 1)

    monkeypatch.setattr(artefacts, "restored", restored)
    chosen = [(0.8, 0.0, 0.0, 0.0), weights.PAPER, (0.8, 2.0, 0.0, 0.0)]
    monkeypatch.setattr(weights, "settings", lambda: chosen)
    with pytest.raises(KeyboardInterrupt):
        weights.run("smoke", device="cpu", progress=False)
    assert {s for w, s in trained if w == weights.PAPER} == {0, 1, 2}
    weights.run("smoke", device="cpu", progress=False)
    found = store.read(weights.NAME, "smoke")["metrics"]
    assert trained[7:] == [(weights.PAPER, 0), (weights.PAPER, 0), (chosen[2], 0)]  # cut short, again, and the rest
    assert all(weights.key(setting) in found for setting in chosen)
    assert found["spread"]["contrast"] == pytest.approx(0.5, abs=0.01) and found["scale"]["contrast"] == 0


def test_what_is_not_there_is_named(here, monkeypatch):
    monkeypatch.setattr(store, "PUBLISHED", here)
    with pytest.raises(InputError, match="cryostudy grid --explorer"):
        store.read(weights.NAME, "laptop")
    with pytest.raises(InputError, match="--profile tiny"):
        weights.run("tiny")


@pytest.mark.parametrize("words", [["--paired"], ["--downstream"], ["--condition", "weights"], ["--method", "bm4d"]])
def test_the_explorers_grid_takes_no_other_grids_options(words, capsys):
    assert main(["grid", "--explorer", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_training_can_be_watched_and_stopped(noisy):
    steps = []

    def third():
        steps.append(1)
        if len(steps) == 3:
            raise live.Cancelled

    with pytest.raises(live.Cancelled):
        live.watched(weights.method(weights.PAPER, "laptop"), third).fit(noisy, device="cpu", progress=False)
    assert len(steps) == 3


class Notebook:
    """A kernel with the chapter's cells, and the messages that a notebook's page would exchange with it."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(startup_timeout=120)
        self.state: dict[str, dict] = {}
        self.views: list[str] = []  # the widgets displayed

    def listen(self, until, seconds: float) -> None:
        """Take the kernel's messages until a condition holds; fails when it does not in time."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, f"waited {seconds} s; {[s.get('value') for s in self.state.values()]}"
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                continue
            content = message["content"]
            if message["msg_type"] == "error":
                raise AssertionError("\n".join(content["traceback"]))
            if view := content.get("data", {}).get("application/vnd.jupyter.widget-view+json"):
                self.views.append(view["model_id"])
            if message["msg_type"] == "comm_open":
                self.state[content["comm_id"]] = dict(content["data"]["state"])
            if message["msg_type"] == "comm_msg" and content["data"].get("method") == "update":
                self.state[content["comm_id"]].update(content["data"]["state"])

    def execute(self, code: str, seconds: float = 120) -> dict:
        asked = self.client.execute(code, user_expressions={"answer": "1 + 1"})
        deadline = time.monotonic() + seconds
        while True:
            reply = self.client.get_shell_msg(timeout=max(0.1, deadline - time.monotonic()))
            if reply["parent_header"].get("msg_id") == asked:
                assert reply["content"]["status"] == "ok", reply["content"]
                return dict(reply["content"])

    def find(self, **state) -> str:
        """The widget made last whose state has these values."""
        return [k for k, v in self.state.items() if all(v.get(name) == value for name, value in state.items())][-1]

    def send(self, widget: str, data: dict) -> None:
        message = self.client.session.msg("comm_msg", {"comm_id": widget, "data": data})
        self.client.shell_channel.send(message)

    def click(self, button: str) -> None:
        self.send(button, {"method": "custom", "content": {"event": "click"}})

    def slide(self, slider: str, index: int) -> None:
        self.send(slider, {"method": "update", "state": {"index": index}, "buffer_paths": []})


@pytest.mark.slow
def test_the_chapter_retrains_in_a_real_kernel(here):
    """As in `jupyter lab`: run the cells, move sliders, click, keep working meanwhile, cancel."""
    book = Notebook()
    try:
        for cell in nbformat.read(CHAPTER, as_version=4).cells:
            if cell.cell_type != "code":
                continue
            book.execute(cell.source)
            if "parameters" in cell.metadata.get("tags", []):
                book.execute('profile, device = "smoke", "cpu"')
            if "live.retrain" in cell.source:
                break
        book.listen(lambda: len(book.views) == 2, 30)  # the stored grid's, and the live one
        train, cancel = book.find(description="Train at these weights"), book.find(description="Cancel")
        bar = book.find(_model_name="IntProgressModel")
        card = [k for k, v in book.state.items() if "class='ex-pictures'" in str(v.get("value"))][-1]
        status = [k for k, v in book.state.items() if "role='status'" in str(v.get("value"))][-1]
        before = book.state[card]["value"]

        variation = book.find(_model_name="SelectionSliderModel", description="total variation")
        book.slide(variation, live.CHOICES.index(1.0))
        book.click(train)
        book.listen(lambda: "Trained at 0.8 0.5 0.05 1 " in book.state[status]["value"], 60)
        assert book.state[card]["value"] != before and book.state[bar]["value"] == book.state[bar]["max"]
        book.listen(lambda: book.state[cancel]["disabled"] and not book.state[train]["disabled"], 10)
        after = book.state[card]["value"]

        book.execute('weights.SCALES["smoke"]["steps"] = 100_000')
        book.click(train)
        book.listen(lambda: "Step " in book.state[status]["value"], 60)
        for _ in range(3):  # the kernel answers while it trains
            assert book.execute("", 20)["user_expressions"]["answer"]["data"]["text/plain"] == "2"
        book.listen(lambda: book.state[bar]["value"] > 0, 30)
        assert book.state[train]["disabled"] and not book.state[cancel]["disabled"]
        book.click(cancel)
        book.listen(lambda: "Cancelled at step" in book.state[status]["value"], 30)
        book.listen(lambda: not book.state[train]["disabled"], 10)
        assert book.state[card]["value"] == after

        book.execute('weights.recording = lambda *_: 1 / 0; weights.SCALES["smoke"]["steps"] = "many"')
        book.click(train)  # what goes wrong is shown, and the button comes back
        book.listen(lambda: "Failed: volume_shuffle: steps" in book.state[status]["value"], 30)
        book.listen(lambda: not book.state[train]["disabled"], 10)
    finally:
        book.client.stop_channels()
        book.manager.shutdown_kernel(now=True)
