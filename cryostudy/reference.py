"""The API reference of the site: one page for each floor of the package, from the docstrings.

:func:`write_pages` writes the pages before the site is built; `setup` makes this file the Sphinx extension that reads
docstrings the way they are written: `name` is code, `liu2025` a citation, "chapter 16" a link, and what a package
passes on from its files is found under both names.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).resolve().parent
FOLDER = "book/api"
OVERVIEW = f"{FOLDER}/index"
# Page: its title, and what stands on it. Whatever is named nowhere comes onto the last page.
FLOORS = {
    "io": ("Files in and out", ["io", "files"]),
    "fourier": ("Fourier space, rotations, filters", ["fourier", "rotation", "filters", "bm4d", "masking"]),
    "tomography": ("Tilt series and tomograms", ["tomography", "noise", "halves"]),
    "simulate": ("Simulation", ["simulate"]),
    "data": ("Recordings and their parts", ["data", "acquisition", "particles", "poses"]),
    "models": ("Networks", ["models"]),
    "losses": ("Losses", ["losses"]),
    "metrics": ("Metrics", ["metrics", "content"]),
    "training": ("Training and inference", ["training", "inference", "progress"]),
    "methods": ("Methods", ["methods"]),
    "matching": ("Template matching", ["matching"]),
    "averaging": ("Sub-tomogram averaging", ["averaging"]),
    "segmentation": ("Membranes", ["segmentation"]),
    "comparison": (
        "Comparisons",
        ["comparison", "grid", "paired", "downstream", "ablation", "runs", "cells", "proposition", "trust", "verdict"],
    ),
    "records": ("Records and artefacts", ["records", "same", "artefacts", "sources", "staleness", "errors"]),
    "figures": ("Figures and explorers", ["figures", "explore"]),
    "more": ("Commands and the rest", []),
}
# The command line and what builds this site: `cryostudy --help` and CONTRIBUTING.md describe them.
LEFT_OUT = {"__init__", "__main__", "cli", "book", "launch", "reference", "pages"}
# What nearly every chapter calls, of which it would say little to name each function.
EVERYWHERE = tuple(f"cryostudy.{name}" for name in ("artefacts", "comparison", "errors", "figures", "records"))
# Papers that docstrings call by their number in data/papers.
PAPERS = {"000": "liu2025", "001": "yang2021", "003": "jones2026", "004": "wiedemann2024"}
INTRODUCTION = """The functions and classes that the chapters call, floor by floor: a lower floor never imports a higher
one. Volumes are float32 arrays ``(z, y, x)``, tilt stacks ``(tilt, y, x)``, angles degrees, lengths Å. Each chapter
ends with links to the parts that it uses.
"""
INLINE = re.compile(r"^\.\. \w+::.*(?:\n(?:[ ].*)?)*|``.*?``|:[\w:]+:`[^`]*`|`[^`]+`", re.MULTILINE)
CHAPTER = re.compile(r"(?<=[Cc]hapter )(\d\d)\b|(?<=[Cc]hapters )(\d\d)(?: and (\d\d))?\b")


def floors() -> dict[str, list[str]]:
    """Page -> its modules (dotted, without `cryostudy.`), each package before its files."""
    found = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    named = {name for _, names in FLOORS.values() for name in names}
    rest = sorted(found - named - LEFT_OUT)
    tops = {page: [name for name in names if name in found] for page, (_, names) in FLOORS.items()}
    tops["more"] = rest
    return {page: [module for top in names for module in _with_files(top)] for page, names in tops.items() if names}


def _with_files(top: str) -> list[str]:
    files = sorted(path.stem for path in (PACKAGE / top).glob("*.py"))
    return [top, *(f"{top}.{name}" for name in files if not name.startswith("_"))]


def write_pages(stage: Path) -> list[str]:
    """Writes the overview and the pages, as reStructuredText, below `stage`; returns the names of the pages."""
    folder = stage / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    overview = [_heading("API reference", "="), INTRODUCTION]
    pages = floors()
    for page, modules in pages.items():
        title = FLOORS[page][0]
        overview += [_heading(f":doc:`{title} <{page}>`", "-"), _table([f"cryostudy.{module}" for module in modules])]
        sections = [_heading(title, "="), *(_section(module) for module in modules)]
        (folder / f"{page}.rst").write_text("\n".join(sections))
    (folder / "index.rst").write_text("\n".join(overview))
    return [f"{FOLDER}/{page}" for page in pages]


def _heading(title: str, line: str) -> str:
    return f"{title}\n{line * len(title)}\n"


def _table(names: list[str]) -> str:
    return "\n".join([".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in names), ""])


def _section(module: str) -> str:
    """A module with everything it defines; of a package also what it passes on from its files."""
    path = PACKAGE / module.replace(".", "/")
    full = f"cryostudy.{module}"
    text = _heading(module, "-") + f"\n.. automodule:: {full}\n"
    if not path.is_dir():
        return text + "   :members:\n"
    body = ast.parse((path / "__init__.py").read_text()).body
    own = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    passed = sorted(
        f"~{node.module}.{alias.name}"
        for node in body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{full}.")
        for alias in node.names
    )
    text += f"   :members: {', '.join(own)}\n" if own else ""
    return text + (f"\n``from {full} import`` gives:\n\n.. currentmodule:: None\n\n" + _table(passed) if passed else "")


def found(dotted: str) -> Any:
    """The object of that dotted name, a function before a file of the same name; None where there is none."""
    parts = dotted.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            return functools.reduce(getattr, parts[split:], importlib.import_module(".".join(parts[:split])))
        except (ImportError, AttributeError):
            continue
    return None


def canonical(thing: Any) -> str:
    """Where the reference describes an object: the name of the module that defines it, and its own; else ""."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    return f"{module}.{name}" if module and name and module.startswith("cryostudy") else ""


def uses(code: str) -> list[str]:
    """What code imports and calls of `cryostudy`: the dotted names under which the reference describes it, sorted.

    A function called on an imported module counts, and so does a method asked for by name, as in `get("scnet")`.
    A module counts only where nothing more special of it is used, or where every chapter uses much of it. Names that do
    not exist (any more) are left out.
    """
    tree = ast.parse(code)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cryostudy":
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    things = [found(name) or _module(name) for name in imported.values()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            things.append(found(f"{imported[node.value.id]}.{node.attr}"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            if imported.get(node.func.id) == "cryostudy.methods.get" and name in (
                found("cryostudy.methods.available")()
            ):
                things.append(found("cryostudy.methods.get")(name))
    names = {canonical(thing) for thing in things} - {"", "cryostudy"}
    names = {next((m for m in EVERYWHERE if name.startswith(f"{m}.")), name) for name in names}
    return sorted(name for name in names if not any(other.startswith(f"{name}.") for other in names))


def _module(dotted: str) -> ModuleType | None:
    try:
        return importlib.import_module(dotted)
    except ImportError:
        return None


def links(code: str) -> str:
    """The end of a chapter, as MyST: what its code uses, each a link to its description; "" where it uses nothing."""
    listed = []
    for name in uses(code):
        *parts, last = name.split(".")[1:]
        shown = ".".join([*(parts if parts[-1:] != [last] else parts[:-1]), last])  # metrics.fsc, not metrics.fsc.fsc
        listed.append(f"{{py:obj}}`{shown} <{name}>`")
    return f"::::{{div}} uses\n**In the API reference**: {', '.join(listed)}\n::::" if listed else ""


# The Sphinx extension


def readable(text: str, keys: set[str], chapters: dict[str, str]) -> str:
    """A docstring as reStructuredText: code, citations of `keys`, and links to `chapters` (number -> page)."""

    def link(number: str) -> str:
        return f":doc:`{number} </{chapters[number]}>`" if number in chapters else number

    def plain(part: str) -> str:
        part = re.sub(r"([*|])", r"\\\1", part)
        part = re.sub(r"(?<=\w)_(?!\w)", r"\\_", part)
        part = re.sub(r"(?:[Pp]apers? )?(?<![\d.,] )\b(00[0134])\b", lambda m: f":cite:t:`{PAPERS[m[1]]}`\\ ", part)
        return CHAPTER.sub(lambda m: " and ".join(link(n) for n in m.groups() if n), part)

    def inline(part: str) -> str:
        if part[0] != "`" or part.startswith("``"):
            return part
        name = part.strip("`")
        return f":cite:t:`{name}`" if name in keys else f"``{name}``"

    pieces, end = [], 0
    for match in INLINE.finditer(text):
        end, before = match.end(), text[end : match.start()]
        glued = match[0][0] in "`:" and not re.match(r"\s|$|['\")\]}>/:.,;!?-]", text[end:])  # as in `Method`s
        pieces += [plain(before), inline(match[0]), "\\ " * glued]
    return "".join(pieces) + plain(text[end:])


def _read(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    keys = set(app.env.get_domain("cite").bibdata.data.entries)
    chapters = {Path(page).name[:2]: page for page in app.env.found_docs if page.startswith("book/chapters/")}
    lines[:] = readable("\n".join(lines), keys, chapters).split("\n")


def _resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Links a name that a package passes on, or a class inherits, to where it is described."""
    if node.get("refdomain") != "py":
        return None
    target, module, owner = node["reftarget"], node.get("py:module"), node.get("py:class")
    domain = env.get_domain("py")
    for name in (target, f"{module}.{target}", f"{module}.{owner}.{target}"):
        thing = found(name) if name.startswith("cryostudy.") else None
        for place in (canonical(thing), name.rpartition(".")[0]) if thing is not None else ():  # a constant: its file
            if link := place and domain.resolve_xref(env, node["refdoc"], app.builder, "obj", place, node, content):
                return link
    return None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _read, priority=400)  # before napoleon's
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
