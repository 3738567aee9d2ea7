"""The common table of the benchmarks; nothing is timed here."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    """The modules `timing` and `table`."""
    if not FOLDER.is_dir():
        pytest.skip("the benchmarks are not in an installed package")
    monkeypatch.syspath_prepend(str(FOLDER))
    found = []
    for name in ("timing", "table"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append(module)
    return found


def test_rows_become_a_table(benchmarks, monkeypatch, tmp_path):
    timing, table = benchmarks
    monkeypatch.setenv("BENCH_ROWS", str(tmp_path / "rows"))
    timing.row("step", peer="Theirs 1.0", theirs="20 ms", ours="10 ms", ratio=2.0, goal="at least 3", met=False)
    timing.row("a | b", ours="1 GB", met=np.bool_(True))
    timing.row("absent", peer="Peer", goal="at least 2", skipped="not installed")
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    lines = table.table(rows).splitlines()
    assert lines[2] == "| step | Theirs 1.0 | 20 ms | 10 ms | 2 | at least 3 | missed |"
    assert lines[3] == "| a / b |  |  | 1 GB |  |  | met |"
    assert lines[4] == "| absent | Peer |  |  |  | at least 2 | skipped: not installed |"
    assert all(line.count("|") == len(table.HEADER) + 1 for line in lines)


def test_without_the_variable_no_row_is_left(benchmarks, monkeypatch, tmp_path):
    monkeypatch.delenv("BENCH_ROWS", raising=False)
    monkeypatch.chdir(tmp_path)
    benchmarks[0].row("step")
    assert not list(tmp_path.iterdir())


def test_a_failing_script_is_named_and_the_others_run(benchmarks, monkeypatch, tmp_path, capsys):
    table = benchmarks[1]
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    leave = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import timing; timing.row('before', ours='1'); "
    (tmp_path / "bench_a.py").write_text(leave + "sys.exit(3)")
    (tmp_path / "bench_b.py").write_text(leave.replace("before", "after"))
    assert table.main([]) == 1
    out, err = capsys.readouterr()
    assert "| bench_a.py |  |  |  |  |  | skipped: the script failed with exit status 3 |" in out
    assert "| before |" in out and "| after |" in out
    assert "bench_a.py" in err and "bench_b.py" not in err
    assert table.main(["b"]) == 0


def test_revision_of_what_is_no_clone(benchmarks, tmp_path):
    timing = benchmarks[0]
    assert timing.revision(tmp_path) == "revision unknown"


def test_a_program_that_fails_says_why(benchmarks):
    with pytest.raises(RuntimeError, match=r"exit status 4: no such peer"):
        benchmarks[0].measured(
            [sys.executable, "-c", "import sys; print('no such peer', file=sys.stderr); sys.exit(4)"], 1
        )
    found = benchmarks[0].measured([sys.executable, "-c", "print('text'); print('{\"steps\": 3}')"], 1)
    assert found["steps"] == 3 and found["wall"] > 0
