"""Comments and docstrings change no result; code does, also that of modules that others import."""

import subprocess
import sys

import pytest

from cryostudy import sources

PLAIN = """x = "# no comment"
z = f"é{x} # none"
def f(a):
    return a
class C:
    y = 1
"""
TALKATIVE = '''"""What it is.

More.
"""

x = "# no comment"  # a comment
z = f"é{x} # none"  # "another"


# another
def f(a):
    """What f does."""

    return a


class C:
    """What C is,
    at length."""
    y = 1
'''


def test_comments_docstrings_and_blank_lines_are_left_out():
    assert sources.effective(TALKATIVE) == PLAIN.rstrip()
    assert sources.effective(PLAIN) == PLAIN.rstrip()


@pytest.mark.parametrize("edit", [("return a", "return -a"), ("# no", "# any"), ("y = 1", "y = 2")])
def test_code_and_strings_count(edit):
    assert sources.effective(TALKATIVE.replace(*edit)) != sources.effective(TALKATIVE)


@pytest.fixture
def package(tmp_path):
    where = tmp_path / "pack"
    (where / "inner").mkdir(parents=True)
    for name, text in {
        "__init__.py": "", "inner/__init__.py": "from pack.inner.a import f\n", "inner/a.py": "import pack.b\n",
        "b.py": "def g():\n    from pack import late\n", "late.py": "import os\n", "alone.py": "from pack import b\n",
    }.items():  # fmt: skip
        (where / name).write_text(text)
    return where


def test_imports_are_followed_local_ones_too(package):
    everything = {"pack", "pack.inner", "pack.inner.a", "pack.b", "pack.late"}
    assert sources.imports("pack.inner.a", package) == everything  # importing it imports its package first
    assert sources.imports("pack.b", package) == {"pack", "pack.b", "pack.late"}
    assert sources.imports("os", package) == frozenset()


def test_a_modules_hash_changes_with_what_it_imports_and_with_nothing_else(package):
    before = sources.module_hash("pack.b", package)
    for name, text, same in (
        ("late.py", "import os  # why\n", True), ("alone.py", "x = 1\n", True), ("late.py", "import sys\n", False)
    ):  # fmt: skip
        (package / name).write_text(text)
        sources.digest.cache_clear()
        assert (sources.module_hash("pack.b", package) == before) is same


def test_what_python_imports_for_a_method_is_among_the_imports():
    name = "cryostudy.methods.deepdewedge"
    script = f"import sys, {name}; print(*[m for m in sys.modules if m.split('.')[0] == 'cryostudy'])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= sources.imports(name)
