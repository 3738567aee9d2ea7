"""Numbers in prose come from records: none is typed by hand, apart from what the grammar below lets through.

Prose is the Markdown of the chapters, the sentences in their code (captions, table headers, printed Markdown), the
pages in `book/` and the sentences of the generated pages. A number there is a result, a count or a size, and must come
through `glue` or from code that reads a record, unless it is part of a name or a formula, points somewhere, or is on
the reviewed list: a definition, a criterion, or a setting that a paper is quoted for.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What is no prose, and what a number may be part of. Each is replaced by a blank.
NO_PROSE = [
    r"(?s)\A---\n.*?\n---\n",  # front matter
    r"(?ms)^(```|~~~).*?^\1",  # code, and directives written with these fences
    r"(?s)<!--.*?-->|<[^>]*>",
    r"(?s)\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}",  # formulas
    r"\$[^$\n]+(?:\n[^$\n]+)*\$",
    r"\{[\w:-]+\}`[^`]*`",  # roles: glue, citations, references
    r"`+[^`]*`+",  # code
    r"(?:1/)?\{\}",  # what code puts into a sentence
    r"--[\w-]+(?: -?[\d.]+)+",  # options of a command, which the reader is to replace
    r"\]\([^)]*\)|https?://\S+",  # targets of links
    r"(?m)^:{3,}.*$|^:[\w-]+:.*$",  # directives and their options
    r"(?m)^\s*\d+\. ",  # items of a numbered list
]
POINTERS = r"(?:Section|Figure|Fig\.|Table|Equation|Appendix|Proposition|Chapter|Paper|Step)s?"
ONE = r"(?:[A-Z]\.)?\d+(?:\.\d+)*(?: ?[a-h]\b)?"
NAMES = [
    rf"(?i:{POINTERS}) {ONE}(?:(?:, | and | to |–){ONE})*",  # where something stands
    r"\b(?:SHREC|EMPIAR|EMD|PDB)[ -]?\d[\d.]*\b",  # data bases
    r"\bPython(?:(?: |, | or )3\.\d+)+",
    r"\b(?:19|20)\d\d\b",  # years
    r"\b[23]-?D\b|\b[78]0S\b",  # dimensions, ribosomes
    r"\b[A-Za-z_][\w-]*\d[\w-]*|\b\d\d_\w+",  # names with a digit in them: noise2noise, float64, L2, F1, 33_snr
    r"\d+(?: ?× ?\d+){1,2}",  # the shape of a kernel or block
    r"\b1/Å",  # a unit
    r"\[0, 1\]",  # a grey scale
    r"(?<![\d.,/])\b[01]\b(?![.,/]?\d)(?! ?(?:%|°|dB|Å|s\b|MiB|of \d|in \d))",  # nothing and all: values by definition
    r"\bFSC (?:of \w+ |with [\w ]+ )?(?:0\.5|0\.143)\b",  # the two criteria that the field uses
]
COUNTED = r"(?:methods|cells|conditions|data sets|specimens|recordings|particles|seeds|volumes|tilts|slices|voxels)"
COUNT = re.compile(
    r"(?i)\b(?:four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|twenty|thirty|forty|fifty"
    rf"|sixty|ninety|a hundred|a dozen)\b(?: [\w-]+){{0,3}}? {COUNTED}\b"
)
# Reviewed: pieces of prose with a number that may stay, by the reason why.
ALLOWED = {
    "criteria of the field": [
        "(0.143 criterion)", "(0.5 criterion, comparable with 0.143 between halves)", "the curve starts below 0.5",
        "particles falls below 0.143", "with the truth, 0.5 (Å)",
    ],
    "criteria of this study, as its code has them": [
        "within 0.02 of DeepDeWedge or above", "true voxels within 20 Å", "found voxels within 20 Å",
        "95 % of it within", "exceeded by chance in 1 %", "a pair beyond 0.4 cycles per voxel",
        "over the mean 0.012 to 0.04 cycles per voxel", "(window of 5³ voxels)",
    ],
    "what the method, the measure or the geometry is by definition": [
        "multiples of 3", "into 27 *sub-lattices*", "modulo 3", "other 26 sub-lattices", "multiple of 3 in all",
        "on 27 small volumes", "exactly 0.0 in double precision", "eight sub-lattices of stride 2",
        "The 3³ cube of SC-Net", '"3 : 1"', "3 : 1", "cycle from 1 to 10", "around one axis, 90° apart",
        "0° lies flat across the beam", "grey values x 10", "has another SNR by 10 dB",
    ],
    "the weight that the chapter is about, and the one in print": [
        "print the factor 2 *inside*", "With weight 2", "standard errors from 2 and", "from the 4 that",
        "at weight 2", "is 2; give 4 for what is printed", "more than 2 spends", "weight 4, as printed",
    ],
    "what nature or a microscope sets": [
        "about ±60° cannot be recorded", "every 41 Å", "1/41 Å", "41 Å layer line",
    ],
    "settings that a paper is quoted for": [
        "noise of sigma 0.2", "(0.6, 0.1, 0.2, 0.01)", "(0.8, 0.1, 0, 0.01)", "starts in iteration 11",
        "a level of 0.05 deviations", "every 5 iterations", "after 45 to 60 iterations", "(mean over its nine cells)",
    ],
    "how the recordings of a chapter are made, as its code has it": [
        "SNR 1/4 of the volume", 'SHREC σ 0.2"', "SHREC ±: σ 0.2",
        "tilt-series SNR 1/2, 1/4 and 1/6; ±60° in steps of 2°", "voxels at 10 Å", "±60° in steps of 2°",
        "before the CTF, SNR 0.2", "sub-tomograms of 24 voxels", "Told ±40°", "told ±80°", "(±40°)",
    ],
    "what the study asks of machines and chapters": [
        "at most 20 s on two CPU cores", "at most 3 min on two CPU cores",
        "at most 10 min a run on one GPU with 80 GB",
    ],
}  # fmt: skip
# Numbers in the claims of the reproduction page that name something: an SNR of 1/4, FSC 0.143, the printed weight 4.
ALSO_SAID = {"1", "4", "0.143", "2", "13"}
NUMBER = re.compile(r"(?<![\w.])[±+−-]?\d[\d.,/]*\d?[°³%]?")


def left(text: str) -> list[str]:
    """The numbers of a text that nothing accounts for, each with its surroundings."""
    # Longest first, so that no piece hides a part of a longer one.
    pieces = sorted((piece for pieces in ALLOWED.values() for piece in pieces), key=len, reverse=True)
    for pattern in (*map(re.escape, pieces), *NO_PROSE, *NAMES):
        text = re.sub(pattern, " ", text)
    found = [*NUMBER.finditer(text), *COUNT.finditer(text)]
    return [text[max(0, m.start() - 40) : m.end() + 30].replace("\n", " ") for m in found]


def sentences(source: str) -> list[str]:
    """The strings of code that are prose, three words or more; `{}` is what is computed. Docstrings are left out."""
    source = "\n".join("pass" if line.startswith(("%", "!")) else line for line in source.splitlines())
    tree = ast.parse(source)
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent | parts:
            found.append(node.value)
    return [text for text in found if len(re.findall(r"[A-Za-z]{2,}", re.sub(r"[\w./-]*[_/][\w./-]*", "", text))) >= 3]


def prose() -> dict[str, list[str]]:
    """Every text of the study, by where it stands."""
    texts: dict[str, list[str]] = {}
    for path in CHAPTERS:
        for k, cell in enumerate(nbformat.read(path, as_version=4).cells):
            texts[f"{path.stem} cell {k}"] = [cell.source] if cell.cell_type == "markdown" else sentences(cell.source)
    for path in sorted((ROOT / "book").glob("*.md")):
        texts[path.name] = [path.read_text()]
    for path in sorted((ROOT / "cryostudy/pages").glob("*.py")):
        texts[path.name] = sentences(path.read_text())
    return texts


def typed(texts: dict[str, list[str]]) -> dict[str, list[str]]:
    found = {place: [hit for text in parts for hit in left(text)] for place, parts in texts.items()}
    return {place: hits for place, hits in found.items() if hits}


def test_no_number_is_typed_by_hand():
    assert typed(prose()) == {}


def test_the_reviewed_list_holds_nothing_that_is_no_longer_there():
    everything = "\n".join(text for texts in prose().values() for text in texts)
    assert [piece for pieces in ALLOWED.values() for piece in pieces if piece not in everything] == []


def test_published_chapters_read_as_their_sources():
    """So what holds for the notebooks holds for the pages; a change of prose alone may be copied by hand."""
    for path in CHAPTERS:
        published = ROOT / "book/chapters" / path.name
        if published.exists():
            ours, theirs = (nbformat.read(p, as_version=4).cells for p in (path, published))
            kept = [cell for cell in theirs if "record" not in cell.metadata.get("tags", [])]
            words = [[cell.source for cell in cells if cell.cell_type == "markdown"] for cells in (ours, kept)]
            assert words[0] == words[1], path.stem


@pytest.mark.parametrize(
    "planted",
    [
        "The gain is 1.7 dB.", "It beats 12 methods.", "a CC of 0.93", "Shown: 3 of 4 cells.",
        "by +0.03 (0.01 to 0.05)",
        "five methods do better", "| 0.5 | 37.6 |", "- 40 s on a CPU", "half of the 128 voxels",
    ],
)  # fmt: skip
def test_a_planted_number_is_found(planted: str):
    name = CHAPTERS[5].stem
    texts = {name: [nbformat.read(CHAPTERS[5], as_version=4).cells[0].source + f"\n\n{planted}"]}
    assert list(typed(texts)) == [name]
    assert typed({name: sentences(f'figures.note(figure, "what one sees here: {planted}")')})


@pytest.mark.parametrize(
    "fine",
    [
        "{glue:text}`white.scnet.psnr` dB, see Table 2 and Figures 3 to 5", "$x^2 + 1$ and `steps=400`",
        "EMPIAR-10045 in 2021",
        "a 3×3×3 kernel, on [0, 1], of variance 1", "FSC 0.143 (Å)", "cryostudy restore --tilt-range -60 60",
        "noise2noise, L2, F1, Appendix C.3", "1. first\n2. second",
    ],
)  # fmt: skip
def test_names_formulas_and_pointers_are_no_results(fine: str):
    assert left(fine) == []


def test_numbers_in_the_words_of_a_rule_stand_in_the_rule():
    """The claims of the reproduction page are prose too: their margins are those that are computed."""
    for paper in yaml.safe_load((ROOT / "data/papers/reproduction.yml").read_text()):
        for item in paper["items"]:
            for claim in item.get("checks", []):
                rule = claim["here"] + claim.get("paper", "")
                for number in re.findall(r"(?<![\w.-])\d+(?:\.\d+)?", claim["says"]):
                    assert number in rule or number in ALSO_SAID, f"{paper['key']} {item['item']}: {number}"
