"""Builds the site from executed chapters, and publishes them: `python -m cryostudy.book build|publish`.

Jupyter Book reads a staged copy of `_config.yml`, `_toc.yml` and `book/` with the executed chapters put in at
`book/chapters/`, the path they have in the repository, so that launch buttons lead to files that exist.
"""

import argparse
import ast
import hashlib
import importlib.resources
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import yaml

from cryostudy import launch, records, reference
from cryostudy import pages as generated
from cryostudy.errors import CryostudyError, InputError
from cryostudy.pages import run_grids

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = "book/chapters"
RECORDS = "data/results"
# A page whose text, title apart, is shorter than this was not written or not built.
MIN_PAGE_CHARACTERS = 200
# Cells longer than this are folded; a chapter's visible code stays short.
MAX_VISIBLE_LINES = 12
STALE_NOTE = """
:::{{admonition}} The package has changed since this chapter ran
:class: warning

The code of `cryostudy` that made these numbers differs from the code of this site, so a new run may give others. The
record below names the commit. Changed since, of what it used: {}.
:::
"""
# What the theme's pages lack for those who hear them or steer by keys: names of buttons and of the sidebar.
MENDED = {
    '<summary><span class="toctree-toggle"': '<summary aria-label="Pages below this one"><span class="toctree-toggle"',
    '<summary aria-label="Toggle hidden content">': "<summary>",  # hid the text that the button shows
    '<div id="pst-primary-sidebar" ': '<div id="pst-primary-sidebar" role="region" aria-label="Contents of the site" ',
}
FRONT = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><meta http-equiv="refresh" content="0; url=book/index.html"></head>
<body><p><a href="book/index.html">{title}</a></p></body>
</html>
"""
# What the pages ask of MathJax: TeX in, HTML out, its own fonts. The rest of the 24 MB package stays out of the site.
MATHJAX_KEPT = ("tex-chtml.js", "output/chtml/fonts/woff-v2/", "input/tex/extensions/", "LICENSE")


def build(chapters: Path, out: Path, record_dir: Path | None = None, root: Path = ROOT) -> Path:
    """Builds the site from the executed notebooks in `chapters` into `out`; returns the path of its `index.html`.

    `record_dir` holds the chapters' records (default: `chapters/records`). Chapters of `_toc.yml` that are absent from
    `chapters` are left out with a note on stderr. Nothing is built when nothing has changed since the last build.

    Raises InputError when no chapter is there or one was never executed, CryostudyError when Jupyter Book reports an
    error or a warning, or when a built page is empty.
    """
    stage = out.with_name(f"{out.name}.stage")
    pages, missing = stage_book(chapters, record_dir or chapters / "records", stage, root)
    if missing:
        print(f"NOTE: left out, because {chapters} does not hold them: {', '.join(missing)}", file=sys.stderr)
    fingerprint = _fingerprint(stage)
    mark = out / ".fingerprint"
    if mark.is_file() and mark.read_text() == fingerprint:
        shutil.rmtree(stage)
        return out / "index.html"
    # A chapter that is left out may be linked from others: then, and only then, warnings do not stop the build.
    html = _jupyter_book(stage, strict=not missing)
    check_pages(html, pages)
    _drop_unused_mathjax(html)
    _mend(html)
    _icon(html / "favicon.ico")
    (html / ".fingerprint").write_text(fingerprint)
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(html, out)
    shutil.rmtree(stage)
    return out / "index.html"


def stage_book(chapters: Path, record_dir: Path, stage: Path, root: Path = ROOT) -> tuple[list[str], list[str]]:
    """Writes the source of the site to `stage`; returns the names of its pages and of the chapters left out."""
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(root / "book", stage / "book", ignore=shutil.ignore_patterns("chapters"))
    config = yaml.safe_load((root / "_config.yml").read_text())
    if url := launch.address(config):
        config = launch.configured(config, url)
        with (stage / "book/rerun.md").open("a") as page:
            page.write(launch.IN_THE_BROWSER.format(url=url))
    (stage / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    _widget_bundle(stage / "book" / "_static" / "widgets")
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    missing = []
    for part in toc["parts"]:
        files = [entry["file"] for entry in part["chapters"]]
        absent = [f for f in files if f.startswith(CHAPTERS) and not (chapters / f"{Path(f).name}.ipynb").is_file()]
        part["chapters"] = [{"file": f} for f in files if f not in absent]
        missing += [Path(f).name for f in absent]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    floors = []
    for entry in (entry for part in toc["parts"] for entry in part["chapters"] if entry["file"] == reference.OVERVIEW):
        floors = reference.write_pages(stage)
        entry["sections"] = [{"file": page} for page in floors]
    (stage / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    pages = [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]
    pages += floors
    names = [Path(page).name for page in pages if page.startswith(CHAPTERS)]
    if not names:
        raise InputError(f"{chapters}: no executed chapter here; run make study, or cryostudy chapter NAME")
    (stage / CHAPTERS).mkdir()
    for name in names:
        notebook = nbformat.read(chapters / f"{name}.ipynb", as_version=4)
        if not any(cell.get("outputs") for cell in notebook.cells):
            raise InputError(f"{chapters / name}.ipynb: has no outputs, so it was never executed; run the chapter")
        runs = [json.loads(path.read_text()) for path in record_dir.glob(f"{name}*.json")]
        stage_notebook(notebook, sorted({file for run in runs for file in records.changed(run)}))
        # Text and commands speak of chapters by number.
        notebook.cells[0].source = re.sub(r"^# ", f"# {name.partition('_')[0]}. ", notebook.cells[0].source)
        code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        if floors and (links := reference.links(code)):
            notebook.cells.append(nbformat.v4.new_markdown_cell(links))
        nbformat.write(notebook, stage / CHAPTERS / f"{name}.ipynb")
    generated.write(stage, record_dir, pages, root)
    run_grids.write(stage, chapters / "grids")
    return pages, missing


def stage_notebook(notebook: nbformat.NotebookNode, changed: Sequence[str] = ()) -> None:
    """Prepares an executed chapter for reading, in place: parameters once, long code folded, a note of changed code."""
    injected = [cell for cell in notebook.cells if "injected-parameters" in tags(cell)]
    for cell in injected:
        for original in (cell for cell in notebook.cells if "parameters" in tags(cell)):
            original.source = _with_values(original.source, cell.source)
        notebook.cells.remove(cell)
    for cell in notebook.cells:
        untouched = not any(tag.startswith(("hide-", "remove-")) for tag in tags(cell))
        if cell.cell_type == "code" and untouched and len(cell.source.splitlines()) > MAX_VISIBLE_LINES:
            cell.metadata["tags"] = [*tags(cell), "hide-input"]
    if changed:
        title, _, rest = notebook.cells[0].source.partition("\n")
        note = STALE_NOTE.format(", ".join(f"`{name}`" for name in changed))
        notebook.cells[0].source = f"{title}\n{note}{rest}"


def _widget_bundle(folder: Path) -> None:
    """Puts what draws the pages' widgets into `folder`: the bundle that ipywidgets installs for classic notebooks."""
    bundle = importlib.resources.files("widgetsnbextension") / "static"
    folder.mkdir(parents=True)
    for name in ("extension.js", "extension.js.LICENSE.txt"):
        # Without the map of its sources, which is not served, browsers' tools would ask for one.
        text = (bundle / name).read_text(encoding="utf-8")
        (folder / name).write_text(re.sub(r"\n//# sourceMappingURL=\S+", "", text), encoding="utf-8")


def check_pages(html: Path, pages: list[str]) -> None:
    """Raises CryostudyError naming every page of `pages` that is absent from the built site `html` or empty."""
    from bs4 import BeautifulSoup

    empty = []
    for page in pages:
        path = html / f"{page}.html"
        article = BeautifulSoup(path.read_text(), "html.parser").find("article") if path.is_file() else None
        for title in article.find_all("h1") if article else ():
            title.decompose()
        if article is None or len(" ".join(article.get_text().split())) < MIN_PAGE_CHARACTERS:
            empty.append(page)
    if empty:
        raise CryostudyError(f"the site was not built: no content on {', '.join(empty)}")


def _icon(path: Path) -> None:
    """A small blue square: browsers ask for an icon at the top of a site, and report an error where there is none."""
    from PIL import Image

    Image.new("RGB", (32, 32), "#0072B2").save(path, "ICO")


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def _with_values(parameters: str, injected: str) -> str:
    """The parameters cell with the values that papermill injected, its comments kept."""
    values = {
        target.id: ast.unparse(node.value)
        for node in ast.parse(injected).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    text = parameters.encode()
    starts = [0, *(i + 1 for i, byte in enumerate(text) if byte == ord("\n"))]
    for node in reversed(ast.parse(parameters).body):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and isinstance(target, ast.Name) and target.id in values:
            first, last = node.value.lineno, node.value.end_lineno or node.value.lineno
            start, end = starts[first - 1] + node.value.col_offset, starts[last - 1] + (node.value.end_col_offset or 0)
            text = text[:start] + values[target.id].encode() + text[end:]
    return text.decode()


def _fingerprint(stage: Path) -> str:
    digest = hashlib.sha256()
    for folder, pattern in ((stage, "*"), (records.PACKAGE, "*.py")):  # the API reference comes from the docstrings
        for path in sorted(folder.rglob(pattern)):
            if path.is_file():
                digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _jupyter_book(stage: Path, strict: bool) -> Path:
    """Runs Jupyter Book on `stage`; returns the folder of the built pages."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(stage), "--quiet", "--keep-going", "--nitpick", *(["--warningiserror"] if strict else [])]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode or not strict:
        print(done.stderr.strip(), file=sys.stderr)
    if done.returncode:
        raise CryostudyError("Jupyter Book failed, or warned, which counts as failing; see above")
    return stage / "_build" / "html"


def _mend(html: Path) -> None:
    """Makes :data:`MENDED` true of every page, and the page that leads to the front page a whole one."""
    front = html / "book" / "index.html"
    for path in html.rglob("*.html"):
        text = mended = path.read_text()
        for found, better in MENDED.items():
            mended = mended.replace(found, better)
        mended = re.sub(r"<title>(.+) &#8212; \1</title>", r"<title>\1</title>", mended)  # the front page's
        if mended != text:
            path.write_text(mended)
    if front.is_file():
        title = re.search(r"<title>(.*)</title>", front.read_text())
        (html / "index.html").write_text(FRONT.format(title=title[1] if title else "cryostudy"))


def _drop_unused_mathjax(html: Path) -> None:
    mathjax = html / "_static" / "mathjax"
    for path in mathjax.rglob("*"):
        if path.is_file() and not path.relative_to(mathjax).as_posix().startswith(MATHJAX_KEPT):
            path.unlink()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cryostudy.book", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build the site from executed chapters")
    building.add_argument("--chapters", type=Path, required=True, help="folder of the executed notebooks")
    building.add_argument("--records", type=Path, help="folder of their records (default: CHAPTERS/records)")
    building.add_argument("--out", type=Path, required=True, help="folder for the site; replaced as a whole")
    publishing = commands.add_parser("publish", help="copy an executed chapter to where it is published")
    publishing.add_argument("chapter")
    publishing.add_argument("profile")
    args = parser.parse_args(argv)
    from cryostudy.publishing import publish  # which takes paths and tags from here

    try:
        if args.command == "build":
            print(f"The site is at {build(args.chapters, args.out, args.records)}")
        else:
            for path in publish(args.chapter, args.profile):
                print(f"wrote {path.relative_to(ROOT)}")
    except CryostudyError as error:
        print(f"cryostudy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
