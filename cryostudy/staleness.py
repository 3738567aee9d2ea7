"""What a job of the Snakefile depends on, by content: a touched file or an edited comment is no reason to run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from cryostudy import records, runs, sources

# No chapter or cell imports these, and what they do shows in no result.
RESULTLESS = ("book.py", "cli.py", "progress.py", "publishing.py", "staleness.py")
METHODS = "methods/"  # are imported by name, which no reading of imports can follow


def chapter(notebook: Path) -> str:
    """Digest of the code that a chapter can reach: what it imports of the package, and all methods if any."""
    return digest(reached(imported(notebook)))


def cell(one: runs.Cell) -> str:
    """Digest of all that a cell's result depends on: itself, the code of its notebook, and what that and its method
    import."""
    file = records.PACKAGE / METHODS / f"{one.method}.py"
    own = sources.imports(f"cryostudy.methods.{one.method}") if file.exists() else frozenset()
    files = reached(imported(runs.NOTEBOOK), methods=not own) | _paths(own)
    content = [vars(one) | {"settings": dict(one.settings)}, records.code_hash(runs.NOTEBOOK), digest(files)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def site(root: Path) -> str:
    """Digest of what the site is made of besides chapters and tables: prose, configuration, records and package."""
    files = [root / name for name in ("_config.yml", "_toc.yml")]
    for folder in ("book", "data", "cryostudy"):
        files += [path for path in sorted((root / folder).rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    lines = [f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def imported(notebook: Path) -> set[str]:
    """Modules of the package that the code cells of a notebook import."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    found = (sources.imported("".join(one["source"])) for one in cells if one["cell_type"] == "code")
    return {name for names in found for name in names if name.partition(".")[0] == records.PACKAGE.name}


def reached(modules: Iterable[str], *, methods: bool = True) -> set[str]:
    """Files of the package, by their path below it, that importing modules can bring in; its data files too."""
    files = {name for name in records.package_files() if not name.endswith(".py")}
    for module in modules:
        files |= _paths(sources.imports(module))
    if methods and any(name.startswith(METHODS) for name in files):
        for path in (records.PACKAGE / METHODS).glob("*.py"):
            files |= _paths(sources.imports(f"cryostudy.methods.{path.stem}"))
    return files - set(RESULTLESS)


def digest(files: Iterable[str]) -> str:
    """SHA-256 over files of the package, without the comments and docstrings of code."""
    text = "".join(f"{name} {sources.digest(records.PACKAGE / name)}\n" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def _paths(modules: Iterable[str]) -> set[str]:
    """The files of modules, by their path below the package."""
    found = set()
    for module in modules:
        stem = records.PACKAGE.joinpath(*module.split(".")[1:])
        found |= {path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()}
    return {path.relative_to(records.PACKAGE).as_posix() for path in found}
