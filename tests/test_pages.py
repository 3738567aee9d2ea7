"""Pages made from records: they cover the papers, their verdicts follow the records, their commands exist."""

import copy
import json
import re
import shlex
from pathlib import Path

import pytest

from cryostudy import arguments, pages
from cryostudy.errors import InputError
from cryostudy.methods import available
from cryostudy.pages import benchmarks, data_sets, reproduction, rules, which_method
from cryostudy.pages.facts import Site, how
from cryostudy.simulate.registry import registry

ROOT = Path(__file__).resolve().parents[1]
RECORDS = rules.read_records(ROOT / "data" / "results")
SOURCES = rules.Sources(RECORDS, ROOT / "data" / "papers")
PAPERS = reproduction.papers(ROOT)
CHAPTERS = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
ITEMS = [(paper["key"], item) for paper in PAPERS for item in paper["items"]]
CLAIMS = [(key, item, claim) for key, item in ITEMS for claim in item.get("checks", [])]
# Tables and figures of each paper, counted in its text, appendices included.
COUNTS = {"000": (7, 7), "001": (5, 11), "003": (1, 9), "004": (0, 9)}
CAPTION = re.compile(r"^\s*(?:\*\*)?(Table|Fig(?:ure|\.))\s+([A-Z]?\d+)\b", re.MULTILINE)


def site(records=RECORDS, chapters=CHAPTERS) -> Site:
    return Site(records, chapters, ROOT)


def named(value) -> str:
    return value if isinstance(value, str) else value.get("item", value.get("says", ""))


# The rules' language


@pytest.fixture
def small(tmp_path: Path) -> rules.Sources:
    (tmp_path / "000_table1.csv").write_text(
        "paper,table,row,column,metric,value\n000,1,a,x sigma=1,psnr_db,3\n000,1,a,y sigma=1,psnr_db,5\n"
        "000,1,b,x,psnr_db,-2\n"
    )
    records = {
        "10_one": {"metrics": {"white.a": {"cc": 0.5, "fsc_0.5": 40, "word": "good"}, "b.seed0": {"cc": 0.2}}},
        "grid/c-1": {"metrics": {"a": {"cc": 1.0}}},
        "grid/c-2": {"metrics": {"a": {"cc": 3.0}, "b": {"cc": 9.0}}},
    }
    return rules.Sources(records, tmp_path)


@pytest.mark.parametrize(
    ("claim", "holds", "values"),
    [
        ("000_table1[a; *; psnr_db] > 000_table1[b; x; psnr_db]", True, (4, -2)),
        ("10_one[white.a.fsc_0.5] < 10_one[b.seed*.cc]", False, (40, 0.2)),
        ("grid/c-*[a.cc] > 1.5 > 10_one[white.a.cc]", True, (2, 1.5, 0.5)),
        ("grid/c-1[a.cc] - grid/c-2[a.cc] < 0", True, (-2, 0)),
        ("abs(grid/c-1[a.cc] - grid/c-2[a.cc]) < 1.9", False, (2, 1.9)),
    ],
)
def test_claims_with_known_answers(small: rules.Sources, claim: str, holds: bool, values: tuple[float, ...]):
    outcome = rules.check(claim, small)
    assert outcome.holds is holds and outcome.values == pytest.approx(values)


def test_outcomes_show_what_is_the_case_and_not_what_was_claimed(small: rules.Sources):
    assert rules.check("10_one[white.a.cc] > grid/c-1[a.cc] > 0.2", small).shown == "0.500 < 1.000 > 0.200"
    assert rules.check("grid/c-1[a.cc] > 1", small).shown == "1.000 = 1.000"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("10_one[white.a.cc]", "compares nothing"),
        ("10_one[white.a.cc] > much", "neither NAME"),
        ("10_one[white.z.cc] > 1", "no number at"),
        ("10_one[white.a.word] > 1", "no number at"),
        ("grid/c-*[b.cc] > 1", "grid/c-1 has no number"),
        ("000_table1[z; *; ssim] > 1", "no number at"),
    ],
)
def test_a_rule_that_cannot_be_read_says_so_in_one_line(small: rules.Sources, claim: str, message: str):
    with pytest.raises(InputError, match=message) as error:
        rules.check(claim, small)
    assert "\n" not in str(error.value)


def test_an_absent_record_is_no_error_of_the_rule(small: rules.Sources):
    with pytest.raises(rules.NoRecord):
        rules.check("11_two[a.cc] > 1", small)
    assert reproduction.judge({"checks": [{"says": "a", "here": "11_two[a.cc] > 1"}]}, small).word == "no record yet"


# The reproduction page


@pytest.mark.parametrize("key", COUNTS)
def test_every_caption_of_a_paper_is_listed(shared: Path, key: str):
    """Where the papers' texts are at hand; the committed counts are tested all the same."""
    (text,) = (shared / "papers").glob(f"{key}_*.txt")
    found = {
        f"{'Table' if kind == 'Table' else 'Figure'} {number}" for kind, number in CAPTION.findall(text.read_text())
    }
    listed = {item["item"] for paper, item in ITEMS if paper == key} - {"Supplement"}
    assert found == listed


@pytest.mark.parametrize("key", COUNTS)
def test_every_table_and_figure_is_listed_once_and_none_is_missing(key: str):
    listed = [item["item"] for paper, item in ITEMS if paper == key and item["item"] != "Supplement"]
    tables, figures = COUNTS[key]
    assert sorted(listed) == sorted(
        [f"Table {n + 1}" for n in range(tables)] + [f"Figure {n + 1}" for n in range(figures)]
    )
    assert [paper["key"] for paper in PAPERS] == list(COUNTS)


@pytest.mark.parametrize(("key", "item"), ITEMS, ids=named)
def test_an_item_has_claims_or_a_reason_and_no_verdict(key: str, item: dict):
    assert ("checks" in item) != ("reason" in item)
    assert set(item) <= {"item", "shows", "chapter", "checks", "reason", "note", "scale"}
    assert all(set(claim) <= {"says", "unit", "paper", "here"} for claim in item.get("checks", []))
    if "chapter" in item:
        assert item["chapter"] in CHAPTERS or item["chapter"] in {"40_loss_terms", "41_blocks"}, item["chapter"]


@pytest.mark.parametrize(("key", "item", "claim"), CLAIMS, ids=named)
def test_a_claim_is_the_papers_and_can_be_evaluated_here(key: str, item: dict, claim: dict):
    if "paper" in claim:  # the finding is in the numbers that the paper prints
        assert rules.check(claim["paper"], SOURCES).holds
    try:
        rules.check(claim["here"], SOURCES)
    except rules.NoRecord as absent:
        assert str(absent).startswith("grid/ablation-4")  # of chapters whose grids may not have run yet
    except InputError:
        assert item.get("scale") == "gpu"


def test_every_table_of_numbers_is_put_to_a_claim_or_has_a_reason():
    claimed = {name for _, _, claim in CLAIMS for name, _ in rules.TERM.findall(claim.get("paper", ""))}
    for path in (ROOT / "data" / "papers").glob("*.csv"):
        key, kind, number = re.fullmatch(r"(\d+)_(table|figure)(\d+)", path.stem).groups()
        item = next(i for paper, i in ITEMS if paper == key and i["item"] == f"{kind.title()} {number}")
        assert path.stem in claimed or "reason" in item, path.stem


def turned(sources: rules.Sources, claim: str) -> rules.Sources:
    """The sources with the two ends of a claim exchanged in every record that it reads."""
    records = copy.deepcopy(dict(sources.records))
    for name in rules.records_of(claim, sources):
        for metrics in records[name]["metrics"].values():
            for key, value in metrics.items():
                if isinstance(value, int | float):
                    metrics[key] = -value
    return rules.Sources(records, sources.papers)


def test_a_record_that_changes_changes_the_verdict():
    item = next(i for key, i in ITEMS if (key, i["item"]) == ("003", "Figure 5"))
    assert reproduction.judge(item, SOURCES).word == "reproduced"
    changed = turned(SOURCES, item["checks"][0]["here"])
    assert reproduction.judge(item, changed).word == "differs"
    one = copy.deepcopy(dict(RECORDS))
    one["25_fsc_loss"]["metrics"]["projection.noise2noise_l2"]["cc"] = 1.0
    assert reproduction.judge(item, rules.Sources(one, SOURCES.papers)).word == "in part"
    del one["25_fsc_loss"]
    assert reproduction.judge(item, rules.Sources(one, SOURCES.papers)).word == "no record yet"


def test_the_page_names_every_item_with_its_verdict_and_its_records():
    text = reproduction.write(site())
    for key, item in ITEMS:
        word = reproduction.judge(item, SOURCES).word
        assert f"**{item['item']}** {{bdg-{reproduction.BADGES[word]}}}`{word}` {item['shows']}" in text
        assert f":name: {reproduction.anchor(key, item['item'])}\n" in text
    block = text[text.index(":name: reproduction-004-figure-8") :]
    block = block[: block.index("::::\n")]
    assert "results/20_noise2noise.json" in block and "[](chapters/20_noise2noise)" in block
    assert how(RECORDS["20_noise2noise"]) in block and "`laptop`" in how(RECORDS["20_noise2noise"])


def test_chapters_that_a_site_lacks_are_named_without_a_link():
    text = reproduction.write(site(chapters=[]))
    assert "](chapters/" not in text and "`13_scnet` (not on this site)" in text


# The decision page


def commands(text: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def test_the_commands_of_the_decision_page_exist():
    typed = commands(which_method.write(site()))
    assert len(typed) >= len(benchmarks.CASES)
    for words in typed:
        assert words[0] == "cryostudy"
        given = arguments.parser().parse_args(words[1:])
        if words[1] == "restore":
            assert given.method in available()
            for name, _ in given.parameter or []:
                assert name in available()[given.method].at("laptop").parameters()
    for case in benchmarks.CASES:  # and those that another record would bring about
        for method in case.candidates:
            for line in benchmarks.command(case, method).splitlines():
                arguments.parser().parse_args(shlex.split(line)[1:])


def test_the_recommendation_is_the_best_of_the_records_and_follows_them():
    case = next(case for case in benchmarks.CASES if case.key == "picking")
    ranked = benchmarks.ranking(site(), case)
    means = [sum(found.values()) / len(found) for _, found in ranked]
    assert means == sorted(means, reverse=True) and {"noisy", "isonet"} < {name for name, _ in ranked}
    changed = copy.deepcopy(RECORDS)
    for name in benchmarks.used(site(), case):
        changed[name]["metrics"]["cryosamba"]["ap"] = 0.99
    best, found = benchmarks.ranking(site(changed), case)[0]
    assert best == "cryosamba" and set(found.values()) == {0.99}
    assert "--method cryosamba" in which_method.write(site(changed))


def test_a_method_that_was_not_measured_everywhere_is_not_ranked():
    case = next(case for case in benchmarks.CASES if case.key == "picking")
    changed = copy.deepcopy(RECORDS)
    del changed["grid/downstream-1"]["metrics"]["isonet"]
    assert "isonet" not in [name for name, _ in benchmarks.ranking(site(changed), case)]


def test_methods_that_win_about_as_often_are_both_named():
    case = benchmarks.CASES[0]
    first = {f"cell {k}": value for k, value in enumerate((0.9, 0.9, 0.1))}
    second = {f"cell {k}": value for k, value in enumerate((0.8, 0.8, 0.2))}
    third = dict.fromkeys(first, 0.05)
    assert benchmarks.level(case, [("a", first), ("b", second), ("c", third)]) == ["a", "b"]
    near, far = ({key: share * value for key, value in first.items()} for share in (0.97, 0.9))
    assert benchmarks.level(case, [("a", first), ("noisy", near)]) == ["a", "noisy"]
    assert benchmarks.level(case, [("a", first), ("noisy", far)]) == ["a"]


def test_without_records_the_decision_page_says_so():
    text = which_method.write(site(records={}))
    assert text.count("No record yet") >= len(benchmarks.CASES) and "```bash" not in text


def test_raw_is_recommended_where_it_is_best():
    changed = copy.deepcopy(RECORDS)
    for name in changed:
        if name.startswith("grid/downstream"):
            changed[name]["metrics"]["noisy"] |= {"angle": 0.0, "ap": 1.0}
    text = which_method.write(site(changed))
    assert text.count("[nothing: raw is best]") == 2 and "cryostudy match tomogram.mrc" in text


# The pages of the data sets


def test_every_file_of_the_registry_belongs_to_a_page():
    listed = [group for data in data_sets.SETS for group in data.groups]
    assert sorted(listed) == sorted({item["group"] for item in registry().values()})


def test_every_recording_of_the_records_belongs_to_one_data_set():
    for name, record in RECORDS.items():
        for key, text in record["data"].items():
            assert sum(data.uses(key, text) for data in data_sets.SETS) == 1, f"{name}: {key}"


def test_a_page_gives_size_licence_source_and_users():
    text = data_sets.PAGES["book/data/microtubule"](site())
    assert "BSD-3-Clause" in text and "cryostudy fetch microtubule" in text and "github.com/hanjinliu/cylindra" in text
    assert "[18](chapters/18_microtubule)" in text and "results/grid/microtubule-awgn-10.json" in text


# Where they are written


def test_pages_are_written_for_the_table_of_contents_with_the_records_they_link(tmp_path: Path):
    mine = tmp_path / "records"
    mine.mkdir()
    record = copy.deepcopy(RECORDS["25_fsc_loss"])
    record["profile"] = "smoke"
    record["metrics"]["projection.noise2noise_l2"]["fsc_high"] = 1.0
    (mine / "25_fsc_loss.json").write_text(json.dumps(record))
    pages.write(
        tmp_path / "stage", mine, ["book/reproduction", "book/data/ribosomes", "book/chapters/25_fsc_loss"], ROOT
    )
    staged = {path.relative_to(tmp_path / "stage").as_posix() for path in tmp_path.rglob("*.md")}
    assert staged == {"book/reproduction.md", "book/data/ribosomes.md"}
    assert json.loads((tmp_path / "stage/book/results/25_fsc_loss.json").read_text()) == record
    assert (tmp_path / "stage/book/results/grid/paired-2.json").is_file()
    text = (tmp_path / "stage/book/reproduction.md").read_text()
    assert "`25_fsc_loss` ran at `smoke` scale" in text
    assert "`smoke`, seed 0" in text and "**Figure 5** {bdg-warning}`in part`" in text
    assert "](../chapters/" not in text and "../chapters" not in (tmp_path / "stage/book/reproduction.md").read_text()


def test_a_site_without_these_pages_is_left_alone(tmp_path: Path):
    pages.write(tmp_path / "stage", tmp_path, ["book/index", "book/chapters/01_one"], tmp_path)
    assert not (tmp_path / "stage").exists()


def test_every_generated_page_is_in_the_table_of_contents():
    listed = re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())
    assert set(pages.PAGES) <= set(listed)
