"""The items: the paper's tables and figures, each made of the results of steps, with a note."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from geoflow.paper import figures, point_sets, tables
from geoflow.paper.results import Result
from geoflow.scores.evaluation import Report

TEXTS = tables.read_yaml("items")
Results = dict[str, Result]  # by step


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper; see `data/paper/items.yaml`."""

    title: str
    steps: tuple[str, ...]
    note: str
    table: Callable[[Results], str]  # as Markdown
    figure: Callable[[Results], Any] | None = None  # None for a table

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


def figure_item(number: str) -> Item:
    """A figure of one step, and the same as a table."""
    name = f"fig{number}"
    draw, numbers = (getattr(figures, f"{kind}_{number}") for kind in ("figure", "numbers"))
    return item(name, lambda r: numbers(r[name].values), lambda r: draw(r[name].values))


def answers(results: Results) -> dict[str, dict]:
    """Method → its answer in figure A."""
    return {step.removeprefix("figA-"): result.values for step, result in results.items()}


def runs_and_densities(results: Results) -> tuple[list[dict], list[dict], dict[str, dict]]:
    """Of earth events: runs, runs that take each place once, and events → packed density map."""
    runs: dict[bool, list[dict]] = {False: [], True: []}
    densities = {}
    for step, result in results.items():
        runs[step.endswith("-distinct")] += result.values.get("runs", [])
        if "density" in result.values:
            densities[step.split("-")[1]] = result.values["density"]
    return runs[False], runs[True], densities


def events_figure(results: Results) -> Any:
    """Densities, and test NLL beside the published one."""
    runs, _, densities = runs_and_densities(results)
    return figures.figure_events(runs, densities)


def events_table(results: Results) -> str:
    """Three tables of test NLL, and the integrals of the densities."""
    runs, distinct, densities = runs_and_densities(results)
    integrals = [f"{name} {density['integral']:.4f}" for name, density in densities.items()]
    parts = [
        point_sets.table(runs),
        "The same models, judged by the test events at places that training did not have:",
        point_sets.table(runs, "new"),
        "Trained and judged with each place taken once:",
        point_sets.table(distinct),
        f"Integrals of the maps, of split 0: {', '.join(integrals)}.",
    ]
    if "events-volcano-integral" in results:
        found = results["events-volcano-integral"].values
        number = f"{found['integral']:.4f} ± {found['error']:.4f}"
        parts.append(f"Integral of volcano by importance sampling, without a grid: {number}.")
    return "\n\n".join(parts)


ITEMS = {
    **{name: table_item(name) for name in ("table1", "table2", "tableB")},
    **{f"fig{number}": figure_item(number) for number in "124567"},
    "figA": item(
        "figA", lambda r: figures.numbers_a(answers(r)), lambda r: figures.figure_a(answers(r))
    ),
    "tableA": table_item("tableA"),
    "earth-events": item("earth-events", events_table, events_figure),
}
ALL = tuple(name for name in ITEMS if name != "earth-events")  # the paper's own

# Figures of the paper with nothing to compute, and where to look.
ELSEWHERE = {
    "fig3": "figure 3 is a scheme of what figure 1 shows: `geoflow reproduce fig1`",
    "figB": "figure B draws the architecture: notebook 04 builds it",
}


def steps_of(names: Iterable[str]) -> list[str]:
    """The steps of some items, each once."""
    return list(dict.fromkeys(step for name in names for step in ITEMS[name].steps))
