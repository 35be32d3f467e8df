"""The paper's tables beside ours: which of our reports belongs to which printed row, and how far apart the numbers are.

The printed numbers stand in `data/paper/tables.yaml`; ours are read from reports, never typed.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from geoflow import settings
from geoflow.checks import choose
from geoflow.evaluation import Report, read_report


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
    """

    title: str
    columns: tuple[str, ...]
    decimals: tuple[int, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """The table as Markdown: `printed → ours (difference)` in each cell."""
        rows = [f"**{self.title}** (printed → ours, difference)", "", f"| method | {' | '.join(self.columns)} |"]
        rows.append("|---" * (1 + len(self.columns)) + "|")
        for line in self.lines:
            cells = [_cell(*cell) for cell in zip(line.paper, line.ours, self.decimals, strict=True)]
            rows.append(f"| {line.row} | {' | '.join(cells)} |")
        return "\n".join([*rows, "", *self.notes])


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
        str(file.relative_to(folder)): read_report(file) for file in files if file.name not in ("run.json", "done.json", "config.json")
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
        found = {file: r for file, r in reports.items() if wanted and _belongs(r, dataset or published["dataset"], wanted[0])}
        for file, report in found.items():
            scores = [_score(report, metric) for metric, _factor, _decimals in columns.values()]
            ours = [None if s is None else s * factor for s, (_, factor, _) in zip(scores, columns.values(), strict=True)]
            lines.append(Line(row, tuple(printed), tuple(ours), file))
            notes.append(f"- {row}: {file}, {report.table().splitlines()[0]}")
        if not found:
            lines.append(Line(row, tuple(printed), (None,) * len(columns), None))
    decimals = tuple(decimals for _, _, decimals in columns.values())
    return Table(published["title"], tuple(columns), decimals, tuple(lines), tuple(notes))


def _published() -> dict:
    return yaml.safe_load((settings.DATA / "paper" / "tables.yaml").read_text(encoding="utf-8"))


def _belongs(report: Report, dataset: str, wanted: dict) -> bool:
    """Whether a report is on the data set and has all the settings that are wanted, each a value or one of a list."""
    allowed = {key: value if isinstance(value, list) else [value] for key, value in wanted.items()}
    on_it = report.dataset.replace(",", " ").split()[0] == dataset
    return on_it and all(report.settings.get(key) in values for key, values in allowed.items())


def _score(report: Report, metric: str) -> float | None:
    if metric == "paper_bits":  # of R³ methods the paper prints the density in R³
        return report.metrics.get("ambient_bits_per_dimension", report.metrics.get("bits_per_dimension"))
    return report.metrics.get(metric)


def _cell(printed: float | None, ours: float | None, decimals: int) -> str:
    before = "" if printed is None else f"{printed:,.{decimals}f}"
    if ours is None:
        return before
    if printed is None:
        return f"→ {ours:,.{decimals}f}"
    return f"{before} → {ours:,.{decimals}f} ({ours - printed:+,.{decimals}f})"
