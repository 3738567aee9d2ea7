"""What in a source file can change a result, and which files a module's results can depend on."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def effective(source: str) -> str:
    """Python source without comments, docstrings and blank lines, which change no result."""
    lines = [line.encode() for line in source.splitlines()]  # positions in a syntax tree count bytes
    docstrings, strings = [], []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))):
            strings.append(((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)))
        elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstrings += node.body[:1] if ast.get_docstring(node, clean=False) is not None else []
    for row, line in enumerate(lines, 1):
        for sign in (k for k, byte in enumerate(line) if byte == ord("#")):
            if not any(start <= (row, sign) < end for start, end in strings):
                lines[row - 1] = line[:sign]
                break
    for text in docstrings:
        lines[text.lineno - 1 : text.end_lineno] = [b""] * ((text.end_lineno or text.lineno) - text.lineno + 1)
    return "\n".join(line.decode().rstrip() for line in lines if line.strip())


@functools.cache
def digest(path: Path) -> str:
    """SHA-256 of a file: of a Python file what is :func:`effective`, of others all."""
    content = effective(path.read_text()).encode() if path.suffix == ".py" else path.read_bytes()
    return hashlib.sha256(content).hexdigest()


@functools.cache
def imports(module: str, package: Path = PACKAGE) -> frozenset[str]:
    """Modules of the package that importing one (dotted name) can bring in, itself among them; local imports count."""
    found, todo = set(), [module]
    while todo:
        name = todo.pop()
        path = _file(name, package)
        if path is None or name in found:
            continue
        found.add(name)
        todo += [name.rpartition(".")[0]] if "." in name else []
        todo += imported(path.read_text())
    return frozenset(found)


@functools.cache
def imported(source: str) -> frozenset[str]:
    """All that Python source imports anywhere, by dotted name; of `from a import b` both `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def module_hash(module: str, package: Path = PACKAGE) -> str:
    """SHA-256 over the code that a module's results can depend on: its own and all that it imports of the package."""
    files = [(name, _file(name, package)) for name in sorted(imports(module, package))]
    text = "".join(f"{name} {digest(path)}\n" for name, path in files if path)
    return hashlib.sha256(text.encode()).hexdigest()


def _file(module: str, package: Path) -> Path | None:
    """Where a module of the package lies; None for others."""
    first, *rest = module.split(".")
    if first != package.name:
        return None
    stem = package.joinpath(*rest)
    return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)
