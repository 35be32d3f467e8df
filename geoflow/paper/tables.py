"""The paper's tables beside ours: which report belongs to which printed row, and how they differ.

The printed numbers stand in `data/paper/tables.yaml`; ours are read from reports, never typed.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geoflow.runtime import DATA, choose
from geoflow.scores.evaluation import Report, read_report

Numbers = tuple[float | None, ...]  # the numbers of a row, by column; None where there is none
# Columns of bits per dimension show another metric where a report has it: for R³ methods the paper
# prints the density in R³, and for guided samples that of the guided field.
OTHER_METRICS = {
    "paper_bits": "ambient_bits_per_dimension",
    "sampled_bits": "guided_bits_per_dimension",
}
# Metrics that are shares of images; so are those that begin with `within_`.
SHARES = ("country", "region", "sub-region", "city")
DATA_SETS = {"osv5m": "OSV-5M", "inat21": "iNat21", "yfcc": "YFCC4k"}  # the paper's names


@dataclass(frozen=True)
class Line:
    """A row of the paper beside ours."""

    row: str
    paper: Numbers
    ours: Numbers
    errors: Numbers  # ± of ours, where the report tells it
    source: str | None  # our report's file, if any


@dataclass(frozen=True)
class Table:
    """One of the paper's tables, with ours beside it."""

    printed: dict[str, Any]  # the table as in `data/paper/tables.yaml`
    lines: tuple[Line, ...]  # its rows; a row with several reports occurs several times
    notes: tuple[str, ...]  # how ours were obtained, a line for each report
    dataset: str  # the data set of our numbers; those of different data sets cannot be compared

    @property
    def comparable(self) -> bool:
        """Whether both are on the same data."""
        return self.printed["dataset"] == self.dataset

    def markdown(self, notes: bool = True) -> str:
        """The table as Markdown: columns of the paper and of ours, both orders, and the notes.

        The differences stand beside ours where the data are the same.
        """
        head, columns = ["method"], []
        for number, (name, (*_, decimals)) in enumerate(self.printed["columns"].items()):
            paper = [_number(line.paper[number], decimals) for line in self.lines]
            ours = [self._ours(line, number, decimals) for line in self.lines]
            for cells, whose in ((paper, self._paper_on), (ours, f"ours, {named(self.dataset)}")):
                if any(cells):
                    head.append(f"{name} ({whose})")
                    columns.append(cells)
        rows = [list(row) for row in zip([line.row for line in self.lines], *columns, strict=True)]
        beside = "" if self.comparable else f", beside ours on {named(self.dataset)}"
        lines = [f"**{self.printed['title']}{beside}**", "", markdown_table(head, rows), ""]
        lines += [*self.explanations(), *(self.notes if notes else ())]
        return "\n".join(lines)

    @property
    def _paper_on(self) -> str:
        return f"paper, {named(self.printed['dataset'])}"

    def _ours(self, line: Line, number: int, decimals: int) -> str:
        """A number of ours with its ±, and on the same data with its difference."""
        paper, ours, error = (numbers[number] for numbers in (line.paper, line.ours, line.errors))
        text = _number(ours, decimals) + (f" ± {_number(error, decimals)}" if error else "")
        if self.comparable and paper is not None and ours is not None:
            text += f" ({ours - paper:+,.{decimals}f})"
        return text

    def explanations(self) -> list[str]:
        """What ± and the orders are, as lines of Markdown."""
        said, used = [], [line for line in self.lines if line.source]
        if used and not self.comparable:
            ours, paper = named(self.dataset), named(self.printed["dataset"])
            said.append(f"- ours are on {ours}, the paper's on {paper}: other images, other task")
        if any(error for line in used for error in line.errors):
            said.append(
                "- ±: the standard error over images; of several seeds, the deviation between them"
            )
        by, (printed, ours) = self.printed["ranked_by"][0], self.orders()
        if len(printed) > 1:
            said.append(
                f"- best first by {by}, as printed: {'; '.join(line.row for line in printed)}"
            )
        if len(ours) > 1:
            said.append(f"- best first by {by}, ours: {self._with_signs(ours)}")
        return said

    def orders(self) -> tuple[list[Line], list[Line]]:
        """Rows that have our number, best first, ordered by the printed numbers and by ours."""
        column = self._ranked_by
        sign = -1 if self.printed["ranked_by"][1] == "high" else 1
        lines = [line for line in self.lines if line.ours[column] is not None]
        printed = [line for line in lines if line.paper[column] is not None]
        return (
            sorted(printed, key=lambda line: sign * (line.paper[column] or 0)),
            sorted(lines, key=lambda line: sign * (line.ours[column] or 0)),
        )

    @property
    def _ranked_by(self) -> int:
        return list(self.printed["columns"]).index(self.printed["ranked_by"][0])

    def _with_signs(self, order: list[Line]) -> str:
        """Rows in their order, with `>` and `≈` where every ± is known."""
        rows, column = [line.row for line in order], self._ranked_by
        scores = [line.ours[column] or 0.0 for line in order]
        errors = [line.errors[column] for line in order]
        known = [error for error in errors if error is not None]
        if len(known) < len(errors):
            return f"{'; '.join(rows)} (no ± is known here, so near numbers may differ by chance)"
        text = rows[0]
        for i, row in enumerate(rows[1:]):
            ahead = abs(scores[i] - scores[i + 1]) > 2 * math.hypot(known[i], known[i + 1])
            text += f" {'>' if ahead else '≈'} {row}"
        return f"{text} (>: by more than two standard errors, as for separate images)"


def names() -> list[str]:
    """The tables there are."""
    return list(read_yaml("tables"))


def read_yaml(name: str) -> dict:
    """A file of `data/paper`.

    >>> sorted(read_yaml("earth-events")["Riemannian CNF"])
    ['earthquake', 'fire', 'flood', 'volcano']
    """
    return yaml.safe_load((DATA / "paper" / f"{name}.yaml").read_text(encoding="utf-8"))


def read_reports(folder) -> dict[str, Report]:
    """All reports below a folder, by their path in it; FileNotFoundError if there is none."""
    others = ("run.json", "done.json", "config.json")
    files = [file for file in sorted(Path(folder).rglob("*.json")) if file.name not in others]
    if not files:
        raise FileNotFoundError(f"no reports (*.json, from `geoflow evaluate --out`) in {folder}")
    return {str(file.relative_to(folder)): read_report(file) for file in files}


def table(name: str, reports: dict[str, Report], dataset: str | None = None) -> Table:
    """One of the `names` (ValueError if it is none) with our reports, by file, beside its rows.

    Reports on `dataset` are taken; default: the table's own data set.
    """
    printed = read_yaml("tables")[choose("table", name, names())]
    dataset = dataset or printed["dataset"]
    lines, notes = [], []
    for row, (numbers, *wanted) in printed["rows"].items():
        paper, columns = tuple(numbers), printed["columns"].values()
        found = [file for file in reports if wanted and _fits(reports[file], dataset, *wanted)]
        for file in found:
            scores = [_score(reports[file], metric, factor) for metric, factor, _ in columns]
            ours, errors = zip(*scores, strict=True)
            lines.append(Line(row, paper, ours, errors, file))
            notes.append(f"- {row}: {file}, {reports[file].table().splitlines()[0]}")
        if not found:
            none = (None,) * len(numbers)
            lines.append(Line(row, paper, none, none, None))
    return Table(printed, tuple(lines), tuple(notes), dataset)


def markdown_table(head: list[str], rows: list[list]) -> str:
    """A Markdown table.

    >>> print(markdown_table(["method", "km"], [["flow", 12]]))
    | method | km |
    |---|---|
    | flow | 12 |
    """
    lines = [f"| {' | '.join(map(str, row))} |" for row in [head, *rows]]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def first_word(data: str) -> str:
    """The short name of a data set: `tiles` of `tiles, test`."""
    return data.replace(",", " ").split()[0]


def named(dataset: str) -> str:
    """What readers call a data set.

    >>> named("yfcc"), named("tiles")
    ('YFCC4k', 'tiles')
    """
    return DATA_SETS.get(dataset, dataset)


def _score(report: Report, metric: str, factor: float) -> tuple[float | None, float | None]:
    """A number of a report, and its ± as far as the report tells it."""
    metric, other = OTHER_METRICS.get(metric, metric), metric
    if metric not in report.metrics and other in OTHER_METRICS:
        metric = "bits_per_dimension"
    score = report.metrics.get(metric)
    if score is None:
        return None, None
    error = report.deviations.get(metric, report.metrics.get(f"{metric}_error"))
    if error is None and (metric in SHARES or metric.startswith("within_")):
        count = report.metrics["images"] - report.metrics.get(f"{metric}_missing", 0)
        error = math.sqrt(score * (1 - score) / count) if count else None
    return factor * score, None if error is None else factor * error


def _fits(report: Report, dataset: str, wanted: dict) -> bool:
    """Whether a report is on the data set, with all wanted settings: a value or one of a list."""
    have = {key: report.settings.get(key) for key in wanted}
    fitting = (have[k] in v if isinstance(v, list) else have[k] == v for k, v in wanted.items())
    return first_word(report.dataset) == dataset and all(fitting)


def _number(value: float | None, decimals: int) -> str:
    if value is None:
        return ""
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"  # + 0.0 turns -0.00 into 0.00.
