"""The items: the paper's tables and figures, each made of the results of steps, with a note."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from geoflow.paper import figures, point_sets, tables
from geoflow.paper.results import Result
from geoflow.scores.evaluation import Report

TEXTS = tables.read_yaml("items")
Results = dict[str, Result]
"""Step → result."""


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper.

    Attributes:
        title, steps, note: see `data/paper/items.yaml`.
        table: results → Markdown.
        figure: results → a figure; None for a table.
    """

    title: str
    steps: tuple[str, ...]
    note: str
    table: Callable[[Results], str]
    figure: Callable[[Results], Any] | None = None

    def done(self, results: Results) -> Results:
        """Those of some results that it shows."""
        return {step: results[step] for step in self.steps if step in results}


def item(name: str, table: Callable[[Results], str], figure: Callable | None = None) -> Item:
    """The item of this name."""
    text = TEXTS[name]
    return Item(text["title"], tuple(text["steps"]), text["note"], table, figure)


def table_item(name: str) -> Item:
    """A table of the paper, of our data set or else of OpenStreetView-5M, beside our scores."""

    scored = [step for step in TEXTS[name]["steps"] if step.startswith("score-")]

    def table(results: Results) -> str:
        done = [step for step in scored if step in results]
        if not done:
            return "none of its rows has been scored"
        reports = {step: Report(**results[step].values) for step in done}
        dataset = tables.first_word(reports[done[0]].dataset)
        fitting = (name, f"{name}-{dataset}", f"{name}-osv5m")
        printed = next(table for table in fitting if table in tables.names())
        return tables.table(printed, reports, dataset).markdown()

    return item(name, table)


def figure_item(step: str, draw: Callable[[dict], Any], numbers: Callable[[dict], str]) -> Item:
    """A figure of one step, and the same as a table."""
    return item(step, lambda r: numbers(r[step].values), lambda r: draw(r[step].values))


def answers(results: Results) -> dict[str, dict]:
    """Method → its answer in figure A."""
    return {step.removeprefix("figA-"): result.values for step, result in results.items()}


def runs_of(results: Results, distinct: bool = False) -> list[dict]:
    """Runs on earth events, those that take each place once or the others."""
    steps = [step for step in results if "runs" in results[step].values]
    steps = [step for step in steps if step.endswith("-distinct") == distinct]
    return [run for step in steps for run in results[step].values["runs"]]


def densities_of(results: Results) -> dict[str, dict]:
    """Events → packed map of their density."""
    maps = [step for step in results if "density" in results[step].values]
    return {step.split("-")[1]: results[step].values["density"] for step in maps}


def events_figure(results: Results) -> Any:
    """Densities, and test NLL beside the published one."""
    return figures.figure_events(runs_of(results), densities_of(results))


def events_table(results: Results) -> str:
    """Three tables of test NLL, and the integrals of the densities."""
    runs, densities = runs_of(results), densities_of(results)
    integrals = [f"{name} {density['integral']:.4f}" for name, density in densities.items()]
    parts = [
        point_sets.table(runs),
        "The same models, judged by the test events at places that training did not have:",
        point_sets.table(runs, "new"),
        "Trained and judged with each place taken once:",
        point_sets.table(runs_of(results, distinct=True)),
        f"Integrals of the maps, of split 0: {', '.join(integrals)}.",
    ]
    if "events-volcano-integral" in results:
        found = results["events-volcano-integral"].values
        number = f"{found['integral']:.4f} ± {found['error']:.4f}"
        parts.append(f"Integral of volcano by importance sampling, without a grid: {number}.")
    return "\n\n".join(parts)


ITEMS = {
    "table1": table_item("table1"),
    "table2": table_item("table2"),
    "tableB": table_item("tableB"),
    "fig1": figure_item("fig1", figures.figure_1, figures.numbers_1),
    "fig2": figure_item("fig2", figures.figure_2, figures.numbers_2),
    "fig4": figure_item("fig4", figures.figure_4, figures.numbers_4),
    "fig5": figure_item("fig5", figures.figure_5, figures.numbers_5),
    "fig6": figure_item("fig6", figures.figure_6, figures.numbers_6),
    "fig7": figure_item("fig7", figures.figure_7, figures.numbers_7),
    "figA": item(
        "figA", lambda r: figures.numbers_a(answers(r)), lambda r: figures.figure_a(answers(r))
    ),
    "tableA": table_item("tableA"),
    "earth-events": item("earth-events", events_table, events_figure),
}
"""What can be run."""

ALL = tuple(name for name in ITEMS if name != "earth-events")
"""The paper's own items, in the order of `all`."""

ELSEWHERE = {
    "fig3": "figure 3 is a scheme of what figure 1 shows: `geoflow reproduce fig1`",
    "figB": "figure B draws the architecture: notebook 04 builds it",
}
"""Figures of the paper with nothing to compute, and where to look."""


def steps_of(names: Iterable[str]) -> list[str]:
    """The steps of some items, each once."""
    return list(dict.fromkeys(step for name in names for step in ITEMS[name].steps))
