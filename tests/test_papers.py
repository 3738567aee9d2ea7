"""The papers' printed numbers: every file parses, and numbers that stand in two tables agree."""

import csv
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "data" / "papers"
FILES = sorted(FOLDER.glob("*.csv"))
RANGES = {"psnr_db": (5, 60), "ssim": (0, 1), "minutes": (0, 100), "fsc_eo_0.5_angstrom": (1, 100), "snr_db": (-60, 0)}
RANGES |= {"pr_auc": (0, 1), "f1": (0, 1), "fsc_truth_0.5_angstrom": (5, 50), "fsc_truth_0.143_angstrom": (5, 50)}
FIGURES = {("003", 8): 5 * 2, ("003", 9): 4 * 2}  # their numbers stand in the text of Section 3.3


def numbers(paper: str, table: int, kind: str = "table") -> dict[tuple[str, str, str], float]:
    with (FOLDER / f"{paper}_{kind}{table}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    values = {(row["row"], row["column"], row["metric"]): float(row["value"]) for row in rows}
    assert len(values) == len(rows), "one number has two values"
    name = str(table) if kind == "table" else f"{kind} {table}"
    assert {(row["paper"], row["table"]) for row in rows} == {(paper, name)}
    return values


# Every table is complete: rows x columns x metrics, and the thirteen running times of 000, Table 2.
SIZES = {("000", 2): 14 * 9 * 2 + 13, ("000", 3): 4 * 2 * 2, ("000", 4): 6 * 4, ("000", 5): 5 * 2 * 2}
SIZES |= {("000", 6): 6 * 3 * 2, ("000", 7): 4 * 2 * 2, ("001", 1): 7 * 9, ("001", 2): 7 * 9}
SIZES |= {("001", 3): 5 * 4, ("001", 4): 2 * 3 * 2, ("001", 5): 2 * 3 * 2}
SIZES |= {("003", 1): 3 * 5 + 1}  # one more from the text, Section 3.2


@pytest.mark.parametrize(
    ("paper", "table", "kind", "size"),
    [(*at, "table", n) for at, n in SIZES.items()] + [(*at, "figure", n) for at, n in FIGURES.items()],
)
def test_tables_are_complete_and_in_range(paper: str, table: int, kind: str, size: int):
    values = numbers(paper, table, kind)
    assert len(values) == size
    for (_, _, metric), value in values.items():
        low, high = RANGES[metric]
        assert low < value < high


def test_no_file_is_left_unread():
    assert {path.stem for path in FILES} == {f"{paper}_table{table}" for paper, table in SIZES} | {
        f"{paper}_figure{figure}" for paper, figure in FIGURES
    }


def test_numbers_as_printed():
    assert numbers("000", 2)["SC-Net", "SHREC2021 sigma=0.15", "psnr_db"] == 30.15
    assert numbers("000", 2)["Ours", "running time", "minutes"] == 35
    assert numbers("000", 3)["±30° step 2°", "Denoised", "ssim"] == 0.822
    assert numbers("000", 4)["Ours", "Phage", "fsc_eo_0.5_angstrom"] == 3.50
    assert numbers("001", 1)["BM4D", "Synapse sigma=15", "psnr_db"] == 36.02
    assert numbers("003", 1)["DeepDeWedge, EMPIAR-10164", "SwinUNETR", "snr_db"] == -8.57
    assert numbers("001", 3)["Topaz", "VEEV", "fsc_eo_0.5_angstrom"] == 6.8


@pytest.mark.parametrize("data", ["SHREC2020", "SHREC2021", "PolNet"])
@pytest.mark.parametrize("metric", ["psnr_db", "ssim"])
def test_numbers_of_one_run_agree_between_the_tables_of_000(data: str, metric: str):
    table2, table6 = numbers("000", 2), numbers("000", 6)
    for row2, row6 in (("Noisy", "Gaussian, noisy"), ("Ours", "Gaussian, denoised")):
        assert table2[row2, f"{data} sigma=0.2", metric] == table6[row6, data, metric]
    if data != "PolNet":
        full = numbers("000", 7)["(d) DCA+VU/S", data, metric]
        assert full == table2["Ours", f"{data} sigma=0.1", metric]


@pytest.mark.parametrize("data", ["Belt", "Synapse"])
def test_numbers_of_one_run_agree_between_the_tables_of_001(data: str):
    for metric, main_table in (("psnr_db", 1), ("ssim", 2)):
        main = numbers("001", main_table)
        for ours, table, sigma in (("With UPB", 4, 15), ("Topaz filter", 5, 10)):
            ablation = numbers("001", table)
            assert main["Ours", f"{data} sigma={sigma}", metric] == ablation[data, ours, metric]
            assert main["Noisy", f"{data} sigma={sigma}", metric] == ablation[data, "Noisy", metric]
