"""Chapters as they stand in the repository, and what `cryostudy.book` does with them."""

import base64
import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cryostudy import book, figures, publishing, records
from cryostudy.errors import CryostudyError, InputError

ROOT = book.ROOT
SOURCES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PUBLISHED = sorted((ROOT / book.CHAPTERS).glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.:/~])/(home|root|Users|tmp|work|mnt|scratch)/\w")
# Grey values, and colour scales whose steps look even to every eye (RdBu and PuOr: for signed values).
SCALES = {"gray", "Greys", "viridis", "cividis", "magma", "inferno", "plasma", "RdBu", "PuOr"}
# A one-pixel PNG.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def tags(cell: nbformat.NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code(notebook: nbformat.NotebookNode) -> list[str]:
    """The code cells that a reader wrote, without what papermill and `cryostudy chapter` put in."""
    generated = {"injected-parameters", "record"}
    return [cell.source for cell in notebook.cells if cell.cell_type == "code" and not tags(cell) & generated]


def name(path: Path) -> str:
    return path.stem


# The repository's chapters


def test_table_of_contents_lists_every_chapter():
    listed = re.findall(rf"file: {book.CHAPTERS}/(\S+)", (ROOT / "_toc.yml").read_text())
    assert sorted(listed) == [path.stem for path in SOURCES]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_source_chapters_carry_no_outputs(path: Path):
    for cell in read(path).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_first_code_cell_holds_at_most_eight_parameters(path: Path):
    first, *others = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert "parameters" in tags(first) and not any("parameters" in tags(cell) for cell in others)
    parameters = re.findall(r"^(\w+) = ", first.source, re.MULTILINE)
    assert "profile" in parameters and len(parameters) <= 8


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_chapter_is_published_with_its_record(path: Path):
    assert (ROOT / book.CHAPTERS / path.name).is_file(), f"make publish CHAPTER={path.stem}"
    assert (ROOT / book.RECORDS / f"{path.stem}.json").is_file()


@pytest.mark.parametrize("path", PUBLISHED, ids=name)
def test_published_chapters_ran_the_code_of_their_source(path: Path):
    source = ROOT / "notebooks" / path.name
    assert code(read(path)) == code(read(source)), f"{path.stem} has changed since it ran: run and publish it again"
    record = json.loads((ROOT / book.RECORDS / f"{path.stem}.json").read_text())
    assert record["notebook_sha256"] == records.code_hash(source)


@pytest.mark.parametrize("path", PUBLISHED, ids=name)
def test_published_chapters_ran_to_their_end_and_name_no_place_of_a_machine(path: Path):
    notebook = read(path)
    ran = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in ran)
    assert not [output for cell in ran for output in cell.outputs if output.output_type == "error"]
    assert any("record" in tags(cell) for cell in notebook.cells), "the page does not show its record"
    for text in (path.read_text(), *(r.read_text() for r in (ROOT / book.RECORDS).glob(f"{path.stem}*.json"))):
        assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_chapters_draw_in_one_style_and_in_colours_that_everybody_can_tell_apart(path: Path):
    text = "\n".join(code(read(path)))
    assert "figures.style()" in text or "plt." not in text
    for _, colour in re.findall(r"\b(color|c|ec|fc|mfc|mec|edgecolor|facecolor)=[\"']([^\"']*)[\"']", text):
        known = colour.upper() in figures.COLOURS or colour in ("k", "w", "black", "white", "none", "0", "1")
        assert known or re.fullmatch(r"0?\.\d+|C\d", colour), f"{colour}: take one of figures.COLOURS, or a grey"
    for scale in re.findall(r"cmap=[\"']([^\"']*)[\"']", text):
        assert scale.removesuffix("_r") in SCALES, f"{scale}: take one whose steps look even, such as cividis"


@pytest.mark.parametrize("path", PUBLISHED, ids=name)
def test_every_picture_of_a_published_chapter_is_described(path: Path):
    for cell in read(path).cells:
        pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        if pictures:
            words = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(words.split()) >= 4, f"a picture without alt text, made by: {cell.source[:80]}"


def test_tracked_files_are_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for file in filter(None, listed.stdout.split("\0")):
        limit = publishing.MAX_NOTEBOOK_BYTES if file.startswith(book.CHAPTERS) else 2_000_000
        path = ROOT / file
        assert not path.is_file() or path.stat().st_size < limit, file


def test_records_page_explains_every_field(tmp_path: Path):
    record = records.start("page", parameters={}, profile="smoke", seed=0, device="cpu").finish(tmp_path)
    explained = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "book/records.md").read_text(), re.MULTILINE))
    assert set(json.loads(record.read_text())) == explained


# Building and publishing


def executed(words: str = "Words that a reader can read. " * 10) -> nbformat.NotebookNode:
    output = new_output("stream", name="stdout", text="0.5\n")
    front = new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})
    return new_notebook(
        cells=[
            new_markdown_cell(f"# A chapter\n\n{words}"),
            new_code_cell('profile = "laptop"  # smoke, laptop or gpu\nseed = 0', metadata={"tags": ["parameters"]}),
            new_code_cell("# Parameters\nseed = 3\n", metadata={"tags": ["injected-parameters"]}),
            new_code_cell("print(0.5)", outputs=[output], execution_count=1),
            new_code_cell("show()", outputs=[front], execution_count=2, metadata={"tags": [publishing.FRONT_TAG]}),
        ]
    )


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A repository with two chapters in its table of contents, of which `01_one` has run."""
    toc = {"format": "jb-book", "root": "book/index"}
    chapters = [{"file": f"{book.CHAPTERS}/01_one"}, {"file": f"{book.CHAPTERS}/02_two"}]
    toc["parts"] = [{"caption": "Chapters", "chapters": chapters}]
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    (tmp_path / "_config.yml").write_text("title: Study\nonly_build_toc_files: true\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book/index.md").write_text("# Study\n\n" + "What this study is. " * 20)
    (tmp_path / "book/images").mkdir()
    run = tmp_path / "_build/runs/smoke"
    (run / "records").mkdir(parents=True)
    (run / "records/01_one.json").write_text(json.dumps({"package_sha256": records.package_hash()}))
    nbformat.write(executed(), run / "01_one.ipynb")
    return tmp_path


def stage(study: Path) -> tuple[nbformat.NotebookNode, list[str], list[str]]:
    run = study / "_build/runs/smoke"
    pages, missing = book.stage_book(run, run / "records", study / "stage", study)
    return read(study / "stage" / book.CHAPTERS / "01_one.ipynb"), pages, missing


def test_staging_shows_parameters_once_with_the_values_that_ran(study: Path):
    notebook, _, _ = stage(study)
    assert notebook.cells[1].source == 'profile = "laptop"  # smoke, laptop or gpu\nseed = 3'
    assert not any("injected-parameters" in tags(cell) for cell in notebook.cells)


def test_staging_leaves_out_chapters_that_did_not_run(study: Path):
    _, pages, missing = stage(study)
    assert missing == ["02_two"]
    assert pages == ["book/index", f"{book.CHAPTERS}/01_one"]
    assert "02_two" not in (study / "stage/_toc.yml").read_text()


def test_long_code_is_folded_and_short_code_is_not():
    notebook = executed()
    notebook.cells[3].source = "\n".join(f"a{i} = {i}" for i in range(book.MAX_VISIBLE_LINES + 1))
    book.stage_notebook(notebook)
    assert ["hide-input" in tags(cell) for cell in notebook.cells] == [False, False, True, False]


@pytest.mark.parametrize("ran_with", ["the present one", "another"])
def test_a_page_says_when_the_package_has_changed(study: Path, ran_with: str):
    if ran_with == "another":
        (study / "_build/runs/smoke/records/01_one.json").write_text('{"package_sha256": "00"}')
    first = stage(study)[0].cells[0].source
    assert first.startswith("# 01. A chapter\n")
    assert ("The package has changed since this chapter ran" in first) == (ran_with == "another")


def test_a_chapter_that_was_never_executed_is_refused(study: Path):
    notebook = executed()
    for cell in notebook.cells[1:]:
        cell.outputs = []
    nbformat.write(notebook, study / "_build/runs/smoke/01_one.ipynb")
    with pytest.raises(InputError, match="never executed"):
        stage(study)


def test_no_chapter_at_all_is_refused(study: Path):
    (study / "_build/runs/smoke/01_one.ipynb").unlink()
    with pytest.raises(InputError, match="no executed chapter"):
        stage(study)


def test_an_emptied_or_absent_page_fails_the_build(tmp_path: Path):
    full = f"<article><h1>A title of some length</h1><p>{'words ' * 60}</p></article>"
    (tmp_path / "full.html").write_text(full)
    book.check_pages(tmp_path, ["full"])
    (tmp_path / "emptied.html").write_text(f"<nav>{'words ' * 60}</nav><article><h1>{'title ' * 60}</h1></article>")
    with pytest.raises(CryostudyError, match="emptied, absent"):
        book.check_pages(tmp_path, ["full", "emptied", "absent"])


def test_a_warning_fails_the_build_of_a_complete_book(study: Path):
    run = study / "_build/runs/smoke"
    notebook = executed()
    notebook.cells[0].source += "\n\n[nowhere](nowhere.md)"
    for chapter in ("01_one", "02_two"):
        nbformat.write(notebook, run / f"{chapter}.ipynb")
    with pytest.raises(CryostudyError, match="Jupyter Book"):
        book.build(run, study / "site", root=study)
    assert not (study / "site").exists()


def test_an_incomplete_book_is_built_and_a_second_call_leaves_it(study: Path, capsys: pytest.CaptureFixture[str]):
    run = study / "_build/runs/smoke"
    index = book.build(run, study / "site", root=study)
    assert "left out" in capsys.readouterr().err and "02_two" in (study / "_toc.yml").read_text()
    page = index.parent / book.CHAPTERS / "01_one.html"
    built = page.stat().st_mtime_ns
    book.build(run, study / "site", root=study)
    assert page.stat().st_mtime_ns == built
    nbformat.write(executed("Other words, to be read by a reader. " * 10), run / "01_one.ipynb")
    book.build(run, study / "site", root=study)
    assert "Other words" in page.read_text()


def test_publishing_copies_the_run_its_record_and_its_picture(study: Path):
    (study / book.RECORDS).mkdir(parents=True)
    (study / book.RECORDS / "01_one_old.json").write_text("{}")
    written = publishing.publish("01_one", "smoke", study)
    assert [path.relative_to(study).as_posix() for path in written] == [
        f"{book.CHAPTERS}/01_one.ipynb",
        f"{book.RECORDS}/01_one.json",
        publishing.FRONT_PICTURE,
    ]
    assert code(read(written[0])) == code(executed())
    assert written[2].read_bytes() == base64.b64decode(PIXEL)
    assert not (study / book.RECORDS / "01_one_old.json").exists()


def test_publishing_drops_papermills_paths_and_stderr_and_refuses_other_paths(study: Path):
    run = study / "_build/runs/smoke/01_one.ipynb"
    notebook = executed()
    notebook.cells[3].outputs.append(new_output("stream", name="stderr", text=f"{study}/a.py: a warning\n"))
    notebook.metadata["papermill"] = {"input_path": f"{study}/a.ipynb", "output_path": f"{study}/b.ipynb"}
    nbformat.write(notebook, run)
    assert str(study) not in publishing.publish("01_one", "smoke", study)[0].read_text()
    notebook.cells[0].source += f" {study}/volume.mrc"
    nbformat.write(notebook, run)
    with pytest.raises(InputError, match="relative paths"):
        publishing.publish("01_one", "smoke", study)


def test_publishing_refuses_large_notebooks_and_absent_runs(study: Path):
    with pytest.raises(InputError, match="no such run"):
        publishing.publish("02_two", "smoke", study)
    nbformat.write(executed("word " * 300_000), study / "_build/runs/smoke/01_one.ipynb")
    with pytest.raises(InputError, match=r"1\.5 MB, more than the 1 MB"):
        publishing.publish("01_one", "smoke", study)
    assert not (study / book.CHAPTERS).exists()
    nbformat.write(executed(), study / "_build/runs/smoke/01_one.ipynb")
    (study / "_build/runs/smoke/records/01_one.json").unlink()
    with pytest.raises(InputError, match="no record"):
        publishing.publish("01_one", "smoke", study)


def test_a_refusal_is_one_line_and_code_2(study: Path, capsys: pytest.CaptureFixture[str]):
    assert book.main(["build", "--chapters", str(study), "--out", str(study / "site")]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("cryostudy: ") and "no executed chapter" in line


def test_records_of_the_grid_are_published_unless_they_hold_a_path_of_this_machine(tmp_path):
    found = tmp_path / "_build" / "runs" / "smoke" / "records" / "grid"
    with pytest.raises(InputError, match="no records of the grid; first run: cryostudy grid"):
        publishing.publish("grid", "smoke", tmp_path)
    found.mkdir(parents=True)
    (found / "a.json").write_text("{}")
    assert publishing.publish("grid", "smoke", tmp_path) == [tmp_path / "data" / "results" / "grid" / "a.json"]
    (found / "b.json").write_text(f'{{"failed": "{tmp_path}/x.mrc"}}')
    with pytest.raises(InputError, match=r"b\.json: holds .*, a path of this machine"):
        publishing.publish("grid", "smoke", tmp_path)
    assert not (tmp_path / "data" / "results" / "grid" / "b.json").exists()
