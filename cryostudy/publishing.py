"""Publishes executed chapters and the records of runs: checked, made small, and copied to where the site takes them."""

import base64
import io
import json
import shutil
from pathlib import Path

import nbformat

from cryostudy.book import CHAPTERS, RECORDS, ROOT, tags
from cryostudy.errors import InputError

GRIDS = {"grid": "cryostudy grid", "explorer": "cryostudy grid --explorer"}  # what they publish, and make with
COLOURS = (256, 96, 48)  # of a published picture; the first that keeps the page below its limit
# The cell of a chapter whose picture stands on the front page once the chapter is published.
FRONT_TAG = "front-picture"
FRONT_PICTURE = "book/images/front.png"
MAX_NOTEBOOK_BYTES = 1_000_000
# Of a widget's state, what its class in the browser has by default.
UNSAID = {"_dom_classes": [], "box_style": "", "description": "", "description_allow_html": False, "titles": [],
          "placeholder": "\u200b"}  # fmt: skip


def publish(name: str, profile: str, root: Path = ROOT) -> list[Path]:
    """Copies chapter `name`, executed at `profile` scale, and its records to where they are published.

    What cells wrote to stderr is left out. The picture of a cell tagged `front-picture` becomes the one on the front
    page. Returns the files written. Of the grids (`grid`, `explorer`) only records are published.

    Raises InputError when the run or its records are absent, hold a path of this machine, or exceed 1 MB.
    """
    runs = root / "_build" / "runs" / profile
    if name in GRIDS:
        return _publish_grid(runs / "records" / name, root)
    source = runs / f"{name}.ipynb"
    if not source.is_file():
        raise InputError(f"{source}: no such run; first run: cryostudy chapter {name} --profile {profile}")
    notebook = nbformat.read(source, as_version=4)
    for key in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(key, None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    for model in widgets.get("state", {}).values():
        model["state"] = {key: value for key, value in model["state"].items() if not _implied(key, value)}
    text = ""
    for colours in COLOURS:  # a page of many noisy slices needs the fewer
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if picture := output.get("data", {}).get("image/png"):
                    output["data"]["image/png"] = _compact(picture, colours)
        text = nbformat.writes(notebook)
        if len(text.encode()) <= MAX_NOTEBOOK_BYTES:
            break
    if len(text.encode()) > MAX_NOTEBOOK_BYTES:
        raise InputError(
            f"{source}: {len(text.encode()) / 1e6:.1f} MB, more than the 1 MB that is published; "
            "make its pictures fewer or smaller, or save them as JPEG"
        )
    run_records = sorted((runs / "records").glob(f"{name}*.json"))
    if not run_records:
        raise InputError(f"{runs / 'records'}: no record of {name}; run the chapter again")
    shown = "".join(cell.source for cell in notebook.cells if "record" in tags(cell))
    started = json.loads(run_records[0].read_text()).get("started", "")
    if started not in shown:  # papermill alone, for example, writes a record without a run here
        raise InputError(f"{runs / 'records' / name}.json: not the record of {source}; run the chapter again")
    _refuse_machine_paths({source: text} | {path: path.read_text() for path in run_records}, root)
    for old in (root / RECORDS).glob(f"{name}*.json"):
        old.unlink()
    written = [root / CHAPTERS / source.name, *(root / RECORDS / path.name for path in run_records)]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
    written[0].write_text(text)
    for path in run_records:
        shutil.copy(path, root / RECORDS)
    for cell in notebook.cells:
        for output in cell.get("outputs", []) if FRONT_TAG in tags(cell) else []:
            if picture := output.get("data", {}).get("image/png"):
                written.append(root / FRONT_PICTURE)
                written[-1].write_bytes(base64.b64decode(picture))
    return written


def _implied(key: str, value: object) -> bool:
    """Whether the browser's class of a widget has this value unasked; said of each widget, that is half of a page."""
    return value is None or key.startswith(("_model_", "_view_")) or (key in UNSAID and value == UNSAID[key])


def _refuse_machine_paths(texts: dict[Path, str], root: Path) -> None:
    """Raises InputError for a file to be published whose text holds a path of this machine."""
    for path, content in texts.items():
        for place in {str(root), str(Path.home())} - {"/"}:
            if place in content:
                raise InputError(f"{path}: holds {place}, a path of this machine; let the chapter use relative paths")


def _publish_grid(found: Path, root: Path) -> list[Path]:
    """Copies the records of a grid, which belong to no chapter; some chapters read them."""
    paths = sorted(found.glob("*.json"))
    if not paths:
        raise InputError(f"{found}: no records of the grid; first run: {GRIDS[found.name]}")
    _refuse_machine_paths({path: path.read_text() for path in paths}, root)
    target = root / RECORDS / found.name
    target.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, target)) for path in paths]


def _compact(picture: str, colours: int) -> str:
    """A base64 PNG with at most so many colours, which these figures do not miss, if that is smaller."""
    from PIL import Image

    smaller = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(colours, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return min(picture, base64.b64encode(smaller.getvalue()).decode(), key=len)
