"""The paper's tables beside ours: which report belongs to which printed row, and how they differ.

The printed numbers stand in `data/paper/tables.yaml`; ours are read from reports, never typed.
"""

from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml

from geoflow.runtime import DATA, choose
from geoflow.scores.evaluation import Report, read_report

Numbers = tuple[float | None, ...]  # of a row, by column; None where there is none
# Columns of bits per dimension show another metric where a report has it: for R³ methods the paper
# prints the density in R³, and for guided samples that of the guided field.
OTHER_METRICS = {
    "paper_bits": "ambient_bits_per_dimension",
    "sampled_bits": "guided_bits_per_dimension",
}


@dataclass(frozen=True)
class Line:
    """A row of the paper beside ours."""

    row: str
    paper: Numbers
    ours: Numbers
    source: str | None  # our report's file, if any


@dataclass(frozen=True)
class Table:
    """One of the paper's tables, with ours beside it."""

    printed: dict[str, Any]  # the table as in `data/paper/tables.yaml`
    lines: tuple[Line, ...]  # its rows; a row with several reports comes several times
    notes: tuple[str, ...]  # how ours were obtained, a line for each report
    dataset: str  # ours; numbers of different data sets do not compare

    @property
    def comparable(self) -> bool:
        """Whether both are on the same data."""
        return self.printed["dataset"] == self.dataset

    def markdown(self) -> str:
        """The table as Markdown: `printed → ours`, with the difference where data are the same."""
        columns, rows = self.printed["columns"], []
        for line in self.lines:
            numbers = zip(line.paper, line.ours, columns.values(), strict=True)
            cells = (_cell(p, o, decimals, self.comparable) for p, o, (*_, decimals) in numbers)
            rows.append([line.row, *cells])
        shown = "printed → ours, difference"
        if not self.comparable:
            shown = f"printed, on {self.printed['dataset']} → ours, on {self.dataset}: other data"
        head = f"**{self.printed['title']}** ({shown})\n"
        drawn = markdown_table(["method", *columns], rows) + "\n"
        (printed, ours), order = self.orders(), []
        by = f"- order by {self.printed['ranked_by'][0]}, printed"
        if len(ours) > 1 and printed == ours:
            order = [f"{by} and ours: {' > '.join(ours)}"]
        elif len(ours) > 1:
            order = [f"{by}: {' > '.join(printed)}", f"- ours: {' > '.join(ours)}"]
        return "\n".join([head, drawn, *order, *self.notes])

    def orders(self) -> tuple[list[str], list[str]]:
        """Rows that have both numbers, best first: in the paper's order, and in ours."""
        by, better = self.printed["ranked_by"]
        column = list(self.printed["columns"]).index(by)
        both = [(line.row, line.paper[column], line.ours[column]) for line in self.lines]
        both = [row for row in both if None not in row]
        printed, ours = (sorted(both, key=itemgetter(i), reverse=better == "high") for i in (1, 2))
        return [row[0] for row in printed], [row[0] for row in ours]


def names() -> list[str]:
    """The tables there are."""
    return list(read_yaml("tables"))


def read_yaml(name: str) -> dict:
    """A file of `data/paper`."""
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
        found = [file for file in reports if wanted and _fits(reports[file], dataset, *wanted)]
        for file in found:
            columns = printed["columns"].values()
            ours = tuple(_score(reports[file], metric, factor) for metric, factor, _ in columns)
            lines.append(Line(row, tuple(numbers), ours, file))
            notes.append(f"- {row}: {file}, {reports[file].table().splitlines()[0]}")
        if not found:
            lines.append(Line(row, tuple(numbers), (None,) * len(numbers), None))
    return Table(printed, tuple(lines), tuple(notes), dataset)


def markdown_table(head: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in [head, *rows]]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def first_word(data: str) -> str:
    """The short name of a data set: `tiles` of `tiles, test`."""
    return data.replace(",", " ").split()[0]


def _score(report: Report, metric: str, factor: float) -> float | None:
    score = report.metrics.get(OTHER_METRICS.get(metric, metric))
    if score is None and metric in OTHER_METRICS:
        score = report.metrics.get("bits_per_dimension")
    return None if score is None else score * factor


def _fits(report: Report, dataset: str, wanted: dict) -> bool:
    """Whether a report is on the data set, with all wanted settings: a value or one of a list."""
    have = {key: report.settings.get(key) for key in wanted}
    fitting = (have[k] in v if isinstance(v, list) else have[k] == v for k, v in wanted.items())
    return first_word(report.dataset) == dataset and all(fitting)


def _cell(printed: float | None, ours: float | None, decimals: int, comparable: bool) -> str:
    before = "" if printed is None else f"{printed:,.{decimals}f}"
    if ours is None:
        return before
    now = f"→ {round(ours, decimals) + 0.0:,.{decimals}f}"  # + 0.0 turns -0.00 into 0.00.
    if printed is None:
        return now
    return f"{before} {now}" + (f" ({ours - printed:+,.{decimals}f})" if comparable else "")
