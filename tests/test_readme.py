"""The README stays short, its commands exist, and its scores are those of the committed reports."""

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from geoflow.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "notebooks/GUIDE.md",
    "CONTRIBUTING.md",
    "data/README.md",
    "data/results/README.md",
)
METHODS = {  # first words of a row → reports
    "Riemannian flow, S²": "riemannian",
    "flow matching, R³": "flow",
    "diffusion, R³": "diffusion",
    "von Mises–Fisher": "vmf",
    "mixture of three": "vmf-mixture",
    "mixture of eight": "vmf-mixture-8",
    "mixture of sixteen": "vmf-mixture-16",
    "retrieval": "retrieval",
    "land": "land",
}
COLUMNS = {  # first words of a column → split, score, digits
    "NLL": ("test", "nll_over_uniform", 2),
    "GeoScore": ("test", "geoscore", 0),
    "median km": ("test", "median_km", 0),
    "one sample: GeoScore": ("test-guided", "single_geoscore", 0),
    "energy score km": ("test", "energy_km", 0),
    "held-out: GeoScore": ("held-out", "geoscore", 0),
    "held-out: energy score km": ("held-out", "energy_km", 0),
}


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def shown_commands(page: str) -> list[str]:
    """The commands of geoflow in a page's code blocks, without comments; each part of `a && b`."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)
    shell = [block for language, block in blocks if not language]
    lines = [line.partition("  #")[0] for block in shell for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith("geoflow ")]


def test_readme_is_short():
    lines = text("README.md").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) >= 120] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_options(page):
    commands = typer.main.get_command(app)
    for line in shown_commands(page):
        words, command = shlex.split(line)[1:], commands
        while words and (inner := getattr(command, "commands", {}).get(words[0])):
            command = inner
            words.pop(0)
        command.make_context(line, words)  # parses, and runs nothing


def test_readme_shows_commands():
    shown = " ".join(shown_commands("README.md"))
    assert all(f"geoflow {name}" in shown for name in ("locate", "reproduce", "train", "embed"))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(page):
    targets = re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE)
    shown = re.findall(r"(?:`|^|&& |    )make ([a-z]+)", text(page), re.MULTILINE)
    assert shown
    assert set(shown) <= set(targets)


def scores(page: str, title: str = "") -> list[tuple[str, str, str]]:
    """(row, column, text) of the first table below a title whose first row is the Riemannian flow's."""
    below = text(page).split(title, 1)[1] if title else text(page)
    lines = [line.strip("|").split(" | ") for line in below.splitlines() if line[:2] == "| "]
    rows = [[cell.strip() for cell in line] for line in lines]
    first = next(i for i, row in enumerate(rows) if row[0] in METHODS)
    header = rows[first - 1]
    table = itertools.takewhile(lambda row: row[0].startswith(tuple(METHODS)), rows[first:])
    return [
        (row[0], *cell) for row in table for cell in zip(header[1:], row[1:], strict=False) if cell
    ]


def asked(row: str, column: str) -> tuple[str, str, str, int]:
    """Method, split, score and digits of a cell."""
    method = METHODS[max((name for name in METHODS if row.startswith(name)), key=len)]
    return method, *COLUMNS[max((name for name in COLUMNS if column.startswith(name)), key=len)]


def test_scores_are_those_of_the_reports():
    """Of one training, by the shipped encoder."""
    found = scores("data/results/README.md")
    assert len({row for row, *_ in found}) == 8
    for row, column, shown in found:
        method, split, score, digits = asked(row, column)
        file = ROOT / f"data/results/tiles/{method}-{split}.json"
        report = json.loads(file.read_text(encoding="utf-8"))
        assert report["settings"].get("trained", 1) == 1
        number = f"{report['metrics'][score]:.{digits}f}"
        assert shown == number.replace("-", "−"), (row, column)


@pytest.mark.parametrize(
    ("page", "title", "rows"),
    [("README.md", "## Results", 6), ("data/results/README.md", "### Several", 8)],
)
def test_scores_of_several_trainings_are_those_of_their_file(page, title, rows):
    methods = json.loads((ROOT / "data/results/seeds.json").read_text(encoding="utf-8"))["methods"]
    found = scores(page, title)
    assert len({row for row, *_ in found}) == rows
    for row, column, shown in found:
        if column == "trainings":
            assert int(shown) == len(methods[asked(row, "NLL")[0]]["seeds"])
            continue
        method, split, score, digits = asked(row, column)
        numbers = (methods[method][part][split][score] for part in ("mean", "deviation"))
        expected = " ± ".join(f"{number:.{digits}f}" for number in numbers)
        assert shown == expected.replace("-", "−"), (row, column)


def test_curves_are_those_of_their_file():
    """Every row of the table of budgets and components, and no other."""
    rows = json.loads((ROOT / "data/results/curves.json").read_text(encoding="utf-8"))["rows"]
    kinds = {"test-nll": 2} | dict.fromkeys(
        ("test-geoscore", "test-guided", "test-energy_km", "held-out-geoscore"), 0
    )
    expected = []
    for row in rows:
        numbers = [f"{row['scores'][kind]:.{digits}f}" for kind, digits in kinds.items()]
        cells = [f"{row['steps']:,}", f"{row['minutes']:.1f}", *numbers]
        expected.append(" | ".join(cells).replace("-", "−"))
    section = text("data/results/README.md").split("### Minutes and components")[1]
    table = [line for line in section.split("### ")[0].splitlines() if line.startswith("| ")]
    cells = [line.split(" | ", 1)[1].rstrip(" |") for line in table]
    shown = [line for line in cells if line[0].isdigit()]
    assert sorted(shown) == sorted(expected)
