"""The paper's tables beside ours: which report belongs to which printed row, and how they differ.

The printed numbers stand in `data/paper/tables.yaml`; ours are read from reports, never typed.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from geoflow import runtime
from geoflow.evaluation import Report, read_report
from geoflow.runtime import choose

Numbers = tuple[float | None, ...]
"""A row's numbers in the order of the columns; None where there is none."""
OTHER_METRICS = {
    "paper_bits": "ambient_bits_per_dimension",
    "sampled_bits": "guided_bits_per_dimension",
}
"""Columns of bits per dimension that show another metric where a report has it.

For R³ methods the paper prints the density in R³, and for guided samples that of the guided field.
"""


@dataclass(frozen=True)
class Line:
    """A row of the paper: its name, the printed numbers, ours, and our report's file, if any."""

    row: str
    paper: Numbers
    ours: Numbers
    source: str | None


@dataclass(frozen=True)
class Table:
    """One of the paper's tables, with ours beside it.

    Attributes:
        title: what it is.
        columns, decimals: names of the columns, and how many decimals they show.
        lines: its rows; a row with several reports comes several times.
        notes: how ours were obtained, a line for each report.
        printed_on, ours_on: the data sets; numbers of different ones do not compare.
        ranked_by: the column that orders methods, and whether high is good.
    """

    title: str
    columns: tuple[str, ...]
    decimals: tuple[int, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    printed_on: str
    ours_on: str
    ranked_by: tuple[str, bool]

    @property
    def comparable(self) -> bool:
        """Whether both are on the same data."""
        return self.printed_on == self.ours_on

    def markdown(self) -> str:
        """The table as Markdown: `printed → ours`, with the difference where data are the same."""
        cells = "printed → ours, difference"
        if not self.comparable:
            cells = f"printed, on {self.printed_on} → ours, on {self.ours_on}: other data"
        rows = []
        for line in self.lines:
            numbers = zip(line.paper, line.ours, self.decimals, strict=True)
            rows.append([line.row, *(_cell(*cell, self.comparable) for cell in numbers)])
        drawn = markdown_table(["method", *self.columns], rows)
        return "\n".join([f"**{self.title}** ({cells})\n\n{drawn}\n", *self._order(), *self.notes])

    def orders(self) -> tuple[list[str], list[str]]:
        """Rows that have both numbers, best first: in the paper's order, and in ours."""
        column, high = self.columns.index(self.ranked_by[0]), self.ranked_by[1]
        both = [(line.row, line.paper[column], line.ours[column]) for line in self.lines]
        both = [row for row in both if None not in row]
        printed, ours = (sorted(both, key=lambda row: row[i], reverse=high) for i in (1, 2))
        return [row[0] for row in printed], [row[0] for row in ours]

    def _order(self) -> list[str]:
        printed, ours = self.orders()
        by = f"- order by {self.ranked_by[0]}, printed"
        if len(ours) < 2:
            return []
        if printed == ours:
            return [f"{by} and ours: {' > '.join(ours)}"]
        return [f"{by}: {' > '.join(printed)}", f"- ours: {' > '.join(ours)}"]


def names() -> list[str]:
    """The tables there are."""
    return list(read_yaml("tables"))


def read_yaml(name: str) -> dict:
    """A file of `data/paper`."""
    return yaml.safe_load((runtime.DATA / "paper" / f"{name}.yaml").read_text(encoding="utf-8"))


def read_reports(folder) -> dict[str, Report]:
    """All reports below a folder, by their path in it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: one is damaged or of another version.
    """
    others = ("run.json", "done.json", "config.json")
    files = [file for file in sorted(Path(folder).rglob("*.json")) if file.name not in others]
    if not files:
        raise FileNotFoundError(f"no reports (*.json, from `geoflow evaluate --out`) in {folder}")
    return {str(file.relative_to(folder)): read_report(file) for file in files}


def table(name: str, reports: dict[str, Report], dataset: str | None = None) -> Table:
    """A table of the paper with our reports beside its rows.

    Args:
        name: see `names`.
        reports: file → report.
        dataset: whose reports to take; default: the table's own data set.

    Raises:
        ValueError: an unknown table.
    """
    published = read_yaml("tables")[choose("table", name, names())]
    dataset = dataset or published["dataset"]
    metrics, factors, decimals = zip(*published["columns"].values(), strict=True)
    lines, notes = [], []
    for row, (numbers, *wanted) in published["rows"].items():
        found = [file for file in reports if wanted and _fits(reports[file], dataset, *wanted)]
        for file in found:
            scores = (_score(reports[file], metric) for metric in metrics)
            pairs = zip(scores, factors, strict=True)
            ours = tuple(None if score is None else score * factor for score, factor in pairs)
            lines.append(Line(row, tuple(numbers), ours, file))
            notes.append(f"- {row}: {file}, {reports[file].table().splitlines()[0]}")
        if not found:
            lines.append(Line(row, tuple(numbers), (None,) * len(numbers), None))
    title, columns = published["title"], tuple(published["columns"])
    column, better = published["ranked_by"]
    ranked_by, printed_on = (column, better == "high"), published["dataset"]
    return Table(
        title, columns, decimals, tuple(lines), tuple(notes), printed_on, dataset, ranked_by
    )


def markdown_table(head: list[str], rows: list[list]) -> str:
    """A Markdown table.

    >>> print(markdown_table(["name", "km"], [["a", 1]]))
    | name | km |
    |---|---|
    | a | 1 |
    """
    lines = [f"| {' | '.join(map(str, row))} |" for row in [head, *rows]]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def first_word(data: str) -> str:
    """The short name of a data set: `tiles` of `tiles, test`."""
    return data.replace(",", " ").split()[0]


def _score(report: Report, metric: str) -> float | None:
    if metric in OTHER_METRICS:
        plain = report.metrics.get("bits_per_dimension")
        return report.metrics.get(OTHER_METRICS[metric], plain)
    return report.metrics.get(metric)


def _fits(report: Report, dataset: str, wanted: dict) -> bool:
    """Whether a report is on the data set, with all wanted settings: a value or one of a list."""
    allowed = {key: value if isinstance(value, list) else [value] for key, value in wanted.items()}
    fitting = all(report.settings.get(key) in values for key, values in allowed.items())
    return fitting and first_word(report.dataset) == dataset


def _cell(printed: float | None, ours: float | None, decimals: int, comparable: bool) -> str:
    before = "" if printed is None else f"{printed:,.{decimals}f}"
    if ours is None:
        return before
    now = f"→ {round(ours, decimals) + 0.0:,.{decimals}f}"  # + 0.0 turns -0.00 into 0.00.
    if printed is None:
        return now
    return f"{before} {now}" + (f" ({ours - printed:+,.{decimals}f})" if comparable else "")
