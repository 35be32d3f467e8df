"""The paper's tables beside ours: which of our reports belongs to which printed row, and how far apart the numbers are.

The printed numbers stand in `data/paper/tables.yaml`; ours are read from reports, never typed.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from geoflow import runtime
from geoflow.evaluation import Report, read_report
from geoflow.runtime import choose


@dataclass(frozen=True)
class Line:
    """A row of the paper beside one of our reports, if there is one.

    Attributes:
        row: its name in the paper.
        paper: the printed numbers, in the order of the columns; None where nothing is printed.
        ours: our numbers, likewise.
        source: the report's file, or None.
    """

    row: str
    paper: tuple[float | None, ...]
    ours: tuple[float | None, ...]
    source: str | None


@dataclass(frozen=True)
class Table:
    """One of the paper's tables, with ours beside it.

    Attributes:
        title: what it is.
        columns: their names.
        decimals: of each column.
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
        """The table as Markdown: `printed → ours (difference)` in each cell; the difference only where the data are the same."""
        how = (
            "printed → ours, difference"
            if self.comparable
            else f"printed, on {self.printed_on} → ours, on {self.ours_on}: other data"
        )
        rows = [f"**{self.title}** ({how})", "", f"| method | {' | '.join(self.columns)} |"]
        rows.append("|---" * (1 + len(self.columns)) + "|")
        for line in self.lines:
            cells = [
                _cell(*cell, self.comparable)
                for cell in zip(line.paper, line.ours, self.decimals, strict=True)
            ]
            rows.append(f"| {line.row} | {' | '.join(cells)} |")
        return "\n".join([*rows, "", *self._orders(), *self.notes])

    def orders(self) -> tuple[list[str], list[str]]:
        """Rows that have both numbers, best first: in the paper's order, and in ours."""
        column, high = self.columns.index(self.ranked_by[0]), self.ranked_by[1]
        both = [
            line
            for line in self.lines
            if line.paper[column] is not None and line.ours[column] is not None
        ]
        ranked = [
            sorted(both, key=lambda line: side(line)[column], reverse=high)
            for side in (lambda x: x.paper, lambda x: x.ours)
        ]
        printed, ours = ([line.row for line in lines] for lines in ranked)
        return printed, ours

    def _orders(self) -> list[str]:
        printed, ours = self.orders()
        if len(ours) < 2:
            return []
        lines = [
            f"- order by {self.ranked_by[0]}, printed: {' > '.join(printed)}",
            f"- ours: {' > '.join(ours)}",
        ]
        return (
            lines
            if printed != ours
            else [f"- order by {self.ranked_by[0]}, printed and ours: {' > '.join(ours)}"]
        )


def names() -> list[str]:
    """The tables there are."""
    return list(_published())


def read_reports(folder) -> dict[str, Report]:
    """All reports below a folder, by their path in it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: one is damaged or of another version.
    """
    files = sorted(Path(folder).rglob("*.json"))
    reports = {
        str(file.relative_to(folder)): read_report(file)
        for file in files
        if file.name not in ("run.json", "done.json", "config.json")
    }
    if not reports:
        raise FileNotFoundError(f"no reports (*.json, from `geoflow evaluate --out`) in {folder}")
    return reports


def table(name: str, reports: dict[str, Report], dataset: str | None = None) -> Table:
    """A table of the paper with our reports beside its rows.

    Args:
        name: see `names`.
        reports: file → report.
        dataset: whose reports to take; default: the table's own data set.

    Raises:
        ValueError: an unknown table.
    """
    published = _published()[choose("table", name, names())]
    columns = published["columns"]
    lines, notes = [], []
    for row, (printed, *wanted) in published["rows"].items():
        found = {
            file: r
            for file, r in reports.items()
            if wanted and _belongs(r, dataset or published["dataset"], wanted[0])
        }
        for file, report in found.items():
            scores = [_score(report, metric) for metric, _factor, _decimals in columns.values()]
            ours = [
                None if s is None else s * factor
                for s, (_, factor, _) in zip(scores, columns.values(), strict=True)
            ]
            lines.append(Line(row, tuple(printed), tuple(ours), file))
            notes.append(f"- {row}: {file}, {report.table().splitlines()[0]}")
        if not found:
            lines.append(Line(row, tuple(printed), (None,) * len(columns), None))
    decimals = tuple(decimals for _, _, decimals in columns.values())
    ranked_by, high = published["ranked_by"]
    return Table(
        published["title"], tuple(columns), decimals, tuple(lines), tuple(notes),
        published["dataset"], dataset or published["dataset"], (ranked_by, high == "high"),
    )  # fmt: skip


def figures() -> dict:
    """What figures print in numbers, see `data/paper/figures.yaml`."""
    return yaml.safe_load((runtime.DATA / "paper" / "figures.yaml").read_text(encoding="utf-8"))


def _published() -> dict:
    return yaml.safe_load((runtime.DATA / "paper" / "tables.yaml").read_text(encoding="utf-8"))


def _belongs(report: Report, dataset: str, wanted: dict) -> bool:
    """Whether a report is on the data set and has all the settings that are wanted, each a value or one of a list."""
    allowed = {key: value if isinstance(value, list) else [value] for key, value in wanted.items()}
    on_it = report.dataset.replace(",", " ").split()[0] == dataset
    return on_it and all(report.settings.get(key) in values for key, values in allowed.items())


def _score(report: Report, metric: str) -> float | None:
    if metric == "paper_bits":  # of R³ methods the paper prints the density in R³
        return report.metrics.get(
            "ambient_bits_per_dimension", report.metrics.get("bits_per_dimension")
        )
    if metric == "sampled_bits":  # of a guided row that of the guided field, if it was computed
        return report.metrics.get(
            "guided_bits_per_dimension", report.metrics.get("bits_per_dimension")
        )
    return report.metrics.get(metric)


def _cell(printed: float | None, ours: float | None, decimals: int, comparable: bool) -> str:
    before = "" if printed is None else f"{printed:,.{decimals}f}"
    if ours is None:
        return before
    now = f"{round(ours, decimals) + 0.0:,.{decimals}f}"  # + 0.0: no -0.00
    if printed is None:
        return f"→ {now}"
    return f"{before} → {now}" + (f" ({ours - printed:+,.{decimals}f})" if comparable else "")
